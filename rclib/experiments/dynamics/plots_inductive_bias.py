"""Panels of notebook 65: information against dimension, its estimate against the exact value."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, WIDTH, colour

__all__ = ["bias_panels", "refit_panels"]


@redrawable
def bias_panels(
    law: pd.DataFrame, dimensions: pd.DataFrame, fits: pd.DataFrame, digits: pd.DataFrame
) -> Figure:
    """The law of the test error with its fit, information against the dimension, fitted against
    exact information, and information on images by the space of hypotheses.

    law : what, error, value. dimensions : teacher, d, seed, information. fits : what, exact, found.
    digits : seed, kernel, network.
    """
    figure, ((left, right), (low_left, low_right)) = plt.subplots(
        2, 2, figsize=(WIDTH, 4.6), layout="constrained"
    )
    for k, (what, group) in enumerate(law.groupby("what", sort=False)):
        if what == "samples":
            left.plot(group.error, group.value, ".", color=GREY, ms=3, label="samples")
        elif what == "asked":
            parts.moment(left, float(group.error.iloc[0]), "error asked for")
        else:
            left.plot(group.error, group.value, lw=1.2, color=colour(k), label=str(what))
    left.set_ylim(bottom=1.3 * float(law[law.what == "asked"].value.iloc[0]))
    left.set_xlabel("test error e")
    left.set_ylabel("ln P(error ≤ e)")
    left.set_title("the tail is what counts")
    left.legend(fontsize=6, loc="lower right")
    for k, (teacher, group) in enumerate(dimensions.groupby("teacher", sort=False)):
        over = group.groupby("d").information
        right.plot(
            over.median().index, over.median(), "o-", color=colour(k), ms=3, label=str(teacher)
        )
        right.fill_between(
            over.median().index,
            over.quantile(0.25),
            over.quantile(0.75),
            color=colour(k),
            alpha=0.15,
        )
    sizes = sorted(dimensions.d.unique())
    right.set_xscale("log", base=2)
    right.set_xticks(sizes, [str(d) for d in sizes])
    right.set_xlabel("dimension d")
    right.set_ylabel("information (nats)")
    right.set_title("information against dimension")
    right.legend(title="teacher", fontsize=6, title_fontsize=6)
    _fits(low_left, fits)
    for k, space in enumerate(("kernel", "network")):
        values = np.maximum(digits[space], 1e-3)
        shift = np.linspace(-0.2, 0.2, len(values))
        low_right.plot(k + shift, values, "o", color=colour(k), ms=4)
    low_right.set_xticks([0, 1], ["Gaussian process", "networks"])
    low_right.set_xlim(-0.6, 1.6)
    parts.log_axis(low_right, "y")
    parts.level(low_right, 1e-3, "0.001 or less")
    low_right.set_ylabel("information (nats)")
    low_right.set_title("digits, for the error of a linear map")
    parts.letters(figure)
    return figure


def _fits(panel: Axes, fits: pd.DataFrame) -> None:
    asked = fits[~fits.what.isin(["quantile", "mean"]) & (fits.exact > 0.05)]
    panel.plot(asked.exact, asked.found, "o", ms=3, color=colour(0), alpha=0.7)
    ends = [float(asked.exact.min()), float(asked.exact.max())]
    panel.plot(ends, ends, ls=":", color=GREY, lw=1.0)
    panel.axvspan(float(np.log(1000)), 1.1 * ends[1], color="0.93", zorder=0)
    panel.set_xlim(0.9 * ends[0], 1.1 * ends[1])
    parts.log_axis(panel, "x")
    parts.log_axis(panel, "y")
    parts.write_into(panel, "dotted: equal\ngrey: beyond 1000 samples")
    panel.set_xlabel("exact information (nats)")
    panel.set_ylabel("fitted (nats)")
    panel.set_title("the fit beyond the samples")


@redrawable
def refit_panels(refits: pd.DataFrame, lengths: pd.DataFrame) -> Figure:
    """Mean and spread of the fitted information against the number of samples, and information for
    random labels against the kernel's length.

    refits : seed, size, mean, spread, exact. lengths : seed, length, information.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 2.4), layout="constrained")
    for k, (seed, group) in enumerate(refits.groupby("seed")):
        left.plot(group["size"], group["mean"] / group.exact, "o-", ms=3, color=colour(k), lw=1.0)
        middle.plot(
            group["size"], group.spread, "o-", ms=3, color=colour(k), lw=1.0, label=str(seed)
        )
    left.set_ylim(0.5, 1.1)
    parts.level(left, 1.0, "the exact value")
    parts.write_into(left, "one line a seed")
    left.set_ylabel("fitted over exact")
    left.set_title("bias stays")
    sizes = sorted(refits["size"].unique())
    parts.log_axis(middle, "y")
    for panel in (left, middle):
        parts.log_axis(panel, "x")
        panel.set_xlabel("samples")
    top = refits[refits["size"] == sizes[0]].spread.mean()
    parts.guide(middle, sizes, 1.3 * float(top), -0.5)
    middle.set_ylabel("spread of the fit (nats)")
    middle.set_title("spread falls")
    for _, group in lengths.groupby("seed"):
        right.plot(group.length, group.information, "o-", ms=3, color=colour(0), lw=0.8, alpha=0.6)
    parts.log_axis(right, "y")
    parts.write_into(right, "one line a seed")
    right.set_xlabel("length of the kernel")
    right.set_ylabel("information (nats)")
    right.set_title("random labels")
    parts.letters(figure)
    return figure
