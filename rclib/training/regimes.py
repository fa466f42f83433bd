"""Regimes of large-batch training: what changes with the batch, and what stays.

From a regime with batches of B a regime with batches of k B is made by up to three rules,

    root rate    η √k, which leaves the covariance of a step, proportional to η²/B, as it was
    ghosts       normalisation over parts of B rows (`rclib.nets.ghost_norm`)
    longer       as many updates in every phase of the rate as before, so k times the samples;
                 without it the epochs stay, and the updates are k times fewer

Source: Hoffer, Hubara and Soudry, "Train longer, generalize better" (arXiv 1705.08741): learning
rate, GBN and "regime adaptation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.checks.arguments import count, number
from rclib.checks.arrays import Floats

__all__ = ["Regime", "clip_factors"]

DROP = 0.1


@dataclass(frozen=True)
class Regime:
    """How long, how fast and in which batches a network trains.

    batch : rows of an update. ghost : rows that are normalised together. rate : η of the first
    phase. updates : of the whole. drops : updates after which the rate is a tenth of what it was.

    Raises ValueError naming what is out of range or in no order.
    """

    batch: int
    ghost: int
    rate: float
    updates: int
    drops: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count("batch", self.batch, 2), count("updates", self.updates), count("ghost", self.ghost, 2)
        if self.batch % self.ghost:
            raise ValueError(f"ghost must divide the batch of {self.batch}, got {self.ghost}")
        if not 0 < number("rate", self.rate) < np.inf:
            raise ValueError(f"rate must be positive and finite, got {self.rate}")
        ordered = [0, *self.drops, self.updates]
        if any(count("drops", d) >= self.updates for d in self.drops) or ordered != sorted(
            set(ordered)
        ):
            raise ValueError(f"drops must grow below {self.updates} updates, got {self.drops}")

    @classmethod
    def of_epochs(
        cls, *, batch: int, rate: float, epochs: float, n: int, drops: Sequence[float] = (0.5, 0.75)
    ) -> Regime:
        """A regime of plain batches over n samples; drops : shares of the updates.

        Raises ValueError unless the batch divides n and epochs and drops end at whole updates.
        """
        if n % count("batch", batch, 2):
            raise ValueError(f"batch must divide the {n} samples, got {batch}")
        updates = _whole("epochs", epochs * (n // batch))
        return cls(batch, batch, rate, updates, tuple(_whole("drops", d * updates) for d in drops))

    def larger(
        self, k: int, *, root: bool = False, ghosts: bool = False, longer: bool = False
    ) -> Regime:
        """The regime with batches k times as large; the rules as above.

        Raises ValueError if updates or drops are not k times a whole number and stay in epochs.
        """
        k = count("k", k)
        made = replace(
            self,
            batch=k * self.batch,
            ghost=self.ghost if ghosts else k * self.batch,
            rate=self.rate * (k**0.5 if root else 1.0),
        )
        if longer:
            return made
        drops = tuple(_whole("drops", d / k) for d in self.drops)
        return replace(made, updates=_whole("updates", self.updates / k), drops=drops)

    @property
    def samples(self) -> int:
        """Samples seen, with repetitions."""
        return self.updates * self.batch

    def epochs(self, n: int) -> float:
        """Passes through n samples."""
        return self.samples / count("n", n)

    def factors(self) -> Floats:
        """Rate of every update over the first one's, (updates,)."""
        steps = np.arange(self.updates)[:, None]
        return np.asarray(DROP ** (steps >= np.array(self.drops, dtype=int)).sum(1).astype(float))

    def plain(self) -> dict[str, Any]:
        """Its numbers as plain JSON, for a stored run."""
        return {**vars(self), "drops": list(self.drops)}


def _whole(name: str, value: float) -> int:
    found = round(value)
    if found < 1 or abs(found - value) > 1e-6:
        raise ValueError(f"{name} must end at a whole number of updates, got {value:g}")
    return found


def clip_factors(gradients: Sequence[Tensor], most: float) -> Tensor:
    """Factors (S,) at most one that bring every member's gradient to a norm of `most` at most.

    gradients : (S, ...) each; the norm is that over all of a member's tensors, as in
    `torch.nn.utils.clip_grad_norm_`. Raises ValueError for a bound that is not positive.
    """
    if not number("most", most) > 0:
        raise ValueError(f"most must be positive, got {most}")
    squares = [g.flatten(1).square().sum(1) for g in gradients]
    norm = torch.stack(squares).sum(0).sqrt()
    return (most / (norm + 1e-6)).clamp_max(1.0)
