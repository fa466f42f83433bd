"""Weights that are signed powers of two, and the latent numbers by which they are trained.

    code = DenseShift(bits=3)                        # ±1, ±2, ±4, ±8
    latents = code.start((16, 64), 1e-3, generator)  # {"sign": ..., "t1": ..., "t2": ..., ...}
    W = code.value(latents)                          # (16, 64)
    code.pull(latents, gradient)                     # gradients of the latents from that of W

A product with ±2^s adds s to the exponent of a floating-point number and sets its sign. With
H(x) = 1 for x ≥ 0 and 0 below, and sgn(x) = 2 H(x) - 1, so that zero counts as positive:

- `DenseShift`, b bits: w = σ 2^s, σ = sgn(sign), and s the length of the run of t's that are not
  negative and end with the last of n = 2^(b-1) - 1: s_0 = 0, s_i = (s_{i-1} + 1) H(t_i), s = s_n.
  All 2^b words of b bits are used, and zero is none of the values.
- `ShiftWithZero`, b bits: w = σ H(value) 2^s with n = 2^(b-1) - 2 of the t's, 2^b - 1 values.
- `PowerQuantiser`, b bits: one latent w, rounded to sgn(w) 2^k with k the whole number next to
  log2|w| in -(2^(b-1) - 1) ... 0; with zero, the two smallest values are zero instead.
- `Float`: the latent itself.

Derivatives of H and sgn are taken to be one everywhere (straight-through), and so is that of
rounding. Of 2^s the derivative is ln(2) 2^s ("exponential"), or w is taken to be σ √(s + 1) for the
derivatives alone ("root"), which grow less with s. For latents that are symmetric about zero and
independent, s = k has probability 2^-(k+1), and the largest s as much as the one before it.

Sources: Li et al. 2022, "DenseShift" (arXiv 2208.09708) and the authors' layer of 3 bits, of which
the run of t's and the root are; Li et al. 2021, "S3" (arXiv 2107.03453); Elhoushi et al. 2019,
"DeepShift" (arXiv 1905.13298). What 1, 2 and 4 bits look like follows from 3 bits here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.checks.arguments import choice, count, number

__all__ = [
    "SURROGATES",
    "Code",
    "DenseShift",
    "Float",
    "Latents",
    "PowerQuantiser",
    "ShiftWithZero",
    "exponent_counts",
]

Latents = Mapping[str, Tensor]
SURROGATES = ("root", "exponential")
MOST_BITS = 4  # 5 bits have 16 latents and weights of 2^15


class Code(ABC):
    """How a weight is read from its latents, and what their gradients are."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Of the latents, each of the weight's shape. The sign of the first one is the weight's."""

    @property
    @abstractmethod
    def values(self) -> tuple[float, ...]:
        """All values that a weight can have, in order; none for real numbers."""

    @abstractmethod
    def value(self, latents: Latents) -> Tensor:
        """The weight."""

    @abstractmethod
    def pull(self, latents: Latents, gradient: Tensor) -> dict[str, Tensor]:
        """Gradients of the latents, from the gradient of the weight."""

    def start(
        self, shape: tuple[int, ...], std: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Latents from a normal law of mean zero. Raises ValueError for std that is not positive
        and finite."""
        if not 0 < number("std", std) < math.inf:
            raise ValueError(f"std must be positive and finite, got {std}")
        return {name: std * torch.randn(shape, generator=generator) for name in self.names}

    def positive(self, latents: Latents) -> Tensor:
        """Where the sign of the weight is +1; of one that is zero, where it would be."""
        found: Tensor = latents[self.names[0]] >= 0
        return found


@dataclass(frozen=True)
class Float(Code):
    """Real weights."""

    @property
    def names(self) -> tuple[str, ...]:
        """As `Code` says."""
        return ("w",)

    @property
    def values(self) -> tuple[float, ...]:
        """As `Code` says."""
        return ()

    def value(self, latents: Latents) -> Tensor:
        """As `Code` says."""
        return latents["w"]

    def pull(self, latents: Latents, gradient: Tensor) -> dict[str, Tensor]:
        """As `Code` says."""
        return {"w": gradient}


def _run(ts: list[Tensor], like: Tensor) -> list[Tensor]:
    """s_0 ... s_n of the recursion."""
    found = [torch.zeros_like(like)]
    for t in ts:
        found.append(torch.where(t >= 0, found[-1] + 1.0, 0.0))
    return found


def _power(ts: list[Tensor], like: Tensor) -> Tensor:
    """2^s without a power: 2^(s+1) = 2 · 2^s, and 1 where the run ends."""
    found = torch.ones_like(like)
    for t in ts:
        found = torch.where(t >= 0, 2.0 * found, 1.0)
    return found


def _pull_run(ts: list[Tensor], run: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """Gradients of t_1 ... t_n from that of s: ∂s/∂t_i = (s_{i-1} + 1) Π_{j>i} H(t_j)."""
    found: list[Tensor] = []
    for t, before in zip(reversed(ts), reversed(run[:-1]), strict=True):
        found.insert(0, gradient * (before + 1.0))
        gradient = torch.where(t >= 0, gradient, 0.0)
    return found


def _checked_bits(bits: int, least: int) -> None:
    if not least <= count("bits", bits) <= MOST_BITS:
        raise ValueError(f"bits must lie in {least} ... {MOST_BITS}, got {bits}")


@dataclass(frozen=True)
class DenseShift(Code):
    """Zero-free: ±2^s, s = 0 ... 2^(bits-1) - 1, times a fixed `scale`.

    surrogate : of `SURROGATES`. Raises ValueError for bits outside 1 ... 4, another surrogate and
    a scale that is not positive and finite.
    """

    bits: int
    surrogate: str = "root"
    scale: float = 1.0

    def __post_init__(self) -> None:
        _checked_bits(self.bits, 1)
        choice("surrogate", self.surrogate, SURROGATES)
        if not 0 < number("scale", self.scale) < math.inf:
            raise ValueError(f"scale must be positive and finite, got {self.scale}")

    @property
    def names(self) -> tuple[str, ...]:
        """As `Code` says."""
        return ("sign", *self._ts)

    @property
    def _ts(self) -> list[str]:
        return [f"t{i}" for i in range(1, 2 ** (self.bits - 1))]

    @property
    def values(self) -> tuple[float, ...]:
        """As `Code` says."""
        sizes = [self.scale * 2.0**s for s in range(2 ** (self.bits - 1))]
        return tuple(sorted([-size for size in sizes] + sizes))

    def value(self, latents: Latents) -> Tensor:
        """As `Code` says."""
        size = _power([latents[t] for t in self._ts], latents["sign"])
        return torch.where(latents["sign"] >= 0, size, -size) * self.scale

    def pull(self, latents: Latents, gradient: Tensor) -> dict[str, Tensor]:
        """As `Code` says."""
        ts = [latents[t] for t in self._ts]
        run, gradient = _run(ts, gradient), gradient * self.scale
        by_sign, by_shift = _pull_size(ts, run, gradient, self.surrogate)
        by_shift = torch.where(latents["sign"] >= 0, by_shift, -by_shift)
        return {"sign": by_sign, **dict(zip(self._ts, _pull_run(ts, run, by_shift), strict=True))}


def _pull_size(
    ts: list[Tensor], run: list[Tensor], gradient: Tensor, surrogate: str
) -> tuple[Tensor, Tensor]:
    """Gradients of σ and, for σ = 1, of s."""
    if surrogate == "root":
        root = (run[-1] + 1.0).sqrt()
        return gradient * root, gradient / (2.0 * root)
    by_sign = gradient * _power(ts, gradient)
    return by_sign, by_sign * math.log(2.0)


@dataclass(frozen=True)
class ShiftWithZero(Code):
    """Zero and ±2^s, s = 0 ... 2^(bits-1) - 2, with a penalty α Σ max(-value, 0) on zeros.

    The gradient of the penalty is part of `pull`, for a gradient of the loss itself. Raises
    ValueError for bits outside 2 ... 4, another surrogate and a penalty that is negative or
    infinite.
    """

    bits: int
    surrogate: str = "exponential"
    penalty: float = 1e-5

    def __post_init__(self) -> None:
        _checked_bits(self.bits, 2)
        choice("surrogate", self.surrogate, SURROGATES)
        if not 0 <= number("penalty", self.penalty) < math.inf:
            raise ValueError(f"penalty must be finite and not negative, got {self.penalty}")

    @property
    def names(self) -> tuple[str, ...]:
        """As `Code` says."""
        return ("sign", "value", *self._ts)

    @property
    def _ts(self) -> list[str]:
        return [f"t{i}" for i in range(1, 2 ** (self.bits - 1) - 1)]

    @property
    def values(self) -> tuple[float, ...]:
        """As `Code` says."""
        sizes = [2.0**s for s in range(2 ** (self.bits - 1) - 1)]
        return tuple(sorted([0.0, *(-size for size in sizes), *sizes]))

    def value(self, latents: Latents) -> Tensor:
        """As `Code` says."""
        size = _power([latents[t] for t in self._ts], latents["sign"])
        signed = torch.where(latents["sign"] >= 0, size, -size)
        return torch.where(latents["value"] >= 0, signed, 0.0)

    def pull(self, latents: Latents, gradient: Tensor) -> dict[str, Tensor]:
        """As `Code` says."""
        ts, there = [latents[t] for t in self._ts], latents["value"] >= 0
        run = _run(ts, gradient)
        by_sign, by_shift = _pull_size(ts, run, gradient, self.surrogate)
        signed = torch.where(latents["sign"] >= 0, by_sign, -by_sign)
        by_value = torch.where(there, signed, signed - self.penalty)
        by_sign, by_shift = (torch.where(there, part, 0.0) for part in (by_sign, by_shift))
        by_shift = torch.where(latents["sign"] >= 0, by_shift, -by_shift)
        pulled = dict(zip(self._ts, _pull_run(ts, run, by_shift), strict=True))
        return {"sign": by_sign, "value": by_value, **pulled}


@dataclass(frozen=True)
class PowerQuantiser(Code):
    """One latent, rounded to a power of two of 1 ... 2^-(2^(bits-1) - 1); `zero`: the smallest of
    them is zero instead. Raises ValueError for bits outside 1 ... 4."""

    bits: int
    zero: bool = False

    def __post_init__(self) -> None:
        _checked_bits(self.bits, 1)

    @property
    def names(self) -> tuple[str, ...]:
        """As `Code` says."""
        return ("w",)

    @property
    def _exponents(self) -> range:
        """From the smallest to 0."""
        return range(1 - 2 ** (self.bits - 1), 1)

    @property
    def values(self) -> tuple[float, ...]:
        """As `Code` says."""
        sizes = [2.0**k for k in self._exponents]
        if self.zero:
            sizes[0] = 0.0
        return tuple(sorted({-size for size in sizes} | set(sizes)))

    def value(self, latents: Latents) -> Tensor:
        """As `Code` says."""
        w = latents["w"]
        first, *others = self._exponents
        # log2|w| ≥ k - 1/2 without a logarithm, which rounds.
        size, found = w.abs(), torch.full_like(w, 0.0 if self.zero else 2.0**first)
        for k in others:
            found = torch.where(size >= 2.0 ** (k - 0.5), 2.0**k, found)
        return torch.where(w >= 0, found, -found)

    def pull(self, latents: Latents, gradient: Tensor) -> dict[str, Tensor]:
        """As `Code` says."""
        return {"w": gradient}


def exponent_counts(bits: int) -> dict[int, int]:
    """s -> how many of the 2^n sign patterns of t_1 ... t_n give it, by enumeration.

    Raises ValueError for bits outside 1 ... 4.
    """
    _checked_bits(bits, 1)
    n = 2 ** (bits - 1) - 1
    found = dict.fromkeys(range(n + 1), 0)
    for word in range(2**n):
        s = 0
        for i in range(n):
            s = (s + 1) * (word >> i & 1)
        found[s] += 1
    return found
