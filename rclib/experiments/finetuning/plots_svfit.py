"""Panels of notebook 82: accuracy by trained numbers, rates, which values move, arms, the rank
that 99 percent ask for, text, and the row-column correlation against the largest value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.experiments.finetuning.plots_loldu import against_count, rate_curves
from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks

__all__ = ["main_panels", "more_panels"]

FAMILIES = ("singular values", "LoRA", "random frames")
LEVELS = {"head": "head alone", "none": "not adapted", "full": "full fine-tuning"}
READINGS = {1: "Σσ", 2: "Σσ²"}


def _moves(panel: Panel, moves: pd.DataFrame) -> None:
    """Mean |move| of each singular value by optimiser, and the values themselves."""
    values = moves.groupby("place").value.mean()
    panel.plot(values.index, values, color=GREY, lw=1.2, ls="--", label="value σ, pre-trained")
    names = list(dict.fromkeys(moves.optimizer))
    for optimizer, look in looks(names).items():
        own = moves[moves.optimizer == optimizer]
        panel.plot(own.place, own.move, color=look["color"], lw=1.1, label=f"|change|, {optimizer}")
        panel.fill_between(
            own.place, (own.move - own.half).clip(lower=1e-4), own.move + own.half, alpha=0.2, lw=0,
            color=look["color"],
        )  # fmt: skip
    parts.log_axis(panel, "y")
    panel.set_xlabel("place j of the singular value")
    panel.set_ylabel("size")
    panel.set_title("which values move")
    panel.legend(fontsize=6, loc="best")


def _arms(panel: Panel, arms: pd.DataFrame) -> None:
    """Training loss by arm, at the arm's own rate and at one for all, one marker a seed."""
    names = list(dict.fromkeys(arms.arm))
    for number, (rate, own) in enumerate(arms.groupby("rate", sort=False)):
        place = own.arm.map(names.index) + 0.16 * (2 * number - 1)
        panel.plot(
            own.train, place, MARKERS[number], ms=3.0, mew=0, alpha=0.45, color=colour(number),
            label=str(rate),
        )  # fmt: skip
        over = own.groupby("arm", sort=False).train
        middle, half = over.mean(), parts.half_widths(over)
        at = [names.index(arm) + 0.16 * (2 * number - 1) for arm in middle.index]
        panel.errorbar(
            middle, at, xerr=half[middle.index], fmt="|", ms=9, lw=1.2, color=colour(number)
        )  # fmt: skip
    panel.set_yticks(range(len(names)), names)
    panel.tick_params(axis="y", labelsize=6.5)
    panel.invert_yaxis()
    panel.set_xlabel("training loss at the end")
    panel.set_title("which directions")
    panel.legend(fontsize=6, loc="best")


@redrawable
def main_panels(
    accuracy: pd.DataFrame, rates: pd.DataFrame, moves: pd.DataFrame, arms: pd.DataFrame
) -> Figure:
    """Accuracy against trained numbers; the choice of rates; which values move; the arms of as
    many directions.

    accuracy : family, count, seed, value. rates : arm, rate, seed, validation, chosen.
    moves : optimizer, place, value, move, half (half width of the 95 percent t-interval).
    arms : arm, rate (a text), seed, train.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.4), layout="constrained")
    panel = panels[0, 0]
    against_count(panel, accuracy, names={k: LEVELS[k] for k in ("head", "full")},
                  families=FAMILIES)  # fmt: skip
    panel.set_ylabel("accuracy on test images")
    panel.set_title("new classes")
    panel.legend(fontsize=6, loc="best")
    rate_curves(panels[0, 1], rates)
    _moves(panels[1, 0], moves)
    _arms(panels[1, 1], arms)
    parts.letters(figure)
    return figure


def _kept(panel: Panel, kept: pd.DataFrame) -> None:
    """Share that the first r values hold, by r/k, matrix and reading; second matrix alone."""
    for number, (power, name) in enumerate(READINGS.items()):
        for matrix, ls in (("trained", "-"), ("start", ":")):
            own = kept[(kept.power == power) & (kept.matrix == matrix)]
            text = "pre-trained" if matrix == "trained" else "before pre-training"
            panel.plot(
                own.part, own.kept, color=colour(number), ls=ls, lw=1.2, label=f"{name}, {text}"
            )  # fmt: skip
    parts.level(panel, 0.99, "99 percent")
    panel.set_xlabel("values kept, r/k")
    panel.set_ylabel("share that they hold")
    panel.set_ylim(0, 1.03)
    panel.set_title("the rank of 99 percent")
    panel.legend(fontsize=6, loc="lower right")


def _factors(panel: Panel, scaled: pd.DataFrame) -> None:
    """Correlation and share of row and column means against the factor of the largest values."""
    names = {
        "correlation": "|row-column correlation|", "share": "share of row and column means",
    }  # fmt: skip
    for column, look in looks(list(names)).items():
        over = scaled.groupby("factor")[str(column)]
        middle = over.mean()
        panel.errorbar(
            middle.index, middle, yerr=parts.half_widths(over), ms=3.5, lw=1.2, elinewidth=0.8,
            label=names[column], **look,
        )  # fmt: skip
    panel.set_ylim(0, 1.35 * panel.get_ylim()[1])  # the legend is to stand above the bars
    panel.set_xlabel("factor of the largest singular value, both matrices")
    panel.set_title("row-column structure and σ₁")
    panel.legend(fontsize=6, loc="upper right")


@redrawable
def more_panels(
    loss: pd.DataFrame, text: pd.DataFrame, kept: pd.DataFrame, scaled: pd.DataFrame
) -> Figure:
    """Training loss against trained numbers; the text; what the first values hold; row-column
    structure against the largest value.

    loss, text : family, count, seed, value (text may be empty). kept : matrix, power, part, kept.
    scaled : seed, factor, correlation, share.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.2), layout="constrained")
    systems: Sequence[Any] = (
        (loss, "training loss, images", "new classes", ("head", "full")),
        (text, "test loss, nats a byte", "another text", ("full",)),
    )
    for panel, (frame, label, title, names) in zip(panels[0], systems, strict=True):
        panel.set_title(title)
        if frame.empty:
            panel.annotate("paper profile only", (0.5, 0.5), xycoords="axes fraction", ha="center")
            panel.set_xticks([])
            panel.set_yticks([])
            continue
        against_count(panel, frame, names={k: LEVELS[k] for k in names}, families=FAMILIES)
        panel.set_ylabel(label)
        panel.legend(fontsize=6, loc="best")
    _kept(panels[1, 0], kept)
    _factors(panels[1, 1], scaled)
    parts.letters(figure)
    return figure
