"""Panels of notebook 76: excess risk against the number of features, and the learned weights."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour

__all__ = ["excess_panels", "weight_panels"]

LOOKS = {  # number of the colour and the marker; kind of line; filled
    "drawn": (0, "--", False),
    "learned": (0, "-", True),
    "drawn, fitting": (1, "--", False),
    "learned, fitting": (1, "-", True),
}
TITLES = {
    "line": "line: sin(4πx)",
    "attention": "attention: keys' second power",
    "permutation": "permutation of bits",
    "patches": "patches: a signal somewhere",
    "images": "images: classes",
    "colour": "colour that turns",
}


@redrawable
def excess_panels(table: pd.DataFrame, *, least: float) -> Figure:
    """One panel a task: excess risk over the oracle against the number of features, by arm.

    table : as `what_features_have.excess_table`. least : excess below which the axis ends.
    """
    tasks = list(dict.fromkeys(table.task))
    figure, axes = plt.subplots(
        2, 3, figsize=(WIDTH, 4.6), layout="constrained", sharex=True, squeeze=False
    )
    for panel, task in zip(axes.flat, tasks, strict=False):
        own = table[table.task == task]
        for arm, rows in own.groupby("arm", sort=False):
            _line(panel, rows, _look(str(arm)), least)
        panel.axhline(1.0, color=GREY, lw=0.8, ls=":", zorder=1)
        panel.set_yscale("log")
        panel.set_ylim(least * 0.8, max(4.0, 1.3 * own.high.max()))
        panel.set_title(TITLES.get(task, task), fontsize=8)
        parts.size_axis(panel, sorted(own.features.unique()))
    for panel in axes[1]:
        panel.set_xlabel("features")
    for panel in axes[:, 0]:
        panel.set_ylabel("excess risk over the oracle")
    handles = [Line2D([], [], ms=4, lw=1.2, label=arm, **_look(arm)) for arm in LOOKS]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=7)
    parts.letters(figure)
    return figure


def _look(arm: str) -> dict[str, Any]:
    number, dashes, filled = LOOKS[arm]
    look = {"color": colour(number), "ls": dashes, "marker": MARKERS[number]}
    return look if filled else {**look, "mfc": "white"}


def _line(panel: Panel, rows: pd.DataFrame, look: Any, least: float) -> None:
    """Means and 95 percent intervals."""
    middle, low, high = (rows[name].clip(lower=least) for name in ("mean", "low", "high"))
    panel.plot(rows.features, middle, ms=3.5, lw=1.2, **look)
    panel.fill_between(rows.features, low, high, color=look["color"], alpha=0.15, lw=0)


@redrawable
def weight_panels(gained: pd.DataFrame) -> Figure:
    """What learning gains against two measures of the learned weights, one point a seed.

    gained : as `what_features_have.gains`.
    """
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 3.0), layout="constrained", sharey=True)
    tasks = list(dict.fromkeys(gained.task))
    looks = {task: (colour(k), MARKERS[k % len(MARKERS)]) for k, task in enumerate(tasks)}
    for panel, what in zip(panels, ("beyond", "means"), strict=True):
        for (task, arm), rows in gained.dropna(subset=[what]).groupby(["task", "arm"], sort=False):
            tint, marker = looks[str(task)]
            hollow = "white" if "fitting" in str(arm) else tint
            panel.plot(
                rows[what], rows.gain, ls="", marker=marker, ms=4, color=tint, mfc=hollow, alpha=0.9
            )
        panel.axvline(1.0, color=GREY, lw=0.8, ls=":")
        panel.axhline(0.0, color=GREY, lw=0.8, ls=":")
        panel.set_xscale("log")
        parts.log_axis(panel, "x")
    panels[0].set_title("eigenvalues beyond the bulk", fontsize=8)
    panels[1].set_title("rows and columns", fontsize=8)
    panels[0].set_ylabel("decades of excess risk gained by learning")
    panels[0].set_xlabel("largest eigenvalue of WᵀW over the bulk's edge")
    panels[1].set_xlabel("share of row and column means over chance")
    handles = [
        Line2D([], [], ls="", ms=4, color=tint, marker=marker, label=task)
        for task, (tint, marker) in looks.items()
        if not gained[gained.task == task].beyond.isna().all()
    ]
    handles.append(
        Line2D([], [], ls="", ms=4, color=GREY, mfc="white", marker="o", label="fitting")
    )
    figure.legend(handles=handles, loc="outside upper center", ncols=6, fontsize=7)
    parts.letters(figure)
    return figure
