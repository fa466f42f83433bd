"""Figure 4.4: the largest correlation between the mean vectors of each block of a language model.

Every matrix (or part of a fused one) that carries an index set gives one vector over it: its
mean over everything else, `.C` for the mean of each row, `.R` of each column, rows being
outputs whatever the storage. Gains and biases, vectors already, can be compared as well; the
paper's caption speaks of means alone. Of a block's K vectors over one set of N neurons, r is
the largest absolute correlation of the K (K - 1) / 2 pairs. For independent vectors (weights
without RC structure) each |r_ij| has the distribution

    F(r) = I_{r²}(1/2, (N - 2)/2)          (regularised incomplete beta function)

so that the largest of M pairs has the mean ∫ 1 - F(r)^M dr and the quantiles of
`rclib.rowcolumn.measure.chance_level`; the p-value is corrected for the M pairs of its set.

Sources: paper A, Figure 4.4. The model's weights are read once, a window at a time
(`rclib.streaming.means`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats
from torch import Tensor, nn

from rclib.checkpoints.opening import Checkpoint, CheckpointError, opened
from rclib.families.layout import Layout, base, check_layout
from rclib.families.layout import layout as layout_of
from rclib.families.matrix_view import MatrixView, as_matrices, matrix_view
from rclib.rowcolumn import measure
from rclib.streaming.means import BlockMeans, Blocks, stream_means

__all__ = [
    "BlockCorrelation",
    "BlockCorrelations",
    "block_correlations",
    "block_vectors",
    "expected_largest",
]

MIN_NEURONS = 4  # a correlation over fewer says nothing

# (block, name of the set, its indices): the vectors of one row of the table.
Key = tuple[int | None, str, tuple[str, ...]]
Vectors = dict[Key, dict[str, Tensor]]


@dataclass(frozen=True)
class BlockCorrelation:
    """The largest |correlation| of one block over one index set.

    block : number, None for tensors outside the blocks. set : name of the index set.
    n : neurons; vectors, pairs : how many were compared. value : the largest |correlation|,
    correlation : with its sign, first, second : of which vectors. rank_correlation : Spearman's
    for the same pair, which a few large entries cannot make. expected, chance : mean and 95
    percent level of the largest |correlation| of as many independent pairs. p_value : corrected
    for the number of pairs (Šidák). left_out : vectors that cannot be compared (constant, or the
    same tensor under a second name). found : all correlations.
    """

    block: int | None
    set: str
    n: int
    vectors: int
    pairs: int
    value: float
    correlation: float
    first: str
    second: str
    rank_correlation: float
    expected: float
    chance: float
    p_value: float
    left_out: tuple[str, ...]
    found: measure.Correlations

    @property
    def beyond_chance(self) -> bool:
        """Whether value lies above chance."""
        return self.value > self.chance

    def by_vector(self) -> dict[str, tuple[float, str]]:
        """For each vector its largest |correlation| with another one, and with which."""
        values, places = self.found.matrix.abs().fill_diagonal_(-1.0).max(1)
        return {
            label: (float(values[i]), self.found.labels[int(places[i])])
            for i, label in enumerate(self.found.labels)
        }


@dataclass(frozen=True)
class BlockCorrelations:
    """Results of a checkpoint, in the order of blocks and sets."""

    source: str
    family: str
    rows: tuple[BlockCorrelation, ...]

    def table(self) -> pd.DataFrame:
        """One row a block and set; columns as the fields of `BlockCorrelation`, without the
        correlations themselves; block is None outside the blocks."""
        columns = [n for n in BlockCorrelation.__dataclass_fields__ if n not in _NOT_IN_TABLE]
        rows = [[getattr(row, name) for name in columns] for row in self.rows]
        frame = pd.DataFrame(rows, columns=columns)
        return frame.astype({"block": "Int64"})

    def vector_table(self) -> pd.DataFrame:
        """One row a vector: block, set, vector, value (its largest |correlation|), partner."""
        rows = [
            (row.block, row.set, label, value, partner)
            for row in self.rows
            for label, (value, partner) in row.by_vector().items()
        ]
        frame = pd.DataFrame(rows, columns=["block", "set", "vector", "value", "partner"])
        return frame.astype({"block": "Int64"})


_NOT_IN_TABLE = ("left_out", "found")


def block_correlations(
    checkpoint: Checkpoint | nn.Module | Mapping[str, Tensor] | str | os.PathLike[str],
    layout: Layout | None = None,
    *,
    blocks: Collection[int | None] | None = None,
    biases: bool = False,
    progress: Callable[[int], object] | None = None,
    workers: int | None = None,
    failed: Callable[[str, CheckpointError], object] | None = None,
) -> BlockCorrelations:
    """Figure 4.4 for one checkpoint: the largest correlation of every block and index set.

    checkpoint : an open one, or what `rclib.open_checkpoint` takes. layout : its axes; default the
    table that fits or, where none does, what names and shapes tell (`rclib.layout`, partial).
    blocks : which ones (None: tensors outside the blocks); default all. biases : compare gains
    and biases too, not the means of matrices alone. progress, workers, failed : as in
    `rclib.streaming.means.stream_means`. Sets of fewer than two comparable vectors or fewer than
    4 neurons give no row. Raises CheckpointError for weights that cannot be read or hold NaN,
    FamilyError where no layout is given and none can be told, ValueError for blocks that are not
    there and when nothing can be compared, TypeError for a layout that is none.
    """
    with opened(checkpoint) as source:
        if layout is None:
            layout = layout_of(source, partial=True)
        title = source.source
        vectors = block_vectors(
            source,
            check_layout(layout),
            blocks=blocks,
            biases=biases,
            progress=progress,
            workers=workers,
            failed=failed,
        )
    names: dict[tuple[int | None, str], int] = {}
    for block, name, _ in vectors:
        names[block, name] = names.get((block, name), 0) + 1
    rows = []
    for key, group in vectors.items():
        block, name, indices = key
        shown = name if names[block, name] == 1 else f"{name} {' '.join(indices)}"
        row = _correlate(block, shown, group)
        if row is not None:
            rows.append(row)
    if not rows:
        raise ValueError(f"{title}: no index set has two vectors to compare")
    order = {name: i for i, name in enumerate(layout.sets)}
    rows.sort(key=lambda r: (r.block is None, r.block or 0, order.get(r.set, len(order))))
    return BlockCorrelations(title, layout.family, tuple(rows))


def _correlate(
    block: int | None, name: str, group: Mapping[str, Tensor]
) -> BlockCorrelation | None:
    n = len(next(iter(group.values())))
    if n < MIN_NEURONS:
        return None
    kept: dict[str, Tensor] = {}
    left_out = []
    for label, vector in group.items():
        twin = next((k for k, v in kept.items() if _same(v, vector)), None)
        if not _varies(vector):
            left_out.append(f"{label} (constant)")
        elif twin is not None:
            left_out.append(f"{label} (the same as {twin})")
        else:
            kept[label] = vector
    if len(kept) < 2:
        return None
    found = measure.correlations({name: kept}, n)
    largest = measure.largest_correlation(found)
    i, j = (found.labels.index(label) for label in largest.pair)
    first, second = (kept[label].numpy() for label in largest.pair)
    return BlockCorrelation(
        block=block,
        set=name,
        n=n,
        vectors=len(found.labels),
        pairs=largest.pairs,
        value=largest.value,
        correlation=float(found.matrix[i, j]),
        first=largest.pair[0],
        second=largest.pair[1],
        rank_correlation=float(stats.spearmanr(first, second).statistic),
        expected=expected_largest(n, largest.pairs),
        chance=largest.chance,
        p_value=largest.p_value,
        left_out=tuple(left_out),
        found=found,
    )


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two vectors are those of one tensor, read under two names."""
    return bool((a - b).abs().max() <= 1e-9 * a.abs().max())


def _varies(vector: Tensor) -> bool:
    # As in `rclib.rowcolumn.measure`: rounding leaves a constant vector a spread of the last place.
    return float(vector.std()) > 1e-12 * (1e-300 + float(vector.abs().max()))


@lru_cache(maxsize=4096)
def expected_largest(n: int, pairs: int = 1) -> float:
    """Mean of the largest |correlation| of `pairs` independent pairs of n-vectors.

    The formula is in the module's docstring. Raises ValueError for n < 3 or pairs < 1.
    """
    top = measure.chance_level(n, pairs, level=1.0 - 1e-9)  # beyond, 1 - F^M is below 1e-9
    nodes, weights = np.polynomial.legendre.leggauss(256)
    r = 0.5 * top * (nodes + 1.0)
    below = special.betainc(0.5, 0.5 * (n - 2), r * r) ** pairs
    return float(0.5 * top * np.sum(weights * (1.0 - below)))


def block_vectors(
    checkpoint: Checkpoint,
    layout: Layout,
    *,
    blocks: Collection[int | None] | None = None,
    biases: bool = False,
    progress: Callable[[int], object] | None = None,
    workers: int | None = None,
    failed: Callable[[str, CheckpointError], object] | None = None,
) -> Vectors:
    """The mean vectors: {(block, set, indices): {label: (N,) float64}}, one pass over the weights.

    A set of several indices runs over their product, the first index slowest. Labels are the
    tensor's name inside its block, the part of a fused tensor, and `.C` or `.R`. biases : gains
    and biases too, which are vectors already.
    """
    layout.check_blocks(blocks)
    wanted = [
        weight
        for name, weight in layout.weights.items()
        if (blocks is None or weight.block in blocks) and name in checkpoint.tensors
    ]
    views = {w.name: matrix_view(w, layout) for w in wanted}
    # In the order of the file, which is the fastest.
    views = {
        name: views[name]
        for name in checkpoint.tensors
        if name in views and (biases or len(views[name].shape) == 2)
    }
    if not views:
        return {}
    requests = {name: _blocks(view) for name, view in views.items()}
    vectors: Vectors = {}
    options: dict[str, Any] = {"progress": progress, "workers": workers, "failed": failed}
    with as_matrices(checkpoint, views) as flat:
        for name, means in stream_means(flat, requests, **options):
            for key, label, vector in _vectors(views[name], means, layout.sets):
                vectors.setdefault(key, {})[label] = vector
    return vectors


def _blocks(view: MatrixView) -> Blocks:
    everything: dict[str, Any] = {"": slice(None)}
    rows, columns = view.positions()
    return Blocks(dict(rows) or everything, dict(columns) or everything)


def _vectors(
    view: MatrixView,
    means: Mapping[tuple[str, str], BlockMeans],
    sets: Mapping[str, tuple[str, ...]],
) -> Iterator[tuple[Key, str, Tensor]]:
    """(key, label, vector) of every set that lies within one of the two groups of axes."""
    for (first, second), block in means.items():
        for group, part, side, vector in (
            (view.first, first, view.sides[0], block.rows),
            (view.second, second, view.sides[1], block.columns),
        ):
            if not group.axes:
                continue
            indices = group.indices(part)
            tensor = vector.view([view.sizes[i] for i in indices])
            label = ".".join(filter(None, (view.weight.label, first or second, side)))
            for name, members in sets.items():
                reduced = _over(tensor, indices, members)
                if reduced is not None:
                    yield (view.weight.block, name, reduced[0]), label, reduced[1]


def _over(
    tensor: Tensor, indices: tuple[str, ...], members: tuple[str, ...]
) -> tuple[tuple[str, ...], Tensor] | None:
    """Mean over all axes but those of `members`, in their order; None if one is not there."""
    bases = [base(i) for i in indices]
    if any(bases.count(m) != 1 for m in members):
        return None
    kept = [bases.index(m) for m in members]
    rest = [a for a in range(tensor.ndim) if a not in kept]
    moved = tensor.permute(*kept, *rest).flatten(len(kept)) if rest else tensor.permute(*kept)
    mean = moved.mean(-1) if rest else moved
    return tuple(indices[a] for a in kept), mean.flatten()
