"""The gradient of the network written out, with plain SGD folded into it.

For f of `rclib.nets.mlp.MLP`, mean cross-entropy over a batch of B and δ_l = ∂loss/∂z_l,

    δ_L = (softmax(f) - onehot(y)) / B,     δ_l = σ'(z_l) ⊙ m_{l+1} δ_{l+1} W_{l+1},
    ∂loss/∂W_l = m_l δ_lᵀ σ(z_{l-1}),       ∂loss/∂B_l = Σ_batch δ_l .

This is the row-column structure in one line: every change of W_l is a sum over the batch of
outer products (row variable) x (column variable) (paper A, Section 3). Since the update of a
weight is one matrix product, it is accumulated into the weight itself: no gradient is stored
and no second pass over the weights is made, which is what a step costs beyond its products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rclib.nets.mlp import MLP

__all__ = ["gradients", "sgd_step"]

# σ'(z) given z and h = σ(z).
_DERIVATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh": lambda z, h: 1.0 - h * h,
    "relu": lambda z, h: (z > 0).to(z.dtype),
    "softplus": lambda z, h: torch.sigmoid(z),
    "identity": lambda z, h: torch.ones_like(z),
}


@torch.no_grad()
def _backward(
    model: MLP, x: Tensor, y: Tensor, use: Callable[[str, float, Tensor, Tensor | None], None]
) -> Tensor:
    """Run forward and backward; `use(name, m_l, δ_l, h_{l-1} or None)` is called once each
    parameter, after its layer's value has been used for the layer below."""
    zs, hs = model.forward_all(x)
    parameters = model._parameters
    log_p = torch.log_softmax(zs[-1], 1)
    column = y[:, None]
    loss = -log_p.gather(1, column).mean()
    # One entry a row, in place: an index of rows and columns would cost more than the rest here.
    delta = log_p.exp_().scatter_add_(1, column, log_p.new_full((len(y), 1), -1.0))
    delta /= len(y)
    derivative = _DERIVATIVES[model.activation]
    for layer in range(model.depth, 0, -1):
        scale = model.multiplier(layer)
        below: Tensor | None = None
        if layer > 1:
            weight = parameters[f"W{layer}"]
            assert weight is not None
            below = delta @ weight
            below *= derivative(zs[layer - 2], hs[layer - 1])
            below *= scale
        use(f"W{layer}", scale, delta, hs[layer - 1])
        if model.bias != "none":
            use(f"B{layer}", 1.0, delta, None)
        if below is not None:
            delta = below
    return loss


def gradients(model: MLP, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy (scalar) on x (B, d), y (B,) and its gradient by parameter name."""
    out: dict[str, Tensor] = {}

    def use(name: str, scale: float, delta: Tensor, h: Tensor | None) -> None:
        out[name] = delta.sum(0) if h is None else scale * (delta.t() @ h)

    return _backward(model, x, y, use), out


def sgd_step(model: MLP, x: Tensor, y: Tensor, rates: Mapping[str, float]) -> Tensor:
    """One step of plain SGD in place, `rates[name]` the full learning rate of each parameter.

    Returns the loss before the step (a tensor on the device; nothing waits for it).
    """
    parameters = model._parameters

    def use(name: str, scale: float, delta: Tensor, h: Tensor | None) -> None:
        p = parameters[name]
        assert p is not None
        if h is None:
            p.sub_(delta.sum(0), alpha=rates[name])
        else:
            p.addmm_(delta.t(), h, alpha=-rates[name] * scale)

    return _backward(model, x, y, use)
