"""Panels of notebook 52: laziness against the rank of the start."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, WIDTH, colour, ordered

__all__ = ["linear_panels", "recurrent_panels"]


@redrawable
def linear_panels(frame: pd.DataFrame, exact: pd.DataFrame) -> Figure:
    """Kernel alignment and change of the weights against the rank, one line a norm; flat starts,
    starts with the target as their only right vector (stars) and the closed form for these.

    frame : seed, family, rank, norm, kernel, weights. exact : norm, kernel, weights.
    """
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 2.7), layout="constrained")
    names = {"kernel": "alignment of the kernel", "weights": "change ‖W − W0‖"}
    norms = sorted(frame.norm.unique())
    look = ordered(norms)
    for panel, (what, label) in zip(panels, names.items(), strict=True):
        for norm in norms:
            own, colour_of = frame[frame.norm == norm], look[norm]["color"]
            flat = own[own.family == "flat"].groupby("rank")[what]
            mean = flat.mean()
            panel.plot(
                mean.index, mean, "o-", ms=3, lw=1.3, color=colour_of, label=f"‖W0‖ = {norm:g}"
            )
            panel.fill_between(
                mean.index, flat.min(), flat.max(), color=colour_of, alpha=0.15, lw=0
            )
            drawn = own[own.family == "truncated"].groupby("rank")[what].mean()
            panel.plot(drawn.index, drawn, "--", lw=0.9, color=colour_of)
            aligned = own[own.family == "aligned"]
            panel.plot(1.0, aligned[what].mean(), "*", ms=9, color=colour_of, clip_on=False)
        panel.plot(
            np.full(len(exact), 1.0),
            exact[what],
            "_",
            ms=14,
            color=GREY,
            label="closed form, aligned",
        )
        panel.set_title(label)
        parts.size_axis(panel, sorted(frame["rank"].unique()))
        panel.set_xlabel("rank of the start (d = 20)")
    panels[1].legend(fontsize=6)
    parts.write_into(panels[0], "stars: aligned with the task")
    parts.letters(figure)
    return figure


@redrawable
def recurrent_panels(frame: pd.DataFrame) -> Figure:
    """Recurrent networks, one row a task: loss against steps, one line a rank, and the three ways
    to have moved against the rank, one dot a seed.

    frame : task, seed, rank, step, loss, kernel, representation, weights.
    """
    tasks = list(frame.task.unique())
    ranks = sorted(frame["rank"].unique())
    figure, panels = plt.subplots(
        len(tasks), 4, figsize=(WIDTH, 2.2 * len(tasks)), layout="constrained", squeeze=False
    )
    look = ordered([float(rank) for rank in ranks])
    titles = {
        "kernel": "alignment of the kernel",
        "representation": "of the representation",
        "weights": "change ‖W − W0‖",
    }
    names = {"rows": "images by rows", "choice": "two choices"}
    last = frame.groupby(["task", "seed", "rank"], sort=False).last().reset_index()
    for row, task in zip(panels, tasks, strict=True):
        own = frame[(frame.task == task) & (frame.step > 0)]
        for rank in ranks:
            mean = own[own["rank"] == rank].groupby("step").loss.mean()
            row[0].plot(mean.index, mean, lw=1.3, color=look[float(rank)]["color"], label=str(rank))
        for which in "xy":
            parts.log_axis(row[0], which)
        row[0].set_xlabel("steps")
        row[0].set_ylabel("loss")
        row[0].set_title(names.get(str(task), str(task)))
        row[0].legend(title="rank", fontsize=6, title_fontsize=6)
        ends = last[last.task == task]
        for panel, (what, title) in zip(row[1:], titles.items(), strict=True):
            for place, rank in enumerate(ranks):
                values = ends[ends["rank"] == rank][what]
                spread = np.linspace(-0.12, 0.12, len(values))
                panel.plot(place + spread, values, ".", ms=4, color=look[float(rank)]["color"])
                panel.plot(
                    [place - 0.25, place + 0.25], [values.mean()] * 2, color=colour(0), lw=1.4
                )
            panel.set_xticks(range(len(ranks)), [str(rank) for rank in ranks])
            panel.set_xlabel("rank of the start")
            panel.set_title(title)
    parts.letters(figure)
    return figure
