"""Figures on widths of language models (Figure 4.5). They take results and compute nothing.

Widths are ordered, so they get an ordered palette (dark is wide) and a line style each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, GREY, MARKERS, WIDTH, Look, colour, looks, ordered, shown

__all__ = ["collapse", "control_densities", "levels"]


def _lines(
    panel: Panel, frame: pd.DataFrame, look: Mapping[float, Look], *, x: str, y: str
) -> None:
    for width, group in frame.groupby("width"):
        own = look[width]  # type: ignore[index]
        panel.plot(
            group[x], group[y], label=f"{width}", lw=1.2, color=own["color"], ls=own["linestyle"]
        )


@redrawable
def collapse(
    curves: pd.DataFrame,
    apart: pd.DataFrame,
    differences: pd.DataFrame,
    *,
    columns: Sequence[str],
    tolerance: float,
) -> Figure:
    """Loss against the step, one line a width and one panel a parametrisation; below it the
    difference from the widest network, which the curves themselves hide; at the right that of the
    last step against the width.

    curves : parametrization, width, step, loss. apart : parametrization, width, step, difference
    (relative). differences : parametrization, width, difference (its size at the end).
    tolerance : drawn dotted.
    """
    look = ordered(list(curves.width.unique()))
    figure = plt.figure(figsize=(WIDTH, 3.6))
    grid = figure.add_gridspec(2, len(columns) + 1, width_ratios=[1.0] * len(columns) + [1.15])
    first: Panel | None = None
    for j, name in enumerate(columns):
        panel = figure.add_subplot(grid[0, j], sharey=first)
        first = first or panel
        _lines(panel, curves[curves.parametrization == name], look, x="step", y="loss")
        panel.tick_params(labelleft=j == 0, labelbottom=False)
        panel.set_title(shown(name))
        below = figure.add_subplot(grid[1, j], sharex=panel)
        chosen = apart[apart.parametrization == name]
        _lines(below, chosen, look, x="step", y="difference")
        below.axhline(0.0, color=GREY, lw=0.9, zorder=1.5)
        # Each its own range: they differ by a factor of a hundred. The first steps leave it.
        size = 1.1 * float(chosen[chosen.step > chosen.step.quantile(0.1)].difference.abs().max())
        below.set_ylim(-size, size)
        below.yaxis.set_major_locator(MaxNLocator(3))
        below.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %".replace("-", "−"))
        below.tick_params(axis="y", labelsize=6)
        below.set_xlabel("step")
        if j == 0:
            panel.set_ylabel("training loss\n(nats per byte)")
            below.set_ylabel("relative to\nthe widest")
    assert first is not None
    last = figure.add_subplot(grid[:, -1])
    of = looks(columns)
    for name in columns:
        group = differences[differences.parametrization == name]
        last.plot(group.width, group.difference, label=shown(name), **of[name])
    parts.size_axis(last, sorted(differences.width.unique()))
    parts.log_axis(last, "y")
    last.set_xlabel("width N")
    last.set_title("at the end")
    last.set_ylabel("|relative difference|")
    parts.level(last, tolerance, f"{100 * tolerance:g} %")
    parts.direct_labels(last)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, title="width N", loc="outside upper center", ncols=len(labels))
    return figure


@redrawable
def levels(frame: pd.DataFrame, *, units: Mapping[str, str], slope: float = -0.5) -> Figure:
    """Distance of neighbouring widths against the width, beside its floor and independent draws.

    frame : quantity, distance, level, x, y, low, high. One row of panels a distance, one column
    a quantity; units : distance -> label. Grey dots: a power of the width.
    """
    quantities, distances = list(frame.quantity.unique()), list(frame.distance.unique())
    figure, panels = plt.subplots(
        len(distances), len(quantities), figsize=(WIDTH, 4.6), squeeze=False, sharex=True,
        sharey="row",
    )  # fmt: skip
    for i, distance in enumerate(distances):
        for j, quantity in enumerate(quantities):
            panel = panels[i, j]
            chosen = frame[(frame.distance == distance) & (frame.quantity == quantity)]
            for k, (level, group) in enumerate(chosen.groupby("level", sort=False)):
                bars = [(group.y - group.low).clip(lower=0), (group.high - group.y).clip(lower=0)]
                # Points side by side, so that their bars can be told apart.
                x = group.x * 1.04 ** (k - 1)
                panel.errorbar(
                    x, group.y, yerr=bars, label=str(level), color=colour(k), marker=MARKERS[k],
                    linestyle=DASHES[k], capsize=2, elinewidth=0.8,
                )  # fmt: skip
            sizes = sorted(chosen.x.unique())
            panel.set_xscale("log")
            panel.set_xticks(sizes, [f"{x:.0f}" for x in sizes])
            panel.xaxis.minorticks_off()
            parts.log_axis(panel, "y")
            if i == 0:
                panel.set_title(quantity)
            if j == 0:
                panel.set_ylabel(units[distance])
            if i == len(distances) - 1:
                panel.set_xlabel("√(N N′), neighbouring widths")
        own = frame[frame.distance == distance]
        panels[i, 0].set_ylim(own.y.min() / 2, own.y.max() * 2)
        for j, quantity in enumerate(quantities):
            chosen = own[own.quantity == quantity]
            low = chosen.groupby("x").y.min()
            parts.guide(panels[i, j], list(low.index), 0.8 * low.iloc[0], slope)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    found = [(h, t) for h, t in zip(handles, labels, strict=True) if not t.startswith("slope")]
    figure.legend(
        [h for h, _ in found], [t for _, t in found], loc="outside upper center", ncols=len(found)
    )
    return figure


@redrawable
def control_densities(frame: pd.DataFrame, notes: Mapping[str, str], *, label: str) -> Figure:
    """Densities of several widths, one panel a setting, down to a thousandth of the highest: heavy
    tails beside a narrow peak are seen on a logarithmic axis alone.

    frame : setting, width, x, density. notes : setting -> text in the corner.
    """
    look = ordered(list(frame.width.unique()))
    settings = list(frame.setting.unique())
    columns = min(3, len(settings))
    rows = -(-len(settings) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(WIDTH, 1.7 * rows + 0.4), squeeze=False)
    panels = list(grid.flat)
    for panel, name in zip(panels, settings, strict=False):
        chosen = frame[frame.setting == name]
        _lines(panel, chosen, look, x="x", y="density")
        parts.log_axis(panel, "y")
        top = float(chosen.density.max())
        panel.set_ylim(1e-3 * top, 8.0 * top)
        seen = chosen[chosen.density > 1e-3 * top].x
        room = 0.04 * (seen.max() - seen.min())
        panel.set_xlim(seen.min() - room, seen.max() + room)
        panel.text(
            0.98, 0.98, notes.get(name, ""), transform=panel.transAxes, ha="right", va="top",
            fontsize=6,
        )  # fmt: skip
        panel.set_title(name)
    for panel in grid[:, 0]:
        panel.set_ylabel("density")
    figure.supxlabel(label, fontsize=8)
    for panel in panels[len(settings) :]:
        panel.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    if len(panels) > len(settings):
        panels[-1].legend(handles, labels, title="width N", loc="center")
    else:
        figure.legend(handles, labels, title="width N", loc="outside right upper")
    return figure
