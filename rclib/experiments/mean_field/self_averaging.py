"""Do two seeds of one width have the same law of neurons, the more so the wider they are?

Two samples of N neurons from one law are a distance of order N^-1/2 apart. Where the distance
between seeds does not fall like that, every seed has a law of its own: the law does not
self-average. `slope_interval` is the exponent, `over_independent` the distance in units of that of
independent draws; `train_arms` and `train_mlps` make small networks for it on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.mean_field.lm_runs import Arrays, cost, lm_configuration, means_of, train_gpt
from rclib.experiments.mean_field.mlp_runs import configuration, train_mlp
from rclib.experiments.mean_field.width_collapse import start_seed
from rclib.runs import sweep
from rclib.stats.slopes import slope
from rclib.stats.two_sample import (
    DISTANCES,
    Interval,
    Kept,
    PairDistances,
    borrowed_interval,
    jackknife,
    pair_distances,
    sampling_distance,
)

__all__ = [
    "ARMS",
    "STARTS",
    "VECTORS",
    "fresh_slope",
    "gpt_groups",
    "mlp_groups",
    "over_independent",
    "slope_at",
    "slope_interval",
    "table_of",
    "train_arms",
    "train_mlps",
]

Group = Mapping[int, Sequence[np.ndarray]]  # one vector a seed, by width
Groups = Sequence[Group]  # one a block

# What a neuron of the stream (N) and of the branch (4N) sends and receives, in the mean.
VECTORS = ("Wdown.C", "Wup.R", "Wdown.R", "Wup.C")

# What may be behind it, each changed alone against the first.
ARMS: Mapping[str, Mapping[str, Any]] = {
    "Adam, as in the figure": {},
    "decaying rate": {"schedule": "cosine"},
    "SGD": {"optimizer": "sgd", "lr": 1.0},
    "zero-mean start": {"start": "zero mean"},
    "batches of its own": {"data_seed": None},
}
STARTS: Mapping[str, Mapping[str, Any]] = {
    "N(1, 3)": {"kind": "gaussian", "mean": 1.0, "scale": math.sqrt(3.0)},
    "zero mean": {"kind": "uniform"},
}
Trained = dict[tuple[str, int, int], Arrays]  # arm (or start), width, seed


def slope_interval(groups: Groups, widths: Sequence[int]) -> Interval:
    """Log-log slope of the mean distance inside a width against the width, mean over blocks, with
    its jackknife interval over seeds. ValueError for fewer than two widths or three seeds."""
    return jackknife(_slope_of(groups, widths), _sizes(groups, widths, 3))


def slope_at(
    groups: Groups, widths: Sequence[int]
) -> Callable[[int, float], tuple[float, float, float]]:
    """The same slope for a claim under the sequential rule: (n, level) -> value, low and high from
    the first n seeds of every width (`rclib.study.claims.Claims.follow`). Raises ValueError as
    `slope_interval`, and where a width lacks a seed, as after a run that diverged: which seeds are
    the first n would not be known."""
    statistic, sizes = _slope_of(groups, widths), _sizes(groups, widths, 3)
    if len(set(sizes.values())) > 1:
        raise ValueError(f"every width needs the same seeds, got {sizes} of them")

    def estimate(n: int, level: float) -> tuple[float, float, float]:
        if n > min(sizes.values()):
            raise ValueError(f"every width needs {n} seeds, got {sizes}")
        found = jackknife(statistic, dict.fromkeys(sizes, n), level=level)
        return found.value, found.low, found.high

    return estimate


def fresh_slope(
    groups: Groups, widths: Sequence[int], fresh: Mapping[int, Sequence[int]]
) -> Interval:
    """The same slope from the seeds `fresh` alone (their numbers, two or more, by width).

    Two seeds make one distance, which says nothing of its spread: that of a seed is taken from all
    seeds (`borrowed_interval`), so the others enter the interval's length and not its place.
    """
    return borrowed_interval(_slope_of(groups, widths), _sizes(groups, widths, 3), fresh)


def over_independent(
    groups: Groups, a: int, b: int, *, kept: Kept | None = None, draws: int = 100
) -> Interval:
    """Mean distance between two widths (or, a = b, between seeds of one) over that of independent
    draws of as many neurons from the pooled law, mean over blocks; jackknife over seeds.

    kept : numbers of the seeds to use, by width; default all. Raises ValueError for fewer than two
    seeds, three where a = b.
    """
    chosen = [
        {n: [group[n][i] for i in (kept[n] if kept else range(len(group[n])))] for n in {a, b}}
        for group in groups
    ]
    sizes = _sizes(chosen, sorted({a, b}), 3 if a == b else 2)
    tables = _tables(chosen)
    pools = [np.concatenate([v for n in sizes for v in group[n]]) for group in chosen]
    wasserstein = DISTANCES["Wasserstein"]
    levels = [sampling_distance(pool, a, b, wasserstein, draws=draws) for pool in pools]

    def ratio(used: Kept) -> float:
        pairs = zip(tables, levels, strict=True)
        return float(np.mean([_distance(table, a, b, used) / level for table, level in pairs]))

    return jackknife(ratio, sizes, positive=True)


def _distance(table: PairDistances, a: int, b: int, kept: Kept) -> float:
    return float(table.inside(a, kept).mean()) if a == b else table.between(a, b, kept)


def _tables(groups: Groups) -> list[PairDistances]:
    return [pair_distances(group, DISTANCES["Wasserstein"]) for group in groups]


def _slope_of(groups: Groups, widths: Sequence[int]) -> Callable[[Kept], float]:
    tables = [pair_distances({n: g[n] for n in widths}, DISTANCES["Wasserstein"]) for g in groups]

    def statistic(kept: Kept) -> float:
        levels = [[float(t.inside(n, kept).mean()) for n in widths] for t in tables]
        return float(np.mean([slope(widths, one) for one in levels]))

    return statistic


def _sizes(groups: Groups, widths: Sequence[int], fewest: int) -> dict[int, int]:
    sizes = {n: min(len(group.get(n, ())) for group in groups) for n in widths}
    if not sizes or min(sizes.values()) < fewest:
        raise ValueError(f"every width needs {fewest} seeds or more, got {sizes}")
    return sizes


def table_of(groups: Mapping[str, Groups], widths: Sequence[int], **columns: Any) -> pd.DataFrame:
    """One row a vector (the keys of `groups`) and width: `distance` between seeds, mean over
    blocks, and `ratio` over independent draws with `low`, `high`; `slope`, `slope_low`,
    `slope_high` are those of the vector. columns : further ones, the same in every row."""
    rows = []
    for vector, found in groups.items():
        fit = slope_interval(found, widths)
        tables = _tables(found)
        for width in widths:
            ratio = over_independent(found, width, width)
            inside = float(np.mean([t.inside(width).mean() for t in tables]))
            row = {**columns, "vector": vector, "width": width, "distance": inside}
            row |= {"ratio": ratio.value, "low": ratio.low, "high": ratio.high}
            rows.append({**row, "slope": fit.value, "slope_low": fit.low, "slope_high": fit.high})
    return pd.DataFrame(rows)


def gpt_groups(
    runs: Mapping[tuple[str, int, int], Arrays],
    name: str,
    *,
    vector: str,
    step: int,
    blocks: int,
    change: bool = False,
) -> list[dict[int, list[np.ndarray]]]:
    """Mean vectors of the runs under `name`, by width, one group a block; `vector` is of `VECTORS`.

    change : since the start. MF alone: its entries are the kernel as they are stored. Runs that
    diverged before are left out. Raises ValueError for an unknown vector.
    """
    if vector not in VECTORS:
        raise ValueError(f"vector must be one of {', '.join(VECTORS)}, got {vector!r}")
    matrix, axis = vector.split(".")
    out = []
    for block in range(blocks):
        group: dict[int, list[np.ndarray]] = {}
        for (arm, width, _), run in runs.items():
            if arm != name or 0 <= int(run["diverged"]) <= step:
                continue
            place = {"matrix": f"blocks.{block}.{matrix}", "axis": axis}
            values = means_of(run, step=step, **place).astype(np.float64)
            if change:
                values = values - means_of(run, step=0, **place)
            group.setdefault(width, []).append(values)
        out.append(group)
    return out


def train_arms(
    data: TextData,
    *,
    widths: Sequence[int],
    seeds: Mapping[str, Sequence[int]] | Sequence[int],
    steps: int,
    **options: Any,
) -> Trained:
    """Language models under MF for every arm of `ARMS`; options : of `lm_configuration`.

    seeds : the same for all arms, or those of each arm that is trained, by its name.
    Raises ValueError for an unknown arm.
    """
    chosen = seeds if isinstance(seeds, Mapping) else dict.fromkeys(ARMS, seeds)
    unknown = [arm for arm in chosen if arm not in ARMS]
    if unknown:
        raise ValueError(f"arms must be some of {list(ARMS)}, got {unknown}")
    configs = {}
    for arm, own in chosen.items():
        change = ARMS[arm]
        for width in widths:
            for seed in own:
                settings = {"start": "paper", "data_seed": 0, **options, **change}
                configs[arm, width, seed] = lm_configuration(
                    width=width, steps=steps, seed=start_seed(width, seed), eval_steps=[steps],
                    mean_steps=[0, steps], **settings,
                )  # fmt: skip
    runs = sweep.run(
        train_gpt,
        list(configs.values()),
        data=cast(Dataset, data),
        cost=cost,
        description="self-averaging, language models",
    )
    return dict(zip(configs, runs, strict=True))


def train_mlps(
    data: Dataset,
    *,
    widths: Sequence[int],
    seeds: Sequence[int],
    epochs: int,
    starts: Collection[str] = tuple(STARTS),
    **options: Any,
) -> Trained:
    """Networks of Figure 4.3 (three layers, MF, SGD, batches in each seed's own order).

    starts : of `STARTS`; options : lr, batch_size and others of `mlp_runs.configuration`.
    Raises ValueError for an unknown start.
    """
    unknown = [start for start in starts if start not in STARTS]
    if unknown:
        raise ValueError(f"starts must be some of {list(STARTS)}, got {unknown}")
    keys = [(start, width, seed) for start in starts for width in widths for seed in seeds]
    configs = [
        configuration(
            width=width,
            seed=start_seed(width, seed),
            epochs=epochs,
            snapshots=(0, epochs),
            parametrization="MF",
            init=dict(STARTS[start]),
            **options,
        )
        for start, width, seed in keys
    ]
    runs = sweep.run(train_mlp, configs, data=data, description="self-averaging, three layers")
    return dict(zip(keys, runs, strict=True))


def mlp_groups(
    runs: Trained, start: str, *, vector: str, epoch: int, change: bool = False
) -> list[dict[int, list[np.ndarray]]]:
    """Means of the middle matrix, "W2.C" (rows) or "W2.R" (columns), as `gpt_groups` gives them."""
    index = {"W2.C": "h2", "W2.R": "h1"}[vector]
    group: dict[int, list[np.ndarray]] = {}
    for (name, width, _), run in runs.items():
        if name == start:
            values = run[f"{epoch}/mean/{index}/{vector}"]
            group.setdefault(width, []).append(
                values - run[f"0/mean/{index}/{vector}"] if change else values
            )
    return [group]
