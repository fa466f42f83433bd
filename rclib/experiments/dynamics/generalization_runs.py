"""Stored runs of notebook 61: linear students, and ReLU students of a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rclib.checks.arguments import choice
from rclib.runs.source import Source
from rclib.runs.store import Arrays

__all__ = [
    "OPTIMISERS",
    "TINY",
    "linear_arms",
    "linear_curves",
    "relu_student",
    "span_of_change",
]

OPTIMISERS = ("gd", "adam")
TINY: dict[str, dict[str, Any]] = {
    "linear_curves": {
        "seed": 0, "alphas": [0.5, 2.0], "n": 4, "snr": 1.0, "inr": 0.5, "noise": 1.0,
        "permuted": True, "times": [0.0, 1.0],
    },
    "relu_student": {
        "seed": 0, "width": 2, "start": 0.3, "n": 3, "samples": 6, "teacher": 2, "rate": 3e-3,
        "steps": 3, "every": 1, "optimiser": "adam",
    },
    "span_of_change": {
        "seed": 0, "width": 3, "n": 6, "samples": 4, "rate": 0.05, "steps": 3, "optimiser": "gd",
    },
}  # fmt: skip


def linear_arms(alphas: Sequence[float]) -> dict[str, dict[str, Any]]:
    """The arms of notebook 61: SNR 5 and 1 from zero at all ratios; and at SNR 5 from a start of
    INR 5, without noise, and with labels of other inputs, at some."""
    plain = {"alphas": list(alphas), "snr": 5.0, "inr": 0.0, "noise": 1.0, "permuted": False}
    return {
        "SNR 5": plain,
        "SNR 1": plain | {"snr": 1.0},
        "started": plain | {"inr": 5.0, "alphas": [0.5, 4.0]},
        "noiseless": plain | {"noise": 0.0, "alphas": [1.0, 2.0]},
        "permuted": plain | {"permuted": True, "alphas": [2.0]},
    }


def linear_curves(
    data: Source | None,
    *,
    seed: int,
    alphas: Sequence[float],
    n: int,
    snr: float,
    inr: float,
    noise: float,
    permuted: bool,
    times: Sequence[float],
) -> Arrays:
    """Stored run: gradient flow on one draw of inputs, teacher, labels and start for each ratio of
    samples to the `n` inputs, solved exactly in the eigenbasis of XᵀX.

    noise : variance of the labels' noise; snr, inr : variances of teacher and start. permuted :
    labels that belong to other inputs.

    test, train (alphas, T) : expected test error (noise included) and training error a sample at
    `times`. ridge (alphas,) : test error of ridge regression from zero with the penalty
    noise / snr.
    """
    at = np.asarray(times, dtype=float)[:, None]
    found = []
    for alpha in alphas:
        random = np.random.default_rng([seed, round(1000 * alpha), n])
        found.append(_flow(random, max(1, round(alpha * n)), n, snr, inr, noise, permuted, at))
    test, train, ridge = (np.array(each) for each in zip(*found, strict=True))
    return {"test": test, "train": train, "ridge": ridge}


def _flow(
    random: np.random.Generator, samples: int, n: int, snr: float, inr: float, noise: float,
    permuted: bool, at: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, float]:  # fmt: skip
    x = random.standard_normal((samples, n)) / np.sqrt(n)
    teacher = np.sqrt(snr) * random.standard_normal(n)
    y = x @ teacher + np.sqrt(noise) * random.standard_normal(samples)
    start = np.sqrt(inr) * random.standard_normal(n)
    if permuted:
        y = random.permutation(y)
    values, basis = np.linalg.eigh(x.T @ x)
    values[: max(0, n - samples)] = 0.0  # the null space, exactly
    pulled = basis.T @ (x.T @ y)
    solution = np.divide(pulled, values, out=np.zeros(n), where=values > 0)
    started, wanted = basis.T @ start, basis.T @ teacher
    decay = np.exp(-values * at)
    # Where nothing is learned the decay is one, so the start stays.
    w = solution * (1.0 - decay) + started * decay
    test = noise + np.square(w - wanted).sum(1) / n
    residual = y - w @ (x @ basis).T
    shrunk = pulled / (values + noise / snr) if noise > 0 else solution
    ridge = noise + float(np.square(shrunk - wanted).sum()) / n
    return test, np.square(residual).mean(1), ridge


def relu_student(
    data: Source | None,
    *,
    seed: int,
    width: int,
    start: float,
    n: int,
    samples: int,
    teacher: int,
    rate: float,
    steps: int,
    every: int,
    optimiser: str,
) -> Arrays:
    """Stored run: a two-layer ReLU student without biases on the labels of a ReLU teacher of
    `teacher` units plus noise of unit variance; full batch, mean squared error.

    start : standard deviation of the weights of both layers times √fan-in. Inputs have unit
    variance, and so has the signal. test, train (T,) : errors at step 0 and every `every`-th; the
    test error is that on 2000 noiseless labels.
    """
    drawing = np.random.default_rng([seed, 1])  # the same task for every width and start
    a, b = drawing.standard_normal((teacher, n)) / np.sqrt(n), drawing.standard_normal(teacher)
    x, x_test = drawing.standard_normal((samples, n)), drawing.standard_normal((2000, n))
    y_test = np.maximum(x_test @ a.T, 0) @ b
    scale = float(y_test.std())
    y_test, signal = y_test / scale, np.maximum(x @ a.T, 0) @ b / scale
    y = signal + drawing.standard_normal(samples)
    mean = y.mean()  # no biases: the mean of the labels is known to the student
    random = np.random.default_rng([seed, 2, width])
    weights = [
        start * random.standard_normal((width, n)) / np.sqrt(n),
        start * random.standard_normal(width) / np.sqrt(width),
    ]
    step = _stepper(choice("optimiser", optimiser, OPTIMISERS), rate)
    test, train = [], []
    for k in range(steps + 1):
        gradients, loss = _two_layers(x, y - mean, weights)
        if k % every == 0:
            guess = np.maximum(x_test @ weights[0].T, 0) @ weights[1] + mean
            test.append(np.square(guess - y_test).mean())
            train.append(loss)
        if k < steps:
            weights = step(weights, gradients)
    return {"test": np.array(test), "train": np.array(train)}


def span_of_change(
    data: Source | None,
    *,
    seed: int,
    width: int,
    n: int,
    samples: int,
    rate: float,
    steps: int,
    optimiser: str,
) -> Arrays:
    """Stored run: the first matrix of a ReLU student with fewer samples than inputs.

    outside () : share of the norm of its change that lies outside the span of the inputs. beyond
    () : (samples + 1)-th eigenvalue of ΔWᵀΔW over the first (0 if the width is no larger than the
    samples). moved () : norm of the change over that of the start. frozen (k,) : eigenvalues of
    WᵀW / width in the directions without inputs. loss () : at the end.
    """
    random = np.random.default_rng([seed, 3])
    x = random.standard_normal((samples, n))
    y = x[:, 0] + random.standard_normal(samples)
    first = random.standard_normal((width, n)) / np.sqrt(n)
    weights = [first, random.standard_normal(width) / np.sqrt(width)]
    step = _stepper(choice("optimiser", optimiser, OPTIMISERS), rate)
    loss = 0.0
    for _ in range(steps):
        gradients, loss = _two_layers(x, y, weights)
        weights = step(weights, gradients)
    change = weights[0] - first
    basis = np.linalg.svd(x)[2]
    outside = change @ basis[samples:].T
    values = np.linalg.svd(change, compute_uv=False) ** 2
    frozen = np.linalg.svd(weights[0] @ basis[samples:].T, compute_uv=False) ** 2 / width
    beyond = values[samples] / values[0] if len(values) > samples else 0.0
    return {
        "outside": np.array(np.linalg.norm(outside) / np.linalg.norm(change)),
        "beyond": np.array(beyond),
        "moved": np.array(np.linalg.norm(change) / np.linalg.norm(first)),
        "frozen": frozen,
        "loss": np.array(loss),
    }


def _two_layers(
    x: np.ndarray, y: np.ndarray, weights: list[np.ndarray]
) -> tuple[list[np.ndarray], float]:
    """Gradients of ½ mean (relu(x Wᵀ) a - y)² and its double, the mean squared error."""
    before = x @ weights[0].T
    hidden = np.maximum(before, 0)
    error = hidden @ weights[1] - y
    back = (error[:, None] * weights[1]) * (before > 0)
    return [back.T @ x / len(x), hidden.T @ error / len(x)], float(error @ error / len(x))


def _stepper(optimiser: str, rate: float) -> Any:
    """One step: (weights, gradients) -> weights; Adam with its usual constants."""
    if optimiser == "gd":
        return lambda weights, gradients: [
            w - rate * g for w, g in zip(weights, gradients, strict=True)
        ]
    moments: list[tuple[np.ndarray, np.ndarray]] = []
    count = 0

    def adam(weights: list[np.ndarray], gradients: list[np.ndarray]) -> list[np.ndarray]:
        nonlocal count, moments
        count += 1
        moments = moments or [(np.zeros_like(w), np.zeros_like(w)) for w in weights]
        moments = [
            (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g)
            for (m, v), g in zip(moments, gradients, strict=True)
        ]
        return [
            w - rate * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)
            for w, (m, v) in zip(weights, moments, strict=True)
        ]

    return adam
