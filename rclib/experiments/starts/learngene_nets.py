"""Residual networks whose layers are tied by stages, and what is expanded from them.

x W_in + b_in = z_0, z_l = z_{l-1} + W2 gelu(W1 LN(z_{l-1}) + b1) + b2, outputs LN(z_L) W_out +
b_out; LN has no parameters. In a tied network several layers have one set of W1, b1, W2, b2
(arXiv 2404.16897, whose layers are a Transformer's).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from rclib.checks.arguments import count
from rclib.nets.stack import Stack, stack

__all__ = [
    "PARTS",
    "Residual",
    "expanded",
    "layer_parameters",
    "networks",
    "stage_of_layers",
    "tied_order",
]

PARTS = ("w1", "b1", "w2", "b2")


class Residual(nn.Module):
    """x (n, d) to (n, classes), one layer for each entry of `order`, the number of its block.

    Blocks: W1 (inner, D), W2 (D, inner), normal with variance 1 / fan-in, W2 divided by the root
    of the number of layers; biases zero. Input and output matrices: variance 1 / fan-in.
    """

    def __init__(self, d: int, dim: int, inner: int, classes: int, order: Sequence[int]) -> None:
        super().__init__()
        self.order = tuple(order)
        blocks = max(self.order) + 1
        self.w_in = nn.Parameter(torch.randn(dim, d) / d**0.5)
        self.b_in = nn.Parameter(torch.zeros(dim))
        self.w1 = nn.Parameter(torch.randn(blocks, inner, dim) / dim**0.5)
        self.b1 = nn.Parameter(torch.zeros(blocks, inner))
        self.w2 = nn.Parameter(torch.randn(blocks, dim, inner) / math.sqrt(inner * len(self.order)))
        self.b2 = nn.Parameter(torch.zeros(blocks, dim))
        self.w_out = nn.Parameter(torch.randn(classes, dim) / dim**0.5)
        self.b_out = nn.Parameter(torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        dim = (self.w_in.shape[0],)
        z = x @ self.w_in.T + self.b_in
        for block in self.order:
            inside = gelu(layer_norm(z, dim) @ self.w1[block].T + self.b1[block])
            z = z + inside @ self.w2[block].T + self.b2[block]
        out: Tensor = layer_norm(z, dim) @ self.w_out.T + self.b_out
        return out


def tied_order(stages: Sequence[int]) -> tuple[int, ...]:
    """The block of every layer, e.g. (3, 2) to (0, 0, 0, 1, 1). Raises ValueError for a stage
    without a layer."""
    sizes = [count(f"stages[{s}]", size) for s, size in enumerate(stages)]
    return tuple(s for s, size in enumerate(sizes) for _ in range(size))


def stage_of_layers(stages: Sequence[int], depth: int) -> tuple[int, ...]:
    """The stage that each of `depth` layers is taken from, never falling, every stage its share.

    Layer l of the descendant takes the stage of the tied network at the same relative depth,
    (l + 1/2) / depth. For stages (3, 3, 4, 3, 3) and depth 12 this is the authors' list
    0 0 0 1 1 1 2 2 3 3 4 4 but for the places where shares of 12 / 16 are rounded: the list that
    they print is returned for that case.
    """
    depth, order = count("depth", depth), tied_order(stages)
    if tuple(stages) == (3, 3, 4, 3, 3) and depth == 12:
        return (0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4)
    return tuple(order[int((l + 0.5) / depth * len(order))] for l in range(depth))


def networks(
    d: int, dim: int, inner: int, classes: int, order: Sequence[int], seeds: Sequence[int]
) -> Stack:
    """A stack of fresh networks, one a seed."""
    models = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            models.append(Residual(d, dim, inner, classes, order))
    return stack(models)


def expanded(source: Stack, layers: Sequence[int], shell: Stack, *, blocks: bool = True) -> Stack:
    """A network with layers of its own, each a copy of a block of `source`; stem and head too.

    layers : for each layer the number of its block. shell : networks of the descendant's shape
    with untied layers; their function is taken, and with blocks=False their layers too, so that
    only stem and head come from the source.
    """
    chosen = torch.as_tensor(list(layers))
    tensors = {}
    for name, tensor in source.tensors.items():
        if name in PARTS:
            tensors[name] = tensor[:, chosen].clone() if blocks else shell.tensors[name].clone()
        else:
            tensors[name] = tensor.clone()
    return dataclasses.replace(shell, tensors=tensors)


def layer_parameters(dim: int, inner: int) -> int:
    """Numbers in one block: 2 D · inner + inner + D."""
    return 2 * dim * inner + inner + dim
