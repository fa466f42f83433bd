"""Stored runs of notebook 85: fine-tuning with one number a sample and round, in one process and on
several machines, and how well sums of directions point along the gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from rclib.data.images import Dataset
from rclib.experiments.finetuning import one_byte_nets as nets
from rclib.experiments.finetuning import one_byte_rounds as rounds
from rclib.experiments.finetuning.one_byte_codes import code_of
from rclib.experiments.finetuning.one_byte_executors import executor_for
from rclib.experiments.finetuning.one_byte_machines import Machine, exchange, mean_of
from rclib.runs.store import Arrays

__all__ = ["GRADIENTS", "TINY", "alignment_run", "machines_run", "tune_run"]

GRADIENTS = "gradients"  # in place of a code: backpropagation
NET = {"n_train": 30, "hidden": 4, "steps": 3, "rate": 3e-3, "batch": 8}
PLAN = {"machines": 2, "samples": 1, "rounds": 4, "rate": 1e-2, "epsilon": 1e-3, "batch": 4}
TINY: dict[str, dict[str, Any]] = {
    "tune_run": {
        "seed": 0, "net": NET, "plan": PLAN, "code": "byte", "share": "iid", "directions": "own",
        "at": [0, 2],
    },
    "machines_run": {
        "seed": 0, "net": NET, "plan": PLAN, "code": "byte", "share": "iid", "where": "threads",
        "lost": [1, 1],
    },
    "alignment_run": {"seed": 0, "net": NET, "counts": [1, 3], "draws": 2, "epsilon": 1e-3},
}  # fmt: skip
Array = np.ndarray[Any, np.dtype[Any]]


@lru_cache(maxsize=64)
def _prepared(
    data: Dataset, seed: int, n_train: int, hidden: int, steps: int, rate: float, batch: int
) -> tuple[nets.Task, Array]:
    x = np.concatenate([data.x_train.numpy(), data.x_test.numpy()])
    y = np.concatenate([data.y_train.numpy(), data.y_test.numpy()])
    task = nets.drawn_task(x, y, seed=seed, n_train=n_train)
    start = nets.pretrained(task, seed=seed, hidden=hidden, steps=steps, rate=rate, batch=batch)
    return task, start


def tune_run(
    data: Dataset, *, seed: int, net: Mapping[str, Any], plan: Mapping[str, Any], code: str,
    share: str, directions: str, at: Sequence[int],
) -> Arrays:  # fmt: skip
    """A stored run of one seed, which draws split, start, directions and batches; all machines in
    one process.

    net : n_train images of the task; hidden units, steps, rate and batch of the training on the
    other classes. plan : machines, samples, rounds, rate, epsilon, batch of `one_byte_rounds.Plan`.
    code : of `one_byte_codes`, or "gradients". share : which images a machine holds. directions :
    see `Plan`. at : rounds before which the network is looked at, and after the last one.

    loss, accuracy (moments,): on all training and all test images. size (rounds,): root mean square
    of what arrived (of gradients: the norm of their mean). start, end (d,): weights, float32.
    """
    gradients = code == GRADIENTS
    own = rounds.Plan(seed=seed, code="float" if gradients else code, directions=directions, **plan)
    task, start = _prepared(data, seed, **net)
    machines = _machines(task, start, own, share, gradients)
    chosen = [rounds.batches(own, one.number, len(one.y)) for one in machines]
    theta, moments = start.copy(), {*at} - {own.rounds}
    seen, sizes = [], np.empty(own.rounds)
    for t in range(own.rounds):
        if t in moments:
            seen.append(_looked(theta, task))
        batch = [one.x[c[t]] for one, c in zip(machines, chosen, strict=True)]
        label = [one.y[c[t]] for one, c in zip(machines, chosen, strict=True)]
        if gradients:
            pairs = zip(batch, label, strict=True)
            mean = mean_of([rounds.mean_gradient(theta, x, y) for x, y in pairs])
            theta -= np.float32(own.rate) * mean
            sizes[t] = float(np.linalg.norm(mean))
        else:
            sizes[t] = _one_round(own, t, theta, np.concatenate(batch), np.concatenate(label))
    seen.append(_looked(theta, task))
    losses, right = np.array(seen).T
    return {"loss": losses, "accuracy": right, "size": sizes, "start": start, "end": theta}


def _machines(
    task: nets.Task, start: Array, plan: rounds.Plan, share: str, gradients: bool
) -> list[Machine]:
    """One for each share of the training images."""
    held = rounds.shares(task.y, plan.machines, share)
    return [
        Machine(m, plan, start, task.x[own], task.y[own], gradients) for m, own in enumerate(held)
    ]


def _looked(theta: Array, task: nets.Task) -> tuple[float, float]:
    right = nets.accuracy(theta, task.test_x, task.test_y)
    return float(nets.loss(theta, task.x, task.y)), right


def _one_round(plan: rounds.Plan, t: int, theta: Array, x: Array, y: Array) -> float:
    """All machines' samples at once, batches x (N, batch, ...): the same bits as one by one."""
    machines = 1 if plan.directions == "shared" else plan.machines
    drawn = [rounds.directions(plan, t, m, len(theta)) for m in range(machines)]
    z = np.concatenate(drawn * (plan.machines // machines))
    arrived = code_of(plan.code).read(rounds.measured(plan, theta, z, x, y))
    rounds.step(plan, t, theta, arrived, () if plan.directions == "wrong" else z)
    return float(np.sqrt(np.mean(arrived**2)))


def machines_run(
    data: Dataset, *, seed: int, net: Mapping[str, Any], plan: Mapping[str, Any], code: str,
    share: str, where: str, lost: Sequence[int] | None,
) -> Arrays:  # fmt: skip
    """The same on machines of their own (`one_byte_machines`): tasks of an executor, of which one
    is lost.

    where : "threads", "processes" or "dask". lost : the machine and the round in which it is lost,
    or None. The rest as in `tune_run`. ends (M, d), joined, up, down, caught (M,): see `Exchange`.
    late, backwards (d,): weights of one who comes after the end and has the start and the log; of
    one who takes the numbers of every round in the opposite order (gradients: as they are).
    """
    gradients = code == GRADIENTS
    own = rounds.Plan(seed=seed, code="float" if gradients else code, **plan)
    task, start = _prepared(data, seed, **net)
    machines = _machines(task, start, own, share, gradients)
    with executor_for(where, own.machines) as executor:
        found = exchange(
            executor, machines, lost=None if lost is None else (lost[0], lost[1]),
            kill=where != "threads",
        )  # fmt: skip
    late, backwards = start.copy(), start.copy()
    for t, message in enumerate(found.log):
        machines[0].update(t, late, message)
        if gradients:
            machines[0].update(t, backwards, message)
        else:
            rounds.step(own, t, backwards, machines[0].numbers(message), backwards=True)
    return {
        "ends": found.ends, "joined": found.joined, "up": found.up, "down": found.down,
        "caught": found.caught, "late": late, "backwards": backwards,
    }  # fmt: skip


def alignment_run(
    data: Dataset, *, seed: int, net: Mapping[str, Any], counts: Sequence[int], draws: int,
    epsilon: float,
) -> Arrays:  # fmt: skip
    """A stored run: estimates of the gradient at the start, on all training images, from N
    directions each (`counts`), drawn `draws` times.

    own, shared (counts, 3): means over draws of ⟨ĝ, g⟩², |ĝ|² |g|² and |ĝ|² / |g|² for
    ĝ = Σ slope z / N, with N directions and with one that all N share.
    """
    task, start = _prepared(data, seed, **net)
    exact = nets.gradient(start, task.x, task.y).astype(np.float64)
    square = float(exact @ exact)
    found = np.zeros((2, len(counts), 3))
    for place, n in enumerate(counts):
        for draw in range(draws):
            plan = rounds.Plan(seed, n, 1, 1, 1.0, epsilon, 1, "float")
            z = np.concatenate([rounds.directions(plan, draw, m, len(start)) for m in range(n)])
            number = np.array([_slope(start, one, epsilon, task) for one in z])
            estimates = (number @ z.astype(np.float64) / n, number[0] * z[0].astype(np.float64))
            for which, estimate in enumerate(estimates):
                length, along = float(estimate @ estimate), float(estimate @ exact) ** 2
                found[which, place] += [along, length * square, length / square]
    own, shared = found / draws
    return {"own": own, "shared": shared}


def _slope(theta: Array, z: Array, epsilon: float, task: nets.Task) -> float:
    """Along one direction, on all training images."""
    both = rounds.slopes(theta, z[None], epsilon, lambda at: nets.loss(at, task.x, task.y))
    return float(both[0])
