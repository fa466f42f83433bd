"""Notebook 52: is a larger norm of a flat start lazier at every rank?

Value of a seed: kernel alignment at |W0| = 4 minus |W0| = 1, the smallest over the ranks. The flow
da/dt = W g, dW/dt = a g' is followed by Runge-Kutta steps on gradients that autograd takes of the
loss |b - W'a|^2 / 2; the notebook solves the written equations with an adaptive solver.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

SEEDS = range(10)
RANKS, NORMS, HIDDEN, INPUTS = (1, 2, 5, 10, 20), (1.0, 4.0), 40, 20
STEP, LEFT, LONGEST = 0.04, 1e-4, 25_000  # time of a step, |g| at which to stop, steps at most


def loss(a: Tensor, w: Tensor, target: Tensor) -> Tensor:
    """Half the squared error on white inputs, summed over the stacked networks."""
    return 0.5 * ((torch.einsum("khd,kh->kd", w, a) - target) ** 2).sum()


def downhill(a: Tensor, w: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Minus the gradient by a (k, h) and w (k, h, d)."""
    a, w = a.detach().requires_grad_(), w.detach().requires_grad_()
    by_a, by_w = torch.autograd.grad(loss(a, w, target), (a, w))
    return -by_a, -by_w


def value(seed: int) -> float:
    """One target and one Gaussian matrix for all ranks and norms."""
    draw = torch.Generator().manual_seed(5200 + seed)
    target = torch.randn(INPUTS, generator=draw, dtype=torch.float64)
    target = target / target.norm()
    gaussian = torch.randn(HIDDEN, INPUTS, generator=draw, dtype=torch.float64)
    left, _, right = torch.linalg.svd(gaussian, full_matrices=False)
    flat = [left[:, :r] @ right[:r] / r**0.5 for r in RANKS]  # Frobenius norm one
    start = torch.stack([norm * one for norm in NORMS for one in flat])
    w, a = start.clone(), torch.zeros(len(start), HIDDEN, dtype=torch.float64)
    for _ in range(LONGEST):
        error = target - torch.einsum("khd,kh->kd", w, a)
        moving = (error.norm(dim=1) > LEFT).double()  # a network that has arrived stands still
        if not moving.any():
            break
        h = STEP * moving
        a1, w1 = downhill(a, w, target)
        a2, w2 = downhill(a + STEP / 2 * a1, w + STEP / 2 * w1, target)
        a3, w3 = downhill(a + STEP / 2 * a2, w + STEP / 2 * w2, target)
        a4, w4 = downhill(a + STEP * a3, w + STEP * w3, target)
        a = a + h[:, None] / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
        w = w + h[:, None, None] / 6 * (w1 + 2 * w2 + 2 * w3 + w4)
    before = start.transpose(1, 2) @ start
    after = w.transpose(1, 2) @ w + (a**2).sum(1)[:, None, None] * torch.eye(INPUTS)
    dot = (before * after).sum((1, 2))
    alignment = dot / (before.flatten(1).norm(dim=1) * after.flatten(1).norm(dim=1))
    low, high = alignment.reshape(len(NORMS), len(RANKS))
    return float((high - low).min())


def main(seeds: Sequence[int] = SEEDS) -> list[float]:
    """One value a seed."""
    return [value(seed) for seed in seeds]


if __name__ == "__main__":
    print(*main([int(word) for word in sys.argv[1:]] or SEEDS), sep="\n")
