"""Panels of notebook 86: energy of updates over the base's spectrum, means, ranks and losses."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour

__all__ = ["block_panels", "place_panels"]

SHORT = {
    "Bone, guided": "Bone,\nguided",
    "Bone, sum": "Bone,\nsum",
    "Bone, product": "Bone,\nprod.",
}


def _drawn(frame: pd.DataFrame) -> list[str]:
    return [str(arm) for arm in dict.fromkeys(frame.arm) if arm != "head"]


@redrawable
def block_panels(table: pd.DataFrame) -> Figure:
    """Energy over blocks of left (down) and right (across) directions, over that of independent
    entries: one row of panels a system and kind, one panel an arm.

    table : system, arm, kind, left, right, energy.
    """
    arms = _drawn(table)
    rows: list[tuple[Any, Any]] = list(dict.fromkeys(zip(table.system, table.kind, strict=True)))
    figure, panels = plt.subplots(
        len(rows), len(arms), figsize=(WIDTH, 0.5 + 0.66 * len(rows)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.01, h_pad=0.02, wspace=0.02, hspace=0.03)
    image = None
    for row, (system, kind) in enumerate(rows):
        for place, arm in enumerate(arms):
            panel = panels[row, place]
            own = table[(table.system == system) & (table.kind == kind) & (table.arm == arm)]
            if own.empty:
                panel.set_axis_off()
                continue
            matrix = own.pivot(index="left", columns="right", values="energy").to_numpy()
            image = panel.imshow(
                np.maximum(matrix, 1e-3), cmap="PuOr_r", norm=LogNorm(1 / 8, 8),
                interpolation="nearest",
            )  # fmt: skip
            panel.set_xticks([])
            panel.set_yticks([])
            panel.grid(False)
            if row == 0:
                panel.set_title(SHORT.get(arm, arm), fontsize=6.5, pad=3)
        name = system if kind == "trained" else "random,\nsame form"
        panels[row, 0].set_ylabel(f"{name}", fontsize=6.5)
    if image is not None:
        bar = figure.colorbar(image, ax=panels, shrink=0.7, aspect=25, extend="both", pad=0.01)
        bar.minorticks_off()
        bar.set_ticks([1 / 8, 1 / 2, 1, 2, 8], labels=["⅛", "½", "1", "2", "8"])
        bar.set_label("energy over chance", fontsize=7)
    return figure


def _dots(panel: Panel, frame: pd.DataFrame, what: str, *, form: bool) -> None:
    """Means and 95 percent t-intervals over seeds by arm; hollow: the random update."""
    arms, systems = _drawn(frame), list(dict.fromkeys(frame.system))
    for number, system in enumerate(systems):
        for kind in ("form", "trained") if form else ("trained",):
            own = frame[(frame.system == system) & (frame.kind == kind) & frame.arm.isin(arms)]
            over = own.groupby(["arm", "seed"])[what].mean().groupby("arm")
            places = np.array([arms.index(arm) for arm in over.mean().index])
            panel.errorbar(
                over.mean(), places + 0.24 * (number - (len(systems) - 1) / 2),
                xerr=parts.half_widths(over) if kind == "trained" else None,
                fmt=MARKERS[number], color=colour(number), ms=3.4, lw=1.0,
                mfc="white" if kind == "form" else colour(number),
                label=str(system) if kind == "trained" else None,
            )  # fmt: skip
    panel.set_yticks(range(len(arms)), arms, fontsize=6.5)
    panel.set_ylim(len(arms) - 0.5, -0.5)


def _chance(panel: Panel, value: float) -> None:
    panel.axvline(value, color=GREY, ls=":", lw=0.9)


@redrawable
def place_panels(frame: pd.DataFrame, losses: pd.DataFrame) -> Figure:
    """Energy in the top block on either side, of rows in the inputs' main directions, in row and
    column means; stable rank against the test loss.

    frame : system, arm, kind, seed, layer and the measures. losses : system, arm, seed, test.
    """
    figure, panels = plt.subplots(2, 3, figsize=(WIDTH, 5.0), layout="constrained")
    for panel, what, title, chance in (
        (panels[0, 0], "left", "left, top eighth of W", 1 / 8),
        (panels[0, 1], "right", "right, top eighth of W", 1 / 8),
        (panels[0, 2], "inputs", "right, top eighth of inputs", 1 / 8),
        (panels[1, 0], "rows", "row means", 1.0),
        (panels[1, 1], "columns", "column means", 1.0),
    ):
        _dots(panel, frame, what, form=True)
        if chance == 1.0:
            parts.log_axis(panel, "x")
        _chance(panel, chance)
        panel.set_title(title, fontsize=7.5)
        panel.set_xlabel("energy over chance" if chance == 1.0 else "share of energy")
        if panel not in (panels[0, 0], panels[1, 0]):
            panel.tick_params(labelleft=False)
    panels[0, 0].legend(fontsize=6, loc="best")
    _losses(panels[1, 2], frame, losses)
    parts.letters(figure)
    return figure


def _losses(panel: Panel, frame: pd.DataFrame, losses: pd.DataFrame) -> None:
    """Stable rank (mean over matrices) against the test loss over that of the head or the network
    as it was: one marker an arm and system."""
    own = frame[frame.kind == "trained"]
    rank = own.groupby(["system", "arm", "seed"]).stable.mean().groupby(["system", "arm"]).mean()
    loss = losses.groupby(["system", "arm"]).test.mean()
    for number, system in enumerate(dict.fromkeys(frame.system)):
        for arm in _drawn(frame[frame.system == system]):
            x, y = float(rank[system, arm]), float(loss[system, arm] / loss[system, "head"])
            panel.plot(x, y, MARKERS[number], ms=3.4, color=colour(number))
            if arm in ("SVFit", "full"):
                below = number % 2 == 1  # images and text lie on one another
                panel.annotate(
                    arm, (x, y), xytext=(2, -6 if below else 2), textcoords="offset points",
                    fontsize=5, color=colour(number),
                )  # fmt: skip
    for axis in ("x", "y"):
        parts.log_axis(panel, axis)
    panel.set_xlabel("stable rank of ΔW")
    panel.set_ylabel("test loss over that without ΔW")
    panel.set_title("rank and loss", fontsize=7.5)
