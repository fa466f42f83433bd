"""Panels of notebook 42: random masks over width, layer densities, equal weights, spectra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks, ordered
from rclib.stats.sequential import interval

__all__ = ["other_panels", "random_panels", "spectra_panels"]


@redrawable
def random_panels(gaps: pd.DataFrame, layers: pd.DataFrame, weights: pd.DataFrame) -> Figure:
    """Accuracy over the dense network's against the width, one colour a density, full lines ER and
    dashed uniform; densities by layer, one line a scheme; accuracy against the weights that are
    kept, one line a density.

    gaps : width, scheme, density, seed, gap. layers : scheme, layer, density. weights : density,
    width, seed, weights, accuracy.
    """
    figure, panels = plt.subplots(
        1, 3, figsize=(WIDTH, 3.1), layout="constrained", width_ratios=[1.3, 1, 1.2]
    )
    panel = panels[0]
    shades = ordered([float(d) for d in gaps.density.unique()])
    for scheme, line, mark in (("ER", "-", "o"), ("uniform", "--", "s")):
        own = gaps[gaps.scheme == scheme]
        for density, rows in own.groupby("density"):
            by = rows.groupby("width").gap
            mean, tone = 100 * by.mean(), shades[float(str(density))]["color"]
            panel.plot(mean.index, mean, f"{mark}{line}", ms=3, lw=1.2, color=tone,
                       label=f"{scheme}, {density:g}")  # fmt: skip
            if scheme == "ER":
                panel.fill_between(
                    mean.index, 100 * by.min(), 100 * by.max(), color=tone, alpha=0.15, lw=0
                )
    parts.level(panel, 0.0, "dense")
    parts.size_axis(panel, sorted(gaps.width.unique()))
    panel.set_xlabel("width")
    panel.set_title("accuracy over dense (points)")
    panel.legend(fontsize=6)
    panel = panels[1]
    names = list(dict.fromkeys(layers.scheme))
    order = list(dict.fromkeys(layers.layer))
    for name in names:
        own = layers[layers.scheme == name]
        style: Any = looks(names)[name]
        panel.plot([order.index(k) for k in own.layer], own.density, ms=4, lw=1.2, label=name,
                   **style)  # fmt: skip
    panel.set_xticks(range(len(order)), order)
    parts.log_axis(panel, "y")
    panel.set_title("density by layer")
    panel.legend(fontsize=6)
    panel = panels[2]
    shades = ordered([float(d) for d in weights.density.unique()])
    for density, rows in weights.groupby("density"):
        by = rows.groupby("weights").accuracy
        mean, tone = 100 * by.mean(), shades[float(str(density))]["color"]
        dense = density == 1
        if dense:  # not a shade of the others: what they are held against
            tone = GREY
        panel.plot(
            mean.index, mean, "s--" if dense else "o-", ms=3, lw=1.2, color=tone,
            label="dense" if dense else f"ER, {density:g}",
        )  # fmt: skip
        panel.fill_between(mean.index, 100 * by.min(), 100 * by.max(), color=tone, alpha=0.15, lw=0)
    parts.log_axis(panel, "x")
    panel.set_xlabel("weights kept")
    panel.set_title("accuracy (percent)")
    panel.legend(fontsize=6)
    parts.letters(figure)
    return figure


@redrawable
def spectra_panels(inside: pd.DataFrame, depths: pd.DataFrame, arms: pd.DataFrame) -> Figure:
    """Of the last hidden matrix, by density: singular values beyond the masked start's largest,
    movement, largest correlation of mean vectors; gap to dense against hidden layers (one density);
    arms of one density over ER.

    inside : density, seed, spikes, moved, means. depths : layers, density, seed, gap. arms : arm,
    seed, gain.
    """
    figure, panels = plt.subplots(1, 5, figsize=(WIDTH, 2.7), layout="constrained")
    order = sorted(inside.density.unique(), reverse=True)
    titles = {"spikes": "singular values\nbeyond the start's", "moved": "‖ΔW‖ / ‖W0‖",
              "means": "largest |corr.| of\nmean vectors"}  # fmt: skip
    for panel, (what, title) in zip(panels, titles.items(), strict=False):
        for place, density in enumerate(order):
            values = inside[inside.density == density][what]
            panel.plot([place] * len(values), values, ".", ms=4, color=colour(0), alpha=0.5)
            panel.plot(place, values.mean(), "_", ms=11, mew=1.6, color=colour(1))
        panel.set_xticks(range(len(order)), [f"{d:g}" for d in order], fontsize=7)
        panel.set_xlim(-0.5, len(order) - 0.5)
        panel.set_ylim(bottom=0)
        panel.set_xlabel("density")
        panel.set_title(title, fontsize=8)
    panel = panels[3]
    by = depths.groupby("layers").gap
    mean = 100 * by.mean()
    panel.plot(mean.index, mean, "o-", ms=3.5, color=colour(0))
    panel.fill_between(
        mean.index, 100 * by.min(), 100 * by.max(), color=colour(0), alpha=0.15, lw=0
    )
    panel.set_xticks(sorted(depths.layers.unique()))
    panel.set_xlabel("hidden layers")
    panel.set_title("accuracy over\ndense (points)", fontsize=8)
    panel = panels[4]
    names = list(dict.fromkeys(arms.arm))
    for place, name in enumerate(names):
        values = 100 * arms[arms.arm == name].gain
        panel.plot([place] * len(values), values, ".", ms=4, color=colour(0), alpha=0.5)
        panel.plot(place, values.mean(), "_", ms=11, mew=1.6, color=colour(1))
    panel.set_xticks(range(len(names)), names, fontsize=6.5, rotation=35, ha="right")
    panel.set_xlim(-0.5, len(names) - 0.5)
    panel.axhline(0, ls=":", lw=1, color="0.3")
    panel.set_title("accuracy over\nER (points)", fontsize=8)
    parts.letters(figure)
    return figure


def _intervals(panel: Panel, at: Sequence[float], groups: Sequence[pd.Series], number: int,
               label: str | None = None) -> None:  # fmt: skip
    """Points, and means with their 95 percent t-intervals."""
    for place, values in zip(at, groups, strict=True):
        panel.plot([place] * len(values), values, ".", ms=2.5, color=colour(number), alpha=0.4)
        mean, low, _ = interval(values.tolist(), 0.05)
        panel.errorbar(
            place, mean, yerr=mean - low, color=colour(number),
            fmt=MARKERS[number], ms=4, lw=1.3, label=label if place == at[0] else None,
        )  # fmt: skip


@redrawable
def other_panels(
    edges: pd.DataFrame, gains: pd.DataFrame, resnets: pd.DataFrame | None = None
) -> Figure:
    """Largest singular value of masked starts over two edges, against the density; what sparse
    networks have over dense ones by other measures; residual networks' gaps by size.

    edges : density, seed, dense_edge, sparse_edge. gains : what, seed, gain. resnets : channels,
    blocks, layers, scheme, density, seed, gap.
    """
    count = 2 if resnets is None else 3
    figure, panels = plt.subplots(1, count, figsize=(WIDTH, 2.9), layout="constrained")
    panel = panels[0]
    order = sorted(edges.density.unique(), reverse=True)
    for number, (what, name) in enumerate(
        {"dense_edge": "Marchenko-Pastur", "sparse_edge": "sparse law"}.items()
    ):
        at = [place + 0.16 * (2 * number - 1) for place in range(len(order))]
        groups = [edges[edges.density == density][what] for density in order]
        _intervals(panel, at, groups, number, name)
    panel.axhline(1, ls=":", lw=1, color=GREY)
    panel.set_xticks(range(len(order)), [f"{d:g}" for d in order])
    panel.set_xlabel("density")
    panel.set_title("masked starts: largest\nsingular value over edge", fontsize=9)
    panel.legend(fontsize=6.5, loc="upper left")
    panel = panels[1]
    names = {"accuracy": "accuracy", "ece": "calibration\nerror", "attacked": "accuracy,\nattacked",
             "outside": "other\nimages"}  # fmt: skip
    _intervals(panel, range(len(names)), [100 * gains[gains.what == w].gain for w in names], 0)
    panel.axhline(0, ls=":", lw=1, color=GREY)
    panel.set_xticks(range(len(names)), names.values(), fontsize=6.5)
    panel.set_xlim(-0.5, len(names) - 0.5)
    panel.set_title("density 0.3 minus dense\n(points of 100)", fontsize=9)
    if resnets is not None:
        _residual(panels[2], resnets[resnets.scheme != "dense"])
    parts.letters(figure)
    return figure


def _residual(panel: Panel, sparse: pd.DataFrame) -> None:
    sizes = sparse[["channels", "layers"]].drop_duplicates().sort_values(["layers", "channels"])
    labels = [f"{c} ch.,\n{k} layers" for c, k in sizes.itertuples(index=False)]
    own = sparse[["scheme", "density"]].drop_duplicates().sort_values(["density", "scheme"])
    for number, (scheme, density) in enumerate(own.itertuples(index=False)):
        some = sparse[(sparse.scheme == scheme) & (sparse.density == density)]
        at, groups = [], []
        for place, (c, k) in enumerate(sizes.itertuples(index=False)):
            here = some[(some.channels == c) & (some.layers == k)]
            if not here.empty:
                at.append(place + 0.16 * (number - 1))
                groups.append(100 * here.gap)
        name = "ER-kernel" if scheme == "ER" else scheme
        _intervals(panel, at, groups, number, f"{name}, {density:g}")
    parts.level(panel, 0.0, "dense")
    panel.set_xticks(range(len(labels)), labels, fontsize=6.5)
    panel.set_xlim(-0.5, len(labels) - 0.5)
    panel.set_title("residual networks: accuracy\nover dense (points)", fontsize=9)
    panel.legend(fontsize=6.5, loc="lower right")
