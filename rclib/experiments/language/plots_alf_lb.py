"""Figures of notebook 93: balance and regret on affinities; a language model with experts."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.panels import curves as lines
from rclib.plots.style import GREY, WIDTH, looks

__all__ = ["affinity_panels", "model_panels"]

FLOOR = 1e-4  # of panels with a logarithmic axis


@redrawable
def affinity_panels(curves: pd.DataFrame, shares: np.ndarray, fresh: pd.DataFrame) -> Figure:
    """MaxVio and the distance of D from its minimum against iterations on one batch; between which
    experts tokens change; regret on fresh batches.

    curves : seed, rule, iteration, violation, gap. shares (E, E) : of swaps, by rank of load, from
    row to column. fresh : seed, rule, at, regret.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.2), layout="constrained")
    look = looks(list(curves.rule.unique()))
    for panel, column, name, title in (
        (panels[0, 0], "violation", "MaxVio", "balance, one batch"),
        (panels[0, 1], "gap", "D(p) − value of the program", "dual function, one batch"),
    ):
        lines(panel, curves, x="iteration", y=column, by="rule", markers=False, look=look)
        parts.log_axis(panel, "x")
        parts.log_axis(panel, "y")
        low = 5e-3 if column == "violation" else FLOOR
        panel.set_ylim(low, 2 * float(curves[column].max()))
        panel.set_xlabel("iteration")
        panel.set_ylabel(name)
        panel.set_title(title)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=len(labels), fontsize=7,
        title="rules of (a) and (b)", title_fontsize=7,
    )  # fmt: skip
    panel = panels[1, 0]
    image = panel.imshow(np.where(shares > 0, 100 * shares, np.nan), cmap="flare")
    panel.grid(False)
    places = [0, len(shares) - 1]
    panel.set_xticks(places, ["most", "fewest"])
    panel.set_yticks(places, ["most", "fewest"])
    panel.set_xlabel("tokens of the new expert, ranked")
    panel.set_ylabel("of the expert that is left")
    panel.set_title("who changes, sign 0.001 (white: none)")
    figure.colorbar(image, ax=panel, shrink=0.85, label="percent of changes")
    panel = panels[1, 1]
    late = fresh[fresh["at"] >= 3]
    own = looks(list(late.rule.unique()))
    lines(panel, late, x="at", y="regret", by="rule", markers=False, look=own)
    parts.log_axis(panel, "x")
    parts.log_axis(panel, "y")
    panel.set_xlabel("fresh batches N")
    panel.set_ylabel("sum of F(p) − min F")
    panel.set_title("regret, fresh batches")
    parts.direct_labels(panel)
    parts.letters(figure)
    return figure


def _by_arm(panel: Panel, frame: pd.DataFrame, column: str, look: Any, *, shift: float = 0) -> None:
    """Seeds as points, mean and 95 percent t-interval beside them."""
    arms = list(dict.fromkeys(frame.arm))
    for place, arm in enumerate(arms):
        values = frame[frame.arm == arm].groupby("arm")[column]
        at, own = place + shift, look[arm]
        points = frame[frame.arm == arm][column]
        panel.plot([at - 0.12] * len(points), points, ".", ms=3, alpha=0.5, color=own["color"])
        panel.errorbar(
            [at + 0.08], values.mean(), yerr=parts.half_widths(values), ls="", ms=4, capsize=2,
            marker=own["marker"], color=own["color"], elinewidth=0.9,
        )  # fmt: skip
    panel.set_xticks(range(len(arms)), [arm.replace("auxiliary loss", "aux. loss") for arm in arms])
    panel.set_xlim(-0.5, len(arms) - 0.5)


@redrawable
def model_panels(curves: pd.DataFrame, means: pd.DataFrame, *, floor: float) -> Figure:
    """MaxVio of batches during training; loss against no balancing; the routers' offsets along the
    mean input; the share of the largest eigenvalue and of row and column means.

    curves : seed, arm, step, violation. means : seed, arm, loss gap, spread, top, rc, top chance,
    rc chance. floor : √(2 ln E / L), about what the noise of independent tokens leaves of MaxVio.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 4.8), layout="constrained")
    look = looks(list(curves.arm.unique()))
    panel = panels[0, 0]
    lines(panel, curves, x="step", y="violation", by="arm", markers=False, look=look)
    panel.set_ylim(0, 1.05 * float(curves.violation.max()))
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.set_xlabel("step of training")
    panel.set_ylabel("MaxVio of a batch")
    panel.set_title("balance")
    parts.level(panel, floor, "√(2 ln E / L)")
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=7)
    for panel, column, name, title in (
        (panels[0, 1], "loss gap", "held-out loss − none's, nats", "loss"),
        (panels[1, 0], "spread", "spread of $W_r h$ over experts", "router, mean input h"),
        (panels[1, 1], "top", "share, largest eigenvalue", "router, spectrum"),
    ):
        _by_arm(panel, means, column, look)
        panel.set_ylabel(name)
        panel.set_title(title)
    panels[0, 1].axhline(0, color=GREY, lw=0.9, ls=":", zorder=1)
    panels[1, 0].set_ylim(0, 1.1 * float(means.spread.max()))
    panel, chance = panels[1, 1], float(means["top chance"].mean())
    panel.axhline(chance, color=GREY, lw=0.9, ls=":", zorder=1)
    low, high = panel.get_ylim()
    panel.set_ylim(low, high + 0.08 * (high - low))  # above all points, for the words
    panel.text(
        0.99, 0.98, "dotted: independent entries", ha="right", va="top", size=6, color=GREY,
        transform=panel.transAxes,
    )  # fmt: skip
    parts.letters(figure)
    return figure
