"""nets.triplane: bilinear planes against torch and by hand, and what leaves a field unchanged."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from rclib.nets.triplane import AXES, Fields, bilinear, encode, mixed, renamed, start_fields


def fields(n: int = 3, *, channels: int = 4, shared: bool = False, seed: int = 0) -> Fields:
    return start_fields(
        n, hidden=[8, 6], channels=channels, R=5, octaves=2, shared=shared, plane_sd=1.0,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def points(n: int = 50, seed: int = 1) -> Tensor:
    return 2 * torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) - 1


def by_hand(plane: Tensor, column: float, row: float) -> float:
    """Sum over four pixels, those outside being zero."""
    R = plane.shape[0]
    x, y = ((a + 1) * R / 2 - 0.5 for a in (column, row))
    total = 0.0
    for j in (math.floor(y), math.floor(y) + 1):
        for i in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < R and 0 <= j < R:
                total += (1 - abs(x - i)) * (1 - abs(y - j)) * float(plane[j, i])
    return total


def test_bilinear_by_hand_and_by_torch() -> None:
    R = 5
    plane = torch.randn(R, R, generator=torch.Generator().manual_seed(0))
    at = points()[:, :2]
    found = bilinear(at, R) @ plane.flatten()
    hand = torch.tensor([by_hand(plane, *map(float, p)) for p in at])
    torch.testing.assert_close(found, hand, atol=1e-5, rtol=0)
    other = grid_sample(plane[None, None], at[None, None], align_corners=False)[0, 0, 0]
    torch.testing.assert_close(found, other, atol=1e-5, rtol=0)


def test_a_linear_plane_is_reproduced_within_the_pixels() -> None:
    R = 6
    centres = (2 * torch.arange(R) + 1) / R - 1
    plane = 0.3 + 2 * centres[None, :] - centres[:, None]  # of column and row
    at = points()[:, :2] * (1 - 1 / R)
    torch.testing.assert_close(
        bilinear(at, R) @ plane.flatten(), 0.3 + 2 * at[:, 0] - at[:, 1], atol=1e-5, rtol=0
    )


def test_fields_one_by_one() -> None:
    """The batch against a loop over fields with torch's own functions."""
    own, p = fields(), points()
    assert own.planes is not None
    for b, value in enumerate(own(p)):
        f = sum(
            grid_sample(own.planes[b, k][None], p[:, list(axes)][None, None], align_corners=False)
            for k, axes in enumerate(AXES)
        )
        assert isinstance(f, Tensor)
        h = torch.cat([f[0, :, 0].T, encode(p, 2)], 1)
        for W, c in zip(own.weights[:-1], own.biases[:-1], strict=True):
            h = torch.sin(10.0 * (h @ W[b].T + c[b, :, 0]))
        last = h @ own.weights[-1][b].T + own.biases[-1][b, :, 0]
        torch.testing.assert_close(value, last[:, 0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["permutation", "signs", "invertible"])
def test_mixing_the_channels_leaves_the_function(kind: str) -> None:
    own, p = fields(), points()
    g = torch.Generator().manual_seed(5)
    B, C = 3, 4
    A = {
        "permutation": torch.eye(C)[torch.rand(B, C, generator=g).argsort(1)],
        "signs": torch.diag_embed(torch.tensor([1.0, -1.0, -1.0, 1.0])).expand(B, C, C),
        "invertible": torch.eye(C) + 0.3 * torch.randn(B, C, C, generator=g),
    }[kind]
    moved = mixed(own, A)
    assert own.planes is not None
    assert moved.planes is not None
    assert not torch.allclose(moved.planes, own.planes)
    torch.testing.assert_close(moved(p), own(p), atol=2e-3, rtol=1e-3)
    # Planes alone, without the network's columns, are another function.
    assert (replace(own, planes=moved.planes)(p) - own(p)).abs().max() > 0.05


def test_renaming_the_neurons_leaves_the_function() -> None:
    own, p = fields(), points()
    g = torch.Generator().manual_seed(5)
    orders = [torch.rand(3, n, generator=g).argsort(1) for n in (8, 6)]
    moved = renamed(own, orders)
    torch.testing.assert_close(moved(p), own(p), atol=1e-4, rtol=1e-4)
    assert torch.equal(moved.weights[0][1, 3], own.weights[0][1, orders[0][1, 3]])
    assert torch.equal(moved.flat().sort(1).values, own.flat().sort(1).values)
    assert not torch.equal(moved.flat(), own.flat())
    # One layer alone is another function.
    assert (
        replace(own, weights=(moved.weights[0], *own.weights[1:]))(p) - own(p)
    ).abs().max() > 0.05
    with pytest.raises(ValueError, match="orders must"):
        renamed(own, orders[:1])
    with pytest.raises(ValueError, match="orders must"):
        renamed(own, orders[::-1])


def test_a_sum_of_planes_has_no_mixed_third_difference() -> None:
    """f = a(x, y) + b(x, z) + c(y, z): the alternating sum over a cube's corners is zero, and xyz,
    for which it is not, is orthogonal to all such sums on a symmetric grid. With sines it is not
    zero."""
    own = fields(channels=1)
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.7])] * 3)
    signs = torch.tensor([(-1.0) ** bin(i).count("1") for i in range(8)])
    assert float((own.features(corners)[:, 0] @ signs).abs().max()) < 1e-5
    assert float((own(corners) @ signs).abs().min()) > 1e-3
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 4)] * 3)
    pictures = torch.cat([bilinear(grid[:, list(axes)], 4) for axes in AXES], 1).double()
    target = grid.prod(1).double()
    fitted = pictures @ torch.linalg.lstsq(pictures, target[:, None], driver="gelsd").solution
    assert float(fitted.abs().max()) < 1e-10
    assert float(target.abs().max()) > 0.5


def test_starts_are_shared_or_not() -> None:
    own, one = fields(), fields(shared=True)
    assert not torch.equal(own.weights[0][0], own.weights[0][1])
    assert torch.equal(one.flat()[0], one.flat()[2])
    assert one.planes is not None
    assert not torch.equal(one.planes[0], one.planes[1])
    inputs = 4 + 15
    assert float(own.weights[0].abs().max()) <= 1 / inputs
    assert float(own.weights[1].abs().max()) <= math.sqrt(6 / 8) / 10
    assert own.flat().shape == (3, 8 * (inputs + 1) + 6 * 9 + 7)
    assert own.flat(last=False).shape == (3, 8 * (inputs + 1) + 6 * 9)
    assert len(own.tensors) == 7


def test_a_network_alone() -> None:
    alone = fields(channels=0)
    assert alone.planes is None
    assert alone(points()).shape == (3, 50)
    assert len(alone.tensors) == 6
    with pytest.raises(ValueError, match="planes"):
        alone.features(points())
    with pytest.raises(ValueError, match="planes"):
        mixed(alone, torch.eye(4).expand(3, 4, 4))
    with pytest.raises(ValueError, match="A must"):
        mixed(fields(), torch.eye(3).expand(3, 3, 3))
    with pytest.raises(ValueError, match="hidden"):
        start_fields(1, hidden=[], generator=torch.Generator())
