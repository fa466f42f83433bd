"""Coloured samples of notebook 75: a shape that predicts the label, and a colour that does more.

A sample's shape is put into one of two channels, its colour, and the other channel is zero. With a
clean label given by the shape,

    y = clean label, flipped with probability `noise`;    colour = y, flipped with probability e,

so that the shape predicts y with 1 - noise everywhere and the colour with 1 - e, which differs
between environments. Exactly noise · n labels and e · n colours are flipped: penalties of
differences between environments amplify those of the draw. Source: Coloured MNIST (Arjovsky et
al. 2019, arXiv 1907.02893), as Zhang et al. 2022 (arXiv 2203.15516) use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rclib.checks.arguments import choice
from rclib.data.images import Dataset

__all__ = ["SOURCES", "Coloured", "coloured", "flipped", "in_colour", "shapes"]

SOURCES = ("prototypes", "images")
ANIMALS = (2, 3, 4, 5, 6, 7)  # of CIFAR-10's classes; the others are vehicles


@dataclass(frozen=True, eq=False)
class Coloured:
    """Environments (E, n, ...) to train in and (T, m, ...) to test in.

    x, test_x : inputs, two channels of the shape's size. y, test_y : labels 0.0 and 1.0.
    plain : x with colours that do not depend on y (e = 1/2), for the oracle. same : x with the
    mean e in every environment.
    """

    x: Tensor
    y: Tensor
    plain: Tensor
    same: Tensor
    test_x: Tensor
    test_y: Tensor


def flipped(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Labels (n,) of 0 and 1 with exactly the share, rounded, flipped."""
    chosen = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    out = labels.clone()
    out[chosen] = 1 - out[chosen]
    return out


def in_colour(shape: Tensor, colours: Tensor) -> Tensor:
    """Shapes (n, d) in the channel of their colour (n,): (n, 2 d)."""
    on = colours[:, None].to(shape.dtype)
    return torch.cat([shape * (1 - on), shape * on], dim=1)


def shapes(
    data: Dataset | None, source: Mapping[str, Any], n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """n shapes (n, d) and their clean labels.

    source : kind "prototypes", relu(2 · prototype + 0.3 · noise) of one of `count` unit vectors in
    R^d, the same for all seeds, whose place's parity is the label. kind "images", drawn without
    replacement from the data's training images, in grey, squares of `pool` pixels averaged, less
    the smallest value; the label is animal or vehicle for CIFAR-10, and digit below five.
    Raises ValueError for another kind, and for images without data or more of them than there are.
    """
    if choice("kind", source["kind"], SOURCES) == "prototypes":
        count, d = int(source["count"]), int(source["d"])
        fixed = torch.randn(count, d, generator=torch.Generator().manual_seed(0))
        fixed = fixed / fixed.norm(dim=1, keepdim=True)
        which = torch.randint(count, (n,), generator=generator)
        drawn = 2 * fixed[which] + 0.3 * torch.randn(n, d, generator=generator)
        return torch.relu(drawn), which % 2
    if data is None or n > len(data.y_train):
        raise ValueError(f"data must hold the {n} images that are asked for")
    order = torch.randperm(len(data.y_train), generator=generator)[:n]
    colours = 3 if data.name == "cifar10" else 1
    side = round((data.x_train.shape[1] / colours) ** 0.5)
    grey = data.x_train[order].float().view(n, colours, side, side).mean(1, keepdim=True)
    small = avg_pool2d(grey, int(source["pool"])).flatten(1)
    y = data.y_train[order]
    label = torch.isin(y, torch.tensor(ANIMALS)) if colours == 3 else y < 5
    return (small - small.min()) / (small.max() - small.min()), label.long()


def coloured(
    data: Dataset | None, source: Mapping[str, Any], *, seed: int, noise: float,
    flips: Sequence[float], tests: Sequence[float], n: int, n_test: int,
) -> Coloured:  # fmt: skip
    """n samples in each training environment and n_test in each test, drawn by the seed.

    noise : share of flipped labels. flips, tests : e of the environments.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = [n] * len(flips) + [n_test] * len(tests)
    shape, clean = shapes(data, source, sum(sizes), generator)
    parts = list(zip(shape.split(sizes), clean.split(sizes), strict=True))
    labels = [flipped(c, noise, generator) for _, c in parts]

    def painted(places: Sequence[int], shares: Sequence[float]) -> Tensor:
        return torch.stack([
            in_colour(parts[place][0], flipped(labels[place], share, generator))
            for place, share in zip(places, shares, strict=True)
        ])  # fmt: skip

    train, test = range(len(flips)), range(len(flips), len(sizes))
    mean = sum(flips) / len(flips)
    return Coloured(
        x=painted(train, flips),
        y=torch.stack([labels[place] for place in train]).float(),
        plain=painted(train, [0.5] * len(flips)),
        same=painted(train, [mean] * len(flips)),
        test_x=painted(test, tests),
        test_y=torch.stack([labels[place] for place in test]).float(),
    )
