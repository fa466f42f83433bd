"""Figures of the notebooks on paper B. Functions take results and draw them; they compute nothing.

Colours, markers and the mean-and-range curves are those of `rclib.plots.panels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from rclib.plots.panels import curves, power_laws
from rclib.plots.style import DASHES, MARKERS, WIDTH

__all__ = [
    "alpha_errors",
    "carried",
    "family_panels",
    "overlap_panels",
    "panels",
    "prediction",
    "scaling",
    "singular_value_panels",
    "spectra",
    "weight_value_panels",
]

SEQUENTIAL = "rocket_r"


def spectra(
    log_bars: pd.DataFrame,
    log_law: pd.DataFrame,
    bars: pd.DataFrame,
    law: pd.DataFrame,
) -> Figure:
    """Eigenvalue histograms over steps with the Marchenko-Pastur law over them.

    Top row: of log10 λ; bottom row: of λ near the bulk. One column a step.
    bars : columns step, left, right, density, beyond, largest. law : columns step, x, density.
    """
    steps = list(dict.fromkeys(log_bars.step))
    size = (min(1.75 * len(steps), WIDTH), 3.4)
    figure, grid = plt.subplots(2, len(steps), figsize=size, squeeze=False)
    colour, dark = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[3]
    for row, (histogram, curve) in enumerate(((log_bars, log_law), (bars, law))):
        for panel, step in zip(grid[row], steps, strict=True):
            chosen, line = histogram[histogram.step == step], curve[curve.step == step]
            panel.stairs(
                chosen.density, [*chosen.left, chosen.right.iloc[-1]], fill=True, color=colour
            )
            panel.plot(line.x, line.density, color=dark, ls="--", lw=1.0)
            _log_y(panel)
            seen = chosen.density[chosen.density > 0]
            panel.set_ylim(0.5 * seen.min(), 3.0 * max(seen.max(), line.density.max()))
            panel.xaxis.set_major_locator(MaxNLocator(4))
            if row == 0:
                panel.set_title(f"step {step}")
                panel.set_xlabel(r"$\log_{10}\,\lambda$")
            else:
                panel.set_xlabel(r"$\lambda$")
                panel.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
                beyond = int(chosen.beyond.iloc[0])
                if beyond:
                    text = f"{beyond} beyond,\nup to {chosen.largest.iloc[0]:.2g}"
                    panel.text(
                        0.98, 0.98, text, transform=panel.transAxes, ha="right", va="top", size=6
                    )
    grid[0, 0].set_ylabel(r"density of $\log_{10}\,\lambda$")
    grid[1, 0].set_ylabel(r"density of $\lambda$")
    return figure


def _by_step(panel: Panel, frame: pd.DataFrame, x: str, y: str, *, markers: bool) -> None:
    steps = list(dict.fromkeys(frame.step))
    colours = sns.color_palette("flare", len(steps))
    for i, step in enumerate(steps):
        chosen = frame[frame.step == step]
        panel.plot(
            chosen[x],
            chosen[y],
            color=colours[i],
            ls=DASHES[i % len(DASHES)],
            marker=MARKERS[i % len(MARKERS)] if markers else None,
            markevery=0.1 if markers else None,
            ms=3,
            lw=1.0,
            label=f"step {step}",
        )


def weight_value_panels(panel: Panel, frame: pd.DataFrame) -> None:
    """Density of the entries of W, one line a step: columns step, value, density."""
    seen = frame[frame.density > 0]
    _by_step(panel, seen, "value", "density", markers=False)
    _log_y(panel)
    panel.set_xlabel("entry of W")
    panel.set_ylabel("density")
    panel.legend()


def singular_value_panels(panel: Panel, frame: pd.DataFrame) -> None:
    """Singular values in descending order, one line a step: columns step, index, value."""
    _by_step(panel, frame, "index", "value", markers=True)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("index, the largest first")
    panel.set_ylabel("singular value of W")
    panel.legend()


def panels(
    frame: pd.DataFrame,
    *,
    x: str,
    rows: Mapping[str, str],
    x_label: str,
    by: str | None = None,
    columns: int = 3,
    log_x: bool = False,
    log_y: Sequence[str] = (),
    levels: Mapping[str, float] | None = None,
    legend: str | None = None,
    quartiles: bool = False,
    shade_from: tuple[float, str] | None = None,
) -> Figure:
    """Several quantities against x, one panel each: mean and range over repeats.

    frame : long data with a column a quantity; rows : quantity -> axis label; by : one line a
    value of this column; log_y : quantities on a logarithmic axis; levels : quantity -> dotted
    horizontal line; legend : its title; quartiles : median and quartiles instead of mean and
    range; shade_from : a grey ground from this x on, and its name in the legend.
    """
    count = len(rows)
    columns = min(columns, count)
    lines = -(-count // columns)
    figure, grid = plt.subplots(
        lines,
        columns,
        figsize=(min(2.45 * columns, WIDTH), 1.9 * lines),
        squeeze=False,
        sharex=True,
    )
    shown = frame if by else frame.assign(line="")
    for i, (quantity, label) in enumerate(rows.items()):
        panel = grid.flat[i]
        seen = shown[shown[quantity].notna()]
        curves(panel, seen, x=x, y=quantity, by=by or "line", quartiles=quartiles)
        panel.set_ylabel(label)
        if quantity in log_y:
            _log_y(panel)
        if log_x:
            _log_x(panel, shown[x])
        elif pd.api.types.is_integer_dtype(shown[x]):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if levels and quantity in levels:
            panel.axhline(levels[quantity], color="0.3", lw=0.9, ls=":")
        if shade_from is not None:
            low, high = panel.get_xlim()
            panel.axvspan(shade_from[0], high, color="0.93", lw=0, zorder=0)
            panel.set_xlim(low, high)
        if i + columns >= count:
            panel.set_xlabel(x_label)
            panel.tick_params(labelbottom=True)
    for panel in list(grid.flat)[count:]:
        panel.set_visible(False)
    if by:
        handles, labels = grid.flat[0].get_legend_handles_labels()
        if shade_from is not None:
            handles, labels = [*handles, Patch(color="0.88")], [*labels, shade_from[1]]
        figure.legend(
            handles, labels, title=legend, loc="outside upper center", ncols=min(len(labels), 6)
        )
    return figure


def _log_y(panel: Panel) -> None:
    """Logarithmic y axis with ticks at the powers of ten alone."""
    panel.set_yscale("log")
    panel.yaxis.set_minor_locator(NullLocator())


def _log_x(panel: Panel, values: pd.Series[float]) -> None:
    """Logarithmic x axis; a few sizes are named themselves, many leave it to matplotlib."""
    panel.set_xscale("log")
    sizes = sorted(set(values))
    if len(sizes) <= 6:
        panel.set_xticks(sizes, [f"{size:g}" for size in sizes])
        panel.xaxis.set_minor_locator(NullLocator())


def scaling(
    frames: Mapping[str, pd.DataFrame],
    *,
    x: str,
    y: Mapping[str, str],
    slopes: Mapping[str, float],
) -> Figure:
    """`rclib.plots.panels.power_laws` against a size x, with the sizes themselves on the axis.

    frames : panel title -> columns x, y, line. y : title -> label. slopes : title -> predicted.
    """
    figure = power_laws(frames, x=dict.fromkeys(frames, x), y=y, by="line", slopes=slopes)
    for panel, frame in zip(figure.axes, frames.values(), strict=True):
        _log_x(panel, frame.x)
        panel.yaxis.set_minor_locator(NullLocator())
        low, high = panel.get_ylim()  # whole decades, so that there are ticks
        panel.set_ylim(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high)))
    return figure


def overlap_panels(
    maps: Mapping[str, Mapping[str, np.ndarray]], *, view: str = "heat", x: str, y: str
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
    for i, (gamma, title) in enumerate(rows.items()):
        for j, side in enumerate(sides):
            panel = grid[i, j]
            chosen = frame[(frame.gamma == gamma) & (frame.side == side)]
            shown = chosen.assign(direction=chosen.direction.map(names))
            curves(panel, shown, x="step", y="share", by="direction")
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


def alpha_errors(frame: pd.DataFrame, *, kinds: Mapping[str, str]) -> Figure:
    """α with three measures of its uncertainty, one panel a method, one group a state.

    frame : columns state, method, alpha and those of `kinds`, column -> label.
    """
    methods = list(dict.fromkeys(frame.method))
    figure, grid = plt.subplots(
        1, len(methods), figsize=(min(3.4 * len(methods), WIDTH), 2.7), squeeze=False, sharey=True
    )
    colours = sns.color_palette("colorblind")
    for panel, method in zip(grid[0], methods, strict=True):
        chosen = frame[frame.method == method]
        place = np.arange(len(chosen))
        for i, (kind, label) in enumerate(kinds.items()):
            panel.errorbar(
                chosen.alpha,
                place + 0.2 * (1 - i),
                xerr=chosen[kind],
                fmt=MARKERS[i],
                color=colours[i],
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


def prediction(frame: pd.DataFrame, *, columns: Mapping[str, str], by: str, legend: str) -> Figure:
    """Largest eigenvalue after one step against its prediction, both over the bulk's edge.

    frame : columns optimizer, predicted_over_edge, top_over_edge and `by`. columns :
    optimizer -> title.
    """
    size = (min(3.2 * len(columns), WIDTH), 3.0)
    figure, grid = plt.subplots(1, len(columns), figsize=size, squeeze=False)
    colours = sns.color_palette("colorblind")
    for panel, (name, title) in zip(grid[0], columns.items(), strict=True):
        chosen = frame[frame.optimizer == name]
        for i, (value, group) in enumerate(chosen.groupby(by)):
            panel.plot(
                group.predicted_over_edge,
                group.top_over_edge,
                ls="",
                marker=MARKERS[i % len(MARKERS)],
                color=colours[i % len(colours)],
                mfc="none",
                label=str(value),
            )
        top = 1.15 * max(chosen.predicted_over_edge.max(), chosen.top_over_edge.max())
        panel.plot([0.9, top], [0.9, top], color="0.3", lw=0.9, ls=":")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_title(title)
        panel.set_xlabel("predicted, over the bulk's edge")
    grid[0, 0].set_ylabel(r"$\lambda_{\max}$ after one step, over the edge")
    grid[0, -1].legend(title=legend, loc="lower right")
    return figure


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
        shown = chosen.assign(setting=chosen.setting.map("{:g}".format))
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
