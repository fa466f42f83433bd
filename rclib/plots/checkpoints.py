"""Figures of checkpoints: Figure 4.4, heat maps of blocks, spectra of all matrices.

Functions take results and draw them; they compute nothing. Colours, markers and line styles
are those of `rclib.plots.style`. Functions that return a figure are
`rclib.plots.drawing.redrawable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from rclib.plots import parts
from rclib.plots.drawing import redrawable
from rclib.plots.style import DASHES, DIVERGING, FIXED, GREY, MARKERS, WIDTH, Look, colour, looks

__all__ = [
    "block_heat_maps",
    "eigenvalue_histograms",
    "largest_by_vector",
    "largest_correlations",
    "matrices",
    "p_values",
    "spectra_over_blocks",
]


def _grid(count: int, *, columns: int, width: float, height: float) -> tuple[Figure, list[Panel]]:
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, sharex=True
    )
    panels = list(grid.flat)
    for panel in panels[count:]:
        panel.set_visible(False)
    for panel in panels[:count]:
        panel.tick_params(labelbottom=True)
    for panel in panels[max(0, count - columns) : count]:
        panel.set_xlabel("block")
    return figure, panels[:count]


def _line(panel: Panel, i: int, x: Sequence[float], y: Sequence[float], **options: object) -> None:
    panel.plot(
        x,
        y,
        color=colour(i),
        marker=MARKERS[i % len(MARKERS)],
        linestyle=DASHES[i % len(DASHES)],
        ms=3.5,
        lw=1.2,
        **options,  # type: ignore[arg-type]
    )


def _up_to(panels: Sequence[Panel], *values: pd.Series[float]) -> None:
    """From 0 to a little above all values, at most to 1: what lies on the floor is not seen."""
    top = max(float(value.max()) for value in values)
    for panel in panels:
        panel.set_ylim(0, min(1.02, 1.15 * top) if top > 0 else 1.02)


def _source_looks(sources: Sequence[str]) -> dict[str, tuple[Look, bool]]:
    """How each source looks, and whether its markers are hollow: "MF, step 0" and "MF, step 9" are
    of one colour, the first of them is hollow."""
    heads = [source.split(",")[0] for source in sources]
    several = {head for head in heads if head in FIXED and heads.count(head) > 1}
    by_head = looks([h if h in several else s for h, s in zip(heads, sources, strict=True)])
    found: dict[str, tuple[Look, bool]] = {}
    for head, source in zip(heads, sources, strict=True):
        if head not in several:
            found[source] = (by_head[source], False)
            continue
        first = head not in [other.split(",")[0] for other in found]
        own = by_head[head]
        dashes = ":" if first else "-"
        found[source] = ({**own, "linestyle": dashes}, first)  # type: ignore[typeddict-item]
    return found


@redrawable
def largest_correlations(frame: pd.DataFrame) -> Figure:
    """Figure 4.4: the largest |correlation| of each block, one panel an index set.

    frame : columns source, block, set, value, chance; one line a source, and dotted the 95 percent
    level of chance (of each source in its colour, where they differ). Several rows of one source
    and block (seeds) give their mean and, as a bar, their range.
    """
    frame = frame[frame.block.notna()]
    sets, sources = list(dict.fromkeys(frame.set)), list(dict.fromkeys(frame.source))
    figure, panels = _grid(len(sets) + (len(sets) > 1), columns=3, width=2.33, height=2.0)
    look = _source_looks(sources)
    for panel, name in zip(panels, sets, strict=False):
        here = frame[frame.set == name]
        one_level = here.groupby("block").chance.nunique().max() == 1
        for i, source in enumerate(sources):
            chosen = here[here.source == source]
            if chosen.empty:
                continue
            own, hollow = look[source]
            by_block = chosen.groupby("block")
            mean, blocks = by_block.value.mean(), np.array([int(b) for b in by_block.groups])
            bars = [mean - by_block.value.min(), by_block.value.max() - mean]
            beside = 0.07 * (i - (len(sources) - 1) / 2)  # no source hides another
            panel.errorbar(
                blocks + beside, mean, yerr=bars if chosen.block.duplicated().any() else None,
                label=source, ms=3.5, lw=1.2, elinewidth=0.7,
                mfc="white" if hollow else own["color"], **own,
            )  # fmt: skip
            level = by_block.chance.mean()
            if not one_level:
                panel.plot(blocks, level, color=own["color"], ls=":", lw=1.0)
            elif i == 0:
                panel.plot(blocks, level, color=GREY, ls=":", lw=1.0)
        panel.set_title(name)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in panels[max(0, len(sets) - 3) : len(sets)]:
        panel.set_xlabel("block")
    _up_to(panels, frame.value, frame.chance)
    for panel in panels[: len(sets) : 3]:
        panel.set_ylabel("largest |correlation|")
    panels[0].plot([], [], color=GREY, ls=":", lw=1.0, label="chance, 95 %")
    handles, labels = panels[0].get_legend_handles_labels()
    if len(sets) > 1:  # the last cell is for the legend
        panels[len(sets)].set_axis_off()
        panels[len(sets)].legend(handles, labels, loc="center left")
    else:
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 3))
    return figure


@redrawable
def largest_by_vector(frame: pd.DataFrame, chance: pd.DataFrame) -> Figure:
    """Each vector's largest |correlation| with another one of its set, one row a set.

    frame : columns block, set, vector, value. chance : columns block, set, chance (of the
    largest of all pairs), drawn dotted.
    """
    frame, chance = frame[frame.block.notna()], chance[chance.block.notna()]
    sets = list(dict.fromkeys(frame.set))
    figure, grid = plt.subplots(
        len(sets), 1, figsize=(6.2, 2.0 * len(sets)), squeeze=False, sharex=True
    )
    for panel, name in zip(grid[:, 0], sets, strict=True):
        chosen = frame[frame.set == name]
        for i, (vector, group) in enumerate(chosen.groupby("vector", sort=False)):
            _line(panel, i, list(group.block), list(group.value), label=str(vector))
        level = chance[chance.set == name]
        panel.plot(level.block, level.chance, color=GREY, ls=":", lw=1.0, label="chance, 95 %")
        panel.set_title(name)
        _up_to([panel], chosen.value, level.chance)
        panel.set_ylabel("largest |correlation|")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend(fontsize=5, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    grid[-1, 0].set_xlabel("block")
    return figure


@redrawable
def block_heat_maps(
    matrices: Mapping[str, tuple[Sequence[str], np.ndarray, float]], *, title: str
) -> Figure:
    """Correlation matrices of one block, one panel an index set.

    matrices : set -> (labels, (K, K) matrix, 95 percent level of chance). Pairs above the level
    carry a dot.
    """
    counts = [max(3, len(labels)) for labels, _, _ in matrices.values()]
    figure, grid = plt.subplots(
        1,
        len(matrices),
        figsize=(0.225 * sum(counts) + 0.55 * len(counts) + 0.6, 0.225 * max(counts) + 1.4),
        squeeze=False,
        width_ratios=counts,
    )
    image: AxesImage | None = None
    for panel, (name, (labels, matrix, level)) in zip(grid[0], matrices.items(), strict=True):
        image = panel.imshow(matrix, cmap=DIVERGING, vmin=-1, vmax=1)
        panel.set_xticks(range(len(labels)), labels, rotation=90, fontsize=5)
        panel.set_yticks(range(len(labels)), labels, fontsize=5)
        panel.grid(False)
        sns.despine(ax=panel, left=True, bottom=True)
        panel.set_title(f"{name}\nchance {level:.2f}", fontsize=6.5)
        panel.set_anchor("N")  # titles at one height
        rows, columns = np.nonzero((np.abs(matrix) > level) & ~np.eye(len(labels), dtype=bool))
        panel.plot(columns, rows, ls="", marker=".", ms=2.5, color="black")
    assert image is not None
    # panchor: the anchor above would be undone.
    figure.colorbar(image, ax=grid, shrink=0.8, label="correlation over neurons", panchor=False)
    figure.suptitle(
        f"{title}\ndots: above chance, which independent vectors stay below in 95 % of cases",
        fontsize=8,
    )
    return figure


@redrawable
def p_values(frame: pd.DataFrame) -> Figure:
    """Share of tests with a p-value of at most p; the diagonal is what chance alone gives.

    frame : columns group, p (ascending), share.
    """
    figure, panel = plt.subplots(figsize=(3.6, 3.0))
    look = looks(list(frame.group.unique()))
    for name, group in frame.groupby("group", sort=False):
        own = look[str(name)]
        panel.step(
            group.p, group.share, where="post", color=own["color"], ls=own["linestyle"],
            label=str(name),
        )  # fmt: skip
    panel.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1.0, label="chance")
    panel.set_xlabel("p-value, corrected for the pairs")
    panel.set_ylabel("share of tests at most p")
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1.02)
    panel.legend(fontsize=6, loc="lower right")
    return figure


def matrices(frame: pd.DataFrame) -> Figure:
    """Every matrix of a model in a line: exponent beside noise, tail ratio, spikes, correlation.

    frame : columns of, layer, block, alpha_hill, alpha_hill_low, alpha_hill_high, alpha_noise,
    tail_ratio, spikes, correlation, chance; one colour a value of `of`.
    """
    layers = list(dict.fromkeys(frame.layer))
    place = {layer: i for i, layer in enumerate(layers)}
    figure, panels = plt.subplots(4, 1, figsize=(WIDTH, 7.2), sharex=True)
    colours = sns.color_palette("colorblind")
    sources = list(dict.fromkeys(frame.of))
    for i, of in enumerate(sources):
        group = frame[frame.of == of]
        aside = 0.25 * (i - (len(sources) - 1) / 2)
        x = group.layer.map(place).to_numpy(dtype=float) + aside
        colour, options = colours[i], {"ls": "", "marker": MARKERS[i], "ms": 3}
        level = {"ls": "", "marker": "_", "ms": 6, "color": colour, "alpha": 0.7}
        alpha = group.alpha_hill.to_numpy(dtype=float)
        low, high = (group[f"alpha_hill_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
        bars = np.stack([alpha - low, high - alpha])
        panels[0].errorbar(x, alpha, bars, color=colour, elinewidth=0.7, label=str(of), **options)
        panels[0].plot(x, group.alpha_noise.to_numpy(dtype=float), **level)
        for panel, name in zip(panels[1:3], ("tail_ratio", "spikes"), strict=True):
            panel.plot(x, group[name].to_numpy(dtype=float), color=colour, **options)
        panels[3].plot(x, group.correlation.abs().to_numpy(dtype=float), color=colour, **options)
        panels[3].plot(x, group.chance.to_numpy(dtype=float), **level)
    panels[0].plot([], [], ls="", marker="_", ms=6, color="0.2", label="noise of the shape")
    panels[3].plot([], [], ls="", marker="_", ms=6, color="0.2", label="chance, 95 percent level")
    panels[1].axhline(1.0, color="0.3", lw=0.9, ls=":", label="below: power law nearer")
    panels[1].set_yscale("log")
    panels[2].set_yscale("symlog", linthresh=1.0)
    panels[2].set_ylim(bottom=0)
    panels[3].set_ylim(0, 1.02)
    labels = ("α hill", "tail ratio", "spikes", "|correlation|")
    for panel, label in zip(panels, labels, strict=True):
        panel.set_ylabel(label)
    for panel in (panels[0], panels[1], panels[3]):
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=6)
    step = -(-len(layers) // 60)  # as many names as can be read
    shown = [layer if len(layer) < 60 else f"...{layer[-57:]}" for layer in layers[::step]]
    panels[3].set_xticks(range(0, len(layers), step), shown, rotation=90, fontsize=5)
    panels[3].set_xlim(-0.5, len(layers) - 0.5)
    return figure


@redrawable
def spectra_over_blocks(frame: pd.DataFrame, *, rows: Mapping[str, str]) -> Figure:
    """Quantities of every matrix against the block, one panel each, one line a matrix.

    frame : columns block, matrix and the keys of `rows`, quantity -> axis label.
    """
    frame = frame[frame.block.notna()]
    figure, panels = _grid(len(rows), columns=2, width=3.3, height=2.2)
    for panel, (quantity, label) in zip(panels, rows.items(), strict=True):
        for i, (name, group) in enumerate(frame.groupby("matrix", sort=False)):
            _line(panel, i, list(group.block), list(group[quantity]), label=str(name))
        panel.set_ylabel(label)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        values = frame[quantity].dropna()
        if len(values) and (values == values.iloc[0]).all():  # no range to show: one around it
            middle = float(values.iloc[0])
            panel.set_ylim(min(0.0, 2.0 * middle), max(0.0, 2.0 * middle) or 1.0)
        if pd.api.types.is_integer_dtype(values):
            panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=6)
    return figure


@redrawable
def eigenvalue_histograms(frame: pd.DataFrame) -> Figure:
    """Histograms of log10 of the eigenvalues, one row a matrix, one column a block.

    frame : columns block (its number, missing outside the blocks), matrix, left, right, density,
    law (the Marchenko-Pastur law of the bulk, dashed).
    """
    place = frame.block.map(lambda b: f"block {b:g}", na_action="ignore").fillna(
        "outside the blocks"
    )
    frame = frame.assign(block=place)
    names, blocks = list(dict.fromkeys(frame.matrix)), list(dict.fromkeys(frame.block))
    figure, grid = plt.subplots(
        len(names), len(blocks), figsize=(2.2 * len(blocks), 1.5 * len(names)), squeeze=False
    )
    bright, dark = colour(0), colour(3)
    for i, name in enumerate(names):
        for j, block in enumerate(blocks):
            panel = grid[i, j]
            bins = frame[(frame.matrix == name) & (frame.block == block)]
            if bins.empty:
                panel.set_visible(False)
                continue
            edges = [*bins.left, bins.right.iloc[-1]]
            panel.stairs(bins.density, edges, fill=True, color=bright)
            panel.stairs(bins.law, edges, color=dark, ls="--", lw=0.9)
            parts.log_axis(panel, "y")
            seen = bins.density[bins.density > 0]
            panel.set_ylim(0.5 * seen.min(), 3.0 * max(seen.max(), bins.law.fillna(0).max()))
            panel.xaxis.set_major_locator(MaxNLocator(4))
            panel.set_title(f"{name}, {block}", fontsize=6)
            if i == len(names) - 1:
                panel.set_xlabel(r"$\log_{10}\,\lambda$")
            if j == 0:
                panel.set_ylabel("density")
    return figure
