"""Figure of notebook 96: what each part is worth, and what the weights look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rclib.experiments.language.pretraining_runs import ARMS, MEASURES, USES
from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour

__all__ = ["part_panels"]

LABELS = {
    "scratch": "nothing (scratch)", "tables": "tables alone", "blocks": "blocks alone",
    "all": "all", "directions": "directions", "spectrum": "singular values",
    "leading": "leading eighth", "means": "means", "no means": "all but means",
    "entries": "entries, shuffled", "sampled": "rows, columns shuffled",
    "misplaced": "in the other block", "relabelled": "all, neurons renamed",
}  # fmt: skip
TITLES = {
    "means": "(d) means", "leading": "(e) first singular pair", "spikes": "(f) spikes",
    "correlation": "(g) correlation",
}  # fmt: skip
AXES = {
    "means": "variance over chance", "leading": "share over chance", "spikes": "number a matrix",
    "correlation": "mean |r| over chance",
}  # fmt: skip


def _ordered(values: Sequence[str], order: Sequence[str]) -> list[str]:
    there = set(values)
    return [value for value in order if value in there]


def _points(panel: Panel, groups: dict[str, pd.Series], number: int) -> None:
    """Means and 95 percent t-intervals, one row a group."""
    for place, values in enumerate(groups.values()):
        if values.empty:  # an arm that this use does not have
            continue
        one = parts.half_widths(values.groupby(lambda _: 0))
        panel.errorbar(
            values.mean(), place, xerr=np.asarray(one), fmt=MARKERS[number], ms=3.6, lw=1.1,
            color=colour(number),
        )  # fmt: skip
    panel.set_ylim(len(groups) - 0.5, -0.5)


@redrawable
def part_panels(table: pd.DataFrame, kept: pd.DataFrame) -> Figure:
    """Above, the gain of every arm over the tables alone, a panel a use; below, measures of the
    random start, of the base and of the whole base after each use.

    table : use, arm, seed, gain. kept : use, arm, seed, measure, value.
    """
    figure = plt.figure(figsize=(WIDTH, 5.4), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.35, 1])
    above, below = halves
    uses = _ordered(list(table.use), USES)
    panels = above.subplots(1, len(uses), squeeze=False, sharey=True)[0]
    arms = _ordered(list(table.arm), ARMS)
    for number, (panel, use) in enumerate(zip(panels, uses, strict=True)):
        own = table[table.use == use].set_index("arm").gain
        rows = {arm: own[own.index == arm] for arm in arms}
        _points(panel, rows, number)
        panel.axvline(0, color=GREY, ls=":", lw=0.9)
        panel.set_title(f"({'abc'[number]}) {use}", fontsize=8)
        panel.set_xlabel("gain, nats a target")
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.set_yticks(range(len(arms)), [LABELS[arm] for arm in arms], fontsize=6.8)
    panels[0].set_ylabel("kept of the base")
    measured = _ordered(list(kept.measure), MEASURES)
    lower = below.subplots(1, len(measured), squeeze=False, sharey=True)[0]
    names = {("before", "random"): "random start", ("before", "base"): "base"}
    names |= {(use, "all"): f"after {use}" for use in uses}
    for panel, measure in zip(lower, measured, strict=True):
        own = kept[kept.measure == measure].set_index(["use", "arm"]).value.sort_index()
        _points(panel, {label: own.loc[[key]] for key, label in names.items()}, 5)
        panel.set_title(TITLES[measure], fontsize=8)
        panel.set_xlabel(AXES[measure], fontsize=7)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        if measure != "spikes":
            panel.axvline(1, color=GREY, ls=":", lw=0.9)
        panel.set_yticks(range(len(names)), list(names.values()), fontsize=6.8)
    return figure
