"""Panels of notebook 83: losses at a common and at own rates, rates, spectra, differences."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rclib.experiments.finetuning.bone_changes import KEPT
from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, Look, colour, looks

__all__ = ["main_panels", "more_panels"]

SYSTEMS = {"images": "images, training loss", "text": "text, test loss"}


def _look(arm: object) -> Look:
    """One look an arm, in all panels."""
    return looks(KEPT)[str(arm)]


def _losses(panel: Panel, curves: pd.DataFrame, title: str) -> None:
    """Mean batch loss by update, with shades of 95 percent t-intervals over seeds."""
    for arm, own in curves.groupby("arm", sort=False):
        over = own.groupby("step").loss
        middle, half = over.mean(), parts.half_widths(over)
        shown: Any = {**_look(arm), "marker": ""}
        panel.plot(middle.index, middle, lw=1.2, label=str(arm), **shown)
        panel.fill_between(
            middle.index, middle - half, middle + half, alpha=0.2, lw=0, color=shown["color"]
        )
    panel.set_xlabel("update")
    panel.set_ylabel("batch loss")
    panel.set_title(title)
    panel.legend(fontsize=6, loc="best")


def _rates(panel: Panel, rates: pd.DataFrame, title: str) -> None:
    """Validation loss against the rate by arm; a ring at the rate that was chosen. Rates at which
    the loss is far above the best are cut off."""
    top = rates.groupby(["arm", "rate"]).validation.mean().min() * 1.35
    for arm, own in rates.groupby("arm", sort=False):
        middle = own.groupby("rate").validation.mean()
        middle = middle.where(middle < top)
        look = _look(arm)
        panel.plot(middle.index, middle, ms=2.5, lw=1.1, label=str(arm), **look)
        best = own[own.chosen].rate.iloc[0]
        panel.plot(best, middle[best], marker="o", ms=8, mfc="none", color=look["color"])
    parts.log_axis(panel, "x")
    panel.set_xlabel("rate of the adapted numbers")
    panel.set_ylabel("validation loss")
    panel.set_title(title)
    panel.legend(fontsize=5.5, loc="best")


@redrawable
def main_panels(
    common: pd.DataFrame, own: pd.DataFrame, rates: pd.DataFrame, values: pd.DataFrame
) -> Figure:
    """Losses at one small rate and at the rate of each arm; the choice of rates; singular values.

    common, own : arm, step, seed, loss. rates : arm, rate, seed, validation, chosen. values : arm,
    place, value.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.4), layout="constrained")
    _losses(panels[0, 0], common, "one small rate for all")
    _losses(panels[0, 1], own, "the rate that validation chose")
    low, high = (f(p.get_ylim()[k] for p in panels[0]) for k, f in ((0, min), (1, max)))
    for panel in panels[0]:
        panel.set_ylim(low, high)
    _rates(panels[1, 0], rates, "choice of the rate, images")
    panel = panels[1, 1]
    for arm, line in values.groupby("arm", sort=False):
        shown: Any = {**_look(arm), "marker": ""}
        panel.plot(line.place, line.value, lw=1.2, label=str(arm), **shown)
        panel.plot(
            line.place.iloc[-1], line.value.iloc[-1], marker=_look(arm)["marker"], ms=4,
            color=shown["color"],
        )  # fmt: skip
    parts.log_axis(panel, "x")
    parts.log_axis(panel, "y")
    panel.set_xlabel("place")
    panel.set_ylabel("singular value over ‖ΔW‖")
    panel.set_title("what training adds, second matrix")
    panel.legend(fontsize=6, loc="lower left")
    parts.letters(figure)
    return figure


def _forest(panel: Panel, differences: pd.DataFrame) -> None:
    """Mean differences with 95 percent t-intervals, one row a pair, one marker a system."""
    names = list(dict.fromkeys(differences.pair))
    systems = list(dict.fromkeys(differences.system))
    for number, system in enumerate(systems):
        over = differences[differences.system == system].groupby("pair", sort=False).value
        middle, half = over.mean(), parts.half_widths(over)
        place = [names.index(pair) + 0.16 * (2 * number - 1) for pair in middle.index]
        panel.errorbar(
            middle, place, xerr=half[middle.index], fmt=MARKERS[number], ms=3.5, lw=1,
            color=colour(number), label=SYSTEMS[str(system)],
        )  # fmt: skip
    panel.axvline(0, color=GREY, lw=0.8)
    panel.set_yticks(range(len(names)), names)
    panel.tick_params(axis="y", labelsize=6)
    panel.invert_yaxis()
    panel.set_xlabel("difference in nats")
    panel.set_title("arms at their own rates")
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.legend(fontsize=6, loc="center right")


def _counts(panel: Panel, counted: pd.DataFrame) -> None:
    for family, own in counted.groupby("family", sort=False):
        if family in ("LoRA", "Bone", "product"):
            over = own.groupby("count").value
            middle = over.mean()
            panel.errorbar(
                middle.index, middle, yerr=parts.half_widths(over), ms=3.5, lw=1.2,
                elinewidth=0.8, label=str(family), **_look(family),
            )  # fmt: skip
    parts.log_axis(panel, "x")
    panel.set_xlabel("trained numbers in the hidden layers")
    panel.set_ylabel("accuracy on test images")
    panel.set_title("size of blocks")
    panel.margins(x=0.15, y=0.15)
    for family, text in (("head", "head alone"), ("full", "full fine-tuning")):
        own = counted[counted.family == family]
        if not own.empty:
            value = float(own.value.mean())
            low, high = panel.get_ylim()
            room = 0.08 * (high - low)
            panel.set_ylim(min(low, value - room), max(high, value + room))
            parts.level(panel, value, text)
    panel.legend(fontsize=6, loc="best")


def _changes(panel: Panel, changes: pd.DataFrame, chance: float) -> None:
    """Share of row means against the correlation of neurons: a marker a seed, a large one at the
    mean of each arm."""
    for arm, own in changes.groupby("arm", sort=False):
        look = _look(arm)
        shown: Any = {"marker": look["marker"], "ls": "", "color": look["color"]}
        panel.plot(own.rows, own.neurons, ms=2.5, mew=0, alpha=0.45, **shown)
        panel.plot(own.rows.mean(), own.neurons.mean(), ms=6, mec="k", label=str(arm), **shown)
    parts.log_axis(panel, "x")
    panel.set_xlabel("share of row means in ΔW")
    panel.set_ylabel("|row-column correlation|")
    panel.set_title("marks of the arms, images")
    panel.set_ylim(-0.02, 1.5 * float(changes.neurons.max()))  # room for the names
    parts.level(panel, chance, "chance")
    panel.legend(fontsize=5.5, loc="upper center", ncols=3, columnspacing=0.8)


@redrawable
def more_panels(
    differences: pd.DataFrame, counted: pd.DataFrame, changes: pd.DataFrame, text: pd.DataFrame,
    chance: float,
) -> Figure:  # fmt: skip
    """Pairs of arms in both systems; accuracy by trained numbers; row means and row-column
    correlations of the changes; the choice of rates on text.

    differences : system, pair, what, seed, value. counted : family, count, seed, value. changes :
    arm, seed, rows, neurons. text : arm, rate, seed, validation, chosen (may be empty). chance :
    mean |correlation| of independent vectors.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.6), layout="constrained")
    _forest(panels[0, 0], differences)
    _counts(panels[0, 1], counted)
    _changes(panels[1, 0], changes, chance)
    panel = panels[1, 1]
    if text.empty:
        panel.annotate("paper profile only", (0.5, 0.5), xycoords="axes fraction", ha="center")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_title("choice of the rate, text")
    else:
        _rates(panel, text, "choice of the rate, text")
    parts.letters(figure)
    return figure
