"""Panels of notebook 41: fine-tuned against from scratch, tickets by rate, the first layer."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, GREY, MARKERS, WIDTH, colour

__all__ = ["AUTHORS", "inside_panels", "pruning_panels"]

NAMES = {
    "fine_tuned": "fine-tuned, E/4",
    "long": "fine-tuned, E",
    "as_long": "fine-tuned, B",
    "rewound": "fine-tuned, rate rewound",
    "random": "random units, fine-tuned, E/4",
    "random_rewound": "random units, rate rewound",
    "scratch_e": "Scratch-E",
    "scratch_b": "Scratch-B",
}
LINES = ("scratch_b", "scratch_e", "rewound", "long", "fine_tuned", "random")
METHODS = {
    "units": "units",
    "gains": "units by gain",
    "weights": "weights",
    "filters": "filters, conv.",
    "conv gains": "filters by gain, conv.",
}
LAYERS = {
    "dense": "large network",
    "start": "kept units, start",
    "cut": "kept units",
    "fine_tuned": "fine-tuned, E/4",
    "scratch_b": "Scratch-B",
}
# Top-1 accuracies on ImageNet, in percent, of the authors' repository (README files in imagenet/ of
# Eric-mingjie/rethinking-network-pruning): fine-tuned, Scratch-E, Scratch-B.
AUTHORS = {
    "filters, ResNet-34-A": (72.56, 72.77, 73.08),
    "gains, VGG-11, 50 %": (68.62, 70.00, 71.18),
    "weights, VGG-16, 70 %": (73.68, 72.75, 74.02),
    "weights, VGG-16, 40 %": (73.63, 71.50, 73.42),
    "weights, ResNet-50, 40 %": (76.09, 73.69, 74.90),
}
PERCENT = FuncFormatter(lambda value, _: parts.number(100 * value))


def _errors(rows: pd.DataFrame) -> np.ndarray:
    return np.array([rows["mean"] - rows.low, rows.high - rows["mean"]], dtype=float)


def _legend_above(panel: Panel, title: str, *, columns: int) -> None:
    """The names of the lines between title and panel, where no line runs."""
    rows = -(-len(panel.get_legend_handles_labels()[1]) // columns)
    panel.set_title(title, pad=6 + 9 * rows)
    panel.legend(
        fontsize=5.5, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0),
        borderaxespad=0.1, columnspacing=0.8,
    )  # fmt: skip


def _curves(panel: Panel, shown: pd.DataFrame, method: str, title: str) -> None:
    dense = shown[shown.method == "dense"].iloc[0]
    panel.axhspan(dense.low, dense.high, color=GREY, alpha=0.2, lw=0)
    for k, arm in enumerate(LINES):
        own = shown[(shown.method == method) & (shown.arm == arm)].sort_values("keep")
        if len(own):
            name = NAMES[arm].replace("units", "filters") if method == "filters" else NAMES[arm]
            panel.errorbar(
                own.keep, own["mean"], _errors(own), color=colour(k), ls=DASHES[k],
                marker=MARKERS[k], ms=3, lw=1.2, elinewidth=0.8, label=name,
            )  # fmt: skip
    panel.set_xscale("log")
    keeps = sorted({*shown[shown.method == method].keep})
    panel.set_xticks(keeps, [f"{100 * keep:.0f}" for keep in keeps])
    panel.minorticks_off()
    panel.invert_xaxis()  # pruning goes to the right
    panel.yaxis.set_major_formatter(PERCENT)
    panel.set_xlabel(f"{'filters' if method == 'filters' else 'units'} kept (%)")
    panel.set_ylabel("test accuracy (%)")
    _legend_above(panel, title, columns=2)
    parts.write_into(panel, "grey: large network")


def _forest(panel: Panel, differences: pd.DataFrame, over: str, *, authors: bool) -> None:
    chosen = differences[differences.over == over]
    keys = list(dict.fromkeys(zip(chosen.method, chosen.keep, strict=True)))
    names = [f"{METHODS[method]}, {100 * keep:.0f} %" for method, keep in keys]
    for k, arm in enumerate(("scratch_e", "scratch_b")):
        own = chosen[chosen.arm == arm]
        at = [
            keys.index(key) + 0.18 * (2 * k - 1) for key in zip(own.method, own.keep, strict=True)
        ]
        panel.errorbar(
            100 * own["mean"], at, xerr=100 * _errors(own), fmt=MARKERS[k], color=colour(k), ms=3.5,
            lw=1.1, label=NAMES[arm],
        )  # fmt: skip
    if authors:
        first = len(names) + 0.4
        panel.axhline(first - 0.7, color=GREY, lw=0.6)
        panel.text(
            0.01, first - 0.6, "authors' values, ImageNet", size=6, color=GREY, va="top",
            transform=panel.get_yaxis_transform(),
        )  # fmt: skip
        for k in (0, 1):
            gained = [values[k + 1] - values[0] for values in AUTHORS.values()]
            rows = first + np.arange(len(gained)) + 0.18 * (2 * k - 1)
            panel.plot(gained, rows, MARKERS[k], color=colour(k), ms=3.5, mfc="white")
        panel.set_yticks(
            [*range(len(names)), *(first + np.arange(len(AUTHORS)))], [*names, *AUTHORS], fontsize=6
        )
    else:
        panel.set_yticks(range(len(names)), names, fontsize=6)
    panel.axvline(0.0, color=GREY, ls=":", lw=0.9)
    panel.set_xscale("symlog", linthresh=1.0)
    panel.set_xticks([-10, -1, 0, 1, 10, 50], ["−10", "−1", "0", "1", "10", "50"])
    panel.minorticks_off()
    low, high = panel.get_xlim()
    panel.set_xlim(min(low, -2.0), max(high, 2.0))
    last = len(names) + (len(AUTHORS) if authors else 0)
    panel.set_ylim(last - 0.3, -0.6)
    panel.set_xlabel("accuracy gained (points)")
    _legend_above(panel, f"over {NAMES[over]}", columns=2)


def _tickets(panel: Panel, below: Panel, tickets: pd.DataFrame) -> None:
    kinds = [
        (how, left) for how, left in dict.fromkeys(zip(tickets.how, tickets.left, strict=True))
        if how != "dense"
    ]  # fmt: skip
    what = {"rounds": "weights in rounds", "one shot": "weights at once", "units": "units"}
    for k, (how, left) in enumerate(kinds):
        own = tickets[(tickets.how == how) & (tickets.left == left) & (tickets.over == "fresh")]
        panel.errorbar(
            own.rate, 100 * own["mean"], 100 * _errors(own), color=colour(k), ls=DASHES[k],
            marker=MARKERS[k], ms=3, lw=1.2, elinewidth=0.8,
            label=f"{what[how]}, {100 * left:.0f} %",
        )  # fmt: skip
        if how == "rounds":
            own = tickets[
                (tickets.how == how) & (tickets.left == left) & (tickets.over == "scaled")
            ]
            panel.plot(
                own.rate, 100 * own["mean"], color=colour(k), ls=DASHES[k], lw=0.8,
                marker=MARKERS[k], ms=3, mfc="white",
            )  # fmt: skip
    panel.set_yscale("symlog", linthresh=1.0)
    panel.set_yticks([-10, -1, 0, 1, 3, 10, 30], ["−10", "−1", "0", "1", "3", "10", "30"])
    panel.minorticks_off()
    panel.set_ylabel("over fresh (points)")
    _legend_above(panel, "ticket − fresh start", columns=2)
    panel.axhline(0.0, color=GREY, ls=":", lw=0.9)
    dense = tickets[tickets.how == "dense"]
    below.errorbar(
        dense.rate, dense["mean"], _errors(dense), color=GREY, marker="o", ms=3, lw=1.2
    )  # fmt: skip
    below.yaxis.set_major_formatter(PERCENT)
    below.set_ylabel("large net (%)")
    for one in (panel, below):
        one.set_xscale("log")
        one.set_xticks(list(dense.rate), [parts.number(rate) for rate in dense.rate])
        one.minorticks_off()
    panel.tick_params(labelbottom=False)
    below.set_xlabel("learning rate")


@redrawable
def pruning_panels(shown: pd.DataFrame, differences: pd.DataFrame, tickets: pd.DataFrame) -> Figure:
    """Accuracy of the arms against the share of units kept; what training from scratch gains over
    fine-tuning, with the authors' values on ImageNet below; tickets over fresh starts by rate.

    shown, differences, tickets : as `rethinking_pruning.shown`, `shown_differences` and
    `shown_tickets` return them.
    """
    figure = plt.figure(figsize=(WIDTH, 6.0), layout="constrained")
    whole = figure.add_gridspec(1, 2, width_ratios=[1.0, 1.1])
    grid = whole[0].subgridspec(3, 1, height_ratios=[2.0, 1.7, 0.6])
    left, low, below = (figure.add_subplot(grid[k]) for k in range(3))
    right = figure.add_subplot(whole[1])
    _curves(left, shown, "units", "units by L1 norm")
    _tickets(low, below, tickets)
    _forest(right, differences, "fine_tuned", authors=True)
    parts.letters(figure)
    return figure


@redrawable
def inside_panels(
    layer: pd.DataFrame, differences: pd.DataFrame, conv: pd.DataFrame | None = None
) -> Figure:
    """What training from scratch gains over fine-tuning with the whole schedule of rates; the
    first hidden layer's correlations; convolutional networks.

    layer : which, mean, low, high, chance, at one share. differences, conv : as for
    `pruning_panels`.
    """
    over = "rewound" if "rewound" in {*differences.over} else "long"
    rows = 1 if conv is None else 2
    figure = plt.figure(figsize=(WIDTH, 1.2 + 1.9 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2)
    left, middle = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1])
    _forest(left, differences, over, authors=False)
    at = np.arange(len(layer))
    middle.errorbar(
        layer["mean"], at, xerr=_errors(layer), fmt="o", color=colour(0), ms=4, lw=1.2,
        label="as they are",
    )  # fmt: skip
    middle.plot(layer.chance, at, "|", color=GREY, ms=9, mew=1.4, label="shuffled")
    middle.set_yticks(at, [LAYERS[which] for which in layer.which], fontsize=6)
    middle.set_ylim(len(layer) - 0.4, -0.6)
    middle.set_xlim(left=0.0)
    middle.set_xlabel("largest |correlation|")
    _legend_above(middle, "row and column means", columns=2)
    if conv is not None:
        _curves(figure.add_subplot(grid[1, 1]), conv, "filters", "convolutional networks")
    parts.letters(figure)
    return figure
