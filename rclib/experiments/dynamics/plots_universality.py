"""Panels of notebook 64: regret against data, bound and width; weights of functions."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, WIDTH, colour, looks

__all__ = ["chain_panels", "regret_panels", "spectrum_panels"]


@redrawable
def regret_panels(
    growth: pd.DataFrame, targets: pd.DataFrame, ranks: pd.DataFrame, widths: pd.DataFrame
) -> Figure:
    """Regret against the number of labels, against its bound, and weights against rank and width.

    growth : prior, target, n, regret, jensen (the net prior and the uniform one). targets : regret,
    jensen. ranks : prior, rank, weight. widths : hidden, target, weight.
    """
    figure, ((left, right), (low_left, low_right)) = plt.subplots(
        2, 2, figsize=(WIDTH, 4.8), layout="constrained"
    )
    nets = growth[growth.prior != "uniform"]
    for k, (target, group) in enumerate(nets.groupby("target", sort=False)):
        mean = group.groupby("n")[["regret", "jensen"]].mean()
        left.plot(mean.index, mean.regret, "o-", ms=3, lw=1.2, color=colour(k), label=str(target))
        left.plot(mean.index, mean.jensen, ls="--", lw=0.8, color=colour(k))
    flat = growth[growth.prior == "uniform"].groupby("n").regret.mean()
    left.plot(flat.index, flat, ls=":", color=GREY, lw=1.4, label="uniform prior")
    left.set_xscale("log", base=2)
    left.set_xlabel("labels n")
    left.set_ylabel("regret R (nats)")
    left.set_title("regret (solid) and bound (dashed)")
    parts.direct_labels(left)
    right.plot(targets.jensen, targets.regret, "o", ms=3, color=colour(0))
    top = 1.05 * float(targets.jensen.max())
    right.plot([0, top], [0, top], ls=":", color=GREY, lw=1.0)
    parts.write_into(right, "dotted: regret = bound")
    right.set_xlabel("bound $-\\ln\\,Σ\\,w\\,e^{-nD}$ (nats)")
    right.set_ylabel("regret (nats)")
    right.set_title("many targets: the bound is nearly tight")
    look = looks(list(ranks.prior.unique()))
    for name, group in ranks.groupby("prior", sort=False):
        own = look[str(name)]
        low_left.plot(
            group["rank"], group.weight, color=own["color"], ls=own["linestyle"], label=name
        )
    parts.log_axis(low_left, "x")
    parts.log_axis(low_left, "y")
    low_left.set_xlabel("rank of the function by its weight")
    low_left.set_ylabel("weight w under the prior")
    low_left.set_title("few functions own the mass")
    low_left.legend(fontsize=6)
    for k, (target, group) in enumerate(widths.groupby("target", sort=False)):
        mean = group.groupby("hidden").weight.mean()
        low_right.plot(mean.index, mean, "o-", ms=3, lw=1.2, color=colour(k), label=str(target))
    low_right.set_xscale("log", base=2)
    low_right.set_xlabel("hidden units")
    low_right.set_ylabel("−ln w (nats)")
    low_right.set_title("all weights N(0, 1): weight by width")
    parts.direct_labels(low_right)
    parts.letters(figure)
    return figure


@redrawable
def chain_panels(chains: pd.DataFrame) -> Figure:
    """Log-loss over the truth's of Langevin chains and of descent, averaged and single, against the
    exact mixture. chains : target, seed, truth, exact, langevin, ascent and both with `_one`."""
    names = {
        "exact": "exact mixture",
        "langevin": "Langevin, averaged",
        "langevin_one": "Langevin, single",
        "ascent": "no noise, averaged",
        "ascent_one": "no noise, single",
    }
    kinds = list(chains.target.unique())
    figure, panels = plt.subplots(
        1, len(kinds), figsize=(WIDTH, 2.3), layout="constrained", squeeze=False, sharey=True
    )
    for panel, kind in zip(panels[0], kinds, strict=True):
        group = chains[chains.target == kind]
        for k, column in enumerate(names):
            loss = group[column] - group.truth
            mean, error = loss.mean(), 1.96 * loss.std() / np.sqrt(len(loss))
            panel.errorbar(mean, k, xerr=error, fmt="o", color=colour(k), ms=4, lw=1.2)
            panel.plot(loss, np.full(len(loss), k), ".", color=colour(k), ms=2, alpha=0.5)
        panel.set_yticks(range(len(names)), list(names.values()))
        panel.set_xlabel("log-loss over that of the truth (nats)")
        panel.set_title(f"truth: {kind}")
    panels[0, 0].invert_yaxis()
    parts.write_into(panels[0, -1], "small: one data set\nlarge: mean, 95 % interval")
    parts.letters(figure)
    return figure


@redrawable
def spectrum_panels(trained: pd.DataFrame) -> Figure:
    """Spikes and row-column structure of first matrices that have learned a function by heart.
    trained : seed, target, beyond, share, start."""
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 2.3), layout="constrained")
    names = list(trained.target.unique())
    for panel, column in zip(panels, ("beyond", "share"), strict=True):
        for k, name in enumerate(names):
            values = trained[trained.target == name][column]
            panel.plot(np.full(len(values), k), values, ".", color=colour(k), ms=3, alpha=0.5)
            error = 1.96 * values.std() / np.sqrt(len(values))
            panel.errorbar(k + 0.15, values.mean(), yerr=error, fmt="o", color=colour(k), ms=4)
        panel.set_xticks(range(len(names)), names)
        panel.set_xlim(-0.5, len(names) - 0.5)
        panel.set_xlabel("what the networks have learned")
    panels[0].set_ylabel("eigenvalues beyond the start")
    panels[0].set_title("spikes of W₁")
    start = float(trained.start.mean())
    parts.level(panels[1], start, "start")
    panels[1].set_ylabel("share of variance over chance")
    panels[1].set_title("rows and columns of W₁")
    parts.letters(figure)
    return figure
