"""nets.residual: deleted blocks, kept units, counts, against networks written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, layer_norm

from rclib.nets.residual import keep_blocks, keep_units, multiplications, residual_stack
from rclib.nets.stack import Stack

SHAPES = [{"norm": False}, {"norm": True}, {"norm": True, "side": 4}]


def nets(**more: object) -> Stack:
    side = more.get("side")
    inputs = 12 if side is None else 3 * 16
    return residual_stack(
        inputs=inputs, width=5, inner=4, blocks=3, classes=2, seeds=[0, 7],
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def inputs(found: Stack, n: int = 6) -> Tensor:
    size = found.tensors["A"][0, 0].numel()
    size = size if found.tensors["A"].ndim == 3 else 48
    return torch.randn(n, size, generator=torch.Generator().manual_seed(1))


def by_hand(t: dict[str, Tensor], x: Tensor, norm: bool, side: int | None) -> Tensor:
    def layer(h: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        if side is not None:
            return conv2d(h, w, b, padding=1)
        return h @ w.T + (0 if b is None else b)

    h = layer(x if side is None else x.view(len(x), 3, side, side), t["A"], t["a"])
    for u, b, v in zip(t["U"], t["b"], t["V"], strict=True):
        own = layer_norm(h, h.shape[1:]) if norm else h
        h = h + layer(layer(own, u, b).clamp_min(0), v)
    return (h if side is None else h.mean((2, 3))) @ t["C"].T + t["c"]


@pytest.mark.parametrize("more", SHAPES)
def test_networks_are_those_written_out(more: dict[str, object]) -> None:
    found = nets(**more)
    x = inputs(found)
    for s in range(2):
        expected = by_hand(found.member(s), x, bool(more["norm"]), more.get("side"))  # type: ignore[arg-type]
        assert torch.allclose(found(x, own=False)[s], expected, atol=1e-5)


@pytest.mark.parametrize("more", SHAPES)
def test_a_deleted_block_is_one_whose_last_matrix_is_zero(more: dict[str, object]) -> None:
    found = nets(**more)
    x = inputs(found)
    kept = torch.tensor([[0, 2], [1, 2]])
    silent = found.tensors["V"].clone()
    silent[0, 1] = silent[1, 0] = 0.0
    zeroed = replace(found, tensors=found.tensors | {"V": silent})
    fewer = keep_blocks(found, kept)
    assert torch.equal(fewer(x, own=False), zeroed(x, own=False))
    every = keep_blocks(found, torch.arange(3).expand(2, -1))
    assert torch.equal(every(x, own=False), found(x, own=False))
    none = keep_blocks(found, torch.empty(2, 0, dtype=torch.long))
    assert none.tensors.keys() == {"A", "a", "C", "c"}
    all_silent = replace(found, tensors=found.tensors | {"V": 0 * silent})
    assert torch.equal(none(x, own=False), all_silent(x, own=False))


@pytest.mark.parametrize("more", SHAPES)
def test_a_removed_unit_is_one_that_is_not_read(more: dict[str, object]) -> None:
    found = nets(**more)
    x = inputs(found)
    units = torch.tensor([[[0, 2], [1, 3], [0, 1]], [[2, 3], [0, 3], [1, 2]]])
    keep = torch.zeros(2, 3, 1, 4).scatter_(3, units[:, :, None], 1.0)
    keep = keep if more.get("side") is None else keep[..., None, None]
    masked = replace(found, tensors=found.tensors | {"V": found.tensors["V"] * keep})
    fewer = keep_units(found, units)
    assert fewer.tensors["U"].shape[2] == 2
    assert torch.allclose(fewer(x, own=False), masked(x, own=False), atol=1e-6)


def test_starts_have_their_variances_and_products_are_counted() -> None:
    found = residual_stack(inputs=90, width=80, inner=70, blocks=5, classes=10, seeds=[3])
    for name, variance in {"A": 1 / 90, "U": 2 / 80, "V": 1 / 350, "C": 1 / 80}.items():
        assert float(found.tensors[name].var()) == pytest.approx(variance, rel=0.15)
    assert multiplications(found) == 90 * 80 + 2 * 5 * 80 * 70 + 800
    assert multiplications(nets(side=4), 4) == 16 * 9 * (3 * 5 + 2 * 3 * 5 * 4) + 10


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"inputs must be a multiple of side² = 16, got 47"):
        residual_stack(inputs=47, width=2, inner=2, blocks=1, classes=2, seeds=[0], side=4)
    with pytest.raises(ValueError, match="seeds must hold at least one"):
        residual_stack(inputs=4, width=2, inner=2, blocks=1, classes=2, seeds=[])
    for bad in ([[1, 0], [0, 1]], [[0, 3], [0, 1]], [[0, 1]], [[0.0, 1.0], [0.0, 1.0]]):
        with pytest.raises(ValueError, match="kept must be ascending numbers below 3"):
            keep_blocks(nets(norm=False), torch.tensor(bad))
    with pytest.raises(ValueError, match=r"units must have shape \(2, 3, k\)"):
        keep_units(nets(norm=False), torch.zeros(2, 2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="units must lie in 0 to 3"):
        keep_units(nets(norm=False), torch.full((2, 3, 1), 4))
