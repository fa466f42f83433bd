"""Named index sets: which axes of which tensors run over the same neurons.

Paper A writes a weight tensor with one index per axis (γ notation, Definition 3.1) and
collects the axes that share an index into a Γ set (Definition 3.2, Example 3.3). Here an
architecture is a table from tensor name to the names of its axes, output axis first:

    {"W1": ("h1", "x"), "B1": ("h1",), "W2": ("h2", "h1"), "B2": ("h2",), ...}

RC statistics (`rclib.rowcolumn.measure`) and weight transfer (`rclib.rowcolumn.transfer`) need
nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from rclib.checks.arguments import brief, count, flag, mapping

__all__ = ["Axes", "gamma_sets", "index_sizes", "mlp_axes"]

Axes = Mapping[str, tuple[str, ...]]


def gamma_sets(axes: Axes) -> dict[str, tuple[tuple[str, int], ...]]:
    """Γ sets: for each index, every (tensor, axis) that carries it.

    Source: paper A, Definition 3.2. Order follows the table, so results are reproducible.
    Raises ValueError for axes that are no sequence of names, TypeError for what is no table.
    """
    sets: dict[str, list[tuple[str, int]]] = {}
    for name, indices in mapping("axes", axes).items():
        _check_names(name, indices)
        for axis, index in enumerate(indices):
            sets.setdefault(index, []).append((name, axis))
    return {index: tuple(places) for index, places in sets.items()}


def _check_names(name: str, indices: object) -> None:
    # ("h1") is no tuple but text, which would be read as two axes, "h" and "1".
    if not isinstance(indices, (tuple, list)) or not all(isinstance(i, str) for i in indices):
        raise ValueError(f"axes of {name!r} must be a tuple of names, got {brief(indices)}")


def index_sizes(axes: Axes, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Number of neurons of each index, read off the tensors.

    Raises ValueError if a tensor is missing, has another number of axes than the table
    says, or if two tensors disagree on the size of a shared index; TypeError if it is none.
    """
    sizes: dict[str, int] = {}
    first: dict[str, str] = {}
    mapping("tensors", tensors)
    for name, indices in mapping("axes", axes).items():
        if name not in tensors:
            raise ValueError(f"tensor {name!r} of the axes table is missing; got {list(tensors)}")
        _check_names(name, indices)
        if not isinstance(tensors[name], Tensor):
            raise TypeError(f"{name!r} must be a torch tensor, got {type(tensors[name]).__name__}")
        shape = tuple(tensors[name].shape)
        if len(shape) != len(indices):
            raise ValueError(f"tensor {name!r} has shape {shape}, its axes are {indices}")
        for size, index in zip(shape, indices, strict=True):
            if sizes.setdefault(index, size) != size:
                raise ValueError(
                    f"index {index!r} has size {sizes[index]} in {first[index]!r} "
                    f"and {size} in {name!r}"
                )
            first.setdefault(index, name)
    return sizes


def mlp_axes(depth: int, *, bias: bool = True) -> dict[str, tuple[str, ...]]:
    """Axes of a fully connected network with `depth` weight matrices W1 ... W{depth}.

    Indices: `x` (inputs), `h1` ... `h{depth-1}` (hidden neurons), `y` (outputs).
    Source: paper A, Example 3.3 (depth 3). Raises ValueError for a depth that is no positive
    integer.
    """
    depth, bias = count("depth", depth), flag("bias", bias)
    layers = ["x", *(f"h{i}" for i in range(1, depth)), "y"]
    table: dict[str, tuple[str, ...]] = {}
    for i in range(1, depth + 1):
        table[f"W{i}"] = (layers[i], layers[i - 1])
        if bias:
            table[f"B{i}"] = (layers[i],)
    return table
