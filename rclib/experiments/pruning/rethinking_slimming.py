"""Stored run of notebook 41: network slimming (Liu et al. 2017, arXiv 1708.06519).

Hidden layers are batch-normalised, with a gain a unit that a penalty s · Σ |γ| draws to zero while
the large network is trained; units of small gain, over all layers together, are pruned. So the
widths are found by the training, differ from seed to seed, and are masks here. From scratch, and
while it is fine-tuned, a pruned network has no penalty, as in the code of Liu et al. (2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from rclib.data.images import Dataset
from rclib.experiments.pruning.lottery_runs import drawn_elsewhere
from rclib.experiments.pruning.rethinking_arms import ARMS, PLAN, Task, train_arms
from rclib.experiments.pruning.rethinking_runs import steps_of
from rclib.nets.masks import Masks, apply_masks, share_left
from rclib.nets.stack import Stack
from rclib.nets.units import Units, drawn_units, largest_units_together, rescaled, unit_masks
from rclib.rowcolumn.axes import Axes
from rclib.runs.store import Arrays
from rclib.training.losses import log_loss

__all__ = ["TINY", "normed_axes", "normed_start", "outputs", "slimmed"]

EPS = 1e-5
GAIN = 0.5  # where gains start, as in the authors' networks
TINY: dict[str, dict[str, Any]] = {
    "slimmed": {
        "group": [{"seed": 0}, {"seed": 3}], "pool": 1, "widths": [12, 8], "plan": PLAN,
        "penalty": 0.01, "keeps": [0.5], "arms": list(ARMS), "mask_cap": 1.5,
    },
}  # fmt: skip
Tensors = Mapping[str, Tensor]


def normed_axes(layers: int) -> Axes:
    """Axes of the networks of `normed_start` with that many matrices."""
    table: dict[str, tuple[str, ...]] = {}
    names = ["x", *(f"h{k}" for k in range(1, layers)), "y"]
    for k, (before, after) in enumerate(pairwise(names), start=1):
        table[f"W{k}"] = (after, before)
    for k in range(1, layers):
        table |= {f"G{k}": (f"h{k}",), f"B{k}": (f"h{k}",)}
    return table | {f"B{layers}": ("y",)}


def normed_start(sizes: Sequence[int], seeds: Sequence[int]) -> Stack:
    """Networks of the sizes [inputs, hidden ..., classes], one a seed: weights N(0, 2 / fan-in),
    gains a half, the rest zero."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    layers, tensors = len(sizes) - 1, {}
    for k, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
        drawn = [torch.randn(fan_out, fan_in, generator=g) for g in generators]
        tensors[f"W{k}"] = (2.0 / fan_in) ** 0.5 * torch.stack(drawn)
    for k, width in enumerate(sizes[1:-1], start=1):
        tensors[f"G{k}"] = torch.full((len(seeds), width), GAIN)
        tensors[f"B{k}"] = torch.zeros(len(seeds), width)
    tensors[f"B{layers}"] = torch.zeros(len(seeds), sizes[-1])
    return Stack(tensors, outputs)


def outputs(tensors: Tensors, x: Tensor, *, measured: int | None = None) -> Tensor:
    """Outputs (n, classes) of one network, whose hidden layers are normalised by mean and variance
    of the first `measured` rows, or of all.

    With the training images first this is an evaluation that no other image of a test touches.
    """
    layers = sum(name[0] == "W" for name in tensors)
    for k in range(1, layers):
        x = x @ tensors[f"W{k}"].T
        seen = x[:measured]
        centred = seen - seen.mean(0)
        scale = tensors[f"G{k}"] / (centred.square().mean(0) + EPS).sqrt()
        x = torch.relu((x - seen.mean(0)) * scale + tensors[f"B{k}"])
    return x @ tensors[f"W{layers}"].T + tensors[f"B{layers}"]


def _penalised(strength: float, tensors: Tensors, x: Tensor) -> Tensor:
    """Outputs, and in a last column the penalty on the gains."""
    total = sum(tensors[name].abs().sum() for name in tensors if name[0] == "G")
    column = strength * torch.as_tensor(total)
    return torch.cat([outputs(tensors, x), column.expand(len(x), 1)], dim=1)


def _penalised_loss(out: Tensor, y: Tensor) -> Tensor:
    return log_loss(out[:, :-1], y) + out[0, -1]


def _accuracy(now: Stack, task: Task) -> Tensor:
    """(S,), with the statistics of all training images."""
    both = torch.cat([task.x, task.x_test])
    measured = replace(now, one=partial(outputs, measured=len(task.x)))
    with torch.no_grad():
        guess = measured(both, own=False)[:, len(task.x) :].argmax(-1)
    return (guess == task.y_test).double().mean(1)


def slimmed(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, int]],
    pool: int,
    widths: Sequence[int],
    plan: Mapping[str, Any],
    penalty: float,
    keeps: Sequence[float],
    arms: Sequence[str],
    mask_cap: float,
) -> Arrays:
    """Stored run of a group of seeds: networks of the hidden `widths`, trained by `plan` with a
    penalty on the gains, pruned to a share of the units of largest gain (`keeps`, K of them), and
    trained on from there in every one of `arms`; "random" keeps as many units of each layer.

    A row a seed. dense (S,): test accuracy. cut (S, K): before training; <arm> (S, K): after. left
    (S, K): share of the multiplications. widths (S, K, hidden layers): units that are kept.
    """
    seeds = [int(member["seed"]) for member in group]
    task = Task.of(data, pool, plan)
    sizes = [task.x.shape[1], *widths, data.n_classes]
    axes = normed_axes(len(sizes) - 1)
    start = normed_start(sizes, seeds)
    penalised = replace(start, one=partial(_penalised, penalty))
    dense = replace(task.train(penalised, seeds, loss=_penalised_loss), one=outputs)
    gains = {f"h{k}": dense.tensors[f"G{k}"].abs() for k in range(1, len(sizes) - 1)}
    found: dict[str, list[Tensor]] = {}
    for keep in keeps:
        kept = largest_units_together(gains, max(len(widths), round(keep * sum(widths))))
        masks, starts = _sources(dense, axes, kept, sizes, seeds)
        names = [name for name in masks["inherited"] if name[0] == "W"]
        left = share_left(masks["inherited"], names)
        budgets = steps_of(plan["steps"], left, mask_cap)
        ends = train_arms(task, arms, starts, seeds, budgets, masks)
        rows = {"left": left, "widths": torch.stack([k.sum(1) for k in kept.values()], dim=1)}
        rows["cut"] = _accuracy(starts["inherited"], task)
        for name, value in (rows | {a: _accuracy(end, task) for a, end in ends.items()}).items():
            found.setdefault(name, []).append(value)
    out = {name: torch.stack(values, dim=1).numpy() for name, values in found.items()}
    return {"dense": _accuracy(dense, task).numpy(), **out}


def _sources(
    dense: Stack, axes: Axes, kept: Units, sizes: Sequence[int], seeds: Sequence[int]
) -> tuple[dict[str, Masks], dict[str, Stack]]:
    """Masks and starting values of the pruned networks, by source."""
    own = unit_masks(dense.tensors, axes, kept)
    drawn = drawn_units(kept, [drawn_elsewhere(seed, 4) for seed in seeds])
    masks = {"inherited": own, "random": unit_masks(dense.tensors, axes, drawn)}
    values = {"inherited": dense.tensors, "random": dense.tensors}
    matrices = {name: mask for name, mask in own.items() if name[0] == "W"}
    for source, what in (("fresh", 1), ("again", 5)):
        other = normed_start(sizes, [drawn_elsewhere(seed, what) for seed in seeds])
        masks[source], values[source] = own, rescaled(other.tensors, matrices)
    starts = {
        source: replace(dense, tensors=apply_masks(tensors, masks[source]))
        for source, tensors in values.items()
    }
    return masks, starts
