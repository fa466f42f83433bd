"""Easy and hard examples while a network trains (notebook 45): kernel velocity, error barriers.

The tangent kernel of m examples is K = J Jᵀ (m K, m K), J the gradients of all outputs in the
weights. Its velocity between two epochs is the cosine distance of the two matrices,

    v = 1 - <K, K'> / (‖K‖ ‖K'‖).

Children of one network go on with batches in orders of their own from the epoch t* on. The barrier
between them is the largest rise of the error R of a set of examples on the straight line between
their weights, sup over α of R(α w + (1 - α) w') - α R(w) - (1 - α) R(w').
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.experiments.pruning.data_diet_runs import (
    batches,
    committee_scores,
    images,
    needed,
    networks,
)
from rclib.experiments.pruning.data_scores import activations, window
from rclib.nets.stack import Stack
from rclib.runs import store
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_orders, train_stack

__all__ = [
    "GROUPS",
    "TINY",
    "barrier",
    "barrier_frame",
    "dynamics",
    "hardest_minus_easiest",
    "tangent_kernel",
    "velocity_frame",
]

GROUPS = ("lowest", "random", "highest")
_ALPHAS = 11  # points of the line between two children
TINY: dict[str, dict[str, Any]] = {
    "dynamics": {
        "group": [{"seed": 0, "committee": 3}, {"seed": 5, "committee": 4}],
        "examples": 6, "kernel_examples": 3, "spawns": [0, 1], "steps": 4,
        "scoring": {"nets": 2, "epochs": [0, 1], "widths": [6, 5], "batch_size": 32,
                    "rate": 1e-3, "pool": 1},
    },
}  # fmt: skip


def tangent_kernel(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """K (m K, m K) of one ReLU network, rows by example, then output.

    tensors : W1 (N_1, d), B1 (N_1,), W2, ... x : (m, d). The gradient of output k in W_l is the
    product of a back-propagated vector and the layer's input, so K is a sum over layers of products
    of two Gram matrices, that of the inputs plus one (the bias).
    """
    stacked = {name: tensor.unsqueeze(0) for name, tensor in tensors.items()}
    hidden = [h[0] for h in activations(stacked, x)]
    m, outputs = hidden[-1].shape
    delta = torch.eye(outputs, dtype=x.dtype).expand(m, outputs, outputs)  # example, output, unit
    kernel = torch.zeros(m * outputs, m * outputs, dtype=x.dtype)
    for layer in range(len(hidden) - 1, 0, -1):
        below = hidden[layer - 1]
        flat = delta.reshape(m * outputs, -1)
        inputs = (below @ below.t() + 1.0).repeat_interleave(outputs, 0)
        kernel += (flat @ flat.t()) * inputs.repeat_interleave(outputs, 1)
        if layer > 1:
            delta = (delta @ tensors[f"W{layer}"]) * (below > 0).unsqueeze(1)
    return kernel


def _distance(a: Tensor, b: Tensor) -> float:
    return 1.0 - float((a * b).sum() / (a.norm() * b.norm()))


def barrier(one: Mapping[str, Tensor], other: Mapping[str, Tensor], x: Tensor, y: Tensor) -> float:
    """Error barrier on the examples x (m, d) with labels y (m,) between two networks."""
    alphas = torch.linspace(0, 1, _ALPHAS)
    line = {
        name: torch.stack([a * one[name] + (1 - a) * other[name] for a in alphas]) for name in one
    }
    errors = (activations(line, x)[-1].argmax(-1) != y).double().mean(1)
    return float((errors - alphas * errors[-1] - (1 - alphas) * errors[0]).max())


def dynamics(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, int]],
    examples: int,
    kernel_examples: int,
    spawns: Sequence[int],
    steps: int,
    scoring: Mapping[str, Any],
) -> Arrays:
    """Stored run: networks on all data, each with its children, looked at on the examples with the
    lowest and the highest EL2N of a committee (its last epoch), and on as many random ones.

    group : seed (start, order of batches), committee. velocity (S, epochs - 1, 3) : of the kernel
    of `kernel_examples` examples from each recorded epoch of the committee to the next, over the
    epochs between. barriers (S, spawns, 3) : between two children that part at these epochs, on
    `examples` examples, after `steps` steps in all or at the last recorded epoch, whichever is
    later. Columns: `GROUPS`.
    """
    x, _ = images(data, scoring["pool"])
    y, size = data.y_train, scoring["batch_size"]
    a_epoch = math.ceil(len(x) / size)
    due = [epoch * a_epoch for epoch in scoring["epochs"]]
    last = max(steps, *due)
    # Two children a parting, and then a network that never parts.
    partings = [epoch * a_epoch for epoch in spawns for _ in range(2)] + [last]
    family = len(partings)
    scores = [
        committee_scores(data, m["committee"], 0.0, scoring)["el2n"][-1].astype(np.float64).mean(0)
        for m in group
    ]
    chosen = [_groups(s, kernel_examples, m["seed"]) for s, m in zip(scores, group, strict=True)]
    trunk = epoch_orders(len(x), size, [m["seed"] for m in group])
    apart = epoch_orders(
        len(x), size, [1000 * m["seed"] + 1 + place for m in group for place in range(family)]
    )
    parted = torch.tensor(partings * len(group)).unsqueeze(1)

    def order(step: int) -> Tensor:
        return torch.where(parted <= step, apart(step), trunk(step).repeat_interleave(family, 0))

    kernels: list[list[list[Tensor]]] = []
    step = 0

    def watch(now: Stack) -> Tensor:
        nonlocal step
        if step in due:
            roots = [now.member(k * family + family - 1) for k in range(len(group))]
            kernels.append([
                [tangent_kernel(root, x[places]) for places in sets]
                for root, sets in zip(roots, chosen, strict=True)
            ])  # fmt: skip
        step += 1
        return torch.zeros(len(now))

    seeds = [m["seed"] for m in group for _ in range(family)]
    end, _ = train_stack(
        networks(x.shape[1], scoring["widths"], data.n_classes, seeds),
        batches(x, y.expand(len(seeds), -1), order),
        cross_entropy,
        steps=last,
        lr=scoring["rate"],
        optimizer="adam",
        record={"watched": watch},
        at=range(last + 1),
        own="xy",
    )
    gaps = np.diff(scoring["epochs"])
    velocity = [
        [
            [_distance(*pair) / gap for pair in zip(before[k], after[k], strict=True)]
            for (before, after), gap in zip(pairwise(kernels), gaps, strict=True)
        ]
        for k in range(len(group))
    ]
    barriers = [
        [
            [barrier(end.member(at), end.member(at + 1), x[places], y[places]) for places in sets]
            for at in range(k * family, k * family + family - 1, 2)
        ]
        for k, sets in enumerate(
            _groups(s, examples, m["seed"]) for s, m in zip(scores, group, strict=True)
        )
    ]
    return {"velocity": np.array(velocity), "barriers": np.array(barriers)}


def _needed(config: Mapping[str, Any]) -> list[tuple[store.Experiment, Mapping[str, Any]]]:
    members = [
        {"committee": one["committee"], "score": "el2n"} for one in config.get("group", [config])
    ]
    return needed({"group": members, "noise": 0.0, "scoring": config["scoring"]})


def _groups(scores: np.ndarray, n: int, seed: int) -> list[Tensor]:
    """Places of n examples with the lowest scores, of n random ones, and of the n highest."""
    share = n / len(scores)
    random = np.random.default_rng([seed, 47]).permutation(len(scores)).astype(float)
    windows = ((scores, 0.0), (random, 0.0), (scores, 1.0 - share))
    return [torch.from_numpy(window(values, share, offset)) for values, offset in windows]


def _runs(
    data: Dataset, seeds: Sequence[int], committees: Sequence[int], shared: Mapping[str, Any]
) -> list[Arrays]:
    configs = [
        {"seed": seed, "committee": of, **shared}
        for seed, of in zip(seeds, committees, strict=True)
    ]
    return sweep_stacked(
        dynamics,
        configs,
        data=data,
        members=["seed", "committee"],
        group=5,
        description="easy and hard examples",
        needs=_needed,
    )


def velocity_frame(
    data: Dataset, seeds: Sequence[int], committees: Sequence[int], **shared: Any
) -> pd.DataFrame:
    """seed, epoch (the later one), group, value: the kernel's velocity, per epoch."""
    epochs = shared["scoring"]["epochs"][1:]
    return _long(seeds, epochs, "velocity", _runs(data, seeds, committees, shared))


def barrier_frame(
    data: Dataset, seeds: Sequence[int], committees: Sequence[int], **shared: Any
) -> pd.DataFrame:
    """seed, epoch (of the parting), group, value: the error barrier between two children."""
    found = _runs(data, seeds, committees, shared)
    return _long(seeds, shared["spawns"], "barriers", found)


def _long(
    seeds: Sequence[int], epochs: Sequence[int], name: str, found: Sequence[Arrays]
) -> pd.DataFrame:
    rows = [
        (seed, epoch, group, float(run[name][i, j]))
        for seed, run in zip(seeds, found, strict=True)
        for i, epoch in enumerate(epochs) for j, group in enumerate(GROUPS)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["seed", "epoch", "group", "value"])


def hardest_minus_easiest(frame: pd.DataFrame, epoch: int | None = None) -> pd.Series:
    """Value of the highest scores minus that of the lowest, at one epoch or their mean, by seed."""
    at = frame if epoch is None else frame[frame.epoch == epoch]
    table = at.pivot_table(index="seed", columns="group", values="value")
    return (table["highest"] - table["lowest"]).rename("difference")
