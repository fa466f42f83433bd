"""Stored runs of notebook 74: coders of several seeds, mean-field networks, embeddings of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.data.pooling import pooled_inputs
from rclib.data.text import TextData
from rclib.experiments.features.relative_nets import Coder, Shape
from rclib.experiments.features.word_spaces import embedding
from rclib.nets.mlp import MLP
from rclib.nets.stack import stack
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_batches, train_stack

__all__ = ["TINY", "coder_runs", "images", "labels", "mean_field_runs", "shape_of", "word_runs"]

TINY: dict[str, dict[str, Any]] = {
    "coder_runs": {
        "group": [{"seed": 0}, {"seed": 3}], "kind": "autoencoder", "latent": 4, "anchors": 6,
        "hidden": 8, "channels": [], "pool": 1, "steps": 3, "batch": 16, "rate": 3e-3,
    },
    "mean_field_runs": {
        "group": [{"seed": 0}, {"seed": 1}], "width": 8, "pool": 1, "steps": 3, "batch": 16,
        "rate": 0.02,
    },
    "word_runs": {"half": 0, "window": 2, "words": 1, "latent": 1, "letters": 1},
}  # fmt: skip


def images(data: Dataset, pool: int) -> tuple[Tensor, Tensor]:
    """Training and test images (n, inputs) float32, each pixel less its mean over training.

    The first images are those of a fixed permutation: data may be sorted by class.
    """
    x, x_test = pooled_inputs(data, pool)
    order = np.random.RandomState(0).permutation(len(x))
    middle = x.mean(0)
    return x[torch.from_numpy(order)] - middle, x_test - middle


def labels(data: Dataset) -> Tensor:
    """Classes of the training images in the order of `images`."""
    return data.y_train[torch.from_numpy(np.random.RandomState(0).permutation(len(data.y_train)))]


def shape_of(
    data: Dataset, *, kind: str, latent: int, anchors: int, hidden: int, channels: Sequence[int],
    pool: int, **_: Any,
) -> Shape:  # fmt: skip
    """The shape of a coder for images of the data."""
    colours = 3 if data.name == "cifar10" else 1
    inputs = data.x_train.shape[1] // pool**2
    return Shape(kind, inputs, latent, anchors, hidden, tuple(channels), colours)


def coder_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], kind: str, latent: int, anchors: int,
    hidden: int, channels: Sequence[int], pool: int, steps: int, batch: int, rate: float,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of members, each a seed: the tensors of trained `Coder`s.

    Adam on the mean square error over pixels, or on cross-entropy; the seed draws the start and
    the order of the images. The anchors are the first `anchors` training images.
    """
    shape = shape_of(
        data, kind=kind, latent=latent, anchors=anchors, hidden=hidden, channels=channels, pool=pool
    )
    x, _ = images(data, pool)
    y = x if kind == "autoencoder" else labels(data)
    # Convolutions of several networks at once round otherwise than those of one.
    parts = [[member] for member in group] if channels else [list(group)]
    found = [_coders(x, y, [int(m["seed"]) for m in p], shape, steps, batch, rate) for p in parts]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _coders(
    x: Tensor, y: Tensor, seeds: Sequence[int], shape: Shape, steps: int, batch: int, rate: float
) -> Arrays:
    count, chosen = shape.anchors, epoch_batches(x, y, batch_size=batch, seeds=seeds)
    first, targets = (part[:count].expand(len(seeds), *part[:count].shape) for part in (x, y))

    def both(step: int) -> tuple[Tensor, Tensor]:
        own, truth = chosen(step)
        return torch.cat([first, own], 1), torch.cat([targets, truth], 1)

    def loss(output: Tensor, truth: Tensor) -> Tensor:
        truth = truth[count:]  # those of the anchors are not asked for
        if shape.kind == "classifier":
            return cross_entropy(output, truth)
        return (output - truth).square().mean()

    start = stack([Coder(shape, seed=seed) for seed in seeds])
    end, _ = train_stack(start, both, loss, steps=steps, lr=rate, optimizer="adam", own="xy")
    return {name: tensor.numpy() for name, tensor in end.tensors.items()}


def mean_field_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], width: int, pool: int, steps: int,
    batch: int, rate: float,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of members, each a seed: tensors of trained mean-field classifiers.

    Three layers of tanh (`MLP`), Adam with the rate's mean-field factors, cross-entropy.
    """
    x, _ = images(data, pool)
    seeds = [int(member["seed"]) for member in group]
    models = [MLP(x.shape[1], width, data.n_classes, depth=3, seed=seed) for seed in seeds]
    end, _ = train_stack(
        stack(models), epoch_batches(x, labels(data), batch_size=batch, seeds=seeds),
        cross_entropy, steps=steps, lr=rate, optimizer="adam",
        factors=models[0].lr_factors("adam"), own="xy",
    )  # fmt: skip
    return {name: tensor.numpy() for name, tensor in end.tensors.items()}


def word_runs(
    data: TextData, *, half: int, window: int, words: int, latent: int, letters: int
) -> Arrays:
    """A stored run: vectors (words, latent) of the commonest words, from a half of the text."""
    found = embedding(data, half=half, window=window, words=words, latent=latent, letters=letters)
    return {"vectors": found}
