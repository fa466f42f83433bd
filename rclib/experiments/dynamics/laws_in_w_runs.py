"""Stored runs of notebook 66: one network of each notebook of the series, watched while it learns.

Every run trains one network as its notebook does and gives what `laws_in_w_measures.record` says of
its first matrix, with progress (T,) as its own docstring names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn

from rclib.data.images import Dataset
from rclib.experiments.dynamics.deep_linear_chains import orthogonal
from rclib.experiments.dynamics.generalization_runs import _stepper, _two_layers
from rclib.experiments.dynamics.laws_in_w_measures import moments_of, record
from rclib.experiments.dynamics.universality_runs import (
    SIGNS,
    _descend,
    _loss,
    _networks,
    _outputs,
    bits_of,
)
from rclib.nets.stack import Stack, stack
from rclib.runs.source import Source
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_batches, train_stack

__all__ = [
    "TINY",
    "SquareNet",
    "watch_addition",
    "watch_boolean",
    "watch_fit",
    "watch_modes",
    "watch_normalised",
    "watch_student",
]

TINY: dict[str, dict[str, Any]] = {
    "watch_modes": {
        "seed": 0, "task": [2.0, 1.0], "width": 4, "size": 0.1, "rate": 0.05, "steps": 6,
        "moments": 3,
    },
    "watch_student": {
        "seed": 0, "width": 4, "start": 0.3, "n": 3, "samples": 8, "teacher": 2, "rate": 3e-3,
        "steps": 5, "moments": 3, "optimiser": "adam",
    },
    "watch_addition": {
        "seed": 0, "modulus": 5, "width": 6, "share": 0.6, "rate": 5e-3, "decay": 2e-4, "steps": 4,
        "moments": 3,
    },
    "watch_normalised": {
        "seed": 0, "n": 60, "m": 40, "width": 5, "batch_size": 20, "rate": 0.05, "steps": 4,
        "moments": 3,
    },
    "watch_boolean": {
        "seed": 0, "target": 65534, "n": 8, "delta": 0.1, "hidden": 4, "chains": 3, "rate": 2e-3,
        "steps": 6, "moments": 3,
    },
    "watch_fit": {
        "seed": 0, "n": 40, "m": 30, "width": 5, "depth": 1, "rate": 3e-3, "steps": 4, "moments": 3,
    },
}  # fmt: skip


def watch_modes(
    data: Source | None, *, seed: int, task: Sequence[float], width: int, size: float, rate: float,
    steps: int, moments: int,
) -> Arrays:  # fmt: skip
    """Notebook 60: two matrices, modes of the strengths `task`, entries of the start size N(0, 1).
    progress : learned share Σ u / Σ s of the modes."""
    random = np.random.default_rng([seed, 60])
    left, right = (orthogonal(random, width)[:, : len(task)] for _ in range(2))
    target = (left * np.array(task)) @ right.T
    first, second = (size * random.standard_normal((width, width)) for _ in range(2))
    at, found, progress = moments_of(steps, moments), [], []
    for step in range(steps + 1):
        whole = second @ first
        if step in at:
            found.append(first)
            progress.append(np.einsum("ij,ij->", left, whole @ right) / sum(task))
        error = rate * (target - whole)
        first, second = first + second.T @ error, second + error @ first.T
    return record(seed, at, progress, found, size**2)


def watch_student(
    data: Source | None, *, seed: int, width: int, start: float, n: int, samples: int, teacher: int,
    rate: float, steps: int, moments: int, optimiser: str,
) -> Arrays:  # fmt: skip
    """Notebook 61: a ReLU student of a ReLU teacher with noisy labels (`relu_student`, whose
    arguments these are). progress : test error on 2000 labels without noise, over the start's;
    `train` (T,) : training error."""
    random = np.random.default_rng([seed, 61])
    a, b = random.standard_normal((teacher, n)) / np.sqrt(n), random.standard_normal(teacher)
    x, x_test = random.standard_normal((samples, n)), random.standard_normal((2000, n))
    y_test = np.maximum(x_test @ a.T, 0) @ b
    scale = float(y_test.std())
    y_test = y_test / scale
    y = np.maximum(x @ a.T, 0) @ b / scale + random.standard_normal(samples)
    mean = y.mean()
    weights = [
        start * random.standard_normal((width, n)) / np.sqrt(n),
        start * random.standard_normal(width) / np.sqrt(width),
    ]
    step = _stepper(optimiser, rate)
    at, found, progress, train = moments_of(steps, moments), [], [], []
    for k in range(steps + 1):
        gradients, loss = _two_layers(x, y - mean, weights)
        if k in at:
            guess = np.maximum(x_test @ weights[0].T, 0) @ weights[1] + mean
            found.append(weights[0].copy())
            progress.append(float(np.square(guess - y_test).mean()))
            train.append(loss)
        weights = step(weights, gradients)
    run = record(seed, at, np.array(progress) / progress[0], found, start**2 / n)
    return run | {"train": np.array(train)}


class SquareNet(nn.Module):
    """Two layers without biases, (x Wᵀ)² Vᵀ: `modulus` classes of two one-hot blocks each."""

    def __init__(self, modulus: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * modulus, width, bias=False)
        self.last = nn.Linear(width, modulus, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (n, 2 · modulus) to outputs (n, modulus)."""
        out: Tensor = self.last(self.first(x).square())
        return out


def watch_addition(
    data: Source | None, *, seed: int, modulus: int, width: int, share: float, rate: float,
    decay: float, steps: int, moments: int,
) -> Arrays:  # fmt: skip
    """Notebook 62: addition modulo `modulus` from a share of all pairs, squares as units, squared
    error of outputs that are centred over classes, Adam with the decay inside the gradient.
    progress : test accuracy; `train` (T,) : training accuracy."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (
        g.flatten() for g in torch.meshgrid(*[torch.arange(modulus)] * 2, indexing="ij")
    )
    eye = torch.eye(modulus)
    x, label = torch.cat([eye[first], eye[second]], 1), (first + second) % modulus
    order = torch.randperm(len(x), generator=generator)
    seen = order[: round(share * len(x))]
    unseen = order[len(seen) :]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = stack([SquareNet(modulus, width)])

    def loss(output: Tensor, y: Tensor) -> Tensor:
        centred = output - output.mean(1, keepdim=True)
        return (centred - (eye[y] - 1 / modulus)).square().sum(1).mean()

    def accuracy(of: Stack, where: Tensor) -> Tensor:
        return (of(x[where]).argmax(-1) == label[where]).float().mean(1)

    at = moments_of(steps, moments)
    _, kept = train_stack(
        start, lambda step: (x[seen], label[seen]), loss, steps=steps, lr=rate, optimizer="adam",
        weight_decay=decay, own="", at=at,
        record={
            "w": lambda s: s.tensors["first.weight"], "test": lambda s: accuracy(s, unseen),
            "train": lambda s: accuracy(s, seen),
        },
    )  # fmt: skip
    return _of_stack(seed, at, kept, "test", variance=1 / (3 * 2 * modulus))


def watch_normalised(
    data: Dataset, *, seed: int, n: int, m: int, width: int, batch_size: int, rate: float,
    steps: int, moments: int,
) -> Arrays:  # fmt: skip
    """Notebook 63: two hidden layers with batch normalisation, small batches, momentum 0.9, images.
    progress : accuracy on `m` others, normalised by their own statistics; `train` (T,) : accuracy
    on the `n`. The matrix is the first one."""
    x, y = _split(data, seed, n + m)
    deep = nn.Sequential(
        nn.Linear(x.shape[1], width), nn.BatchNorm1d(width, track_running_stats=False), nn.ReLU(),
        nn.Linear(width, width), nn.BatchNorm1d(width, track_running_stats=False), nn.ReLU(),
        nn.Linear(width, data.n_classes),
    )  # fmt: skip
    start = stack([_drawn(deep, seed)])
    hot = torch.eye(data.n_classes)[y]

    def loss(output: Tensor, labels: Tensor) -> Tensor:  # torch's own is slow under vmap
        return -(output.log_softmax(1) * labels).sum(1).mean()

    def accuracy(of: Stack, places: slice) -> Tensor:
        return (of(x[places]).argmax(-1) == y[places]).float().mean(1)

    at = moments_of(steps, moments)
    _, kept = train_stack(
        start, epoch_batches(x[:n], hot[:n], batch_size=batch_size, seeds=[seed]),
        loss, steps=steps, lr=rate, optimizer="momentum", weight_decay=5e-4,
        own="xy", at=at,
        record={
            "w": lambda s: s.tensors["0.weight"], "test": lambda s: accuracy(s, slice(n, None)),
            "train": lambda s: accuracy(s, slice(n)),
        },
    )  # fmt: skip
    return _of_stack(seed, at, kept, "test", variance=1 / (3 * x.shape[1]))


def watch_boolean(
    data: Source | None, *, seed: int, target: int, n: int, delta: float, hidden: int, chains: int,
    rate: float, steps: int, moments: int,
) -> Arrays:  # fmt: skip
    """Notebook 64: Langevin chains over small networks on `n` labels of a Boolean function
    (`chains`, whose arguments these are). progress : log-loss of the averaged prediction over that
    of the start, less the truth's own. Measures are means over the chains."""
    random = np.random.default_rng([seed, n, hidden])
    truth = delta + (1.0 - 2.0 * delta) * bits_of([target])[0].astype(float)
    x = random.integers(0, len(SIGNS), n)
    y = random.random(n) < truth[x]
    ones, zeros = (
        np.bincount(x[y == v], minlength=len(SIGNS)).astype(float) for v in (True, False)
    )
    state = [w.astype(float) for w in _networks(random, hidden, chains, scaled=True)]
    at, found, progress = moments_of(steps, moments), [], []
    for k, moment in enumerate(at):
        done = at[k - 1] if k else 0
        state = _descend(random, state, ones, zeros, rate, moment - done, noisy=True)
        found.append(state[0])
        predicted = expit(3.0 * _outputs(tuple(state))).mean(0)
        progress.append(_loss(predicted, truth) - _loss(truth, truth))
    return record(seed, at, np.array(progress) / progress[0], found, 0.25)


def watch_fit(
    data: Dataset, *, seed: int, n: int, m: int, width: int, depth: int, rate: float, steps: int,
    moments: int,
) -> Arrays:  # fmt: skip
    """Notebook 65: a ReLU network that fits `n` images by Adam, squared error of one-hot labels.
    progress : test error on `m` others over that of the start; `train` (T,) : training error."""
    x, y = _split(data, seed, n + m)
    sizes = [x.shape[1], *[width] * depth]
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    deep = nn.Sequential(*layers, nn.Linear(width, data.n_classes))
    hot = torch.eye(data.n_classes)[y]
    at = moments_of(steps, moments)
    _, kept = train_stack(
        stack([_drawn(deep, seed)]), lambda step: (x[:n], hot[:n]), nn.functional.mse_loss,
        steps=steps, lr=rate, optimizer="adam", own="", at=at,
        record={
            "w": lambda s: s.tensors["0.weight"],
            "test": lambda s: (s(x[n:]) - hot[n:]).square().mean((1, 2)),
            "train": lambda s: (s(x[:n]) - hot[:n]).square().mean((1, 2)),
        },
    )  # fmt: skip
    run = _of_stack(seed, at, kept, "test", variance=1 / (3 * x.shape[1]))
    return run | {"progress": run["progress"] / run["progress"][0]}


def _split(data: Dataset, seed: int, count: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(seed))[:count]
    return data.x_train[order].float().flatten(1), data.y_train[order]


def _drawn(model: nn.Module, seed: int) -> nn.Module:
    """The model with torch's own start, drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in model.modules():
            reset: Callable[[], None] | None = getattr(part, "reset_parameters", None)
            if reset is not None:
                reset()
    return model


def _of_stack(
    seed: int, at: Sequence[int], kept: dict[str, Tensor], progress: str, *, variance: float
) -> Arrays:
    matrices = [w[0].double().numpy() for w in kept["w"]]
    run = record(seed, at, kept[progress][:, 0].tolist(), matrices, variance)
    return run | {"train": kept["train"][:, 0].double().numpy()}
