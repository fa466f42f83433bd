"""Many fully connected ReLU networks with batch normalisation as one stack, gradients by hand.

    net = NormedStack.start([64, 128, 128, 10], seeds=range(8))
    gradients = net.gradients(x, y, ghost=16)       # x (S, n, 64), y (S, n): a list, as `tensors`
    net.outputs(x_test)                             # (S, m, 10), with the running statistics

    h_l = relu(γ_l norm(W_l h_{l-1}) + β_l),    f = W_L h_{L-1} + b

The norm is that of `rclib.nets.ghost_norm`, or none. Autograd is left out because these networks
are so small that it takes most of their time; a test compares. A member's bits do not depend on
the others, under the conditions of `rclib.nets.stack`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from rclib.checks.arguments import count, seed_of
from rclib.nets.ghost_norm import (
    EPS,
    Normalised,
    normalise,
    normalise_backward,
    running_after,
)

__all__ = ["NormedStack", "Statistics"]

Statistics = list[tuple[Tensor, Tensor]]  # mean and variance of every hidden layer, (S, h)


@dataclass
class NormedStack:
    """S networks of one shape.

    weights : W_1 ... W_L, (S, out, in) each; gains, shifts : γ and β of the hidden layers, (S, h);
    bias (S, classes). running : statistics of the hidden layers that evaluation uses; empty where
    nothing is normalised.
    """

    weights: list[Tensor]
    gains: list[Tensor]
    shifts: list[Tensor]
    bias: Tensor
    running: Statistics

    @classmethod
    def start(cls, sizes: Sequence[int], seeds: Iterable[int], *, norm: bool = True) -> NormedStack:
        """Networks of the sizes [d, h_1, ..., classes], one a seed: weights uniform in
        ±1/√fan-in (torch's start, variance 1/(3 fan-in)), γ one, the rest zero.

        Raises ValueError for fewer than one hidden layer and for no seeds.
        """
        sizes = [count("sizes", size) for size in sizes]
        generators = [torch.Generator().manual_seed(seed_of("seeds", seed)) for seed in seeds]
        if len(sizes) < 3 or not generators:
            raise ValueError(
                f"sizes must have a hidden layer and seeds one seed, got {sizes} and "
                f"{len(generators)} seeds"
            )
        members = len(generators)
        weights = []
        for fan_in, fan_out in pairwise(sizes):
            drawn = [torch.rand(fan_out, fan_in, generator=g) for g in generators]
            weights.append((2.0 * torch.stack(drawn) - 1.0) / fan_in**0.5)
        hidden = sizes[1:-1]
        running = [(torch.zeros(members, h), torch.ones(members, h)) for h in hidden if norm]
        return cls(
            weights,
            [torch.ones(members, h) for h in hidden],
            [torch.zeros(members, h) for h in hidden],
            torch.zeros(members, sizes[-1]),
            running,
        )

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is trained, by name: W1, ..., gain1, ..., shift1, ..., bias."""
        named = [(f"W{i}", w) for i, w in enumerate(self.weights, 1)]
        named += [(f"gain{i}", g) for i, g in enumerate(self.gains, 1)]
        named += [(f"shift{i}", b) for i, b in enumerate(self.shifts, 1)]
        return dict([*named, ("bias", self.bias)])

    def gradients(
        self, x: Tensor, y: Tensor, *, ghost: int
    ) -> tuple[list[Tensor], list[Normalised]]:
        """Gradients of each member's mean cross-entropy in training mode, in the order of
        `tensors`, and what its hidden layers were normalised by (nothing without a norm).

        x (S, n, d); y (S, n), classes; ghost : rows that are normalised together. Raises
        ValueError for a ghost that does not divide n.
        """
        hidden, found, states = x, [], [x]
        for w, gain, shift in zip(self.weights, self.gains, self.shifts, strict=False):
            before = torch.bmm(hidden, w.transpose(1, 2))
            if self.running:
                found.append(normalise(before, ghost))
                before = found[-1].value
            hidden = (before * gain.unsqueeze(1)).add_(shift.unsqueeze(1)).clamp_min_(0.0)
            states.append(hidden)
            if not self.running:
                found.append(_plain(before))
        logits = torch.bmm(hidden, self.weights[-1].transpose(1, 2)) + self.bias.unsqueeze(1)
        back = torch.softmax(logits, 2)
        back.scatter_add_(2, y.unsqueeze(2), back.new_full((1, 1, 1), -1.0).expand(*y.shape, 1))
        back /= x.shape[1]
        of_bias = back.sum(1)
        of_weights = [torch.bmm(back.transpose(1, 2), hidden)]
        of_gains: list[Tensor] = []
        of_shifts: list[Tensor] = []
        for place in reversed(range(len(self.gains))):
            back = torch.bmm(back, self.weights[place + 1])
            back *= states[place + 1] > 0
            if self.running:
                back, gain, shift = normalise_backward(back, self.gains[place], found[place])
            else:
                gain, shift = (back * found[place].value).sum(1), back.sum(1)
                back = back * self.gains[place].unsqueeze(1)
            of_gains.insert(0, gain)
            of_shifts.insert(0, shift)
            of_weights.insert(0, torch.bmm(back.transpose(1, 2), states[place]))
        listed = [*of_weights, *of_gains, *of_shifts, of_bias]
        return listed, found if self.running else []

    def follow(self, found: Sequence[Normalised], momentum: float) -> None:
        """Move the running statistics by a batch's ghosts, one after the other."""
        self.running = [
            (
                running_after(mean, layer.mean, momentum),
                running_after(variance, layer.unbiased, momentum),
            )
            for (mean, variance), layer in zip(self.running, found, strict=True)
        ]

    def outputs(self, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Outputs (S, m, classes) in evaluation mode for x (S, m, d), with the running statistics
        or others."""
        used = self.running if statistics is None else statistics
        for place, (gain, shift) in enumerate(zip(self.gains, self.shifts, strict=True)):
            x = torch.bmm(x, self.weights[place].transpose(1, 2))
            if self.running:
                mean, variance = used[place]
                x = (x - mean.unsqueeze(1)) / (variance + EPS).sqrt().unsqueeze(1)
            x = (x * gain.unsqueeze(1)).add_(shift.unsqueeze(1)).clamp_min_(0.0)
        return torch.bmm(x, self.weights[-1].transpose(1, 2)) + self.bias.unsqueeze(1)

    def recomputed(self, x: Tensor) -> Statistics:
        """Statistics of the hidden layers over all of x (S, n, d), layer by layer."""
        found: Statistics = []
        if not self.running:
            return found
        for w, gain, shift in zip(self.weights, self.gains, self.shifts, strict=False):
            layer = normalise(torch.bmm(x, w.transpose(1, 2)), x.shape[1])
            found.append((layer.mean[:, 0], layer.variance[:, 0]))
            x = (layer.value * gain.unsqueeze(1)).add_(shift.unsqueeze(1)).clamp_min_(0.0)
        return found


def _plain(x: Tensor) -> Normalised:
    """A layer that is not normalised."""
    empty = x.new_empty(0)
    return Normalised(x, empty, empty, empty, x.shape[1])
