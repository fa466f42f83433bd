"""rclib.experiments.mean_field.table_1: the table, and slopes of laws that are known."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from rclib.data.images import load
from rclib.experiments.mean_field import table_1
from rclib.experiments.mean_field.coordinates import coordinate_check


def test_exponents_are_those_of_the_module_docstring() -> None:
    table = table_1.exponent_table(["SP", "MF", "muP"]).set_index(["parametrization", "layer"])
    assert len(table) == 15
    # The table of `rclib.nets.parametrization`, read off by eye: multiplier, init, SGD, Adam.
    assert table.loc["SP", "hidden"].tolist() == [0, -0.5, 0, 0]
    assert table.loc["MF", "hidden"].tolist() == [-1, 0, 2, 0]
    assert table.loc["MF", "input"].tolist() == [0, 0, 1, 0]
    assert table.loc["muP", "hidden"].tolist() == [0, -0.5, 0, -1]
    assert table.loc["muP", "output"].tolist() == [-1, 0, 1, 0]
    assert table.loc["MF", "bias"].tolist() == [0, 0, 1, 0]


def test_sizes_are_those_of_single_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path))
    few = load("digits").subset(60, 20)
    starts = {"MF": {"scale": 1.0}, "muP": {"kind": "gaussian", "scale": 1.0}}
    sizes = table_1.check_sizes(
        few,
        starts=starts,
        optimizers={"sgd": 0.1, "adam": 0.01},
        widths=[4, 8],
        seeds=[0, 1],
        steps=3,
        batch_size=20,
    )
    assert len(sizes) == 2 * 2 * 2 * 2 * 3 * 3  # ..., quantities, layers
    run = coordinate_check(
        few,
        network={"width": 8, "parametrization": "muP", "init": starts["muP"]},
        seed=1,
        optimizer="adam",
        lr=0.01,
        steps=[1, 3],
        batch_size=20,
    )
    part = sizes[
        (sizes.parametrization == "muP")
        & (sizes.optimizer == "adam")
        & (sizes.width == 8)
        & (sizes.seed == 1)
    ]
    for quantity, values in (("start", run["start"]), ("update", run["update"][0])):
        assert part[part.quantity == quantity].rms.tolist() == pytest.approx(values.tolist())
    assert part[part.quantity == "change"].rms.tolist() == pytest.approx(run["change"][1].tolist())


def test_slopes_stand_beside_their_predictions() -> None:
    rows = [
        ("MF", "sgd", layer, n, 0, quantity, 2.0 * n**power)
        for layer in (1, 2, 3)
        for n in (8, 16, 64)
        for quantity, power in (("start", -0.25), ("update", 0.5), ("change", 0.0))
    ]
    names = ["parametrization", "optimizer", "layer", "width", "seed", "quantity", "rms"]
    found = table_1.slopes(pd.DataFrame(rows, columns=names))
    assert len(found) == 9
    for row in found.itertuples():
        power = {"start": -0.25, "update": 0.5, "change": 0.0}[row.quantity]
        assert row.slope == pytest.approx(power, abs=1e-12)
        if row.quantity == "start":
            assert math.isnan(row.predicted)
        elif row.quantity == "change":
            assert row.predicted == 0.0
    # By hand: the error is N^-1 at h2 and N^(-1 - 1 + 1/2) at h1; the rate of W1 is N^1.
    assert found[found.quantity == "update"].predicted.tolist() == [-0.5, 0.0, 0.0]
