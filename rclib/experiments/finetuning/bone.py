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
import torch
from torch import Tensor

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning.bases import ADAPTED, Task, image_task, text_task
from rclib.experiments.finetuning.loldu import Studied, arm_table, studied
from rclib.experiments.finetuning.tuned_runs import Arms, arm_frame, run_arms
from rclib.rowcolumn.measure import correlations, mean_vectors
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.spectral.spectra import stable_rank

__all__ = [
    "KEPT",
    "TINY",
    "Followed",
    "arms_of",
    "between",
    "change_frame",
    "counted",
    "differences",
    "followed",
    "input_frame",
    "input_runs",
    "least_gain",
    "loss_curves",
    "neuron_correlation",
    "row_mean_share",
    "small_rate",
    "spectra",
    "step_ratio",
    "summed_share",
    "tables",
]

KEPT = ("LoRA", "Bone", "no guide", "permuted", "product", "product, permuted", "full")
BIN = 10  # updates whose batch losses make one point of a curve
RTOL = 1e-5  # singular values below it, relative to the largest, are rounding of single precision
_INPUTS: dict[str, Any] = {
    "group": [{"seed": 0}, {"seed": 3}], "size": 4,
    "base": {"width": 8, "batch_size": 16, "steps": 3, "rate": 0.01},
    "task": {"n_train": 20, "n_validation": 8, "n_test": 8},
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "input_runs": {
        **_INPUTS, "base": {**_INPUTS["base"], "pool": 1, "classes": 5, "n": 30},
        "task": {**_INPUTS["task"], "head_rate": 0.001},
    },
}  # fmt: skip


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


# --- what training adds --------------------------------------------------------------------------


def row_mean_share(change: Tensor) -> float:
    """Share of ‖ΔW‖² in the means of its rows: i Σ_a m_a² / ‖ΔW‖²; 1/i for independent entries.

    Raises ValueError for a change that is zero.
    """
    total = float(change.square().sum())
    if total == 0:
        raise ValueError("change must not be zero")
    return float(change.mean(1).square().sum()) * change.shape[1] / total


def neuron_correlation(first: Tensor, second: Tensor) -> float:
    """|correlation| over hidden neurons of the row means of the first matrix's change (h, i) with
    the column means of the second's (o, h)."""
    axes = {"first": ("h", "x"), "second": ("y", "h")}
    vectors = mean_vectors({"first": first, "second": second}, axes)
    return abs(float(correlations({"h": vectors["h"]}).matrix[0, 1]))


def _changes(system: Studied, arms: Sequence[str]) -> dict[tuple[str, int], list[Tensor]]:
    return {
        (arm, seed): [torch.from_numpy(run[f"change_{k}"]).double() for k in (0, 1)]
        for (arm, _, seed), run in system.runs.items()
        if arm in arms
    }


def change_frame(system: Studied, arms: Sequence[str] = KEPT) -> pd.DataFrame:
    """arm, seed, and of what training added to the two matrices: rank_1, rank_2 (numerical),
    rank (the smaller share of min(o, i)), stable (mean stable rank), rows_1, rows_2
    (`row_mean_share`), rows (their mean), neurons (`neuron_correlation`)."""
    rows = []
    for (arm, seed), both in _changes(system, arms).items():
        ranks = [int(torch.linalg.matrix_rank(c, rtol=RTOL)) for c in both]
        full = min(r / min(c.shape) for r, c in zip(ranks, both, strict=True))
        stable = float(np.mean([stable_rank(c) for c in both]))
        shares = [row_mean_share(c) for c in both]
        means = (*shares, float(np.mean(shares)))
        rows.append((arm, seed, *ranks, full, stable, *means, neuron_correlation(*both)))
    columns = ["arm", "seed", "rank_1", "rank_2", "rank", "stable", "rows_1", "rows_2", "rows",
               "neurons"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def spectra(system: Studied, arms: Sequence[str] = KEPT) -> pd.DataFrame:
    """arm, place, value: singular values of the second matrix's change over its Frobenius norm,
    geometric mean over seeds; those below `RTOL` times the largest are left out."""
    logs: dict[str, list[np.ndarray]] = {}
    for (arm, _), (_, change) in _changes(system, arms).items():
        values = torch.linalg.svdvals(change / change.norm()).numpy()
        logs.setdefault(arm, []).append(np.log(np.where(values > RTOL * values[0], values, np.nan)))
    rows = [
        (arm, place + 1, float(np.exp(value)))
        for arm, own in logs.items()
        for place, value in enumerate(np.mean(own, axis=0))
        if np.isfinite(value)
    ]
    return pd.DataFrame(rows, columns=["arm", "place", "value"])


# --- what the sum of blocks gets -----------------------------------------------------------------


def summed_share(inputs: Tensor, size: int) -> float:
    """Σ ‖Σ_b x_b‖² / Σ Σ_b ‖x_b‖² over points x (n, i) of i/s blocks: 1 where blocks are unrelated
    and have mean zero, i/s where they are all equal."""
    parts = inputs.double().reshape(len(inputs), -1, size)
    return float(parts.sum(1).square().sum() / parts.square().sum())


def input_runs(
    data: Dataset | TextData, *, group: Sequence[Mapping[str, Any]], base: Mapping[str, Any],
    task: Mapping[str, Any], size: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds: shares (S, 2), `summed_share` of what the two matrices get
    on the training part of the new task, before it is adapted to."""
    seeds = [int(member["seed"]) for member in group]
    make = text_task if isinstance(data, TextData) else image_task
    found: Task = make(data, seeds, base=base, task=task)  # type: ignore[arg-type]
    x, _ = found.at(found.places["train"])
    t, rows = found.start.tensors, []
    for s, own in enumerate(x):  # one by one: a member has the bits that it has alone
        hidden = torch.relu(own @ t[ADAPTED[0]][s].T + t["layers.0.bias"][s])
        rows.append([summed_share(h, size) for h in (own, hidden)])
    return {"shares": np.array(rows)}


def input_frame(
    data: Dataset | TextData, seeds: Sequence[int], settings: Mapping[str, Any], size: int
) -> pd.DataFrame:
    """seed, layer (1, 2), share: `input_runs`."""
    shared = {"base": settings["base"], "task": settings["task"], "size": size}
    runs = sweep_stacked(
        input_runs, [{**shared, "seed": s} for s in seeds], members=["seed"], group=32, data=data,
        description="inputs",
    )  # fmt: skip
    rows = [
        (seed, layer + 1, float(share))
        for seed, run in zip(seeds, runs, strict=True)
        for layer, share in enumerate(run["shares"])
    ]
    return pd.DataFrame(rows, columns=["seed", "layer", "share"])


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
