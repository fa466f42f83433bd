"""Panels of notebook 40: accuracy against the weights left, the arms, survivors, and masks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, GREY, MARKERS, WIDTH, colour
from rclib.stats.sequential import interval

__all__ = ["mask_panels", "ticket_panels"]

NAMES = {
    "ticket": "ticket",
    "signs": "mask and signs",
    "continued": "mask found without resets",
    "one_shot": "one-shot mask",
    "resampled": "survivors' values, redrawn",
    "reinit": "fresh start",
    "shuffled": "mask shuffled",
    "start_mask": "mask of iteration 0",
    "fine_tuned": "never reset",
}
CURVES = ("ticket", "reinit", "shuffled")


def _left_axis(panel: Panel) -> None:
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    panel.set_xlim(high, low)  # pruning goes to the right
    ticks = [t for t in (1.0, 0.5, 0.2, 0.1, 0.05) if low <= t <= high]
    panel.set_xticks(ticks, [f"{100 * t:.0f}" for t in ticks])
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("weights left (%)")


def _curves(panel: Panel, shown: pd.DataFrame, title: str) -> None:
    dense = shown[(shown.arm == "ticket") & (shown["round"] == 0)].iloc[0]
    panel.axhspan(dense.low, dense.high, color=GREY, alpha=0.2, lw=0)
    for k, arm in [(k, arm) for k, arm in enumerate(CURVES) if arm in set(shown.arm)]:
        one = shown[shown.arm == arm].sort_values("round")
        if arm != "ticket":  # a dense network has nothing to shuffle
            first = dense.to_frame().T.astype({"left": float})
            one = pd.concat([first, one], ignore_index=True)
        error = [one["mean"] - one.low, one.high - one["mean"]]
        panel.errorbar(
            one.left.astype(float), one["mean"].astype(float), yerr=np.array(error, dtype=float),
            color=colour(k), ls=DASHES[k], marker=MARKERS[k], ms=3, lw=1.2, label=NAMES[arm],
        )  # fmt: skip
    _left_axis(panel)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}"))
    panel.set_ylabel("test accuracy (%)")
    panel.set_title(title)
    panel.legend(fontsize=6, loc="lower left")
    parts.write_into(panel, "grey: dense network", near=float(dense.low))


def _arms(panel: Panel, shown: pd.DataFrame, points: pd.DataFrame) -> None:
    last = shown[shown["round"] == shown["round"].max()].set_index("arm")
    names = [arm for arm in NAMES if arm in last.index]
    for row, arm in enumerate(names):
        own = 100 * points[(points.arm == arm) & (points["round"] == shown["round"].max())].accuracy
        one = 100 * last.loc[arm, ["mean", "low", "high"]].astype(float)
        number = CURVES.index(arm) if arm in CURVES else 3
        panel.plot(own, np.full(len(own), row), ".", color=GREY, ms=2, alpha=0.5)
        panel.errorbar(
            one["mean"], row, xerr=[[one["mean"] - one.low], [one.high - one["mean"]]], fmt="o",
            color=colour(number), ms=4, lw=1.2,
        )  # fmt: skip
    panel.set_yticks(range(len(names)), [NAMES[arm] for arm in names])
    panel.invert_yaxis()
    panel.set_xlabel("test accuracy (%)")
    panel.set_title(f"arms at {100 * float(last.left.iloc[0]):.1f} % of the weights")


def _starts(panel: Panel, starts: pd.DataFrame) -> None:
    whole = starts[(starts.matrix == starts.matrix.iloc[0]) & (starts.which == "all")]
    panel.fill_between(whole.value, whole.density, color=GREY, alpha=0.25, lw=0, label="all")
    for k, name in enumerate(starts.matrix.unique()):
        one = starts[(starts.matrix == name) & (starts.which == "learned")]
        panel.plot(one.value, one.density, color=colour(k), ls=DASHES[k], lw=1.2, label=name)
    early = starts[(starts.matrix == starts.matrix.iloc[0]) & (starts.which == "iteration 0")]
    panel.plot(early.value, early.density, color=GREY, ls=":", lw=1.0, label="W1, iteration 0")
    panel.set_xlabel("starting value / its standard deviation")
    panel.set_ylabel("density")
    panel.set_title("survivors start large")
    panel.legend(fontsize=5.5, loc="upper center")


def _degrees(panel: Panel, degrees: pd.DataFrame) -> None:
    kinds = list(degrees["mask"].unique())
    for k, index in enumerate(degrees["index"].unique()):
        for row, kind in enumerate(kinds):
            own = degrees[(degrees["mask"] == kind) & (degrees["index"] == index)].correlation
            at = row + 0.2 * (2 * k - 1)
            mean, low, _ = interval(own.tolist(), 0.05)
            panel.plot(own, np.full(len(own), at), ".", color=colour(k), ms=2, alpha=0.5)
            panel.errorbar(
                mean, at, xerr=mean - low, fmt=MARKERS[k], color=colour(k), ms=4, lw=1.2,
                label=f"units of {index}" if row == 0 else None,
            )  # fmt: skip
    panel.axvline(0.0, color=GREY, ls=":", lw=0.9)
    panel.set_yticks(range(len(kinds)), kinds)
    panel.set_ylim(len(kinds) - 0.4, -0.6)
    panel.set_xlabel("correlation of weights in and weights out")
    panel.set_title("degrees of a mask")
    panel.legend(fontsize=6, loc="lower right")


@redrawable
def ticket_panels(
    shown: pd.DataFrame, points: pd.DataFrame, starts: pd.DataFrame, degrees: pd.DataFrame
) -> Figure:
    """Accuracy against the share of weights left, arms at the smallest share, starting values of
    the survivors, degrees of the masks.

    shown : arm, round, left, mean, low, high. points : arm, round, accuracy. starts : matrix,
    which, value, density. degrees : mask, index, correlation.
    """
    figure, ((left, right), (low_left, low_right)) = plt.subplots(
        2, 2, figsize=(WIDTH, 4.9), layout="constrained"
    )
    _curves(left, shown, "the curves part")
    parts.moment(left, 0.211, "fresh starts fall (paper, MNIST)")
    _arms(right, shown, points)
    _starts(low_left, starts)
    _degrees(low_right, degrees)
    parts.letters(figure)
    return figure


@redrawable
def mask_panels(
    stops: pd.DataFrame, spectra: dict[str, pd.DataFrame], conv: pd.DataFrame | None = None
) -> Figure:
    """Step of the smallest validation loss against the share of weights left, eigenvalues of masks
    against the law of sparse matrices, accuracy of convolutional networks.

    stops, conv : arm, round, left, mean, low, high. spectra : matrix -> what, value, width,
    density.
    """
    rows, count = (1, 1 + len(spectra)) if conv is None else (2, 2)
    figure, grid = plt.subplots(
        rows, count, figsize=(WIDTH, 2.5 * rows), layout="constrained", squeeze=False
    )
    panels = list(grid.flat)
    for k, arm in enumerate(CURVES):
        one = stops[stops.arm == arm].sort_values("left")
        panels[0].errorbar(
            one.left, one["mean"], yerr=[one["mean"] - one.low, one.high - one["mean"]],
            color=colour(k), ls=DASHES[k], marker=MARKERS[k], ms=3, lw=1.2, label=NAMES[arm],
        )  # fmt: skip
    _left_axis(panels[0])
    panels[0].set_ylabel("step")
    panels[0].set_title("smallest validation loss")
    panels[0].legend(fontsize=6)
    if conv is not None:
        _curves(panels[-1], conv, "convolutional networks")
    for panel, (name, frame) in zip(panels[1:], spectra.items(), strict=False):
        for k, (what, own) in enumerate(frame[frame.what != "law"].groupby("what", sort=False)):
            edges = np.append(
                own.value - own.width / 2, own.value.iloc[-1] + own.width.iloc[-1] / 2
            )
            panel.stairs(own.density, edges, color=colour(k), ls=DASHES[k], lw=1.2, label=str(what))
        law = frame[frame.what == "law"]
        panel.plot(law.value, law.density, color=GREY, lw=1.0, label="law of sparse matrices")
        panel.set_yscale("log")
        panel.set_ylim(bottom=5e-3)
        panel.set_xlabel("eigenvalue / edge of the bulk")
        panel.set_ylabel("density")
        panel.set_title(f"mask of {name}")
        panel.legend(fontsize=5.5)
    parts.letters(figure)
    return figure
