"""Figure of notebook 97: accuracy against the step size, and what two choices of it say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rclib.experiments.language.plots_distillation import LABELS
from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks

__all__ = ["asked_again"]

NAMES = {
    "chosen": "step sizes by held-out images",
    "old": "as in notebook 94",
    "fit": "each seed's own, by training data",
}


def _rates(panel: Panel, curves: pd.DataFrame, arms: Sequence[str], title: str) -> None:
    """Mean accuracy on held-out images against the step size by arm; filled where it was chosen, a
    ring at the size that was learned with the images."""
    for arm, look in looks(arms).items():
        own = curves[curves.arm == arm].sort_values("rate")
        if own.empty:
            continue
        grid = own[~own.learned]
        shown: Any = {**look, "marker": ""}
        panel.plot(grid.rate, grid.accuracy, lw=1.1, label=LABELS.get(arm, arm), **shown)
        for kind, size in (("chosen", 5.5), ("learned", 7.0)):
            best = own[own[kind]]
            panel.plot(
                best.rate, best.accuracy, marker=look["marker"], ms=size, ls="",
                color=look["color"], mfc=look["color"] if kind == "chosen" else "none",
            )  # fmt: skip
    parts.log_axis(panel, "x")
    panel.set_xlabel("step size of fresh networks")
    panel.set_ylabel("held-out accuracy")
    panel.set_title(title, fontsize=7.5)


def _forest(panel: Panel, differences: pd.DataFrame, questions: Mapping[str, Any]) -> None:
    """Differences by question: a small marker a seed, the mean with its 95 percent t-interval, one
    row a choice of step sizes; a dotted line where the criterion lies."""
    labelled: set[str] = set()
    for row, (question, (_, criterion)) in enumerate(questions.items()):
        there = set(differences[differences.question == question].choice)
        for number, choice in enumerate(NAMES):
            if choice not in there:
                continue
            rows = (differences.question == question) & (differences.choice == choice)
            seeds, place = differences[rows].value, row + 0.26 * (number - (len(there) - 1) / 2)
            look: Any = {"color": colour(number), "marker": MARKERS[number]}
            panel.plot(seeds, [place] * len(seeds), ls="", ms=2.6, mew=0, alpha=0.45, **look)
            values = differences[rows].groupby("choice").value
            panel.errorbar(
                values.mean(), [place], xerr=parts.half_widths(values), ms=4.5, lw=1.2, mec="k",
                mew=0.5, label=None if choice in labelled else NAMES[choice], **look,
            )  # fmt: skip
            labelled.add(choice)
        panel.plot([criterion] * 2, [row - 0.4, row + 0.4], color=GREY, ls=":", lw=1.1)
    panel.set_yticks(range(len(questions)), [name for name, _ in questions.values()], fontsize=6.5)
    panel.set_ylim(len(questions) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    panel.xaxis.set_major_locator(MaxNLocator(7))
    panel.set_xlabel("difference of test accuracies")
    panel.set_title("by how the step sizes were chosen", fontsize=7.5)
    panel.legend(fontsize=6, loc="best")


@redrawable
def asked_again(
    curves: pd.DataFrame, differences: pd.DataFrame, arms: Sequence[str],
    questions: Mapping[str, Any],
) -> Figure:  # fmt: skip
    """Held-out accuracy against the step size, one panel a setting; differences by choice.

    curves : setting, arm, rate, accuracy, chosen, learned. differences : question, choice, seed,
    value. arms : those that are drawn. questions : question -> (label, criterion).
    """
    settings = [str(name) for name in dict.fromkeys(curves.setting)]
    figure, panels = plt.subplot_mosaic(
        [list(settings), ["forest" for _ in settings]],
        figsize=(WIDTH, 6.4), height_ratios=[1, 1.6], layout="constrained",
    )  # fmt: skip
    for setting in settings:
        _rates(panels[setting], curves[curves.setting == setting], arms, setting)
    lines = panels[settings[0]].get_legend_handles_labels()
    figure.legend(*lines, fontsize=6.5, loc="outside upper center", ncols=len(arms))
    _forest(panels["forest"], differences, questions)
    parts.letters(figure)
    return figure
