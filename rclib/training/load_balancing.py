"""Load balancing of sparse experts without an auxiliary loss: shifts as dual variables.

T tokens have affinities γ in [0, 1] to E experts. Every token is to get K of them and every expert
its share L = K T / E, at the largest total affinity:

    max Σ γ_ki x_ki  with  Σ_k x_ki = K for each token i, Σ_i x_ki = L for each expert k, 0 ≤ x ≤ 1.

With the experts' constraints in the Lagrangian, shifts p_k are added to the affinities and

    D(p) = Σ_i (sum of the K largest of γ_ki + p_k) - L Σ_k p_k

is convex, piecewise linear and above the largest total; its subgradient is A(p) - L, with A_k the
tokens that expert k gets. A step p_k -= ε_k (A_k - L) changes it by

    D(p') - D(p) = -Σ_k ε_k (A_k - L)² + Σ (affinity with shift p', after minus before),

the last sum over the tokens that change an expert; each of its terms is positive. A token changes
from k to k' only if p_k' rises against p_k.

Arrays have experts first: affinities (E, ..., T), shifts (E, ...), choices (E, ..., T) bool.

Sources: Han and Zhong, "A Theoretical Framework for Auxiliary-Loss-Free Load Balancing" (arXiv
2512.03915), for the program, its Lagrangian and the step rules; Wang, Gao, Zhao, Sun and Dai,
"Auxiliary-loss-free load balancing strategy for mixture-of-experts" (arXiv 2408.15664), for the
rule by sign and MaxVio. The change of D in one step is worked out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, sparse

__all__ = ["KINDS", "Optimum", "StepRules", "dual", "max_violation", "optimum", "route", "swaps"]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
KINDS = ("sign", "load", "tokens")


def route(scores: Floats, K: int) -> tuple[Bools, Floats]:
    """The K largest of scores (E, ...) along the first axis, and their sum (...).

    Of equal scores the first expert is chosen. Raises ValueError for a K outside 1 ... E.
    """
    if not 1 <= K <= len(scores):
        raise ValueError(f"K must lie in 1 ... {len(scores)}, got {K}")
    # A network of comparisons: `best` holds the largest so far, in order. Much faster than sorting
    # short columns.
    best = [np.full(scores.shape[1:], -np.inf) for _ in range(K)]
    for row in scores:
        left = row
        for j in range(K):
            lower = np.minimum(best[j], left) if j + 1 < K else left
            best[j] = np.maximum(best[j], left)
            left = lower
    chosen = scores >= best[-1]
    if int(np.count_nonzero(chosen)) != K * best[0].size:  # ties
        order = np.argsort(-scores, axis=0, kind="stable")[:K]
        chosen = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(chosen, order, True, axis=0)
    return chosen, np.sum(best, axis=0)


def dual(affinities: Floats, shifts: Floats, K: int) -> tuple[Floats, Floats, Bools]:
    """D (...), loads A (E, ...) and choices (E, ..., T) at shifts (E, ...).

    affinities : (E, ..., T), broadcast against the shifts. Raises ValueError as `route` does.
    """
    chosen, best = route(affinities + shifts[..., None], K)
    E, T = len(affinities), affinities.shape[-1]
    value = best.sum(-1) - K * T / E * shifts.sum(0)
    return value, chosen.sum(-1).astype(np.float64), chosen


def max_violation(loads: Floats) -> Floats:
    """MaxVio, max_k A_k / L - 1, of loads (E, ...), with L their mean."""
    found: Floats = loads.max(0) / loads.mean(0) - 1
    return found


def swaps(before: Bools, after: Bools) -> Floats:
    """(E, E): tokens that left expert k and came to k', over choices (E, T); a token that changes
    two experts counts for every pair of them."""
    here = np.flatnonzero((before != after).any(0))
    left, came = before[:, here] & ~after[:, here], after[:, here] & ~before[:, here]
    found: Floats = left.astype(np.float64) @ came.T.astype(np.float64)
    return found


@dataclass(frozen=True)
class Optimum:
    """value : of the linear program. choices (E, T) : its solution. fractional : entries of it that
    are neither 0 nor 1."""

    value: float
    choices: Floats
    fractional: int


def optimum(affinities: Floats, K: int) -> Optimum:
    """The linear program itself, by HiGHS (`scipy.optimize.linprog`), for affinities (E, T).

    Raises ValueError for a K outside 1 ... E.
    """
    E, T = affinities.shape
    if not 1 <= K <= E:
        raise ValueError(f"K must lie in 1 ... {E}, got {K}")
    constraints = sparse.vstack([
        sparse.kron(np.ones((1, E)), sparse.eye_array(T)),
        sparse.kron(sparse.eye_array(E), np.ones((1, T))),
    ]).tocsr()  # fmt: skip
    due = np.concatenate([np.full(T, float(K)), np.full(E, K * T / E)])
    found = optimize.linprog(
        -affinities.ravel(), A_eq=constraints, b_eq=due, bounds=(0, 1), method="highs"
    )
    x = np.asarray(found.x).reshape(E, T)
    return Optimum(-float(found.fun), x, int((np.minimum(x, 1 - x) > 1e-7).sum()))


class StepRules:
    """How far R rules move the shifts, given the loads.

    rules : each with `kind`, `u` and optionally `power` (0): at iteration n, from 1, expert k gets
    p_k -= u n^-power g_k with g_k = sign(A_k - L) ("sign", Wang et al.), (A_k - L) / L ("load") or
    (A_k - L) / T ("tokens"). T : tokens of a batch. L : load that is due.

    Raises ValueError for an unknown kind and a u or a power below 0.
    """

    def __init__(self, rules: Sequence[Mapping[str, Any]], *, T: int, L: float) -> None:
        for rule in rules:
            if rule["kind"] not in KINDS:
                raise ValueError(f"kind must be one of {KINDS}, got {rule['kind']!r}")
            for name in ("u", "power"):
                if not rule.get(name, 0) >= 0:
                    raise ValueError(f"{name} must be at least 0, got {rule[name]}")
        self.L = L
        self.u = np.array([rule["u"] for rule in rules], dtype=np.float64)
        self.power = np.array([rule.get("power", 0) for rule in rules], dtype=np.float64)
        self.by_sign = np.array([rule["kind"] == "sign" for rule in rules])
        self.scale = np.array([1 / (T if rule["kind"] == "tokens" else L) for rule in rules])

    def __call__(self, loads: Floats, n: int) -> Floats:
        """What the shifts (E, R) lose, for loads (E, R) at iteration n."""
        excess = loads - self.L
        moved = np.where(self.by_sign, np.sign(excess), excess * self.scale)
        found: Floats = self.u * float(n) ** -self.power * moved
        return found
