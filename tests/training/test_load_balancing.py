"""training.load_balancing against sorting, the linear program and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rclib.training import load_balancing as lb


@pytest.mark.parametrize(("E", "K"), [(3, 1), (5, 2), (6, 4), (4, 4)])
def test_route_agrees_with_sorting(E: int, K: int) -> None:
    scores = np.random.default_rng(E).standard_normal((E, 2, 30))
    chosen, best = lb.route(scores, K)
    np.testing.assert_allclose(best, np.sort(scores, axis=0)[-K:].sum(0), rtol=1e-13)
    np.testing.assert_array_equal(chosen.sum(0), K)
    np.testing.assert_allclose((scores * chosen).sum(0), best, rtol=1e-13)


def test_of_equal_scores_the_first_is_chosen() -> None:
    scores = np.array([[1.0, 0.0], [1.0, 2.0], [1.0, 0.0], [0.5, 0.0]])
    chosen, best = lb.route(scores, 2)
    np.testing.assert_array_equal(chosen.T, [[True, True, False, False]] * 2)
    np.testing.assert_array_equal(best, [2.0, 2.0])


@pytest.mark.parametrize("K", [0, 4])
def test_K_must_fit(K: int) -> None:
    with pytest.raises(ValueError, match=rf"K must lie in 1 \.\.\. 3, got {K}"):
        lb.route(np.zeros((3, 2)), K)
    with pytest.raises(ValueError, match=rf"K must lie in 1 \.\.\. 3, got {K}"):
        lb.optimum(np.zeros((3, 6)), K)


def test_the_minimum_of_D_is_the_value_of_the_program() -> None:
    """By steps on the shifts, and by HiGHS, which gives whole assignments."""
    gamma = np.random.default_rng(1).random((6, 48)) ** np.arange(1, 7)[:, None]
    found = lb.optimum(gamma, 2)
    assert found.fractional == 0
    np.testing.assert_allclose(found.choices.sum(0), 2, atol=1e-9)
    np.testing.assert_allclose(found.choices.sum(1), 16, atol=1e-9)
    assert (gamma * found.choices).sum() == pytest.approx(found.value, abs=1e-9)
    rule = lb.StepRules([{"kind": "load", "u": 0.3, "power": 1}], T=48, L=16)
    p = np.zeros((6, 1))
    for n in range(1, 2001):
        value, loads, chosen = lb.dual(gamma[:, None], p, 2)
        assert value[0] >= found.value - 1e-9  # weak duality
        p = p - rule(loads, n)
    assert value[0] == pytest.approx(found.value, abs=1e-6)
    np.testing.assert_array_equal(chosen[:, 0], found.choices > 0.5)


def test_two_experts_in_closed_form() -> None:
    """K = 1: half of the tokens have γ_1 - γ_2 above its median, which is p_2 - p_1."""
    gamma = np.random.default_rng(2).random((2, 40))
    median = float(np.median(gamma[0] - gamma[1]))
    value, loads, chosen = lb.dual(gamma, np.array([-median, 0.0]), 1)
    np.testing.assert_array_equal(loads, [20, 20])
    np.testing.assert_array_equal(chosen[0], gamma[0] - gamma[1] > median)
    assert value == pytest.approx(lb.optimum(gamma, 1).value, abs=1e-9)


def test_the_subgradient_is_the_excess_of_load() -> None:
    random = np.random.default_rng(3)
    gamma, p = random.random((5, 30)), 0.1 * random.standard_normal(5)
    loads = lb.dual(gamma, p, 2)[1]
    for k, h in enumerate(1e-6 * np.eye(5)):
        slope = (lb.dual(gamma, p + h, 2)[0] - lb.dual(gamma, p - h, 2)[0]) / 2e-6
        assert slope == pytest.approx(loads[k] - 12, abs=1e-6)


def test_a_constant_moves_nothing() -> None:
    random = np.random.default_rng(4)
    gamma, p = random.random((5, 30)), random.standard_normal(5)
    one, other = lb.dual(gamma, p, 2), lb.dual(gamma, p + 0.7, 2)
    assert one[0] == pytest.approx(other[0])
    np.testing.assert_array_equal(one[2], other[2])


def test_swaps_by_hand() -> None:
    before = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]], dtype=bool)
    after = np.array([[1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]], dtype=bool)
    expected = np.zeros((4, 4))
    expected[1, 2] = expected[0, 3] = 1
    np.testing.assert_array_equal(lb.swaps(before, after), expected)


@pytest.mark.parametrize("kind", lb.KINDS)
def test_tokens_change_only_to_experts_that_rose_against_theirs(kind: str) -> None:
    """The preference rule, by step size and not by sign of load."""
    random = np.random.default_rng(5)
    gamma, p = random.random((6, 200)) + 0.3 * random.standard_normal((6, 1)), np.zeros((6, 1))
    rule = lb.StepRules([{"kind": kind, "u": 0.02}], T=200, L=200 / 3)
    seen = 0.0
    _, loads, before = lb.dual(gamma[:, None], p, 2)
    for n in range(1, 60):
        step = rule(loads, n)
        p = p - step
        _, loads, after = lb.dual(gamma[:, None], p, 2)
        pairs = lb.swaps(before[:, 0], after[:, 0])
        rose = step[:, 0][:, None] > step[:, 0][None]  # p_k' against p_k, by [k, k']
        assert pairs[~rose].sum() == 0
        seen, before = seen + pairs.sum(), after
    assert seen > 50


def test_rules_by_hand() -> None:
    rules = [{"kind": "sign", "u": 0.1}, {"kind": "load", "u": 0.1, "power": 1},
             {"kind": "tokens", "u": 0.1, "power": 0.5}]  # fmt: skip
    loads = np.array([6.0, 4.0, 2.0])[:, None] * np.ones(3)
    moved = lb.StepRules(rules, T=12, L=4.0)(loads, 4)
    np.testing.assert_allclose(moved[:, 0], [0.1, 0, -0.1])
    np.testing.assert_allclose(moved[:, 1], [0.0125, 0, -0.0125])
    np.testing.assert_allclose(moved[:, 2], [0.1 / 12, 0, -0.1 / 12])
    np.testing.assert_allclose(lb.max_violation(loads), 0.5)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"kind": "other", "u": 1}, "kind must be one of .*, got 'other'"),
        ({"kind": "sign", "u": -1}, "u must be at least 0, got -1"),
        ({"kind": "sign", "u": 1, "power": -1}, "power must be at least 0, got -1"),
    ],
)
def test_rules_that_are_none(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lb.StepRules([rule], T=4, L=2)
