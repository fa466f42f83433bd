"""Panels of notebook 44: what search finds, what becomes of it, and whether masks differ at all."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, GREY, MARKERS, WIDTH, colour

__all__ = ["gain_panels", "search_panels"]

SHOWN = ("searched", "random", "worst")
NAMES = {
    "searched": "lowest loss of all",
    "few": "lowest loss of few",
    "narrow": "smallest outputs",
    "worst": "highest loss",
    "moved": "lowest, other parent",
}
WHEN = {"early": "early", "mean": "mean of the curve", "end": "end"}


def _courses(panel: Axes, courses: pd.DataFrame) -> None:
    for k, arm in enumerate(("dense", *SHOWN)):
        over = courses[courses.arm == arm].groupby("step").score
        mean, error = over.mean(), parts.half_widths(over)
        shade = GREY if arm == "dense" else colour(k - 1)
        panel.plot(mean.index, mean, color=shade, ls=DASHES[k], lw=1.2, label=arm)
        panel.fill_between(mean.index, mean - error, mean + error, color=shade, alpha=0.2, lw=0)
    panel.set_xlabel("step")
    panel.set_ylabel("test accuracy")
    panel.legend(fontsize=6, loc="lower right")
    panel.set_title("and what becomes of it")


@redrawable
def search_panels(masks: pd.DataFrame, courses: pd.DataFrame, repeats: pd.DataFrame) -> Figure:
    """Initial losses of all masks, training of the chosen ones, score against initial loss, and
    against the score in another order of the batches.

    masks : seed, loss, kind, of one parent. courses : arm ("dense" and three more), seed, step,
    score. repeats : as `random_search_sparse.repeat_frame`, of one parent.
    """
    figure, grid = plt.subplots(2, 2, figsize=(WIDTH, 4.8), layout="constrained")
    left, right, low_left, low_right = grid.flat
    left.hist(masks.loss, bins=20, color=GREY, alpha=0.5)
    top = left.get_ylim()[1]
    left.set_ylim(0, 1.45 * top)
    for k, arm in enumerate(SHOWN):
        at = float(masks.loss[masks.kind == arm].iloc[0]) if arm in set(masks.kind) else np.nan
        left.plot([at, at], [0, (1.05 + 0.1 * k) * top], color=colour(k), ls=DASHES[k + 1], lw=1.2)
        left.plot(at, (1.05 + 0.1 * k) * top, MARKERS[k], color=colour(k), ms=4, label=arm)
    left.legend(fontsize=6, loc="upper center", ncols=3, columnspacing=0.8, handletextpad=0.2)
    left.set_xlabel("initial loss")
    left.set_ylabel("number of masks")
    left.set_title("what search finds")
    _courses(right, courses)
    end = repeats[[f"score_{i}{j}" for i in (0, 1) for j in (0, 1)]].mean(axis=1)
    low_left.plot(repeats.loss.rank(), end, ".", color=colour(0), ms=4)
    low_left.set_xlabel("rank of the initial loss")
    low_left.set_ylabel("test accuracy at the end")
    low_left.set_title("the initial loss does not see")
    low_right.plot(repeats.score_00, repeats.score_11, ".", color=colour(0), ms=4)
    slope, level = np.polyfit(repeats.score_00, repeats.score_11, 1)
    ends = np.array([repeats.score_00.min(), repeats.score_00.max()])
    low_right.plot(ends, slope * ends + level, color=GREY, ls="--", lw=1.0)
    low_right.set_xlabel("accuracy, order 1, half 1")
    low_right.set_ylabel("accuracy, order 2, half 2")
    low_right.set_title("what masks differ in")
    parts.letters(figure)
    return figure


@redrawable
def gain_panels(gains: pd.DataFrame, link: pd.DataFrame, early: int) -> Figure:
    """Differences from one random mask, early, over the curve and at the end; and of W1.

    gains : as `random_search_sparse.shown_gains`. link : sparsity, measure ("spikes",
    "correlation"), value, one row a parent.
    """
    figure, grid = plt.subplots(2, 2, figsize=(WIDTH, 5.0), layout="constrained")
    plain = gains[(gains.task == "labels") & ~gains.rescaled]
    titles = {"early": f"after {early} steps", "end": "at the end"}
    for panel, (when, title) in zip(grid[0], titles.items(), strict=True):
        at = plain[plain.when == when]
        cases = list(dict.fromkeys(at.sparsity))
        for k, arm in enumerate(NAMES):
            one = at[at.arm == arm]
            places = np.arange(len(cases)) + 0.14 * (k - 2)
            error = [one["mean"] - one.low, one.high - one["mean"]]
            panel.errorbar(
                places, one["mean"], error, fmt=MARKERS[k], color=colour(k), ms=3, lw=1.0,
                label=NAMES[arm],
            )  # fmt: skip
        panel.axhline(0.0, color=GREY, ls=":", lw=0.9)
        panel.set_xticks(range(len(cases)), [f"{case:g}" for case in cases])
        panel.set_xlabel("sparsity")
        panel.set_ylabel("accuracy over one draw")
        panel.set_title(title)
    low, high = grid[0, 1].get_ylim()
    grid[0, 1].set_ylim(low, high + 0.45 * (high - low))
    grid[0, 1].legend(fontsize=6, loc="upper left", ncols=2, columnspacing=0.8, handletextpad=0.2)
    scaled = gains[(gains.arm == "searched") | (gains.arm == "narrow") | (gains.arm == "worst")]
    keep = set(gains[gains.rescaled].keep)
    scaled = scaled[scaled.keep.isin(keep) & (scaled.task == "labels")]
    rows, names = [], []
    for rescaled in (False, True):
        for arm in ("searched", "narrow", "worst"):
            rows.append(scaled[(scaled.rescaled == rescaled) & (scaled.arm == arm)])
            names.append(f"{NAMES[arm]}{', rescaled' if rescaled else ''}")
    for k, (when, told) in enumerate(WHEN.items()):
        for row, one in enumerate(rows):
            own = one[one.when == when]
            if len(own):
                mean = own["mean"].iloc[0]
                error = [[mean - own.low.iloc[0]], [own.high.iloc[0] - mean]]
                grid[1, 0].errorbar(
                    mean, row + 0.2 * (k - 1), xerr=error, fmt=MARKERS[k], color=colour(k), ms=3,
                    lw=1.0, label=told if row == 0 else None,
                )  # fmt: skip
    grid[1, 0].axvline(0.0, color=GREY, ls=":", lw=0.9)
    grid[1, 0].set_yticks(range(len(names)), names)
    grid[1, 0].set_ylim(len(names) + 0.6, -0.7)
    grid[1, 0].legend(fontsize=6, loc="lower center", ncols=3, columnspacing=0.8, handletextpad=0.2)
    grid[1, 0].set_xlabel("accuracy over one draw")
    grid[1, 0].set_title("what the scale does")
    panel = grid[1, 1]
    for k, (measure, group) in enumerate(link.groupby("measure", sort=False)):
        over = group.groupby("sparsity").value
        mean, error = over.mean(), parts.half_widths(over)
        panel.errorbar(
            np.arange(len(mean)) + 0.1 * (2 * k - 1), mean, error, fmt=MARKERS[k], color=colour(k),
            ms=4, lw=1.0, label=str(measure),
        )  # fmt: skip
        panel.set_xticks(range(len(mean)), [f"{case:g}" for case in mean.index])
    panel.axhline(0.0, color=GREY, ls=":", lw=0.9)
    panel.set_xlabel("sparsity")
    panel.set_ylabel("searched minus random")
    low, high = panel.get_ylim()
    panel.set_ylim(low - 0.25 * (high - low), high)
    panel.legend(fontsize=6, loc="lower left", ncols=2)
    panel.set_title("first matrix after training")
    parts.letters(figure)
    return figure
