"""Which axes of a tensor are summed over: the fan-in, by names and shared indices.

The axes table (`rclib.rowcolumn.axes`) names the output axis first. For a matrix the last axis is
the fan-in. A convolution (out, in, y, x) sums over its input channels and the kernel's places, a
look-up table (rows picked by a number) over nothing, and a tensor of three axes such as (head,
query, stream) may have two output axes. Where the table does not tell, a tensor is refused: a
wrong fan-in gives a network of another function without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Integral

from rclib.checks.arguments import brief, mapping
from rclib.rowcolumn.axes import Axes, gamma_sets

__all__ = ["input_axes", "is_lookup"]

_LOOKUP = re.compile(
    r"(^|_)(emb|embs|embed|embedding|embeddings|embedder|wte|wpe|tokens?_embed\w*|lookup)(_|$)"
    r"|(^|_)(relative_attention_bias|relative_position_bias_table|positional_encoding|lut)$"
    r"|^shared$|^w_(e|pos)$|(^|_)pos(ition)?(al)?_(emb\w*|table)"
)
# Layers that stand behind or around a table, and are matrices.
_NO_LOOKUP = re.compile(
    r"proj|linear|dense|(^|_)(out|fc\d*|mlp|norm|ln|gate|head|conv\d*|to|layernorm)(_|$)|mapping"
    r"|unembed|(^|_)(patch|time|timestep)_"
)


def is_lookup(name: str) -> bool:
    """Whether a tensor's name says that it is a look-up table (embedding, positions).

    The module's own name counts: `wte.weight` and `embeddings.word_embeddings.weight` are tables,
    `patch_embed.proj.weight`, `embed_out.weight` and `time_embedding.linear_1.weight` are not.
    """
    parts = [p for p in re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split(".") if p]
    if len(parts) > 1 and parts[-1] in ("weight", "w", "table", "embedding"):
        parts = parts[:-1] if parts[-1] != "embedding" else parts
    while len(parts) > 1 and parts[-1].isdigit():  # one of several tables
        parts = parts[:-1]
        if not _LOOKUP.search(parts[-1]):
            return False
    last = parts[-1] if parts else ""
    return bool(_LOOKUP.search(last)) and not _NO_LOOKUP.search(last)


def input_axes(
    axes: Axes,
    sizes: Mapping[str, int],
    target: Mapping[str, int],
    inputs: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, tuple[int, ...]]:
    """{tensor: positions of its fan-in among the axes that change}; nothing for vectors.

    inputs : positions by tensor, as the user knows them; they are not questioned. For the others:
    none where the name says look-up table, the last axis of a matrix, and of more axes the first
    is an output, the last an input, and one between them an input if kernel places alone follow
    it: indices that keep their size and occur in nothing but tensors of more than two axes, never
    first. Raises ValueError naming tensor and index where that does not decide, and for positions
    that a tensor does not have.
    """
    given = mapping("inputs", {} if inputs is None else inputs)
    sets = gamma_sets(axes)
    changing = {i for i, n in target.items() if i in sizes and sizes[i] != n}
    found: dict[str, tuple[int, ...]] = {}
    for name in given:
        if name not in axes:
            raise ValueError(f"inputs: no tensor {name!r} in the axes table, which has {[*axes]}")
    for name, indices in axes.items():
        moving = [p for p, index in enumerate(indices) if index in changing]
        if name in given:
            places = _positions(name, given[name], len(indices))
            found[name] = tuple(p for p in moving if p in places)
        elif len(indices) > 1 and not is_lookup(name):
            found[name] = tuple(p for p in moving if _is_input(name, p, axes, sets, changing))
    return found


def _positions(name: str, places: object, axes: int) -> tuple[int, ...]:
    if (
        not isinstance(places, Sequence)
        or isinstance(places, (str, bytes))
        or not all(isinstance(p, Integral) and not isinstance(p, bool) for p in places)
        or not all(0 <= p < axes for p in places)
    ):
        raise ValueError(
            f"inputs of {name!r} must be positions 0 ... {axes - 1}, got {brief(places)}"
        )
    return tuple(int(p) for p in places)


def _is_input(
    name: str,
    place: int,
    axes: Axes,
    sets: Mapping[str, tuple[tuple[str, int], ...]],
    changing: set[str],
) -> bool:
    indices = axes[name]
    if place == 0:
        return False
    if place == len(indices) - 1:
        return True
    if all(_is_kernel(i, axes, sets, changing) for i in indices[place + 1 :]):
        return True
    if _makes_output(indices[place], name, axes, sets):
        return False
    raise ValueError(
        f"tensor {name!r} with axes {tuple(indices)}: it cannot be told whether it sums over "
        f"{indices[place]!r}, axis {place}; say so, inputs={{{name!r}: (positions summed over)}}"
    )


def _is_kernel(
    index: str,
    axes: Axes,
    sets: Mapping[str, tuple[tuple[str, int], ...]],
    changing: set[str],
) -> bool:
    """Whether an index can only be a place of kernels."""
    return index not in changing and all(
        len(axes[tensor]) > 2 and place > 1 for tensor, place in sets[index]
    )


def _makes_output(
    index: str, name: str, axes: Axes, sets: Mapping[str, tuple[tuple[str, int], ...]]
) -> bool:
    """Whether a bias of all but the last index says that the rest of them are outputs."""
    outputs = tuple(axes[name][:-1])
    return any(tuple(axes[tensor]) == outputs for tensor, _ in sets[index] if tensor != name)
