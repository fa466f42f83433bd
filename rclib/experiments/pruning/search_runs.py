"""Stored runs of notebook 44: node masks of one parent, scored at the start and trained.

A node mask keeps k of the h units of each hidden layer, with the parent's starting values. Training
works on slices: the same network without the other units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.experiments.pruning.data_diet_runs import images, networks
from rclib.nets.stack import Stack
from rclib.rowcolumn.axes import mlp_axes
from rclib.rowcolumn.measure import correlations, mean_vectors
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import outliers
from rclib.spectral.spectra import esd
from rclib.training.stacked import epoch_batches, train_stack

__all__ = ["ARMS", "TASKS", "TINY", "dense", "drawn_units", "repeated", "searched", "sliced"]

# searched, worst: lowest and highest initial loss of all masks. random: the first mask. few: the
# lowest of the first `few` masks. narrow: smallest spread of the logits, no labels used. moved and
# moved_random: the masks of searched and random, on a freshly drawn parent.
ARMS = ("searched", "random", "worst", "few", "narrow", "moved", "moved_random")
TASKS = ("labels", "teacher")
_SHARED: dict[str, Any] = {
    "pool": 1, "width": 12, "n_score": 30, "steps": 4, "rate": 1e-3, "batch_size": 30,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "searched": {
        "group": [{"seed": 0}, {"seed": 3}], "task": "teacher", "keep": 4, "rescaled": True,
        "n_masks": 5, "few": 2, "every": 2, **_SHARED,
    },
    "dense": {"group": [{"seed": 0}, {"seed": 3}], "every": 2, **_SHARED},
    "repeated": {
        "group": [{"seed": 0}, {"seed": 3}], "keep": 4, "n_masks": 6, "early": 2, **_SHARED,
    },
}  # fmt: skip

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class _Task:
    """x, x_test (n, d), y, y_test, size of the output, loss, and score (outputs (S, n, c), y) ->
    (S,), the higher the better."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    outputs: int
    loss: Loss
    score: Callable[[Tensor, Tensor], Tensor]


def _right(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs.argmax(-1) == y).double().mean(1)


def _explained(outputs: Tensor, y: Tensor) -> Tensor:
    """R², with the variance of y as it is."""
    return 1 - (outputs - y).double().square().mean((1, 2)) / y.double().var(unbiased=False)


def _task(data: Dataset, pool: int, task: str = "labels") -> _Task:
    choice("task", task, TASKS)
    x, x_test = images(data, pool)
    scale = float(x.std())
    x, x_test = x / scale, x_test / scale
    if task == "labels":
        return _Task(
            x, data.y_train, x_test, data.y_test, data.n_classes, cross_entropy, _right
        )  # fmt: skip
    teacher = networks(x.shape[1], [8], 1, [2_000_000])
    y, y_test = (teacher(part)[0] for part in (x, x_test))
    mean, spread = y.mean(), y.std()
    return _Task(
        x, (y - mean) / spread, x_test, (y_test - mean) / spread, 1, mse_loss, _explained
    )  # fmt: skip


def drawn_units(seed: int, n_masks: int, width: int, keep: int) -> tuple[Tensor, Tensor]:
    """Kept units of the two hidden layers, (K, keep) each, ascending; a mask depends on the seed
    and its own place alone, whatever K is."""
    found = []
    for layer in range(2):
        generator = torch.Generator().manual_seed(3_000_000 + 10 * seed + layer)
        rows = [torch.randperm(width, generator=generator)[:keep] for _ in range(n_masks)]
        found.append(torch.stack(rows).sort(dim=1).values)
    return found[0], found[1]


def sliced(
    parent: Mapping[str, Tensor], units: tuple[Tensor, Tensor], *, rescaled: bool = False
) -> dict[str, Tensor]:
    """Tensors (K, ...) of the networks that K masks leave of one parent with two hidden layers.

    parent : name -> (*shape). units : (K, k) each. rescaled : the second and third matrix times
    √(h / k), which keeps the variance of what a unit gets.
    """
    one, two = units
    h, k = parent["W2"].shape[0], one.shape[1]
    factor = (h / k) ** 0.5 if rescaled else 1.0
    return {
        "W1": parent["W1"][one], "B1": parent["B1"][one],
        "W2": factor * parent["W2"][two[:, :, None], one[:, None, :]], "B2": parent["B2"][two],
        "W3": factor * parent["W3"][:, two].movedim(1, 0),
        "B3": parent["B3"].expand(len(one), *parent["B3"].shape).clone(),
    }  # fmt: skip


def _started(nets: Stack, task: _Task, n: int) -> tuple[Tensor, Tensor]:
    """Initial loss on the first n training examples, and standard deviation of the outputs."""
    with torch.no_grad():
        outputs = nets(task.x[:n])
        losses = torch.stack([task.loss(each, task.y[:n]) for each in outputs])
    return losses.double(), outputs.double().flatten(1).std(1)


def _shell(task: _Task, width: int, tensors: dict[str, Tensor]) -> Stack:
    """A stack of networks with two hidden layers of `width` and these tensors."""
    return replace(networks(task.x.shape[1], [width, width], task.outputs, [0]), tensors=tensors)


def _train(
    task: _Task, nets: Stack, orders: Sequence[int], o: Mapping[str, Any], at: Sequence[int]
) -> tuple[Stack, Tensor]:
    """Networks at the end, and their score on the test data at some steps, (S, len(at))."""
    end, found = train_stack(
        nets, epoch_batches(task.x, task.y, batch_size=o["batch_size"], seeds=orders),
        task.loss, steps=o["steps"], lr=o["rate"], optimizer="adam",
        record={"score": lambda now: task.score(now(task.x_test), task.y_test)}, at=at, own="xy",
    )  # fmt: skip
    return end, found["score"].movedim(0, 1).double()


def _link(nets: Stack) -> Tensor:
    """(S, 2): eigenvalues of the first matrix beyond the edge of entries with its own variance, and
    |correlation| over its units of incoming and outgoing means."""
    rows = []
    for s in range(len(nets)):
        member = nets.member(s)
        first = member["W1"].double()
        edge = outliers(esd(first), rows=len(first), variance=float(first.var())).edge
        axes = mlp_axes(3, bias=False)
        vectors = {"h1": mean_vectors({n: member[n] for n in axes}, axes)["h1"]}
        rows.append(
            [
                float((esd(first) > 1.02 * edge).sum()),
                abs(float(correlations(vectors).matrix[0, 1])),
            ]
        )
    return torch.tensor(rows)


def searched(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, int]],
    task: str,
    pool: int,
    width: int,
    keep: int,
    rescaled: bool,
    n_masks: int,
    few: int,
    n_score: int,
    steps: int,
    every: int,
    rate: float,
    batch_size: int,
) -> Arrays:
    """Stored run: one node mask of many, chosen by its initial loss, against one draw, by parent.

    task : of `TASKS`; "teacher" is a regression on a network's outputs. width, keep : units of each
    hidden layer, of the parent and kept. n_masks : K. few : a smaller K. n_score : training
    examples that the initial loss is taken on. every : steps between two looks at the test data.

    losses, spreads (S, K): initial loss and standard deviation of the outputs, by mask. chosen
    (S, A): the mask of every arm of `ARMS`. curves (S, A, T): score on the test data (share of
    right labels, or R²) after 0, every, ... steps. link_start, link (S, A, 2): eigenvalues of W1
    beyond the bulk's edge, and |correlation| of means in and out of its units.
    """
    o = {"steps": steps, "rate": rate, "batch_size": batch_size}
    of = _task(data, pool, task)
    seeds = [int(member["seed"]) for member in group]
    parents, others = (
        networks(of.x.shape[1], [width, width], of.outputs, each)
        for each in (seeds, [seed + 4_000_000 for seed in seeds])
    )
    losses, spreads, chosen = [], [], []
    begin: dict[str, list[Tensor]] = {name: [] for name in parents.tensors}
    for s, seed in enumerate(seeds):
        units = drawn_units(seed, n_masks, width, keep)
        nets = _shell(of, keep, sliced(parents.member(s), units, rescaled=rescaled))
        loss, spread = _started(nets, of, n_score)
        best, low = int(loss.argmin()), int(spread.argmin())
        taken = [best, 0, int(loss.argmax()), int(loss[:few].argmin()), low, best, 0]
        for arm, mask in zip(ARMS, taken, strict=True):
            parent = (others if arm.startswith("moved") else parents).member(s)
            one = sliced(parent, (units[0][[mask]], units[1][[mask]]), rescaled=rescaled)
            for name, value in one.items():
                begin[name].append(value)
        losses.append(loss), spreads.append(spread), chosen.append(taken)  # type: ignore[func-returns-value]
    start = _shell(of, keep, {name: torch.cat(rows) for name, rows in begin.items()})
    orders = [seed for seed in seeds for _ in ARMS]
    end, curves = _train(of, start, orders, o, range(0, steps + 1, every))
    shape = (len(seeds), len(ARMS), -1)
    return {
        "losses": torch.stack(losses).numpy(),
        "spreads": torch.stack(spreads).numpy(),
        "chosen": torch.tensor(chosen).numpy(),
        "curves": curves.reshape(shape).numpy(),
        "link_start": _link(start).reshape(shape).numpy(),
        "link": _link(end).reshape(shape).numpy(),
    }


def dense(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, int]],
    pool: int,
    width: int,
    n_score: int,
    steps: int,
    every: int,
    rate: float,
    batch_size: int,
) -> Arrays:
    """Stored run: the parents themselves, in the order of batches of `searched`. curves (S, T)."""
    of, seeds = _task(data, pool), [int(member["seed"]) for member in group]
    nets = networks(of.x.shape[1], [width, width], of.outputs, seeds)
    o = {"steps": steps, "rate": rate, "batch_size": batch_size}
    _, curves = _train(of, nets, seeds, o, range(0, steps + 1, every))
    loss, _ = _started(nets, of, n_score)
    return {"curves": curves.numpy(), "loss": loss.numpy()}


def repeated(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, int]],
    pool: int,
    width: int,
    keep: int,
    n_masks: int,
    n_score: int,
    steps: int,
    early: int,
    rate: float,
    batch_size: int,
) -> Arrays:
    """Stored run: K masks of a parent, each trained twice, with two orders of the batches.

    early : step at which the training loss is taken too. loss, early_loss (S, K): at the start, and
    at `early` in the first order. score (S, K, 2, 2): share of right labels at the end, by order
    and half of the test data.
    """
    of, seeds = _task(data, pool), [int(member["seed"]) for member in group]
    parents = networks(of.x.shape[1], [width, width], of.outputs, seeds)
    half = len(of.y_test) // 2
    rows: dict[str, list[Tensor]] = {"loss": [], "early_loss": [], "score": []}
    for s, seed in enumerate(seeds):
        units = drawn_units(seed, n_masks, width, keep)
        start = _shell(of, keep, sliced(parents.member(s), units))
        loss, _ = _started(start, of, n_score)
        scores = []
        for order in range(2):
            # One order for all masks of a parent: only the mask tells them apart.
            batches = epoch_batches(
                of.x, of.y, batch_size=batch_size, seeds=[seed + 5_000_000 * order]
            )

            def shared(step: int, of_one: Any = batches) -> tuple[Tensor, Tensor]:
                x, y = of_one(step)
                return x[0], y[0]

            end, found = train_stack(
                start, shared, of.loss, steps=steps, lr=rate, optimizer="adam", own="",
                record={"loss_at": lambda now: _started(now, of, n_score)[0]}, at=[early],
            )  # fmt: skip
            if order == 0:
                rows["early_loss"].append(found["loss_at"][0])
            with torch.no_grad():
                outputs = end(of.x_test)
            scores.append(
                torch.stack(
                    [
                        of.score(outputs[:, :half], of.y_test[:half]),
                        of.score(outputs[:, half:], of.y_test[half:]),
                    ],
                    dim=1,
                )
            )
        rows["loss"].append(loss)
        rows["score"].append(torch.stack(scores, dim=1))
    return {name: torch.stack(values).numpy() for name, values in rows.items()}
