"""Maxima of the energies of hidden units: from all pairs of a group, from one class, from some.

Notebook 62; the energies are those of `grokking_theory`. Stored runs first, then frames of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.dynamics import grokking_theory as theory
from rclib.runs import sweep
from rclib.runs.source import Source
from rclib.runs.store import Arrays

__all__ = [
    "TINY",
    "cover_frame",
    "covered",
    "energy_frame",
    "hit_share",
    "kept_frame",
    "kept_maxima",
    "level_frame",
    "maxima",
    "one_class",
    "one_class_frame",
]

TINY: dict[str, dict[str, Any]] = {
    "maxima": {"seed": 0, "of": "Z3", "units": 4, "steps": 3, "random_table": False},
    "one_class": {"seed": 0, "m": 4, "units": 4, "steps": 3, "activation": "square"},
    "kept_maxima": {"seed": 0, "m": 5, "shares": [0.5, 1.0], "units": 4, "steps": 3},
    "covered": {"seed": 0, "m": 5, "units": 4, "steps": 3, "rule": "muon"},
}


def _units(random: np.random.Generator, units: int, m: int) -> np.ndarray:
    w = random.standard_normal((units, 2 * m))
    return np.asarray(w / np.linalg.norm(w, axis=1, keepdims=True))


def maxima(
    data: Source | None, *, seed: int, of: str, units: int, steps: int, random_table: bool
) -> Arrays:
    """Stored run: `units` random units after ascent of their energies on all pairs of a group.

    of : its name, as `grokking_theory.group_table` takes it.
    random_table : every pair has a random class instead of its product.

    energy, predicted (that of the strongest component alone), purity (its share of |w|²),
    component, mirror (|cosine| of v and u at the inverses, P u): (units,).
    """
    table = theory.group_table(of)
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
        "purity": np.array(share[:, 1:].max(1).mean()),
    }


def energy_frame(
    seeds: Sequence[int], groups: Sequence[str], *, units: int, steps: int
) -> pd.DataFrame:
    """Units after ascent: group (a random table of the first group is named "random"), size, seed,
    energy, predicted, purity, mirror."""
    tables = [*((group, False) for group in groups), (groups[0], True)]
    configs = [
        {"seed": s, "of": g, "units": units, "steps": steps, "random_table": r}
        for g, r in tables for s in seeds
    ]  # fmt: skip
    runs = sweep.run(maxima, configs, description="maxima")
    names = ["energy", "predicted", "purity", "mirror"]
    return pd.concat(
        [
            pd.DataFrame({name: run[name] for name in names}).assign(
                group="random" if c["random_table"] else c["of"], seed=c["seed"],
                size=len(theory.group_table(str(c["of"]))),
            )
            for c, run in zip(configs, runs, strict=True)
        ],
        ignore_index=True,
    )  # fmt: skip


def level_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Energies over the group's size, to the next fortieth: group, level, share of the units,
    predicted (mean of theirs, over the size)."""
    found = frame.assign(level=(40.0 * frame.energy / frame["size"]).round() / 40.0)
    found["predicted"] = frame.predicted / frame["size"]
    over = found.groupby(["group", "level"], sort=False)
    table = over.predicted.agg(predicted="mean", count="count").reset_index()
    return table.assign(share=table["count"] / table.groupby("group")["count"].transform("sum"))


def hit_share(frame: pd.DataFrame, groups: Sequence[str], *, factor: float = 1.0) -> pd.Series:
    """Share of units whose energy is within 1 percent of `factor` times the predicted one and that
    have 99 percent of their norm in one component; least over the groups, by seed."""
    chosen = frame[frame.group.isin(groups)]
    hit = (chosen.energy / (factor * chosen.predicted) - 1).abs() < 0.01
    share = (hit & (chosen.purity > 0.99)).groupby([chosen.seed, chosen.group]).mean()
    return share.groupby("seed").min().rename("share")


def one_class_frame(seeds: Sequence[int], *, m: int, units: int, steps: int) -> pd.DataFrame:
    """Units that see one class: activation, seed, share (of the likeliest pair), cosine (with the
    probabilities of the pairs), the least over the units."""
    configs = [
        {"seed": s, "m": m, "units": units, "steps": steps, "activation": a}
        for a in ("square", "relu") for s in seeds
    ]  # fmt: skip
    runs = sweep.run(one_class, configs, description="one class")
    return pd.DataFrame([
        (c["activation"], c["seed"], float(run["share"].min()), float(run["cosine"].min()))
        for c, run in zip(configs, runs, strict=True)
    ], columns=["activation", "seed", "share", "cosine"])  # fmt: skip


def cover_frame(seeds: Sequence[int], *, m: int, units: int, steps: int) -> pd.DataFrame:
    """Frequencies that a few units find together, by rule of ascent: seed, gradient, muon."""
    rules = ("gradient", "muon")
    configs = [
        {"seed": s, "m": m, "units": units, "steps": steps, "rule": r} for r in rules for s in seeds
    ]
    found = sweep.run(covered, configs, description="frequencies found")
    counts = np.array([float(run["count"]) for run in found]).reshape(len(rules), -1)
    return pd.DataFrame({"seed": list(seeds), **dict(zip(rules, counts, strict=True))})


def kept_frame(
    seeds: Sequence[int], *, sizes: Sequence[int], shares: Sequence[float], units: int, steps: int
) -> pd.DataFrame:
    """Units that started at a frequency, after ascent on a share of the pairs: m, seed, share,
    value (mean share of their norm that is still there)."""
    configs = [
        {"seed": s, "m": m, "shares": list(shares), "units": units, "steps": steps}
        for m in sizes for s in seeds
    ]  # fmt: skip
    runs = sweep.run(kept_maxima, configs, cost=lambda c: float(c["m"]), description="kept maxima")
    return pd.concat(
        [
            pd.DataFrame({"m": c["m"], "seed": c["seed"], "share": shares,
                          "value": run["purity"].mean(1)})
            for c, run in zip(configs, runs, strict=True)
        ],
        ignore_index=True,
    )  # fmt: skip
