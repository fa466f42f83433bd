"""Frames of notebook 59: claims of notebook 54 on training, asked again with a rate for each start.

There all starts of a setting had one learning rate. Here each has the rate at which its validation
accuracy is best on tuning seeds, read off where the claim reads the test accuracy off. The seeds
that are judged are run at notebook 54's rate too, and those of two pairs with the pair's rates
exchanged. Networks and graphs are those of `gnn_init_runs.training_runs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.starts.gnn_init_runs import ARMS
from rclib.experiments.starts.gnn_training import best, learning, trained
from rclib.stats.grid import best_setting

__all__ = [
    "CHOICES",
    "QUESTIONS",
    "Question",
    "accuracies",
    "asked",
    "chosen_rates",
    "exchange_loss",
    "gain",
    "gain_frame",
    "rate_curves",
    "rate_gap",
    "rate_table",
    "tuning_frame",
]

CHOICES = ("own", "shared", "exchanged")  # how a start's rate is found


@dataclass(frozen=True)
class Question:
    """A claim of notebook 54: the test accuracy of `arm` minus that of `over` in a setting.

    reading : where accuracies are read off, "early" and "late" after a number of updates,
        "patience" at the best validation accuracy before none better follows for a number of
        updates, "all updates" at the best of all.
    """

    setting: str
    reading: str
    arm: str
    over: str


QUESTIONS: Mapping[str, Question] = {
    "early": Question("planted", "early", "Virgo", "Xavier"),
    "stopped": Question("planted", "patience", "Virgo", "Xavier"),
    "deep": Question("16 layers", "all updates", "Virgo", "Kaiming"),
    "sum_accuracy": Question("sum", "late", "Virgo", "Kaiming"),
    "images_xavier": Question("images", "patience", "Virgo, plain mean", "Xavier"),
    "images_kaiming": Question("images", "patience", "Virgo, plain mean", "Kaiming"),
}
EXCHANGED = ("sum_accuracy", "deep")  # of these pairs each start is run at the other's rate too
Rates = Mapping[str, Mapping[str, float]]  # question -> start -> rate
Settings = Mapping[str, Mapping[str, Any]]


def _pairs(setting: str) -> dict[str, set[str]]:
    """Reading -> starts, of all questions of a setting."""
    found: dict[str, set[str]] = {}
    for question in QUESTIONS.values():
        if question.setting == setting:
            found.setdefault(question.reading, set()).update((question.arm, question.over))
    return found


def accuracies(curves: pd.DataFrame, reading: str, moments: Mapping[str, int]) -> pd.DataFrame:
    """setting, seed, arm, valid, test: both accuracies where a reading has them.

    curves : as of `gnn_training.learning`. moments : updates of "early", "late" and "patience".
    """
    keys = ["setting", "seed", "arm"]
    if reading in ("early", "late"):
        own = curves[curves.step == moments[reading]]
        return own[[*keys, "valid", "test"]].reset_index(drop=True)
    patience = moments["patience"] if reading == "patience" else None
    there = best(curves, patience)
    # Validation accuracy where the best one is: the same search, read off another column.
    valid = best(curves.assign(test=curves.valid), patience).test
    return there.assign(valid=valid)[[*keys, "valid", "test"]]


def _read(
    data: Dataset, setting: str, seeds: Sequence[int], at: Mapping[float, set[str]],
    settings: Settings, shared: Mapping[str, Any], moments: Mapping[str, int],
) -> pd.DataFrame:  # fmt: skip
    """setting, reading, arm, rate, seed, valid, test of a setting's starts at the rates `at`."""
    networks = {
        f"{rate!r}": {
            **settings[setting], "rate": rate, "arms": [arm for arm in ARMS if arm in arms],
        }
        for rate, arms in at.items()
    }  # fmt: skip
    curves = learning(trained(data, seeds, networks, **shared, early=moments["early"]))
    frames = []
    for reading, arms in _pairs(setting).items():
        found = accuracies(curves[curves.arm.isin(arms)], reading, moments)
        found["rate"] = found.setting.map(float)
        frames.append(found.assign(setting=setting, reading=reading))
    columns = ["setting", "reading", "arm", "rate", "seed", "valid", "test"]
    return pd.concat(frames, ignore_index=True)[columns]


def tuning_frame(
    data: Dataset, seeds: Sequence[int], settings: Settings, grids: Mapping[str, Sequence[float]],
    shared: Mapping[str, Any], moments: Mapping[str, int],
) -> pd.DataFrame:  # fmt: skip
    """setting, reading, arm, rate, seed, valid, test: every start at every rate of its setting.

    settings : setting -> arguments of `training_runs`, grids : its rates, shared : arguments of
    all settings.
    """
    frames = []
    for setting in settings:
        arms = set().union(*_pairs(setting).values())
        at = {float(rate): arms for rate in grids[setting]}
        frames.append(_read(data, setting, seeds, at, settings, shared, moments))
    return pd.concat(frames, ignore_index=True)


def _of(frame: pd.DataFrame, question: Question, arm: str) -> pd.DataFrame:
    same = (frame.setting == question.setting) & (frame.reading == question.reading)
    return frame[same & (frame.arm == arm)]


def chosen_rates(tuning: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Question -> start -> the rate of its best mean validation accuracy, the least of equals.

    Raises ValueError for a rate at an end of its grid, since the best may lie beyond.
    """
    found: dict[str, dict[str, float]] = {}
    for key, question in QUESTIONS.items():
        for arm in (question.arm, question.over):
            means = _of(tuning, question, arm).groupby("rate").valid.mean()
            rate = best_setting(means, what=f"rates of {arm} in {key!r}")
            found.setdefault(key, {})[arm] = rate
    return found


def _rate(rates: Rates, common: Mapping[str, float], key: str, arm: str, choice: str) -> float:
    question = QUESTIONS[key]
    if choice == "shared":
        return float(common[question.setting])
    if choice == "exchanged":
        arm = question.over if arm == question.arm else question.arm
    return rates[key][arm]


def asked(
    data: Dataset, seeds: Mapping[str, Sequence[int]], rates: Rates, common: Mapping[str, float],
    settings: Settings, shared: Mapping[str, Any], moments: Mapping[str, int],
) -> pd.DataFrame:  # fmt: skip
    """question, choice, arm, rate, seed, test: both starts of every question at their own rates and
    at the setting's common one, those of EXCHANGED at each other's too.

    seeds : setting -> seeds. common : setting -> the one rate of notebook 54.
    """
    wanted = [
        (key, choice, arm, _rate(rates, common, key, arm, choice))
        for key, question in QUESTIONS.items()
        for choice in CHOICES
        if choice != "exchanged" or key in EXCHANGED
        for arm in (question.arm, question.over)
    ]
    read = []
    for setting in settings:
        at: dict[float, set[str]] = {}
        for key, _, arm, rate in wanted:
            if QUESTIONS[key].setting == setting:
                at.setdefault(rate, set()).add(arm)
        read.append(_read(data, setting, seeds[setting], at, settings, shared, moments))
    every, frames = pd.concat(read, ignore_index=True), []
    for key, choice, arm, rate in wanted:
        own = _of(every, QUESTIONS[key], arm)
        own = own[own.rate == rate][["arm", "rate", "seed", "test"]]
        frames.append(own.assign(question=key, choice=choice))
    columns = ["question", "choice", "arm", "rate", "seed", "test"]
    return pd.concat(frames, ignore_index=True)[columns]


def gain(found: pd.DataFrame, key: str, choice: str) -> pd.Series:
    """Test accuracy of a question's start minus that of the other, by seed, of one choice of rates.

    Raises ValueError for a choice that the question was not asked with.
    """
    own = found[(found.question == key) & (found.choice == choice)]
    if own.empty:
        raise ValueError(f"choice must be one that {key!r} was asked with, got {choice!r}")
    table = own.pivot_table(index="seed", columns="arm", values="test")
    return (table[QUESTIONS[key].arm] - table[QUESTIONS[key].over]).rename("gain")


def gain_frame(found: pd.DataFrame) -> pd.DataFrame:
    """question, choice, seed, gain: of all questions, at own rates and at the common one."""
    frames = [
        gain(found, key, choice).reset_index().assign(question=key, choice=choice)
        for key in QUESTIONS
        for choice in CHOICES[:2]
    ]
    return pd.concat(frames, ignore_index=True)[["question", "choice", "seed", "gain"]]


def exchange_loss(found: pd.DataFrame, key: str) -> pd.Series:
    """Test accuracy at own rates minus that at exchanged ones, mean over both starts of a question
    of EXCHANGED, by seed; zero if both starts have one rate."""
    own = found[found.question == key]
    table = own.pivot_table(index="seed", columns="choice", values="test")
    return (table["own"] - table["exchanged"]).rename("loss")


def rate_gap(tuning: pd.DataFrame, key: str) -> pd.Series:
    """log10 of the other start's best rate over that of the question's start, by tuning seed: the
    rate of the best validation accuracy of that seed, of equals the mean logarithm."""

    def logs(arm: str) -> pd.Series:
        own = _of(tuning, QUESTIONS[key], arm)
        top = own[own.valid == own.groupby("seed").valid.transform("max")]
        found: pd.Series = np.log10(top.rate).groupby(top.seed).mean()
        return found

    return (logs(QUESTIONS[key].over) - logs(QUESTIONS[key].arm)).rename("decades")


def rate_curves(tuning: pd.DataFrame, rates: Rates) -> pd.DataFrame:
    """setting, reading, arm, rate, valid, low, high, chosen: mean validation accuracy and its range
    over tuning seeds, and whether the rate is the start's own."""
    keys = ["setting", "reading", "arm", "rate"]
    frame = tuning.groupby(keys, sort=False).valid.agg(["mean", "min", "max"]).reset_index()
    frame.columns = pd.Index([*keys, "valid", "low", "high"])
    frame["chosen"] = False
    for key, question in QUESTIONS.items():
        for arm, rate in rates[key].items():
            own = _of(frame, question, arm)
            frame.loc[own.index[own.rate == rate], "chosen"] = True
    return frame


def rate_table(found: pd.DataFrame) -> pd.DataFrame:
    """By question and start: its own rate, and the mean test accuracies by the choice of rates (NaN
    where it was not asked)."""
    keys = ["question", "arm"]
    means = found.pivot_table(index=keys, columns="choice", values="test", sort=False)
    own = found[found.choice == "own"].groupby(keys, sort=False).rate.first()
    return means[list(CHOICES)].assign(rate=own).reset_index().rename_axis(columns=None)
