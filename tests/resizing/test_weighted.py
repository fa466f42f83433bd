"""A sampled network is its source with weights: against `resize`, and the law of its noise."""

from __future__ import annotations

import pytest
import torch

from rclib.nets.mlp import MLP
from rclib.resizing.mlp import resize, resize_maps
from rclib.resizing.weighted import draw_weights, sampling_constant, weighted_outputs


def network(depth: int = 3, parametrization: str = "MF", width: int = 12) -> MLP:
    model = MLP(5, width, 3, depth=depth, parametrization=parametrization, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # far from its start: biases too
        for p in model.parameters():
            p += 0.5 * torch.randn(p.shape, generator=generator)
    return model.double()


X = torch.randn(20, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("parametrization", ["SP", "MF", "muP"])
@pytest.mark.parametrize("width", [5, 12, 40])
def test_equals_the_network_that_resize_makes(depth: int, parametrization: str, width: int) -> None:
    model = network(depth, parametrization)
    maps = resize_maps(model, width, seed=4)
    weights = []
    for layer in range(1, depth):
        chosen = maps[f"W{layer}", 0]
        weights.append(torch.bincount(chosen, minlength=12).double()[None] * (12 / width))
    with torch.no_grad():
        expected = resize(model, width, seed=4)(X)
        torch.testing.assert_close(weighted_outputs(model, X, weights)[0], expected)


def test_weights_are_those_of_a_draw() -> None:
    model = network()
    for width in (7, 12, 30):
        for replacement in (True, False):
            for w in draw_weights(model, width, 4000, replacement=replacement, seed=5):
                assert w.shape == (4000, 12)
                counts = w * width / 12
                torch.testing.assert_close(counts, counts.round())
                torch.testing.assert_close(w.mean(1), torch.ones(4000, dtype=w.dtype))
                variance = w.var(0)
                if replacement:  # (N/M)(1 - 1/N); its relative error is about sqrt(2/4000)
                    law = 12 / width * (1 - 1 / 12)
                    torch.testing.assert_close(variance.mean().item(), law, rtol=0.05, atol=0)
                else:
                    assert set(counts.round().unique().tolist()) <= {width // 12, -(-width // 12)}
                assert w.mean(0).sub(1).abs().max() < 5 * (12 / width / 4000) ** 0.5


def test_draws_depend_on_the_seed_alone() -> None:
    first, again, other = (draw_weights(network(), 9, 6, seed=s) for s in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("parametrization", ["SP", "MF", "muP"])
def test_first_order_law_of_the_noise(parametrization: str) -> None:
    """At M = 4000 the second order is small; 4000 draws have an error of a few percent."""
    model = network(parametrization=parametrization)
    with torch.no_grad():
        moved = weighted_outputs(model, X, draw_weights(model, 4000, 4000, seed=6))
        measured = 4000 * (moved - model(X)).square().mean().item()
    assert measured == pytest.approx(sampling_constant(model, X), rel=0.06)


def test_sampling_constant_against_single_derivatives() -> None:
    model = network()
    ones = [torch.ones(1, 12, dtype=torch.float64) for _ in range(2)]
    step, total = 1e-5, 0.0
    with torch.no_grad():
        for layer in range(2):
            derivatives = []
            for k in range(12):
                sides = []
                for sign in (1, -1):
                    shifted = [w.clone() for w in ones]
                    shifted[layer][0, k] += sign * step
                    sides.append(weighted_outputs(model, X, shifted)[0])
                derivatives.append((sides[0] - sides[1]) / (2 * step))
            all_of = torch.stack(derivatives)
            total += 12 * (all_of - all_of.mean(0)).square().sum(0).mean().item()
    assert sampling_constant(model, X) == pytest.approx(total, rel=1e-6)
    with torch.no_grad():  # as callers measure
        assert sampling_constant(model, X) == pytest.approx(total, rel=1e-6)


def test_constant_output_has_no_noise() -> None:
    """All neurons alike: whichever are drawn, the function stays."""
    model = network()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.3)
    assert sampling_constant(model, X) == pytest.approx(0.0, abs=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match="weights must be one tensor"):
        weighted_outputs(model, X, [torch.ones(1, 12)])
    with pytest.raises(ValueError, match="weights must be one tensor"):
        weighted_outputs(model, X, [torch.ones(1, 12), torch.ones(2, 12)])
    with pytest.raises(ValueError, match="width"):
        draw_weights(model, 0, 1)
    with pytest.raises(ValueError, match="draws"):
        draw_weights(model, 4, 0)
