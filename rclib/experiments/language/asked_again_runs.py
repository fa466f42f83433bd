"""Stored runs of notebook 97: sets of images, each learned by fresh networks at many step sizes.

The sets are those of notebook 94, images distilled by its methods and its baselines, from the same
draws; with one image a class they are the same images. Where several images a class are asked for,
random ones are drawn without repetition, "means" are the centres of as many clusters of the class
(k-means), and "nearest" the real images nearest to these. Distilled images are looked at with the
step size that was learned with them too, as notebook 94 has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.data.images import Dataset
from rclib.experiments.language import distillation_nets as nets
from rclib.experiments.language.distillation_nets import Shape
from rclib.experiments.language.distillation_runs import (
    ARMS,
    BASELINES,
    expert_paths,
    first_images,
    generator_of,
    matched,
)
from rclib.runs.store import Arrays

__all__ = ["TINY", "centres", "graded", "image_sets"]

ROUNDS = 20  # of k-means, from images drawn at random
EDGE = 20  # iterations at the end over which the matching loss is averaged
TINY: dict[str, dict[str, Any]] = {
    "graded": {
        "seed": 0, "arms": ["plain", "means, clip"], "per_class": 2, "n_nets": 2, "n_train": 3,
        "rates": [0.1, 0.5],
        "matching": {"iterations": 2, "n_steps": 2, "starts": 2, "ahead": 2, "lr_images": 0.03,
                     "lr_rate": 0.02, "alpha": 0.05},
        "experts": {"n_experts": 2, "epochs": 5, "batch": 32, "lr": 0.02, "hidden": 6},
    },
}  # fmt: skip


def centres(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Centres (k, d) of k clusters of x (n, d): k-means from k of them; a cluster that is left
    empty keeps its centre. Raises ValueError for more clusters than points."""
    if not 1 <= k <= len(x):
        raise ValueError(f"k must be from 1 to {len(x)}, the number of points, got {k}")
    found = x[torch.randperm(len(x), generator=generator)[:k]].clone()
    for _ in range(ROUNDS):
        own = torch.cdist(x, found).argmin(1)
        for c in range(k):
            if bool((own == c).any()):
                found[c] = x[own == c].mean(0)
    return found


def image_sets(data: Dataset, generator: torch.Generator, per_class: int) -> dict[str, Tensor]:
    """Baseline -> images (K * per_class, d), those of one class together; with one a class they are
    `first_images` of notebook 94. Raises ValueError for a class with fewer images than that."""
    if per_class == 1:
        return first_images(data, generator)
    found: dict[str, list[Tensor]] = {name: [] for name in BASELINES}
    for k in range(data.n_classes):
        own = data.x_train[data.y_train == k]
        if len(own) < per_class:
            raise ValueError(f"per_class must be at most {len(own)}, got {per_class}")
        found["random"].append(own[torch.randperm(len(own), generator=generator)[:per_class]])
        middle = centres(own, per_class, generator)
        found["nearest"].append(own[torch.cdist(middle, own).argmin(1)])
        found["means"].append(middle)
    return {name: torch.cat(rows) for name, rows in found.items()}


def graded(
    data: Dataset, *, seed: int, arms: list[str], per_class: int, experts: dict[str, Any],
    matching: dict[str, Any], n_nets: int, n_train: int, rates: list[float],
) -> Arrays:  # fmt: skip
    """Accuracies of n_nets fresh networks, the same for every set and step size, after n_train
    steps on each set of images of one seed: those of arms (A of `ARMS`), then `BASELINES`.

    train, test (A + 3, rates) : on the two parts of the data, means over networks. learned (A, 2) :
    train and test at the step size that was learned with the images, alpha (A,). loss (A,) : of the
    matching, over the last iterations; 1 is no progress. experts (A,) : test accuracy of an arm's
    own experts. Raises KeyError for unknown arms and ValueError for classes without images.
    """
    names = list(dict.fromkeys(ARMS[arm][0] for arm in arms))
    paths = expert_paths(data, seed, names, **experts)
    shape = Shape(data.x_train.shape[1], experts["hidden"], data.n_classes)
    generator = generator_of(seed, 2)
    first = image_sets(data, generator, per_class)
    begun = torch.stack([first["means" if ARMS[a][1] == "means" else "random"] for a in arms])
    images, alpha, losses = matched(paths, begun, shape, generator, arms, names, matching)
    fresh = nets.drawn(n_nets, shape, generator)
    onehot = torch.eye(shape.K).repeat_interleave(per_class, 0)

    def accuracies(x: Tensor, sizes: Tensor) -> Tensor:
        """(2, B) on train and test of each of the sets x (B, n, d) with its step size."""
        own, each = x.repeat_interleave(n_nets, 0), sizes.repeat_interleave(n_nets)
        end, _ = nets.descend(fresh.repeat(len(x), 1), own, onehot, each, n_train, shape)
        rows = [
            nets.accuracy(end, *part, shape).view(len(x), n_nets).mean(1)
            for part in ((data.x_train, data.y_train), (data.x_test, data.y_test))
        ]
        return torch.stack(rows)

    sets = torch.cat([images, torch.stack([first[name] for name in BASELINES])])
    grid = torch.stack([accuracies(sets, torch.full((len(sets),), rate)) for rate in rates], -1)
    ends = nets.accuracy(paths[:, :, -1].flatten(0, 1), data.x_test, data.y_test, shape)
    strong = ends.view(paths.shape[:2]).mean(1)
    return {
        "train": grid[0].numpy(), "test": grid[1].numpy(),
        "learned": accuracies(images, alpha).T.numpy(), "alpha": alpha.numpy(),
        "loss": losses[:, -EDGE:].mean(1).numpy(),
        "experts": np.array([float(strong[names.index(ARMS[arm][0])]) for arm in arms]),
    }  # fmt: skip
