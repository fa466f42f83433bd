"""Stored runs of notebook 90: one network from scratch, or denoising its own inputs first.

Both have n_denoise + n_label steps, a run from scratch all of them on labels. Denoising hides each
position with probability `hidden`, shows a flag in its place and asks for what was there, on hidden
positions alone: mean absolute error for pixels, cross-entropy for symbols. Then all weights are
trained on labels behind a new head. Adam with betas 0.9 and 0.98, rate constant after 30 steps; of
state-space layers Δ, a and ω have a tenth of it. Test inputs are never denoised.

Source: Amos, Berant, Gupta 2024 (arXiv 2310.02980), sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rclib.checks.arguments import choice, count
from rclib.data import long_sequences
from rclib.data.images import Dataset
from rclib.experiments.language.scratch_measures import moments_of
from rclib.nets import sequence_classifier as nets
from rclib.nets.stack import Stack
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_orders, train_stack

__all__ = ["ARMS", "MEMBERS", "TASKS", "TINY", "digit_runs", "hide", "sequence_runs"]

ARMS = ("scratch", "denoised", "shuffled")
MEMBERS = ("seed",)
TASKS: dict[str, Callable[[int, int, int], long_sequences.Sequences]] = {
    "texture": long_sequences.texture, "counting": long_sequences.counting,
    "retrieval": long_sequences.retrieval, "lists": long_sequences.list_operations,
}  # fmt: skip
_SMALL: dict[str, Any] = {
    "kind": "transformer", "arm": "denoised", "n_denoise": 2, "n_label": 2, "batch": 4,
    "lr": 0.003, "hidden": 0.5, "network": {"width": 8, "blocks": 1, "heads": 2},
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "digit_runs": {**_SMALL, "group": [{"seed": 0}, {"seed": 3}], "n_train": 16, "n_more": 2},
    "sequence_runs": {
        **_SMALL, "group": [{"seed": 0}, {"seed": 3}], "task": "texture", "length": 8,
        "n_train": 16, "n_test": 16, "permuted": True,
    },
}  # fmt: skip
SLOW = ("log_dt", "log_a", "omega")  # of state-space layers, at a tenth of the rate
CHUNK = 256  # test inputs at once
WARMUP = 30


def hide(x: Tensor, hidden: Tensor, symbols: int) -> Tensor:
    """Inputs (..., L, F) of what is seen of x (..., L), and a flag where it is hidden.

    symbols : number of symbols, F = symbols + 1; 1 for pixels, F = 2. hidden : (..., L) bool.
    """
    values = x[..., None] if symbols == 1 else F.one_hot(x, symbols).to(torch.float32)
    flag = hidden[..., None].to(values.dtype)
    return torch.cat([values * (1 - flag), flag], -1)


def _denoising_loss(symbols: int, out: Tensor, y: Tensor) -> Tensor:
    """Mean loss on hidden positions; y (n, L, 2) holds what is there and whether it is hidden."""
    wanted, hidden = y[..., 0], y[..., 1]
    if symbols == 1:
        losses = (out[..., 0] - wanted).abs()
    else:
        places = F.one_hot(wanted.long(), symbols).to(out.dtype)
        losses = -(torch.log_softmax(out, -1) * places).sum(-1)
    return (losses * hidden).sum() / hidden.sum().clamp_min(1.0)


def _streams(seeds: Sequence[int], place: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 * seed + place) for seed in seeds]


def _denoising_batches(
    x: Tensor, seeds: Sequence[int], arm: str, batch: int, share: float, symbols: int
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """step -> inputs (S, b, L, F) and targets (S, b, L, 2) of x (S, n, L), each seed its own."""
    order = epoch_orders(x.shape[1], batch, [1000 * seed + 1 for seed in seeds])
    masks, mixing = _streams(seeds, 2), _streams(seeds, 3)

    def at(step: int) -> tuple[Tensor, Tensor]:
        chosen = order(step)
        own = torch.stack([x[s][rows] for s, rows in enumerate(chosen)])
        if arm == "shuffled":
            noise = torch.stack([torch.rand(own.shape[1:], generator=g) for g in mixing])
            own = own.gather(-1, noise.argsort(-1))
        hidden = torch.stack([torch.rand(own.shape[1:], generator=g) for g in masks]) < share
        targets = torch.stack([own.to(torch.float32), hidden.to(torch.float32)], -1)
        return hide(own, hidden, symbols), targets

    return at


def _outputs(now: Stack, shape: nets.Shape, x: Tensor, what: str) -> Tensor:
    """Logits or pooled features (S, n, ...) of inputs x (S, n, L, F), some at once."""
    function = partial({"logits": nets.classify, "features": nets.pooled}[what], shape)
    with torch.no_grad():
        own = Stack(now.tensors, function)
        return torch.cat([own(part, own=True) for part in x.split(CHUNK, 1)], 1)


def _trained(
    x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, *, seeds: Sequence[int], symbols: int,
    classes: int, kind: str, arm: str, n_denoise: int, n_label: int, batch: int, lr: float,
    hidden: float, network: Mapping[str, Any],
) -> Arrays:  # fmt: skip
    """Of x (S, n, L), y (S, n) and as many test inputs: see `digit_runs`."""
    choice("arm", arm, ARMS)
    features = 2 if symbols == 1 else symbols + 1
    shape = nets.Shape(
        kind=kind, features=features, outputs=symbols, classes=classes, length=x.shape[-1],
        **network,
    )  # fmt: skip
    now = Stack(nets.start(shape, seeds), partial(nets.denoise, shape))
    slow = {name: 0.1 for name in now.tensors if name.split(".")[-1] in SLOW}
    options: dict[str, Any] = {
        "lr": lr, "optimizer": "adam", "betas": (0.9, 0.98), "own": "xy", "factors": slow,
        "lr_schedule": lambda step: min(1.0, (step + 1) / WARMUP),
    }  # fmt: skip
    seen, test = (
        hide(own, torch.zeros(own.shape, dtype=torch.bool), symbols) for own in (x, x_test)
    )
    moments = [now]
    n_denoise, n_label = count("n_denoise", n_denoise), count("n_label", n_label)
    last, course = (torch.full((*more, len(seeds)), torch.nan) for more in ((), (10,)))
    if arm != "scratch":
        batches = _denoising_batches(x, seeds, arm, batch, hidden, symbols)
        now, found = train_stack(
            now, batches, partial(_denoising_loss, symbols), steps=n_denoise,
            frozen=nets.HEADS["classify"], **options,
        )  # fmt: skip
        course = torch.stack([part.mean(0) for part in found["loss"].tensor_split(len(course))])
        last = found["loss"][-50:].mean(0)
        moments.append(now)
    order = epoch_orders(x.shape[1], batch, [1000 * seed + 4 for seed in seeds])

    def labelled(step: int) -> tuple[Tensor, Tensor]:
        rows = order(step)
        own = [(seen[s][of], y[s][of]) for s, of in enumerate(rows)]
        return torch.stack([a for a, _ in own]), torch.stack([b for _, b in own])

    now, found = train_stack(
        Stack(now.tensors, partial(nets.classify, shape)), labelled, F.cross_entropy,
        steps=n_label + (n_denoise if arm == "scratch" else 0), frozen=nets.HEADS["denoise"],
        **options,
    )  # fmt: skip
    moments.append(now)
    right = [
        (_outputs(now, shape, own, "logits").argmax(-1) == wanted).double().mean(1)
        for own, wanted in ((seen, y), (test, y_test))
    ]
    known = [(_outputs(m, shape, seen, "features"), _outputs(m, shape, test, "features"))
             for m in moments[:-1]]  # fmt: skip
    measured = moments_of(shape, [m.tensors for m in moments], known, y, y_test)
    return {
        "train": right[0].numpy(), "test": right[1].numpy(), "denoising": last.numpy(),
        "course": course.T.numpy(), "label_loss": found["loss"][-50:].mean(0).numpy(), **measured,
    }  # fmt: skip


def digit_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], kind: str, arm: str, n_train: int,
    n_more: int, n_denoise: int, n_label: int, batch: int, lr: float, hidden: float,
    network: Mapping[str, Any],
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds: images read pixel by pixel as sequences.

    group : {"seed"} of each member: its images, weights and order. kind : "transformer" or "ssm".
    arm : of `ARMS`; "shuffled" denoises pixels permuted anew in each image. n_train : images for
    both phases; n_more : others of the training set that are added to the test set.
    batch, lr, hidden : images of a step, rate, probability of being hidden. network : more of
    `rclib.nets.sequence_classifier.Shape`.

    Returns with a first axis of members: train and test, shares of right answers; denoising and
    label_loss, mean losses of the last 50 steps, and course (S, 10), mean losses of the tenths of
    the denoising (NaN without it); and what `scratch_measures.moments_of` measures. Raises
    ValueError naming the argument.
    """
    count("n_train", n_train)
    if n_train + count("n_more", n_more, 0) > len(data.y_train):
        raise ValueError(
            f"n_train + n_more must be at most {len(data.y_train)}, got {n_train + n_more}"
        )
    seeds = [int(member["seed"]) for member in group]
    orders = [np.random.default_rng(seed).permutation(len(data.y_train)) for seed in seeds]
    rows = torch.from_numpy(np.stack([order[:n_train] for order in orders]))
    more = torch.from_numpy(np.stack([order[n_train : n_train + n_more] for order in orders]))
    x_test = torch.cat([data.x_train[more], data.x_test.expand(len(seeds), -1, -1)], 1)
    y_test = torch.cat([data.y_train[more], data.y_test.expand(len(seeds), -1)], 1)
    return _trained(
        data.x_train[rows], data.y_train[rows], x_test, y_test, seeds=seeds, symbols=1,
        classes=data.n_classes, kind=kind, arm=arm, n_denoise=n_denoise, n_label=n_label,
        batch=batch, lr=lr, hidden=hidden, network=network,
    )  # fmt: skip


def sequence_runs(
    data: None, *, group: Sequence[Mapping[str, Any]], task: str, length: int, permuted: bool,
    kind: str, arm: str, n_train: int, n_test: int, n_denoise: int, n_label: int, batch: int,
    lr: float, hidden: float, network: Mapping[str, Any],
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds on a task of `TASKS` (`rclib.data.long_sequences`).

    length : L. permuted : positions are permuted, once for each seed. Others, and what is returned:
    as in `digit_runs`. Raises ValueError naming the argument.
    """
    choice("task", task, tuple(TASKS))
    seeds = [int(member["seed"]) for member in group]
    make = TASKS[task]
    own = [
        [make(2 * seed + k, n, length) for seed in seeds] for k, n in ((0, n_train), (1, n_test))
    ]
    (x, y), (x_test, y_test) = (
        (
            torch.from_numpy(np.stack([a for a, _ in part])),
            torch.from_numpy(np.stack([b for _, b in part])),
        )
        for part in own
    )
    if permuted:
        places = torch.stack([torch.randperm(length, generator=g) for g in _streams(seeds, 5)])
        x, x_test = (one.gather(-1, places[:, None].expand_as(one)) for one in (x, x_test))
    return _trained(
        x, y, x_test, y_test, seeds=seeds, symbols=16 if task == "lists" else 2,
        classes=10 if task == "lists" else 2, kind=kind, arm=arm, n_denoise=n_denoise,
        n_label=n_label, batch=batch, lr=lr, hidden=hidden, network=network,
    )  # fmt: skip
