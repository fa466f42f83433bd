"""Drawings of the page as SVG and PNG texts: they take numbers and draw them.

Colours come from the page's style sheet by class, so that one drawing serves light and dark. No
text of a model gets into a drawing; names stand in the page around it, where they are escaped.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rclib.analysis.pictures import LEVELS, Map

__all__ = ["Line", "blocks_chart", "heat_map", "means_chart", "spectrum_chart"]

Floats = NDArray[np.float64]
WIDTH, HEIGHT = 320.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 8.0, 8.0, 24.0
RED, BLUE = (214, 82, 60), (58, 124, 212)
MOST = 300  # values of a profile that are drawn one by one; beyond, their range in steps

# (class in the style sheet, places x, values y), y NaN where nothing is drawn.
Line = tuple[str, Floats, Floats]


def heat_map(found: Map) -> str:
    """A data URI of the map: red above the mean, blue below, clear at it on any ground."""
    image = Image.fromarray((found.levels + LEVELS).astype(np.uint8), mode="P")
    steps = np.abs(np.arange(-LEVELS, LEVELS + 1))
    image.putpalette([c for i in range(2 * LEVELS + 1) for c in (BLUE if i < LEVELS else RED)])
    alpha = np.round(255.0 * steps / LEVELS).astype(np.uint8).tobytes()
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=alpha, optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class _Frame:
    """Axes of one drawing."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = _spread(*x), _spread(*y)
        self.parts: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        px = LEFT + across * (WIDTH - LEFT - RIGHT)
        return px, HEIGHT - BOTTOM - min(1.2, max(-0.2, up)) * (HEIGHT - TOP - BOTTOM)

    def path(self, kind: str, x: Sequence[float] | Floats, y: Sequence[float] | Floats) -> None:
        """A line, with gaps where y is not finite."""
        steps, pen = [], "M"
        for a, b in zip(x, y, strict=True):
            if not math.isfinite(b):
                pen = "M"
                continue
            px, py = self.at(float(a), float(b))
            steps.append(f"{pen}{px:.1f} {py:.1f}")
            pen = "L"
        if steps:
            self.parts.append(f'<path class="{kind}" d="{"".join(steps)}"/>')

    def area(self, kind: str, x: Floats, low: Floats, high: Floats) -> None:
        """The ground between two lines."""
        there = [self.at(float(a), float(b)) for a, b in zip(x, high, strict=True)]
        back = [self.at(float(a), float(b)) for a, b in zip(x, low, strict=True)][::-1]
        points = "L".join(f"{px:.1f} {py:.1f}" for px, py in [*there, *back])
        self.parts.append(f'<path class="{kind}" d="M{points}Z"/>')

    def ticks(self, x: Sequence[tuple[float, str]], y: Sequence[tuple[float, str]]) -> None:
        """Labels below and to the left."""
        for value, label in x:
            px, _ = self.at(value, self.y[0])
            at = f'x="{px:.1f}" y="{HEIGHT - 8:.0f}"'
            self.parts.append(f'<text class="tick" text-anchor="middle" {at}>{label}</text>')
        for value, label in y:
            _, py = self.at(self.x[0], value)
            at = f'x="{LEFT - 4:.0f}" y="{py + 3:.1f}"'
            self.parts.append(f'<text class="tick" text-anchor="end" {at}>{label}</text>')
            ends = f'x1="{LEFT:.0f}" x2="{WIDTH - RIGHT:.0f}" y1="{py:.1f}" y2="{py:.1f}"'
            self.parts.append(f'<line class="grid" {ends}/>')

    def svg(self, label: str) -> str:
        """The drawing. label : for those who do not see it; no text of a model."""
        size = f'viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}"'
        box = f'x="{LEFT:.0f}" y="{TOP:.0f}"'
        box += f' width="{WIDTH - LEFT - RIGHT:.0f}" height="{HEIGHT - TOP - BOTTOM:.0f}"'
        return (
            f'<svg {size} role="img" aria-label="{label}">{"".join(self.parts)}'
            f'<rect class="frame" {box}/></svg>'
        )


def _spread(low: float, high: float) -> tuple[float, float]:
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0, 1.0
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-300):
        wide = abs(high) or 1.0
        return low - wide, high + wide
    return low, high


def _nice(low: float, high: float, count: int = 4) -> list[tuple[float, str]]:
    """Round numbers inside of a range, with their labels."""
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= count)
    first = math.ceil(low / step - 1e-9)
    values = [(first + i) * step for i in range(count + 2)]
    return [(v, f"{v:.4g}" if v else "0") for v in values if v <= high + 1e-9 * step]


def means_chart(lines: Sequence[tuple[str, Floats, float, float]], label: str) -> str:
    """Means of rows or columns in their order; one line a source.

    lines : (class, means, mean of all entries, standard error of a mean of independent entries).
    The ground is 2 standard errors about the mean, for the last line.
    """
    finite = np.concatenate([means for _, means, _, _ in lines])
    _, _, middle, error = lines[-1]
    low = min(float(finite.min()), middle - 2 * error)
    high = max(float(finite.max()), middle + 2 * error)
    most = max(len(means) for _, means, _, _ in lines)
    frame = _Frame((0.0, max(1.0, most - 1.0)), (low, high))
    frame.ticks([(0.0, "0"), (max(1.0, most - 1.0), str(most))], _nice(*frame.y))
    ends = np.array([0.0, max(1.0, most - 1.0)])
    frame.area("noise", ends, np.full(2, middle - 2 * error), np.full(2, middle + 2 * error))
    for kind, means, _, _ in lines:
        if len(means) <= MOST:
            frame.path(f"line {kind}", np.arange(float(len(means))), means)
        else:
            starts = np.arange(MOST // 2) * len(means) // (MOST // 2)
            lows, highs = (
                f.reduceat(means, starts) for f in (np.minimum, np.maximum)
            )  # what lies between is all there
            frame.area(f"band {kind}", starts.astype(float), lows, highs)
    return frame.svg(label)


def spectrum_chart(
    left: Floats,
    right: Floats,
    density: Floats,
    law: Floats,
    *,
    edge: float | None,
    tail: tuple[float, float, float] | None,
    label: str,
) -> str:
    """Histogram of log10 λ with the Marchenko-Pastur law, its edge and a power law.

    left, right, density, law : of each bin. edge : log10 of the bulk's edge. tail : (log10 of where
    the power law begins, α, share of the eigenvalues beyond).
    """
    seen = density[density > 0]
    if not len(seen):
        return ""
    law = np.nan_to_num(law)  # no law: nothing is drawn
    top = 2.0 * max(float(seen.max()), float(law.max(initial=0.0)))
    bottom = 0.5 * float(seen.min())
    ends = float(left[0]), float(right[-1])
    if edge is not None and math.isfinite(edge):
        ends = min(ends[0], edge), max(ends[1], edge + 0.02 * (ends[1] - ends[0]))
    frame = _Frame(ends, (math.log10(bottom), math.log10(top)))
    powers = range(math.ceil(frame.y[0]), math.floor(frame.y[1]) + 1)
    frame.ticks(_nice(*frame.x), [(float(p), f"{10.0**p:g}") for p in powers])
    floor = frame.y[0]
    with np.errstate(divide="ignore"):
        heights = np.where(density > 0, np.log10(np.maximum(density, 1e-300)), floor)
        bulk = np.where(law > 0, np.log10(np.maximum(law, 1e-300)), np.nan)
    corners = np.repeat(np.append(left, right[-1]), 2)[1:-1]
    frame.area("bars", corners, np.full(len(corners), floor), np.repeat(heights, 2))
    bulk = np.where(bulk >= floor, bulk, np.nan)
    frame.path("law", 0.5 * (left + right), bulk)
    if edge is not None and math.isfinite(edge):
        frame.path("edge", [edge, edge], [floor, frame.y[1]])
    if tail is not None:
        begin, alpha, share = tail
        x = np.array([begin, ends[1]])
        # p(log10 λ) = share (α - 1) ln 10 (λ / xmin)^(1 - α)
        y = math.log10(share * (alpha - 1.0) * math.log(10.0)) - (alpha - 1.0) * (x - begin)
        if y[1] < floor:  # the line ends where the panel does
            x[1], y[1] = begin + (y[0] - floor) / (alpha - 1.0), floor
        frame.path("power", x, y)
    return frame.svg(label)


def blocks_chart(lines: Sequence[Line], label: str, *, y: tuple[float, float] | None = None) -> str:
    """Quantities against the block, with dots on lines that are solid."""
    x = np.concatenate([places for _, places, _ in lines])
    values = np.concatenate([v for _, _, v in lines])
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    low, high = y or (float(values.min()), float(values.max()))
    frame = _Frame((float(x.min()), float(x.max())), (low, high))
    numbers = [(v, t) for v, t in _nice(*frame.x) if v == int(v)]
    frame.ticks(numbers or [(float(x.min()), f"{int(x.min())}")], _nice(*frame.y))
    for kind, places, found in lines:
        frame.path(kind, places, found)
        if "dotted" not in kind:
            for a, b in zip(places, found, strict=True):
                if math.isfinite(b):
                    px, py = frame.at(float(a), float(b))
                    frame.parts.append(
                        f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="2"/>'
                    )
    return frame.svg(label)
