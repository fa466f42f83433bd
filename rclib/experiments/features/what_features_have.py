"""Frames of notebook 76: what drawn features already have, and what must be learned or known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.features.arms import chosen
from rclib.experiments.features.feature_runs import FITTING, feature_run
from rclib.experiments.features.feature_tasks import TASKS
from rclib.runs import sweep
from rclib.stats.sequential import interval

__all__ = [
    "ARMS", "FITTING", "LEAST", "TASKS", "by_seed", "decades", "excess_frame", "excess_table",
    "gains", "gap_closes", "shuffled_frame", "tells", "weights_table",
]  # fmt: skip

# (kind, learned) -> name
ARMS = {
    ("dense", False): "drawn",
    ("dense", True): "learned",
    ("fitting", False): "drawn, fitting",
    ("fitting", True): "learned, fitting",
}
LEAST = 1e-3  # excess risks below count as this one where decades are asked for
Settings = Mapping[str, Any]


def _frame(
    data: Dataset, seeds: Sequence[int], cells: Sequence[tuple[str, str, bool]], shared: Settings
) -> pd.DataFrame:
    frames = []
    for pictures in (False, True):
        own = [cell for cell in cells if (cell[0] == "images") == pictures]
        keys = [(seed, *cell) for cell in own for seed in seeds]
        configs = [
            {**shared, "seed": int(seed), "task": task, "kind": kind, "learned": learned}
            for seed, task, kind, learned in keys
        ]
        runs = sweep.run(
            feature_run, configs, data=data if pictures else None, description="features"
        )
        frames += [
            pd.DataFrame({**run, "task": task, "arm": ARMS[kind, learned], "seed": int(seed),
                          "features": shared["features"]})
            for (seed, task, kind, learned), run in zip(keys, runs, strict=True)
        ]  # fmt: skip
    order = ["task", "arm", "seed", "features", "excess"]
    found = pd.concat(frames, ignore_index=True)
    places = {task: place for place, task in enumerate(TASKS)}
    found = found.sort_values("task", key=lambda names: names.map(places), kind="stable")
    return found.reset_index(drop=True)[[*order, *(name for name in found if name not in order)]]


def excess_frame(data: Dataset, seeds: Sequence[int], **shared: Any) -> pd.DataFrame:
    """task, arm, seed, features, excess, and what else `feature_run` measures: every task and arm.

    shared : what `feature_run` gets besides task, kind, learned and seed.
    """
    cells = [
        (task, kind, learned)
        for task in TASKS
        for kind, learned in ARMS
        if kind == "dense" or task in FITTING
    ]
    return _frame(data, seeds, cells, shared)


def shuffled_frame(data: Dataset, seeds: Sequence[int], **shared: Any) -> pd.DataFrame:
    """The same for learned dense features of the largest number, outputs of the samples shuffled:
    all tasks."""
    own = {**shared, "features": shared["features"][-1:], "shuffled": True}
    return _frame(data, seeds, [(task, "dense", True) for task in TASKS], own)


def by_seed(
    frame: pd.DataFrame, task: str, arm: str, what: str = "excess", *, features: int | None = None
) -> pd.Series:
    """A column by seed, at the largest number of features if none is named.

    Raises ValueError as `chosen`, for a task, arm or number that is not there.
    """
    wanted = frame.features.max() if features is None else features
    return chosen(frame, what, task=task, arm=arm, features=wanted)


def _logs(frame: pd.DataFrame, what: str = "excess") -> pd.DataFrame:
    return frame.assign(log=np.log10(frame[what].clip(lower=LEAST)))


def decades(
    frame: pd.DataFrame, first: str, second: str, *, tasks: Sequence[str],
    features: int | None = None,
) -> pd.Series:  # fmt: skip
    """log10 of the excess risks' ratio of two arms, mean over tasks, by seed."""
    logs = _logs(frame)
    found = [
        by_seed(logs, task, first, "log", features=features)
        - by_seed(logs, task, second, "log", features=features)
        for task in tasks
    ]
    return pd.concat(found, axis=1).mean(axis=1).rename("decades")


def gap_closes(frame: pd.DataFrame, *, tasks: Sequence[str]) -> pd.Series:
    """By how much nearer (decades) drawn features are to learned ones with the most features than
    with the fewest, by seed."""
    few, many = (
        decades(frame, "drawn", "learned", tasks=tasks, features=int(number))
        for number in (frame.features.min(), frame.features.max())
    )
    return (few - many).rename("decades")


def gains(frame: pd.DataFrame) -> pd.DataFrame:
    """task, arm, seed, gain (decades from drawn to learned features after the last update, the
    largest number; negative where training did harm), beyond, means, beyond_start: of the learned
    weights then."""
    logs, frames = _logs(frame, "last"), []
    for drawn, learned in (("drawn", "learned"), ("drawn, fitting", "learned, fitting")):
        for task in dict.fromkeys(frame[frame.arm == learned].task):
            columns = {
                name: by_seed(frame, task, learned, name)
                for name in ("beyond", "means", "beyond_start")
            }
            gain = by_seed(logs, task, drawn, "log") - by_seed(logs, task, learned, "log")
            own = pd.DataFrame({"gain": gain, **columns}).reset_index()
            frames.append(own.assign(task=task, arm=learned))
    return pd.concat(frames, ignore_index=True)[
        ["task", "arm", "seed", "gain", "beyond", "means", "beyond_start"]
    ]


def tells(gained: pd.DataFrame, what: str) -> pd.Series:
    """Spearman's correlation over tasks and arms of what learning gains and a measure of the
    learned weights, by seed; layers without the measure are left out."""
    found = {
        int(seed): float(np.corrcoef(rows.gain.rank(), rows[what].rank())[0, 1])
        for seed, rows in gained.dropna(subset=[what]).groupby("seed")
    }
    return pd.Series(found, name="correlation").rename_axis("seed")


def excess_table(frame: pd.DataFrame) -> pd.DataFrame:
    """task, arm, features, mean, low, high: excess risks, 95 percent t-interval over seeds."""
    rows = []
    for (task, arm, number), own in frame.groupby(["task", "arm", "features"], sort=False):
        mean, low, high = interval(own.excess.tolist(), 0.05)
        rows.append((task, arm, int(number), mean, low, high))
    return pd.DataFrame(rows, columns=["task", "arm", "features", "mean", "low", "high"])


def weights_table(gained: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of `gains` by task and arm."""
    over = gained.drop(columns="seed").groupby(["task", "arm"], sort=False)
    return over.mean().reset_index()
