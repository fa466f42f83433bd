"""Frames of notebook 97: claims of notebook 94 with a step size chosen for every set of images.

There, distilled images were used with the step size that was learned with them and real ones with
that of a few which fits the training data best. Here every arm has the step size of one grid with
the best mean accuracy on held-out images, over seeds that are used for nothing else; the old rule
is looked at on the same networks. A second rule gives each set the step size of each seed with
which its networks fit the training data best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from rclib.data.cifar10 import sha256_json
from rclib.data.images import Dataset
from rclib.experiments.language.asked_again_runs import graded
from rclib.experiments.language.distillation_runs import BASELINES
from rclib.runs import sweep
from rclib.stats.grid import best_setting
from rclib.stats.sequential import interval

__all__ = [
    "CHOICES",
    "Asked",
    "all_seeds",
    "arm_table",
    "asked",
    "chosen_rates",
    "difference",
    "difference_frame",
    "fitting",
    "fitting_frame",
    "graded_frame",
    "held_out",
    "rate_curves",
    "rule_gain",
]

CHOICES = ("chosen", "old")  # by held-out images of other seeds; as notebook 94 has it
REAL = "real, "  # before the name of a baseline
Pairs = Mapping[str, tuple[str, str]]  # question -> arms, of which one is subtracted


def held_out(data: Dataset, n_train: int, n_valid: int) -> Dataset:
    """The training images alone: the first n_train of a permutation to train on, the next n_valid
    in place of the test images; the same n_train as `data.subset(n_train)` has.

    Raises ValueError for more than there are.
    """
    own = data.subset(n_train + n_valid)
    return replace(
        own,
        description=f"{data.description}, {n_train:,} + {n_valid:,} of its training images",
        x_train=own.x_train[:n_train], y_train=own.y_train[:n_train],
        x_test=own.x_train[n_train:], y_test=own.y_train[n_train:],
        checksum=sha256_json([own.checksum, "held out", n_train, n_valid]),
    )  # fmt: skip


def graded_frame(data: Dataset, seeds: Sequence[int], settings: Mapping[str, Any]) -> pd.DataFrame:
    """seed, arm, rate, learned (whether it is the step size that was learned with the images),
    train, accuracy (on the test part of the data), loss (of the matching, at its end) and experts
    (their accuracy). Baselines have none that is learned, no loss and no experts.

    settings : of `graded`, without the seed.
    """
    configs = [{**settings, "seed": seed} for seed in seeds]
    arms, rates = settings["arms"], settings["rates"]
    names = [*arms, *(f"{REAL}{name}" for name in BASELINES)]
    frames = []
    for seed, run in zip(
        seeds, sweep.run(graded, configs, data=data, description="graded"), strict=True
    ):
        grid = pd.DataFrame({
            "arm": [arm for arm in names for _ in rates], "rate": list(rates) * len(names),
            "learned": False, "train": run["train"].ravel(), "accuracy": run["test"].ravel(),
        })  # fmt: skip
        own = pd.DataFrame({
            "arm": arms, "rate": run["alpha"], "learned": True,
            "train": run["learned"][:, 0], "accuracy": run["learned"][:, 1],
        })  # fmt: skip
        both = pd.concat([grid, own], ignore_index=True).assign(seed=seed)
        for name in ("loss", "experts"):
            both[name] = both.arm.map(dict(zip(arms, map(float, run[name]), strict=True)))
        frames.append(both)
    found = pd.concat(frames, ignore_index=True)
    return found[["seed", "arm", "rate", "learned", "train", "accuracy", "loss", "experts"]]


def chosen_rates(tuning: pd.DataFrame) -> dict[str, float]:
    """arm -> step size of the grid with the best mean accuracy over seeds, the smallest of equals.

    tuning : as `graded_frame`, on held-out images. Raises ValueError for a best one at an end of
    the grid, beyond which a better one may lie.
    """
    grid = tuning[~tuning.learned]
    means = grid.groupby(["arm", "rate"]).accuracy.mean()
    arms = dict.fromkeys(grid.arm)
    return {name: best_setting(means[name], what=f"step sizes of {name!r}") for name in arms}


@dataclass(frozen=True, eq=False)
class Asked:
    """`tuning`, `graded_frame` of the seeds by which step sizes were chosen, on held-out images;
    `rates`, arm -> the chosen one; `old_rates`, of which real images had one in notebook 94;
    `frame`, `graded_frame` of the reported seeds."""

    tuning: pd.DataFrame
    rates: dict[str, float]
    old_rates: Sequence[float]
    frame: pd.DataFrame

    def rows(self, arm: str, choice: str) -> pd.DataFrame:
        """Rows of an arm by seed, at the step size of a choice. "old": learned with the images, or
        for real ones that of `old_rates` with the best accuracy on the training data, by seed.

        Raises ValueError for a choice that is none and an arm that was not run.
        """
        own = self.frame[self.frame.arm == arm]
        if choice not in CHOICES or own.empty:
            raise ValueError(f"choice must be one of {CHOICES} of an arm, got {choice!r}, {arm!r}")
        if choice == "chosen":
            found = own[~own.learned & (own.rate == self.rates[arm])]
        elif not arm.startswith(REAL):
            found = own[own.learned]
        else:
            few = own[own.rate.isin(list(self.old_rates))].sort_values("rate", kind="stable")
            found = few.loc[few.groupby("seed").train.idxmax()]
        return found.set_index("seed").sort_index()

    def accuracies(self, arm: str, choice: str = "chosen") -> pd.Series:
        """Test accuracy of an arm by seed, at the step size of a choice."""
        found: pd.Series = self.rows(arm, choice).accuracy
        return found


def asked(
    data: Dataset, held: Dataset, seeds: Sequence[int], tuning_seeds: Sequence[int],
    settings: Mapping[str, Any], old_rates: Sequence[float],
) -> Asked:  # fmt: skip
    """Step sizes by the tuning seeds on `held`, then the reported seeds on `data` at those that any
    arm has by either rule.

    Raises ValueError for a chosen step size at an end of the grid, and for old ones that the grid
    lacks.
    """
    if missing := sorted(set(old_rates) - set(settings["rates"])):
        raise ValueError(f"old_rates must be of the grid {settings['rates']}, got {missing}")
    tuning = graded_frame(held, tuning_seeds, settings)
    rates = chosen_rates(tuning)
    few = {**settings, "rates": sorted({*rates.values(), *old_rates})}
    return Asked(tuning, rates, old_rates, graded_frame(data, seeds, few))


def fitting(frame: pd.DataFrame, arm: str) -> pd.Series:
    """Test accuracy of an arm by seed, at the step size of the grid with which its own networks fit
    the training data best, the smallest of equals.

    frame : as `graded_frame`. Raises ValueError for a best one at an end of the grid.
    """
    own = frame[(frame.arm == arm) & ~frame.learned].sort_values("rate", kind="stable")
    best = own.loc[own.groupby("seed").train.idxmax()].set_index("seed").sort_index()
    if best.rate.isin([own.rate.min(), own.rate.max()]).any():
        raise ValueError(f"rates must go on beyond {best.rate.to_dict()}, chosen for {arm!r}")
    found: pd.Series = best.accuracy
    return found


def difference(found: Asked, one: str, other: str, choice: str = "chosen") -> pd.Series:
    """Test accuracy of an arm minus that of another, by seed, at the step sizes of a choice."""
    return found.accuracies(one, choice) - found.accuracies(other, choice)


def rule_gain(found: Asked) -> pd.Series:
    """Test accuracy at the chosen step size minus that at the learned one, mean over all distilled
    arms, by seed."""
    gains = [
        found.accuracies(arm) - found.accuracies(arm, "old")
        for arm in found.rates
        if not arm.startswith(REAL)
    ]
    mean: pd.Series = pd.concat(gains, axis=1).mean(axis=1)
    return mean


def difference_frame(found: Asked, pairs: Pairs) -> pd.DataFrame:
    """question, choice, seed, value: `difference` of all pairs and choices."""
    frames = [
        pd.DataFrame({"question": question, "choice": choice, "seed": own.index, "value": own})
        for question, pair in pairs.items()
        for choice in CHOICES
        for own in [difference(found, *pair, choice)]
    ]
    return pd.concat(frames, ignore_index=True)


def fitting_frame(frame: pd.DataFrame, pairs: Pairs) -> pd.DataFrame:
    """question, choice ("fit"), seed, value: test accuracy of an arm minus that of another, each at
    the step size of `fitting`, for all pairs.

    frame : as `graded_frame`. Raises ValueError as `fitting`.
    """
    frames = [
        pd.DataFrame({"question": question, "choice": "fit", "seed": own.index, "value": own})
        for question, (one, other) in pairs.items()
        for own in [fitting(frame, one) - fitting(frame, other)]
    ]
    return pd.concat(frames, ignore_index=True)


def all_seeds(differences: pd.DataFrame) -> pd.DataFrame:
    """question, choice, seeds (how many), value, low, high: means over all seeds with plain 95
    percent t-intervals, also of the change from the old choice to each other one.

    differences : rows of `difference_frame` and `fitting_frame`.
    """
    rows = []
    for question, own in differences.groupby("question", sort=False):
        table = own.pivot(index="seed", columns="choice", values="value")
        table = table[list(dict.fromkeys(own.choice))]
        for choice in table.columns.drop("old"):
            table[f"{choice} - old"] = table[choice] - table["old"]
        for choice, values in table.items():
            rows.append((question, choice, len(values), *interval(values.tolist(), 0.05)))
    return pd.DataFrame(rows, columns=["question", "choice", "seeds", "value", "low", "high"])


def rate_curves(found: Asked) -> pd.DataFrame:
    """arm, rate, accuracy, chosen, learned: mean accuracy on held-out images over the tuning seeds;
    for the learned step size in a row of its own, at its median over seeds."""
    grid = found.tuning[~found.tuning.learned]
    curves = grid.groupby(["arm", "rate"], sort=False).accuracy.mean().reset_index()
    curves["chosen"] = curves.rate == curves.arm.map(found.rates)
    own = found.tuning[found.tuning.learned].groupby("arm", sort=False)
    learned = own.agg(rate=("rate", "median"), accuracy=("accuracy", "mean")).reset_index()
    both = [curves.assign(learned=False), learned.assign(chosen=False, learned=True)]
    return pd.concat(both, ignore_index=True)


def arm_table(found: Asked) -> pd.DataFrame:
    """By arm: the chosen step size, the median of the learned one, mean test accuracies over the
    reported seeds by either rule, the matching loss at its end and the accuracy of the experts."""
    rows = []
    for arm, rate in found.rates.items():
        own, old = found.rows(arm, "chosen"), found.rows(arm, "old")
        means = [float(own.accuracy.mean()), float(old.accuracy.mean())]
        rows.append((arm, rate, old.rate.median(), *means, own.loss.mean(), own.experts.mean()))
    columns = ["arm", "chosen rate", "old rate", "accuracy", "old accuracy", "loss", "experts"]
    return pd.DataFrame(rows, columns=columns).round(4)
