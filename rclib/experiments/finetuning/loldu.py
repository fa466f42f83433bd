"""Frames of notebook 80: are the LDU factors of a weight a good place to fine-tune few numbers?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from rclib.data.images import Dataset
from rclib.data.text import TextData, named_text
from rclib.data.two_texts import two_texts
from rclib.experiments.finetuning.factors import KINDS, START_ARMS, factor_runs
from rclib.experiments.finetuning.tuned_runs import (
    Arms,
    arm_frame,
    chosen_rates,
    counts,
    run_arms,
    tune,
)
from rclib.rowcolumn.measure import row_column_share
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.spectral.spectra import stable_rank

__all__ = [
    "Factors",
    "Studied",
    "arm_table",
    "by_seed",
    "changes",
    "difference",
    "factors",
    "frontier",
    "image_arms",
    "inputs_of",
    "pivot_correlation",
    "residual_at",
    "start_losses",
    "studied",
    "text_arms",
    "texts",
    "tuning_curves",
]

FAMILIES = {
    "LDU": "LoLDU",
    "random": "RandomFrames",
    "singular values": "SingularValues",
    "LoRA": "LoRA",
}


@dataclass(frozen=True, eq=False)
class Studied:
    """One system: `tuning`, frame of the seeds by which rates were chosen; `rates`, arm -> rate;
    `frame`, `arm_frame` of the reported seeds with `count`, the trained numbers in the hidden
    layers; `runs`, (arm, rate, seed) -> run of those."""

    tuning: pd.DataFrame
    rates: dict[str, float]
    frame: pd.DataFrame
    runs: dict[tuple[str, float, int], Arrays]


def image_arms(ranks: Sequence[int], lora: Sequence[int], *, full: bool) -> dict[str, Any]:
    """Arms of the images: the three diagonals at all ranks, LoRA, a head alone, and at the last
    rank but one the broken and the repaired starts of z and the factors of the largest products
    first; with `full` also full fine-tuning."""
    half = ranks[-2]
    arms: dict[str, Any] = {"head": {"kind": "Linear"}}
    for name in ("LDU", "random", "singular values"):
        arms |= {f"{name} {r}": {"kind": FAMILIES[name], "rank": r} for r in ranks}
    arms |= {f"LoRA {r}": {"kind": "LoRA", "rank": r} for r in lora}
    for start in ("zeros", "uniform"):
        own = {"kind": "LoLDU", "rank": half, "z_start": start}
        arms |= {f"{start}, broken": own, f"{start}, repaired": {**own, "repaired": True}}
    arms["LDU, largest"] = {"kind": "LoLDU", "rank": half, "order": "largest"}
    return {**arms, "full": {"kind": "Full"}} if full else arms


def inputs_of(data: Dataset, settings: Mapping[str, Any]) -> int:
    """Pixels of an image after pooling."""
    return int(data.x_train.shape[1]) // int(settings["base"]["pool"]) ** 2


def text_arms(rank: int, lora: Sequence[int]) -> dict[str, Any]:
    """Arms of the text: no adaptation, the three diagonals, LoRA and full fine-tuning."""
    names = ("LDU", "random", "singular values")
    arms: dict[str, Any] = {"none": {"kind": "Linear"}}
    arms |= {f"{name} {rank}": {"kind": FAMILIES[name], "rank": rank} for name in names}
    arms |= {f"LoRA {r}": {"kind": "LoRA", "rank": r} for r in lora}
    return {**arms, "full": {"kind": "Full"}}


def texts(names: Sequence[str], most: int) -> TextData:
    """The two texts of a notebook's parameters as one: `two_texts`."""
    source, target = (named_text(name) for name in names)
    return two_texts(source, target, most)


def studied(
    data: Dataset | TextData, arms: Arms, rates: Sequence[float], tuning_seeds: Sequence[int],
    seeds: Sequence[int], settings: Mapping[str, Any], *, inputs: int, keep: Sequence[str] = (),
) -> Studied:  # fmt: skip
    """Rates by the tuning seeds, then the reported seeds at these rates.

    inputs : of the first hidden layer, for the counts. keep : arms whose matrices are kept.
    """
    tuning = tune(data, arms, rates, tuning_seeds, settings)
    chosen = chosen_rates(tuning)
    grid = {arm: [rate] for arm, rate in chosen.items()}
    runs = run_arms(data, arms, grid, seeds, settings, keep=keep)
    number = counts(arms, int(settings["base"]["width"]), inputs)
    frame = arm_frame(runs)
    return Studied(tuning, chosen, frame.assign(count=frame.arm.map(number)), runs)


def difference(frame: pd.DataFrame, one: str, other: str, what: str) -> pd.Series:
    """A column of one arm minus that of another, by seed. ValueError for an arm that is none."""
    for arm in (one, other):
        if arm not in set(frame.arm):
            raise ValueError(f"arm must be one of {sorted(set(frame.arm))}, got {arm!r}")
    wide = frame.pivot(index="seed", columns="arm", values=what)
    found: pd.Series = wide[one] - wide[other]
    return found


def arm_table(system: Studied) -> pd.DataFrame:
    """By arm: trained numbers, rate, whether it is an end of the grid, and means over seeds."""
    columns = ["count", "early", "train", "test", "accuracy"]
    over = system.frame.groupby("arm", sort=False)[columns].mean()
    grid = system.tuning.rate.agg(["min", "max"]).to_list()
    table = over.assign(rate=over.index.map(system.rates))
    table["end of grid"] = table.rate.isin(grid) & (table["count"] > 0)
    return table.reset_index().round(4)


def tuning_curves(system: Studied, arms: Sequence[str]) -> pd.DataFrame:
    """arm, rate, seed, validation (loss) of the tuning seeds, and whether the rate was chosen."""
    own = system.tuning[system.tuning.arm.isin(arms)]
    frame = own[["arm", "rate", "seed", "validation"]].copy()
    frame["chosen"] = frame.rate == frame.arm.map(system.rates)
    return frame.reset_index(drop=True)


def frontier(system: Studied, what: str) -> pd.DataFrame:
    """family, count, seed, value: a column by the method's family and its trained numbers; arms
    with another start or order are left out."""
    family = system.frame.arm.str.replace(r" \d+$", "", regex=True)
    named = {name: name for name in (*FAMILIES, "head", "none", "full")}
    frame = system.frame.assign(family=family.map(named), value=system.frame[what])
    found = frame.dropna(subset=["family"])[["family", "count", "seed", "value"]]
    return found.reset_index(drop=True)


# --- factors ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Factors:
    """What the factors of the pre-trained matrices are like, without training.

    table : seed, layer (1, 2), and of `factor_runs` columns, rows (mean squared cosine times the
    dimension), largest_column, largest_row, condition_left, condition_right. residual : seed,
    layer, kind ("LDU", "SVD"), rank, share. starts : seed, start, base, loss. values : seed,
    layer, place, pivots, singular. gram : matrix, row, column, cosine, of the first seed.
    """

    table: pd.DataFrame
    residual: pd.DataFrame
    starts: pd.DataFrame
    values: pd.DataFrame
    gram: pd.DataFrame


def factors(
    data: Dataset, seeds: Sequence[int], settings: Mapping[str, Any], ranks: Sequence[int]
) -> Factors:
    """`factor_runs` of every seed; starts of z at the last rank but one."""
    shared = {"base": settings["base"], "ranks": list(ranks), "start_rank": ranks[-2]}
    configs = [{**shared, "seed": s} for s in seeds]
    runs = sweep_stacked(
        factor_runs, configs, members=["seed"], group=32, data=data, description="factors"
    )
    table, residual, starts, values = [], [], [], []
    for seed, run in zip(seeds, runs, strict=True):
        for layer in (0, 1):
            table.append((seed, layer + 1, *run["shape"][layer]))
            for kind, curve in zip(KINDS, run["residual"][layer], strict=True):
                own = zip(run["ranks"], curve, strict=True)
                residual += [(seed, layer + 1, kind, rank, share) for rank, share in own]
            pairs = zip(run["pivots"][layer], run["singular"][layer], strict=True)
            values += [(seed, layer + 1, place + 1, *pair) for place, pair in enumerate(pairs)]
        for name, both in zip(START_ARMS, run["starts"], strict=True):
            kinds = zip(("broken", "repaired"), both, strict=True)
            starts += [(seed, name, base, loss) for base, loss in kinds]
    shape = ["columns", "rows", "largest_column", "largest_row", "condition_left",
             "condition_right"]  # fmt: skip
    return Factors(
        pd.DataFrame(table, columns=["seed", "layer", *shape]),
        pd.DataFrame(residual, columns=["seed", "layer", "kind", "rank", "share"]),
        pd.DataFrame(starts, columns=["seed", "start", "base", "loss"]),
        pd.DataFrame(values, columns=["seed", "layer", "place", "pivots", "singular"]),
        _gram(runs[0]["gram"]),
    )


def _gram(gram: np.ndarray) -> pd.DataFrame:
    frames = []
    for name, matrix in zip(("columns of L", "rows of U"), gram, strict=True):
        rows, columns = np.indices(matrix.shape)
        own = {"row": rows.ravel(), "column": columns.ravel(), "cosine": matrix.ravel().round(3)}
        frames.append(pd.DataFrame({"matrix": name, **own}))
    return pd.concat(frames, ignore_index=True)


def by_seed(frame: pd.DataFrame, what: str) -> pd.Series:
    """Mean over layers, by seed."""
    found: pd.Series = frame.groupby("seed", sort=False)[what].mean()
    return found


def residual_at(found: Factors, rank: int, kind: str = "LDU") -> pd.Series:
    """Relative residual at a rank, mean over layers, by seed. ValueError for a rank not there."""
    own = found.residual[(found.residual["rank"] == rank) & (found.residual.kind == kind)]
    if own.empty:
        raise ValueError(f"rank must be one of the runs', got {rank}")
    return by_seed(own, "share")


def start_losses(found: Factors, start: str, base: str = "broken") -> pd.Series:
    """Loss of the pre-trained network with a start of z, minus that with the pivots, by seed."""
    wide = found.starts[found.starts.base == base].pivot(
        index="seed", columns="start", values="loss"
    )
    difference: pd.Series = wide[start] - wide["lu"]
    return difference


def pivot_correlation(found: Factors) -> pd.Series:
    """Correlation of |pivots| with singular values, both in order, mean over layers, by seed."""
    rows = [
        (seed, np.corrcoef(own.pivots, own.singular)[0, 1])
        for (seed, _), own in found.values.groupby(["seed", "layer"], sort=False)
    ]
    return by_seed(pd.DataFrame(rows, columns=["seed", "correlation"]), "correlation")


def changes(system: Studied, arms: Sequence[str]) -> pd.DataFrame:
    """arm, seed, rank (stable rank of the change of the second matrix), share (of row and column
    means in the changes, mean over both), of arms whose matrices were kept."""
    rows = []
    for (arm, _, seed), run in system.runs.items():
        if arm in arms:
            both = [torch.from_numpy(run[f"change_{k}"]).double() for k in (0, 1)]
            share = np.mean([row_column_share(change).value for change in both])
            rows.append((arm, seed, stable_rank(both[1]), share))
    return pd.DataFrame(rows, columns=["arm", "seed", "rank", "share"])
