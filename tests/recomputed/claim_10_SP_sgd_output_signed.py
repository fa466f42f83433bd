"""Notebook 10: does the first step of SGD move the output like N under standard scaling?

Value of a seed: log-log slope of the size of the last layer's own first update against the width,
less the exponent 1. Three tanh layers in float64, entries uniform with variance 1 / fan-in (first
layer: variance 1 behind a factor 1 / sqrt(d)), biases of variance 1 below the output. The output's
update is autograd's gradient times the rate, applied to what the layer read before the step.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import plain_images as images
import torch

SEEDS = range(10)
WIDTHS, RATE, BATCH, PROBES = (128, 256, 512, 1024, 2048), 0.1, 64, 64


def value(seed: int) -> float:
    """The slope over the widths, which share a batch and the images that are looked at."""
    x, y, probe, _ = images.cifar(BATCH, PROBES, seed)
    x, probe = x.flatten(1).double(), probe.flatten(1).double()
    draw = torch.Generator().manual_seed(1000 + seed)

    def uniform(*shape: int) -> torch.Tensor:
        """Variance one."""
        return (2 * torch.rand(*shape, generator=draw, dtype=torch.float64) - 1) * 3**0.5

    sizes = []
    for n in WIDTHS:
        w1, b1, b2 = uniform(n, x.shape[1]) / x.shape[1] ** 0.5, uniform(n), uniform(n)
        w2, w3 = uniform(n, n) / n**0.5, uniform(10, n) / n**0.5
        top = torch.nn.Linear(n, 10).double()
        with torch.no_grad():
            top.weight.copy_(w3)
            top.bias.zero_()

        def hidden(
            z: torch.Tensor, w1: torch.Tensor = w1, w2: torch.Tensor = w2,
            b1: torch.Tensor = b1, b2: torch.Tensor = b2,
        ) -> torch.Tensor:  # fmt: skip
            return torch.tanh(torch.tanh(z @ w1.T + b1) @ w2.T + b2)

        torch.nn.functional.cross_entropy(top(hidden(x)), y).backward()
        assert top.weight.grad is not None
        assert top.bias.grad is not None
        update = -RATE * (hidden(probe) @ top.weight.grad.T + top.bias.grad)
        sizes.append(float((update**2).mean() ** 0.5))
    return float(np.polyfit(np.log(WIDTHS), np.log(sizes), 1)[0]) - 1.0


def main(seeds: Sequence[int] = SEEDS) -> list[float]:
    """One value a seed."""
    return [value(seed) for seed in seeds]


if __name__ == "__main__":
    print(*main([int(word) for word in sys.argv[1:]] or SEEDS), sep="\n")
