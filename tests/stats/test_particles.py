"""Effective sizes and systematic draws: counts that the definition fixes."""

from __future__ import annotations

import numpy as np
import pytest

from rclib.stats.particles import effective_size, systematic


def test_effective_sizes() -> None:
    found = effective_size([[1.0, 1.0, 1.0, 1.0], [0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(found, [4, 1, 0])
    assert effective_size([2e-200, 1e-200]) == pytest.approx(9 / 5)


def test_systematic_draws_are_even_and_unbiased() -> None:
    random = np.random.default_rng(0)
    w = random.dirichlet(np.ones(8))
    w[3] = 0.0
    drawn = systematic(np.tile(5 * w, (20_000, 1)), random)
    counts = (drawn[:, :, None] == np.arange(8)).sum(1)
    expected = 8 * w / w.sum()
    assert (np.abs(counts - expected) < 1 + 1e-9).all()
    np.testing.assert_allclose(counts.mean(0), expected, atol=0.02)
    assert (counts[:, 3] == 0).all()


def test_arguments() -> None:
    with pytest.raises(ValueError, match="not negative"):
        effective_size([-1.0, 2.0])
    with pytest.raises(ValueError, match="positive one"):
        systematic([[0.0, 0.0]], np.random.default_rng(0))
