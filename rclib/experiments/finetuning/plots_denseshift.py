"""Panels of notebook 84: bits, freezing, shares of values, transfer, rates, weights, controls."""

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
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks

__all__ = ["main_panels", "more_panels"]

FAMILIES = ("dense", "with zero")
NAMES = {"dense": "zero-free", "with zero": "with zero"}
STARTS = ("low", "Kaiming", "one")


def _bits(panel: Panel, frame: pd.DataFrame) -> None:
    """Accuracy against bits, one pair of lines a width, real weights as a band."""
    look = looks(FAMILIES)
    widths = sorted(frame.width.unique())
    for place, width in enumerate(widths):
        own = frame[frame.width == width]
        real = own[own.family == "float"].groupby("width").accuracy
        middle, half = float(real.mean().iloc[0]), float(parts.half_widths(real).iloc[0])
        panel.axhspan(middle - half, middle + half, color=GREY, alpha=0.18, lw=0)
        parts.level(panel, middle, f"real weights, width {width}")
        for family in FAMILIES:
            over = own[own.family == family].groupby("bits").accuracy
            shown: Any = {**look[family], "mfc": "white" if place else look[family]["color"]}
            panel.errorbar(
                over.mean().index + (0.04 if family == "dense" else -0.04), over.mean(),
                yerr=parts.half_widths(over), ms=4, lw=1.2, elinewidth=0.8,
                label=f"{NAMES[family]}, width {width}", **shown,
            )  # fmt: skip
    panel.set_xticks(sorted(set(frame.bits) - {0}))
    panel.set_xlabel("bits a weight")
    panel.set_ylabel("accuracy on test images")
    panel.set_title("bits")
    _room(panel, below=0.25)
    panel.legend(fontsize=5.5, loc="lower center", ncol=2)


def _room(panel: Panel, *, below: float = 0.0, above: float = 0.0) -> None:
    """More of the panel's height below and above what it shows, for its legend."""
    low, high = panel.get_ylim()
    panel.set_ylim(low - below * (high - low), high + above * (high - low))


def _freezing(panel: Panel, frame: pd.DataFrame) -> None:
    """Training loss against the share of signs that ever changed; one marker a start."""
    kinds = frame.arm.str.replace(r" \d.*$", "", regex=True)
    for number, kind in enumerate(dict.fromkeys(kinds)):
        for std in STARTS:
            own = frame[(kinds == kind) & (frame["std"] == std)]
            panel.plot(
                own.ever, own.train, MARKERS[STARTS.index(std)], ms=3.5, mew=0, alpha=0.75,
                color=colour(number), label=NAMES.get(kind, kind) if std == "low" else None,
            )  # fmt: skip
    for place, std in enumerate(STARTS):
        panel.plot([], [], MARKERS[place], color=GREY, ms=3.5, mew=0, label=f"start: {std}")
    parts.log_axis(panel, "y")
    panel.set_xlabel("share of signs that ever changed")
    panel.set_ylabel("training loss")
    panel.set_title("freezing")
    panel.legend(fontsize=5, loc="best")


def _shares(panel: Panel, frame: pd.DataFrame) -> None:
    """Share of each size of a weight, by arm, at start and end."""
    sizes = sorted(frame["size"].unique(), key=float)
    bars = [(arm, when) for arm in dict.fromkeys(frame.arm) for when in ("start", "end")]
    for number, (arm, when) in enumerate(bars):
        own = frame[(frame.arm == arm) & (frame.when == when)].set_index("size")["share"]
        place = np.array([sizes.index(size) for size in own.index]) + 0.2 * (number - 1.5)
        kind = arm.rsplit(" ", 1)[0]
        panel.bar(
            place, own, 0.18, color=colour(FAMILIES.index(kind)), lw=0,
            alpha=0.45 if when == "start" else 1.0, label=f"{NAMES[kind]}, {when}",
        )  # fmt: skip
    panel.set_xticks(range(len(sizes)), [s if s == "0" else f"±{s}" for s in sizes])
    panel.set_ylabel("share of hidden weights")
    panel.set_title("values at 3 bits")
    panel.legend(fontsize=5.5, loc="best")


def _transfer(panel: Panel, frame: pd.DataFrame) -> None:
    """Accuracy on other classes, moved and new, by arm."""
    own = frame[frame.chosen]
    names = list(dict.fromkeys(own.arm))
    for number, (moved, label) in enumerate(((True, "pre-trained"), (False, "from scratch"))):
        over = own[own.moved == moved].groupby("arm").accuracy
        middle, half = over.mean()[names], parts.half_widths(over)[names]
        panel.errorbar(
            np.arange(len(names)) + 0.16 * (2 * number - 1), middle, yerr=half, ls="", ms=4,
            marker=MARKERS[number], color=colour(number), elinewidth=0.9, label=label,
        )  # fmt: skip
    shown = [n.replace("dense 3", "zero-free").replace(" 3", "") for n in names]
    panel.set_xticks(range(len(names)), [n.replace(", ", ",\n") for n in shown])
    panel.tick_params(axis="x", labelsize=5.5)
    panel.set_ylabel("accuracy, new classes")
    panel.set_title("few images of other classes")
    _room(panel, above=0.2)
    panel.legend(fontsize=6, loc="upper center", ncol=2)


@redrawable
def main_panels(
    bits: pd.DataFrame, frozen: pd.DataFrame, shares: pd.DataFrame, moved: pd.DataFrame
) -> Figure:
    """Accuracy by bits; loss against changed signs; values at start and end; transfer.

    bits : width, family, bits, seed, accuracy. frozen : arm, std, rate, ever, train. shares : arm,
    when, size, share. moved : arm, moved, rate, chosen, seed, accuracy.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.4), layout="constrained")
    _bits(panels[0, 0], bits)
    _freezing(panels[0, 1], frozen)
    _shares(panels[1, 0], shares)
    _transfer(panels[1, 1], moved)
    parts.letters(figure)
    return figure


def _lines(panel: Panel, frame: pd.DataFrame, x: str, y: str, names: Sequence[str]) -> None:
    for name, look in looks(names).items():
        over = frame[frame.arm == name].groupby(x)[y]
        panel.errorbar(
            over.mean().index, over.mean(), yerr=parts.half_widths(over), ms=3, lw=1.1,
            elinewidth=0.7, label=name, **look,
        )  # fmt: skip
    panel.legend(fontsize=5.5, loc="best")


@redrawable
def more_panels(
    gains: pd.DataFrame, grid: pd.DataFrame, weights: pd.DataFrame, curves: pd.DataFrame
) -> Figure:
    """Gain without zero by width; loss by start and rate; largest singular values; controls.

    gains : arm (bits), width, seed, gain. grid : arm (start), rate, seed, train. weights : arm,
    seed, when, edge. curves : arm, seed, tenth, loss.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.2), layout="constrained")
    panel = panels[0, 0]
    _lines(panel, gains, "width", "gain", list(dict.fromkeys(gains.arm)))
    panel.axhline(0, color=GREY, lw=0.7)
    parts.size_axis(panel, list(gains.width.unique()))
    panel.set_xlabel("width of the hidden layers")
    panel.set_ylabel("accuracy, zero-free minus with zero")
    panel.set_title("gain without a zero")
    panel = panels[0, 1]
    _lines(panel, grid, "rate", "train", list(dict.fromkeys(grid.arm)))
    parts.log_axis(panel, "x")
    panel.set_xlabel("rate")
    panel.set_ylabel("training loss")
    panel.set_title("zero-free, 3 bits, by start")
    panel = panels[1, 0]
    names = list(dict.fromkeys(weights.arm))
    for number, when in enumerate(("start", "end")):
        over = weights[weights.when == when].groupby("arm").edge
        panel.errorbar(
            over.mean()[names], np.arange(len(names)) + 0.16 * (2 * number - 1),
            xerr=parts.half_widths(over)[names], ls="", ms=3.5, marker=MARKERS[number],
            color=colour(number), elinewidth=0.9, label=when,
        )  # fmt: skip
    panel.axvline(1, color=GREY, lw=0.9, ls=":")
    panel.set_yticks(range(len(names)), names)
    panel.tick_params(axis="y", labelsize=6)
    panel.invert_yaxis()
    panel.set_xlabel("largest singular value over the edge, first matrix")
    panel.set_title("spikes")
    panel.legend(fontsize=6, loc="best")
    panel = panels[1, 1]
    _lines(panel, curves, "tenth", "loss", list(dict.fromkeys(curves.arm)))
    parts.log_axis(panel, "y")
    panel.set_xlabel("tenths of the updates")
    panel.set_ylabel("training loss")
    panel.set_title("signs that stay, weights times 4")
    parts.letters(figure)
    return figure
