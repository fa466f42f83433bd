"""Panels of the notebooks on fully connected networks (paper A, Table 1 and Figures 4.1 to 4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rclib.plots.panels import curves
from rclib.plots.style import WIDTH, shown

__all__ = ["coordinate_panels", "exponents_over_time", "share_panels", "transfer_panels"]


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
        figsize=(7.0, 2.0 * len(rows)),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for i, (quantity, label) in enumerate(rows.items()):
        for j, name in enumerate(columns):
            panel = panels[i, j]
            chosen = frame[(frame.quantity == quantity) & (frame.parametrization == name)]
            curves(panel, chosen, x="width", y="rms", by="layer")
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            if i == 0:
                panel.set_title(shown(name))
            if j == 0:
                panel.set_ylabel(label)
            if i == len(rows) - 1:
                panel.set_xlabel("width N")
    panels[0, -1].legend(title="layer", loc="best")
    return figure


def share_panels(frame: pd.DataFrame, *, columns: Sequence[str]) -> Figure:
    """Share of ‖W‖² in the k leading outer products against k, one panel a parametrisation.

    frame : columns `parametrization`, `matrix`, `k`, `seed`, `share`.
    """
    figure, panels = plt.subplots(1, len(columns), figsize=(7.0, 2.3), sharey=True, squeeze=False)
    for panel, name in zip(panels[0], columns, strict=True):
        curves(
            panel,
            frame[frame.parametrization == name],
            x="k",
            y="share",
            by="matrix",
            markers=False,
        )
        panel.set_xscale("log")
        panel.set_ylim(0, 1.02)
        panel.set_title(shown(name))
        panel.set_xlabel("number k of outer products")
    panels[0, 0].set_ylabel("share of the squared norm")
    panels[0, 0].legend(loc="lower right")
    return figure


def exponents_over_time(frame: pd.DataFrame, *, predicted: Mapping[str, float]) -> Figure:
    """Fitted exponents against the epoch, one panel a variant, one line an index.

    frame : columns `bias`, `index`, `seed`, `epoch`, `exponent`. predicted : variant -> exponent
    of the theory, drawn dotted; its keys choose and order the panels.
    """
    figure, panels = plt.subplots(
        1,
        len(predicted),
        figsize=(min(2.6 * len(predicted), WIDTH), 2.4),
        sharey=True,
        squeeze=False,
    )
    for panel, (name, value) in zip(panels[0], predicted.items(), strict=True):
        curves(panel, frame[frame.bias == name], x="epoch", y="exponent", by="index")
        panel.axhline(value, color="0.3", lw=0.9, ls=":")
        panel.set_xscale("log")
        epochs = sorted(set(frame.epoch))
        if len(epochs) <= 6:  # a few are named themselves
            panel.set_xticks(epochs, [f"{epoch:g}" for epoch in epochs])
            panel.xaxis.minorticks_off()
        panel.set_xlabel("epoch")
        panel.set_title(name)
    panels[0, 0].set_ylabel("exponent of N in the spread")
    panels[0, -1].legend()
    return figure


def transfer_panels(
    columns: Mapping[str, pd.DataFrame], *, transfer_epoch: int, chance_accuracy: float
) -> Figure:
    """Figure 4.3's six panels: training loss above, test accuracy below, three columns.

    columns : title -> long data with columns `epoch`, `train_loss`, `test_accuracy`, `seed`,
    `name`; the second and third column show transfers at `transfer_epoch`.
    """
    figure, panels = plt.subplots(
        2, len(columns), figsize=(min(3.0 * len(columns), WIDTH), 4.9), sharey="row", squeeze=False
    )
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    for i, y in enumerate(("train_loss", "test_accuracy")):
        for j, (title, frame) in enumerate(columns.items()):
            panel = panels[i, j]
            curves(panel, frame, x="epoch", y=y, by="name")
            panel.set_title(f"({next(letters)}) {title if i == 0 else ''}".rstrip())
            if j > 0:
                panel.axvline(transfer_epoch, color="0.4", lw=0.8, ls=":")
            if i == 1:
                panel.axhline(chance_accuracy, color="0.4", lw=0.8, ls="--")
                panel.set_xlabel("epoch")
                # Below the column, where it hides no curve.
                panel.legend(fontsize=6, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.24))
    panels[0, 0].set_ylabel("training loss (nats)")
    panels[1, 0].set_ylabel("test accuracy")
    return figure
