"""The interval behind a verdict: Student's t over repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from rclib.checks.arguments import number

__all__ = ["interval_of"]

# 97.5 percent points of Student's t for 1 ... 30 degrees of freedom; kept as a table so that
# this module, which every `make` call loads, needs the standard library alone (a test
# compares it with scipy). Above, the expansion in 1/df does
# (Abramowitz and Stegun, 26.7.5).
_T975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_Z975 = 1.959964


def _t975(df: int) -> float:
    if df <= len(_T975):
        return _T975[df - 1]
    z = _Z975
    return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)


def _axes(values: Sequence[float]) -> int:
    return int(getattr(values, "ndim", 1))  # of an array or tensor


def interval_of(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high): 95 percent t-interval of the mean over repeats.

    One value gives an interval of width zero. Raises ValueError for no value, one that is no
    finite number, and values so large that their squares are not finite.
    """
    if isinstance(values, str) or not hasattr(values, "__len__") or _axes(values) != 1:
        raise ValueError(f"values must be a sequence of numbers, got {type(values).__name__}")
    if len(values) == 0:  # not `not values`: an array has no truth value
        raise ValueError("values must not be empty")
    values = [number("values", v) for v in values]
    if not all(math.isfinite(v) for v in values):
        raise ValueError(f"values must be finite, got {values}")
    if max(map(abs, values)) > 1e150:
        raise ValueError(f"values must be smaller, got {max(values, key=abs)}")
    mean = fmean(values)
    if len(values) == 1:
        return mean, mean, mean
    half = _t975(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half
