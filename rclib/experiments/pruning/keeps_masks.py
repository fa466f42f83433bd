"""Masks of notebook 46 that hold as many weights as a given one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.experiments.pruning.lottery_runs import drawn_elsewhere
from rclib.nets.densities import erdos_renyi, random_masks, uniform
from rclib.nets.masks import Masks, apply_masks, largest, shuffled
from rclib.nets.stack import Stack
from rclib.training.saliency import grasp, keep_highest, snip, synflow

__all__ = ["kept_units", "masks_like", "unit_masks", "with_count"]


def with_count(
    shapes: Mapping[str, Sequence[int]], densities: Mapping[str, float], count: int
) -> dict[str, float]:
    """Densities whose rounded counts of weights sum to `count`: the largest layer takes what
    rounding leaves. Raises ValueError where it cannot."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    counts = {name: round(densities[name] * size) for name, size in sizes.items()}
    widest = max(sizes, key=lambda name: sizes[name] - counts[name])
    counts[widest] += count - sum(counts.values())
    if not 0 <= counts[widest] <= sizes[widest]:
        raise ValueError(f"count must fit the densities, got {count}")
    return {name: counts[name] / sizes[name] for name in sizes}


def kept_units(sizes: Sequence[int], count: int) -> list[int]:
    """Units kept of each hidden layer of a fully connected network of these sizes (inputs, hidden,
    outputs), in the network's own proportions to a unit, with the most weights up to `count`."""
    inputs, *hidden, outputs = sizes
    best, most = [1] * len(hidden), 0
    for share in np.linspace(0.002, 1.0, 2000):
        kept = [max(1, round(share * width)) for width in hidden]
        for extra in range(3):
            tried = [*kept[:-1], min(hidden[-1], kept[-1] + extra)]
            full = [inputs, *tried, outputs]
            weights = sum(a * b for a, b in zip(full[1:], full[:-1], strict=True))
            if most < weights <= count:
                best, most = tried, weights
    return best


def unit_masks(end: Mapping[str, Tensor], names: Sequence[str], count: int) -> Masks:
    """Whole units of largest incoming L1 norm after training, `kept_units` of every layer."""
    sizes = [end[names[0]].shape[2], *(end[name].shape[1] for name in names)]
    keep = kept_units(sizes, count)
    shape = end[names[0]].shape
    before = torch.ones(shape[0], shape[2], dtype=torch.bool)  # all inputs stay
    masks = {}
    for place, name in enumerate(names):
        norms = end[name].abs().sum(2)
        after = torch.ones(norms.shape, dtype=torch.bool)
        if place < len(keep):
            after = torch.zeros(norms.shape, dtype=torch.bool)
            after.scatter_(1, norms.topk(keep[place], dim=1).indices, True)
        masks[name] = after[:, :, None] & before[:, None, :]
        before = after
    return masks


def _searched(
    start: Stack, shapes: Mapping[str, Sequence[int]], densities: Mapping[str, float],
    seeds: Sequence[int], n_masks: int, x: Tensor, y: Tensor,
) -> Masks:  # fmt: skip
    """Of n_masks random masks of a seed, the one of lowest loss before training."""
    best: Masks = {}
    for s, seed in enumerate(seeds):
        drawn = [drawn_elsewhere(seed, 100 + k) for k in range(n_masks)]
        masks = random_masks(shapes, densities, drawn)
        alike = {
            name: value[[s]].expand(n_masks, *value.shape[1:])
            for name, value in start.tensors.items()
        }
        nets = replace(start, tensors=apply_masks(alike, masks))
        with torch.no_grad():
            losses = [cross_entropy(each, y[s]) for each in nets(x[s])]
        chosen = int(torch.stack(losses).argmin())
        for name, mask in masks.items():
            best[name] = torch.cat([best[name], mask[[chosen]]] if s else [mask[[chosen]]])
    return best


def masks_like(
    ticket: Masks,
    start: Stack,
    dense: Stack,
    x: Tensor,
    y: Tensor,
    seeds: Sequence[int],
    *,
    n_masks: int,
) -> dict[str, Masks]:
    """Masks with as many weights as the ticket: in every matrix, or in all.

    start, dense : networks before and after training. x (S, n, d), y (S, n) : images of the scores
    before training and of the search. seeds : one a member. n_masks : of the search.
    """
    names = list(ticket)
    shapes = {name: ticket[name].shape[1:] for name in names}
    count = sum(int(ticket[name][0].sum()) for name in names)
    density = count / sum(math.prod(shape) for shape in shapes.values())
    flat, er = (with_count(shapes, f(shapes, density), count) for f in (uniform, erdos_renyi))
    scores = grasp(start, x, y, cross_entropy, names, own=True)
    return {
        "one_shot": largest(dense.tensors, like=ticket),
        "start_mask": largest(start.tensors, like=ticket),
        "shuffled": shuffled(ticket, [drawn_elsewhere(seed, 2) for seed in seeds]),
        "uniform": random_masks(shapes, flat, [drawn_elsewhere(seed, 3) for seed in seeds]),
        "er": random_masks(shapes, er, [drawn_elsewhere(seed, 4) for seed in seeds]),
        "er_again": random_masks(shapes, er, [drawn_elsewhere(seed, 5) for seed in seeds]),
        "searched": _searched(start, shapes, er, seeds, n_masks, x, y),
        "snip": keep_highest(snip(start, x, y, cross_entropy, names, own=True), density),
        # The authors' code keeps the lowest scores, which is "grasp_other_end".
        "grasp": keep_highest(scores, density),
        "grasp_other_end": keep_highest({n: -score for n, score in scores.items()}, density),
        "synflow": keep_highest(synflow(start, (x.shape[2],), names), density),
        "units": unit_masks(dense.tensors, names, count),
    }
