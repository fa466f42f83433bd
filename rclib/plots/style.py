"""What all figures share: style, sizes, colours, markers, the small print below.

The look is one file, `style.mplstyle`. Its seven colours have a contrast of 3:1 on white and stay
apart in every simulated colour blindness (`tests/plots/test_style.py` says by how much). What
occurs in many figures has one colour in all of them: the parametrisations, the optimisers, the
methods of growing. Colour never stands alone: a marker or a kind of line goes with it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

__all__ = [
    "DASHES",
    "DIVERGING",
    "FIXED",
    "GREY",
    "MARKERS",
    "STYLE",
    "WIDTH",
    "Look",
    "colour",
    "colours",
    "looks",
    "ordered",
    "shown",
    "stamp",
    "use_also",
    "use_style",
]


WIDTH = 7.0  # inches: the text width of a paper, which no figure exceeds


STYLE = Path(__file__).with_name("style.mplstyle")


MARKERS = "osD^vP*X"


DASHES = ["-", "--", "-.", ":", (0, (6, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 1))]


DIVERGING = "vlag"  # perceptually uniform, zero in the middle


GREY = "0.3"  # of reference lines and what is written at them


# Name -> its number among the colours, markers and kinds of line, in every figure.
FIXED: Mapping[str, int] = {
    "SP": 0,
    "MF": 1,
    "muP": 2,
    "GD": 0,
    "Adam": 1,
    "RC sampling": 0,
    "duplication": 1,
    "random growth": 2,
    "RC sampling, r1 = 1": 3,
    "RC sampling, new entries": 4,
    "duplication, new entries": 5,
    "a subset of the neurons": 6,
}


class Look(TypedDict):
    """How a line looks, as arguments of `Axes.plot`."""

    color: Any
    linestyle: Any
    marker: str


def use_style() -> None:
    """Apply the project's style file."""
    plt.style.use(STYLE)


def use_also(path: Path) -> None:
    """A style file on top. Raises ValueError for one that is missing or that matplotlib refuses."""
    if not path.is_file():
        raise ValueError(f"style file {path} is missing")
    try:
        plt.style.use(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"style file {path}: {error}") from None


def colours() -> list[Any]:
    """The colours of lines, in their order, of the style that is in use."""
    found: list[Any] = plt.rcParams["axes.prop_cycle"].by_key().get("color", [])
    return found or ["0.0"]


def colour(number: int) -> Any:
    """One of them, by its number; beyond the last they begin again."""
    found = colours()
    return found[number % len(found)]


def looks(names: Sequence[object]) -> dict[str, Look]:
    """Colour, kind of line and marker of each name.

    Those of `FIXED` have theirs, also with something behind a comma ("MF, step 0") where only one
    of the names begins so; the others get, in their order, what these leave.
    """
    texts = list(dict.fromkeys(str(name) for name in names))
    heads = [text.split(",")[0] for text in texts]
    places = {
        text: FIXED.get(text, FIXED.get(head, -1) if heads.count(head) == 1 else -1)
        for text, head in zip(texts, heads, strict=True)
    }
    free = iter([i for i in range(len(texts) + len(FIXED)) if i not in places.values()])
    return {text: _look(place if place >= 0 else next(free)) for text, place in places.items()}


def _look(number: int) -> Look:
    return {
        "color": colour(number),
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def ordered(values: Sequence[float]) -> dict[float, Look]:
    """Looks of values with an order, such as widths and steps: from light to dark, the last one
    with a solid line."""
    found = sorted(set(values))
    shades = sns.color_palette("flare", len(found))
    dashes = [*DASHES[1:4], *DASHES[4:]]
    return {
        value: {
            "color": shades[i],
            "linestyle": "-" if i == len(found) - 1 else dashes[i % len(dashes)],
            "marker": MARKERS[i % len(MARKERS)],
        }
        for i, value in enumerate(found)
    }


def stamp(figure: Figure, text: str) -> None:
    """Small print below a figure, e.g. its data set: a picture travels without its caption.

    No layout engine makes room for it or moves it; drawn again, the print is replaced.
    """
    for old in [t for t in figure.texts if t.get_gid() == "stamp"]:
        old.remove()
    wrapped = textwrap.fill(text, max(30, int(26 * figure.get_figwidth())))
    figure.text(0.0, -0.01, wrapped, ha="left", va="top", size=5.5, color="0.35", gid="stamp")


def shown(name: object) -> str:
    """Names as the papers print them."""
    return str(name).replace("muP", "μP")
