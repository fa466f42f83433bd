"""Panels of notebook 42: random masks over width, layer densities, equal weights, spectra."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import MARKERS, WIDTH, colour, looks, ordered

__all__ = ["random_panels", "spectra_panels"]


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
    for scheme, line in (("ER", "-"), ("uniform", "--")):
        own = gaps[gaps.scheme == scheme]
        for density, rows in own.groupby("density"):
            by = rows.groupby("width").gap
            mean, tone = 100 * by.mean(), shades[float(str(density))]["color"]
            panel.plot(mean.index, mean, f"o{line}", ms=3, lw=1.2, color=tone,
                       label=f"{scheme}, {density:g}")  # fmt: skip
            if scheme == "ER":
                panel.fill_between(
                    mean.index, 100 * by.min(), 100 * by.max(), color=tone, alpha=0.15, lw=0
                )
    parts.level(panel, 0.0, "dense")
    parts.size_axis(panel, sorted(gaps.width.unique()))
    panel.set_xlabel("width")
    panel.set_title("accuracy over dense (percent)")
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
        name = "dense" if density == 1 else f"ER, {density:g}"
        panel.plot(mean.index, mean, "o-", ms=3, lw=1.2, color=tone, label=name)
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
    movement, largest correlation of mean vectors; gap to dense against hidden layers; arms of one
    density over uniform.

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
    for place, (density, rows) in enumerate(depths.groupby("density")):
        by = rows.groupby("layers").gap
        mean = 100 * by.mean()
        panel.plot(mean.index, mean, f"{MARKERS[place]}-", ms=3.5, color=colour(place),
                   label=f"{density:g}")  # fmt: skip
        panel.fill_between(mean.index, 100 * by.min(), 100 * by.max(), color=colour(place),
                           alpha=0.15, lw=0)  # fmt: skip
    panel.set_xticks(sorted(depths.layers.unique()))
    panel.set_xlabel("hidden layers")
    panel.set_title("accuracy over\ndense (percent)", fontsize=8)
    panel = panels[4]
    names = list(dict.fromkeys(arms.arm))
    for place, name in enumerate(names):
        values = 100 * arms[arms.arm == name].gain
        panel.plot([place] * len(values), values, ".", ms=4, color=colour(0), alpha=0.5)
        panel.plot(place, values.mean(), "_", ms=11, mew=1.6, color=colour(1))
    panel.set_xticks(range(len(names)), names, fontsize=6.5, rotation=35, ha="right")
    panel.set_xlim(-0.5, len(names) - 0.5)
    panel.axhline(0, ls=":", lw=1, color="0.3")
    panel.set_title("accuracy over\nuniform (percent)", fontsize=8)
    parts.letters(figure)
    return figure
