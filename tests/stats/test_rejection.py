"""Draws under a constraint: against all orders, closed forms, and a program that only asks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rclib.stats.rejection import LAZY, METHODS, draw_rows, draw_token, mean_checks


class Ordered:
    """Stands for a generator: exponential numbers that make the clocks ring in given orders."""

    def __init__(self, p: np.ndarray, orders: list[tuple[int, ...]]) -> None:
        self.p, self.orders = p, iter(orders)

    def standard_exponential(self, shape: tuple[int, ...]) -> np.ndarray:
        rank = np.empty(len(self.p))
        rank[list(next(self.orders))] = np.arange(1.0, len(self.p) + 1)
        return (rank * self.p).reshape(shape)


def chance(p: np.ndarray, order: tuple[int, ...]) -> float:
    """Of drawing in this order without replacement."""
    left, found = 1.0, 1.0
    for j in order:
        found *= p[j] / left
        left -= p[j]
    return found


def orders_of(n: int) -> list[tuple[int, ...]]:
    return list(itertools.permutations(range(n)))


def every_draw(p: np.ndarray, method: str) -> Iterator[tuple[float, list[tuple[int, ...]]]]:
    """All pairs of orders (one order for "recursive") with their probabilities."""
    orders = orders_of(len(p))
    for one in orders:
        if method == "recursive":
            yield chance(p, one), [one]
        else:
            for two in orders:
                yield chance(p, one) * chance(p, two), [one, two]


@pytest.mark.parametrize("method", ["two runs", "recursive"])
@pytest.mark.parametrize("accepted", [[0], [1, 3], [0, 1, 2]])
def test_weights_are_unbiased_over_all_orders(method: str, accepted: list[int]) -> None:
    """The second run's order over all tokens, restricted to those that are left, is one without
    replacement of these; so all pairs of whole orders give the mean exactly."""
    p = np.array([0.45, 0.3, 0.17, 0.08])
    allowed = np.isin(np.arange(4), accepted)
    found, checks, first = np.zeros(4), 0.0, 0.0
    for share, orders in every_draw(p, method):
        fake: Any = Ordered(p, orders)
        draws = draw_rows(p[None], allowed[None], method, fake)
        token, weight = int(draws.token[0]), float(draws.weight[0])
        found[token] += share * weight
        checks += share * draws.checks[0]
        first += share * draws.first[0]
        lazy: Any = Ordered(p, orders)
        asked: list[int] = []
        again = draw_token(
            p, lambda j, asked=asked: bool(asked.append(j)) or bool(allowed[j]), method, lazy
        )
        assert again[0] == token
        assert again[1] == pytest.approx(weight, rel=1e-12)
        assert again[2] == len(asked) == draws.checks[0]
    np.testing.assert_allclose(found, np.where(allowed, p, 0.0), atol=1e-14)
    closed_first, closed = (float(v[0]) for v in mean_checks(p[None], allowed[None], method))
    assert first == pytest.approx(closed_first, rel=1e-12)
    if method == "two runs" or len(accepted) > 1:
        assert checks == pytest.approx(closed, rel=1e-12)
    else:
        assert closed - 1 <= checks < closed


def test_two_tokens_in_closed_form() -> None:
    a = 0.3
    p, allowed = np.array([[a, 1 - a]]), np.array([[True, False]])
    random = np.random.default_rng(0)
    draws = draw_rows(p.repeat(40_000, 0), allowed.repeat(40_000, 0), "two runs", random)
    for weight, share in ((1.0, a * a), (0.5, a * (1 - a)), (a / 2, 1 - a)):
        seen = np.isclose(draws.weight, weight).mean()
        assert abs(seen - share) < 4 * np.sqrt(share * (1 - share) / 40_000)
    draws = draw_rows(p.repeat(100, 0), allowed.repeat(100, 0), "recursive", random)
    np.testing.assert_allclose(draws.weight, a)


@pytest.mark.parametrize("method", METHODS)
def test_tokens_have_the_masked_law_and_weights_its_mass(method: str) -> None:
    random = np.random.default_rng(1)
    p = random.dirichlet(np.full(12, 0.5))
    allowed = np.arange(12) % 3 == 1
    n, z = 60_000, float(p[allowed].sum())
    draws = draw_rows(np.tile(p, (n, 1)), np.tile(allowed, (n, 1)), method, random)
    counts = np.bincount(draws.token, minlength=12)[allowed]
    assert stats.chisquare(counts, n * p[allowed] / z).pvalue > 1e-3
    assert abs(draws.weight.mean() - z) <= 4.5 * draws.weight.std() / np.sqrt(n) + 1e-12
    for token in np.flatnonzero(allowed)[:2]:  # jointly with the token
        own = draws.weight * (draws.token == token)
        assert abs(own.mean() - p[token]) < 4.5 * own.std() / np.sqrt(n)
    for mean, seen in zip(
        mean_checks(p[None], allowed[None], method), (draws.first, draws.checks), strict=True
    ):
        assert abs(seen.mean() - mean[0]) <= 4.5 * seen.std() / np.sqrt(n) + 1e-9


def test_the_order_is_that_of_draws_without_replacement() -> None:
    """P(first two = i, j) = p_i p_j / (1 - p_i), seen by what is asked."""
    random, p, n = np.random.default_rng(2), np.array([0.5, 0.3, 0.2]), 4_000
    seen = np.zeros((3, 3))
    for _ in range(n):
        asked: list[int] = []
        draw_token(p, lambda j, asked=asked: bool(asked.append(j)), "recursive", random)
        assert sorted(asked) == [0, 1, 2]
        seen[asked[0], asked[1]] += 1
    expected = n * p[:, None] * p / (1 - p[:, None])
    off = ~np.eye(3, dtype=bool)
    assert stats.chisquare(seen[off], expected[off]).pvalue > 1e-3


def test_geometric_numbers_stand_for_draws_with_replacement() -> None:
    """Mean Z and the variance of 1 / (1 + n) for two accepted draws with replacement."""
    random, p = np.random.default_rng(3), np.array([0.5, 0.2, 0.2, 0.1])
    found = [draw_token(p, lambda j: j > 1, "geometric", random) for _ in range(4_000)]
    tokens, w, calls = (np.array(values) for values in zip(*found, strict=True))
    z = 0.3
    var = z**2 * (-np.log(z) / (1 - z) - 1)
    assert abs(w.mean() - z) < 4.5 * np.sqrt(var / len(w))
    assert w.var() == pytest.approx(var, rel=0.12)
    assert (tokens == 2).mean() == pytest.approx(2 / 3, abs=0.03)
    assert calls.max() <= 4
    rows = draw_rows(
        np.tile(p, (20_000, 1)), np.tile([0, 0, 1, 1], (20_000, 1)), "rejection", random
    )
    assert rows.weight.var() == pytest.approx(var, rel=0.05)
    assert rows.checks.mean() == pytest.approx(2 / z, rel=0.03)


def test_tiny_masses_do_not_cancel() -> None:
    p = np.array([[1.0, 1e-18, 1e-20]])
    draws = draw_rows(p, [[False, True, True]], "recursive", np.random.default_rng(0))
    assert draws.weight[0] == pytest.approx(1.01e-18, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_accepted(method: str) -> None:
    p = np.array([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]])
    draws = draw_rows(
        p, [[False, False, True], [True, False, True]], method, np.random.default_rng(0)
    )
    assert draws.token[0] == -1
    assert draws.weight[0] == 0
    assert draws.token[1] in (0, 2)
    # The token without probability is not asked for.
    assert draws.checks[0] == {"masking": 3, "rejection": 1}.get(method, 2)


@pytest.mark.parametrize("method", LAZY)
def test_nothing_accepted_when_asked(method: str) -> None:
    found = draw_token([0.5, 0.5, 0.0], lambda j: j == 2, method, np.random.default_rng(0))
    assert found == (-1, 0.0, 2)


def test_arguments() -> None:
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="one shape"):
        draw_rows([[0.5, 0.5]], [True, False], "masking", random)
    with pytest.raises(ValueError, match="not negative"):
        mean_checks([[0.0, 0.0]], [[True, False]], "masking")
    with pytest.raises(ValueError, match="method"):
        draw_rows([[1.0]], [[True]], "geometric", random)
    with pytest.raises(ValueError, match="method"):
        draw_token([1.0], bool, "masking", random)
    assert np.isinf(mean_checks([[1.0]], [[False]], "rejection")[0]).all()
