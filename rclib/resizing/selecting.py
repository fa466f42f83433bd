"""Shrinking by leaving neurons out: truncation and activation-based selection.

- `truncation` keeps the first neurons of every index. Neurons of a trained network are
  exchangeable, so these are a random subset without repetition. What is summed over is scaled by
  n / n', as in paper A's Algorithm 1 (`rclib.rowcolumn.transfer`), so that sums keep their size;
  scaled=False keeps every entry's share m W.
- `selection` keeps the neurons that are most active on given data, as Minitron has it (Muralidharan
  et al., arXiv 2407.14679, section 2.2): of attention whole heads by the norm of their outputs, of
  the MLP the hidden neurons, of the stream the channels behind the norms; batch by the root of
  the sum of squares, sequence by the mean of magnitudes. They are not rescaled in the paper
  (scaled=False, the default). Importance of hidden neurons is taken of what they send, behind the
  activation. Nothing is trained and no gradient is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from rclib.nets.gpt import GPT
from rclib.resizing.copying import Network, grown_sizes, sums

__all__ = ["importance", "kept", "selection", "truncation"]


def truncation(source: Network, start: Network, *, scaled: bool = True) -> dict[str, Tensor]:
    """State of the network of `start`'s width: the first neurons of `source`.

    Raises ValueError for a start that is not narrower or differs in more than its width.
    """
    return kept(
        source, start, {i: torch.arange(m) for i, m in _sizes(source, start).items()}, scaled
    )


def selection(
    source: Network, start: Network, x: Tensor, *, scaled: bool = False
) -> dict[str, Tensor]:
    """State of the network of `start`'s width: the neurons of `source` most active on `x`.

    x : inputs (n, d) of an MLP, tokens (n, T) of a GPT. Chosen neurons keep their order.
    Raises ValueError as `truncation`.
    """
    found = importance(source, x)
    chosen = {
        index: found[index].topk(m).indices.sort().values
        for index, m in _sizes(source, start).items()
    }
    return kept(source, start, chosen, scaled)


def kept(
    source: Network, start: Network, chosen: Mapping[str, Tensor], scaled: bool
) -> dict[str, Tensor]:
    """State with the neurons `chosen` (index -> places) alone; see the module's docstring."""
    sizes, exponents = grown_sizes(source, start), source.fan_in_exponents()
    state = {}
    for name, tensor in source.state_dict().items():
        new, axes = tensor.detach(), source.axes[name]
        for axis, index in enumerate(axes):
            if index in chosen:
                new = new.index_select(axis, chosen[index].to(new.device))
        if axes[-1] in sizes and sums(source, name):
            before, after = sizes[axes[-1]]
            new = new * (before / after) ** (float(scaled) - exponents[name])
        state[name] = new.clone()
    return state


def _sizes(source: Network, start: Network) -> dict[str, int]:
    sizes = grown_sizes(source, start)
    for index, (before, after) in sizes.items():
        if after > before:
            raise ValueError(
                f"start must be narrower than source: {index!r} has {before} and {after}"
            )
    return {index: after for index, (_, after) in sizes.items()}


@torch.no_grad()
def importance(model: Network, x: Tensor) -> dict[str, Tensor]:
    """How active the neurons of every index are on `x`: index -> (N,), not negative.

    Indices h1 ... of an MLP; stream, head.<l> and mlp.<l> of a GPT, its stream summed over norms.
    """
    if not isinstance(model, GPT):
        _, hs = model.forward_all(x)
        return {f"h{l}": hs[l].square().sum(0).sqrt() for l in range(1, model.depth)}
    with _Inputs() as seen:
        model(x)
    # What the matrices read, in the order of the forward pass: per block qkv, Wo, Wup, Wdown.
    found: dict[str, Tensor] = {"stream": _over_batch(seen.inputs[-1])}
    for l in range(len(model.blocks)):
        before, heads, between, hidden = seen.inputs[4 * l : 4 * l + 4]
        found["stream"] += _over_batch(before) + _over_batch(between)
        found[f"head.{l}"] = _over_batch(heads.unflatten(-1, (-1, model.head_size)).norm(dim=-1))
        found[f"mlp.{l}"] = _over_batch(hidden)
    return found


def _over_batch(a: Tensor) -> Tensor:
    """(batch, T, N) -> (N,): mean magnitude along the sequence, root of squares over the batch."""
    return a.abs().mean(1).square().sum(0).sqrt()


class _Inputs(TorchFunctionMode):
    """Notes what every matrix product of a forward pass reads."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is functional.linear:
            self.inputs.append(args[0])
        return func(*args, **(kwargs or {}))
