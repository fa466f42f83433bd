"""Figures on the seeds of Figure 4.5's runs. They take results and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import WIDTH, looks, ordered

__all__ = ["ratios", "row_means"]


@redrawable
def row_means(
    densities: pd.DataFrame,
    inside: pd.DataFrame,
    notes: Mapping[tuple[int, int], str],
    *,
    label: str,
    names: Mapping[str, str],
) -> Figure:
    """Densities, one thin line a seed, one row a block and one column a step; beside them the
    distance between seeds of one width against the width, one panel a vector.

    densities : block, step, width, seed, x, density. inside : vector, step, width, y, low, high,
    independent. notes : (block, step) -> text in the panel's corner. names : vector -> title.
    Dotted: the power -1/2 of the width; open: independent draws. All densities share one range,
    that in which one of them is above a fiftieth of its peak.
    """
    blocks, steps = sorted(densities.block.unique()), sorted(densities.step.unique())
    widths = sorted(densities.width.unique())
    look = ordered(widths)
    tops = densities.groupby(["block", "step", "width", "seed"]).density.transform("max")
    seen = densities[densities.density > 0.02 * tops].x
    # All but the rarest: one seed with a far tail would make all panels narrow.
    low, high = seen.quantile(0.005), seen.quantile(0.985)
    figure = plt.figure(figsize=(WIDTH, 1.35 * len(blocks) + 0.9))
    halves: Any = figure.subfigures(1, 2, width_ratios=[2.5, 1])
    left, right = halves
    panels = left.subplots(len(blocks), len(steps), squeeze=False)
    for i, block in enumerate(blocks):
        for j, step in enumerate(steps):
            panel = panels[i, j]
            chosen = densities[(densities.block == block) & (densities.step == step)]
            for (width, _), line in chosen.groupby(["width", "seed"]):
                own = look[width]
                panel.plot(line.x, line.density, color=own["color"], lw=0.7, ls=own["linestyle"])
            panel.set_xlim(low, high)
            panel.set_ylim(0, 1.35 * float(chosen.density.max()))  # room for the note
            panel.set_yticks([])
            panel.spines["left"].set_visible(False)
            panel.text(
                0.98, 0.98, notes.get((int(block), int(step)), ""), transform=panel.transAxes,
                ha="right", va="top", fontsize=6,
            )  # fmt: skip
            if i == 0:
                panel.set_title(f"step {step}")
            if j == 0:
                panel.set_ylabel(f"block {block + 1}\ndensity")
    left.supxlabel(label, fontsize=8)
    lines = [
        Line2D([], [], color=look[n]["color"], lw=1.2, ls=look[n]["linestyle"], label=f"N = {n}")
        for n in widths
    ]
    left.legend(handles=lines, loc="outside upper center", ncols=len(lines), handlelength=2.5)
    vectors = list(inside.vector.unique())
    for panel, vector in zip(
        right.subplots(len(vectors), 1, squeeze=False)[:, 0], vectors, strict=True
    ):
        _inside(panel, inside[inside.vector == vector], steps)
        panel.set_title(names[vector], fontsize=7)
        panel.set_ylabel("W$_1$ between seeds")
    panel.set_xlabel("width N")
    handles, labels = panel.get_legend_handles_labels()
    kept = [i for i, text in enumerate(labels) if not text.startswith("slope")]
    right.legend(
        [handles[i] for i in kept], [labels[i] for i in kept], loc="outside upper center", ncols=2,
        handlelength=2, fontsize=6,
    )  # fmt: skip
    return figure


def _inside(panel: Panel, frame: pd.DataFrame, steps: Sequence[int]) -> None:
    look = ordered(steps)
    for k, step in enumerate(steps):
        group = frame[frame.step == step].sort_values("width")
        if group.empty:
            continue
        x = group.width * 1.03 ** (k - 1.5)  # side by side
        bars = [(group.y - group.low).clip(lower=0), (group.high - group.y).clip(lower=0)]
        panel.errorbar(
            x, group.y, yerr=bars, ms=3, lw=1, capsize=1.5, elinewidth=0.6, label=f"step {step}",
            **look[step],
        )  # fmt: skip
        own = look[step]
        panel.plot(
            x, group.independent, color=own["color"], marker=own["marker"], ms=3, mfc="none", lw=0
        )
    first = frame.groupby("width").y.mean().sort_index()
    panel.plot([], [], color="0.3", marker="o", ms=3, mfc="none", lw=0, label="independent draws")
    parts.size_axis(panel, list(first.index))
    parts.log_axis(panel, "y")
    parts.guide(panel, list(first.index), first.iloc[0], -0.5)


@redrawable
def ratios(frame: pd.DataFrame, panels: Mapping[str, str]) -> Figure:
    """Distance between seeds over that of independent draws against the width, one line an arm.

    frame : panel, arm, width, ratio, low, high. panels : panel -> title. Grey: 1, independent.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 2.6), squeeze=False)
    arms = list(frame.arm.unique())
    look = looks(arms)
    shown: dict[str, ErrorbarContainer] = {}
    for panel, (name, title) in zip(axes[0], panels.items(), strict=True):
        chosen = frame[frame.panel == name]
        for k, (arm, group) in enumerate(chosen.groupby("arm", sort=False)):
            bars = [group.ratio - group.low, group.high - group.ratio]
            x = group.width * 1.03 ** (k - 2)
            shown[str(arm)] = panel.errorbar(
                x, group.ratio, yerr=bars, lw=1, ms=3.5, capsize=1.5, elinewidth=0.6,
                **look[str(arm)],
            )  # fmt: skip
        parts.size_axis(panel, list(chosen.width.unique()))
        panel.set_yscale("log")
        low, high = max(0.4, 0.8 * chosen.low.min()), min(16.0, 1.25 * chosen.high.max())
        panel.set_ylim(min(low, 0.8), max(high, 2.5))  # bars of few seeds may reach further
        ticks = [t for t in (0.5, 1, 2, 4, 8, 16) if low <= t <= max(high, 2.5)]
        panel.set_yticks(ticks, [f"{t:g}" for t in ticks])
        panel.yaxis.set_minor_formatter("")
        panel.set_title(title, fontsize=8)
        panel.set_xlabel("width N")
        parts.level(panel, 1.0, "samples of one law", ls="-", name_it=panel is axes[0, -1])
    axes[0, 0].set_ylabel("between seeds / independent draws")
    handles: list[Any] = list(shown.values())
    figure.legend(handles, list(shown), loc="outside upper center", ncols=4)
    return figure
