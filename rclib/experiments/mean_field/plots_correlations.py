"""Figures on correlations in language models that are trained here (Figure 4.4). They take results
and compute nothing but means and ranges."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import WIDTH, looks, shown

__all__ = ["over_training"]


@redrawable
def over_training(frame: pd.DataFrame) -> Figure:
    """The largest |correlation| over its chance level during training, one panel a variant: mean
    and range over blocks and seeds, and thin the mean of each block.

    frame : columns variant, seed, step, block, ratio.
    """
    variants = list(frame.variant.unique())
    figure, panels = plt.subplots(
        1, len(variants), figsize=(min(3.0 * len(variants), WIDTH), 2.3), sharey=True, squeeze=False
    )
    look = looks(variants)
    for panel, name in zip(panels[0], variants, strict=True):
        chosen, own = frame[frame.variant == name], look[str(name)]
        over = chosen.groupby("step").ratio
        panel.fill_between(
            over.mean().index, over.min(), over.max(), color=own["color"], alpha=0.15, lw=0
        )
        for _, group in chosen.groupby("block"):
            mean = group.groupby("step").ratio.mean()
            panel.plot(mean.index, mean, color=own["color"], lw=0.6, alpha=0.7)
        mean = over.mean()
        panel.plot(mean.index, mean, color=own["color"], marker=own["marker"], lw=2.0)
        panel.set_title(shown(name))
        panel.set_xlabel("training step")
        parts.few_ticks(panel)
    for panel in panels[0]:
        panel.set_ylim(0, None)
        parts.level(panel, 1.0, "chance, 95 %")
    panels[0, 0].set_ylabel("largest |correlation|\nover chance")
    return figure
