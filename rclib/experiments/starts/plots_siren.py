"""Panels of notebook 55: sine networks, their spectra at the start and how well they fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, WIDTH, colour, looks, ordered

__all__ = ["bottleneck_panels", "inside_panels"]


@redrawable
def bottleneck_panels(
    window: pd.DataFrame,
    spectra: pd.DataFrame,
    errors: pd.DataFrame,
    sweep: pd.DataFrame,
    *,
    band: Sequence[float],
) -> Figure:
    """A short window of signal and fits; energies of hidden layers at the start, one panel an
    arm, the target's band in grey; error over training, one line an arm; fit against s0, one line
    a band, open marker at the recipe's s0.

    window : point, signal and one column an arm. spectra : arm, layer, frequency, energy.
    errors : arm, seed, step, error. sweep : band, seed, s0, decibels, recipe (whether WINNER).
    band : low and high of the first three, over Nyquist.
    """
    figure = plt.figure(figsize=(WIDTH, 6.2), layout="constrained")
    panels = figure.subplot_mosaic("aa;bc;de", height_ratios=[0.8, 1, 1.1])
    arms = [name for name in window.columns if name not in ("point", "signal")]
    look = looks(list(dict.fromkeys([*arms, *errors.arm])))
    top = panels["a"]
    top.plot(window.point, window.signal, color="0.6", lw=3, label="signal")
    for arm in arms:
        top.plot(window.point, window[arm], color=look[arm]["color"], lw=1.1, label=arm)
    top.set_xlabel("point of the grid")
    top.set_title("signal and fits at the end")
    low, high = top.get_ylim()
    top.set_ylim(low, high + 0.25 * (high - low))  # room for the names
    top.legend(fontsize=6, ncols=3, loc="upper right")
    for place, arm in zip("bc", dict.fromkeys(spectra.arm), strict=True):
        panel, own = panels[place], spectra[spectra.arm == arm]
        layers = ordered(sorted(own.layer.unique()))
        panel.axvspan(*band, color="0.9", lw=0)
        for layer, rows in own.groupby("layer"):
            panel.plot(
                rows.frequency, rows.energy.clip(lower=1e-6), lw=1.2,
                color=layers[layer]["color"], label=f"h{layer}",
            )  # fmt: skip
        panel.set_yscale("log")
        panel.set_ylim(1e-6, 1)
        panel.set_xlabel("frequency / Nyquist")
        panel.set_title(f"{arm}: layers at the start")
        panel.legend(fontsize=6, ncols=2)
        # Sines of any frequency on an interval: their ends do not meet, and this jump has energy
        # at all frequencies.
        panel.annotate(
            "floor: ends that do not meet", (0.98, 3e-5), xycoords=("axes fraction", "data"),
            ha="right", fontsize=6, color=GREY,
        )  # fmt: skip
    panels["b"].set_ylabel("share of energy")
    panel = panels["d"]
    for arm, rows in errors.groupby("arm", sort=False):
        logs = np.log10(rows.pivot_table(index="step", columns="seed", values="error"))
        style: Any = {key: look[str(arm)][key] for key in ("color", "linestyle")}  # type: ignore[literal-required]
        panel.plot(logs.index, 10 ** logs.mean(axis=1), lw=1.3, label=str(arm), **style)
        if arm in arms:  # more bands would lie on each other
            panel.fill_between(
                logs.index, 10 ** logs.min(axis=1), 10 ** logs.max(axis=1), alpha=0.15, lw=0,
                color=style["color"],
            )  # fmt: skip
    panel.set_yscale("log")
    panel.set_xlabel("updates")
    panel.set_ylabel("error / variance")
    panel.set_title("high band, on the grid")
    panel.legend(fontsize=6)
    panel = panels["e"]
    names = list(dict.fromkeys(sweep.band))
    by_band = ordered([float(place) for place in range(len(names))])
    for number, name in enumerate(names):
        rows, tone = sweep[sweep.band == name], by_band[float(number)]["color"]
        line = rows[~rows.recipe].groupby("s0").decibels
        mean = line.mean()
        panel.plot(mean.index, mean, "-", lw=1.2, color=tone, label=name)
        panel.fill_between(mean.index, line.min(), line.max(), color=tone, alpha=0.12, lw=0)
        recipe = rows[rows.recipe]
        panel.plot(recipe.s0.mean(), recipe.decibels.mean(), "o", mfc="white", color=tone)
    parts.log_axis(panel, "x")
    panel.set_xlabel("s0 (rad per unit)")
    panel.set_ylabel("fit (dB)")
    panel.set_title("fit against the noise's scale")
    panel.legend(title="band (circles: WINNER)", fontsize=6, title_fontsize=6)
    parts.letters(figure)
    return figure


@redrawable
def inside_panels(ends: pd.DataFrame, pictures: pd.DataFrame) -> Figure:
    """High band, one row an arm, one dot a network: centroid of the last layer at the start,
    kernel's share on the band, error off the grid, rest of the second matrix's start; and PSNR of
    pictures from both starts.

    ends : arm, seed, centroid, share, off, kept_2. pictures : kind, arm, seed, psnr.
    """
    figure, panels = plt.subplots(
        1, 5, figsize=(WIDTH, 3.0), layout="constrained", width_ratios=[1, 1, 1, 1, 1.1]
    )
    arms = list(dict.fromkeys(ends.arm))
    titles = {
        "centroid": "centroid of\nthe last layer",
        "share": "kernel's share\non the band",
        "off": "error off\nthe grid",
        "kept_2": "cos² of W2\nand its start",
    }
    for panel, (what, title) in zip(panels, titles.items(), strict=False):
        for place, arm in enumerate(arms):
            values = ends[ends.arm == arm][what]
            panel.plot(values, np.full(len(values), place), ".", ms=4, color=colour(0), alpha=0.5)
            panel.plot(values.median(), place, "|", ms=11, mew=1.6, color=colour(1))
        panel.set_title(title, fontsize=8)
        panel.set_yticks(range(len(arms)), arms if panel is panels[0] else [""] * len(arms))
        panel.invert_yaxis()
        if what in ("share", "off"):
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(numticks=4))
            panel.xaxis.set_minor_formatter(NullFormatter())
    parts.moment(panels[2], 0.1, "")
    last = panels[-1]
    kinds = list(dict.fromkeys(pictures.kind))
    for place, kind in enumerate(kinds):
        for shift, arm in ((-0.15, "SIREN"), (0.15, "WINNER")):
            values = pictures[(pictures.kind == kind) & (pictures.arm == arm)].psnr
            tone = colour(0) if arm == "SIREN" else colour(1)
            last.plot(np.full(len(values), place + shift), values, ".", ms=4, color=tone, alpha=0.5)
            last.plot(
                place + shift, values.mean(), "_", ms=9, mew=1.6, color=tone,
                label=arm if place == 0 else None,
            )  # fmt: skip
    last.set_xticks(range(len(kinds)), kinds)
    last.set_xlim(-0.5, len(kinds) - 0.5)
    last.set_title("pictures:\nPSNR (dB)", fontsize=8)
    last.legend(fontsize=6)
    parts.letters(figure)
    panels[0].tick_params(axis="y", labelsize=7, labelcolor=GREY)
    return figure
