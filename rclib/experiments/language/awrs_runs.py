"""Stored runs of notebook 92: exact moments, checks by law, Markov chains with exact answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rclib.experiments.language.awrs_exact import exact_moments, replacement_variance
from rclib.experiments.language.awrs_machines import Machine, chain, distance, solve
from rclib.experiments.language.awrs_smc import particles, weighted_marginals
from rclib.runs.source import Source
from rclib.runs.store import Arrays
from rclib.stats.rejection import METHODS, draw_rows, mean_checks

__all__ = [
    "ARMS",
    "BINS",
    "TINY",
    "chain_runs",
    "exact_runs",
    "law_runs",
    "link_runs",
    "sampled",
]

# What extends the particles, and whether the weight is kept.
ARMS = (
    ("two runs", "drawn"), ("recursive", "drawn"), ("rejection", "drawn"), ("masking", "drawn"),
    ("two runs", "one"),
)  # fmt: skip
BINS = np.linspace(0, 4, 41)  # of w / Z
_SAMPLING: dict[str, Any] = {"sizes": [1, 4], "total": 8}
TINY: dict[str, dict[str, Any]] = {
    "exact_runs": {"seed": 0, "V": 4, "n_laws": 2, "largest": 4},
    "law_runs": {
        "seed": 0, "V": 20, "cells": [[1.0, 10, 0], [2.0, 1, 3]], "n_sets": 2, "n_draws": 5,
        "shown": 0,
    },
    "chain_runs": {
        "seed": 0, "V": 6, "steps": 3, "share": 0.5, "concentration": 1.0, "arms": [0, 4],
        **_SAMPLING,
    },
    "link_runs": {"seed": 0, "n_chains": 3, "V": 6, "steps": 3, "share": 0.5},
}  # fmt: skip


def exact_runs(data: Source | None, *, seed: int, V: int, n_laws: int, largest: int) -> Arrays:
    """Stored run: exact moments for random laws (flat Dirichlet) and sets of accepted tokens.

    error (2,) : largest |E[w 1(x)] - p(x)| over accepted x, "two runs" and "recursive", over one
    law of every size 2 ... `largest`. bias (n_laws, 3) : E w / Z - 1 of "mass alone", "first run
    alone" and "put back". sd (n_laws, 3) : of w in two runs, recursive and with replacement.
    checks (n_laws, 2). The laws of bias, sd and checks have V tokens, V // 2 or one more accepted.
    """
    random = np.random.default_rng([seed, 92])
    error = np.zeros(2)
    for size in range(2, largest + 1):
        p = random.dirichlet(np.ones(size))
        allowed = random.permutation(size) < random.integers(1, size)
        for k, method in enumerate(("two runs", "recursive")):
            off = np.abs(exact_moments(p, allowed, method)[0] - p * allowed).max()
            error[k] = max(error[k], off)
    bias, sd, checks = np.zeros((n_laws, 3)), np.zeros((n_laws, 3)), np.zeros((n_laws, 2))
    for n in range(n_laws):
        p = random.dirichlet(np.ones(V))
        allowed = random.permutation(V) < V // 2 + random.integers(0, 2)
        z = float(p[allowed].sum())
        for k, method in enumerate(("mass alone", "first run alone", "put back")):
            bias[n, k] = exact_moments(p, allowed, method)[0].sum() / z - 1
        for k, method in enumerate(("two runs", "recursive")):
            _, square, checks[n, k] = exact_moments(p, allowed, method)
            sd[n, k] = np.sqrt(max(square - z * z, 0.0))
        sd[n, 2] = np.sqrt(replacement_variance(z))
    return {"error": error, "bias": bias, "sd": sd, "checks": checks}


def law_runs(
    data: Source | None, *, seed: int, V: int, cells: Sequence[Sequence[float]], n_sets: int,
    n_draws: int, shown: int,
) -> Arrays:  # fmt: skip
    """Stored run: checks of draws from Zipf laws, p(k) ∝ k^-exponent.

    cells : [exponent, number of accepted tokens, heaviest tokens that are never accepted]; for
    each, `n_sets` random sets of accepted tokens. Methods in the order of `METHODS`.
    z (cells, sets). counted, closed (cells, sets, methods, 2) : mean checks until the first
    accepted token and in all, of n_draws and in closed form. histogram (methods, bins) : of w / Z
    in the cell number `shown`, all sets, in BINS; the last bin takes all that is larger.
    """
    random = np.random.default_rng([seed, 93])
    shape = (len(cells), n_sets, len(METHODS), 2)
    z, counted, closed = np.zeros(shape[:2]), np.zeros(shape), np.zeros(shape)
    histogram = np.zeros((len(METHODS), len(BINS) - 1))
    for c, (exponent, accepted, heavy) in enumerate(cells):
        p = np.arange(1, V + 1) ** -float(exponent)
        p /= p.sum()
        for s in range(n_sets):
            allowed = np.zeros(V, dtype=bool)
            order = int(heavy) + random.permutation(V - int(heavy))
            allowed[order[: int(accepted)]] = True
            z[c, s] = p[allowed].sum()
            for m, method in enumerate(METHODS):
                closed[c, s, m] = np.array(mean_checks(p[None], allowed[None], method))[:, 0]
                rows = np.broadcast_to(p, (n_draws, V)), np.broadcast_to(allowed, (n_draws, V))
                draws = draw_rows(*rows, method, random)
                counted[c, s, m] = draws.first.mean(), draws.checks.mean()
                if c == shown:
                    values = np.minimum(draws.weight / z[c, s], BINS[-1])
                    histogram[m] += np.histogram(values, BINS)[0]
    return {"z": z, "counted": counted, "closed": closed, "histogram": histogram}


def sampled(
    machine: Machine, *, seed: int, sizes: Sequence[int], total: int, arms: Sequence[int],
    first_alone: bool = False,
) -> Arrays:  # fmt: skip
    """Particles against the exact answer of a machine: for each arm (number in ARMS) and size M,
    total // M runs. Distances: total variation between the laws of a token, mean over the steps,
    or of the first token alone.

    tv (arms, M). ratio (arms, M) : mean of the estimated over the exact mass. checks (arms, M, 2) :
    a token. log_p (arms, M) : of the strings. dead (arms, M) : share of runs without a living
    particle. masked_tv, floor () : of the masked law, exact, and of `total` strings of the target.
    masked_log_p, target_log_p, log_mass, tokens ().
    """
    target, masked = solve(machine, "target"), solve(machine, "masked")
    V, rows = machine.laws.shape[1], slice(0, 1) if first_alone else slice(None)
    shape = (len(arms), len(sizes))
    names = ("tv", "ratio", "log_p", "dead")
    found: dict[str, Any] = {name: np.zeros(shape) for name in names}
    found["checks"] = np.zeros((*shape, 2))
    for a, arm in enumerate(arms):
        method, weights = ARMS[arm]
        for k, size in enumerate(sizes):
            random = np.random.default_rng([seed, 94, arm, int(size)])
            runs = max(1, total // size)
            got = particles(machine, method, weights=weights, runs=runs, size=size, random=random)
            law = weighted_marginals(got, V)
            live = got.weights.sum(1) > 0
            found["tv"][a, k] = distance(law[rows], target.marginals[rows]).mean()
            found["ratio"][a, k] = np.exp(got.log_mass - np.log(machine.mass)).mean()
            found["log_p"][a, k] = (got.weights * got.log_p)[live].sum(1).mean()
            found["dead"][a, k] = 1 - live.mean()
            found["checks"][a, k] = got.first / got.drawn, got.checks / got.drawn
    random = np.random.default_rng([seed, 95])
    drawn = random.multinomial(
        total, target.marginals[rows] / target.marginals[rows].sum(1)[:, None]
    )
    exact = distance(masked.marginals[rows], target.marginals[rows]).mean()
    return {
        **found,
        "masked_tv": np.array(exact),
        "floor": np.array(distance(drawn / total, target.marginals[rows]).mean()),
        "masked_log_p": np.array(masked.log_p),
        "target_log_p": np.array(target.log_p),
        "log_mass": np.array(np.log(machine.mass)),
        "tokens": np.array(masked.tokens),
    }


def chain_runs(
    data: Source | None, *, seed: int, V: int, steps: int, share: float, concentration: float,
    sizes: Sequence[int], total: int, arms: Sequence[int],
) -> Arrays:  # fmt: skip
    """Stored run: particles on a random Markov chain, rows from a Dirichlet law, of which a share
    of the transitions is allowed; the first token's law. Arrays of `sampled`; arms : numbers in
    ARMS."""
    random = np.random.default_rng([seed, 96])
    P = random.dirichlet(np.full(V, concentration), V)
    start = random.dirichlet(np.full(V, concentration))
    machine = chain(start, P, random.random((V, V)) < share, steps)
    return sampled(machine, seed=seed, sizes=sizes, total=total, arms=arms, first_alone=True)


def link_runs(
    data: Source | None, *, seed: int, n_chains: int, V: int, steps: int, share: float
) -> Arrays:
    """Stored run: what of a chain's masked matrix M = P∘A says how far masking is from the target.

    Rows of P from Dirichlet laws, their concentration log-uniform in [0.3, 3] by chain. All (n,).
    tv : total variation between the first steps of the masked chain, M_xy / Z_x, and of the target,
    M_xy h(y) / Σ, with h of the strings of `steps` tokens that follow; mean over x. spread :
    standard deviation of log Z_x over x. rc : correlation over tokens of the row masses with the
    column masses of M. perron, perron_long : |tv - that with M's right Perron vector for h|, for
    `steps` and for four times as many. equal : tv when the allowed and the forbidden entries of
    each row are scaled so that all Z_x are 0.3.
    """
    random = np.random.default_rng([seed, 99])
    rows = []
    for _ in range(n_chains):
        concentration = float(np.exp(random.uniform(np.log(0.3), np.log(3))))
        P = random.dirichlet(np.full(V, concentration), V)
        allowed = random.random((V, V)) < share
        allowed[np.arange(V), (np.arange(V) + 1) % V] = True  # no dead ends, one class of states
        M = P * allowed
        z = M.sum(1)
        values, vectors = np.linalg.eig(M)
        perron = np.abs(vectors[:, values.real.argmax()].real)
        tv, long = (_first_step(M, _ahead(M, n)) for n in (steps, 4 * steps))
        limit = _first_step(M, perron)
        even = np.where(allowed, 0.3 * M / z[:, None], 0.0)
        rows.append((
            tv, np.log(z).std(), np.corrcoef(z, M.sum(0))[0, 1], abs(tv - limit),
            abs(long - limit), _first_step(even, _ahead(even, steps)),
        ))  # fmt: skip
    names = ("tv", "spread", "rc", "perron", "perron_long", "equal")
    return dict(zip(names, np.array(rows).T, strict=True))


def _ahead(M: np.ndarray, steps: int) -> np.ndarray:
    """Backward vector of so many steps, of mean 1."""
    h = np.ones(len(M))
    for _ in range(steps):
        h = M @ h
        h /= h.mean()
    return h


def _first_step(M: np.ndarray, h: np.ndarray) -> float:
    """Mean over rows of the distance between M_xy / Z_x and M_xy h_y / Σ."""
    bent = M * h
    return float(distance(M / M.sum(1)[:, None], bent / bent.sum(1)[:, None]).mean())
