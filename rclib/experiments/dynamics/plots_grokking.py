"""Panels of notebook 62: accuracies, energies, data and weights of networks that grok."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, GREY, MARKERS, WIDTH, colour

__all__ = ["gradient_panels", "grokking_panels"]

# A legend that vertical reference lines do not strike through.
_SOLID: dict[str, Any] = {
    "frameon": True, "facecolor": "white", "edgecolor": "none", "framealpha": 1.0,
}  # fmt: skip


@redrawable
def grokking_panels(
    curves: pd.DataFrame,
    moments: pd.DataFrame,
    levels: pd.DataFrame,
    data: pd.DataFrame,
    weights: dict[str, np.ndarray],
    decays: pd.DataFrame,
) -> Figure:
    """Accuracies over training, energies at maxima, test accuracy over data and size, frequencies
    of hidden units before and after, what is seen in W over time, and times of grokking.

    curves : arm, step, measure, mean, low, high. moments : name, step. levels : group, level,
    share. data : m, share, value, and at (the reference line). weights : "first" and "last", (k, K)
    relative amplitudes. decays : decay, seed, grokked.
    """
    figure, panels = plt.subplots(2, 3, figsize=(WIDTH, 4.7), layout="constrained")
    (accuracy, energy, shares), (before, link, law) = panels
    _accuracies(accuracy, curves, moments)
    _energies(energy, levels)
    _shares(figure, shares, data)
    both = [weights["first"], np.full((len(weights["first"]), 6), np.nan), weights["last"]]
    before.imshow(
        np.concatenate(both, axis=1), aspect="auto", cmap="magma", origin="lower", vmin=0.0,
        vmax=1.0, interpolation="nearest",
    )  # fmt: skip
    wide = weights["first"].shape[1]
    before.set_xticks([wide / 2, wide * 1.5 + 6], ["start", "end"])
    before.grid(False)
    before.set_ylabel("frequency of |FFT W|")
    before.set_xlabel("hidden units, sorted")
    before.set_title("units end with one frequency")
    _link(link, curves, moments)
    for _, group in decays.groupby("seed"):
        law.plot(group.decay, group.grokked, "o-", ms=2.5, lw=0.8, color=colour(0), alpha=0.6)
    mean = decays.groupby("decay").grokked.mean()
    parts.log_axis(law, "x")
    parts.log_axis(law, "y")
    parts.guide(law, list(mean.index), float(mean.iloc[0]), -1.0)
    law.set_xlabel("weight decay η")
    law.set_ylabel("steps to 95 % test accuracy")
    law.set_title("time to grok")
    parts.letters(figure)
    return figure


def _accuracies(panel: Axes, curves: pd.DataFrame, moments: pd.DataFrame) -> None:
    handles = []
    for k, (arm, group) in enumerate(curves.groupby("arm", sort=False)):
        for name, dash in (("train", "--"), ("test", "-")):
            _band(panel, group[group.measure == name], k, dash)
        handles.append(Line2D([], [], color=colour(k), label=str(arm)))
    handles += [
        Line2D([], [], color=GREY, ls=d, label=t) for t, d in (("train", "--"), ("test", "-"))
    ]
    panel.set_xscale("log")
    _moments(panel, moments, {"fitted": 0.72, "grokked": 0.35})
    panel.set_ylim(-0.03, 1.45)
    panel.set_yticks([0.0, 0.5, 1.0])
    panel.set_xlabel("step")
    panel.set_ylabel("accuracy")
    panel.set_title("fit first, grok later")
    panel.legend(handles=handles, fontsize=5.5, loc="upper left", ncols=2, **_SOLID)


def _moments(panel: Axes, moments: pd.DataFrame, heights: dict[str, float]) -> None:
    """Vertical lines; their names to the right of them at these heights, where there is one."""
    for row in moments.itertuples():
        parts.moment(panel, float(row.step), "")
        if row.name in heights:
            panel.annotate(
                str(row.name), (float(row.step), heights[row.name]), xytext=(2, 0), size=6,
                textcoords="offset points", rotation=90, ha="left", va="center", color=GREY,
            )  # fmt: skip


def _band(panel: Axes, group: pd.DataFrame, k: int, dash: object, scale: float = 1.0) -> None:
    group = group[group.step > 0]
    panel.plot(group.step, group["mean"] / scale, ls=dash, color=colour(k), lw=1.2)
    panel.fill_between(
        group.step, group.low / scale, group.high / scale, color=colour(k), alpha=0.15, lw=0
    )


def _energies(panel: Axes, levels: pd.DataFrame) -> None:
    names = list(levels.group.unique())
    for k, name in enumerate(names):
        group = levels[levels.group == name]
        heights = group.share / group.share.max()
        panel.vlines(group.level, k, k + 0.75 * heights, color=colour(k), lw=1.6)
    panel.set_yticks(range(len(names)), names)
    top = len(names) + 0.2
    lines = ((0.25, "1/4", "-"), (0.5, "1/2", "-"), (1 / 16, "1/16 ", ":"), (0.125, " 1/8", ":"))
    for value, text, dash in lines:
        panel.axvline(value, color=GREY, lw=0.8, ls=dash, zorder=0)
        side = "right" if text[-1] == " " else "left" if text[0] == " " else "center"
        panel.text(value, top, text.strip(), ha=side, va="bottom", size=5, color=GREY)
    panel.set_ylim(-0.2, top + 0.5)
    panel.set_xlim(0, 1.05)
    panel.set_xlabel("E / M at maxima (dotted: printed)")
    panel.set_title("energies of single units")


def _shares(figure: Figure, panel: Axes, data: pd.DataFrame) -> None:
    mean = data.groupby(["m", "share"]).value.mean().reset_index()
    shown = panel.scatter(
        mean.m, mean.share, c=mean.value, cmap="viridis", s=34, marker="s", vmin=0.0, vmax=1.0,
        edgecolors="0.6", linewidths=0.3,
    )  # fmt: skip
    figure.colorbar(shown, ax=panel, label="test accuracy", shrink=0.9)
    sizes = np.linspace(data.m.min(), data.m.max(), 100)
    load = float(data["at"].iloc[0])
    panel.plot(sizes, load * np.log(sizes) / sizes, color=GREY, lw=1.0, ls="--")
    parts.write_into(panel, f"dashed: {load:.2f} ln M / M")
    panel.set_xlabel("size of the group, M")
    panel.set_ylabel("share of pairs trained on")
    panel.set_title("data needed")


def _link(panel: Axes, curves: pd.DataFrame, moments: pd.DataFrame) -> None:
    grown = curves[curves.arm == curves.arm.iloc[0]]
    names = {
        "purity": "single frequency", "rank": "participation ratio / start",
        "structure": "row-column share / chance", "constant": "constant mode",
    }  # fmt: skip
    for k, (measure, text) in enumerate(names.items()):
        group = grown[grown.measure == measure]
        scale = float(group["mean"].iloc[0]) if measure == "rank" else 1.0
        _band(panel, group, k, DASHES[k], scale)
        panel.lines[-1].set_label(text)
    panel.set_xscale("log")
    _moments(panel, moments, {})
    panel.set_ylim(-0.03, 2.1)
    panel.set_xlabel("step")
    panel.set_title("what is seen in W")
    panel.legend(fontsize=5.5, loc="upper left", **_SOLID)


@redrawable
def gradient_panels(
    cosines: pd.DataFrame, moments: pd.DataFrame, critical: pd.DataFrame, cover: pd.DataFrame
) -> Figure:
    """The gradient that reaches the hidden layer over training; critical shares of pairs against
    the size, of networks and of energies; frequencies that few units find, by two rules.

    cosines : arm, step, measure ("ridge", "signal", "leaked"), mean, low, high. moments : name,
    step. critical : what, m, share (one row a seed). cover : seed, gradient, muon, most.
    """
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(WIDTH, 2.5), layout="constrained", width_ratios=[1.3, 1.2, 0.6]
    )
    look = {"ridge": "-", "signal": "--", "leaked": ":"}
    for k, (_, group) in enumerate(cosines.groupby("arm", sort=False)):
        for name, dash in look.items():
            if not (name == "ridge" and k):
                _band(left, group[group.measure == name], k, dash)
    names = list(cosines.arm.unique())
    handles = [Line2D([], [], color=colour(k), label=name) for k, name in enumerate(names)]
    texts = {"ridge": "cos(G, ridge)", "signal": "cos(G, ỸỸᵀF̃)", "leaked": "|G| / |Y|"}
    handles += [Line2D([], [], color=GREY, ls=look[n], label=t) for n, t in texts.items()]
    left.set_xscale("log")
    _moments(left, moments, {"fitted": -0.12, "grokked": 1.1})
    left.set_ylim(-0.25, 1.75)
    left.set_xlabel("step")
    left.set_title("gradient to the hidden layer")
    left.legend(handles=handles, fontsize=5.5, ncols=2, loc="upper left", **_SOLID)
    for k, (what, group) in enumerate(critical.groupby("what", sort=False)):
        over = group.groupby("m").share
        mean, error = over.mean(), (1.96 * over.std() / np.sqrt(over.count())).fillna(0.0)
        middle.errorbar(
            mean.index,
            mean,
            error,
            fmt=MARKERS[k],
            ls="-",
            ms=3,
            lw=1.2,
            color=colour(k),
            label=what,
        )
        start = float(mean.iloc[0] / np.log(mean.index[0]) * mean.index[0])
        sizes = np.geomspace(mean.index[0], mean.index[-1], 60)
        middle.plot(sizes, start * np.log(sizes) / sizes, ls=":", lw=0.9, color=colour(k))
    parts.size_axis(middle, sorted(critical.m.unique()))
    middle.set_ylim(0, 0.95)
    middle.set_xlabel("size of the group, M")
    middle.set_ylabel("critical share of pairs")
    middle.set_title("dotted: like ln M / M")
    middle.legend(fontsize=5.5, loc="upper right")
    for k, name in enumerate(("gradient", "muon")):
        shift = np.linspace(-0.15, 0.15, len(cover)) if len(cover) > 1 else np.zeros(1)
        right.plot(k + shift, cover[name], MARKERS[k], ms=3, color=colour(k))
        right.hlines(cover[name].mean(), k - 0.25, k + 0.25, color=colour(k), lw=1.2)
    parts.level(right, float(cover.most.iloc[0]), "all")
    right.set_xticks([0, 1], ["gradient", "Muon"])
    right.set_xlim(-0.5, 1.5)
    right.set_ylim(0, float(cover.most.iloc[0]) * 1.15)
    right.set_ylabel("frequencies found")
    right.set_title("few units")
    parts.letters(figure)
    return figure
