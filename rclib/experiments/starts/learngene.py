"""Frames of notebook 51: what stage-wise sharing gives to networks of several depths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.starts.learngene_nets import layer_parameters
from rclib.experiments.starts.learngene_runs import ARMS, SOURCES, learngene_runs
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays

__all__ = [
    "by_arm",
    "by_depth",
    "costs",
    "gain",
    "inside",
    "learngenes",
    "scratch_curves",
    "sources",
    "storage",
]


def learngenes(
    data: Dataset, seeds: Sequence[int], settings: Mapping[str, Any], *, group: int = 5
) -> dict[int, Arrays]:
    """seed -> its run. settings : what `learngene_runs` gets besides the group."""
    configs = [{**settings, "seed": seed} for seed in seeds]
    runs = sweep_stacked(
        learngene_runs, configs, members=["seed"], data=data, group=group, description="learngenes"
    )
    return dict(zip(seeds, runs, strict=True))


def sources(runs: Mapping[int, Arrays]) -> pd.DataFrame:
    """Test accuracy of what is trained once, by seed (rows): tied, plain, single, untied."""
    rows = {seed: dict(zip(SOURCES, run["sources"], strict=True)) for seed, run in runs.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("seed")


def by_arm(runs: Mapping[int, Arrays], at: Sequence[int]) -> pd.DataFrame:
    """arm, seed, step, accuracy of the descendants of the main depth."""
    rows = [
        (arm, seed, step, float(run["arms"][a, t]))
        for seed, run in runs.items()
        for a, arm in enumerate(ARMS)
        for t, step in enumerate(at)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "accuracy"])


def by_depth(
    runs: Mapping[int, Arrays], at: Sequence[int], depth: int, depths: Sequence[int]
) -> pd.DataFrame:
    """arm ("SWS", "scratch"), depth, seed, step, accuracy, of all depths."""
    rows = []
    for seed, run in runs.items():
        for a, arm in enumerate(("SWS", "scratch")):
            own = {depth: run["arms"][ARMS.index(arm)]}
            own |= {length: run["others"][a, d] for d, length in enumerate(depths)}
            for length, accuracies in own.items():
                for step, accuracy in zip(at, accuracies, strict=True):
                    rows.append((arm, length, seed, step, float(accuracy)))
    return pd.DataFrame(rows, columns=["arm", "depth", "seed", "step", "accuracy"])


def gain(frame: pd.DataFrame, over: str, under: str, step: int) -> pd.Series:
    """Accuracy of one arm minus another at a step of `by_arm`, by seed.

    Raises ValueError for a step that was not recorded.
    """
    own = frame[frame.step == step]
    if own.empty:
        raise ValueError(f"step must be one of {sorted(set(frame.step))}, got {step}")
    table = own.pivot_table(index="seed", columns="arm", values="accuracy")
    found: pd.Series = table[over] - table[under]
    return found.rename("gain")


def scratch_curves(
    runs: Mapping[int, Arrays], whole: int, depth: int, depths: Sequence[int]
) -> pd.DataFrame:
    """depth, seed, step (tenths of `whole`), accuracy, from scratch."""
    rows = []
    for seed, run in runs.items():
        for length, accuracies in zip((depth, *depths), run["long"], strict=True):
            for i, accuracy in enumerate(accuracies):
                rows.append((length, seed, round(whole * (i + 1) / 10), float(accuracy)))
    return pd.DataFrame(rows, columns=["depth", "seed", "step", "accuracy"])


def costs(
    depths: pd.DataFrame, scratch: pd.DataFrame, *, layers: int, steps: int, tune: int
) -> pd.DataFrame:
    """seed, sws, scratch (layers times updates over all depths), ratio, reached (how many depths).

    SWS pays its tied network once and the tuning of every depth; scratch pays for every depth the
    updates to the accuracy of the tuned SWS descendant, by a straight line between what was
    recorded, and all that were made where it never gets there: then the ratio is a lower bound.

    depths : `by_depth`. scratch : `scratch_curves`.
    """
    end = depths[(depths.arm == "SWS") & (depths.step == tune)]
    rows = []
    for seed, own in end.groupby("seed"):
        sws, alone, reached = layers * steps, 0.0, 0
        for row in own.itertuples():
            curve = scratch[(scratch.seed == seed) & (scratch.depth == row.depth)]
            needed, there = _first_passing(curve.step, curve.accuracy, float(row.accuracy))
            sws += int(row.depth) * tune
            alone += int(row.depth) * needed
            reached += there
        rows.append((seed, sws, alone, alone / sws, reached))
    return pd.DataFrame(rows, columns=["seed", "sws", "scratch", "ratio", "reached"])


def _first_passing(steps: pd.Series, values: pd.Series, level: float) -> tuple[float, bool]:
    """Where a curve from (0, 0) first has a value, by straight lines; its end if it never has."""
    x, y = np.r_[0.0, steps.to_numpy()], np.r_[0.0, values.to_numpy()]
    above = np.flatnonzero(y >= level)
    if len(above) == 0:
        return float(x[-1]), False
    i = int(above[0])
    if i == 0:
        return 0.0, True
    part = (level - y[i - 1]) / (y[i] - y[i - 1])
    return float(x[i - 1] + part * (x[i] - x[i - 1])), True


def storage(
    depths: Sequence[int], *, stages: int, d: int, dim: int, inner: int, classes: int
) -> dict[str, float]:
    """Numbers that are stored: for a network of every depth, for one learngene with its stem and
    head, and the ratio; exact."""
    ends = d * dim + dim + dim * classes + classes
    block = layer_parameters(dim, inner)
    every = sum(ends + depth * block for depth in depths)
    gene = ends + stages * block
    return {"every depth": every, "learngene": gene, "ratio": every / gene}


def inside(runs: Mapping[int, Arrays]) -> pd.DataFrame:
    """By seed (rows): spikes_tied, spikes_untied, spikes_start; same, different (overlaps of the
    tuned SWS descendant's layers), stray_same, stray_different; means_start, means_tied,
    means_sws; moved, kept; teacher."""
    rows = {}
    for seed, run in runs.items():
        names = ["spikes_tied", "spikes_untied", "spikes_start"]
        values = [*run["spikes"], *run["overlap"], *run["means"]]
        names += ["same", "different", "stray_same", "stray_different"]
        names += ["means_start", "means_tied", "means_sws", "moved", "kept", "teacher"]
        values += [run["moved"], run["kept"], run["teacher"]]
        rows[seed] = dict(zip(names, map(float, values), strict=True))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("seed")
