"""Stored run of notebook 41: tickets and fresh starts in one mask, at several rates.

Section 6 of Liu et al. (2019): found in rounds, in one shot, and by whole units. Weights are pruned
over all layers together, as in the authors' code, which also gives a fresh start in a mask weights
that are larger by the square root of what the mask takes away; here both starts are an arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rclib.data.images import Dataset
from rclib.experiments.pruning.lottery_runs import drawn_elsewhere, starts_of, weights_of
from rclib.experiments.pruning.rethinking_arms import PLAN, Task, joined
from rclib.nets.masks import Masks, apply_masks, full_masks, prune_globally, share_left
from rclib.nets.stack import Stack
from rclib.nets.units import l1_norms, largest_units, rescaled, slice_units
from rclib.rowcolumn.axes import mlp_axes
from rclib.runs.store import Arrays
from rclib.training.pruning import iterative_pruning
from rclib.training.validation import accuracy

__all__ = ["STARTS", "TINY", "tickets_by_rate"]

STARTS = ("ticket", "fresh", "scaled")  # "scaled": the fresh start times the root of 1 / P
TINY: dict[str, dict[str, Any]] = {
    "tickets_by_rate": {
        "group": [{"seed": 0, "rate": 0.02}, {"seed": 3, "rate": 0.05}], "pool": 1,
        "widths": [12, 8], "plan": PLAN, "rounds": 2, "share": 0.5, "keep": 0.5,
    },
}  # fmt: skip


def tickets_by_rate(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, Any]],
    pool: int,
    widths: Sequence[int],
    plan: Mapping[str, Any],
    rounds: int,
    share: float,
    keep: float,
) -> Arrays:
    """Stored run of a group of seeds and rates: R = `rounds` prunings with resetting, each of the
    `share` of the weights left over all matrices; one-shot pruning to as many; and units of largest
    L1 norm, a share `keep` of every hidden layer.

    group : "seed", and "rate", at which everything of it is trained, by the `plan` otherwise.

    A row each. left (S, R + 1): shares of the weights. dense (S,): test accuracy. weights
    (S, R, 3), one_shot (S, 3): of `STARTS` in the masks of each round and in the last one's number
    of weights; units (S, 2): of the small network from the large one's start, and from a fresh one.
    """
    seeds = [int(member["seed"]) for member in group]
    rates = [float(member["rate"]) for member in group]
    task = Task.of(data, pool, plan)
    inputs, classes = task.x.shape[1], data.n_classes

    def begun(at: Sequence[int], elsewhere: int | None = None) -> Stack:
        chosen = seeds if elsewhere is None else [drawn_elsewhere(s, elsewhere) for s in seeds]
        return starts_of({"widths": list(at)}, chosen, inputs, classes)

    def trained(begin: Stack, masks: Masks | None) -> Stack:
        times = len(begin) // len(seeds)
        return task.train(begin, seeds * times, masks=masks, lr=rates * times)

    def judged(begins: Sequence[Stack], masks: Masks | None) -> Tensor:
        """Accuracy (S, starts) of several stacks, trained as one in the same masks."""
        begin = joined(begins)
        if masks is not None:
            masks = {name: mask.repeat(len(begins), 1, 1) for name, mask in masks.items()}
            begin = replace(begin, tensors=apply_masks(begin.tensors, masks))
        found = accuracy(trained(begin, masks), task.x_test, task.y_test)
        return torch.stack(found.split(len(seeds)), dim=1)

    start, fresh = begun(widths), begun(widths, 1)

    def all_starts(masks: Masks) -> list[Stack]:
        return [start, fresh, replace(fresh, tensors=rescaled(fresh.tensors, masks))]

    def train(begin: Stack, masks: Masks) -> tuple[Stack, Tensor]:
        end = trained(begin, masks)
        return end, accuracy(end, task.x_test, task.y_test)

    names = weights_of(start)
    found = iterative_pruning(
        start, train, rounds=rounds, shares=share, names=names, scope="global"
    )
    others = [judged(all_starts(each.masks)[1:], each.masks) for each in found[1:]]
    tickets = torch.stack([each.found for each in found[1:]], dim=1)
    left = torch.stack([share_left(each.masks) for each in found], dim=1)
    dense = found[0].end
    # Every member keeps as many: the counts depend on the sizes of the matrices alone.
    once = prune_globally(dense.tensors, full_masks(dense.tensors, names), 1 - float(left[0, -1]))
    axes = mlp_axes(len(names))
    norms = l1_norms(dense.tensors, axes)
    numbers = {index: max(1, round(keep * norm.shape[1])) for index, norm in norms.items()}
    kept = largest_units(norms, numbers)
    small = begun(list(numbers.values()), 1)
    own = replace(small, tensors=slice_units(start.tensors, axes, kept))
    out = {
        "left": left,
        "dense": found[0].found,
        "weights": torch.cat([tickets.unsqueeze(2), torch.stack(others, dim=1)], dim=2),
        "one_shot": judged(all_starts(once), once),
        "units": judged([own, small], None),
    }
    return {name: value.numpy() for name, value in out.items()}
