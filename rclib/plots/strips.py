"""Columns of dots, one dot a repeat, with a bar at their middle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel

from rclib.plots.style import colour

__all__ = ["strips"]


def strips(
    panel: Panel,
    groups: Mapping[str, Sequence[float] | pd.Series],
    *,
    middle: str = "mean",
    alike: bool = False,
) -> None:
    """One column a group, at 0, 1, ...: its values side by side in their order, and a bar at their
    mean or median.

    groups : label -> values. middle : "mean" or "median". alike : all columns in one colour.
    Raises ValueError for another middle, or a group without values.
    """
    if middle not in ("mean", "median"):
        raise ValueError(f"middle must be 'mean' or 'median', got {middle!r}")
    for place, (label, values) in enumerate(groups.items()):
        found = np.asarray(values, dtype=float)
        if not found.size:
            raise ValueError(f"groups: {label!r} has no values")
        spread = np.linspace(-0.2, 0.2, found.size) if found.size > 1 else np.zeros(1)
        tone = colour(0 if alike else place)
        panel.plot(place + spread, found, "o", ms=3.5, color=tone, alpha=0.75, mec="none")
        at = float(np.mean(found) if middle == "mean" else np.median(found))
        panel.hlines(at, place - 0.3, place + 0.3, color="0.1", lw=1.6)
    panel.set_xlim(-0.6, len(groups) - 0.4)
    panel.set_xticks(range(len(groups)), labels=list(groups), fontsize=7)
