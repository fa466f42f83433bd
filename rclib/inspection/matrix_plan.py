"""Which matrices a checkpoint holds, with a family's table or without one.

Spectra need no axes: a tensor of two or more axes is a matrix, and its transpose has the same
singular values. What a tensor is, names and shapes tell:

- two axes: a matrix (outputs, inputs), or a look-up table by its name;
- three and more, small ones behind: a convolution, as out x (in · places of the kernel). A bias as
  long as the second axis shows one that is stored (in, out, ...), as transposed ones are;
- three, of other sizes: matrices stacked along the first axis, as experts are, one by one;
- leading axes of one entry do not count, nor tensors that are vectors after that.

A table that fits says more: which parts a fused matrix has, which side are the outputs, which
block it stands in. Sizes that only correlations need (heads) do not stop spectra: thirds of a fused
matrix are the same for any number of heads. Where query, key and value alternate from head to head
they are not, and the matrix is taken whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rclib.checkpoints.opening import Checkpoint, TensorInfo
from rclib.families.axis_notation import TensorAxes
from rclib.families.layout import (
    Family,
    FamilyError,
    Layout,
    SizesError,
    Weight,
    base,
    is_floating,
    layout,
)
from rclib.families.matrix_view import matrix_view
from rclib.rowcolumn.fan_in import is_lookup

__all__ = ["MatrixPlan", "plan_matrices", "spectra_layout"]

KERNEL = 16  # an axis of so many places at most is that of a kernel, in tensors of three axes
MATRIX, LOOKUP, CONVOLUTION = "matrix", "look-up table", "convolution"
FUSED = re.compile(r"qkv|query_key_value|c_attn|kqv|gate_up|(^|[._])in_proj")
# Buffers and biases that have two axes: by the last part of their name.
NO_MATRIX = re.compile(
    r"(^|_)(bias|mask|inv_freq|freqs|running_mean|running_var|attn_mask)$|^b_[A-Z]"
)


@dataclass(frozen=True)
class MatrixPlan:
    """How one tensor is read as matrices.

    count : how many are stacked along its first axis; shape : (rows, columns) of each, as stored;
    outputs_first : whether the rows are its outputs; order : its axes in another order first, ()
    as they are; rows, columns : places of named parts. kind : what it was taken for.
    """

    name: str
    label: str
    block: int | None
    kind: str
    shape: tuple[int, int]
    count: int = 1
    outputs_first: bool = True
    order: tuple[int, ...] = ()
    rows: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)
    columns: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @property
    def whole(self) -> bool:
        """Whether the tensor is one matrix as it lies, so that it can be read in rows."""
        return self.count == 1 and not (self.order or self.rows or self.columns)

    def of(self, name: str) -> MatrixPlan:
        """The same reading of a tensor of another name."""
        return replace(self, name=name)

    def matrices(self, checkpoint: Checkpoint) -> Iterator[tuple[str, str, Tensor]]:
        """(label, kind, matrix as stored), one at a time."""
        size = math.prod(self.shape)
        for i in range(self.count):
            if self.order:
                matrix = checkpoint.tensor(self.name).permute(self.order).reshape(self.shape)
            else:
                matrix = checkpoint.entries(self.name, i * size, (i + 1) * size).view(self.shape)
            label = f"{self.label}[{i}]" if self.count > 1 else self.label
            kind = f"{self.kind} {i} of {self.count}" if self.count > 1 else self.kind
            if self.rows:
                for part, places in self.rows.items():
                    yield f"{label}.{part}", f"{kind}, part {part}", matrix[places]
            elif self.columns:
                for part, places in self.columns.items():
                    yield f"{label}.{part}", f"{kind}, part {part}", matrix[:, places]
            else:
                yield label, kind, matrix


def spectra_layout(
    tensors: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    *,
    family: Family | None = None,
    sizes: Mapping[str, int] | None = None,
) -> tuple[Layout | None, frozenset[str]]:
    """A layout if a table fits, and indices whose size is not known (taken for one).

    A table of one's own that does not fit is an error; where no table fits there is no layout.
    """
    given = dict(sizes or {})

    def attempt(known: Mapping[str, int]) -> Layout | None:
        found = layout(tensors, config, family=family, sizes=known, partial=True)
        return None if found.inferred else found  # names and shapes tell spectra as much

    try:
        return attempt(given), frozenset()
    except SizesError as error:
        try:
            return attempt(given | dict.fromkeys(error.indices[:1], 1)), frozenset(error.indices)
        except FamilyError:
            return None, frozenset()
    except FamilyError:
        if family is not None:
            raise
        if given and _fits_without(attempt):
            raise  # a table fits, the size given does not
        return None, frozenset()


def _fits_without(attempt: Callable[[Mapping[str, int]], Layout | None]) -> bool:
    try:
        return attempt({}) is not None
    except SizesError:
        return True
    except FamilyError:
        return False


def plan_matrices(
    tensors: Mapping[str, TensorInfo],
    found: Layout | None = None,
    unknown: frozenset[str] = frozenset(),
) -> tuple[list[MatrixPlan], dict[str, str]]:
    """Every matrix, in the order of the file, and {tensor: why it is left out}.

    found, unknown : of `spectra_layout`. Vectors are no matrices and are not mentioned.
    """
    plans: list[MatrixPlan] = []
    left: dict[str, str] = {}
    for name, info in tensors.items():
        shape = tuple(info.shape)
        if len(shape) < 2 or math.prod(shape) in (0, *shape):
            continue
        if not is_floating(info):
            left[name] = f"no fractions ({str(info.dtype).removeprefix('torch.')})"
        elif found is not None and name in found.ignored:
            left[name] = f"no weight (table {found.family})"
        elif NO_MATRIX.search(name.rpartition(".")[2]):
            left[name] = "a bias or buffer by its name"
        else:
            if found is not None and name in found.weights:
                plan = _described(found.weights[name], found, unknown)
            else:
                plan = _by_shape(name, shape, tensors)
            if plan is not None:
                plans.append(plan)
    return plans, left


def _described(weight: Weight, found: Layout, unknown: frozenset[str]) -> MatrixPlan | None:
    """The matrices of a tensor that a table describes; None for vectors (a bias kept by head)."""
    axes = weight.axes
    experts = len(axes.axes) == 3 and axes.arrow and base(axes.axes[0].names()[0]) == "expert"
    alternating = any(axis.parts and {base(i) for i in axis.lead} & unknown for axis in axes.axes)
    if experts:
        inner = TensorAxes(axes.axes[1:], tuple(p - 1 for p in axes.inputs if p), True)
        whole = Weight(weight.name, weight.label, weight.block, inner)
        view = matrix_view(whole, found)
    else:
        view = matrix_view(weight, found)
    if not view.is_matrix:
        return None
    rows, columns = ({}, {}) if alternating else view.positions()
    shape = view.shape
    kernel = len(axes.axes) > 2 and not experts and _kernel_behind(weight, found)
    kind = CONVOLUTION if kernel else MATRIX if axes.arrow else LOOKUP
    if alternating:
        kind = "matrix (heads unknown: not cut)"
    return MatrixPlan(
        weight.name, weight.label, weight.block, "expert" if experts else kind,
        (shape[0], shape[1]),
        count=found.sizes[axes.axes[0].names()[0]] if experts else 1,
        outputs_first=view.sides[0] != "R", rows=rows, columns=columns,
    )  # fmt: skip


def _kernel_behind(weight: Weight, found: Layout) -> bool:
    """Whether the last input of a tensor is a place of a kernel: an index that stands behind."""
    last = len(weight.axes.axes) - 1
    (index, *_) = weight.axes.axes[last].names()
    return last in weight.axes.inputs and all(
        place > 1
        for indices in found.axes.values()
        for place, other in enumerate(indices)
        if other == index
    )


def _by_shape(
    name: str, shape: Sequence[int], tensors: Mapping[str, TensorInfo]
) -> MatrixPlan | None:
    label, block = _place(name)
    kernel = _kernel_axes(name, shape)
    if kernel:
        order: tuple[int, ...] = ()
        outputs, inputs = shape[0], shape[1]
        bias = tensors.get(f"{name.rpartition('.')[0]}.bias")
        if bias is not None and tuple(bias.shape) == (shape[1],) and shape[1] != shape[0]:
            order = (1, 0, *range(2, len(shape)))
            outputs, inputs = inputs, outputs
        columns = inputs * math.prod(shape[2:])
        if min(outputs, columns) < 2:
            return None
        return MatrixPlan(name, label, block, CONVOLUTION, (outputs, columns), order=order)
    inner = list(shape)
    while len(inner) > 2 and inner[0] == 1:
        inner = inner[1:]
    count, (rows, columns) = math.prod(inner[:-2]), inner[-2:]
    if min(rows, columns) < 2:
        return None
    if count > 1:
        kind = "expert" if re.search(r"expert|moe", name, re.IGNORECASE) else "stacked"
        return MatrixPlan(name, label, block, kind, (rows, columns), count=count)
    if is_lookup(name):
        return MatrixPlan(name, label, block, LOOKUP, (rows, columns))
    if name.endswith("in_proj_weight") and rows == 3 * columns:  # torch.nn.MultiheadAttention
        thirds = dict(zip("qkv", torch.arange(rows).chunk(3), strict=True))
        return MatrixPlan(name, label, block, MATRIX, (rows, columns), rows=thirds)
    kind = "matrix (fused: not cut)" if FUSED.search(name) else MATRIX
    return MatrixPlan(name, label, block, kind, (rows, columns))


def _kernel_axes(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is a convolution's."""
    said = "conv" in name.lower()
    if len(shape) < 3 or re.search(r"expert|moe", name, re.IGNORECASE):
        return False
    small = all(n <= (31 if len(shape) > 3 else KERNEL) for n in shape[2:])
    if len(shape) == 3:
        return small and shape[0] > 1 and (said or shape[2] < min(10, shape[0]))
    return (small and shape[0] > 1) or (said and len(shape) in (4, 5))


def _place(name: str) -> tuple[str, int | None]:
    """(short name, number of the block): what stands before and behind the first number."""
    short = name.removesuffix(".weight")
    found = re.search(r"(?:^|\.)(\d{1,6})\.", short)
    if found is None:
        return short, None
    return short[found.end() :] or short, int(found[1])
