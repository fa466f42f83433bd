"""Stored runs of notebook 95: fields of generated shapes, and what is read off their tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rclib.checks.arguments import choice
from rclib.data.shapes import KINDS, Shapes, draw_shapes
from rclib.experiments.language.triplane_readers import Reader, accuracy, moved
from rclib.nets.triplane import Fields, mixed, renamed, start_fields
from rclib.rowcolumn.measure import chance_level, correlations, largest_correlation
from rclib.runs.store import Arrays

__all__ = ["ARMS", "TARGETS", "TINY", "field_run", "fit", "iou", "rc_over_chance", "top_shares"]

# What is read, and by which reader.
ARMS = {
    "set": "set", "transformer": "transformer", "flat": "flat", "spatial": "set",
    "decoder": "flat", "network": "flat", "neurons": "set", "flat, shuffled": "flat",
    "network, shuffled": "flat",
    "set, mixed": "set", "set, no signs": "set", "set, unfitted": "set", "set, other labels": "set",
}  # fmt: skip
TARGETS = ("occupancy", "distance")
_EDGE = 0.95  # points are drawn from [-_EDGE, _EDGE]³, where all shapes lie
_BAND = 0.1  # distances are cut there
_NAMES = 7_000_003  # added to a seed for the orders of neurons
TINY: dict[str, dict[str, Any]] = {
    "field_run": {
        "seed": 0, "shared": False, "target": "occupancy", "n_each": 2, "n_folds": 2,
        "planes": {"channels": 2, "R": 4, "hidden": [4], "points": 8, "steps": 2, "lr": 0.01},
        "network": {"hidden": [4], "points": 8, "steps": 2, "lr": 0.01},
        "reader": {"width": 4, "epochs": 2, "lr": 0.003}, "arms": list(ARMS), "stops": [1],
        "n_points": 200,
    },
}  # fmt: skip


def _loss(out: Tensor, levels: Tensor, target: str) -> Tensor:
    """Sum over fields of the mean focal loss of the occupancy, or square error of the distance."""
    if target == "distance":
        return (out - (levels / _BAND).clamp(-1, 1)).square().mean(1).sum()
    y = (levels > 0).to(out.dtype)
    right = torch.sigmoid(torch.where(y > 0, out, -out))
    loss = binary_cross_entropy_with_logits(out, y, reduction="none")
    return ((1 - right).square() * loss).mean(1).sum()


def fit(
    fields: Fields, shapes: Shapes, *, points: int, steps: int, lr: float, target: str,
    generator: torch.Generator, stops: Sequence[int] = (),
) -> list[Fields]:  # fmt: skip
    """Fields after the steps of `stops`, and at the end; the given ones are left as they are.

    Adam with a cosine schedule, all fields at once, each step at new uniform points.
    Raises ValueError for an unknown target.
    """
    choice("target", target, TARGETS)
    planes = None if fields.planes is None else fields.planes.clone().requires_grad_()
    weights, biases = (
        tuple(t.clone().requires_grad_() for t in group)
        for group in (fields.weights, fields.biases)
    )
    own = replace(fields, planes=planes, weights=weights, biases=biases)
    optimizer = torch.optim.Adam(own.tensors, lr=lr, foreach=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    found = []
    for step in range(1, steps + 1):
        at = _EDGE * (2 * torch.rand(points, 3, generator=generator) - 1)
        optimizer.zero_grad()
        _loss(own(at), shapes.levels(at), target).backward()
        optimizer.step()
        schedule.step()
        if step in stops or step == steps:
            found.append(_detached(own))
    return found


def _detached(fields: Fields) -> Fields:
    return replace(
        fields,
        planes=None if fields.planes is None else fields.planes.detach().clone(),
        weights=tuple(t.detach().clone() for t in fields.weights),
        biases=tuple(t.detach().clone() for t in fields.biases),
    )


def iou(fields: Fields, shapes: Shapes, points: Tensor) -> Tensor:
    """(B,) intersection over union of {F > 0} with the shapes, on points (P, 3)."""
    inside, told = shapes.levels(points) > 0, fields(points) > 0
    found: Tensor = (inside & told).sum(1) / (inside | told).sum(1).clamp_min(1)
    return found


def top_shares(planes: Tensor) -> Tensor:
    """(B,) share of the top eigenvalue of Z Zᵀ, Z (3 C, R²) the planes (B, 3, C, R, R) of a shape,
    each channel centred."""
    Z = planes.to(torch.float64).flatten(3).flatten(1, 2)
    s2 = torch.linalg.svdvals(Z - Z.mean(-1, keepdim=True)).square()
    found: Tensor = s2[:, 0] / s2.sum(1)
    return found


def rc_over_chance(fields: Fields) -> Tensor:
    """(2,) largest row-column correlation over its chance level, pooled over the B fields.

    Of the hidden units of the first layer: means of its columns for f, and of the next matrix; of
    the channels: means of the three planes. Each field's means are centred: n is B (N - 1) + 1.
    """
    assert fields.planes is not None
    B, _, C = fields.planes.shape[:3]
    hidden = {"f": fields.weights[0][..., :C].mean(2), "next": fields.weights[1].mean(1)}
    planes = fields.planes.mean((-1, -2))
    channels = {f"plane {k}": planes[:, k] for k in range(3)}
    found = []
    for group in (hidden, channels):
        vectors = {name: (v - v.mean(1, keepdim=True)).flatten() for name, v in group.items()}
        largest = largest_correlation(correlations({"index": vectors}))
        size = next(iter(group.values())).shape[1]
        found.append(largest.value / chance_level(B * (size - 1) + 1, largest.pairs))
    return torch.tensor(found, dtype=torch.float64)


def _tokens(fields: Fields) -> Tensor:
    """(B, 3 C, R²) channels of the planes, over the standard deviation of all."""
    assert fields.planes is not None
    return (fields.planes / fields.planes.std()).flatten(3).flatten(1, 2)


def _standard(x: Tensor) -> Tensor:
    """Weights (B, n), each over its mean and standard deviation over shapes."""
    return (x - x.mean(0)) / x.std(0).clamp_min(1e-8)


def _inputs(
    arms: Sequence[str], start: Fields, hybrid: Fields, network: Fields | None, g: torch.Generator
) -> dict[str, Tensor]:
    """Inputs of the readers: (B, tokens, n) for sets, (B, n) for others."""
    assert hybrid.planes is not None
    B, _, C = hybrid.planes.shape[:3]
    orders = torch.rand(B, C, generator=g).argsort(1)
    turns = torch.linalg.qr(torch.randn(B, C, C, generator=g)).Q
    channels = _tokens(hybrid)
    shuffled = _tokens(mixed(hybrid, torch.eye(C)[orders]))
    found = {
        "set": channels, "transformer": channels, "flat": channels.flatten(1),
        "spatial": channels.mT, "decoder": _standard(hybrid.flat()),
        "flat, shuffled": shuffled.flatten(1), "set, mixed": _tokens(mixed(hybrid, turns)),
        "set, no signs": channels.abs(), "set, unfitted": _tokens(start),
        "set, other labels": channels, "shuffled": shuffled,
    }  # fmt: skip
    if network is not None:
        first = torch.cat([network.weights[0], network.biases[0]], 2)
        other = torch.Generator().manual_seed(g.initial_seed() + _NAMES)
        named = [torch.rand(b.shape[:2], generator=other).argsort(1) for b in network.biases[:-1]]
        found |= {
            "network": _standard(network.flat()), "neurons": first / first.std(),
            "network, shuffled": _standard(renamed(network, named).flat()),
        }  # fmt: skip
    return {name: x for name, x in found.items() if name in (*arms, "shuffled")}


def field_run(
    data: None, *, seed: int, shared: bool, target: str, n_each: int, n_folds: int,
    planes: Mapping[str, Any], network: Mapping[str, Any], reader: Mapping[str, Any],
    arms: Sequence[str], stops: Sequence[int], n_points: int,
) -> Arrays:  # fmt: skip
    """One draw of shapes, n_each of each kind, and fields fitted to them.

    shared : one start of the networks for all. planes : channels, R, hidden, points, steps, lr of
    the hybrid fields; network : the same of the networks alone, fitted if an arm reads them.
    reader : width, epochs, lr. arms : of ARMS. stops : steps after which the set is read too.
    n_points : for the intersection over union.
    Returns accuracy (arms,), over test folds; stop_accuracy, stop_iou (stops and the end); iou (4,)
    of the hybrid, with planes set to 0, with the network of another shape of its kind, of the
    network alone (nan if none);
    moved (2,): change of logits of set and flat when channels are shuffled; share, share_start,
    kind (B,); rc, rc_start (2,); numbers (2,): of one shape's planes, of one network; pictures
    (2, 3, C, R, R): planes of the first torus in two fits.
    Raises ValueError for an unknown arm or target.
    """
    for arm in arms:
        choice("arms", arm, tuple(ARMS))
    g = torch.Generator().manual_seed(seed)
    shapes = draw_shapes(n_each, g)
    points = 2 * torch.rand(n_points, 3, generator=g) - 1
    torus = KINDS.index("torus")
    twice = torch.cat([torch.arange(len(shapes)), torch.tensor([torus])])
    both = Shapes(*(t[twice] for t in (shapes.kind, shapes.scale, shapes.shift, shapes.angle)))
    start, known = _start(planes, len(both), shared, g)
    every = fit(start, both, **known, target=target, generator=g, stops=stops)
    pictures = every[-1].planes
    assert pictures is not None
    start, *every = (_first(f, len(shapes)) for f in (start, *every))
    hybrid, alone = every[-1], None
    if any(arm.startswith(("network", "neurons")) for arm in arms):
        begun, known = _start(network, len(shapes), shared, g)
        alone = fit(begun, shapes, **known, target=target, generator=g)[-1]
    assert hybrid.planes is not None
    assert start.planes is not None
    zero = replace(hybrid, planes=torch.zeros_like(hybrid.planes))
    other = _other_network(hybrid)
    inputs = _inputs(arms, start, hybrid, alone, g)
    folds = torch.randperm(n_each, generator=g).repeat_interleave(len(KINDS)) % n_folds
    wrong = shapes.kind[torch.randperm(len(shapes), generator=g)]
    read = Reader(folds=folds, n_folds=n_folds, **reader)
    values = [
        accuracy(ARMS[arm], inputs[arm], wrong if arm.endswith("labels") else shapes.kind, read,
                 seed=seed)
        for arm in arms
    ]  # fmt: skip
    stopped = [accuracy("set", _tokens(f), shapes.kind, read, seed=seed) for f in every]
    channels, shuffled = _tokens(hybrid), inputs["shuffled"]
    changes = [
        moved("set", channels, shuffled, shapes.kind, read, seed=seed),
        moved("flat", channels.flatten(1), shuffled.flatten(1), shapes.kind, read, seed=seed),
    ]
    quality = [float(iou(f, shapes, points).mean()) for f in (hybrid, zero, other)]
    quality.append(float("nan") if alone is None else float(iou(alone, shapes, points).mean()))
    sizes = [hybrid.planes[0].numel(), 0 if alone is None else alone.flat().shape[1]]
    found = {
        "accuracy": torch.tensor(values), "stop_accuracy": torch.tensor(stopped),
        "stop_iou": torch.stack([iou(f, shapes, points).mean() for f in every]),
        "iou": torch.tensor(quality), "moved": torch.tensor(changes),
        "share": top_shares(hybrid.planes), "share_start": top_shares(start.planes),
        "kind": shapes.kind, "rc": rc_over_chance(hybrid), "rc_start": rc_over_chance(start),
        "numbers": torch.tensor(sizes),
        "pictures": pictures[[torus, -1]],
    }  # fmt: skip
    return {name: value.numpy() for name, value in found.items()}


def _start(
    options: Mapping[str, Any], n: int, shared: bool, g: torch.Generator
) -> tuple[Fields, dict[str, Any]]:
    """Fields at their start, and what is left for `fit`."""
    built = {k: options[k] for k in ("channels", "R", "hidden", "octaves") if k in options}
    return start_fields(n, **built, shared=shared, generator=g), {
        k: options[k] for k in ("points", "steps", "lr")
    }


def _other_network(fields: Fields) -> Fields:
    """Planes as they are, each with the network of the last shape of its kind (kinds in turn)."""
    turn = len(KINDS)
    return replace(
        fields, weights=tuple(W.roll(turn, 0) for W in fields.weights),
        biases=tuple(b.roll(turn, 0) for b in fields.biases),
    )  # fmt: skip


def _first(fields: Fields, n: int) -> Fields:
    assert fields.planes is not None
    return replace(
        fields, planes=fields.planes[:n], weights=tuple(W[:n] for W in fields.weights),
        biases=tuple(b[:n] for b in fields.biases),
    )  # fmt: skip
