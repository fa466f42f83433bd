"""nets.densities: values by hand, counts, and masks as random matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from rclib.nets import densities as d
from rclib.nets.masks import share_left

MLP = {"W1": (128, 64), "W2": (128, 128), "W3": (128, 128), "W4": (10, 128)}
NARROW = {"W1": (16, 64), "W2": (16, 16), "W3": (16, 16), "W4": (10, 16)}


def overall(shapes: Mapping[str, tuple[int, ...]], found: dict[str, float]) -> float:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return sum(found[name] * sizes[name] for name in sizes) / sum(sizes.values())


def test_erdos_renyi_shares_by_fans_over_sizes() -> None:
    found = d.erdos_renyi(MLP, 0.1)
    assert overall(MLP, found) == pytest.approx(0.1, abs=1e-12)
    assert max(found.values()) <= 1
    raw = {name: (a + b) / (a * b) for name, (a, b) in MLP.items()}
    for name in MLP:
        assert found[name] / found["W2"] == pytest.approx(raw[name] / raw["W2"])


def test_layers_that_would_exceed_one_are_dense_and_the_rest_is_solved_again() -> None:
    found = d.erdos_renyi(NARROW, 0.7)
    assert list(found.values()) == pytest.approx([0.5573, 0.8917, 0.8917, 1.0], abs=1e-4)
    assert overall(NARROW, found) == pytest.approx(0.7, abs=1e-12)
    assert d.erdos_renyi(NARROW, 1.0) == dict.fromkeys(NARROW, 1.0)


def test_convolutions_count_their_kernels() -> None:
    shapes: dict[str, Any] = {"K1": (16, 3, 3, 3), "K2": (32, 16, 3, 3), "W": (10, 32)}
    found = d.erdos_renyi(shapes, 0.2)
    ratio = ((32 + 16 + 6) / (32 * 16 * 9)) / ((16 + 3 + 6) / (16 * 3 * 9))
    free = found["K1"] < 1
    assert found["K2"] / found["K1"] == pytest.approx(ratio) if free else found["K1"] == 1.0
    assert overall(shapes, found) == pytest.approx(0.2)


def test_uniform_plus_keeps_its_ends_and_meets_the_density() -> None:
    found = d.uniform_plus(MLP, 0.3)
    assert (found["W1"], found["W4"]) == (1.0, 0.3)
    assert found["W2"] == found["W3"]
    assert overall(MLP, found) == pytest.approx(0.3)
    assert d.uniform_plus(MLP, 1.0) == dict.fromkeys(MLP, 1.0)
    assert d.uniform_plus({"W": (4, 4)}, 0.5) == {"W": 0.5}
    with pytest.raises(ValueError, match="density must leave room for a dense first layer"):
        d.uniform_plus(MLP, 0.1)


def test_masks_have_the_counts_and_depend_on_their_seed_alone() -> None:
    found = d.erdos_renyi(MLP, 0.1)
    masks = d.random_masks(MLP, found, [3, 4])
    for name, shape in MLP.items():
        assert masks[name].shape == (2, *shape)
        kept = masks[name].flatten(1).sum(1)
        assert (kept == round(found[name] * math.prod(shape))).all()
    assert torch.equal(d.random_masks(MLP, found, [4])["W2"][0], masks["W2"][1])
    assert not torch.equal(masks["W2"][0], masks["W2"][1])
    assert share_left(masks).tolist() == pytest.approx([0.1, 0.1], abs=1e-3)
    back = d.densities_of(masks)
    assert back[0] == pytest.approx(found, abs=1e-3)
    own = d.random_masks(MLP, [found, d.uniform(MLP, 0.5)], [3, 4])
    assert torch.equal(own["W2"][0], masks["W2"][0])
    assert float(own["W2"][1].double().mean()) == pytest.approx(0.5)


def test_a_masked_product_has_the_mean_and_variance_of_bernoulli_draws() -> None:
    """(W ∘ m) x over masks: mean d W x, variance d (1 - d) Σ w² x² (but for 1/n)."""
    w = torch.randn(400, generator=torch.Generator().manual_seed(1)).double()
    shapes = {"W": (20, 20)}
    draws = 4000
    masks = d.random_masks(shapes, {"W": 0.3}, range(draws))["W"].flatten(1)[:, :20].double()
    z = masks @ w[:20]
    mean, variance = 0.3 * float(w[:20].sum()), 0.3 * 0.7 * float(w[:20].square().sum())
    assert float(z.mean()) == pytest.approx(mean, abs=3.5 * (variance / draws) ** 0.5)
    assert float(z.var()) == pytest.approx(variance, rel=0.15)


def test_what_is_no_density_is_refused() -> None:
    for function in (d.uniform, d.uniform_plus, d.erdos_renyi):
        with pytest.raises(ValueError, match=r"density must lie in \(0, 1\], got 0"):
            function(MLP, 0.0)
        with pytest.raises(ValueError, match="shapes must name at least one layer"):
            function({}, 0.5)
        with pytest.raises(ValueError, match="must have two axes or more"):
            function({"b": (3,)}, 0.5)
    with pytest.raises(ValueError, match=r"raw\['W1'\] must be positive and finite, got None"):
        d.scaled(MLP, {}, 0.5)
    with pytest.raises(ValueError, match="densities must be one mapping or 2, one a seed, got 1"):
        d.random_masks(MLP, [d.uniform(MLP, 0.5)], [0, 1])
    with pytest.raises(ValueError, match="densities must name"):
        d.random_masks(MLP, {"W1": 0.5}, [0])
    with pytest.raises(ValueError, match=r"densities\['W1'\] must lie in \[0, 1\], got 2"):
        d.random_masks(MLP, {**d.uniform(MLP, 0.5), "W1": 2.0}, [0])
