"""Of each matrix the correlation of its mean vectors that chance explains least.

A matrix has a mean vector over its outputs (`.C`) and one over its inputs (`.R`), each in the index
sets that it carries. Every pair of one of them with another vector of the same block and set has a
p-value of its own, since sets have other sizes; the smallest is given, corrected for all M pairs of
the matrix (Šidák), and beside the correlation what the largest of M independent pairs gives over as
many neurons.

Source: paper A, Figure 4.4, which shows the same for a whole block (`block_correlations`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from rclib.families.layout import Layout
from rclib.families.matrix_view import matrix_view
from rclib.inspection.block_correlations import (
    BlockCorrelation,
    BlockCorrelations,
    expected_largest,
)
from rclib.rowcolumn.measure import chance_level

__all__ = ["MatrixCorrelation", "matrix_correlations"]


@dataclass(frozen=True)
class MatrixCorrelation:
    """The words of `rclib.inspection.vocabulary.MEANINGS`, for the pairs of one matrix."""

    set: str
    n: int
    pairs: int
    correlation: float
    first: str
    second: str
    expected: float
    chance: float
    p_value: float


def matrix_correlations(found: BlockCorrelations, layout: Layout) -> dict[str, MatrixCorrelation]:
    """{layer: its correlation} for every matrix of the layout that has a pair.

    found : of the same layout; a layer is a tensor's name, with `:part` if it is cut.
    """
    layers = _layers(layout)
    best: dict[str, tuple[float, BlockCorrelation, int, int]] = {}
    pairs: dict[str, int] = {}
    for row in found.rows:
        labels = row.found.labels
        owners = [layers.get((row.block, label)) for label in labels]
        for i in range(len(labels)):
            for j in range(i + 1, len(labels)):
                p = _p_value(float(row.found.matrix[i, j]), row.n)
                for owner in {owners[i], owners[j]} - {None}:
                    assert owner is not None
                    pairs[owner] = pairs.get(owner, 0) + 1
                    if owner not in best or p < best[owner][0]:
                        # Its own vector first, whatever the order of the file.
                        best[owner] = (p, row, i, j) if owners[i] == owner else (p, row, j, i)
    return {layer: _described(p, row, i, j, pairs[layer]) for layer, (p, row, i, j) in best.items()}


def _p_value(r: float, n: int) -> float:
    t = abs(r) * math.sqrt((n - 2) / max(1e-300, 1.0 - r * r))
    return 2.0 * float(stats.t.sf(t, n - 2))


def _described(p: float, row: BlockCorrelation, i: int, j: int, pairs: int) -> MatrixCorrelation:
    return MatrixCorrelation(
        set=row.set,
        n=row.n,
        pairs=pairs,
        correlation=float(row.found.matrix[i, j]),
        first=row.found.labels[i],
        second=row.found.labels[j],
        expected=expected_largest(row.n, pairs),
        chance=chance_level(row.n, pairs),
        p_value=-math.expm1(pairs * math.log1p(-min(p, 1.0 - 1e-16))),
    )


def _layers(layout: Layout) -> dict[tuple[int | None, str], str]:
    """{(block, label of a mean vector): layer}, labels as `block_correlations` makes them."""
    found = {}
    for name, weight in layout.weights.items():
        view = matrix_view(weight, layout)
        if len(view.shape) != 2:
            continue
        rows, columns = (list(places) or [""] for places in view.positions())
        for first in rows:
            for second in columns:
                part = first or second
                layer = f"{name}:{part}" if part else name
                for side in view.sides:
                    label = ".".join(filter(None, (weight.label, part, side)))
                    found[weight.block, label] = layer
    return found
