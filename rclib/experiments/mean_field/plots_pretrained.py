"""Figures of the pretrained models: functions take tables and draw them, they compute nothing."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rclib.plots.style import DASHES, MARKERS

__all__ = ["correlations_by_block", "perplexities", "structure_by_block"]


def _models(frame: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(frame.model))


def correlations_by_block(frame: pd.DataFrame, *, sets: Sequence[str]) -> Figure:
    """The largest |correlation| of each block, one row a model, one column an index set.

    frame : columns model, state, seed, block, set, value, chance. One line a state, mean over its
    seeds with their range; dotted: the 95 percent level of chance.
    """
    models, states = _models(frame), list(dict.fromkeys(frame.state))
    figure, grid = plt.subplots(
        len(models), len(sets), figsize=(2.5 * len(sets), 2.1 * len(models)), squeeze=False,
        sharey=True,
    )  # fmt: skip
    colours = sns.color_palette("colorblind")
    for i, model in enumerate(models):
        for j, name in enumerate(sets):
            panel = grid[i, j]
            own = frame[(frame.model == model) & (frame.set == name)]
            for k, state in enumerate(states):
                by_block = own[own.state == state].groupby("block")
                if not len(by_block):
                    continue
                x = [int(b) for b in by_block.groups]
                panel.plot(
                    x, by_block.value.mean(), color=colours[k], ls=DASHES[k], marker=MARKERS[k],
                    ms=2.5, lw=1.1, label=state,
                )  # fmt: skip
                low, high = by_block.value.min(), by_block.value.max()
                panel.fill_between(x, low, high, color=colours[k], alpha=0.15, lw=0)
            level = own.groupby("block").chance.min()
            panel.plot(list(level.index), level, color="0.3", ls=":", lw=1.0, label="chance, 95 %")
            panel.set_title(f"{model}: {name}" if j == 0 else name)
            panel.set_ylim(0, 1.02)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            if i == len(models) - 1:
                panel.set_xlabel("block")
        grid[i, 0].set_ylabel("largest |correlation|")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def structure_by_block(frame: pd.DataFrame, *, rows: dict[str, tuple[str, float | None]]) -> Figure:
    """Quantities of all matrices of a block, one column a model, one row a quantity.

    frame : columns model, state, block and the keys of `rows`, quantity -> (axis label, value of
    chance or None). Median over a block's matrices, and their range.
    """
    models, states = _models(frame), list(dict.fromkeys(frame.state))
    figure, grid = plt.subplots(
        len(rows), len(models), figsize=(3.2 * len(models), 1.9 * len(rows)), squeeze=False,
        sharex="col", sharey="row",
    )  # fmt: skip
    colours = sns.color_palette("colorblind")
    for j, model in enumerate(models):
        for i, (quantity, (label, chance)) in enumerate(rows.items()):
            panel = grid[i, j]
            for k, state in enumerate(states):
                own = frame[(frame.model == model) & (frame.state == state)].groupby("block")
                x = [int(b) for b in own.groups]
                panel.plot(
                    x, own[quantity].median(), color=colours[k], ls=DASHES[k], marker=MARKERS[k],
                    ms=2.5, lw=1.1, label=state,
                )  # fmt: skip
                low, high = own[quantity].min(), own[quantity].max()
                panel.fill_between(x, low, high, color=colours[k], alpha=0.15, lw=0)
            if chance is not None:
                panel.axhline(chance, color="0.3", ls=":", lw=1.0)
            panel.set_yscale("log")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            if j == 0:
                panel.set_ylabel(label)
            if i == 0:
                panel.set_title(model)
        grid[-1, j].set_xlabel("block")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def perplexities(frame: pd.DataFrame, *, levels: dict[str, float]) -> Figure:
    """Perplexity of each resized model, one row a way, one point a seed.

    frame : columns how, perplexity; levels : name -> perplexity of reference lines.
    """
    names = list(dict.fromkeys(frame.how))[::-1]
    figure, panel = plt.subplots(figsize=(5.4, 0.32 * len(names) + 1.4))
    colour = sns.color_palette("colorblind")[0]
    for place, name in enumerate(names):
        values = frame[frame.how == name].perplexity
        panel.plot(values, np.full(len(values), place), ls="", marker="o", ms=4, color=colour)
    for k, (name, value) in enumerate(levels.items()):
        panel.axvline(value, color="0.3", ls=DASHES[k], lw=1.0, label=name)
    panel.set_yticks(range(len(names)), names)
    panel.set_xscale("log")
    panel.set_xlabel("perplexity (logarithmic)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure
