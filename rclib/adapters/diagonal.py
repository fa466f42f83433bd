"""Diagonals between frozen frames: W′ = base + s P diag(z) Q, and z (r,) is all that is trained.

left P (o, r) and right Q (r, i) are frozen. By where they come from:

- `LoLDU`: W = P₀ L diag(d) U with a permutation P₀, unit lower L, unit upper U (pivoted LU with
  the pivots d taken out of U). P = (P₀ L)_{:r}, Q = U_{:r}, z = d_{:r}; s = α/r.
  Shi et al. 2024 (arXiv 2410.13618) and their package minloldu.
- `SingularValues`: P = U_r, Q = V_rᵀ, z = σ_r (SVFit, Sun et al. 2024, arXiv 2409.05926).
- `RandomFrames`: drawn, with the lengths of LoLDU's columns and rows, or orthonormal.

As W′ - base is linear in z, s only rescales the rate, and where z starts does not matter to the
function as long as base is W - s P diag(z) Q. In the authors' package base is formed with d where z
starts at zeros, at ones or from a law of fixed scale, and these starts begin elsewhere than at W;
`LoLDU(..., repaired=False)` does so for every start.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.adapters.low_rank import orthonormal_rows
from rclib.adapters.method import Parts, ScaledTerm, generator_of, matrix
from rclib.checks.arguments import choice, flag

__all__ = [
    "LDU",
    "STARTS",
    "Diagonal",
    "LoLDU",
    "RandomFrames",
    "SingularValues",
    "ldu",
]

# Where z starts; m and σ are mean and standard deviation of the r pivots.
STARTS = (
    "lu",  # the pivots
    "uniform",  # on (-m/2, m/2)
    "normal",  # N(m, σ²)
    "constant",  # m
    "ones",
    "zeros",
    "standard normal",  # N(0, 1)
    "unit uniform",  # on (-1, 1)
)
ORDERS = ("first", "largest")
PARTS_OF_SVD = ("top", "bottom", "mispaired")
FRAMES = ("ldu", "orthonormal")


@dataclass(frozen=True, eq=False)
class LDU:
    """W = left diag(d) right, left (o, k) = P₀ L, d (k,), right (k, i) = U; k = min(o, i)."""

    left: Tensor
    d: Tensor
    right: Tensor


def ldu(weight: Tensor) -> LDU:
    """The factors of a matrix (o, i), float64, rows permuted by partial pivoting.

    Raises ValueError for a pivot of zero: then no unit upper factor exists.
    """
    weight = matrix(weight).double()
    permutation, lower, upper = torch.linalg.lu(weight)  # W = P L U, not Pᵀ W
    d = torch.diagonal(upper).clone()
    if bool((d == 0).any()):
        raise ValueError(f"weight must have no pivot of zero, got {int((d == 0).sum())}")
    return LDU(permutation @ lower, d, upper / d[:, None])


@dataclass(frozen=True)
class Diagonal(ScaledTerm):
    """What diagonal methods share."""

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the trained parts."""
        return ("z",)

    @property
    def kin(self) -> tuple[object, ...]:
        """Rank and scale."""
        return (Diagonal, self.rank, self.scale)

    @abstractmethod
    def frames(self, weight: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """left (o, r), right (r, i), z (r,) at the start, and the z that base is formed with."""

    def start(
        self, weight: Tensor, *, seed: int = 0, inputs: Tensor | None = None
    ) -> dict[str, Tensor]:
        """base, left, right, z."""
        weight = matrix(weight)
        self._fits(tuple(weight.shape))
        left, right, z, taken = (t.to(weight.dtype) for t in self.frames(weight, seed))
        parts = {"base": weight, "left": left, "right": right, "z": taken}
        return {**parts, "base": weight - self.term(parts), "z": z}

    def term(self, parts: Parts) -> Tensor:
        """s P diag(z) Q."""
        return self.scale * ((parts["left"] * parts["z"]) @ parts["right"])

    def apply(self, parts: Parts, x: Tensor) -> Tensor:
        """x baseᵀ + s ((x Qᵀ) z) Pᵀ."""
        inner = (x @ parts["right"].T) * parts["z"]
        return x @ parts["base"].T + self.scale * (inner @ parts["left"].T)

    def trained_count(self, rows: int, columns: int) -> int:
        """r."""
        self._fits((rows, columns))
        return self.rank

    def _fits(self, shape: tuple[int, ...]) -> None:
        if self.rank > min(shape):
            raise ValueError(f"rank must be at most {min(shape)} for {shape}, got {self.rank}")


@dataclass(frozen=True)
class LoLDU(Diagonal):
    """The diagonal of the LDU factors.

    z_start : one of `STARTS`. repaired : base is formed with z as it starts, and W′ = W; else
    with the pivots (see the module). order : "first" takes the factors as pivoting
    has them (the method), "largest" those of largest ‖p_j‖ |d_j| ‖u_j‖.
    """

    z_start: str = "lu"
    repaired: bool = False
    order: str = "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("z_start", self.z_start, STARTS)
        choice("order", self.order, ORDERS)
        flag("repaired", self.repaired)

    @property
    def preserves(self) -> bool:
        """Not with another start than the pivots in an unrepaired base."""
        return self.repaired or self.z_start == "lu"

    def frames(self, weight: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As the class says."""
        found = ldu(weight)
        places = torch.arange(self.rank)
        if self.order == "largest":
            size = found.left.norm(dim=0) * found.d.abs() * found.right.norm(dim=1)
            places = size.argsort(descending=True, stable=True)[: self.rank]
        d = found.d[places]
        z = self._z(d, seed)
        return found.left[:, places], found.right[places], z, z if self.repaired else d

    def _z(self, d: Tensor, seed: int) -> Tensor:
        generator = generator_of(seed)
        if self.z_start in ("uniform", "unit uniform"):
            drawn = torch.rand(len(d), generator=generator, dtype=d.dtype) - 0.5
            return drawn * (d.mean() if self.z_start == "uniform" else 2.0)
        if self.z_start in ("normal", "standard normal"):
            drawn = torch.randn(len(d), generator=generator, dtype=d.dtype)
            spread = d.std() if len(d) > 1 else d.new_zeros(())
            return d.mean() + spread * drawn if self.z_start == "normal" else drawn
        plain = {"zeros": 0.0, "ones": 1.0, "constant": float(d.mean())}
        return d.clone() if self.z_start == "lu" else torch.full_like(d, plain[self.z_start])


@dataclass(frozen=True)
class SingularValues(Diagonal):
    """r singular values.

    which : "top", "bottom" (the r smallest), or "mispaired": the top left vectors with the top
    right ones in reversed order, z = 0 and W untouched.
    """

    which: str = "top"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("which", self.which, PARTS_OF_SVD)

    def frames(self, weight: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As the class says."""
        u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
        places = torch.arange(self.rank)
        if self.which == "bottom":
            places = places + len(s) - self.rank
        left, right = u[:, places], vh[places]
        if self.which == "mispaired":
            zero = torch.zeros_like(s[: self.rank])
            return left, right.flip(0), zero, zero
        return left, right, s[places] / self.scale, s[places] / self.scale


@dataclass(frozen=True)
class RandomFrames(Diagonal):
    """Drawn frames, W′ = W at the start.

    frames_like : "ldu": normal entries, every column of left and row of right as long as that of
    LoLDU of the same rank, z = its pivots. "orthonormal": uniformly drawn frames, z = 0.
    """

    frames_like: str = "ldu"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("frames_like", self.frames_like, FRAMES)

    def frames(self, weight: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As the class says."""
        generator = generator_of(seed)
        rows, columns = weight.shape
        if self.frames_like == "orthonormal":
            left = orthonormal_rows(self.rank, rows, generator).T
            right = orthonormal_rows(self.rank, columns, generator)
            z = torch.zeros(self.rank, dtype=left.dtype)
            return left, right, z, z
        found = ldu(weight)
        left = torch.randn(rows, self.rank, generator=generator, dtype=torch.float64)
        right = torch.randn(self.rank, columns, generator=generator, dtype=torch.float64)
        left = left * (found.left[:, : self.rank].norm(dim=0) / left.norm(dim=0))
        lengths = found.right[: self.rank].norm(dim=1) / right.norm(dim=1)
        d = found.d[: self.rank]
        return left, right * lengths[:, None], d, d
