"""Tasks and networks of notebook 85: five classes of images for a network of five others.

A network with one hidden layer is one vector θ = (W1, b1, W2, b2) of float32,

    f(x) = W2 · max(0, W1 x + b1) + b2,    loss = mean over samples of -log softmax(f(x))[y],

which is trained on the classes below 5 and gets a new last layer for the others. It needs numpy
alone (see `one_byte_codes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["CLASSES", "Task", "accuracy", "drawn_task", "gradient", "loss", "parts", "pretrained"]

Array = np.ndarray[Any, np.dtype[Any]]
CLASSES = 5  # of the task, and as many of the training before it
HEAD = 0.01  # standard deviation of the new last layer


@dataclass(frozen=True, eq=False)
class Task:
    """before_x (n, d), before_y: the other classes; x, y: training, test_x, test_y: test images of
    the five classes of the task, labels from 0. float32 and int64."""

    before_x: Array
    before_y: Array
    x: Array
    y: Array
    test_x: Array
    test_y: Array


def drawn_task(x: Array, y: Array, *, seed: int, n_train: int) -> Task:
    """Images x (n, d) with labels y below 10; of classes 5 to 9 `n_train`, drawn by the seed, are
    for training and the others for testing. Raises ValueError if there are not more of them."""
    order = np.random.default_rng([seed, 0]).permutation(len(y))
    x, y = np.ascontiguousarray(x[order], np.float32), np.asarray(y[order], np.int64)
    first, later = y < CLASSES, y >= CLASSES
    if not 0 < n_train < later.sum():
        raise ValueError(f"n_train must be from 1 to {later.sum() - 1}, got {n_train}")
    own_x, own_y = x[later], y[later] - CLASSES
    return Task(
        x[first], y[first], own_x[:n_train], own_y[:n_train], own_x[n_train:], own_y[n_train:]
    )


def parts(theta: Array, d: int) -> tuple[Array, Array, Array, Array]:
    """W1 (..., hidden, d), b1, W2 (..., CLASSES, hidden), b2: views of θ (..., n)."""
    lead, hidden = theta.shape[:-1], (theta.shape[-1] - CLASSES) // (d + 1 + CLASSES)
    a, b = hidden * d, hidden * d + hidden
    c = b + CLASSES * hidden
    return (
        theta[..., :a].reshape(*lead, hidden, d), theta[..., a:b],
        theta[..., b:c].reshape(*lead, CLASSES, hidden), theta[..., c:],
    )  # fmt: skip


def _logits(theta: Array, x: Array) -> tuple[Array, Array]:
    w1, b1, w2, b2 = parts(theta, x.shape[-1])
    h = np.maximum(x @ w1.swapaxes(-1, -2) + b1[..., None, :], 0)
    return h @ w2.swapaxes(-1, -2) + b2[..., None, :], h


def loss(theta: Array, x: Array, y: Array) -> Array:
    """Mean cross entropy of samples x (..., n, d) with labels y (..., n), one value for each of the
    weights θ (..., d): (...) float32. Each has the bits that it has alone, since products of stacks
    of matrices are made one by one."""
    z, _ = _logits(theta, x)
    z -= z.max(-1, keepdims=True)
    places = np.broadcast_to(y, z.shape[:-1])[..., None]
    right = np.take_along_axis(z, places, -1)[..., 0]
    found: Array = (np.log(np.exp(z).sum(-1)) - right).sum(-1) / np.float32(y.shape[-1])
    return found


def accuracy(theta: Array, x: Array, y: Array) -> float:
    """Share of samples that are classified right."""
    return float((_logits(theta, x)[0].argmax(1) == y).mean())


def gradient(theta: Array, x: Array, y: Array) -> Array:
    """Gradient of `loss` with respect to θ, by backpropagation, of θ's shape."""
    z, h = _logits(theta, x)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    p /= np.float32(len(y))
    w2 = parts(theta, x.shape[1])[2]
    back = (p @ w2) * (h > 0)
    return np.concatenate([(back.T @ x).ravel(), back.sum(0), (p.T @ h).ravel(), p.sum(0)])


def pretrained(task: Task, *, seed: int, hidden: int, steps: int, rate: float, batch: int) -> Array:
    """θ after `steps` of Adam on the other classes, from W1 ~ N(0, 2/d) and W2 ~ N(0, 1/hidden),
    with a new last layer: W2 ~ N(0, 0.01²) and b2 = 0."""
    draw = np.random.default_rng([seed, 1])
    d = task.x.shape[1]
    shapes: Sequence[tuple[int, float]] = (
        (hidden * d, (2 / d) ** 0.5), (hidden, 0.0), (CLASSES * hidden, hidden**-0.5),
        (CLASSES, 0.0),
    )  # fmt: skip
    theta = np.concatenate([s * draw.standard_normal(n, np.float32) for n, s in shapes])
    theta = theta.astype(np.float32)
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    for t in range(1, steps + 1):
        rows = draw.integers(len(task.before_y), size=batch)
        g = gradient(theta, task.before_x[rows], task.before_y[rows])
        first = 0.9 * first + 0.1 * g
        second = 0.999 * second + 0.001 * g**2
        size = rate * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
        theta = (theta - size * first / (np.sqrt(second) + 1e-8)).astype(np.float32)
    _, _, w2, b2 = parts(theta, d)
    w2[:] = HEAD * draw.standard_normal(w2.shape, np.float32)
    b2[:] = 0
    return theta
