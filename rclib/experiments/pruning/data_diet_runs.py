"""Stored runs of notebook 45: committees that score examples, and networks trained on subsets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy

from rclib.checks.arguments import choice, count
from rclib.data.images import Dataset
from rclib.experiments.pruning.data_scores import (
    Forgetting,
    activations,
    el2n,
    grand,
    window,
    wrong_labels,
)
from rclib.nets.init import Init
from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack
from rclib.rowcolumn.axes import mlp_axes
from rclib.rowcolumn.measure import correlations, largest_correlation, mean_vectors
from rclib.runs import store
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import outliers
from rclib.spectral.spectra import esd, stable_rank
from rclib.training.stacked import epoch_orders, train_stack

__all__ = [
    "SCORES",
    "TINY",
    "batches",
    "committee",
    "committee_scores",
    "images",
    "needed",
    "networks",
    "retrained",
]

Order = Callable[[int], Tensor]
SCORES = ("el2n", "grand", "forgetting", "norm", "random", "permuted")
TINY: dict[str, dict[str, Any]] = {
    "committee": {
        "group": [{"seed": 0}, {"seed": 4}], "nets": 2, "noise": 0.1, "epochs": [0, 1],
        "widths": [6, 5], "batch_size": 32, "rate": 1e-3, "pool": 1,
    },
    "retrained": {
        "group": [
            {"seed": 0, "committee": 3, "score": "el2n", "epoch": 1, "nets": 2, "offset": 0.5,
             "balanced": False},
            {"seed": 1, "committee": 3, "score": "norm", "epoch": 0, "nets": 1, "offset": 0.0,
             "balanced": True},
        ],
        "share": 0.5, "noise": 0.1, "steps": 3,
        "scoring": {"nets": 2, "epochs": [0, 1], "widths": [6, 5], "batch_size": 32,
                    "rate": 1e-3, "pool": 1},
    },
}  # fmt: skip


def images(data: Dataset, pool: int) -> tuple[Tensor, Tensor]:
    """Training and test images (n, d), averaged over squares of `pool` pixels, channel-major."""
    if pool == 1:
        return data.x_train, data.x_test
    channels = 3 if data.name == "cifar10" else 1
    side = math.isqrt(data.x_train.shape[1] // channels)
    train, test = (
        avg_pool2d(x.view(-1, channels, side, side), pool).flatten(1)
        for x in (data.x_train, data.x_test)
    )
    return train, test


def networks(d: int, widths: Sequence[int], classes: int, seeds: Sequence[int]) -> Stack:
    """ReLU networks from He's start: N(0, 2 / fan-in), biases at zero."""
    made = [
        MLP(
            d, list(widths), classes, depth=len(widths) + 1, parametrization="SP",
            activation="relu", init=Init("gaussian", scale=math.sqrt(2.0)), bias="constant",
            seed=seed,
        )
        for seed in seeds
    ]  # fmt: skip
    return stack(made)


class _Watch:
    """Scores of all examples at the end of chosen epochs, and forgetting at every step.

    labels : (S, n), as given. order : step -> (S, b), the batches.
    """

    def __init__(self, x: Tensor, labels: Tensor, order: Order, due: Sequence[int]) -> None:
        self.x, self.labels, self.order, self.due = x, labels, order, list(due)
        self.forgetting = Forgetting(*labels.shape)
        self.rows: dict[str, list[Tensor]] = {"el2n": [], "grand": [], "accuracy": []}
        self.step = 0

    def __call__(self, now: Stack) -> Tensor:
        """Called before each update and after the last one; what it records is its own."""
        if self.step in self.due:
            hidden = activations(now.tensors, self.x)
            self.rows["el2n"].append(el2n(hidden[-1], self.labels))
            self.rows["grand"].append(grand(now.tensors, hidden, self.labels))
            self.rows["accuracy"].append((hidden[-1].argmax(-1) == self.labels).double().mean(1))
        if self.step < max(self.due):
            places = self.order(self.step)
            right = activations(now.tensors, self.x[places])[-1].argmax(-1)
            self.forgetting.see(places, right == self.labels.gather(1, places))
        self.step += 1
        return torch.zeros(len(now))


def committee(
    data: Dataset,
    *,
    seed: int | None = None,
    group: Sequence[Mapping[str, int]] | None = None,
    nets: int,
    noise: float,
    epochs: Sequence[int],
    widths: Sequence[int],
    batch_size: int,
    rate: float,
    pool: int,
) -> Arrays:
    """Stored run: `nets` networks of the seeds 1000 seed, 1000 seed + 1, ..., trained with Adam on
    all examples, of which the share `noise` has wrong labels (chosen by the seed). With a group of
    seeds in place of one, every array has a first axis of them.

    el2n, grand (epochs, nets, n) : scores after each number of `epochs`, of the labels as given;
    epoch 0 is before the first update. forgetting (nets, n) : events up to the last epoch.
    accuracy (epochs, nets) : on the training set.
    """
    x, _ = images(data, pool)
    chosen = [int(one["seed"]) for one in group] if group is not None else [count("seed", seed, 0)]
    seeds = [1000 * one + k for one in chosen for k in range(nets)]
    given = [wrong_labels(data.y_train.numpy(), noise, data.n_classes, one)[0] for one in chosen]
    labels = torch.from_numpy(np.repeat(given, nets, axis=0))
    a_epoch = math.ceil(len(x) / batch_size)
    steps = max(epochs) * a_epoch
    watch = _Watch(
        x, labels, epoch_orders(len(x), batch_size, seeds), [e * a_epoch for e in epochs]
    )
    train_stack(
        networks(x.shape[1], widths, data.n_classes, seeds),
        batches(x, labels, watch.order),
        cross_entropy,
        steps=steps,
        lr=rate,
        optimizer="adam",
        record={"watched": watch},
        at=range(steps + 1),
        own="xy",
    )
    found = {name: torch.stack(rows).numpy() for name, rows in watch.rows.items()}
    found = {name: _apart(rows, len(chosen), nets) for name, rows in found.items()}
    found["forgetting"] = watch.forgetting.events.numpy().reshape(len(chosen), nets, -1)
    return found if group is not None else {name: rows[0] for name, rows in found.items()}


def _apart(rows: np.ndarray, members: int, nets: int) -> np.ndarray:
    """(epochs, members · nets, ...) as (members, epochs, nets, ...)."""
    return np.moveaxis(rows.reshape(len(rows), members, nets, *rows.shape[2:]), 0, 1)


def batches(
    x: Tensor, labels: Tensor, order: Order, subsets: Tensor | None = None
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Batches for `train_stack`: images (n, d) that all share, labels (S, n) that each has its own,
    the places that `order` gives, among those of `subsets` (S, k)."""

    def batch(step: int) -> tuple[Tensor, Tensor]:
        places = order(step) if subsets is None else subsets.gather(1, order(step))
        return x[places], labels.gather(1, places)

    return batch


def needed(config: Mapping[str, Any]) -> list[tuple[store.Experiment, Mapping[str, Any]]]:
    """The committees whose scores a configuration of `retrained` asks for."""
    members = [dict(member) for member in config.get("group", [config])]
    seeds = {int(m["committee"]) for m in members if m["score"] in ("el2n", "grand", "forgetting")}
    scoring = config["scoring"]
    return [(committee, {"seed": s, "noise": config["noise"], **scoring}) for s in sorted(seeds)]


def committee_scores(data: Dataset, seed: int, noise: float, scoring: Mapping[str, Any]) -> Arrays:
    """The arrays of a stored committee, which is computed if it is not there."""
    return store.fetch(committee, {"seed": seed, "noise": noise, **scoring}, data=data)


def _subset(
    data: Dataset, x: Tensor, y: np.ndarray, member: Mapping[str, Any], config: Mapping[str, Any]
) -> np.ndarray:
    """Places of the examples that a member is trained on, ascending."""
    score, scoring = choice("score", member["score"], SCORES), config["scoring"]
    random = np.random.default_rng([member["seed"], 46])
    if score == "norm":
        found = x.norm(dim=1).numpy()
    elif score in ("random", "permuted"):
        found = random.permutation(len(y)).astype(float)
    else:
        # Fetched where it is needed alone: a random subset must not wait for a committee.
        run = committee_scores(data, member["committee"], config["noise"], scoring)
        at = list(scoring["epochs"]).index(member["epoch"])
        scores = run[score] if score == "forgetting" else run[score][at]
        found = scores[: member["nets"]].astype(np.float64).mean(0)
    return window(found, config["share"], member["offset"], y if member["balanced"] else None)


def retrained(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, Any]],
    share: float,
    noise: float,
    steps: int,
    scoring: Mapping[str, Any],
) -> Arrays:
    """Stored run: networks trained from scratch for `steps` steps on the share of the examples
    that a score chooses, as many steps whatever the share. Rate, sizes and batches are those of
    the committees (`scoring`).

    group : seed (start, order of batches, random choices), committee (seed of the scores, and of
    the wrong labels), score, epoch, nets (how many of the committee's networks are averaged),
    offset and balanced of `window`. "random" and "permuted" draw the order by the seed.

    accuracy (S,) : on the test set. labels (S, K) : kept examples of each class. wrong (S,) : share
    of wrong labels among them. moved (S,) : norm of the change of the matrices. spikes (S,) :
    eigenvalues of W1ᵀW1 above 1.02 times the edge of its start's bulk; top (S,) : the largest over
    that edge; rank (S,) : stable rank of W1; rowcolumn (S,) : largest |correlation| over the first
    hidden layer of the means of rows of W1, columns of W2 and the bias.
    """
    x, x_test = images(data, scoring["pool"])
    config = {"share": share, "noise": noise, "scoring": scoring}
    truth, classes = data.y_train.numpy(), data.n_classes
    kept, labels, wrong = [], [], []
    for member in group:
        given, at = wrong_labels(truth, noise, classes, member["committee"])
        places = _subset(data, x, given, member, config)
        kept.append(torch.from_numpy(places))
        labels.append(torch.from_numpy(given))
        wrong.append(float(at[places].mean()))
    seeds = [member["seed"] for member in group]
    start = networks(x.shape[1], scoring["widths"], classes, seeds)
    subsets, given_labels = torch.stack(kept), torch.stack(labels)
    order = epoch_orders(subsets.shape[1], scoring["batch_size"], seeds)
    end, _ = train_stack(
        start,
        batches(x, given_labels, order, subsets),
        cross_entropy,
        steps=steps,
        lr=scoring["rate"],
        optimizer="adam",
        own="xy",
    )
    with torch.no_grad():
        right = activations(end.tensors, x_test)[-1].argmax(-1) == data.y_test
    counts = [
        np.bincount(y[s].numpy(), minlength=classes) for y, s in zip(labels, kept, strict=True)
    ]
    shape = [_measured(start.member(s), end.member(s)) for s in range(len(group))]
    return {
        "accuracy": right.double().mean(1).numpy(),
        "labels": np.array(counts),
        "wrong": np.array(wrong),
    } | {name: np.array([one[name] for one in shape]) for name in shape[0]}


def _measured(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[str, float]:
    """What training on a subset wrote into the weights."""
    first = end["W1"].double()
    eigenvalues = esd(first)
    beyond = outliers(eigenvalues, rows=first.shape[0], variance=2.0 / first.shape[1])
    change = sum(float((end[n] - start[n]).double().square().sum()) for n in end if n[0] == "W")
    axes = mlp_axes(sum(name[0] == "W" for name in end))
    hidden = {"h1": mean_vectors(end, axes)["h1"]}
    return {
        "moved": math.sqrt(change),
        "spikes": float((eigenvalues > 1.02 * beyond.edge).sum()),
        "top": float(eigenvalues[-1]) / beyond.edge,
        "rank": stable_rank(first),
        "rowcolumn": largest_correlation(correlations(hidden)).value,
    }
