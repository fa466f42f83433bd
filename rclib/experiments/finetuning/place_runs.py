"""Stored runs of notebook 86: a network adapted by one method, and where the update is.

Only measures are stored, of the trained update and of a random one of the method's form and of the
same norm (`rclib.adapters.random_update`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.adapters.method import Method
from rclib.adapters.random_update import random_update
from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning.bases import ADAPTED, Task, image_task, text_task
from rclib.experiments.finetuning.tuned_runs import adapted, method_of
from rclib.runs.store import Arrays
from rclib.spectral.placement import (
    Directions,
    block_energy,
    diagonal_energy,
    directions,
    mean_energies,
    row_energy,
    spike_count,
)
from rclib.spectral.spectra import stable_rank

__all__ = [
    "BLOCKS",
    "KINDS",
    "MEASURES",
    "TINY",
    "image_places",
    "input_directions",
    "mean_correlation",
    "measured",
    "places_of",
    "text_places",
]

BLOCKS = 8  # of directions on either side; "top" is the first
KINDS = ("trained", "form")
MEASURES = (
    "norm", "left", "right", "touching", "inputs", "diagonal", "rows", "columns", "stable",
    "spikes",
)  # fmt: skip
_BASE = {"width": 8, "batch_size": 16, "steps": 3, "rate": 0.01}
_TINY_GROUP = [
    {"seed": 0, "rate": 0.01, "method": {"kind": "LoRA", "rank": 2}},
    {"seed": 3, "rate": 0.1, "method": {"kind": "PiSSA", "rank": 2}},
]
_TINY_TASK = {"n_train": 20, "n_validation": 8, "n_test": 8}
TINY: dict[str, dict[str, Any]] = {
    "image_places": {
        "group": _TINY_GROUP, "base": {**_BASE, "pool": 1, "classes": 5, "n": 30},
        "task": {**_TINY_TASK, "head_rate": 0.001}, "steps": 3, "batch_size": 8,
    },
    "text_places": {
        "group": _TINY_GROUP, "base": {**_BASE, "context": 4, "embedding": 2}, "task": _TINY_TASK,
        "steps": 3, "batch_size": 8,
    },
}  # fmt: skip


def input_directions(x: Tensor) -> Tensor:
    """(i, i / BLOCKS): main directions of inputs x (n, i), their mean not subtracted."""
    x = x.double()
    _, vectors = torch.linalg.eigh(x.mT @ x)
    main: Tensor = vectors.flip(1)[:, : x.shape[1] // BLOCKS]
    return main


def measured(
    change: Tensor, base: Directions, inputs: Tensor
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """`MEASURES` (10,) and block energies (BLOCKS, BLOCKS) of an update D; NaN for none.

    norm : ‖D‖ / ‖W‖. left, right, touching : energy in the first block of W's left directions, of
    its right ones, in either. inputs : of rows of D in `input_directions`. diagonal : with all
    singular vectors kept. rows, columns : in means, over that of independent entries. stable :
    rank. spikes : `spike_count`.
    """
    if not bool(change.any()):
        return np.full(len(MEASURES), np.nan), np.full((BLOCKS, BLOCKS), np.nan)
    change = change.double()
    energy = block_energy(change, base, BLOCKS)
    left, right = float(energy[0].sum()), float(energy[:, 0].sum())
    rows, columns = mean_energies(change)
    found = (
        float(change.norm() / base.values.norm()), left, right, left + right - float(energy[0, 0]),
        row_energy(change, inputs), diagonal_energy(change, base), rows * change.shape[1],
        columns * change.shape[0], stable_rank(change), spike_count(change),
    )  # fmt: skip
    return np.array(found), energy.numpy()


def mean_correlation(first: Tensor, second: Tensor) -> float:
    """|correlation| of the row means of first (h, i) and the column means of second (o, h): of
    what two matrices know of the h units between them. NaN where one does not vary."""
    means = torch.stack([first.double().mean(1), second.double().mean(0)])
    if not bool((means.std(1) > 0).all()):
        return float("nan")
    return abs(float(torch.corrcoef(means)[0, 1]))


def places_of(
    weights: Sequence[Tensor], changes: Sequence[Tensor], method: Method, inputs: Sequence[Tensor],
    *, bases: Sequence[Directions], tops: Sequence[Tensor], pairs: Sequence[tuple[int, int]],
    seed: int,
) -> Arrays:  # fmt: skip
    """Where the updates of L matrices are.

    inputs : (n, i) of each, for methods that look at them. tops : `input_directions`. pairs :
    places of matrices that share units, rows of the first and columns of the second.

    measures (2, L, 10), blocks (2, L, BLOCKS, BLOCKS) : `measured`, by `KINDS`. means (4,) :
    `mean_correlation`, mean over pairs, of the trained and the random update, of the weights before
    and after.
    """
    forms = [torch.zeros_like(change) for change in changes]
    if method.trained:
        for j, (weight, change, x) in enumerate(zip(weights, changes, inputs, strict=True)):
            start = method.start(weight, seed=seed + 1009 * j, inputs=x)
            norm = float(change.double().norm())
            if norm > 0:
                forms[j] = random_update(method, start, norm, seed=seed + 1009 * j + 500)
    found = [
        [measured(d, base, top) for d, base, top in zip(own, bases, tops, strict=True)]
        for own in (changes, forms)
    ]
    after = [weight + change for weight, change in zip(weights, changes, strict=True)]
    means = [
        np.mean([mean_correlation(own[a], own[b]) for a, b in pairs])
        for own in (changes, forms, weights, after)
    ]
    return {
        "measures": np.array([[m for m, _ in kind] for kind in found]),
        "blocks": np.array([[b for _, b in kind] for kind in found]),
        "means": np.array(means),
    }


def _inputs(task: Task, member: int) -> tuple[Tensor, Tensor]:
    """(n, i) of both matrices of a member, on what it trains on; alone, for the same bits."""
    x = task.at(task.places["train"])[0][member].contiguous()
    weight, bias = (task.start.tensors[n][member].clone() for n in (ADAPTED[0], "layers.0.bias"))
    return x, torch.relu(x @ weight.T + bias)


def _placed(
    task: Task, group: Sequence[Mapping[str, Any]], steps: int, batch_size: int
) -> Arrays:  # fmt: skip
    """`tuned_runs.adapted` of a group, without its matrices, and `places_of` each member."""
    runs = adapted(task, group, steps=steps, batch_size=batch_size, keep=True)
    rows = []
    for s, member in enumerate(group):
        inputs = _inputs(task, s)
        weights = [torch.from_numpy(runs[f"weight_{k}"][s].copy()) for k in (0, 1)]
        rows.append(places_of(
            weights, [torch.from_numpy(runs[f"change_{k}"][s].copy()) for k in (0, 1)],
            method_of(member["method"]), inputs, bases=[directions(w) for w in weights],
            tops=[input_directions(x) for x in inputs], pairs=[(0, 1)], seed=int(member["seed"]),
        ))  # fmt: skip
    own = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {name: runs[name] for name in ("start", "end", "accuracy")} | own


def image_places(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], base: Mapping[str, Any],
    task: Mapping[str, Any], steps: int, batch_size: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group, each a seed, a rate and a method, on `image_task`: start, end,
    accuracy of `tuned_runs.adapted`, and `places_of`."""
    found = image_task(data, [int(m["seed"]) for m in group], base=base, task=task)
    return _placed(found, group, steps, batch_size)


def text_places(
    data: TextData, *, group: Sequence[Mapping[str, Any]], base: Mapping[str, Any],
    task: Mapping[str, Any], steps: int, batch_size: int,
) -> Arrays:  # fmt: skip
    """The same on `text_task`."""
    found = text_task(data, [int(m["seed"]) for m in group], base=base, task=task)
    return _placed(found, group, steps, batch_size)
