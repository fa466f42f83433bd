"""Panels of notebook 53: the law of trained weights, starts, and bits against accuracy."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, ordered

__all__ = ["bits_panels", "law_panels"]


@redrawable
def law_panels(
    entries: pd.DataFrame, laws: pd.DataFrame, shapes: pd.DataFrame, losses: pd.DataFrame
) -> Figure:
    """Entries of trained matrices with the normal and the fitted law; ν over training, one line a
    start; loss over training, one line a start; ν of trained weights, one row a setting.

    entries : setting, z, density, and columns of the laws. laws : setting, seed, shape, kind
    ("per matrix" or "pooled"). shapes : nu, seed, step, shape. losses : nu, seed, step, loss.
    """
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 5.0), layout="constrained")
    panel = panels[0, 0]
    names = list(dict.fromkeys(entries.setting))
    for place, name in enumerate(names):
        own = entries[entries.setting == name]
        panel.plot(own.z, own.density, MARKERS[place], ms=2.5, color=colour(place), label=name)
        panel.plot(own.z, own.fitted, "-", lw=1, color=colour(place))
    first = entries[entries.setting == names[0]]
    panel.plot(first.z, first.normal, ":", lw=1.2, color=GREY, label="normal law")
    panel.set_yscale("log")
    panel.set_ylim(1e-5, 1)
    panel.set_xlabel("entry / standard deviation")
    panel.set_ylabel("density")
    panel.set_title("entries of W2 (lines: fits)")
    panel.legend(fontsize=6, loc="lower center")
    starts = sorted(shapes.nu.unique())
    look = ordered([float(nu) for nu in starts])
    for where, what in ((panels[0, 1], "shape"), (panels[1, 0], "loss")):
        frame = shapes if what == "shape" else losses
        for nu in starts:
            own = frame[frame.nu == nu].groupby("step")[what]
            mean, tone = own.mean(), look[float(nu)]["color"]
            where.plot(mean.index, mean, lw=1.3, color=tone, label=f"ν = {nu:g}")
            where.fill_between(mean.index, own.min(), own.max(), color=tone, alpha=0.15, lw=0)
        where.set_xlabel("updates")
        parts.log_axis(where, "y")
        where.legend(title="start", fontsize=6, title_fontsize=6, ncols=2, loc="upper right")
    panels[0, 1].set_ylim(top=40)  # room for the names
    parts.level(panels[0, 1], 2.0, "normal")
    panels[0, 1].set_ylabel("ν by moments")
    panels[0, 1].set_title("shape over training")
    panels[1, 0].set_ylabel("training loss (nats)")
    panels[1, 0].set_title("loss over training")
    panel = panels[1, 1]
    settings = list(dict.fromkeys(laws.setting))
    for place, name in enumerate(settings):
        for kind, shift, tone in (("per matrix", -0.15, 0), ("pooled", 0.15, 1)):
            values = laws[(laws.setting == name) & (laws.kind == kind)]["shape"]
            at = place + shift
            panel.plot(values, np.full(len(values), at), ".", ms=4, alpha=0.5, color=colour(tone))
            panel.plot(
                values.mean(), at, "|", ms=9, mew=1.6, color=colour(tone),
                label=kind if place == 0 else None,
            )  # fmt: skip
    panel.set_yticks(range(len(settings)), settings)
    panel.set_ylim(len(settings) - 0.5, -0.5)
    panel.set_xlabel("ν of trained weights, normal starts")
    panel.set_title("one law a matrix or one for all")
    parts.moment(panel, 1.9, "")
    panel.legend(fontsize=6)
    parts.letters(figure)
    return figure


@redrawable
def bits_panels(arms: pd.DataFrame, path: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Accuracy against bits: every arm and the path of BackSlash, mean and range over seeds; error
    of the formats; ν along BackSlash's path.

    arms : seed, arm, bits, accuracy, error. path : seed, strength, entropy, accuracy, shape.
    names : arm -> what stands at its marker.
    """
    figure, panels = plt.subplots(
        1, 3, figsize=(WIDTH, 2.9), layout="constrained", width_ratios=[1.6, 1, 1]
    )
    panel = panels[0]
    base = arms[arms.arm == "dense"].set_index("seed").accuracy
    for place, (arm, name) in enumerate(names.items()):
        own = arms[arms.arm == arm].set_index("seed")
        gain = 100 * (own.accuracy - base)
        panel.errorbar(
            own.bits.mean(), gain.mean(),
            yerr=[[gain.mean() - gain.min()], [gain.max() - gain.mean()]],
            fmt=MARKERS[place % len(MARKERS)], ms=5, lw=1, color=colour(place), label=name,
        )  # fmt: skip
    means = []
    for strength, own in path.groupby("strength"):
        if strength > 0:
            gain = 100 * (own.set_index("seed").accuracy - base)
            means.append((own.entropy.mean(), gain.mean()))
    panel.plot(*zip(*means, strict=True), "k--", marker="*", ms=8, lw=1, label="BackSlash")
    panel.set_xlabel("entropy (bits a weight)")
    panel.set_ylabel("accuracy over dense (points)")
    panel.set_title("bits against accuracy")
    panel.legend(fontsize=6, ncols=2)
    panel = panels[1]
    formats = ["RF8", "e4m3", "int8"]
    for place, arm in enumerate(formats):
        values = arms[arms.arm == arm].error
        panel.plot(np.full(len(values), place), values, ".", ms=4, color=colour(0), alpha=0.5)
        panel.plot(place, values.mean(), "_", ms=12, mew=1.6, color=colour(1))
    panel.set_xticks(range(len(formats)), formats)
    panel.set_xlim(-0.5, len(formats) - 0.5)
    panel.set_ylim(bottom=0)
    panel.set_title("relative error of W2")
    panel = panels[2]
    strengths = sorted(path.strength.unique())
    for _, own in path.groupby("seed"):
        own = own.set_index("strength")["shape"].reindex(strengths)
        panel.plot(range(len(strengths)), own, "-", lw=0.8, color=colour(0), alpha=0.6)
    panel.plot(
        range(len(strengths)), path.groupby("strength")["shape"].mean(), "s-", ms=4, color=colour(1)
    )
    panel.set_xticks(range(len(strengths)), [f"{s:g}" for s in strengths], fontsize=7, rotation=30)
    panel.set_xlabel("strength of BackSlash")
    panel.set_title("ν at the end")
    parts.letters(figure)
    return figure
