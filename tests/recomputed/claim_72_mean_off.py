"""Notebook 72: do trained networks have the closed mean at off-bits?

Value of a seed: mean output over 64 networks at the bits that should be off, for inputs with two of
six ones, width 1024. f(x) = W2 relu(W1 x / sqrt(k)) / sqrt(n), entries N(0, 1), descends half the
squared error on the six unit vectors by gradients of autograd until no residual is left.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import combinations

import torch

SEEDS = range(10)
BITS, WIDTH, NETWORKS, RATE, LONGEST, LEFT = 6, 1024, 64, 2.0, 3000, 1e-4


def value(seed: int) -> float:
    """One permutation, and networks of their own for it."""
    draw = torch.Generator().manual_seed(7200 + seed)
    order = torch.randperm(BITS, generator=draw)
    w1 = torch.randn(NETWORKS, BITS, WIDTH, generator=draw).requires_grad_()
    w2 = torch.randn(NETWORKS, WIDTH, BITS, generator=draw).requires_grad_()

    def outputs(x: torch.Tensor) -> torch.Tensor:
        """(networks, rows of x, bits)."""
        out: torch.Tensor = torch.relu(x @ w1 / BITS**0.5) @ w2 / WIDTH**0.5
        return out

    units = torch.eye(BITS)
    for _ in range(LONGEST):
        residual = outputs(units) - units[:, order]
        if float(residual.detach().abs().max()) < LEFT:
            break
        down1, down2 = torch.autograd.grad(0.5 * (residual**2).sum(), (w1, w2))
        with torch.no_grad():
            w1 -= RATE * down1
            w2 -= RATE * down2
    else:
        raise RuntimeError("the networks have not come to rest")
    pairs = torch.stack([units[i] + units[j] for i, j in combinations(range(BITS), 2)])
    with torch.no_grad():
        found = outputs(pairs / 2**0.5)
    return float(found[:, pairs[:, order] == 0].double().mean())


def main(seeds: Sequence[int] = SEEDS) -> list[float]:
    """One value a seed."""
    return [value(seed) for seed in seeds]


if __name__ == "__main__":
    print(*main([int(word) for word in sys.argv[1:]] or SEEDS), sep="\n")
