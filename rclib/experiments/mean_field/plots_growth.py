"""Figures of growing and shrinking language models (paper A's sixth figure). They draw results
and compute nothing but means and ranges over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, WIDTH, Look, colour, looks

__all__ = ["growth_curves", "method_panels", "saved_compute"]

BROKEN = "r1 = 1"  # in the name of runs with broken indices: their losses dwarf the differences
SCRATCH = "from scratch"  # in the name of runs that others are compared with: black and grey


def _styles(names: Sequence[str]) -> dict[str, Look]:
    """How each name looks, the same in all panels of a figure."""
    found = looks([name for name in names if SCRATCH not in name])
    plain = [name for name in names if SCRATCH in name]
    for i, name in enumerate(plain):
        found[name] = {
            "color": ("0.55", "0.1")[i % 2], "linestyle": ("--", "-")[i % 2], "marker": "x+"[i % 2],
        }  # fmt: skip
    return {name: found[name] for name in names}


def _draw(panel: Panel, frame: pd.DataFrame, *, x: str, y: str, styles: Mapping[str, Look]) -> None:
    """Mean line and range over seeds of every name of `styles` that the frame holds."""
    for name, style in styles.items():
        group = frame[frame.name == name]
        if group.empty:
            continue
        stats = group.groupby(x)[y].agg(["mean", "min", "max"])
        panel.plot(
            stats.index, stats["mean"], markevery=max(1, len(stats) // 8), label=name, **style
        )
        panel.fill_between(
            stats.index, stats["min"], stats["max"], color=style["color"], alpha=0.15, lw=0
        )


@redrawable
def growth_curves(
    columns: Mapping[str, pd.DataFrame], *, changes: Sequence[Sequence[int]], zoom_from: int
) -> Figure:
    """Validation loss against the step (above) and against the operations of the network (below).

    columns : panel title -> rows with columns name, seed, step, own, loss. changes : for each
    column the steps at which the width changes, drawn dotted. The loss axis makes room for all
    from step `zoom_from` on but for runs with broken indices, which come from above.
    """
    figure, panels = plt.subplots(
        2, len(columns), figsize=(WIDTH, 5.6), sharey="col", squeeze=False
    )
    for j, (title, frame) in enumerate(columns.items()):
        styles = _styles(list(frame.name.unique()))
        above, below = panels[0, j], panels[1, j]
        _draw(above, frame, x="step", y="loss", styles=styles)
        _draw(below, frame[frame.own > 0], x="own", y="loss", styles=styles)
        for i, step in enumerate(changes[j]):
            parts.moment(above, step, ("grown", "shrunk")[j % 2] if i == 0 else "")
        shown = frame[(frame.step >= zoom_from) & ~frame.name.str.contains(BROKEN)].loss
        room = 0.05 * (shown.max() - shown.min())
        above.set_ylim(shown.min() - room, shown.max() + room)
        above.set_title(f"({'ab'[j]}) {title}")
        above.set_xlabel("step")
        parts.few_ticks(above, most=7)
        parts.log_axis(below, "x")
        below.set_xlabel(
            "floating-point operations, the source's included"
            if j == 0
            else "floating-point operations, the source's left out"
        )
        below.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)
    for row in panels:
        row[0].set_ylabel("validation loss (nats per byte)")
    return figure


@redrawable
def method_panels(
    after: pd.DataFrame, gap: pd.DataFrame, state: pd.DataFrame, *, floor: float, source: float
) -> Figure:
    """Methods side by side: (a) right after the change, (b) Adam's means, and below, one panel a
    method, (c) later.

    after : name, seed, since (steps after the change), loss. gap : name, seed, step, gap (loss
    minus that of the run from scratch at the same step). state : like `after`, of the runs whose
    means were moved or not. floor : loss of byte frequencies; source : of the source network.
    """
    methods = list(gap.name.unique())
    figure = plt.figure(figsize=(WIDTH, 5.4))
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.5, 1])
    first, means = halves[0].subplots(1, 2)
    for panel, frame in ((first, after), (means, state)):
        _draw(panel, frame, x="since", y="loss", styles=_styles(list(frame.name.unique())))
        panel.set_xscale("symlog", linthresh=1)
        ticks = sorted(frame.since.unique())
        panel.set_xticks(ticks, [f"{t:g}" for t in ticks])
        panel.set_xticks([], minor=True)
        panel.set_xlabel("steps after the change of width")
        parts.level(panel, source, "the source", ls="--")
        panel.legend(fontsize=6, loc="upper right")
    first.set_ylabel("validation loss (nats per byte)")
    first.set_ylim(top=first.get_ylim()[1] + 0.55 * (floor - source))  # room for the legend
    parts.level(first, floor, "byte frequencies")
    first.set_title("(a) the first steps")
    means.set_title("(b) RC sampling: Adam's means moved or not")
    styles = _styles(methods)
    shown = gap[~gap.name.str.contains(BROKEN) & (gap.step > gap.step.min())].gap
    room = 0.1 * (shown.max() - shown.min())
    low, high = min(0.0, shown.min()) - room, shown.max() + room
    panels = halves[1].subplots(1, len(methods), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, methods, strict=True):
        own = gap[gap.name == name]
        _draw(panel, own, x="step", y="gap", styles={name: styles[name]})
        panel.axhline(0.0, color=GREY, lw=0.8, zorder=1.5)
        panel.set_title(name.replace(", ", ",\n"), fontsize=7, color=styles[name]["color"])
        panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        panel.set_xlabel("step")
        if own.groupby("step").gap.mean().min() > high:
            panel.text(0.5, 0.9, "above", transform=panel.transAxes, ha="center", size=parts.SMALL)
    panels[0].set_ylim(low, high)
    panels[0].set_ylabel("(c) trained on: loss\nminus that from scratch")
    return figure


@redrawable
def saved_compute(
    frame: pd.DataFrame, *, large: str, notes: Mapping[str, str] | None = None
) -> Figure:
    """Share of compute saved and final gap, one row a run; one point a seed.

    frame : columns name, at, seed, saved (NaN where the level was not reached), gap. large : the
    run that the others are compared with. notes : name -> what has to be known of a row.
    """
    labels = [
        name if at == 0 else f"{name}, at {at:g}"
        for name, at in zip(frame.name, frame["at"], strict=True)
    ]
    rows = list(dict.fromkeys(labels))
    place = [len(rows) - 1 - rows.index(label) for label in labels]
    figure, (saved, gap) = plt.subplots(1, 2, figsize=(WIDTH, 0.29 * len(rows) + 1.4), sharey=True)
    saved.scatter(frame.saved, place, s=18, color=colour(0))
    for i, label in enumerate(rows):
        missing = int(frame.saved[[one == label for one in labels]].isna().sum())
        if missing:
            saved.annotate(
                f"{missing} not reached",
                (1.0, len(rows) - 1 - i),
                xycoords=("axes fraction", "data"),
                va="center",
                ha="right",
                fontsize=6,
            )
    saved.set_xlim(right=frame.saved.max() + 0.4)  # room for what was not reached
    gap.scatter(frame.gap, place, s=18, marker="D", color=colour(3))
    for panel in (saved, gap):
        panel.axvline(0.0, color=GREY, lw=0.8)
    names = [f"{row}\n({notes[row]})" if notes and row in notes else row for row in rows]
    saved.set_yticks(range(len(rows)), names[::-1])
    saved.set_title("compute saved")
    saved.set_xlabel(f"1 − compute until the final loss of\n{large} is reached / its compute")
    gap.set_title("final loss")
    gap.set_xlabel(f"final loss minus that of\n{large}")
    return figure
