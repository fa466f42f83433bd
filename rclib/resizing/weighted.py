"""A network sampled from another one is that other one with weights on its neurons.

Algorithm 1 of paper A draws M neurons from the N of a source, with one index map π for all tensors
(r1 = 0). Copies of neuron k receive and send the same, so the sampled network computes

    z_1 = m_1 W_1 x + B_1,    z_l = m_l W_l (w_{l-1} ∘ σ(z_{l-1})) + B_l,

with the source's own matrices and weights w_k = (N / M) · |{i : π(i) = k}|, one vector a hidden
layer: a bootstrap of the neurons. It costs what the source costs, whatever M.

Drawn with replacement, w has mean 1 and covariance (N / M)(I - 1 1ᵀ / N), so to first order the
outputs f vary around the source's by

    E |f_M - f|² = κ / M,    κ = N Σ_layers Σ_k (∂f/∂w_k - mean over k)²,

which `sampling_constant` computes from the source alone. What is of second order in w adds terms
of 1 / M².
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rclib.checks.arguments import brief, count, seed_of
from rclib.nets.init import ACTIVATIONS
from rclib.nets.mlp import MLP

__all__ = ["draw_weights", "sampling_constant", "weighted_outputs"]


def draw_weights(
    model: MLP, width: int, draws: int, *, replacement: bool = True, seed: int = 0
) -> list[Tensor]:
    """Weights of the neurons for `draws` transfers to hidden width M = `width`.

    Returns one tensor (draws, N_l) a hidden layer, each row of mean 1. replacement : as in
    `rclib.rowcolumn.transfer.draw_index_maps`: True draws the M neurons independently, False takes
    each neuron ⌊M/N⌋ or ⌈M/N⌉ times.

    Raises ValueError for a width or number of draws below one and a seed that is none.
    """
    width, draws = count("width", width), count("draws", draws)
    generator = torch.Generator().manual_seed(seed_of("seed", seed))
    dtype = next(model.parameters()).dtype
    found = []
    for n in model.sizes[1:-1]:
        counts = torch.zeros(draws, n, dtype=dtype)
        if replacement:
            chosen = torch.randint(n, (draws, width), generator=generator)
            counts.scatter_add_(1, chosen, torch.ones(draws, width, dtype=dtype))
        else:
            whole, rest = divmod(width, n)
            order = torch.rand(draws, n, generator=generator).argsort(1)
            counts += whole
            counts.scatter_add_(1, order[:, :rest], torch.ones(draws, rest, dtype=dtype))
        found.append(counts * (n / width))
    return found


def weighted_outputs(model: MLP, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Outputs (draws, n, c) of the network with weights on its hidden neurons, for x (n, d).

    weights : one tensor (draws, N_l) a hidden layer, as from `draw_weights`; all ones give the
    network itself. Raises ValueError for weights that do not fit the network.
    """
    _check(model, weights)
    parameters = dict(model.named_parameters())
    h = x.expand(len(weights[0]), *x.shape)
    for layer in range(1, model.depth + 1):
        z = model.multiplier(layer) * torch.matmul(h, parameters[f"W{layer}"].t())
        if f"B{layer}" in parameters:
            z = z + parameters[f"B{layer}"]
        if layer == model.depth:
            break
        h = ACTIVATIONS[model.activation](z) * weights[layer - 1][:, None, :]
    return z


@torch.no_grad()
def sampling_constant(model: MLP, x: Tensor) -> float:
    """κ of E |f_M - f|² ≈ κ / M: mean over the inputs x (n, d) and the outputs, to first order.

    For sampling with replacement and the same M in every hidden layer.
    """
    zs, hs = model.forward_all(x)
    parameters = dict(model.named_parameters())
    total = 0.0
    # ∂f/∂h of layer l, (n, c, N_l), from the last hidden layer down.
    jacobian = (model.multiplier(model.depth) * parameters[f"W{model.depth}"])[None]
    for layer in range(model.depth - 1, 0, -1):
        derivative = jacobian * hs[layer][:, None, :]  # ∂f/∂w = ∂f/∂h · h
        # N Σ_k (d_k - mean)² = N Σ d² - (Σ d)²
        spread = derivative.shape[-1] * derivative.square().sum(-1) - derivative.sum(-1).square()
        total += float(spread.double().mean())
        if layer > 1:
            inner = jacobian * _slope(model.activation, zs[layer - 1])[:, None, :]
            jacobian = model.multiplier(layer) * torch.matmul(inner, parameters[f"W{layer}"])
    return total


@torch.enable_grad()
def _slope(activation: str, z: Tensor) -> Tensor:
    leaf = z.detach().requires_grad_()
    return torch.autograd.grad(ACTIVATIONS[activation](leaf).sum(), leaf)[0]


def _check(model: MLP, weights: Sequence[Tensor]) -> None:
    hidden = model.sizes[1:-1]
    shapes = [tuple(w.shape) for w in weights]
    fits = len(weights) == len(hidden) and len(weights) > 0
    if not fits or any(s != (shapes[0][0], n) for s, n in zip(shapes, hidden, strict=True)):
        raise ValueError(
            f"weights must be one tensor (draws, N) for each of the hidden widths {list(hidden)}, "
            f"got shapes {brief(shapes)}"
        )
