"""Figure of `what_transfer_keeps`. It draws what is given and computes nothing."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks, shown

__all__ = ["kept_panels"]

_LAWS = {
    "ks": "predicted",
    "ks_shape": "MP, right rank and variance",
    "ks_plain": "MP, M × M",
}


@redrawable
def kept_panels(
    esd: pd.DataFrame, laws: pd.DataFrame, table: pd.DataFrame, kept: pd.DataFrame, *, width: int
) -> Figure:
    """Above spectra after transfer to three targets; below distances, α and what r1 breaks.

    esd : M (0: the source), kind ("source", "measured", "spike"), value. laws : M, x, share.
    table : arm, seed, M, ks, ks_shape, ks_plain, alpha, alpha_predicted, alpha_noise. kept : seed,
    r1, what, left. width : N of the source.
    """
    figure, panels = plt.subplots(2, 3, figsize=(WIDTH, 4.4))
    targets = [m for m in esd.M.unique() if m]
    for panel, m in zip(panels[0], targets, strict=True):
        _spectrum(panel, esd, laws[m == laws.M], m)
        panel.set_title(f"N = {width} to M = {m}")
    panels[0, 0].set_ylabel("share of positive λ, per decade")
    panels[0, 0].legend(fontsize=5.5, loc="upper left", handlelength=1.4)
    top = max(panel.get_ylim()[1] for panel in panels[0])
    for panel in panels[0]:
        panel.set_ylim(0, 1.55 * top)
    _distances(panels[1, 0], table, width)
    _alphas(panels[1, 1], table, width)
    _kept(panels[1, 2], kept)
    parts.letters(figure)
    for panel in panels[1, :2]:
        sizes = sorted(table.M.unique())
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [f"{m:g}" for m in sizes], fontsize=6)
        panel.xaxis.minorticks_off()
        panel.set_xlabel("target width M")
    return figure


def _spectrum(panel: Axes, esd: pd.DataFrame, law: pd.DataFrame, m: int) -> None:
    source = np.log10(esd[esd.kind == "source"].value)
    measured = np.log10(esd[(m == esd.M) & (esd.kind == "measured")].value)
    low = float(np.floor(min(np.quantile(source, 0.02), np.quantile(measured, 0.02))))
    high = float(max(source.max(), measured.max())) + 0.2
    bins = np.linspace(low, high, 41).tolist()
    each = bins[1] - bins[0]
    panel.hist(
        source, bins, weights=np.full(len(source), 1 / len(source) / each), histtype="step",
        color=GREY, lw=0.8, label="source",
    )  # fmt: skip
    panel.hist(
        measured, bins, weights=np.full(len(measured), 1 / len(measured) / each), color="0.8",
        label="after transfer",
    )  # fmt: skip
    blue = colour(0)
    panel.plot(np.log10(law.x), law.share, color=blue, lw=1.2, label="predicted bulk")
    spikes = np.log10(esd[(m == esd.M) & (esd.kind == "spike")].value)
    panel.plot(
        spikes, np.full(len(spikes), 0.03), ls="", marker="v", ms=4, mew=0.7, mec=blue,
        mfc="none", label="predicted spikes", transform=panel.get_xaxis_transform(),
    )  # fmt: skip
    panel.set_xlim(low, high)
    panel.set_xlabel("log₁₀ λ of W₂ᵀW₂")


def _distances(panel: Axes, table: pd.DataFrame, width: int) -> None:
    for i, (column, label) in enumerate(_LAWS.items()):
        by = table.groupby("M")[column]
        mean = by.mean()
        panel.plot(
            mean.index, mean, color=colour(i), marker=MARKERS[i], ms=3.5, lw=1.2, label=label
        )
        panel.fill_between(mean.index, by.min(), by.max(), color=colour(i), alpha=0.15, lw=0)
    parts.log_axis(panel, "y")
    panel.set(ylabel="KS distance of the bulk", title="bulk against three laws")
    panel.set_ylim(top=4.0)
    panel.legend(fontsize=5.5, loc="upper left")


def _alphas(panel: Axes, table: pd.DataFrame, width: int) -> None:
    for arm, look in looks(list(dict.fromkeys(table.arm))).items():
        by = table[table.arm == arm].groupby("M")
        mean = by[["alpha", "alpha_predicted", "alpha_source"]].mean()
        panel.plot(mean.index, mean.alpha_predicted, color=look["color"], lw=1)
        points: dict[str, Any] = {"color": look["color"], "marker": look["marker"]}
        panel.plot(mean.index, mean.alpha, label=shown(arm), linestyle="", **points)
        panel.plot([width], mean.alpha_source[width], color=look["color"], marker="_", ms=12, mew=2)
    noise = table.groupby("M").alpha_noise.mean()
    panel.plot(noise.index, noise, color="0.3", ls=":", lw=1)
    panel.annotate(
        "noise of this shape", (noise.index[0], noise.iloc[0]), (0, 3), ha="left",
        textcoords="offset points", fontsize=6, color="0.3",
    )  # fmt: skip
    panel.set_ylim(top=panel.get_ylim()[1] + 0.04)
    panel.set(ylabel="α (Hill)", title="α: line predicted, bar source")
    panel.legend(fontsize=5.5, loc="center left", bbox_to_anchor=(0.0, 0.5))


def _kept(panel: Axes, kept: pd.DataFrame) -> None:
    for i, (what, part) in enumerate(kept.groupby("what", sort=False)):
        by = part.groupby("r1").left
        panel.plot(
            by.mean().index, by.mean(), color=colour(i), marker=MARKERS[i], ms=3.5, lw=1.2,
            label=what,
        )  # fmt: skip
        panel.fill_between(by.mean().index, by.min(), by.max(), color=colour(i), alpha=0.15, lw=0)
    at = np.linspace(0, 1, 51)
    panel.plot(at, (1 - at) ** 2, color="0.3", ls=":", lw=1, label="(1 − r1)²")
    panel.set(
        xlabel="random rate r1", ylabel="share that is left", title="what r1 breaks, MF, M = N"
    )
    panel.legend(fontsize=5.5, loc="upper right", bbox_to_anchor=(1.0, 0.9))
