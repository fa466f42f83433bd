"""Parts that figures are made of: reference lines that say what they are, logarithmic axes with
numbers on them, names at the ends of lines.

What is written into a panel looks for a place where no line runs, so these come last, when the
panel has its lines and ranges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from rclib.plots.style import GREY
from rclib.stats.sequential import interval

__all__ = [
    "direct_labels",
    "few_ticks",
    "guide",
    "half_widths",
    "letters",
    "level",
    "log_axis",
    "moment",
    "number",
    "power_text",
    "size_axis",
    "write_into",
]

SMALL = 6.0  # points, of what is written into a panel
_HALO = [effects.withStroke(linewidth=2.0, foreground="white")]


def number(value: float, digits: int = 3) -> str:
    """A number as it is printed: a true minus sign, and powers of ten set as such.

    `number(-0.5)` is "−0.5", `number(1.2e6)` is "$1.2\\times10^{6}$".
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}".replace("-", "−")
    rounded = float(f"{value:.{digits}g}")
    exponent = math.floor(math.log10(abs(rounded)))
    if -5 < exponent < 5:
        return f"{rounded:.{digits + 3}g}".replace("-", "−")
    factor = rounded / 10.0**exponent
    power = f"10^{{{exponent}}}"
    if abs(factor - 1) < 1e-9:
        return f"${power}$"
    return f"${factor:.{digits}g}\\times{power}$"


def half_widths(over: Any) -> pd.Series:
    """Half widths of the 95 percent t-intervals of the means of grouped values (a SeriesGroupBy),
    by group; 0 for a group of one. Error bars of few repeats: at 5 they are 1.42 times as long as
    1.96 standard errors. Raises ValueError for values that are not finite."""
    groups = {key: interval(values.tolist(), 0.05) for key, values in over}
    return pd.Series({key: mean - low for key, (mean, low, _) in groups.items()}, dtype=float)


def power_text(power: float) -> str:
    """The name of a slope in logarithmic axes: "slope −1/2"."""
    twice = round(2 * power)
    halves = twice % 2 and math.isclose(2 * power, twice)
    text = f"{twice}/2" if halves else f"{power:g}"
    return f"slope {text}".replace("-", "−")


class _Decades(LogLocator):
    """Powers of ten where three are in sight; 1 and 3, or 1, 2 and 5 times them where fewer are."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        low, high = sorted((vmin, vmax))
        if not (0 < low < high < math.inf):
            return super().tick_values(vmin, vmax)
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        powers = 10.0 ** np.arange(first, last + 1)
        long = low < 3e-4 or high > 2e5  # numbers that are written as products take much room
        for factors in ([1], [1, 3], [1, 2, 5], [1, 2, 3, 4, 5, 7]):
            ticks = np.sort(np.outer(powers, factors).ravel())
            seen = ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]
            if len(seen) >= (2 if long else 3):
                return seen[:: -(-len(seen) // 7)] if factors == [1] else seen
        return MaxNLocator(3).tick_values(low, high)


class _Numbers(Formatter):
    """Numbers as `number` prints them; where one is a power of ten, all powers of ten are."""

    def __call__(self, value: float, place: int | None = None) -> str:
        return number(value)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        texts = [number(value) for value in values]
        if not any(text.startswith("$10^") for text in texts):
            return texts
        powers = [math.log10(value) if value > 0 else 0.5 for value in values]
        return [
            f"$10^{{{round(power)}}}$" if abs(power - round(power)) < 1e-9 else text
            for text, power in zip(texts, powers, strict=True)
        ]


def log_axis(panel: Panel, which: str) -> None:
    """A logarithmic axis ("x" or "y") on which at least two numbers stand, none of them twice."""
    axis = panel.xaxis if which == "x" else panel.yaxis
    (panel.set_xscale if which == "x" else panel.set_yscale)("log")
    axis.set_major_locator(_Decades())
    axis.set_major_formatter(_Numbers())
    axis.set_minor_formatter(NullFormatter())


def size_axis(panel: Panel, sizes: Sequence[float], which: str = "x") -> None:
    """A logarithmic axis for sizes: up to six are named themselves, else as `log_axis`."""
    values = sorted({float(size) for size in sizes})
    if len(values) > 6:
        log_axis(panel, which)
        return
    (panel.set_xscale if which == "x" else panel.set_yscale)("log")
    axis = panel.xaxis if which == "x" else panel.yaxis
    # A width is a whole number, and 1024 is not 1020.
    names = [f"{v:.0f}" if v < 1e6 and v.is_integer() else number(v) for v in values]
    axis.set_ticks(values, labels=names)
    axis.set_minor_locator(NullLocator())


def few_ticks(panel: Panel, which: str = "x", most: int = 5) -> None:
    """Whole numbers on an axis that counts."""
    axis = panel.xaxis if which == "x" else panel.yaxis
    axis.set_major_locator(MaxNLocator(most, integer=True))


def level(panel: Panel, value: float, text: str, *, ls: str = ":", name_it: bool = True) -> None:
    """A horizontal reference line with its name at it (`name_it`: in one of several panels)."""
    panel.axhline(value, color=GREY, lw=0.9, ls=ls, zorder=1.5)
    if name_it and text:
        write_into(panel, text, near=value)


def moment(panel: Panel, value: float, text: str, *, ls: str = ":") -> None:
    """A vertical reference line with its name along it, where least else runs: at its top or
    bottom, to the left or the right."""
    panel.axvline(value, color=GREY, lw=0.9, ls=ls, zorder=1.5)
    if not text:
        return
    high, wide = _extent(panel, text, SMALL, upright=True)
    lines = _in_panel(panel)
    (x, _) = panel.transAxes.inverted().transform(
        panel.transData.transform((value, panel.get_ylim()[0]))
    )
    places = [
        (at, down, side, _covered(lines, (x + side * wide / 2, middle), (wide, high)))
        for at, down, middle in ((0.98, "top", 0.98 - high / 2), (0.02, "bottom", 0.02 + high / 2))
        for side in (-1, 1)
    ]
    at, down, side, _ = min(places, key=lambda place: place[3])  # the first of equally good ones
    panel.annotate(
        text, (value, at), xycoords=("data", "axes fraction"), xytext=(2 * side, 0),
        textcoords="offset points", rotation=90, ha="right" if side < 0 else "left", va=down,
        size=SMALL, color=GREY, path_effects=_HALO,
    )  # fmt: skip


def guide(panel: Panel, sizes: Sequence[float], start: float, power: float) -> None:
    """A dotted line of slope `power` in logarithmic axes, through (sizes[0], start), with its
    name beside it."""
    x = np.array(sorted(sizes), dtype=float)
    y = start * (x / x[0]) ** power
    panel.plot(x, y, color=GREY, lw=0.9, ls=":", zorder=1.5, label=power_text(power))
    panel.lines[-1].set_gid("guide")
    _along(panel, power_text(power), x, y)


def write_into(panel: Panel, text: str, *, near: float | None = None, size: float = SMALL) -> None:
    """Write where least of the panel's lines, markers and error bars runs: at the height `near`,
    above or below it, where it stays when the range changes; or else in the corner that is
    emptiest."""
    width, height = _extent(panel, text, size)
    lines = _in_panel(panel)
    if near is not None:
        (_, y) = panel.transAxes.inverted().transform(
            panel.transData.transform((_some_x(panel), near))
        )
        heights = [(y + 0.015, "bottom", y + height / 2), (y - 0.015, "top", y - height / 2)]
    else:
        heights = [(0.98, "top", 0.98 - height / 2), (0.02, "bottom", 0.02 + height / 2)]
    between = [(at, "center", at) for at in np.linspace(width / 2, 1 - width / 2, 21)]
    best: tuple[float, float, str, float, str] | None = None
    for x, across, centre in (
        (0.99, "right", 0.99 - width / 2),
        (0.01, "left", 0.01 + width / 2),
        (0.5, "center", 0.5),
        *(between if near is not None and width < 1 else ()),
    ):
        for place, down, middle in heights:
            cost = _covered(lines, (centre, middle), (width, height))
            cost += 1e4 * (middle + height / 2 > 1.03 or middle - height / 2 < 0.0)
            if best is None or cost < best[0]:
                best = (cost, x, across, place, down)
    assert best is not None
    _, x, across, place, down = best
    look: Any = {"ha": across, "va": down, "size": size, "color": GREY, "path_effects": _HALO}
    if near is None:
        panel.text(x, place, text, transform=panel.transAxes, **look)
    else:
        panel.annotate(
            text, (x, near), xycoords=("axes fraction", "data"),
            xytext=(0, 1.5 if down == "bottom" else -1.5), textcoords="offset points", **look,
        )  # fmt: skip


def _along(panel: Panel, text: str, x: np.ndarray, y: np.ndarray) -> None:
    """Write beside a line of a logarithmic panel, on the side and at the place where least else
    runs; of equally good ones, above its right half."""
    if len(x) < 2:
        panel.annotate(text, (x[0], y[0]), size=SMALL, color=GREY, path_effects=_HALO)
        return
    width, height = (0.8 * part for part in _extent(panel, text, SMALL))
    lines = _in_panel(panel)
    ends = panel.transAxes.inverted().transform(
        panel.transData.transform(np.stack([x[[0, -1]], y[[0, -1]]], axis=1))
    )
    rise = (ends[1, 1] - ends[0, 1]) / max(ends[1, 0] - ends[0, 0], 1e-9)
    best: tuple[float, tuple[float, float]] | None = None
    for share in (
        0.75,
        0.7,
        0.8,
        0.65,
        0.85,
        0.6,
        0.55,
        0.5,
        0.45,
        0.4,
        0.35,
        0.3,
        0.25,
        0.2,
        0.15,
    ):
        at = ends[0] + share * (ends[1] - ends[0])
        for side in (1.0, -1.0):
            # So far from the line that it does not cut the corner of the text.
            away = height / 2 + abs(rise) * width / 2 + 0.015
            middle = (float(at[0]), float(at[1] + side * away))
            cost = _covered(lines, middle, (width, height))
            cost += 1000.0 * _outside(middle, (width, height))
            if best is None or cost < best[0]:
                best = (cost, middle)
    assert best is not None
    # At a place among the data, so that it stays beside the line when the ranges change.
    place = panel.transData.inverted().transform(panel.transAxes.transform(best[1]))
    panel.text(
        place[0], place[1], text, ha="center", va="center", size=SMALL, color=GREY,
        path_effects=_HALO,
    )  # fmt: skip


def _covered(lines: np.ndarray, middle: tuple[float, float], size: tuple[float, float]) -> float:
    """How many of the points (n, 2) a box covers; all in fractions of the panel."""
    inside = np.abs(lines - np.asarray(middle)) < np.asarray(size) / 2
    return float(inside.all(axis=1).sum())


def _outside(middle: tuple[float, float], size: tuple[float, float]) -> bool:
    low, high = (np.asarray(middle) + sign * np.asarray(size) / 2 for sign in (-1, 1))
    return bool((low < -0.03).any() or (high > 1.03).any())


def _some_x(panel: Panel) -> float:
    return float(panel.get_xlim()[0])


def _extent(panel: Panel, text: str, size: float, *, upright: bool = False) -> tuple[float, float]:
    """About how much of the panel's width and height a text takes (`upright`: of its height and
    width). The layout comes later and leaves panels smaller than they are now, so a third more
    than it is."""
    figure: Any = panel.get_figure(root=True)
    wide, high = np.array([panel.bbox.width, panel.bbox.height]) * 72.0 / figure.dpi
    if upright:
        wide, high = high, wide
    rows = text.split("\n")
    return 0.66 * size * max(map(len, rows)) / wide, 1.7 * size * len(rows) / high


def _settle(panel: Panel) -> None:
    """Ranges that are still to follow from the data are set: transformations do not wait."""
    panel.get_xlim()
    panel.get_ylim()


def _in_panel(panel: Panel) -> np.ndarray:
    """Points along all lines and error bars, (n, 2), as fractions of the panel."""
    _settle(panel)
    found = [np.empty((0, 2))]
    for line in panel.lines:
        data = np.asarray(line.get_xydata(), dtype=float)
        if line.get_transform() != panel.transData or len(data) == 0:
            continue
        with np.errstate(all="ignore"):
            points = panel.transAxes.inverted().transform(panel.transData.transform(data))
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) > 1 and line.get_linestyle() not in ("None", "none", "", " "):
            at = np.linspace(0, len(points) - 1, 40 * min(len(points), 25))
            order = np.arange(len(points))
            points = np.stack([np.interp(at, order, points[:, k]) for k in (0, 1)], axis=1)
        found.append(points)
    for bars in panel.collections:  # of errors, as `errorbar` draws them
        if isinstance(bars, LineCollection) and bars.get_transform() == panel.transData:
            for ends in bars.get_segments():
                with np.errstate(all="ignore"):
                    points = panel.transAxes.inverted().transform(panel.transData.transform(ends))
                if len(points) == 2 and np.isfinite(points).all():
                    found.append(np.linspace(points[0], points[1], 40))
    return np.concatenate(found)


def direct_labels(
    panel: Panel, names: Mapping[str, str] | None = None, *, size: float = SMALL + 0.5
) -> None:
    """Each labelled line's name at its right end, in its colour, none upon another.

    names : label -> what is written; without it the labels. Reference lines have names of their
    own (`guide`, `level`).
    """
    _settle(panel)
    ends = []
    for line in panel.lines:
        label = str(line.get_label())
        if label.startswith("_") or line.get_gid() == "guide":
            continue
        data = np.asarray(line.get_xydata(), dtype=float)
        data = data[np.isfinite(data).all(axis=1)]
        if len(data):
            at = panel.transAxes.inverted().transform(panel.transData.transform(data[-1]))
            ends.append([float(at[1]), (names or {}).get(label, label), line.get_color(), at[1]])
    if not ends:
        return
    high = 0.75 * _extent(panel, "x", size)[1]
    ends.sort(key=lambda end: end[0])
    places = _apart([min(max(end[0], 0.0), 1.0) for end in ends], 1.02 * high)
    for place, (_, text, colour, _) in zip(places, ends, strict=True):
        panel.annotate(
            text, (1.0, place), xycoords="axes fraction", xytext=(4, 0), textcoords="offset points",
            ha="left", va="center", size=size, color=colour, annotation_clip=False,
        )  # fmt: skip


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """The nearest ascending places that are at least `gap` apart: overlapping ones move around
    their common middle."""
    merged: list[tuple[float, int]] = []  # middle of the group, members
    for place in places:
        merged.append((place, 1))
        while len(merged) > 1:
            (first, n), (second, m) = merged[-2], merged[-1]
            if second - first >= gap * (n + m) / 2:
                break
            merged[-2:] = [((first * n + second * m) / (n + m), n + m)]
    return [middle + gap * (i - (count - 1) / 2) for middle, count in merged for i in range(count)]


def letters(figure: Figure) -> None:
    """(a), (b), ... before the titles of the panels that are seen and have one."""
    found = [panel for panel in figure.axes if panel.get_visible() and panel.get_title()]
    for i, panel in enumerate(found):
        panel.title.set_text(f"({chr(97 + i)}) {panel.get_title()}")  # its size stays
