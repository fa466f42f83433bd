"""data.long_sequences: laws, best rules and values against other routes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from rclib.data import long_sequences as tasks


def probability(bits: tuple[int, ...], flip: float) -> float:
    flips = sum(a != b for a, b in itertools.pairwise(bits))
    return 0.5 * flip**flips * (1 - flip) ** (len(bits) - 1 - flips)


def test_the_best_accuracies_over_all_strings() -> None:
    strings = list(itertools.product((0, 1), repeat=8))
    low, high = tasks.FLIPS
    both = [(probability(s, low), probability(s, high)) for s in strings]
    assert tasks.texture_bayes(8) == pytest.approx(sum(max(p, q) for p, q in both) / 2)
    ones = [[p ** sum(s) * (1 - p) ** (8 - sum(s)) for p in tasks.ONES] for s in strings]
    assert tasks.counting_bayes(8) == pytest.approx(sum(max(pair) for pair in ones) / 2)
    same, other = np.zeros(256), np.zeros(256)
    for k, s in enumerate(strings):
        halves = [
            [p ** sum(h) * (1 - p) ** (4 - sum(h)) for p in (0.2, 0.8)] for h in (s[:4], s[4:])
        ]
        same[k] = (halves[0][0] * halves[1][0] + halves[0][1] * halves[1][1]) / 4
        other[k] = (halves[0][0] * halves[1][1] + halves[0][1] * halves[1][0]) / 4
    assert tasks.retrieval_bayes(8) == pytest.approx(np.maximum(same, other).sum())


def test_numbers_of_the_texture_task() -> None:
    assert tasks.flip_threshold(32) == pytest.approx(8.12, abs=0.005)
    assert tasks.texture_bayes(32) == pytest.approx(0.946, abs=5e-4)
    assert tasks.texture_bayes(16) == pytest.approx(0.866, abs=5e-4)
    assert tasks.counting_bayes(32) == pytest.approx(0.872, abs=2e-3)


def test_posteriors_of_hidden_bits_over_all_strings() -> None:
    """Forward and backward messages against the sum over all strings of both chains."""
    length = 6
    strings = np.array(list(itertools.product((0, 1), repeat=length)))
    flipped = (strings[:, 1:] != strings[:, :-1]).sum(1)
    both = sum(p**flipped * (1 - p) ** (length - 1 - flipped) for p in tasks.FLIPS)
    generator = np.random.default_rng(3)
    x, _ = tasks.texture(5, 40, length)
    hidden = generator.random(x.shape) < 0.5
    found = tasks.texture_posterior(x, hidden)
    for row, dark, posterior in zip(x, hidden, found, strict=True):
        fits = (strings[:, ~dark] == row[~dark]).all(1) * both
        np.testing.assert_allclose(posterior, (fits @ strings) / fits.sum(), atol=1e-12)


def test_the_lowest_denoising_loss() -> None:
    """Nothing is known of a lone chain's hidden bits; the loss of the posterior is its entropy."""
    assert tasks.texture_loss(8, 1.0) == pytest.approx(np.log(2))
    x, _ = tasks.texture(0, 4000, 32)
    hidden = np.random.default_rng(9).random(x.shape) < 0.5
    p = tasks.texture_posterior(x, hidden)
    right = np.where(x == 1, p, 1 - p)[hidden]
    assert -np.log(right).mean() == pytest.approx(tasks.texture_loss(32, 0.5), abs=0.01)


def test_best_rules_reach_their_accuracy() -> None:
    x, y = tasks.texture(3, 20000, 32)
    told = (x[:, 1:] != x[:, :-1]).sum(1) >= tasks.flip_threshold(32)
    assert np.mean(told == y) == pytest.approx(tasks.texture_bayes(32), abs=0.006)
    x, y = tasks.counting(3, 20000, 32)
    assert np.mean((x.sum(1) > 16) == y) == pytest.approx(0.86, abs=0.012)
    x, y = tasks.retrieval(3, 20000, 32)
    ones = x.reshape(-1, 2, 16).sum(2) > 8
    assert np.mean((ones[:, 0] == ones[:, 1]) == y) == pytest.approx(
        tasks.retrieval_bayes(32), abs=0.02
    )


def test_values_of_lists_by_hand() -> None:
    pad = tasks.PAD
    # MAX(3, MIN(7, 5), 2), SM(9, 4, 8), MED(1, 9, 4)
    assert tasks.list_value(np.array([10, 3, 11, 7, 5, 14, 2, 14, pad, pad])) == 5
    assert tasks.list_value(np.array([13, 9, 4, 8, 14])) == 1
    assert tasks.list_value(np.array([12, 1, 9, 4, 14])) == 4
    for wrong in ([10, 3], [10, 14], [3, 4], [14]):
        with pytest.raises(ValueError, match="symbols must"):
            tasks.list_value(np.array(wrong))


def test_lists_have_their_values_and_fit() -> None:
    x, y = tasks.list_operations(0, 200, 24)
    assert x.shape == (200, 24)
    assert [tasks.list_value(row) for row in x] == y.tolist()
    assert set(y.tolist()) == set(range(10))
    assert ((x >= 10) & (x < tasks.CLOSE)).sum(1).max() > 1  # some are nested


@pytest.mark.parametrize(
    "make", [tasks.texture, tasks.counting, tasks.retrieval, tasks.list_operations]
)
def test_a_seed_says_everything(make: Callable[..., tasks.Sequences]) -> None:
    (x, y), (again, _), (other, _) = make(1, 9, 12), make(1, 9, 12), make(2, 9, 12)
    assert (x == again).all()
    assert x.dtype == y.dtype == np.int64
    assert (x != other).any()
    with pytest.raises(ValueError, match="n must be"):
        make(1, 0, 12)


def test_lengths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="length must be even, got 7"):
        tasks.retrieval(0, 4, 7)
    with pytest.raises(ValueError, match="length must be at least 6"):
        tasks.list_operations(0, 4, 5)
