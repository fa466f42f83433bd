"""Random search over sparse architectures against one draw.

Rezsa Farahani (arXiv 2403.08265): of many random subsets of the units of a large network, keep the
one with the lowest initial loss, and train it. It is held against the first subset drawn. Looked at
are the initial losses, the course of training, how far masks differ in a way that repeats, and
whether the choice can be seen in the first matrix. The runs are those of `search_runs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from rclib.data.images import Dataset
from rclib.experiments.pruning.search_runs import ARMS, dense, repeated, searched
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.stats.sequential import interval

__all__ = [
    "course_frame",
    "dense_frame",
    "gain",
    "gained",
    "mask_frame",
    "repeat_frame",
    "shown_gains",
    "studied",
]


def _configs(seeds: Sequence[int], shared: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"seed": int(seed), **shared} for seed in seeds]


def _searches(
    data: Dataset, seeds: Sequence[int], group: int, **shared: Any
) -> Iterator[tuple[int, Arrays]]:
    found = sweep_stacked(
        searched, _configs(seeds, shared), data=data, members=["seed"], group=group,
        description="searches",
    )  # fmt: skip
    return zip(map(int, seeds), found, strict=True)


def course_frame(
    data: Dataset, seeds: Sequence[int], arms: Sequence[Mapping[str, Any]], *, group: int,
    n_masks: int, few: int, every: int, **shared: Any,
) -> pd.DataFrame:  # fmt: skip
    """Every arm at every look: task, rescaled, keep, sparsity, arm, seed, step, score (share of
    right labels, or R²), loss (at the start, over the mean of all masks: a difference), loss_of_all
    (their mean), spikes_start, spikes, rowcolumn_start, rowcolumn (of W1, `search_runs.searched`).

    arms : mappings of task, rescaled and keep. group : parents that are trained at once.
    """
    frames = []
    for case in arms:
        runs = _searches(
            data, seeds, group, n_masks=n_masks, few=few, every=every, **case, **shared
        )
        for seed, run in runs:
            for place, arm in enumerate(ARMS):
                curve = run["curves"][place]
                loss = run["losses"][run["chosen"][place]] - run["losses"].mean()
                link = {
                    f"{name}{when}": float(run[f"link{when}"][place, column])
                    for column, name in enumerate(("spikes", "rowcolumn"))
                    for when in ("", "_start")
                }
                frames.append(pd.DataFrame({
                    **case, "sparsity": round(1 - case["keep"] / shared["width"], 3), "arm": arm,
                    "seed": seed, "step": every * np.arange(len(curve)), "score": curve,
                    "loss": loss, "loss_of_all": run["losses"].mean(), **link,
                }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def mask_frame(
    data: Dataset, seeds: Sequence[int], case: Mapping[str, Any], *, group: int, **shared: Any
) -> pd.DataFrame:
    """Every mask before training: seed, mask, loss, spread (of the outputs), kind ("searched",
    "random", "worst", or "" for others). case : as one of `course_frame`'s arms."""
    frames = []
    for seed, run in _searches(data, seeds, group, **case, **shared):
        kinds = np.full(len(run["losses"]), "", dtype=object)
        for arm, mask in zip(ARMS[:3], run["chosen"][:3], strict=True):
            kinds[mask] = arm
        frames.append(pd.DataFrame({
            "seed": seed, "mask": np.arange(len(kinds)), "loss": run["losses"],
            "spread": run["spreads"], "kind": kinds,
        }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def dense_frame(
    data: Dataset, seeds: Sequence[int], *, group: int, every: int, **shared: Any
) -> pd.DataFrame:
    """The parents themselves: seed, step, score."""
    runs = sweep_stacked(
        dense, _configs(seeds, {"every": every, **shared}), data=data, members=["seed"],
        group=group, description="parents",
    )  # fmt: skip
    frames = [
        pd.DataFrame({
            "seed": int(seed), "step": every * np.arange(len(run["curves"])),
            "score": run["curves"],
        })
        for seed, run in zip(seeds, runs, strict=True)
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def repeat_frame(
    data: Dataset, seeds: Sequence[int], keeps: Sequence[int], *, group: int, **shared: Any
) -> pd.DataFrame:
    """Every mask of every parent, trained twice: keep, seed, mask, loss, early_loss, and score_ij
    for order i and half j of the test data."""
    frames = []
    for keep in keeps:
        runs = sweep_stacked(
            repeated, _configs(seeds, {"keep": keep, **shared}), data=data, members=["seed"],
            group=group, description="repeats",
        )  # fmt: skip
        for seed, run in zip(map(int, seeds), runs, strict=True):
            scores = {
                f"score_{order}{half}": run["score"][:, order, half]
                for order in (0, 1)
                for half in (0, 1)
            }
            frames.append(pd.DataFrame({
                "keep": keep, "seed": seed, "mask": np.arange(len(run["loss"])),
                "loss": run["loss"], "early_loss": run["early_loss"], **scores,
            }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def gained(
    frame: pd.DataFrame,
    column: str = "score",
    *,
    arm: str = "searched",
    over: str = "random",
    keep: int,
    task: str = "labels",
    rescaled: bool = False,
    step: int | None = None,
) -> pd.Series:
    """A column of one arm minus that of another, by parent (seed).

    step : of the look; None: the last one; -1: the mean over all looks. Raises ValueError for what
    is not in the frame.
    """
    at = frame[(frame.keep == keep) & (frame.task == task) & (frame.rescaled == rescaled)]
    if step is None:
        at = at[at.step == at.step.max()]
    elif step >= 0:
        at = at[at.step == step]
    table = at.groupby(["seed", "arm"])[column].mean().unstack()
    if table.empty or not {arm, over} <= set(table.columns):
        raise ValueError(f"no arms {arm!r} and {over!r} with keep {keep}, step {step}")
    return (table[arm] - table[over]).rename("gain")


def gain(frame: pd.DataFrame, keep: int, reference: pd.DataFrame) -> pd.Series:
    """Score at the end of a random mask minus that of its parent, by seed, for parents that were
    trained."""
    last = frame[(frame.keep == keep) & (frame.task == "labels") & ~frame.rescaled]
    last = last[(last.arm == "random") & (last.step == last.step.max())].set_index("seed").score
    full = reference[reference.step == reference.step.max()].set_index("seed").score
    return (last.reindex(full.index) - full).rename("gain")


def studied(frame: pd.DataFrame, keep: int) -> pd.DataFrame:
    """What the masks of one size tell, by parent (index seed).

    loss, early_loss : rank correlation of each with the score at the end (all orders and halves).
    repeats : correlation over masks of the score in order 0 on the first half of the test data with
    that in order 1 on the other half, mean of the two ways. selected : score in order 1 on the
    other half of the mask that is best in order 0 on one, less the mean of all. searched : the same
    for the mask of the lowest initial loss.
    """
    rows = {}
    for seed, one in frame[frame.keep == keep].groupby("seed"):
        end = one[[f"score_{i}{j}" for i in (0, 1) for j in (0, 1)]].mean(axis=1)
        repeats, selected, luck = [], [], []
        for first, second in (("score_00", "score_11"), ("score_01", "score_10")):
            repeats.append(np.corrcoef(one[first], one[second])[0, 1])
            judged = one[second] - one[second].mean()
            selected.append(judged.loc[one[first].idxmax()])
            luck.append(judged.loc[one.loss.idxmin()])
        rows[seed] = {
            "loss": spearmanr(one.loss, end).statistic,
            "early_loss": spearmanr(one.early_loss, end).statistic,
            "repeats": np.mean(repeats), "selected": np.mean(selected), "searched": np.mean(luck),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("seed")


def shown_gains(frame: pd.DataFrame, early: int) -> pd.DataFrame:
    """Differences from one random mask: task, rescaled, sparsity, keep, arm, when ("early", "mean",
    "end"), mean, low, high (95 percent t-interval over parents)."""
    rows = []
    for (task, rescaled, keep), case in frame.groupby(["task", "rescaled", "keep"], sort=False):
        for arm in ("searched", "few", "narrow", "worst", "moved"):
            over = "moved_random" if arm == "moved" else "random"
            for when, step in (("early", early), ("mean", -1), ("end", None)):
                values = gained(
                    frame, arm=arm, over=over, keep=keep, task=task, rescaled=rescaled, step=step
                )
                rows.append({
                    "task": task, "rescaled": rescaled, "sparsity": case.sparsity.iloc[0],
                    "keep": keep, "arm": arm, "when": when,
                    **dict(zip(("mean", "low", "high"), interval(list(values), 0.05), strict=True)),
                })  # fmt: skip
    return pd.DataFrame(rows)
