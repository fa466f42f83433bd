"""Exact moments of a draw under a constraint, by recursion over the sets of rejected tokens.

A run without replacement passes through the set S of rejected tokens with the probability

    f(∅) = 1,    f(S) = Σ_{j in S} f(S without j) p_j / (1 - p(S without j)),

whatever the order, and ends there with the accepted token x with probability p_x / (1 - p(S)).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rclib.checks.arguments import choice

__all__ = ["EXACT", "Moments", "exact_moments", "replacement_variance"]

EXACT = ("two runs", "recursive", "mass alone", "first run alone", "put back")
Floats = np.ndarray[Any, np.dtype[np.float64]]
Moments = tuple[Floats, float, float]


def _passed(p: Floats, rest: list[int], base: float) -> Floats:
    """f(S) for every set S of the tokens `rest`, as bit masks; base : mass gone before."""
    n = len(rest)
    sets = np.arange(2**n)
    mass = (
        base + sum(((sets >> i) & 1) * p[j] for i, j in enumerate(rest)) if n else np.full(1, base)
    )
    found = np.zeros(2**n)
    found[0] = 1.0
    for s in range(1, 2**n):
        for i, j in enumerate(rest):
            if s >> i & 1:
                before = s ^ (1 << i)
                found[s] += found[before] * p[j] / (1 - mass[before])
    return found


def exact_moments(p: Floats, allowed: np.ndarray, method: str) -> Moments:
    """(E[w 1(x)] for every token (V,), E[w²], mean number of checks) of one draw.

    method : "two runs" or "recursive" as in `rclib.stats.rejection`, or what is not to be done:
    "mass alone" has w = 1 - r1 and "first run alone" w = (1 - r1) / (1 + n1), of one run;
    "put back" lets the second run draw again what the first rejected.
    p (V,) : positive, of sum 1, V small: time and memory grow like 4^(rejected tokens).
    """
    choice("method", method, EXACT)
    good = [int(j) for j in np.flatnonzero(allowed)]
    bad = [int(j) for j in np.flatnonzero(~np.asarray(allowed, dtype=bool))]
    f = _passed(p, bad, 0.0)
    mean, square, checks = np.zeros(len(p)), 0.0, 0.0
    for s in range(2 ** len(bad)):
        gone = [j for i, j in enumerate(bad) if s >> i & 1]
        rest = [j for i, j in enumerate(bad) if not s >> i & 1]
        r1, n1 = float(p[gone].sum()), len(gone)
        for x in good:
            share = f[s] * p[x] / (1 - r1)
            for chance, w, more in _ends(p, good, bad, rest, r1, n1, x, method):
                mean[x] += share * chance * w
                square += share * chance * w * w
                checks += share * chance * (n1 + 1 + more)
    return mean, square, checks


def _ends(
    p: Floats, good: list[int], bad: list[int], rest: list[int], r1: float, n1: int, x: int,
    method: str,
) -> list[tuple[float, float, int]]:  # fmt: skip
    """(probability, weight, further checks) of what follows after n1 rejections of mass r1 and the
    accepted token x."""
    kept = 1 - r1
    if method == "mass alone":
        return [(1.0, kept, 0)]
    if method == "first run alone":
        return [(1.0, kept / (1 + n1), 0)]
    if method == "recursive":
        others = [j for j in [*good, *rest] if j != x]
        if not others:
            return [(1.0, kept, 0)]
        left = kept - p[x]
        return [(p[j] / left, kept if j in good else p[x], 1) for j in others]
    again, gone = (bad, 0.0) if method == "put back" else (rest, r1)
    f = _passed(p, again, gone)
    z = float(p[good].sum())
    found = []
    for s in range(2 ** len(again)):
        mass = gone + sum(p[j] for i, j in enumerate(again) if s >> i & 1)
        n2 = s.bit_count()
        found.append((f[s] * z / (1 - mass), kept / (1 + n1 + n2), n2 + 1))
    return found


def replacement_variance(z: float) -> float:
    """Variance of 1 / (1 + n), n the rejections before the second accepted draw with replacement,
    of a mass z in (0, 1): Σ_n P(n) / (1 + n)² = -z² ln z / (1 - z), less z²."""
    return float(z * z * (-np.log(z) / (1 - z) - 1))
