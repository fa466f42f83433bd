"""Figure of notebook 59: validation accuracy against the rate, and what a rate for each changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.experiments.starts.gnn_init_runs import ARMS
from rclib.experiments.starts.plots_gnn_init import MAIN
from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, WIDTH, colour, looks

__all__ = ["once_more_panels"]

TITLES = {
    ("planted", "early"): "planted, early",
    ("planted", "patience"): "planted, where it stops",
    ("16 layers", "all updates"): "16 layers, best of all",
    ("sum", "late"): "sums, at the end",
    ("images", "patience"): "images, where it stops",
}
NAMES = {
    "early": "early:\nVirgo − Xavier",
    "stopped": "stopped:\nVirgo − Xavier",
    "deep": "16 layers:\nVirgo − Kaiming",
    "sum_accuracy": "sums:\nVirgo − Kaiming",
    "images_xavier": "images:\nVirgo − Xavier",
    "images_kaiming": "images:\nVirgo − Kaiming",
}
CHOICES = {"own": "own rates", "shared": "one rate"}


def _look(arm: str) -> dict[str, Any]:
    """As in the figures of notebook 54."""
    if arm in MAIN:
        return {**looks(MAIN)[arm]}
    return {"color": colour(5), "linestyle": ":", "marker": "P"}


@redrawable
def once_more_panels(
    curves: pd.DataFrame,
    gains: pd.DataFrame,
    *,
    common: Mapping[str, float],
    criteria: Mapping[str, float],
) -> Figure:
    """Validation accuracy against the rate, one panel a setting and reading; gains by question.

    curves : setting, reading, arm, rate, valid, low, high, chosen. gains : question, choice, seed,
    gain. common : setting -> the rate of notebook 54. criteria : question -> least gain.
    """
    figure, panels = plt.subplots(
        2, 3, figsize=(WIDTH, 5.0), layout="constrained", width_ratios=[1, 1, 1.15]
    )
    places = list(panels.flat)
    for panel, ((setting, reading), title) in zip(places, TITLES.items(), strict=False):
        rows = curves[(curves.setting == setting) & (curves.reading == reading)]
        _rates(panel, rows, title, common[setting])
    for panel in (panels[0, 0], panels[1, 0]):
        panel.set_ylabel("validation accuracy")
    _forest(places[-1], gains, criteria)
    parts.letters(figure)
    return figure


def _rates(panel: Panel, rows: pd.DataFrame, title: str, common: float) -> None:
    """One line a start, band: range over seeds; a large marker at the rate that it has here."""
    for arm in [name for name in ARMS if name in set(rows.arm)]:
        own, look = rows[rows.arm == arm].sort_values("rate"), _look(arm)
        panel.plot(own.rate, own.valid, lw=1.2, label=arm, **{**look, "marker": ""})
        panel.fill_between(own.rate, own.low, own.high, color=look["color"], alpha=0.12, lw=0)
        top = own[own.chosen]
        panel.plot(
            top.rate, top.valid, ls="", marker=look["marker"], ms=6, color=look["color"], mec="k",
            mew=0.5,
        )  # fmt: skip
    parts.log_axis(panel, "x")
    panel.axvline(common, color=GREY, lw=0.9, ls=":", zorder=1.5, label="one rate")
    low, high = panel.get_ylim()
    panel.set_ylim(low - 0.42 * (high - low), high)  # room for the names
    panel.set_xlabel("rate")
    panel.set_title(title, fontsize=8)
    panel.legend(fontsize=6, loc="lower center", ncols=2, columnspacing=1.0, handlelength=1.5)


def _forest(panel: Panel, gains: pd.DataFrame, criteria: Mapping[str, float]) -> None:
    """Gains by question: a small marker a seed, the mean with its 95 percent t-interval; dotted:
    the criterion."""
    names = [key for key in NAMES if key in set(gains.question)]
    for row, key in enumerate(names):
        for number, (choice, label) in enumerate(CHOICES.items()):
            rows = gains[(gains.question == key) & (gains.choice == choice)]
            values, place = rows.groupby("choice").gain, row + 0.3 * (number - 0.5)
            look: Any = {"color": colour(number), "marker": "os"[number]}
            panel.plot(rows.gain, [place] * len(rows), ls="", ms=2.6, mew=0, alpha=0.35, **look)
            panel.errorbar(
                values.mean(), [place], xerr=parts.half_widths(values), ms=4.5, lw=1.2, mec="k",
                mew=0.5, label=label if row == 0 else None, **look,
            )  # fmt: skip
        panel.plot([criteria[key]] * 2, [row - 0.4, row + 0.4], color=GREY, ls=":", lw=1.1)
    panel.axvline(0, color="0.7", lw=0.7, zorder=0)
    panel.set_yticks(range(len(names)), [NAMES[key] for key in names], fontsize=6)
    panel.set_ylim(len(names) + 0.3, -0.5)  # room for the names below
    panel.grid(axis="y", visible=False)
    panel.set_xlabel("difference of test accuracies")
    panel.set_title("own rates against one", fontsize=8)
    panel.legend(fontsize=6, loc="lower center", ncols=2, columnspacing=1.0, handlelength=1.5)
