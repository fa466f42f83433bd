"""Stored run of notebook 46: every way to keep as many weights, on one network and one start.

All arms of a seed share θ0, the training images, the order of the batches, and the number of kept
weights, that of the ticket. Where an arm has values of its own, a fresh start is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.experiments.pruning.data_diet_runs import images
from rclib.experiments.pruning.data_scores import el2n
from rclib.experiments.pruning.keeps_masks import masks_like
from rclib.experiments.pruning.lottery_runs import drawn_elsewhere, starts_of, weights_of
from rclib.nets.densities import densities_of
from rclib.nets.masks import Masks, apply_masks, shuffled, with_signs
from rclib.nets.stack import Stack
from rclib.rowcolumn.axes import mlp_axes
from rclib.rowcolumn.measure import correlations, mean_vectors
from rclib.runs.store import Arrays
from rclib.spectral.sparse import entry_cumulants, sparse_law
from rclib.spectral.spectra import esd
from rclib.training.pruning import iterative_pruning
from rclib.training.stacked import epoch_batches, train_stack
from rclib.training.validation import accuracy

__all__ = ["ARMS", "LINKS", "TINY", "ways_to_keep"]

# Arm -> (mask, values): masks of `keeps_masks` and tickets; values of the start, fresh, or mixed.
ARMS: Mapping[str, tuple[str, str]] = {
    "ticket": ("ticket", "start"),
    "ticket_signs": ("ticket", "signs"),
    "ticket_sizes": ("ticket", "sizes"),
    "ticket_fresh": ("ticket", "fresh"),
    "half_random": ("half_random", "start"),
    "half_hard": ("half_hard", "start"),
    "half_random_fresh": ("half_random", "fresh"),
    "one_shot": ("one_shot", "start"),
    "fine_tuned": ("one_shot", "trained"),
    "tuned_e": ("one_shot", "trained"),
    "scratch_e": ("one_shot", "fresh"),
    "scratch_b": ("one_shot", "fresh"),
    "shuffled": ("shuffled", "start"),
    "er": ("er", "start"),
    "er_again": ("er_again", "start"),
    "uniform": ("uniform", "start"),
    "searched": ("searched", "start"),
    "start_mask": ("start_mask", "start"),
    "snip": ("snip", "start"),
    "grasp": ("grasp", "start"),
    "grasp_other_end": ("grasp_other_end", "start"),
    "synflow": ("synflow", "start"),
    "units": ("units", "start"),
    "units_fresh": ("units", "fresh"),
    "dense": ("dense", "start"),
}
# degrees: correlation over hidden units of kept weights in and out, mean of the layers. shuffled:
# of the same mask shuffled within layers. spikes: eigenvalues of the centred masks of all matrices
# but the last beyond the sparse law. trained: those of the trained matrices.
LINKS = ("degrees", "shuffled", "spikes", "trained")
TINY: dict[str, dict[str, Any]] = {
    "ways_to_keep": {
        "group": [{"seed": 0}, {"seed": 3}], "pool": 1, "n_train": 40, "widths": [12, 8],
        "steps": 4, "rate": 1e-3, "batch_size": 20, "rounds": 2,
        "shares": {"full": 0.5, "output": 0.25}, "n_masks": 3, "n_score": 20,
        "committee": {"nets": 2, "steps": 2},
    },
}  # fmt: skip


@dataclass(frozen=True)
class _Task:
    """Images of the seeds, each with its own subset (S, n), and how networks are trained."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    seeds: tuple[int, ...]
    subsets: Tensor
    options: Mapping[str, Any]

    def train(
        self, start: Stack, masks: Masks, *, subsets: Tensor | None = None, steps: float = 1.0
    ) -> Stack:
        """Networks of the seeds, or several times those of all seeds, one after the other. steps :
        over those of the options."""
        times, o = len(start) // len(self.seeds), self.options
        of = self.subsets.repeat(times, 1) if subsets is None else subsets
        batches = epoch_batches(
            self.x, self.y, batch_size=o["batch_size"], seeds=self.seeds * times, subsets=of
        )
        end, _ = train_stack(
            start, batches, cross_entropy, steps=round(steps * o["steps"]), lr=o["rate"],
            optimizer="adam", masks=masks,
        )  # fmt: skip
        return end


def _task(data: Dataset, seeds: Sequence[int], pool: int, n: int, o: Mapping[str, Any]) -> _Task:
    if n > len(data.y_train):
        raise ValueError(f"n_train must be at most {len(data.y_train)}, got {n}")
    x, x_test = images(data, pool)
    scale = float(x.std()) if pool > 1 else 1.0  # averages vary less than pixels
    generators = [torch.Generator().manual_seed(drawn_elsewhere(seed, 0)) for seed in seeds]
    subsets = torch.stack([torch.randperm(len(x), generator=each)[:n] for each in generators])
    return _Task(
        x / scale, data.y_train, x_test / scale, data.y_test, tuple(seeds), subsets, o
    )  # fmt: skip


def _found(
    task: _Task, start: Stack, shares: Mapping[str, float], rounds: int, subsets: Tensor
) -> tuple[Masks, Stack]:
    """Masks of iterative pruning on some of the images, and the dense networks it began with."""

    def train(begin: Stack, masks: Masks) -> tuple[Stack, None]:
        return task.train(begin, masks, subsets=subsets), None

    done = iterative_pruning(start, train, rounds=rounds, shares=shares)
    return done[-1].masks, done[0].end


def _halves(task: _Task, start: Stack, widths: Sequence[int], o: Mapping[str, Any]) -> Tensor:
    """(2 S, n / 2): for every seed a random half of its images, then for every seed the half with
    the highest EL2N, mean of a few networks early in training."""
    n, classes = task.subsets.shape[1], int(task.y.max()) + 1
    half = n // 2
    parts = [task.subsets[:, :half]]  # a seed's order is random
    nets = [drawn_elsewhere(seed, 20 + k) for k in range(o["nets"]) for seed in task.seeds]
    committee = starts_of({"widths": list(widths)}, nets, task.x.shape[1], classes)
    early = task.train(committee, {}, steps=o["steps"] / task.options["steps"])
    x, y = task.x[task.subsets], task.y[task.subsets]
    with torch.no_grad():
        outputs = early(x.repeat(o["nets"], 1, 1))
    scores = el2n(outputs, y.repeat(o["nets"], 1)).view(o["nets"], len(task.seeds), n).mean(0)
    hardest = scores.argsort(dim=1, descending=True, stable=True)[:, :half]
    parts.append(task.subsets.gather(1, hardest))
    return torch.cat(parts)


def _members(masks: Masks, places: slice) -> Masks:
    return {name: mask[places] for name, mask in masks.items()}


def ways_to_keep(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, int]],
    pool: int,
    n_train: int,
    widths: Sequence[int],
    steps: int,
    rate: float,
    batch_size: int,
    rounds: int,
    shares: Mapping[str, float],
    n_masks: int,
    n_score: int,
    committee: Mapping[str, int],
) -> Arrays:
    """Stored run: all arms of `ARMS` for a group of seeds.

    n_train : images of a seed. rounds, shares : of the surviving weights dropped in a round, by
    kind ("full", "output"), for the tickets. n_masks : of the search by initial loss. n_score :
    images for it and for the scores before training. committee : "nets" and "steps" of the
    networks whose EL2N chooses the hard half. "fine_tuned" takes a quarter of the steps, as
    the rate has no drops here its own rate, "tuned_e" all of them, Scratch-B twice as many.

    accuracy (S, A) of the test data at the end; kept (S, A): number of weights; layers (S, A, L):
    share of each matrix that is kept; links (S, A, 4) as `LINKS`.

    Raises ValueError for more images than there are.
    """
    seeds = [int(member["seed"]) for member in group]
    o = {"steps": steps, "rate": rate, "batch_size": batch_size}
    task = _task(data, seeds, pool, n_train, o)
    start, fresh = (
        starts_of({"widths": list(widths)}, each, task.x.shape[1], data.n_classes)
        for each in (seeds, [drawn_elsewhere(seed, 1) for seed in seeds])
    )
    names = weights_of(start)
    by_name = {name: shares["full" if name != names[-1] else "output"] for name in names}
    ticket, dense = _found(task, start, by_name, rounds, task.subsets)
    twice = replace(start, tensors={n: t.repeat(2, *[1] * (t.ndim - 1)) for n, t in
                                    start.tensors.items()})  # fmt: skip
    halves = _halves(task, start, widths, committee)
    both, _ = _found(task, twice, by_name, rounds, halves)
    x, y = (part[task.subsets[:, :n_score]] for part in (task.x, task.y))
    masks = {
        "ticket": ticket,
        "half_random": _members(both, slice(0, len(seeds))),
        "half_hard": _members(both, slice(len(seeds), None)),
        "dense": {name: torch.ones_like(mask) for name, mask in ticket.items()},
        **masks_like(ticket, start, dense, x, y, seeds, n_masks=n_masks),
    }
    trained = _trained(task, masks, {"start": start, "fresh": fresh, "trained": dense})
    rows = [_measured(task, masks[ARMS[arm][0]], trained[arm]) for arm in ARMS]
    return {
        name: torch.stack([row[name] for row in rows], dim=1).numpy() for name in rows[0]
    }  # fmt: skip


def _trained(
    task: _Task, masks: Mapping[str, Masks], sources: Mapping[str, Stack]
) -> dict[str, Stack]:
    """The networks of every arm after training."""
    start, fresh = sources["start"].tensors, sources["fresh"].tensors
    names = list(masks["ticket"])
    own = {name: start[name] for name in names}
    new = {name: fresh[name] for name in names}
    values = {
        "start": start, "fresh": {**start, **new}, "trained": sources["trained"].tensors,
        "signs": {**start, **with_signs(fresh, own)}, "sizes": {**start, **with_signs(start, new)},
    }  # fmt: skip
    found: dict[str, Stack] = {}
    for steps, arms in (
        (0.25, ["fine_tuned"]),
        (2.0, ["scratch_b"]),
        (1.0, [arm for arm in ARMS if arm not in ("fine_tuned", "scratch_b")]),
    ):
        kept = {name: torch.cat([masks[ARMS[arm][0]][name] for arm in arms]) for name in names}
        tensors = {name: torch.cat([values[ARMS[arm][1]][name] for arm in arms]) for name in start}
        begin = replace(sources["start"], tensors=apply_masks(tensors, kept))
        end, size = task.train(begin, kept, steps=steps), len(task.seeds)
        for place, arm in enumerate(arms):
            part = slice(place * size, (place + 1) * size)
            found[arm] = replace(end, tensors={n: t[part] for n, t in end.tensors.items()})
    return found


def _measured(task: _Task, masks: Masks, end: Stack) -> dict[str, Tensor]:
    """Of one arm, by seed: accuracy, kept, layers, links."""
    spread = (task.x != task.x.median(0).values).double().mean(0)
    varies, rows = spread > 0.02, []
    mixed = shuffled(masks, [drawn_elsewhere(seed, 9) for seed in task.seeds])
    for s in range(len(task.seeds)):
        own, other, weights = (
            {n: t[s][:, varies] if n == "W1" else t[s] for n, t in each.items() if n in masks}
            for each in (masks, mixed, end.tensors)
        )
        inner = list(own)[:-1]
        centred = [own[name].double() - own[name].double().mean() for name in inner]
        rows.append([
            _degrees(own), _degrees(other), sum(_spikes(each) for each in centred),
            sum(_spikes(weights[name].double()) for name in inner),
        ])  # fmt: skip
    return {
        "accuracy": accuracy(end, task.x_test, task.y_test),
        "kept": torch.stack([mask.flatten(1).sum(1) for mask in masks.values()]).sum(0),
        "layers": torch.tensor([list(each.values()) for each in densities_of(masks)]),
        "links": torch.tensor(rows, dtype=torch.float64),
    }


def _degrees(masks: Mapping[str, Tensor]) -> float:
    vectors = mean_vectors(
        {name: mask.double() for name, mask in masks.items()}, mlp_axes(len(masks), bias=False)
    )
    found = []
    for layer in range(1, len(masks)):
        pair = vectors[f"h{layer}"]
        # A layer whose units all have as many weights has no correlation.
        varies = all(float(vector.std()) > 1e-12 for vector in pair.values())
        found.append(float(correlations({"h": pair}).matrix[0, 1]) if varies else 0.0)
    return float(np.mean(found))


def _spikes(matrix: Tensor) -> int:
    """Eigenvalues beyond the sparse law of this size and of such entries."""
    values = matrix.numpy()
    if values.min() == values.max():
        return 0  # a full mask, centred
    variance, cumulant = entry_cumulants(values)
    rows, columns = values.shape
    law = sparse_law(rows=rows, columns=columns, variance=variance, cumulant=cumulant)
    return law.beyond(esd(values))
