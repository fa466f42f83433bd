"""Notebook 66: is a student's learning of a noisy teacher seen in the spectrum while it happens?

Value of a seed: time at which the share of |W|^2 in spikes has gone half of the way to its end,
over the time at which the test error has gone half of the way to its best. Two ReLU layers, full
batches, torch.optim.Adam on gradients of autograd; looked at on a grid of times of its own. A share
that ends within 0.05 of its start counts as 64.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import cumulative_trapezoid

SEEDS = range(10)
INPUTS, WIDTH, TEACHER, SAMPLES, START, RATE, STEPS = 50, 256, 50, 350, 0.3, 0.001, 3000
Floats = NDArray[np.float64]


def median_of_law() -> float:
    """Median eigenvalue of W'W for independent entries of variance one, W (WIDTH, INPUTS)."""
    low, high = ((WIDTH**0.5 + sign * INPUTS**0.5) ** 2 for sign in (-1, 1))
    x = np.linspace(low, high, 20_001)
    below = cumulative_trapezoid(np.sqrt((x - low) * (high - x)) / x, x, initial=0.0)
    return float(np.interp(0.5 * below[-1], below, x))


MEDIAN = median_of_law()


def spike_share(w: Floats) -> float:
    """Share of |W|^2 in eigenvalues beyond the bulk's edge and four Tracy-Widom scales; the bulk's
    variance is that of the median eigenvalue."""
    values = np.linalg.svd(w, compute_uv=False) ** 2
    roots = WIDTH**0.5 + INPUTS**0.5
    scale = roots * (WIDTH**-0.5 + INPUTS**-0.5) ** (1 / 3)
    limit = float(np.median(values)) / MEDIAN * (roots**2 + 4 * scale)
    return float(values[values > limit].sum() / values.sum())


def half_time(times: Floats, values: Floats, end: float) -> float:
    """When the values are first half of the way from the first one to `end`."""
    way = (values - values[0]) / (end - values[0])
    i = int(np.argmax(way >= 0.5))
    return float(np.interp(0.5, way[i - 1 : i + 1], times[i - 1 : i + 1]))


def value(seed: int) -> float:
    """One teacher, one student."""
    draw = torch.Generator().manual_seed(6600 + seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    inner, outer = normal(TEACHER, INPUTS) / INPUTS**0.5, normal(TEACHER)
    x, unseen = normal(SAMPLES, INPUTS), normal(2000, INPUTS)
    clean = torch.relu(unseen @ inner.T) @ outer
    y = torch.relu(x @ inner.T) @ outer / clean.std() + normal(SAMPLES)
    clean, mean = clean / clean.std(), y.mean()
    w = (START * normal(WIDTH, INPUTS) / INPUTS**0.5).requires_grad_()
    v = (START * normal(WIDTH) / WIDTH**0.5).requires_grad_()
    adam = torch.optim.Adam([w, v], lr=RATE)
    looks = {0, *np.geomspace(1, STEPS, 60).round().astype(int).tolist()}
    times, errors, shares = [], [], []
    for step in range(STEPS + 1):
        if step in looks:
            with torch.no_grad():
                wrong = torch.relu(unseen @ w.T) @ v + mean - clean
            times.append(float(step))
            errors.append(float((wrong**2).mean()))
            shares.append(spike_share(w.detach().numpy()))
        adam.zero_grad()
        ((torch.relu(x @ w.T) @ v + mean - y) ** 2).mean().backward()
        adam.step()
    if abs(shares[-1] - shares[0]) <= 0.05:
        return 64.0
    at = np.array(times)
    learned = half_time(at, np.array(errors), min(errors))
    return half_time(at, np.array(shares), shares[-1]) / learned


def main(seeds: Sequence[int] = SEEDS) -> list[float]:
    """One value a seed."""
    return [value(seed) for seed in seeds]


if __name__ == "__main__":
    print(*main([int(word) for word in sys.argv[1:]] or SEEDS), sep="\n")
