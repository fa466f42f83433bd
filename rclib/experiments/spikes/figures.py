"""The figures of paper B's notebooks: what is on their axes, and what their lines are called.

A label that is changed here is seen at once: `python -m rclib redraw NAME` draws a notebook's
figures again from what is kept beside them. `rclib.plots.spectra` has the panels themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rclib.experiments.spikes.frames import CHAOTIC_ADAM, EVALUATIONS
from rclib.experiments.spikes.plots_spikes import family_panels
from rclib.plots import parts, spectra
from rclib.plots.drawing import redrawable
from rclib.plots.style import WIDTH

__all__ = [
    "alpha_width",
    "critical_rates",
    "evaluations",
    "families",
    "one_step",
    "over_steps",
    "quantities",
    "schedules",
    "sweep",
    "weights",
]

# Column -> axis label: the losses by both evaluations.
LOSSES = {
    "train_loss": f"training loss\n{EVALUATIONS['equations']}",
    "test_loss": f"test loss\n{EVALUATIONS['equations']}",
    "train_loss_released": f"training loss\n{EVALUATIONS['released']}",
    "test_loss_released": f"test loss\n{EVALUATIONS['released']}",
}
KTA = "kernel-target alignment\n(KTA), {}"
OPTIMIZERS = {"gd": "GD", "adam": "Adam"}
ODD = "best odd function"  # the test loss that no odd student gets below
CHANCE = "chance, 95 %"
TAIL = "tail ratio: distance to a\npower law / to M.-P."
EVEN = "power law fits better below"
TOP = r"$\lambda_{\max}$ / spike threshold"


def quantities(*others: str) -> dict[str, str]:
    """Column -> axis label: the losses and the alignment of kernel and teacher by both
    evaluations, one after the other, then `others`."""
    losses: dict[str, str] = {}
    for way, end in (("equations", ""), ("released", "_released")):
        for name in (f"train_loss{end}", f"test_loss{end}"):
            losses[name] = LOSSES[name]
        losses[f"kta{end}"] = KTA.format(EVALUATIONS[way])
    known = {
        "alignment": "sim(W, β)",
        "alpha_hill": "α (Hill)",
        "alpha_ks": "α (KS)",
        "top": TOP,
        "spikes": "eigenvalues beyond",
        "tail_ratio": TAIL,
    }
    return losses | {name: known[name] for name in others}


def _levels(floor: float, chance: float) -> dict[str, tuple[float, str]]:
    return {
        "alignment": (chance, CHANCE),
        "top": (1.0, "threshold"),
        "tail_ratio": (1.0, EVEN),
        "test_loss": (floor, ODD),
        "test_loss_released": (floor, ODD),
    }


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(optimizer=frame.optimizer.map(OPTIMIZERS))


@redrawable
def over_steps(frame: pd.DataFrame, *, floor: float, chance: float) -> Figure:
    """One configuration over the steps: columns seed, step and those of `quantities`.

    floor : test loss of the best odd function. chance : 95 percent level of the alignment.
    """
    rows = quantities("alignment", "alpha_hill", "alpha_ks", "top", "spikes", "tail_ratio")
    return spectra.panels(
        frame, x="step", rows=rows, x_label="step", log_y=["top", "tail_ratio"],
        levels=_levels(floor, chance),
    )  # fmt: skip


@redrawable
def weights(values: pd.DataFrame, sigma: pd.DataFrame) -> Figure:
    """Entries of W (columns step, value, density) and singular values (step, index, value)."""
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 2.7))
    spectra.weight_value_panels(panels[0], values)
    spectra.singular_value_panels(panels[1], sigma)
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


@redrawable
def sweep(frame: pd.DataFrame, *, floor: float, chance: float) -> Figure:
    """After the last step against the learning rate: columns seed, optimizer, rate and those of
    `quantities`. The rates stand side by side: three of them are close to each other."""
    rates = sorted(frame.rate.unique())
    rows = quantities("alignment", "alpha_hill", "alpha_ks")
    levels = {k: v for k, v in _levels(floor, chance).items() if k in rows}
    return spectra.panels(
        _named(frame), x="rate", rows=rows, x_label="learning rate η, side by side", by="optimizer",
        even_x=True, quartiles=True, levels=levels,
        shade_from=(CHAOTIC_ADAM, "Adam: single runs depend on the machine")
        if CHAOTIC_ADAM in rates else None,
    )  # fmt: skip


@redrawable
def evaluations(frame: pd.DataFrame) -> Figure:
    """Change of the test loss since the start by both evaluations: columns seed, optimizer, rate,
    test_loss, test_loss_released."""
    rows = {
        "test_loss": f"change of test loss\n{EVALUATIONS['equations']}",
        "test_loss_released": f"change of test loss\n{EVALUATIONS['released']}",
    }
    return spectra.panels(
        _named(frame), x="rate", rows=rows, x_label="learning rate η, side by side", by="optimizer",
        even_x=True, columns=2, levels=dict.fromkeys(rows, (0.0, "no change")), width=3.4,
    )  # fmt: skip


@redrawable
def one_step(frame: pd.DataFrame, *, chance: float) -> Figure:
    """The sweep after one step: columns seed, optimizer, rate, alignment, top, tail_ratio."""
    rows = {"alignment": "sim(W, β)", "top": TOP, "tail_ratio": TAIL}
    levels = _levels(0.0, chance)
    return spectra.panels(
        _named(frame), x="rate", rows=rows, x_label="learning rate η, side by side", by="optimizer",
        even_x=True, log_y=["top", "tail_ratio"], levels={k: levels[k] for k in rows},
    )  # fmt: skip


@redrawable
def schedules(
    frame: pd.DataFrame, *, titles: Mapping[float, str], floor: float, chance: float
) -> Figure:
    """Over the steps with several decays of the rate: columns seed, gamma, step and those of
    `quantities`. titles : gamma -> name of its line."""
    rows = quantities("alignment", "alpha_hill", "tail_ratio")
    levels = _levels(floor, chance)
    return spectra.panels(
        frame.assign(schedule=frame.gamma.map(titles)), x="step", rows=rows, x_label="step",
        by="schedule", log_y=["tail_ratio"],
        levels={k: v for k, v in levels.items() if k in rows},
    )  # fmt: skip


@redrawable
def critical_rates(rates: pd.DataFrame, ratios: pd.DataFrame, *, power: float) -> Figure:
    """The rate that makes a spike (columns d, seed, optimizer, rate), and the ratio of the two
    optimisers' (d, seed, ratio) with its predicted power of d, a line beside it."""
    frames = {
        "rate that makes a spike": rates.assign(
            x=rates.d, y=rates.rate, line=rates.optimizer.map(OPTIMIZERS)
        ),
        "ratio of the rates, GD / Adam": ratios.assign(x=ratios.d, y=ratios.ratio, line="measured"),
    }
    first, second = frames
    figure = spectra.scaling(
        frames, x="dimension d", y={first: "learning rate η", second: "ratio"}, slopes={}
    )
    panel, sizes = figure.axes[1], sorted(ratios.d.unique())
    # Half as high as what was measured, so that it is seen beside it.
    parts.guide(panel, sizes, 0.5 * ratios.groupby("d").ratio.mean().iloc[0], power)
    return figure


@redrawable
def alpha_width(frame: pd.DataFrame) -> Figure:
    """Tail exponents against the width: columns d, seed, step, alpha_hill, alpha_ks, tail_ratio."""
    rows = {"alpha_hill": "α (Hill)", "alpha_ks": "α (KS)", "tail_ratio": TAIL}
    figure = spectra.panels(
        frame.assign(when=frame.step.map("step {}".format)), x="d", rows=rows,
        x_label="dimension d", by="when", log_x=True, log_y=["alpha_ks", "tail_ratio"],
        levels={"tail_ratio": (1.0, EVEN)},
    )  # fmt: skip
    for panel, title in zip(
        figure.axes, ("exponent, Hill", "exponent, KS", "which law is closer"), strict=True
    ):
        panel.set_title(title)
    return figure


@redrawable
def families(frame: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Losses over the steps, one column a family of settings: columns family, setting, seed, step
    and those of `LOSSES`. names : family -> title."""
    return family_panels(frame, families=names, rows=LOSSES, x_label="step")
