"""Blocks that act through the frozen weight: Bone in all its forms.

W is cut into blocks W_ab (r, r), a = 1 ... o/r, b = 1 ... i/r. Trained is one block B_a a block row
(or B_b a block column), zero at the start, and with a guide G, which is W itself or a frozen matrix
of its shape,

    W′_ab = W_ab + g G_ab B_a + s B_a,       g, s: 0 or 1.

| form | g | s | source |
|---|---|---|---|
| "guided" | 1 | 1 | Bone of arXiv 2409.15371 v1 to v3, later "Bat" |
| "sum" | 0 | 1 | Bone from v5 on, later MiSS: B_a summed over blocks of x, rank at most r |
| "product" | 1 | 0 | the product alone |
| "two" | 1 | 1 | a block C_a for the sum beside B_a for the product |

B multiplies from the right: it mixes the inputs within a block. Kang 2024 (arXiv 2409.15371) and
JL-er/Bone; the numbers are those of peft's MissConfig, "bat" ("guided") and True ("sum").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.adapters.method import Method, Parts, generator_of, matrix
from rclib.checks.arguments import choice, count

__all__ = ["FORMS", "Bone", "blocks", "whole"]

FORMS = ("guided", "sum", "product", "two")
GUIDES = ("own", "permuted", "normal")
INDEXES = ("rows", "columns")


def blocks(weight: Tensor, size: int) -> Tensor:
    """(o, i) -> (o/r, i/r, r, r) for r = size."""
    rows, columns = weight.shape
    return weight.reshape(rows // size, size, columns // size, size).transpose(1, 2)


def whole(parts: Tensor) -> Tensor:
    """The way back: (o/r, i/r, r, r) -> (o, i)."""
    a, b, size, _ = parts.shape
    return parts.transpose(1, 2).reshape(a * size, b * size)


@dataclass(frozen=True)
class Bone(Method):
    """Block affine adaptation.

    size : r, divides o and i. form : see above. guide : "own" (W), "permuted" (its entries in
    random places) or "normal" (normal entries of its mean and variance); W itself is as it was.
    index : "rows" for a block B_a of every block row, "columns" for B_b of every block column.

    Raises ValueError naming the argument.
    """

    size: int
    form: str = "guided"
    guide: str = "own"
    index: str = "rows"

    def __post_init__(self) -> None:
        count("size", self.size)
        choice("form", self.form, FORMS)
        choice("guide", self.guide, GUIDES)
        choice("index", self.index, INDEXES)

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the trained parts."""
        return ("B", "C") if self.form == "two" else ("B",)

    @property
    def kin(self) -> tuple[object, ...]:
        """Everything but where the guide comes from, if it is not W itself."""
        return (Bone, self.size, self.form, self.index, self.guide == "own")

    def start(
        self, weight: Tensor, *, seed: int = 0, inputs: Tensor | None = None
    ) -> dict[str, Tensor]:
        """base, B, for form "two" C, and for other guides than W itself "guide"."""
        weight = matrix(weight)
        number = self._blocks(tuple(weight.shape))
        zero = weight.new_zeros(number, self.size, self.size)
        parts = {"base": weight.clone(), "B": zero}
        if self.form == "two":
            parts["C"] = zero.clone()
        if self.guide != "own" and self.form != "sum":
            parts["guide"] = self._other_guide(weight, seed)
        return parts

    def _blocks(self, shape: tuple[int, ...]) -> int:
        if any(n % self.size for n in shape):
            raise ValueError(f"size must divide both sides of {shape}, got {self.size}")
        return shape[0 if self.index == "rows" else 1] // self.size

    def _other_guide(self, weight: Tensor, seed: int) -> Tensor:
        generator = generator_of(seed)
        if self.guide == "permuted":
            places = torch.randperm(weight.numel(), generator=generator)
            return weight.flatten()[places].view_as(weight)
        drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        wide = weight.double()
        return (wide.mean() + wide.std() * drawn).to(weight.dtype)

    def merge(self, parts: Parts) -> Tensor:
        """W′."""
        base = parts["base"]
        change = self._product(parts, parts.get("guide", base))
        return base + change + self._sum(parts, base)

    def unmerge(self, merged: Tensor, parts: Parts) -> Tensor:
        """W: through (1 + B_a)^{-1} where W is its own guide.

        Raises torch.linalg.LinAlgError if 1 + B_a has no inverse.
        """
        rest = merged - self._sum(parts, merged)
        if self.form == "sum":
            return rest
        if "guide" in parts:
            return rest - self._product(parts, parts["guide"])
        own = parts["B"] + torch.eye(self.size, dtype=merged.dtype, device=merged.device)
        return whole(torch.linalg.solve(self._placed(own), blocks(rest, self.size), left=False))

    def apply(self, parts: Parts, x: Tensor) -> Tensor:
        """x W′ᵀ; the sum alone through (o, r), else the merged matrix, which is as cheap."""
        if self.form == "sum" and self.index == "rows":
            summed = x.reshape(len(x), -1, self.size).sum(1)
            return x @ parts["base"].T + summed @ parts["B"].reshape(-1, self.size).T
        return x @ self.merge(parts).T

    def trained_count(self, rows: int, columns: int) -> int:
        """Blocks of a side times r², twice for form "two"."""
        return self._blocks((rows, columns)) * self.size**2 * len(self.trained)

    def _placed(self, block: Tensor) -> Tensor:
        """Blocks (m, r, r) with an axis for the index that they are repeated along."""
        return block[:, None] if self.index == "rows" else block[None]

    def _product(self, parts: Parts, guide: Tensor) -> Tensor:
        if self.form == "sum":
            return torch.zeros_like(guide)
        rows, columns = guide.shape
        r, own = self.size, parts["B"]
        if self.index == "rows":  # one product a block row: its blocks stand one below the other
            tall = blocks(guide, r).reshape(rows // r, columns, r) @ own
            return whole(tall.reshape(rows // r, columns // r, r, r))
        tall = blocks(guide, r).transpose(0, 1).reshape(columns // r, rows, r) @ own
        return whole(tall.reshape(columns // r, rows // r, r, r).transpose(0, 1))

    def _sum(self, parts: Parts, like: Tensor) -> Tensor:
        if self.form == "product":
            return torch.zeros_like(like)
        rows, columns = like.shape
        block = self._placed(parts["C" if self.form == "two" else "B"])
        return whole(block.expand(rows // self.size, columns // self.size, self.size, self.size))
