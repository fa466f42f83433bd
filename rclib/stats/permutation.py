"""Do two groups of samples differ more than the samples of one group do? By permutation.

Every way to split all samples into groups of these sizes gives the statistic once; if all samples
come alike, each split is as likely as the true one. The statistic is the distance between the
groups over that inside them (`two_sample.PairDistances.ratio`), mean over several tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["SplitTest", "split_test"]


@dataclass(frozen=True)
class SplitTest:
    """statistic : of the true split. p : share of all splits, the true one among them, whose
    statistic is as large. splits : their number."""

    statistic: float
    p: float
    splits: int


def split_test(tables: Sequence[np.ndarray], first: int) -> SplitTest:
    """One-sided permutation test over all splits.

    tables : symmetric (S, S) distances of the S samples, e.g. one table a block; the first `first`
    samples are the one group. Of equal groups a split and its mirror image count once.
    Raises ValueError for other shapes, unequal ones and groups below two.
    """
    stack = np.asarray(tables, dtype=np.float64)
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2]:
        raise ValueError(f"tables must be square and of one size, got shape {stack.shape}")
    size = stack.shape[1]
    if not 2 <= first <= size - 2:
        raise ValueError(f"either group needs two samples, got {first} of {size}")
    chosen = list(itertools.combinations(range(size), first))
    if 2 * first == size:
        chosen = [one for one in chosen if one[0] == 0]
    found = np.array([_ratio(stack, one) for one in chosen])
    true = float(found[0])  # combinations begin with 0, 1, ..., first - 1
    # Sums in another order may differ in the last bit.
    return SplitTest(true, float(np.mean(found >= true * (1 - 1e-12))), len(chosen))


def _ratio(stack: np.ndarray, one: Sequence[int]) -> float:
    a = np.array(one)
    b = np.setdiff1d(np.arange(stack.shape[1]), a)
    inside = [
        stack[:, group][:, :, group][:, *np.triu_indices(len(group), 1)].mean(1) for group in (a, b)
    ]
    between = stack[:, a][:, :, b].mean((1, 2))
    return float(np.mean(between / np.sqrt((inside[0] ** 2 + inside[1] ** 2) / 2)))
