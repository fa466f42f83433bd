"""Stored runs of notebook 67: networks on the table of any small group, and their irreps.

The networks are those of `grokking_networks`, Ŷ = (X W)² V full batch with Adam; what is added is
what hidden units and outputs are made of. With P_k the projection on the component k of R^M (an
irrep, or a pair of complex ones; `grokking_theory.components`) and outputs õ_gh centred over the
classes,

    learned_k = Σ õ_gh · P_k e_(gh) / Σ |P_k e_(gh)|²    over pairs (g, h),

is 0 for outputs that know nothing of k and 1, for every k, for õ = e_(gh) - 1/M.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.experiments.dynamics import grokking_theory as theory
from rclib.experiments.dynamics.grokking_networks import (
    GROKKED,
    Member,
    network_loss,
    recorded_steps,
    squares,
    squares_gradients,
)
from rclib.nets.stack import Stack
from rclib.runs.source import Source
from rclib.runs.store import Arrays
from rclib.training.stacked import train_stack

__all__ = [
    "BY_IRREP",
    "MEASURES",
    "TINY",
    "learned",
    "moments",
    "of_units",
    "table_of",
    "train_on_group",
    "unit_energies",
]

MEASURES = ("train", "test", "purity", "reached", "constant")
BY_IRREP = ("learned", "mass")
TINY: dict[str, dict[str, Any]] = {
    "train_on_group": {
        "of": "S3", "width": 16, "share": 0.7, "rate": 5e-3, "steps": 3, "every": 1, "after": 0.0,
        "group": [
            {"seed": 0, "decay": 2e-4, "labels": "group"},
            {"seed": 1, "decay": 0.0, "labels": "random"},
        ],
    },
}  # fmt: skip


def table_of(name: str) -> theory.Table:
    """Multiplication table (M, M): "S4", "A4" and "A5" (permutations in lexicographic order, of
    which the first is the identity; (a b)(i) = a(b(i))), else `grokking_theory.group_table`."""
    if name not in ("S4", "A4", "A5"):
        return theory.group_table(name)
    n = int(name[1])
    members = list(permutations(range(n)))
    if name[0] == "A":
        members = [one for one in members if np.linalg.det(np.eye(n)[list(one)]) > 0]
    place = {one: i for i, one in enumerate(members)}
    return np.array([[place[tuple(a[i] for i in b)] for b in members] for a in members])


def moments(steps: int, every: int) -> list[int]:
    """Steps at which a network is measured: those of `recorded_steps`, or the first and the last
    alone if `every` is no less than `steps`."""
    return recorded_steps(steps, every) if every < steps else [0, steps]


def train_on_group(
    data: Source | None,
    *,
    group: list[dict[str, Any]],
    of: str,
    width: int,
    share: float,
    rate: float,
    steps: int,
    every: int,
    after: float,
) -> Arrays:
    """Stored run: networks on one group, of its name (`table_of`).

    group : members with seed, decay (η) and labels ("group", or "random": a random class for every
    pair). share, after : as in `grokking_networks.train_networks`. every : see `moments`.

    One row a member, one column a recorded step (R). train, test : accuracies. purity, reached,
    constant, and mass (R, components) : of `of_units`. learned (R, components) : of the outputs on
    the pairs that were not trained on.
    """
    table = table_of(of)
    parts = theory.components(table)
    every_pair = torch.from_numpy(theory.inputs_of(table)[0]).float()
    members = [Member(one, table, width, share, streams=(7, 8)) for one in group]
    x, y, labels, trained = (
        torch.stack([getattr(one, name) for one in members])
        for name in ("x", "y", "labels", "trained")
    )
    tensors = {name: torch.stack([one.start[name] for one in members]) for name in ("W", "V")}
    at = moments(steps, every)

    def measures(stack: Stack) -> Tensor:
        outputs = stack(every_pair)
        right = (outputs.argmax(-1) == labels).float()
        rows = []
        for s in range(len(stack)):
            accuracies = [
                float((right[s] * part).sum() / part.sum())
                for part in (trained[s], 1.0 - trained[s])
            ]
            tested = (trained[s] == 0).numpy()
            known = learned(outputs[s].double().numpy()[tested], labels[s].numpy()[tested], parts)
            w, v = (stack.tensors[name][s].double().numpy() for name in ("W", "V"))
            single, mass = of_units(w, v, table, parts)
            rows.append([*accuracies, *single, *known, *mass])
        return torch.tensor(rows, dtype=torch.float64)

    def stop(losses: Tensor, rows: Any) -> Tensor:
        found = np.zeros(len(group), dtype=bool)
        now = len(losses) - 1
        if after > 0 and now in at:
            there = rows["measures"][:, :, 1].numpy() >= GROKKED
            first = np.asarray(at)[there.argmax(0)]
            found = there.any(0) & (now >= after * first)
        return torch.from_numpy(found)

    _, rows = train_stack(
        Stack(tensors, squares),
        lambda step: (x, y),
        network_loss,
        steps=steps,
        lr=rate,
        optimizer="adam",
        weight_decay=[float(one["decay"]) for one in group],
        record={"measures": measures},
        at=at,
        stop=stop,
        own="xy",
        written=squares_gradients,
    )
    found = rows["measures"].permute(1, 0, 2).numpy()
    out = {name: found[:, :, i].copy() for i, name in enumerate(MEASURES)}
    left = found[:, :, len(MEASURES) :]
    out |= {
        name: part.copy()
        for name, part in zip(BY_IRREP, np.split(left, len(BY_IRREP), 2), strict=True)
    }
    return out


def learned(
    outputs: np.ndarray, labels: np.ndarray, parts: list[theory.Component]
) -> list[float]:  # fmt: skip
    """Share of each component that the outputs (n, M) of pairs with these labels (n,) have; 0 for
    the trivial one, which centring removes."""
    centred = outputs - outputs.mean(1, keepdims=True)
    found = []
    for one in parts:
        wanted = one.projection[labels]
        inner = float((centred * wanted).sum())
        found.append(0.0 if one.kind == "trivial" else inner / float(np.square(wanted).sum()))
    return found


def unit_energies(units: np.ndarray, table: theory.Table) -> np.ndarray:
    """`grokking_theory.energies` of units (s, 2M) on all pairs of a group, σ = x², (s,): squares of
    u and v alone fall equally upon every class, so it is ½ |z - z̄|² with z = 2 (u * v) alone."""
    m = len(table)
    second = np.argsort(table, axis=1)  # h with g h = c, by g and c
    z = 2.0 * np.einsum("sg,sgc->sc", units[:, :m], units[:, m:][:, second])
    return np.asarray(0.5 * np.square(z - z.mean(1, keepdims=True)).sum(1))


def of_units(
    w: np.ndarray, v: np.ndarray, table: theory.Table, parts: list[theory.Component]
) -> tuple[tuple[float, float, float], list[float]]:
    """(purity, reached, constant) and mass (components,) of W (2M, K) and V (K, M).

    Means over units weighted by |v_j| |w_j|². purity : share of |w_j|² in a unit's strongest
    component, the trivial one aside. reached : energy of w_j / |w_j| on all pairs over the largest
    that its strongest component has. mass : shares of |w_j|² in each component, constant that in
    the trivial one.
    """
    norms = np.linalg.norm(w, axis=0)
    units = (w / np.maximum(norms, 1e-150)).T
    power = theory.powers(np.where(norms[:, None] > 0, units, 1.0), parts)
    weight = np.linalg.norm(v, axis=1) * norms**2
    weight = weight / weight.sum() if weight.any() else np.full_like(weight, 1.0 / len(weight))
    strongest = 1 + power[:, 1:].argmax(1)
    energy = unit_energies(units, table)
    most = np.array([one.energy for one in parts])[strongest]
    mass = weight @ power
    single = (
        float(weight @ power[np.arange(len(power)), strongest]),
        float(weight @ (energy / most)),
        float(mass[0]),
    )
    return single, mass.tolist()
