"""Panels of the test of the ansatz (notebook 30): laws against the width, shares of variance."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rclib.experiments.beyond.ansatz_test import PARTS, spectrum_rows
from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.panels import curves
from rclib.plots.style import WIDTH, colour, looks, ordered, shown

__all__ = ["law_panels", "share_panels"]

# Column -> title, axis label, and the power of N that the theory gives, by parametrisation.
_PANELS: dict[str, tuple[str, str, dict[str, float]]] = {
    "sigma_1": ("kernel of the change", "σ₁ / N", {"MF": 0.0, "muP": 0.0}),
    "interaction": ("interaction in $W_2$", "share of variance", {"MF": 0.0, "muP": -1.0}),
    "own": ("own start in the change", "|coefficient|", {"MF": -1.0, "muP": -1.0}),
}


@redrawable
def law_panels(frame: pd.DataFrame) -> Figure:
    """Three quantities against the width, dotted the theory's power through the widest network,
    and the singular values under MF at every width; one row a start. frame : `measurements`."""
    starts, widths = list(frame.start.unique()), sorted(frame.width.unique())
    figure, panels = plt.subplots(
        len(starts), 4, figsize=(WIDTH, 2.0 * len(starts) + 0.4), squeeze=False, sharex="col"
    )
    spectrum = spectrum_rows(frame[frame.parametrization == "MF"])
    for i, start in enumerate(starts):
        chosen = frame[frame.start == start]
        for panel, (column, (title, label, powers)) in zip(
            panels[i], _PANELS.items(), strict=False
        ):
            sizes = chosen.assign(own=chosen.own.abs())
            curves(panel, sizes[sizes[column] > 0], x="width", y=column, by="parametrization")
            for name, power in powers.items():
                if name in set(sizes.parametrization):
                    _guide(panel, sizes[sizes.parametrization == name], column, power)
            parts.log_axis(panel, "y")
            panel.set_ylabel(label)
            parts.size_axis(panel, widths)
            panel.tick_params(axis="x", labelsize=6)
            if i == 0:
                panel.set_title(title)
        _spectra(panels[i, 3], spectrum[spectrum.start == start])
        if i == 0:
            panels[i, 3].set_title("MF: all values")
        panels[i, 0].annotate(
            f"start: {start}", (0, 1.16), xycoords="axes fraction", fontweight="bold", fontsize=8
        )
        _names(panels[i, 1], chosen)
    for j in range(3):
        panels[-1, j].set_xlabel("width N")
    panels[-1, 3].set_xlabel("number k")
    panels[0, 1].legend(handles=[Line2D([], [], color="0.3", ls=":", lw=1.0, label="theory")])
    return figure


def _names(panel: Axes, chosen: pd.DataFrame) -> None:
    """Names of the lines at their right ends, in the colours of `curves`."""
    last = chosen[chosen.width == chosen.width.max()]
    levels = last.groupby("parametrization", sort=False).interaction.mean()
    shades = looks(list(levels.index))
    for name, level in levels.items():
        panel.annotate(
            shown(name), (float(chosen.width.max()), level), (-2, -5), ha="right", va="top",
            textcoords="offset points", fontsize=7, fontweight="bold",
            color=shades[str(name)]["color"],
        )  # fmt: skip
    panel.set_ylim(bottom=0.4 * panel.get_ylim()[0])


def _guide(panel: Axes, chosen: pd.DataFrame, column: str, power: float) -> None:
    widths = np.array(sorted(chosen.width.unique()), dtype=float)
    level = chosen[chosen.width == widths[-1]][column].mean()
    panel.plot(
        widths, level * (widths / widths[-1]) ** power, color="0.3", ls=":", lw=1.0, zorder=3
    )


def _spectra(panel: Axes, spectrum: pd.DataFrame) -> None:
    widths = sorted(spectrum.width.unique())
    for width, look in ordered(widths).items():
        mean = spectrum[spectrum.width == width].groupby("k").value.mean()
        panel.plot(mean.index, mean, ms=2.5, lw=1.0, label=f"N = {width:g}", **look)
    parts.log_axis(panel, "y")
    panel.set_xticks(sorted(spectrum.k.unique()))
    panel.set_ylabel("σₖ / N")
    panel.legend(fontsize=6, handlelength=2.0, labelspacing=0.25, borderpad=0.2)


@redrawable
def share_panels(frame: pd.DataFrame) -> Figure:
    """Shares of the variance of W2 as bars, untrained (widest network) and trained at every width:
    one row a start, one column a parametrisation. frame : `measurements`."""
    starts, names = list(frame.start.unique()), list(frame.parametrization.unique())
    widths, colours = sorted(frame.width.unique()), [*(colour(i) for i in range(3)), "0.8"]
    figure, panels = plt.subplots(
        len(starts), len(names), figsize=(WIDTH, 1.8 * len(starts) + 0.4), squeeze=False,
        sharex=True, sharey=True,
    )  # fmt: skip
    for (i, start), (j, name) in ((a, b) for a in enumerate(starts) for b in enumerate(names)):
        chosen = frame[(frame.start == start) & (frame.parametrization == name)]
        trained = chosen.groupby("width")[list(PARTS)].mean()
        before = chosen[chosen.width == widths[-1]][[f"untrained_{part}" for part in PARTS]].mean()
        bottom = np.zeros(len(widths) + 1)
        for part, shade, hatch in zip(PARTS, colours, ("", "//", "", ".."), strict=True):
            heights = np.clip([before[f"untrained_{part}"], *trained[part]], 0.0, None)
            panels[i, j].bar(
                range(len(heights)), heights, bottom=bottom, color=shade, hatch=hatch, lw=0,
                edgecolor="white", label=part,
            )  # fmt: skip
            bottom += heights
        panels[i, j].set_xticks(range(len(bottom)), ["start", *map(str, widths)], fontsize=6)
        panels[i, j].set_ylim(0, 1.02)
        if i == 0:
            panels[i, j].set_title(shown(name))
        if j == 0:
            panels[i, j].set_ylabel(f"share of variance\nstart: {start}")
        if i == len(starts) - 1:
            panels[i, j].set_xlabel("width N")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure
