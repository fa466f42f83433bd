"""Panels of notebook 51: descendants of a learngene over tuning, and over depth."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import WIDTH, colour, looks

__all__ = ["learngene_panels"]


@redrawable
def learngene_panels(
    arms: pd.DataFrame, depths: pd.DataFrame, weights: pd.DataFrame, *, tied: float
) -> Figure:
    """Accuracy over tuning, one line an arm; over depth at once and after tuning, with the tied
    network's as a line; overlap of layers' leading directions, by whether they share a stage.

    arms : arm, seed, step, accuracy. depths : arm, depth, seed, step, accuracy. weights : kind,
    seed, overlap. tied : mean accuracy of the tied networks.
    """
    figure, panels = plt.subplots(
        1, 3, figsize=(WIDTH, 3.3), layout="constrained", width_ratios=[1.5, 1.2, 0.9]
    )
    names = list(dict.fromkeys(arms.arm))
    look = looks(names)
    panel = panels[0]
    steps = sorted(arms.step.unique())
    places = {step: place for place, step in enumerate(steps)}
    for name in names:
        table = arms[arms.arm == name].pivot_table(index="step", columns="seed", values="accuracy")
        x = [places[step] for step in table.index]
        style: Any = look[name]
        panel.plot(x, table.mean(axis=1), ms=3.5, lw=1.2, label=name, **style)
    panel.set_xticks(range(len(steps)), [str(step) for step in steps])
    panel.set_xlabel("updates of tuning (not to scale)")
    panel.set_ylabel("test accuracy")
    panel.set_title("over tuning")
    panel.legend(fontsize=6, loc="lower right")
    panel = panels[1]
    last = max(steps)
    for place, arm in enumerate(("SWS", "scratch")):
        for step, line, fill in ((0, ":", "white"), (last, "-", None)):
            own = depths[(depths.arm == arm) & (depths.step == step)].groupby("depth").accuracy
            mean = own.mean()
            panel.plot(
                mean.index, mean, line, marker="os"[place], ms=4, lw=1.2, color=colour(place),
                mfc=fill, label=f"{arm}, {'at once' if step == 0 else 'tuned'}",
            )  # fmt: skip
            panel.fill_between(
                mean.index, own.min(), own.max(), color=colour(place), alpha=0.15, lw=0
            )
    parts.level(panel, tied, "", ls="--", name_it=False)
    panel.set_xticks(sorted(depths.depth.unique()))
    panel.set_xlabel("layers of the descendant")
    panel.set_title("over depth (dashed: tied)")
    panel.legend(fontsize=6)
    panel = panels[2]
    kinds = list(dict.fromkeys(weights.kind))
    for place, kind in enumerate(kinds):
        values = weights[weights.kind == kind].overlap
        panel.plot([place] * len(values), values, ".", ms=5, color=colour(0), alpha=0.5)
        panel.plot(place, values.mean(), "_", ms=14, mew=1.6, color=colour(1))
    panel.set_xticks(range(len(kinds)), kinds, fontsize=7)
    panel.set_xlim(-0.5, len(kinds) - 0.5)
    panel.set_ylim(0, 1.03)
    panel.set_title("layers' directions, |cos|")
    parts.letters(figure)
    return figure
