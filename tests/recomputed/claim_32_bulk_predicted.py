"""Notebook 32: is the bulk after a drawing that of weighted noise, moved by the outer products?

Value of a seed: Kolmogorov-Smirnov distance between the drawn matrix's bulk and the predicted one,
mean over target widths, the worst of MF, muP and SP. The prediction knows the twelve outer products
of the trained matrix, the variance of what is left and how often each neuron was drawn; here it
comes from matrices with fresh noise in place of what is left, in the notebook from equations.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import plain_images as images
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

SEEDS = range(4)
N, TARGETS, RATE, EPOCHS, BATCH, PRODUCTS, DRAWS = (
    256,
    (64, 128, 256, 512, 1024),
    0.1,
    6,
    64,
    12,
    20,
)
# Standard deviation of W2 and W3, factors in front of them, factors of the rate: W1 and biases, W2,
# W3 (W1 is of variance one behind 1 / sqrt(d), in all three).
SCALES: dict[str, tuple[float, float, float, float, float, float, float]] = {
    "MF": (1, 1, 1 / N, 1 / N, N, N**2, N),
    "muP": (N**-0.5, 1, 1, 1 / N, N, 1, N),
    "SP": (N**-0.5, N**-0.5, 1, 1, 1, 1, 1),
}
Floats = NDArray[np.float64]


@lru_cache(maxsize=1)
def data(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """10,000 images over the root of their number of inputs, and their classes."""
    x, y, _, _ = images.cifar(10_000, 1, seed)
    return x.flatten(1) / x[0].numel() ** 0.5, y


def trained(name: str, seed: int) -> tuple[Floats, Floats]:
    """The middle matrix (N, N) before and after training."""
    s2, s3, m2, m3, first, second, third = SCALES[name]
    x, y = data(seed)
    draw = torch.Generator().manual_seed(3200 + seed)

    def start(*shape: int) -> torch.Tensor:
        """Variance one: uniform, under muP Gaussian."""
        if name == "muP":
            return torch.randn(*shape, generator=draw)
        return (2 * torch.rand(*shape, generator=draw) - 1) * 3**0.5

    w1, w2, w3 = start(N, x.shape[1]), s2 * start(N, N), s3 * start(10, N)
    b1, b2, b3 = torch.randn(N, generator=draw), torch.randn(N, generator=draw), torch.zeros(10)
    before, rates = w2.numpy().astype(float), (first, first, first, second, third, 1.0)
    leaves = [tensor.requires_grad_() for tensor in (w1, b1, b2, w2, w3, b3)]
    groups = [{"params": [p], "lr": RATE * r} for p, r in zip(leaves, rates, strict=True)]
    descent = torch.optim.SGD(groups, lr=RATE)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(y), generator=draw).split(BATCH):
            hidden = torch.tanh(m2 * torch.tanh(x[rows] @ w1.T + b1) @ w2.T + b2)
            descent.zero_grad()
            cross_entropy(m3 * hidden @ w3.T + b3, y[rows]).backward()
            descent.step()
    return before.copy(), w2.detach().numpy().astype(float)


def bulk(matrix: Floats, rank: int, spikes: int) -> Floats:
    """Positive eigenvalues of the Gram matrix, ascending, without as many of the largest."""
    return np.sort(np.linalg.svd(matrix, compute_uv=False)[spikes:rank] ** 2)


def distance(w: Floats, kept: Floats, m: int, rng: np.random.Generator) -> float:
    """Between the bulk of one drawing to m and that of the outer products `kept` in fresh noise."""
    p, q = (np.bincount(rng.integers(N, size=m), minlength=N) for _ in range(2))
    rank = int(min((p > 0).sum(), (q > 0).sum()))
    # Without neurons that were not drawn: the same positive singular values.
    rows, columns = np.repeat(np.arange(N), p), np.repeat(np.arange(N), q)
    noises = (w - kept).std() * rng.standard_normal((DRAWS, N, N))
    weights = np.sqrt(np.outer(p, q))
    edge = np.mean([np.linalg.norm(weights * noise, 2) for noise in noises[:10]])
    tops = np.linalg.svd(weights * (kept + noises[0]), compute_uv=False)
    spikes = int((tops[:PRODUCTS] > edge).sum())
    law = np.sort(np.concatenate([bulk(weights * (kept + z), rank, spikes) for z in noises]))
    values = bulk(w[np.ix_(rows, columns)], rank, spikes)
    below = np.searchsorted(law, values) / law.size
    steps = np.arange(values.size + 1) / values.size
    return float(max(np.abs(below - steps[1:]).max(), np.abs(below - steps[:-1]).max()))


def value(seed: int) -> float:
    """The worst of three networks."""
    rng, means = np.random.default_rng(3200 + seed), []
    for name in SCALES:
        before, after = trained(name, seed)
        u, s, vt = np.linalg.svd(after - (before - before.mean()))
        kept = (u[:, :PRODUCTS] * s[:PRODUCTS]) @ vt[:PRODUCTS]
        means.append(float(np.mean([distance(after, kept, m, rng) for m in TARGETS])))
    return max(means)


def main(seeds: Sequence[int] = SEEDS) -> list[float]:
    """One value a seed."""
    return [value(seed) for seed in seeds]


if __name__ == "__main__":
    print(*main([int(word) for word in sys.argv[1:]] or SEEDS), sep="\n")
