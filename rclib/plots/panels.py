"""Figures. Functions take results and draw them; they compute nothing.

Panels that are compared share one symmetric scale. Colours are seaborn's colour-blind safe
set, always together with a marker or line style, so that figures can be read in grey.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

__all__ = [
    "coordinate_check",
    "correlation_matrices",
    "curves",
    "exponents_over_time",
    "heat_maps",
    "power_laws",
    "shares",
    "stamp",
    "transfer_panels",
    "use_style",
]

WIDTH = 7.0  # inches: the text width of a paper, which no figure exceeds
STYLE = Path(__file__).with_name("style.mplstyle")
MARKERS = "osD^vP*X"
DASHES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1))]
DIVERGING = "vlag"  # perceptually uniform, zero in the middle


def use_style() -> None:
    """Apply the project's style file and seaborn's colour-blind palette."""
    plt.style.use(STYLE)
    mpl.rcParams["axes.prop_cycle"] = cycler(color=sns.color_palette("colorblind"))


def stamp(figure: Figure, text: str) -> None:
    """Small print below a figure, e.g. its data set: a picture travels without its caption.

    The figure's layout must be solved already; drawn again, the print is replaced.
    """
    for old in [t for t in figure.texts if t.get_gid() == "stamp"]:
        old.remove()
    wrapped = textwrap.fill(text, max(30, int(26 * figure.get_figwidth())))
    figure.text(0.0, -0.01, wrapped, ha="left", va="top", size=5.5, color="0.35", gid="stamp")


def _shown(name: object) -> str:
    """Names as the papers print them."""
    return "μP" if name == "muP" else str(name)


def curves(
    panel: Panel, frame: pd.DataFrame, *, x: str, y: str, by: str, markers: bool = True
) -> None:
    """Mean line and min-max band over repeats, one line a value of `by`."""
    colours = sns.color_palette("colorblind")
    for i, (name, group) in enumerate(frame.groupby(by, sort=False)):
        stats = group.groupby(x)[y].agg(["mean", "min", "max"])
        colour = colours[i % len(colours)]
        panel.plot(
            stats.index,
            stats["mean"],
            color=colour,
            linestyle=DASHES[i % len(DASHES)],
            marker=MARKERS[i % len(MARKERS)] if markers else None,
            markevery=max(1, len(stats) // 12),
            label=_shown(name),
        )
        panel.fill_between(stats.index, stats["min"], stats["max"], color=colour, alpha=0.15, lw=0)


def coordinate_check(
    frame: pd.DataFrame, *, rows: Mapping[str, str], columns: Sequence[str]
) -> Figure:
    """Size against width in log-log, one panel a quantity (rows) and parametrisation (columns).

    frame : columns `quantity`, `parametrization`, `layer`, `width`, `seed`, `rms`.
    rows : quantity -> axis label.
    """
    figure, panels = plt.subplots(
        len(rows),
        len(columns),
        figsize=(7.0, 2.0 * len(rows)),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for i, (quantity, label) in enumerate(rows.items()):
        for j, name in enumerate(columns):
            panel = panels[i, j]
            chosen = frame[(frame.quantity == quantity) & (frame.parametrization == name)]
            curves(panel, chosen, x="width", y="rms", by="layer")
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            if i == 0:
                panel.set_title(_shown(name))
            if j == 0:
                panel.set_ylabel(label)
            if i == len(rows) - 1:
                panel.set_xlabel("width N")
    panels[0, -1].legend(title="layer", loc="best")
    return figure


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
                panel.set_ylabel(_shown(row))
    assert image is not None
    figure.colorbar(image, ax=panels, shrink=0.6, label=label, extend="both")
    return figure


def shares(frame: pd.DataFrame, *, columns: Sequence[str]) -> Figure:
    """Share of ‖W‖² in the k leading outer products against k, one panel a parametrisation.

    frame : columns `parametrization`, `matrix`, `k`, `seed`, `share`.
    """
    figure, panels = plt.subplots(1, len(columns), figsize=(7.0, 2.3), sharey=True, squeeze=False)
    for panel, name in zip(panels[0], columns, strict=True):
        curves(
            panel,
            frame[frame.parametrization == name],
            x="k",
            y="share",
            by="matrix",
            markers=False,
        )
        panel.set_xscale("log")
        panel.set_ylim(0, 1.02)
        panel.set_title(_shown(name))
        panel.set_xlabel("number k of outer products")
    panels[0, 0].set_ylabel("share of the squared norm")
    panels[0, 0].legend(loc="lower right")
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


def exponents_over_time(frame: pd.DataFrame, *, predicted: Mapping[str, float]) -> Figure:
    """Fitted exponents against the epoch, one panel a variant, one line an index.

    frame : columns `bias`, `index`, `seed`, `epoch`, `exponent`. predicted : variant -> exponent
    of the theory, drawn dotted; its keys choose and order the panels.
    """
    figure, panels = plt.subplots(
        1,
        len(predicted),
        figsize=(min(2.6 * len(predicted), WIDTH), 2.4),
        sharey=True,
        squeeze=False,
    )
    for panel, (name, value) in zip(panels[0], predicted.items(), strict=True):
        curves(panel, frame[frame.bias == name], x="epoch", y="exponent", by="index")
        panel.axhline(value, color="0.3", lw=0.9, ls=":")
        panel.set_xscale("log")
        epochs = sorted(set(frame.epoch))
        if len(epochs) <= 6:  # a few are named themselves
            panel.set_xticks(epochs, [f"{epoch:g}" for epoch in epochs])
            panel.xaxis.minorticks_off()
        panel.set_xlabel("epoch")
        panel.set_title(name)
    panels[0, 0].set_ylabel("exponent of N in the spread")
    panels[0, -1].legend()
    return figure


def transfer_panels(
    columns: Mapping[str, pd.DataFrame], *, transfer_epoch: int, chance_accuracy: float
) -> Figure:
    """Figure 4.3's six panels: training loss above, test accuracy below, three columns.

    columns : title -> long data with columns `epoch`, `train_loss`, `test_accuracy`, `seed`,
    `name`; the second and third column show transfers at `transfer_epoch`.
    """
    figure, panels = plt.subplots(
        2, len(columns), figsize=(min(3.0 * len(columns), WIDTH), 4.9), sharey="row", squeeze=False
    )
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    for i, y in enumerate(("train_loss", "test_accuracy")):
        for j, (title, frame) in enumerate(columns.items()):
            panel = panels[i, j]
            curves(panel, frame, x="epoch", y=y, by="name")
            panel.set_title(f"({next(letters)}) {title if i == 0 else ''}".rstrip())
            if j > 0:
                panel.axvline(transfer_epoch, color="0.4", lw=0.8, ls=":")
            if i == 1:
                panel.axhline(chance_accuracy, color="0.4", lw=0.8, ls="--")
                panel.set_xlabel("epoch")
                # Below the column, where it hides no curve.
                panel.legend(fontsize=6, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.24))
    panels[0, 0].set_ylabel("training loss (nats)")
    panels[1, 0].set_ylabel("test accuracy")
    return figure
