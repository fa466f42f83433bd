"""Notebook 24: with which power of d does one step of descent raise the top eigenvalue?

Value of a seed: least-squares slope of ln(top eigenvalue of W'W) against ln d, at rate 2 d. The
gradient is autograd's, in float64, and the eigenvalue ARPACK's.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse.linalg import svds

SEEDS = range(10)
DIMS, ASPECT, SAMPLES, NOISE, RATE_PER_DIM = (125, 250, 500, 1000), 1.5, 2, 0.3, 2.0


def top(seed: int, d: int) -> float:
    """Largest eigenvalue of W'W (d, d) after the step."""
    draw = torch.Generator().manual_seed(24_000_000 + 10_000 * seed + d)
    h, n = round(ASPECT * d), SAMPLES * d

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    beta = normal(d)
    x, a, w = normal(n, d), normal(h), normal(h, d).requires_grad_()
    y = torch.log1p(torch.exp(x @ (beta / beta.norm()))) + NOISE * normal(n)
    output = torch.tanh(x @ w.T / math.sqrt(d)) @ a / math.sqrt(h)
    ((output - y) ** 2).mean().backward()
    assert w.grad is not None
    moved = (w - RATE_PER_DIM * d * w.grad).detach().numpy()
    return float(svds(moved, k=1, return_singular_vectors=False, random_state=0)[0] ** 2)


def value(seed: int) -> float:
    """Slope over the four sizes, each with its own draw."""
    tops = [top(seed, d) for d in DIMS]
    return float(np.polynomial.Polynomial.fit(np.log(DIMS), np.log(tops), 1).convert().coef[1])


def main(seeds: Sequence[int] = SEEDS) -> list[float]:
    """One value a seed."""
    return [value(seed) for seed in seeds]


if __name__ == "__main__":
    print(*main([int(word) for word in sys.argv[1:]] or SEEDS), sep="\n")
