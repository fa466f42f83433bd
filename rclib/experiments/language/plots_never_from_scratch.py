"""Figures of notebook 90: accuracies from scratch and after denoising; the denoising phase; what it
writes."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour

__all__ = ["accuracy_panels", "phase_panels", "weight_panels"]

NAMES = {"transformer": "Transformer", "ssm": "state space"}
DIGITS = {  # variant, kind: its name
    ("plain", "transformer"): "T", ("shuffled pixels", "transformer"): "T", ("plain", "ssm"): "S",
    ("random kernels", "ssm"): "S,\nrandom", ("more images", "transformer"): "T,\nlarger",
    ("more images", "ssm"): "S,\nlarger",
}  # fmt: skip
ARMS = ("scratch", "denoised", "shuffled")
SAID = {
    "scratch": "from scratch", "denoised": "after denoising",
    "shuffled": "after denoising\nshuffled pixels",
}  # fmt: skip


def _points(panel: Panel, frame: pd.DataFrame, groups: Sequence[str], column: str) -> None:
    """Means and 95 percent intervals over seeds of each arm, side by side in each group."""
    for number, arm in enumerate(ARMS):
        over = frame[frame.arm == arm].groupby("group")[column]
        if not over.ngroups:
            continue
        at = [groups.index(group) + 0.22 * (number - 0.5) for group in over.mean().index]
        panel.errorbar(
            at, over.mean(), yerr=parts.half_widths(over).reindex(over.mean().index), ls="",
            marker=MARKERS[number], ms=4.5, color=colour(number), capsize=2, elinewidth=0.9,
            label=SAID[arm],
        )  # fmt: skip
    panel.set_xticks(range(len(groups)), list(groups))
    panel.set_xlim(-0.6, len(groups) - 0.4)


@redrawable
def accuracy_panels(
    digits: pd.DataFrame, sequences: pd.DataFrame, best: dict[str, float]
) -> Figure:
    """Test accuracy on digits as 64 pixels, and on generated sequences.

    digits : variant, kind, arm, seed, test. sequences : also task and permuted. best : task ->
    best possible accuracy.
    """
    figure, panels = plt.subplots(
        1, 2, figsize=(WIDTH, 3.0), layout="constrained", width_ratios=[1, 1.9]
    )
    panel = panels[0]
    own = digits.assign(
        group=[DIGITS[key] for key in zip(digits.variant, digits.kind, strict=True)]
    )
    groups = [name for name in dict.fromkeys(DIGITS.values()) if name in set(own.group)]
    _points(panel, own, groups, "test")
    panel.tick_params(axis="x", labelsize=6)
    panel.axhline(0.1, color=GREY, lw=0.9, ls=":")
    panel.set_ylim(0, 1)
    panel.set_ylabel("test accuracy")
    panel.set_title("digits, 64 pixels")
    known = panel.get_legend_handles_labels()
    panel = panels[1]
    short = {"transformer": "T", "ssm": "S"}
    task = sequences.task + np.where(sequences.permuted, ",\nmoved", "")
    own = sequences.assign(group=sequences.kind.map(short) + "\n" + task)
    groups = list(dict.fromkeys(own.sort_values(["task", "permuted", "kind"]).group))
    _points(panel, own, groups, "test")
    for name, value in best.items():
        inside = [place for place, group in enumerate(groups) if name in group]
        if inside:
            panel.hlines(value, min(inside) - 0.45, max(inside) + 0.45, color=GREY, lw=0.9, ls=":")
    panel.tick_params(axis="x", labelsize=6)
    panel.set_ylim(0, 1)
    panel.set_title("generated sequences (T: Transformer, S: state space)")
    panel.legend(*known, fontsize=6, loc="lower right")
    parts.letters(figure)
    return figure


@redrawable
def phase_panels(course: pd.DataFrame, kernels: pd.DataFrame) -> Figure:
    """Denoising losses against steps, and the largest kernel entry against the lag.

    course : kind, seed, step, loss. kernels : init, moment, seed, lag, size.
    """
    figure, panels = plt.subplots(1, 3, figsize=(WIDTH, 2.5), layout="constrained")
    panel = panels[0]
    for number, (kind, name) in enumerate(NAMES.items()):
        over = course[course.kind == kind].groupby("step").loss
        mean, half = over.mean(), parts.half_widths(over)
        panel.plot(mean.index, mean, color=colour(number), marker=MARKERS[number], ms=3, label=name)
        panel.fill_between(
            mean.index, mean - half, mean + half, color=colour(number), alpha=0.2, lw=0
        )
    panel.set_xlabel("denoising steps")
    panel.set_ylabel("loss on hidden pixels")
    panel.set_title("denoising the digits")
    panel.legend(fontsize=6)
    for panel, init in zip(panels[1:], ("structured", "random"), strict=True):
        own = kernels[kernels.init == init]
        if own.empty:  # not run
            panel.set_axis_off()
            continue
        for number, (moment, name) in enumerate(
            {"start": "start", "denoised": "denoised", "labels": "labels alone"}.items()
        ):
            mean = own[own.moment == moment].groupby("lag")["size"].mean()
            panel.plot(mean.index, mean, color=colour(number + 2), lw=1.1, label=name)
        for lag in (8, 16, 24):
            panel.axvline(lag, color=GREY, lw=0.7, ls=":")
        if init == "random":
            panel.set_yscale("log")
        panel.set_xlim(0, 32)
        panel.set_xticks([0, 8, 16, 24, 32])
        inside = own[own.lag <= 32].groupby(["moment", "lag"])["size"].mean()
        panel.set_ylim(0.7 * inside.min(), 1.4 * inside.max())
        panel.set_xlabel("lag in pixels")
        panel.set_title(f"{init} kernels")
    panels[1].set_ylabel("largest |k|")
    panels[1].legend(fontsize=6, framealpha=0.9, loc="upper right")
    parts.letters(figure)
    return figure


@redrawable
def weight_panels(attention: pd.DataFrame, digits: pd.DataFrame) -> Figure:
    """Attention of positions to each other by distance, after labels and after denoising, and
    measures of the table of positions and of the scores.

    attention : arm, down, right, share times 64. digits : variant, kind, arm, seed and
    "<measure>, <moment>".
    """
    figure, panels = plt.subplots(
        1, 3, figsize=(WIDTH, 2.6), layout="constrained", width_ratios=[1, 1, 1.6]
    )
    near = attention[(attention.down.abs() <= 4) & (attention.right.abs() <= 4)]
    top = float(near.share.max())
    for panel, arm, title in (
        (panels[0], "scratch", "after labels"), (panels[1], "denoised", "after denoising")
    ):  # fmt: skip
        grid = near[near.arm == arm].pivot(index="down", columns="right", values="share")
        drawn = panel.imshow(grid, vmin=0, vmax=top, cmap="viridis", extent=(-4.5, 4.5, 4.5, -4.5))
        panel.set_xticks([-4, 0, 4])
        panel.set_yticks([-4, 0, 4])
        panel.set_xlabel("columns apart")
        panel.set_title(title)
    panels[0].set_ylabel("rows apart")
    bar = figure.colorbar(drawn, ax=list(panels[:2]), location="bottom", shrink=0.7, aspect=30)
    bar.set_label("attention over the uniform one", size=7)
    panel = panels[2]
    own = digits[digits.variant.isin(["plain", "shuffled pixels"])]
    groups = ["rows", "columns", "table", "scores", "rc"]
    said = ["rows", "columns", "P beyond\nthe edge", "top of\nPMPᵀ", "RC of\nPMPᵀ"]
    frames = [
        pd.DataFrame({
            "group": group, "arm": arm,
            "value": own[(own.kind == "transformer") & (own.arm == arm)][
                f"{group}, {'end' if arm == 'scratch' else 'denoised'}"
            ],
        })
        for group in groups for arm in ARMS
    ]  # fmt: skip
    _points(panel, pd.concat(frames), groups, "value")
    panel.set_xticks(range(len(groups)), said, size=6)
    panel.axhline(0, color=GREY, lw=0.9, ls=":")
    low, high = panel.get_ylim()
    panel.set_ylim(low, high + 0.35 * (high - low))
    panel.set_title("positions")
    panel.legend(fontsize=5.5, loc="upper left")
    parts.letters(figure)
    return figure
