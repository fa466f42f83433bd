"""Drawing from a law under a yes/no constraint that is expensive to check, with an unbiased weight.

Of a law p over V tokens and a set A of accepted ones (mass Z = p(A)) a token of p_A = p(x)1_A(x)/Z
is wanted, and a weight w with E[w f(x)] = Σ_A p(x) f(x), so that E w = Z. Four ways:

    masking      all V tokens are checked: w = Z
    rejection    tokens are drawn from p until two were accepted, the first of them is kept; with n
                 rejections w = 1 / (1 + n)
    two runs     as before, but a rejected token is never drawn again: n1 rejections of mass r1
                 until the first accepted token, which is kept, n2 more until the second (which may
                 be the same token): w = (1 - r1) / (1 + n1 + n2)
    recursive    one order without replacement; the token after the first accepted one is checked
                 too: w = 1 - r1 if it is accepted or there is none, else p(x)

Without replacement the order is that of exponential clocks: token j rings at E_j / p_j with
independent E_j of mean 1, which is the order of Gumbel keys log p - log(-log U). A rejected token j
rings before all accepted ones with probability a_j = p_j / (p_j + Z), so that the mean numbers of
checks have closed forms (`mean_checks`); without replacement they stay below V however small Z is.

Source: Lipkin et al., "Fast Controlled Generation from Language Models with Adaptive Weighted
Rejection Sampling" (arXiv 2504.05410), and the authors' programs: genlm/awrs-colm-2025 ("two runs")
and genlm/genlm-control ("recursive", and "geometric" of `draw_token`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rclib.checks.arguments import choice

__all__ = ["LAZY", "METHODS", "Draws", "draw_rows", "draw_token", "mean_checks"]

METHODS = ("masking", "rejection", "two runs", "recursive")
LAZY = ("two runs", "recursive", "geometric")  # of `draw_token`
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Draws:
    """token (n,) : the accepted token, -1 where there is none. weight (n,) : 0 where there is none.
    first (n,) : checks until the first accepted token, what a draw without a weight costs. checks
    (n,) : all of them. One check where a row has no accepted token in "rejection", which would
    never end; all tokens of positive probability in the others."""

    token: np.ndarray
    weight: Floats
    first: Floats
    checks: Floats


def _rows(p: Any, allowed: Any) -> tuple[Floats, np.ndarray]:
    law, accepted = np.asarray(p, dtype=np.float64), np.asarray(allowed, dtype=bool)
    if law.ndim != 2 or law.shape != accepted.shape:
        raise ValueError(
            f"p and allowed must be of one shape (n, V), got {law.shape} and {accepted.shape}"
        )
    total = law.sum(1, keepdims=True)
    if not (np.isfinite(law).all() and (law >= 0).all() and (total > 0).all()):
        raise ValueError("p must have finite rows that are not negative and not all zero")
    return law / total, accepted & (law > 0)


def draw_rows(p: Any, allowed: Any, method: str, random: np.random.Generator) -> Draws:
    """One draw for each of n laws, whose accepted tokens are known; the checks that a sampler that
    does not know them would make are counted.

    p (n, V) : not negative, normalised here. allowed (n, V) : bool. Raises ValueError for other
    shapes, rows without mass and an unknown method.
    """
    law, accepted = _rows(p, allowed)
    choice("method", method, METHODS)
    clock = _clocks(law, random)
    good = np.where(accepted, clock, np.inf)
    token, at = good.argmin(1), good.min(1)
    alive = np.isfinite(at)
    mass = np.where(accepted, law, 0.0).sum(1)
    if method == "masking":
        every = np.full(len(law), float(law.shape[1]))
        return Draws(np.where(alive, token, -1), mass, every, every)
    if method == "rejection":
        z = np.where(alive, np.minimum(mass, 1.0), 1.0)
        one, two = (random.geometric(z).astype(np.float64) for _ in range(2))
        weight = np.where(alive, 1 / (one + two - 1), 0.0)
        both = np.where(alive, one + two, 1.0)
        return Draws(np.where(alive, token, -1), weight, np.where(alive, one, 1.0), both)
    rejected = ~accepted & (clock < at[:, None])  # all of positive probability if none is accepted
    first = rejected.sum(1) + 1.0 * alive
    kept = np.where(rejected, 0.0, law).sum(1)  # 1 - r1 without cancellation
    if method == "recursive":
        weight, more = _recursive(law, accepted, clock, rejected, token, kept)
    else:
        again = np.where(rejected, np.inf, _clocks(law, random))
        second = np.where(accepted, again, np.inf).min(1)
        more = (~accepted & (again < second[:, None])).sum(1) + 1.0
        weight = kept / (first - 1.0 + more)
    weight, more = np.where(alive, weight, 0.0), np.where(alive, more, 0.0)
    return Draws(np.where(alive, token, -1), weight, first, first + more)


def _clocks(law: Floats, random: np.random.Generator) -> Floats:
    ring = random.standard_exponential(law.shape)
    return np.divide(ring, law, out=np.full_like(law, np.inf), where=law > 0)


def _recursive(
    law: Floats, accepted: np.ndarray, clock: Floats, rejected: np.ndarray, token: np.ndarray,
    kept: Floats,
) -> tuple[Floats, Floats]:  # fmt: skip
    """(weight, further checks) : of the token that rings after the first accepted one."""
    rows = np.arange(len(law))
    rest = np.where(rejected, np.inf, clock)
    rest[rows, token] = np.inf
    following = rest.argmin(1)
    there = np.isfinite(rest[rows, following])
    good = ~there | accepted[rows, following]
    return np.where(good, kept, law[rows, token]), 1.0 * there


def draw_token(
    p: Any, accepts: Callable[[int], bool], method: str, random: np.random.Generator
) -> tuple[int, float, int]:
    """(token, weight, calls of `accepts`) of one law p (V,), where a token's acceptance is only
    known by asking; none is asked for twice before an answer was yes. (-1, 0.0, calls) if no token
    is accepted.

    method : "two runs", "recursive" or "geometric": the draws with replacement that those without
    stand for are drawn again as geometric numbers of further rejections, and w = 1 / (1 + n).
    Raises ValueError for another one, and as `draw_rows` for p.
    """
    choice("method", method, LAZY)
    law = _rows(np.atleast_2d(p), np.ones((1, np.size(p)), dtype=bool))[0][0]
    left, calls, found = law.copy(), 0, -1
    kept, phantoms, rejections = 1.0, 0, 0
    for run in range(1 if method == "recursive" else 2):
        clock = _clocks(left[None], random)[0]
        for place in np.argsort(clock, kind="stable"):
            token = int(place)
            if not np.isfinite(clock[token]):
                break
            if method == "geometric":
                phantoms += int(random.geometric(min(left.sum(), 1.0))) - 1
            calls += 1
            if accepts(token):
                if method == "recursive":
                    return _after(law, left, clock, token, accepts, calls)
                found = found if run else token
                break
            rejections += 1
            left[token] = 0.0
            if run == 0:
                kept = float(left.sum())
        if found < 0:
            return -1, 0.0, calls
    if method == "geometric":
        return found, 1 / (1 + rejections + phantoms), calls
    return found, kept / (1 + rejections), calls


def _after(
    law: Floats, left: Floats, clock: Floats, token: int, accepts: Callable[[int], bool], calls: int
) -> tuple[int, float, int]:
    kept = float(left.sum())
    rest = np.where(left > 0, clock, np.inf)
    rest[token] = np.inf
    following = int(rest.argmin())
    if not np.isfinite(rest[following]):
        return token, kept, calls
    good = accepts(following)
    return token, kept if good else float(law[token]), calls + 1


def mean_checks(p: Any, allowed: Any, method: str) -> tuple[Floats, Floats]:
    """Closed means (first, checks) of `draw_rows`, (n,) each, for rows with an accepted token.

    "recursive" with one accepted token alone may find no token after it; its mean is then up to
    one check smaller. Infinite for "rejection" without an accepted token. Raises ValueError as
    `draw_rows`.
    """
    law, accepted = _rows(p, allowed)
    choice("method", method, METHODS)
    z = np.where(accepted, law, 0.0).sum(1)
    if method == "masking":
        every = np.full(len(law), float(law.shape[1]))
        return every, every
    if method == "rejection":
        with np.errstate(divide="ignore"):
            return 1 / z, 2 / z
    there = ~accepted & (law > 0)
    early = np.where(there, law / (law + np.where(there, z[:, None], 1.0)), 0.0)
    first = 1 + early.sum(1)
    if method == "recursive":
        return first, first + 1
    return first, 2 + (early * (2 - early)).sum(1)
