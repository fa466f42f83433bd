"""Panels of notebook 67: accuracies, irreps in the outputs and units of networks on groups."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour

__all__ = ["group_panels"]


@redrawable
def group_panels(
    curves: pd.DataFrame, irreps: pd.DataFrame, halves: pd.DataFrame, data: pd.DataFrame
) -> Figure:
    """Accuracies over training; what outputs know of each irrep on unseen pairs, of the first and
    the last group; purity of hidden units and the energy they reached; step at which half of an
    irrep is there against its degree; test accuracy over the number of pairs.

    curves : group, arm, step, measure, mean, low, high. irreps : group, irrep, degree, step, mean,
    low, high. halves : group, irrep, degree, half. data : group, load, value (one row a seed).
    """
    figure, panels = plt.subplots(2, 3, figsize=(WIDTH, 4.7), layout="constrained")
    (accuracy, first, last), (units, steps, needed) = panels
    groups = list(irreps.group.unique())
    _accuracies(accuracy, curves, groups)
    for panel, group in ((first, groups[0]), (last, groups[-1])):
        _irreps(panel, irreps[irreps.group == group], str(group))
    _units(units, curves, groups)
    _halves(steps, halves)
    _needed(needed, data)
    parts.letters(figure)
    return figure


def _curve(panel: Axes, group: pd.DataFrame, k: int, dash: str, **more: Any) -> None:
    group = group[group.step > 0]
    panel.plot(group.step, group["mean"], ls=dash, color=colour(k), lw=1.2, **more)
    panel.fill_between(group.step, group.low, group.high, color=colour(k), alpha=0.15, lw=0)


def _keys(panel: Axes, groups: list[Any], dashes: dict[str, str], **more: Any) -> None:
    handles = [Line2D([], [], color=colour(k), label=str(name)) for k, name in enumerate(groups)]
    handles += [Line2D([], [], color=GREY, ls=dash, label=text) for text, dash in dashes.items()]
    panel.legend(handles=handles, fontsize=5.5, **more)


def _accuracies(panel: Axes, curves: pd.DataFrame, groups: list[Any]) -> None:
    looks = {"train": ("η = 2e-4", "train", "--"), "test": ("η = 2e-4", "test", "-")}
    looks["test, η = 0"] = ("η = 0", "test", ":")
    for k, name in enumerate(groups):
        for arm, measure, dash in looks.values():
            chosen = (curves.group == name) & (curves.arm == arm) & (curves.measure == measure)
            _curve(panel, curves[chosen], k, dash)
    panel.set_xscale("log")
    panel.set_ylim(-0.03, 1.45)
    panel.set_yticks([0.0, 0.5, 1.0])
    panel.set_xlabel("step")
    panel.set_ylabel("accuracy")
    panel.set_title("fit first, grok later")
    _keys(panel, groups, {t: dash for t, (*_, dash) in looks.items()}, loc="upper left", ncols=2)


def _irreps(panel: Axes, irreps: pd.DataFrame, group: str) -> None:
    names = irreps[["irrep", "degree"]].drop_duplicates().sort_values("degree", kind="stable")
    for k, name in enumerate(names.irrep):
        _curve(panel, irreps[irreps.irrep == name], k, "-", label=str(name))
    panel.set_xscale("log")
    panel.set_ylim(-0.25, 1.2)
    panel.set_xlabel("step")
    panel.set_ylabel("part in the outputs")
    panel.set_title(f"{group}: irreps by degree")
    panel.legend(fontsize=5.5, loc="upper left")


def _units(panel: Axes, curves: pd.DataFrame, groups: list[Any]) -> None:
    looks = {"share of one irrep": ("purity", "-"), "energy / its maximum": ("reached", "--")}
    for k, name in enumerate(groups):
        for measure, dash in looks.values():
            chosen = (curves.group == name) & (curves.arm == "η = 2e-4")
            _curve(panel, curves[chosen & (curves.measure == measure)], k, dash)
    panel.set_xscale("log")
    panel.set_ylim(-0.03, 1.45)
    panel.set_yticks([0.0, 0.5, 1.0])
    panel.set_xlabel("step")
    panel.set_ylabel("mean over units, by size")
    panel.set_title("hidden units")
    _keys(panel, groups, {t: dash for t, (_, dash) in looks.items()}, loc="upper left", ncols=2)


def _halves(panel: Axes, halves: pd.DataFrame) -> None:
    for k, (name, group) in enumerate(halves.groupby("group", sort=False)):
        panel.plot(group.degree, group.half, MARKERS[k], ms=4, color=colour(k), label=str(name))
    parts.size_axis(panel, sorted(halves.degree.unique()))
    parts.log_axis(panel, "y")
    panel.margins(x=0.15, y=0.15)
    panel.set_xlabel("degree of the irrep")
    panel.set_ylabel("steps until half is there")
    panel.set_title("small irreps first")
    panel.legend(fontsize=5.5)


def _needed(panel: Axes, data: pd.DataFrame) -> None:
    for k, (name, group) in enumerate(data.groupby("group", sort=False)):
        over = group.groupby("load").value
        mean, error = over.mean(), parts.half_widths(over)
        panel.errorbar(
            mean.index, mean, error, fmt=MARKERS[k], ls="-", ms=3, lw=1.2, color=colour(k),
            label=str(name),
        )  # fmt: skip
    parts.level(panel, 0.5, "")
    panel.set_ylim(-0.03, 1.35)
    panel.set_yticks([0.0, 0.5, 1.0])
    panel.set_xlabel("pairs over M ln M")
    panel.set_ylabel("test accuracy")
    panel.set_title("pairs needed, one size")
    panel.legend(fontsize=5.5, loc="upper left", ncols=2)
