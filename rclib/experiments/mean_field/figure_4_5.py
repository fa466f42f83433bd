"""Figure 4.5: do language models of different widths draw their neurons from one law?

Row means of an MLP matrix are one number a neuron of the stream, the mean over the 4N neurons of
the branch. They are compared between widths as two samples (`rclib.stats.two_sample`).

Scale. A layer computes m W h, and the sum over its fan-in n tends to a mean over neurons when it
is written (1/n) Σ_j w_ij h_j with the *kernel* w = n m W. The kernel is what may have a law that
does not depend on the width. Under MF m = 1/n and w = W: the entries as they are stored. Under SP
and μP m = 1 and w = n W, whose row mean is the row sum of W. `kernel_means` returns row means of
w, so that the three can be compared; before training a row mean of w has standard deviation
σ/√n under MF (it vanishes with the width) and σ under SP and μP (it does not).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rclib.experiments.mean_field.lm_runs import Arrays, means_of
from rclib.experiments.mean_field.width_collapse import Key, Runs
from rclib.nets.gpt import MLP_RATIO
from rclib.nets.parametrization import parametrization as lookup
from rclib.stats.slopes import slope
from rclib.stats.two_sample import (
    DISTANCES,
    Distance,
    Interval,
    Kept,
    PairDistances,
    bootstrap_interval,
    jackknife,
    pair_distances,
    sampling_distance,
)

__all__ = [
    "MATRICES",
    "QUANTITIES",
    "behind",
    "densities",
    "distance_table",
    "distances",
    "fall_interval",
    "kernel_means",
    "levels_by_width",
    "ratio_interval",
    "row_samples",
]

Samples = dict[int, list[np.ndarray]]  # one vector of row means a run, by width
Tables = Sequence[PairDistances]  # one a block

MATRICES: Mapping[str, str] = {"Wdown": "C", "Wup": "R"}
QUANTITIES = ("row mean", "change of the row mean")


def behind(runs: Runs, widths: Sequence[int]) -> dict[str, Any]:
    """What stands behind a comparison of widths, as a claim takes it: `repeats`, the fewest runs of
    one of them, and a `note`. ValueError for a width without runs."""
    counts = [sum(key[1] == width for key in runs) for width in widths]
    if not all(counts):
        raise ValueError(f"every width needs runs, got {dict(zip(widths, counts, strict=True))}")
    seeds = " and ".join(map(str, counts))
    return {"repeats": min(counts), "note": f"jackknife over runs, {seeds} seeds"}


def kernel_means(
    run: Arrays, key: Key, *, matrix: str, block: int, step: int, stored: bool = False
) -> np.ndarray:
    """Row means over the 4N (see `MATRICES`) of the kernel n m W, one a neuron of the stream, (N,).

    stored : of the entries W as they are stored instead. Raises ValueError for another matrix.
    """
    if matrix not in MATRICES:
        raise ValueError(f"matrix must be one of {', '.join(MATRICES)}, got {matrix!r}")
    name, width, _ = key
    means = means_of(run, f"blocks.{block}.{matrix}", step=step, axis=MATRICES[matrix])
    fans = (MLP_RATIO * width, width) if matrix == "Wdown" else (width, MLP_RATIO * width)
    factor = 1.0 if stored else fans[0] * lookup(name)["hidden"].multiplier(*fans)
    return factor * np.asarray(means, dtype=np.float64)


def row_samples(
    runs: Runs,
    name: str,
    *,
    quantity: str,
    block: int,
    step: int,
    matrix: str = "Wdown",
    stored: bool = False,
) -> Samples:
    """The row means, or their change since step 0, of all runs of one parametrisation, by width.

    Runs that diverged before `step` are left out. Raises ValueError for an unknown quantity.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity must be one of {QUANTITIES}, got {quantity!r}")
    out: Samples = {}
    for key, run in runs.items():
        if key[0] != name or 0 <= int(run["diverged"]) <= step:
            continue
        options = {"matrix": matrix, "block": block, "stored": stored}
        values = kernel_means(run, key, step=step, **options)  # type: ignore[arg-type]
        if quantity != "row mean":
            values = values - kernel_means(run, key, step=0, **options)  # type: ignore[arg-type]
        out.setdefault(key[1], []).append(values)
    return out


def distances(
    runs: Runs, name: str, *, distance: str, blocks: int, **options: Any
) -> list[PairDistances]:
    """Distances between all runs of one parametrisation, one table a block; see `samples`."""
    return [
        pair_distances(row_samples(runs, name, block=block, **options), DISTANCES[distance])
        for block in range(blocks)
    ]


def ratio_interval(tables: Tables, a: int, b: int) -> Interval:
    """Distance between two widths over its noise floor, mean over blocks; jackknife over runs."""
    return _mean_interval(tables, [a, b], lambda table, kept: table.ratio(a, b, kept))


def fall_interval(tables: Tables, widths: Sequence[int]) -> Interval:
    """Log-log slope of the distance between neighbouring widths against their geometric mean,
    mean over blocks; jackknife over runs. Raises ValueError for fewer than three widths."""
    if len(widths) < 3:
        raise ValueError(f"widths must be three or more, got {list(widths)}")
    pairs = list(itertools.pairwise(widths))
    middle = [float(np.sqrt(a * b)) for a, b in pairs]
    return _mean_interval(
        tables,
        widths,
        lambda table, kept: slope(middle, [table.between(a, b, kept) for a, b in pairs]),
        positive=False,
    )


def _mean_interval(
    tables: Tables,
    widths: Sequence[int],
    statistic: Callable[[PairDistances, Kept], float],
    *,
    positive: bool = True,
) -> Interval:
    """A statistic of one block, mean over blocks, with its jackknife interval over runs."""
    sizes = {n: min(len(table.values[n, n]) for table in tables) for n in widths}
    if min(sizes.values()) < 3:
        raise ValueError(f"every width needs 3 seeds or more that did not diverge, got {sizes}")
    return jackknife(
        lambda kept: float(np.mean([statistic(table, kept) for table in tables])),
        sizes,
        positive=positive,
    )


def distance_table(
    runs: Runs,
    name: str,
    *,
    small: int,
    large: int,
    steps: Sequence[int],
    blocks: int,
    matrix: str = "Wdown",
    draws: int = 200,
) -> pd.DataFrame:
    """Distances between two widths beside what they mean: one row a quantity, distance, block
    and step (the change has no row at step 0).

    `one_pair` with `low`, `high`: the first run of either width and its bootstrap interval.
    `between`: mean over all pairs of runs. `floor`: the same from two seeds of one width.
    `sampling`: of independent draws from the pooled law, N values for each width. `ratio`:
    between over floor.
    """
    rows = []
    for quantity in QUANTITIES:
        for block in range(blocks):
            for step in steps:
                if step == 0 and quantity != "row mean":
                    continue  # nothing has changed yet
                found = row_samples(
                    runs, name, quantity=quantity, block=block, step=step, matrix=matrix
                )
                chosen = {small: found[small], large: found[large]}
                pool = np.concatenate([v for vectors in chosen.values() for v in vectors])
                for label, distance in DISTANCES.items():
                    table = pair_distances(chosen, distance)
                    one = bootstrap_interval(
                        chosen[small][0], chosen[large][0], distance, draws=draws
                    )
                    rows.append(
                        {
                            "matrix": matrix,
                            "quantity": quantity,
                            "distance": label,
                            "block": block,
                            "step": step,
                            "one_pair": one.value,
                            "low": one.low,
                            "high": one.high,
                            "between": table.between(small, large),
                            "floor": table.floor(small, large),
                            "sampling": sampling_distance(
                                pool, small, large, distance, draws=draws
                            ),
                            "ratio": table.ratio(small, large),
                        }
                    )
    return pd.DataFrame(rows)


def levels_by_width(
    runs: Runs,
    name: str,
    *,
    widths: Sequence[int],
    step: int,
    blocks: int,
    draws: int = 200,
    **options: Any,
) -> pd.DataFrame:
    """Distances of neighbouring widths, means over blocks, one row a quantity, distance and pair.

    Columns `x` (geometric mean of the widths), `level` ("two widths", "two seeds", "independent
    draws"), `y`, and `low`, `high`: jackknife interval over runs (of independent draws: none).
    """
    rows = []
    for quantity in QUANTITIES:
        groups = [
            row_samples(runs, name, quantity=quantity, block=b, step=step, **options)
            for b in range(blocks)
        ]
        for label, distance in DISTANCES.items():
            tables = [pair_distances(group, distance) for group in groups]
            for a, b in itertools.pairwise(widths):
                x = float(np.sqrt(a * b))
                for level, value in _levels(tables, groups, a, b, distance, draws).items():
                    rows.append((quantity, label, level, x, value.value, value.low, value.high))
    return pd.DataFrame(rows, columns=["quantity", "distance", "level", "x", "y", "low", "high"])


def _levels(
    tables: Tables, groups: Sequence[Samples], a: int, b: int, distance: Distance, draws: int
) -> dict[str, Interval]:
    pools = [np.concatenate([*group[a], *group[b]]) for group in groups]
    drawn = [sampling_distance(pool, a, b, distance, draws=draws) for pool in pools]
    level = float(np.mean(drawn))
    return {
        "two widths": _mean_interval(tables, [a, b], lambda table, kept: table.between(a, b, kept)),
        "two seeds": _mean_interval(tables, [a, b], lambda table, kept: table.floor(a, b, kept)),
        "independent draws": Interval(level, level, level),
    }


def densities(
    runs: Runs,
    name: str,
    *,
    widths: Sequence[int],
    steps: Sequence[int],
    blocks: Sequence[int],
    quantity: str = "row mean",
    matrix: str = "Wdown",
    points: int = 80,
) -> pd.DataFrame:
    """Density estimates (Gaussian kernel, Scott's width) of the row means of all seeds together.

    Columns block, step, width, x, density; one grid a panel (block and step).
    """
    frames = []
    for block in blocks:
        for step in steps:
            found = row_samples(
                runs, name, quantity=quantity, block=block, step=step, matrix=matrix
            )
            pooled = {width: np.concatenate(found[width]) for width in widths}
            low = min(float(v.min()) for v in pooled.values())
            high = max(float(v.max()) for v in pooled.values())
            edge = 0.1 * (high - low)
            grid = np.linspace(low - edge, high + edge, points)
            for width, values in pooled.items():
                density = stats.gaussian_kde(values)(grid)
                columns = {"block": block, "step": step, "width": width, "x": grid}
                frames.append(pd.DataFrame({**columns, "density": density}))
    return pd.concat(frames, ignore_index=True)
