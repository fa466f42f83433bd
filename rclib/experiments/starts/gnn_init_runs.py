"""Stored runs of notebook 54: graph networks at their start, and in training.

H^l = relu(Â H^{l-1} W_l), W_l (m_{l-1}, m_l), the last layer linear, no biases. All arms of a run
have the same uniform draws, each layer's scaled to the arm's variance. Since relu(c z) = c relu(z)
for c > 0, the embeddings of two arms differ by one factor a layer,

    H^l of one arm = √(Π_{k ≤ l} v_k / v'_k) · H^l of the other,

so that a start is walked through once and all arms follow from their variances.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.checks.arrays import Floats
from rclib.data.images import Dataset
from rclib.experiments.starts.gnn_graphs import Graph, graph
from rclib.nets.graphs import aggregation, start_variances
from rclib.rowcolumn.measure import correlations, largest_correlation, mean_vectors
from rclib.runs.store import Arrays
from rclib.spectral.spectra import esd, outliers
from rclib.spectral.survival import survival
from rclib.training.stacked_optimizers import Settings, Updates

__all__ = ["ARMS", "TINY", "Aggregate", "outputs", "start_runs", "training_runs", "variances"]

# Arm -> rule of `start_variances`, and whose paths count: the layer's own matrix, or the symmetric
# one whatever the layer does, as in the authors' code.
ARMS: Mapping[str, tuple[str, bool]] = {
    "Xavier": ("xavier", True),
    "Kaiming": ("kaiming", True),
    "Kaiming, fan out": ("kaiming out", True),
    "Virgo forward": ("forward", True),
    "Virgo backward": ("backward", True),
    "Virgo": ("virgo", True),
    "Virgo, plain mean": ("virgo mean", True),
    "Virgo, as released": ("virgo", False),
}
PRODUCTS = 8  # leading outer products of a start whose share is taken
TINY: dict[str, dict[str, Any]] = {
    "start_runs": {
        "seed": 0, "kind": "planted", "features": "gaussian", "aggregation_kind": "sum",
        "plan": {"n": 30, "d": 6}, "layers": 3, "width": 8, "draws": 2,
    },
    "training_runs": {
        "seed": 0, "kind": "preferential", "features": "words", "aggregation_kind": "symmetric",
        "plan": {"n": 30, "d": 8}, "layers": 3, "width": 8, "arms": ["Xavier", "Virgo"],
        "rate": 0.003, "decay": 5e-6, "steps": 3, "early": 2,
    },
}  # fmt: skip


class Aggregate(torch.autograd.Function):
    """Â h for all members at once, h (n, S m), by the sparse matrix and its transpose."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        """Â (n, n) times h."""
        ctx.transposed = transposed
        found: Tensor = matrix @ h
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Âᵀ times the gradient."""
        return ctx.transposed @ grads[0], None, None


def _sparse(matrix: Floats, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    with warnings.catch_warnings():  # torch calls its sparse matrices a beta
        warnings.simplefilter("ignore", UserWarning)
        one, other = torch.from_numpy(matrix), torch.from_numpy(np.ascontiguousarray(matrix.T))
        return one.to(dtype).to_sparse_csr(), other.to(dtype).to_sparse_csr()


def variances(found: Graph, kind: str, arms: Sequence[str], *, layers: int, width: int) -> Floats:
    """Variances of the weights of all layers by arm, (A, layers), for an aggregation."""
    matrices = {k: aggregation(found.adjacency, k) for k in {kind, "symmetric"}}
    shared: dict[str, Any] = {"layers": layers, "width": width, "classes": found.classes}
    rows = []
    for arm in arms:
        rule, own = ARMS[arm]
        matrix = matrices[kind if own else "symmetric"]
        rows.append(start_variances(rule, matrix, found.features, **shared))
    return np.array(rows)


def _draws(
    sizes: Sequence[int], count: int, *, seed: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Uniform weights of variance one, (count, m_{l-1}, m_l) a layer."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for into, out in itertools.pairwise(sizes):
        drawn = torch.rand(count, into, out, generator=generator, dtype=torch.float64)
        found.append(((2 * drawn - 1) * math.sqrt(3)).to(dtype))
    return found


def outputs(
    weights: Sequence[Tensor], first: Tensor, pair: tuple[Tensor, Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Outputs (S, n, C) of S networks of weights (S, m_{l-1}, m_l), and their hidden layers,
    (S, n, m) each.

    first : Â X (n, d), the same for all. pair : Â and its transpose, sparse.
    """
    members, n = len(weights[0]), len(first)
    hidden: list[Tensor] = []
    z = h = first.expand(members, *first.shape)
    for place, w in enumerate(weights):
        if place:
            hidden.append(torch.relu(z))
            flat = hidden[-1].permute(1, 0, 2).reshape(n, -1)
            near: Tensor = Aggregate.apply(flat, *pair)  # type: ignore[no-untyped-call]
            h = near.view(n, members, -1).permute(1, 0, 2)
        z = torch.bmm(h, w)
    return z, hidden


def start_runs(
    data: Dataset | None, *, seed: int, kind: str, features: str, aggregation_kind: str,
    plan: Mapping[str, Any], layers: int, width: int, draws: int,
) -> Arrays:  # fmt: skip
    """Stored run: the hidden layers of `draws` networks of Kaiming's start on one graph.

    plan : other arguments of `graph`. M = layers - 1 hidden layers.
    size, spread (M,) : log10 of mean square and of variance over a node's units, mean over nodes
    and draws. near (M,) : correlation over units of two nodes joined by an edge, mean over edges
    and draws. open (M,) : share of units that are not zero. variances (A, layers) : of all ARMS.
    """
    own = graph(data, kind, features, seed=seed, **plan)
    sizes = [own.features.shape[1], *[width] * (layers - 1), own.classes]
    v = variances(own, aggregation_kind, list(ARMS), layers=layers, width=width)
    kaiming = v[list(ARMS).index("Kaiming")]
    weights = [
        w * math.sqrt(each)
        for w, each in zip(
            _draws(sizes, draws, seed=seed, dtype=torch.float64), kaiming, strict=True
        )
    ]
    pair = _sparse(aggregation(own.adjacency, aggregation_kind), torch.float64)
    _, hidden = outputs(weights, pair[0] @ torch.from_numpy(own.features), pair)
    ends = torch.from_numpy(np.argwhere(np.triu(own.adjacency)))
    rows = []
    for h in hidden:
        square, spread = h.square().mean(2), h.var(2, correction=0)
        units = (h - h.mean(2, keepdim=True)) / h.std(2, correction=0, keepdim=True)
        near = (units[:, ends[:, 0]] * units[:, ends[:, 1]]).mean(2)
        rows.append([
            float(square.log10().mean()), float(spread.log10().mean()),
            float(near.nanmean()), float((h > 0).double().mean()),
        ])  # fmt: skip
    columns = np.array(rows).T
    return {**dict(zip(("size", "spread", "near", "open"), columns, strict=True)), "variances": v}


def training_runs(
    data: Dataset | None, *, seed: int, kind: str, features: str, aggregation_kind: str,
    plan: Mapping[str, Any], layers: int, width: int, arms: Sequence[str], rate: float,
    decay: float, steps: int, early: int,
) -> Arrays:  # fmt: skip
    """Stored run: networks of A arms on one graph, Adam on the cross-entropy of labelled nodes.

    loss (A, steps + 1) : of those, after 0, 1, ... updates; valid, test (A, steps + 1) : accuracy.
    gradients (A, layers) : mean square of the gradient of each matrix at the start.
    spikes (A, 3, 2) : after 0, `early` and all updates, eigenvalues of the first and last matrix
    beyond the bulk of i.i.d. entries of the start's variance. means (A, 2) : largest |correlation|
    of the mean vectors of one index, over its 95 percent level, at start and end.
    moved, kept, products (A, 2) : of the first and the middle matrix, see
    `rclib.spectral.survival`.
    """
    own = graph(data, kind, features, seed=seed, **plan)
    sizes = [own.features.shape[1], *[width] * (layers - 1), own.classes]
    v = variances(own, aggregation_kind, arms, layers=layers, width=width)
    start = [
        w * torch.from_numpy(v[:, place]).sqrt().float()[:, None, None]
        for place, w in enumerate(_draws(sizes, 1, seed=seed))
    ]
    pair = _sparse(aggregation(own.adjacency, aggregation_kind), torch.float32)
    now = [w.clone().requires_grad_() for w in start]
    settings = Settings("adam", rate, weight_decay=decay)
    updates = Updates(settings, {str(i): w.detach() for i, w in enumerate(now)}, steps)
    first, y = pair[0] @ torch.from_numpy(own.features).float(), torch.from_numpy(own.labels)
    seen, held, rest = (torch.from_numpy(np.flatnonzero(own.part == i)) for i in range(3))
    curves: dict[str, list[Tensor]] = {"loss": [], "valid": [], "test": []}
    kept: list[list[Tensor]] = []
    for t in range(steps + 1):
        if t in (0, early, steps):
            kept.append([w.detach().clone() for w in now])
        out, _ = outputs(now, first, pair)
        picked = out[:, seen].log_softmax(2)[:, torch.arange(len(seen)), y[seen]]
        losses = -picked.mean(1)
        right = (out.detach().argmax(2) == y).float()
        for name, value in (
            ("loss", losses.detach()), ("valid", right[:, held].mean(1)),
            ("test", right[:, rest].mean(1)),
        ):  # fmt: skip
            curves[name].append(value)
        if t < steps:
            # The members' losses share nothing, so the gradient of the sum holds each one's own.
            gradients = torch.autograd.grad(losses.sum(), now)
            if t == 0:
                squares = [g.double().square().mean((1, 2)) for g in gradients]
            with torch.no_grad():
                torch._foreach_sub_(now, updates.step(t, gradients))
    ends = [_weights(kept, v, a) for a in range(len(arms))]
    return {
        **{name: torch.stack(rows, 1).numpy() for name, rows in curves.items()},
        "gradients": torch.stack(squares, 1).numpy(),
        **{name: np.array([end[name] for end in ends]) for name in ends[0]},
    }


def _weights(kept: Sequence[Sequence[Tensor]], v: Floats, arm: int) -> dict[str, Any]:
    """What is said of an arm's matrices at the kept moments (start, early, end)."""
    moments = [[w[arm].double() for w in moment] for moment in kept]
    spikes = [
        [
            outliers(esd(now[place]), rows=len(now[place]), variance=float(v[arm, place])).count
            for place in (0, -1)
        ]
        for now in moments
    ]
    depth = len(moments[0])
    axes = {f"W{i + 1}": (f"h{i}" if i else "x", f"h{i + 1}") for i in range(depth)}
    means = []
    for now in (moments[0], moments[-1]):
        named = {f"W{i + 1}": w for i, w in enumerate(now)}
        inside = largest_correlation(correlations(mean_vectors(named, axes)), within=True)
        means.append(inside.value / inside.chance)
    found = [
        survival(
            moments[-1][place].numpy(), moments[0][place].numpy(),
            products=min(PRODUCTS, *moments[0][place].shape),
        )
        for place in (0, (depth - 1) // 2)
    ]  # fmt: skip
    return {
        "spikes": np.array(spikes, dtype=np.float64),
        "means": means,
        "moved": [one.moved for one in found],
        "kept": [one.start for one in found],
        "products": [one.products for one in found],
    }
