"""Figure of notebook 47: accuracy against the rate by arm, and differences by choice of rates."""

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

__all__ = ["again_panels"]

CUT = 0.4
LEGEND: Any = {
    "fontsize": 6, "loc": "lower center", "ncols": 2, "frameon": True, "framealpha": 1.0,
    "edgecolor": "none",
}  # fmt: skip
NAMES = {
    "own": "own rates", "shared": "one rate for all, as in notebook 42",
    "finer": "own rates, finer grid, other seeds",
}  # fmt: skip


def _rates(panel: Panel, curves: pd.DataFrame, shared: float, title: str) -> None:
    """Mean accuracy on images held out against the rate by arm, filled where the arm chose it; the
    rate stands beside the arm's name, for markers cover each other. What is below two fifths of the
    best is cut off."""
    least = CUT * float(curves.valid.max())
    for arm, look in looks(list(dict.fromkeys(curves.arm))).items():
        own = curves[curves.arm == arm].sort_values("rate")
        shown = 100 * own.valid.where(own.valid > least)
        best = own[own.own]
        label = f"{arm}: {best.rate.item():g}"
        panel.plot(own.rate, shown, lw=1.1, ms=4, mew=0.7, mfc="white", label=label, **look)
        panel.plot(best.rate, 100 * best.valid, ls="", marker=look["marker"], ms=6,
                   mec="w", mew=0.4, zorder=3, color=look["color"])  # fmt: skip
    low, high = panel.get_ylim()
    panel.set_ylim(low - 0.45 * (high - low), high)  # room for the names
    parts.log_axis(panel, "x")
    parts.moment(panel, shared, "")
    panel.set_xlabel("learning rate of Adam")
    panel.set_ylabel("accuracy, images held out (percent)")
    panel.set_title(title)
    panel.legend(**LEGEND)


def _forest(panel: Panel, differences: pd.DataFrame, labels: Mapping[str, str], title: str) -> None:
    """Differences by question: a small marker a seed, the mean with its 95 percent t-interval, one
    row a choice of rates that the question has; a dotted line at the criterion, zero."""
    named: set[str] = set()
    for row, question in enumerate(labels):
        asked = differences[differences.question == question]
        choices = [choice for choice in NAMES if (asked.choice == choice).any()]
        for line, choice in enumerate(choices):
            number = list(NAMES).index(choice)
            rows = asked.choice == choice
            values = 100 * asked[rows].value
            place = row + 0.27 * (line - (len(choices) - 1) / 2)
            look: Any = {"color": colour(number), "marker": MARKERS[number]}
            panel.plot(values, [place] * len(values), ls="", ms=2.8, mew=0, alpha=0.5, **look)
            panel.errorbar(
                values.mean(), [place],
                xerr=parts.half_widths(values.groupby(asked[rows].choice)), ms=4.5, lw=1.2,
                mec="k", mew=0.5, label=None if choice in named else NAMES[choice], **look,
            )  # fmt: skip
            named.add(choice)
    panel.axvline(0, color=GREY, ls=":", lw=1.1, zorder=0)
    panel.set_yticks(range(len(labels)), list(labels.values()), fontsize=6.5)
    panel.set_ylim(len(labels) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    panel.xaxis.set_major_locator(MaxNLocator(6 if len(labels) > 1 else 3))
    panel.set_xlabel("difference (points)")
    panel.set_title(title)


@redrawable
def again_panels(
    curves: pd.DataFrame, differences: pd.DataFrame, groups: Mapping[str, Sequence[str]],
    labels: Mapping[str, Mapping[str, str]], *, shared: float,
) -> Figure:  # fmt: skip
    """Accuracy on images held out against the rate, one panel a group of arms; differences by
    choice of rates, one panel a group of questions; two groups of each.

    curves : arm, rate, valid, own. differences : question, choice (of `NAMES`), seed, value.
    groups : title -> arms. labels : title -> question -> its name. shared : the rate of all arms in
    notebook 42.
    """
    figure = plt.figure(figsize=(WIDTH, 6.0), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1, 1.05])
    panels: dict[str, Panel] = dict(zip(groups, halves[0].subplots(1, 2), strict=True))
    below = halves[1].subplots(1, 2, width_ratios=[2.6, 1])
    panels |= dict(zip(labels, below, strict=True))
    for title, arms in groups.items():
        _rates(panels[title], curves[curves.arm.isin(arms)], shared, title)
    for title, questions in labels.items():
        _forest(panels[title], differences, questions, title)
    bottom, top = below[0].get_ylim()
    below[0].set_ylim(bottom + 0.22 * (bottom - top), top)  # room for the names
    below[0].legend(**LEGEND)
    parts.letters(figure)
    return figure
