"""Figure of notebook 68: what each arm gets by its rate, and differences by choice of rates."""

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

NAMES = {"own": "own rates", "shared": "rates of notebooks 62 and 63"}
ARMS = {
    "gradient": "gradient ascent",
    "muon": "Muon",
    "SB": "small",
    "LB": "large",
    "+GBN": "large, ghosts",
}
BELOW = {
    "narrow networks": "test accuracy, Muon − Adam",
    "batches": "difference of test accuracies",
    "few units": "frequencies, Muon − gradient ascent",
    "weights": "ratio",
}
AXES = {
    "narrow networks": ("rate of W over notebook 62's", "test accuracy, tuning seeds"),
    "few units": ("rate over notebook 62's", "frequencies, tuning seeds"),
    "batches": ("rate", "accuracy, images held out"),
}
DEEP = {"batches": 0.13}  # how far below the best a panel goes: what is near it decides


def _rates(panel: Panel, tuned: pd.DataFrame, part: str, old: Sequence[float]) -> None:
    """The best mean at each rate by arm, filled where the arm chose it; dotted: old rates."""
    curves = tuned[tuned.part == part]
    for arm, look in looks(list(dict.fromkeys(curves.arm))).items():
        own = curves[curves.arm == arm].sort_values("rate")
        panel.plot(
            own.rate,
            own.value,
            lw=1.1,
            ms=4,
            mew=0.7,
            mfc="white",
            label=ARMS.get(arm, arm),
            **look,
        )
        best = own[own.own]
        panel.plot(best.rate, best.value, ls="", marker=look["marker"], ms=6, mec="w", mew=0.4,
                   zorder=3, color=look["color"])  # fmt: skip
    parts.log_axis(panel, "x")
    for rate in old:
        parts.moment(panel, rate, "")
    panel.set_xlabel(AXES[part][0])
    panel.set_ylabel(AXES[part][1])
    panel.set_title(part)
    if part in DEEP:
        panel.set_ylim(curves.value.max() - DEEP[part], curves.value.max() + 0.1 * DEEP[part])
    panel.legend(fontsize=6, loc="lower center" if part in DEEP else "best")


def _forest(panel: Panel, differences: pd.DataFrame, rows: Mapping[str, Sequence[Any]]) -> None:
    """One row a question: a small marker a seed, the mean with its 95 percent t-interval, by choice
    of rates; dotted lines at the bounds of its criterion."""
    for row, (question, (_, low, high)) in enumerate(rows.items()):
        of_row = differences[differences.question == question]
        present = [choice for choice in NAMES if choice in set(of_row.choice)]
        for choice in present:
            number = list(NAMES).index(choice)
            values = of_row[of_row.choice == choice].value
            place = row + 0.25 * (present.index(choice) - (len(present) - 1) / 2)
            look: Any = {"color": colour(number), "marker": MARKERS[number]}
            panel.plot(values, [place] * len(values), ls="", ms=2.6, mew=0, alpha=0.45, **look)
            panel.errorbar(
                values.mean(), [place], xerr=parts.half_widths(values.groupby(of_row.choice)),
                ms=4.5, lw=1.2, mec="k", mew=0.5, **look,
            )  # fmt: skip
        for bound in (low, high):
            if bound is not None:
                panel.plot([bound] * 2, [row - 0.42, row + 0.42], color=GREY, ls=":", lw=1.1)
    panel.set_yticks(range(len(rows)), [str(name) for name, *_ in rows.values()], fontsize=6.5)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    panel.xaxis.set_major_locator(MaxNLocator(5))


@redrawable
def again_panels(
    tuned: pd.DataFrame, differences: pd.DataFrame, old: Mapping[str, Sequence[float]],
    rows: Mapping[str, Mapping[str, Sequence[Any]]],
) -> Figure:  # fmt: skip
    """Above, what each arm gets by its rate, one panel a part; below, differences and ratios by
    choice of rates, one panel a group of questions.

    tuned : part, arm, rate, value, own. differences : question, choice, seed, value. old : part ->
    rates of notebooks 62 and 63, three parts. rows : title (of `BELOW`) -> question -> its name and
    the bounds of its criterion, None where it has none; four titles.
    """
    figure = plt.figure(figsize=(WIDTH, 6.6), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1, 1.6])
    for panel, part in zip(halves[0].subplots(1, 3), old, strict=True):
        _rates(panel, tuned, part, old[part])
    below = halves[1].subplots(2, 2, height_ratios=[1.1, 1]).ravel()
    for panel, (title, questions) in zip(below, rows.items(), strict=True):
        _forest(panel, differences, questions)
        panel.set_xlabel(BELOW[title])
        panel.set_title(title)
    for number, name in enumerate(NAMES.values()):
        below[0].errorbar([], [], xerr=[], color=colour(number), marker=MARKERS[number], ms=4.5,
                          mec="k", mew=0.5, lw=1.2, label=name)  # fmt: skip
    handles = below[0].get_legend_handles_labels()
    halves[1].legend(*handles, fontsize=6.5, loc="outside lower center", ncols=2)
    parts.letters(figure)
    return figure
