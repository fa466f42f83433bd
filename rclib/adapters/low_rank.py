"""Low-rank terms W′ = base + s B A, A (r, i), B (o, r), that differ in how they start.

| method | A | B | base | s |
|---|---|---|---|---|
| `LoRA` | uniform on ± 1/√i | 0 | W | α/r |
| `LoRA(..., stabilised=True)`: rsLoRA | the same | 0 | W | α/√r |
| `PiSSA` | √Σ_r V_rᵀ /√s | U_r √Σ_r /√s | W - s B A | α/r |
| `OLoRA` | R_r of W = Q R | Q_r | W - s B A | α/r |
| `EVA` (`rclib.adapters.activations`) | main directions of inputs | 0 | W | α/r |

Sources: Hu et al. 2021 (arXiv 2106.09685), Kalajdzievski 2023 (2312.03732), Meng et al. 2024
(2404.02948), Büyükakyüz 2024 (2406.01775); EVA: `rclib.adapters.activations`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.adapters.method import Parts, ScaledTerm, generator_of, matrix
from rclib.checks.arguments import brief

__all__ = ["LoRA", "LowRank", "OLoRA", "PiSSA", "checked_inputs", "orthonormal_rows"]


@dataclass(frozen=True)
class LowRank(ScaledTerm):
    """What low-rank methods share."""

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the trained parts."""
        return ("A", "B")

    @property
    def kin(self) -> tuple[object, ...]:
        """Rank and scale."""
        return (LowRank, self.rank, self.scale)

    def term(self, parts: Parts) -> Tensor:
        """s B A."""
        return self.scale * (parts["B"] @ parts["A"])

    def apply(self, parts: Parts, x: Tensor) -> Tensor:
        """x baseᵀ + s (x Aᵀ) Bᵀ."""
        a, b = parts["A"], parts["B"]
        if self.rank == 1:  # a product with one column has other bits in another stack
            return x @ parts["base"].T + self.scale * ((x * a).sum(-1, keepdim=True) * b.T)
        return x @ parts["base"].T + self.scale * ((x @ a.T) @ b.T)

    def trained_count(self, rows: int, columns: int) -> int:
        """r (rows + columns)."""
        self._fits((rows, columns))
        return self.rank * (rows + columns)

    def _fits(self, shape: tuple[int, ...]) -> None:
        if self.rank > min(shape):
            raise ValueError(f"rank must be at most {min(shape)} for {shape}, got {self.rank}")

    def _checked(self, weight: Tensor) -> Tensor:
        weight = matrix(weight)
        self._fits(tuple(weight.shape))
        return weight

    def _beside(self, weight: Tensor, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        """Parts whose base is what A and B leave of W, by subtraction: rounding cancels."""
        parts = {"base": weight, "A": a.to(weight.dtype), "B": b.to(weight.dtype)}
        return {**parts, "base": weight - self.term(parts)}

    def _idle(self, weight: Tensor, a: Tensor) -> dict[str, Tensor]:
        """Parts with B = 0."""
        b = weight.new_zeros(weight.shape[0], self.rank)
        return {"base": weight.clone(), "A": a.to(weight.dtype), "B": b}


@dataclass(frozen=True)
class LoRA(LowRank):
    """A drawn, B = 0.

    stabilised : rsLoRA's s = α/√r (α = r where none is given: s = √r). unit : rows of A with
    norm 1 in place of 1/√3 on average. orthonormal : rows of A are drawn as an orthonormal frame.
    """

    stabilised: bool = False
    unit: bool = False
    orthonormal: bool = False

    @property
    def scale(self) -> float:
        """s."""
        if not self.stabilised:
            return super().scale
        return (self.rank if self.alpha is None else self.alpha) / math.sqrt(self.rank)

    def start(
        self, weight: Tensor, *, seed: int = 0, inputs: Tensor | None = None
    ) -> dict[str, Tensor]:
        """As in the table above."""
        weight = self._checked(weight)
        generator, columns = generator_of(seed), weight.shape[1]
        if self.orthonormal:
            return self._idle(weight, orthonormal_rows(self.rank, columns, generator))
        a = (2 * torch.rand(self.rank, columns, generator=generator, dtype=torch.float64) - 1) / (
            math.sqrt(columns)
        )
        return self._idle(weight, a / a.norm(dim=1, keepdim=True) if self.unit else a)


def orthonormal_rows(rank: int, columns: int, generator: torch.Generator) -> Tensor:
    """(rank, columns) float64, a frame drawn uniformly. ValueError for more rows than columns."""
    if rank > columns:
        raise ValueError(f"rank must be at most columns = {columns}, got {rank}")
    q, r = torch.linalg.qr(torch.randn(columns, rank, generator=generator, dtype=torch.float64))
    frame: Tensor = q * torch.sign(torch.diagonal(r))
    return frame.T.contiguous()


@dataclass(frozen=True)
class PiSSA(LowRank):
    """Starts at the r largest singular pairs, split evenly between B and A; base is the rest."""

    def start(
        self, weight: Tensor, *, seed: int = 0, inputs: Tensor | None = None
    ) -> dict[str, Tensor]:
        """As in the table above."""
        weight = self._checked(weight)
        u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
        root = (s[: self.rank] / self.scale).sqrt()
        return self._beside(weight, root[:, None] * vh[: self.rank], u[:, : self.rank] * root)


@dataclass(frozen=True)
class OLoRA(LowRank):
    """Starts at the first r columns of Q and rows of R of W = Q R; base is the rest."""

    def start(
        self, weight: Tensor, *, seed: int = 0, inputs: Tensor | None = None
    ) -> dict[str, Tensor]:
        """As in the table above."""
        weight = self._checked(weight)
        q, r = torch.linalg.qr(weight.double())
        return self._beside(weight, r[: self.rank], q[:, : self.rank])


def checked_inputs(weight: Tensor, inputs: Tensor | None) -> Tensor:
    """Inputs (n, i) of a layer, float64. Raises ValueError for what is none."""
    if not isinstance(inputs, Tensor) or inputs.ndim != 2 or inputs.shape[1] != weight.shape[1]:
        raise ValueError(f"inputs must have shape (n, {weight.shape[1]}), got {brief(inputs)}")
    return inputs.detach().double()
