"""A drawing (SVG) of layers of boxes with lines between them, readable in light and dark.

A line that passes a row on its way down gets a place of its own between that row's boxes; the
boxes of a row are ordered and moved so that lines cross seldom and stay steep. The same input
gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

__all__ = ["draw_layers"]

BOX, ROW, GAP, MARGIN = 36, 104, 26, 24  # a box's height, from row to row, beside boxes, around
LETTER, PAD, LANE = 8.4, 15, 8  # width of a letter, of a box's edge, of a line that passes
PASSES = 24

_STYLE = """\
:root { color-scheme: light dark; }
.layers text { font: 600 14px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; text-anchor: middle;
  fill: #1c222a; fill: light-dark(#1c222a, #e7e9ec); }
.layers .band { fill: #f1efe9; fill: light-dark(#f1efe9, #1d232a); }
.layers .box { fill: #ffffff; fill: light-dark(#ffffff, #2c353f);
  stroke: #565f6b; stroke: light-dark(#565f6b, #a6b0bb); }
.layers .line { fill: none; stroke-width: 1.4;
  stroke: #6d7a89; stroke: light-dark(#6d7a89, #8794a3); }
.layers .tip { fill: #6d7a89; fill: light-dark(#6d7a89, #8794a3); }
"""


@dataclass
class _Place:
    """A box, or the place where a line passes a row."""

    name: str  # "" where a line passes
    row: int
    x: float = 0.0

    @property
    def half(self) -> float:
        return len(self.name) * LETTER / 2 + PAD if self.name else LANE


def draw_layers(
    rows: Sequence[Sequence[str]],
    edges: Mapping[str, Sequence[str]],
    notes: Mapping[str, str],
    *,
    title: str,
) -> str:
    """The SVG.

    rows : names of the boxes, the highest row first
    edges : name -> names in lower rows that a line leads to
    notes : name -> what is shown where the pointer rests on a box
    """
    places, routes = _routes(rows, edges)
    neighbours = _neighbours(routes)
    _order(places, neighbours)
    _settle(places, neighbours)
    left = min(p.x - p.half for row in places for p in row) - MARGIN
    width = round(max(p.x + p.half for row in places for p in row) + MARGIN - left)
    height = (len(rows) - 1) * ROW + BOX + 2 * MARGIN
    for place in (p for row in places for p in row):
        place.x -= left
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" class="layers" role="img"'
        f' aria-label="{escape(title)}" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}">',
        f"<style>\n{_STYLE}</style>",
        "<title>" + escape(title) + "</title>",
    ]
    for row in range(len(rows)):
        top = _top(row) - 14
        lines.append(
            f'<rect class="band" x="0" y="{top}" width="{width}" height="{BOX + 28}" rx="8"/>'
        )
    for route in routes:
        lines.append(f'<path class="line" d="{_path(route)}"/>')
        x, y = route[-1].x, _top(route[-1].row)
        lines.append(f'<path class="tip" d="M{x:.1f} {y}l-4 -7h8z"/>')
    for place in (p for row in places for p in row if p.name):
        x, y, half = place.x, _top(place.row), place.half
        lines += [
            f"<g><title>{escape(notes.get(place.name, ''))}</title>",
            f'<rect class="box" x="{x - half:.1f}" y="{y}" width="{2 * half:.1f}" height="{BOX}"'
            ' rx="7"/>',
            f'<text x="{x:.1f}" y="{y + BOX / 2 + 5:g}">{escape(place.name)}</text></g>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _top(row: int) -> int:
    return MARGIN + row * ROW


def _routes(
    rows: Sequence[Sequence[str]], edges: Mapping[str, Sequence[str]]
) -> tuple[list[list[_Place]], list[list[_Place]]]:
    """The places of every row, and every line as the places it leads through."""
    places = [[_Place(name, row) for name in names] for row, names in enumerate(rows)]
    boxes = {place.name: place for row in places for place in row}
    routes = []
    for name in boxes:
        for below in edges.get(name, ()):
            start, end = boxes[name], boxes[below]
            passing = [_Place("", row) for row in range(start.row + 1, end.row)]
            for place in passing:
                places[place.row].append(place)
            routes.append([start, *passing, end])
    return places, routes


def _neighbours(routes: Sequence[Sequence[_Place]]) -> dict[int, tuple[list[_Place], list[_Place]]]:
    """id of a place -> the places above and below that lines lead to."""
    found: dict[int, tuple[list[_Place], list[_Place]]] = {}
    for route in routes:
        for above, below in pairwise(route):
            found.setdefault(id(above), ([], []))[1].append(below)
            found.setdefault(id(below), ([], []))[0].append(above)
    return found


def _order(
    places: list[list[_Place]], neighbours: Mapping[int, tuple[list[_Place], list[_Place]]]
) -> None:
    """Orders every row by the mean place of its neighbours, down and up in turn; of all orders
    met, the one with the fewest crossings stays."""
    best: tuple[int, list[list[_Place]]] | None = None
    for sweep in range(PASSES):
        for row in places:
            for number, place in enumerate(row):
                place.x = (number + 0.5) / len(row)
        crossings = _crossings(places, neighbours)
        if best is None or crossings < best[0]:
            best = crossings, [list(row) for row in places]
        side = sweep % 2
        for row in places if side == 0 else reversed(places):
            row.sort(key=lambda p: _mean(neighbours.get(id(p), ([], []))[side], p.x))
            for number, place in enumerate(row):
                place.x = (number + 0.5) / len(row)
    if best:
        places[:] = best[1]


def _mean(found: Sequence[_Place], otherwise: float) -> float:
    return sum(place.x for place in found) / len(found) if found else otherwise


def _crossings(
    places: Sequence[Sequence[_Place]],
    neighbours: Mapping[int, tuple[list[_Place], list[_Place]]],
) -> int:
    total = 0
    for row in places:
        lines = [(p.x, b.x) for p in row for b in neighbours.get(id(p), ([], []))[1]]
        total += sum((a - c) * (b - d) < 0 for a, b in lines for c, d in lines) // 2
    return total


def _settle(
    places: Sequence[Sequence[_Place]],
    neighbours: Mapping[int, tuple[list[_Place], list[_Place]]],
) -> None:
    """Moves the places of every row towards their neighbours, keeping order and distance."""
    for row in places:
        _spread(row, [0.0] * len(row))
    for sweep in range(4 * PASSES):
        for row in places if sweep % 2 == 0 else reversed(places):
            wanted = []
            for place in row:
                above, below = neighbours.get(id(place), ([], []))
                wanted.append(_mean([*above, *below], place.x))
            _spread(row, wanted)


def _spread(row: Sequence[_Place], wanted: Sequence[float]) -> None:
    """Places of a row as near to where they are wanted as their order and widths allow: the mean
    of pushing them to the right from the left end and to the left from the right end."""
    steps = [a.half + b.half + GAP for a, b in pairwise(row)]
    right, left = list(wanted), list(wanted)
    for i, step in enumerate(steps):
        right[i + 1] = max(right[i + 1], right[i] + step)
    for i, step in reversed(list(enumerate(steps))):
        left[i] = min(left[i], left[i + 1] - step)
    for place, a, b in zip(row, right, left, strict=True):
        place.x = (a + b) / 2


def _path(route: Sequence[_Place]) -> str:
    """A line from the lower edge of the first box to the upper edge of the last."""
    x, y = route[0].x, _top(route[0].row) + BOX
    parts = [f"M{x:.1f} {y}"]
    for place in route[1:]:
        top = _top(place.row) - (7 if place.name else 0)
        middle = (y + top) / 2
        parts.append(f"C{x:.1f} {middle:g} {place.x:.1f} {middle:g} {place.x:.1f} {top}")
        x, y = place.x, top
        if not place.name:
            y = _top(place.row) + BOX
            parts.append(f"V{y}")
    return "".join(parts)
