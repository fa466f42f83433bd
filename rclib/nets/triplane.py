"""Neural fields of many shapes at once: planes of features with a network, or a network alone.

    F(p) = M([f(p), PE(p)]),    f(p) = T_xy(x, y) + T_xz(x, z) + T_yz(y, z)

T in R^(C x R x R) are sampled bilinearly, PE(p) = (p, sin 2^j p, cos 2^j p), M is a SIREN whose
first layer gets f and PE. B fields are one: a leading axis of B on every tensor; all are asked at
the same points. (Cardace and others, ICLR 2024, section 3; SIREN: Sitzmann and others 2020.)

The function of a field stays the same, for any invertible A (C, C), if the channels of its three
planes are mixed by A and the first layer's columns for f by the inverse of A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from rclib.checks.arguments import count

__all__ = ["AXES", "Fields", "bilinear", "encode", "mixed", "renamed", "start_fields"]

AXES = ((0, 1), (0, 2), (1, 2))  # of the three planes: column and row of a plane


def bilinear(at: Tensor, R: int) -> Tensor:
    """(P, R²) weights of the pixels of an R x R plane at (column, row) in [-1, 1], (P, 2).

    Pixel i lies at (2 i + 1) / R - 1; outside the plane is zero (torch's `grid_sample` with
    align_corners=False). Row times R plus column is a pixel's place.
    """
    place = (at + 1) * count("R", R) / 2 - 0.5
    pixels = torch.arange(R, dtype=at.dtype)
    column, row = (
        (1 - (place[:, k, None] - pixels).abs()).clamp_min(0) for k in (0, 1)
    )  # (P, R) each
    return (row[:, :, None] * column[:, None, :]).flatten(1)


def encode(points: Tensor, octaves: int) -> Tensor:
    """(P, 3 + 6 octaves): the points (P, 3), and sin and cos of 2^j times them, j < octaves."""
    waves = [f(2.0**j * points) for j in range(octaves) for f in (torch.sin, torch.cos)]
    return torch.cat([points, *waves], 1)


@dataclass(frozen=True)
class Fields:
    """B fields.

    planes : (B, 3, C, R, R), or None for a network alone. weights : (B, outputs, inputs) of each
    layer, the first one's inputs being C features and then the encoding; biases : (B, outputs, 1).
    octaves : of the encoding. omega : factor within the sines.
    """

    planes: Tensor | None
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    octaves: int
    omega: float

    def __len__(self) -> int:
        return len(self.weights[0])

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, planes first."""
        own = [] if self.planes is None else [self.planes]
        return [*own, *self.weights, *self.biases]

    def features(self, points: Tensor) -> Tensor:
        """f (B, C, P) at points (P, 3). Raises ValueError for a network alone."""
        if self.planes is None:
            raise ValueError("planes must be there for features, got a network alone")
        B, _, C, R, _ = self.planes.shape
        flat = self.planes.permute(1, 0, 2, 3, 4).reshape(3, B * C, R * R)
        pixels = torch.stack([bilinear(points[:, list(axes)], R) for axes in AXES])
        return torch.bmm(flat, pixels.mT).sum(0).view(B, C, -1)

    def __call__(self, points: Tensor) -> Tensor:
        """F (B, P) at points (P, 3)."""
        known = encode(points, self.octaves).T.expand(len(self), -1, -1)
        h = known if self.planes is None else torch.cat([self.features(points), known], 1)
        for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = torch.sin(self.omega * torch.baddbmm(b, W, h))
        return torch.baddbmm(self.biases[-1], self.weights[-1], h)[:, 0]

    def flat(self, *, last: bool = True) -> Tensor:
        """(B, n): weights and biases of the network, in a row; last : with its last layer."""
        parts = list(zip(self.weights, self.biases, strict=True))[: None if last else -1]
        return torch.cat([t.flatten(1) for pair in parts for t in pair], 1)


def _siren(
    sizes: Sequence[int], n: int, omega: float, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of n networks: ±1/inputs in the first layer, ±√(6/inputs)/omega after."""
    weights, biases = [], []
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        bound = 1 / inputs if layer == 0 else math.sqrt(6 / inputs) / omega
        drawn = torch.rand(n, outputs, inputs + 1, generator=generator)
        weights.append(bound * (2 * drawn[..., :-1] - 1))
        biases.append(bound * (2 * drawn[..., -1:] - 1))
    return weights, biases


def start_fields(
    n: int, *, hidden: Sequence[int], channels: int = 0, R: int = 8, octaves: int = 2,
    omega: float = 10.0, shared: bool = False, plane_sd: float = 1e-3, generator: torch.Generator,
) -> Fields:  # fmt: skip
    """n fields at their start. channels : C, 0 for a network alone; hidden : widths of the layers.

    shared : one network drawn for all, planes N(0, plane_sd²) always each their own.
    Raises ValueError for counts below their least, and no hidden layer.
    """
    n, channels, octaves = (
        count("n", n),
        count("channels", channels, 0),
        count("octaves", octaves, 0),
    )
    if not hidden:
        raise ValueError(f"hidden must name at least one width, got {list(hidden)}")
    sizes = [channels + 3 + 6 * octaves, *(count("hidden", h) for h in hidden), 1]
    weights, biases = _siren(sizes, 1 if shared else n, omega, generator)
    if shared:
        weights = [W.repeat(n, 1, 1) for W in weights]
        biases = [b.repeat(n, 1, 1) for b in biases]
    shape = (n, 3, channels, count("R", R), R)
    planes = plane_sd * torch.randn(shape, generator=generator) if channels else None
    return Fields(planes, tuple(weights), tuple(biases), octaves, omega)


def mixed(fields: Fields, A: Tensor) -> Fields:
    """The same functions with channels A T, A (B, C, C) invertible: a permutation, signs, others.

    Raises ValueError for a network alone, or an A of another shape.
    """
    if fields.planes is None:
        raise ValueError("planes must be there to be mixed, got a network alone")
    B, _, C = fields.planes.shape[:3]
    if A.shape != (B, C, C):
        raise ValueError(f"A must have shape {(B, C, C)}, got {tuple(A.shape)}")
    first = fields.weights[0]
    features = torch.bmm(first[..., :C], torch.linalg.inv(A))
    return replace(
        fields,
        planes=torch.einsum("bdc,bkcij->bkdij", A, fields.planes),
        weights=(torch.cat([features, first[..., C:]], -1), *fields.weights[1:]),
    )


def renamed(fields: Fields, orders: Sequence[Tensor]) -> Fields:
    """The same functions with the units of each hidden layer in the orders (B, units).

    Raises ValueError for orders of another number of layers or another shape.
    """
    shapes = [tuple(b.shape[:2]) for b in fields.biases[:-1]]
    if [tuple(order.shape) for order in orders] != shapes:
        raise ValueError(
            f"orders must have shapes {shapes}, got {[tuple(o.shape) for o in orders]}"
        )
    weights, biases = list(fields.weights), list(fields.biases)
    for k, order in enumerate(orders):
        weights[k] = weights[k].take_along_dim(order[:, :, None], 1)
        biases[k] = biases[k].take_along_dim(order[:, :, None], 1)
        weights[k + 1] = weights[k + 1].take_along_dim(order[:, None, :], 2)
    return replace(fields, weights=tuple(weights), biases=tuple(biases))
