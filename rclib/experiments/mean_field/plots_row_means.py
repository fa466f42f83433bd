"""Figures on widths of language models (Figure 4.5). They take results and compute nothing.

Widths are ordered, so they get an ordered palette (dark is wide) and a line style each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots.style import DASHES, MARKERS, WIDTH

__all__ = ["collapse", "control_densities", "levels"]

PALETTE = "flare"
SHOWN = {"muP": "μP"}


def _looks(widths: Sequence[int]) -> dict[int, dict[str, object]]:
    """Colour and line style of each width."""
    colours = sns.color_palette(PALETTE, len(widths))
    return {
        width: {"color": colours[i], "linestyle": DASHES[-1 - i] if i < len(widths) - 1 else "-"}
        for i, width in enumerate(sorted(widths))
    }


def _lines(
    panel: Panel, frame: pd.DataFrame, looks: Mapping[int, dict[str, object]], y: str
) -> None:
    x = "step" if y == "loss" else "x"
    for width, group in frame.groupby("width"):
        look = looks[int(str(width))]
        panel.plot(group[x], group[y], label=f"{width}", lw=1.2, **look)  # type: ignore[arg-type]
        if y == "density":
            panel.fill_between(group[x], group[y], color=look["color"], alpha=0.15, lw=0)  # type: ignore[arg-type]


def collapse(
    curves: pd.DataFrame, differences: pd.DataFrame, *, columns: Sequence[str], tolerance: float
) -> Figure:
    """Loss against the step, one line a width and one panel a parametrisation; last panel:
    difference from the widest against the width.

    curves : parametrization, width, step, loss. differences : parametrization, width,
    difference. tolerance : drawn dotted in the last panel.
    """
    looks = _looks(list(curves.width.unique()))
    figure, panels = plt.subplots(1, len(columns) + 1, figsize=(WIDTH, 2.2))
    for panel, name in zip(panels, columns, strict=False):
        _lines(panel, curves[curves.parametrization == name], looks, "loss")
        panel.set_title(SHOWN.get(name, name))
        panel.set_xlabel("step")
        panel.sharey(panels[0])
    panels[0].set_ylabel("training loss (nats per byte)")
    panels[0].legend(title="width N", fontsize=6)
    last = panels[-1]
    colours = sns.color_palette("colorblind")
    for i, name in enumerate(columns):
        group = differences[differences.parametrization == name]
        look = {"color": colours[i], "marker": MARKERS[i], "linestyle": DASHES[i]}
        last.plot(group.width, group.difference, label=SHOWN.get(name, name), **look)  # type: ignore[arg-type]
    last.axhline(tolerance, color="0.3", lw=0.9, ls=":")
    last.set_xscale("log", base=2)
    last.set_yscale("log")
    sizes = sorted(differences.width.unique())
    last.set_xticks(sizes, [str(size) for size in sizes])
    last.xaxis.minorticks_off()
    last.set_xlabel("width N")
    last.set_title("against the widest")
    last.set_ylabel("|relative difference|")
    # Below the panel, where it hides no line.
    last.legend(
        fontsize=6, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.22), handlelength=1.5,
        columnspacing=0.8,
    )  # fmt: skip
    return figure


def levels(frame: pd.DataFrame, *, units: Mapping[str, str], slope: float = -0.5) -> Figure:
    """Distance of neighbouring widths against the width, beside its floor and independent draws.

    frame : quantity, distance, level, x, y, low, high. One row of panels a distance, one column
    a quantity; units : distance -> label. Grey dots: a power of the width.
    """
    quantities, distances = list(frame.quantity.unique()), list(frame.distance.unique())
    figure, panels = plt.subplots(
        len(distances), len(quantities), figsize=(WIDTH, 4.6), squeeze=False, sharex=True
    )
    colours = sns.color_palette("colorblind")
    for i, distance in enumerate(distances):
        for j, quantity in enumerate(quantities):
            panel = panels[i, j]
            chosen = frame[(frame.distance == distance) & (frame.quantity == quantity)]
            for k, (level, group) in enumerate(chosen.groupby("level", sort=False)):
                bars = [(group.y - group.low).clip(lower=0), (group.high - group.y).clip(lower=0)]
                # Points side by side, so that their bars can be told apart.
                x = group.x * 1.04 ** (k - 1)
                panel.errorbar(
                    x, group.y, yerr=bars, label=str(level), color=colours[k], marker=MARKERS[k],
                    linestyle=DASHES[k], capsize=2, elinewidth=0.8,
                )  # fmt: skip
            first = chosen[chosen.level == chosen.level.iloc[0]]
            guide = first.y.iloc[0] * (first.x / first.x.iloc[0]) ** slope
            panel.plot(first.x, guide, color="0.4", lw=0.9, ls=":", label=f"slope {slope:g}")
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.set_ylim(chosen.y.min() / 2, chosen.y.max() * 2)
            panel.set_xticks(list(first.x), [f"{x:.0f}" for x in first.x])
            panel.xaxis.minorticks_off()
            if i == 0:
                panel.set_title(quantity)
            if j == 0:
                panel.set_ylabel(units[distance])
            if i == len(distances) - 1:
                panel.set_xlabel("√(N N'), neighbouring widths")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def control_densities(frame: pd.DataFrame, notes: Mapping[str, str], *, label: str) -> Figure:
    """Densities of several widths, one panel a setting.

    frame : setting, width, x, density. notes : setting -> text in the corner.
    """
    looks = _looks(list(frame.width.unique()))
    settings = list(frame.setting.unique())
    figure, panels = plt.subplots(1, len(settings), figsize=(WIDTH, 2.0), squeeze=False)
    for panel, name in zip(panels[0], settings, strict=True):
        _lines(panel, frame[frame.setting == name], looks, "density")
        panel.set_ylim(0, 1.3 * panel.get_ylim()[1])
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
        panel.text(
            0.98, 0.98, notes.get(name, ""), transform=panel.transAxes, ha="right", va="top",
            fontsize=6,
        )  # fmt: skip
        panel.set_title(name)
    panels[0, 0].set_ylabel("density")
    figure.supxlabel(label, fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, title="width N", loc="outside right upper")
    return figure
