"""Sequential Monte Carlo on a machine: particles that are extended token by token, weighted by what
a draw says of the local mass Z, and drawn anew when few of them carry the weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rclib.checks.arguments import choice
from rclib.experiments.language.awrs_machines import Machine
from rclib.stats.particles import effective_size, systematic
from rclib.stats.rejection import draw_rows

__all__ = ["WEIGHTS", "Particles", "particles", "weighted_marginals"]

WEIGHTS = ("drawn", "one")
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Particles:
    """R independent runs of M particles. tokens (R, M, T), V where a string is over and -1 where a
    particle died. weights (R, M) : of sum 1, or 0 in a run without a living particle. log_mass
    (R,) : log of the estimated mass of all accepted strings, -inf if none lives. log_p (R, M) :
    log probability of each string under the model. first, checks, drawn : sums over all runs of
    checks until the first accepted token, of all checks, and of tokens."""

    tokens: np.ndarray
    weights: Floats
    log_mass: Floats
    log_p: Floats
    first: float
    checks: float
    drawn: int


def particles(
    machine: Machine, method: str, *, weights: str, runs: int, size: int,
    random: np.random.Generator, threshold: float = 0.5,
) -> Particles:  # fmt: skip
    """R = runs of M = size particles.

    method : of `rclib.stats.rejection.draw_rows`. weights : "drawn" multiplies each particle's
    weight by that of its draw; "one" forgets it. threshold : particles are drawn anew when the
    effective number is below this share of M.
    """
    choice("weights", weights, WEIGHTS)
    T, V = machine.steps, machine.laws.shape[1]
    tokens = np.full((runs, size, T), V, dtype=np.int32)
    states = np.full((runs, size), machine.start)
    w, log_mass = np.ones((runs, size)), np.zeros(runs)
    log_p, paid, drawn = np.zeros((runs, size)), np.zeros(2), 0
    for t in range(T):
        live = (w > 0) & (states != machine.end)
        if not live.any():
            break
        at = states[live]
        law = machine.rows(at)
        draws = draw_rows(law, machine.accepted(at, t), method, random)
        paid += draws.first.sum(), draws.checks.sum()
        drawn += len(at)
        tokens[live, t] = draws.token
        log_p[live] += np.log(np.where(draws.token >= 0, law[np.arange(len(at)), draws.token], 1.0))
        states[live] = np.where(draws.token >= 0, machine.after[at, draws.token], 0)
        w[live] *= draws.weight if weights == "drawn" else draws.token >= 0
        mean = w.mean(1)
        with np.errstate(divide="ignore"):
            log_mass += np.log(mean)
        w /= np.where(mean > 0, mean, 1.0)[:, None]
        poor = (mean > 0) & (effective_size(w) < threshold * size)
        if poor.any():
            again = systematic(w[poor], random)
            tokens[poor] = np.take_along_axis(tokens[poor], again[:, :, None], 1)
            states[poor] = np.take_along_axis(states[poor], again, 1)
            log_p[poor] = np.take_along_axis(log_p[poor], again, 1)
            w[poor] = 1.0
    total = w.sum(1, keepdims=True)
    shares = w / np.where(total > 0, total, 1.0)
    return Particles(tokens, shares, log_mass, log_p, float(paid[0]), float(paid[1]), drawn)


def weighted_marginals(found: Particles, V: int) -> Floats:
    """(T, V + 1) : laws of the tokens, as means over the living runs of each run's weighted
    particles. Raises ValueError if no run lives."""
    live = found.weights.sum(1) > 0
    if not live.any():
        raise ValueError("found must have a run with a living particle")
    w = found.weights[live].ravel() / live.sum()
    tokens = found.tokens[live].reshape(len(w), -1)
    keep = w > 0
    columns = [np.bincount(own[keep], weights=w[keep], minlength=V + 1) for own in tokens.T]
    return np.asarray(np.stack(columns))
