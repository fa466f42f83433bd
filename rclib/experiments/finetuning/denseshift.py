"""Frames of notebook 84: do power-of-two weights do without a zero, and learn, and move on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rclib.data.images import Dataset
from rclib.experiments.finetuning.bases import PARTS
from rclib.experiments.finetuning.denseshift_nets import POINTS
from rclib.experiments.finetuning.denseshift_runs import shift_runs
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays

__all__ = [
    "CONTROLS",
    "DENSE_3",
    "PLAIN",
    "STARTS",
    "Cell",
    "Studied",
    "arms_of",
    "at_rate",
    "best_starts",
    "bits_frame",
    "chosen_cells",
    "column",
    "curve_gap",
    "curves",
    "difference",
    "ends_frame",
    "freezing",
    "gain_frame",
    "ranked",
    "run_cells",
    "share_frame",
    "studied",
    "table",
    "weight_frame",
]

Cell = tuple[str, float]  # start of the latents, rate
Runs = dict[tuple[str, str, float, int], Arrays]  # arm, start, rate, seed
DENSE_3 = {"kind": "DenseShift", "bits": 3}
STARTS = ("low", "Kaiming", "one")
PLAIN: dict[str, Any] = {"frozen": [], "norm": True}


def arms_of(bits: int, *, more: bool) -> dict[str, dict[str, Any]]:
    """Arms up to so many bits: real weights, zero-free and with zero; with `more` also one latent
    with and without zero at 2 and 3 bits, another surrogate, and signs that stay."""
    arms: dict[str, dict[str, Any]] = {"float": {"code": {"kind": "Float"}}}
    arms |= {f"dense {b}": {"code": {"kind": "DenseShift", "bits": b}} for b in range(1, bits + 1)}
    zero = {b: {"kind": "ShiftWithZero", "bits": b} for b in range(2, bits + 1)}
    arms |= {f"with zero {b}": {"code": code} for b, code in zero.items()}
    if more:
        one = {"kind": "PowerQuantiser"}
        arms |= {f"one latent {b}": {"code": {**one, "bits": b}} for b in (2, 3)}
        arms |= {
            f"one latent {b}, zero": {"code": {**one, "bits": b, "zero": True}} for b in (2, 3)
        }
        arms["dense 3, exponential"] = {"code": {**DENSE_3, "surrogate": "exponential"}}
        arms["dense 3, signs fixed"] = {"code": DENSE_3, "frozen": ["sign"]}
    return {name: {**PLAIN, **arm} for name, arm in arms.items()}


CONTROLS: dict[str, dict[str, Any]] = {
    "times 4": {**PLAIN, "code": {**DENSE_3, "scale": 4.0}},
    "no norm": {**PLAIN, "code": DENSE_3, "norm": False},
    "no norm, times 4": {"code": {**DENSE_3, "scale": 4.0}, "frozen": [], "norm": False},
}


@dataclass(frozen=True, eq=False)
class Studied:
    """Networks of one width: `tuning`, `ends_frame` of the seeds by which starts and rates were
    chosen; `cells`, arm -> (start, rate); `frame` and `runs` of the reported seeds there."""

    tuning: pd.DataFrame
    cells: dict[str, Cell]
    frame: pd.DataFrame
    runs: Runs


def run_cells(
    data: Dataset, arms: Mapping[str, Mapping[str, Any]], cells: Mapping[str, Sequence[Cell]],
    seeds: Sequence[int], settings: Mapping[str, Any],
) -> Runs:  # fmt: skip
    """Every arm at its cells. settings : width, task, steps, batch_size."""
    keys = [(arm, *cell, int(s)) for arm in arms for cell in cells[arm] for s in seeds]
    configs = [
        {**settings, **arms[arm], "std": std, "rate": rate, "seed": s} for arm, std, rate, s in keys
    ]
    runs = sweep_stacked(
        shift_runs, configs, members=["seed", "rate", "std"], data=data, description="networks",
        group=12 if settings["width"] <= 16 else 5,
    )  # fmt: skip
    return dict(zip(keys, runs, strict=True))


def ends_frame(runs: Runs) -> pd.DataFrame:
    """arm, std, rate, seed, ever, flips, train, validation, test (losses), accuracy (of test)."""
    rows = [
        (*key, float(run["ever"]), float(run["flips"]), *run["end"], run["accuracy"][2])
        for key, run in runs.items()
    ]
    columns = ["arm", "std", "rate", "seed", "ever", "flips", *PARTS, "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def chosen_cells(tuning: pd.DataFrame) -> dict[str, Cell]:
    """arm -> (start, rate) of least mean validation loss; one that is no number anywhere is not
    chosen. Raises ValueError for an arm without another."""
    over = tuning.groupby(["arm", "std", "rate"], sort=False).validation
    mean = over.agg(lambda v: v.mean(skipna=False)).fillna(np.inf)
    if bool(np.isinf(mean.groupby("arm").min()).any()):
        raise ValueError("tuning must hold a cell without divergence for every arm")
    best = mean.groupby("arm", sort=False).idxmin()
    return {str(arm): (str(std), float(rate)) for arm, (_, std, rate) in best.items()}


def studied(
    data: Dataset, arms: Mapping[str, Mapping[str, Any]], stds: Sequence[str],
    rates: Sequence[float], tuning_seeds: Sequence[int], seeds: Sequence[int],
    settings: Mapping[str, Any],
) -> Studied:  # fmt: skip
    """Starts and rates by the tuning seeds, then the reported seeds with these.

    One latent has the start "one" to choose besides: from others a code of two bits with a zero
    begins with zeros alone.
    """
    grid = {
        arm: [
            (std, float(rate))
            for std in (*stds, *(("one",) if arm.startswith("one latent") else ()))
            for rate in rates
        ]
        for arm in arms
    }
    tuning = ends_frame(run_cells(data, arms, grid, tuning_seeds, settings))
    cells = chosen_cells(tuning)
    runs = run_cells(data, arms, {arm: [cell] for arm, cell in cells.items()}, seeds, settings)
    return Studied(tuning, cells, ends_frame(runs), runs)


def difference(frame: pd.DataFrame, one: str, other: str, what: str) -> pd.Series:
    """A column of one arm minus that of another, by seed. KeyError for an arm that is none."""
    return column(frame, one, what) - column(frame, other, what)


def column(frame: pd.DataFrame, arm: str, what: str) -> pd.Series:
    """A column of an arm with one row a seed, by seed. Raises KeyError for an arm that is none."""
    found: pd.Series = frame.pivot(index="seed", columns="arm", values=what)[arm]
    return found


def table(found: Studied) -> pd.DataFrame:
    """By arm: its start and rate, whether the rate is an end of the grid, and means over seeds."""
    columns = ["train", "test", "accuracy", "ever", "flips"]
    over = found.frame.groupby("arm", sort=False)[columns].mean()
    cells = over.index.map(found.cells)
    ends = found.tuning.rate.agg(["min", "max"]).to_list()
    named = over.assign(std=[std for std, _ in cells], rate=[rate for _, rate in cells])
    return named.assign(end=named.rate.isin(ends)).reset_index().round(4)


def bits_frame(systems: Mapping[int, Studied]) -> pd.DataFrame:
    """width, family ("dense", "with zero", "float"), bits (0 for real weights), seed, accuracy."""
    frames = []
    for width, found in systems.items():
        parts = found.frame.arm.str.extract(r"^(dense|with zero|float) ?(\d?)$")
        own = found.frame.assign(family=parts[0], bits=parts[1], width=width)
        own = own.dropna(subset=["family"])
        own["bits"] = own.bits.replace("", "0").astype(int)
        frames.append(own[["width", "family", "bits", "seed", "accuracy"]])
    return pd.concat(frames, ignore_index=True)


def freezing(found: Studied, also: pd.DataFrame) -> pd.DataFrame:
    """arm, std, rate, ever, train: means over the tuning seeds by cell; `also`, a frame of more
    cells. Networks that never learned (no better than chance) are left out."""
    keys = ["arm", "std", "rate"]
    both = pd.concat([found.tuning, also], ignore_index=True)
    over = both.groupby(keys, sort=False)[["ever", "train"]].mean().reset_index()
    return over[over.train < 2.29].reset_index(drop=True)


def ranked(grid: pd.DataFrame) -> pd.Series:
    """Rank correlation of `ever` and training loss over the cells of a frame, by seed."""
    rows = {
        int(seed): float(stats.spearmanr(own.ever, own.train).statistic)
        for seed, own in grid.groupby("seed")
    }
    return pd.Series(rows, name="correlation").rename_axis("seed")


def share_frame(found: Studied, arms: Sequence[str]) -> pd.DataFrame:
    """arm, when, size ("0", "1", "2", ...), share: of hidden weights, mean over seeds."""
    rows = []
    for arm in arms:
        shares = np.mean([run["shares"] for key, run in found.runs.items() if key[0] == arm], 0)
        for when, own in zip(("start", "end"), shares, strict=True):
            names = ["0", *(f"{2**s}" for s in range(len(own) - 1))]
            rows += [(arm, when, n, float(v)) for n, v in zip(names, own, strict=True)]
    frame = pd.DataFrame(rows, columns=["arm", "when", "size", "share"])
    return frame[frame["share"] > 0].reset_index(drop=True)


def weight_frame(found: Studied) -> pd.DataFrame:
    """arm, seed, when, edge (largest singular value over the edge, first matrix), means, sizes
    (correlations of `coupling`)."""
    rows = []
    for (arm, _, _, seed), run in found.runs.items():
        for place, when in enumerate(("start", "end")):
            rows.append((arm, seed, when, run["edges"][place, 0], *run["coupling"][place]))
    return pd.DataFrame(rows, columns=["arm", "seed", "when", "edge", "means", "sizes"])


def curves(runs: Runs) -> pd.DataFrame:
    """arm, seed, tenth (1 to 10 of the updates), loss."""
    rows = [
        (arm, seed, point + 1, float(run["curve"][point]))
        for (arm, _, _, seed), run in runs.items()
        for point in range(POINTS)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "tenth", "loss"])


def curve_gap(frame: pd.DataFrame, one: str, other: str) -> pd.Series:
    """Largest distance of the training curves of two arms, by seed."""
    wide = frame.pivot(index=["seed", "tenth"], columns="arm", values="loss")
    found: pd.Series = (wide[one] - wide[other]).abs().groupby("seed").max()
    return found


def at_rate(
    grid: pd.DataFrame, one: str, other: str, rate: float, what: str = "train"
) -> pd.Series:
    """A column of `ends_frame` of one start minus that of another, at a rate, by seed."""
    own = grid[np.isclose(grid.rate, rate)]
    wide = own.pivot(index="seed", columns="std", values=what)
    found: pd.Series = wide[one] - wide[other]
    return found


def best_starts(grid: pd.DataFrame, tuning: pd.DataFrame, arm: str) -> pd.Series:
    """Training loss of the low start minus that of Kaiming's, each at the rate of least validation
    loss on the tuning seeds, by seed."""
    own = tuning[tuning.arm == arm]
    losses = []
    for std in ("low", "Kaiming"):
        rate = chosen_cells(own[own["std"] == std])[arm][1]
        at = grid[(grid["std"] == std) & np.isclose(grid.rate, rate)]
        losses.append(at.set_index("seed").train)
    found: pd.Series = losses[0] - losses[1]
    return found


def gain_frame(systems: Mapping[int, Studied]) -> pd.DataFrame:
    """arm ("2 bits", "3 bits"), width, seed, gain: accuracy zero-free minus with zero."""
    frames = []
    for width, found in systems.items():
        for bits in (2, 3):
            gain = difference(found.frame, f"dense {bits}", f"with zero {bits}", "accuracy")
            own = {"arm": f"{bits} bits", "width": width, "seed": gain.index, "gain": gain.array}
            frames.append(pd.DataFrame(own))
    return pd.concat(frames, ignore_index=True)
