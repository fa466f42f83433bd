"""Tasks of notebook 73: a signal in one of k patches of noise.

    x = (x_1, ..., x_k) in R^(k d),    x_i = y w + σ ξ_i,    x_j = σ ξ_j for j ≠ i,    ξ ~ N(0, 1)

with a label y uniform in ±1, a patch i uniform in 1..k and a unit vector w of the seed. In `TASKS`,
"moving" is this one; "own" gives each patch a unit vector of its own; "rotated" rotates all k d
coordinates of an input by one matrix of the seed; "still" has the signal in the first patch always;
"images" puts an image of one class, in grey, in place of w. Source: Lahoti et al. 2024 (arXiv
2403.15707), Section 4; "own" and "rotated" are controls.

Rules that know the signal, with s_j = ⟨w_j, x_j⟩:

    Bayes   sign(log Σ_j exp(s_j / σ²) - log Σ_j exp(-s_j / σ²))
    linear  sign(Σ_j s_j),    right with probability Φ(1 / (σ √k))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import logsumexp, ndtr
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rclib.checks.arguments import choice
from rclib.checks.arrays import Floats
from rclib.data.images import Dataset

__all__ = [
    "PARTS", "TASKS", "Samples", "bayes_accuracy", "linear_accuracy", "pictures", "reference",
    "rotation", "samples", "signals",
]  # fmt: skip

TASKS = ("moving", "own", "rotated", "still", "images")
PARTS = ("train", "valid", "test")
CLASSES = {"cifar10": 8, "digits": 0}  # ships; zeros


@dataclass(frozen=True, eq=False)
class Samples:
    """x : (n, k, d) and y : (n,) of ±1, float32. scores : (n, k) s_j before any rotation, float64;
    None for images, whose law is not known."""

    x: Tensor
    y: Tensor
    scores: Floats | None


def _stream(seed: int, *place: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))


def signals(seed: int, k: int, d: int, *, own: bool = False) -> Floats:
    """Unit vectors w_j (k, d) of a seed: equal ones, or each patch's own."""
    drawn = _stream(seed, 0).standard_normal((k, d))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return np.asarray(drawn if own else np.repeat(drawn[:1], k, axis=0))


def rotation(seed: int, size: int) -> Floats:
    """A rotation or reflection (size, size) of a seed."""
    return np.asarray(np.linalg.qr(_stream(seed, 1).standard_normal((size, size)))[0])


def pictures(data: Dataset, part: str, d: int) -> Floats:
    """Images of one class, in grey, squares of pixels averaged to √d by √d, less their mean and of
    norm one: (m, d). Training images for "train", every second one of the test images else.

    Raises ValueError for a d that is no square, or whose side does not divide that of the images.
    """
    if part == "train":
        x = data.x_train[data.y_train == CLASSES[data.name]].double()
    else:
        shown = data.x_test[data.y_test == CLASSES[data.name]].double()
        x = shown[PARTS.index(part) - 1 :: 2]
    channels = 3 if data.name == "cifar10" else 1
    side, wanted = math.isqrt(x.shape[1] // channels), math.isqrt(d)
    if wanted**2 != d or side % wanted:
        raise ValueError(f"d must be the square of a divisor of {side}, got {d}")
    grey = x.view(len(x), channels, side, side).mean(1, keepdim=True)
    small = avg_pool2d(grey, side // wanted).flatten(1)
    small = small - small.mean(1, keepdim=True)
    return np.asarray((small / small.norm(dim=1, keepdim=True)).numpy())


def samples(
    data: Dataset | None, task: str, part: str, *, seed: int, k: int, d: int, n: int, sigma: float
) -> Samples:
    """n samples of a part; more of them begin with the fewer.

    data : for "images". Raises ValueError for an unknown task or part, and for images without data.
    """
    choice("task", task, TASKS)
    place = 2 + PARTS.index(choice("part", part, PARTS))
    y = 2.0 * _stream(seed, place, 0).integers(0, 2, n) - 1
    where = _stream(seed, place, 1).integers(0, 1 if task == "still" else k, n)
    noise = _stream(seed, place, 2).standard_normal((n, k, d), dtype=np.float32)
    x = noise.astype(np.float64) * sigma
    scores = None
    if task == "images":
        if data is None:
            raise ValueError("data must hold images for the task 'images', got None")
        shown = pictures(data, part, d)
        x[np.arange(n), where] += (
            y[:, None] * shown[_stream(seed, place, 3).integers(0, len(shown), n)]
        )
    else:
        w = signals(seed, k, d, own=task == "own")
        x[np.arange(n), where] += y[:, None] * w[where]
        scores = np.einsum("nkd,kd->nk", x, w)
    if task == "rotated":
        x = (x.reshape(n, k * d) @ rotation(seed, k * d)).reshape(n, k, d)
    return Samples(torch.from_numpy(x).float(), torch.from_numpy(y).float(), scores)


def reference(scores: Floats, y: Floats, sigma: float) -> tuple[float, float]:
    """Accuracies of the Bayes and of the linear rule, from scores (n, k) and y (n,)."""
    odds = logsumexp(scores / sigma**2, axis=1) - logsumexp(-scores / sigma**2, axis=1)
    return float((odds * y > 0).mean()), float((scores.sum(1) * y > 0).mean())


def bayes_accuracy(k: int, sigma: float, *, draws: int = 200_000) -> float:
    """Accuracy of the Bayes rule by Monte Carlo, with a standard error of at most 0.001 for the
    default. Labels are ±1 alike, so +1 is drawn."""
    scores = sigma * _stream(0, 99).standard_normal((draws, k))
    scores[:, 0] += 1
    return reference(scores, np.ones(draws), sigma)[0]


def linear_accuracy(k: int, sigma: float) -> float:
    """Φ(1 / (σ √k)), of the linear rule."""
    return float(ndtr(1 / (sigma * math.sqrt(k))))
