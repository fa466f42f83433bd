"""Scores of single weights of untrained networks, for pruning before training.

With loss L, weights θ, gradient g = dL/dθ and Hessian H, score by weight:

    SNIP     |θ g|        what removing it changes to first order (Lee et al. 2019)
    signed   θ g          the same with its sign, as arXiv 2301.10835 describes GraSP
    GraSP    -θ H g       to first order, by how much removing it changes gᵀg / 2 (Wang et al. 2020,
                          whose code keeps the lowest scores, of a loss of outputs over 200; some
                          later papers keep the other end, and a minus sign tells them apart)
    synflow  θ dR/dθ      R the sum of outputs for an input of ones with |θ| for θ (Tanaka et al.
                          2020)

All members of a stack at once, each with its own data or all with the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from rclib.nets.masks import Masks
from rclib.nets.stack import Stack, has_members, mapped
from rclib.training.losses import under_vmap

__all__ = ["grasp", "keep_highest", "signed", "snip", "synflow"]

Loss = Callable[[Tensor, Tensor], Tensor]
Scores = dict[str, Tensor]


def _leaves(nets: Stack, names: Collection[str]) -> dict[str, Tensor]:
    missing = sorted(set(names) - nets.tensors.keys())
    if missing or not names:
        raise ValueError(f"names must be of {sorted(nets.tensors)}, got {missing or 'none'}")
    return {name: nets.tensors[name].detach().clone().requires_grad_() for name in names}


def _gradients(
    nets: Stack,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    names: Collection[str],
    own: bool | None,
    *,
    again: bool = False,
) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """The tensors named as leaves, and g of each; y as x has an axis of members or has none.

    again : whether g is to be differentiated once more.
    """
    leaves = _leaves(nets, names)
    if not has_members("x", x, len(nets), own):
        x, y = x.expand(len(nets), *x.shape), y.expand(len(nets), *y.shape)
    taken_as = under_vmap(loss)
    each = mapped(lambda tensors, a, b: taken_as(nets.one(tensors, a), b), nets.tensors)
    total = each({**nets.tensors, **leaves}, x, y).sum()
    return leaves, torch.autograd.grad(total, list(leaves.values()), create_graph=again)


def signed(
    nets: Stack,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    names: Collection[str],
    *,
    own: bool | None = None,
) -> Scores:
    """θ g of the tensors named, {name: (S, *shape)}; see `Stack.__call__` for x and `own`.

    Raises ValueError for names that are not there, and for x of a wrong first axis.
    """
    leaves, gradients = _gradients(nets, x, y, loss, names, own)
    return {n: t.detach() * g for (n, t), g in zip(leaves.items(), gradients, strict=True)}


def snip(
    nets: Stack,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    names: Collection[str],
    *,
    own: bool | None = None,
) -> Scores:
    """|θ g| of the tensors named, {name: (S, *shape)}; see `Stack.__call__` for x and `own`.

    Raises ValueError for names that are not there, and for x of a wrong first axis.
    """
    found = signed(nets, x, y, loss, names, own=own)
    return {name: score.abs() for name, score in found.items()}


def grasp(
    nets: Stack,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    names: Collection[str],
    *,
    own: bool | None = None,
) -> Scores:
    """-θ H g of the tensors named, by double backward; H is that of these tensors alone.

    Arguments and errors as `snip`.
    """
    leaves, gradients = _gradients(nets, x, y, loss, names, own, again=True)
    sources = list(leaves.values())
    # Members share nothing, so the sum of all gᵀ stop(g) holds each one's own H g.
    product: Any = sum((g * g.detach()).sum() for g in gradients)
    hg = torch.autograd.grad(product, sources)
    return {n: -t.detach() * h for (n, t), h in zip(leaves.items(), hg, strict=True)}


def synflow(nets: Stack, inputs: tuple[int, ...], names: Collection[str]) -> Scores:
    """θ dR/dθ of the tensors named, R = Σ f(1; |θ|), one input of ones of shape `inputs`.

    Exact for networks of ReLU, sums and products, where all is positive. Raises ValueError as
    `snip`.
    """
    positive = {name: t.detach().abs() for name, t in nets.tensors.items()}
    leaves = {
        name: leaf.detach().abs().requires_grad_() for name, leaf in _leaves(nets, names).items()
    }
    ones = torch.ones(len(nets), 1, *inputs, dtype=next(iter(positive.values())).dtype)
    total = nets.each({**positive, **leaves}, ones).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()))
    return {n: t.detach() * g for (n, t), g in zip(leaves.items(), gradients, strict=True)}


def keep_highest(scores: Scores, density: float) -> Masks:
    """Masks of the highest scores over all tensors of a member together, round(D n) of them.

    Of equal scores the first in memory is kept. Raises ValueError unless 0 < density <= 1.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must lie in (0, 1], got {density!r}")
    names = list(scores)
    flat = torch.cat([scores[name].flatten(1) for name in names], 1)
    kept = torch.zeros_like(flat, dtype=torch.bool)
    order = flat.argsort(dim=1, descending=True, stable=True)
    kept.scatter_(1, order[:, : round(density * flat.shape[1])], True)
    lengths = [scores[name][0].numel() for name in names]
    parts = kept.split(lengths, dim=1)
    return {name: part.view_as(scores[name]) for name, part in zip(names, parts, strict=True)}
