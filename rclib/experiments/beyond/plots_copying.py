"""Figures of `better_than_copying` and `twins`. They draw what is given and compute nothing."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import WIDTH, Look, looks, shown

__all__ = ["bandwidth_curves", "twin_curves", "width_curves"]

_OTHERS = {"copies": "RC\nsampling", "mixture": "mixture", "independent": "independent\ncolumns"}


@redrawable
def bandwidth_curves(curve: pd.DataFrame) -> Figure:
    """What is lost against the bandwidth, right after the transfer and an epoch later, and the arms
    that are no kernel density beside it.

    curve : parametrization, arm, h, lost, lost_error, lost_after, lost_after_error (shares of the
    source's progress; standard errors).
    """
    figure, panels = plt.subplots(
        2, 2, figsize=(WIDTH, 4.6), width_ratios=(1.7, 1.0), sharey="row", sharex="col"
    )
    arms = looks(list(dict.fromkeys(curve.parametrization)))
    smooth = [arm for arm in dict.fromkeys(curve.arm) if arm.startswith(("h = ", "copies, "))]
    smooth = [*smooth, "normal"]
    titles = ("right after", "after one further epoch")
    for row, column, title in zip(panels, ("lost", "lost_after"), titles, strict=True):
        for number, (name, look) in enumerate(arms.items()):
            part = curve[curve.parametrization == name].set_index("arm")
            shift = 0.12 * (number - (len(arms) - 1) / 2)
            _points(
                row[0], part.loc[smooth], column, np.arange(len(smooth)) + shift, look, line=True
            )
            own = part.loc[["held-out h"]]
            row[0].plot(
                [_place(float(own.h.iloc[0]), part.loc[smooth].h.to_list()) + shift],
                100 * own[column], marker="*", ms=11, mec="black", mew=0.6,
                color=look["color"], ls="", zorder=5,
            )  # fmt: skip
            others = part.loc[list(_OTHERS)]
            _points(row[1], others, column, np.arange(len(others)) + shift, look, line=False)
        for panel in row:
            parts.level(panel, 0.0, "as its source", name_it=panel is panels[0, 0])
        row[0].set_ylabel(f"lost, percent of the progress\n{title}")
    names = ["0\n(copies)", *(arm.removeprefix("h = ") for arm in smooth[1:-1]), "∞\n(normal)"]
    panels[1, 0].set_xticks(range(len(smooth)), names)
    panels[1, 0].set_xlabel("bandwidth h (star: held-out rule), entries drawn anew")
    panels[1, 1].set_xticks(range(len(_OTHERS)), list(_OTHERS.values()), fontsize=6)
    panels[0, 0].set_title("neurons of a smoothed bootstrap")
    panels[0, 1].set_title("other ways")
    panels[0, 0].legend(fontsize=6)
    parts.letters(figure)
    return figure


def _place(h: float, hs: list[float]) -> float:
    """Where a bandwidth lies among those at places 0, 1, ..."""
    inner = [min(value, 2 * hs[-2]) for value in hs]
    return float(np.interp(h, inner, range(len(inner))))


def _points(
    panel: Axes, part: pd.DataFrame, column: str, at: np.ndarray, look: Look, *, line: bool
) -> None:
    panel.errorbar(
        at, 100 * part[column], 200 * part[f"{column}_error"], capsize=2, lw=1, ms=4,
        color=look["color"], marker=look["marker"], ls=look["linestyle"] if line else "",
        label=shown(str(part.parametrization.iloc[0])) if "parametrization" in part else None,
    )  # fmt: skip


@redrawable
def width_curves(by_width: pd.DataFrame) -> Figure:
    """What is lost right after the transfer against the width of the source, a line an arm.

    by_width : N, arm, mean, sem (shares of the progress).
    """
    figure, panel = plt.subplots(figsize=(0.6 * WIDTH, 2.7))
    arms = [arm for arm in dict.fromkeys(by_width.arm) if not arm.startswith("h = ")]
    for name, look in looks([arm for arm in arms if arm not in ("copies", "independent")]).items():
        part = by_width[by_width.arm == name]
        panel.errorbar(  # beside each other, so that no bar hides another
            1.03 ** (len(panel.containers) - 1.5) * part.N, 100 * part["mean"], 200 * part["sem"],
            capsize=2, lw=1, ms=4,
            color=look["color"], marker=look["marker"], ls=look["linestyle"], label=name,
        )  # fmt: skip
    widths = sorted(by_width.N.unique())
    panel.set_xscale("log")
    panel.set_xticks(widths, [f"{n:g}" for n in widths])
    panel.xaxis.minorticks_off()
    panel.set(xlabel="source width N", ylabel="lost, percent of the progress\nright after (MF)")
    parts.level(panel, 0.0, "as its source")
    panel.legend(fontsize=6)
    return figure


@redrawable
def twin_curves(frame: pd.DataFrame, *, noise: float) -> Figure:
    """Distance of twins over that of unlike neurons, its growth, and the training loss, by step.

    frame : optimizer, seed, step, distance, predicted, unlike, loss. Means over seeds; dots are
    measured, lines the linearised update.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 2.7))
    for name, look in looks(list(dict.fromkeys(frame.optimizer))).items():
        mean = frame[frame.optimizer == name].groupby("step").mean(numeric_only=True)
        dots: Look = {**look, "linestyle": ""}
        for panel, over in ((left, mean.unlike), (middle, mean.distance.iloc[0])):
            panel.plot(mean.index, mean.distance / over, label=name, **dots)
            panel.plot(mean.index, mean.predicted / over, color=look["color"], lw=1)
        right.plot(mean.index, mean.loss, label=name, **look)
    parts.log_axis(left, "y")
    parts.level(left, 1.0, "unlike neurons")
    parts.level(middle, 1.0, "as at the start")
    left.set(xlabel="step", ylabel="distance of twins / of others")
    left.set_title(f"twins with noise {noise:g}")
    middle.set(xlabel="step", ylabel="distance / at the start", title="its growth")
    right.set(xlabel="step", ylabel="training loss (nats)", title="training loss")
    left.legend(
        fontsize=6, loc="center left", bbox_to_anchor=(0.02, 0.7), title_fontsize=6,
        title="dots: measured\nlines: linearised", alignment="left",
    )  # fmt: skip
    parts.letters(figure)
    return figure
