"""rclib.experiments.mean_field.figure_4_3: curves and gaps against single runs made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset, load
from rclib.experiments.mean_field import figure_4_3
from rclib.experiments.mean_field.mlp_runs import restore, train_mlp
from rclib.resizing import mlp

OPTIONS: dict[str, Any] = {"lr": 0.3, "batch_size": 40, "parametrization": "MF"}


@pytest.fixture(scope="module")
def few() -> Dataset:
    return load("digits").subset(120, 40)


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    # One for this file: what one test has trained, the others find.
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path_factory.getbasetemp() / "runs of figure 4.3"))


def by_hand(few: Dataset, width: int, seed: int, epochs: int) -> dict[str, np.ndarray]:
    found = figure_4_3.source(width=width, seed=seed, epochs=epochs, transfer_epoch=1, **OPTIONS)
    return train_mlp(few, **found)


def test_curves_from_different_starts(few: Dataset) -> None:
    starts = {"narrow": {"scale": 0.1}, "wide": {"kind": "gaussian", "scale": 2.0}}
    found = figure_4_3.from_starts(few, starts=starts, seeds=[0, 2], epochs=2, width=5, **OPTIONS)
    assert list(found.columns) == figure_4_3.COLUMNS
    assert len(found) == 2 * 2 * 3
    run = train_mlp(
        few,
        network={"width": 5, "init": starts["wide"], "parametrization": "MF"},
        seed=2,
        epochs=2,
        lr=0.3,
        batch_size=40,
    )
    part = found[(found.name == "wide") & (found.seed == 2)]
    assert list(part.epoch) == [0, 1, 2]
    for key in ("train_loss", "test_loss", "test_accuracy"):
        np.testing.assert_allclose(part[key], run[key])


def test_transferred_curves_go_on_where_the_source_stopped(few: Dataset) -> None:
    curves, copies = figure_4_3.transfers(
        few,
        from_width=4,
        to_width=6,
        transfer_epoch=1,
        rates=[(0.0, 1.0), (1.0, 0.9)],
        seeds=[0, 1],
        epochs=3,
        **OPTIONS,
    )
    spans = curves.groupby("name").epoch.agg(["min", "max"])
    assert spans.loc["N = 4, source"].tolist() == [0, 1]
    assert spans.loc["N = 6 from start"].tolist() == [0, 3]
    for name in ("r1 = 0, r2 = 1", "r1 = 1, r2 = 0.9"):
        assert spans.loc[name].tolist() == [1, 3]
    whole = by_hand(few, 4, 1, 3)
    part = curves[(curves.name == "N = 4, source") & (curves.seed == 1)]
    np.testing.assert_allclose(part.test_loss, whole["test_loss"][:2])
    # Right after the transfer: the network resized by hand.
    config = figure_4_3.source(width=4, seed=1, epochs=3, transfer_epoch=1, **OPTIONS)
    small, _ = restore(few, config, 1)
    with torch.no_grad():
        moved = mlp.resize(small, 6, seed=1)(few.x_test)
    first = curves[(curves.name == "r1 = 0, r2 = 1") & (curves.seed == 1)].iloc[0]
    assert first.test_loss == pytest.approx(float(cross_entropy(moved, few.y_test)), rel=1e-5)
    assert len(copies) == 4
    # Copies of one neuron stay together under r1 = 0 more than when each tensor draws anew.
    spread = copies.groupby("r1").copy_spread.mean()
    assert 0 <= spread[0.0] < spread[1.0]


def test_zero_shot_table(few: Dataset) -> None:
    table = figure_4_3.zero_shot_table(
        few,
        from_width=4,
        to_width=8,
        transfer_epoch=1,
        random_rates=[0.0, 1.0],
        norm_rates=[1.0, 0.5],
        draws=2,
        seeds=[0, 1],
        epochs=3,
        **OPTIONS,
    )
    assert len(table) == 2 * 2 * 2
    config = figure_4_3.source(width=4, seed=1, epochs=3, transfer_epoch=1, **OPTIONS)
    small, run = restore(few, config, 1)
    losses = []
    for draw in range(2):
        moved = mlp.resize(small, 8, random_rate=1.0, norm_rate=0.5, seed=draw)
        with torch.no_grad():
            losses.append(float(cross_entropy(moved(few.x_test), few.y_test)))
    row = table[(table.seed == 1) & (table.r1 == 1.0) & (table.r2 == 0.5)].iloc[0]
    assert row.loss == pytest.approx(np.mean(losses))
    assert row.source_loss == pytest.approx(run["test_loss"][1], rel=1e-5)
    start, reached = run["test_loss"][0], run["test_loss"][1]
    assert row.lost == pytest.approx((np.mean(losses) - reached) / (start - reached), rel=1e-4)


def test_gap_curves(few: Dataset) -> None:
    by_target, by_source = figure_4_3.gap_curves(
        few,
        source_widths=[4, 6],
        target_widths=[6, 12],
        transfer_epoch=1,
        draws=2,
        seeds=[0, 1],
        epochs={4: 3},
        **OPTIONS,
    )
    assert len(by_target) == 2 * 2 * 2
    assert len(by_source) == 2 * 2
    assert set(by_source.target) == {12}
    # Width 4 was trained to epoch 3 for other panels, width 6 just to the transfer.
    config = figure_4_3.source(width=4, seed=1, epochs=3, transfer_epoch=1, **OPTIONS)
    small, run = restore(few, config, 1)
    far, _ = restore(
        few, figure_4_3.source(width=6, seed=0, epochs=1, transfer_epoch=1, **OPTIONS), 1
    )
    losses, distances = [], []
    with torch.no_grad():
        reference = far(few.x_test)
        for draw in range(2):
            logits = mlp.resize(small, 12, seed=draw)(few.x_test)
            losses.append(float(cross_entropy(logits, few.y_test)))
            distances.append(float((logits - reference).square().mean().sqrt()))
        there = float(cross_entropy(reference, few.y_test))
    near = by_target[(by_target.source == 4) & (by_target.target == 12) & (by_target.seed == 1)]
    assert near.gap.item() == pytest.approx(np.mean(losses) - run["test_loss"][1], abs=1e-5)
    wide = by_source[(by_source.source == 4) & (by_source.seed == 1)]
    assert wide.gap.item() == pytest.approx(np.mean(losses) - there, abs=1e-5)
    assert wide.distance.item() == pytest.approx(np.mean(distances), rel=1e-5)


def test_pooled_exponent_of_an_exact_law_and_of_a_spread() -> None:
    rows = [(n, seed, 5.0 * n**-0.5) for n in (8, 32, 128) for seed in range(3)]
    exact = pd.DataFrame(rows, columns=["target", "seed", "gap"])
    assert figure_4_3.pooled_exponent(exact, x="target", y="gap") == pytest.approx((-0.5,) * 3)
    # Two seeds with slopes -1/2 and -1: leaving one out leaves the other's slope.
    rows = [(n, seed, float(n) ** power) for n in (8, 32) for seed, power in ((0, -0.5), (1, -1))]
    value, low, high = figure_4_3.pooled_exponent(
        pd.DataFrame(rows, columns=["target", "seed", "gap"]), x="target", y="gap"
    )
    half = stats.t.ppf(0.975, 1) * np.sqrt(0.5 * 2 * 0.25**2)
    assert (value - low, high - value) == pytest.approx((half, half))
    assert -1 < value < -0.5
    with pytest.raises(ValueError, match="at least two seeds"):
        figure_4_3.pooled_exponent(exact[exact.seed == 0], x="target", y="gap")


def test_rows_by_seed() -> None:
    table = pd.DataFrame({"r1": [0.0, 0.0, 1.0], "r2": 1.0, "seed": [0, 1, 0], "lost": [1, 2, 3]})
    assert figure_4_3.at_rates(table, 0.0, 1.0).lost.to_dict() == {0: 1, 1: 2}
    with pytest.raises(ValueError, match=r"the table has no rows of r1 = 0\.5, r2 = 1"):
        figure_4_3.at_rates(table, 0.5, 1.0)
    curves = pd.DataFrame({"name": "a", "epoch": [0, 1], "seed": 4, "test_loss": [2.0, 1.0]})
    assert figure_4_3.at_epoch(curves, "a", 1).test_loss.to_dict() == {4: 1.0}
    with pytest.raises(ValueError, match="the table has no rows of 'a' after epoch 2"):
        figure_4_3.at_epoch(curves, "a", 2)
