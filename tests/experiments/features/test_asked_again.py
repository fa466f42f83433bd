"""features.asked_again: against notebooks 70 and 73's own runs, and correlations done by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr
from stored_runs import tiny

from rclib.experiments.features import asked_again as experiment
from rclib.experiments.features import asked_again_runs as runs
from rclib.experiments.features import bandlimited, locality_runs
from rclib.experiments.features import locality_weight_sharing as locality
from rclib.experiments.features import plots_asked_again as plots
from rclib.rowcolumn.measure import chance_level

TRAINING: dict[str, Any] = {
    "lam": 1.0, "width": 8, "frequency": 2, "rate": 0.03, "steps": 30, "n": 40, "n_test": 30,
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "k": 4, "d": 3, "n": 20, "sigma": 0.3, "bias": [0.1, 0.3], "steps": 4, "at": [4, 2],
    "n_valid": 40, "n_test": 50,
}  # fmt: skip
GRIDS = {"LCN": [0.1, 1.0, 3.0], "FCN": [0.03, 0.3]}


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path_factory.getbasetemp() / "runs of 77"))


def test_networks_are_those_of_notebook_70() -> None:
    """Correlations of its stored run, from the weights kept here."""
    units = experiment.units_frame([3, 1], TRAINING)
    assert list(units.groupby("seed", sort=False).size()) == [8, 8]
    theirs = bandlimited.trained_frame(
        [3, 1],
        {k: v for k, v in TRAINING.items() if k not in ("frequency", "width")} | {"penalty": 1e-6},
        [[2, 8]],
    )
    tied = experiment.tied_frame(units)
    assert list(tied.seed) == [3, 1]
    np.testing.assert_allclose(tied.signed, theirs.tied, rtol=1e-12)
    one = runs.weights_run(None, seed=3, **TRAINING)
    largest = np.abs(one["end"][:2]).max()
    assert largest == pytest.approx(theirs.largest[0])
    assert one["start"].shape == (2, 8)
    assert np.abs(one["start"]).max() <= 1


def test_the_error_is_that_of_the_network_as_trained() -> None:
    """Without a training c is zero, and so is the function."""
    assert runs.weights_run(None, **{**tiny("features.asked_again_runs.weights_run"), "steps": 0})[
        "error"
    ] == pytest.approx(1.0)
    few, many = (
        runs.weights_run(None, seed=0, **{**TRAINING, "frequency": 1, "steps": steps})["error"]
        for steps in (3, 400)
    )
    assert many < 0.5 < few


def test_correlations_by_hand() -> None:
    g = np.random.default_rng(0)
    size = g.gamma(1.0, size=60)
    signs = g.choice([-1.0, 1.0], size=(2, 60))
    units = pd.DataFrame({
        "seed": 5, "unit": range(60), "first": g.uniform(-1, 1, 60), "a": signs[0] * size,
        "b": 0.0, "c": signs[1] * size**2, "error": 0.25,
    })  # fmt: skip
    found = experiment.tied_frame(units).iloc[0]
    level = chance_level(60)
    assert found.sizes == pytest.approx(pearsonr(size, size**2)[0] / level)
    assert found.ranks == pytest.approx(1 / level)
    assert found.signed == pytest.approx(abs(pearsonr(units.a, units.c)[0]) / level)
    assert found.start == pytest.approx(abs(pearsonr(units["first"].abs(), size**2)[0]) / level)
    assert spearmanr(units.a.abs(), units.c.abs())[0] == pytest.approx(1)
    assert 0.2 < found.shuffled < 0.6  # √(2 / π) / 1.96 = 0.41 for independent ones
    assert found.shuffled < found.shuffled_95 < 1.6
    assert found.error == 0.25
    again = experiment.tied_frame(units).iloc[0]
    assert again.shuffled == found.shuffled


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.getbasetemp() / "runs of 77"))
        return experiment.rates_frame([2, 7], SETTINGS, GRIDS)


def test_rates_are_chosen_as_in_notebook_73(rates: pd.DataFrame) -> None:
    assert len(rates) == 2 * 2 * 2 * (3 + 2)
    arms = [
        {"task": task, "arch": arch, "units": 4, "k": 4, "d": 3, "n": 20}
        for task in experiment.TASKS for arch in experiment.NETWORKS
    ]  # fmt: skip
    shared = {k: v for k, v in SETTINGS.items() if k not in ("k", "d", "n")}
    for grids in (GRIDS, {"LCN": [1.0, 3.0], "FCN": [0.03, 0.3]}):
        theirs = locality.runs_frame(None, [2, 7], arms, {**shared, "rates": grids})
        ours = experiment.chosen_frame(rates, grids)
        both = ours.merge(theirs, on=["task", "arch", "seed"], suffixes=("", "_73"))
        assert len(both) == 8
        np.testing.assert_allclose(both.test, both.accuracy)
        np.testing.assert_allclose(both.rate, both.rate_73)
        np.testing.assert_allclose(both.step, both.step_73)
        np.testing.assert_allclose(both.linear, both.linear_73)
        for task in experiment.TASKS:
            wanted = locality.difference(theirs, 20, (task, "LCN"), (task, "FCN"))
            found = experiment.difference(ours, ours, task)
            pd.testing.assert_series_equal(found, wanted, check_names=False)


def test_every_rate_has_its_best_stopping_time(rates: pd.DataFrame) -> None:
    each = experiment.chosen_frame(rates, each=True)
    assert len(each) == 2 * 2 * 5
    run = locality_runs.patch_run(
        None, **SETTINGS, task="rotated", arch="LCN", units=4, seed=7, rates=GRIDS["LCN"]
    )
    own = each[(each.task == "rotated") & (each.arch == "LCN") & (each.seed == 7)]
    own = own.sort_values("rate")
    np.testing.assert_allclose(own.valid, run["valid"].max(0))
    np.testing.assert_allclose(own.test, run["test"][run["valid"].argmax(0), range(3)])


def test_rates_at_an_end_are_counted() -> None:
    chosen = pd.DataFrame({
        "task": ["rotated"] * 4 + ["moving"], "arch": ["LCN", "FCN"] * 2 + ["LCN"],
        "seed": [1, 1, 2, 2, 1], "rate": [1.0, 0.3, 0.1, 0.03, 0.1],
    })  # fmt: skip
    found = experiment.at_ends(chosen, GRIDS, "rotated")
    assert dict(found) == {1: 0.5, 2: 1.0}


def test_errors_name_the_argument(rates: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"frame has no rates \[7\] of LCN"):
        experiment.chosen_frame(rates, {"LCN": [1.0, 7]})
    with pytest.raises(ValueError, match=r"task must be one of .*, got 'own'"):
        experiment.difference(rates, rates, "own")


def test_figure(rates: pd.DataFrame, tmp_path: Path) -> None:
    units = experiment.units_frame([3, 1], TRAINING)
    each = experiment.chosen_frame(rates, each=True)
    gaps = pd.DataFrame({
        "question": ["a", "a", "b"], "seed": [1, 2, 1], "difference": [0.1, 0.2, -0.3],
    })  # fmt: skip
    figure = plots.again_panels(
        units[units.seed == 3], experiment.tied_frame(units), each[each.task == "rotated"], gaps,
        before={"LCN": [1.0, 3.0], "FCN": [0.03]}, within=0.02,
    )  # fmt: skip
    one, two, three, four = figure.axes
    assert [len(line.get_xdata()) for line in one.lines] == [8, 8]
    assert [t.get_text() for t in two.get_xticklabels()] == list(plots.KINDS.values())
    *curves, best = three.lines
    assert [len(line.get_xdata()) for line in curves] == [3, 2, 2, 1]
    assert best.get_ydata()[0] == pytest.approx(each[each.task == "rotated"].linear.mean())
    assert [t.get_text() for t in four.get_xticklabels()] == ["a", "b"]
    assert list(four.lines[0].get_ydata()) == [0.1, 0.2]
    figure.savefig(tmp_path / "again.png")
