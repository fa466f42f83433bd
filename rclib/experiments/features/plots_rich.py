"""Panels of notebook 75: accuracies in the worst test, the first layer, numbers of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, GREY, MARKERS, WIDTH, colour, looks

__all__ = ["accuracy_panels", "feature_panels"]


def _line(panel: Panel, frame: pd.DataFrame, x: str, y: str, look: Any, label: str) -> None:
    """Mean and standard deviation over seeds."""
    over = frame.groupby(x)[y]
    middle, off = over.mean(), over.std()
    panel.plot(middle.index, middle, ms=3.2, lw=1.2, label=label, **look)
    panel.fill_between(
        middle.index, middle - off, middle + off, alpha=0.15, lw=0, color=look["color"]
    )


@redrawable
def accuracy_panels(
    curves: pd.DataFrame, strengths: pd.DataFrame, ends: pd.DataFrame, *, oracle: float,
    published: float,
) -> Figure:  # fmt: skip
    """Accuracy in the worst test against updates, by arm; after the last one against λ, by
    features and penalty; and in the test with colours reversed against that with colours as in
    training.

    curves : arm, seed, step, worst. strengths : arm, seed, strength, worst.
    ends : arm, seed, "e = 0.9", "e = 0.1". oracle : its accuracy here, published : that of vREx on
    fixed features in the paper.
    """
    figure, panels = plt.subplots(1, 3, figsize=(WIDTH, 3.5), layout="constrained")
    arms = list(dict.fromkeys([*ends.arm, *curves.arm, *strengths.arm]))
    look: Any = dict(zip(arms, _looks(len(arms)), strict=True))
    for panel, frame, x in ((panels[0], curves, "step"), (panels[1], strengths, "strength")):
        for arm, own in frame.groupby("arm", sort=False):
            _line(panel, own, x, "worst", look[str(arm)], str(arm))
        panel.set_ylim(0, 0.85)
        for value, style in ((oracle, ":"), (0.5, ":"), (published, "--")):
            panel.axhline(value, color=GREY, lw=0.8, ls=style, zorder=1)
        panel.annotate(
            "dotted: oracle, chance\ndashed: paper", (0.03, 0.97), xycoords="axes fraction",
            size=6, color=GREY, va="top",
        )  # fmt: skip
    panels[0].set_xlabel("updates")
    panels[0].set_ylabel("accuracy in the worst test")
    panels[0].set_title("training")
    panels[1].set_xscale("symlog", linthresh=100)
    panels[1].set_xlim(left=-20)
    panels[1].set_xlabel("λ")
    panels[1].set_title("heads on fixed features")
    panel = panels[2]
    for arm, own in ends.groupby("arm", sort=False):
        marks: Any = {**look[str(arm)], "ls": ""}
        panel.plot(own["e = 0.1"], own["e = 0.9"], ms=3.5, alpha=0.8, label=str(arm), **marks)
    panel.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    panel.plot([1, 0], [0, 1], color=GREY, lw=0.8, ls="--")
    panel.set_xlim(0.3, 1.0)
    panel.set_ylim(0.0, 0.85)
    panel.set_xlabel("accuracy, colours as in training")
    panel.set_ylabel("accuracy, reversed")
    panel.set_title("both tests")
    handles = [
        Line2D([], [], ms=3.5, lw=1.2, label=arm, **look[arm]) for arm in arms
    ]  # lines of (a) and (b), markers of (c)
    figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=6.5)
    parts.letters(figure)
    return figure


def _looks(n: int) -> list[Any]:
    """Colour, marker and kind of line of n arms; the eighth has the first one's colour."""
    return [
        {"color": colour(k), "marker": MARKERS[k % len(MARKERS)], "ls": DASHES[k % len(DASHES)]}
        for k in range(n)
    ]


@redrawable
def feature_panels(
    layers: pd.DataFrame, excess: pd.DataFrame, seeds: pd.DataFrame, *, guides: Sequence[float]
) -> Figure:
    """The first layer of each network: contrast of its top direction against the correlation of
    the channels' means; error above the oracle's against the number of features; and the arms'
    accuracies by seed.

    layers : network, seed, contrast, means. excess : network, features, seed, excess.
    seeds : task, arm, seed, worst. guides : correlations that were predicted to be bounds.
    """
    figure, panels = plt.subplots(1, 3, figsize=(WIDTH, 3.4), layout="constrained",
                                  width_ratios=[1, 1, 1])  # fmt: skip
    panel = panels[0]
    for number, (name, own) in enumerate(layers.groupby("network", sort=False)):
        panel.plot(
            own.means, own.contrast, MARKERS[number], ms=3.5, mew=0, alpha=0.8,
            color=colour(number), label=str(name),
        )  # fmt: skip
    for value in guides:
        panel.axvline(value, color=GREY, lw=0.8, ls=":")
    panel.set_xlim(-1.05, 1.05)
    panel.set_ylim(-0.03, 1.2)
    panel.set_xlabel("correlation of the channels' means")
    panel.set_ylabel("|cos| with the channels' contrast")
    panel.set_title("first layer")
    panel.legend(fontsize=6, loc="upper right")
    panel = panels[1]
    look = looks(list(dict.fromkeys(excess.network)))
    for name, own in excess.groupby("network", sort=False):
        _line(panel, own, "features", "excess", look[str(name)], str(name))
    parts.size_axis(panel, sorted(excess.features.unique()))
    panel.axhline(0, color=GREY, lw=0.8, ls=":")
    panel.set_xlabel("number of features")
    panel.set_ylabel("error above the oracle's")
    panel.set_title("worst test, vREx")
    panel.legend(fontsize=6)
    panel = panels[2]
    arms = list(dict.fromkeys(zip(seeds.task, seeds.arm, strict=True)))
    named = [arm if task == arms[0][0] else f"{task}: {arm}" for task, arm in arms]
    for place, (task, arm) in enumerate(arms):
        values = seeds[(seeds.task == task) & (seeds.arm == arm)].worst
        number = list(dict.fromkeys(seeds.task)).index(task)
        panel.plot(
            values, np.full(len(values), place), MARKERS[number], ms=3, mew=0, alpha=0.6,
            color=colour(number),
        )  # fmt: skip
        panel.plot(values.mean(), place, "|", ms=8, mew=1.3, color=GREY)
    panel.set_yticks(range(len(arms)), named, fontsize=5.5)
    panel.invert_yaxis()
    panel.set_xlim(0, 1)
    panel.axvline(0.5, color=GREY, lw=0.8, ls=":")
    panel.set_xlabel("accuracy in the worst test")
    panel.set_title("arms and tasks")
    parts.letters(figure)
    return figure
