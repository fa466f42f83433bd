"""experiments.beyond.spikes_are_rc: runs and frames against the library by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rclib.data.images import Dataset
from rclib.experiments.beyond import networks, spikes_are_rc
from rclib.runs.store import Arrays
from rclib.spectral import spectra
from rclib.spectral.power_law import power_law
from rclib.spectral.split import split_svd
from rclib.teacher.evaluation import evaluate_student
from rclib.teacher.problem import make_problem
from rclib.teacher.record import train_student
from rclib.training.classifier import evaluate

NETWORK: dict[str, Any] = {"width": 40, "epochs": 1, "batch_size": 50}
STUDENT = {**spikes_are_rc.TINY["split_student"]}
RANKS = [1, 4]
Found = tuple[pd.DataFrame, dict[tuple[str, float, int], Arrays]]


@pytest.fixture(scope="module")
def few() -> Dataset:
    return networks.load_images("digits", 150, 50)


@pytest.fixture(scope="module")
def found(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        given = ("d", "h", "n", "n_test", "noise", "steps", "products")
        yield spikes_are_rc.frame(
            few, network=NETWORK, rates={"MF": [0.5], "SP": [0.1]}, products=3, ranks=RANKS,
            student={name: STUDENT[name] for name in given},
            student_rates={"gd": [10.0, 200.0], "adam": [0.5]}, seeds=[0, 1],
        )  # fmt: skip


def test_one_row_a_matrix_of_every_arm_rate_and_seed(found: Found) -> None:
    table, runs = found
    assert len(table) == len(runs) == 2 * (2 + 3)
    assert list(runs) == list(zip(table.arm, table.rate, table.seed, strict=True))
    shares = table[["kept", "kept_variables", "kept_start", "kept_shuffled"]]
    assert shares.min().min() >= 0
    assert shares.max().max() <= 1
    assert (table.kept >= table.kept_variables - 1e-12).all()
    assert (table.kept_variables >= table.kept_start - 1e-12).all()
    assert (table.owned <= table.found).all()


def test_a_network_is_measured_as_by_hand(few: Dataset, found: Found) -> None:
    table, runs = found
    config = networks.configuration(
        parametrization="MF", start="zero mean", seed=1, lr=0.5, keep=["*"], snapshots=[0, 1],
        **NETWORK,
    )  # fmt: skip
    run = networks.train_network(few, **config)
    before, after = (run[f"{epoch}/W2"].astype(float) for epoch in (0, 1))
    row = table[(table.arm == "MF") & (table.seed == 1)].iloc[0]
    split = split_svd(after, before, products=3)
    assert row.kept == pytest.approx(split.kept)
    without = spectra.esd(before + split.rest)
    assert row.alpha_hill_without == pytest.approx(power_law(without).alpha)
    assert row.alpha_ks_whole == pytest.approx(power_law(spectra.esd(after), "ks").alpha)
    four = split_svd(after, before, products=4)
    left = spectra.esd(after - four.row_column)
    assert row.alpha_4 == pytest.approx(power_law(left).alpha)
    # The variance is that of the law: under MF a hidden weight has one.
    one = runs["MF", 0.5, 1]
    assert one["edge"].item() == pytest.approx(4 * 40)
    np.testing.assert_allclose(one["places"][0], spectra.esd(after)[::-1][:3])
    np.testing.assert_allclose(one["places"][1], spectra.esd(before + split.row_column)[::-1][:3])

    model = networks.build(few, parametrization="MF", start="zero mean", width=40, seed=10_040)
    model.load_state_dict(networks.state_at(run, 1))
    assert row.loss_whole == pytest.approx(evaluate(model, few.x_test, few.y_test)[0], rel=1e-5)
    model.load_state_dict(networks.state_at(run, 1) | {"W2": torch.from_numpy(run["0/W2"])})
    assert row.loss_start == pytest.approx(evaluate(model, few.x_test, few.y_test)[0], rel=1e-5)


def test_a_student_is_measured_as_by_hand(found: Found) -> None:
    table, _ = found
    sizes = {name: STUDENT[name] for name in ("d", "h", "n", "n_test", "noise")}
    problem = make_problem(1, **sizes)
    W = train_student(problem, optimizer="gd", rate=10.0, steps=2, quantities=["weights"])[
        "weights"
    ][-1]
    row = table[(table.arm == "gd") & (table.rate == 10.0) & (table.seed == 1)].iloc[0]
    split = split_svd(W, problem.W0, products=2)
    assert row.kept == pytest.approx(split.kept)
    assert row.loss_whole == pytest.approx(evaluate_student(problem, W).test_loss, rel=1e-4)
    assert row.loss_start == pytest.approx(
        evaluate_student(problem, problem.W0).test_loss, rel=1e-4
    )
    assert row.loss_released_whole != pytest.approx(row.loss_whole, rel=1e-3)


def test_one_step_of_gd_is_explained_by_a_and_the_labels() -> None:
    """For a small preactivation the first gradient is a (Xᵀ residual)ᵀ: both are variables."""
    given = {**STUDENT, "steps": 1, "d": 60, "h": 90, "n": 4000, "products": 1, "ranks": [1]}
    run = spikes_are_rc.split_student(None, **given)
    kept = dict(zip(("svd", "variables", "start", "shuffled"), run["kept"], strict=True))
    assert kept["svd"] > 0.8
    assert kept["variables"] > 0.9 * kept["svd"]
    assert kept["shuffled"] < 0.05
