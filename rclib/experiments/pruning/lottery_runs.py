"""Stored run of notebook 40: iterative magnitude pruning with resetting, and its controls.

All of one seed: the tickets of every round, and arms that have a ticket's number of weights in
every layer at some of the rounds. Arms share the order of the batches with their seed's ticket, so
a difference is that of masks and starting values alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.nets.conv import ConvNet
from rclib.nets.init import Init
from rclib.nets.masks import (
    Masks,
    apply_masks,
    largest,
    resampled,
    share_left,
    shuffled,
    with_signs,
)
from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack
from rclib.runs.store import Arrays
from rclib.training.pruning import Round, iterative_pruning
from rclib.training.stacked import epoch_batches, train_stack
from rclib.training.validation import BestSoFar, accuracy

__all__ = ["ARMS", "COLUMNS", "TINY", "drawn_elsewhere", "starts_of", "tickets", "weights_of"]

# reinit: the ticket's mask, a fresh start. shuffled: its counts at random places. one_shot: the
# largest weights of the trained dense network. start_mask: the largest at iteration 0. signs: the
# ticket's mask, a fresh start's sizes with the signs of θ0. resampled: values drawn from the
# survivors' at the start. continued: the mask found without resetting (Strategy 2).
ARMS = ("reinit", "shuffled", "one_shot", "start_mask", "signs", "resampled", "continued")
COLUMNS = ("accuracy", "stopped_accuracy", "stopped_at")
TINY: dict[str, dict[str, Any]] = {
    "tickets": {
        "group": [{"seed": 0}, {"seed": 3}], "pool": 1, "n_train": 40, "n_validation": 20,
        "network": {"widths": [12, 8]}, "rate": 1e-3, "batch_size": 30, "steps": 4, "every": 2,
        "rounds": 2, "shares": {"full": 0.5, "output": 0.25}, "arms": {arm: [2] for arm in ARMS},
    },
}  # fmt: skip

Trained = tuple[Stack, Tensor]  # networks at the end, and (S, 3) `COLUMNS`


def starts_of(network: Mapping[str, Any], seeds: Sequence[int], inputs: int, classes: int) -> Stack:
    """ReLU networks at their start, one a seed: weights N(0, 2 / (fan-in + fan-out)), biases 0.

    network : "widths" of the hidden layers, and for a convolutional one "channels", by
    `rclib.nets.conv.ConvNet` on colour images.
    """
    widths = list(network["widths"])
    if "channels" in network:
        side, channels = round((inputs / 3) ** 0.5), list(network["channels"])
        return stack(
            [
                ConvNet(side=side, channels=channels, widths=widths, classes=classes, seed=seed)
                for seed in seeds
            ]
        )
    found = stack(
        [
            MLP(
                inputs, widths, classes, depth=len(widths) + 1, parametrization="SP", seed=seed,
                activation="relu", init=Init("gaussian"), bias="constant", bias_init=Init(mean=0.0),
            )
            for seed in seeds
        ]
    )  # fmt: skip
    tensors = dict(found.tensors)
    for name in weights_of(found):
        fan_out, fan_in = tensors[name].shape[1:]
        # The network's own law has variance 1 / fan-in.
        tensors[name] = tensors[name] * (2.0 * fan_in / (fan_in + fan_out)) ** 0.5
    return replace(found, tensors=tensors)


def weights_of(networks: Stack) -> list[str]:
    """Names of the tensors that are pruned: all but the biases, the output's last."""
    return [name for name in networks.tensors if name[0] != "B"]


def drawn_elsewhere(seed: int, what: int) -> int:
    """A seed for something else than θ0 of the trial `seed`: a fresh start, a mask, a split."""
    return 1_000_000 + 1000 * seed + what


@dataclass(frozen=True)
class _Task:
    """The images of the trials, each with a split of its own, and how networks are trained."""

    seeds: tuple[int, ...]
    x: Tensor
    y: Tensor
    subsets: Tensor
    held_out: Tensor
    x_test: Tensor
    y_test: Tensor
    options: Mapping[str, Any]

    def train(self, start: Stack, masks: Masks) -> Trained:
        """Networks of the trials, or several times those of all trials, one after the other."""
        times, o = len(start) // len(self.seeds), self.options
        places = self.held_out.repeat(times, 1)
        best = BestSoFar(self.x[places], self.y[places], cross_entropy, own=True)
        batches = epoch_batches(
            self.x, self.y, batch_size=o["batch_size"], seeds=self.seeds * times,
            subsets=self.subsets.repeat(times, 1),
        )  # fmt: skip
        end, _ = train_stack(
            start, batches, cross_entropy, steps=o["steps"], lr=o["rate"], optimizer="adam",
            masks=masks, record={"validation": best}, at=range(0, o["steps"] + 1, o["every"]),
        )  # fmt: skip
        final, stopped = (accuracy(each, self.x_test, self.y_test) for each in (end, best.stack()))
        return end, torch.stack([final, stopped, best.look * o["every"]], dim=1)


def _pooled(x: Tensor, pool: int) -> Tensor:
    """Colour images (n, 3 side²) with squares of pixels averaged; `pool` 1 leaves them."""
    if pool == 1:
        return x
    side = round((x.shape[1] / 3) ** 0.5)
    return avg_pool2d(x.view(len(x), 3, side, side), pool).flatten(1)


def _task(
    data: Dataset, seeds: Sequence[int], pool: int, n_train: int, n_validation: int,
    options: Mapping[str, Any],
) -> _Task:  # fmt: skip
    if n_train + n_validation > len(data.y_train):
        raise ValueError(
            f"n_train and n_validation must be at most the {len(data.y_train)} images there are, "
            f"got {n_train} and {n_validation}"
        )
    x, x_test = (_pooled(part, pool) for part in (data.x_train, data.x_test))
    scale = float(x.std()) if pool > 1 else 1.0  # averages vary less than pixels
    generators = [torch.Generator().manual_seed(drawn_elsewhere(seed, 0)) for seed in seeds]
    orders = torch.stack([torch.randperm(len(x), generator=each) for each in generators])
    held_out = orders[:, n_train : n_train + n_validation]
    return _Task(
        tuple(seeds), x / scale, data.y_train, orders[:, :n_train], held_out,
        x_test / scale, data.y_test, options,
    )  # fmt: skip


def tickets(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, int]],
    pool: int,
    n_train: int,
    n_validation: int,
    network: Mapping[str, Any],
    rate: float,
    batch_size: int,
    steps: int,
    every: int,
    rounds: int,
    shares: Mapping[str, float],
    arms: Mapping[str, Sequence[int]],
) -> Arrays:
    """Stored run of a group of seeds: R = `rounds` prunings, and `arms` at some of the rounds.

    pool : side of the squares of pixels that are averaged. n_train, n_validation : images, another
    split for every seed. network : see `starts_of`. shares : of the surviving weights dropped in a
    round, by kind: "full", "output", and "convolution" where there are some. every : steps between
    two looks at the validation loss. arms : name of `ARMS` -> rounds at which it is trained, from 1
    to R.

    A row a seed. ticket (S, R + 1, 3) and every arm (S, its rounds, 3): test accuracy at the end,
    at the smallest validation loss, and its step. left (S, R + 1): share of the weights. sizes
    (S, R, M): mean |θ0| of the survivors over that of the pruned, by tensor. moved (S, M): mean
    |θ - θ0| of the dense training, of the last ticket's weights over that of the others.
    fine_tuned (S, 3), with the arm "continued": its networks at the end of pruning, as the
    columns of "ticket". varies (S, d): inputs that are not their median in over 2 percent of the
    images. mask_W1 ... (S, ...): the last ticket; ticket_W1 ...: trained; dense_W1 ...: the
    trained dense networks.

    Raises ValueError for an arm or a round that is not there and for more images than there are.
    """
    for arm, at in arms.items():
        choice("arms", arm, ARMS)
        if not all(1 <= number <= rounds for number in at):
            raise ValueError(f"arms[{arm!r}] must hold rounds from 1 to {rounds}, got {list(at)}")
    seeds = [int(member["seed"]) for member in group]
    options = {"rate": rate, "batch_size": batch_size, "steps": steps, "every": every}
    task = _task(data, seeds, pool, n_train, n_validation, options)
    start, fresh = (
        starts_of(network, each, task.x.shape[1], data.n_classes)
        for each in (seeds, [drawn_elsewhere(seed, 1) for seed in seeds])
    )
    names = weights_of(start)
    by_name = {
        name: shares["convolution" if name[0] == "K" else "full" if name != names[-1] else "output"]
        for name in names
    }
    found = iterative_pruning(start, task.train, rounds=rounds, shares=by_name)
    last, dense = found[-1], found[0]
    out = {
        "ticket": torch.stack([each.found for each in found], dim=1),
        "left": torch.stack([share_left(each.masks) for each in found], dim=1),
        "sizes": torch.stack([_ratios(start.tensors, each.masks) for each in found[1:]], dim=1),
        "moved": _ratios(
            {name: dense.end.tensors[name] - start.tensors[name] for name in names}, last.masks
        ),
    }
    spread = (task.x != task.x.median(0).values).double().mean(0)
    out["varies"] = (spread > 0.02).expand(len(seeds), -1)
    out |= {f"mask_{name}": last.masks[name] for name in names}
    for which, each in (("ticket", last), ("dense", dense)):
        out |= {f"{which}_{name}": each.end.tensors[name] for name in names}
    others = _Others(task, start, fresh, found)
    if "continued" in arms:
        out["fine_tuned"] = others.prune_on(by_name)
    for arm, at in arms.items():
        out[arm] = torch.empty(len(seeds), len(at), len(COLUMNS), dtype=torch.float64)
    for number in sorted({k for at in arms.values() for k in at}):
        names = [arm for arm, at in arms.items() if number in at]
        trained = others.train(names, number)
        for arm, row in zip(names, trained, strict=True):
            out[arm][:, list(arms[arm]).index(number)] = row
    return {name: value.numpy() for name, value in out.items()}


def _ratios(values: Mapping[str, Tensor], masks: Masks) -> Tensor:
    """Mean |value| of the kept entries over that of the others, (S, masks)."""
    rows = []
    for name in masks:
        size, kept = values[name].abs().double().flatten(1), masks[name].flatten(1)
        inside = (size * kept).sum(1) / kept.sum(1)
        rows.append(inside / ((size * ~kept).sum(1) / (~kept).sum(1)))
    return torch.stack(rows, dim=1)


class _Others:
    """The arms beside the tickets."""

    def __init__(
        self, task: _Task, start: Stack, fresh: Stack, found: Sequence[Round[Tensor]]
    ) -> None:
        self.task, self.start, self.fresh, self.found = task, start, fresh, found
        self.continued: Sequence[Round[Tensor]] = []

    def prune_on(self, shares: Mapping[str, float]) -> Tensor:
        """Prune without resetting; (S, 3) of the networks that this ends with."""
        dense = self.found[0]

        def train(begin: Stack, masks: Masks) -> Trained:
            if all(bool(mask.all()) for mask in masks.values()):
                return dense.end, dense.found  # the same training as the tickets'
            return self.task.train(begin, masks)

        self.continued = iterative_pruning(
            self.start, train, rounds=len(self.found) - 1, shares=shares, reset=False
        )
        return self.continued[-1].found

    def made(self, arm: str, number: int) -> tuple[Masks, Mapping[str, Tensor]]:
        """Mask and starting values of an arm at a round."""
        masks, tensors = self.found[number].masks, self.start.tensors
        seeds = self.task.seeds
        if arm == "reinit":
            return masks, self.fresh.tensors
        if arm == "shuffled":
            return shuffled(masks, [drawn_elsewhere(seed, 2) for seed in seeds]), tensors
        if arm == "one_shot":
            return largest(self.found[0].end.tensors, like=masks), tensors
        if arm == "start_mask":
            return largest(tensors, like=masks), tensors
        if arm == "continued":
            return self.continued[number].masks, tensors
        if arm == "signs":
            signed = with_signs(self.fresh.tensors, {name: tensors[name] for name in masks})
            return masks, {**tensors, **signed}
        drawn = resampled(tensors, masks, [drawn_elsewhere(seed, 3) for seed in seeds])
        return masks, {**tensors, **drawn}

    def train(self, arms: Sequence[str], number: int) -> list[Tensor]:
        """`COLUMNS` (S, 3) of every arm at a round, trained as one stack."""
        made = [self.made(arm, number) for arm in arms]
        masks = {name: torch.cat([mask[name] for mask, _ in made]) for name in made[0][0]}
        tensors = {
            name: torch.cat([values[name] for _, values in made]) for name in self.start.tensors
        }
        begin = replace(self.start, tensors=apply_masks(tensors, masks))
        _, rows = self.task.train(begin, masks)
        return list(rows.split(len(self.start)))
