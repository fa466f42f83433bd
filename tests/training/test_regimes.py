"""training.regimes: what stays equal when batches grow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rclib.training.regimes import Regime, clip_factors

SMALL = Regime.of_epochs(batch=16, rate=0.05, epochs=8, n=1024)


def test_the_longer_regime_has_the_updates_of_the_small_batch_in_every_phase() -> None:
    assert Regime(16, 16, 0.05, 512, (256, 384)) == SMALL
    longer = SMALL.larger(32, root=True, ghosts=True, longer=True)
    assert (longer.batch, longer.ghost) == (512, 16)
    assert longer.rate == pytest.approx(0.05 * np.sqrt(32))
    assert (longer.updates, longer.drops) == (SMALL.updates, SMALL.drops)
    np.testing.assert_array_equal(longer.factors(), SMALL.factors())
    assert longer.epochs(1024) == 32 * SMALL.epochs(1024) == 256
    assert longer.samples == 32 * SMALL.samples


def test_otherwise_the_epochs_stay_and_phases_end_at_the_same_sample() -> None:
    large = SMALL.larger(32)
    assert (large.batch, large.ghost, large.rate) == (512, 512, 0.05)
    assert (large.updates, large.drops) == (16, (8, 12))
    assert [d * 512 for d in large.drops] == [d * 16 for d in SMALL.drops]
    assert large.samples == SMALL.samples
    assert SMALL.larger(32, ghosts=True).ghost == 16
    assert SMALL.larger(1, root=True, ghosts=True, longer=True) == SMALL


def test_the_rate_drops_by_ten_at_each_phase() -> None:
    factors = Regime(4, 2, 1.0, 6, (2, 5)).factors()
    np.testing.assert_allclose(factors, [1, 1, 0.1, 0.1, 0.1, 0.01])
    np.testing.assert_array_equal(Regime(4, 4, 1.0, 3).factors(), 1.0)
    assert Regime(4, 2, 1.0, 6, (2, 5)).plain() == {
        "batch": 4, "ghost": 2, "rate": 1.0, "updates": 6, "drops": [2, 5],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"ghost": 3}, "ghost must divide the batch of 4, got 3"),
        ({"rate": 0.0}, "rate must be positive"),
        ({"drops": (6,)}, "drops must grow below 6 updates"),
        ({"drops": (3, 2)}, "drops must grow"),
        ({"updates": 0}, "updates"),
    ],
)
def test_what_is_out_of_range_is_named(given: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Regime(**({"batch": 4, "ghost": 2, "rate": 1.0, "updates": 6} | given))


def test_regimes_that_end_between_updates_are_refused() -> None:
    with pytest.raises(ValueError, match="batch must divide the 1000 samples, got 16"):
        Regime.of_epochs(batch=16, rate=0.1, epochs=1, n=1000)
    with pytest.raises(ValueError, match="updates must end at a whole number of updates"):
        Regime(4, 4, 1.0, 4).larger(3)
    with pytest.raises(ValueError, match=r"drops must end at a whole number of updates, got 0\.5"):
        Regime(4, 4, 1.0, 4, (1,)).larger(2)
    with pytest.raises(ValueError, match="epochs must end"):
        Regime.of_epochs(batch=16, rate=0.1, epochs=0.01, n=64)


def test_clipping_is_that_of_torch() -> None:
    gradients = [torch.randn(3, 4, 5), 0.01 * torch.randn(3, 6)]
    gradients[0][2] = 0.0
    factors = clip_factors(gradients, 1.0)
    for s in range(3):
        leaves = [torch.zeros_like(g[s], requires_grad=True) for g in gradients]
        for leaf, g in zip(leaves, gradients, strict=True):
            leaf.grad = g[s].clone()
        torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        for leaf, g in zip(leaves, gradients, strict=True):
            torch.testing.assert_close(leaf.grad, g[s] * factors[s])
    assert factors[2] == 1.0
    with pytest.raises(ValueError, match="most must be positive, got 0"):
        clip_factors(gradients, 0)
