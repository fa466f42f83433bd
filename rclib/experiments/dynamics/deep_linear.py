"""Deep linear networks learn one mode of their task after the other.

Saxe, McClelland and Ganguli (arXiv 1312.6120): whitened inputs, target Σ31 = U S Vᵀ, full-batch
gradient descent at the rate η on ½ |Σ31 - W_L ... W_1|². Times are steps times η. Looked at are

    two matrices    the strength u = u_αᵀ W32 W21 v_α of every mode against its closed form, from
                    decoupled starts, balanced and not, and from small random ones; linear
                    regression as control
    rows, columns   what their means explain of W21, with centred data and with a mode in common
    tree            items with the properties of a tree's branches: broad splits first
    depth           steps until 5 percent of the error are left, at the best rate, from aligned,
                    orthogonal, Gaussian and pretrained matrices
    deep tanh nets  the same starts times a gain, on images

The runs are those of `deep_linear_runs` and `deep_linear_chains`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.dynamics.deep_linear_chains import depth_ratio
from rclib.experiments.dynamics.deep_linear_runs import UNBALANCE, courses
from rclib.experiments.dynamics.deep_linear_theory import mode_strength, unbalanced_strength
from rclib.runs import sweep
from rclib.spectral.random_matrix import marchenko_pastur
from rclib.stats.slopes import slope

__all__ = [
    "ARMS",
    "TREE_ARM",
    "U0",
    "chain_values",
    "course_frame",
    "course_values",
    "deviations",
    "half_slopes",
    "half_times",
    "in_order",
    "last_means",
    "level_order",
    "rate_spread",
    "rise_in_middle",
    "shown_counts",
    "shown_course",
    "shown_means",
    "spikes_match",
]

U0 = 1e-3  # strength of every mode at a decoupled start
_RANDOM = {"start": "random", "rate": 0.01, "steps": 1500, "every": 10, "common": False}
_APART = {"size": U0, "rate": 0.0025, "steps": 6000, "every": 40, "common": False}
# The arms of notebook 60, with what `courses` gets besides seed, task and width.
ARMS: dict[str, dict[str, Any]] = {
    "decoupled": {**_APART, "start": "decoupled"},
    "unbalanced": {**_APART, "start": "unbalanced", "rate": 0.005, "steps": 3000, "every": 20},
    "two matrices": {**_RANDOM, "size": 1e-3},
    "not centred": {**_RANDOM, "size": 1e-3, "common": True},
    "larger start": {**_RANDOM, "size": 0.1},
    "start of 0.02": {**_RANDOM, "size": 0.02},
    "regression": {
        "start": "regression", "size": 0.0, "rate": 0.01, "steps": 300, "every": 2, "common": False,
    },
}  # fmt: skip
TREE_ARM: dict[str, dict[str, Any]] = {"tree": {**_RANDOM, "size": 1e-3, "rate": 0.02}}
OVER_EDGE = 1.1  # the largest eigenvalue of a start may lie a little over its edge


def course_frame(
    seeds: Sequence[int], arms: Mapping[str, Mapping[str, Any]], **shared: Any
) -> pd.DataFrame:
    """All courses in long form: arm, seed, mode (1 is the strongest), s, t, u, seen (eigenvalues of
    W21ᵀ W21 over the edge of the start, none unless it is random), due (modes over it) and means
    (of `courses`).

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
                "means": np.repeat(run["means"], modes),
            }
        )
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _exact(frame: pd.DataFrame, u0: float, unbalance: float | None, slow: float = 1.0) -> pd.Series:
    """The closed form at the rows' s and t; at t / slow."""
    if unbalance is None:
        return pd.Series(mode_strength(frame.t / slow, s=frame.s, u0=u0), index=frame.index)
    a0, b0 = (u0 * unbalance) ** 0.5, (u0 / unbalance) ** 0.5
    exact = unbalanced_strength(frame.t / slow, s=frame.s, a0=a0, b0=b0)
    return pd.Series(exact, index=frame.index)


def deviations(
    frame: pd.DataFrame, arm: str, *, u0: float, unbalance: float | None = None
) -> pd.Series:
    """Largest |u - closed form| / s over modes and steps of a decoupled arm, by seed. unbalance :
    a0 over b0 of its start, none if it is balanced."""
    chosen = frame[frame.arm == arm]
    off = (chosen.u - _exact(chosen, u0, unbalance)).abs() / chosen.s
    return off.groupby(chosen.seed).max().rename("deviation")


def shown_course(
    frame: pd.DataFrame, arm: str, *, u0: float | None = None, unbalance: float | None = None
) -> pd.DataFrame:
    """What a figure shows of the first seed of an arm: mode, s, t, u and, where the start u0 of
    decoupled modes is given, exact (the closed form) and, if it is not balanced, printed (that of
    the paper's appendix)."""
    chosen = frame[(frame.arm == arm) & (frame.seed == frame.seed.iloc[0])]
    chosen = chosen[["mode", "s", "t", "u"]].reset_index(drop=True)
    if u0 is not None:
        chosen["exact"] = _exact(chosen, u0, unbalance)
    if u0 is not None and unbalance is not None:
        chosen["printed"] = _exact(chosen, u0, unbalance, slow=2.0)
    return chosen


def shown_means(frame: pd.DataFrame, arms: Mapping[str, str]) -> pd.DataFrame:
    """What row and column means explain of W21, less chance, in time: arm (renamed by `arms`),
    seed, t (every fifth), means."""
    some = frame[frame.arm.isin(list(arms))].t.unique()[::5]
    chosen = frame[frame.arm.isin(list(arms)) & (frame["mode"] == 1) & frame.t.isin(some)]
    return chosen.assign(arm=chosen.arm.map(arms))[["arm", "seed", "t", "means"]]


def last_means(frame: pd.DataFrame, arm: str) -> pd.Series:
    """The same at the last time of an arm, by seed."""
    return frame[frame.arm == arm].groupby("seed").means.last()


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


def in_order(halves: pd.DataFrame) -> pd.Series:
    """Smallest ratio of a mode's half-time to that of the next stronger one, by seed: above one if
    modes are learned strictly in the order of their strengths."""
    table = halves.pivot(index="seed", columns="s", values="half").sort_index(axis=1)
    ratios = table.iloc[:, :-1].to_numpy() / table.iloc[:, 1:].to_numpy()
    return pd.Series(ratios.min(axis=1), index=table.index, name="ratio")


def rate_spread(frame: pd.DataFrame, start: str, *, least: int) -> pd.Series:
    """Largest over smallest of the best rate times the depth, over depths from `least` on, by
    seed: one if the best rate falls like one over the depth."""
    chosen = frame[(frame.start == start) & (frame.depth >= least)]
    over = (chosen.rate * chosen.depth).groupby(chosen.seed)
    return (over.max() / over.min()).rename("spread")


def rise_in_middle(frame: pd.DataFrame, arm: str, *, mode: int) -> pd.Series:
    """Share of a mode's strength that it gains in the middle fifth of twice its half-time, by seed:
    tanh(0.1 ln(s/u0 - 1)) by the closed form, a plateau and a drop; 0.14 for regression."""
    halves = half_times(frame, arm)
    halves = halves[halves["mode"] == mode].set_index("seed").half
    found = {}
    for seed, group in frame[(frame.arm == arm) & (frame["mode"] == mode)].groupby("seed"):
        ends = np.interp(np.array([0.8, 1.2]) * halves[seed], group.t, group.u)
        found[seed] = float(ends[1] - ends[0]) / float(group.s.iloc[0])
    return pd.Series(found, name="rise").rename_axis("seed")


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


def course_values(courses: pd.DataFrame, tree: pd.DataFrame) -> dict[str, pd.Series]:
    """What the claims on two matrices are about, by seed; of `ARMS` and `TREE_ARM`."""
    halves = {
        arm: half_times(courses, arm) for arm in ("two matrices", "larger start", "regression")
    }
    slopes = {arm: half_slopes(frame) for arm, frame in halves.items()}
    return {
        "closed_form": deviations(courses, "decoupled", u0=U0),
        "unbalanced_form": deviations(courses, "unbalanced", u0=U0, unbalance=UNBALANCE),
        "half_time_slope": slopes["two matrices"],
        "in_order": in_order(halves["two matrices"]),
        "plateau": rise_in_middle(courses, "two matrices", mode=3),
        "broad_splits_first": level_order(half_times(tree, "tree")),
        "regression_slope": slopes["regression"],
        "regression_no_plateau": rise_in_middle(courses, "regression", mode=3),
        "larger_start_weakens": slopes["larger start"] - slopes["two matrices"],
        "spikes_match": spikes_match(courses, "start of 0.02"),
        "rows_at_chance": last_means(courses, "two matrices"),
        "not_centred_rows": last_means(courses, "not centred"),
    }


def chain_values(chains: pd.DataFrame, *, deepest: int) -> dict[str, pd.Series]:
    """What the claims on depth are about, by seed. deepest : of aligned layers."""
    return {
        "aligned_depth": depth_ratio(chains, ("aligned", deepest), ("aligned", 16)),
        "rate_falls": rate_spread(chains, "aligned", least=8),
        "gaussian_slower_soon": depth_ratio(chains, ("Gaussian", 4), ("orthogonal", 4)),
        "orthogonal_beats_gaussian": depth_ratio(chains, ("Gaussian", 8), ("orthogonal", 8)),
        "orthogonal_saturates": depth_ratio(chains, ("orthogonal", 64), ("orthogonal", 16)),
        "orthogonal_depth_free": depth_ratio(chains, ("orthogonal", 16), ("orthogonal", 2)),
    }
