"""Panels of notebook 74: latent spaces, stitched networks, anchors, widths."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks

__all__ = ["measure_panels", "space_panels"]

ARMS = ("absolute", "relative", "Procrustes", "linear", "shuffled")


@redrawable
def space_panels(
    pictures: pd.DataFrame, matrices: pd.DataFrame, sweep: pd.DataFrame, *, variance: float = 1.0
) -> Figure:
    """Spaces of two dimensions of separate trainings, above their relative codes in one plane;
    errors of encoder i with decoder j; errors against the number of anchors.

    pictures : seed, what, class, x, y. matrices : codes, encoder, decoder, error.
    sweep : anchors, seed, own, stitched, joined. variance : where the mean image stands.
    """
    figure = plt.figure(figsize=(WIDTH, 3.7), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=[1.25, 1])
    left, right = halves
    seeds, rows = list(dict.fromkeys(pictures.seed)), list(dict.fromkeys(pictures.what))
    panels = left.subplots(len(rows), len(seeds), squeeze=False)
    for i, what in enumerate(rows):
        for j, seed in enumerate(seeds):
            panel = panels[i, j]
            own = pictures[(pictures.what == what) & (pictures.seed == seed)]
            for number, (label, points) in enumerate(own.groupby("class")):
                panel.plot(
                    points.x, points.y, MARKERS[number], ms=2.5, mew=0, alpha=0.8,
                    color=colour(number), label=str(label),
                )  # fmt: skip
            panel.set_aspect("equal", adjustable="datalim")
            panel.set_box_aspect(1)
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_title(f"training {j + 1}" if i == 0 else f"codes of {j + 1}", fontsize=7.5)
        panels[i, 0].set_ylabel(what, fontsize=7.5)
    handles, names = panels[0, 0].get_legend_handles_labels()
    left.legend(
        handles, [f"class {name}" for name in names], fontsize=6.5, ncols=len(names),
        loc="outside lower center", handletextpad=0.1, columnspacing=0.8, markerscale=1.5,
    )  # fmt: skip
    top, below = right.subfigures(2, 1, height_ratios=[1, 1.3])
    _matrices(top, matrices)
    _anchors(below.subplots(), sweep, variance)
    return figure


def _matrices(figure: Any, matrices: pd.DataFrame) -> None:
    names = list(dict.fromkeys(matrices.codes))
    panels = figure.subplots(1, len(names))
    scale = LogNorm(matrices.error.min(), matrices.error.max())
    for panel, name in zip(panels, names, strict=True):
        table = matrices[matrices.codes == name].pivot(
            index="encoder", columns="decoder", values="error"
        )
        image = panel.imshow(table.to_numpy(), cmap="cividis", norm=scale)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.grid(False)
        panel.set_title(f"{name} codes", fontsize=7.5)
        panel.set_xlabel("decoder", fontsize=7)
    panels[0].set_ylabel("encoder", fontsize=7)
    bar = figure.colorbar(image, ax=panels, shrink=0.75)
    bar.set_label("error / variance", fontsize=7)
    parts.log_axis(bar.ax, "y")
    bar.ax.tick_params(labelsize=7)


def _band(panel: Panel, table: pd.DataFrame, what: str, look: Any, label: str) -> None:
    """Mean and range over seeds."""
    over = table.groupby("anchors")[what]
    panel.plot(over.mean().index, over.mean(), ms=3.5, lw=1.2, label=label, **look)
    panel.fill_between(over.mean().index, over.min(), over.max(), alpha=0.15, lw=0,
                       color=look["color"])  # fmt: skip


def _anchors(panel: Panel, sweep: pd.DataFrame, variance: float) -> None:
    look = looks(["relative, stitched", "relative, own", "absolute, Procrustes"])
    for what, label in (
        ("stitched", "relative, stitched"),
        ("joined", "absolute, Procrustes"),
        ("own", "relative, own"),
    ):
        _band(panel, sweep, what, look[label], label)
    parts.size_axis(panel, sorted(sweep.anchors.unique()))
    parts.log_axis(panel, "y")
    panel.set_xlabel("anchors")
    panel.set_ylabel("error / variance")
    parts.level(panel, variance, "mean image")
    panel.legend(fontsize=6)


@redrawable
def measure_panels(
    retrieved: pd.DataFrame, joined: pd.DataFrame, sweep: pd.DataFrame, resized: pd.DataFrame
) -> Figure:
    """Mean reciprocal rank by arm; errors of stitched networks; the relative networks' own error
    above the absolute ones' against the number of anchors; and distances of relative codes from
    a source's, by width.

    retrieved : space, arm, seed, mrr. joined : kind, widths, join, seed, error.
    sweep : anchors, seed, excess. resized : arm, width, seed, distance.
    """
    figure, panels = plt.subplots(
        2, 2, figsize=(WIDTH, 5.0), layout="constrained", width_ratios=[1.2, 1]
    )
    _dots(panels[0, 0], retrieved, ["arm", "space"], "mrr")
    panels[0, 0].set_xlabel("mean reciprocal rank")
    panels[0, 0].set_title("test samples looked for")
    rows = joined.assign(arm=joined["join"], space=joined.kind + ", " + joined.widths + " size")
    _dots(panels[0, 1], rows, ["arm", "space"], "error")
    panels[0, 1].set_xlabel("error (images: over variance; classes: share)")
    parts.log_axis(panels[0, 1], "x")
    panels[0, 1].set_title("stitched")
    panel = panels[1, 0]
    _band(panel, sweep, "excess", looks(["excess"])["excess"], "")
    parts.size_axis(panel, sorted(sweep.anchors.unique()))
    parts.log_axis(panel, "y")
    panel.set_xlabel("features of the code (anchors)")
    panel.set_ylabel("own error above absolute's")
    panel.set_title("the price of relative codes")
    panel = panels[1, 1]
    look = looks(list(dict.fromkeys(resized.arm)))
    for arm, own in resized.groupby("arm", sort=False):
        over = own.groupby("width").distance
        style: Any = look[str(arm)]
        panel.plot(over.mean().index, over.mean(), ms=3.5, lw=1.2, label=str(arm), **style)
        panel.fill_between(
            over.mean().index, over.min(), over.max(), alpha=0.15, lw=0, color=style["color"]
        )
    parts.size_axis(panel, sorted(resized.width.unique()))
    parts.log_axis(panel, "y")
    panel.set_xlabel("width of the other network")
    panel.set_ylabel("distance of relative codes")
    panel.set_title("distance from the source")
    low, high = panel.get_ylim()
    panel.set_ylim(low, 3 * high)  # room for the names
    panel.legend(fontsize=6, ncols=2, loc="upper center")
    parts.letters(figure)
    return figure


def _dots(panel: Panel, frame: pd.DataFrame, keys: list[str], what: str) -> None:
    """One row an arm, one colour and marker a space; dots are seeds, bars their means."""
    first, second = keys
    arms = [arm for arm in ARMS if arm in set(frame[first])]
    spaces = list(dict.fromkeys(frame[second]))
    step = 0.8 / len(spaces)
    for number, space in enumerate(spaces):
        for place, arm in enumerate(arms):
            values = frame[(frame[first] == arm) & (frame[second] == space)][what]
            at = place + (number - (len(spaces) - 1) / 2) * step
            panel.plot(
                values, np.full(len(values), at), MARKERS[number], ms=2.6, alpha=0.6, mew=0,
                color=colour(number), label="_" if space in _named(panel) else space,
            )  # fmt: skip
            panel.plot(values.mean(), at, "|", ms=6, mew=1.2, color=GREY)
    panel.set_yticks(range(len(arms)), arms)
    panel.invert_yaxis()
    panel.legend(fontsize=5.5)


def _named(panel: Panel) -> set[str]:
    return {str(line.get_label()) for line in panel.lines}
