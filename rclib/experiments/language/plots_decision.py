"""Figures of notebook 91: success by arm, and where the language model's help comes from."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import GREY, MARKERS, WIDTH, colour, looks

__all__ = ["origin_panels", "success_panels"]

LABELS = {
    "scratch": "scratch, large table", "scratch, small": "scratch, small table", "LM": "LM, text",
    "LM, i.i.d.": "LM, single symbols", "LM, words": "LM, words shuffled",
    "LM, copies": "LM, copies", "LM, pairs": "LM, pairs", "LM, 250": "LM, 250 steps",
    "LM, 1000": "LM, 1,000 steps", "LM, 1500": "LM, 1,500 steps",
    "names permuted": "names permuted", "trunk only": "trunk alone",
    "embeddings only": "symbol table alone", "entries shuffled": "entries shuffled",
    "frozen": "frozen", "fixed order": "one other order", "scrambled": "order drawn anew",
    "MLP": "one vector (MLP)",
}  # fmt: skip
TESTS = ("in distribution", "novel pairs", "three pairs")
KINDS = ("start", "text", "words", "i.i.d.", "copies", "pairs")


def _points(
    panel: Panel, groups: dict[str, pd.Series], number: int, *, shift: float = 0.0,
    label: str = "", across: bool = False,
) -> None:  # fmt: skip
    """Means and 95 percent t-intervals, one a group, along x, or across it."""
    own = {name: values.dropna() for name, values in groups.items()}
    at = [place + shift for place, values in enumerate(own.values()) if len(values)]
    filled = [values for values in own.values() if len(values)]
    means = [values.mean() for values in filled]
    wide = [float(parts.half_widths(v.groupby(lambda _: 0)).iloc[0]) for v in filled]
    x, y = (means, at) if across else (at, means)
    panel.errorbar(
        x, y, xerr=wide if across else None, yerr=None if across else wide, ls="",
        marker=MARKERS[number], ms=4, color=colour(number), capsize=2, elinewidth=0.9,
        label=label or None,
    )  # fmt: skip


def _by(frame: pd.DataFrame, group: str, value: str, names: Sequence[str]) -> dict[str, pd.Series]:
    return {name: frame[frame[group] == name][value] for name in names}


@redrawable
def success_panels(curves: pd.DataFrame, ends: pd.DataFrame, looked: pd.DataFrame) -> Figure:
    """Success on novel pairs while cloning, on the three tests at the end, and the attention of one
    episode.

    curves : arm, seed, step, success. ends : arm, seed, and a column a test. looked : entity, word,
    weight, row, column.
    """
    figure, panels = plt.subplots(
        1, 3, figsize=(WIDTH, 2.9), layout="constrained", width_ratios=[1.25, 1, 0.95]
    )
    arms = [arm for arm in LABELS if arm in set(ends.arm)]
    look = looks(arms)
    panel = panels[0]
    for arm in arms:
        over = curves[curves.arm == arm].groupby("step").success
        means, wide = over.mean(), parts.half_widths(over)
        panel.plot(means.index, means, ms=3.5, label=LABELS[arm], **look[arm])
        panel.fill_between(
            means.index, (means - wide).clip(lower=0), (means + wide).clip(upper=1),
            color=look[arm]["color"], alpha=0.12, lw=0,
        )  # fmt: skip
    panel.set_xlabel("updates of cloning")
    panel.set_ylabel("success on novel pairs")
    panel.set_ylim(-0.02, 1.12)
    panel.set_title("while cloning")
    figure.legend(
        *panel.get_legend_handles_labels(), fontsize=6.5, loc="outside upper left", ncols=len(arms)
    )
    panel = panels[1]
    for number, arm in enumerate(arms):
        own = ends[ends.arm == arm]
        _points(
            panel, {test: own[test] for test in TESTS}, number,
            shift=0.16 * (number - (len(arms) - 1) / 2),
        )  # fmt: skip
    panel.set_xticks(range(3), ["known\npairs", "novel\npairs", "three\npairs"])
    panel.set_xlim(-0.5, 2.5)
    panel.set_ylim(-0.02, 1.12)
    panel.set_ylabel("success")
    panel.set_title("at the end")
    panel = panels[2]
    grid = looked.pivot(index="row", columns="column", values="weight")
    drawn = panel.imshow(grid, cmap="viridis", vmin=0, aspect="auto")
    words = looked.drop_duplicates("column").sort_values("column").word
    entities = looked.drop_duplicates("row").sort_values("row").entity
    panel.set_xticks(range(len(words)), list(words))
    panel.set_yticks(range(len(entities)), list(entities))
    panel.set_xlabel("word of the goal")
    panel.set_ylabel("entity that looks")
    panel.tick_params(length=0)
    panel.grid(visible=False)
    panel.set_title("one episode")
    figure.colorbar(drawn, ax=panel, aspect=24).set_label("attention, first block", size=7)
    parts.letters(figure)
    return figure


@redrawable
def origin_panels(
    arms: pd.DataFrame, matching: pd.DataFrame, gathered: pd.DataFrame, lengths: dict[str, int]
) -> Figure:
    """Novel pairs by what is kept of which language model, by the length of its training; how far
    tokens look for their equals; and success of gathering.

    arms : arm, seed, success. matching : kind, seed, value. gathered : arm, relabelled, seed,
    success. lengths : arm -> updates of its language model, 0 for none. Frames may be empty.
    """
    figure, panels = plt.subplots(
        1, 4, figsize=(WIDTH, 3.1), layout="constrained", width_ratios=[1.2, 1, 0.9, 0.9]
    )
    names = [arm for arm in LABELS if arm in set(arms.arm) and arm not in list(lengths)[2:]]
    panel = panels[0]
    _points(panel, _by(arms, "arm", "success", names), 0, across=True)
    panel.set_yticks(range(len(names)), [LABELS[arm] for arm in names], fontsize=6.5)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.set_xlim(-0.05, 1.15)
    panel.set_xlabel("success, novel pairs")
    panel.set_title("starts and inputs")
    panel = panels[1]
    run = {arm: steps for arm, steps in lengths.items() if arm in set(arms.arm)}
    if run:
        own = arms[arms.arm.isin(run)]
        over = own.groupby(own.arm.map(run)).success
        panel.errorbar(
            over.mean().index, over.mean(), yerr=np.asarray(parts.half_widths(over)),
            marker=MARKERS[1], color=colour(1), ms=4, capsize=2, lw=1.1, elinewidth=0.9,
        )  # fmt: skip
    panel.set_ylim(-0.05, 1.12)
    panel.set_title("length of the LM")
    panel.set_xlabel("updates of the LM")
    panel.set_ylabel("success, novel pairs")
    panel = panels[2]
    kinds = [kind for kind in KINDS if kind in set(matching.kind)]
    _points(panel, _by(matching, "kind", "value", kinds), 2)
    panel.set_xticks(range(len(kinds)), kinds, rotation=60)
    panel.axhline(0, color=GREY, lw=0.9, ls=":")
    panel.set_ylabel("tr M / ‖M‖, first block")
    panel.set_title("matching")
    panel = panels[3]
    for number, again in enumerate((True, False)):
        own = gathered[gathered.relabelled == again] if len(gathered) else gathered
        _points(
            panel, _by(own, "arm", "success", ["LM", "scratch, small"]), 3 + number,
            shift=0.2 * (number - 0.5), label="relabelled" if again else "successes",
        )  # fmt: skip
    panel.set_xticks(range(2), ["LM", "scratch"])
    panel.set_xlim(-0.6, 1.6)
    panel.set_ylim(-0.05, 1.12)
    panel.set_ylabel("success, one novel pair")
    panel.set_title("gathering")
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=6, loc="upper left")
    parts.letters(figure)
    return figure
