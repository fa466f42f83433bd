"""Figure of notebook 59: validation accuracy against the rate, and what a rate for each changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    "stopped": "where it stops:\nVirgo − Xavier",
    "deep": "16 layers:\nVirgo − Kaiming",
    "sum_accuracy": "sums:\nVirgo − Kaiming",
    "images_xavier": "plain mean\n− Xavier",
    "images_kaiming": "plain mean\n− Kaiming",
}
# Rates are told apart by black and white: the colours of the other panels are those of starts.
CHOICES: dict[str, dict[str, Any]] = {
    "own": {"label": "own rates", "color": "k", "marker": "o", "mfc": "k"},
    "shared": {"label": "one rate", "color": "0.5", "marker": "s", "mfc": "w"},
}


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
    """Validation accuracy against the rate, one panel a setting and reading; gains by question, of
    drawn graphs and of images.

    curves : setting, reading, arm, rate, valid, low, high, chosen. gains : question, choice, seed,
    gain. common : setting -> the rate of notebook 54. criteria : question -> least gain.
    """
    figure, panels = plt.subplots(
        2, 3, figsize=(WIDTH, 5.4), layout="constrained", width_ratios=[1, 1, 1.1]
    )
    places = list(panels.flat)
    for panel, ((setting, reading), title) in zip(places, TITLES.items(), strict=False):
        rows = curves[(curves.setting == setting) & (curves.reading == reading)]
        _rates(panel, rows, title, common[setting])
    for panel in (panels[0, 0], panels[1, 0]):
        panel.set_ylabel("validation accuracy")
    inside = places[-1].get_subplotspec().subgridspec(2, 1, height_ratios=[4, 2])
    places[-1].remove()
    upper, lower = (figure.add_subplot(inside[row]) for row in range(2))
    drawn = [key for key in NAMES if not key.startswith("images")]
    _forest(upper, gains, criteria, drawn, "own rates against one")
    _forest(lower, gains, criteria, [key for key in NAMES if key not in drawn], "images")
    upper.legend(fontsize=6, loc="lower right", handlelength=1.2)
    lower.set_xlabel("difference of test accuracies")
    handles: dict[str, Any] = {}
    for panel in places[:-1]:
        handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    order = [name for name in (*ARMS, "one rate (notebook 54)") if name in handles]
    figure.legend(
        [handles[name] for name in order], order, loc="outside upper center", ncols=len(order),
        fontsize=7,
    )  # fmt: skip
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
    panel.axvline(common, color=GREY, lw=0.9, ls=":", zorder=1.5, label="one rate (notebook 54)")
    panel.set_xlabel("rate")
    panel.set_title(title, fontsize=8)


def _forest(
    panel: Panel,
    gains: pd.DataFrame,
    criteria: Mapping[str, float],
    keys: Sequence[str],
    title: str,
) -> None:
    """Gains by question: a small marker a seed, the mean with its 95 percent t-interval; dotted:
    the criterion."""
    for row, key in enumerate(keys):
        for number, (choice, look) in enumerate(CHOICES.items()):
            rows = gains[(gains.question == key) & (gains.choice == choice)]
            values, place = rows.groupby("choice").gain, row + 0.34 * (number - 0.5)
            seeds = {"color": look["color"], "marker": look["marker"], "alpha": 0.3}
            panel.plot(rows.gain, [place] * len(rows), ls="", ms=2.4, mew=0, **seeds)
            panel.errorbar(
                values.mean(), [place], xerr=parts.half_widths(values), ms=4.5, lw=1.2, mew=0.8,
                **{**look, "label": look["label"] if row == 0 else None, "mec": "k"},
            )  # fmt: skip
        panel.plot([criteria[key]] * 2, [row - 0.4, row + 0.4], color=GREY, ls=":", lw=1.1)
    panel.axvline(0, color="0.7", lw=0.7, zorder=0)
    panel.set_yticks(range(len(keys)), [NAMES[key] for key in keys], fontsize=6)
    panel.set_ylim(len(keys) - 0.4, -0.6)
    panel.grid(axis="y", visible=False)
    panel.set_title(title, fontsize=8)
