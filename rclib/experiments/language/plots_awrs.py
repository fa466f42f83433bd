"""Figures of notebook 92: checks, distances and weights; texts, models and the masked matrix."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks

__all__ = ["sampler_panels", "text_panels"]


def _means(panel: Panel, frame: pd.DataFrame, x: str, y: str, look: Any, label: str) -> None:
    """Mean over seeds with 95 percent t-intervals."""
    over = frame.groupby(x)[y]
    panel.errorbar(
        over.mean().index, over.mean(), yerr=parts.half_widths(over).reindex(over.mean().index),
        ms=3.2, lw=1.1, capsize=1.5, elinewidth=0.7, label=label, **look,
    )  # fmt: skip


@redrawable
def sampler_panels(
    laws: pd.DataFrame, chains: pd.DataFrame, histogram: pd.DataFrame, *, V: int
) -> Figure:
    """Checks of a weighted draw against -log Z; distance of the first token's law from the target
    against the number of particles; the weights over Z.

    laws : seed, exponent, set, z, method, checks. chains : seed, arm, size, tv, masked_tv, floor.
    histogram : method, at, share. V : tokens of the laws.
    """
    figure, panels = plt.subplots(1, 3, figsize=(WIDTH, 2.9), layout="constrained")
    panel = panels[0]
    own = laws[laws.method == "two runs"]
    for number, (exponent, group) in enumerate(own.groupby("exponent")):
        panel.plot(
            -np.log(group.z), group.checks, MARKERS[number], ms=2.2, mew=0, alpha=0.6,
            color=colour(number), label=f"two runs, exponent {exponent:g}",
        )  # fmt: skip
    top = float(-np.log(own.z.min()))
    x = np.linspace(0, top, 50)
    panel.plot(x, 2 * np.exp(x), "-", color="k", lw=0.9, label="rejection, 2/Z")
    parts.log_axis(panel, "y")
    panel.set_ylim(1.5, 30 * V)
    panel.axhline(V, color=GREY, lw=0.9, ls=":")
    panel.text(0.98, V * 1.15, "masking, V", ha="right", size=6, color=GREY,
               transform=panel.get_yaxis_transform())  # fmt: skip
    panel.set_xlabel("−log Z")
    panel.set_ylabel("checks for a token and its weight")
    panel.set_title("cost")
    panel.legend(fontsize=5.5, loc="lower right")
    panel = panels[1]
    look = looks(list(dict.fromkeys(chains.arm)))
    for arm, group in chains.groupby("arm", sort=False):
        name = "masking, exact Z" if arm == "masking" else str(arm)
        _means(panel, group, "size", "tv", look[str(arm)], name)
    parts.size_axis(panel, sorted(chains["size"].unique()))
    panel.set_ylim(0, 2.0 * float(chains.masked_tv.mean()))
    for value, text, down in (
        (float(chains.masked_tv.mean()), "masked law", "bottom"),
        (float(chains.floor.mean()), "samples of the target", "top"),
    ):
        panel.axhline(value, color=GREY, lw=0.9, ls=":", zorder=1)
        panel.text(
            0.5, value + (0.009 if down == "bottom" else -0.003), text, size=6, color=GREY,
            va=down, ha="center", transform=panel.get_yaxis_transform(),
        )  # fmt: skip
    panel.set_xlabel("particles M")
    panel.set_ylabel("total variation, first token")
    panel.set_title("chains, equal totals")
    panel.legend(fontsize=5.5, loc="upper right")
    panel = panels[2]
    chosen = histogram[histogram.method != "masking"]
    for number, (method, group) in enumerate(chosen.groupby("method", sort=False)):
        panel.step(group["at"], group.share, where="mid", color=colour(number), lw=1.0,
                   ls=["-", "--", "-."][number % 3], label=str(method))  # fmt: skip
    panel.axvline(1, color=GREY, lw=0.9, ls=":")
    panel.set_xlabel("weight / Z (last bin: all above)")
    panel.set_ylabel("share of draws")
    panel.set_title("weights")
    panel.legend(fontsize=6)
    parts.letters(figure)
    return figure


@redrawable
def text_panels(
    tasks: pd.DataFrame, words: pd.DataFrame, link: pd.DataFrame, *, rank: float
) -> Figure:
    """What particles leave of the masked law's distance; checks against the model's loss; distance
    of the first step against the spread of a masked matrix's row masses.

    tasks : task, seed, arm, size, tv, masked_tv, floor. words : model, seed, list, loss, checks of
    two runs. link : seed, chain, spread, tv. rank : Spearman correlation, mean over seeds.
    """
    figure, panels = plt.subplots(1, 3, figsize=(WIDTH, 3.0), layout="constrained")
    panel = panels[0]
    for number, (task, group) in enumerate(tasks.groupby("task", sort=False)):
        own = group.assign(left=group.tv / group.masked_tv)
        for arm, style in (("two runs", "-"), ("masking", "--")):
            drawn = own[own.arm == arm]
            look = {"color": colour(number), "marker": MARKERS[number], "ls": style}
            label = str(task) if arm == "two runs" else "_"
            _means(panel, drawn, "size", "left", look, label)
        floor = float((group.floor / group.masked_tv).mean())
        panel.axhline(floor, color=colour(number), lw=0.7, ls=":", zorder=1)
    parts.size_axis(panel, sorted(tasks["size"].unique()))
    panel.axhline(1, color=GREY, lw=0.9, ls=":", zorder=1)
    panel.set_ylim(0, 1.75)
    panel.set_xlabel("particles M")
    panel.set_ylabel("distance over the masked law's")
    panel.set_title("tasks")
    panel.legend(fontsize=6, loc="upper right", title="dashed: exact Z\ndotted: samples",
                 title_fontsize=6)  # fmt: skip
    panel = panels[1]
    names = list(dict.fromkeys(words.model))
    for number, (which, group) in enumerate(words.groupby("list", sort=False)):
        over = group.groupby("model", sort=False)
        loss, checks = over.loss.mean(), over.checks.mean()
        panel.errorbar(
            loss, checks, yerr=parts.half_widths(over.checks).reindex(checks.index), ls="",
            marker=MARKERS[number], ms=4, color=colour(number), capsize=1.5, elinewidth=0.7,
            label=f"{which} words",
        )  # fmt: skip
        if number == 0:
            for place, name in enumerate(sorted(names, key=lambda one: loss[one])):
                panel.annotate(
                    str(name), (loss[name], checks[name]), xytext=(0, 5 if place % 2 else -10),
                    size=5.5, textcoords="offset points", ha="center", color=GREY,
                )  # fmt: skip
    panel.set_ylim(0, 1.35 * float(words.checks.max()))
    low, high = float(words.loss.min()), float(words.loss.max())
    panel.set_xlim(low - 0.25 * (high - low), high + 0.15 * (high - low))
    panel.set_xlabel("loss of the model, nats a byte")
    panel.set_ylabel("checks for a token and its weight")
    panel.set_title("better models")
    panel.legend(fontsize=6, loc="upper right")
    panel = panels[2]
    label = f"chains, rank correlation {rank:.2f}"
    panel.plot(link.spread, link.tv, ".", ms=2.5, alpha=0.5, color=colour(0), label=label)
    panel.set_xlabel("spread of the rows' log Z")
    panel.set_ylabel("total variation of the first step")
    panel.set_ylim(0, 1.2 * float(link.tv.max()))
    panel.set_title("masked matrix")
    panel.legend(fontsize=6, loc="upper left")
    parts.letters(figure)
    return figure
