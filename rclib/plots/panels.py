"""Figures. Functions take results and draw them; they compute nothing.

Panels that are compared share one symmetric scale. Colours are seaborn's colour-blind safe
set, always together with a marker or line style, so that figures can be read in grey.
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

from rclib.plots.style import DASHES, DIVERGING, MARKERS, WIDTH, shown

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
) -> None:
    """Mean line and min-max band over repeats, one line a value of `by`.

    quartiles : median and quartiles instead, for repeats whose single values mean nothing.
    """
    colours = sns.color_palette("colorblind")
    for i, (name, group) in enumerate(frame.groupby(by, sort=False)):
        over = group.groupby(x)[y]
        if quartiles:
            middle, low, high = (over.quantile(q) for q in (0.5, 0.25, 0.75))
        else:
            middle, low, high = over.mean(), over.min(), over.max()
        colour = colours[i % len(colours)]
        panel.plot(
            middle.index,
            middle,
            color=colour,
            linestyle=DASHES[i % len(DASHES)],
            marker=MARKERS[i % len(MARKERS)] if markers else None,
            markevery=max(1, len(middle) // 12),
            label=shown(name),
        )
        panel.fill_between(middle.index, low, high, color=colour, alpha=0.15, lw=0)


def heat_maps(
    maps: Mapping[str, Mapping[str, np.ndarray]],
    *,
    limit: float = 3.0,
    label: str = "(W - mean) / std",
) -> Figure:
    """Grid of normalised matrices on one symmetric colour scale: {row: {column: (m, n)}}."""
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
            image = panel.imshow(
                maps[row][column], cmap=DIVERGING, vmin=-limit, vmax=limit, rasterized=True
            )
            panel.set_xticks([])
            panel.set_yticks([])
            panel.grid(False)
            sns.despine(ax=panel, left=True, bottom=True)
            if i == 0:
                panel.set_title(column)
            if j == 0:
                panel.set_ylabel(shown(row))
    assert image is not None
    figure.colorbar(image, ax=panels, shrink=0.6, label=label, extend="both")
    return figure


def correlation_matrices(
    matrices: Mapping[str, tuple[Sequence[str], Sequence[str], np.ndarray]], *, chance: float
) -> Figure:
    """Correlation matrices side by side; blocks of one index are framed.

    matrices : title -> (labels, index names, (K, K) matrix). chance : level printed beside the
    scale; weaker correlations are what independent vectors give.
    """
    figure, panels = plt.subplots(
        1, len(matrices), figsize=(min(3.1 * len(matrices) + 0.6, WIDTH), 2.7), squeeze=False
    )
    image: AxesImage | None = None
    for i, (title, (labels, indices, matrix)) in enumerate(matrices.items()):
        panel = panels[0, i]
        image = panel.imshow(matrix, cmap=DIVERGING, vmin=-1, vmax=1)
        panel.set_xticks(range(len(labels)), labels, rotation=90, fontsize=5)
        panel.set_yticks(range(len(labels)), labels, fontsize=5)
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
    bar = figure.colorbar(image, ax=panels, shrink=0.75, label="correlation over neurons")
    for sign in (-1, 1):
        bar.ax.axhline(sign * chance, color="black", lw=0.8, ls="--")
    return figure


def power_laws(
    frames: Mapping[str, pd.DataFrame],
    *,
    x: Mapping[str, str],
    y: Mapping[str, str],
    by: str,
    slopes: Mapping[str, float] | None = None,
) -> Figure:
    """Log-log panels of a quantity against a size, with a dashed guide of a predicted slope.

    frames : panel title -> long data with columns `x`, `y`, `by`. x, y : labels by title.
    """
    size = (min(3.4 * len(frames), WIDTH), 2.9)
    figure, panels = plt.subplots(1, len(frames), figsize=size, squeeze=False)
    for i, (title, frame) in enumerate(frames.items()):
        panel = panels[0, i]
        curves(panel, frame, x="x", y="y", by=by)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        sizes = np.array(sorted(frame.x.unique()), dtype=float)
        panel.set_xticks(sizes, [f"{size:g}" for size in sizes])
        panel.xaxis.minorticks_off()  # the sizes are labelled; y keeps its minor labels
        if slopes and title in slopes:
            level = frame[frame.x == sizes[0]].y.mean()
            guide = level * (sizes / sizes[0]) ** slopes[title]
            panel.plot(sizes, guide, color="0.3", lw=0.9, ls=":", label=f"slope {slopes[title]:g}")
        panel.set_xlabel(x[title])
        panel.set_ylabel(y[title])
        panel.set_title(title)
        # Below the panel, where it hides no line.
        panel.legend(fontsize=6, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    return figure
