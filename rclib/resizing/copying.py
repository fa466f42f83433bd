"""Growth by copies that keep the function: Net2Net, bert2BERT's FPI and AKI, LEMON.

A new neuron c copies neuron π(c) of the source: it receives what that one receives, and what the
copies of one neuron send adds up to what it sent. With multipliers fan-in^-a, n → n' inputs,

    Σ_{c: π(c) = j} W'[i, c] = V[π(i), j],    V = (n' / n)^a W,

keeps the pre-activations of every layer. The methods differ in π and in how the sum is shared out.

- `net2net` (Net2WiderNet: Chen, Goodfellow, Shlens, arXiv 1511.05641, algorithm 1): π(c) = c for
  the old neurons, drawn uniformly for the new ones; every copy sends 1 / (number of copies). The
  paper's section 3.1 adds "a small amount of noise" to the copies, whose size it leaves open:
  here `noise` times the standard deviation of the tensor, on what is written and on what is sent.
- FPI (bert2BERT: Chen et al., arXiv 2110.07143, section 3.3.1) is the same for transformers, whole
  heads being the neurons of attention, without noise: `net2net` with noise = 0. Of a network
  without heads and norms FPI and Net2WiderNet are one method.
- `advanced` (AKI, section 3.3.2): inputs as in FPI; the rows of new output neurons are those of
  the same tensor one layer *up*, its inputs expanded by this layer's π. That breaks the symmetry
  of copies and does not keep the function. Where no layer of the same shape is above, FPI.
- `lossless` (LEMON: Wang et al., arXiv 2310.07999, sections 4.1 and 4.2 and the authors' code):
  π(c) = c mod N, and shares that differ: the network's own new start Z is projected onto the sums,

    W'[i, c] = Z[i, c] - (Σ_{c' with π(c') = π(c)} Z[i, c'] - V[π(i), π(c)]) / (number of copies),

  so copies receive different gradients from the first step on.

Norms over the stream. With N' = k N every channel has k copies, mean and variance stay, and all of
the above is exact: π of the stream therefore takes every channel equally often, in random order
where the method draws (bert2BERT's uniform draw would change both; its authors name the gap). For
N' = k N + r LEMON alone is exact: the last r channels hold the mean of the others (layer norm) or
zero (root mean square), the norm makes zeros of them, and what reads them is free. The variance
shrinks by k N / N'; LEMON corrects gain and the norm's ε by that. Our ε is no setting, so the
stream is scaled by √(N' / k N) instead and the gains are divided by it: the same function.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rclib.checks.arguments import number
from rclib.nets.gpt import GPT
from rclib.nets.mlp import MLP
from rclib.rowcolumn.axes import index_sizes

__all__ = [
    "Network",
    "advanced",
    "growing",
    "grown_sizes",
    "kept_scale",
    "lossless",
    "net2net",
    "sums",
    "upper",
]

Network = MLP | GPT
Maps = Mapping[str, Tensor]  # index -> (M,) source neuron of each new one


def grown_sizes(source: Network, start: Network) -> dict[str, tuple[int, int]]:
    """(size in `source`, size in `start`) of every index that differs.

    Raises ValueError for networks that differ in more than widths or where one index shrinks while
    another grows, TypeError for what is no network of ours.
    """
    for name, model in (("source", source), ("start", start)):
        if not isinstance(model, Network):
            raise TypeError(f"{name} must be an MLP or a GPT, got {type(model).__name__}")
    if dict(source.axes) != dict(start.axes) or source.parametrization != start.parametrization:
        raise ValueError("start must differ from source in its width alone")
    old, new = (index_sizes(m.axes, m.state_dict()) for m in (source, start))
    found = {i: (old[i], new[i]) for i in old if old[i] != new[i]}
    if not found:
        raise ValueError("start must have another width than source, got the same sizes")
    fixed = {"x", "y", "vocabulary", "position"}
    other = [i for i in found if i.partition(".")[0] in (fixed | {"query", "value"})]
    if other:
        raise ValueError(f"start must differ from source in its width alone, not in {other[0]!r}")
    if len({a < b for a, b in found.values()}) > 1:
        raise ValueError(f"start must be wider everywhere or nowhere, got sizes {found}")
    return found


def growing(source: Network, start: Network) -> dict[str, tuple[int, int]]:
    """`grown_sizes`, and ValueError unless `start` is wider."""
    sizes = grown_sizes(source, start)
    for index, (before, after) in sizes.items():
        if after < before:
            raise ValueError(f"start must be wider than source: {index!r} has {before} and {after}")
    return sizes


def kept_scale(source: Network, name: str, sizes: Mapping[str, tuple[int, int]]) -> float:
    """(n' / n)^a of one tensor: with it m' W' = m W entry by entry; 1 where its inputs stay."""
    index = source.axes[name][-1]
    if index not in sizes or not sums(source, name):
        return 1.0
    before, after = sizes[index]
    return float((after / before) ** source.fan_in_exponents()[name])


def sums(model: Network, name: str) -> bool:
    """Whether a tensor sums over its last axis; vectors and tables of biases do not."""
    return name in model.fan_in_exponents() and len(model.axes[name]) > 1


def net2net(
    source: Network, start: Network, *, noise: float = 0.0, seed: int = 0
) -> dict[str, Tensor]:
    """State of the network of `start`'s width, every neuron of `source` kept and some copied.

    noise : standard deviation of what is added to copies, in those of each tensor; 0 is FPI.
    Raises ValueError as `grown_sizes`, for a start that is not wider and for a negative noise.
    """
    noise = number("noise", noise)
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be finite and not negative, got {noise!r}")
    sizes = growing(source, start)
    generator = torch.Generator().manual_seed(seed)
    maps = _drawn(sizes, generator)
    state = {
        name: _expanded(source, name, tensor, maps, sizes)
        for name, tensor in source.state_dict().items()
    }
    if noise:
        for name, tensor in state.items():
            spread = float(tensor.std()) if tensor.numel() > 1 else 0.0
            z = torch.randn(tensor.shape, generator=generator, dtype=torch.float32).to(tensor)
            state[name] = tensor + noise * spread * z * _copies(source, name, tensor, sizes)
    return state


def advanced(source: Network, start: Network, *, seed: int = 0) -> dict[str, Tensor]:
    """AKI: as `net2net` without noise, new neurons' rows from the layer above (`upper`).

    Raises ValueError as `net2net`.
    """
    sizes = growing(source, start)
    maps = _drawn(sizes, torch.Generator().manual_seed(seed))
    old = source.state_dict()
    state = {}
    for name, tensor in old.items():
        own = _expanded(source, name, tensor, maps, sizes)
        above, index = upper(source, name), source.axes[name][0]
        if above is not None and index in sizes:
            high = _expanded(source, name, old[above], maps, sizes)
            own[sizes[index][0] :] = high[sizes[index][0] :]
        state[name] = own
    return state


def upper(source: Network, name: str) -> str | None:
    """The tensor of the same role and shape one layer up, whose rows AKI takes; None if none is."""
    if isinstance(source, GPT):
        if not name.startswith("blocks."):
            return None
        _, block, own = name.split(".")
        above = f"blocks.{int(block) + 1}.{own}"
        return above if own[0] in "WB" and above in source.axes else None
    layer = int(name[1:])
    above = f"{name[0]}{layer + 1}"
    if above not in source.axes or layer == 1:
        return None
    shapes = {source.state_dict()[f"{name[0]}{k}"].shape for k in (layer, layer + 1)}
    return above if len(shapes) == 1 and source.layer_type(f"W{layer + 1}") == "hidden" else None


def lossless(source: Network, start: Network, *, scale: float = 1.0) -> dict[str, Tensor]:
    """LEMON: copies in turn, what they send shared out by the values of `start`.

    scale : factor of `start` where it is projected; 0 shares out equally. Raises ValueError as
    `grown_sizes`, for a start that is not wider and for a scale that is not finite.
    """
    if not math.isfinite(scale := number("scale", scale)):
        raise ValueError(f"scale must be finite, got {scale!r}")
    sizes = growing(source, start)
    maps = {index: torch.arange(after) % before for index, (before, after) in sizes.items()}
    fresh, state = start.state_dict(), {}
    for name, tensor in source.state_dict().items():
        new = _expanded(source, name, tensor, maps, sizes)
        index = source.axes[name][-1]
        if index in sizes and sums(source, name):
            new = _projected(new, scale * fresh[name].to(new), maps[index])
        state[name] = new
    return _with_norms(source, state, fresh, sizes, scale)


def _projected(equal: Tensor, z: Tensor, source: Tensor) -> Tensor:
    """`z` moved onto the sums over copies (last axis) that `equal` has."""
    source = source.to(z.device)
    count = torch.bincount(source).to(z)
    excess = z.new_zeros(*z.shape[:-1], len(count)).index_add_(-1, source, z - equal)
    return z - (excess / count).index_select(-1, source)


def _with_norms(
    source: Network,
    state: dict[str, Tensor],
    fresh: Mapping[str, Tensor],
    sizes: Mapping[str, tuple[int, int]],
    scale: float,
) -> dict[str, Tensor]:
    """Channels beyond a whole multiple of the stream: mean or zero, and free where read."""
    if not isinstance(source, GPT) or "stream" not in sizes:
        return state
    before, after = sizes["stream"]
    whole = after // before * before
    if whole == after:
        return state
    widen = math.sqrt(after / whole)
    old = source.state_dict()
    for name, axes in source.axes.items():
        own = name.rpartition(".")[2]
        if axes[-1] == "stream" and sums(source, name):
            # The copies within the whole multiple alone share out the sum; the rest is free.
            kept = _expanded(
                source, name, old[name],
                {i: torch.arange(m) % n for i, (n, m) in sizes.items() if i != "stream"},
                {i: pair for i, pair in sizes.items() if i != "stream"},
            ) * kept_scale(source, name, sizes)  # fmt: skip
            turn = torch.arange(whole) % before
            equal = kept.index_select(-1, turn.to(kept.device)) / (whole // before)
            z = scale * fresh[name].to(equal)
            state[name] = torch.cat([_projected(equal, z[..., :whole], turn), z[..., whole:]], -1)
        if axes[0] != "stream":
            continue
        if own.startswith("gain"):
            state[name][whole:] = old[name].mean()
            state[name] /= widen
        elif own.startswith("shift"):
            state[name][whole:] = 0.0
        else:
            # Copied rows share out their sums differently; their mean is a mean of sums.
            rows = state[name]
            mean = rows[:before].mean(0) if source.norm == "layer" else torch.zeros_like(rows[0])
            rows[whole:] = mean
            state[name] = rows * widen
    return state


def _drawn(sizes: Mapping[str, tuple[int, int]], generator: torch.Generator) -> dict[str, Tensor]:
    """π: the old neurons in their places, then drawn ones; of the stream equally often."""
    maps = {}
    for index, (before, after) in sizes.items():
        if index == "stream":
            rounds = -(-(after - before) // before)
            more = [torch.randperm(before, generator=generator) for _ in range(rounds)]
            new = torch.cat(more)[: after - before]
        else:
            new = torch.randint(before, (after - before,), generator=generator)
        maps[index] = torch.cat([torch.arange(before), new])
    return maps


def _expanded(
    source: Network, name: str, tensor: Tensor, maps: Maps, sizes: Mapping[str, tuple[int, int]]
) -> Tensor:
    """One tensor gathered along π, every copy sending an equal share of what its neuron sent."""
    new = tensor.detach().clone()
    axes = source.axes[name]
    for axis, index in enumerate(axes):
        if index not in maps:
            continue
        places = maps[index].to(new.device)
        new = new.index_select(axis, places)
        if axis == len(axes) - 1 and sums(source, name):
            shares = 1.0 / torch.bincount(places).to(new)[places]
            new = new * (shares * kept_scale(source, name, sizes))
    return new


def _copies(
    source: Network, name: str, tensor: Tensor, sizes: Mapping[str, tuple[int, int]]
) -> Tensor:
    """Ones where an entry belongs to a new neuron, zeros where to old ones alone."""
    mask = torch.zeros_like(tensor)
    for axis, index in enumerate(source.axes[name]):
        if index in sizes:
            before, after = sizes[index]
            mask.narrow(axis, before, after - before).fill_(1.0)
    return mask
