"""Panels of notebook 46: all arms at one number of weights, their parts, masks as matrices."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour

__all__ = ["keep_panels"]

GROUPS = {
    "found by pruning": {
        "ticket": "ticket",
        "ticket_signs": "ticket, signs alone",
        "ticket_sizes": "ticket, sizes alone",
        "ticket_fresh": "ticket, fresh values",
        "half_random": "ticket of a random half",
        "half_random_fresh": "the same, fresh values",
        "half_hard": "ticket of the hardest half",
    },
    "one-shot": {
        "one_shot": "one-shot, start's values",
        "fine_tuned": "one-shot, fine-tuned",
        "tuned_e": "one-shot, trained on",
        "scratch_e": "one-shot, Scratch-E",
        "scratch_b": "one-shot, Scratch-B",
        "units": "whole units",
        "units_fresh": "whole units, fresh values",
    },
    "drawn": {
        "shuffled": "ticket's densities",
        "er": "Erdős-Rényi",
        "er_again": "Erdős-Rényi again",
        "uniform": "uniform",
        "searched": "lowest loss of many",
    },
    "before training": {
        "start_mask": "largest at the start",
        "snip": "SNIP",
        # Of the score -θ H g the authors' code keeps the lowest.
        "grasp_other_end": "GraSP",
        "grasp": "GraSP, other end",
        "synflow": "synflow",
    },
}
MASKS = {
    "ticket": "ticket",
    "half_random": "random half",
    "half_hard": "hardest half",
    "one_shot": "one-shot",
    "er": "Erdős-Rényi",
    "start_mask": "start's largest",
    "snip": "SNIP",
    "grasp_other_end": "GraSP",
    "synflow": "synflow",
    "units": "whole units",
}


def _dots(panel: Axes, at: list[float], rows: pd.DataFrame, k: int, label: str | None) -> None:
    error = [rows["mean"] - rows.low, rows.high - rows["mean"]]
    panel.errorbar(
        rows["mean"], at, xerr=error, fmt=MARKERS[k], color=colour(k), ms=3.5, lw=1.1, label=label
    )


def _lines(panel: Axes, arms: pd.DataFrame) -> None:
    rows, names, at = arms.set_index("arm"), [], 0
    for k, (group, members) in enumerate(GROUPS.items()):
        places = list(range(at, at + len(members)))
        _dots(panel, [float(place) for place in places], rows.loc[list(members)], k, group)
        names += list(members.values())
        at += len(members)
    dense = rows.loc["dense"]
    ends = [-1.2, len(names) - 0.4]  # the legend stands above
    panel.plot([dense["mean"]] * 2, ends, color=GREY, ls="--", lw=1.0)
    panel.plot([0.0, 0.0], ends, color=GREY, ls=":", lw=0.9)
    panel.set_yticks(range(len(names)), names, fontsize=7)
    panel.set_ylim(len(names) - 0.4, -3.0)
    panel.annotate("dense ", (dense["mean"], -0.7), ha="right", va="center", fontsize=7, color=GREY)
    panel.legend(fontsize=6, loc="upper left", ncols=2, columnspacing=0.8, handletextpad=0.2)
    panel.set_xlabel("accuracy less that of Erdős-Rényi masks")
    panel.set_title("one number of weights")


def _row(panel: Axes, rows: pd.DataFrame, names: list[str], *, shade: int = 0) -> None:
    _dots(panel, [float(place) for place in range(len(rows))], rows, shade, None)
    panel.axvline(0.0, color=GREY, ls=":", lw=0.9)
    panel.set_yticks(range(len(names)), names, fontsize=7)
    panel.set_ylim(len(names) - 0.4, -0.6)


@redrawable
def keep_panels(arms: pd.DataFrame, contrasts: pd.DataFrame, link: pd.DataFrame) -> Figure:
    """All arms against random masks, what each part carries, degrees and spikes of the masks.

    arms, contrasts, link : as `what_pruning_keeps.arm_table`, `contrast_table` and `link_table`
    return them.
    """
    figure = plt.figure(figsize=(WIDTH, 6.2), layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=[1.0, 1.1, 1.1])
    left = figure.add_subplot(grid[:, 0])
    panels = [figure.add_subplot(grid[k, 1]) for k in range(3)]
    _lines(left, arms)
    _row(panels[0], contrasts, list(contrasts.part))
    panels[0].set_xlabel("difference of accuracy")
    panels[0].set_title("what carries it")
    for k, (measure, title, label) in enumerate((
        ("degrees", "degrees of the mask", "correlation in and out, less shuffled"),
        ("spikes", "spikes", "eigenvalues beyond the sparse law"),
    )):  # fmt: skip
        rows = link[link.measure == measure].set_index("mask").loc[list(MASKS)]
        panel = panels[1 + k]
        _row(panel, rows, list(MASKS.values()))
        if measure == "spikes":
            trained = link[link.measure == "trained"].set_index("mask").loc[list(MASKS)]
            _dots(panel, [place + 0.25 for place in range(len(MASKS))], trained, 1, "trained W")
            panel.plot([], [], MARKERS[0], color=colour(0), ms=3.5, label="mask")
            panel.legend(fontsize=6, loc="upper right")
        panel.set_xlabel(label)
        panel.set_title(title)
    parts.letters(figure)
    return figure
