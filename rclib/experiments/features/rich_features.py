"""Frames of notebook 75: is it the representation or the penalty that fails out of distribution?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import f as f_law

from rclib.data.images import Dataset
from rclib.experiments.features.rich_runs import NETWORKS, rich_runs
from rclib.runs import sweep
from rclib.runs.store import Arrays

__all__ = [
    "arms_of",
    "excess",
    "excess_frame",
    "last",
    "networks_of",
    "of_network",
    "runs_of",
    "spread_ratio",
]


def runs_of(
    data: Dataset | None, seeds: Sequence[int], settings: Mapping[str, Any], **changed: Any
) -> list[Arrays]:
    """`rich_runs` of every seed; settings and what is changed in them."""
    configs = [{**settings, **changed, "seed": seed} for seed in seeds]
    return sweep.run(rich_runs, configs, data=data, description="features")


def networks_of(
    runs: Sequence[Arrays], seeds: Sequence[int], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """seed, network, one column "e = ..." a test with the accuracy, contrast, means, share of
    `rich_runs.first_layer`."""
    rows = []
    for seed, run in zip(seeds, runs, strict=True):
        for name, right, layer in zip(NETWORKS, run["networks"], run["layers"], strict=True):
            rows.append((seed, name, *right, *layer))
    tests = [f"e = {e:g}" for e in settings["tests"]]
    columns = ["seed", "network", *tests, "contrast", "means", "share"]
    return pd.DataFrame(rows, columns=columns)


def of_network(frame: pd.DataFrame, network: str, what: str) -> pd.Series:
    """A column of `networks_of` by seed."""
    found: pd.Series = frame[frame.network == network].set_index("seed")[what]
    return found


def arms_of(
    runs: Sequence[Arrays], seeds: Sequence[int], settings: Mapping[str, Any], part: str
) -> pd.DataFrame:
    """seed, part, network, penalty, strength (λ), k, step, "e = ..." a test, worst (of the tests).

    part : "whole" or "heads", as `rich_runs` has them.
    """
    steps = int(settings["steps"]["whole" if part == "whole" else "head"])
    moments = [*sorted({int(t) for t in settings["at"] if t < steps}), steps]
    tests = [f"e = {e:g}" for e in settings["tests"]]
    frames = []
    for seed, run in zip(seeds, runs, strict=True):
        for arm, right in zip(settings[part], run[part], strict=True):
            frame = pd.DataFrame(right, columns=tests)
            keys = dict(zip(("network", "penalty", "strength", "k"), arm, strict=True))
            own = {"seed": seed, "part": part, **keys, "step": moments}
            frames.append(frame.assign(**own, worst=right.min(axis=1)))
    return pd.concat(frames, ignore_index=True)


def last(
    frame: pd.DataFrame, network: str, penalty: str = "none", strength: float = 0.0, *, k: int = 0,
    what: str = "worst",
) -> pd.Series:  # fmt: skip
    """A column of `arms_of` after the last update, by seed. ValueError for an arm that is none."""
    chosen = (frame.network == network) & (frame.penalty == penalty) & (frame.k == k)
    own = frame[chosen & (frame.strength == strength) & (frame.step == frame.step.max())]
    if own.empty:
        raise ValueError(f"arm must be one of the runs', got {network!r}, {penalty}, {strength:g}")
    found: pd.Series = own.set_index("seed")[what]
    return found


def spread_ratio(
    one: pd.Series, other: pd.Series
) -> Callable[[int, float], tuple[float, float, float]]:
    """(n, level) -> ratio of the standard deviations of the first n values of two samples, with
    the interval of Fisher's law for normal samples."""

    def estimate(n: int, level: float) -> tuple[float, float, float]:
        ratio = float(one.iloc[:n].var() / other.iloc[:n].var())
        bounds = [f_law.ppf(q, n - 1, n - 1) for q in (1 - level / 2, level / 2)]
        low, high = (ratio / bound for bound in bounds)
        return float(np.sqrt(ratio)), float(np.sqrt(low)), float(np.sqrt(high))

    return estimate


def excess(heads: pd.DataFrame, whole: pd.DataFrame, hidden: int) -> pd.DataFrame:
    """network, features, seed, excess: error in the worst test of the strongest vREx head on so
    many features of a network, above the oracle's."""
    vrex = heads[(heads.penalty == "vREx") & (heads.step == heads.step.max())]
    vrex = vrex[(vrex.strength == vrex.strength.max()) & ~vrex.network.str.endswith("same")]
    oracle = last(whole, "oracle")
    found = vrex.assign(features=vrex.k.where(vrex.k > 0, hidden))
    found = found.assign(excess=found.seed.map(oracle) - found.worst)
    return found[["network", "features", "seed", "excess"]].reset_index(drop=True)


def excess_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation of `excess` over seeds."""
    over = frame.groupby(["network", "features"], sort=False).excess
    return over.agg(["mean", "std"]).reset_index()
