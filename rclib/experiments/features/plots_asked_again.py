"""Figure of notebook 77: sizes of a unit's weights, and two networks on rotated inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.strips import strips
from rclib.plots.style import GREY, WIDTH, colour, looks

__all__ = ["again_panels"]

KINDS = {
    "sizes": "|a|, |c|\nof a unit",
    "shuffled": "|a|, |c|\nshuffled",
    "start": "|a| before,\n|c|",
    "signed": "a, c\nwith signs",
}


@redrawable
def again_panels(
    units: pd.DataFrame, tied: pd.DataFrame, curves: pd.DataFrame, gaps: pd.DataFrame, *,
    before: Mapping[str, Sequence[float]], within: float,
) -> Figure:  # fmt: skip
    """|c| against |a| of one network; correlations over their chance level; accuracy on rotated
    inputs against the rate, filled where notebook 73 has it; LCN minus FCN by choice of rates.

    units : first, a, c of one seed. tied : seed and `KINDS`. curves : arch, seed, rate, test,
    linear (accuracy of the best linear rule). gaps : question, seed, difference. before : rates of
    notebook 73 by network. within : the criterion for differences.
    """
    figure, ((one, two), (three, four)) = plt.subplots(
        2, 2, figsize=(WIDTH, 5.4), layout="constrained"
    )
    size = units.c.abs()
    one.plot(units["first"].abs(), size, "o", ms=4, mfc="white", color=GREY, label="|a| before")
    one.plot(units.a.abs(), size, "s", ms=4, color=colour(0), label="|a| after")
    for which in "xy":
        parts.log_axis(one, which)
    one.set_xlabel("weight |a| of a unit")
    one.set_ylabel("its coefficient |c| after training")
    one.set_title("one trained network")
    one.legend(fontsize=7)
    strips(two, {label: tied[name] for name, label in KINDS.items()})
    parts.level(two, 1.0, "chance, 95 percent")
    two.set_ylim(bottom=0)
    two.set_ylabel("|correlation| over chance level")
    two.set_title("who is tied to whom")
    _rates(three, curves, before)
    strips(four, {str(name): own.difference for name, own in gaps.groupby("question", sort=False)})
    four.axhspan(-within, within, color=GREY, alpha=0.12, lw=0, zorder=0)
    four.axhline(0, color=GREY, lw=0.8, ls=":", zorder=1)
    four.set_ylabel("test accuracy, LCN minus FCN")
    four.set_title(f"shaded: within {within:g}")
    parts.letters(figure)
    return figure


def _rates(panel: Panel, curves: pd.DataFrame, before: Mapping[str, Sequence[float]]) -> None:
    """Mean test accuracy with its 95 percent interval, hollow at rates that are new, and the level
    of the best linear rule."""
    names = list(dict.fromkeys(curves.arch))
    for name, style in looks(names).items():
        over = curves[curves.arch == name].groupby("rate").test
        middle, half = over.mean(), parts.half_widths(over)
        panel.plot(middle.index, middle, label=str(name), lw=1.2, ms=4, mfc="white", **style)
        old = middle[middle.index.isin(list(before[str(name)]))]
        panel.plot(old.index, old, ls="", ms=4, marker=style["marker"], color=style["color"])
        panel.fill_between(
            middle.index, middle - half, middle + half, color=style["color"], alpha=0.15, lw=0
        )
    parts.log_axis(panel, "x")
    panel.set_xlabel("learning rate (filled: those of notebook 73)")
    panel.set_ylabel("test accuracy")
    panel.set_title("rotated inputs")
    best = float(curves.linear.mean())
    panel.set_ylim(top=best + 0.12 * (best - panel.get_ylim()[0]))
    panel.legend(fontsize=7, loc="lower center", title="chance: 0.5", title_fontsize=7)
    parts.level(panel, best, f"best linear rule, {best:.3f}")
