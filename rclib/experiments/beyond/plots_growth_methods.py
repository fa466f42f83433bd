"""Figures of `growth_methods`. They draw what is given and compute nothing."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator

from rclib.plots.drawing import redrawable
from rclib.plots.style import WIDTH, looks, shown

__all__ = ["compute_curves", "method_points", "shrinking_points"]

# Drawn as curves; the others would hide them.
CURVES = ("from scratch", "stays small", "RC sampling", "AKI", "LEMON", "recombination",
          "random growth")  # fmt: skip
LOOK_OF = {"from scratch": "0.2", "stays small": "0.6"}


@redrawable
def compute_curves(curves: pd.DataFrame) -> Figure:
    """Test loss against all operations spent, a row a kind of network, a column a parametrisation.

    curves : kind, parametrization, method, all, loss, means over seeds.
    """
    kinds, names = list(curves.kind.unique()), list(curves.parametrization.unique())
    figure, panels = plt.subplots(
        len(kinds), len(names), figsize=(WIDTH, 2.2 * len(kinds) + 0.6), squeeze=False
    )
    styles = looks(list(CURVES[2:]))
    for i, kind in enumerate(kinds):
        for j, name in enumerate(names):
            panel = panels[i, j]
            part = curves[(curves.kind == kind) & (curves.parametrization == name)]
            panel.set_visible(not part.empty)
            for method, one in part.groupby("method", sort=False):
                if method not in CURVES:
                    continue
                if method in LOOK_OF:
                    own = {"color": LOOK_OF[str(method)], "linestyle": "-", "marker": "", "lw": 1.8}
                else:
                    own = {**styles[str(method)], "lw": 1.0}
                panel.plot(one["all"], one.loss, label=shown(str(method)), ms=2.5, **own)
            panel.set(title=f"{shown(name)}, {kind}", xlabel="operations, sources included")
            panel.set_ylabel("test loss (nats)" if j == 0 else "")
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
            panel.xaxis.set_major_locator(MaxNLocator(4))
            grown = part[part.method.isin(CURVES) & ~part.method.isin(LOOK_OF)].loss
            if len(grown):  # the first steps from scratch would flatten all the rest
                low, top = part.loss.min(), grown.max()
                panel.set_ylim(low - 0.05 * (top - low), top + 0.15 * (top - low))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=6.5)
    return figure


def _rows(
    panel: Axes, frame: pd.DataFrame, column: str, names: list[str], methods: list[str]
) -> None:
    """Points of every method (a row) and parametrisation: mean and range over seeds."""
    for k, (name, look) in enumerate(looks(names).items()):
        found = frame[frame.parametrization == name].groupby("method", sort=False)[column]
        mean, low, high = (getattr(found, how)().reindex(methods) for how in ("mean", "min", "max"))
        places = np.arange(len(methods)) + 0.22 * (k - (len(names) - 1) / 2)
        panel.errorbar(
            mean, places, xerr=np.stack([mean - low, high - mean]), fmt=look["marker"], ms=3.5,
            color=look["color"], lw=1, label=shown(name),
        )  # fmt: skip
    panel.set_yticks(range(len(methods)), [shown(m) for m in methods], fontsize=6.5)
    panel.set_ylim(len(methods) - 0.5, -0.5)


@redrawable
def method_points(growths: pd.DataFrame, gains: pd.DataFrame) -> Figure:
    """What every method of growing loses at once, gains in both accounts, and leaves at zero.

    growths : kind, parametrization, seed, method, lost, rank; gains : kind, parametrization,
    seed, method, own, all (loss of the one from scratch minus the grown one's).
    """
    kinds, names = list(growths.kind.unique()), list(growths.parametrization.unique())
    methods = list(growths.method.unique())
    titles = {
        "lost": ("lost at once", "share of the progress"),
        "own": ("gain, source not counted", "loss (nats)"),
        "all": ("gain, source counted", "loss (nats)"),
        "rank": ("singular values not zero", "share, at the end"),
    }
    figure, panels = plt.subplots(
        len(kinds), 4, figsize=(WIDTH, 2.3 * len(kinds) + 0.4), squeeze=False, sharey="row"
    )
    for i, kind in enumerate(kinds):
        for j, (column, (title, unit)) in enumerate(titles.items()):
            frame = growths if column in growths.columns else gains
            panel = panels[i, j]
            _rows(panel, frame[frame.kind == kind], column, names, methods)
            panel.set_title(title if i == 0 else "", fontsize=7.5)
            panel.axvline(1 if column == "rank" else 0, color="0.3", lw=0.8, ls=":")
            panel.tick_params(axis="x", labelsize=6)
            panel.set_xlabel(unit if i == len(kinds) - 1 else "", fontsize=7)
            if column == "lost":
                panel.set_xscale("symlog", linthresh=0.1)
                low, high = panel.get_xlim()
                ticks = [x for x in (-1.0, -0.1, 0.0, 0.1, 1.0, 10.0) if low <= x <= high]
                panel.set_xticks(ticks, [f"{x:g}" for x in ticks])
                panel.xaxis.set_minor_locator(NullLocator())
                panel.set_ylabel(kind)
    panels[0, 3].legend(fontsize=6, loc="center")
    return figure


@redrawable
def shrinking_points(shrunk: pd.DataFrame) -> Figure:
    """Lost at once and after more training, by method of shrinking, a row a kind of network.

    shrunk : kind, parametrization, seed, method, lost, end (loss minus the one from scratch at
    the small width after as many steps).
    """
    kinds, names = list(shrunk.kind.unique()), list(shrunk.parametrization.unique())
    methods = list(shrunk.method.unique())
    titles = {
        "lost": ("lost at once", "share of the progress"),
        "end": ("at the end, over that from scratch", "loss (nats)"),
    }
    figure, panels = plt.subplots(
        len(kinds), 2, figsize=(WIDTH, 1.5 * len(kinds) + 0.4), squeeze=False, sharey="row"
    )
    for i, kind in enumerate(kinds):
        for j, (column, (title, unit)) in enumerate(titles.items()):
            panel = panels[i, j]
            panel.set_xlabel(unit if i == len(kinds) - 1 else "")
            _rows(panel, shrunk[shrunk.kind == kind], column, names, methods)
            panel.set_title(title if i == 0 else "")
            panel.axvline(0, color="0.3", lw=0.8, ls=":")
        panels[i, 0].set_ylabel(kind)
    panels[0, 1].legend(fontsize=6)
    return figure
