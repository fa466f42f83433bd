"""Panels of notebook 71: errors of random-feature attention and of a random network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import WIDTH, colour, looks

__all__ = ["attention_panels", "inside_panels"]

TITLES = {
    "T1_2": "T1: squares of the keys",
    "T2_1": "T2: correlation with the query",
    "T3_1": "T3: rotated correlation",
    "T4": "T4: the first two keys",
}


def _lines(panel: Panel, frame: pd.DataFrame, key: str, x: str, y: str, look: Any) -> None:
    """Mean and range over seeds, one line a name in `key`."""
    for name, rows in frame.groupby(key, sort=False):
        table = rows.pivot_table(index=x, columns="seed", values=y)
        own = look[str(name)]
        panel.plot(table.index, table.mean(axis=1), lw=1.3, ms=3.5, label=str(name), **own)
        panel.fill_between(
            table.index, table.min(axis=1), table.max(axis=1), color=own["color"], alpha=0.15, lw=0
        )


@redrawable
def attention_panels(curves: pd.DataFrame, keys: pd.DataFrame, *, names: Sequence[str]) -> Figure:
    """Error against the number of samples, one panel a target; and against the number of keys.

    curves : model, seed, n, target, error. keys : model, seed, keys, error. names : the targets.
    """
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 4.8), layout="constrained")
    panels = list(axes.flat)
    look: Any = looks(list(dict.fromkeys([*curves.model, *keys.model])))
    for place, (panel, name) in enumerate(zip(panels, names, strict=False)):
        _lines(panel, curves[curves.target == name], "model", "n", "error", look)
        parts.size_axis(panel, curves.n.unique())
        panel.tick_params(axis="x", labelsize=7)
        panel.set_ylim(0, 1.25)
        panel.set_xlabel("samples")
        panel.set_title(TITLES.get(name, name), fontsize=9)
        if place % 3 == 0:
            panel.set_ylabel("error / variance")
        parts.level(panel, 1.0, "mean", name_it=place == 0)
    last = panels[len(names)]
    _lines(last, keys, "model", "keys", "error", look)
    parts.size_axis(last, keys["keys"].unique())
    last.set_ylim(0, 1.25)
    last.set_xlabel("number of keys N")
    last.set_title("T1 over the keys", fontsize=9)
    parts.level(last, 1.0, "", name_it=False)
    for panel in panels[len(names) + 1 :]:
        panel.axis("off")
    handles: dict[str, Any] = {}
    for panel in panels[: len(names) + 1]:
        handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    panels[-1].legend(handles.values(), handles.keys(), loc="center", fontsize=8)
    parts.letters(figure)
    return figure


@redrawable
def inside_panels(excess: pd.DataFrame, spikes: pd.DataFrame, learned: pd.DataFrame) -> Figure:
    """Excess risk against the number of features, a panel a target; share of the leading eigenvalue
    of the fitted values; errors and alignment of trained layers.

    excess : target, arm, features, seed, excess. spikes : seed, model, target, share. learned :
    seed, target, frozen, error, start, aligned.
    """
    targets = list(dict.fromkeys(excess.target))[:2]
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.4), layout="constrained")
    look: Any = looks(list(dict.fromkeys(excess.arm)))
    for panel, name in zip(axes[0], targets, strict=True):
        _lines(panel, excess[excess.target == name], "arm", "features", "excess", look)
        parts.log_axis(panel, "y")
        parts.size_axis(panel, excess.features.unique())
        panel.tick_params(axis="x", labelsize=7)
        panel.set_xlabel("number of features")
        panel.set_title(TITLES.get(name, name), fontsize=9)
        panel.legend(fontsize=6)
    axes[0, 0].set_ylabel("excess risk over the oracle")
    third, fourth = axes[1]
    names = list(dict.fromkeys(spikes.target))
    for shift, model in ((-0.15, "RFA"), (0.15, "BRFA")):
        tone = look[model]
        for place, name in enumerate(names):
            values = spikes[(spikes.target == name) & (spikes.model == model)].share
            third.plot(
                np.full(len(values), place + shift), values, tone["marker"], ms=3,
                color=tone["color"], alpha=0.6, label=model if place == 0 else None,
            )  # fmt: skip
    third.set_xticks(range(len(names)), names, fontsize=7)
    third.set_ylim(0, None)
    third.set_ylabel("share of the trace")
    third.set_title("leading direction of the values", fontsize=9)
    third.legend(fontsize=6)
    columns = {"frozen": "error, frozen", "error": "error, trained", "start": "|cos| at start",
               "aligned": "|cos| of change"}  # fmt: skip
    kinds = list(dict.fromkeys(learned.target))
    for number, name in enumerate(kinds):
        for place, column in enumerate(columns):
            values = learned[learned.target == name][column]
            fourth.plot(
                np.full(len(values), place + 0.3 * (number - (len(kinds) - 1) / 2)), values,
                "os^D"[number], ms=3.5, color=colour(number), alpha=0.6,
                label=name if place == 0 else None,
            )  # fmt: skip
    fourth.set_xticks(
        range(len(columns)),
        [
            text.replace(", ", ",\n").replace(" of", "\nof").replace(" at", "\nat")
            for text in columns.values()
        ],
        fontsize=7,
    )
    fourth.set_ylim(0, None)
    fourth.set_title("layers with trained scores", fontsize=9)
    fourth.legend(fontsize=6)
    parts.letters(figure)
    return figure
