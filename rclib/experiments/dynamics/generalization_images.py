"""ReLU students of images with noisy labels (notebook 61): final and best error against width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rclib.data.images import Dataset
from rclib.nets.stack import Stack
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.training.stacked import train_stack

__all__ = ["TINY", "drawn_images", "full_width", "image_frame", "image_ratio", "image_student"]

TINY: dict[str, dict[str, Any]] = {
    "image_student": {
        "group": [{"seed": 0}, {"seed": 1}], "width": 2, "start": 0.3, "samples": 20, "tested": 20,
        "flipped": 0.3, "rate": 1e-3, "steps": 2, "every": 1,
    },
}  # fmt: skip


def drawn_images(
    data: Dataset, *, seed: int, samples: int, tested: int, flipped: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """x (samples, d), y (samples, c), x_test (tested, d), y_test (tested, c) and the share of the
    labels that are wrong, of one seed.

    Images of 3 x 32 x 32 are averaged over colours and squares of 2 x 2 pixels. Pixels lose their
    mean over the training images, and all are scaled so that the mean of |x|² is d. y are one-hot
    less 1/c; a share `flipped` of the training images gets a class at random. Raises ValueError
    for more images than there are.
    """
    there = (len(data.y_train), len(data.y_test))
    if samples > there[0] or tested > there[1]:
        raise ValueError(
            f"samples and tested must be at most {there[0]} and {there[1]}, got {samples}, {tested}"
        )
    random = np.random.default_rng([seed, 11])
    chosen, other = (
        torch.from_numpy(random.permutation(all_of)[:n])
        for all_of, n in zip(there, (samples, tested), strict=True)
    )
    x, x_test = _grey(data.x_train[chosen]), _grey(data.x_test[other])
    mean = x.mean(0)
    scale = float((x - mean).square().mean().sqrt())
    labels = data.y_train[chosen].clone()
    hit = torch.from_numpy(random.permutation(samples)[: round(flipped * samples)])
    labels[hit] = torch.from_numpy(random.integers(0, data.n_classes, len(hit)))
    wrong = float((labels != data.y_train[chosen]).float().mean())
    eye = torch.eye(data.n_classes) - 1.0 / data.n_classes
    return (x - mean) / scale, eye[labels], (x_test - mean) / scale, eye[data.y_test[other]], wrong


def _grey(x: Tensor) -> Tensor:
    x = x.float().flatten(1)
    if x.shape[1] == 3 * 32 * 32:
        x = x.view(-1, 3, 16, 2, 16, 2).mean((1, 3, 5)).flatten(1)
    return x


def image_student(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, int]],
    width: int,
    start: float,
    samples: int,
    tested: int,
    flipped: float,
    rate: float,
    steps: int,
    every: int,
) -> Arrays:
    """Stored run: two-layer ReLU students without biases, full batch, Adam on ½ mean |output - y|².

    group : a member a {"seed": of its images, labels and start}. start : standard deviation of the
    weights of both layers times √fan-in. The other settings are those of `drawn_images`.

    Rows a member, at step 0 and every `every`-th (R): test, train (R,) : mean |output - y|² over
    that of y, on clean labels and on those trained on. wrong (R,) : share of test images in a wrong
    class. noise () : share of wrong training labels.
    """
    seeds = [int(one["seed"]) for one in group]
    drawn = [
        drawn_images(data, seed=s, samples=samples, tested=tested, flipped=flipped) for s in seeds
    ]
    x, y, x_test, y_test = (torch.stack([one[i] for one in drawn]) for i in range(4))  # type: ignore[misc]
    weights = []
    for s in seeds:
        random = np.random.default_rng([s, 12, width])
        first = start * random.standard_normal((width, x.shape[2])) / np.sqrt(x.shape[2])
        last = start * random.standard_normal((y.shape[2], width)) / np.sqrt(width)
        weights.append((torch.from_numpy(first).float(), torch.from_numpy(last).float()))
    stack = Stack(
        {"W1": torch.stack([w[0] for w in weights]), "W2": torch.stack([w[1] for w in weights])},
        _student,
    )

    def errors(now: Stack) -> Tensor:
        out = now(x_test)
        missed = (out - y_test).square().sum(2).mean(1) / y_test.square().sum(2).mean(1)
        wrong = (out.argmax(2) != y_test.argmax(2)).float().mean(1)
        fit = (now(x) - y).square().sum(2).mean(1) / y.square().sum(2).mean(1)
        return torch.stack([missed, fit, wrong], 1)

    _, found = train_stack(
        stack, lambda step: (x, y), _half_square, steps=steps, lr=rate, optimizer="adam",
        record={"errors": errors}, at=range(0, steps + 1, every), own="xy",
    )  # fmt: skip
    test, train, wrong = found["errors"].permute(2, 1, 0).double().numpy()
    return {
        "test": test, "train": train, "wrong": wrong, "noise": np.array([one[4] for one in drawn]),
    }  # fmt: skip


def _student(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return torch.relu(x @ tensors["W1"].T) @ tensors["W2"].T


def _half_square(output: Tensor, y: Tensor) -> Tensor:
    return 0.5 * (output - y).square().sum(1).mean()


def image_frame(
    data: Dataset, seeds: Sequence[int], *, widths: Sequence[int], **shared: Any
) -> pd.DataFrame:
    """Students of noisy labels: width, ratio (parameters over labels times classes), seed, final
    and best (test error at the end and at its least), train (at the end), wrong_final, wrong_best
    (share in a wrong class) and noise."""
    configs = [{"width": width, "seed": int(seed), **shared} for width in widths for seed in seeds]
    runs = sweep_stacked(
        image_student, configs, data=data, members=["seed"], group=10, description="images",
        cost=lambda config: float(config["width"]),
    )  # fmt: skip
    d, classes = _grey(data.x_train[:1]).shape[1], data.n_classes
    rows = [
        {
            "width": c["width"], "seed": c["seed"],
            "ratio": c["width"] * (d + classes) / (c["samples"] * classes),
            "final": float(run["test"][-1]), "best": float(run["test"].min()),
            "train": float(run["train"][-1]), "wrong_final": float(run["wrong"][-1]),
            "wrong_best": float(run["wrong"].min()), "noise": float(run["noise"]),
        }
        for c, run in zip(configs, runs, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def full_width(data: Dataset, widths: Sequence[int], samples: int) -> int:
    """The width whose number of parameters is nearest to samples times classes, by their ratio."""
    inputs = _grey(data.x_train[:1]).shape[1] + data.n_classes
    return min(widths, key=lambda width: abs(np.log(width * inputs / (samples * data.n_classes))))


def image_ratio(frame: pd.DataFrame, over: int, under: int) -> pd.Series:
    """Final test error of one width over that of another, by seed."""
    table = frame.pivot(index="seed", columns="width", values="final")
    return (table[over] / table[under]).rename("ratio")
