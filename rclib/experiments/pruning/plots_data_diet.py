"""Figures of notebook 45: gains over random subsets, scores over training, windows, and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, GREY, MARKERS, WIDTH, colour

__all__ = ["diet_panels", "hard_panels", "inside_panels"]

# Kind of subset -> its number among the colours and markers.
SHOWN: Mapping[str, int] = {
    "EL2N": 0,
    "GraNd at start": 1,
    "EL2N at start": 2,
    "lowest EL2N": 3,
    "forgetting": 4,
    "input norm": 5,
}
CURVES: Mapping[str, str] = {
    "agreement": "EL2N with GraNd",
    "reliability": "two half committees",
    "auc": "AUC, wrong labels",
    "norm": "GraNd with input norm",
}


@redrawable
def diet_panels(
    gains: pd.DataFrame, scores: pd.DataFrame, pictures: Mapping[str, np.ndarray]
) -> Figure:
    """Accuracy over that of a random subset against the share that is kept; scores over epochs;
    windows of the order with and without wrong labels; and examples of both ends.

    gains : as `data_diet.shown_gains` returns it. scores : epoch, agreement, reliability, auc,
    norm. pictures : "lowest" and "highest" -> (n, side, side).
    """
    figure = plt.figure(figsize=(WIDTH, 3.5), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=[1.0, 0.25])
    left, middle, right = (figure.add_subplot(grid[0, k]) for k in range(3))
    left.set_yscale("symlog", linthresh=0.03)  # effects of 0.01 and of 0.4
    left.set_yticks([-0.3, -0.1, -0.03, 0.0, 0.03], ["−0.3", "−0.1", "−0.03", "0", "0.03"])
    left.minorticks_off()
    _gain_lines(left, gains, [*SHOWN], legend=False)
    handles = left.get_legend_handles_labels()
    names = figure.add_subplot(grid[1, 0])
    names.set_axis_off()
    names.legend(*handles, fontsize=6, ncols=2, loc="center")
    left.set_title("kept by a score")
    for k, (column, name) in enumerate(CURVES.items()):
        over = scores.groupby("epoch")[column]
        mean, low, high = over.mean(), over.min(), over.max()
        middle.plot(
            mean.index, mean, color=colour(k), ls=DASHES[k], marker=MARKERS[k], ms=3, label=name
        )
        middle.fill_between(mean.index, low, high, color=colour(k), alpha=0.15, lw=0)
    middle.set_xlabel("epoch of the scores")
    middle.set_ylabel("rank correlation, AUC")
    middle.set_title("scores settle early")
    middle.legend(fontsize=6, loc="center right")
    _windows(right, gains)
    right.set_title("a window of the order")
    for k, name in enumerate(("lowest", "highest")):
        strip = figure.add_subplot(grid[1, 1 + k])
        strip.imshow(np.concatenate(list(pictures[name]), axis=1), cmap="gray_r")
        strip.set_xlabel(f"{name} EL2N", fontsize=7)
        strip.set_xticks([])
        strip.set_yticks([])
    parts.letters(figure)
    return figure


def _gain_lines(
    panel: Axes, gains: pd.DataFrame, kinds: Sequence[str], *, legend: bool = True
) -> None:
    clean = gains[gains.noise == 0]
    for kind in kinds:
        group = clean[clean.kind == kind].sort_values("share")
        if len(group):
            k = SHOWN[kind]
            panel.errorbar(
                group.share, group.gain, group.error, color=colour(k), ls=DASHES[k],
                marker=MARKERS[k], ms=3, lw=1.2, elinewidth=0.8, label=kind,
            )  # fmt: skip
    full = clean[clean.kind == "all data"].sort_values("share")
    panel.plot(full.share, full.gain, color=GREY, ls="--", lw=1.0, label="all data")
    panel.set_xlabel("share of the data kept")
    panel.set_ylabel("accuracy over random subset")
    if legend:
        panel.legend(fontsize=6, loc="center left")
    parts.level(panel, 0.0, "random subset")


def _windows(panel: Axes, gains: pd.DataFrame) -> None:
    shown = gains[gains.kind == "window"]
    for k, (noise, group) in enumerate(shown.groupby("noise")):
        group = group.sort_values("offset")
        name = "labels right" if noise == 0 else f"{noise:.0%} labels wrong"
        panel.errorbar(
            group.offset, group.gain, group.error, color=colour(k), ls=DASHES[k],
            marker=MARKERS[k], ms=3, lw=1.2, elinewidth=0.8, label=name,
        )  # fmt: skip
    if len(shown):
        width = float(shown.share.iloc[0])
        panel.set_xlabel(f"left out below, then {width:.0%} kept")
    if shown.noise.nunique() > 1:
        panel.legend(fontsize=6, loc="lower center")
    panel.set_ylabel("accuracy over random subset")
    parts.level(panel, 0.0, "random subset")


@redrawable
def hard_panels(gains: pd.DataFrame, convolutional: pd.DataFrame) -> Figure:
    """The same on a task that the networks do not solve: shares, windows, and a half of the data
    for two architectures.

    gains, convolutional : as `data_diet.shown_gains` returns it.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 2.6), layout="constrained")
    _gain_lines(left, gains, ["EL2N", "lowest EL2N", "GraNd at start", "forgetting"])
    left.set_title("kept by a score")
    _windows(middle, gains)
    middle.set_title("a window of the order")
    share = float(convolutional.share.iloc[0])
    both = {"fully connected": gains, "convolutional": convolutional}
    kinds = ["EL2N", "lowest EL2N"]
    for k, (name, frame) in enumerate(both.items()):
        chosen = frame[np.isclose(frame.share, share) & (frame.noise == 0)].set_index("kind")
        at = np.arange(len(kinds)) + 0.12 * (2 * k - 1)
        right.errorbar(
            at, chosen.gain[kinds], chosen.error[kinds], fmt=MARKERS[k], color=colour(k), ms=5,
            label=name,
        )  # fmt: skip
    right.set_xticks(range(len(kinds)), ["highest", "lowest"])
    right.set_xlim(-0.5, len(kinds) - 0.5)
    right.set_xlabel(f"EL2N of the {share:.0%} kept")
    right.set_ylabel("accuracy over random subset")
    right.set_title("two architectures")
    right.legend(fontsize=6, loc="lower right")
    parts.level(right, 0.0, "random subset")
    parts.letters(figure)
    return figure


@redrawable
def inside_panels(velocity: pd.DataFrame, barriers: pd.DataFrame, link: pd.DataFrame) -> Figure:
    """Easy and hard examples while a network trains, and what half of the data writes into the
    first matrix.

    velocity : seed, epoch, group, value, over that of random examples. barriers : the same columns.
    link : kind, seed, top, moved.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 2.7), layout="constrained")
    for panel, frame in ((left, velocity), (middle, barriers)):
        for k, group in enumerate(("lowest", "random", "highest")):
            over = frame[frame.group == group].groupby("epoch").value
            mean, error = over.mean(), parts.half_widths(over)
            if len(mean):
                panel.errorbar(
                    mean.index, mean, error, color=colour(k), ls=DASHES[k], marker=MARKERS[k],
                    ms=3, lw=1.2, elinewidth=0.8,
                    label=group if group == "random" else f"{group} EL2N",
                )  # fmt: skip
        panel.legend(fontsize=6, loc="best")
        parts.few_ticks(panel)
    parts.level(left, 1.0, "random examples")
    left.set_xlabel("epoch")
    left.set_ylabel("kernel velocity over random")
    left.set_title("the tangent kernel turns")
    middle.set_xlabel("epoch at which children part")
    middle.set_ylabel("error barrier")
    middle.set_title("children of one network")
    for k, kind in enumerate(dict.fromkeys(link.kind)):
        rows = link[link.kind == kind]
        right.plot(rows.moved, rows.top, MARKERS[k], color=colour(k), ms=3, alpha=0.7, label=kind)
    low, high = float(link.top.min()), float(link.top.max())
    right.set_ylim(low - 0.05 * (high - low), high + 0.45 * (high - low))
    right.set_xlabel("norm of the change of the weights")
    right.set_ylabel(r"top eigenvalue of $W_1^\top W_1$ / edge")
    right.set_title("half of the data")
    right.legend(fontsize=6, loc="upper left", ncols=2, columnspacing=0.8, handletextpad=0.2)
    parts.level(right, 1.0, "edge of the start's bulk")
    parts.letters(figure)
    return figure
