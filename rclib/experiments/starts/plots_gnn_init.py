"""Figures of notebook 54: variance through the layers, accuracy, and what is inside."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.experiments.starts.gnn_init_runs import ARMS
from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import WIDTH, colour, looks

__all__ = ["MAIN", "inside_panels", "start_panels"]

MAIN = ["Xavier", "Kaiming", "Virgo", "Virgo forward", "Virgo, as released"]  # the first figure's
SHORT = {"Virgo, as released": "as released", "Virgo forward": "forward only"}


def _style(arm: str) -> dict[str, Any]:
    if arm in MAIN:
        look = looks(MAIN)[arm]
        return {"color": look["color"], "linestyle": look["linestyle"]}
    return {"color": colour(5), "linestyle": ":"}


def _lines(panel: Panel, frame: pd.DataFrame, x: str, y: str, *, band: bool = True) -> None:
    """One line an arm, mean and range over seeds."""
    for arm in [name for name in ARMS if name in set(frame.arm)]:
        group = frame[frame.arm == arm].groupby(x)[y]
        mean = group.mean()
        panel.plot(mean.index, mean, lw=1.3, label=SHORT.get(arm, arm), **_style(arm))
        if band:
            panel.fill_between(
                mean.index, group.min(), group.max(), alpha=0.13, lw=0, color=_style(arm)["color"]
            )


@redrawable
def start_panels(sizes: pd.DataFrame, learning: pd.DataFrame) -> Figure:
    """Above symmetric aggregation, below sums: log10 of the mean square of embeddings by layer for
    features of mean zero and for positive ones, and test accuracy by update.

    sizes : aggregation, features, arm, seed, layer, size. learning : aggregation, arm, seed, step,
    test. Lines: mean over seeds, bands: their range.
    """
    figure, panels = plt.subplots(
        2, 3, figsize=(WIDTH, 4.6), layout="constrained", width_ratios=[1, 1, 1.15]
    )
    names = {"gaussian": "mean zero", "words": "positive"}
    for row, how in zip(panels, ("symmetric", "sum"), strict=True):
        title = "sums" if how == "sum" else how
        for panel, features in zip(row, names, strict=False):
            own = sizes[(sizes.aggregation == how) & (sizes.features == features)]
            if how == "symmetric":  # there it is Virgo
                own = own[own.arm != "Virgo, as released"]
            _lines(panel, own, "layer", "size")
            panel.set_title(f"{title}, features {names[features]}", fontsize=8)
            panel.axhline(0, color="0.7", lw=0.7, zorder=0)
            parts.few_ticks(panel)
        row[0].set_ylabel("log10 mean square of h")
        own = learning[learning.aggregation == how]
        _lines(row[2], own, "step", "test", band=False)
        for arm in ("Xavier", "Virgo"):  # more bands would lie on each other
            group = own[own.arm == arm].groupby("step").test
            if len(group):
                row[2].fill_between(
                    group.mean().index, group.min(), group.max(), alpha=0.12, lw=0,
                    color=_style(arm)["color"],
                )  # fmt: skip
        row[2].set_title(f"{title}: test accuracy", fontsize=8)
        row[2].legend(fontsize=6, loc="lower right")
        row[0].legend(fontsize=6, loc="best")
    for panel in panels[1, :2]:
        panel.set_xlabel("hidden layer")
    panels[1, 2].set_xlabel("update")
    parts.letters(figure)
    return figure


@redrawable
def inside_panels(
    slopes: pd.DataFrame, layers: pd.DataFrame, gradients: pd.DataFrame, ends: pd.DataFrame,
    stops: pd.DataFrame,
) -> Figure:  # fmt: skip
    """Slopes of all arms by aggregation; correlation of neighbours by layer; gradients by layer;
    how much of the start is left; test accuracy with early stopping, by setting.

    slopes : aggregation, arm, seed, slope. layers : features, seed, layer, near. gradients : arm,
    seed, layer, square. ends : arm, seed, kept_1, kept_2. stops : setting, arm, seed, test, rule.
    """
    figure = plt.figure(figsize=(WIDTH, 5.2), layout="constrained")
    panels = figure.subplot_mosaic("abc;dee", width_ratios=[1.25, 1, 1.1])
    panel, arms = panels["a"], list(dict.fromkeys(slopes.arm))
    for shift, (how, mark) in zip(
        (-0.2, 0.0, 0.2), {"symmetric": "o", "mean": "s", "sum": "^"}.items(), strict=True
    ):
        table = slopes[slopes.aggregation == how].groupby("arm").slope
        mean = table.mean()[arms]
        ends_of = np.abs([mean - table.min()[arms], table.max()[arms] - mean])
        panel.errorbar(
            mean, np.arange(len(arms)) + shift, xerr=ends_of, fmt=mark, ms=3.5, lw=0.9,
            color=colour({"o": 0, "s": 1, "^": 2}[mark]), label=how,
        )  # fmt: skip
    panel.axvspan(-0.1, 0.1, color="0.9", lw=0, zorder=0)
    panel.set_yticks(range(len(arms)), arms, fontsize=6.5)
    panel.invert_yaxis()
    panel.set_xlabel("decades a layer")
    panel.set_title("slope of log10 mean square", fontsize=8)
    panel.legend(fontsize=6, loc="center right", title="aggregation", title_fontsize=6)
    panel = panels["b"]
    for (name, rows), look in zip(
        layers.groupby("features", sort=False), looks(["a", "b", "c"]).values(), strict=False
    ):
        group = rows.groupby("layer").near
        panel.plot(
            group.mean(), ms=3, lw=1.2, label=str(name), color=look["color"],
            marker=look["marker"], linestyle=look["linestyle"],
        )  # fmt: skip
        panel.fill_between(
            group.mean().index, group.min(), group.max(), alpha=0.15, lw=0, color=look["color"]
        )
    panel.axhline(0.1, color="0.5", lw=0.8, ls=":")
    panel.set_ylim(0, 1.03)
    panel.set_xlabel("hidden layer")
    panel.set_title("correlation of neighbours", fontsize=8)
    panel.legend(fontsize=6)
    parts.few_ticks(panel)
    panel = panels["c"]
    _lines(panel, gradients, "layer", "square")
    panel.set_xlabel("matrix")
    panel.set_title("log10 mean square gradient", fontsize=8)
    panel.legend(fontsize=6, ncols=2, loc="upper left")
    low, high = panel.get_ylim()
    panel.set_ylim(low, high + 0.2 * (high - low))  # room for the names
    parts.few_ticks(panel)
    panel, shown = panels["d"], [name for name in ARMS if name in set(ends.arm)]
    places = ((-0.12, "kept_1", "o", "first"), (0.12, "kept_2", "s", "middle"))
    for shift, which, mark, name in places:
        for place, arm in enumerate(shown):
            values = ends[ends.arm == arm][which]
            panel.plot(
                values, np.full(len(values), place + shift), mark, ms=3, alpha=0.5,
                color=colour(0 if which == "kept_1" else 1), mec="none",
                label=f"{name} matrix" if not place else None,
            )  # fmt: skip
            panel.plot(values.mean(), place + shift, "|", ms=9, mew=1.5, color="0.2")
    panel.set_yticks(range(len(shown)), shown, fontsize=6.5)
    panel.invert_yaxis()
    panel.set_xlabel("cos² of W and its start")
    panel.set_title("what is left of the start", fontsize=8)
    panel.legend(fontsize=6, loc="center left")
    panel, settings = panels["e"], list(dict.fromkeys(stops.setting))
    few = [name for name in ARMS if name in set(stops.arm)]
    for a, arm in enumerate(few):
        for rule, mark, face in (("patience", "o", None), ("all updates", "D", "white")):
            table = stops[(stops.arm == arm) & (stops.rule == rule)].groupby("setting").test
            mean, spread = table.mean().reindex(settings), table.sem().reindex(settings)
            where = np.arange(len(settings)) + 0.8 * ((a + 0.5) / len(few) - 0.5)
            where = where + (0.03 if face else -0.03)
            panel.errorbar(
                where, mean, yerr=1.96 * spread, fmt=mark, ms=4, lw=0.9, mfc=face,
                color=_style(arm)["color"], label=SHORT.get(arm, arm) if face is None else None,
            )  # fmt: skip
    panel.set_xticks(range(len(settings)), settings, fontsize=6.5, rotation=25, ha="right")
    panel.set_title("test accuracy: patience (filled), all updates (open)", fontsize=8)
    panel.legend(fontsize=6, loc="center left")
    parts.letters(figure)
    return figure
