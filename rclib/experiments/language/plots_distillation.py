"""Panels of notebook 94: distilled images, steps of the experts, accuracies, spanned directions."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks

__all__ = ["accuracy_panels", "image_panels"]

SHOWN = ("plain", "clip", "half rate", "penalty")


@redrawable
def image_panels(images: Mapping[str, np.ndarray], *, side: int, limit: float) -> Figure:
    """Rows of images on one grey scale. images : row -> (K, side * side); limit : of grey values,
    on both sides of 0."""
    rows, n = list(images), len(next(iter(images.values())))
    figure, panels = plt.subplots(
        len(rows), n, figsize=(WIDTH, 0.72 * len(rows)), layout="constrained", squeeze=False
    )
    for line, name in zip(panels, rows, strict=True):
        for panel, image in zip(line, images[name], strict=True):
            panel.imshow(image.reshape(side, side), cmap="gray_r", vmin=-limit, vmax=limit)
            panel.set_xticks([])
            panel.set_yticks([])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)
    return figure


def _norms(panel: Panel, paths: pd.DataFrame) -> None:
    for name, look in looks(SHOWN).items():
        over = paths[paths.expert == name].groupby("epoch").norm
        middle, half = over.mean(), parts.half_widths(over)
        panel.plot(middle.index + 1, middle, label=name, lw=1.2, ms=3, **look)
        half = half.reindex(middle.index)
        panel.fill_between(
            middle.index + 1, middle - half, middle + half, color=look["color"], alpha=0.15, lw=0
        )
    parts.few_ticks(panel)
    panel.set_ylim(0, None)
    panel.set_xlabel("epoch")
    panel.set_ylabel("‖θ after − θ before‖")
    panel.set_title("steps of experts")
    panel.legend(fontsize=6, loc="upper right")


def _accuracies(panel: Panel, frame: pd.DataFrame, expert: float) -> None:
    over = frame.groupby("arm", sort=False).accuracy
    middle, half = over.mean(), parts.half_widths(over)
    for place, arm in enumerate(middle.index):
        real = str(arm).startswith("real")
        own = frame[frame.arm == arm].accuracy
        panel.plot(own, np.full(len(own), place), ".", ms=2, color="0.7", zorder=1)
        panel.errorbar(
            middle[arm], place, xerr=half[arm], fmt=MARKERS[int(real)], ms=4, lw=1.2,
            color=colour(int(real)), zorder=3,
        )  # fmt: skip
    panel.axvline(float(middle["real, means"]), color=GREY, lw=0.8, ls=":")
    panel.axvline(expert, color=GREY, lw=0.8, ls="--")
    panel.set_yticks(range(len(middle)), [str(arm) for arm in middle.index], fontsize=6)
    panel.invert_yaxis()
    panel.set_xlabel("test accuracy (dotted: class means,\ndashed: experts)")
    panel.set_title("one image a class")


def _spans(panel: Panel, frame: pd.DataFrame) -> None:
    means = frame.groupby("arm", sort=False)[["expert span", "accuracy"]].mean()
    for real in (False, True):
        own = means[[str(arm).startswith("real") == real for arm in means.index]]
        panel.plot(
            own["expert span"], own.accuracy, MARKERS[int(real)], ms=4, ls="",
            color=colour(int(real)), label="real images" if real else "distilled",
        )  # fmt: skip
    panel.annotate(
        "shuffled", means.loc["shuffled"].to_list(), xytext=(4, 2), textcoords="offset points",
        fontsize=6, color=GREY,
    )  # fmt: skip
    panel.set_xlabel("share of the experts' ‖ΔW₁‖²\nin the span of the images")
    panel.set_ylabel("test accuracy")
    panel.set_title("what the images span")
    panel.legend(fontsize=6, loc="lower right")


def _shares(panel: Panel, paths: pd.DataFrame) -> None:
    over = paths[paths.expert == "plain"].dropna().groupby("epoch").share
    middle, half = over.mean(), parts.half_widths(over)
    panel.errorbar(
        middle.index, middle, half.reindex(middle.index), fmt="o-", ms=3, lw=1.2, color=colour(0)
    )
    panel.set_ylim(min(0.88, float(middle.min()) - 0.01), 1.006)
    parts.level(panel, 1.0, "students: 10 images, rank 10")
    parts.few_ticks(panel)
    panel.set_xlabel("epoch at which two epochs begin")
    panel.set_ylabel("share of ‖ΔW₁‖² in 10 directions")
    panel.set_title("rank of the change")


@redrawable
def accuracy_panels(paths: pd.DataFrame, frame: pd.DataFrame, *, expert: float) -> Figure:
    """Steps of experts, accuracy of every arm, rank of the change, span against accuracy.

    paths : expert, epoch, norm, share. frame : seed, arm, accuracy, expert span. expert : accuracy.
    """
    figure = plt.figure(figsize=(WIDTH, 5.0), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    _norms(figure.add_subplot(grid[0, 0]), paths)
    _shares(figure.add_subplot(grid[1, 0]), paths)
    _accuracies(figure.add_subplot(grid[:, 1]), frame, expert)
    _spans(figure.add_subplot(grid[:, 2]), frame)
    parts.letters(figure)
    return figure
