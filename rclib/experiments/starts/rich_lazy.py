"""Frames of notebook 52: how lazily networks learn, by the rank of a start of fixed norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from rclib.data.images import Dataset
from rclib.experiments.starts.rich_lazy_linear import linear_flow
from rclib.experiments.starts.rich_lazy_runs import recurrent_runs
from rclib.runs import sweep
from rclib.runs.stacked import sweep_stacked

__all__ = [
    "between",
    "linear_frame",
    "loss_matched",
    "norm_gain",
    "rank_correlation",
    "recurrent_end",
    "recurrent_frame",
    "stayed_finite",
    "task_free",
    "worst_task",
]

MEASURES = ("kernel", "representation", "weights")


def linear_frame(
    seeds: Sequence[int], *, ranks: Sequence[int], norms: Sequence[float], h: int, d: int
) -> pd.DataFrame:
    """Ends of the linear flow: seed, family, rank, norm, task, kernel, weights, residual, time,
    conserved.

    "flat" and "truncated" at every rank, "aligned" at rank one, and at full rank "flat" also for a
    second task (1). Flows that are not done at the time 4000 / norm² have a residual over 1e-4.
    """
    arms = [(family, rank, 0) for family in ("flat", "truncated") for rank in ranks]
    arms += [("aligned", 1, 0), ("flat", d, 1)]
    keys = ["seed", "family", "rank", "norm", "task"]
    rows = [(s, *arm[:2], norm, arm[2]) for norm in norms for arm in arms for s in seeds]
    shared = {"h": h, "d": d, "left": 1e-4}
    configs = [
        {**dict(zip(keys, row, strict=True)), **shared, "most": 4000.0 / row[3] ** 2}
        for row in rows
    ]
    runs = sweep.run(linear_flow, configs, description="linear flows")
    found = pd.DataFrame([{name: float(value) for name, value in run.items()} for run in runs])
    return pd.concat([pd.DataFrame(rows, columns=keys), found], axis=1)


def between(
    frame: pd.DataFrame, what: str, over: tuple[str, int], under: tuple[str, int], *, norm: float
) -> tuple[pd.Series, pd.Series]:
    """A measure by seed of two arms (family, rank) of the first task."""
    chosen = frame[(frame.norm == norm) & (frame.task == 0)]
    return tuple(  # type: ignore[return-value]
        chosen[(chosen.family == family) & (chosen["rank"] == rank)].set_index("seed")[what]
        for family, rank in (over, under)
    )


def rank_correlation(frame: pd.DataFrame, family: str, *, norm: float) -> pd.Series:
    """Spearman's correlation of rank and kernel alignment by seed."""
    chosen = frame[(frame.family == family) & (frame.norm == norm) & (frame.task == 0)]
    found = {s: spearmanr(g["rank"], g.kernel).statistic for s, g in chosen.groupby("seed")}
    return pd.Series(found, name="spearman").rename_axis("seed")


def norm_gain(frame: pd.DataFrame, large: float, small: float) -> pd.Series:
    """Kernel alignment of flat starts, one norm minus another, the smallest over ranks, by seed."""
    chosen = frame[(frame.family == "flat") & (frame.task == 0)]
    table = chosen.pivot_table(index=["seed", "rank"], columns="norm", values="kernel")
    return (table[large] - table[small]).groupby("seed").min().rename("gain")


def task_free(frame: pd.DataFrame, *, d: int) -> pd.Series:
    """|difference of the kernel alignment for two tasks| from one flat start of full rank, the
    largest over norms, by seed."""
    chosen = frame[(frame.family == "flat") & (frame["rank"] == d)]
    table = chosen.pivot_table(index="seed", columns=["norm", "task"], values="kernel")
    return (table.xs(0, axis=1, level=1) - table.xs(1, axis=1, level=1)).abs().max(axis=1)


def recurrent_frame(
    data: Dataset,
    seeds: Sequence[int],
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    ranks: Sequence[int],
    group: int = 16,
) -> pd.DataFrame:
    """Recurrent networks over training: task, seed, rank, step, loss, accuracy, kernel,
    representation, weights, and the end's update_rank, beyond, means_start, means_end on every row.

    tasks : name -> what `recurrent_runs` gets besides task, seed and rank. Raises ValueError for
    images read by rows that are fewer than the trials and the probe together.
    """
    frames = []
    for task, own in tasks.items():
        asked, there = own["trials"] + own["probe"], len(data.y_train)
        if task == "rows" and asked > there:
            raise ValueError(f"trials and probe must be at most {there} images, got {asked}")
        configs = [{"task": task, **own, "seed": s, "rank": r} for r in ranks for s in seeds]
        runs = sweep_stacked(
            recurrent_runs, configs, members=["seed", "rank"], data=data, group=group,
            description=task,
        )  # fmt: skip
        for config, run in zip(configs, runs, strict=True):
            names = ("loss", "accuracy", *MEASURES)
            frame = pd.DataFrame({"step": run["at"], **{name: run[name] for name in names}})
            frame.insert(0, "rank", config["rank"])
            frame.insert(0, "seed", config["seed"])
            frame.insert(0, "task", task)
            ends = {"update_rank": run["update_rank"], "beyond": run["beyond"]}
            ends |= {"means_start": run["means"][0], "means_end": run["means"][1]}
            frames.append(frame.assign(**{name: float(value) for name, value in ends.items()}))
    return pd.concat(frames, ignore_index=True)


def stayed_finite(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the seeds of which no network diverged, in any task and from any rank."""
    lost = frame[frame.weights.isna()].seed.unique()
    return frame[~frame.seed.isin(lost)].reset_index(drop=True)


def recurrent_end(frame: pd.DataFrame) -> pd.DataFrame:
    """The last step of every network."""
    return frame.groupby(["task", "seed", "rank"], sort=False).last().reset_index()


def worst_task(
    ends: pd.DataFrame, what: str, over: int, under: int, *, ratio: bool = False
) -> pd.Series:
    """Measure at one rank minus (or over) that at another, the smallest over tasks, by seed."""
    table = ends.pivot_table(index=["task", "seed"], columns="rank", values=what)
    found = table[over] / table[under] if ratio else table[over] - table[under]
    return found.groupby("seed").min().rename(what)


def loss_matched(frame: pd.DataFrame, what: str, over: int, under: int) -> pd.Series:
    """`worst_task`'s difference where both ranks have the loss that the slower one ends with.

    Measures are taken by straight lines between recorded steps, at the first passing of that loss.
    """
    found = {}
    for (task, seed), group in frame[frame["rank"].isin([over, under])].groupby(["task", "seed"]):
        arms = {rank: arm.sort_values("step") for rank, arm in group.groupby("rank")}
        level = max(float(arm.loss.iloc[-1]) for arm in arms.values())
        values = {rank: _at_loss(arm, what, level) for rank, arm in arms.items()}
        found[task, seed] = values[over] - values[under]
    index = pd.MultiIndex.from_tuples(list(found), names=["task", "seed"])
    return pd.Series(list(found.values()), index=index).groupby("seed").min().rename(what)


def _at_loss(arm: pd.DataFrame, what: str, level: float) -> float:
    losses, values = arm.loss.to_numpy(), arm[what].to_numpy()
    i = int(np.flatnonzero(losses <= level)[0])
    if i == 0:
        return float(values[0])
    part = (losses[i - 1] - level) / (losses[i - 1] - losses[i])
    return float(values[i - 1] + part * (values[i] - values[i - 1]))
