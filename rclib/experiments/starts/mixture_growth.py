"""Frames of notebook 50: networks grown from two halves that are mixtures of templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.starts.mixture_growth_runs import (
    LONG,
    TIED,
    UNTIED,
    entries,
    growth_runs,
    moments,
)
from rclib.rowcolumn.measure import chance_level
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays

__all__ = [
    "ARMS",
    "at_chance",
    "chosen_rates",
    "curve_frame",
    "end_frame",
    "gain",
    "half_spikes",
    "links",
    "means_frame",
    "runs_of",
    "settings_frame",
    "start_gap",
    "start_matrices",
    "summary",
    "three_numbers",
]

ARMS = (*TIED, *UNTIED)
TWO = (*TIED[:-2], "permuted", "ensemble", "random blocks")  # paid with two halves
ONE = ("one half", "RC sampling", LONG[1])


def runs_of(
    data: Dataset, seeds: Sequence[int], rates: Mapping[str, float], *, group: int = 5, **plan: Any
) -> list[Arrays]:
    """One run a seed, in their order; plan : the other arguments of `growth_runs`."""
    configs = [{"seed": int(s), "rates": dict(rates), **plan} for s in seeds]
    return sweep_stacked(
        growth_runs, configs, data=data, members=["seed"], group=group, description="growth"
    )


def chosen_rates(
    data: Dataset, seeds: Sequence[int], grid: Sequence[float], **plan: Any
) -> dict[str, float]:
    """Rate of every arm: of a grid, that with the best mean accuracy on the validation set over
    these seeds, the lower one of equals. A grid of one is taken as it is."""
    names, rates = (*ARMS, *LONG), sorted(grid)
    if len(rates) == 1:
        return dict.fromkeys(names, rates[0])
    scores = [
        np.mean([run["valid"] for run in runs_of(data, seeds, dict.fromkeys(names, r), **plan)], 0)
        for r in rates
    ]
    return {name: rates[i] for name, i in zip(names, np.argmax(scores, 0), strict=True)}


def _arms(rates: Mapping[str, float]) -> tuple[list[str], list[str]]:
    return [n for n in ARMS if n in rates], [n for n in LONG if n in rates]


def curve_frame(
    data: Dataset, runs: Sequence[Arrays], seeds: Sequence[int], rates: Mapping[str, float],
    plan: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """Tests over training: seed, arm, step (within the stage), compute, accuracy, loss.

    compute : all that was spent, halves included, in steps of a network of full width. Arms "first
    half" and "second half" are stages 1 and 2.
    """
    d = data.x_train.shape[1] // int(plan["pool"]) ** 2
    width, classes = int(plan["width"]), data.n_classes
    cost = entries(d, width // 2, classes) / entries(d, width, classes)
    half, frames = int(plan["before"]) * cost, []
    names, longer = _arms(rates)
    for seed, run in zip(seeds, runs, strict=True):
        for m, arm in enumerate(("first half", "second half")):
            at = np.array(moments(int(plan["before"])))
            columns = {"step": at, "compute": at * cost + m * half}
            columns |= {key: run[f"half_{key}"][m] for key in ("accuracy", "loss")}
            frames.append(pd.DataFrame({"seed": seed, "arm": arm, **columns}))
        for i, arm in enumerate(names):
            paid = half * (2 * (arm in TWO) + (arm in ONE))
            at = np.array(plan["at"])
            columns = {"step": at, "compute": at + paid}
            columns |= {key: run[key][i] for key in ("accuracy", "loss")}
            frames.append(pd.DataFrame({"seed": seed, "arm": arm, **columns}))
        for i, arm in enumerate(longer):
            at = np.array(moments(int(plan["after"]) + round((1 + (arm == LONG[0])) * half)))
            columns = {"step": at, "compute": at + half * (arm in ONE)}
            columns |= {key: run[f"long_{key}"][i] for key in ("accuracy", "loss")}
            frames.append(pd.DataFrame({"seed": seed, "arm": arm, **columns}))
    return pd.concat(frames, ignore_index=True)


def end_frame(
    runs: Sequence[Arrays], seeds: Sequence[int], rates: Mapping[str, float]
) -> pd.DataFrame:
    """What an arm's middle matrix is: seed, arm, moved, explained, rows_start, rows_end, both the
    mean |correlation| of the two blocks' row means, signed_start, spikes_start, spikes_end."""
    rows = []
    for seed, run in zip(seeds, runs, strict=True):
        for i, arm in enumerate(_arms(rates)[0]):
            size, plain = np.abs(run["rows"][i]).mean(1), run["rows"][i].mean(1)
            rows.append(
                {
                    "seed": seed, "arm": arm, "moved": run["moved"][i],
                    "explained": run["explained"][i], "rows_start": size[0], "rows_end": size[1],
                    "signed_start": plain[0], "spikes_start": run["spikes"][i, 0],
                    "spikes_end": run["spikes"][i, 1],
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def gain(
    curves: pd.DataFrame, arm: str, over: str, *, step: int | None = None, what: str = "accuracy"
) -> pd.Series:
    """A measure of one arm minus that of another by seed, after `step` steps of growth or at the
    end of both, whatever number of steps that is."""
    found = []
    for name in (arm, over):
        part = curves[curves.arm == name]
        part = part.groupby("seed").last() if step is None else part[part.step == step]
        found.append((part if step is None else part.set_index("seed"))[what])
    return (found[0] - found[1]).rename("gain")


def start_gap(curves: pd.DataFrame, arms: Sequence[str], under: str) -> pd.Series:
    """Loss right after growth, the smallest of some arms' minus that of another, by seed."""
    gaps = [gain(curves, arm, under, step=0, what="loss") for arm in arms]
    return pd.concat(gaps, axis=1).min(axis=1).rename("gap")


def at_chance(n: int) -> float:
    """Mean |correlation| of independent vectors of length n: √(2/π) / √(n - 1), to 1/n."""
    return float(np.sqrt(2 / np.pi / (n - 1)))


def links(ends: pd.DataFrame, arm: str, column: str) -> pd.Series:
    """A column of `end_frame` by seed."""
    return ends[ends.arm == arm].set_index("seed")[column]


def half_spikes(runs: Sequence[Arrays], seeds: Sequence[int]) -> pd.Series:
    """Spikes of both halves' middle matrices together, by seed."""
    values = [float(run["half_spikes"].sum()) for run in runs]
    return pd.Series(values, index=pd.Index(seeds, name="seed"), name="spikes")


def means_frame(runs: Sequence[Arrays], *, n: int) -> pd.DataFrame:
    """Row means of the halves' middle matrices: correlation with shifts and with column means of
    the next matrix, mean of |r| over halves, chance and its 95 percent level."""
    found = np.abs([run["half_means"] for run in runs]).mean((0, 1))
    rows = [("shifts", found[0]), ("next matrix", found[1])]
    frame = pd.DataFrame(rows, columns=["with", "correlation"])
    return frame.assign(chance=at_chance(n), level=chance_level(n))


def three_numbers(curves: pd.DataFrame, ends: pd.DataFrame) -> pd.DataFrame:
    """The three numbers of every start of the theme, by seed and arm: moved, |W - W0| / |W0|;
    explained, share of |W|² on the outer products of W0's singular vectors; gained, test loss of
    the plain start minus that of the arm after the same steps, over these steps."""
    last = curves.groupby(["seed", "arm"]).last().reset_index()
    plain = last[last.arm == "scratch"].set_index("seed").loss
    found = ends.merge(last[["seed", "arm", "loss", "step"]], on=["seed", "arm"])
    gained = (found.seed.map(plain) - found.loss) / found.step
    return found[["seed", "arm", "moved", "explained"]].assign(gained=gained)


def start_matrices(run: Arrays, rates: Mapping[str, float]) -> pd.DataFrame:
    """|W| of the middle matrix right after growth of the first two arms: arm, row, column, size."""
    frames = []
    for arm, w in zip(_arms(rates)[0], run["matrices"], strict=False):
        row, column = np.indices(w.shape)
        columns = {"row": row.ravel(), "column": column.ravel()}
        size = np.abs(w).ravel().astype(float).round(3)
        frames.append(pd.DataFrame({"arm": arm, **columns, "size": size}))
    return pd.concat(frames, ignore_index=True)


def summary(curves: pd.DataFrame, ends: pd.DataFrame, rates: Mapping[str, float]) -> pd.DataFrame:
    """Means over seeds by arm: rate, compute, accuracy and loss at the start and the end, its
    spread over seeds, and the columns of `end_frame`."""
    order = [*_arms(rates)[0], *_arms(rates)[1]]
    part = curves[curves.arm.isin(order)].groupby(["arm", "seed"], sort=False)
    first, last = part.first().groupby("arm"), part.last().groupby("arm")
    out = pd.DataFrame({"rate": pd.Series(rates), "compute": last.compute.mean()})
    out["loss_start"], out["accuracy_start"] = first.loss.mean(), first.accuracy.mean()
    out["loss"], out["accuracy"], out["sd"] = (
        last.loss.mean(), last.accuracy.mean(), last.accuracy.std(),
    )  # fmt: skip
    means = ends.groupby("arm").mean().drop(columns="seed")
    return out.join(means).loc[order].rename_axis("arm").reset_index()


def settings_frame(
    data: Dataset, seeds: Sequence[int], others: Mapping[str, Mapping[str, Any]],
    rates: Mapping[str, float], **plan: Any,
) -> pd.DataFrame:  # fmt: skip
    """Other settings, few seeds: setting, over, step, gain (of "orthogonal", mean) and sd.

    others : name -> changes of the plan. The arms are those that the claims compare.
    """
    few = ("random blocks", "one half", "ensemble", "zero", "copied", "random", "scratch")
    chosen = {name: rates[name] for name in ("orthogonal", *few, LONG[0])}
    rows = []
    for setting, changes in others.items():
        own = {**plan, **changes}
        runs = runs_of(data, seeds, chosen, **own)
        curves = curve_frame(data, runs, seeds, chosen, own)
        for over in (*few, LONG[0]):
            for step in (own["at"][1], None):
                if step is None or over != LONG[0]:
                    found = gain(curves, "orthogonal", over, step=step)
                    at = "end" if step is None else str(step)
                    rows.append((setting, over, at, found.mean(), found.std()))
    return pd.DataFrame(rows, columns=["setting", "over", "step", "gain", "sd"])
