"""Frames of notebook 77: sizes of a unit's weights, and rotated inputs with rates for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from rclib.checks.arrays import Floats
from rclib.experiments.features.asked_again_runs import weights_run
from rclib.experiments.features.locality_runs import patch_run
from rclib.rowcolumn.measure import chance_level
from rclib.runs import sweep

__all__ = [
    "NETWORKS", "TASKS", "at_ends", "chosen_frame", "difference", "rates_frame", "tied_frame",
    "units_frame",
]  # fmt: skip

TASKS = ("rotated", "moving")
NETWORKS = ("LCN", "FCN")
SHUFFLES = 100  # pairings of one unit's weight with another's coefficient
Settings = Mapping[str, Any]


# --- sizes of weights ----------------------------------------------------------------------


def units_frame(seeds: Sequence[int], settings: Settings) -> pd.DataFrame:
    """One row a unit: seed, unit, first (a before training), a, b, c (after), error (of its
    network, on fresh points).

    settings : what `weights_run` gets besides the seed.
    """
    configs = [{"seed": seed, **settings} for seed in seeds]
    runs = sweep.run(weights_run, configs, description="training")
    frames = [
        pd.DataFrame({"first": run["start"][0], **dict(zip("abc", run["end"], strict=True))})
        .rename_axis("unit").reset_index().assign(seed=seed, error=float(run["error"]))
        for seed, run in zip(seeds, runs, strict=True)
    ]  # fmt: skip
    found = pd.concat(frames, ignore_index=True)
    return found[["seed", "unit", "first", "a", "b", "c", "error"]]


def tied_frame(units: pd.DataFrame) -> pd.DataFrame:
    """Absolute correlations over units, over the level below which they stay in 95 percent of
    independent normal draws: seed, sizes (|a| and |c|), signed (a and c), ranks (of |a| and |c|),
    start (|a| before training and |c|), shuffled (|a| and the |c| of another order of the units,
    mean over `SHUFFLES` of them), shuffled_95 (their 95 percent quantile), error.

    units : as `units_frame`.
    """
    rows = []
    for seed, own in units.groupby("seed", sort=False):
        a, c, first = (own[name].to_numpy() for name in ("a", "c", "first"))
        size, other = np.abs(a), np.abs(c)
        generator = np.random.default_rng(np.random.SeedSequence(int(str(seed)), spawn_key=(77,)))
        orders = [generator.permutation(len(own)) for _ in range(SHUFFLES)]
        shuffled = [_over_chance(size, other[order]) for order in orders]
        rows.append({
            "seed": seed, "sizes": _over_chance(size, other), "signed": _over_chance(a, c),
            "ranks": _over_chance(rankdata(size), rankdata(other)),
            "start": _over_chance(np.abs(first), other), "shuffled": np.mean(shuffled),
            "shuffled_95": np.quantile(shuffled, 0.95), "error": own.error.iloc[0],
        })  # fmt: skip
    return pd.DataFrame(rows)


def _over_chance(one: Floats, other: Floats) -> float:
    return float(abs(np.corrcoef(one, other)[0, 1]) / chance_level(len(one)))


# --- rotated inputs ------------------------------------------------------------------------


def rates_frame(
    seeds: Sequence[int], settings: Settings, grids: Mapping[str, Sequence[float]]
) -> pd.DataFrame:
    """task, arch, seed, rate, step, valid, test (accuracies), linear (accuracy of the best linear
    rule on the same test samples): the networks of notebook 73 with k units, on rotated inputs and
    on those as they are, at every rate and stopping time.

    settings : what `patch_run` gets besides task, arch, units, seed and rates. grids : rates by
    network, ascending.
    """
    keys = [(task, arch, seed) for task in TASKS for arch in NETWORKS for seed in seeds]
    configs = [
        {**settings, "task": task, "arch": arch, "units": settings["k"], "seed": seed,
         "rates": list(grids[arch])}
        for task, arch, seed in keys
    ]  # fmt: skip
    runs = sweep.run(patch_run, configs, description="networks")
    frames = []
    for (task, arch, seed), run in zip(keys, runs, strict=True):
        index = pd.MultiIndex.from_product(
            [sorted(settings["at"]), grids[arch]], names=["step", "rate"]
        )
        own = pd.DataFrame({n: run[n].ravel() for n in ("valid", "test")}, index=index)
        own = own.reset_index().assign(task=task, arch=arch, seed=seed)
        frames.append(own.assign(linear=float(run["reference"][1])))
    found = pd.concat(frames, ignore_index=True)
    return found[["task", "arch", "seed", "rate", "step", "valid", "test", "linear"]]


def chosen_frame(
    frame: pd.DataFrame, grids: Mapping[str, Sequence[float]] | None = None, *, each: bool = False
) -> pd.DataFrame:
    """The row with the best validation accuracy of each task, network and seed, the earliest and
    slowest of equal ones, as notebook 73 has it.

    frame : as `rates_frame`. grids : which rates may be chosen, all without. each : the best
    stopping time of every rate. Raises ValueError for a rate that the frame does not have.
    """
    own = frame
    for arch, rates in (grids or {}).items():
        there = set(frame[frame.arch == arch].rate)
        if missing := sorted(set(rates) - there):
            raise ValueError(f"frame has no rates {missing} of {arch}")
        own = own[(own.arch != arch) | own.rate.isin(list(rates))]
    keys = ["task", "arch", "seed", *(["rate"] if each else [])]
    ordered = own.sort_values(["step", "rate"], kind="stable")
    best = ordered.loc[ordered.groupby(keys, sort=False).valid.idxmax()]
    return best.sort_index().reset_index(drop=True)


def difference(one: pd.DataFrame, other: pd.DataFrame, task: str) -> pd.Series:
    """Test accuracy of the LCNs of one frame minus that of the FCNs of another, by seed.

    Frames as `chosen_frame`. Raises ValueError for a task that is none of `TASKS`.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {TASKS}, got {task!r}")
    first, second = (
        frame[(frame.task == task) & (frame.arch == arch)].set_index("seed").test
        for frame, arch in zip((one, other), NETWORKS, strict=True)
    )
    return (first - second).rename("difference")


def at_ends(chosen: pd.DataFrame, grids: Mapping[str, Sequence[float]], task: str) -> pd.Series:
    """Which share of the networks of a task was given the first or last rate of its grid, by seed.

    chosen : as `chosen_frame`. grids : rates by network.
    """
    own = chosen[chosen.task == task]
    ends = [
        rate in (grids[arch][0], grids[arch][-1])
        for arch, rate in zip(own.arch, own.rate, strict=True)
    ]
    return own.assign(end=ends).groupby("seed", sort=False).end.mean()
