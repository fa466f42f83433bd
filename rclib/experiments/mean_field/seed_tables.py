"""What notebook 16 shows of the seeds of its runs: densities, distances, losses, one by one."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from rclib.experiments.mean_field.self_averaging import gpt_groups
from rclib.experiments.mean_field.width_collapse import Runs
from rclib.stats.permutation import SplitTest, split_test
from rclib.stats.two_sample import (
    DISTANCES,
    Interval,
    Kept,
    jackknife,
    pair_distances,
    sampling_distance,
)

__all__ = ["inside_table", "loss_difference", "same_law", "seed_densities", "turned_up"]

LeftOut = Collection[tuple[int, int]]  # widths at steps


def turned_up(losses: pd.DataFrame) -> set[tuple[int, int]]:
    """(width, step) where training has become unstable: for at least half of the width's seeds the
    validation loss is above that of the check before. losses : width, seed, step, loss."""
    found = set()
    for width, group in losses.groupby("width"):
        table = group.pivot_table(index="step", columns="seed", values="loss", dropna=False)
        rises = (~(table.diff() <= 0)).iloc[1:].mean(axis=1)  # NaN: it diverged
        found |= {(int(str(width)), int(str(step))) for step in rises.index[rises >= 0.5]}
    return found


def seed_densities(
    runs: Runs,
    *,
    vector: str,
    widths: Sequence[int],
    steps: Sequence[int],
    blocks: Sequence[int],
    left_out: LeftOut = (),
    points: int = 50,
) -> pd.DataFrame:
    """Density of one MF run's means, one line a seed: block, step, width, seed, x, density.

    Every panel (block and step) has one grid, from the 0.5 to the 99.5 percent point of all."""
    frames = []
    for step in steps:
        groups = gpt_groups(runs, "MF", vector=vector, step=step, blocks=max(blocks) + 1)
        shown = [n for n in widths if (n, step) not in left_out]
        for block in blocks:
            everything = np.concatenate([v for n in shown for v in groups[block][n]])
            low, high = np.quantile(everything, [0.005, 0.995])
            grid = np.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low), points)
            for n in shown:
                for seed, values in enumerate(groups[block][n]):
                    columns = {"block": block, "step": step, "width": n, "seed": seed, "x": grid}
                    frames.append(
                        pd.DataFrame({**columns, "density": stats.gaussian_kde(values)(grid)})
                    )
    return pd.concat(frames, ignore_index=True)


def inside_table(
    runs: Runs,
    *,
    vectors: Sequence[str],
    widths: Sequence[int],
    steps: Sequence[int],
    blocks: int,
    left_out: LeftOut = (),
    draws: int = 100,
) -> pd.DataFrame:
    """Wasserstein distance between seeds of one width, mean over blocks, under MF.

    One row a vector, step and width: `y` with `low`, `high` (jackknife over seeds, on a log scale)
    and `independent`, that of independent draws from the pooled law.
    """
    wasserstein = DISTANCES["Wasserstein"]
    rows = []
    for vector in vectors:
        for step in steps:
            groups = gpt_groups(runs, "MF", vector=vector, step=step, blocks=blocks)
            for n in widths:
                if (n, step) in left_out or len(groups[0].get(n, ())) < 3:
                    continue
                tables = [pair_distances({n: group[n]}, wasserstein) for group in groups]

                def inside(kept: Kept, n: int = n, tables: list = tables) -> float:  # type: ignore[type-arg]
                    return float(np.mean([t.inside(n, kept).mean() for t in tables]))

                found = jackknife(inside, {n: len(groups[0][n])}, positive=True)
                drawn = [
                    sampling_distance(
                        np.concatenate(group[n]), len(group[n][0]), len(group[n][0]), wasserstein,
                        draws=draws,
                    )
                    for group in groups
                ]  # fmt: skip
                row = {"vector": vector, "step": step, "width": n, "y": found.value}
                row |= {"low": found.low, "high": found.high}
                rows.append({**row, "independent": float(np.mean(drawn))})
    return pd.DataFrame(rows)


def same_law(
    runs: Runs, small: int, large: int, *, vector: str, step: int, blocks: int
) -> SplitTest:
    """Whether runs of two widths differ more than runs of one do (`split_test`), MF.

    The wider runs are thinned to their first `small` neurons (4 `small` of the branch): with fewer
    neurons a sample is further from every other, and the runs would not come alike.
    """
    tables = []
    for group in gpt_groups(runs, "MF", vector=vector, step=step, blocks=blocks):
        size = min(len(values) for values in group[small])
        samples = [values[:size] for values in (*group[small], *group[large])]
        tables.append(pair_distances({0: samples}, DISTANCES["Wasserstein"]).values[0, 0])
    return split_test(tables, len(group[small]))


def loss_difference(
    losses: pd.DataFrame,
    small: int,
    large: int,
    *,
    step: int,
    seeds: Kept | None = None,
) -> Interval:
    """Mean validation loss at `small` over that at `large`, minus 1; jackknife over seeds.

    losses : width, seed, step, loss. seeds : those to use, by width; default all.
    Raises ValueError for a run that diverged before the step.
    """
    at = losses[losses.step == step]
    found = {
        n: at[(at.width == n) & (at.seed.isin(list(seeds[n])) if seeds else True)].loss.to_numpy()
        for n in (small, large)
    }

    def ratio(kept: Kept) -> float:
        means = {n: float(found[n][list(kept[n])].mean()) for n in found}
        return means[small] / means[large] - 1

    if not all(math.isfinite(v) for values in found.values() for v in values):
        raise ValueError(f"a run of N = {small} or {large} diverged before step {step}")
    return jackknife(ratio, {n: len(values) for n, values in found.items()})
