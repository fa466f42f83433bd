"""Frames of notebook 83: does the frozen weight guide blocks that adapt it?

Blocks of size s train s numbers a row of W, LoRA of rank r as many as r (o + i). The arms:

| arm | change of the block W_ab |
|---|---|
| Bone | W_ab B_a + B_a |
| no guide | B_a, so that the change has rank s at most |
| permuted | P_ab B_a + B_a, P: the entries of W in random places |
| product | W_ab B_a |
| product, permuted | P_ab B_a |
| two blocks | W_ab B_a + C_a, with blocks of half the size: as many numbers |
| columns | W_ab B_b + B_b |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning.bone_changes import KEPT, change_frame, input_frame
from rclib.experiments.finetuning.loldu import Studied, arm_table, studied
from rclib.experiments.finetuning.tuned_runs import Arms, arm_frame, run_arms
from rclib.runs.store import Arrays

__all__ = [
    "Followed",
    "arms_of",
    "between",
    "chance_correlation",
    "counted",
    "differences",
    "followed",
    "least_gain",
    "loss_curves",
    "small_rate",
    "step_ratio",
    "tables",
]

BIN = 10  # updates whose batch losses make one point of a curve


def arms_of(
    size: int, rank: int, *, alone: str, pairs: Mapping[int, int] | None = None, full: bool = True
) -> dict[str, Any]:
    """Arms of a system: blocks of a size, LoRA of a rank of about as many numbers, nothing adapted
    in the hidden layers (named `alone`), and other sizes and ranks, `pairs` of them, as "Bone 8"
    and "LoRA 3"."""
    block: dict[str, Any] = {"kind": "Bone", "size": size}
    arms: dict[str, Any] = {
        alone: {"kind": "Linear"},
        "LoRA": {"kind": "LoRA", "rank": rank},
        "Bone": block,
        "no guide": {**block, "form": "sum"},
        "permuted": {**block, "guide": "permuted"},
        "product": {**block, "form": "product"},
        "product, permuted": {**block, "form": "product", "guide": "permuted"},
        "two blocks": {**block, "form": "two", "size": size // 2},
        "columns": {**block, "index": "columns"},
    }
    for other, r in (pairs or {}).items():
        arms |= {f"Bone {other}": {**block, "size": int(other)}}
        arms |= {f"LoRA {r}": {"kind": "LoRA", "rank": r}}
    return {**arms, "full": {"kind": "Full"}} if full else arms


def step_ratio(columns: int, rank: int) -> float:
    """Norm of the change that Adam's first update makes through the sum of blocks, over that
    through LoRA at the same rate: √(3 i / r).

    The first update moves every trained number by the rate η. Every entry of the sum's change is
    ± η; LoRA's is η times r entries of A, uniform on ± 1/√i, with signs.
    """
    return math.sqrt(3 * columns / rank)


def small_rate(
    data: Dataset | TextData, arms: Arms, rates: Sequence[float], matched: float,
    seeds: Sequence[int], settings: Mapping[str, Any],
) -> tuple[dict[tuple[str, float, int], Arrays], pd.DataFrame]:  # fmt: skip
    """Runs, and `arm_frame` of them, of all arms at rates that all have, and of the arm "LoRA" at
    the last of them times `matched`, named "LoRA, same step"."""
    grid: dict[str, Sequence[float]] = {arm: list(rates) for arm in arms}
    longer = {**arms, "LoRA, same step": arms["LoRA"]}
    grid["LoRA, same step"] = [float(f"{rates[-1] * matched:.3g}")]
    runs = run_arms(data, longer, grid, seeds, settings)
    return runs, arm_frame(runs)


def between(frame: pd.DataFrame, one: str, other: str, what: str, rate: float) -> pd.Series:
    """A column of one arm at a rate minus that of another, by seed; an arm that has one rate alone
    is taken at that.

    Raises ValueError for an arm or a rate that is not there.
    """
    found = []
    for arm in (one, other):
        own = frame[frame.arm == arm]
        own = own[own.rate == rate] if own.rate.nunique() > 1 else own
        if own.empty:
            raise ValueError(f"arm and rate must be of {sorted(set(frame.arm))}, got {arm} {rate}")
        found.append(own.set_index("seed")[what])
    difference: pd.Series = found[0] - found[1]
    return difference


def least_gain(frame: pd.DataFrame, alone: str, what: str = "train") -> pd.Series:
    """How far the worst of the other arms is below the arm in which nothing is adapted, by seed."""
    wide = frame.pivot(index="seed", columns="arm", values=what)
    gain: pd.Series = wide[alone] - wide.drop(columns=alone).max(axis=1)
    return gain


def differences(
    frame: pd.DataFrame, pairs: Sequence[tuple[str, str]], whats: Sequence[str], system: str
) -> pd.DataFrame:
    """system, pair, what, seed, value: of each pair of arms one minus the other, both at the rate
    that validation chose."""
    wide = frame.pivot(index="seed", columns="arm")
    rows = [
        (system, f"{one} − {other}", what, seed, value)
        for one, other in pairs
        for what in whats
        for seed, value in (wide[what][one] - wide[what][other]).items()
    ]
    return pd.DataFrame(rows, columns=["system", "pair", "what", "seed", "value"])


def counted(frame: pd.DataFrame, what: str = "accuracy") -> pd.DataFrame:
    """family ("LoRA", "Bone", "product", "full" and those in which nothing is adapted), count
    (trained numbers in the hidden layers), seed, value: a column of the arms, sizes and ranks of
    one family together."""
    family = frame.arm.str.replace(r" \d+$", "", regex=True)
    own = frame.assign(family=family, value=frame[what])
    own = own[own.family.isin(["LoRA", "Bone", "product", "full"]) | (own["count"] == 0)]
    return own[["family", "count", "seed", "value"]].reset_index(drop=True)


def loss_curves(
    runs: Mapping[tuple[str, float, int], Arrays], arms: Sequence[str], rate: float | None = None
) -> pd.DataFrame:
    """arm, step, seed, loss: batch losses, mean of `BIN` updates, of the arms at a rate (None: all
    runs of them)."""
    rows = []
    for (arm, own, seed), run in runs.items():
        if arm in arms and rate in (None, own):
            losses = np.asarray(run["losses"], dtype=float)
            means = losses[: len(losses) // BIN * BIN].reshape(-1, BIN).mean(1)
            rows += [(arm, (k + 0.5) * BIN, seed, value) for k, value in enumerate(means)]
    return pd.DataFrame(rows, columns=["arm", "step", "seed", "loss"])


def chance_correlation(n: int) -> float:
    """Mean |correlation| of two independent normal vectors of n entries,
    Γ((n - 1)/2) / (√π Γ(n/2))."""
    return math.exp(math.lgamma((n - 1) / 2) - math.lgamma(n / 2)) / math.sqrt(math.pi)


# --- a system as a whole -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Followed:
    """A system: `system` at the rates that validation chose; `runs` and `early` of `small_rate`;
    `added`, `change_frame`; `shares`, `summed_share` by seed (rows) and layer (columns)."""

    system: Studied
    runs: dict[tuple[str, float, int], Arrays]
    early: pd.DataFrame
    added: pd.DataFrame
    shares: pd.DataFrame


def followed(
    data: Dataset | TextData, arms: Arms, rates: Sequence[float], tuning_seeds: Sequence[int],
    seeds: Sequence[int], settings: Mapping[str, Any], *, inputs: int, small: Sequence[float],
    also: Sequence[str],
) -> Followed:  # fmt: skip
    """All of it; `also` at the rates `small` too, and LoRA at the rate of Bone's first step.

    inputs : of the first hidden layer, for the counts.
    """
    system = studied(
        data, arms, rates, tuning_seeds, seeds, settings, inputs=inputs,
        keep=[arm for arm in KEPT if arm in arms],
    )  # fmt: skip
    ratio = step_ratio(int(settings["base"]["width"]), int(arms["LoRA"]["rank"]))
    runs, early = small_rate(data, {arm: arms[arm] for arm in also}, small, ratio, seeds, settings)
    found = input_frame(data, seeds, settings, int(arms["Bone"]["size"]))
    shares = found.pivot(index="seed", columns="layer", values="share")
    return Followed(system, runs, early, change_frame(system), shares)


def tables(found: Followed, name: str) -> dict[str, pd.DataFrame]:
    """Means over seeds: arms, changes, and inputs of the layers, under names that begin so."""
    added = found.added.groupby("arm", sort=False).mean().drop(columns="seed").reset_index()
    shares = found.shares.mean().reset_index(name="share")
    return {
        name: arm_table(found.system), f"{name}_changes": added.round(4),
        f"{name}_inputs": shares.round(3),
    }  # fmt: skip
