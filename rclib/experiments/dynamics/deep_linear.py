"""Deep linear networks learn one mode of their task after the other.

Saxe, McClelland and Ganguli (arXiv 1312.6120): whitened inputs, target Σ31 = U S Vᵀ, full-batch
gradient descent at the rate η on ½ |Σ31 - W_L ... W_1|². Times are steps times η. Looked at are

    two matrices    the strength u = u_αᵀ W32 W21 v_α of every mode against its closed form, from a
                    decoupled and from small random starts; linear regression as control
    tree            items with the properties of a tree's branches: broad splits first
    depth           steps until 5 percent of the error are left, at the best rate, from aligned,
                    orthogonal, Gaussian and pretrained matrices
    deep tanh nets  the same starts times a gain, on images
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy.integrate import solve_ivp

from rclib.checks.arguments import choice
from rclib.experiments.dynamics.deep_linear_chains import orthogonal
from rclib.experiments.dynamics.deep_linear_theory import mode_strength, unbalanced_time
from rclib.runs import sweep
from rclib.runs.source import Source
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import marchenko_pastur
from rclib.stats.slopes import slope

__all__ = [
    "ARMS",
    "TINY",
    "TREE_ARM",
    "U0",
    "course_frame",
    "courses",
    "deviations",
    "half_slopes",
    "half_times",
    "level_order",
    "shown_counts",
    "shown_course",
    "spikes_match",
    "time_ratios",
    "tree",
]

STARTS = ("decoupled", "random", "regression")
TINY: dict[str, dict[str, Any]] = {
    "courses": {
        "seed": 0, "start": "random", "size": 0.1, "task": [2.0, 1.0], "width": 3, "rate": 0.1,
        "steps": 4, "every": 2,
    }
}  # fmt: skip
U0 = 1e-3  # strength of every mode at a decoupled start
_RANDOM = {"start": "random", "rate": 0.01, "steps": 1500, "every": 10}
# The arms of notebook 60, with what `courses` gets besides seed, task and width.
ARMS: dict[str, dict[str, Any]] = {
    "decoupled": {"start": "decoupled", "size": U0, "rate": 0.0025, "steps": 6000, "every": 40},
    "two matrices": {**_RANDOM, "size": 1e-3},
    "larger start": {**_RANDOM, "size": 0.1},
    "start of 0.02": {**_RANDOM, "size": 0.02},
    "regression": {"start": "regression", "size": 0.0, "rate": 0.01, "steps": 300, "every": 2},
}
TREE_ARM: dict[str, dict[str, Any]] = {"tree": {**_RANDOM, "size": 1e-3, "rate": 0.02}}
OVER_EDGE = 1.1  # the largest eigenvalue of a start may lie a little over its edge


def tree(levels: int) -> np.ndarray:
    """Σ31 of 2^levels items with one property for each node of a binary tree, shared by the items
    below it, for inputs that are one-hot and whitened: (2^(levels + 1) - 1, 2^levels)."""
    items = 2**levels
    nodes = [np.repeat(np.eye(2**k), items // 2**k, axis=1) for k in range(levels + 1)]
    return np.asarray(np.concatenate(nodes) / np.sqrt(items))


def courses(
    data: Source | None,
    *,
    seed: int,
    start: str,
    size: float,
    task: Sequence[float] | int,
    width: int,
    rate: float,
    steps: int,
    every: int,
) -> Arrays:
    """Stored run: a linear network of two matrices, or of one ("regression", from zero).

    task : strengths of the modes, along random directions of `width` inputs and outputs, or the
    levels of a `tree`. size : start u0 of every mode ("decoupled") or standard deviation of the
    entries ("random").

    times (T,) in steps times rate, s (modes,), u (T, modes), eigenvalues (T, width) of W21ᵀ W21
    in descending order (zeros for "regression"), at step 0 and every `every`-th.
    """
    random = np.random.default_rng([seed, STARTS.index(choice("start", start, STARTS))])
    if isinstance(task, int):
        target = tree(task)
        left, s, right = np.linalg.svd(target, full_matrices=False)
        right = right.T
    else:
        s = np.array(task, dtype=float)
        left, right = (orthogonal(random, width)[:, : len(s)] for _ in range(2))
        target = (left * s) @ right.T
    n3, n1 = target.shape
    first, second = size * random.standard_normal((width, n1)), np.zeros((n3, width))
    if start == "random":
        second = size * random.standard_normal((n3, width))
    elif start == "decoupled":
        hidden = orthogonal(random, width)[:, : len(s)]
        first, second = np.sqrt(size) * hidden @ right.T, np.sqrt(size) * left @ hidden.T
    whole = np.zeros((n3, n1))
    u, eigenvalues = [], []
    for step in range(steps + 1):
        if start != "regression":
            whole = second @ first
        if step % every == 0:
            u.append(np.einsum("ij,ij->j", left, whole @ right))
            values = np.zeros(width) if start == "regression" else np.linalg.eigvalsh(
                first @ first.T
            )[::-1]  # fmt: skip
            eigenvalues.append(values)
        error = rate * (target - whole)
        if start == "regression":
            whole = whole + error
        else:
            first, second = first + second.T @ error, second + error @ first.T
    times = rate * np.arange(0, steps + 1, every)
    return {"times": times, "s": s, "u": np.array(u), "eigenvalues": np.array(eigenvalues)}


def course_frame(
    seeds: Sequence[int], arms: Mapping[str, Mapping[str, Any]], **shared: Any
) -> pd.DataFrame:
    """All courses in long form: arm, seed, mode (1 is the strongest), s, t, u, seen (eigenvalues of
    W21ᵀ W21 over the edge of the start, NaN unless it is random) and due (modes over it).

    arms : name -> what its `courses` have of their own; shared : what all have.
    """
    configs = [
        ({"seed": seed, **shared, **more}, arm) for arm, more in arms.items() for seed in seeds
    ]
    runs = sweep.run(courses, [config for config, _ in configs], description="two matrices")
    frames = []
    for (config, arm), run in zip(configs, runs, strict=True):
        modes, n = len(run["s"]), len(run["times"])
        edge = np.nan
        if config["start"] == "random":
            law = marchenko_pastur(1.0, config["size"] ** 2)
            edge = OVER_EDGE * config["width"] * law.upper
        frame = pd.DataFrame(
            {
                "arm": arm,
                "seed": config["seed"],
                "mode": np.tile(np.arange(1, modes + 1), n),
                "s": np.tile(run["s"], n),
                "t": np.repeat(run["times"], modes),
                "u": run["u"].ravel(),
                "seen": np.repeat((run["eigenvalues"] > edge).sum(1), modes),
                "due": np.repeat((run["u"] > edge).sum(1), modes),
            }
        )
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def deviations(frame: pd.DataFrame, arm: str, *, u0: float) -> pd.Series:
    """Largest |u - closed form| / s over modes and steps of a balanced arm, by seed."""
    chosen = frame[frame.arm == arm].reset_index(drop=True)
    off = (chosen.u - mode_strength(chosen.t, s=chosen.s, u0=u0)).abs() / chosen.s
    return off.groupby(chosen.seed).max().rename("deviation")


def shown_course(frame: pd.DataFrame, arm: str, *, u0: float | None = None) -> pd.DataFrame:
    """What a figure shows of the first seed of an arm: mode, s, t, u and, where the start u0 of
    balanced modes is given, exact (the closed form)."""
    chosen = frame[(frame.arm == arm) & (frame.seed == frame.seed.iloc[0])]
    chosen = chosen[["mode", "s", "t", "u"]].reset_index(drop=True)
    return chosen if u0 is None else chosen.assign(exact=mode_strength(chosen.t, s=chosen.s, u0=u0))


def shown_counts(frame: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The first seed's t, seen and due of an arm."""
    chosen = frame[(frame.arm == arm) & (frame.seed == frame.seed.iloc[0]) & (frame["mode"] == 1)]
    return chosen[["t", "seen", "due"]].reset_index(drop=True)


def half_times(frame: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Time at which each mode has half its strength, by straight lines between what was recorded:
    seed, mode, s, half. Raises ValueError for a mode that never gets there."""
    rows = []
    for (seed, mode), group in frame[frame.arm == arm].groupby(["seed", "mode"]):
        s, t, u = float(group.s.iloc[0]), group.t.to_numpy(), group.u.to_numpy()
        over = np.flatnonzero(u >= s / 2)
        if not len(over) or over[0] == 0:
            raise ValueError(f"mode {mode} of seed {seed} ({arm}) does not pass half its strength")
        i = over[0]
        half = t[i - 1] + (t[i] - t[i - 1]) * (s / 2 - u[i - 1]) / (u[i] - u[i - 1])
        rows.append((seed, mode, s, float(half)))
    return pd.DataFrame(rows, columns=["seed", "mode", "s", "half"])


def half_slopes(halves: pd.DataFrame) -> pd.Series:
    """Log-log slope of the half-time against the strength of a mode, by seed."""
    found = {seed: slope(list(g.s), list(g.half)) for seed, g in halves.groupby("seed")}
    return pd.Series(found, name="slope").rename_axis("seed")


def level_order(halves: pd.DataFrame) -> pd.Series:
    """Smallest ratio of the first half-time of a level of the tree to the last of the level above
    it, by seed: above one if no level begins before the one above is done. Modes of one strength
    are a level."""
    levels = halves.assign(level=halves.s.round(6)).groupby(["seed", "level"]).half
    first, last = levels.min().unstack(), levels.max().unstack()
    ordered = sorted(first.columns, reverse=True)
    ratios = [first[low] / last[high] for high, low in pairwise(ordered)]
    return pd.concat(ratios, axis=1).min(axis=1).rename("ratio")


def spikes_match(frame: pd.DataFrame, arm: str) -> pd.Series:
    """Share of the recorded times at which as many eigenvalues of W21ᵀ W21 stick out of its start
    as modes are stronger than its edge, by seed."""
    chosen = frame[(frame.arm == arm) & (frame["mode"] == 1)]
    return (chosen.seen == chosen.due).groupby(chosen.seed).mean().rename("match")


def time_ratios(seeds: Sequence[int], *, end: float) -> pd.DataFrame:
    """Unbalanced starts drawn for each seed (s in [0.5, 4], a0 and b0 in [0.02, 0.3]): time from
    a0 b0 to `end` s by integration (relative tolerance 1e-10), over the formula as printed and as
    derived. Columns seed, s, a0, b0, simulated, printed, derived."""
    rows = []
    for seed in seeds:
        random = np.random.default_rng([seed, 97])
        s, (a0, b0) = float(random.uniform(0.5, 4.0)), map(float, random.uniform(0.02, 0.3, 2))

        def motion(_: float, y: np.ndarray, s: float = s) -> list[float]:
            return [y[1] * (s - y[0] * y[1]), y[0] * (s - y[0] * y[1])]

        def there(_: float, y: np.ndarray, s: float = s) -> float:
            return float(y[0] * y[1] - end * s)

        there.terminal = True  # type: ignore[attr-defined]
        solved = solve_ivp(motion, (0, 1e3), [a0, b0], events=there, rtol=1e-10, atol=1e-12)
        time = float(solved.t_events[0][0])
        forms = [unbalanced_time(s=s, a0=a0, b0=b0, end=end * s, printed=p) for p in (True, False)]
        rows.append((seed, s, a0, b0, time, time / forms[0], time / forms[1]))
    columns = ["seed", "s", "a0", "b0", "simulated", "printed", "derived"]
    return pd.DataFrame(rows, columns=columns)
