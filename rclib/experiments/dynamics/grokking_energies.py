"""Stored runs of notebook 62: maxima of the energies of units, for all pairs and for some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rclib.experiments.dynamics import grokking_theory as theory
from rclib.runs.source import Source
from rclib.runs.store import Arrays

__all__ = ["TINY", "covered", "kept_maxima", "maxima", "one_class"]

TINY: dict[str, dict[str, Any]] = {
    "maxima": {"seed": 0, "group": "Z3", "units": 4, "steps": 3, "random_table": False},
    "one_class": {"seed": 0, "m": 4, "units": 4, "steps": 3, "activation": "square"},
    "kept_maxima": {"seed": 0, "m": 5, "shares": [0.5, 1.0], "units": 4, "steps": 3},
    "covered": {"seed": 0, "m": 5, "units": 4, "steps": 3, "rule": "muon"},
}


def _units(random: np.random.Generator, units: int, m: int) -> np.ndarray:
    w = random.standard_normal((units, 2 * m))
    return np.asarray(w / np.linalg.norm(w, axis=1, keepdims=True))


def maxima(
    data: Source | None, *, seed: int, group: str, units: int, steps: int, random_table: bool
) -> Arrays:
    """Stored run: `units` random units after ascent of their energies on all pairs.

    random_table : every pair has a random class instead of its product.

    energy, predicted (that of the strongest component alone), purity (its share of |w|²),
    component, mirror (|cosine| of v and u at the inverses, P u): (units,).
    """
    table = theory.group_table(group)
    m = len(table)
    random = np.random.default_rng([seed, m, 1])
    x, labels = theory.inputs_of(table)
    if random_table:
        labels = random.integers(0, m, m * m)
    y, parts = theory.targets_of(labels, m), theory.components(table)
    w = theory.ascend(_units(random, units, m), x, y, steps=steps, rate=1.0 / m)
    power = theory.powers(w, parts)
    strongest = power.argmax(1)
    u, v = w[:, :m], w[:, m:]
    mirrored = u[:, np.argmin(table, axis=1)]
    cosine = (v * mirrored).sum(1) / (np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1))
    return {
        "energy": theory.energies(w, x, y),
        "predicted": np.array([one.energy for one in parts])[strongest],
        "purity": power.max(1),
        "component": strongest,
        "mirror": np.abs(cosine),
    }


def one_class(
    data: Source | None, *, seed: int, m: int, units: int, steps: int, activation: str
) -> Arrays:
    """Stored run: units that see pairs (g, h) of one class alone, with random probabilities.

    weights (m,) : the probabilities, falling. share (units,) : of the likeliest pair in the squared
    pre-activations. cosine (units,) : of the pre-activations with the probabilities. Starts have
    positive entries: what is zero or less gets no gradient from relu.
    """
    random = np.random.default_rng([seed, m, 2])
    weights = -np.sort(-random.dirichlet(np.full(m, 2.0)))
    x = np.concatenate([np.eye(m), np.eye(m)], axis=1)
    w = np.abs(_units(random, units, m))
    w = theory.ascend(w, x, weights[:, None], steps=steps, rate=4.0 * m, activation=activation)
    before = w @ x.T
    norms = np.linalg.norm(before, axis=1)
    return {
        "weights": weights,
        "share": np.square(before[:, 0] / norms),
        "cosine": before @ weights / (norms * np.linalg.norm(weights)),
    }


def kept_maxima(
    data: Source | None, *, seed: int, m: int, shares: Sequence[float], units: int, steps: int
) -> Arrays:
    """Stored run: units that start at single frequencies of the cyclic group, after ascent of the
    energy of a share of the pairs, drawn at random. purity (shares, units) : share of |w|² that the
    frequency of the start still has."""
    x, labels = theory.inputs_of(theory.group_table(f"Z{m}"))
    found = []
    for share in shares:
        random = np.random.default_rng([seed, m, 3])  # more samples hold the fewer ones
        kept = random.permutation(m * m)[: round(share * m * m)]
        k = random.integers(1, (m - 1) // 2 + 1, units)
        phases = random.uniform(0, 2 * np.pi, (units, 2, 1))
        waves = np.cos(2 * np.pi * k[:, None, None] * np.arange(m) / m + phases)
        w = waves.reshape(units, -1) / np.linalg.norm(waves, axis=(1, 2))[:, None]
        y = theory.targets_of(labels[kept], m)
        w = theory.ascend(w, x[kept], y, steps=steps, rate=0.2 * m / len(kept))
        power = np.square(np.abs(np.fft.fft(w.reshape(units, 2, m), norm="ortho"))).sum(1)
        found.append(2.0 * power[np.arange(units), k])
    return {"purity": np.array(found)}


def covered(data: Source | None, *, seed: int, m: int, units: int, steps: int, rule: str) -> Arrays:
    """Stored run: how many of the (m - 1) / 2 frequencies `units` units find together. rule : of
    `grokking_theory.ascend`. count, purity (mean share of a unit's strongest): ()."""
    x, labels = theory.inputs_of(theory.group_table(f"Z{m}"))
    y = theory.targets_of(labels, m)
    w = _units(np.random.default_rng([seed, m, 4]), units, m)
    rate = 0.1 if rule == "muon" else 1.0 / m
    w = theory.ascend(w, x, y, steps=steps, rate=rate, rule=rule)
    power = np.square(np.abs(np.fft.rfft(w.reshape(units, 2, m), norm="ortho"))).sum(1)
    share = 2.0 * power / np.square(w).sum(1, keepdims=True)
    strongest = share[:, 1:].argmax(1)
    return {
        "count": np.array(len(np.unique(strongest))),
        "purity": share[:, 1:].max(1).mean(),
    }
