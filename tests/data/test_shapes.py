"""data.shapes: volumes, slopes and the turning of solids, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from rclib.data.shapes import KINDS, Shapes, draw_shapes


def one(kind: str, *, scale: tuple[float, ...] = (1.0, 1.0, 1.0), angle: float = 0.0) -> Shapes:
    return Shapes(
        torch.tensor([KINDS.index(kind)]), torch.tensor([scale]), torch.zeros(1, 3),
        torch.tensor([angle]),
    )  # fmt: skip


def test_inside_is_as_large_as_the_volume() -> None:
    g = torch.Generator().manual_seed(0)
    shapes = draw_shapes(2, g)
    n = 100_000
    share = (shapes.levels(2 * torch.rand(n, 3, generator=g) - 1) > 0).double().mean(1)
    expected = shapes.volumes().double() / 8
    error = 4.5 * (expected * (1 - expected) / n).sqrt()
    assert ((share - expected).abs() < error).all()


def test_levels_are_at_most_distances() -> None:
    """A function of slope at most 1 that is zero at the boundary: |g(p) - g(q)| <= |p - q|."""
    g = torch.Generator().manual_seed(1)
    shapes = draw_shapes(3, g)
    p = 2 * torch.rand(500, 3, generator=g) - 1
    q = p + 0.3 * torch.randn(500, 3, generator=g)
    change = (shapes.levels(p) - shapes.levels(q)).abs()
    assert (change <= (p - q).norm(dim=1) + 1e-5).all()
    assert (change.amax(1) > 0).all()


@pytest.mark.parametrize(
    ("kind", "point", "level"),
    [
        ("sphere", (0.5, 0.0, 0.0), 0.5), ("box", (0.5, 0.1, -0.2), 0.3),
        ("cylinder", (0.6, 0.0, 0.0), 0.15), ("cylinder", (0.0, 0.0, 0.8), 0.1),
        ("torus", (0.0, 0.65, 0.1), 0.2), ("torus", (0.0, 0.0, 0.0), -0.35),
        ("cone", (0.0, 0.0, -0.8), 0.1), ("octahedron", (0.0, 0.0, 0.0), 1.1 / math.sqrt(3)),
    ],
)  # fmt: skip
def test_levels_by_hand(kind: str, point: tuple[float, ...], level: float) -> None:
    assert float(one(kind).levels(torch.tensor([point]))) == pytest.approx(level, abs=1e-6)


def test_a_quarter_turn_exchanges_the_scales() -> None:
    points = 2 * torch.rand(200, 3, generator=torch.Generator().manual_seed(2)) - 1
    turned = one("box", scale=(0.5, 0.7, 0.6), angle=math.pi / 2)
    torch.testing.assert_close(
        turned.levels(points), one("box", scale=(0.7, 0.5, 0.6)).levels(points)
    )


def test_kinds_come_in_turn_and_repeat() -> None:
    first, again = (draw_shapes(2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.kind.tolist() == [*range(6), *range(6)]
    assert len(first) == 12
    assert torch.equal(first.scale, again.scale)
    assert first.scale.min() >= 0.45
    assert first.scale.max() <= 0.7
    assert first.shift.abs().max() <= 0.2


def test_what_is_refused() -> None:
    g = torch.Generator()
    with pytest.raises(ValueError, match="n_each"):
        draw_shapes(0, g)
    with pytest.raises(ValueError, match="scales"):
        draw_shapes(1, g, scales=(0.7, 0.4))
    with pytest.raises(ValueError, match="shift"):
        draw_shapes(1, g, shift=-0.1)
    with pytest.raises(ValueError, match="points"):
        one("box").levels(torch.zeros(3))
