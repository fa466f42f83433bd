"""Panels that only paper B's notebooks draw; `rclib.plots.spectra` has those of checkpoints too.

Functions that return a figure are `rclib.plots.drawing.redrawable`.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.panels import curves
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks

__all__ = ["alpha_errors", "carried", "family_panels", "overlap_panels", "prediction"]

SEQUENTIAL = "rocket_r"


@redrawable
def overlap_panels(
    maps: Mapping[str, Mapping[str, np.ndarray]],
    *,
    view: str = "heat",
    x: str = "direction of the update",
    y: str = "direction of W",
) -> Figure:
    """Overlap matrices, rows: sides, columns: steps.

    view : "heat" for maps on one scale from 0 to 1, "3d" for bars over the plane.
    x, y : names of the axes, the columns and rows of a matrix. Raises ValueError for another
    view.
    """
    if view not in ("heat", "3d"):
        raise ValueError(f"view must be 'heat' or '3d', got {view!r}")
    rows, columns = list(maps), list(next(iter(maps.values())))
    size = 1.6 if view == "heat" else 2.4
    figure, grid = plt.subplots(
        len(rows),
        len(columns),
        figsize=(size * len(columns) + 0.6, size * len(rows) + 0.3),
        squeeze=False,
        subplot_kw={"projection": "3d"} if view == "3d" else None,
    )
    image: AxesImage | None = None
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            panel, matrix = grid[i, j], maps[row][column]
            if view == "heat":
                k = len(matrix)
                image = panel.imshow(
                    matrix, cmap=SEQUENTIAL, vmin=0, vmax=1, extent=(0.5, k + 0.5, k + 0.5, 0.5)
                )
                panel.grid(False)
                panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
                panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            else:
                _bars(panel, matrix)
            if view == "3d":
                panel.set_title(f"{row}, {column}")
                panel.set_xlabel(x, labelpad=-8, fontsize=6)
                panel.set_ylabel(y, labelpad=-8, fontsize=6)
                continue
            if i == 0:
                panel.set_title(column)
            if i == len(rows) - 1:
                panel.set_xlabel(x)
            if j == 0:
                panel.set_ylabel(f"{row}\n{y}")
    if image is not None:
        figure.colorbar(image, ax=grid, shrink=0.6, label="squared inner product")
    return figure


def _bars(panel: Panel, matrix: np.ndarray) -> None:
    k = len(matrix)
    along, down = np.meshgrid(np.arange(1, k + 1), np.arange(1, k + 1))
    heights = matrix.ravel()
    colours = sns.color_palette(SEQUENTIAL, as_cmap=True)(heights)
    panel.bar3d(  # type: ignore[attr-defined]
        along.ravel() - 0.4, down.ravel() - 0.4, 0, 0.8, 0.8, heights, color=colours, shade=True
    )
    panel.set_zlim(0, 1)  # type: ignore[attr-defined]
    panel.set_box_aspect(None, zoom=0.85)  # type: ignore[call-arg]
    panel.tick_params(labelsize=5, pad=-3)


@redrawable
def carried(frame: pd.DataFrame, *, rows: Mapping[float, str], names: Mapping[str, str]) -> Figure:
    """How the first direction of the update is shared between directions of W, over steps.

    frame : columns gamma, side, step, direction, share, one row a seed. rows : gamma -> title.
    names : direction -> label in the legend.
    """
    sides = list(dict.fromkeys(frame.side))
    figure, grid = plt.subplots(
        len(rows),
        len(sides),
        figsize=(min(3.2 * len(sides), WIDTH), 2.0 * len(rows) + 0.3),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    look = looks(list(names.values()))
    for i, (gamma, title) in enumerate(rows.items()):
        for j, side in enumerate(sides):
            panel = grid[i, j]
            chosen = frame[(frame.gamma == gamma) & (frame.side == side)]
            shown = chosen.assign(direction=chosen.direction.map(names))
            curves(panel, shown, x="step", y="share", by="direction", look=look)
            panel.set_title(f"{side} singular vectors, {title}")
            panel.set_ylim(-0.03, 1.03)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            if i == len(rows) - 1:
                panel.set_xlabel("step t of the update")
            if j == 0:
                panel.set_ylabel("share of the update's\nfirst direction")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=len(labels), title="direction of W"
    )
    return figure


@redrawable
def alpha_errors(frame: pd.DataFrame, *, kinds: Mapping[str, str]) -> Figure:
    """α with three measures of its uncertainty, one panel a method, one group a state.

    frame : columns state, method, alpha and those of `kinds`, column -> label.
    """
    methods = list(dict.fromkeys(frame.method))
    figure, grid = plt.subplots(
        1, len(methods), figsize=(min(3.4 * len(methods), WIDTH), 2.7), squeeze=False, sharey=True
    )
    for panel, method in zip(grid[0], methods, strict=True):
        chosen = frame[frame.method == method]
        place = np.arange(len(chosen))
        for i, (kind, label) in enumerate(kinds.items()):
            panel.errorbar(
                chosen.alpha,
                place + 0.2 * (1 - i),
                xerr=chosen[kind],
                fmt=MARKERS[i],
                color=colour(i),
                capsize=2,
                lw=1.2,
                label=label,
            )
        panel.set_yticks(place, chosen.state)
        panel.set_ylim(len(chosen) - 0.5, -0.5)
        panel.set_xlabel(r"exponent $\alpha$")
        panel.set_title({"hill": "Hill", "ks": "KS"}.get(method, method))
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


@redrawable
def prediction(frame: pd.DataFrame, *, columns: Mapping[str, str], by: str, legend: str) -> Figure:
    """Largest eigenvalue after one step against its prediction, both over the bulk's edge.

    frame : columns optimizer, predicted_over_edge, top_over_edge and `by`. columns :
    optimizer -> title.
    """
    size = (min(3.2 * len(columns), WIDTH), 3.0)
    figure, grid = plt.subplots(1, len(columns), figsize=size, squeeze=False)
    for panel, (name, title) in zip(grid[0], columns.items(), strict=True):
        chosen = frame[frame.optimizer == name]
        for i, (value, group) in enumerate(chosen.groupby(by)):
            panel.plot(
                group.predicted_over_edge,
                group.top_over_edge,
                ls="",
                marker=MARKERS[i % len(MARKERS)],
                color=colour(i),
                mfc="none",
                label=str(value),
            )
        top = 1.15 * max(chosen.predicted_over_edge.max(), chosen.top_over_edge.max())
        panel.plot([0.9, top], [0.9, top], color=GREY, lw=0.9, ls=":")
        parts.log_axis(panel, "x")
        parts.log_axis(panel, "y")
        panel.annotate(
            "equal", (0.45 * top, 0.45 * top), xytext=(-6, 6), textcoords="offset points",
            ha="right", size=parts.SMALL, color=GREY,
        )  # fmt: skip
        panel.set_title(title)
        panel.set_xlabel("predicted, over the bulk's edge")
    grid[0, 0].set_ylabel(r"$\lambda_{\max}$ after one step, over the edge")
    grid[0, -1].legend(title=legend, loc="lower right")
    return figure


@redrawable
def family_panels(
    frame: pd.DataFrame, *, families: Mapping[str, str], rows: Mapping[str, str], x_label: str
) -> Figure:
    """Quantities over steps, one column a family of settings, one line a value of it.

    frame : columns family, setting, seed, step and the keys of `rows`. families : family -> title.
    """
    figure, grid = plt.subplots(
        len(rows),
        len(families),
        figsize=(min(2.2 * len(families), WIDTH), 2.0 * len(rows)),
        squeeze=False,
        sharex=True,
    )
    for j, (family, title) in enumerate(families.items()):
        chosen = frame[frame.family == family]
        shown = chosen.assign(setting=chosen.setting.map(parts.number))
        for i, (quantity, label) in enumerate(rows.items()):
            panel = grid[i, j]
            curves(panel, shown, x="step", y=quantity, by="setting")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            if i == 0:
                panel.set_title(title)
            if j == 0:
                panel.set_ylabel(label)
        grid[-1, j].set_xlabel(x_label)
        low, high = grid[0, j].get_ylim()  # room for the legend above the curves
        grid[0, j].set_ylim(low, high + 0.45 * (high - low))
        grid[0, j].legend(ncols=2, loc="upper center", fontsize=6)
    return figure
