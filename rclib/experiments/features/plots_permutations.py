"""Figures of notebook 72: sizes of ensembles, averaged outputs, risk and weights by width."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, GREY, MARKERS, WIDTH, colour

__all__ = ["learned_panels", "size_panels"]


def _band(panel: Axes, group: pd.DataFrame, x: str, y: str, number: int, label: str) -> None:
    """Median and range over seeds against x."""
    over = group.groupby(x)[y]
    look = {"color": colour(number), "marker": MARKERS[number], "linestyle": DASHES[number]}
    panel.plot(over.median().index, over.median(), ms=3, lw=1.1, label=label, **look)
    panel.fill_between(
        over.median().index, over.min(), over.max(), color=colour(number), alpha=0.15, lw=0
    )


@redrawable
def size_panels(
    sizes: pd.DataFrame,
    published: pd.DataFrame,
    outputs: pd.DataFrame,
    tests: pd.DataFrame,
    law: pd.DataFrame,
    *,
    means: tuple[float, float],
    k: int,
) -> Figure:
    """Size of the ensemble against k with the authors' counts, averaged outputs, and the size by
    which inputs are asked for.

    sizes : which, k, seed, rule, size (for 90 percent). published : k, size. outputs : size, on,
    at, height, with the closed `means` of on- and off-bits at this k. tests : test, k, seed, size.
    law : which, k, size in closed form.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 2.7), layout="constrained")
    zero = sizes[sizes.rule == "zero"]
    for number, (which, group) in enumerate(zero.groupby("which", sort=False)):
        _band(left, group, "k", "size", number, f"{which} trained")
        closed = law[law.which == which]
        name = None if number else "closed form"
        left.plot(closed.k, closed["size"], color="k", lw=0.7, label=name, zorder=1)
    other = sizes[sizes.rule == "midpoint"]
    _band(left, other, "k", "size", 2, "cut at the midpoint")
    left.plot(published.k, published["size"], "x", color="k", ms=4, label="authors' counts")
    ks = np.array(sorted(zero.k.unique()), dtype=float)
    last = zero[zero.which == zero.which.iloc[0]]
    guide = ks * np.log(ks)
    guide *= float(last[last.k == ks[-1]]["size"].median()) / guide[-1] / 2.5
    left.plot(ks, guide, ls=":", color=GREY, lw=0.9, label="∝ k ln k")
    parts.log_axis(left, "x")
    parts.log_axis(left, "y")
    left.set_ylim(0.7, 3e4)
    left.set_xlabel("bits k")
    left.set_ylabel("networks for 90 % of inputs")
    left.set_title("two ones")
    left.legend(fontsize=5.5, loc="upper left", ncols=2, columnspacing=0.8, handlelength=1.8)
    _outputs(middle, outputs, means)
    middle.set_title(f"averaged outputs, k = {k}")
    for number, (test, group) in enumerate(tests.groupby("test", sort=False)):
        _band(right, group, "k", "size", number + 3, str(test))
    parts.log_axis(right, "x")
    parts.log_axis(right, "y")
    right.set_ylim(top=2.5 * float(tests["size"].max()))
    right.set_xlabel("bits k")
    right.set_ylabel("networks")
    right.set_title("all layers, which inputs")
    right.legend(fontsize=5.5, loc="upper left")
    parts.letters(figure)
    return figure


def _outputs(panel: Axes, outputs: pd.DataFrame, means: tuple[float, float]) -> None:
    inset = panel.inset_axes((0.36, 0.55, 0.6, 0.4))
    for number, (size, group) in enumerate(outputs.groupby("size")):
        look = {"lw": 1.0, "color": colour(number), "ls": DASHES[number]}
        for on, part in group.groupby("on"):
            label = f"N = {size}" if on else None
            panel.plot(part["at"], part.height, drawstyle="steps-mid", label=label, **look)
            if not on:
                inset.plot(part["at"], part.height, drawstyle="steps-mid", **look)
    for axes in (panel, inset):
        for mean in means:
            axes.axvline(mean, ymax=1.0 if axes is inset else 0.47, color=GREY, lw=0.8, ls=":")
        axes.set_yticks([])
    panel.set_ylim(0, 2.2)
    panel.set_xlim(-0.32, 0.9)
    panel.set_xlabel("mean output of N networks")
    panel.set_ylabel("count, highest bin = 1")
    panel.legend(fontsize=5.5, loc=(0.3, 0.25), handlelength=1.5)
    inset.axvline(0.0, color="k", lw=0.7)
    inset.set_xlim(-0.05, 0.05)
    inset.set_xticks([-0.03, 0, 0.03])
    inset.set_ylim(0, 1.1)
    inset.tick_params(labelsize=5.5, pad=1)
    inset.set_title("off-bits", size=6, pad=2)


@redrawable
def learned_panels(risk: pd.DataFrame, weights: pd.DataFrame) -> Figure:
    """Excess risk against the number of hidden units, and what training does to the first matrix
    in the two scalings.

    risk : arm, seed, features, risk. weights : scaling, seed, width, change, correlation, top.
    """
    figure, panels = plt.subplots(1, 4, figsize=(WIDTH, 2.6), layout="constrained",
                                  width_ratios=[1.6, 1, 1, 1])  # fmt: skip
    for number, (arm, group) in enumerate(risk.groupby("arm", sort=False)):
        _band(panels[0], group, "features", "risk", number, str(arm))
    parts.log_axis(panels[0], "x")
    panels[0].set_ylim(-0.05, 1.55)
    panels[0].set_yticks([0, 0.5, 1.0])
    panels[0].set_xlabel("hidden units in all")
    panels[0].set_ylabel("excess risk over the oracle")
    panels[0].set_title("risk against features")
    panels[0].legend(fontsize=5.5, loc="upper left")
    for panel, column, label in (
        (panels[1], "change", "relative change of W1"),
        (panels[2], "correlation", "correlation of means"),
        (panels[3], "top", "largest eigenvalue over edge"),
    ):
        for number, (scaling, group) in enumerate(weights.groupby("scaling", sort=False)):
            _band(panel, group, "width", column, number, str(scaling))
        parts.size_axis(panel, list(weights.width.unique()))
        panel.set_xlabel("width n")
        panel.set_ylabel(label)
        panel.set_title(
            {"change": "movement", "correlation": "row, column means", "top": "spike"}[column]
        )
    for panel in panels[1:3]:
        parts.log_axis(panel, "y")
    parts.level(panels[3], 1.0, "edge of noise")
    panels[1].legend(fontsize=5.5, loc="center right", bbox_to_anchor=(1.0, 0.72))
    parts.letters(figure)
    return figure
