"""The gradient of the network written out, with plain SGD folded into it.

For f of `rclib.nets.mlp.MLP`, mean cross-entropy over a batch of B and δ_l = ∂loss/∂z_l,

    δ_L = (softmax(f) - onehot(y)) / B,     δ_l = σ'(z_l) ⊙ m_{l+1} δ_{l+1} W_{l+1},
    ∂loss/∂W_l = m_l δ_lᵀ σ(z_{l-1}),       ∂loss/∂B_l = Σ_batch δ_l .

This is the row-column structure in one line: every change of W_l is a sum over the batch of
outer products (row variable) x (column variable) (paper A, Section 3). Since the update of a
weight is one matrix product, it is accumulated into the weight itself: no gradient is stored
and no second pass over the weights is made, which is what a step costs beyond its products.
Small networks spend a step between the products: what does not change from step to step is looked
up once (`sgd_steps`), and nothing is noted for autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rclib.nets.init import ACTIVATIONS
from rclib.nets.mlp import MLP

__all__ = ["gradients", "sgd_step", "sgd_steps"]

# σ'(z) given z and h = σ(z).
_DERIVATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh": lambda z, h: torch.rsub(h * h, 1.0),
    "relu": lambda z, h: (z > 0).to(z.dtype),
    "softplus": lambda z, h: torch.sigmoid(z),
    "identity": lambda z, h: torch.ones_like(z),
}


class _Layer(NamedTuple):
    """W_l and its transpose, B_l or None, all in the network's memory, and m_l."""

    weight: Tensor
    across: Tensor
    bias: Tensor | None
    scale: float


def _layers(model: MLP) -> list[_Layer]:
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    found = []
    for k in range(1, model.depth + 1):
        weight = parameters[f"W{k}"]
        found.append(_Layer(weight, weight.t(), parameters.get(f"B{k}"), model.multiplier(k)))
    return found


def _backward(
    layers: Sequence[_Layer], activation: str, x: Tensor, y: Tensor
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Loss, [x, σ(z_1), ..., σ(z_{L-1})] and [δ_1, ..., δ_L]."""
    sigma, derivative = ACTIVATIONS[activation], _DERIVATIVES[activation]
    zs: list[Tensor] = []
    hs = [x]
    for _, across, bias, scale in layers:
        if zs:
            hs.append(sigma(zs[-1]))
        # As in `MLP.forward_all`: addmm folds multiplier and bias into the matrix product.
        if bias is not None:
            zs.append(torch.addmm(bias, hs[-1], across, alpha=scale))
        else:
            zs.append(scale * (hs[-1] @ across))
    log_p = torch.log_softmax(zs[-1], 1)
    column = y[:, None]
    loss = -log_p.gather(1, column).mean()
    # One entry a row, in place: an index of rows and columns would cost more than the rest here.
    delta = log_p.exp_().scatter_add_(1, column, log_p.new_full((len(y), 1), -1.0))
    delta /= len(y)
    deltas = [delta]
    for k in range(len(layers) - 1, 0, -1):
        weight, _, _, scale = layers[k]
        delta = torch.mm(delta, weight).mul_(derivative(zs[k - 1], hs[k])).mul_(scale)
        deltas.append(delta)
    return loss, hs, deltas[::-1]


@torch.no_grad()
def gradients(model: MLP, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy (scalar) on x (B, d), y (B,) and its gradient by parameter name."""
    model._check_inputs(x)
    layers = _layers(model)
    loss, hs, deltas = _backward(layers, model.activation, x, y)
    out: dict[str, Tensor] = {}
    for k, (layer, h, delta) in enumerate(zip(layers, hs, deltas, strict=True), start=1):
        out[f"W{k}"] = layer.scale * (delta.t() @ h)
        if layer.bias is not None:
            out[f"B{k}"] = delta.sum(0)
    return loss, out


def sgd_steps(model: MLP, rates: Mapping[str, float]) -> Callable[[Tensor, Tensor], Tensor]:
    """(x, y) -> loss before a step of plain SGD that is made in place, as `sgd_step` makes it.

    The network must keep the memory of its parameters as long as the function is in use.
    """
    layers = _layers(model)
    amounts = [
        (-rates[f"W{k}"] * layer.scale, rates[f"B{k}"] if layer.bias is not None else 0.0)
        for k, layer in enumerate(layers, start=1)
    ]

    @torch.inference_mode()
    def step(x: Tensor, y: Tensor) -> Tensor:
        model._check_inputs(x)
        loss, hs, deltas = _backward(layers, model.activation, x, y)
        for layer, (of_weight, of_bias), h, delta in zip(layers, amounts, hs, deltas, strict=True):
            layer.weight.addmm_(delta.t(), h, alpha=of_weight)
            if layer.bias is not None:
                layer.bias.sub_(delta.sum(0), alpha=of_bias)
        return loss

    return step


def sgd_step(model: MLP, x: Tensor, y: Tensor, rates: Mapping[str, float]) -> Tensor:
    """One step of plain SGD in place, `rates[name]` the full learning rate of each parameter.

    Returns the loss before the step (a tensor on the device; nothing waits for it).
    """
    return sgd_steps(model, rates)(x, y)
