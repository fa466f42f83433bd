"""Any described tensor as a matrix of two groups of axes, without copying it.

Weights of the project's own models have three axes (head, entry, stream), checkpoints store some
matrices (inputs, outputs), and biases may be kept by head. For means and spectra all of them are
matrices: outputs by inputs where the table has an arrow, first axis by the others where it has
none, and one column where the axes belong together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rclib.checkpoints.opening import Checkpoint, TensorInfo
from rclib.families.axis_notation import TensorAxes, cut
from rclib.families.layout import Layout, Weight, base

__all__ = ["MatrixView", "as_matrices", "matrix_view"]


@dataclass(frozen=True)
class MatrixView:
    """How a tensor is read as a matrix.

    weight : which one. first, second : its axes, as stored; the second group is empty for
    vectors. sides : "C" (rows, outputs) or "R" (columns, inputs) of each group, "" for vectors.
    sizes : of the indices.
    """

    weight: Weight
    first: TensorAxes
    second: TensorAxes
    sides: tuple[str, str]
    sizes: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """(entries of the first group, entries of the second), or (entries,)."""
        return tuple(_entries(g, self.sizes) for g in (self.first, self.second) if g.axes)

    @property
    def is_matrix(self) -> bool:
        """Whether there are two groups with more than one entry each."""
        return len(self.shape) == 2 and min(self.shape) > 1

    def positions(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Places of the parts in each group, {label: (entries,) int64}; {} for an uncut group."""
        return self._positions(self.first), self._positions(self.second)

    def _positions(self, group: TensorAxes) -> dict[str, Tensor]:
        if not any(axis.parts for axis in group.axes):
            return {}
        shape = [axis.size(self.sizes) for axis in group.axes]
        places = torch.arange(math.prod(shape)).view(shape)
        return {label: p.flatten() for label, p in cut(places, group, self.sizes).items()}


def _entries(group: TensorAxes, sizes: Mapping[str, int]) -> int:
    return math.prod(axis.size(sizes) for axis in group.axes)


def matrix_view(weight: Weight, layout: Layout) -> MatrixView:
    """The view of one tensor of a layout."""
    axes = weight.axes
    count = len(axes.axes)
    sides = (axes.side(0), axes.side(count - 1))
    if axes.arrow:
        split = len(axes.inputs) if 0 in axes.inputs else count - len(axes.inputs)
    elif count == 1 or _spanned(axes, layout):
        split, sides = count, ("", "")
    else:
        split = 1
    first, second = TensorAxes(axes.axes[:split]), TensorAxes(axes.axes[split:])
    return MatrixView(weight, first, second, sides, layout.sizes)


def _spanned(axes: TensorAxes, layout: Layout) -> bool:
    """Whether a set needs indices of several axes together (biases stored by head)."""
    own = [{base(i) for i in axis.names()} for axis in axes.axes]
    return any(
        set(members) <= set().union(*own) and not any(set(members) <= one for one in own)
        for members in layout.sets.values()
    )


class _Reshaped:
    """A checkpoint's tensors under other shapes of the same entries."""

    def __init__(self, checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.checkpoint = checkpoint
        self.tensors: Mapping[str, TensorInfo] = {
            name: replace(checkpoint.tensors[name], shape=shape) for name, shape in shapes.items()
        }

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        return self.checkpoint.entries(name, start, stop, buffer)

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        return self.checkpoint.view(name, start, stop, buffer)

    def close(self) -> None:
        """The checkpoint stays open: it is its owner's."""


def as_matrices(checkpoint: Checkpoint, views: Mapping[str, MatrixView]) -> Checkpoint:
    """The tensors of `views` as a checkpoint of matrices and vectors; reads from the other one."""
    shapes = {name: view.shape for name, view in views.items()}
    return Checkpoint(
        checkpoint.source,
        [_Reshaped(checkpoint, shapes)],
        checkpoint.config,
        files=checkpoint.files,
    )
