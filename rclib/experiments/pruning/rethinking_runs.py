"""Stored run of notebook 41: a dense network of a seed, pruned by units and by weights, and all
arms of `rethinking_arms` from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rclib.data.images import Dataset
from rclib.experiments.pruning.lottery_runs import drawn_elsewhere, starts_of, weights_of
from rclib.experiments.pruning.rethinking_arms import ARMS, PLAN, Task, train_arms
from rclib.nets.masks import (
    Masks,
    apply_masks,
    full_masks,
    prune_globally,
    share_left,
    shuffled,
)
from rclib.nets.stack import Stack
from rclib.nets.units import (
    drawn_units,
    l1_norms,
    largest_units,
    rescaled,
    slice_units,
    unit_masks,
)
from rclib.rowcolumn.axes import mlp_axes
from rclib.rowcolumn.measure import correlations, largest_correlation, mean_vectors
from rclib.runs.store import Arrays
from rclib.spectral.spectra import stable_rank
from rclib.training.validation import accuracy

__all__ = ["LOOKED_AT", "TINY", "pruned", "steps_of"]

# Whose first hidden layer is looked at: the large network, and of the pruned ones what it was cut
# to at the start, after training, and at the end of two arms.
LOOKED_AT = ("dense", "start", "cut", "fine_tuned", "scratch_b")
SHUFFLES = 100
TINY: dict[str, dict[str, Any]] = {
    "pruned": {
        "group": [{"seed": 0}, {"seed": 3}], "pool": 1, "widths": [12, 8], "plan": PLAN,
        "keeps": [0.5], "shares": [0.4],
        "arms": {"units": list(ARMS), "weights": list(ARMS)}, "cap": 2.0, "mask_cap": 1.5,
    },
}  # fmt: skip


def steps_of(whole: int, left: Tensor, cap: float) -> list[int]:
    """Steps of Scratch-B, one a member: as many as cost what `whole` steps of the large network
    do, if a share `left` (S,) of its multiplications is left; at most `cap` times as many."""
    return [int(whole * min(cap, 1.0 / float(share))) for share in left]


def pruned(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, int]],
    pool: int,
    widths: Sequence[int],
    plan: Mapping[str, Any],
    keeps: Sequence[float],
    shares: Sequence[float],
    arms: Mapping[str, Sequence[str]],
    cap: float,
    mask_cap: float,
) -> Arrays:
    """Stored run of a group of seeds: ReLU networks of these hidden `widths`, trained by `plan`
    (`rethinking_arms.PLAN`), then pruned in every hidden layer to a share of the units of largest
    L1 norm (`keeps`, K of them), and over all layers to a share of the largest weights (`shares`,
    P), and trained on from there in every one of `arms`, lists for "units" and for "weights".

    pool : see `rethinking_arms.Task.of`. cap, mask_cap : most that Scratch-B may take over E, for
    sliced networks and for masked ones, whose zeros cost as much as other numbers here.

    A row a seed. dense (S,): test accuracy. units_cut (S, K), weights_cut (S, P): of the pruned
    networks before training; units_<arm> (S, K), weights_<arm> (S, P): after. units_left, ...:
    shares of the multiplications that are left. correlation, chance, rank (S, K, 5), for
    `LOOKED_AT`: largest |correlation| of the mean vectors of the first hidden layer, its mean over
    shuffles of the vectors, and the stable rank of the first matrix. Raises ValueError for an arm
    that is not there.
    """
    seeds = [int(member["seed"]) for member in group]
    task = Task.of(data, pool, plan)
    start = starts_of({"widths": list(widths)}, seeds, task.x.shape[1], data.n_classes)
    dense = task.train(start, seeds)
    found: dict[str, list[Tensor]] = {}

    def note(name: str, value: Tensor) -> None:
        found.setdefault(name, []).append(value)

    def judged(now: Stack) -> Tensor:
        return accuracy(now, task.x_test, task.y_test)

    for keep in keeps:
        pruner = _Units(start, dense, seeds, keep)
        left = pruner.left()
        budgets = steps_of(plan["steps"], left, cap)
        ends = train_arms(task, arms["units"], pruner.starts, seeds, budgets)
        note("units_left", left)
        note("units_cut", judged(pruner.starts["inherited"]))
        for arm, end in ends.items():
            note(f"units_{arm}", judged(end))
        seen = [dense, pruner.at_start, pruner.starts["inherited"]]
        seen += [ends.get(arm, pruner.starts["inherited"]) for arm in LOOKED_AT[3:]]
        rows = [_first_layer(each, seeds) for each in seen]
        for place, name in enumerate(("correlation", "chance", "rank")):
            note(name, torch.stack([row[:, place] for row in rows], dim=1))
    for share in shares:
        masks, starts = _weights(start, dense, seeds, share)
        left = share_left(masks["inherited"])
        budgets = steps_of(plan["steps"], left, mask_cap)
        ends = train_arms(task, arms["weights"], starts, seeds, budgets, masks)
        note("weights_left", left)
        note("weights_cut", judged(starts["inherited"]))
        for arm, end in ends.items():
            note(f"weights_{arm}", judged(end))
    out = {name: torch.stack(values, dim=1).numpy() for name, values in found.items()}
    return {"dense": judged(dense).numpy(), **out}


class _Units:
    """Networks with the same share of the units in every hidden layer, by source."""

    def __init__(self, start: Stack, dense: Stack, seeds: Sequence[int], keep: float) -> None:
        axes = mlp_axes(len(weights_of(start)))
        norms = l1_norms(dense.tensors, axes)
        numbers = {index: max(1, round(keep * n.shape[1])) for index, n in norms.items()}
        kept = largest_units(norms, numbers)
        drawn = drawn_units(kept, [drawn_elsewhere(seed, 4) for seed in seeds])
        inputs, classes = start.tensors["W1"].shape[2], next(reversed(start.tensors.values()))

        def fresh(what: int) -> Stack:
            elsewhere = [drawn_elsewhere(seed, what) for seed in seeds]
            widths = {"widths": list(numbers.values())}
            return starts_of(widths, elsewhere, inputs, classes.shape[1])

        small = fresh(1)
        self.starts = {
            "inherited": replace(small, tensors=slice_units(dense.tensors, axes, kept)),
            "random": replace(small, tensors=slice_units(dense.tensors, axes, drawn)),
            "fresh": small,
            "again": fresh(5),
        }
        self.at_start = replace(small, tensors=slice_units(start.tensors, axes, kept))
        self.masks = unit_masks(start.tensors, axes, kept)

    def left(self) -> Tensor:
        """Share of the multiplications, (S,): every weight of a matrix is used once an image."""
        return share_left(self.masks, [name for name in self.masks if name[0] == "W"])


def _weights(
    start: Stack, dense: Stack, seeds: Sequence[int], share: float
) -> tuple[dict[str, Masks], dict[str, Stack]]:
    """Masks that keep a share of the weights over all matrices, and starting values, by source."""
    kept = prune_globally(dense.tensors, full_masks(dense.tensors, weights_of(dense)), 1 - share)
    drawn = shuffled(kept, [drawn_elsewhere(seed, 2) for seed in seeds])
    inputs, widths = start.tensors["W1"].shape[2], [start.tensors[n].shape[1] for n in kept]
    masks = {"inherited": kept, "random": drawn, "fresh": kept, "again": kept}
    values = {"inherited": dense.tensors, "random": dense.tensors}
    for source, what in (("fresh", 1), ("again", 5)):
        elsewhere = [drawn_elsewhere(seed, what) for seed in seeds]
        other = starts_of({"widths": widths[:-1]}, elsewhere, inputs, widths[-1])
        values[source] = rescaled(other.tensors, kept)
    starts = {
        source: replace(start, tensors=apply_masks(tensors, masks[source]))
        for source, tensors in values.items()
    }
    return masks, starts


def _first_layer(now: Stack, seeds: Sequence[int]) -> Tensor:
    """(S, 3): largest |correlation| over the first hidden layer's mean vectors, its mean over
    shuffles of them, stable rank of the first matrix."""
    rows = []
    for s, seed in enumerate(seeds):
        member = now.member(s)
        axes = mlp_axes(sum(name[0] == "W" for name in member))
        vectors = mean_vectors(member, axes)["h1"]
        # A bias that is still constant has no correlation, and leaves one pair of three.
        value = largest_correlation(correlations({"h1": vectors})).value
        chance = _shuffled_largest(
            np.stack([v.numpy() for v in vectors.values() if float(v.std()) > 0]),
            np.random.default_rng(drawn_elsewhere(seed, 6)),
        )
        rows.append([value, chance, stable_rank(member["W1"].double())])
    return torch.tensor(rows, dtype=torch.float64)


def _shuffled_largest(vectors: NDArray[np.float64], random: np.random.Generator) -> float:
    """Mean over shuffles of the largest |correlation| of vectors (K, N), each shuffled alone."""
    centred = vectors - vectors.mean(1, keepdims=True)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    mixed = random.permuted(np.broadcast_to(unit, (SHUFFLES, *unit.shape)), axis=2)
    found = np.abs(np.matmul(mixed, mixed.transpose(0, 2, 1)))
    above = np.triu_indices(len(unit), 1)
    return float(found[:, above[0], above[1]].max(1).mean())
