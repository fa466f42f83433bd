"""Notebook 44: do masks of one parent differ in a way that repeats?

Value of a seed: over 30 masks that keep a twentieth of the units, correlation of the accuracy in
one order of the batches on one half of the test images with that in another order on the other
half, mean of the two ways. The masks of a parent are trained by torch.optim.Adam on the sum of
their losses. The parents differ by seed, the images do not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

import numpy as np
import plain_images as images
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

SEEDS = range(10)
WIDTH, KEPT, MASKS, STEPS, RATE, BATCH = 320, 16, 30, 500, 0.001, 60


@cache
def data() -> images.Split:
    """8,000 + 2,000 images of 3 x 8 x 8, of standard deviation one."""
    x, y, x_test, y_test = images.cifar(8000, 2000, pool=4)
    return x.flatten(1) / x.std(), y, x_test.flatten(1) / x.std(), y_test


def halves(starts: Sequence[Tensor], batches: Sequence[Tensor]) -> list[list[float]]:
    """By mask: accuracy on both halves of the test images, after training."""
    x, y, x_test, y_test = data()
    w1, w2, w3 = weights = [w.clone().requires_grad_() for w in starts]
    b1, b2, b3 = biases = [torch.zeros(MASKS, 1, w.shape[2], requires_grad=True) for w in starts]
    adam = torch.optim.Adam([*weights, *biases], lr=RATE)

    def outputs(z: Tensor) -> Tensor:
        return torch.relu(torch.relu(z @ w1 + b1) @ w2 + b2) @ w3 + b3

    for rows in batches:
        adam.zero_grad()
        # The sum over masks gives each its own gradient.
        losses = cross_entropy(outputs(x[rows]).flatten(0, 1), y[rows].repeat(MASKS))
        (MASKS * losses).backward()
        adam.step()
    with torch.no_grad():
        right = (outputs(x_test).argmax(2) == y_test).double()
    return [[float(part.mean()) for part in one.chunk(2)] for one in right]


def value(seed: int) -> float:
    """One parent with its masks."""
    draw = torch.Generator().manual_seed(4400 + seed)
    n, inputs = data()[0].shape
    shapes = ((WIDTH, inputs), (WIDTH, WIDTH), (10, WIDTH))
    parent = [torch.randn(s, generator=draw) * (2 / s[1]) ** 0.5 for s in shapes]
    orders = []
    for _ in range(2):  # the masks share the order of the batches
        epochs = [
            torch.randperm(n, generator=draw).split(BATCH) for _ in range(STEPS * BATCH // n + 1)
        ]
        whole = [rows for epoch in epochs for rows in epoch if len(rows) == BATCH]
        orders.append(whole[:STEPS])
    starts: list[list[Tensor]] = []
    for _ in range(MASKS):
        one, two = (torch.randperm(WIDTH, generator=draw)[:KEPT] for _ in range(2))
        starts.append([parent[0][one].T, parent[1][two][:, one].T, parent[2][:, two].T])
    cut = [torch.stack(list(layer)) for layer in zip(*starts, strict=True)]
    score = np.array([halves(cut, order) for order in orders])  # order, mask, half
    ways = ((score[0, :, 0], score[1, :, 1]), (score[0, :, 1], score[1, :, 0]))
    return float(np.mean([np.corrcoef(*pair)[0, 1] for pair in ways]))


def main(seeds: Sequence[int] = SEEDS) -> list[float]:
    """One value a seed."""
    return [value(seed) for seed in seeds]


if __name__ == "__main__":
    print(*main([int(word) for word in sys.argv[1:]] or SEEDS), sep="\n")
