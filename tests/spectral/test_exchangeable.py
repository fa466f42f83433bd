"""spectral.exchangeable: against arrays of known shares, sums over pairs, and plain numpy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from rclib.spectral.exchangeable import (
    decompose,
    four_cycle_excess,
    given_start,
    kernel_values,
    own_start,
)

Rng = np.random.Generator


def array(
    rng: Rng, m: int, n: int, row: float, column: float, inner: Sequence[float], residual: float
) -> np.ndarray:
    """X_ij = 0.7 + r_i + c_j + Σ_k a_ki b_kj + e_ij of these variances."""
    x = 0.7 + math.sqrt(residual) * rng.standard_normal((m, n))
    x += math.sqrt(row) * rng.standard_normal((m, 1)) + math.sqrt(column) * rng.uniform(
        -(3**0.5), 3**0.5, (1, n)
    )
    for variance in inner:
        x += math.sqrt(variance) * np.outer(rng.standard_normal(m), rng.choice([-1.0, 1.0], n))
    return x


def absolute(shares: Any) -> np.ndarray:
    parts = (shares.row, shares.column, shares.interaction, shares.residual)
    return np.array(parts) * shares.variance


@pytest.mark.parametrize(
    ("m", "n", "row", "column", "inner", "residual"),
    [
        (60, 40, 0.2, 0.1, (0.3, 0.1), 0.3),
        (30, 90, 0.0, 0.5, (), 0.5),
        (80, 80, 0.0, 0.0, (0.4,), 0.6),
    ],
)
def test_known_shares_on_average(
    m: int, n: int, row: float, column: float, inner: tuple[float, ...], residual: float
) -> None:
    """The mean over draws lies within four of its standard errors."""
    rng = np.random.default_rng(m)
    found = np.array(
        [
            absolute(decompose(array(rng, m, n, row, column, inner, residual)).shares)
            for _ in range(80)
        ]
    )
    error = found.std(0, ddof=1) / len(found) ** 0.5
    truth = np.array([row, column, sum(inner), residual])
    assert np.all(np.abs(found.mean(0) - truth) <= 4 * error + 1e-9)
    assert np.all(error < 0.02)  # so that the line above says something


def pairs_by_loops(x: np.ndarray) -> tuple[float, float, float]:
    """Row, column and inner variance from means of products over all pairs of entries."""
    places = list(itertools.product(*map(range, x.shape)))
    sums: dict[tuple[bool, bool], list[float]] = {}
    for (i, j), (k, m) in itertools.product(places, places):
        sums.setdefault((i == k, j == m), []).append(x[i, j] * x[k, m])
    entry, same_row, same_column, none = (
        float(np.mean(sums[key]))
        for key in ((True, True), (True, False), (False, True), (False, False))
    )
    return same_row - none, same_column - none, entry - same_row - same_column + none


def test_variances_are_means_over_pairs_and_those_of_the_analysis_of_variance() -> None:
    x = array(np.random.default_rng(0), 5, 7, 0.5, 0.5, (0.5,), 1.0)
    m, n = x.shape
    shares = decompose(x).shares
    row, column, rest, _ = absolute(shares)
    inner = rest + absolute(shares)[3]
    assert (row, column, inner) == pytest.approx(pairs_by_loops(x))
    # Henderson's method: expected mean squares of the two-way layout.
    rows, columns = x.mean(1) - x.mean(), x.mean(0) - x.mean()
    left = x - x.mean() - rows[:, None] - columns
    square = np.square(left).sum() / ((m - 1) * (n - 1))
    assert inner == pytest.approx(square)
    assert row == pytest.approx((n * np.square(rows).sum() / (m - 1) - square) / n)
    assert column == pytest.approx((m * np.square(columns).sum() / (n - 1) - square) / m)


def test_shares_do_not_depend_on_order_shift_scale_or_side() -> None:
    rng = np.random.default_rng(1)
    x = array(rng, 40, 60, 0.3, 0.1, (0.5,), 0.4)
    before = decompose(x)
    moved = decompose(7.0 - 3.0 * x[rng.permutation(40)][:, rng.permutation(60)])
    assert absolute(moved.shares) == pytest.approx(9 * absolute(before.shares))
    assert moved.strengths == pytest.approx(3 * before.strengths)
    turned = decompose(torch.from_numpy(x.T)).shares
    assert (turned.row, turned.column) == pytest.approx((before.shares.column, before.shares.row))
    assert turned.interaction == pytest.approx(before.shares.interaction, rel=1e-6)


def test_residual_has_neither_means_nor_the_outer_products() -> None:
    x = array(np.random.default_rng(2), 50, 40, 1.0, 1.0, (2.0, 1.0), 1.0)
    found = decompose(x)
    assert len(found.strengths) == 2
    assert np.all(np.diff(found.strengths) < 0)
    assert np.abs(found.residual.mean(0)).max() < 1e-12
    assert np.abs(found.residual.mean(1)).max() < 1e-12
    values = np.linalg.svd(found.residual, compute_uv=False)
    assert values[37:] == pytest.approx(0.0, abs=1e-10)  # 40, less 2 and the mean
    assert values[36] > 0.01


def test_outer_products_alone_and_main_effects_alone_leave_no_residual() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 30))
    shares = decompose(np.outer(a, b)).shares
    inner = np.square(np.outer(a - a.mean(), b - b.mean())).sum() / 29**2
    assert shares.interaction * shares.variance == pytest.approx(inner)
    assert shares.residual == pytest.approx(0.0, abs=1e-9)
    shares = decompose(a[:, None] + np.zeros((1, 20))).shares
    assert shares.row == pytest.approx(1.0)
    assert shares.interaction == 0.0


def test_the_start_known_gives_the_same_shares() -> None:
    rng = np.random.default_rng(4)
    start = rng.uniform(-1, 1, (120, 100)) + 5.0
    change = array(rng, 120, 100, 0.2, 0.1, (0.3, 0.2), 0.0)
    own = own_start(change - 0.1 * start, start, products=4)
    assert own == pytest.approx(-0.1, abs=1e-6)
    trained = start + change - 0.1 * start
    alone, known = decompose(trained).shares, given_start(trained, start, own=own)
    assert absolute(known) == pytest.approx(absolute(alone), abs=0.01)
    assert known.residual * known.variance == pytest.approx(0.81 / 3, rel=0.03)
    untouched = given_start(start, start, own=0.0)
    assert untouched.residual == pytest.approx(1.0, abs=0.01)
    assert untouched.interaction == pytest.approx(0.0, abs=1e-9)


def test_own_start_is_the_regression_off_the_outer_products() -> None:
    """Against a least-squares fit in the complement, written out."""
    rng = np.random.default_rng(5)
    start, change = rng.standard_normal((2, 12, 9))
    u, _, vt = np.linalg.svd(change)
    centred = start - start.mean()
    inside, moved = u[:, 3:].T @ centred @ vt[3:].T, u[:, 3:].T @ change @ vt[3:].T
    fit = np.linalg.lstsq(inside.reshape(-1, 1), moved.ravel(), rcond=None)[0]
    assert own_start(change, start, products=3) == pytest.approx(float(fit[0]))
    whole = np.linalg.lstsq(centred.reshape(-1, 1), change.ravel(), rcond=None)[0]
    assert own_start(change, start, products=0) == pytest.approx(float(whole[0]))


def test_kernel_values_of_two_widths_are_those_of_one_operator() -> None:
    """w(u, v) = u v + u² v² / 2 with u, v ~ N(0, 1): as a mean over u and v it has the Gram
    matrix of moments E[(v, v²)^T (v, v²)] = diag(1, 3), so values 1 and 3/2."""
    rng = np.random.default_rng(6)
    for n, tolerance in ((200, 0.35), (1200, 0.15)):
        u, v = rng.standard_normal((2, n // 2)), rng.standard_normal((2, n))
        kernel = np.outer(u[0], v[0]) + np.outer(u[0] ** 2, v[0] ** 2) / 2
        found = kernel_values(kernel, multiplier=1 / n, top=3)
        assert found == pytest.approx([1.5, 1.0, 0.0], abs=tolerance)
    w = rng.standard_normal((6, 4))
    values = np.linalg.svd(4 * 0.3 * w, compute_uv=False) / math.sqrt(24)
    assert kernel_values(w, multiplier=-0.3, top=4) == pytest.approx(values)


@pytest.mark.parametrize("law", ["standard_normal", "laplace", "uniform"])
def test_independent_entries_have_no_excess(law: str) -> None:
    rng = np.random.default_rng(7)
    found = []
    for _ in range(200):
        x = getattr(rng, law)(size=(30, 20)) - (0.5 if law == "uniform" else 0.0)
        found.append(four_cycle_excess(x, centred=False, permutations=2).value)
    # The kurtosis is that of the entries, so up to a term of order 1 / (m n).
    assert abs(np.mean(found)) < 4 * np.std(found) / 200**0.5 + 0.002
    assert np.std(found) < 0.05


def test_spread_is_that_of_independent_entries() -> None:
    rng = np.random.default_rng(8)
    found = [
        four_cycle_excess(rng.standard_normal((40, 40)), centred=False, seed=i) for i in range(60)
    ]
    assert np.std([one.value for one in found]) == pytest.approx(
        np.mean([one.spread for one in found]), rel=0.35
    )


def test_what_was_taken_out_leaves_no_excess_and_what_was_left_in_does() -> None:
    rng = np.random.default_rng(9)
    clean, kept = [], []
    for _ in range(40):
        part = decompose(array(rng, 60, 50, 0.5, 0.5, (1.0, 0.5), 1.0))
        clean.append(four_cycle_excess(part.residual, removed=2, permutations=2).value)
        left_in = part.residual + 0.4 * np.outer(*(rng.choice([-1.0, 1.0], k) for k in (60, 50)))
        kept.append(four_cycle_excess(left_in, removed=2, permutations=2).value)
    assert abs(np.mean(clean)) < 0.01
    assert np.mean(kept) > 0.1


def test_rows_of_unequal_variance_are_an_excess() -> None:
    """E tr (R^T R)² = (m - 1) m n s̄² + ..., with row variances v_i: Σ_i≠k v_i v_k n + n² Σ v_i²
    (up to the fourth moments), against all v_i equal."""
    rng = np.random.default_rng(10)
    m, n = 200, 200
    variances = np.where(np.arange(m) < m // 2, 0.5, 1.5)
    x = np.sqrt(variances)[:, None] * rng.standard_normal((m, n))
    total, squares = variances.sum(), np.square(variances).sum()
    expected = (n * (total**2 - squares) + squares * n * (n - 1 + 3)) / (m * n)
    kurtosis = 3 * squares / m
    excess = expected / (m + n - 2 + kurtosis) - 1
    found = four_cycle_excess(x, centred=False)
    assert found.value == pytest.approx(excess, abs=4 * found.spread)
    assert found.value > 10 * found.spread


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: decompose(x[:3]), "X must be a matrix of at least 4 x 4"),
        (lambda x: decompose(x[0]), "X must be a matrix"),
        (lambda x: decompose(np.ones((5, 5))), "X must vary"),
        (lambda x: decompose(x * np.nan), "X must be finite"),
        (lambda x: decompose(x * 1e70), "X must have its largest entry"),
        (lambda x: given_start(x, x[:5], own=0.0), "start must have the shape"),
        (lambda x: given_start(x, x, own=math.inf), "own must lie in"),
        (lambda x: own_start(x, x[:5], products=1), "start must have the shape"),
        (lambda x: own_start(x, x, products=6), "products must lie below 6"),
        (lambda x: own_start(x, np.ones_like(x), products=1), "start must vary"),
        (lambda x: kernel_values(x, multiplier=1.0, top=7), "top must lie in 1 ... 6"),
        (lambda x: kernel_values(x, multiplier=math.inf, top=1), "multiplier must lie in"),
        (lambda x: four_cycle_excess(x, removed=4), "removed and centred must leave residual"),
        (lambda x: four_cycle_excess(x, permutations=1), "permutations must be"),
        (lambda x: four_cycle_excess(x * 0), "residual must not be zero"),
    ],
)
def test_wrong_arguments_are_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0).standard_normal((6, 8)))
