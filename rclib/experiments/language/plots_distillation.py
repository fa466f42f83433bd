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

__all__ = ["accuracy_panels", "image_panels", "natural_panels"]

SHOWN = ("plain", "clip", "half rate", "penalty")
LABELS = {
    "real, random": "random real", "real, nearest": "nearest to mean", "real, means": "class means",
}  # fmt: skip
CROWDED = 0.8  # above this span and accuracy most arms lie
LOW = 0.75  # left end of the accuracies, where more than half of the arms lie above it


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
    low = LOW if float((middle > LOW).mean()) > 0.5 else 0.0
    for place, arm in enumerate(middle.index):
        real = str(arm).startswith("real")
        if middle[arm] < low:  # left of the panel: its mean is written there
            panel.annotate(
                f"{middle[arm]:.2f}", (0, place), (16, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", fontsize=6.5, color=colour(int(real)),
                arrowprops={"arrowstyle": "->", "color": colour(int(real)), "lw": 0.9},
            )  # fmt: skip
            continue
        own = frame[frame.arm == arm].accuracy
        panel.plot(own, np.full(len(own), place), ".", ms=2, color="0.7", zorder=1)
        panel.errorbar(
            middle[arm], place, xerr=half[arm], fmt=MARKERS[int(real)], ms=4, lw=1.2,
            color=colour(int(real)), zorder=3,
        )  # fmt: skip
    panel.axvline(float(middle["real, means"]), color=GREY, lw=0.8, ls=":")
    panel.axvline(expert, color=GREY, lw=0.8, ls="--")
    names = [LABELS.get(str(arm), str(arm)) for arm in middle.index]
    panel.set_yticks(range(len(middle)), names, fontsize=6)
    panel.invert_yaxis()
    if low:
        panel.set_xlim(low, max(expert + 0.012, float(frame.accuracy.max()) + 0.005))
    panel.set_xlabel("test accuracy (dotted: class means,\ndashed: experts)")
    panel.set_title("one image a class")


def _spans(panel: Panel, frame: pd.DataFrame) -> None:
    over = frame.groupby("arm", sort=False)
    means, halves = over[["expert span", "accuracy"]].mean(), parts.half_widths(over.accuracy)
    crowded = (means > CROWDED).all(axis=1)
    inner = panel.inset_axes((0.24, 0.17, 0.62, 0.32))
    inner.tick_params(labelsize=5.5)
    inner.set_title("upper right corner", fontsize=6)
    for place in (panel, inner):
        for real in (False, True):
            here = np.array([str(arm).startswith("real") == real for arm in means.index])
            own = means[here & crowded if place is inner else here]
            half = halves[own.index] if place is inner else None
            place.errorbar(
                own["expert span"], own.accuracy, half, fmt=MARKERS[int(real)], ms=3.5, ls="",
                lw=0.7, color=colour(int(real)), label="not distilled" if real else "distilled",
            )  # fmt: skip
    for arm, at in means[~crowded].iterrows():
        if arm not in ("shuffled", *LABELS):
            continue
        panel.annotate(
            LABELS.get(str(arm), str(arm)), at.to_list(), xytext=(-4, 4), ha="right",
            textcoords="offset points", fontsize=6, color=GREY,
        )  # fmt: skip
    panel.set_xlim(0.1, 0.95)
    panel.set_xlabel("share of the experts' ‖ΔW₁‖²\nin the span of the images")
    panel.set_ylabel("test accuracy")
    panel.set_title("what the images span")
    panel.legend(fontsize=6, loc="upper left")


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
    figure = plt.figure(figsize=(WIDTH, 5.4), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    _norms(figure.add_subplot(grid[0, 0]), paths)
    _shares(figure.add_subplot(grid[1, 0]), paths)
    _accuracies(figure.add_subplot(grid[:, 1]), frame, expert)
    _spans(figure.add_subplot(grid[:, 2]), frame)
    parts.letters(figure)
    return figure


@redrawable
def natural_panels(frame: pd.DataFrame) -> Figure:
    """Accuracy of every arm on natural images, and its last matching loss.

    frame : seed, arm, accuracy, expert end, last loss (missing for images that are not distilled).
    """
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 2.6), layout="constrained")
    plain = frame[frame.arm == "plain"]
    _accuracies(panels[0], frame, float(plain["expert end"].mean()))
    learned = frame.dropna(subset=["last loss"])
    over = learned.groupby("arm", sort=False)["last loss"]
    middle = over.mean()
    panels[1].errorbar(
        middle, range(len(middle)), xerr=parts.half_widths(over)[middle.index], ls="", lw=1.2,
        marker=MARKERS[0], ms=4, color=colour(0),
    )  # fmt: skip
    panels[1].axvline(1, color=GREY, lw=0.8, ls=":")
    panels[1].set_yticks(range(len(middle)), [str(arm) for arm in middle.index], fontsize=6)
    panels[1].invert_yaxis()
    panels[1].set_xlabel("matching loss at the end\n(dotted: no progress)")
    panels[1].set_title("how well paths are followed")
    parts.letters(figure)
    return figure
