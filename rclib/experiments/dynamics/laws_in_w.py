"""What of the laws of series 6 can be seen in the weights, on one axis of learning time.

A law has its own clock: the learning time t* is the first at which what the law is about
(`progress` of `laws_in_w_runs`) has gone half of the way from its start to its best. A measure of W
has a half-time too, at which it has gone half of the way from its start to its end. Its ratio to t*
says whether W shows the law while it happens (about one), long before it, or long after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.experiments.dynamics import laws_in_w_runs as runs
from rclib.experiments.dynamics.laws_in_w_measures import MEASURES
from rclib.runs import sweep
from rclib.runs.store import Arrays

__all__ = [
    "NEVER",
    "SYSTEMS",
    "half_time",
    "half_times",
    "left_at_end",
    "shown_times",
    "shuffled_left",
    "summary",
    "visible",
    "watch_frame",
]

SYSTEMS = ("60 modes", "61 student", "62 grokking", "63 batch norm", "64 Boolean", "65 fit")
FALLING = ("61 student", "64 Boolean", "65 fit")  # progress is an error there
NEVER = 64.0  # stands for the ratio of a measure that does not change
LEAST_SHARE = 0.05  # of ‖W‖² beyond a bulk; less is no change


def watch_frame(
    data: Dataset, seeds: Sequence[int], settings: Mapping[str, Mapping[str, Any]], *, moments: int
) -> pd.DataFrame:
    """All watched networks in long form: system, seed, t (steps), tau (t over the learning time),
    progress (0 at the start, 1 at its best) and `MEASURES`, each also as shuffled_... and, the
    same at every t, null_..._mean and null_..._sd.

    settings : system -> arguments of its run besides seed and moments. Raises ValueError for an
    unknown system and for a law that does not pass half of its way within the run.
    """
    frames = []
    for system, own in settings.items():
        configs = [{"seed": seed, **own, "moments": moments} for seed in seeds]
        found = _watched(choice("system", system, SYSTEMS), data, configs)
        for seed, run in zip(seeds, found, strict=True):
            level = -run["progress"] if system in FALLING else run["progress"]
            way = (level - level[0]) / (level.max() - level[0])
            learned = half_time(run["times"], way, end=1.0)
            names = [*MEASURES, *(f"shuffled_{name}" for name in MEASURES)]
            frame = pd.DataFrame({name: run[name] for name in names})
            for name in MEASURES:
                frame[f"null_{name}_mean"], frame[f"null_{name}_sd"] = run[f"null_{name}"]
            frame.insert(0, "progress", way)
            frame.insert(0, "tau", run["times"] / learned)
            frame.insert(0, "t", run["times"])
            frame.insert(0, "seed", seed)
            frame.insert(0, "system", system)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _watched(system: str, data: Dataset, configs: Sequence[Mapping[str, Any]]) -> list[Arrays]:
    match system:
        case "60 modes":
            return sweep.run(runs.watch_modes, configs, description=system)
        case "61 student":
            return sweep.run(runs.watch_student, configs, description=system)
        case "62 grokking":
            return sweep.run(runs.watch_addition, configs, description=system)
        case "63 batch norm":
            return sweep.run(runs.watch_normalised, configs, data=data, description=system)
        case "64 Boolean":
            return sweep.run(runs.watch_boolean, configs, description=system)
        case _:
            return sweep.run(runs.watch_fit, configs, data=data, description=system)


def half_time(times: ArrayLike, values: ArrayLike, *, end: float) -> float:
    """First time at which values (T,) have gone half of the way from values[0] to `end`, by
    straight lines between times (T,). Raises ValueError where they never do, or start there."""
    t, v = np.asarray(times, dtype=float), np.asarray(values, dtype=float)
    if t.shape != v.shape or t.ndim != 1 or len(t) < 2:
        raise ValueError(f"times and values must be (T,), T ≥ 2, got {t.shape} and {v.shape}")
    if not end != v[0]:
        raise ValueError(f"end must differ from values[0], got {end}")
    way = (v - v[0]) / (end - v[0])
    over = np.flatnonzero(way >= 0.5)
    if not len(over):
        raise ValueError(f"values never go half of the way to {end}, the most is {way.max():.3g}")
    i = int(over[0])
    return float(t[i - 1] + (t[i] - t[i - 1]) * (0.5 - way[i - 1]) / (way[i] - way[i - 1]))


def half_times(
    frame: pd.DataFrame, system: str, measure: str = "spikes", *, to: str = "end"
) -> pd.Series:
    """Half-time of a measure over the law's, by seed, on its way to the end or ("most") to its
    largest value; `NEVER` where that is less than 5 standard deviations of chance (for "spikes" and
    "outside": `LEAST_SHARE`) from its start."""
    choice("to", to, ("end", "most"))
    found = {}
    for seed, group in frame[frame.system == system].groupby("seed"):
        goal = group[measure].iloc[-1] if to == "end" else group[measure].max()
        least = 5 * group[f"null_{measure}_sd"].iloc[0]
        if measure in ("spikes", "outside"):
            least = LEAST_SHARE
        moved = abs(goal - group[measure].iloc[0]) > least
        found[seed] = half_time(group.tau, group[measure], end=goal) if moved else NEVER
    return pd.Series(found, name="ratio").rename_axis("seed")


def left_at_end(frame: pd.DataFrame, system: str) -> pd.Series:
    """Share of ‖W‖² in spikes at the end over the largest that it was, by seed. Raises ValueError
    where it never reached `LEAST_SHARE`."""
    group = frame[frame.system == system].groupby("seed").spikes
    most = group.max()
    if not (most > LEAST_SHARE).all():
        raise ValueError(f"{system} has no spikes to lose, the largest share is {most.min():.3g}")
    return (group.last() / most).rename("left")


def visible(frame: pd.DataFrame, systems: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """Changes from start to end over the standard deviation that chance gives: system, seed,
    measure, change. Raises ValueError for a measure that chance never moves in a system."""
    rows = []
    for (system, seed), group in frame[frame.system.isin(systems)].groupby(["system", "seed"]):
        for name in measures:
            sd = float(group[f"null_{name}_sd"].iloc[0])
            if not sd > 0:
                raise ValueError(
                    f"chance does not move {name} in {system}, so its size says nothing"
                )
            change = abs(group[name].iloc[-1] - group[name].iloc[0]) / sd
            rows.append((system, seed, name, float(change)))
    return pd.DataFrame(rows, columns=["system", "seed", "measure", "change"])


def shuffled_left(frame: pd.DataFrame, systems: Sequence[str], measure: str) -> pd.Series:
    """A share of ‖W‖², "spikes" or "outside", with shuffled entries over that of W itself, at the
    end, the largest over the systems, by seed. Systems in which W has no such share (`LEAST_SHARE`)
    are left out; raises ValueError if all are."""
    end = frame[frame.system.isin(systems)].groupby(["system", "seed"]).last().reset_index()
    end = end[end[choice("measure", measure, ("spikes", "outside"))] > LEAST_SHARE]
    if end.empty:
        raise ValueError(f"no system of {list(systems)} has {measure}")
    left = end[f"shuffled_{measure}"] / end[measure]
    return left.groupby(end.seed).max().rename("left")


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """system, measure, start, end, null (mean of chance), null_sd, half (half-time over the law's,
    median over seeds; `NEVER` where nothing changed)."""
    rows = []
    for system, group in frame.groupby("system", sort=False):
        first, last = (group.groupby("seed").nth(i) for i in (0, -1))
        for name in MEASURES:
            if not group[name].notna().all():
                continue
            half = half_times(frame, str(system), name).median()
            null = group[f"null_{name}_mean"].mean(), group[f"null_{name}_sd"].mean()
            rows.append((system, name, first[name].mean(), last[name].mean(), *null, half))
    return pd.DataFrame(
        rows, columns=["system", "measure", "start", "end", "null", "null_sd", "half"]
    )


def shown_times(frame: pd.DataFrame) -> pd.DataFrame:
    """What the figure shows: system, tau (mean over seeds) and progress and every measure as mean,
    _low and _high (smallest and largest) over seeds at each step but the first. The stable rank is
    divided by that of the same seed's start, and the start's α is taken off."""
    first = frame.groupby(["system", "seed"], sort=False)[["stable_rank", "alpha"]].transform(
        "first"
    )
    scaled = frame.assign(
        stable_rank=frame.stable_rank / first.stable_rank, alpha=frame.alpha - first.alpha
    )
    names = ["progress", *MEASURES]
    at = scaled[scaled.t > 0].groupby(["system", "t"], sort=False)
    mean, low, high = at[["tau", *names]].mean(), at[names].min(), at[names].max()
    both = mean.join(low.add_suffix("_low")).join(high.add_suffix("_high"))
    return both.reset_index().drop(columns="t")
