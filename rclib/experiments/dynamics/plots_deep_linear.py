"""Panels of notebook 60: courses of modes, their half-times, spikes, steps against depth."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.panels import curves
from rclib.plots.style import GREY, WIDTH, looks, ordered

__all__ = ["course_panels", "depth_panels"]


@redrawable
def course_panels(
    courses: pd.DataFrame, halves: pd.DataFrame, counts: pd.DataFrame, tree: pd.DataFrame,
    apart: pd.DataFrame, means: pd.DataFrame,
) -> Figure:  # fmt: skip
    """Strengths of the modes in time with their closed form, half-times against strength, modes of
    the tree, spikes of W21, an unbalanced start, and rows and columns of W21.

    courses : mode, s, t, u, exact. halves : arm, seed, s, half. counts : t, seen, due. tree : mode,
    s, t, u. apart : as courses, and printed. means : arm, seed, t, means. Each is of one network
    except `halves` and `means`.
    """
    figure, ((left, middle), (low_left, low_right), (unbalanced, rows)) = plt.subplots(
        3, 2, figsize=(WIDTH, 6.6), layout="constrained"
    )
    _courses(left, courses)
    left.set_title("one mode after the other")
    _courses(unbalanced, apart)
    unbalanced.set_title("an unbalanced start")
    _half_times(middle, halves)
    shades = ordered([-s for s in tree.s.round(6).unique()])
    for (s, _), group in tree.assign(s=tree.s.round(6)).groupby(["s", "mode"], sort=False):
        low_left.plot(group.t, group.u / s, color=shades[-s]["color"], lw=1.0)
    names = ["all items", *[f"split {k}" for k in range(1, len(shades))]]
    lines = [
        Line2D([], [], color=shades[s]["color"], label=name)
        for s, name in zip(sorted(shades), names, strict=True)
    ]
    low_left.legend(handles=lines, fontsize=6, loc="lower right")
    low_left.set_title("a tree of 8 items: broad splits first")
    _times(low_left, "strength u / s")
    low_right.step(counts.t, counts.seen, where="post", color="0.1", lw=1.2)
    low_right.step(counts.t, counts.due, where="post", color="C1", lw=1.2, ls="--")
    low_right.legend(
        ["eigenvalues of W₂₁ᵀW₂₁ beyond its start's edge", "modes with u beyond that edge"],
        fontsize=6,
        loc="lower right",
    )
    low_right.set_title("learned modes are spikes of W₂₁")
    _times(low_right, "how many")
    parts.few_ticks(low_right, "y")
    curves(rows, means, x="t", y="means", by="arm", markers=False)
    rows.legend(fontsize=6, loc="upper right")
    rows.set_title("row-column structure of W₂₁")
    _times(rows, "share of variance over chance")
    parts.letters(figure)
    return figure


def _courses(panel: Axes, courses: pd.DataFrame) -> None:
    shades = ordered([-s for s in courses.s.unique()])
    for s, group in courses.groupby("s", sort=False):
        colour = shades[-s]["color"]
        panel.plot(group.t, group.exact, color=colour, lw=1.2)
        if "printed" in group:
            panel.plot(group.t, group.printed, color=colour, lw=0.9, ls=":")
        thin = group.iloc[:: max(1, len(group) // 25)]
        panel.plot(thin.t, thin.u, "o", color=colour, ms=2.5)
        panel.annotate(
            f"s = {s:g}", (float(group.t.max()), float(group.u.iloc[-1])), (0, -4), ha="right",
            va="top", textcoords="offset points", fontsize=6, color=colour,
        )  # fmt: skip
    handles = [
        Line2D([], [], color=GREY, marker="o", ls="", ms=2.5, label="gradient descent"),
        Line2D([], [], color=GREY, lw=1.2, label="closed form"),
    ]
    if "printed" in courses:
        handles.append(Line2D([], [], color=GREY, lw=0.9, ls=":", label="as printed"))
    panel.legend(handles=handles, loc="center right", bbox_to_anchor=(1.0, 0.72), fontsize=6)
    _times(panel, "strength u of a mode")


def _times(panel: Axes, label: str) -> None:
    panel.set_xlabel("time t = steps × rate (in τ)")
    panel.set_ylabel(label)
    panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))


def _half_times(panel: Axes, halves: pd.DataFrame) -> None:
    curves(panel, halves, x="s", y="half", by="arm")
    strengths = sorted(halves.s.unique())
    top = halves[(halves.s == strengths[0])].groupby("arm").half.mean().max()
    parts.log_axis(panel, "x")
    parts.log_axis(panel, "y")
    parts.guide(panel, strengths, 1.25 * top, -1.0)
    panel.set_xticks(strengths, [f"{s:g}" for s in strengths])
    panel.minorticks_off()
    panel.set_xlabel("strength s of the mode")
    panel.set_ylabel("time to s / 2 (in τ)")
    panel.set_title("strong modes are fast")
    panel.set_ylim(top=2.2 * top)
    parts.direct_labels(
        panel, {"larger start": "two, larger start", "regression": "one (regression)"}
    )


@redrawable
def depth_panels(
    depths: pd.DataFrame, images: pd.DataFrame, tanh: pd.DataFrame, most: int
) -> Figure:
    """Steps at the best rate against the number of matrices, for drawn modes and for images, and
    the loss of deep tanh networks against the gain of their start.

    depths, images : start, depth, seed, steps. tanh : start, gain, seed, loss. most : where runs
    were stopped.
    """
    figure, panels = plt.subplots(1, 3, figsize=(WIDTH, 2.5), layout="constrained")
    look = looks(["orthogonal", "Gaussian", "aligned", "pretrained"])
    for panel, frame, title in zip(
        panels, (depths, images), ("drawn modes", "images, whitened"), strict=False
    ):
        curves(panel, frame, x="depth", y="steps", by="start", look=look)
        panel.set_xscale("log", base=2)
        sizes = sorted(frame.depth.unique())
        panel.set_xticks(sizes, [str(n) for n in sizes])
        parts.log_axis(panel, "y")
        panel.set_ylim(top=1.6 * most)
        parts.level(panel, most, f"stopped at {most}")
        panel.set_xlabel("number of matrices")
        panel.set_ylabel("steps to 5 % of the error")
        panel.set_title(title)
    panels[0].legend(fontsize=6, loc="lower right")
    curves(panels[2], tanh, x="gain", y="loss", by="start", look=look)
    parts.log_axis(panels[2], "y")
    panels[2].set_xlabel("gain of the start")
    panels[2].set_ylabel("training loss")
    panels[2].set_title("deep tanh networks")
    panels[2].legend(fontsize=6)
    parts.letters(figure)
    return figure
