"""Panels of notebook 66: laws and weights on one axis of learning time."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, WIDTH, Look, looks

__all__ = ["time_panels"]

# Measure -> title and label of its panel; letters go to titles.
PANELS = {
    "progress": ("the law", "way of the law"),
    "spikes": ("spikes", "share of ‖W‖² in spikes"),
    "stable_rank": ("stable rank", "stable rank over the start's"),
    "energies": ("rows and columns of W²", "share beyond chance's"),
    "means": ("rows and columns of W", "share beyond chance's"),
    "alpha": ("tail exponent", "α (Hill) minus the start's"),
}


@redrawable
def time_panels(frame: pd.DataFrame) -> Figure:
    """One panel a measure, one line a system: mean over seeds with their range, against the time
    over the system's learning time (dotted: one).

    frame : system, tau, the columns of `PANELS`, each also with _low and _high.
    """
    figure, panels = plt.subplots(
        3, 2, figsize=(WIDTH, 6.4), layout="constrained", sharex=True, squeeze=True
    )
    look = looks(list(frame.system.unique()))
    for panel, (name, (title, label)) in zip(panels.flat, PANELS.items(), strict=True):
        _lines(panel, frame, name, look)
        panel.set_title(title)
        panel.set_ylabel(label)
        parts.log_axis(panel, "x")
        panel.axvline(1.0, ls=":", lw=0.9, color=GREY)
    # A test error that rises far over its start would press the others together.
    panels[0, 0].set_ylim(max(-1.1, panels[0, 0].get_ylim()[0]), 1.1)
    for panel in panels[-1]:
        panel.set_xlabel("time over the law's own learning time")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=6)
    parts.letters(figure)
    return figure


def _lines(panel: Axes, frame: pd.DataFrame, name: str, look: Mapping[str, Look]) -> None:
    for system, group in frame.groupby("system", sort=False):
        if not group[name].notna().all():
            continue
        own = look[str(system)]
        panel.fill_between(
            group.tau, group[f"{name}_low"], group[f"{name}_high"], color=own["color"], alpha=0.15,
            lw=0,
        )  # fmt: skip
        panel.plot(
            group.tau, group[name], color=own["color"], ls=own["linestyle"], lw=1.3, label=system
        )
