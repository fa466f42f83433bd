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
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from rclib.plots.panels import curves, power_laws
from rclib.plots.style import DASHES, MARKERS, WIDTH

__all__ = ["panels", "scaling", "singular_value_panels", "spectra", "weight_value_panels"]


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
