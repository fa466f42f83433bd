"""Slopes in logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["slope"]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of log y against log x.

    Raises ValueError unless there are at least two pairs, all of them positive.
    """
    a, b = np.asarray(x, float), np.asarray(y, float)
    if len(a) != len(b) or len(a) < 2 or not (np.all(a > 0) and np.all(b > 0)):
        raise ValueError(f"need at least two positive pairs, got x = {list(x)}, y = {list(y)}")
    return float(np.polyfit(np.log(a), np.log(b), 1)[0])
