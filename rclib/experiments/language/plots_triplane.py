"""Figures of notebook 95: what is read off the fields, and the spectrum of their channels."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.data.shapes import KINDS
from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour

__all__ = ["channel_panels", "reader_panels"]

NAMES = {
    "set": "channels, set", "transformer": "channels,\nTransformer", "flat": "planes, flat",
    "spatial": "pixels, set", "decoder": "hybrid's\nnetwork", "network": "network\nalone",
    "network, shuffled": "neurons\nrenamed", "neurons": "its neurons,\nset",
}  # fmt: skip


def _pictures(figure: Any, pictures: pd.DataFrame) -> None:
    """Channels of planes, a row a fit and plane."""
    rows, channels = list(pictures.groupby(["fit", "plane"]).groups), pictures.channel.max() + 1
    panels = figure.subplots(len(rows), channels, squeeze=False)
    for (fit, plane, channel), own in pictures.groupby(["fit", "plane", "channel"]):
        place = rows.index((fit, plane))
        panel = panels[place, channel]
        image = own.pivot_table(index="row", columns="column", values="value").to_numpy()
        panel.imshow(image, cmap="RdBu_r", vmin=-1, vmax=1, origin="lower")
        panel.set_xticks([])
        panel.set_yticks([])
        if channel == 0:
            panel.set_ylabel(f"fit {fit + 1}, {plane}", size=6.5)
        if place == len(rows) - 1:
            panel.set_xlabel(f"channel {channel + 1}", size=6)
    figure.suptitle("(a) planes of one torus", size=10)


def _bars(panel: Panel, reads: pd.DataFrame) -> None:
    """Mean accuracies with 95 percent t-intervals, own and shared starts side by side."""
    at = np.arange(len(NAMES))
    for number, start in enumerate(("own", "shared")):
        over = reads[reads.start == start].groupby("arm").accuracy
        means, halves = over.mean().reindex(list(NAMES)), parts.half_widths(over)
        panel.bar(
            at + 0.38 * (number - 0.5), means, 0.36, yerr=halves.reindex(list(NAMES)),
            color=colour(number), capsize=1.5, error_kw={"elinewidth": 0.7},
            label=f"{start} starts" if start == "own" else "one shared start",
        )  # fmt: skip
    parts.level(panel, 1 / len(KINDS), "", ls=":")
    panel.text(len(NAMES) - 0.45, 1 / len(KINDS) + 0.01, "chance", size=6, color=GREY, ha="left")
    panel.set_xticks(at, labels=list(NAMES.values()), rotation=40, ha="right", size=6.5,
                     rotation_mode="anchor")  # fmt: skip
    panel.set_xlim(-0.6, len(NAMES) + 0.1)
    panel.set_ylim(0, 1.15)
    panel.set_ylabel("accuracy on held-out shapes")
    panel.set_title("(b) what is read")
    panel.legend(fontsize=6.5, loc="upper left", ncols=2)


@redrawable
def reader_panels(reads: pd.DataFrame, pictures: pd.DataFrame) -> Figure:
    """Channels of one shape in two fits; accuracies by what is read and by start.

    reads : start, seed, arm, accuracy. pictures : fit, plane, channel, row, column, value.
    """
    figure = plt.figure(figsize=(WIDTH, 2.8), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.5))
    left, right = halves
    _pictures(left, pictures)
    _bars(right.subplots(), reads)
    return figure


@redrawable
def channel_panels(
    stopped: pd.DataFrame, shares: pd.DataFrame, correlations: pd.DataFrame, *, chance: float
) -> Figure:
    """Accuracy against the fields' quality; share of the channels' top eigenvalue by kind;
    row-column correlations over chance.

    stopped : seed, step, iou, accuracy. shares : seed, kind, share. correlations : seed, name,
    value. chance : share that noise of this shape has.
    """
    figure, panels = plt.subplots(1, 3, figsize=(WIDTH, 2.6), layout="constrained")
    panel = panels[0]
    over = stopped.groupby("step")
    panel.errorbar(
        over.iou.mean(), over.accuracy.mean(), xerr=parts.half_widths(over.iou),
        yerr=parts.half_widths(over.accuracy), marker=MARKERS[0], ms=3.5, color=colour(0),
        capsize=1.5, elinewidth=0.7,
    )  # fmt: skip
    for step, iou in over.iou.mean().items():
        last = step == over.iou.mean().index[-1]
        panel.annotate(
            str(step), (iou, over.accuracy.mean()[step]), xytext=(1, -12) if last else (-3, 5),
            size=6.5, textcoords="offset points", ha="center" if last else "right", color=GREY,
        )  # fmt: skip
    parts.level(panel, 1 / len(KINDS), "chance")
    panel.set_xlim(0, 1.05)
    panel.set_ylim(0, 1)
    panel.set_xlabel("intersection over union\n(at each point: steps of the fit)")
    panel.set_ylabel("accuracy, channels as a set")
    panel.set_title("better fields")
    panel = panels[1]
    by_kind = shares.groupby("kind").share
    kinds = list(KINDS)
    panel.errorbar(
        np.arange(len(kinds)), by_kind.mean().reindex(kinds),
        yerr=parts.half_widths(by_kind).reindex(kinds), ls="", marker=MARKERS[1], ms=4,
        color=colour(1), capsize=2, elinewidth=0.8,
    )  # fmt: skip
    panel.set_ylim(0, 1)
    panel.set_xlim(-0.6, len(kinds) - 0.4)
    parts.level(panel, chance, "noise (Marchenko-Pastur)")
    panel.set_xticks(np.arange(len(kinds)), labels=kinds, rotation=40, ha="right", size=6.5,
                     rotation_mode="anchor")  # fmt: skip
    panel.set_ylabel("share of the top eigenvalue")
    panel.set_title("spectrum of the channels")
    panel = panels[2]
    names = list(dict.fromkeys(correlations.name))
    for number, name in enumerate(names):
        own = correlations[correlations.name == name]["value"]
        spread = np.linspace(-0.12, 0.12, len(own)) if len(own) > 1 else np.zeros(1)
        panel.plot(number + spread, own, ".", ms=3.5, color=colour(number + 2))
    parts.log_axis(panel, "y")
    parts.level(panel, 1.0, "chance, 95 percent")
    panel.set_xlim(-0.5, len(names) - 0.5)
    panel.set_xticks(np.arange(len(names)), labels=names, size=6.5)
    panel.set_ylabel("largest correlation over chance")
    panel.set_title("rows and columns")
    parts.letters(figure)
    return figure
