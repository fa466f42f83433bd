"""Where in a frozen matrix an update is: among its singular directions, in row and column means.

W (o, i) has complete orthonormal sets of left directions u_a (o,) and right directions v_b (i,),
ordered by singular value, those of singular value zero last. An update D has the energy

    e_ab = (u_aᵀ D v_b)² / ‖D‖²,    Σ_ab e_ab = 1,

which independent entries spread evenly: E e_ab = 1 / (o i). Blocks of equally many directions on
either side (`block_energy`) are compared with 1 / blocks².

The energy in row means is that of the best matrix with equal entries in every row,
‖D 1/√i‖² / ‖D‖²; independent entries have 1 / i there, and 1 / o in column means.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.checks.arguments import brief, count

__all__ = [
    "Directions",
    "block_energy",
    "diagonal_energy",
    "directions",
    "mean_energies",
    "place_distance",
    "row_energy",
    "spike_count",
]


@dataclass(frozen=True, eq=False)
class Directions:
    """left (o, o) and right (i, i): columns are the directions of W; values (min(o, i),)."""

    left: Tensor
    values: Tensor
    right: Tensor


def _matrix(name: str, value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 2 or not value.is_floating_point():
        raise ValueError(f"{name} must be a floating matrix, got {brief(value)}")
    if min(value.shape) == 0 or not bool(value.isfinite().all()):
        raise ValueError(f"{name} must hold finite numbers, got shape {tuple(value.shape)}")
    return value.detach().double()


def _update(value: Tensor) -> tuple[Tensor, Tensor]:
    """The update and ‖D‖². Raises ValueError for zeros."""
    update = _matrix("update", value)
    total = update.square().sum()
    if not float(total) > 0:
        raise ValueError("update must not be zero: zeros are nowhere")
    return update, total


def directions(weight: Tensor) -> Directions:
    """All directions of W (o, i), float64. Raises ValueError for what is no finite matrix."""
    u, values, vh = torch.linalg.svd(_matrix("weight", weight), full_matrices=False)
    return Directions(_completed(u), values, _completed(vh.mT))


def _completed(columns: Tensor) -> Tensor:
    """Orthonormal columns (n, k) and n - k more, to a basis."""
    n, k = columns.shape
    if n == k:
        return columns
    whole = torch.linalg.qr(columns, mode="complete")[0]
    return torch.cat([columns, whole[:, k:]], 1)


def _in(update: Tensor, base: Directions) -> Tensor:
    if update.shape != (len(base.left), len(base.right)):
        raise ValueError(
            f"update must have shape {(len(base.left), len(base.right))}, got {tuple(update.shape)}"
        )
    return base.left.mT @ update @ base.right


def block_energy(update: Tensor, base: Directions, blocks: int) -> Tensor:
    """Energy of D in blocks of directions (blocks, blocks), float64; rows: left, columns: right.

    The first block holds the directions of the largest singular values; every block holds equally
    many, so that independent entries give 1 / blocks² each.
    Raises ValueError for a number of blocks that does not divide both sides, and for D = 0.
    """
    update, total = _update(update)
    blocks = count("blocks", blocks)
    if any(n % blocks for n in update.shape):
        raise ValueError(f"blocks must divide both sides of {tuple(update.shape)}, got {blocks}")
    rows, columns = (n // blocks for n in update.shape)
    energy = _in(update, base).square() / total
    found: Tensor = energy.reshape(blocks, rows, blocks, columns).sum((1, 3))
    return found


def diagonal_energy(update: Tensor, base: Directions) -> float:
    """Σ_a e_aa: the share of D that keeps all singular vectors. Independent entries give
    min(o, i) / (o i). Raises ValueError for D = 0."""
    update, total = _update(update)
    return float(torch.diagonal(_in(update, base)).square().sum() / total)


def mean_energies(update: Tensor) -> tuple[float, float]:
    """Shares of ‖D‖² in row means and in column means. Raises ValueError for D = 0."""
    update, total = _update(update)
    o, i = update.shape
    rows, columns = update.mean(1).square().sum() * i, update.mean(0).square().sum() * o
    return float(rows / total), float(columns / total)


def row_energy(update: Tensor, basis: Tensor) -> float:
    """Share of ‖D‖² that rows of D have within the span of orthonormal columns (i, k);
    independent entries give k / i. Raises ValueError for D = 0."""
    update, total = _update(update)
    return float((update @ basis.double()).square().sum() / total)


def place_distance(first: Tensor, second: Tensor) -> float:
    """Total variation between two shares of energy of equal shape: 0 for the same place, 1 for
    places without overlap. Raises ValueError for another shape."""
    if first.shape != second.shape:
        raise ValueError(
            f"first and second must have one shape, got {tuple(first.shape)}, {tuple(second.shape)}"
        )
    return float((first - second).abs().sum() / 2)


def spike_count(update: Tensor) -> int:
    """Singular values of D beyond the edge of the bulk that independent entries of its norm have,
    σ² > ‖D‖² (1/√o + 1/√i)². Raises ValueError for D = 0."""
    update, total = _update(update)
    o, i = update.shape
    edge = float(total) * (o**-0.5 + i**-0.5) ** 2
    return int((torch.linalg.svdvals(update).square() > edge).sum())
