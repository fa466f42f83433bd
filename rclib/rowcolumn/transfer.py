"""Zero-shot weight transfer by sampling from the RC measure (paper A, Algorithm 1).

A network of width N is a sample of one measure over neurons; a network of width N' is made by
drawing N' neurons from it. With one index map π: {1..N'} → {1..N} for each Γ set, shared by
every tensor that carries the index,

    W'[i, j] = r2 · (N / N')^(1 - a) · W[π_row(i), π_col(j)]

where N → N' is the change of the fan-in and `fan_in^-a` the parametrisation's multiplier:
under mean field a = 1 and entries are copied as they are, without a multiplier (a = 0) the
sum over the fan-in keeps its size because entries shrink by N / N'.

What the paper leaves open, as chosen here: the random rate r1 is the share of new neurons
whose source is drawn anew and independently for every tensor that carries them, which breaks
the shared index (r1 = 1 keeps the marginal law of each tensor and nothing of the RC
structure); the norm rate r2 multiplies the transferred weights and biases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rclib.checks.arguments import count, flag, mapping, number
from rclib.rowcolumn.axes import Axes, gamma_sets, index_sizes
from rclib.rowcolumn.fan_in import input_axes

__all__ = ["IndexMaps", "draw_index_maps", "gather", "transfer"]

_INTEGERS = (torch.int64, torch.int32)
IndexMaps = dict[tuple[str, int], Tensor]  # (tensor, axis) -> (N',) source neuron of each new one


def _draw(source: int, target: int, replacement: bool, generator: torch.Generator) -> Tensor:
    if replacement:
        return torch.randint(source, (target,), generator=generator)
    # Every source neuron is used ⌊N'/N⌋ or ⌈N'/N⌉ times, in random order.
    rounds = [torch.randperm(source, generator=generator) for _ in range(-(-target // source))]
    full = torch.cat([*rounds[:-1], rounds[-1][: target - source * (len(rounds) - 1)]])
    return full[torch.randperm(target, generator=generator)]


def draw_index_maps(
    axes: Axes,
    source: Mapping[str, int],
    target: Mapping[str, int],
    *,
    random_rate: float = 0.0,
    replacement: bool = True,
    generator: torch.Generator,
) -> IndexMaps:
    """Index maps of Algorithm 1 for every index of `target` (indices left out stay as they are).

    source, target : sizes N and N' by index name.
    random_rate : r1 in [0, 1], see the module's docstring.
    replacement : True draws neurons independently (the paper's sampling); False uses every
        neuron equally often, which removes most of the sampling error (and for N' = k N with
        r1 = 0 keeps the function exactly).

    Raises ValueError for unknown indices, sizes below one, r1 outside [0, 1] and a generator of
    another device than the CPU; TypeError for a target or generator that is none.
    """
    random_rate = number("random_rate", random_rate)
    if not 0.0 <= random_rate <= 1.0:
        raise ValueError(f"random_rate must lie in [0, 1], got {random_rate!r}")
    replacement = flag("replacement", replacement)
    source, target = mapping("source", source), mapping("target", target)
    if not isinstance(generator, torch.Generator):  # None would draw from the global one
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if generator.device.type != "cpu":
        raise ValueError(f"generator must be one of the CPU, got {generator.device}")
    sets = gamma_sets(axes)
    maps: IndexMaps = {}
    for index, n_new in target.items():
        if index not in sets:
            raise ValueError(f"index {index!r} is not in the axes table, which has {list(sets)}")
        if index not in source:
            raise ValueError(f"source must give a size for index {index!r}, got {dict(source)}")
        n_new = count(f"target size of {index!r}", n_new)
        n_old = count(f"source size of {index!r}", source[index])
        shared = _draw(n_old, n_new, replacement, generator)
        broken = torch.randperm(n_new, generator=generator)[: round(random_rate * n_new)]
        for place in sets[index]:
            own = shared.clone()
            if len(broken):
                own[broken] = torch.randint(n_old, (len(broken),), generator=generator)
            maps[place] = own
    return maps


def gather(
    tensors: Mapping[str, Tensor],
    axes: Axes,
    maps: IndexMaps,
    *,
    norm_rate: float = 1.0,
    fan_in_exponents: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Apply index maps to every tensor of the table and rescale; other tensors are copied.

    The last axis of a tensor with two or more axes is its fan-in. `fan_in_exponents` gives a
    by tensor name; tensors not named have no multiplier (a = 0). Raises ValueError for a norm rate
    that is not positive, for maps or tensors that do not fit the table, and for a rescaled tensor
    that is of integers or leaves the range of its dtype; TypeError for what is no dense tensor.
    """
    norm_rate = number("norm_rate", norm_rate)
    if not 0 < norm_rate < 1e30:  # beyond, weights would be infinite in float32
        raise ValueError(f"norm_rate must be positive and finite, got {norm_rate!r}")
    exponents = mapping("fan_in_exponents", {} if fan_in_exponents is None else fan_in_exponents)
    gamma_sets(axes)  # its errors
    mapping("maps", maps)
    out: dict[str, Tensor] = {}
    for name, tensor in mapping("tensors", tensors).items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise TypeError(f"{name!r} must be a dense torch tensor, got {type(tensor).__name__}")
        new = tensor.detach().clone()
        moved = False
        for axis in range(len(axes.get(name, ()))):
            if (name, axis) not in maps:
                continue
            moved = True
            new = new.index_select(axis, _checked_map(name, axis, maps[name, axis], new))
        if moved:
            factor = norm_rate
            if new.ndim > 1:
                ratio = tensor.shape[-1] / new.shape[-1]
                exponent = number(f"fan_in_exponents of {name!r}", exponents.get(name, 0.0))
                if not abs(exponent) <= 9:
                    raise ValueError(f"fan_in_exponents of {name!r} must lie in [-9, 9]")
                factor *= ratio ** (1.0 - exponent)
            if factor != 1.0:
                new = _scaled(name, new, factor)
        out[name] = new
    return out


def _checked_map(name: str, axis: int, sources: Tensor, tensor: Tensor) -> Tensor:
    """The map on the tensor's device; ValueError unless it names neurons that the axis has."""
    size = tensor.shape[axis] if axis < tensor.ndim else 0
    whole = isinstance(sources, Tensor) and sources.dtype in _INTEGERS and sources.ndim == 1
    if not whole or not len(sources) or not 0 <= int(sources.min()) <= int(sources.max()) < size:
        raise ValueError(f"map of {name!r}, axis {axis}, must hold indices 0 ... {size - 1}")
    return sources.to(tensor.device)


def _scaled(name: str, tensor: Tensor, factor: float) -> Tensor:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise ValueError(f"{name!r} must be floating point to be rescaled, got {tensor.dtype}")
    if tensor.dtype.itemsize > 2 or tensor.dtype == torch.bfloat16 or tensor.is_meta:
        return tensor * factor
    scaled = (tensor.float() * factor).to(tensor.dtype)  # eight bits know no arithmetic
    if bool(torch.isfinite(tensor.float()).all() & ~torch.isfinite(scaled.float()).all()):
        raise ValueError(f"{name!r} leaves the range of {tensor.dtype} when multiplied by {factor}")
    return scaled


def transfer(
    tensors: Mapping[str, Tensor],
    axes: Axes,
    target: Mapping[str, int],
    *,
    random_rate: float = 0.0,
    norm_rate: float = 1.0,
    fan_in_exponents: Mapping[str, float] | None = None,
    inputs: Mapping[str, Sequence[int]] | None = None,
    replacement: bool = True,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Grow or shrink a network without training (paper A, Algorithm 1).

    tensors : the trained weights by name; axes : their index names; target : new size of each
    index to change. inputs : positions of the axes that a tensor sums over, by tensor name (an
    empty tuple for a look-up table); those of tensors not named are told by
    `rclib.rowcolumn.fan_in.input_axes`. Returns new tensors; the inputs are left as they are.
    Raises ValueError when tensors, axes and target do not fit together (see `draw_index_maps`,
    `gather`), and for a tensor of which it cannot be told what it sums over.
    """
    norm_rate = number("norm_rate", norm_rate)
    exponents = mapping("fan_in_exponents", {} if fan_in_exponents is None else fan_in_exponents)
    source = index_sizes(axes, tensors)
    maps = draw_index_maps(
        axes,
        source,
        target,
        random_rate=random_rate,
        replacement=replacement,
        generator=generator,
    )
    summed = input_axes(axes, source, target, inputs)
    # With a = 1 `gather`, for which the last axis is the fan-in, leaves the scale to us.
    given = {name: _exponent(name, exponents) for name in axes}
    out = gather(
        tensors, axes, maps, norm_rate=norm_rate, fan_in_exponents=dict.fromkeys(axes, 1.0)
    )
    for name, places in summed.items():
        ratio = math.prod(tensors[name].shape[p] / out[name].shape[p] for p in places)
        factor = ratio ** (1.0 - given[name])
        if factor != 1.0:
            out[name] = _scaled(name, out[name], factor)
    return out


def _exponent(name: str, exponents: Mapping[str, float]) -> float:
    exponent = number(f"fan_in_exponents of {name!r}", exponents.get(name, 0.0))
    if not abs(exponent) <= 9:
        raise ValueError(f"fan_in_exponents of {name!r} must lie in [-9, 9]")
    return exponent
