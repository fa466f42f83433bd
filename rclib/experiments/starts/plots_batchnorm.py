"""Panels of notebook 56: arms by size, gains, features that are switched off."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import MARKERS, WIDTH, colour, looks

__all__ = ["batchnorm_panels"]


@redrawable
def batchnorm_panels(
    arms: pd.DataFrame, gains: pd.DataFrame, layers: pd.DataFrame, ablation: pd.DataFrame
) -> Figure:
    """Accuracy by arm, one marker a size of network; law of γ; share of small |γ| by layer;
    accuracy lost with a share of the gains set to zero, smallest first or at random.

    arms : size, arm, seed, accuracy. gains : arm, gain, density. layers : arm, layer, off.
    ablation : arm, order, fraction, seed, lost.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.2), layout="constrained")
    panel = panels[0, 0]
    names = list(dict.fromkeys(arms.arm))
    sizes = list(dict.fromkeys(arms["size"]))
    for number, size in enumerate(sizes):
        own = arms[arms["size"] == size]
        shift = 0.16 * (number - (len(sizes) - 1) / 2)
        for place, name in enumerate(names):
            values = own[own.arm == name].accuracy
            if values.empty:
                continue
            at = place + shift
            panel.plot(values, np.full(len(values), at), ".", ms=3, alpha=0.4, color=colour(number))
            panel.plot(values.mean(), at, MARKERS[number], ms=5, color=colour(number))
        panel.plot([], [], MARKERS[number], ms=5, color=colour(number), label=size)
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.set_xlim(0, 1)
    panel.set_xlabel("test accuracy")
    panel.set_title("what is trained")
    panel.legend(fontsize=6, loc="lower right")
    panel = panels[0, 1]
    look = looks(list(dict.fromkeys(gains.arm)))
    for name, own in gains.groupby("arm", sort=False):
        panel.plot(
            own.gain, own.density.clip(lower=1e-3), drawstyle="steps-mid", lw=1.2, label=str(name),
            color=look[str(name)]["color"], ls=look[str(name)]["linestyle"],
        )  # fmt: skip
    panel.set_yscale("log")
    panel.set_xlabel("gain γ")
    panel.set_title("density of gains")
    panel.legend(fontsize=6)
    panel = panels[1, 0]
    for name, own in layers.groupby("arm", sort=False):
        style = looks(list(dict.fromkeys(layers.arm)))[str(name)]
        panel.plot(own.layer, own.off, ms=4, lw=1.2, label=str(name), **style)
    panel.set_xlabel("layer")
    panel.set_title("share of |γ| < 0.05")
    panel.set_ylim(bottom=0)
    parts.level(panel, 0.05, "at the start")
    panel.legend(fontsize=6)
    panel = panels[1, 1]
    for place, (name, frame) in enumerate(ablation.groupby("arm", sort=False)):
        for order, line in (("smallest", "-"), ("random", ":")):
            own = frame[frame.order == order].groupby("fraction").lost
            mean = own.mean()
            panel.plot(
                100 * mean.index, 100 * mean, line, marker=MARKERS[place], ms=3.5, lw=1.2,
                color=colour(place), label=f"{name}, {order}",
            )  # fmt: skip
    panel.set_xlabel("gains set to zero (percent)")
    panel.set_title("accuracy lost (points)")
    panel.legend(fontsize=6)
    parts.letters(figure)
    return figure
