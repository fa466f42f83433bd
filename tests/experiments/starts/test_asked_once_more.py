"""rclib.experiments.starts.asked_once_more: against notebook 54's runs and against hand counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rclib.data.images import load
from rclib.experiments.starts import asked_once_more as experiment
from rclib.experiments.starts import plots_once_more as plots
from rclib.experiments.starts.gnn_init_runs import training_runs

MOMENTS = {"early": 2, "late": 5, "patience": 2}
SHARED: dict[str, Any] = {"width": 8, "decay": 5e-6}
DRAWN: dict[str, Any] = {"kind": "planted", "features": "gaussian", "plan": {"n": 40}, "steps": 5}
SETTINGS: dict[str, dict[str, Any]] = {
    "planted": {**DRAWN, "aggregation_kind": "symmetric", "layers": 3},
    "16 layers": {**DRAWN, "aggregation_kind": "symmetric", "layers": 4},
    "sum": {**DRAWN, "aggregation_kind": "sum", "layers": 3},
    "images": {
        "kind": "neighbours", "features": "images", "aggregation_kind": "symmetric",
        "plan": {"n": 50}, "layers": 3, "steps": 5,
    },
}  # fmt: skip
GRIDS = {key: [0.001, 0.01, 0.1] for key in SETTINGS}
COMMON = dict.fromkeys(SETTINGS, 0.01)
RATES = {
    key: {question.arm: 0.01, question.over: 0.1} for key, question in experiment.QUESTIONS.items()
}


@pytest.fixture(scope="module", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        yield


@pytest.fixture(scope="module")
def tuning() -> pd.DataFrame:
    return experiment.tuning_frame(load("digits"), [3, 1], SETTINGS, GRIDS, SHARED, MOMENTS)


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    seeds = {name: [5, 4] if name == "sum" else [7, 8] for name in SETTINGS}
    return experiment.asked(load("digits"), seeds, RATES, COMMON, SETTINGS, SHARED, MOMENTS)


def _alone(setting: str, arm: str, rate: float, seed: int) -> dict[str, np.ndarray]:
    """One start by itself, as notebook 54 trains it."""
    data = load("digits") if setting == "images" else None
    own = {**SETTINGS[setting], **SHARED, "arms": [arm], "rate": rate, "early": 2}
    return training_runs(data, seed=seed, **own)


def _curves(valid: list[float], test: list[float]) -> pd.DataFrame:
    steps = np.arange(len(valid))
    return pd.DataFrame(
        {"setting": "a", "seed": 1, "arm": "Virgo", "step": steps, "valid": valid, "test": test}
    )


def test_accuracies_are_read_off_where_a_reading_says() -> None:
    valid = [0.9, 0.3, 0.5, 0.4, 0.5, 0.8]  # the start itself does not count
    curves = _curves(valid, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    expected = {
        "early": (0.5, 0.2), "late": (0.8, 0.5), "patience": (0.5, 0.2), "all updates": (0.8, 0.5),
    }  # fmt: skip
    for reading, both in expected.items():
        row = experiment.accuracies(curves, reading, MOMENTS)
        assert list(row.columns) == ["setting", "seed", "arm", "valid", "test"]
        assert tuple(row[["valid", "test"]].iloc[0]) == both


@pytest.mark.parametrize("key", list(experiment.QUESTIONS))
def test_tuning_is_of_notebook_54s_networks(tuning: pd.DataFrame, key: str) -> None:
    question = experiment.QUESTIONS[key]
    for arm in (question.arm, question.over):
        own = tuning[(tuning.setting == question.setting) & (tuning.reading == question.reading)]
        own = own[(own.arm == arm) & (own.rate == 0.1) & (own.seed == 3)]
        run = _alone(question.setting, arm, 0.1, 3)
        curves = _curves(run["valid"][0].tolist(), run["test"][0].tolist())
        there = experiment.accuracies(curves, question.reading, MOMENTS)
        np.testing.assert_allclose(own[["valid", "test"]], there[["valid", "test"]], atol=1e-6)


def test_every_setting_has_its_starts_at_every_rate(tuning: pd.DataFrame) -> None:
    counts = tuning.groupby(["setting", "reading"]).arm.nunique()
    assert counts.to_dict() == {
        ("planted", "early"): 2, ("planted", "patience"): 2, ("16 layers", "all updates"): 2,
        ("sum", "late"): 2, ("images", "patience"): 3,
    }  # fmt: skip
    assert set(tuning.groupby(["setting", "reading", "arm"]).size()) == {3 * 2}


def _made(best: dict[str, float], shift: float = 0.0) -> pd.DataFrame:
    """A tuning frame in which every start is best at a rate, from 0.001 to 1."""
    rows = []
    for question in experiment.QUESTIONS.values():
        for arm in (question.arm, question.over):
            for rate in (0.001, 0.01, 0.1, 1.0):
                for seed in (1, 2):
                    valid = 0.9 if rate == best[arm] else 0.5
                    rows.append(
                        (question.setting, question.reading, arm, rate, seed, valid + shift)
                    )
    columns = ["setting", "reading", "arm", "rate", "seed", "valid"]
    return pd.DataFrame(rows, columns=columns).drop_duplicates()


def test_a_rate_is_that_of_the_best_validation_accuracy() -> None:
    best = {"Virgo": 0.01, "Kaiming": 0.1, "Xavier": 0.1, "Virgo, plain mean": 0.01}
    tuning = _made(best)
    rates = experiment.chosen_rates(tuning)
    assert rates["sum_accuracy"] == {"Virgo": 0.01, "Kaiming": 0.1}
    assert rates["images_xavier"] == {"Virgo, plain mean": 0.01, "Xavier": 0.1}
    equal = tuning.assign(valid=tuning.valid.where(tuning.rate.isin([0.001, 1.0]), 0.9))
    assert set(experiment.chosen_rates(equal)["deep"].values()) == {0.01}  # the least of equals
    # Counts are stored in single precision, where means of equal counts are not equal to the bit.
    counts = {(0.01, 1): 0.9, (0.01, 2): 0.7, (0.1, 1): 0.8, (0.1, 2): 0.8}
    single = [
        float(np.float32(counts.get(at, 0.5))) for at in zip(tuning.rate, tuning.seed, strict=True)
    ]
    assert single[2] + single[3] < single[4] + single[5]
    assert set(experiment.chosen_rates(tuning.assign(valid=single))["deep"].values()) == {0.01}
    for end in (0.001, 1.0):
        with pytest.raises(
            ValueError, match=rf"grid of rates of Kaiming in .* must go on beyond {end:g}"
        ):
            experiment.chosen_rates(_made({**best, "Kaiming": end}))

    gap = experiment.rate_gap(tuning, "sum_accuracy")
    assert gap.to_dict() == pytest.approx({1: 1.0, 2: 1.0})
    tied = tuning.copy()  # of seed 2 Kaiming is as good at 0.01: half a decade
    also = (tied.arm == "Kaiming") & (tied.rate == 0.01) & (tied.seed == 2)
    tied.loc[also, "valid"] = 0.9
    assert experiment.rate_gap(tied, "sum_accuracy").to_dict() == pytest.approx({1: 1.0, 2: 0.5})

    curves = experiment.rate_curves(tied, rates)
    own = curves[(curves.setting == "sum") & curves.chosen].set_index("arm")
    assert own.rate.to_dict() == {"Virgo": 0.01, "Kaiming": 0.1}
    wide = curves[(curves.setting == "sum") & (curves.arm == "Kaiming") & (curves.rate == 0.01)]
    assert wide[["valid", "low", "high"]].iloc[0].tolist() == pytest.approx([0.7, 0.5, 0.9])


def test_every_start_is_asked_at_its_rate_and_at_the_common_one(found: pd.DataFrame) -> None:
    run = {
        (arm, rate): _alone("sum", arm, rate, 4)["test"][0, 5]
        for arm in ("Virgo", "Kaiming")
        for rate in (0.01, 0.1)
    }
    for choice, ours, other in (
        ("own", 0.01, 0.1),
        ("shared", 0.01, 0.01),
        ("exchanged", 0.1, 0.01),
    ):
        expected = run["Virgo", ours] - run["Kaiming", other]
        assert experiment.gain(found, "sum_accuracy", choice)[4] == pytest.approx(
            expected, abs=1e-6
        )
    loss = run["Virgo", 0.01] + run["Kaiming", 0.1] - run["Virgo", 0.1] - run["Kaiming", 0.01]
    assert experiment.exchange_loss(found, "sum_accuracy")[4] == pytest.approx(loss / 2, abs=1e-6)
    with pytest.raises(ValueError, match="choice must be one that 'early' was asked with"):
        experiment.gain(found, "early", "exchanged")
    gains = experiment.gain_frame(found)
    assert len(gains) == len(experiment.QUESTIONS) * 2 * 2
    assert set(gains.choice) == {"own", "shared"}


def test_rates_that_are_equal_cannot_be_exchanged() -> None:
    rates = {key: dict.fromkeys(own, 0.1) for key, own in RATES.items()}
    seeds = {key: [5] for key in SETTINGS}
    found = experiment.asked(load("digits"), seeds, rates, COMMON, SETTINGS, SHARED, MOMENTS)
    for key in experiment.EXCHANGED:
        assert experiment.exchange_loss(found, key).tolist() == [0.0]


def test_the_table_has_a_row_a_start_of_every_question(found: pd.DataFrame) -> None:
    table = experiment.rate_table(found)
    assert list(table.columns) == ["question", "arm", *experiment.CHOICES, "rate"]
    assert len(table) == 2 * len(experiment.QUESTIONS)
    row = table[(table.question == "deep") & (table.arm == "Kaiming")].iloc[0]
    assert row.rate == 0.1
    for rate, choice in ((0.1, "own"), (0.01, "exchanged")):
        own = [_alone("16 layers", "Kaiming", rate, seed) for seed in (7, 8)]
        at = [run["test"][0, 1 + int(run["valid"][0, 1:].argmax())] for run in own]
        assert row[choice] == pytest.approx(float(np.mean(at)), abs=1e-6)
    asked = table[table.exchanged.notna()].question.unique()
    assert sorted(asked) == sorted(experiment.EXCHANGED)


def test_figure_draws_every_question(
    tuning: pd.DataFrame, found: pd.DataFrame, tmp_path: Path
) -> None:
    gains = experiment.gain_frame(found)
    figure = plots.once_more_panels(
        experiment.rate_curves(tuning, RATES), gains, common=COMMON,
        criteria=dict.fromkeys(experiment.QUESTIONS, 0.05),
    )  # fmt: skip
    assert len(figure.axes) == 7
    assert [panel.get_title()[:3] for panel in figure.axes] == [f"({x})" for x in "abcdefg"]
    names = [text.get_text() for panel in figure.axes[-2:] for text in panel.get_yticklabels()]
    assert names == list(plots.NAMES.values())
    (legend,) = figure.legends
    starts = {
        arm for question in experiment.QUESTIONS.values() for arm in (question.arm, question.over)
    }
    assert {text.get_text() for text in legend.get_texts()} == {*starts, "one rate (notebook 54)"}
    sums = figure.axes[3]
    own = tuning[(tuning.setting == "sum") & (tuning.arm == "Kaiming")].groupby("rate").valid.mean()
    np.testing.assert_allclose(sums.lines[0].get_ydata(), own)
    figure.savefig(tmp_path / "once_more.png")
