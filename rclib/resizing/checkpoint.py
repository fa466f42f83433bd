"""Grow or shrink people's own language models: weight transfer for any described checkpoint.

`rclib.rowcolumn.transfer` on the pieces that a `rclib.families.layout.Layout` cuts the tensors
into: heads move as whole heads, the entries inside a head keep their order, query heads stay with
their key-value head, fused matrices are put together again.

A matrix acts on its inputs by a sum, so its entries are scaled by (inputs before / inputs after)
^ (1 - a) (paper A, Algorithm 1; a = 0, no multiplier, for all families but this project's own).
Embeddings, positions, gains and biases are copied. Where embedding and output matrix are one
tensor, the output matrix's factor goes to the gain and bias in front of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rclib.families.layout import FamilyError, Layout, Tied, base, check_layout
from rclib.rowcolumn import transfer

__all__ = ["apply_maps", "checkpoint_maps", "resize_checkpoint"]


def checkpoint_maps(
    layout: Layout,
    target: Mapping[str, int],
    *,
    random_rate: float = 0.0,
    replacement: bool = True,
    seed: int = 0,
) -> transfer.IndexMaps:
    """The index maps that `resize` uses for these arguments, over pieces.

    Raises FamilyError for an index that is unknown or cannot be resized.
    """
    if layout.left_out:
        raise FamilyError(
            f"it cannot be resized: it has tensors without a row, {layout.left_out[0]!r} the "
            f"first of {len(layout.left_out)}"
        )
    sizes: dict[str, int] = {}
    for name, size in target.items():
        if name in layout.ordered:
            raise FamilyError(f"index {name!r} cannot be resized: {layout.ordered[name]}")
        found = [index for index in layout.sizes if base(index) == name]
        if not found:
            known = sorted({base(index) for index in layout.sizes} - set(layout.ordered))
            raise FamilyError(f"unknown index {name!r}; this model has {known}")
        sizes |= dict.fromkeys(found, size)
    return transfer.draw_index_maps(
        layout.axes,
        layout.sizes,
        sizes,
        random_rate=random_rate,
        replacement=replacement,
        generator=torch.Generator().manual_seed(int(seed)),
    )


def resize_checkpoint(
    tensors: Mapping[str, Tensor],
    layout: Layout,
    target: Mapping[str, int],
    *,
    random_rate: float = 0.0,
    norm_rate: float = 1.0,
    replacement: bool = True,
    fan_in_exponents: Mapping[str, float] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The state dict of the model at another size, sampled from this one.

    tensors : its weights by name; layout : `rclib.families.layout.layout` of the same tensors.
    target : new size by index without block, e.g. {"stream": 1536, "head": 24, "mlp": 6144}.
    random_rate, norm_rate, replacement : as in `rclib.rowcolumn.transfer` (r1, r2);
        replacement=False uses every neuron equally often, and a whole multiple then keeps the
        function.
    fan_in_exponents : exponent a of a tensor's multiplier, by name (`GPT.fan_in_exponents()`).

    The new model's configuration is the reader's to write (its head size must stay). Tensors
    that the layout ignores are copied. With tied embeddings the last hidden state, in front of
    the output matrix, is scaled as well. Raises FamilyError for indices that are unknown or
    ordered, TypeError for weights or a layout that are none, ValueError as `transfer.transfer`
    does.
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(
            "tensors must be a mapping of tensors by name, such as model.state_dict(), got "
            f"{type(tensors).__name__}; `python -m rclib resize` takes files and folders"
        )
    check_layout(layout)
    maps = checkpoint_maps(
        layout, target, random_rate=random_rate, replacement=replacement, seed=seed
    )
    return apply_maps(tensors, layout, maps, norm_rate=norm_rate, fan_in_exponents=fan_in_exponents)


def apply_maps(
    tensors: Mapping[str, Tensor],
    layout: Layout,
    maps: transfer.IndexMaps,
    *,
    norm_rate: float = 1.0,
    fan_in_exponents: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Gather every tensor along index maps over its pieces, and rescale; see `resize`.

    Permutations as maps rename neurons: the function must not change if the layout is right.
    """
    exponents = fan_in_exponents or {}
    axes = layout.axes
    sizes = {axes[piece][axis]: len(source) for (piece, axis), source in maps.items()}
    ratios = {index: layout.sizes[index] / size for index, size in sizes.items()}
    tied = _is_tied(tensors, layout)
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name not in layout.weights:
            out[name] = tensor.detach().clone()
            continue
        pieces = layout.cut(name, tensor.detach())
        # `gather` takes the last axis for the fan-in; with a = 1 it leaves the scale to us.
        moved = transfer.gather(
            pieces, axes, maps, norm_rate=norm_rate, fan_in_exponents=dict.fromkeys(pieces, 1.0)
        )
        ratio = _input_ratio(layout, name, ratios)
        if tied is not None and name == tied.head:
            ratio = 1.0
        if tied is not None and name in tied.scaled:
            ratio = ratios.get(axes[name][0], 1.0)
        factor = ratio ** (1.0 - exponents.get(name, 0.0))
        whole = layout.join(name, moved)
        out[name] = whole * factor if factor != 1.0 else whole
    return out


def _input_ratio(layout: Layout, name: str, ratios: Mapping[str, float]) -> float:
    """(inputs before) / (inputs after) of a matrix; 1 for what sums over nothing."""
    axes = layout.weights[name].axes
    return math.prod(ratios.get(i, 1.0) for p in axes.inputs for i in axes.axes[p].lead)


def _is_tied(tensors: Mapping[str, Tensor], layout: Layout) -> Tied | None:
    """The tied pair if output matrix and embedding are one tensor here, else None."""
    tied = layout.tied
    if tied is None or tied.embedding is None:
        return None
    if tied.head is not None:
        head, embedding = tensors[tied.head], tensors[tied.embedding]
        same = head.data_ptr() == embedding.data_ptr() and head.shape == embedding.shape
        return tied if tied.tied or same else None
    return tied if tied.tied else None
