"""Row and column means of tensors that need not fit into memory, in one pass over their bytes.

    axis_means(checkpoint, "lm_head.weight").means      # one vector of means for each axis
    block_means(checkpoint, "c_attn.weight", column_blocks={"q": slice(0, 768), ...})
    stream_means(checkpoint, {"a.weight": Blocks(), "c_attn.weight": Blocks(columns={...})})

`block_means` is for matrices whose axes are several index sets in one (fused q, k, v). A block
of rows or columns is a slice or a list of positions, in the order in which the result comes;
for each pair (row block, column block) the submatrix W[rows][:, columns] gives

    rows[i]    = mean over the block's columns of W[row i]          (the paper's `.C`)
    columns[j] = mean over the block's rows of W[:, column j]       (the paper's `.R`)

together with the mean and the mean square of its entries. A vector has rows only: its entries.
All results are float64; NaN and infinite weights are refused by name.

Source: paper A, Section 4 (the mean vectors of Figures 4.2 and 4.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rclib.checkpoints import Checkpoint, CheckpointError
from rclib.safetensors_file import brief

__all__ = [
    "AxisMeans",
    "Block",
    "BlockMeans",
    "Blocks",
    "axis_means",
    "block_means",
    "stream_means",
]

Block = slice | Sequence[int] | Tensor


@dataclass(frozen=True)
class Blocks:
    """Named blocks of the rows and of the columns of a matrix; one block "" of all by default."""

    rows: Mapping[str, Block] = field(default_factory=lambda: {"": slice(None)})
    columns: Mapping[str, Block] = field(default_factory=lambda: {"": slice(None)})


@dataclass(frozen=True)
class BlockMeans:
    """Means of one block of a matrix.

    rows : (r,) float64, mean of each row; columns : (c,) float64, mean of each column;
    mean, square : mean of the entries and of their squares; count : number of entries.
    """

    rows: Tensor
    columns: Tensor
    mean: float
    square: float
    count: int


@dataclass(frozen=True)
class AxisMeans:
    """means[a] : (size of axis a,) float64, mean over all other axes; mean, square, count as
    in `BlockMeans`."""

    means: tuple[Tensor, ...]
    mean: float
    square: float
    count: int


def axis_means(checkpoint: Checkpoint, name: str, *, workers: int | None = None) -> AxisMeans:
    """Mean over all other axes, for each axis of a tensor of any number of axes.

    A vector is its own mean. Raises CheckpointError for unknown names, types without
    fractions, empty tensors, and NaN or infinite weights.
    """
    tensor = _floating(checkpoint, name).double()
    means = tuple(
        tensor.mean(dim=[b for b in range(tensor.ndim) if b != a]) if tensor.ndim > 1 else tensor
        for a in range(tensor.ndim)
    )
    return AxisMeans(means, float(tensor.mean()), float(tensor.square().mean()), tensor.numel())


def block_means(
    checkpoint: Checkpoint,
    name: str,
    *,
    row_blocks: Mapping[str, Block] | None = None,
    column_blocks: Mapping[str, Block] | None = None,
    workers: int | None = None,
) -> dict[tuple[str, str], BlockMeans]:
    """Means of every (row block, column block) of a matrix or vector, in one pass.

    The keys are pairs of block names; "" is all rows or all columns where none are given.
    Raises CheckpointError as `axis_means`, and ValueError for blocks that do not fit the shape.
    """
    tensor = _floating(checkpoint, name).double()
    matrix = tensor.unsqueeze(1) if tensor.ndim == 1 else tensor
    found = {}
    for r, rows in (row_blocks or {"": slice(None)}).items():
        for c, columns in (column_blocks or {"": slice(None)}).items():
            part = matrix[_positions(rows, matrix.shape[0])][
                :, _positions(columns, matrix.shape[1])
            ]
            found[r, c] = BlockMeans(
                part.mean(1),
                part.mean(0),
                float(part.mean()),
                float(part.square().mean()),
                part.numel(),
            )
    return found


def stream_means(
    checkpoint: Checkpoint,
    requests: Mapping[str, Blocks],
    *,
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[str, dict[tuple[str, str], BlockMeans]]]:
    """(name, block_means) for many matrices and vectors, in the order of `requests`.

    progress : called with the number of bytes read since its last call.
    """
    for name, blocks in requests.items():
        yield (
            name,
            block_means(checkpoint, name, row_blocks=blocks.rows, column_blocks=blocks.columns),
        )
        if progress is not None:
            progress(checkpoint.tensors[name].nbytes)


def _positions(block: Block, size: int) -> Tensor:
    if isinstance(block, slice):
        return torch.arange(size)[block]
    return torch.as_tensor(block, dtype=torch.int64)


def _floating(checkpoint: Checkpoint, name: str) -> Tensor:
    tensor = checkpoint.tensor(name)
    if not tensor.is_floating_point() or not math.prod(tensor.shape):
        raise CheckpointError(f"tensor {brief(name)} has no means")
    if not bool(torch.isfinite(tensor.double()).all()):
        raise CheckpointError(f"tensor {brief(name)} holds NaN or infinity")
    return tensor
