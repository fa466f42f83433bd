"""Stored runs of notebook 93 on affinities that are drawn: one batch for ever, and fresh batches.

Arrays have experts first, as in `rclib.training.load_balancing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rclib.runs.store import Arrays
from rclib.training.load_balancing import StepRules, dual, max_violation, optimum, swaps

__all__ = ["affinities", "evaluated", "fixed_runs", "fresh_runs"]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Rules = Sequence[Mapping[str, Any]]
SCORES = ("sigmoid", "softmax")
NEAR = {"kind": "load", "u": 0.3, "power": 1}  # with which the minimum of D is found


def affinities(
    random: np.random.Generator, score: str, *, T: int, E: int, offsets: float = 1.0
) -> Floats:
    """(E, T): sigmoid, or softmax over experts, of N(0, 1) plus an offset N(0, offsets²) an
    expert. Raises ValueError for another score."""
    if score not in SCORES:
        raise ValueError(f"score must be one of {SCORES}, got {score!r}")
    z = random.standard_normal((E, T)) + offsets * random.standard_normal((E, 1))
    if score == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-z)))
    weights = np.exp(z - z.max(0))
    return np.asarray(weights / weights.sum(0))


def fixed_runs(
    data: None, *, seed: int, score: str, rules: Rules, T: int, E: int, K: int, steps: int,
    n_flat: int,
) -> Arrays:  # fmt: skip
    """R rules on one batch of T tokens, from p = 0.

    rules : of `StepRules`; one with `shifted` gets the loads of the next expert instead.
    n_flat : tokens of a batch without offsets, which is routed once.

    Returns, by rule and iteration (R, steps): violation (MaxVio), gap (D minus the program's
    value), rise (D grows in this step). By rule: error (largest deviation from the change of D
    that the identity gives), kinds (R, 3, 3), swaps from experts with too many, their share and too
    few tokens to such, ranked (R, E, E), the same by rank of load, largest first, both for rules
    by sign alone; shifts (R, E), drift (R,), the sum of them. Besides: value, fractional, of the
    linear program; loads (E,) at p = 0; flat, MaxVio without offsets.
    """
    random = np.random.default_rng([seed, SCORES.index(score)])
    gamma = affinities(random, score, T=T, E=E)
    flat = dual(affinities(random, score, T=n_flat, E=E, offsets=0), np.zeros(E), K)[1]
    best, L, R = optimum(gamma, K), K * T / E, len(rules)
    change = StepRules(rules, T=T, L=L)
    signs = [r for r, rule in enumerate(rules) if rule["kind"] == "sign"]
    turned = np.array([bool(rule.get("shifted")) for rule in rules])
    p, gamma = np.zeros((E, R)), gamma[:, None]
    found: dict[str, Floats] = {name: np.zeros((R, steps)) for name in ("violation", "gap", "rise")}
    error, kinds, ranked = np.zeros(R), np.zeros((R, 3, 3)), np.zeros((R, E, E))
    value, loads, chosen = dual(gamma, p, K)
    first = loads[:, 0]
    for n in range(steps):
        found["violation"][:, n], found["gap"][:, n] = max_violation(loads), value - best.value
        step = change(np.where(turned, np.roll(loads, -1, axis=0), loads), n + 1)
        p = p - step
        before = value, loads, chosen
        value, loads, chosen = dual(gamma, p, K)
        paid = (step * (before[1] - L)).sum(0)
        moved = np.logical_xor(chosen, before[2])
        gain = np.where(moved, np.where(chosen, 1.0, -1.0) * (gamma + p[..., None]), 0.0)
        predicted = gain.sum((0, 2)) - paid
        error = np.maximum(error, np.abs(value - before[0] - predicted))
        found["rise"][:, n] = predicted > 1e-10
        for r in signs:
            if not moved[:, r].any():
                continue
            pairs = swaps(before[2][:, r], chosen[:, r])
            excess = before[1][:, r] - L
            state = np.sign(excess)[:, None] == np.array([1, 0, -1])
            kinds[r] += state.T.astype(float) @ pairs @ state
            order = np.argsort(-excess, kind="stable")
            ranked[r] += pairs[np.ix_(order, order)]
    return {
        **found, "error": error, "kinds": kinds, "ranked": ranked, "shifts": p.T.copy(),
        "drift": p.sum(0), "value": np.array(best.value), "fractional": np.array(best.fractional),
        "loads": first, "flat": np.array(max_violation(flat)),
    }  # fmt: skip


def evaluated(steps: int, every: int) -> list[int]:
    """Iterations, from 0, at which the expectation is evaluated: all of the first 30, then each
    `every`-th."""
    return [*range(min(30, steps)), *range(30, steps, every)]


def fresh_runs(
    data: None, *, seed: int, score: str, rules: Rules, T: int, E: int, K: int, n_tokens: int,
    steps: int, every: int, n_best: int,
) -> Arrays:  # fmt: skip
    """R rules on batches of T tokens that are drawn with replacement from n_tokens, from p = 0.

    So F, the mean of D / T over batches, is D / n_tokens on all tokens, and the gap to its minimum
    has no error of sampling. every : F is evaluated at the iterations of `evaluated` and held until
    the next. n_best : iterations that look for its minimum.

    Returns at (P,), iterations done; regret (R, P), the sum of F(p_n) - min F until then; violation
    (R,), MaxVio of batches in the last tenth; floor, that of the same batches at the minimum.
    """
    random = np.random.default_rng([seed, 7, SCORES.index(score)])
    gamma = affinities(random, score, T=n_tokens, E=E)
    near = StepRules([NEAR], T=n_tokens, L=K * n_tokens / E)
    q, best, at_best = np.zeros((E, 1)), np.inf, np.zeros(E)
    for n in range(n_best):
        value, loads, _ = dual(gamma[:, None], q, K)
        if value[0] < best:
            best, at_best = float(value[0]), q[:, 0]
        q = q - near(loads, n + 1)
    change, R = StepRules(rules, T=T, L=K * T / E), len(rules)
    p, looked = np.zeros((E, R)), evaluated(steps, every)
    gaps, late = np.zeros((R, len(looked))), steps - max(1, steps // 10)
    violation, floor = np.zeros(R), 0.0
    for n in range(steps):
        if n in looked:
            gaps[:, looked.index(n)] = (dual(gamma[:, None], p, K)[0] - best) / n_tokens
        batch = gamma[:, random.integers(n_tokens, size=T)]
        loads = dual(batch[:, None], p, K)[1]
        if n >= late:
            violation += max_violation(loads) / (steps - late)
            own = dual(batch, at_best, K)[1]
            floor += float(max_violation(own)) / (steps - late)
        p = p - change(loads, n + 1)
    ends = np.array([*looked[1:], steps])
    return {
        "at": ends, "regret": np.cumsum(gaps * (ends - looked), axis=1), "violation": violation,
        "floor": np.array(floor),
    }  # fmt: skip


_RULES = [{"kind": "sign", "u": 0.01}, {"kind": "load", "u": 0.1, "power": 1}]
_SMALL = {"seed": 0, "score": "sigmoid", "rules": _RULES, "T": 16, "E": 4, "K": 2}
TINY: dict[str, dict[str, Any]] = {
    "fixed_runs": {**_SMALL, "steps": 6, "n_flat": 40},
    "fresh_runs": {**_SMALL, "n_tokens": 40, "steps": 40, "every": 5, "n_best": 10},
}
