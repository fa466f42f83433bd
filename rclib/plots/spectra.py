"""Figures of the notebooks on paper B. Functions take results and draw them; they compute nothing.

Colours, markers and the mean-and-range curves are those of `rclib.plots.panels`. Functions that
return a figure are `rclib.plots.drawing.redrawable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.panels import curves, power_laws
from rclib.plots.style import WIDTH, colour, looks, ordered

__all__ = ["panels", "scaling", "singular_value_panels", "spectra", "weight_value_panels"]


@redrawable
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
    size = (min(1.75 * len(steps), WIDTH), 3.6)
    figure, grid = plt.subplots(2, len(steps), figsize=size, squeeze=False)
    dark = colour(3)
    for row, (histogram, curve) in enumerate(((log_bars, log_law), (bars, law))):
        for panel, step in zip(grid[row], steps, strict=True):
            chosen, line = histogram[histogram.step == step], curve[curve.step == step]
            panel.stairs(
                chosen.density, [*chosen.left, chosen.right.iloc[-1]], fill=True, color=colour(0)
            )
            panel.plot(line.x, line.density, color=dark, ls="--", lw=1.0)
            seen = chosen[chosen.density > 0]
            panel.set_yscale("log")
            panel.set_ylim(
                0.5 * seen.density.min(), 3.0 * max(seen.density.max(), line.density.max())
            )
            parts.log_axis(panel, "y")
            if row == 0:
                panel.xaxis.set_major_locator(MaxNLocator(4))
                panel.set_title(f"step {step}")
                panel.set_xlabel(r"$\log_{10}\,\lambda$")
                continue
            # Up to the last bar: an empty axis says nothing.
            right = max(seen.right.max(), line.x[line.density > 0].max())
            panel.set_xlim(-0.04 * right, 1.04 * right)
            panel.xaxis.set_major_locator(MaxNLocator(2 if right > 1e4 else 3))
            panel.xaxis.set_major_formatter(lambda value, _: parts.number(value))
            panel.set_xlabel(r"$\lambda$")
            beyond = int(chosen.beyond.iloc[0])
            if beyond:
                text = f"{beyond} beyond,\nup to {parts.number(chosen.largest.iloc[0], 2)}"
                panel.text(
                    0.98, 0.98, text, transform=panel.transAxes, ha="right", va="top", size=6
                )
    grid[0, 0].set_ylabel(r"density of $\log_{10}\,\lambda$")
    grid[1, 0].set_ylabel(r"density of $\lambda$")
    handles = [Patch(color=colour(0)), Line2D([], [], color=dark, ls="--", lw=1.0)]
    names = ["eigenvalues of WᵀW", "Marchenko-Pastur law of the bulk"]
    figure.legend(handles, names, loc="outside upper center", ncols=2)
    return figure


def _by_step(panel: Panel, frame: pd.DataFrame, x: str, y: str, *, markers: bool) -> None:
    look = ordered(list(frame.step.unique()))
    for step, chosen in frame.groupby("step", sort=False):
        own = look[step]  # type: ignore[index]
        panel.plot(
            chosen[x],
            chosen[y],
            color=own["color"],
            ls=own["linestyle"],
            marker=own["marker"] if markers else None,
            markevery=0.1 if markers else None,
            ms=3,
            lw=1.0,
            label=f"step {step}",
        )


def weight_value_panels(panel: Panel, frame: pd.DataFrame) -> None:
    """Density of the entries of W, one line a step: columns step, value, density."""
    seen = frame[frame.density > 0]
    _by_step(panel, seen, "value", "density", markers=False)
    parts.log_axis(panel, "y")
    panel.set_xlabel("entry of W")
    panel.set_ylabel("density")


def singular_value_panels(panel: Panel, frame: pd.DataFrame) -> None:
    """Singular values in descending order, one line a step: columns step, index, value."""
    _by_step(panel, frame, "index", "value", markers=True)
    parts.log_axis(panel, "x")
    parts.log_axis(panel, "y")
    panel.set_xlabel("index, the largest first")
    panel.set_ylabel("singular value of W")


@redrawable
def panels(
    frame: pd.DataFrame,
    *,
    x: str,
    rows: Mapping[str, str],
    x_label: str,
    by: str | None = None,
    columns: int = 3,
    log_x: bool = False,
    even_x: bool = False,
    log_y: Sequence[str] = (),
    levels: Mapping[str, float | tuple[float, str]] | None = None,
    legend: str | None = None,
    quartiles: bool = False,
    shade_from: tuple[float, str] | None = None,
    width: float = 2.45,
) -> Figure:
    """Several quantities against x, one panel each: mean and range over repeats.

    frame : long data with a column a quantity; rows : quantity -> axis label; by : one line a
    value of this column; even_x : the values of x side by side, whatever lies between them; log_y :
    quantities on a logarithmic axis; levels : quantity -> dotted horizontal line, and what is
    written at it; legend : its title; quartiles : median and quartiles instead of mean and range;
    shade_from : a grey ground from this x on, and its name in the legend; width : of a panel, in
    inches.
    """
    count = len(rows)
    columns = min(columns, count)
    lines = -(-count // columns)
    figure, grid = plt.subplots(
        lines,
        columns,
        figsize=(min(width * columns, WIDTH), 1.9 * lines),
        squeeze=False,
        sharex=True,
    )
    shown = frame if by else frame.assign(line="")
    places = sorted(shown[x].unique())
    if even_x:
        shown = shown.assign(**{x: shown[x].map({value: i for i, value in enumerate(places)})})
    look = looks(list(shown[by or "line"].unique()))
    for i, (quantity, label) in enumerate(rows.items()):
        panel = grid.flat[i]
        seen = shown[shown[quantity].notna()]
        curves(panel, seen, x=x, y=quantity, by=by or "line", quartiles=quartiles, look=look)
        panel.set_ylabel(label)
        if quantity in log_y:
            parts.log_axis(panel, "y")
        if even_x:
            panel.set_xticks(range(len(places)), [parts.number(place) for place in places])
            panel.tick_params(axis="x", labelsize=6, labelrotation=45 if len(places) > 6 else 0)
        elif log_x:
            parts.size_axis(panel, places)
        elif pd.api.types.is_integer_dtype(shown[x]):
            parts.few_ticks(panel)
        if shade_from is not None:
            low, high = panel.get_xlim()
            start = places.index(shade_from[0]) - 0.5 if even_x else shade_from[0]
            panel.axvspan(start, high, color="0.93", lw=0, zorder=0)
            panel.set_xlim(low, high)
        if i + columns >= count:
            panel.set_xlabel(x_label)
            panel.tick_params(labelbottom=True)
    for quantity, reference in (levels or {}).items():
        panel = grid.flat[list(rows).index(quantity)]
        value, text = reference if isinstance(reference, tuple) else (reference, "")
        parts.level(panel, value, text)
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


@redrawable
def scaling(
    frames: Mapping[str, pd.DataFrame],
    *,
    x: str,
    y: Mapping[str, str],
    slopes: Mapping[str, float],
) -> Figure:
    """`rclib.plots.panels.power_laws` against a size x, whole decades on the other axis.

    frames : panel title -> columns x, y, line. y : title -> label. slopes : title -> predicted.
    """
    return power_laws(
        frames, x=dict.fromkeys(frames, x), y=y, by="line", slopes=slopes, decades=True
    )
