"""Panels of notebook 61: test error over time, against the ratio of samples to inputs and width."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, GREY, WIDTH, colour, ordered

__all__ = ["generalization_panels", "span_panels", "student_panels"]


@redrawable
def generalization_panels(
    curves: pd.DataFrame, late: pd.DataFrame, simulated: pd.DataFrame, students: pd.DataFrame
) -> Figure:
    """Test error over time with its closed form; against the ratio of samples to inputs; of ReLU
    students against the number of parameters.

    curves : alpha, t, simulated, error, theory, best (time of the least error). late : alpha, what,
    error. simulated : alpha, what, error (mean over draws). students : start, ratio, final, best.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 2.7), layout="constrained")
    shades = ordered(sorted(curves.alpha.unique()))
    for alpha, group in curves.groupby("alpha"):
        shade = shades[alpha]["color"]
        left.plot(group.t, group.theory, color=shade, lw=1.2, label=f"α = {alpha:g}")
        thin = group.iloc[::3]
        left.errorbar(thin.t, thin.simulated, thin.error, fmt="o", color=shade, ms=2.5, lw=0.8)
        left.plot(group.best.iloc[0], group.theory.min(), "*", color=shade, ms=8, mec="white")
    left.set_xscale("log")
    left.set_xlabel("time t (in τ)")
    left.set_ylabel("test error over noise variance")
    left.set_title("theory (lines) and draws")
    left.set_ylim(top=1.12 * left.get_ylim()[1])
    parts.direct_labels(left)
    parts.write_into(left, "star: least error")
    for k, (what, group) in enumerate(late.groupby("what", sort=False)):
        middle.plot(group.alpha, group.error, color=colour(k), lw=1.2, label=what)
        dots = simulated[simulated.what == what]
        middle.plot(dots.alpha, dots.error, "o", color=colour(k), ms=3)
    parts.log_axis(middle, "x")
    middle.set_xlabel("samples over inputs, α")
    middle.set_ylabel("test error over noise variance")
    middle.set_title("overtraining peaks at α = 1")
    middle.set_ylim(top=1.35 * float(late.error.max()))
    middle.legend(fontsize=6, loc="upper right")
    _students(right, students)
    parts.letters(figure)
    return figure


@redrawable
def student_panels(grown: pd.DataFrame, images: pd.DataFrame, noise: float) -> Figure:
    """ReLU students of a teacher under gradient descent and of images with noisy labels, against
    the number of parameters: test error, and of images the share in a wrong class.

    grown : start, ratio, final, best. images : start, ratio, final, best, wrong_final, wrong_best.
    noise : share of wrong training labels.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 2.7), layout="constrained")
    _students(left, grown, title="gradient descent")
    _students(middle, images, title="images, noisy labels", keys=False)
    middle.set_ylabel("test error over label variance")
    wrong = images[["start", "ratio", "wrong_final", "wrong_best"]]
    wrong = wrong.rename(columns={"wrong_final": "final", "wrong_best": "best"})
    _students(right, wrong, title="images, classes", keys=False)
    right.set_ylabel("share of test images wrong")
    right.set_ylim(bottom=min(0.75 * noise, right.get_ylim()[0]))
    parts.level(right, noise, "wrong training labels")
    for panel in (middle, right):
        panel.set_xlabel("parameters over samples × classes")
    parts.letters(figure)
    return figure


def _students(
    panel: Axes, students: pd.DataFrame, title: str = "ReLU students", *, keys: bool = True
) -> None:
    handles = []
    for k, (start, group) in enumerate(students.groupby("start", sort=False)):
        for column, dash in (("final", "-"), ("best", "--")):
            over = group.groupby("ratio")[column]
            mean, error = over.mean(), 1.96 * over.std() / np.sqrt(over.count())
            panel.plot(mean.index, mean, ls=dash, color=colour(k), marker="o", ms=2.5, lw=1.2)
            panel.fill_between(mean.index, mean - error, mean + error, color=colour(k), alpha=0.15)
        handles.append(Line2D([], [], color=colour(k), label=str(start)))
    handles += [
        Line2D([], [], color=GREY, ls=ls, label=t)
        for t, ls in (("at the end", "-"), ("at its best", "--"))
    ]
    parts.log_axis(panel, "x")
    parts.log_axis(panel, "y")
    panel.set_ylim(bottom=(0.3 if keys else 0.4) * panel.get_ylim()[0])
    parts.moment(panel, 1.0, "as many of both")
    panel.set_xlabel("parameters over samples")
    panel.set_ylabel("test error over signal variance")
    panel.set_title(title)
    if keys:
        panel.legend(handles=handles, fontsize=6, loc="lower right")


@redrawable
def span_panels(bulk: pd.DataFrame, span: pd.DataFrame) -> Figure:
    """Where noise enters over time, for each ratio of samples to inputs, and what gradient descent
    and Adam write outside the span of the inputs.

    bulk : alpha, at, density and one column a time. span : optimiser, outside.
    """
    alphas = sorted(bulk.alpha.unique())
    times = [name for name in bulk.columns if name.startswith("t = ")]
    figure, panels = plt.subplots(
        1, len(alphas) + 1, figsize=(WIDTH, 2.4), layout="constrained",
        width_ratios=[1.0] * len(alphas) + [0.7],
    )  # fmt: skip
    for panel, alpha in zip(panels, alphas, strict=False):
        group = bulk[bulk.alpha == alpha]
        panel.fill_between(group["at"], group.density, color="0.8", lw=0)
        twin = panel.twinx()
        for k, name in enumerate(times):
            twin.plot(group["at"], group[name], color=colour(k), ls=DASHES[k], lw=1.2, label=name)
        twin.set_yscale("log")
        twin.set_ylim(0.03, 300)
        if alpha != alphas[-1]:
            twin.tick_params(which="both", right=False, labelright=False)
        panel.set_ylim(0, min(1.0, 1.2 * float(group.density.max())))
        panel.set_xlim(0, 6)
        panel.set_xlabel("eigenvalue λ of XᵀX")
        panel.set_title(f"α = {alpha:g}")
    panels[0].set_ylabel("density ρ (grey)")
    twin.set_ylabel("noise let in, $(1 - e^{-λt})^2 / λ$")
    twin.legend(fontsize=6, loc="upper right")
    last = panels[-1]
    for k, (_, group) in enumerate(span.groupby("optimiser", sort=False)):
        shift = np.linspace(-0.15, 0.15, len(group)) if len(group) > 1 else [0.0]
        last.plot(k + np.asarray(shift), group.outside, "o", ms=3, color=colour(k))
    last.set_xticks([0, 1], ["GD", "Adam"])
    last.set_xlim(-0.5, 1.5)
    parts.log_axis(last, "y")
    last.set_ylabel("share of ΔW₁ outside\nthe inputs' span")
    last.set_title("what each writes")
    parts.letters(figure)
    return figure
