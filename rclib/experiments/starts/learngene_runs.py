"""Stored runs of notebook 51: tied networks, descendants of several depths, and their controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rclib.data.images import Dataset
from rclib.data.pooling import pooled_inputs
from rclib.experiments.starts.learngene_nets import (
    expanded,
    networks,
    stage_of_layers,
    tied_order,
)
from rclib.nets.stack import Stack
from rclib.rowcolumn.measure import chance_level
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import outliers
from rclib.spectral.spectra import esd
from rclib.training.stacked import epoch_batches, train_stack
from rclib.training.validation import accuracy

__all__ = ["ARMS", "SOURCES", "TINY", "learngene_runs"]

# What is trained once, and the order of its blocks in a network of all layers.
SOURCES = ("tied", "plain", "single", "untied")
# Starts of a descendant.
ARMS = ("SWS", "shuffled", "unguided", "single", "random blocks", "untrained", "scratch")
TINY: dict[str, dict[str, Any]] = {
    "learngene_runs": {
        "group": [{"seed": 0}, {"seed": 1}], "pool": 1, "n": 48, "dim": 8, "inner": 16,
        "stages": [1, 2], "depth": 3, "depths": [2], "batch_size": 16, "rate": 2e-3,
        "tuning_rate": 1e-3, "decay": 0.01, "steps": 3, "tune": 2, "whole": 4, "at": [0, 1, 2],
        "teacher": {"dim": 8, "inner": 16, "steps": 2},
    },
}  # fmt: skip

Batch = Callable[[int], tuple[Tensor, Tensor]]


def _soft_loss(output: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with class probabilities y: KL of teacher and student but for a constant."""
    return -(y * output.log_softmax(-1)).sum(-1).mean()


class _School:
    """Data of every member, with the targets that all its networks are given."""

    def __init__(self, data: Dataset, seeds: Sequence[int], config: Mapping[str, Any]) -> None:
        self.seeds, self.config = list(seeds), config
        x, self.x_test = pooled_inputs(data, int(config["pool"]))
        self.y_test = data.y_test
        n = int(config["n"])
        subsets = torch.stack([
            torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n]
            for seed in self.seeds
        ])  # fmt: skip
        self.x = x[subsets]
        self.targets = one_hot(data.y_train[subsets], data.n_classes).float()
        self.sizes = (x.shape[1], data.n_classes)

    def fresh(self, order: Sequence[int], shift: int, dim: int = 0, inner: int = 0) -> Stack:
        """Networks drawn for this purpose, `shift` telling it from others."""
        d, classes = self.sizes
        dim, inner = dim or int(self.config["dim"]), inner or int(self.config["inner"])
        seeds = [1000 * seed + shift for seed in self.seeds]
        return networks(d, dim, inner, classes, order, seeds)

    def train(
        self, start: Stack, *, steps: int, rate: float, at: Sequence[int] = ()
    ) -> tuple[Stack, Tensor]:
        """The end, and test accuracies (T, S) after each number of updates in `at`."""
        places = torch.arange(self.x.shape[1])
        size = int(self.config["batch_size"])
        order = epoch_batches(places[:, None], places, batch_size=size, seeds=self.seeds)
        rows = torch.arange(len(self.seeds))[:, None]

        def batch(step: int) -> tuple[Tensor, Tensor]:
            _, chosen = order(step)
            return self.x[rows, chosen], self.targets[rows, chosen]

        end, found = train_stack(
            start, batch, _soft_loss, steps=steps, lr=rate, optimizer="adamw",
            weight_decay=float(self.config["decay"]), own="xy", at=at,
            record={"accuracy": self.accuracy},
        )  # fmt: skip
        return end, found["accuracy"] if len(at) else torch.empty(0)

    def accuracy(self, nets: Stack) -> Tensor:
        """Test accuracy (S,)."""
        return accuracy(nets, self.x_test, self.y_test)

    def learn_from(self, teacher: Stack) -> None:
        """From now on the targets are the teacher's probabilities."""
        with torch.no_grad():
            self.targets = teacher(self.x, own=True).softmax(-1)


def learngene_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], pool: int, n: int, dim: int, inner: int,
    stages: Sequence[int], depth: int, depths: Sequence[int], batch_size: int, rate: float,
    tuning_rate: float, decay: float, steps: int, tune: int, whole: int, at: Sequence[int],
    teacher: Mapping[str, Any],
) -> Arrays:  # fmt: skip
    """Stored runs of a group of members, each a seed: everything of one learngene.

    Sources of sum(stages) layers are trained for `steps` at `rate`: "tied" (one block a stage),
    "single" (one block), "untied" (all), and "plain", an ordinary network of one layer a stage.
    Descendants of `depth` from every start in `ARMS`, and of `depths` from SWS and from scratch,
    are tuned for `tune` updates, at `tuning_rate` but for scratch, which has `rate`. A scratch of
    every depth goes on to `whole` updates. With `teacher` (dim, inner, steps; {} for none), an
    untied network of as many layers is trained first and every network has its probabilities for
    targets, scratch too.

    sources (4,) : test accuracy of each at the end. arms (7, T) : of `depth` after each number in
    `at`. others (2, len(depths), T) : of SWS and scratch. long (1 + len(depths), W) : of scratch
    after each tenth of `whole`, first `depth`. teacher () : its accuracy, NaN for none.
    spikes (3,) : eigenvalues of W1ᵀW1 beyond the bulk, mean over blocks: tied, untied, and the
    tied one at its start. overlap (4,) : |cos| of leading right singular vectors of W1, mean over
    pairs of layers of the tuned SWS descendant of one stage, of different stages, and the same of
    the tuned "random blocks". means (3,) : |correlation| of row means of W1 and column means of
    W2, mean over blocks, over its 95 percent level: tied at the start, at the end, and tuned SWS.
    moved, kept () : of the tuned SWS descendant's W1, ‖W - W0‖ / ‖W0‖ and squared cosine.
    """
    config = {
        "pool": pool, "n": n, "dim": dim, "inner": inner, "batch_size": batch_size, "decay": decay,
    }  # fmt: skip
    school = _School(data, [int(member["seed"]) for member in group], config)
    order, layers = tied_order(stages), sum(stages)
    taught = torch.full((len(group),), torch.nan, dtype=torch.double)
    if teacher:
        own = school.fresh(range(layers), 900, int(teacher["dim"]), int(teacher["inner"]))
        wise, _ = school.train(own, steps=int(teacher["steps"]), rate=rate)
        taught = school.accuracy(wise)
        school.learn_from(wise)

    starts = {
        "tied": school.fresh(order, 1),
        "plain": school.fresh(range(len(stages)), 2),
        "single": school.fresh([0] * layers, 3),
        "untied": school.fresh(range(layers), 4),
    }
    ends = {name: school.train(start, steps=steps, rate=rate)[0] for name, start in starts.items()}

    def descendant(arm: str, length: int) -> Stack:
        shell = school.fresh(range(length), 100 + length)
        chosen = stage_of_layers(stages, length)
        match arm:
            case "SWS" | "random blocks":
                return expanded(ends["tied"], chosen, shell, blocks=arm == "SWS")
            case "shuffled":
                g = torch.Generator().manual_seed(length)
                mixed = [chosen[i] for i in torch.randperm(length, generator=g).tolist()]
                return expanded(ends["tied"], mixed, shell)
            case "unguided":
                return expanded(ends["plain"], chosen, shell)
            case "single":
                return expanded(ends["single"], [0] * length, shell)
            case "untrained":
                return expanded(starts["tied"], chosen, shell)
            case _:
                return shell

    def tuned(arm: str, length: int) -> tuple[Stack, Stack, Tensor]:
        own_rate = rate if arm in ("scratch", "untrained") else tuning_rate
        start = descendant(arm, length)
        end, accuracy = school.train(start, steps=tune, rate=own_rate, at=at)
        return start, end, accuracy

    arms = {arm: tuned(arm, depth) for arm in ARMS}
    others = [[tuned(arm, length)[2] for length in depths] for arm in ("SWS", "scratch")]
    tenths = [round(whole * (i + 1) / 10) for i in range(10)]
    long = [
        school.train(descendant("scratch", length), steps=whole, rate=rate, at=tenths)[1]
        for length in (depth, *depths)
    ]
    first, last, stray = arms["SWS"][0], arms["SWS"][1], arms["random blocks"][1]
    old, new = (nets.tensors["w1"].double().flatten(1) for nets in (first, last))
    inside = torch.tensor(stage_of_layers(stages, depth))
    out = {
        "sources": torch.stack([school.accuracy(ends[name]) for name in SOURCES], 1),
        "arms": torch.stack([arms[arm][2].T for arm in ARMS], 1),
        "others": torch.stack([torch.stack([a.T for a in row], 1) for row in others], 1),
        "long": torch.stack([a.T for a in long], 1),
        "teacher": taught,
        "spikes": torch.stack(
            [_spikes(nets) for nets in (ends["tied"], ends["untied"], starts["tied"])], 1
        ),
        "overlap": torch.cat([_overlaps(nets, inside) for nets in (last, stray)], 1),
        "means": torch.stack([_means(nets) for nets in (starts["tied"], ends["tied"], last)], 1),
        "moved": (new - old).norm(dim=1) / old.norm(dim=1),
        "kept": (new * old).sum(1).square() / (new.norm(dim=1) * old.norm(dim=1)).square(),
    }  # fmt: skip
    return {name: value.numpy() for name, value in out.items()}


def _spikes(nets: Stack) -> Tensor:
    """Mean over blocks of the eigenvalues beyond W1's own bulk, (S,)."""
    w1 = nets.tensors["w1"]
    counts = [[outliers(esd(w), rows=w.shape[0]).count for w in member] for member in w1]
    return torch.tensor(counts, dtype=torch.double).mean(1)


def _overlaps(nets: Stack, stage: Tensor) -> Tensor:
    """(S, 2): |cos| of W1's leading right singular vectors, over pairs of layers of one stage and
    over pairs of different ones; NaN where there is no such pair."""
    leading = torch.linalg.svd(nets.tensors["w1"].double(), full_matrices=False).Vh[:, :, 0]
    cos = (leading @ leading.transpose(1, 2)).abs()
    upper = torch.ones(len(stage), len(stage), dtype=torch.bool).triu(1)
    same = (stage[:, None] == stage) & upper
    return torch.stack([cos[:, same].mean(1), cos[:, upper & ~same].mean(1)], 1)


def _means(nets: Stack) -> Tensor:
    """|correlation| of W1's row means and W2's column means over its 95 percent level, mean over
    blocks, (S,). One pair of vectors of `inner` entries a block."""

    rows = nets.tensors["w1"].double().mean(-1)
    columns = nets.tensors["w2"].double().mean(-2)
    rows, columns = (v - v.mean(-1, keepdim=True) for v in (rows, columns))
    cos = (rows * columns).sum(-1) / (rows.norm(dim=-1) * columns.norm(dim=-1))
    found: Tensor = cos.abs().mean(1) / chance_level(rows.shape[-1])
    return found
