"""Notebook 20: does one large step of Adam raise the kernel target alignment (as released)?

Value of a seed: alignment of K = Z Z' with y y' on a fresh sample, Z = tanh(X W' / d), after one
step minus at the start. torch.optim.Adam takes gradients of autograd and the whole kernel (n, n) is
formed; the notebook has written gradients and a written Adam, and the features' Gram matrix.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

SEEDS = range(10)
D, H, N, NOISE, RATE = 1000, 1500, 2000, 0.3, 1.0


def alignment(w: Tensor, x: Tensor, y: Tensor) -> float:
    """<K, y y'> / (|K| |y y'|), in Frobenius norms."""
    z = torch.tanh(x @ w.T / D)  # the factor 1 / sqrt(h) cancels
    kernel = z @ z.T
    return float(y @ kernel @ y / (kernel.norm() * (y @ y)))


def value(seed: int) -> float:
    """One teacher, one start, one sample to train on and a fresh one."""
    draw = torch.Generator().manual_seed(2000 + seed)
    beta = torch.randn(D, generator=draw)
    beta = beta / beta.norm()

    def sample() -> tuple[Tensor, Tensor]:
        x = torch.randn(N, D, generator=draw)
        labels = torch.nn.functional.softplus(x @ beta)
        return x, labels + NOISE * torch.randn(N, generator=draw)

    (x, y), fresh = sample(), sample()
    a, w = torch.randn(H, generator=draw), torch.randn(H, D, generator=draw, requires_grad=True)
    start = w.detach().clone()
    adam = torch.optim.Adam([w], lr=RATE)
    output = torch.tanh(x @ w.T / D**0.5) @ a / H**0.5
    torch.nn.functional.mse_loss(output, y).backward()
    adam.step()
    return alignment(w.detach(), *fresh) - alignment(start, *fresh)


def main(seeds: Sequence[int] = SEEDS) -> list[float]:
    """One value a seed."""
    return [value(seed) for seed in seeds]


if __name__ == "__main__":
    print(*main([int(word) for word in sys.argv[1:]] or SEEDS), sep="\n")
