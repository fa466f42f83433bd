"""Figure 4.4 on a pretrained model with gains as vectors of their own (`pretrained` has no gains).

A gain is a vector over the neurons of the stream, as the means of rows and columns of matrices
are. The largest correlation of a block may then be that of its two gains, which no matrix takes
part in. So the pairs with a matrix are looked at by themselves, and the gains beside matrices
whose entries are in random order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from rclib.checkpoints.opening import open_checkpoint
from rclib.experiments.mean_field.pretrained import PERMUTED, TRAINED, opened, state_of
from rclib.families.layout import Layout
from rclib.inspection.block_correlations import BlockCorrelation, block_correlations
from rclib.rowcolumn.measure import chance_level

__all__ = [
    "ALL_PERMUTED",
    "ANY",
    "MATRICES_PERMUTED",
    "MATRIX",
    "MEANS",
    "all_ratios",
    "gain_table",
    "ratios",
    "shares_above",
]

MATRICES_PERMUTED, ALL_PERMUTED = "matrices permuted", "matrices and gains permuted"
# Which pairs are compared: of means, of means and gains, of these at least one of a matrix.
MEANS, ANY, MATRIX = "means alone", "means and gains", "pairs with a matrix"


def gain_table(name: str, seeds: Sequence[int]) -> pd.DataFrame:
    """The largest |correlation| of every block and index set, with gains and without.

    Columns state, seed, pairs, block, set, value, chance (95 percent level of as many independent
    pairs), first, second. States: as trained (its seed is the first of `seeds`), entries of every
    matrix in random order, entries of every gain as well. Raises DataError and CheckpointError as
    `pretrained.opened`.
    """
    rows = []
    with opened(name) as (checkpoint, described):
        trained = state_of(checkpoint, described, TRAINED)
        rows += _rows(trained, described, TRAINED, seeds[0], {MEANS, ANY, MATRIX})
        for seed in seeds:
            tensors = state_of(checkpoint, described, PERMUTED, seed=seed)
            rows += _rows(tensors, described, MATRICES_PERMUTED, seed, {ANY, MATRIX})
            moved = _vectors_permuted(tensors, seed)
            rows += _rows(moved, described, ALL_PERMUTED, seed, {ANY})
    columns = ["state", "seed", "pairs", "block", "set", "value", "chance", "first", "second"]
    return pd.DataFrame(rows, columns=columns)


def _vectors_permuted(tensors: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The entries of every vector in an order of its own, matrices as they are."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor[torch.randperm(len(tensor), generator=generator)]
        if tensor.ndim == 1
        else tensor
        for name, tensor in tensors.items()
    }


def _rows(
    tensors: Mapping[str, Tensor],
    described: Layout,
    state: str,
    seed: int,
    pairs: Collection[str],
) -> list[tuple[str, int, str, int | None, str, float, float, str, str]]:
    gains = {w.label for w in described.weights.values() if len(w.axes.axes) == 1}
    found = []
    with open_checkpoint(tensors) as checkpoint:
        for kind in [kind for kind in (MEANS, ANY, MATRIX) if kind in pairs]:
            table = block_correlations(
                checkpoint, described, blocks=described.blocks, biases=kind != MEANS
            )
            for row in table.rows:
                value, chance, pair = _largest(row, gains if kind == MATRIX else set())
                found.append((state, seed, kind, row.block, row.set, value, chance, *pair))
    return found


def _largest(row: BlockCorrelation, gains: Collection[str]) -> tuple[float, float, tuple[str, str]]:
    """Largest |correlation| but of pairs within `gains`, its chance level, and the pair."""
    labels, size = row.found.labels, row.found.matrix.abs()
    pairs = [
        (i, j)
        for j in range(len(labels))
        for i in range(j)
        if not (labels[i] in gains and labels[j] in gains)
    ]
    i, j = max(pairs, key=lambda pair: float(size[pair]))
    return float(size[i, j]), chance_level(row.n, len(pairs)), (labels[i], labels[j])


def ratios(table: pd.DataFrame, state: str, pairs: str) -> pd.DataFrame:
    """Largest |correlation| over the stream divided by its 95 percent level: seed, block, ratio.

    Raises ValueError for a state or pairs that the table does not have."""
    chosen = table[(table.state == state) & (table.pairs == pairs) & (table.set == "stream")]
    if chosen.empty:
        raise ValueError(f"the table has no {pairs!r} of {state!r}")
    found = chosen.assign(ratio=chosen.value / chosen.chance)
    return found[["seed", "block", "ratio"]].reset_index(drop=True)


def shares_above(
    table: pd.DataFrame, state: str, pairs: str, *, stream: bool = True
) -> pd.Series[float]:
    """Share of the blocks above their 95 percent level, by seed; `stream=False`: of all tests
    (block, index set). Raises ValueError for a state or pairs that the table does not have."""
    chosen = table[(table.state == state) & (table.pairs == pairs)]
    chosen = chosen[chosen.set == "stream"] if stream else chosen
    if chosen.empty:
        raise ValueError(f"the table has no {pairs!r} of {state!r}")
    return (chosen.value > chosen.chance).groupby(chosen.seed, sort=False).mean()


def all_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """What the figure shows: `ratios` with their kind, the trained model by its pairs and then
    means and gains beside permuted matrices."""
    kinds = [(pairs, TRAINED, pairs) for pairs in (MEANS, ANY, MATRIX)]
    kinds.append((MATRICES_PERMUTED, MATRICES_PERMUTED, ANY))
    frames = [ratios(table, state, pairs).assign(kind=kind) for kind, state, pairs in kinds]
    return pd.concat(frames, ignore_index=True)
