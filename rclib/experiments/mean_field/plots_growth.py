"""Figures of growing and shrinking language models (paper A's sixth figure). They draw results
and compute nothing but means and ranges over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rclib.plots.style import DASHES, MARKERS, WIDTH

__all__ = ["growth_curves", "method_panels", "saved_compute"]

BROKEN = "r1 = 1"  # in the name of runs with broken indices: their losses dwarf the differences


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """One colour, dash and marker a name, the same in all panels of a figure."""
    colours = sns.color_palette("colorblind")
    return {
        name: {
            "color": colours[i % len(colours)],
            "linestyle": DASHES[i % len(DASHES)],
            "marker": MARKERS[i % len(MARKERS)],
        }
        for i, name in enumerate(names)
    }


def _draw(
    panel: Panel, frame: pd.DataFrame, *, x: str, y: str, styles: Mapping[str, dict[str, object]]
) -> None:
    """Mean line and range over seeds of every name of `styles` that the frame holds."""
    for name, style in styles.items():
        group = frame[frame.name == name]
        if group.empty:
            continue
        stats = group.groupby(x)[y].agg(["mean", "min", "max"])
        panel.plot(
            stats.index,
            stats["mean"],
            color=style["color"],
            linestyle=style["linestyle"],
            marker=style["marker"],
            markevery=max(1, len(stats) // 8),
            label=name,
        )
        panel.fill_between(
            stats.index, stats["min"], stats["max"], color=style["color"], alpha=0.15, lw=0
        )


def growth_curves(
    columns: Mapping[str, pd.DataFrame], *, changes: Sequence[int], zoom_from: int
) -> Figure:
    """Validation loss against the step (above) and against the compute spent (below).

    columns : panel title -> rows with columns name, seed, step, flops, loss. changes : steps at
    which the width changes, drawn dotted. The loss axis makes room for all from step `zoom_from`
    on but for runs with broken indices, which come from above.
    """
    figure, panels = plt.subplots(
        2, len(columns), figsize=(WIDTH, 5.6), sharey="col", squeeze=False
    )
    for j, (title, frame) in enumerate(columns.items()):
        styles = _styles(list(frame.name.unique()))
        above, below = panels[0, j], panels[1, j]
        _draw(above, frame, x="step", y="loss", styles=styles)
        _draw(below, frame[frame.step > 0], x="flops", y="loss", styles=styles)
        for step in changes:
            above.axvline(step, color="0.4", lw=0.8, ls=":")
        shown = frame[(frame.step >= zoom_from) & ~frame.name.str.contains(BROKEN)].loss
        room = 0.05 * (shown.max() - shown.min())
        above.set_ylim(shown.min() - room, shown.max() + room)
        above.set_title(f"({'ab'[j]}) {title}")
        above.set_xlabel("step")
        below.set_xscale("log")
        below.set_xlabel("floating-point operations so far")
        below.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)
    for row in panels:
        row[0].set_ylabel("validation loss (nats per byte)")
    return figure


def method_panels(
    after: pd.DataFrame, gap: pd.DataFrame, state: pd.DataFrame, *, floor: float, source: float
) -> Figure:
    """Methods side by side: (a) right after the change, (b) later, (c) Adam's means.

    after : name, seed, since (steps after the change), loss. gap : name, seed, step, gap (loss
    minus that of the run from scratch at the same step). state : like `after`, of the runs whose
    means were moved or not. floor : loss of byte frequencies; source : of the source network.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.2))
    first, later, means, key = panels.flat
    styles = _styles(list(after.name.unique()))
    for panel, frame in ((first, after), (means, state)):
        chosen = styles if panel is first else _styles(list(state.name.unique()))
        _draw(panel, frame, x="since", y="loss", styles=chosen)
        panel.set_xscale("symlog", linthresh=1)
        ticks = sorted(frame.since.unique())
        panel.set_xticks(ticks, [f"{t:g}" for t in ticks])
        panel.set_xticks([], minor=True)
        panel.axhline(source, color="0.3", lw=0.8, ls="--")
        panel.set_xlabel("steps after the change of width")
        panel.set_ylabel("validation loss (nats per byte)")
    first.axhline(floor, color="0.3", lw=0.8, ls=":")
    _draw(later, gap, x="step", y="gap", styles=styles)
    later.axhline(0.0, color="0.3", lw=0.8)
    shown = gap[~gap.name.str.contains(BROKEN) & (gap.step > gap.step.min())].gap
    room = 0.1 * (shown.max() - shown.min())
    later.set_ylim(shown.min() - room, shown.max() + room)
    later.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    later.set_xlabel("step")
    later.set_ylabel("loss minus that from scratch")
    for panel, title in (
        (first, "(a) the first steps"),
        (later, "(b) trained on"),
        (means, "(c) Adam's means moved or not"),
    ):
        panel.set_title(title)
    key.set_axis_off()
    above = key.legend(*first.get_legend_handles_labels(), title="(a), (b)", loc="upper left")
    key.add_artist(above)  # a second legend would replace it
    below = key.legend(*means.get_legend_handles_labels(), title="(c)", loc="lower left")
    for legend in (above, below):
        legend.set_alignment("left")
    return figure


def saved_compute(frame: pd.DataFrame) -> Figure:
    """Share of compute saved and final gap, one row a run; one point a seed.

    frame : columns name, at, seed, saved (NaN where the level was not reached), gap.
    """
    labels = [
        name if at == 0 else f"{name}, at {at:g}"
        for name, at in zip(frame.name, frame["at"], strict=True)
    ]
    rows = list(dict.fromkeys(labels))
    place = [len(rows) - 1 - rows.index(label) for label in labels]
    figure, (saved, gap) = plt.subplots(1, 2, figsize=(WIDTH, 0.27 * len(rows) + 1.1), sharey=True)
    saved.scatter(frame.saved, place, s=18, color=sns.color_palette("colorblind")[0])
    for i, label in enumerate(rows):
        missing = int(frame.saved[[one == label for one in labels]].isna().sum())
        if missing:
            saved.annotate(
                f"{missing} not reached",
                (0.98, len(rows) - 1 - i),
                xycoords=("axes fraction", "data"),
                va="center",
                ha="right",
                fontsize=6,
            )
    gap.scatter(frame.gap, place, s=18, marker="D", color=sns.color_palette("colorblind")[3])
    for panel in (saved, gap):
        panel.axvline(0.0, color="0.3", lw=0.8)
    saved.set_yticks(range(len(rows)), rows[::-1])
    saved.set_xlabel("share of compute saved")
    gap.set_xlabel("final loss minus that from scratch")
    return figure
