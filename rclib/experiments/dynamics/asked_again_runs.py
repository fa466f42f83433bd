"""Stored runs of notebook 68: notebook 62's narrow networks and few units, at rates that are given.

Rates and decays are given as multiples of those of notebook 62, so that 1 is what it had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.checks.arguments import choice
from rclib.experiments.dynamics import grokking_theory as theory
from rclib.experiments.dynamics.grokking_networks import (
    Member,
    network_loss,
    of_weights,
    polar,
    squares,
    squares_gradients,
)
from rclib.runs.source import Source
from rclib.runs.store import Arrays
from rclib.training.stacked_optimizers import Settings, Updates

__all__ = ["PURE", "TINY", "WEIGHTS", "covered_at", "narrow_networks"]

TINY: dict[str, dict[str, Any]] = {
    "narrow_networks": {
        "m": 5, "width": 4, "share": 0.6, "rule": "muon", "steps": 3,
        "group": [
            {"seed": 0, "labels": "group", "rate": 1.0, "top": 0.5, "decay": 1.0},
            {"seed": 3, "labels": "random", "rate": 3.0, "top": 2.0, "decay": 10.0},
        ],
    },
    "covered_at": {"seed": 0, "m": 5, "units": 4, "steps": 3, "rule": "muon", "rate": 2.0},
}  # fmt: skip
WEIGHTS = ("purity", "pure_plain", "constant", "rank", "spikes", "structure")  # of `of_weights`
RULES = ("adam", "muon")
ADAM, DECAY = 5e-3, 2e-4  # of notebook 62: Adam's rate and decay
MUON, MUON_DECAY, MOMENTUM = 0.02, 0.01, 0.95  # and Muon's, the rate times √(2m / K) where K < 2m
PURE = 0.95  # share of a unit's strongest frequency from which it is at one


def narrow_networks(
    data: Source | None, *, group: Sequence[Mapping[str, Any]], m: int, width: int, share: float,
    rule: str, steps: int,
) -> Arrays:  # fmt: skip
    """Stored run: networks of few hidden units, `grokking_networks.narrow_network` as a stack.

    group : members with seed, labels ("group", or "random": a random class for every pair) and
    rate (of W), top (of V, which Adam has) and decay (of both), as multiples of notebook 62's.
    share : of the pairs, trained on. rule : "adam" or "muon", for W.

    One number a member: train, test (accuracies), loss (`network_loss` of the pairs that were not
    trained on), found (how many frequencies are the strongest of a unit that carries at least a
    tenth of a mean unit's |v| |w|²), and those of `WEIGHTS`. Raises ValueError for another rule.
    """
    choice("rule", rule, RULES)
    table = theory.group_table(f"Z{m}")
    members = [Member(one, table, width, share) for one in group]
    x, y = (torch.stack([getattr(one, name) for one in members]) for name in ("x", "y"))
    tensors = {name: torch.stack([one.start[name] for one in members]) for name in ("W", "V")}
    rates, tops, decays = (
        np.array([float(one[name]) for one in group]) for name in ("rate", "top", "decay")
    )

    def adam(name: str, factors: Any) -> Updates:
        settings = Settings("adam", lr=ADAM * factors, weight_decay=DECAY * decays)
        return Updates(settings, {name: tensors[name]}, steps)

    w, v = tensors.values()
    upper, lower = adam("V", tops), adam("W", rates) if rule == "adam" else None
    momentum = torch.zeros_like(w)
    step_size = MUON * max(1.0, 2 * m / width) ** 0.5 * rates
    left = np.maximum(1.0 - step_size * MUON_DECAY * decays, 0.0)
    moved, kept = _wide(step_size), _wide(left)
    for step in range(steps):
        _, gradients = squares_gradients(tensors, x, y)
        of_w = gradients["W"]
        (amount,) = upper.step(step, [gradients["V"]])
        v -= amount
        if lower is not None:
            (amount,) = lower.step(step, [of_w])
            w -= amount
        else:
            momentum = MOMENTUM * momentum + of_w
            w *= kept
            w -= moved * polar(of_w + MOMENTUM * momentum)
    every_pair = torch.from_numpy(theory.inputs_of(table)[0]).float()
    rows = [
        _ends(one, every_pair, w[s], v[s]) | dict(zip(WEIGHTS, of_weights(w[s], v[s]), strict=True))
        for s, one in enumerate(members)
    ]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _wide(values: Any) -> Tensor:
    return torch.from_numpy(values).float().view(-1, 1, 1)


def _ends(one: Member, every_pair: Tensor, w: Tensor, v: Tensor) -> dict[str, float]:
    """train, test, loss and found of one network."""
    out = squares({"W": w, "V": v}, every_pair)
    right = (out.argmax(1) == one.labels).float()
    shares = [float((right * part).sum() / part.sum()) for part in (one.trained, 1.0 - one.trained)]
    left, m = one.trained == 0, out.shape[1]
    targets = torch.eye(m)[one.labels[left]] - 1.0 / m
    hat = torch.fft.rfft(w.reshape(2, len(w) // 2, -1), dim=1).abs().square().sum(0)
    mass = v.norm(dim=1) * w.square().sum(0)
    strongest = hat[1:].argmax(0)[mass >= 0.1 * mass.mean()]
    return {
        "train": shares[0],
        "test": shares[1],
        "loss": float(network_loss(out[left], targets)),
        "found": float(len(strongest.unique())),
    }


def covered_at(
    data: Source | None, *, seed: int, m: int, units: int, steps: int, rule: str, rate: float
) -> Arrays:
    """Stored run: `grokking_energies.covered` at a multiple of its rate. rule : "gradient" or
    "muon". count () : frequencies that are the strongest of a unit; pure () : those of units of
    which they have at least `PURE`, which are at a maximum; purity () : mean share of a unit's
    strongest. Raises ValueError for another rule."""
    table = theory.group_table(f"Z{m}")
    x, labels = theory.inputs_of(table)
    w = np.random.default_rng([seed, m, 4]).standard_normal((units, 2 * m))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    step = rate * (0.1 if rule == "muon" else 1.0 / m)
    w = theory.ascend(w, x, theory.targets_of(labels, m), steps=steps, rate=step, rule=rule)
    power = np.square(np.abs(np.fft.fft(w.reshape(units, 2, m), norm="ortho"))).sum(1)
    share = 2.0 * power[:, 1 : m // 2 + 1] / np.square(w).sum(1, keepdims=True)
    strongest, most = share.argmax(1), share.max(1)
    return {
        "count": np.array(len(np.unique(strongest))),
        "pure": np.array(len(np.unique(strongest[most >= PURE]))),
        "purity": np.array(most.mean()),
    }
