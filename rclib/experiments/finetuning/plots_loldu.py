"""Panels of notebook 80: accuracy by trained numbers, residuals, factors, starts, rates, text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks

__all__ = ["against_count", "main_panels", "more_panels", "rate_curves"]

FAMILIES = ("LDU", "random", "singular values", "LoRA")
LEVELS = {"head": "head alone", "none": "not adapted", "full": "full fine-tuning"}


def against_count(
    panel: Panel, frame: pd.DataFrame, *, names: Mapping[str, str],
    families: Sequence[str] = FAMILIES,
) -> None:  # fmt: skip
    """Means and 95 percent t-intervals of `value` by trained numbers, a line a family; levels
    with `names` for the others.

    frame : family, count, seed, value.
    """
    look = looks(families)
    for family in families:
        own = frame[frame.family == family]
        if own.empty:
            continue
        over = own.groupby("count").value
        middle = over.mean()
        panel.errorbar(
            middle.index, middle, yerr=parts.half_widths(over), ms=3.5, lw=1.2, elinewidth=0.8,
            label=family, **look[family],
        )  # fmt: skip
    parts.log_axis(panel, "x")
    panel.set_xlabel("trained numbers in the hidden layers")
    panel.margins(y=0.12)
    for family, text in names.items():
        own = frame[frame.family == family]
        if not own.empty:
            value = float(own.value.mean())
            low, high = panel.get_ylim()
            room = 0.06 * (high - low)  # the line is to stand within the panel
            panel.set_ylim(min(low, value - room), max(high, value + room))
            parts.level(panel, value, text)


def _grams(panels: Sequence[Panel], gram: pd.DataFrame) -> Any:
    """|cosine| matrices, one a panel."""
    image = None
    for panel, (name, own) in zip(panels, gram.groupby("matrix", sort=False), strict=True):
        matrix = own.pivot(index="row", columns="column", values="cosine").to_numpy()
        image = panel.imshow(
            matrix, cmap="viridis", vmin=0, vmax=1, interpolation="nearest", aspect="auto"
        )
        panel.set_title(f"|cos|, {name}")
        panel.set_xticks([0, len(matrix) - 1], ["first", "last"])
        panel.set_yticks([0, len(matrix) - 1], ["first", "last"])
        panel.grid(False)
    return image


def _starts(panel: Panel, starts: pd.DataFrame) -> None:
    """Loss of the pre-trained network, by start of z, broken and repaired, one marker a seed."""
    names = list(dict.fromkeys(starts.start))
    for number, (base, own) in enumerate(starts.groupby("base", sort=False)):
        place = own.start.map(names.index) + 0.14 * (2 * number - 1)
        panel.plot(
            own.loss, place, MARKERS[number], ms=3.5, mew=0, alpha=0.6, color=colour(number),
            label="residual of the pivots" if base == "broken" else "residual repaired",
        )  # fmt: skip
    panel.set_yticks(range(len(names)), [f"{n} (method)" if n == "lu" else n for n in names])
    panel.tick_params(axis="y", labelsize=6)
    panel.invert_yaxis()
    parts.log_axis(panel, "x")
    panel.set_xlabel("loss on the old classes, before any update")
    panel.set_title("starts of z")
    panel.legend(fontsize=6, loc="best")


@redrawable
def main_panels(
    frontier: pd.DataFrame, residual: pd.DataFrame, gram: pd.DataFrame, starts: pd.DataFrame
) -> Figure:
    """Accuracy against trained numbers; what the first r terms leave of a matrix; |cosines| within
    the factors; the pre-trained network's loss with each start of z.

    frontier : family, count, seed, value. residual : seed, layer, kind, rank, share. gram : matrix,
    row, column, cosine. starts : seed, start, base, loss.
    """
    figure = plt.figure(figsize=(WIDTH, 5.4), layout="constrained")
    grid = figure.add_gridspec(2, 12)
    panel = figure.add_subplot(grid[0, :6])
    against_count(panel, frontier, names={k: LEVELS[k] for k in ("head", "full")})
    panel.set_ylabel("accuracy on test images")
    panel.set_title("new classes")
    panel.legend(fontsize=6, loc=(0.03, 0.5))
    panel = figure.add_subplot(grid[0, 6:])
    over = residual.groupby(["kind", "seed", "rank"], as_index=False).share.mean()
    for kind, look in looks(["LDU", "SVD"]).items():
        own = over[over.kind == kind].groupby("rank").share
        middle, half = own.mean(), parts.half_widths(own)
        shown: Any = {**look, "marker": ""}
        panel.plot(middle.index, middle, lw=1.3, label=kind, **shown)
        panel.fill_between(
            middle.index, middle - half, middle + half, alpha=0.2, lw=0, color=look["color"]
        )
    parts.level(panel, 1.0, "W left out altogether")
    panel.set_xlabel("terms kept, r")
    panel.set_ylabel("left of ‖W‖²")
    panel.set_title("first r terms of W")
    panel.legend(fontsize=6.5, loc="best")
    pair = [figure.add_subplot(grid[1, 0:3]), figure.add_subplot(grid[1, 3:6])]
    image = _grams(pair, gram)
    figure.colorbar(image, ax=pair, shrink=0.6, label="|cosine|", location="bottom", aspect=30)
    _starts(figure.add_subplot(grid[1, 6:]), starts)
    parts.letters(figure)
    return figure


def rate_curves(panel: Panel, rates: pd.DataFrame) -> None:
    """Validation loss against the rate by arm, the chosen rate marked by a larger marker."""
    for arm, look in looks(list(dict.fromkeys(rates.arm))).items():
        own = rates[rates.arm == arm]
        mean = own.groupby("rate").validation.mean()
        middle = mean[mean < 2 * rates.validation.min() + 0.5]
        panel.plot(middle.index, middle, ms=2.5, lw=1.1, label=str(arm), **look)
        best = own[own.chosen].rate.iloc[0]
        panel.plot(best, mean[best], marker=look["marker"], ms=7, mfc="none", color=look["color"])
    parts.log_axis(panel, "x")
    panel.set_xlabel("rate of the adapted numbers")
    panel.set_ylabel("validation loss")
    panel.set_title("choice of the rate")
    panel.legend(fontsize=5.5, loc="best")


@redrawable
def more_panels(
    rates: pd.DataFrame, text: pd.DataFrame, values: pd.DataFrame, changes: pd.DataFrame
) -> Figure:
    """The choice of rates; the text; pivots against singular values; what training adds.

    rates : arm, rate, seed, validation, chosen. text : family, count, seed, value (may be empty).
    values : seed, layer, place, pivots, singular. changes : arm, seed, rank, share.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.2), layout="constrained")
    rate_curves(panels[0, 0], rates)
    panel = panels[0, 1]
    panel.set_title("another text")
    if text.empty:
        panel.annotate("paper profile only", (0.5, 0.5), xycoords="axes fraction", ha="center")
        panel.set_xticks([])
        panel.set_yticks([])
    else:
        against_count(panel, text, names={"full": LEVELS["full"]})
        panel.set_ylabel("test loss, nats a byte")
        panel.legend(fontsize=6, loc="best")
    panel = panels[1, 0]
    for column, look in looks(["pivots", "singular"]).items():
        own = values.groupby("place")[str(column)]
        middle, half = own.mean(), parts.half_widths(own)
        shown: Any = {**look, "marker": ""}
        name = "|pivots|, as they come" if column == "pivots" else "singular values"
        panel.plot(middle.index, middle, lw=1.2, label=name, **shown)
        panel.fill_between(
            middle.index, middle - half, middle + half, alpha=0.2, lw=0, color=look["color"]
        )
    panel.set_xlabel("place")
    panel.set_ylabel("size")
    panel.set_title("pivots and singular values")
    panel.legend(fontsize=6, loc="best")
    panel = panels[1, 1]
    for number, (arm, own) in enumerate(changes.groupby("arm", sort=False)):
        panel.plot(
            own["rank"], own.share, MARKERS[number], ms=3.5, mew=0, alpha=0.8,
            color=colour(number), label=str(arm),
        )  # fmt: skip
    panel.axhline(0, color=GREY, lw=0.6)
    panel.set_xlabel("stable rank of ΔW, second matrix")
    panel.set_ylabel("row-column share of ΔW")
    panel.set_title("what training adds")
    panel.legend(fontsize=6, loc="best")
    parts.letters(figure)
    return figure
