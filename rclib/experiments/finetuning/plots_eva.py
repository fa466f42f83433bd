"""Panels of notebook 81: losses, gradients that starts see, spectra of inputs, rates, changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks

__all__ = ["main_panels", "more_panels"]

ARMS = ("LoRA", "EVA", "PiSSA", "bottom", "LoRA, unit rows", "permuted", "full")
STARTS = {
    "random": "random rows", "EVA": "EVA", "PiSSA": "PiSSA", "uncentred": "EVA, uncentred",
    "permuted": "EVA, permuted", "best": "gradient's own",
}  # fmt: skip


def _band(panel: Panel, over: Any, label: str, look: Any) -> None:
    """Mean of grouped values against the group, with its 95 percent t-interval as a shade."""
    middle, half = over.mean(), parts.half_widths(over)
    panel.plot(middle.index, middle, label=label, lw=1.2, **look)
    half = half.reindex(middle.index)
    panel.fill_between(
        middle.index, middle - half, middle + half, alpha=0.15, lw=0, color=look["color"]
    )


def _losses(panel: Panel, curves: pd.DataFrame) -> None:
    every = looks(ARMS)
    for arm in [arm for arm in ARMS if arm in set(curves.arm)]:
        look: Any = {**every[arm], "marker": ""}
        _band(panel, curves[curves.arm == arm].groupby("step").loss, arm, look)
    parts.log_axis(panel, "x")
    panel.set_xlabel("updates")
    panel.legend(fontsize=5.5, loc="best")


def _seen(panel: Panel, seen: pd.DataFrame) -> None:
    """Share of the gradient against rank, by start."""
    for start, look in looks(list(STARTS)).items():
        own = seen[seen.start == start]
        over = own.groupby("rank").share
        middle, half = over.mean(), parts.half_widths(over)
        panel.errorbar(
            middle.index, middle, half.reindex(middle.index), ms=3, lw=1.1, elinewidth=0.8,
            label=STARTS[str(start)], **look,
        )  # fmt: skip
    parts.size_axis(panel, sorted(seen["rank"].unique()))
    panel.set_ylim(-0.03, 1.05)
    panel.set_xlabel("rank r")


def _spectrum(panel: Panel, spectrum: pd.DataFrame, kept: pd.DataFrame) -> None:
    """Explained shares by place, of the inputs and of shuffled ones, and the ranks given."""
    for number, (layer, own) in enumerate(spectrum.groupby("layer")):
        over = own.groupby("place")
        share, white = over.share.mean(), over.white.mean()
        panel.plot(share.index, share, lw=1.2, color=colour(number), label=f"layer {layer}")
        panel.plot(white.index, white, lw=0.9, ls=":", color=colour(number))
        ranks = float(kept[kept.layer == layer].kept.mean())
        place = max(1, round(ranks))
        panel.plot(
            place, share[place], MARKERS[number], ms=5, mfc="none", color=colour(number),
            label=f"ranks given: {ranks:.1f}",
        )  # fmt: skip
    shown = spectrum.groupby(["layer", "place"]).share.mean()
    panel.set_ylim(max(1e-6, 0.5 * float(shown[shown > 0].min())), 1)
    parts.log_axis(panel, "x")
    parts.log_axis(panel, "y")
    panel.plot([], [], ls=":", color=GREY, label="columns shuffled")
    panel.set_xlabel("direction")
    panel.set_ylabel("explained share")
    panel.legend(fontsize=5.5, loc="lower left")


@redrawable
def main_panels(
    curves: pd.DataFrame, seen: pd.DataFrame, spectrum: pd.DataFrame, kept: pd.DataFrame
) -> Figure:
    """Training loss against updates; the share of the gradient that starts see, by layer; the
    spectrum of the inputs.

    curves : arm, seed, step, loss. seen : seed, layer, rank, start, share. spectrum : seed, layer,
    place, share, white. kept : layer, kept.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.2), layout="constrained")
    _losses(panels[0, 0], curves)
    panels[0, 0].set_ylabel("training loss of a batch")
    panels[0, 0].set_title("each arm at its rate")
    for panel, layer in ((panels[0, 1], 1), (panels[1, 0], 2)):
        _seen(panel, seen[seen.layer == layer])
        panel.set_ylabel("share of the gradient seen")
        panel.set_title(f"start, layer {layer}")
    panels[0, 1].legend(fontsize=5.5, loc="best")
    _spectrum(panels[1, 1], spectrum, kept)
    panels[1, 1].set_title("inputs of the layers, centred")
    parts.letters(figure)
    return figure


def _differences(panel: Panel, early: pd.DataFrame) -> None:
    """Early loss of EVA minus that of others, by arm and system."""
    arms: Sequence[str] = list(dict.fromkeys(early.arm))
    for number, (system, own) in enumerate(early.groupby("system", sort=False)):
        over = own.groupby("arm", sort=False).value
        middle, half = over.mean(), parts.half_widths(over)
        places = [arms.index(str(a)) + 0.16 * (number - 1) for a in middle.index]
        panel.errorbar(
            middle, places, xerr=half.reindex(middle.index), fmt=MARKERS[number], ms=3.5, lw=1.1,
            color=colour(number), label=str(system),
        )  # fmt: skip
    panel.axvline(0, color=GREY, lw=0.7)
    panel.set_yticks(range(len(arms)), [f"minus {arm}" for arm in arms], fontsize=6)
    panel.invert_yaxis()
    panel.set_xlabel("early loss of EVA, difference")
    panel.set_title("first 50 updates")
    panel.legend(fontsize=5.5, loc="best")


def _rates(panel: Panel, rates: pd.DataFrame) -> None:
    """Final training loss against the rate, the chosen rate marked."""
    every = looks(ARMS)
    shown = rates.groupby(["arm", "rate"]).train.mean()
    for arm in [arm for arm in ARMS if arm in set(rates.arm)]:
        own = rates[rates.arm == arm]
        middle, look = own.groupby("rate").train.mean(), every[arm]
        panel.plot(middle.index, middle, ms=2.5, lw=1.1, label=arm, **look)
        best = own[own.chosen].rate.iloc[0]
        panel.plot(best, middle[best], marker=look["marker"], ms=7, mfc="none", color=look["color"])
    panel.set_ylim(None, min(float(shown.max()) * 1.05, 3 * float(shown.min()) + 1.5))
    parts.log_axis(panel, "x")
    panel.set_xlabel("rate of the adapted numbers")
    panel.set_ylabel("final training loss")
    panel.set_title("all rates")
    panel.legend(fontsize=5, loc="best")


@redrawable
def more_panels(
    early: pd.DataFrame, rates: pd.DataFrame, text: pd.DataFrame, changes: pd.DataFrame
) -> Figure:
    """Early losses; rates; the text; what training adds.

    early : system, arm, seed, value. rates : arm, rate, seed, train, chosen. text : arm, seed,
    step, loss (may be empty). changes : arm, seed, rank, correlation, chance.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.2), layout="constrained")
    _differences(panels[0, 0], early)
    _rates(panels[0, 1], rates)
    panel = panels[1, 0]
    if text.empty:
        panel.annotate("paper profile only", (0.5, 0.5), xycoords="axes fraction", ha="center")
        panel.set_xticks([])
        panel.set_yticks([])
    else:
        _losses(panel, text)
        panel.set_ylabel("loss of a batch, nats a byte")
    panel.set_title("another text")
    panel = panels[1, 1]
    for number, (arm, own) in enumerate(changes.groupby("arm", sort=False)):
        panel.plot(
            own["rank"], own.correlation, MARKERS[number], ms=4, mew=0, alpha=0.8,
            color=colour(number), label=str(arm),
        )  # fmt: skip
    panel.set_ylim(0, None)
    panel.set_xlabel("stable rank of ΔW, second matrix")
    panel.set_ylabel("|row-column correlation| of ΔW")
    panel.set_title("what training adds")
    parts.level(panel, float(changes.chance.mean()), "chance")
    panel.legend(fontsize=6, loc="best")
    parts.letters(figure)
    return figure
