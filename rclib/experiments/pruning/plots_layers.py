"""Panels of notebook 43: tickets of layers by criterion, against units, and what they cost."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, GREY, MARKERS, WIDTH, colour

__all__ = ["inside_panels", "layer_panels"]


def _lines(panel: Axes, table: pd.DataFrame, names: dict[tuple[str, str], str]) -> None:
    places = sorted(set(table.removed))
    for k, ((arm, criterion), label) in enumerate(names.items()):
        own = table[(table.arm == arm) & (table.criterion == criterion)].sort_values("removed")
        if own.empty:
            continue
        shift = 0.09 * (k - (len(names) - 1) / 2)
        at = np.array([places.index(p) for p in own.removed]) + shift
        error = [own["mean"] - own.low, own.high - own["mean"]]
        shade = GREY if (arm, criterion) == ("layers", "random") else colour(k)
        panel.errorbar(
            at, own["mean"], error, fmt=MARKERS[k % len(MARKERS)], color=shade, ms=3,
            lw=1.0, ls=DASHES[k % len(DASHES)], label=label,
        )  # fmt: skip
    panel.set_xticks(range(len(places)), [str(p) for p in places])
    panel.axhline(0.0, color=GREY, lw=0.8)
    panel.axhspan(-0.01, 0.01, color=GREY, alpha=0.15, lw=0)
    panel.set_xlabel("blocks removed")
    panel.set_ylabel("test accuracy minus dense")


@redrawable
def layer_panels(table: pd.DataFrame, speeds: pd.DataFrame) -> Figure:
    """Gap by criterion; layers against units of as many weights; speed against blocks removed.

    table : as `layer_lottery.gap_table`; speeds : as `layer_lottery.speed_frame`.
    """
    figure, grid = plt.subplots(1, 3, figsize=(WIDTH, 3.1), layout="constrained")
    left, middle, right = grid
    some = table[table.arm == "layers"]
    names = {("layers", c): str(c) for c in dict.fromkeys(some.criterion)}
    _lines(left, some, names)
    floor = float(table[table.arm == "linear"]["mean"].iloc[0])
    left.axhline(floor, color=GREY, ls="--", lw=0.9)
    left.annotate("no blocks", (0, floor), xytext=(0, 2), textcoords="offset points", fontsize=6)
    low, high = left.get_ylim()
    left.set_ylim(low, high + 0.55 * (high - low))
    left.legend(fontsize=6, loc="upper center", ncols=2, columnspacing=0.8, handletextpad=0.3)
    left.set_title("which blocks go")
    both = {("layers", "random"): "blocks", ("units", "random"): "units"}
    both |= {("layers", "GraSP"): "blocks, GraSP", ("units", "GraSP"): "units, GraSP"}
    shown = table[table.removed.isin(set(table[table.arm == "units"].removed))]
    there = set(zip(shown.arm, shown.criterion, strict=True))
    _lines(middle, shown, {key: name for key, name in both.items() if key in there})
    low, high = middle.get_ylim()
    middle.set_ylim(low, high + 0.4 * (high - low))
    middle.set_ylabel("")
    middle.legend(fontsize=6, loc="upper center", ncols=2, columnspacing=0.8, handletextpad=0.3)
    middle.set_title("blocks or units")
    told = {
        "counted": "multiplications", "layers": "blocks, time", "units": "units, time",
    }  # fmt: skip
    for k, (kind, own) in enumerate(speeds[speeds.speed < 8].groupby("kind", sort=False)):
        over = own.groupby("removed").speed
        mean = over.median()
        error = [mean - over.min(), over.max() - mean]
        right.errorbar(
            mean.index, mean, error, fmt=MARKERS[k], color=colour(k), ls=DASHES[k], ms=3, lw=1.0,
            label=told[str(kind)],
        )  # fmt: skip
    right.legend(fontsize=6, loc="upper left")
    right.set_xlabel("blocks removed")
    right.set_ylabel("dense / ticket, a step")
    right.set_title("what it saves")
    parts.letters(figure)
    return figure


@redrawable
def inside_panels(inside: pd.DataFrame, cut: pd.DataFrame, conv: pd.DataFrame) -> Figure:
    """Movement and spikes of the kept blocks, blocks cut without training, convolutions.

    inside : removed, seed, moved (over the dense network's), spikes. cut : removed, seed, gap.
    conv : as `layer_lottery.gap_table`, or empty.
    """
    panels = 4 if len(conv) else 3
    figure, grid = plt.subplots(
        1, panels, figsize=(WIDTH, 2.7), layout="constrained",
    )  # fmt: skip
    for k, (panel, frame, name, label) in enumerate((
        (grid[0], inside, "moved", "movement over dense"),
        (grid[1], inside, "spikes", "spikes a matrix"),
        (grid[2], cut, "gap", "accuracy minus dense"),
    )):  # fmt: skip
        over = frame.groupby("removed")[name]
        mean, error = over.mean(), 1.96 * over.std() / np.sqrt(over.count())
        panel.errorbar(mean.index, mean, error, fmt=MARKERS[k], ls="-", color=colour(k), ms=3, lw=1)
        panel.set_xlabel("blocks removed")
        panel.set_ylabel(label)
    for panel, title in zip(
        grid, ("kept blocks", "their spectra", "cut, not retrained"), strict=False
    ):
        panel.set_title(title)
    if len(conv):
        own = conv[conv.arm != "dense"].reset_index(drop=True)
        labels = [
            "no blocks" if r.arm == "linear" else f"{r.criterion}{', filters' * (r.arm == 'units')}"
            for r in own.itertuples()
        ]
        error = [own["mean"] - own.low, own.high - own["mean"]]
        grid[3].errorbar(own["mean"], own.index, xerr=error, fmt="o", color=colour(3), ms=3, lw=1.0)
        grid[3].set_yticks(own.index, labels, fontsize=6)
        grid[3].axvline(0.0, color=GREY, lw=0.8)
        grid[3].set_xlabel("accuracy minus dense")
        grid[3].set_title("convolutions")
    parts.letters(figure)
    return figure
