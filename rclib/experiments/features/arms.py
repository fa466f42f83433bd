"""Columns of one arm of an experiment, by seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

__all__ = ["chosen", "excess_ratio"]


def chosen(frame: pd.DataFrame, what: str = "error", **where: Any) -> pd.Series:
    """A column by seed where others have these values.

    Raises ValueError unless that leaves one row a seed.
    """
    own = frame
    for name, value in where.items():
        own = own[own[name] == value]
    if own.empty or own.seed.duplicated().any():
        raise ValueError(f"need one row a seed for {where}, got {len(own)}")
    found: pd.Series = own.set_index("seed")[what]
    return found


def excess_ratio(
    excess: pd.DataFrame, first: str, second: str, features: int, **where: Any
) -> pd.Series:
    """log10 of the excess risks' ratio of two arms at a number of features, by seed.

    excess : arm, features, seed, excess, and the columns of `where`. Raises ValueError as `chosen`.
    """
    one, two = (
        chosen(excess, "excess", arm=arm, features=features, **where) for arm in (first, second)
    )
    return np.log10(one / two).rename("ratio")
