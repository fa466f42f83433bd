"""Notebook 47: its networks and quantities are notebook 42's; choices of rates done by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rclib.data.held_out import held_out
from rclib.data.images import Dataset, load
from rclib.experiments.pruning import asked_again as experiment
from rclib.experiments.pruning import plots_asked_again as plots
from rclib.experiments.pruning import random_claims as claims
from rclib.experiments.pruning.random_pruning import gap, networks

SIZES = experiment.Sizes(
    wide=14, small=8, narrow=6, layers=3, depth_width=9, depths=(1, 2), depth_density=0.4
)
NET: dict[str, Any] = {"pool": 1, "n": 150, "batch_size": 50, "steps": 6}
RATES = [1e-6, 0.003, 0.03, 30.0]
SHARED = 0.003
SEEDS = [3, 8]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("digits").subset(300, 100)


@pytest.fixture(scope="module")
def found(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[experiment.Asked]:
    """Rates of the tuning are given by hand: six updates do not say which is best."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        arms = experiment.arms_of(SIZES)
        own = {name: RATES[1 + place % 2] for place, name in enumerate(arms)}
        with pytest.MonkeyPatch.context() as choice:
            choice.setattr(experiment, "chosen_rates", lambda tuning: own)
            asked = experiment.asked(data, SIZES, RATES, SHARED, 60, [980], SEEDS, NET)
        yield asked


def test_arms_are_those_that_the_questions_compare() -> None:
    arms = experiment.arms_of(SIZES)
    assert list(arms)[:3] == ["dense, 3 x 14", "ER 0.3, 3 x 14", "ER 0.1, 3 x 14"]
    assert len(arms) == 6 + 2 + 1 + 4
    assert arms["ER 0.4, 2 x 9"] == {"width": 9, "layers": 2, "scheme": "ER", "density": 0.4}
    assert arms["dense, 3 x 6"] == {"width": 6, "layers": 3, "scheme": "dense", "density": 1.0}


def test_rates_are_chosen_by_the_mean_and_never_at_an_end() -> None:
    rows = [
        ("a", 0.01, 1, 0.9), ("a", 0.1, 1, 0.5), ("a", 1.0, 1, 0.1), ("a", 10.0, 1, 0.1),
        ("a", 0.01, 2, 0.1), ("a", 0.1, 2, 0.7), ("a", 1.0, 2, 0.4), ("a", 10.0, 2, 0.1),
        ("b", 10.0, 1, 0.2), ("b", 1.0, 1, 0.6), ("b", 0.1, 1, 0.6), ("b", 0.01, 1, 0.3),
    ]  # fmt: skip
    tuning = pd.DataFrame(rows, columns=["arm", "rate", "seed", "accuracy"])
    assert experiment.chosen_rates(tuning) == {"a": 0.1, "b": 0.1}
    for rate in (0.01, 10.0):
        beyond = tuning.copy()
        beyond.loc[(beyond.arm == "b") & (beyond.rate == rate), "accuracy"] = 0.8
        with pytest.raises(ValueError, match=f"grid of rates of 'b' must go on beyond {rate:g}"):
            experiment.chosen_rates(beyond)


def test_questions_are_those_of_notebook_42(data: Dataset, found: experiment.Asked) -> None:
    """Its own plan, networks and functions, at its one rate."""
    own = {"dense": [1.0], "uniform": [0.05], "ER": [0.3, 0.1, 0.05], "ER again": [0.1],
           "ER rescaled": [0.1], "SNIP": [0.05], "SNIP shuffled": [0.05]}  # fmt: skip
    plan: list[dict[str, Any]] = [
        {"width": 14, "layers": 3, "schemes": own},
        {"width": 8, "layers": 3, "schemes": {"dense": [1.0], "ER": [0.1, 0.05]}},
        {"width": 6, "layers": 3, "schemes": {"dense": [1.0]}},
        *({"width": 9, "layers": d, "schemes": {"dense": [1.0], "ER": [0.4]}} for d in (1, 2)),
    ]
    runs = networks(data, SEEDS, plan, {**NET, "rate": SHARED})
    theirs = claims.width_values(runs, small=8, wide=14, narrow=6, collapse=8, layers=3)
    theirs |= {"matches_dense": gap(runs, 14, "ER", 0.3, 3)}
    theirs["depth_closes"] = gap(runs, 9, "ER", 0.4, 2) - gap(runs, 9, "ER", 0.4, 1)
    ours = found.answers("shared")
    assert tuple(ours) == experiment.QUESTIONS
    for question, values in ours.items():
        assert list(values.index) == SEEDS
        assert list(values) == list(theirs[question]), question
    assert any((ours[q] != found.answers("own")[q]).any() for q in ours)


def test_every_arm_has_its_rate(data: Dataset, found: experiment.Asked) -> None:
    arms = experiment.arms_of(SIZES)
    assert len(found.tuning) == len(arms) * len(RATES)
    name = "ER 0.05, 3 x 14"
    rate = found.rates["own"][name]
    plan = [{"width": 14, "layers": 3, "schemes": {"ER": [0.05]}}]
    for images, seeds, frame in (
        (data, SEEDS, found.networks("own")),
        (held_out(data, 60), [980], found.tuning[found.tuning.rate == rate]),
    ):
        alone = networks(images, seeds, plan, {**NET, "rate": rate})
        assert list(frame[frame.arm == name].accuracy) == list(alone.accuracy)
    for choice in experiment.CHOICES:
        own = found.networks(choice)
        assert len(own) == len(arms) * len(SEEDS)
        assert (own.rate == own.arm.map(found.rates[choice])).all()
    curves = experiment.rate_curves(found)
    assert (
        dict(zip(curves[curves.own].arm, curves[curves.own].rate, strict=True))
        == (found.rates["own"])
    )
    assert len(curves) == len(arms) * len(RATES)


def test_gains_changes_and_tables(found: experiment.Asked) -> None:
    gains = []
    for seed in SEEDS:
        per_arm = []
        for arm, rate in found.rates["own"].items():
            rows = found.frame[(found.frame.arm == arm) & (found.frame.seed == seed)]
            by = rows.set_index("rate").accuracy
            per_arm.append(by[rate] - by[SHARED])
        gains.append(np.mean(per_arm))
    np.testing.assert_allclose(experiment.rate_gain(found), gains, atol=1e-12)
    frame = experiment.difference_frame(found)
    assert len(frame) == len(experiment.QUESTIONS) * 2 * len(SEEDS)
    change = experiment.change_frame(found).set_index("question").loc["rescaling_helps"]
    own, shared = (
        frame[(frame.question == "rescaling_helps") & (frame.choice == choice)].value.to_numpy()
        for choice in experiment.CHOICES
    )
    assert change.own == pytest.approx(own.mean())
    assert change.shared == pytest.approx(shared.mean())
    assert change.change == pytest.approx((own - shared).mean())
    assert change.low <= change.change <= change.high
    table = experiment.rate_table(found).set_index("arm")
    same = table[table.rate == SHARED]
    assert 0 < len(same) < len(table)
    assert (same["accuracy, own rate"] == same["accuracy, shared rate"]).all()
    row = found.networks("own").query("arm == 'dense, 3 x 6'")
    assert table.loc["dense, 3 x 6", "ece, own rate"] == pytest.approx(row.ece.mean())


def test_the_finer_grid_asks_two_questions_with_their_arms_alone(
    data: Dataset, found: experiment.Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the rates of `found` the answers are those of `found`."""
    arms = experiment.finer_arms(SIZES)
    assert list(arms) == [
        "ER 0.05, 3 x 14", "uniform 0.05, 3 x 14", "dense, 1 x 9", "ER 0.4, 1 x 9", "dense, 2 x 9",
        "ER 0.4, 2 x 9",
    ]  # fmt: skip
    own = {name: rate for name, rate in found.rates["own"].items() if name in arms}
    looked_at: list[pd.DataFrame] = []

    def choose(tuning: pd.DataFrame) -> dict[str, float]:
        looked_at.append(tuning)
        return own

    monkeypatch.setattr(experiment, "chosen_rates", choose)
    finer = experiment.asked_finer(data, SIZES, RATES, 60, [980], SEEDS, NET)
    assert finer.rates == {"own": own}
    assert finer.questions == experiment.FINER
    (tuning,) = looked_at
    coarse = found.tuning[found.tuning.arm.isin(arms)]
    assert list(tuning.accuracy) == list(coarse.accuracy)
    assert len(finer.frame) == len(arms) * len(SEEDS)
    theirs = found.answers("own")
    for question, values in finer.answers("own").items():
        assert list(values) == list(theirs[question]), question
    frame = experiment.difference_frame(finer)
    assert list(frame.question.unique()) == list(experiment.FINER)
    assert set(frame.choice) == {"own"}
    table, whole = (experiment.rate_table(some).set_index("arm") for some in (finer, found))
    assert list(table.columns) == ["rate", "accuracy, own rate", "ece, own rate"]
    pd.testing.assert_frame_equal(table, whole.loc[table.index, table.columns])
    with pytest.raises(ValueError, match="width 14, dense, density 1, 3 layers: not run"):
        experiment.answers(finer.frame, SIZES)


def test_an_arm_that_wants_more_than_the_grid_is_an_error(data: Dataset) -> None:
    with pytest.raises(ValueError, match="must go on beyond"):
        experiment.asked(data, SIZES, [1e-6, 1e-5], 1e-6, 60, [980], [3], NET)
    with pytest.raises(ValueError, match="must go on beyond"):
        experiment.asked_finer(data, SIZES, [1e-6, 1e-5], 60, [980], [3], NET)


def test_figure_marks_chosen_rates_and_both_choices(
    found: experiment.Asked, tmp_path: Path
) -> None:
    arms = list(experiment.arms_of(SIZES))
    differences = experiment.difference_frame(found)
    twice = differences[differences.question == "matches_dense"].query("choice == 'own'")
    figure = plots.again_panels(
        experiment.rate_curves(found), pd.concat([differences, twice.assign(choice="finer")]),
        {"one": arms[:6], "two": arms[6:]},
        {"three": {"sparse_pays": "a", "matches_dense": "b"}, "four": {"calibrated": "c"}},
        shared=SHARED,
    )  # fmt: skip
    one, two, three, four = figure.axes
    for panel, names in ((one, arms[:6]), (two, arms[6:])):
        shown = [t for t in (str(x.get_label()) for x in panel.lines) if t[0] != "_"]
        assert shown == [f"{arm}: {found.rates['own'][arm]:g}" for arm in names]
    marked: Any = [line for line in one.lines if line.get_linestyle() == "None"]
    assert [line.get_xdata()[0] for line in marked] == [found.rates["own"][arm] for arm in arms[:6]]
    assert [text.get_text() for text in three.get_yticklabels()] == ["a", "b"]
    assert four.get_title() == "(d) four"
    legend = three.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(plots.NAMES.values())
    drawn: Any = three.containers
    rows = [container.lines[0].get_ydata()[0] for container in drawn]
    np.testing.assert_allclose(rows, [-0.135, 0.135, 0.73, 1.0, 1.27])
    mean = 100 * found.answers("own")["matches_dense"].mean()
    assert any(np.allclose(line.get_xdata(), mean) for line in three.lines)
    figure.savefig(tmp_path / "again.png")
