"""Stored runs of notebook 62: networks that grok.

Networks are Ŷ = (X W)² V without biases on the table of a cyclic group, trained full batch on the
loss of the authors' code, Σ_c (õ_c - ỹ_c)² with outputs and one-hot labels less their mean over the
classes, mean over the samples; Adam with the decay inside of the gradient; torch's default start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.checks.arguments import choice
from rclib.experiments.dynamics import grokking_theory as theory
from rclib.nets.stack import Stack
from rclib.rowcolumn.measure import row_column_share
from rclib.runs.source import Source
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import outliers
from rclib.training.stacked import train_stack
from rclib.training.stacked_optimizers import Settings, Updates

__all__ = [
    "GROKKED",
    "MEASURES",
    "TINY",
    "Member",
    "narrow_network",
    "network_loss",
    "of_features",
    "of_weights",
    "polar",
    "recorded_steps",
    "squares",
    "squares_gradients",
    "train_networks",
]

GROKKED = 0.95  # of the pairs that were not trained on
MEASURES = (
    "train", "test", "purity", "pure_plain", "constant", "rank", "spikes", "structure", "overlap",
    "leaked", "signal", "ridge",
)  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "train_networks": {
        "m": 3, "width": 32, "share": 0.6, "rate": 5e-3, "steps": 3, "every": 1, "after": 0.0,
        "group": [
            {"seed": 0, "decay": 2e-4, "zero": False, "labels": "group"},
            {"seed": 1, "decay": 0.0, "zero": True, "labels": "random"},
        ],
    },
    "narrow_network": {
        "seed": 0, "m": 5, "width": 4, "share": 0.6, "rule": "muon", "steps": 3,
    },
}  # fmt: skip


def recorded_steps(steps: int, every: int) -> list[int]:
    """Steps at which a network is measured: every fifth up to 60, then every `every`-th, and the
    last."""
    return sorted({*range(0, min(60, steps) + 1, 5), *range(0, steps + 1, every), steps})


def train_networks(
    data: Source | None,
    *,
    group: list[dict[str, Any]],
    m: int,
    width: int,
    share: float,
    rate: float,
    steps: int,
    every: int,
    after: float,
) -> Arrays:
    """Stored run: networks on the cyclic group of m elements.

    group : members with seed, decay (η), zero (V starts at zero), labels ("group", or "random": a
    random class for every pair). share : of the pairs that are trained on. every : see
    `recorded_steps`. after : a member stops at so many times the first recorded step at which its
    test accuracy is `GROKKED`; 0: none does.

    One row a member, one column a recorded step. train, test : accuracies. purity, pure_plain :
    share of a unit's strongest frequency, mean over units weighted by |v_j| |w_j|², and not
    weighted. constant : share of the frequency zero, weighted. rank : participation ratio
    (Σλ)² / Σλ² of WᵀW. spikes : its eigenvalues beyond the edge of noise. structure : row-column
    share of a block of W over what independent entries give. overlap : mean |off-diagonal| over
    mean diagonal of F̃ᵀF̃. leaked : |G_F| over |Y|. signal, ridge : cosine of G_F with ỸỸᵀF̃, and
    with what the ridge solution of the same loss sends (0 without decay). first, last (2m, K) : W
    at the start and the end.
    """
    table = theory.group_table(f"Z{m}")
    members = [Member(one, table, width, share) for one in group]
    x, y = (torch.stack([getattr(one, name) for one in members]) for name in ("x", "y"))
    labels = torch.stack([one.labels for one in members])
    trained = torch.stack([one.trained for one in members])
    tensors = {name: torch.stack([one.start[name] for one in members]) for name in ("W", "V")}
    start, at = Stack(tensors, squares), recorded_steps(steps, every)
    every_pair = torch.from_numpy(theory.inputs_of(theory.group_table(f"Z{m}"))[0]).float()
    decays = [float(one["decay"]) for one in group]

    def accuracies(stack: Stack) -> Tensor:
        right = (stack(every_pair).argmax(-1) == labels).float()
        parts = [(right * part).sum(1) / part.sum(1) for part in (trained, 1.0 - trained)]
        return torch.stack(parts, 1)

    def measures(stack: Stack) -> Tensor:
        rows = [
            (
                *of_weights(stack.tensors["W"][s], stack.tensors["V"][s]),
                *of_features(x[s], y[s], stack.member(s), decays[s]),
            )
            for s in range(len(stack))
        ]
        return torch.tensor(rows, dtype=torch.float64)

    def stop(losses: Tensor, rows: Any) -> Tensor:
        found = np.zeros(len(group), dtype=bool)
        test, now = rows["accuracy"][:, :, 1].numpy(), len(losses) - 1
        if after > 0 and now in at:
            there = test >= GROKKED
            first = np.asarray(at)[there.argmax(0)]
            found = there.any(0) & (now >= after * first)
        return torch.from_numpy(found)

    end, found = train_stack(
        start,
        lambda step: (x, y),
        network_loss,
        steps=steps,
        lr=rate,
        optimizer="adam",
        weight_decay=decays,
        record={"accuracy": accuracies, "measures": measures},
        at=at,
        stop=stop,
        own="xy",
        written=squares_gradients,
    )
    columns = [*found["accuracy"].double().unbind(-1), *found["measures"].unbind(-1)]
    out = {name: one.T.numpy().copy() for name, one in zip(MEASURES, columns, strict=True)}
    out["first"], out["last"] = start.tensors["W"].numpy(), end.tensors["W"].numpy()
    return out


def narrow_network(
    data: Source | None, *, seed: int, m: int, width: int, share: float, rule: str, steps: int
) -> Arrays:
    """Stored run: one network with few hidden units, η = 2e-4. rule : "adam", as above, or "muon":
    `polar` of the gradient with Nesterov momentum 0.95 for W (rate 0.02 √(2m / K), at least 0.02;
    decoupled decay 0.01), and Adam for V. test (), and found (): how many frequencies are the
    strongest of a unit that carries at least a tenth of a mean unit's |v| |w|²."""
    choice("rule", rule, ("adam", "muon"))
    table = theory.group_table(f"Z{m}")
    one = Member({"seed": seed, "labels": "group"}, table, width, share)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in one.start.items()}
    w, v = (leaf.detach() for leaf in leaves.values())  # the same memory
    by_adam = {"V": v[None]} | ({"W": w[None]} if rule == "adam" else {})
    updates = Updates(Settings("adam", lr=5e-3, weight_decay=2e-4), by_adam, steps)
    momentum, rate = torch.zeros_like(w), 0.02 * max(1.0, 2 * m / width) ** 0.5
    for step in range(steps):
        loss = network_loss(squares(leaves, one.x), one.y)
        of_w, of_v = torch.autograd.grad(loss, [leaves["W"], leaves["V"]])
        gradients = [of_v[None], of_w[None]][: len(by_adam)]
        for tensor, amount in zip(by_adam.values(), updates.step(step, gradients), strict=True):
            tensor -= amount
        if rule == "muon":
            momentum = 0.95 * momentum + of_w
            w *= 1.0 - rate * 0.01
            w -= rate * polar(of_w + 0.95 * momentum)
    every_pair = torch.from_numpy(theory.inputs_of(theory.group_table(f"Z{m}"))[0]).float()
    right = (squares({"W": w, "V": v}, every_pair).argmax(1) == one.labels).float()
    tested = 1.0 - one.trained
    hat = torch.fft.rfft(w.reshape(2, m, -1), dim=1).abs().square().sum(0)
    mass = v.norm(dim=1) * w.square().sum(0)
    strongest = hat[1:].argmax(0)[mass >= 0.1 * mass.mean()]
    return {
        "test": np.array(float((right * tested).sum() / tested.sum())),
        "found": np.array(len(strongest.unique())),
    }


class Member:
    """Task and start of one network on a group's table, from its seed alone.

    one : "seed", "labels" ("random" for drawn ones) and "zero" where the upper matrix starts there.
    share : of the pairs, trained on. streams : told to the generators of start and labels, so that
    notebooks draw others.
    """

    def __init__(
        self,
        one: Mapping[str, Any],
        table: theory.Table,
        width: int,
        share: float,
        *,
        streams: tuple[int, int] = (5, 6),
    ) -> None:
        m = len(table)
        random = np.random.default_rng([one["seed"], m, streams[0]])
        x, labels = theory.inputs_of(table)
        if one["labels"] == "random":
            labels = np.random.default_rng([one["seed"], m, streams[1]]).integers(0, m, m * m)
        kept = np.sort(random.permutation(m * m)[: round(share * m * m)])
        self.labels = torch.from_numpy(labels)
        self.trained = torch.zeros(m * m)
        self.trained[kept] = 1.0
        self.x = torch.from_numpy(x[kept]).float()
        self.y = torch.from_numpy(np.eye(m)[labels[kept]] - 1.0 / m).float()
        w = random.uniform(-1, 1, (2 * m, width)) / np.sqrt(2 * m)
        v = random.uniform(-1, 1, (width, m)) / np.sqrt(width) * (0.0 if one.get("zero") else 1.0)
        self.start = {"W": torch.from_numpy(w).float(), "V": torch.from_numpy(v).float()}


def squares(tensors: Any, x: Tensor) -> Tensor:
    """(x W)² V, entry by entry: the outputs (n, M) of one network."""
    before = x @ tensors["W"]
    return torch.as_tensor((before * before) @ tensors["V"])


def network_loss(output: Tensor, y: Tensor) -> Tensor:
    """Mean over pairs of the squared distance of centred outputs (n, M) and targets, ()."""
    error = output - output.mean(1, keepdim=True) - y
    return (error * error).sum(1).mean()


def squares_gradients(
    tensors: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """`network_loss` of `squares` for every member of a stack, (S,), and its gradient by name,
    written out by the operations of autograd."""
    before = torch.bmm(x, tensors["W"])
    h = before * before
    out = torch.bmm(h, tensors["V"])
    error = out - out.mean(2, keepdim=True) - y
    losses = (error * error).sum(2).mean(1)
    delta = error.mul_(2 / y.shape[1])
    delta -= delta.sum(2, keepdim=True) / y.shape[2]
    below = torch.bmm(delta, tensors["V"].transpose(1, 2)).mul_(before).mul_(2)
    return losses, {
        "W": torch.bmm(x.transpose(1, 2), below),
        "V": torch.bmm(h.transpose(1, 2), delta),
    }


def polar(matrix: Tensor) -> Tensor:
    """U Vᵀ of the singular value decomposition U S Vᵀ of a matrix, of its shape."""
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    product: Tensor = u @ v
    return product


def of_weights(w: Tensor, v: Tensor) -> tuple[float, ...]:
    """purity, pure_plain, constant, rank, spikes and structure of W (2m, K) and V (K, m)."""
    m, k = len(w) // 2, w.shape[1]
    blocks = w.double().reshape(2, m, k)
    hat = torch.fft.rfft(blocks, dim=1, norm="ortho").abs().square().sum(0)
    hat[1:] *= 2.0
    if m % 2 == 0:
        hat[-1] /= 2.0  # the alternating vector has no partner
    total = hat.sum(0).clamp_min(1e-300)
    strongest = hat[1:].amax(0) / total
    mass = v.double().norm(dim=1) * total
    mass = mass / mass.sum() if bool(mass.any()) else torch.full_like(mass, 1.0 / k)
    values = np.maximum(np.linalg.eigvalsh((w @ w.T).double().numpy()), 0.0)
    chance = row_column_share(blocks[0]).chance
    return (
        float((mass * strongest).sum()),
        float(strongest.mean()),
        float((mass * hat[0] / total).sum()),
        float(values.sum() ** 2 / np.square(values).sum()),
        float(outliers(values, rows=k).count),
        float(np.mean([row_column_share(one).value for one in blocks]) / chance),
    )


def of_features(
    x: Tensor, y: Tensor, tensors: dict[str, Tensor], decay: float
) -> tuple[float, ...]:
    """overlap, leaked, signal and ridge; x (n, 2m), y (n, m), rows of y and of FV centred.

    The loss is the mean over samples, so `decay` η is a ridge penalty of η n / 2.
    """
    before = (x @ tensors["W"]).numpy()
    labels, v = (one.numpy().astype(float) for one in (y, tensors["V"]))
    v = v - v.mean(1, keepdims=True)
    features = (before * before).astype(float)
    centred = features - features.mean(0)
    targets = labels - labels.mean(0)
    gram = centred.T @ centred
    diagonal, k = float(np.trace(gram)), len(gram)
    sent = (labels - features @ v) @ v.T
    ridge = np.zeros_like(sent)
    if decay > 0:
        penalty = decay * len(x) / 2.0
        best = np.linalg.solve(features.T @ features + penalty * np.eye(k), features.T @ labels)
        ridge = (labels - features @ best) @ best.T
    return (
        (float(np.abs(gram).sum()) - diagonal) / (k - 1) / diagonal,
        float(np.linalg.norm(sent) / np.linalg.norm(labels)),
        _cosine(sent - sent.mean(0), targets @ (targets.T @ centred)),
        _cosine(sent, ridge),
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300))
