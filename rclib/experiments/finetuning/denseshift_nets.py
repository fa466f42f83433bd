"""Training of stacks with coded weights, and what is measured of them, for notebook 84."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.data.pooling import pooled_inputs
from rclib.experiments.finetuning.bases import PARTS, cosine
from rclib.nets.coded_stack import CodedStack
from rclib.nets.normed_stack import Statistics
from rclib.nets.power_of_two import Code, DenseShift, Float, PowerQuantiser, ShiftWithZero
from rclib.training.stacked import epoch_orders
from rclib.training.stacked_optimizers import Settings, Updates

__all__ = [
    "LEVELS",
    "Images",
    "Watched",
    "code_of",
    "coupling",
    "images_of",
    "level_shares",
    "measured",
    "over_edge",
    "trained",
]

KINDS: dict[str, type[Code]] = {
    kind.__name__: kind for kind in (Float, DenseShift, ShiftWithZero, PowerQuantiser)
}
LEVELS = 9  # zero, and the sizes of four bits
EVERY = 10  # updates between two looks at the signs
POINTS = 10  # of the curve of the training loss
ON_THE_WAY = 500  # images that the curve is measured on
MEASURED = 2000  # images of the training part that its loss and the statistics are taken of


def code_of(spec: Mapping[str, Any]) -> Code:
    """The code that a configuration describes. Raises ValueError for another kind or option."""
    options = {key: value for key, value in spec.items() if key != "kind"}
    kind = KINDS.get(str(spec.get("kind")))
    if kind is None or set(options) - {field.name for field in fields(kind)}:  # type: ignore[arg-type]
        raise ValueError(f"code must be a kind of {sorted(KINDS)} with its options, got {spec}")
    return kind(**options)


@dataclass(frozen=True, eq=False)
class Images:
    """x (n, d), y (n,) from 0 on, and part -> (S, m) places of each member's own split."""

    x: Tensor
    y: Tensor
    places: dict[str, Tensor]
    classes: int

    def part(self, name: str, most: int | None = None) -> tuple[Tensor, Tensor]:
        """x (S, m, d), y (S, m) of a part, or of its first images."""
        at = self.places[name][:, :most]
        return self.x[at], self.y[at]


def images_of(data: Dataset, seeds: Sequence[int], task: Mapping[str, Any]) -> Images:
    """The images of some classes, shared out anew for every seed.

    task : pool, classes [first, beyond the last], n_train, n_validation, n_test. Raises ValueError
    if there are not as many images.
    """
    first, last = (int(c) for c in task["classes"])
    x, y = _all_images(data, int(task["pool"]))
    there = torch.nonzero((y >= first) & (y < last))[:, 0]
    sizes = [int(task[f"n_{part}"]) for part in PARTS]
    if sum(sizes) > len(there):
        raise ValueError(f"task must ask for at most {len(there)} images, got {sum(sizes)}")
    orders = [torch.randperm(len(there), generator=torch.Generator().manual_seed(s)) for s in seeds]
    places = torch.stack([there[order[: sum(sizes)]] for order in orders]).split(sizes, dim=1)
    return Images(x, y - first, dict(zip(PARTS, places, strict=True)), last - first)


@lru_cache(maxsize=2)
def _all_images(data: Dataset, pool: int) -> tuple[Tensor, Tensor]:
    """Those of both sets, and their classes."""
    return torch.cat(pooled_inputs(data, pool)), torch.cat([data.y_train, data.y_test])


@dataclass(frozen=True, eq=False)
class Watched:
    """curve (S, 10): loss of 500 training images after each tenth of the updates, normalised by
    their own statistics; ever (S,): share of hidden weights whose sign differed from the start's
    at one look at least; flips (S,): changes of sign from look to look, per weight."""

    curve: np.ndarray
    ever: np.ndarray
    flips: np.ndarray


def trained(
    nets: CodedStack, images: Images, seeds: Sequence[int], *, rates: Sequence[float], steps: int,
    batch_size: int, frozen: Collection[str] = (),
) -> Watched:  # fmt: skip
    """Train in place, with Adam and a rate that falls to zero along a cosine.

    frozen : latents that stay as they are, by their names in the code.
    """
    every = nets.tensors
    used = [place for place, n in enumerate(every) if n.split(".")[-1] not in frozen]
    moved = {n: t for place, (n, t) in enumerate(every.items()) if place in used}
    updates = Updates(Settings("adam", lr=list(rates), schedule=cosine(steps)), moved, steps)
    train = images.places["train"]
    orders = epoch_orders(train.shape[1], batch_size, seeds)
    looks = {round(steps * k / POINTS) for k in range(1, POINTS + 1)}
    signs, curve = _Signs(nets), []
    for t in range(steps):
        at = train.gather(1, orders(t))
        gradients = nets.gradients(images.x[at], images.y[at])
        amounts = updates.step(t, [gradients[place] for place in used])
        torch._foreach_sub_(list(moved.values()), amounts)
        nets.refresh()
        if (t + 1) % EVERY == 0 or t + 1 == steps:
            signs.look()
        if t + 1 in looks:
            curve.append(_losses(nets, *images.part("train", ON_THE_WAY)))
    return Watched(np.array(curve).T, *signs.shares())


def _losses(
    nets: CodedStack, x: Tensor, y: Tensor, statistics: Statistics | None = None
) -> list[float]:
    out = nets.net.outputs(x, nets.net.recomputed(x) if statistics is None else statistics)
    # One by one: a sum over points has other bits in a longer tensor.
    return [float(cross_entropy(o, own)) for o, own in zip(out, y, strict=True)]


class _Signs:
    """Follows the signs of all hidden weights."""

    def __init__(self, nets: CodedStack) -> None:
        self.nets = nets
        self.first = self._now()
        self.last = self.first
        self.ever = torch.zeros_like(self.first)
        self.flips = torch.zeros(len(nets), dtype=torch.long)

    def _now(self) -> Tensor:
        nets = self.nets
        return torch.cat([nets.code.positive(own).flatten(1) for own in nets.latents], 1)

    def look(self) -> None:
        """Compare with the start and with the look before."""
        now = self._now()
        self.ever |= now != self.first
        self.flips += (now != self.last).sum(1)
        self.last = now

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """ever, flips: (S,)."""
        ever, flips = self.ever.double().mean(1), self.flips.double() / self.ever.shape[1]
        return ever.numpy(), flips.numpy()


def measured(nets: CodedStack, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Losses (S, 3) and accuracies (S, 3) on `PARTS`, normalised by the statistics of training
    images."""
    x, _ = images.part("train", MEASURED)
    statistics = nets.net.recomputed(x)
    losses, rights = [], []
    for part in PARTS:
        x, y = images.part(part, MEASURED if part == "train" else None)
        losses.append(_losses(nets, x, y, statistics))
        out = nets.net.outputs(x, statistics)
        rights.append((out.argmax(2) == y).double().mean(1).tolist())
    return np.array(losses).T, np.array(rights).T


def level_shares(nets: CodedStack) -> np.ndarray:
    """(S, 9): share of hidden weights that are zero, and of each size from the smallest on; zeros
    for real weights."""
    sizes = sorted({abs(value) for value in nets.code.values} - {0.0})
    flat = torch.cat([w.flatten(1) for w in nets.net.weights[:-1]], 1).abs()
    found = np.zeros((len(nets), LEVELS))
    for place, size in enumerate([0.0, *sizes] if sizes else []):
        found[:, place] = (flat == size).double().mean(1).numpy()
    return found


def over_edge(weight: Tensor) -> float:
    """Largest singular value of (m, n) over √v (√m + √n), v the mean square of its entries: where
    the Marchenko-Pastur law of independent entries of this variance ends. NaN for zeros."""
    w = weight.double()
    m, n = w.shape
    edge = float(w.square().mean().sqrt()) * (m**0.5 + n**0.5)
    return float(torch.linalg.matrix_norm(w, 2)) / edge if edge > 0 else float("nan")


def coupling(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Correlations over the units between W1 (h, d) and W2 (o, h): of row means with column means,
    and of row mean squares with column mean squares. NaN where one of them does not vary."""
    found = []
    for power in (1, 2):
        rows, columns = first.double().pow(power).mean(1), second.double().pow(power).mean(0)
        varies = float(rows.std()) > 0 and float(columns.std()) > 0
        both = torch.stack([rows, columns])
        found.append(float(torch.corrcoef(both)[0, 1]) if varies else float("nan"))
    return found[0], found[1]
