"""Stored run of notebook 41: a small VGG on colour images, its filters pruned, channels last.

Convolutions of 3 x 3 with batch normalisation and ReLU (Simonyan and Zisserman 2015, as Liu et al.
2019 have it), a 2 x 2 maximum after the first ones, the mean over what is left of the image, one
linear layer. Filters go by the L1 norm, to the same share of every layer, or by the gains of a
network that was trained with a penalty on them, over all layers (network slimming).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d

from rclib.data.images import Dataset
from rclib.experiments.pruning.data_diet_runs import images
from rclib.experiments.pruning.lottery_runs import drawn_elsewhere
from rclib.experiments.pruning.rethinking_arms import ARMS, PLAN, factors
from rclib.nets.units import (
    Units,
    drawn_units,
    l1_norms,
    largest_units,
    largest_units_together,
    slice_units,
)
from rclib.rowcolumn.axes import Axes
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_orders

__all__ = ["TINY", "SmallVGG", "conv_pruned", "multiplications", "sliced_network"]

TINY: dict[str, dict[str, Any]] = {
    "conv_pruned": {
        "seed": 0, "pool": 1, "channels": [4, 6, 6], "pools": 2, "plan": PLAN, "penalty": 0.01,
        "keeps": [0.5], "gain_keeps": [0.5], "arms": ["fine_tuned", "random", "scratch_b"],
        "cap": 2.0,
    },
}  # fmt: skip
GAIN = 0.5  # where gains start, as in the authors' networks


class SmallVGG(nn.Module):
    """Images (n, colours, side, side) -> (n, classes).

    channels : of the convolutions; after each of the first `pools` 2 x 2 blocks are pooled. Weights
    N(0, 2 / (9 out)) as the authors', the linear layer's N(0, 0.01²), a function of the seed and
    the shapes alone; gains a half, biases and shifts zero.
    """

    def __init__(
        self, colours: int, channels: Sequence[int], pools: int, classes: int, seed: int
    ) -> None:
        super().__init__()
        self.pools, self.channels = pools, list(channels)
        planes = [colours, *channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(planes)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in channels)
        self.linear = nn.Linear(planes[-1], classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, p in self.named_parameters():
                spread = math.sqrt(2.0 / (9 * p.shape[0])) if p.ndim == 4 else 0.01
                drawn = spread * torch.randn(p.shape, generator=generator)
                gain = torch.full_like(p, GAIN if name.endswith("weight") else 0.0)
                p.copy_(drawn if p.ndim > 1 else gain)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, classes)."""
        for k, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = torch.relu(norm(convolution(x)))
            x = max_pool2d(x, 2) if k < self.pools else x
        found: Tensor = self.linear(x.mean((2, 3)))
        return found

    def axes(self) -> Axes:
        """Which index runs along which axis of the tensors of its state, without counters."""
        table: dict[str, tuple[str, ...]] = {}
        before = "x"
        for k in range(len(self.channels)):
            index = f"c{k + 1}"
            table[f"convolutions.{k}.weight"] = (index, before, "high", "wide")
            for what in ("weight", "bias", "running_mean", "running_var"):
                table[f"norms.{k}.{what}"] = (index,)
            before = index
        return table | {"linear.weight": ("y", before), "linear.bias": ("y",)}

    def members(self) -> dict[str, Tensor]:
        """The tensors of its state with a first axis of one member, as `rclib.nets.units` has."""
        state = self.state_dict()
        return {name: state[name].detach().unsqueeze(0) for name in self.axes()}


def multiplications(net: SmallVGG, side: int) -> int:
    """Of its convolutions and matrix for one image of that side."""
    total = net.linear.weight.numel()
    for k, convolution in enumerate(net.convolutions):
        total += convolution.get_parameter("weight").numel() * (side // 2 ** min(k, net.pools)) ** 2
    return total


def sliced_network(net: SmallVGG, kept: Units) -> SmallVGG:
    """The network of the kept filters, with what they inherit."""
    colours = net.convolutions[0].get_parameter("weight").shape[1]
    widths = [int(chosen.sum()) for chosen in kept.values()]
    small = SmallVGG(colours, widths, net.pools, net.linear.out_features, 0)
    state = {name: t[0] for name, t in slice_units(net.members(), net.axes(), kept).items()}
    small.load_state_dict(state, strict=False)
    return small.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class _Task:
    """The images, and how networks are trained and judged."""

    def __init__(self, data: Dataset, pool: int, plan: Mapping[str, Any], seed: int) -> None:
        colours = 3 if data.name == "cifar10" else 1
        train, test = images(data, pool)
        self.side = math.isqrt(train.shape[1] // colours)
        scale = float(train.std())
        shaped = [(x / scale).view(len(x), colours, self.side, self.side) for x in (train, test)]
        self.x, self.x_test = (
            x.contiguous(memory_format=torch.channels_last) for x in shaped
        )  # fmt: skip
        self.y, self.y_test, self.plan, self.seed = data.y_train, data.y_test, plan, seed

    def train(self, net: SmallVGG, steps: int, rate: str, penalty: float = 0.0) -> None:
        plan = self.plan
        order = epoch_orders(len(self.x), plan["batch_size"], [self.seed])
        table = factors(steps, steps, rate, plan["drops"], plan["low"])
        sgd = torch.optim.SGD(
            net.parameters(), lr=plan["rate"], momentum=0.9, weight_decay=plan["decay"]
        )
        net.train()
        for step in range(steps):
            places = order(step)[0]
            sgd.param_groups[0]["lr"] = plan["rate"] * float(table[step])
            sgd.zero_grad()
            batch = self.x[places].contiguous(memory_format=torch.channels_last)
            cross_entropy(net(batch), self.y[places]).backward()  # type: ignore[no-untyped-call]
            for norm in net.norms if penalty else ():
                gain = norm.get_parameter("weight")
                assert gain.grad is not None
                gain.grad += penalty * gain.detach().sign()
            sgd.step()

    @torch.no_grad()
    def accuracy(self, net: SmallVGG) -> float:
        net.eval()
        guess = torch.cat([net(part) for part in self.x_test.split(1000)]).argmax(1)
        return float((guess == self.y_test).double().mean())


def conv_pruned(
    data: Dataset,
    *,
    seed: int,
    pool: int,
    channels: Sequence[int],
    pools: int,
    plan: Mapping[str, Any],
    penalty: float,
    keeps: Sequence[float],
    gain_keeps: Sequence[float],
    arms: Sequence[str],
    cap: float,
) -> Arrays:
    """Stored run of a seed: a `SmallVGG` trained by `plan` (SGD), its filters pruned by L1 norm to
    a share of every layer (`keeps`, K of them); another, trained with a `penalty` on its gains,
    pruned to a share of all filters (`gain_keeps`, G); every one trained on in `arms`, where
    Scratch-B takes at most `cap` times the steps.

    dense, gains_dense (): test accuracy. units_cut, units_left, units_<arm> (K,), gains_... (G,):
    before training, share of the multiplications, and after. widths (G, layers): filters kept.
    """
    task = _Task(data, pool, plan, seed)
    large = (task.x.shape[1], channels, pools, data.n_classes)
    found: dict[str, list[float]] = {}
    widths = []
    out: dict[str, Any] = {}
    for kind, strength, shares in (("units", 0.0, keeps), ("gains", penalty, gain_keeps)):
        dense = SmallVGG(*large, seed)
        task.train(dense, plan["steps"], "schedule", strength)
        out["dense" if kind == "units" else "gains_dense"] = np.array(task.accuracy(dense))
        for keep in shares:
            kept = _kept(dense, kind, keep)
            if kind == "gains":
                widths.append([int(chosen.sum()) for chosen in kept.values()])
            for name, value in _arms(task, dense, kept, arms, cap).items():
                found.setdefault(f"{kind}_{name}", []).append(value)
    out["widths"] = np.array(widths).reshape(len(gain_keeps), len(channels))
    return out | {name: np.array(values) for name, values in found.items()}


def _kept(dense: SmallVGG, kind: str, keep: float) -> Units:
    if kind == "units":
        norms = l1_norms(dense.members(), dense.axes())
        return largest_units(norms, {i: max(1, round(keep * n.shape[1])) for i, n in norms.items()})
    gains = {
        f"c{k + 1}": norm.get_parameter("weight").detach().abs().unsqueeze(0)
        for k, norm in enumerate(dense.norms)
    }
    return largest_units_together(gains, max(len(gains), round(keep * sum(dense.channels))))


def _arms(
    task: _Task, dense: SmallVGG, kept: Units, arms: Sequence[str], cap: float
) -> dict[str, float]:
    """What becomes of the kept filters: accuracies by arm, "cut" and "left" besides."""
    whole = int(task.plan["steps"])
    cut = sliced_network(dense, kept)
    left = multiplications(cut, task.side) / multiplications(dense, task.side)
    lengths = {"quarter": whole // 4, "E": whole, "B": int(whole * min(cap, 1.0 / left))}
    found = {"cut": task.accuracy(cut), "left": left}
    for arm in arms:
        source, length, rate = ARMS[arm]
        if source == "inherited":
            net = sliced_network(dense, kept)
        elif source == "random":
            net = sliced_network(dense, drawn_units(kept, [drawn_elsewhere(task.seed, 4)]))
        else:
            elsewhere = drawn_elsewhere(task.seed, 1 if source == "fresh" else 5)
            colours, classes = task.x.shape[1], dense.linear.out_features
            net = SmallVGG(colours, cut.channels, dense.pools, classes, elsewhere)
        task.train(net, lengths[length], rate)
        found[arm] = task.accuracy(net)
    return found
