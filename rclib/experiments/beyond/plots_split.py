"""Figures of `spikes_are_rc` (notebook 31). They draw what is given and compute nothing."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import WIDTH, colour

__all__ = ["owned_spectra", "tails"]

_ARMS = {"MF": "MF", "muP": "μP", "SP": "SP", "gd": "student, GD", "adam": "student, Adam"}
# Matrix -> what its line is called, number of its colour, kind of line, marker.
_LINES = {
    "whole": ("W", 0, "-", "o"),
    "without": ("W without the part (SVD)", 1, "--", "s"),
    "without_variables": ("W without the part (variables)", 2, "-.", "^"),
}


@redrawable
def owned_spectra(spectra: pd.DataFrame) -> Figure:
    """Eigenvalues over the bulk's edge against their number, coloured by how much of each belongs
    to the row-column part, crosses where theory puts them; a panel an arm.

    spectra : columns arm, rate, k, value, owned, predicted.
    """
    arms = list(dict.fromkeys(spectra.arm))
    figure, panels = plt.subplots(
        1, len(arms), figsize=(WIDTH, 2.3), squeeze=False, sharey=True, sharex=True
    )
    for panel, arm in zip(panels[0], arms, strict=True):
        part = spectra[(spectra.arm == arm) & (spectra.value > 1e-3)]
        points = panel.scatter(
            part.k, part.value, c=part.owned, cmap="viridis_r", vmin=0, vmax=1, s=9, lw=0, zorder=3
        )
        seen = part[part.predicted.notna()]
        panel.plot(seen.k, seen.predicted, color="0.1", ls="", marker="x", ms=4.5, mew=0.8)
        panel.axhline(1.0, color="0.3", lw=0.8, ls=":")
        panel.set_title(f"{_ARMS.get(arm, arm)}\nη = {part.rate.iloc[0]:g}", fontsize=7)
        panel.set(xscale="log", yscale="log")
        panel.set_xlabel("its number k")
    panels[0, 0].set_ylabel("eigenvalue / edge of the bulk")
    panels[0, 0].legend(
        handles=[
            Line2D([], [], color="0.1", ls="", marker="x", ms=4.5, mew=0.8, label="predicted"),
            Line2D([], [], color="0.3", ls=":", lw=0.8, label="edge"),
        ],
        fontsize=6, loc="lower left",
    )  # fmt: skip
    bar = figure.colorbar(points, ax=panels, shrink=0.9, pad=0.01)
    bar.set_label("share in the row-column part")
    return figure


@redrawable
def tails(exponents: pd.DataFrame, removed: pd.DataFrame) -> Figure:
    """Above: α (Hill) against the learning rate, of W and of W without its row-column part. Below:
    α against the number of outer products taken out, one line a rate. Dotted: noise.

    exponents : arm, rate, seed, matrix, alpha_hill, noise. removed : arm, rate, seed, k, alpha,
    noise. Mean and range over seeds.
    """
    arms = list(dict.fromkeys(exponents.arm))
    figure, panels = plt.subplots(
        2, len(arms), figsize=(WIDTH, 4.0), squeeze=False, sharey=True, sharex=False
    )
    for j, arm in enumerate(arms):
        part = exponents[exponents.arm == arm]
        noise = float(part.noise.iloc[0])
        for matrix, (label, number, dashes, marker) in _LINES.items():
            one = part[part.matrix == matrix].groupby("rate").alpha_hill
            _band(panels[0, j], one, label=label, number=number, dashes=dashes, marker=marker)
        others = removed[removed.arm == arm]
        for i, (rate, found) in enumerate(others.groupby("rate")):
            _band(
                panels[1, j], found.groupby("k").alpha, label=f"η = {rate:g}", number=3 + i,
                dashes=("-", "--", "-.")[i % 3], marker=("o", "s", "^")[i % 3],
            )  # fmt: skip
        for panel in panels[:, j]:
            panel.axhline(noise, color="0.3", lw=0.9, ls=":", zorder=1.5)
        panels[0, j].set_title(_ARMS.get(arm, arm))
        rates = sorted(part.rate.unique())
        panels[0, j].set_xticks(rates, [f"{rate:g}" for rate in rates], fontsize=6)
        panels[0, j].set_xlabel("learning rate η")
        panels[1, j].set_xlabel("outer products out")
        panels[1, j].legend(fontsize=5.5, handlelength=1.6, loc="best")
    for panel in panels[:, 0]:
        panel.set_ylabel("α (Hill)")
    panels[0, 0].set_ylim(top=panels[0, 0].get_ylim()[1] + 0.06)
    named: list[float] = []
    for j, arm in enumerate(arms):  # its name once for every shape
        noise = float(exponents[exponents.arm == arm].noise.iloc[0])
        if all(abs(noise - other) > 0.1 for other in named):
            parts.write_into(panels[0, j], "noise", near=noise)
            named.append(noise)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=7)
    return figure


def _band(
    panel: Axes, over: pd.api.typing.SeriesGroupBy, *, label: str, number: int, dashes: str,
    marker: str,
) -> None:  # fmt: skip
    mean = over.mean()
    shade = colour(number)
    panel.plot(mean.index, mean, color=shade, ls=dashes, marker=marker, ms=3.5, label=label)
    panel.fill_between(mean.index, over.min(), over.max(), color=shade, alpha=0.15, lw=0)
    panel.set_xscale("log")
    panel.xaxis.minorticks_off()
