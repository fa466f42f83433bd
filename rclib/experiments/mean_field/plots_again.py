"""Figure of notebook 18: claims of Figures 4.3 and six on fresh seeds."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.strips import strips
from rclib.plots.style import GREY, WIDTH, looks

__all__ = ["asked_again"]


@redrawable
def asked_again(gaps: pd.DataFrame, values: pd.DataFrame) -> Figure:
    """(a) gap against the target width, one line a source width; then one panel a question.

    gaps : source, target, seed, gap. values : question, seed, value, criterion (e.g. "≤ 0.1").
    """
    questions = list(values.question.unique())
    figure, panels = plt.subplots(
        1, 1 + len(questions), figsize=(WIDTH, 2.9), layout="constrained",
        width_ratios=[2.6, *[1] * len(questions)],
    )  # fmt: skip
    first = panels[0]
    sources = [int(n) for n in sorted(gaps.source.unique())]
    for n, style in zip(sources, looks(sources).values(), strict=True):
        group = gaps[gaps.source == n].groupby("target").gap.agg(["mean", "min", "max"])
        shown = group[group["mean"] > 0]
        first.plot(shown.index, shown["mean"], label=f"from N = {n}", **style)
        lowest = np.maximum(shown["min"], shown["mean"] / 4)  # a range may go below zero
        first.fill_between(
            shown.index, lowest, shown["max"], color=style["color"], alpha=0.12, lw=0
        )
    pooled = gaps.groupby("target").gap.mean()
    widths = sorted(gaps.target.unique())
    parts.guide(first, widths, float(pooled.iloc[0]) * 1.6, -1.0)
    parts.size_axis(first, widths)
    parts.log_axis(first, "y")
    first.set_xlabel("target width")
    first.set_ylabel("loss after minus before")
    first.legend(fontsize=6, loc="lower left")
    for panel, question in zip(panels[1:], questions, strict=True):
        rows = values[values.question == question]
        strips(panel, {str(question): rows.value})
        criterion = str(rows.criterion.iloc[0])
        panel.axhline(float(criterion.split()[-1]), ls=":", lw=0.9, color=GREY)
        panel.set_xticks([])
        panel.set_xlabel(question, fontsize=7)
        panel.set_title(criterion, fontsize=7, loc="right")
        panel.margins(y=0.12)
        panel.tick_params(axis="y", labelsize=6)
    for letter, panel in zip("abcdefgh", panels, strict=False):
        panel.set_title(f"({letter})", loc="left")
    return figure
