"""What all figures share: style, sizes, markers, the small print below."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns
from cycler import cycler
from matplotlib.figure import Figure

__all__ = ["DASHES", "DIVERGING", "MARKERS", "STYLE", "WIDTH", "shown", "stamp", "use_style"]


WIDTH = 7.0  # inches: the text width of a paper, which no figure exceeds


STYLE = Path(__file__).with_name("style.mplstyle")


MARKERS = "osD^vP*X"


DASHES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1))]


DIVERGING = "vlag"  # perceptually uniform, zero in the middle


def use_style() -> None:
    """Apply the project's style file and seaborn's colour-blind palette."""
    plt.style.use(STYLE)
    mpl.rcParams["axes.prop_cycle"] = cycler(color=sns.color_palette("colorblind"))


def stamp(figure: Figure, text: str) -> None:
    """Small print below a figure, e.g. its data set: a picture travels without its caption.

    The figure's layout must be solved already; drawn again, the print is replaced.
    """
    for old in [t for t in figure.texts if t.get_gid() == "stamp"]:
        old.remove()
    wrapped = textwrap.fill(text, max(30, int(26 * figure.get_figwidth())))
    figure.text(0.0, -0.01, wrapped, ha="left", va="top", size=5.5, color="0.35", gid="stamp")


def shown(name: object) -> str:
    """Names as the papers print them."""
    return "μP" if name == "muP" else str(name)
