"""Figures of `law_of_the_gap`. They draw what is given and compute nothing."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import MARKERS, WIDTH, looks, shown

__all__ = ["gap_grids", "laws"]


@redrawable
def gap_grids(gaps: pd.DataFrame, *, within: float) -> Figure:
    """A map a parametrisation: the gap in percent, source width (rows) by target width (columns).

    gaps : columns arm, N, M, gap (a share). Cells below `within` are framed.
    """
    grids = {
        str(arm): part.pivot(index="N", columns="M", values="gap")
        for arm, part in gaps.groupby("arm", sort=False)
    }
    limit = float(
        np.quantile(np.abs(np.concatenate([g.to_numpy().ravel() for g in grids.values()])), 0.8)
    )
    figure, panels = plt.subplots(1, len(grids), figsize=(WIDTH, 2.6), squeeze=False)
    for panel, (title, grid) in zip(panels[0], grids.items(), strict=True):
        image = panel.imshow(grid, cmap="rocket_r", vmin=0.0, vmax=limit, origin="lower")
        panel.set_xticks(range(grid.shape[1]), [f"{m:g}" for m in grid.columns], fontsize=6)
        panel.set_yticks(range(grid.shape[0]), [f"{n:g}" for n in grid.index], fontsize=6)
        panel.grid(False)
        sns.despine(ax=panel, left=True, bottom=True)
        for (i, j), gap in np.ndenumerate(grid.to_numpy()):
            good = gap <= within
            dark = gap > 0.5 * limit
            panel.text(
                j, i, f"{100 * gap:.0f}", ha="center", va="center", fontsize=5.5,
                color="white" if dark else "black", fontweight="bold" if good else "normal",
            )  # fmt: skip
            if good:
                panel.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, lw=0.8))
        panel.set_title(shown(title))
        panel.set_xlabel("target width M")
    panels[0, 0].set_ylabel("source width N")
    bar = figure.colorbar(image, ax=panels, shrink=0.8, extend="both")
    bar.set_label("gap to a network trained at M")
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    return figure


@redrawable
def laws(noises: pd.DataFrame, distances: pd.DataFrame, fits: pd.DataFrame) -> Figure:
    """Three panels: noise of a drawing against N, distance of seeds against N, the floor by arm.

    noises : arm, N, measured, predicted (means and ranges are drawn); distances : arm, N, distance;
    fits : arm, epoch, value, low, high of the floor.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 2.7))
    arms = looks(list(dict.fromkeys(noises.arm)))
    for arm, look in arms.items():
        part = noises[noises.arm == arm].groupby("N")
        mean = part[["measured", "predicted"]].mean()
        low, high = part.measured.min(), part.measured.max()
        left.plot(mean.index, mean.predicted, color=look["color"], lw=1)
        left.plot(mean.index, mean.measured, label=shown(arm), **{**look, "linestyle": ""})
        left.fill_between(mean.index, low, high, color=look["color"], alpha=0.15, lw=0)
    left.set(
        xlabel="source width N", ylabel="M · |f(N→M) − f(N)|²",
        title="noise of a drawing (line: predicted)",
    )  # fmt: skip
    left.legend(fontsize=6)
    for arm, look in looks(list(dict.fromkeys(distances.arm))).items():
        mean = distances[distances.arm == arm].groupby("N").distance.mean()
        middle.plot(mean.index, mean, label=shown(arm), **look)
    middle.set(
        xlabel="width N", ylabel="|f(seed) − f(other seed)|²", title="two seeds of one width"
    )
    middle.legend(fontsize=6)
    for panel in (left, middle):
        parts.size_axis(panel, list(noises.N.unique()))
        parts.log_axis(panel, "y")
        panel.tick_params(axis="x", labelsize=6)
    epochs = sorted(fits.epoch.unique())
    for i, epoch in enumerate(epochs):
        part = fits[fits.epoch == epoch]
        places = np.arange(len(part)) + 0.2 * (i - (len(epochs) - 1) / 2)
        ends = np.stack([part.value - part.low, part.high - part.value])
        right.errorbar(
            places, 100 * part.value, 100 * ends, fmt=MARKERS[i], color=str(0.55 - 0.4 * i), ms=4,
            capsize=2, lw=1, label=f"epoch {epoch}",
        )  # fmt: skip
    right.set_xticks(
        range(fits.arm.nunique()), [shown(a) for a in dict.fromkeys(fits.arm)], fontsize=6
    )
    parts.level(right, 0.0, "none")
    right.set(ylabel="floor, percent of the progress", title="what no width removes")
    right.legend(fontsize=6)
    return figure
