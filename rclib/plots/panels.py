"""Figures. Functions take results and draw them; they compute nothing.

Panels that are compared share one symmetric scale. Colours are those of `rclib.plots.style`,
always together with a marker or line style, so that figures can be read in grey. Functions that
return a figure are `rclib.plots.drawing.redrawable`.
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
from matplotlib.patches import Rectangle

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DIVERGING, WIDTH, Look, looks, shown

__all__ = ["correlation_matrices", "curves", "heat_maps", "power_laws"]


def curves(
    panel: Panel,
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    by: str,
    markers: bool = True,
    quartiles: bool = False,
    look: Mapping[str, Look] | None = None,
) -> None:
    """Mean line and min-max band over repeats, one line a value of `by`.

    quartiles : median and quartiles instead, for repeats whose single values mean nothing. look :
    how each line looks, where several panels are to agree; `rclib.plots.style.looks` of the
    frame's names without it.
    """
    look = look or looks(list(frame[by].unique()))
    for name, group in frame.groupby(by, sort=False):
        over = group.groupby(x)[y]
        if quartiles:
            middle, low, high = (over.quantile(q) for q in (0.5, 0.25, 0.75))
        else:
            middle, low, high = over.mean(), over.min(), over.max()
        own = look[str(name)]
        panel.plot(
            middle.index,
            middle,
            color=own["color"],
            linestyle=own["linestyle"],
            marker=own["marker"] if markers else None,
            markevery=max(1, len(middle) // 12),
            label=shown(name),
        )
        panel.fill_between(middle.index, low, high, color=own["color"], alpha=0.15, lw=0)


@redrawable
def heat_maps(
    maps: Mapping[str, Mapping[str, np.ndarray]],
    *,
    limit: float = 3.0,
    label: str = "(W − mean) / std",
    x: str = "",
    y: str = "",
    below: Mapping[str, str] | None = None,
) -> Figure:
    """Grid of normalised matrices on one symmetric colour scale: {row: {column: (m, n)}}.

    x, y : what the columns and rows of a matrix are. below : column -> a line under it.
    """
    rows, columns = list(maps), list(next(iter(maps.values())))
    figure, panels = plt.subplots(
        len(rows),
        len(columns),
        figsize=(min(1.75 * len(columns) + 0.6, WIDTH), 1.6 * len(rows)),
        squeeze=False,
    )
    image: AxesImage | None = None
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            panel = panels[i, j]
            image = panel.imshow(maps[row][column], cmap=DIVERGING, vmin=-limit, vmax=limit)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.grid(False)
            sns.despine(ax=panel, left=True, bottom=True)
            if i == 0:
                panel.set_title(column)
            if i == len(rows) - 1 and (x or below):
                panel.set_xlabel("\n".join(t for t in (x, (below or {}).get(column, "")) if t))
            if j == 0:
                panel.set_ylabel(f"{shown(row)}\n{y}" if y else shown(row))
    assert image is not None
    figure.colorbar(image, ax=panels, shrink=0.6, label=label, extend="both")
    return figure


@redrawable
def correlation_matrices(
    matrices: Mapping[str, tuple[Sequence[str], Sequence[str], np.ndarray]], *, chance: float
) -> Figure:
    """Correlation matrices side by side; blocks of one index are framed.

    matrices : title -> (labels, index names, (K, K) matrix). chance : level written beside the
    scale; weaker correlations are what independent vectors give.
    """
    figure, panels = plt.subplots(
        1, len(matrices), figsize=(min(3.1 * len(matrices) + 0.6, WIDTH), 2.45), squeeze=False
    )
    image: AxesImage | None = None
    for i, (title, (labels, indices, matrix)) in enumerate(matrices.items()):
        panel = panels[0, i]
        image = panel.imshow(matrix, cmap=DIVERGING, vmin=-1, vmax=1)
        size = 6.0 if len(labels) <= 18 else 5.0
        panel.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size)
        panel.set_yticks(range(len(labels)), labels, fontsize=size)
        panel.tick_params(length=1.5, pad=1.5)
        panel.grid(False)
        sns.despine(ax=panel, left=True, bottom=True)
        panel.set_title(f"({chr(97 + i)}) {title}")
        start = 0
        for j in range(1, len(indices) + 1):
            if j == len(indices) or indices[j] != indices[start]:
                size = j - start
                panel.add_patch(
                    Rectangle(
                        (start - 0.5, start - 0.5), size, size, fill=False, lw=1.0, ec="black"
                    )
                )
                start = j
    assert image is not None
    bar = figure.colorbar(image, ax=panels, shrink=0.9, label="correlation over neurons")
    bar.set_ticks([-1, -0.5, 0, 0.5, 1], labels=["−1", "−0.5", "0", "0.5", "1"])
    for sign in (-1, 1):
        bar.ax.axhline(sign * chance, color="black", lw=0.8, ls="--")
    bar.ax.annotate(
        f"between the dashes:\nchance (95 %), {chance:.2f}", (0.5, -0.04), xycoords="axes fraction",
        ha="center", va="top", size=5.5, annotation_clip=False,
    )  # fmt: skip
    return figure


@redrawable
def power_laws(
    frames: Mapping[str, pd.DataFrame],
    *,
    x: Mapping[str, str],
    y: Mapping[str, str],
    by: str,
    slopes: Mapping[str, float] | None = None,
    decades: bool = False,
) -> Figure:
    """Log-log panels of a quantity against a size, with a dotted guide of a predicted slope.

    frames : panel title -> long data with columns `x`, `y`, `by`. x, y : labels by title; panels
    of one quantity share its axis. decades : the other axis has whole decades. Up to six lines
    have their names at their ends.
    """
    one = len(set(y.values())) == 1
    size = (min(3.4 * len(frames), WIDTH), 2.5)
    figure, panels = plt.subplots(1, len(frames), figsize=size, squeeze=False, sharey=one)
    look = looks([name for frame in frames.values() for name in frame[by].unique()])
    for i, (title, frame) in enumerate(frames.items()):
        panel = panels[0, i]
        curves(panel, frame, x="x", y="y", by=by, look=look)
        sizes = sorted(frame.x.unique())
        parts.size_axis(panel, sizes)
        parts.log_axis(panel, "y")
        panel.set_xlabel(x[title])
        if i == 0 or not one:
            panel.set_ylabel(y[title])
        panel.set_title(title)
    for panel, (title, frame) in zip(panels[0], frames.items(), strict=True):
        low, high = panel.get_ylim()
        if decades:
            low, high = 10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high))
        panel.set_ylim(low, high)
        if slopes and title in slopes:
            means = frame.groupby("x").y.mean()
            parts.guide(panel, sorted(frame.x.unique()), means.iloc[0], slopes[title])
        if frame[by].nunique() <= 6:
            parts.direct_labels(panel)
        else:
            # Below the panel, where it hides no line.
            panel.legend(fontsize=6, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    return figure
