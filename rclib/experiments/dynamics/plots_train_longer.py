"""Panels of notebook 63: accuracy against updates and epochs, distance from the start, spectra."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, WIDTH, colour

__all__ = ["longer_panels", "updates_panel"]

EARLY = 8  # updates before would take most of the axis
TICKS = {"SB": "small", "LB": "large", "+LR": "rate", "+GBN": "ghosts", "+RA": "longer"}
LINES = {"SB": "small batches", "+GBN": "large, equal epochs", "+RA": "large, equal updates"}
RULES = {"all rules": "rate × √k, ghosts", "alone": "the small batch's rate"}


@redrawable
def longer_panels(
    ladder: pd.DataFrame, curves: pd.DataFrame, walk: pd.DataFrame, spectra: pd.DataFrame
) -> Figure:
    """Accuracy of the arms, against updates and against epochs; distance from the start against
    ln t; tail exponent and largest eigenvalue of the arms.

    ladder : arm, column ("accuracy", "recomputed"), mean, half. curves : arm, updates, epochs,
    mean, half. walk : batch, rule, updates, distance (means). spectra : arm, column ("alpha",
    "leading"), mean, half.
    """
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 4.6), layout="constrained")
    (rungs, by_update, by_epoch), (walks, alphas, leading) = axes
    _by_arm(rungs, ladder, {"accuracy": "running", "recomputed": "recomputed"})
    rungs.set_ylabel("test accuracy")
    rungs.set_title("batches, rule after rule")
    rungs.set_xlabel("small; large, and a rule more each")
    rungs.legend(title="statistics", fontsize=6, title_fontsize=6, loc="lower right")
    for panel, column in ((by_update, "updates"), (by_epoch, "epochs")):
        for k, (arm, group) in enumerate(curves.groupby("arm", sort=False)):
            shown = group[group.updates >= EARLY]
            panel.plot(
                shown[column], shown["mean"], "o-", ms=2, lw=1.2, color=colour(k), label=LINES[arm]
            )
            panel.fill_between(
                shown[column], shown["mean"] - shown.half, shown["mean"] + shown.half,
                color=colour(k), alpha=0.15,
            )  # fmt: skip
        parts.log_axis(panel, "x")
        panel.set_xlabel(column)
        panel.set_title(f"at equal {column}")
    by_update.set_ylabel("test accuracy")
    by_update.legend(fontsize=6, loc="lower right")
    _walks(walks, walk)
    _by_arm(alphas, spectra[spectra.column == "alpha"], {"alpha": ""})
    alphas.set_ylabel("tail exponent α (Hill)")
    alphas.set_title("tail of the spectrum")
    alphas.set_xlabel("ghosts: equal epochs; longer: equal updates", fontsize=6)
    _by_arm(leading, spectra[spectra.column == "leading"], {"leading": ""})
    leading.set_ylabel("ln λ₁, mean of matrices")
    leading.set_title("largest eigenvalue")
    leading.set_xlabel("ghosts: equal epochs; longer: equal updates", fontsize=6)
    parts.letters(figure)
    return figure


def _by_arm(panel: Axes, frame: pd.DataFrame, columns: dict[str, str]) -> None:
    """One dot with its interval an arm, filled for the first column and open for a second."""
    arms = list(dict.fromkeys(frame.arm))
    for k, (column, label) in enumerate(columns.items()):
        chosen = frame[frame.column == column].set_index("arm").loc[arms]
        shift = 0.25 * k - 0.125 * (len(columns) - 1)
        panel.errorbar(
            np.arange(len(arms)) + shift, chosen["mean"], chosen.half, fmt="o", ms=4, lw=1.0,
            capsize=2, color=colour(k), mfc=colour(k) if k == 0 else "white", label=label,
        )  # fmt: skip
    panel.set_xticks(range(len(arms)), [TICKS[arm] for arm in arms], fontsize=6)
    panel.set_xlim(-0.5, len(arms) - 0.5)


def _walks(panel: Axes, walk: pd.DataFrame) -> None:
    batches = sorted(walk.batch.unique())
    for (batch, rule), group in walk.groupby(["batch", "rule"], sort=False):
        shade = colour(batches.index(batch))
        dash = "-" if rule == "root" else "--"
        label = f"{batch}" if rule == "root" else None
        panel.plot(
            group.updates, group.distance, "o", ls=dash, ms=2, lw=1.2, color=shade, label=label
        )
    panel.plot([], [], color=GREY, ls="-", label="rate × √k, ghosts")
    panel.plot([], [], color=GREY, ls="--", label="same rate")
    parts.log_axis(panel, "x")
    panel.set_xlabel("updates t")
    panel.set_ylabel(r"$\Vert w_t - w_0 \Vert$")
    panel.set_title("distance at a constant rate")
    panel.legend(title="batch", fontsize=6, title_fontsize=6, loc="upper left")


@redrawable
def updates_panel(equal: pd.DataFrame, means: pd.DataFrame, band: float) -> Figure:
    """Accuracy of large minus small batches after equally many updates, one dot a seed.

    equal : updates, arm ("all rules" or "alone"), seed, difference. means : updates, arm, mean,
    half. band : within it is no effect.
    """
    figure, panel = plt.subplots(figsize=(0.6 * WIDTH, 2.4), layout="constrained")
    panel.axhspan(-band, band, color="0.9", zorder=0)
    panel.axhline(0.0, color=GREY, lw=0.9, ls=":")
    sizes = sorted(equal.updates.unique())
    for k, (arm, found) in enumerate(means.groupby("arm", sort=False)):
        middles = np.array([sizes.index(n) for n in found.updates]) + 0.24 * k - 0.12
        for middle, size in zip(middles, found.updates, strict=True):
            values = equal[(equal.arm == arm) & (equal.updates == size)].difference
            shift = np.linspace(-0.07, 0.07, len(values)) if len(values) > 1 else [0.0]
            panel.plot(middle + shift, values, "o", ms=2.5, color=colour(k), alpha=0.6)
        panel.errorbar(
            middles, found["mean"], found.half, fmt="_", ms=12, lw=1.2, capsize=3,
            color=colour(k), label=RULES[str(arm)],
        )  # fmt: skip
    panel.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    panel.set_xlim(-0.5, len(sizes) - 0.5)
    panel.set_xlabel("updates")
    panel.set_ylabel("accuracy, LB minus SB")
    panel.set_title("large batches at equal updates")
    panel.legend(fontsize=6)
    return figure
