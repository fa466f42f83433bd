"""The gradient of a stack of fully connected networks written out, as autograd gives it.

For small networks most of a step is spent between the products, and most of that in tracing them.
With δ_L = (softmax(f) - onehot(y)) / B for the mean cross-entropy of B points and the multipliers
m_l of `rclib.nets.mlp`,

    ∂loss/∂W_l = (m_l δ_l)ᵀ σ(z_{l-1}),   ∂loss/∂B_l = Σ_batch δ_l,   δ_{l-1} = σ' ⊙ (m_l δ_l) W_l

are taken by the operations that autograd takes under `torch.vmap`, in its order, so that the bits
are the same and a member's do not depend on the others (`rclib.nets.stack`). The one exception is
∂loss/∂W_l, which autograd takes transposed and this does not, since what follows is a fifth slower
for it in wide layers: on some processors the last bits differ. Another loss comes as its `Slope`,
which gives δ_L.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from rclib.nets.mlp import MLP
from rclib.nets.stack import with_vectors

__all__ = ["Layers", "Slope", "gradients", "layers_of"]

# (outputs (S, n, c), y (S, n, ...)) -> a loss's values (S,) and its gradient in the outputs.
Slope = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

# Gradient in z from that in h = σ(z), of (gradient, h).
_BACK: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda upper, h: torch.ops.aten.threshold_backward(upper, h, 0),
    "tanh": lambda upper, h: torch.ops.aten.tanh_backward(upper, h),
    "identity": lambda upper, h: upper,
}
_FORTH: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "identity": lambda z: z,
}


@dataclass(frozen=True)
class Layers:
    """A fully connected network: names of weight and bias (None: there is none) and multiplier of
    every layer, and the function between them, "relu", "tanh" or "identity"."""

    names: Sequence[tuple[str, str | None]]
    scales: Sequence[float]
    activation: str = "relu"


def layers_of(one: Callable[..., Any], loss: Callable[..., Any]) -> Layers | None:
    """The network whose function `one` of a stack is, if it and the loss are written out here."""
    if loss is not cross_entropy or not isinstance(one, partial) or one.func is not functional_call:
        return None
    model = one.args[0]
    if type(model) is not MLP or model.activation not in _BACK:
        return None
    places = range(1, model.depth + 1)
    names = [(f"W{k}", f"B{k}" if model.bias != "none" else None) for k in places]
    return Layers(names, [model.multiplier(k) for k in places], model.activation)


def _of_cross_entropy(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    log_p = torch.log_softmax(z, 2)
    column = y[:, :, None]
    loss = -log_p.gather(2, column)[..., 0].mean(1)
    slope = torch.zeros_like(log_p).scatter_(2, column, -1.0 / y.shape[1])
    return loss, torch.ops.aten._log_softmax_backward_data(slope, log_p, 2, log_p.dtype)


@torch.no_grad()
def gradients(
    layers: Layers,
    tensors: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    slope: Slope = _of_cross_entropy,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of every member, (S,), and its gradient by name, (S, *shape).

    tensors : name -> (S, *shape); x (S, n, d). slope : the loss, by default the mean
    cross-entropy of y (S, n) whole numbers.
    """
    if with_vectors(tensors):  # as `rclib.nets.stack.mapped` does
        both = {name: torch.cat([t, t]) for name, t in tensors.items()}
        losses, twice = gradients(layers, both, torch.cat([x, x]), torch.cat([y, y]), slope)
        return losses[:1], {name: t[:1] for name, t in twice.items()}
    forth, back = _FORTH[layers.activation], _BACK[layers.activation]
    parts = list(zip(layers.names, layers.scales, strict=True))
    h: list[Tensor] = []
    z = x
    for (weight, bias), scale in parts:
        h.append(forth(z) if h else x)
        z = torch.bmm(h[-1], tensors[weight].transpose(1, 2))
        if scale != 1:
            z.mul_(scale)
        if bias is not None:
            z.add_(tensors[bias][:, None])
    loss, delta = slope(z, y)
    found: dict[str, Tensor] = {}
    for place in range(len(parts) - 1, -1, -1):
        (weight, bias), scale = parts[place]
        if bias is not None:
            found[bias] = delta.sum(1)
        if scale != 1:
            delta = delta * scale
        found[weight] = torch.bmm(delta.transpose(1, 2), h[place])
        if place:
            delta = back(torch.bmm(delta, tensors[weight]), h[place])
    return loss, found
