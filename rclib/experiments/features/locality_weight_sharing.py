"""Frames of notebook 73: how many samples locality and weight sharing save."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from rclib.checks.arrays import Floats
from rclib.data.images import Dataset
from rclib.experiments.features.locality_runs import patch_run
from rclib.experiments.features.locality_tasks import bayes_accuracy, signals
from rclib.rowcolumn.measure import leading_share
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.stats.slopes import slope
from rclib.stats.two_sample import Kept, jackknife

__all__ = [
    "CONTROLS", "bars_frame", "chosen", "crossing", "curve_arms", "difference", "excess_frame",
    "growth", "point_arms", "ratio", "ratio_growth", "runs_frame", "share_frame", "sided",
    "thresholds", "weights_of",
]  # fmt: skip

CONTROLS = {"moving": "one signal", "own": "own signals", "rotated": "rotated input"}
_bayes = functools.cache(bayes_accuracy)
Estimate = Callable[[int, float], tuple[float, float, float]]
Arm = dict[str, Any]


def curve_arms(curves: Sequence[Sequence[Any]], task: str = "moving") -> list[Arm]:
    """Arms of [architecture, k, d, numbers of samples]."""
    return [
        {"task": task, "arch": arch, "units": 1 if arch == "CNN" else k, "k": k, "d": d, "n": n}
        for arch, k, d, numbers in curves
        for n in numbers
    ]


def point_arms(
    k: int, d: int, *, n: int, more: int, few: int, fewest: int, some: int, filters: Sequence[int],
    hidden: Sequence[int], shares: Sequence[int],
) -> list[Arm]:  # fmt: skip
    """Arms at one size: the three networks on the task and on its controls with n samples, linear
    ones (b stays at zero) with more, LCN and FCN with few, and with fewest where the signal stays
    in one patch, the CNN with some; other numbers of filters and hidden units; LCNs for their
    weights with numbers `shares`."""
    names = {"CNN": 1, "LCN": k, "FCN": k}
    wanted = [(task, arch, units, n) for task in CONTROLS for arch, units in names.items()]
    wanted += [("linear", arch, units, more) for arch, units in names.items()]
    wanted += [("moving", "CNN", 1, some)]
    wanted += [("moving", arch, k, few) for arch in ("LCN", "FCN")]
    wanted += [("still", arch, k, fewest) for arch in ("LCN", "FCN")]
    wanted += [("moving", "LCN" if m > 1 else "CNN", m, n) for m in filters]
    wanted += [("moving", "FCN", h, n) for h in hidden]
    wanted += [(task, "LCN", k, size) for task in ("moving", "own") for size in shares]
    wanted += [("moving", "FCN", k, more)]
    return [
        {"task": task, "arch": arch, "units": units, "k": k, "d": d, "n": size}
        for task, arch, units, size in dict.fromkeys(wanted)
    ]


def runs_frame(
    data: Dataset | None, seeds: Sequence[int], arms: Sequence[Arm], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """One row a seed and arm: its keys, accuracy on the test, validation accuracy, rate and step
    (of those chosen), last (b after the last step), bayes and linear (rules on the same test
    samples; none for images), W.

    settings : those of `patch_run` that all share; `rates` by architecture. An arm of the task
    "linear" is "moving" with b fixed at zero.
    """
    keys = [(seed, arm) for arm in arms for seed in seeds]
    configs = []
    for seed, arm in keys:
        own = {**settings, **arm, "seed": seed, "rates": settings["rates"][arm["arch"]]}
        if arm["task"] == "linear":
            own |= {"task": "moving", "bias": [0.0, 0.0]}
        configs.append(own)
    runs = sweep.run(patch_run, configs, data=data, description="networks")
    rows = [
        _row(seed, arm, c, run) for (seed, arm), c, run in zip(keys, configs, runs, strict=True)
    ]
    return pd.DataFrame(rows)


def _row(seed: int, arm: Arm, config: Mapping[str, Any], run: Arrays) -> dict[str, Any]:
    moment, place = (int(v) for v in run["chosen"])
    bayes, linear = run["reference"] if len(run["reference"]) else (np.nan, np.nan)
    return {
        "seed": seed, **arm, "accuracy": float(run["test"][moment, place]),
        "valid": float(run["valid"][moment, place]), "rate": config["rates"][place],
        "step": sorted(config["at"])[moment], "last": float(run["b"][-1, place]),
        "bayes": float(bayes), "linear": float(linear), "W": run["W"],
    }  # fmt: skip


def chosen(
    frame: pd.DataFrame, task: str, arch: str, n: int, what: str = "accuracy", **keys: int
) -> pd.Series:
    """A column of one arm by seed. `units`, `k` and `d` must be named where there are several
    with as many samples; without `units` they are those of the paper.

    Raises ValueError for an arm that is none.
    """
    own = frame[(frame.task == task) & (frame.arch == arch) & (frame.n == n)]
    if "units" not in keys:
        own = own[own.units == (1 if arch == "CNN" else own.k)]
    for name, value in keys.items():
        own = own[own[name] == value]
    if own.empty or own.seed.duplicated().any():
        raise ValueError(f"must be one arm of the runs, got {task!r}, {arch!r}, n = {n}, {keys}")
    found: pd.Series = own.set_index("seed")[what]
    return found


def difference(
    frame: pd.DataFrame, n: int, one: tuple[str, str], other: tuple[str, str]
) -> pd.Series:
    """Accuracy of one (task, architecture) minus another's, by seed."""
    return chosen(frame, *one, n) - chosen(frame, *other, n)


# --- numbers of samples --------------------------------------------------------------------


def crossing(sizes: Sequence[int], accuracies: Sequence[float], p: float) -> float:
    """Where accuracies first reach p, linear in log n between two sizes. The smallest size where
    they do at once, and the largest where they never do: bounds."""
    for place, value in enumerate(accuracies):
        if value >= p:
            if place == 0:
                return float(sizes[0])
            low, high = accuracies[place - 1], value
            part = (p - low) / (high - low)
            return float(sizes[place - 1] * (sizes[place] / sizes[place - 1]) ** part)
    return float(sizes[-1])


def _table(frame: pd.DataFrame, arch: str, k: int, d: int) -> tuple[list[int], Floats]:
    """Numbers of samples, and accuracies (seeds, numbers) on the moving task."""
    own = frame[(frame.task == "moving") & (frame.arch == arch) & (frame.k == k) & (frame.d == d)]
    wide = own.pivot(index="seed", columns="n", values="accuracy").loc[
        list(dict.fromkeys(frame.seed))
    ]
    return [int(n) for n in wide.columns], wide.to_numpy()


def _estimate(statistic: Callable[[Sequence[int]], float], *, positive: bool) -> Estimate:
    def of(n: int, level: float) -> tuple[float, float, float]:
        def one(kept: Kept) -> float:
            return statistic(list(kept[0]))

        found = jackknife(one, {0: n}, positive=positive, level=level)
        return found.value, found.low, found.high

    return of


def _samples(
    frame: pd.DataFrame, arch: str, k: int, d: int, p: float
) -> Callable[[Sequence[int]], float]:
    """Numbers of seeds -> samples at which their mean accuracy reaches p."""
    sizes, table = _table(frame, arch, k, d)
    return lambda kept: crossing(sizes, table[list(kept)].mean(0).tolist(), p)


def ratio(frame: pd.DataFrame, one: str, other: str, *, k: int, d: int, p: float) -> Estimate:
    """Samples of one architecture over those of another, with the interval of a jackknife over
    seeds of its logarithm."""
    first, second = (_samples(frame, arch, k, d, p) for arch in (one, other))
    return _estimate(lambda kept: first(kept) / second(kept), positive=True)


def ratio_growth(
    frame: pd.DataFrame, one: str, other: str, *, ks: Sequence[int], d: int, p: float
) -> Estimate:
    """That ratio at the second k over that at the first."""
    parts = [_samples(frame, arch, k, d, p) for k in ks for arch in (one, other)]

    def of(kept: Sequence[int]) -> float:
        a, b, c, e = (part(kept) for part in parts)
        return c / e / (a / b)

    return _estimate(of, positive=True)


def growth(
    frame: pd.DataFrame, arch: str, shapes: Sequence[tuple[int, int]], *, along: str, sigma: float,
    gap: float,
) -> Estimate:  # fmt: skip
    """Log-log slope over shapes (k, d), along "k" or "d", of the samples at which the accuracy is
    `gap` below that of the Bayes rule."""
    parts = [_samples(frame, arch, k, d, _bayes(k, sigma) - gap) for k, d in shapes]
    x = [k if along == "k" else d for k, d in shapes]
    return _estimate(lambda kept: slope(x, [part(kept) for part in parts]), positive=False)


def thresholds(
    frame: pd.DataFrame, *, sigma: float, gap: float, fixed: float | None = None
) -> pd.DataFrame:
    """arch, k, d, p, samples, low, high (95 percent, jackknife), bound: the samples at which the
    mean accuracy is `gap` below the Bayes rule's, or `fixed`; bound says which side the number is
    a bound of where it lies at an end of the sizes ("at most", "at least"), else it is empty."""
    rows = []
    moving = frame[frame.task == "moving"]
    for arch, k, d in dict.fromkeys(zip(moving.arch, moving.k, moving.d, strict=True)):
        p = _bayes(k, sigma) - gap if fixed is None else fixed
        _, table = _table(frame, arch, k, d)
        value, low, high = _estimate(_samples(frame, arch, k, d, p), positive=True)(
            len(table), 0.05
        )
        mean = table.mean(0)
        bound = "at most" if mean[0] >= p else "at least" if mean.max() < p else ""
        rows.append((arch, k, d, p, value, low, high, bound))
    return pd.DataFrame(rows, columns=["arch", "k", "d", "p", "samples", "low", "high", "bound"])


# --- weights and filters -------------------------------------------------------------------


def sided(w: Floats) -> tuple[float, float]:
    """Shares of the variance of W (m, d) that row means and column means explain; independent
    entries give (m - 1) / (m d - 1) and (d - 1) / (m d - 1) on average."""
    centred = w - w.mean()
    total = np.square(centred).sum()
    m, d = w.shape
    rows, columns = d * np.square(centred.mean(1)).sum(), m * np.square(centred.mean(0)).sum()
    return float(rows / total), float(columns / total)


def weights_of(frame: pd.DataFrame) -> pd.DataFrame:
    """task, n, seed, leading (share of the largest eigenvalue of the filters' Gram matrix), cosine
    (of the column means with the first patch's signal), rows, columns (`sided`), of LCNs."""
    own = frame[(frame.arch == "LCN") & (frame.units == frame.k)]
    own = own[own.task.isin(["moving", "own"])]
    rows = []
    for row in own.itertuples():
        w = np.asarray(row.W, dtype=np.float64)
        mean, wanted = w.mean(0), signals(int(row.seed), w.shape[0], w.shape[1])[0]
        cosine = float(mean @ wanted / np.linalg.norm(mean))
        leading = leading_share(torch.from_numpy(w), 1).value
        rows.append((row.task, row.n, row.seed, leading, cosine, *sided(w)))
    columns = ["task", "n", "seed", "leading", "cosine", "rows", "columns"]
    return pd.DataFrame(rows, columns=columns)


def share_frame(frame: pd.DataFrame, k: int) -> pd.DataFrame:
    """task, n, seed, patch: of FCNs with k units, the mean over units of the largest patch's share
    of the squared weights; 1 for a local network."""
    own = frame[(frame.arch == "FCN") & (frame.units == k) & (frame.task == "moving")]
    rows = []
    for row in own.itertuples():
        size = np.square(np.asarray(row.W, dtype=np.float64)).reshape(len(row.W), k, -1).sum(2)
        rows.append((row.task, row.n, row.seed, float((size.max(1) / size.sum(1)).mean())))
    return pd.DataFrame(rows, columns=["task", "n", "seed", "patch"])


def excess_frame(frame: pd.DataFrame, n: int) -> pd.DataFrame:
    """arm, features, n, seed, excess: error above the Bayes rule's on the same test samples, by
    number of filters (arm "local") or hidden units ("full")."""
    own = frame[(frame.task == "moving") & (frame.n == n)].sort_values(["units", "seed"])
    arm = np.where(own.arch == "FCN", "full", "local")
    found = own.assign(arm=arm, features=own.units, excess=own.bayes - own.accuracy)
    return found[["arm", "features", "n", "seed", "excess"]].reset_index(drop=True)


def bars_frame(frame: pd.DataFrame, n: int) -> pd.DataFrame:
    """control, arch, seed, accuracy of the three networks of the paper with n samples."""
    own = frame[frame.task.isin(list(CONTROLS)) & (frame.n == n)]
    own = own[own.units == np.where(own.arch == "CNN", 1, own.k)]
    return own.assign(control=own.task.map(CONTROLS))[["control", "arch", "seed", "accuracy"]]
