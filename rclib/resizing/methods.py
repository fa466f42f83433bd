"""Ways to change the width of a trained language model, with Adam's means moved along.

- "RC sampling": paper A's Algorithm 1, `rclib.resizing.gpt`. Neurons are drawn with replacement
  from the trained network and every tensor is gathered by one index map for each Γ set.
- "RC sampling, r1 = 1": the same with every index map drawn anew for every tensor.
- "duplication": every neuron is used equally often, as in Net2WiderNet (Chen, Goodfellow and
  Shlens, arXiv 1511.05641). Growing by a whole factor keeps the function exactly: a multiplier
  of 1/fan-in divides among the copies of a neuron what the original sent. When shrinking this
  is a random subset of the neurons.
- "random growth": the old neurons are kept, with weights scaled so that they go on sending each
  other what they did; all that touches a new neuron is drawn from the initial law.

Copies of one neuron have equal weights and receive equal gradients, so they stay copies and a
network grown by the first or the third has no more distinct neurons than its source. Paper A's
ansatz, however, is W[i, j] = W0[i, j] + g(row neuron, column neuron) with W0[i, j] the entry's
*own* initial value: a sample of the RC measure draws it anew for each entry. Two variants of
ours do that for the matrices of the blocks, the tensors with two growing axes (embedding, output
matrix and biases have one: they are neuron variables):

- "RC sampling, new entries": W'[i, j] = (W - W0)[π(i), π(j)] + W0'[i, j], with W0 the source's
  start, which its seed gives again, and W0' a start of the new width. Under mean field W0'
  changes a pre-activation by a Monte-Carlo error, N'^(-1/2).
- "duplication, new entries": W'[i, j] = W[π(i), π(j)] + Z[i, j], with Z a start minus its mean
  over the copies of column neuron j. The sum over the copies of j, and with it the function, is
  kept exactly, yet the copies receive different gradients. (Chen et al. add a small noise that
  changes the function a little.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rclib.nets.gpt import GPT, build_gpt
from rclib.resizing.gpt import gpt_maps, move_gpt, move_moments
from rclib.rowcolumn.transfer import IndexMaps, gather

__all__ = ["METHODS", "Resized", "change_width", "copy_spread"]

METHODS = (
    "RC sampling",
    "RC sampling, r1 = 1",
    "RC sampling, new entries",
    "duplication",
    "duplication, new entries",
    "random growth",
)


@dataclass(frozen=True, eq=False)
class Resized:
    """A network at its new width.

    moments : Adam's means for it (`rclib.training.lm_state.adam_moments`), empty if none were
    given.
    maps : index maps that made it; None for random growth.
    """

    model: GPT
    moments: dict[str, Tensor] = field(repr=False)
    maps: IndexMaps | None = field(repr=False)


def change_width(
    model: GPT,
    width: int,
    *,
    method: str = "RC sampling",
    moments: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> Resized:
    """`model` at another width by one of `METHODS`; nothing is trained.

    model : for "RC sampling, new entries" it must have been trained from its own start, the one
        that its options describe. moments : Adam's means of `model`. seed : draws everything.

    Raises ValueError for an unknown method, a width that the head size does not divide and a
    random growth to a smaller width.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method == "random growth":
        return _random_growth(model, width, moments or {}, seed)
    maps = gpt_maps(
        model,
        width,
        random_rate=1.0 if method == "RC sampling, r1 = 1" else 0.0,
        replacement=not method.startswith("duplication"),
        seed=seed,
    )
    moved = move_gpt(model, width, maps)
    if method.endswith("new entries"):
        # A seed of its own: that of the source would repeat entries of the source's start.
        start = model.like(width, seed=seed + 1_000_003).state_dict()
        add = _own_noise if method.startswith("RC") else _noise_between_copies
        moved = model.like(width, add(model, moved, maps, start))
    return Resized(moved, move_moments(model, moments, width, maps) if moments else {}, maps)


def _hidden(model: GPT) -> list[str]:
    """Matrices whose entries have noise of their own: those with two growing axes."""
    return [name for name in model.axes if model.layer_type(name) == "hidden"]


def _own_noise(
    model: GPT, moved: GPT, maps: IndexMaps, start: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    first = next(model.parameters())
    old = build_gpt(model.options() | {"parametrization": model.parametrization})
    old.to(device=first.device, dtype=first.dtype)
    names = _hidden(model)
    noise = gather(
        {name: old.state_dict()[name] for name in names},
        {name: model.axes[name] for name in names},
        maps,
        fan_in_exponents=model.fan_in_exponents(),
    )
    state = moved.state_dict()
    return state | {name: state[name] - noise[name] + start[name] for name in names}


def _noise_between_copies(
    model: GPT, moved: GPT, maps: IndexMaps, start: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    state = dict(moved.state_dict())
    for name in _hidden(model):
        z = start[name]
        source = maps[name, z.ndim - 1].to(z.device)
        sums = z.new_zeros(*z.shape[:-1], int(source.max()) + 1).index_add_(-1, source, z)
        counts = torch.bincount(source).to(z)
        state[name] = state[name] + z - (sums / counts.clamp(min=1)).index_select(-1, source)
    return state


def _random_growth(model: GPT, width: int, moments: Mapping[str, Tensor], seed: int) -> Resized:
    if width < model.width:
        raise ValueError(
            f"width must be at least the source's {model.width} for random growth, got {width}"
        )
    grown = model.like(width, seed=seed + 1_000_003)
    exponents = model.fan_in_exponents()
    new = grown.state_dict()
    out = {name: torch.zeros_like(t) for name, t in _named_moments(new, moments).items()}
    for name, old in model.state_dict().items():
        # m' W' = m W keeps what the old neurons send; the gradient of W' is m'/m that of W.
        ratio = new[name].shape[-1] / old.shape[-1] if old.ndim > 1 else 1.0
        factor = ratio ** exponents.get(name, 0.0)
        corner = tuple(slice(n) for n in old.shape)
        new[name][corner] = factor * old
        if moments:
            for key, power in (("exp_avg", 1), ("exp_avg_sq", 2)):
                full = f"{key}/{name}"
                out[full][corner] = moments[full] * factor**-power
            out[f"step/{name}"] = moments[f"step/{name}"].clone()
    grown.load_state_dict(new)
    return Resized(grown, out, None)


def _named_moments(state: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A tensor of the new shape for every mean that was given."""
    return {
        f"{key}/{name}": tensor
        for key in ("exp_avg", "exp_avg_sq")
        for name, tensor in state.items()
        if f"{key}/{name}" in moments
    }


def copy_spread(model: GPT, maps: IndexMaps) -> float:
    """How far apart the embeddings of copies are: the root mean square difference of an entry
    from that of the first copy, over the copies, divided by the root mean square entry.

    The embedding is a neuron variable without noise of its own, so the spread is zero right
    after any growth by index maps. NaN if no neuron has a copy.
    """
    rows = model.get_parameter("embedding").detach().cpu().double()  # (stream, vocabulary)
    source = maps["embedding", 0].cpu()
    same = source[:, None] == source[None, :]
    first = same.to(torch.int8).argmax(1)  # first new neuron with the same source
    copies = first != torch.arange(len(first))
    if not bool(copies.any()):
        return float("nan")
    apart = (rows - rows[first])[copies].square().mean().sqrt()
    return float(apart / rows.square().mean().sqrt())
