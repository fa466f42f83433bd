"""Panels of notebook 85: machines, bytes, estimates of the gradient, arms, weights and text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, GREY, MARKERS, WIDTH, colour, ordered

__all__ = ["byte_panels", "weight_panels"]


def _line(panel: Panel, frame: pd.DataFrame, x: str, y: str, label: str, **look: Any) -> None:
    """Mean over seeds and its 95 percent t-interval."""
    over = frame.groupby(x)[y]
    middle, half = over.mean(), parts.half_widths(over)
    panel.plot(middle.index, middle, ms=3, lw=1.2, label=label, **look)
    panel.fill_between(
        middle.index, middle - half, middle + half, alpha=0.18, lw=0, color=look["color"]
    )


@redrawable
def byte_panels(
    machines: pd.DataFrame, bytes_sent: pd.DataFrame, estimates: pd.DataFrame, ends: pd.DataFrame,
    *, dashed: str, single: float,
) -> Figure:  # fmt: skip
    """Training loss against rounds by number of machines; against the bytes that were sent, by what
    is sent; squared cosine of estimate and gradient against the number of directions; and test
    accuracy after the last round by arm.

    machines : arm, number (of machines; 0 for the arm `dashed`), seed, round, loss.
    bytes_sent : arm, seed, sent, loss. estimates : N, seed, own, shared, law. ends : arm, seed,
    accuracy. single : what one direction gives.
    """
    figure, table = plt.subplots(2, 2, figsize=(WIDTH, 5.6), layout="constrained")
    panels = table.ravel()
    _by_machines(panels[0], machines, dashed)
    _by_bytes(panels[1], bytes_sent)
    _by_directions(panels[2], estimates, single)
    _by_arm(panels[3], ends)
    parts.letters(figure)
    return figure


def _by_machines(panel: Panel, frame: pd.DataFrame, dashed: str) -> None:
    look = ordered([n for n in frame.number.unique() if n])
    for number, own in frame.groupby("number"):
        if number:
            shade = {**look[float(number)], "linestyle": "-", "marker": ""}  # type: ignore[arg-type]
            _line(panel, own, "round", "loss", f"M = {number}", **shade)
        else:
            _line(panel, own, "round", "loss", dashed, color=GREY, linestyle="--")
    panel.set_ylim(0, None)
    panel.set_xlabel("rounds")
    panel.set_ylabel("training loss")
    panel.set_title("number of machines")
    parts.direct_labels(panel)


def _by_bytes(panel: Panel, frame: pd.DataFrame) -> None:
    for number, (arm, own) in enumerate(frame[frame.sent > 0].groupby("arm", sort=False)):
        look = {"color": colour(number), "linestyle": DASHES[number % len(DASHES)]}
        _line(panel, own, "sent", "loss", str(arm), marker=MARKERS[number], **look)
    parts.log_axis(panel, "x")
    panel.set_ylim(0, None)
    panel.set_xlabel("bytes sent by all machines")
    panel.set_ylabel("training loss")
    panel.set_title("what is sent")
    panel.legend(fontsize=6)


def _by_directions(panel: Panel, frame: pd.DataFrame, single: float) -> None:
    for number, (column, label) in enumerate(
        (("own", "own directions"), ("shared", "one shared direction"))
    ):
        over = frame.groupby("N")[column]
        panel.errorbar(
            over.mean().index, over.mean(), parts.half_widths(over), fmt=MARKERS[number], ms=4,
            lw=1.0, color=colour(number), label=label,
        )  # fmt: skip
    law = frame.groupby("N").law.first()
    panel.plot(law.index, law, color=GREY, ls=":", lw=1.0, label="(N + 2) / (N + d + 1)")
    panel.axhline(single, color=GREY, ls="--", lw=0.8, label="3 / (d + 2)")
    parts.size_axis(panel, sorted(frame.N.unique()))
    parts.log_axis(panel, "y")
    panel.set_xlabel("directions N")
    panel.set_ylabel("cos² of estimate and gradient")
    panel.set_title("estimates")
    panel.legend(fontsize=6)


def _by_arm(panel: Panel, frame: pd.DataFrame) -> None:
    over = frame.groupby("arm", sort=False).accuracy
    middle, half = over.mean(), parts.half_widths(over)
    places = np.arange(len(middle))
    for place, (_, values) in enumerate(over):
        panel.plot(values, np.full(len(values), place), ".", ms=3, alpha=0.35, color=GREY)
    half = half.reindex(middle.index)
    panel.errorbar(middle, places, xerr=half, fmt="o", ms=3.5, lw=1.2, color=colour(0))
    panel.axvline(0.2, color=GREY, ls=":", lw=0.8)
    panel.annotate("chance", (0.2, 0.98), xycoords=("data", "axes fraction"), xytext=(2, 0),
                   textcoords="offset points", size=6, color=GREY, va="top")  # fmt: skip
    panel.set_yticks(places, list(middle.index), fontsize=6)
    panel.invert_yaxis()
    panel.set_xlim(0, 1)
    panel.set_xlabel("test accuracy")
    panel.set_title("arms and controls")


@redrawable
def weight_panels(
    eigenvalues: pd.DataFrame, noise: pd.DataFrame, weights: pd.DataFrame, text: pd.DataFrame
) -> Figure:
    """Eigenvalues of the change of the first layer against those of noise; its stable rank against
    its size; and, where there is text, the loss of a language model.

    eigenvalues : arm, seed, eigenvalue. noise : x, density. weights : arm, seed, distance, rank.
    text : arm, seed, round, loss; may be empty.
    """
    count = 2 if text.empty else 3
    figure, panels = plt.subplots(1, count, figsize=(WIDTH, 2.8), layout="constrained")
    top = float(np.ceil(eigenvalues.eigenvalue.max()))
    edges = np.linspace(0, top, 60)
    for number, (arm, own) in enumerate(eigenvalues.groupby("arm", sort=False)):
        panels[0].hist(
            own.eigenvalue, edges, density=True, histtype="step", lw=1.2, color=colour(number),
            ls=DASHES[number], label=str(arm),
        )  # fmt: skip
    panels[0].plot(noise.x, noise.density, color=GREY, ls=":", lw=1.2, label="noise")
    panels[0].set_yscale("log")
    panels[0].set_xlabel("eigenvalue / (h · variance)")
    panels[0].set_ylabel("density")
    panels[0].set_title("change of the first layer")
    panels[0].legend(fontsize=6)
    for number, (arm, own) in enumerate(weights.groupby("arm", sort=False)):
        look: Any = {"color": colour(number), "marker": MARKERS[number], "mew": 0}
        panels[1].plot(own.distance, own["rank"], ls="", ms=4, alpha=0.8, label=str(arm), **look)
    panels[1].axhline(1, color=GREY, ls=":", lw=0.8)
    panels[1].set_ylim(0, 1.2)
    panels[1].set_xlim(0, None)
    panels[1].set_xlabel("|ΔW| / |W|")
    panels[1].set_ylabel("stable rank / that of noise")
    panels[1].set_title("size and rank")
    panels[1].legend(fontsize=6)
    if count == 3:
        _text(panels[2], text)
    parts.letters(figure)
    return figure


def _text(panel: Panel, frame: pd.DataFrame) -> None:
    arms: Sequence[str] = list(dict.fromkeys(frame.arm))
    for number, arm in enumerate(arms):
        look = {"color": colour(number), "linestyle": DASHES[number]}
        _line(panel, frame[frame.arm == arm], "round", "loss", arm, marker="", **look)
    panel.set_xlabel("rounds")
    panel.set_ylabel("loss on held-out text, nats a byte")
    panel.set_title("language model")
    panel.legend(fontsize=6)
