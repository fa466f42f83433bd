"""Solids by formula: rotated, scaled and shifted spheres, boxes, cylinders, tori, cones, octahedra.

    shapes = draw_shapes(30, torch.Generator().manual_seed(0))     # 30 of each kind
    shapes.levels(points)                                         # (180, P), positive inside

In a solid's own coordinates q = R(-angle) (p - shift) / scale the boundary is where a function
with slope of at most 1 is zero, so that its value times the smallest scale is at most the distance
to the boundary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.checks.arguments import count

__all__ = ["KINDS", "VOLUMES", "Shapes", "draw_shapes"]

KINDS = ("sphere", "box", "cylinder", "torus", "cone", "octahedron")
# Sizes in own coordinates: half side of the box; radius and half height of the cylinder; the two
# radii of the torus; radius and half height of the cone; half diagonal of the octahedron.
_BOX, _CYLINDER, _TORUS, _CONE, _OCTAHEDRON = 0.8, (0.75, 0.9), (0.65, 0.3), 0.9, 1.1
VOLUMES = {
    "sphere": 4 / 3 * math.pi,
    "box": 8 * _BOX**3,
    "cylinder": 2 * math.pi * _CYLINDER[0] ** 2 * _CYLINDER[1],
    "torus": 2 * math.pi**2 * _TORUS[0] * _TORUS[1] ** 2,
    "cone": 2 / 3 * math.pi * _CONE**3,
    "octahedron": 4 / 3 * _OCTAHEDRON**3,
}  # before scaling


def _level(kind: int, q: Tensor) -> Tensor:
    """(..., P) of q (..., P, 3), positive inside."""
    x, y, z = q.unbind(-1)
    found: Tensor
    radius = torch.sqrt(x * x + y * y)
    match KINDS[kind]:
        case "sphere":
            found = 1 - q.norm(dim=-1)
        case "box":
            found = _BOX - q.abs().amax(-1)
        case "cylinder":
            found = torch.minimum(_CYLINDER[0] - radius, _CYLINDER[1] - z.abs())
        case "torus":
            found = _TORUS[1] - torch.sqrt((radius - _TORUS[0]) ** 2 + z * z)
        case "cone":
            found = torch.minimum(z + _CONE, ((_CONE - z) / 2 - radius) / math.sqrt(1.25))
        case _:
            found = (_OCTAHEDRON - q.abs().sum(-1)) / math.sqrt(3)
    return found


@dataclass(frozen=True)
class Shapes:
    """B solids. kind (B,) : index into KINDS; scale, shift (B, 3); angle (B,) : about z."""

    kind: Tensor
    scale: Tensor
    shift: Tensor
    angle: Tensor

    def __len__(self) -> int:
        return len(self.kind)

    def levels(self, points: Tensor) -> Tensor:
        """(B, P) at points (P, 3): positive inside; at most the distance to the boundary in size.

        Raises ValueError for points of another shape.
        """
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"points must have shape (P, 3), got {tuple(points.shape)}")
        moved = points[None] - self.shift[:, None]
        cos, sin = torch.cos(self.angle)[:, None], torch.sin(self.angle)[:, None]
        x, y = moved[..., 0], moved[..., 1]
        turned = torch.stack([cos * x + sin * y, cos * y - sin * x, moved[..., 2]], -1)
        q = turned / self.scale[:, None]
        found = torch.empty(q.shape[:2], dtype=q.dtype)
        for kind in range(len(KINDS)):
            own = self.kind == kind
            if own.any():
                found[own] = _level(kind, q[own])
        return found * self.scale.amin(1, keepdim=True)

    def volumes(self) -> Tensor:
        """(B,) volumes, in closed form."""
        one = torch.tensor([VOLUMES[kind] for kind in KINDS], dtype=self.scale.dtype)
        return one[self.kind] * self.scale.prod(1)


def draw_shapes(
    n_each: int, generator: torch.Generator, *, scales: tuple[float, float] = (0.45, 0.7),
    shift: float = 0.2,
) -> Shapes:  # fmt: skip
    """n_each solids of every kind, kinds in turn: scales per axis uniform between two numbers,
    shifts per axis in [-shift, shift], angles in [0, 2π).

    Raises ValueError for scales that are not positive or not in order, or a negative shift.
    """
    n = count("n_each", n_each) * len(KINDS)
    if not 0 < scales[0] <= scales[1]:
        raise ValueError(f"scales must be two positive numbers in order, got {scales}")
    if not shift >= 0:
        raise ValueError(f"shift must not be negative, got {shift}")
    drawn = torch.rand(n, 7, generator=generator)
    return Shapes(
        torch.arange(n) % len(KINDS),
        scales[0] + (scales[1] - scales[0]) * drawn[:, :3],
        shift * (2 * drawn[:, 3:6] - 1),
        2 * math.pi * drawn[:, 6],
    )
