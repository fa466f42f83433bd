"""Panels of notebook 57: three numbers of every start."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour

__all__ = ["survival_panels"]

GROUPS = {
    "law of the entries": {
        "plain": "plain (Kaiming)",
        "Xavier": "Xavier",
        "heavy": "heavy-tailed, ν = 0.5",
        "uniform": "uniform, ν = 50",
        "orthogonal": "orthogonal",
        "large": "4 times plain",
        "small": "1/4 of plain",
    },
    "few directions": {
        "rank": "low rank",
        "aligned": "low rank, of the gradient",
    },
    "trained before": {
        "mixture": "mixture of templates",
        "sampled": "sampled from a half",
        "shared": "shared by two layers",
        "trained": "trained",
        "shuffled": "trained, W shuffled",
    },
    "BatchNorm": {
        "normed": "plain, BatchNorm",
        "gains": "gains alone trained",
    },
    "sines": {
        "SIREN": "SIREN",
        "WINNER": "WINNER",
    },
}


@redrawable
def survival_panels(table: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Moved, share explained and lead of every start; losses of some.

    table : as `what_survives.survival_table`. curves : of, seed, step, behind.
    """
    figure = plt.figure(figsize=(WIDTH, 6.0), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=[1.0, 0.62])
    first = figure.add_subplot(grid[0, 0])
    panels = [first, *(figure.add_subplot(grid[0, k], sharey=first) for k in (1, 2))]
    names: list[str] = []
    for k, members in enumerate(GROUPS.values()):
        places = np.arange(len(names), len(names) + len(members))
        of_panels = (["moved"], ["share", "products"], ["lead"])
        for panel, measures in zip(panels, of_panels, strict=True):
            for measure in measures:
                own = table[(table.measure == measure) & table.of.isin(list(members))]
                if own.empty:
                    continue
                own = own.set_index("of").reindex(list(members))
                error = [own["mean"] - own.low, own.high - own["mean"]]
                hollow = measure == "products"
                panel.errorbar(
                    own["mean"], places + (0.22 if hollow else 0.0), xerr=error,
                    fmt=MARKERS[k], color=colour(k), ms=3.8, lw=1.0,
                    mfc="white" if hollow else colour(k),
                )  # fmt: skip
        names += list(members.values())
    first.set_yticks(range(len(names)), names, fontsize=7)
    first.set_ylim(len(names) - 0.4, -0.6)
    for panel in panels[1:]:
        panel.tick_params(labelleft=False)
    panels[1].set_xlim(-0.03, 1.05)
    panels[2].axvline(0.0, color=GREY, ls=":", lw=0.9)
    panels[2].set_xscale("symlog", linthresh=0.3, linscale=0.8)
    panels[2].set_xticks([-3, -1, -0.3, 0, 0.3, 1, 3], ["-3", "-1", "-.3", "0", ".3", "1", "3"])
    panels[2].tick_params(axis="x", labelsize=7)
    panels[2].minorticks_off()
    panels[0].set_xlabel("‖W - W$_0$‖ / ‖W$_0$‖")
    panels[0].set_title("moved")
    panels[1].set_xlabel("share of ‖W‖²")
    panels[1].set_title("explained by the start")
    panels[2].set_xlabel("mean loss below plain's")
    panels[2].set_title("gained")
    _curves(figure.add_subplot(grid[1, :]), curves)
    parts.letters(figure)
    return figure


def _curves(panel: Axes, curves: pd.DataFrame) -> None:
    """Losses of some starts less that of the plain one, mean over seeds and range."""
    shown = ("large", "small", "rank", "aligned", "mixture", "sampled", "trained", "shuffled")
    of_group = {name: k for k, members in enumerate(GROUPS.values()) for name in members}
    seen: dict[int, int] = {}
    for name in shown:
        own = curves[curves.of == name].groupby("step").behind
        k = of_group[name]
        style = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)))[seen.get(k, 0)]
        seen[k] = seen.get(k, 0) + 1
        mean = own.mean()
        label = {n: t for members in GROUPS.values() for n, t in members.items()}[name]
        panel.plot(mean.index, mean, color=colour(k), ls=style, lw=1.3, label=label)
        panel.fill_between(mean.index, own.min(), own.max(), color=colour(k), alpha=0.12, lw=0)
    panel.set_xlabel("update")
    panel.set_ylabel("test loss less plain's")
    panel.set_yscale("symlog", linthresh=0.1, linscale=0.8)
    ticks = [-1.0, -0.3, -0.1, 0.0, 0.1, 0.3, 1.0, 3.0, 10.0]
    panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.axhline(0.0, color=GREY, ls=":", lw=0.9)
    panel.legend(fontsize=6.5, ncols=3, loc="upper right")
    panel.set_title("against plain")
