"""Frames of notebook 75: is it the representation or the penalty that fails out of distribution?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import f as f_law

from rclib.data.images import Dataset
from rclib.experiments.features.rich_runs import NETWORKS, rich_runs
from rclib.runs import sweep
from rclib.runs.store import Arrays

__all__ = [
    "Task",
    "arm_table",
    "arms",
    "arms_of",
    "dots",
    "excess",
    "few_arms",
    "last",
    "named",
    "network_table",
    "networks_of",
    "of_network",
    "panels",
    "spread_ratio",
    "task_of",
]

NAMES = {
    ("heads", "RFC", "vREx"): "vREx (cf), RFC",
    ("heads", "RFC", "IRMv1"): "IRMv1 (cf), RFC",
    ("heads", "model 0", "vREx"): "vREx (cf), model 0",
    ("heads", "model 1", "vREx"): "vREx (cf), model 1",
    ("whole", "RFC", "vREx"): "vREx, from RFC",
    ("whole", "start", "vREx"): "vREx, whole",
    ("whole", "start", "IRMv1"): "IRMv1, whole",
    ("whole", "start", "none"): "no penalty, whole",
}
CURVES = ("vREx (cf), RFC", "vREx, from RFC", "vREx, whole", "IRMv1, whole", "vREx (cf), model 0")


@dataclass(frozen=True, eq=False)
class Task:
    """What was trained on one task: frames of `networks_of` and, for "whole" and "heads", of
    `arms_of`."""

    networks: pd.DataFrame
    whole: pd.DataFrame
    heads: pd.DataFrame


def arms(
    strengths: Sequence[float], starts: Sequence[str], kept: Sequence[int]
) -> dict[str, list[list[Any]]]:
    """Arms "whole" and "heads" of `rich_runs` for the main task.

    strengths : λ, the last the strongest, which the trainings as a whole have. starts : where
    vREx starts as a whole. kept : numbers of features that heads on some of them get.
    """
    top = strengths[-1]
    whole: list[list[Any]] = [[name, "none", 0.0, 0] for name in ("start", "oracle")]
    whole += [["RFC", penalty, top, 0] for penalty in ("vREx", "IRMv1")]
    whole += [["start", "IRMv1", top, 0], *([name, "vREx", top, 0] for name in starts)]
    heads: list[list[Any]] = [["RFC", "none", 0.0, 0], ["RFC, same", "vREx", top, 0]]
    heads += [["start", "vREx", top, 0], ["model 0", "IRMv1", 1000.0, 0]]
    heads += [["RFC", "IRMv1", strength, 0] for strength in strengths]
    for name in ("RFC", "model 0", "model 1"):
        heads += [[name, "vREx", strength, 0] for strength in strengths]
    heads += [[name, "vREx", top, k] for name in ("RFC", "model 0", "start") for k in kept]
    return {"whole": whole, "heads": heads}


def few_arms(top: float) -> dict[str, list[list[Any]]]:
    """Those of the other tasks, vREx at λ = top and IRMv1 at 1000."""
    whole = [["start", "none", 0.0, 0], ["oracle", "none", 0.0, 0], ["start", "vREx", top, 0]]
    heads = [[name, "vREx", top, 0] for name in ("RFC", "model 0", "model 1")]
    heads += [["RFC", "none", 0.0, 0], ["RFC", "IRMv1", 1000.0, 0]]
    return {"whole": whole, "heads": heads}


def task_of(data: Dataset | None, seeds: Sequence[int], settings: Mapping[str, Any]) -> Task:
    """`rich_runs` of every seed; settings : what they get besides the seed."""
    configs = [{**settings, "seed": seed} for seed in seeds]
    runs = sweep.run(rich_runs, configs, data=data, description="features")
    whole, heads = (arms_of(runs, seeds, settings, part) for part in ("whole", "heads"))
    return Task(networks_of(runs, seeds, settings), whole, heads)


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


def _at_end(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.step == frame.step.max()]


def network_table(tasks: Mapping[str, Task]) -> pd.DataFrame:
    """Means over seeds by task and network."""
    frames = [one.networks.assign(task=name) for name, one in tasks.items()]
    over = pd.concat(frames).drop(columns="seed").groupby(["task", "network"], sort=False)
    return over.mean().reset_index().round(3)


def arm_table(tasks: Mapping[str, Task]) -> pd.DataFrame:
    """Mean accuracies over seeds after the last update, and the standard deviation in the worst
    test, by task and arm."""
    frames = [
        _at_end(part).assign(task=name)
        for name, one in tasks.items()
        for part in (one.whole, one.heads)
    ]
    keys = ["task", "part", "network", "penalty", "strength", "k"]
    over = pd.concat(frames).drop(columns=["seed", "step"]).groupby(keys, sort=False)
    spread = over.worst.std().rename("spread")
    return over.mean().join(spread).reset_index().round(3)


def named(part: pd.DataFrame) -> pd.DataFrame:
    """Rows of `arms_of` that a figure shows, with `arm`, their name there."""
    rows = part[part.k == 0]
    keys = zip(rows.part, rows.network, rows.penalty, strict=True)
    return rows.assign(arm=[NAMES.get(key) for key in keys]).dropna(subset=["arm"])


def panels(task: Task, top: float) -> dict[str, pd.DataFrame]:
    """Frames of the first figure (`plots_rich.accuracy_panels`): curves at λ = top, heads by
    strength, and both tests at the end."""
    whole, heads = named(task.whole), named(task.heads)
    both = pd.concat([whole, heads])
    curves = both[both.arm.isin(CURVES) & (both.strength == top)]
    free = _at_end(task.heads[(task.heads.penalty == "none") & (task.heads.network == "RFC")])
    unpenalised = [free.assign(arm=arm) for arm in ("vREx (cf), RFC", "IRMv1 (cf), RFC")]
    by_strength = pd.concat([*unpenalised, _at_end(heads)])
    ends = pd.concat([_at_end(whole), _at_end(heads)])
    ends = ends[ends.strength.isin([0.0, top])]
    return {
        "curves": curves[["arm", "seed", "step", "worst"]],
        "strengths": by_strength[["arm", "seed", "strength", "worst"]],
        "ends": ends[["arm", "seed", "e = 0.9", "e = 0.1"]],
    }


def dots(tasks: Mapping[str, Task], top: float, starts: Sequence[str]) -> pd.DataFrame:
    """task, arm, seed, worst: accuracy in the worst test after the last update, vREx at λ = top.

    starts : networks from which the main task, "coloured", is trained as a whole.
    """
    frames = []
    for name, one in tasks.items():
        main = name == "coloured"
        found = {
            "RFC (cf)": last(one.heads, "RFC", "vREx", top),
            "model 1 (cf)": last(one.heads, "model 1", "vREx", top),
            "model 0 (cf)": last(one.heads, "model 0", "vREx", top),
        }
        if main:
            found["equal environments (cf)"] = last(one.heads, "RFC, same", "vREx", top)
        for start in starts if main else ["start"]:
            found[f"whole, {start}"] = last(one.whole, start, "vREx", top)
        found["oracle"] = last(one.whole, "oracle")
        for arm, values in found.items():
            frames.append(values.rename("worst").reset_index().assign(task=name, arm=arm))
    return pd.concat(frames, ignore_index=True)
