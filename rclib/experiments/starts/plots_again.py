"""Figure of notebook 58: claims of notebooks 50, 53 and 55 on fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rclib.experiments.starts.asked_again import FLOOR
from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.strips import strips
from rclib.plots.style import GREY, WIDTH, colour

__all__ = ["again_panels"]

ARMS = {"orthogonal": "two halves", "one half, equal compute": "one half"}
SCRATCH = "scratch, equal compute"
FORMS = {
    "around zero": "around\nzero",
    "with the mean": "with the\nmean",
    "ranks at random": "ranks at\nrandom",
}
LINES = {"none": ":", "Hann": "-"}


@redrawable
def again_panels(
    tuned: pd.DataFrame,
    gains: pd.DataFrame,
    shaped: pd.DataFrame,
    spectra: pd.DataFrame,
    starts: pd.DataFrame,
    *,
    band: Sequence[float],
    criteria: Mapping[str, float],
) -> Figure:
    """Growth (validation accuracy by the halves' rate, gains), DeepShape's overlaps, sine starts.

    tuned : arm, rate, after, valid, means over the tuning seeds. gains : question, seed, gain.
    shaped : seed, form, overlap. spectra : arm, window, frequency, energy. starts : arm, seed, s0,
    window, centroid, high. band : low and high over Nyquist. criteria : question -> level, and
    "overlap".
    """
    figure, panels = plt.subplots(2, 3, figsize=(WIDTH, 4.7), layout="constrained")
    (first, second, third), (fourth, fifth, sixth) = panels
    _rates(first, tuned)
    names = list(dict.fromkeys(gains.question))
    strips(second, {name: gains[gains.question == name].gain for name in names}, alike=True)
    for place, name in enumerate(names):
        second.hlines(criteria[name], place - 0.4, place + 0.4, color=GREY, ls=":", lw=0.9)
    second.set_ylabel("accuracy, two halves minus")
    second.set_title("at equal compute")
    own = {label: shaped[shaped.form == form].overlap for form, label in FORMS.items()}
    strips(third, own, alike=True)
    parts.level(third, criteria["overlap"], "")
    third.set_ylim(0, 1.05)
    third.set_ylabel("|cos| with the dense one")
    third.set_title("leading direction")
    _spectra(fourth, spectra, band)
    _centroids(fifth, starts)
    _shares(sixth, starts)
    parts.letters(figure)
    return figure


def _rates(panel: Axes, tuned: pd.DataFrame) -> None:
    """Best of the rates after growth, for every rate of the halves."""
    for place, (arm, label) in enumerate(ARMS.items()):
        best = tuned[tuned.arm == arm].groupby("rate").valid.max()
        panel.plot(best.index, best, "o-", ms=4, lw=1.3, color=colour(place), label=label)
    whole = float(tuned[tuned.arm == SCRATCH].valid.max())
    panel.axhline(whole, color=colour(2), ls="--", lw=1.3, label="scratch")
    parts.size_axis(panel, sorted(tuned.rate.dropna().unique()))
    panel.margins(y=0.15)
    panel.set_xlabel("rate of the halves")
    panel.set_ylabel("validation accuracy")
    panel.set_title("rates, tuning seeds")
    panel.legend(fontsize=6)


def _spectra(panel: Axes, spectra: pd.DataFrame, band: Sequence[float]) -> None:
    panel.axvspan(*band, color="0.9", lw=0)
    for place, arm in enumerate(dict.fromkeys(spectra.arm)):
        for window, dash in LINES.items():
            rows = spectra[(spectra.arm == arm) & (spectra.window == window)]
            label = f"{arm}, {window}" if window != "none" else arm
            panel.plot(
                rows.frequency, rows.energy, ls=dash, lw=1.2, color=colour(place), label=label
            )
    parts.log_axis(panel, "y")
    panel.set_xlabel("frequency / Nyquist")
    panel.set_ylabel("share of energy")
    panel.set_title("last layer, start")
    panel.legend(fontsize=6, loc="center right", bbox_to_anchor=(1.0, 0.47))


def _centroids(panel: Axes, starts: pd.DataFrame) -> None:
    """Centroid along the scales of the noise in the first matrix, none at the left."""
    line = starts[starts.arm.str.match(r"SIREN|s0 = ")]
    scales = sorted(line.s0.unique())
    for place, (window, dash) in enumerate(LINES.items()):
        found = line[line.window == window].groupby("s0").centroid.agg(["mean", "min", "max"])
        label = "Hann window" if window == "Hann" else "no window"
        tone = colour(3 + place)  # those of (d) are the starts'
        panel.plot(range(len(scales)), found["mean"], ls=dash, lw=1.3, color=tone, label=label)
        panel.fill_between(
            range(len(scales)), found["min"], found["max"], color=tone, alpha=0.15, lw=0
        )
    panel.set_xticks(range(len(scales)), [f"{scale:g}" for scale in scales], fontsize=6)
    parts.log_axis(panel, "y")
    panel.set_xlabel("s0 (rad per unit)")
    panel.set_ylabel("centroid / Nyquist")
    panel.set_title("last layer, centroid")
    panel.legend(fontsize=6)


def _shares(panel: Axes, starts: pd.DataFrame) -> None:
    """The kernel's share on the high band."""
    values = {}
    for window in LINES:
        for arm in ("SIREN", "WINNER"):
            rows = starts[(starts.arm == arm) & (starts.window == window)]
            values[f"{arm}\n{window}"] = rows.high.clip(lower=1e-16)
    strips(panel, values, middle="median", alike=True)
    panel.tick_params(axis="x", labelsize=6)
    panel.set_xlabel("start and window")
    parts.log_axis(panel, "y")
    parts.level(panel, FLOOR, "rounding")
    panel.set_ylabel("share on the band")
    panel.set_title("tangent kernel")
