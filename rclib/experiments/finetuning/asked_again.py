"""Frames of notebook 87: claims of notebooks 80, 82 and 83 about the training loss, asked again.

There each arm had the rate that validation chose, and the claims were about the training loss. Here
the rates are chosen by the training loss, and the same arms are run at validation's choice and at
one rate for both of a pair too, all on the same seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.finetuning import bone, loldu, svfit
from rclib.experiments.finetuning.tuned_runs import (
    Arms,
    arm_frame,
    chosen_rates,
    counts,
    run_arms,
    tune,
)

__all__ = [
    "CHOICES",
    "HEAD",
    "Asked",
    "Pairs",
    "arms_of",
    "asked",
    "common_rate",
    "difference",
    "difference_frame",
    "head_gain",
    "pairs_of",
    "rate_curves",
    "rate_gain",
    "rate_table",
]

CHOICES = ("training", "validation", "common")  # how the two rates of a pair are chosen
HEAD = "head"
Pairs = Mapping[str, tuple[str, str]]  # question -> arms, of which one is subtracted


def arms_of(half: int, k: int, size: int, lora: int) -> dict[str, Any]:
    """The arms of five questions as their notebooks have them, and a head alone: LDU factors,
    random frames with their lengths and singular values at r = `half` (80); all k values and
    random orthonormal frames (82); blocks of a size, their product alone, LoRA of a rank (83)."""
    first = loldu.image_arms([half, k], [], full=False)
    second = svfit.image_arms([half, k], [])
    third = bone.arms_of(size, lora, alone=HEAD, full=False)
    arms = {name: first[name] for name in (HEAD, *_first(half))}
    arms |= {name: second[name] for name in (f"top {k}", f"random {k}")}
    return arms | {name: third[name] for name in ("Bone", "product", "LoRA")}


def _first(half: int) -> tuple[str, str, str]:
    return f"LDU {half}", f"random {half}", f"singular values {half}"


def pairs_of(half: int, k: int) -> dict[str, tuple[str, str]]:
    """Question -> (one arm, the arm that is subtracted), by the keys of the old claims."""
    ldu, drawn, values = _first(half)
    return {
        "svd_half": (ldu, values),
        "factors_half": (ldu, drawn),
        "frames_all": (f"top {k}", f"random {k}"),
        "sum_hurts": ("product", "Bone"),
        "product_lora": ("product", "LoRA"),
    }


@dataclass(frozen=True, eq=False)
class Asked:
    """`tuning`, `arm_frame` of the seeds by which rates were chosen; `rates`, choice ("training",
    "validation") -> arm -> rate; `common`, question -> rate of both arms; `pairs`; `frame`,
    `arm_frame` of the reported seeds at all of these rates."""

    tuning: pd.DataFrame
    rates: dict[str, dict[str, float]]
    common: dict[str, float]
    pairs: Pairs
    frame: pd.DataFrame

    def rate(self, arm: str, choice: str, question: str) -> float:
        """The rate of an arm of a question. Raises ValueError for a choice that is none."""
        if choice not in CHOICES:
            raise ValueError(f"choice must be one of {CHOICES}, got {choice!r}")
        return self.common[question] if choice == "common" else self.rates[choice][arm]

    def losses(self, arm: str, rate: float) -> pd.Series:
        """Training loss after the last update by seed, of an arm at a rate that it was run at."""
        own = self.frame[(self.frame.arm == arm) & (self.frame.rate == rate)]
        found: pd.Series = own.set_index("seed").train
        return found


def common_rate(tuning: pd.DataFrame, pair: tuple[str, str]) -> float:
    """Rate at which the mean training losses of two arms have the least sum; one at which a run of
    either diverged is not chosen. Raises ValueError if there is no other."""
    both = tuning[tuning.arm.isin(pair)].groupby("rate").train.agg(lambda v: v.mean(skipna=False))
    found = both.dropna()
    if found.empty:
        raise ValueError(f"rates must hold one at which no run diverges, got {list(both.index)}")
    return float(found.idxmin())


def _within(tuning: pd.DataFrame, rates: Mapping[str, float]) -> None:
    grid = tuning.rate.agg(["min", "max"]).to_list()
    ends = {arm: rate for arm, rate in rates.items() if arm != HEAD and rate in grid}
    if ends:
        raise ValueError(f"rates must go on beyond every rate that is chosen, got {ends}")


def asked(
    data: Dataset, arms: Arms, pairs: Pairs, rates: Sequence[float], tuning_seeds: Sequence[int],
    seeds: Sequence[int], settings: Mapping[str, Any],
) -> Asked:  # fmt: skip
    """Rates by the tuning seeds, then the reported seeds at all rates that were chosen.

    Raises ValueError if the training loss chooses the smallest or the largest of the rates, for an
    arm or for a pair.
    """
    tuning = tune(data, arms, rates, tuning_seeds, settings)
    chosen = {"training": chosen_rates(tuning, "train"), "validation": chosen_rates(tuning)}
    common = {question: common_rate(tuning, pair) for question, pair in pairs.items()}
    _within(tuning, chosen["training"])
    _within(tuning, common)
    grid = {
        arm: sorted(
            {own[arm] for own in chosen.values()}
            | {common[question] for question, pair in pairs.items() if arm in pair}
        )
        for arm in arms
    }
    frame = arm_frame(run_arms(data, arms, grid, seeds, settings))
    return Asked(tuning, chosen, common, dict(pairs), frame)


def difference(found: Asked, question: str, choice: str) -> pd.Series:
    """Training loss of one arm of a question minus that of the other, by seed, at the rates of a
    choice."""
    one, other = (
        found.losses(arm, found.rate(arm, choice, question)) for arm in found.pairs[question]
    )
    return one - other


def rate_gain(found: Asked) -> pd.Series:
    """Training loss at the rate that the training loss chose minus that at validation's, mean over
    all arms but the head, by seed."""
    gains = [
        found.losses(arm, rate) - found.losses(arm, found.rates["validation"][arm])
        for arm, rate in found.rates["training"].items()
        if arm != HEAD
    ]
    mean: pd.Series = pd.concat(gains, axis=1).mean(axis=1)
    return mean


def head_gain(found: Asked) -> pd.Series:
    """How far the worst arm at the rate of its training loss is below a head alone, by seed."""
    own = found.frame[found.frame.rate == found.frame.arm.map(found.rates["training"])]
    return bone.least_gain(own, HEAD)


def difference_frame(found: Asked) -> pd.DataFrame:
    """question, choice, seed, value: `difference` of all questions and choices."""
    frames = [
        pd.DataFrame({"question": question, "choice": choice, "seed": own.index, "value": own})
        for question in found.pairs
        for choice in CHOICES
        for own in [difference(found, question, choice)]
    ]
    return pd.concat(frames, ignore_index=True)


def rate_curves(found: Asked) -> pd.DataFrame:
    """arm, rate, train, training, validation: mean training loss of the tuning seeds (NaN where a
    run diverged), and whether the training loss or validation chose the rate; without the head."""
    own = found.tuning[found.tuning.arm != HEAD]
    over = own.groupby(["arm", "rate"], sort=False).train
    frame = over.agg(lambda v: v.mean(skipna=False)).reset_index()
    for choice, rates in found.rates.items():
        frame[choice] = np.isclose(frame.rate, frame.arm.map(rates))
    return frame


def rate_table(found: Asked, arms: Arms, rows: int, inputs: int) -> pd.DataFrame:
    """By arm: trained numbers in the hidden layers, of (rows, inputs) and (rows, rows), the rates
    that the training loss and validation chose, and the training losses there, mean over the
    reported seeds."""
    number = counts(arms, rows, inputs)
    table = []
    for arm in found.rates["training"]:
        both = [found.rates[choice][arm] for choice in CHOICES[:2]]
        means = [float(found.losses(arm, rate).mean()) for rate in both]
        table.append((arm, number[arm], *both, *means))
    columns = ["arm", "count", "rate by training", "rate by validation", "train", "train, old rule"]
    return pd.DataFrame(table, columns=columns).round(4)
