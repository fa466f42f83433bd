"""Stored run of notebook 76: one layer of features, drawn or trained, and a linear head on it.

    f(x) = c_0 + Σ_j c_j φ_j(x)

    dense    φ_j = σ(⟨w_j, x⟩ + b_j) on all inputs at once; σ is the sigmoid for "line", else ReLU
    fitting  what the task's notebook knows of it: "line", weights from the band [-30, 30];
             "attention", relu(x̃_0ᵀ W_m x̃_i) x̃_i, mean over keys; "patches", one filter for all
             patches, mean over them; "colour", both colours added up

Drawn features stay as they are. Trained ones are the same after full-batch Adam on the mean square
with the head trained along, of some moments (the start among them) the best on the third of the
samples that is not trained on. Either way the head is then fitted anew by ridge regression on all
samples, its penalty chosen on that third. What is counted is c: the number of features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.checks.arguments import choice
from rclib.checks.arrays import Floats
from rclib.data.images import Dataset
from rclib.experiments.features.feature_tasks import Task, risk, task_of
from rclib.rowcolumn.measure import row_column_share
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import outliers
from rclib.stats.ridge import ridge_path

__all__ = ["BANDS", "FITTING", "KINDS", "MOMENTS", "PENALTIES", "TINY", "Layer", "feature_run",
           "layer_of"]  # fmt: skip

KINDS = ("dense", "fitting")
FITTING = ("line", "attention", "patches", "colour")  # tasks with features that fit them
BANDS = {"dense": 1.0, "fitting": 30.0}  # λ of "line"
PENALTIES = (1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0)  # over the features' mean square
MOMENTS = 5  # of a training, besides the start
TINY: dict[str, dict[str, Any]] = {
    "feature_run": {
        "task": "patches", "kind": "fitting", "learned": True, "seed": 0, "n": 30, "n_test": 20,
        "features": [4, 8], "rate": 0.01, "steps": 6,
    },
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Layer:
    """weights : W (p, d), or (M, d + 1, d + 1) of heads; biases b (p,), (0,) for heads. of : (W, b,
    inputs) -> features (n, F). prepared : what is done to inputs once."""

    weights: Tensor
    biases: Tensor
    of: Callable[[Tensor, Tensor, Tensor], Tensor]
    prepared: Callable[[Tensor], Tensor]


def _dense(W: Tensor, b: Tensor, x: Tensor) -> Tensor:
    return torch.relu(x @ W.mT + b)


def _sigmoid(W: Tensor, b: Tensor, x: Tensor) -> Tensor:
    return torch.sigmoid(x @ W.mT + b)


def _shared(W: Tensor, b: Tensor, x: Tensor) -> Tensor:
    return torch.relu(x @ W.mT + b).mean(1)


def _attention(W: Tensor, b: Tensor, x: Tensor) -> Tensor:
    query, keys = x[:, 0], x[:, 1:]
    scores = torch.relu(torch.einsum("na,mab,nib->nmi", query, W, keys))
    return (scores @ keys / keys.shape[1]).flatten(1)


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones(*x.shape[:-1], 1)], -1)


def layer_of(task: Task, kind: str, features: int, seed: int) -> Layer:
    """The layer at its start; more features begin with the fewer. Weights are N(0, 1 / mean ‖x‖²),
    so that ⟨w_j, x⟩ has variance 1, biases N(0, 1/4); "line": both uniform in a band;
    "attention": N(0, 1/4), features over d + 1 heads.

    Raises ValueError for another kind, and for "fitting" where there is none.
    """
    if choice("kind", kind, KINDS) == "fitting" and task.name not in FITTING:
        raise ValueError(f"kind must be 'dense' for {task.name!r}, got {kind!r}")
    streams = np.random.SeedSequence(seed, spawn_key=(77,)).spawn(2)
    one, other = (np.random.default_rng(stream) for stream in streams)
    if task.name == "line":
        drawn = [BANDS[kind] * g.uniform(-1, 1, (features, 1)) for g in (one, other)]
        return Layer(_tensor(drawn[0]), _tensor(drawn[1][:, 0]), _sigmoid, _as_is)
    if (task.name, kind) == ("attention", "fitting"):
        size = task.x.shape[2] + 1
        heads = one.standard_normal((max(1, features // size), size, size)) / 2
        return Layer(_tensor(heads), torch.zeros(0), _attention, _with_one)
    prepared, of = _flat, _dense
    if kind == "fitting":
        prepared, of = (_as_is, _shared) if task.name == "patches" else (_added, _dense)
    inputs = prepared(_tensor(task.x))
    scale = float(inputs.square().sum(-1).mean().sqrt())
    weights = one.standard_normal((features, inputs.shape[-1])) / scale
    return Layer(_tensor(weights), _tensor(other.standard_normal(features) / 2), of, prepared)


def _tensor(values: Floats) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))


def _as_is(x: Tensor) -> Tensor:
    return x


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)


def _added(x: Tensor) -> Tensor:
    return x.sum(1)


def _moments(
    layer: Layer, x: Tensor, y: Tensor, rate: float, steps: int
) -> list[tuple[Tensor, Tensor]]:
    """W and b at the start and at `MOMENTS` moments of training on x (n, ...), y (n, T)."""
    weights, biases = (part.clone().requires_grad_() for part in (layer.weights, layer.biases))
    width = layer.of(layer.weights, layer.biases, x[:1]).shape[1]
    head = torch.zeros(width, y.shape[1], requires_grad=True)
    mean = torch.zeros(y.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weights, biases, head, mean], lr=rate)
    kept = [(layer.weights, layer.biases)]
    at = {steps * (k + 1) // MOMENTS for k in range(MOMENTS)}
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        output = layer.of(weights, biases, x) @ head / width**0.5 + mean
        (output - y).square().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step in at:
            kept.append((weights.detach().clone(), biases.detach().clone()))
    return kept


def _heads(features: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Coefficients of every penalty (P, F, T), and the means of features and outputs."""
    middle, mean = features.mean(0), y.mean(0)
    centred = features - middle
    etas = [eta * float(np.square(centred).mean()) for eta in PENALTIES]
    return ridge_path(centred).coefficients(y - mean, etas), middle, mean


def _held_out(features: Floats, y: Floats, held: int) -> Floats:
    """Mean square error on the first `held` samples of heads fitted on the others, (P,)."""
    path, middle, mean = _heads(features[held:], y[held:])
    wrong = (features[:held] - middle) @ path + mean - y[:held]
    return np.asarray(np.square(wrong).mean((1, 2)))


def feature_run(
    data: Dataset | None, *, task: str, kind: str, learned: bool, seed: int, n: int, n_test: int,
    features: Sequence[int], rate: float, steps: int, shuffled: bool = False,
) -> Arrays:  # fmt: skip
    """Stored run of a seed: a task with layers of several numbers of features.

    shuffled : outputs of the samples in another order, so that there is nothing to learn.
    risk, excess (features,) : on fresh samples; excess is (risk - oracle) / (constant - oracle):
    0 is who knows the rule, 1 who has no features. last : the excess after the last update,
    whatever the held-out samples say. count : features there were (heads have d + 1). moment :
    which one was kept, 0 the start. beyond : largest eigenvalue of WᵀW over the edge that a bulk of
    Marchenko and Pastur has; means : share of W's row and column means in its variance over that of
    independent entries. Both after the last update, and `beyond_start` as drawn.
    """
    of = task_of(task, seed, n, n_test, data)
    order = np.random.default_rng(seed).permutation(n if shuffled else 1)
    y, held = of.y[order] if shuffled else of.y, n // 3
    names = ("risk", "excess", "last", "count", "moment", "beyond", "means", "beyond_start")
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in features:
        layer = layer_of(of, kind, int(number), seed)
        x, fresh = (layer.prepared(_tensor(part)) for part in (of.x, of.fresh))
        moments = [(layer.weights, layer.biases)]
        if learned:
            moments = _moments(layer, x[held:], _tensor(y[held:]), rate, steps)
        values = [layer.of(*own, x).double().numpy() for own in moments]
        wrong = np.stack([_held_out(one, y, held) for one in values])
        best, lost = int(wrong.min(1).argmin()), []
        for place in (best, -1):
            path, middle, mean = _heads(values[place], y)
            tested = layer.of(*moments[place], fresh).double().numpy()
            output = (tested - middle) @ path[int(wrong[place].argmin())] + mean
            lost.append(risk(output, of.wanted, of.error))
        excess = [(one - of.oracle) / (of.constant - of.oracle) for one in lost]
        row: tuple[float, ...] = (
            lost[0], *excess, len(middle), best,
            *_instruments(moments[-1][0]), _instruments(layer.weights)[0],
        )  # fmt: skip
        for name, value in zip(names, row, strict=True):
            found[name].append(value)
    return {name: np.array(values) for name, values in found.items()}


def _instruments(weights: Tensor) -> tuple[float, float]:
    """Largest eigenvalue over the bulk's edge, share of the means over chance; NaN below four
    inputs or features, where there is no bulk."""
    W = weights.flatten(1).double()
    if min(W.shape) < 4:
        return np.nan, np.nan
    tall = W if W.shape[0] >= W.shape[1] else W.mT  # else most eigenvalues are zero
    eigenvalues = torch.linalg.svdvals(tall).square().numpy()
    edge = outliers(eigenvalues, rows=len(tall)).edge
    share = row_column_share(W)
    return float(eigenvalues[0] / edge), float(share.value / share.chance)
