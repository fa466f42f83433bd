"""Panels of notebook 73: accuracies and numbers of samples, controls, filters and weights."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, WIDTH, colour, looks

__all__ = ["curve_panels", "inside_panels"]

LOOKS_OF = ("CNN", "LCN", "FCN")


def _lines(
    panel: Panel, frame: pd.DataFrame, by: str, x: str, y: str, names: Sequence[str]
) -> None:
    """Means over seeds with 95 percent intervals."""
    look = looks(names)
    for name, own in frame.groupby(by, sort=False):
        over = own.groupby(x)[y]
        middle = over.mean()
        panel.errorbar(
            middle.index, middle, yerr=parts.half_widths(over).loc[middle.index], ms=3.2, lw=1.2,
            capsize=2, elinewidth=0.8, label=str(name), **look[str(name)],
        )  # fmt: skip


def _sample_lines(panel: Panel, table: pd.DataFrame, x: str) -> None:
    """Numbers of samples with their intervals; bounds as open triangles."""
    look = looks(LOOKS_OF)
    for name, own in table.groupby("arch", sort=False):
        known = own[own.bound == ""].sort_values(x)
        panel.errorbar(
            known[x], known.samples, yerr=[known.samples - known.low, known.high - known.samples],
            ms=3.5, lw=1.2, capsize=2, elinewidth=0.8, label=str(name), **look[str(name)],
        )  # fmt: skip
        for bound, marker in (("at least", "^"), ("at most", "v")):
            ends = own[own.bound == bound]
            panel.plot(
                ends[x], ends.samples, marker, ms=5, mfc="none", color=look[str(name)]["color"],
                label=f"{name}: {bound}" if len(ends) else "_none",
            )  # fmt: skip


@redrawable
def curve_panels(
    curves: pd.DataFrame, table: pd.DataFrame, bars: pd.DataFrame, *, k: int, d: int, bayes: float,
    linear: float, band: Sequence[float],
) -> Figure:  # fmt: skip
    """Accuracy against samples at one size; samples needed against the number of patches; the
    networks on the task and on both controls.

    curves : arch, n, seed, accuracy. table : of `thresholds` at one d. bars : control, arch, seed,
    accuracy. bayes, linear : accuracies of these rules. band : how many times as many samples as
    the CNN the authors' LCN needed, from and to.
    """
    figure, panels = plt.subplots(1, 3, figsize=(WIDTH, 3.1), layout="constrained")
    panel = panels[0]
    _lines(panel, curves, "arch", "n", "accuracy", LOOKS_OF)
    parts.log_axis(panel, "x")
    panel.set_ylim(0.55, 1.0)
    parts.level(panel, bayes, "Bayes")
    parts.level(panel, linear, "best linear rule", ls="--")
    panel.set_xlabel("samples n")
    panel.set_ylabel("test accuracy")
    panel.set_title(f"k = {k}, d = {d}")
    panel.legend(fontsize=6.5, loc="lower right")
    panel = panels[1]
    cnn = table[(table.arch == "CNN") & (table.bound == "")].sort_values("k")
    panel.fill_between(
        cnn.k, band[0] * cnn.samples, band[1] * cnn.samples, color=GREY, alpha=0.15, lw=0,
        label=f"paper: {band[0]:g} to {band[1]:g} × CNN",
    )  # fmt: skip
    _sample_lines(panel, table, "k")
    parts.size_axis(panel, sorted(table.k.unique()))
    parts.log_axis(panel, "y")
    panel.set_ylim(top=panel.get_ylim()[1] * 3)
    panel.set_xlabel("patches k")
    panel.set_ylabel("samples to Bayes − 0.06")
    panel.set_title(f"samples needed, d = {d}")
    panel.legend(fontsize=5.5, loc="upper left", ncols=2)
    panel = panels[2]
    controls = list(dict.fromkeys(bars.control))
    for number, arch in enumerate(LOOKS_OF):
        over = bars[bars.arch == arch].groupby("control").accuracy
        middle, half = over.mean().loc[controls], parts.half_widths(over).loc[controls]
        places = np.arange(len(controls)) + 0.26 * (number - 1)
        panel.bar(places, middle, 0.24, color=colour(number), label=arch, yerr=half, ecolor=GREY,
                  error_kw={"lw": 0.8, "capsize": 2}, hatch=("", "//", "..")[number],
                  edgecolor="white", lw=0.3)  # fmt: skip
    panel.axhline(linear, color=GREY, lw=0.9, ls="--")
    panel.set_xticks(range(len(controls)), [name.replace(" ", "\n") for name in controls])
    panel.set_ylim(0.5, 1.08)
    panel.set_ylabel("test accuracy")
    panel.set_title("controls")
    panel.legend(fontsize=6.5, ncols=3, loc="upper center")
    parts.letters(figure)
    return figure


@redrawable
def inside_panels(
    excess: pd.DataFrame, spikes: pd.DataFrame, sizes: pd.DataFrame, images: pd.DataFrame, *,
    guides: Sequence[float],
) -> Figure:  # fmt: skip
    """Error above the oracle's against filters or hidden units; share of the largest eigenvalue of
    LCN filters against samples; samples needed against d; accuracy on images.

    excess : arm, features, seed, excess. spikes : signals, n, seed, leading. sizes : of
    `thresholds` at one k. images : arch, n, seed, accuracy. guides : shares that were predicted to
    be bounds.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.0), layout="constrained")
    panel = panels[0, 0]
    _lines(panel, excess, "arm", "features", "excess", list(dict.fromkeys(excess.arm)))
    parts.size_axis(panel, sorted(excess.features.unique()))
    panel.axhline(0, color=GREY, lw=0.8, ls=":")
    panel.set_xlabel("filters, or hidden units")
    panel.set_ylabel("error above the oracle's")
    panel.set_title("number of features")
    panel.legend(fontsize=6.5)
    panel = panels[0, 1]
    _lines(panel, spikes, "signals", "n", "leading", list(dict.fromkeys(spikes.signals)))
    parts.size_axis(panel, sorted(spikes.n.unique()))
    panel.set_ylim(0, 1)
    for value in guides:
        panel.axhline(value, color=GREY, lw=0.8, ls=":")
    panel.set_xlabel("samples n")
    panel.set_ylabel("share of the largest eigenvalue")
    panel.set_title("filters of the LCN")
    panel.legend(fontsize=6.5, loc="upper left")
    panel = panels[1, 0]
    _sample_lines(panel, sizes, "d")
    parts.size_axis(panel, sorted(sizes.d.unique()))
    parts.log_axis(panel, "y")
    panel.set_xlabel("size of a patch d")
    panel.set_ylabel("samples to Bayes − 0.06")
    panel.set_title(f"samples needed, k = {int(sizes.k.iloc[0])}")
    panel.legend(fontsize=6.5)
    panel = panels[1, 1]
    _lines(panel, images, "arch", "n", "accuracy", LOOKS_OF)
    parts.size_axis(panel, sorted(images.n.unique()))
    panel.set_xlabel("samples n")
    panel.set_ylabel("test accuracy")
    panel.set_title("images in noise")
    panel.legend(fontsize=6.5)
    parts.letters(figure)
    return figure
