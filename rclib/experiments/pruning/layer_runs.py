"""Stored runs of notebook 43: residual networks without some of their blocks, or some units.

Scores of blocks before training (and KL, after it), training of what is left, and, not stored, the
time of a step. Networks are those of `rclib.nets.residual`, on vectors or, with `conv`, on images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.experiments.pruning.data_diet_runs import images
from rclib.nets.residual import keep_blocks, keep_units, multiplications, residual_stack
from rclib.nets.stack import Stack
from rclib.runs.store import Arrays
from rclib.spectral.spectra import esd
from rclib.training.saliency import grasp, signed, snip, synflow
from rclib.training.stacked import epoch_batches, train_stack
from rclib.training.validation import accuracy

__all__ = [
    "BLOCKS",
    "CRITERIA",
    "TINY",
    "UNITS",
    "block_scores",
    "random_blocks",
    "step_times",
    "tickets",
    "unit_scores",
]

# The blocks with the highest scores stay. signed: θ g, what the paper's words describe; anti-GraSP:
# GraSP's order turned round.
CRITERIA = ("SNIP", "GraSP", "anti-GraSP", "signed", "synflow", "random", "KL")
UNITS = ("", "random", "SNIP", "GraSP")
BLOCKS = ("U", "b", "V")
_NET: dict[str, Any] = {
    "pool": 1, "width": 6, "inner": 6, "blocks": 3, "norm": True, "conv": False,
    "n_score": 24, "batch_size": 12, "steps": 3, "rate": 1e-3,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "block_scores": {"group": [{"seed": 0}, {"seed": 4}], "net": _NET},
    "tickets": {
        "group": [{"seed": 0, "kept": [0, 2]}, {"seed": 4, "kept": [1, 2]}], "units": "GraSP",
        "left": 3, "removed": 1, "net": _NET,
    },
}  # fmt: skip


class _Task:
    """Images and starts of one setting; see `tickets` for its names."""

    def __init__(self, data: Dataset, seeds: Sequence[int], o: Mapping[str, Any]) -> None:
        x, self.x_test = images(data, o["pool"])
        self.data, self.seeds, self.o = data, list(seeds), o
        self.x, self.y = x, data.y_train
        colours = 3 if data.name == "cifar10" else 1
        self.side = math.isqrt(x.shape[1] // colours) if o["conv"] else None

    def start(self) -> Stack:
        o = self.o
        return residual_stack(
            inputs=self.x.shape[1], width=o["width"], inner=o["inner"], blocks=o["blocks"],
            classes=self.data.n_classes, seeds=self.seeds, norm=o["norm"], side=self.side,
        )  # fmt: skip

    def scored(self) -> tuple[Tensor, Tensor]:
        return self.x[: self.o["n_score"]], self.y[: self.o["n_score"]]

    def train(self, nets: Stack, steps: int | None = None) -> Stack:
        """Adam; the rate falls linearly to zero over the second half."""
        o, total = self.o, self.o["steps"] if steps is None else steps
        falls = [min(1.0, 2.0 * (total - t) / total) for t in range(total)]
        batch = epoch_batches(self.x, self.y, batch_size=o["batch_size"], seeds=self.seeds)
        end, _ = train_stack(
            nets, batch, cross_entropy, steps=total, lr=o["rate"], optimizer="adam",
            lr_schedule=falls, own="xy",
        )  # fmt: skip
        return end

    def right(self, nets: Stack) -> Tensor:
        """Share of right labels on the test data, (S,), in parts of 2,000 images."""
        parts = zip(self.x_test.split(2000), self.data.y_test.split(2000), strict=True)
        found = [accuracy(nets, x, y, own=False) * len(y) for x, y in parts]
        return torch.stack(found).sum(0) / len(self.data.y_test)


def random_blocks(seed: int, blocks: int) -> list[int]:
    """A random order of the blocks, by the seed alone."""
    generator = torch.Generator().manual_seed(6_000_000 + seed)
    return torch.randperm(blocks, generator=generator).tolist()


def _by_weight(nets: Stack, task: _Task) -> dict[str, dict[str, Tensor]]:
    """Scores of single weights of the blocks: criterion -> tensor -> (S, L, ...)."""
    x, y = task.scored()
    of = [name for name in BLOCKS if name in nets.tensors]
    turned = grasp(nets, x, y, cross_entropy, of, own=False)
    return {
        "SNIP": snip(nets, x, y, cross_entropy, of, own=False),
        # -θ H g is what removal adds to the gradient's norm: the lowest are kept.
        "GraSP": {name: -score for name, score in turned.items()},
        "anti-GraSP": turned,
        "signed": signed(nets, x, y, cross_entropy, of, own=False),
        "synflow": synflow(nets, tuple(x.shape[1:]), of),
    }


def unit_scores(scores: Mapping[str, Tensor]) -> Tensor:
    """Sum over the weights of a unit, (S, L, m): its rows of U and b and its column of V."""
    u, b, v = (scores[name] for name in BLOCKS)
    return u.flatten(3).sum(3) + b + v.transpose(2, 3).flatten(3).sum(3)


def block_scores(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], net: Mapping[str, Any]
) -> Arrays:
    """Stored run: scores of the blocks, and what removing them from trained networks costs.

    One array (S, L) for each of `CRITERIA`: sums over the block's weights on `n_score` training
    images before training; "random", the negative place in a random order; "KL", the divergence of
    the trained network's softmax outputs from those without the block, mean over those images.
    cut (S, L) : test accuracy of the trained network without the last 1, 2, ..., L of the random
    order, nothing trained anew. zeroed (S,) : largest difference between the outputs of a trained
    network without its first block and with V of that block at zero.
    """
    seeds = [int(member["seed"]) for member in group]
    task = _Task(data, seeds, net)
    start = task.start()
    blocks = net["blocks"]
    found = {
        name: torch.stack([part.flatten(2).sum(2) for part in scores.values()]).sum(0)
        for name, scores in _by_weight(start, task).items()
    }
    orders = torch.tensor([random_blocks(seed, blocks) for seed in seeds])
    found["random"] = -orders.argsort(1).double()
    end = task.train(start)
    x, _ = task.scored()
    log_p = end(x, own=False).log_softmax(-1)
    everything = torch.arange(blocks).expand(len(seeds), -1)
    divergences, cut = [], []
    for block in range(blocks):
        fewer = keep_blocks(end, everything[:, everything[0] != block])
        log_q = fewer(x, own=False).log_softmax(-1)
        divergences.append((log_p.exp() * (log_p - log_q)).sum(-1).mean(1))
        kept = orders[:, : blocks - 1 - block].sort(dim=1).values
        cut.append(task.right(keep_blocks(end, kept)))
    found["KL"] = torch.stack(divergences, 1)
    silent = end.tensors["V"].clone()
    silent[:, 0] = 0.0
    zeroed = Stack(end.tensors | {"V": silent}, end.one)(x, own=False)
    without = keep_blocks(end, everything[:, 1:])(x, own=False)
    arrays = {name: value.double().detach().numpy() for name, value in found.items()}
    return arrays | {
        "cut": torch.stack(cut, 1).numpy(),
        "zeroed": (zeroed - without).abs().flatten(1).amax(1).detach().numpy(),
    }


def _spikes(nets: Stack) -> tuple[Tensor, Tensor]:
    """(S,) each: eigenvalues of a block's matrix beyond 1.05 times the Marchenko-Pastur edge of its
    own variance, mean over U and V of all blocks; and largest over the edge."""
    counts, tops = [], []
    for s in range(len(nets)):
        rows = []
        for name in "UV":
            for w in nets.tensors[name][s].double().flatten(2):
                edge = float(w.var()) * (w.shape[0] ** 0.5 + w.shape[1] ** 0.5) ** 2
                values = esd(w)
                rows.append((float((values > 1.05 * edge).sum()), float(values.max()) / edge))
        mean = np.mean(rows, axis=0)
        counts.append(mean[0]), tops.append(mean[1])  # type: ignore[func-returns-value]
    return torch.tensor(counts), torch.tensor(tops)


def tickets(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], removed: int, units: str, left: int,
    net: Mapping[str, Any],
) -> Arrays:  # fmt: skip
    """Stored run: networks with the blocks `kept` of each member, trained from the start.

    removed : how many blocks are not kept.

    units : of `UNITS`, which of the inner units of every block stay, `left` of them; "": all.
    net : pool (pixels averaged), width, inner, blocks, norm, conv, n_score (training images for
    scores), batch_size, steps, rate. The order of the batches is the seed's.

    accuracy (S,) : test, at the end. cost (S,) : multiplications a forward example. weights (S,) :
    numbers trained. moved (S,) : ‖ΔW‖/‖W0‖, mean over U and V of the kept blocks. spikes, top,
    spikes_start (S,) : eigenvalues beyond 1.05 times the edge, largest over the edge, mean over
    the same, after and before training; NaN where no block is kept.

    Raises ValueError for other units, and for a number of kept blocks that is not the rest.
    """
    task = _Task(data, [int(member["seed"]) for member in group], net)
    start = task.start()
    if choice("units", units, UNITS):
        if units == "random":
            draws = [
                torch.rand(
                    start.tensors["b"].shape[1:],
                    generator=torch.Generator().manual_seed(6_500_000 + seed),
                )
                for seed in task.seeds
            ]
            order = torch.stack(draws)
        else:
            order = unit_scores(_by_weight(start, task)[units])
        chosen = order.argsort(dim=2, descending=True, stable=True)[:, :, :left]
        start = keep_units(start, chosen.sort(dim=2).values)
    kept = [list(member["kept"]) for member in group]
    if {len(row) for row in kept} != {net["blocks"] - removed}:
        raise ValueError(
            f"kept must be {net['blocks'] - removed} blocks of every member, got {kept}"
        )
    start = keep_blocks(start, torch.tensor(kept, dtype=torch.long).view(len(kept), -1))
    end = task.train(start)
    nothing = torch.full((len(kept),), torch.nan, dtype=torch.double)
    found = {"moved": nothing, "spikes": nothing, "top": nothing, "spikes_start": nothing}
    if "U" in end.tensors:
        ratios = [
            (end.tensors[n] - start.tensors[n]).double().flatten(2).norm(dim=2)
            / start.tensors[n].double().flatten(2).norm(dim=2)
            for n in "UV"
        ]
        # Member by member: the order of a sum over a stack depends on how many are stacked.
        found["moved"] = torch.stack(
            [torch.stack([ratio[s] for ratio in ratios]).mean() for s in range(len(group))]
        )
        found["spikes"], found["top"] = _spikes(end)
        found["spikes_start"] = _spikes(start)[0]
    cost, size = multiplications(end, task.side), sum(t[0].numel() for t in end.tensors.values())
    found["accuracy"] = task.right(end)
    found["cost"], found["weights"] = (torch.full_like(nothing, value) for value in (cost, size))
    return {name: value.double().numpy() for name, value in found.items()}


def step_times(
    data: Dataset, *, seed: int, members: int, removed: Sequence[int], repeats: int,
    net: Mapping[str, Any],
) -> Arrays:  # fmt: skip
    """How much faster a training step is, dense over ticket, median of repeats; never stored, since
    times do not repeat.

    layers, units (P,) : without the first p blocks, and with (L - p) / L of the inner units, by
    `removed`. The three are timed in turn, ten steps each, so that other work on the machine meets
    all alike.
    """
    task = _Task(data, [seed + k for k in range(members)], net)
    start, blocks = task.start(), net["blocks"]
    ratios: list[list[tuple[float, float]]] = []
    for p in removed:
        left = max(1, round(net["inner"] * (blocks - p) / blocks))
        arms = (
            start,
            keep_blocks(start, torch.arange(p, blocks).expand(members, -1)),
            keep_units(start, torch.arange(left).expand(members, blocks, -1)),
        )
        rows = []
        for _ in range(repeats):
            times = []
            for nets in arms:
                begun = time.perf_counter()
                task.train(nets, 10)
                times.append(time.perf_counter() - begun)
            rows.append((times[0] / times[1], times[0] / times[2]))
        ratios.append(rows)
    layers, units = np.median(np.array(ratios), axis=1).T
    return {"layers": layers, "units": units}
