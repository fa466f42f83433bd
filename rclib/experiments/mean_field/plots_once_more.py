"""Figures of notebook 19: claims of Table 1 and Figures 4.3 and 4.4, asked once more."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, WIDTH, looks, ordered

__all__ = ["gains_by_block", "slopes_and_distances"]


@redrawable
def slopes_and_distances(
    slopes: pd.DataFrame, squares: pd.DataFrame, *, most: float, asked: int, floors: dict[str, str]
) -> Figure:
    """(a) slope of the change against the steps, a line a layer; (b) rms difference of logits
    against the source width, a line a kind.

    slopes : step, layer, seed, slope. squares : kind, width, seed, square. most : of |slope|;
    asked : after which step. floors : kind of two wide networks -> what is written at its level.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.0), layout="constrained")
    for layer, style in ordered(list(slopes.layer)).items():
        _range(left, slopes[slopes.layer == layer], "step", "slope", f"layer {layer:g}", style)
    for value in (-most, most):
        parts.level(left, value, "")
    left.axhline(0.0, color=GREY, lw=0.6, zorder=1)
    parts.size_axis(left, sorted(set(slopes.step)))
    parts.moment(left, asked, "asked here")
    left.set_xlabel("steps of SGD")
    left.set_ylabel("slope of the change against N")
    left.legend(loc="lower center")
    shown = squares[~squares.kind.isin(list(floors))]
    for kind, style in looks(list(dict.fromkeys(shown.kind))).items():
        rows = shown[shown.kind == kind].groupby("width").square
        line: dict[str, Any] = {**style}
        widths = np.array(list(rows.groups), dtype=float)
        right.plot(widths, np.sqrt(rows.mean().clip(lower=0)), label=kind, **line)
        low, high = (np.sqrt(edge.clip(lower=0)) for edge in (rows.min(), rows.max()))
        right.fill_between(widths, low, high, color=style["color"], alpha=0.15, lw=0)
    parts.size_axis(right, sorted(set(shown.width)))
    parts.log_axis(right, "y")
    for kind, text in floors.items():
        level = float(np.sqrt(squares[squares.kind == kind].square.mean()))
        parts.level(right, level, text, ls="--")
    right.set_ylim(
        bottom=0.5 * float(np.sqrt(squares[squares.kind.isin(list(floors))].square.min()))
    )
    right.legend(loc="lower left")
    first = shown[shown.width == shown.width.min()].square.mean()
    parts.guide(right, sorted(set(shown.width)), 1.25 * float(np.sqrt(first)), -0.5)
    right.set_xlabel("source width N")
    right.set_ylabel("rms difference of the logits")
    for letter, panel in zip("ab", (left, right), strict=True):
        panel.set_title(f"({letter})", loc="left")
    return figure


def _range(panel: Panel, rows: pd.DataFrame, x: str, y: str, label: str, style: Any) -> None:
    """Mean with the range over the seeds."""
    by = rows.groupby(x)[y]
    at = np.array(list(by.groups), dtype=float)
    panel.plot(at, by.mean(), label=label, **style)
    panel.fill_between(at, by.min(), by.max(), color=style["color"], alpha=0.15, lw=0)


@redrawable
def gains_by_block(frame: pd.DataFrame) -> Figure:
    """Largest |correlation| over the stream over its 95 percent level, by block, a line a kind.

    frame : kind, seed, block, ratio; median and range over the seeds, dotted: the level.
    """
    figure, panel = plt.subplots(figsize=(WIDTH, 3.0), layout="constrained")
    for kind, style in looks(list(dict.fromkeys(frame.kind))).items():
        by = frame[frame.kind == kind].groupby("block").ratio
        blocks = [int(block) for block in by.groups]
        panel.plot(blocks, by.median(), label=kind, ms=3.5, **style)
        panel.fill_between(blocks, by.min(), by.max(), color=style["color"], alpha=0.15, lw=0)
    parts.log_axis(panel, "y")
    parts.few_ticks(panel, most=10)
    parts.level(panel, 1.0, "95 % of chance")
    panel.set_xlabel("block")
    panel.set_ylabel("largest |correlation| over its level")
    figure.legend(loc="outside upper center", ncols=3)
    return figure
