"""One interface for all methods that adapt a matrix: what is frozen, what is trained, the way back.

A `Method` takes a pre-trained matrix W (o, i) apart into named parts. Those of `trained` are
trained, the others stay; "base" (o, i) is always there, and all methods compute

    y = W′ x,    W′ = merge(parts),    base = unmerge(W′, parts).

    method = LoRA(8)
    parts = method.start(weight, seed=0)         # {"base": (o, i), "A": (8, i), "B": (o, 8)}
    method.merge(parts)                          # W′, here W: the start is the identity
    method.apply(parts, x)                       # x W′ᵀ without forming W′
    method.trained_count(o, i)                   # 8 (o + i)

`rclib.adapters.wrap` puts methods on the matrices of a stack of networks, each member of which
then has parts of its own; merge and apply are plain functions of tensors, and work under
`torch.vmap` and autograd.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.checks.arguments import brief, count, number, seed_of

__all__ = ["AddedTerm", "Full", "Linear", "Method", "Parts", "ScaledTerm", "generator_of", "matrix"]

Parts = Mapping[str, Tensor]


def matrix(weight: Tensor) -> Tensor:
    """The weight, detached. Raises ValueError unless it is a floating matrix of finite numbers."""
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError(f"weight must be a floating matrix (o, i), got {brief(weight)}")
    if min(weight.shape) == 0 or not bool(weight.isfinite().all()):
        raise ValueError(f"weight must hold finite numbers, got shape {tuple(weight.shape)}")
    return weight.detach()


def generator_of(seed: int) -> torch.Generator:
    """A generator of a seed. Raises ValueError for what is no seed."""
    return torch.Generator().manual_seed(seed_of("seed", seed))


class Method(ABC):
    """How a matrix is adapted."""

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the trained parts."""
        return ()

    @property
    def preserves(self) -> bool:
        """Whether merge(start(W)) is W but for rounding, so that a network starts as it was."""
        return True

    @property
    def kin(self) -> tuple[object, ...]:
        """Methods of equal kin merge and apply parts in the same way and differ in how they start:
        members of one stack may have either."""
        return (self,)

    @abstractmethod
    def start(
        self, weight: Tensor, *, seed: int = 0, inputs: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The parts of a matrix (o, i) at the start, in its dtype.

        seed : of what is drawn, if anything is. inputs : (n, i), what the layer gets on data of
        the new task; for methods that look at it.

        Raises ValueError naming the argument for a matrix that the method cannot take.
        """

    @abstractmethod
    def merge(self, parts: Parts) -> Tensor:
        """W′ (o, i), the one matrix that does what the parts do."""

    @abstractmethod
    def unmerge(self, merged: Tensor, parts: Parts) -> Tensor:
        """base (o, i), from W′ and the parts beside it."""

    @abstractmethod
    def apply(self, parts: Parts, x: Tensor) -> Tensor:
        """x W′ᵀ: (n, i) -> (n, o)."""

    @abstractmethod
    def trained_count(self, rows: int, columns: int) -> int:
        """Trained numbers of a matrix (rows, columns)."""


class AddedTerm(Method):
    """W′ = base + term: the methods whose change of W does not depend on base."""

    @abstractmethod
    def term(self, parts: Parts) -> Tensor:
        """(o, i), what is added to base."""

    def merge(self, parts: Parts) -> Tensor:
        """base + term."""
        return parts["base"] + self.term(parts)

    def unmerge(self, merged: Tensor, parts: Parts) -> Tensor:
        """merged - term."""
        return merged - self.term(parts)

    def apply(self, parts: Parts, x: Tensor) -> Tensor:
        """x (base + term)ᵀ; methods with a factored term do better."""
        return x @ self.merge(parts).T


@dataclass(frozen=True)
class ScaledTerm(AddedTerm):
    """W′ = base + s P ... Q of r directions.

    rank : r, at most min(o, i). alpha : α of s = α/r; None for α = r, s = 1.

    Raises ValueError naming the argument.
    """

    rank: int
    alpha: float | None = None

    def __post_init__(self) -> None:
        count("rank", self.rank)
        if self.alpha is not None and not 0 < number("alpha", self.alpha) < math.inf:
            raise ValueError(f"alpha must be positive and finite, got {self.alpha!r}")

    @property
    def scale(self) -> float:
        """s."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


@dataclass(frozen=True)
class Full(AddedTerm):
    """Full fine-tuning: all of W, as base = W and "delta" = 0 that is added."""

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the trained parts."""
        return ("delta",)

    def start(
        self, weight: Tensor, *, seed: int = 0, inputs: Tensor | None = None
    ) -> dict[str, Tensor]:
        """W and zeros."""
        base = matrix(weight).clone()
        return {"base": base, "delta": torch.zeros_like(base)}

    def term(self, parts: Parts) -> Tensor:
        """delta."""
        return parts["delta"]

    def trained_count(self, rows: int, columns: int) -> int:
        """rows · columns."""
        return rows * columns


@dataclass(frozen=True)
class Linear(AddedTerm):
    """The matrix stays as it is: with a trained head alone, a linear probe."""

    def start(
        self, weight: Tensor, *, seed: int = 0, inputs: Tensor | None = None
    ) -> dict[str, Tensor]:
        """W alone."""
        return {"base": matrix(weight).clone()}

    def term(self, parts: Parts) -> Tensor:
        """Zeros."""
        return torch.zeros_like(parts["base"])

    def apply(self, parts: Parts, x: Tensor) -> Tensor:
        """x Wᵀ."""
        return x @ parts["base"].T

    def trained_count(self, rows: int, columns: int) -> int:
        """0."""
        return 0
