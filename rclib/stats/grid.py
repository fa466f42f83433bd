"""The best setting of a grid, by means over runs: equal means are equal, and an end is an error.

Accuracies are counts: two settings often have the very same mean, and its last bits, which depend
on the order of a sum, must not choose between them. A best setting at an end of its grid says that
the grid was too short and not what is best.
"""

from __future__ import annotations

import math

import pandas as pd

__all__ = ["best_setting"]

EQUAL = 1e-6  # counts in single precision: equal means differ by up to 1e-7


def best_setting(means: pd.Series, *, what: str, open_end: float | None = None) -> float:
    """The smallest setting whose mean is the largest, up to 1e-6.

    means : means, such as accuracies, by setting, in any order. what : whose settings these are,
    for the error. open_end : a setting beyond which there is none (no weight decay at all), which
    may be chosen though it is an end.

    Raises ValueError if there are no settings, a mean is no number, or the best is an end of the
    grid.
    """
    if means.empty or not all(map(math.isfinite, means)):
        raise ValueError(f"means of {what} must be finite, one a setting, got {means.to_dict()}")
    ordered = means.sort_index()
    best = float(ordered.index[ordered >= ordered.max() - EQUAL][0])
    if best in (ordered.index[0], ordered.index[-1]) and best != open_end:
        raise ValueError(f"the grid of {what} must go on beyond {best:g}, which is best there")
    return best
