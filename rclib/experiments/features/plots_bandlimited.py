"""Panels of notebook 70: errors of networks with frozen weights against band, width and norm."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import WIDTH, colour, looks, ordered

__all__ = ["arm_panels", "band_panels"]

LABELS = {"trained": "trained from λ = 1", "points": "bends on data"}


def _middle(
    panel: Panel, frame: pd.DataFrame, x: str, y: str, *, label: str, log: bool = True, **style: Any
) -> None:
    """Mean over seeds (of logarithms if `log`) and the range."""
    table = frame.pivot_table(index=x, columns="seed", values=y)
    middle = np.exp(np.log(table).mean(axis=1)) if log else table.mean(axis=1)
    panel.plot(middle.index, middle, lw=1.3, ms=3, label=label, **style)
    panel.fill_between(
        table.index, table.min(axis=1), table.max(axis=1), color=style["color"], alpha=0.15, lw=0
    )


@redrawable
def band_panels(
    bands: pd.DataFrame, minima: pd.DataFrame, widths: pd.DataFrame, paths: pd.DataFrame,
    spectra: pd.DataFrame, *, floor: float,
) -> Figure:  # fmt: skip
    """Error against the band, one line a frequency, ring: its least; against the number of
    features, one line a band; against ‖c‖ along the penalties; eigenvalues of the features' Gram
    matrix.

    bands : seed, lam, frequency, error. minima : frequency, lam, error. widths : seed, lam,
    features, error. paths : seed, lam, penalty, norm, error. spectra : lam, place, eigenvalue,
    of one seed.
    floor : error of the best straight line, for the lowest of `widths`' frequency.
    """
    figure, ((one, two), (three, four)) = plt.subplots(
        2, 2, figsize=(WIDTH, 5.6), layout="constrained"
    )
    tones = ordered(sorted(bands.frequency.unique()))
    for frequency, rows in bands.groupby("frequency"):
        style: Any = {"color": tones[frequency]["color"]}  # type: ignore[index]
        _middle(one, rows, "lam", "error", label=f"w = {frequency:g}", **style)
        low = minima[minima.frequency == frequency]
        one.plot(low.lam, low.error, "o", ms=6, mfc="white", color=style["color"], zorder=4)
    one.set_xlabel("band λ")
    one.set_ylabel("relative error")
    one.set_title("error against the band")
    one.legend(fontsize=6, loc="lower left")
    look = looks([f"λ = {lam:g}" for lam in sorted({*widths.lam, *spectra.lam})])
    for panel, frame, x in ((two, widths, "features"), (three, paths, "norm")):
        for lam, rows in frame.groupby("lam"):
            own: Any = look[f"λ = {lam:g}"]
            if x == "features":
                _middle(panel, rows, x, "error", label=f"λ = {lam:g}", **own)
                continue
            middle = np.exp(np.log(rows[["penalty", "norm", "error"]]).groupby(rows.penalty).mean())
            panel.plot(middle.norm, middle.error, lw=1.3, ms=4, label=f"λ = {lam:g}", **own)
    two.set_xlabel("number of frozen features")
    two.set_ylabel("relative error")
    two.set_title("one penalty: the floor")
    three.set_xlabel("norm of the coefficients")
    three.set_ylabel("relative error")
    three.set_title("smaller penalties: its price")
    for lam, rows in spectra.groupby("lam"):
        name = f"λ = {lam:g}"
        own = look[name] | {"marker": ""}
        four.plot(rows.place, rows.eigenvalue, lw=1.3, label=name, **own)
    four.set_yscale("log")
    four.set_xlabel("place of the eigenvalue")
    four.set_ylabel("over the largest")
    four.set_title("spectrum of the features")
    four.legend(fontsize=6)
    parts.log_axis(one, "x")
    parts.size_axis(two, widths.features.unique())
    parts.log_axis(three, "x")
    for panel in (one, two, three):
        parts.log_axis(panel, "y")
    two.legend(fontsize=6, loc="lower left")
    three.legend(fontsize=6, loc="center right")
    parts.level(two, floor, "best straight line")
    parts.letters(figure)
    return figure


@redrawable
def arm_panels(
    excess: pd.DataFrame, planes: pd.DataFrame, relu: pd.DataFrame, images: pd.DataFrame
) -> Figure:
    """Excess risk against the number of features, frozen and trained; two inputs, one line a law of
    the weights; ReLU, with the bias scaled along and not; accuracy on images against the band.

    excess : arm, features, seed, excess. planes : law, seed, lam, error. relu : seed, lam,
    together, alone. images : seed, lam, accuracy.
    """
    figure, ((one, two), (three, four)) = plt.subplots(
        2, 2, figsize=(WIDTH, 5.4), layout="constrained"
    )
    for panel, frame, key, x, y in (
        (one, excess, "arm", "features", "excess"),
        (two, planes, "law", "lam", "error"),
    ):
        look: Any = looks(list(dict.fromkeys(frame[key])))
        for name, rows in frame.groupby(key, sort=False):
            label = LABELS.get(str(name), str(name))
            _middle(panel, rows, x, y, label=label, **look[str(name)])
        parts.log_axis(panel, "x")
        parts.log_axis(panel, "y")
        panel.legend(fontsize=6)
    parts.size_axis(one, excess.features.unique())
    one.set_xlabel("number of features")
    one.set_ylabel("excess risk over the oracle")
    one.set_title("frozen and trained features")
    two.set_xlabel("band λ")
    two.set_ylabel("relative error")
    two.set_title("two inputs, laws of the weights")
    for place, (name, label) in enumerate((("together", "a and b scaled"), ("alone", "a alone"))):
        _middle(three, relu, "lam", name, label=label, color=colour(place), marker="os"[place])
    parts.log_axis(three, "x")
    parts.log_axis(three, "y")
    three.set_xlabel("scale λ")
    three.set_ylabel("relative error")
    three.set_title("ReLU features")
    three.legend(fontsize=6)
    _middle(four, images, "lam", "accuracy", label="", log=False, color=colour(0), marker="o")
    parts.log_axis(four, "x")
    four.set_xlabel("band λ")
    four.set_ylabel("test accuracy")
    four.set_title("images, frozen features")
    parts.letters(figure)
    return figure
