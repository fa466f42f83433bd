"""Panels of notebook 50: growth by mixtures of templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, WIDTH, colour

__all__ = ["growth_panels", "link_panels"]

CURVES = ("orthogonal", "ensemble", "random blocks", "one half", "scratch, equal compute")
COLOUR = {name: colour_of for colour_of, name in enumerate(CURVES)}


@redrawable
def growth_panels(curves: pd.DataFrame, matrices: pd.DataFrame, order: Sequence[str]) -> Figure:
    """Accuracy against compute, loss at growth and at the end, middle matrices at growth.

    curves : seed, arm, step, compute, accuracy, loss. matrices : arm, row, column, size of two
    arms. order : arms of the middle panel, from the top.
    """
    figure = plt.figure(figsize=(WIDTH, 3.5), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=[1.5, 1.5, 0.72])
    _curves(figure.add_subplot(grid[:, 0]), curves)
    _losses(figure.add_subplot(grid[:, 1]), curves, order)
    top = float(matrices["size"].quantile(0.995))
    for place, (arm, part) in enumerate(matrices.groupby("arm", sort=False)):
        panel = figure.add_subplot(grid[place, 2])
        table = part.pivot_table(index="row", columns="column", values="size")
        panel.imshow(table.to_numpy(), cmap="Greys", vmin=0, vmax=top, interpolation="nearest")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_title(f"|W|, {arm}")
    parts.letters(figure)
    return figure


def _curves(panel: Axes, curves: pd.DataFrame) -> None:
    growth = float(curves[curves.arm == "orthogonal"].compute.min())
    for arm, label in (("first half", "the two halves"), ("second half", "")):
        mean = curves[curves.arm == arm].groupby("compute").accuracy.mean()
        panel.plot(mean.index, mean, color=GREY, lw=1.1, label=label or None)
    ends = []
    for arm in CURVES:
        part = curves[curves.arm == arm].groupby("compute").accuracy
        mean, spread = part.mean(), part.std() / np.sqrt(part.count())
        look = colour(COLOUR[arm])
        panel.plot(mean.index, mean, color=look, lw=1.4, label=arm, ls="--" if "," in arm else "-")
        panel.fill_between(
            mean.index, mean - 2 * spread, mean + 2 * spread, color=look, alpha=0.12, lw=0
        )
        ends.append(float(mean.iloc[-1]))
    gap = max(ends) - min(ends)
    panel.set_ylim(min(ends) - 4 * gap, max(ends) + 1.2 * gap)
    parts.moment(panel, growth, "growth")
    panel.set_xlabel("compute, steps of the full network")
    panel.set_title("test accuracy")
    _legend(panel, 2)


def _legend(panel: Axes, columns: int) -> None:
    """Below the panel, where nothing runs."""
    panel.legend(
        fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns, frameon=False
    )


def _losses(panel: Axes, curves: pd.DataFrame, order: Sequence[str]) -> None:
    for place, arm in enumerate(reversed(order)):
        part = curves[curves.arm == arm].groupby("seed").loss
        for values, look, dy, marker in (
            (part.first(), colour(1), 0.16, "o"), (part.last(), colour(0), -0.16, "D"),
        ):  # fmt: skip
            panel.plot(
                values, np.full(len(values), place + dy), marker, ms=2.2, color=look, alpha=0.35,
                mew=0,
            )  # fmt: skip
            panel.plot(values.mean(), place + dy, "|", ms=8, mew=1.6, color=look)
    names = ("at growth", "at the end")
    for i, (name, marker) in enumerate(zip(names, "oD", strict=True)):
        panel.plot([], [], marker, ms=3.5, color=colour(1 - i), label=name)
    panel.set_yticks(range(len(order)), list(reversed(order)), size=6.5)
    parts.log_axis(panel, "x")
    panel.set_title("test loss")
    panel.set_xlabel("dots: seeds")
    _legend(panel, 2)


@redrawable
def link_panels(ends: pd.DataFrame, numbers: pd.DataFrame, chance: float, halves: float) -> Figure:
    """Middle matrices by arm: correlation of row means, spikes, and the three numbers of a start.

    ends : seed, arm, rows_start, rows_end, spikes_start, spikes_end. numbers : seed, arm, moved,
    explained, gained. chance : mean |r| of independent rows. halves : spikes of both, mean.
    """
    figure, panels = plt.subplots(1, 4, figsize=(WIDTH, 3.0), layout="constrained", sharey=True)
    order = list(dict.fromkeys(ends.arm))
    names = ("at growth", "at the end")
    for panel, what, level, title in (
        (panels[0], "rows", chance, "|r| of row means"),
        (panels[1], "spikes", halves, "spikes"),
    ):
        for i, (when, look) in enumerate((("start", colour(1)), ("end", colour(0)))):
            table = ends.groupby("arm")[f"{what}_{when}"]
            _bars(panel, table, order, look, 0.16 - 0.32 * i, "oD"[i], names[i])
        panel.axvline(level, color=GREY, lw=0.9, ls=":")
        panel.set_title(title)
    panels[0].set_xlabel("dotted: independent rows")
    panels[1].set_xlabel("dotted: both halves")
    shown = numbers.groupby("arm")
    for i, (what, label) in enumerate((("moved", "‖W − W0‖/‖W0‖"), ("explained", "share of W"))):
        _bars(panels[2], shown[what], order, colour(3 + i), 0.16 - 0.32 * i, "s^"[i], label)
    panels[2].set_title("moved, explained")
    _bars(panels[3], shown["gained"], order, colour(0), 0.0, "o", "")
    panels[3].axvline(0, color=GREY, lw=0.9, ls=":")
    panels[3].set_title("loss gained a step")
    panels[3].xaxis.set_major_locator(MaxNLocator(3))
    panels[3].ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
    panels[0].set_yticks(range(len(order)), order, size=6.5)
    panels[0].invert_yaxis()
    for panel in (panels[0], panels[2]):
        _legend(panel, 2)
    parts.letters(figure)
    return figure


def _bars(
    panel: Axes, table: pd.core.groupby.SeriesGroupBy, order: Sequence[str], look: object,
    dy: float, marker: str, label: str,
) -> None:  # fmt: skip
    """Means with their 95 percent range (twice the standard error), one row an arm."""
    mean, error = table.mean().reindex(order), 2 * table.sem().reindex(order)
    places = np.arange(len(order)) - dy
    style: dict[str, Any] = {"fmt": marker, "ms": 3, "lw": 1, "color": look, "label": label}
    panel.errorbar(mean, places, xerr=error, **style)
