"""Figure of notebook 87: training loss against the rate, and what three choices of it say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks

__all__ = ["asked_again"]

NAMES = {
    "training": "least training loss",
    "validation": "least validation loss (old rule)",
    "common": "one rate for both",
}


def _rates(panel: Panel, curves: pd.DataFrame, title: str) -> None:
    """Mean training loss against the rate by arm; a filled marker at the rate that it chose, a ring
    at validation's. What is above the losses at the smallest rate is cut off."""
    top = 1.03 * float(curves[curves.rate == curves.rate.min()].train.max())
    arms = list(dict.fromkeys(curves.arm))
    for place, (arm, look) in enumerate(looks(arms).items()):
        below = 2.5 * (len(arms) - 1 - place)  # larger, so that a later one does not hide it
        own = curves[curves.arm == arm].sort_values("rate")
        shown: Any = {**look, "marker": ""}
        panel.plot(own.rate, own.train.where(own.train < top), lw=1.1, label=arm, **shown)
        for choice, size in (("training", 5.5), ("validation", 9.0)):
            best = own[own[choice]]
            panel.plot(
                best.rate, best.train, marker=look["marker"], ms=size + below, ls="",
                color=look["color"], mfc=look["color"] if choice == "training" else "none",
            )  # fmt: skip
    low, high = panel.get_ylim()
    panel.set_ylim(low - 0.4 * (high - low), high)  # room for the names
    parts.log_axis(panel, "x")
    panel.set_xlabel("rate of the adapted numbers")
    panel.set_ylabel("training loss")
    panel.set_title(title, fontsize=7.5)
    panel.legend(fontsize=6, loc="lower left")


def _forest(
    panel: Panel, differences: pd.DataFrame, questions: Mapping[str, Any], title: str
) -> None:
    """Differences by question: a small marker a seed, the mean with its 95 percent t-interval, one
    row a choice of rates; a dotted line where the criterion lies."""
    for row, (question, (_, criterion)) in enumerate(questions.items()):
        for number, choice in enumerate(NAMES):
            rows = (differences.question == question) & (differences.choice == choice)
            values = differences[rows].groupby("choice").value
            place = row + 0.24 * (number - 1)
            seeds = differences[rows].value
            look: Any = {"color": colour(number), "marker": MARKERS[number]}
            panel.plot(seeds, [place] * len(seeds), ls="", ms=2.8, mew=0, alpha=0.5, **look)
            panel.errorbar(
                values.mean(), [place], xerr=parts.half_widths(values), ms=4.5, lw=1.2, mec="k",
                mew=0.5, label=NAMES[choice] if row == 0 else None, **look,
            )  # fmt: skip
        panel.plot([criterion] * 2, [row - 0.4, row + 0.4], color=GREY, ls=":", lw=1.1)
    panel.set_yticks(range(len(questions)), [name for name, _ in questions.values()], fontsize=6.5)
    panel.set_ylim(len(questions) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.set_xlabel("difference of training losses in nats")
    panel.set_title(title, fontsize=7.5)


@redrawable
def asked_again(
    curves: pd.DataFrame, differences: pd.DataFrame, systems: Mapping[str, Sequence[str]],
    questions: Mapping[str, Mapping[str, Any]],
) -> Figure:  # fmt: skip
    """Training loss against the rate, one panel a group of arms; differences by choice of rates,
    one panel a group of questions.

    curves : arm, rate, train, training, validation. differences : question, choice, seed, value.
    systems : title -> arms. questions : title -> question -> (label, criterion), the value that the
    difference has to be below.
    """
    figure, panels = plt.subplot_mosaic(
        [[f"rates, {title}" for title in systems for _ in questions],
         [f"forest, {title}" for title in questions for _ in systems]],
        figsize=(WIDTH, 5.2), height_ratios=[1, 1.1], layout="constrained",
    )  # fmt: skip
    for title, arms in systems.items():
        _rates(panels[f"rates, {title}"], curves[curves.arm.isin(arms)], title)
    for title, asked in questions.items():
        _forest(panels[f"forest, {title}"], differences, asked, title)
    last = panels[f"forest, {list(questions)[-1]}"]
    bottom, top = last.get_ylim()
    last.set_ylim(bottom + 0.22 * (bottom - top), top)  # room for the names
    last.legend(fontsize=6, loc="lower center")
    parts.letters(figure)
    return figure
