"""nets.random_attention: features against loops, kernels against draws and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from rclib.nets import random_attention as attention


def units(seed: int, n: int, keys: int, d: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, keys + 1, d))
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def test_the_arc_cosine_kernel_at_its_ends_and_by_integration() -> None:
    found = attention.arc_cosine(np.array([1.0, 0.0, -1.0]))
    assert found == pytest.approx([0.5, 1 / (2 * np.pi), 0.0])
    c = 0.3

    def integrand(b: float, a: float) -> float:
        quadratic = (a * a - 2 * c * a * b + b * b) / (2 * (1 - c * c))
        return a * b * math.exp(-quadratic) / (2 * np.pi * math.sqrt(1 - c * c))

    wanted = integrate.dblquad(integrand, 0, 9, 0, 9)[0]
    assert float(attention.arc_cosine(np.array(c))) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("keys", [1, 3])
def test_features_are_those_of_a_loop(keys: int) -> None:
    """With one key it is a network with random features on x̃_0 ⊗ x̃_1, times x̃_1."""
    x, weights = units(0, 4, keys, 3), attention.query_keys(1, 5, 3)
    found = attention.attention_features(x, weights)
    assert found.shape == (4, 5, 4)
    for n in range(4):
        query = [*x[n, 0], 1.0]
        for m in range(5):
            wanted = np.zeros(4)
            for i in range(1, keys + 1):
                key = np.array([*x[n, i], 1.0])
                score = sum(
                    query[a] * weights[m, a, b] * key[b] for a in range(4) for b in range(4)
                )
                wanted += max(score, 0.0) * key / keys
            assert found[n, m] == pytest.approx(wanted, abs=1e-12)
    if keys == 1:
        both = attention.augmented(x)
        pairs = np.einsum("na,nb->nab", both[:, 0], both[:, 1]).reshape(4, -1)
        single = np.maximum(pairs @ weights.reshape(5, -1).T, 0)
        np.testing.assert_allclose(found, single[:, :, None] * both[:, 1][:, None], atol=1e-12)


def test_features_of_the_network_are_those_of_a_loop() -> None:
    x = units(2, 3, 2, 3)
    found = attention.mlp_features(x, 4, 6)
    u = attention.concatenated(x)
    assert u[1].tolist() == [*x[1, 0], *x[1, 1], *x[1, 2], 1.0]
    generator = np.random.default_rng(np.random.SeedSequence(4, spawn_key=(2,)))
    weights = 0.5 * generator.standard_normal((6, 10))
    for n in range(3):
        wanted = [max(float(w @ u[n]), 0.0) / 6**0.5 for w in weights]
        assert found[n] == pytest.approx(wanted)


def test_attention_does_not_see_the_order_of_the_keys() -> None:
    x = units(3, 6, 5, 4)
    turned = x[:, [0, 3, 1, 5, 2, 4]]
    for biased in (False, True):
        weights = attention.query_keys(0, 7, 4, biased=biased)
        one, other = (attention.attention_features(p, weights) for p in (x, turned))
        np.testing.assert_allclose(one, other, atol=1e-12)
    one, other = (attention.mlp_features(p, 0, 50) for p in (x, turned))
    assert np.abs(one - other).max() > 0.01
    first = attention.attention_kernel(x, x)
    np.testing.assert_allclose(attention.attention_kernel(x, turned), first, atol=1e-12)


def test_many_heads_have_the_closed_kernel() -> None:
    """The distance falls like the root of the number of heads."""
    x = units(5, 60, 8, 8).astype(np.float32)
    wanted = attention.attention_kernel(x, x)
    distances = np.zeros((2, 3))
    for place, heads in enumerate((100, 1600)):
        for seed in range(3):
            weights = attention.query_keys(seed, heads, 8)
            total = sum(block @ block.T for block in attention.head_features(x, weights))
            distances[place, seed] = np.linalg.norm(total - wanted) / np.linalg.norm(wanted)
    few, many = distances.mean(axis=1)
    assert many < 0.06
    assert 2.5 < few / many < 6.5
    features = attention.mlp_features(x, 7, 20000)
    network = attention.mlp_kernel(x, x)
    assert np.linalg.norm(features @ features.T - network) < 0.03 * np.linalg.norm(network)


def test_kernels_between_other_points_and_their_diagonals() -> None:
    x, other = units(8, 5, 3, 4), units(9, 4, 3, 4)
    both = np.concatenate([x, other])
    for kernel in (attention.attention_kernel, attention.mlp_kernel):
        np.testing.assert_allclose(kernel(x, other), kernel(both, both)[:5, 5:], atol=1e-12)
        assert np.linalg.eigvalsh(kernel(both, both)).min() > -1e-10
    assert np.diag(attention.mlp_kernel(x, x)) == pytest.approx(5 * 0.25 / 2)
    single = units(10, 5, 1, 4)  # one key: 2 · 4 s² A1(1)
    assert np.diag(attention.attention_kernel(single, single)) == pytest.approx(1.0)


def test_biased_heads_have_the_noise_of_the_others() -> None:
    plain, biased = (attention.query_keys(2, 3, 4, biased=b) for b in (False, True))
    for one, other in zip(plain, biased, strict=True):
        np.testing.assert_allclose(other - one, np.diag([1, 1, 1, 1, 0]), atol=1e-12)
    assert attention.query_keys(2, 2, 4).tolist() == plain[:2].tolist()
    assert np.var(attention.query_keys(0, 400, 9)) == pytest.approx(0.25, rel=0.03)
    with pytest.raises(ValueError, match="heads"):
        attention.query_keys(0, 0, 4)
    with pytest.raises(ValueError, match="d must be"):
        attention.query_keys(0, 2, 0)


def test_blocks_of_heads_are_all_heads() -> None:
    x, weights = units(11, 4, 3, 4), attention.query_keys(3, 7, 4)
    whole = attention.attention_features(x, weights).reshape(4, -1) / 7**0.5
    blocks = list(attention.head_features(x, weights, block=3))
    assert [block.shape for block in blocks] == [(4, 15), (4, 15), (4, 5)]
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), whole, atol=1e-12)
