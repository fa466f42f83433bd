"""Figures of the pretrained models: functions take tables and draw them, they compute nothing but
means, medians and ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, GREY, WIDTH, Look, colour, looks

__all__ = ["correlations_by_block", "perplexities", "structure_by_block"]


def _states(panel: Panel, frame: pd.DataFrame, value: str, look: Mapping[str, Look]) -> None:
    """One line a state over the blocks: median with range."""
    for state, own in look.items():
        chosen = frame[frame.state == state].groupby("block")[value]
        if not len(chosen):
            continue
        x = [int(b) for b in chosen.groups]
        line: dict[str, Any] = {**own, "ms": 2.5, "lw": 1.1}
        panel.plot(x, chosen.median(), label=state, **line)
        panel.fill_between(x, chosen.min(), chosen.max(), color=own["color"], alpha=0.15, lw=0)
    parts.few_ticks(panel)


@redrawable
def correlations_by_block(frame: pd.DataFrame, *, sets: Sequence[str]) -> Figure:
    """The largest |correlation| of each block, one row a model, one column an index set.

    frame : columns model, state, block, set, value, chance. One line a state, median over its
    seeds with their range; dotted: the 95 percent level of chance, of means alone.
    """
    models = list(dict.fromkeys(frame.model))
    figure, grid = plt.subplots(
        len(models), len(sets), figsize=(WIDTH, 1.9 * len(models) + 0.3), squeeze=False,
        sharey=True, sharex="row",
    )  # fmt: skip
    look = looks(list(dict.fromkeys(frame.state)))
    for i, model in enumerate(models):
        for j, name in enumerate(sets):
            panel = grid[i, j]
            own = frame[(frame.model == model) & (frame.set == name)]
            _states(panel, own, "value", look)
            level = own.groupby("block").chance.min()
            blocks = [int(b) for b in level.index]
            panel.plot(blocks, level, color=GREY, ls=":", lw=1.0, label="chance, 95 %")
            panel.set_title(name if i == 0 else "", fontsize=7)
            panel.set_ylim(0, 1.02)
            panel.set_xlabel("block" if i == len(models) - 1 else "")
        grid[i, 0].set_ylabel(f"{model}\nlargest |correlation|")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


@redrawable
def structure_by_block(frame: pd.DataFrame, *, rows: Mapping[str, str]) -> Figure:
    """Quantities of all matrices of a block, one column a model, one row a quantity.

    frame : columns model, state, block and the keys of `rows`, quantity -> axis label. Median over
    a block's matrices, and their range.
    """
    models = list(dict.fromkeys(frame.model))
    figure, grid = plt.subplots(
        len(rows), len(models), figsize=(min(3.3 * len(models), WIDTH), 1.8 * len(rows) + 0.4),
        squeeze=False, sharex="col", sharey="row",
    )  # fmt: skip
    look = looks(list(dict.fromkeys(frame.state)))
    for j, model in enumerate(models):
        for i, (quantity, label) in enumerate(rows.items()):
            panel = grid[i, j]
            _states(panel, frame[frame.model == model], quantity, look)
            parts.log_axis(panel, "y")
            if j == 0:
                panel.set_ylabel(label)
        grid[0, j].set_title(model)
        grid[-1, j].set_xlabel("block")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


@redrawable
def perplexities(frame: pd.DataFrame, *, levels: Mapping[str, float]) -> Figure:
    """Perplexity of each resized model, one row a way, one point a seed.

    frame : columns how, perplexity; levels : name -> perplexity of reference lines.
    """
    names = list(dict.fromkeys(frame.how))[::-1]
    figure, panel = plt.subplots(figsize=(5.4, 0.3 * len(names) + 1.4))
    for place, name in enumerate(names):
        values = frame[frame.how == name].perplexity
        panel.plot(values, np.full(len(values), place), ls="", marker="o", ms=4, color=colour(0))
    for k, (name, value) in enumerate(levels.items()):
        panel.axvline(value, color=GREY, ls=DASHES[k], lw=1.0, label=name)
    panel.set_yticks(range(len(names)), names)
    parts.log_axis(panel, "x")
    panel.set_xlabel("perplexity")
    figure.legend(loc="outside upper center", ncols=2)
    return figure
