"""Panels of the notebooks on fully connected networks (paper A, Table 1 and Figures 4.1 to 4.3).

Functions that return a figure are `rclib.plots.drawing.redrawable`: a label that is changed here is
seen at once with `python -m rclib redraw NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure

from rclib.plots import panels as shared
from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.panels import curves
from rclib.plots.style import GREY, WIDTH, Look, looks, ordered, shown

__all__ = [
    "changes",
    "coordinate_panels",
    "exponents_by_index",
    "heat_maps",
    "share_panels",
    "spreads",
    "transfer_panels",
    "zero_shot",
]


@redrawable
def coordinate_panels(
    frame: pd.DataFrame, *, rows: Mapping[str, str], columns: Sequence[str]
) -> Figure:
    """Size against width in log-log, one panel a quantity (rows) and parametrisation (columns).

    frame : columns `quantity`, `parametrization`, `layer`, `width`, `seed`, `rms`.
    rows : quantity -> axis label.
    """
    figure, panels = plt.subplots(
        len(rows),
        len(columns),
        figsize=(WIDTH, 2.0 * len(rows)),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    look = looks(list(frame.layer.unique()))
    for i, (quantity, label) in enumerate(rows.items()):
        for j, name in enumerate(columns):
            panel = panels[i, j]
            chosen = frame[(frame.quantity == quantity) & (frame.parametrization == name)]
            curves(panel, chosen, x="width", y="rms", by="layer", look=look)
            parts.size_axis(panel, list(frame.width.unique()))
            parts.log_axis(panel, "y")
            if i == 0:
                panel.set_title(shown(name))
            if j == 0:
                panel.set_ylabel(label)
            if i == len(rows) - 1:
                panel.set_xlabel("width N")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, title="layer", loc="outside upper center", ncols=len(labels))
    return figure


@redrawable
def heat_maps(maps: Mapping[str, Mapping[str, np.ndarray]], *, width: int, epochs: int) -> Figure:
    """Figure 4.1: the maps of `rclib.experiments.mean_field.figure_4_1.maps`, parametrisations
    below each other. width : of the network; epochs : trained for."""
    titles = {
        "start": "start",
        "trained": f"after {epochs} epochs",
        "start, sorted": "start, sorted",
        "trained, sorted": f"after {epochs} epochs, sorted",
    }
    below = {
        titles["start, sorted"]: "sorted as\nat the right",
        titles["trained, sorted"]: "sorted by leading\nsingular vectors",
    }
    named = {row: {titles[c]: values for c, values in of.items()} for row, of in maps.items()}
    figure = shared.heat_maps(named, x="in neuron j", y="out neuron i", below=below)
    shape = next(iter(next(iter(maps.values())).values())).shape
    some = f", {shape[0]} of {width} neurons" if shape[0] < width else f", N = {width}"
    figure.suptitle(f"$W_2[i, j]${some}", fontsize=9)
    return figure


@redrawable
def changes(frame: pd.DataFrame, *, power: float) -> Figure:
    """Relative change of the middle matrix: columns parametrization, width, seed, change.
    power : predicted slope under μP, drawn dotted."""
    figure = shared.power_laws(
        {"middle layer": frame.rename(columns={"width": "x", "change": "y"})},
        x={"middle layer": "width N"},
        y={"middle layer": "relative change of $W_2$"},
        by="parametrization",
    )
    panel = figure.axes[0]
    of_mup = frame[frame.parametrization == "muP"].groupby("width").change.mean()
    # Between the lines, so that it hides none.
    parts.guide(panel, list(of_mup.index), 2.2 * of_mup.iloc[0], power)
    return figure


@redrawable
def spreads(frame: pd.DataFrame, *, variants: Sequence[str], slopes: Mapping[str, float]) -> Figure:
    """How far training moves neurons apart, against the width: columns bias, index, width, seed,
    spread. variants : of the bias, one panel each; slopes : variant -> predicted."""
    frames = {
        name: frame[frame.bias == name].rename(columns={"width": "x", "spread": "y"})
        for name in variants
    }
    return shared.power_laws(
        frames, x=dict.fromkeys(frames, "width N"),
        y=dict.fromkeys(frames, "spread of the change of W.C"), by="index", slopes=slopes,
    )  # fmt: skip


@redrawable
def share_panels(frame: pd.DataFrame, *, columns: Sequence[str]) -> Figure:
    """Share of ‖W‖² in the k leading outer products against k, one panel a parametrisation.

    frame : columns `parametrization`, `matrix`, `k`, `seed`, `share`.
    """
    figure, panels = plt.subplots(1, len(columns), figsize=(WIDTH, 2.4), sharey=True, squeeze=False)
    look = looks(list(frame.matrix.unique()))
    for panel, name in zip(panels[0], columns, strict=True):
        curves(
            panel,
            frame[frame.parametrization == name],
            x="k",
            y="share",
            by="matrix",
            markers=False,
            look=look,
        )
        parts.log_axis(panel, "x")
        panel.set_ylim(0, 1.02)
        panel.set_title(shown(name))
        panel.set_xlabel("number k of outer products")
    panels[0, 0].set_ylabel("share of the squared norm")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


@redrawable
def exponents_by_index(frame: pd.DataFrame, *, predicted: Mapping[str, float]) -> Figure:
    """Fitted exponents, one panel a variant: the indices side by side, one point an epoch, with
    the range over seeds.

    frame : columns `bias`, `index`, `seed`, `epoch`, `exponent`. predicted : variant -> exponent
    of the theory, drawn dotted; its keys choose and order the panels. The panels have ranges of
    one length, each around its prediction.
    """
    figure, panels = plt.subplots(
        1, len(predicted), figsize=(min(2.6 * len(predicted), WIDTH), 2.5), squeeze=False
    )
    indices, look = list(dict.fromkeys(frame["index"])), ordered(list(frame.epoch.unique()))
    aims = frame.bias.map(predicted)
    reach = 1.15 * float((frame.exponent - aims).abs().max())
    for panel, (name, value) in zip(panels[0], predicted.items(), strict=True):
        for k, (epoch, own) in enumerate(look.items()):
            chosen = frame[(frame.bias == name) & (frame.epoch == epoch)]
            of = chosen.groupby("index").exponent.agg(["mean", "min", "max"]).reindex(indices)
            place = np.arange(len(indices)) + 0.5 * ((k + 0.5) / len(look) - 0.5)
            bars = [of["mean"] - of["min"], of["max"] - of["mean"]]
            panel.errorbar(
                place, of["mean"], yerr=bars, fmt=own["marker"], color=own["color"], ms=3.5,
                elinewidth=0.8, capsize=1.5, label=f"epoch {epoch:g}",
            )  # fmt: skip
        panel.set_ylim(value - reach, value + reach)
        panel.set_xlim(-0.6, len(indices) - 0.4)
        panel.axhline(value, color=GREY, lw=0.9, ls=":", zorder=1.5, label="predicted")
        panel.set_xticks(range(len(indices)), indices)
        panel.set_xlabel("index of the neurons")
        panel.set_title(name)
    panels[0, 0].set_ylabel("exponent of N in the spread")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(labels)))
    return figure


@redrawable
def transfer_panels(
    columns: Mapping[str, pd.DataFrame], *, transfer_epoch: int, chance_accuracy: float
) -> Figure:
    """Figure 4.3's six panels: training loss above, test accuracy below, three columns; and below
    them where each line of a column ends.

    columns : title -> long data with columns `epoch`, `train_loss`, `test_accuracy`, `seed`,
    `name`; the second and third column show transfers at `transfer_epoch`.
    """
    figure = plt.figure(figsize=(min(3.0 * len(columns), WIDTH), 6.6))
    grid = figure.add_gridspec(3, len(columns), height_ratios=[1, 1, 0.75])
    above: dict[int, Panel] = {}
    last = max(int(frame.epoch.max()) for frame in columns.values())
    for j, (title, frame) in enumerate(columns.items()):
        look = looks(list(frame.name.unique()))
        for i, (y, what) in enumerate(
            (("train_loss", "training loss (nats)"), ("test_accuracy", "test accuracy"))
        ):
            panel = figure.add_subplot(grid[i, j], sharey=above.get(i))
            above.setdefault(i, panel)
            curves(panel, frame, x="epoch", y=y, by="name", look=look)
            panel.set_title(f"({chr(97 + len(columns) * i + j)}) {title}")
            parts.few_ticks(panel)
            if i == 1:
                panel.set_xlabel("epoch")
            if j == 0:
                panel.set_ylabel(what)
            else:
                panel.tick_params(labelleft=False)
            if j > 0:
                parts.moment(panel, transfer_epoch, "transfer" if i == 0 else "")
            if i == 1:
                parts.level(panel, chance_accuracy, "chance", ls="--")
        ends = figure.add_subplot(grid[2, j])
        _ends(ends, frame[frame.epoch == last], look)
        ends.set_title(f"({chr(97 + 2 * len(columns) + j)}) {title}")
        ends.set_xlabel(f"training loss, epoch {last}")
    return figure


def _ends(panel: Panel, frame: pd.DataFrame, look: Mapping[str, Look]) -> None:
    """Where the lines end, one row a name, and so the legend of the panels above."""
    for i, (name, own) in enumerate(look.items()):
        values = frame[frame.name == name].train_loss
        # Lines that end before have their name and line alone.
        panel.plot(
            [-0.16, -0.02], [i, i], color=own["color"], ls=own["linestyle"], marker=own["marker"],
            markevery=[0], ms=3.5, transform=panel.get_yaxis_transform(), clip_on=False,
        )  # fmt: skip
        if len(values):
            panel.plot([values.min(), values.max()], [i, i], color=own["color"], lw=1.0)
            panel.plot(values.mean(), i, color=own["color"], marker=own["marker"], ls="")
    panel.set_ylim(len(look) - 0.5, -0.5)
    panel.set_yticks(range(len(look)), [shown(name) for name in look], fontsize=6)
    panel.tick_params(axis="y", length=0, pad=24)
    panel.spines["left"].set_visible(False)


@redrawable
def zero_shot(by_target: pd.DataFrame, by_source: pd.DataFrame, *, power: float) -> Figure:
    """Difference of the logits right after a transfer: against the target's width, one panel a
    source, and in the last panel against the source's width.

    by_target : source, target, seed, distance. by_source : source, seed, distance, and `target`,
    one width. power : slope of the dotted lines.
    """
    sources = sorted(by_target.source.unique())
    columns = min(3, len(sources) + 1)
    rows = -(-(len(sources) + 1) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(min(2.4 * columns, WIDTH), 2.1 * rows), sharey=True, squeeze=False
    )
    panels = list(grid.flat)
    for panel in panels[len(sources) + 1 :]:
        panel.set_visible(False)
    own = looks(["RC sampling"])
    parted: list[tuple[Panel, pd.DataFrame, str]] = [
        (
            panel,
            by_target[by_target.source == source].assign(x=lambda t: t.target),
            f"from N = {source}",
        )
        for panel, source in zip(panels, sources, strict=False)
    ]
    largest = by_target.target.max()
    last = panels[len(sources)]
    parted.append((last, by_source.assign(x=by_source.source), f"to N′ = {largest}"))
    for panel, frame, title in parted:
        named = frame.assign(line="RC sampling")
        curves(panel, named, x="x", y="distance", by="line", look=own)
        parts.size_axis(panel, list(frame.x.unique()))
        parts.log_axis(panel, "y")
        panel.set_title(title)
        panel.set_xlabel("source width N" if panel is last else "target width N′")
    for panel, frame, _ in parted:
        start = frame.groupby("x").distance.mean().iloc[0]
        parts.guide(panel, list(frame.x.unique()), start, power)
    for panel in grid[:, 0]:
        panel.set_ylabel("rms logit difference")
    return figure
