"""Arms of notebook 41: what becomes of a pruned network, trained on from what it inherits or from
scratch, for several lengths and rates, as one stack.

Names and settings are those of Liu et al. (2019) and their code: fine-tuning takes a quarter of the
training's E steps at its lowest rate; Scratch-E trains for E steps, Scratch-B for as many as cost
what the large network's E did, ⌊E · ratio⌋, with its drops of the rate at the same shares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.experiments.pruning.data_diet_runs import images
from rclib.nets.masks import Masks, apply_masks
from rclib.nets.stack import Stack
from rclib.training.stacked import epoch_batches, train_stack

__all__ = ["ARMS", "PLAN", "Arm", "Task", "factors", "joined", "train_arms"]


class Arm(NamedTuple):
    """source : of the starting values, "inherited", "random" (inherited by units or weights that
    were drawn), "fresh" or "again" (another fresh start). length : "quarter", "E" or "B". rate :
    "low", the lowest of the large network's training, or "schedule", all of it again."""

    source: str
    length: str
    rate: str


ARMS: Mapping[str, Arm] = {
    "fine_tuned": Arm("inherited", "quarter", "low"),
    "long": Arm("inherited", "E", "low"),
    "as_long": Arm("inherited", "B", "low"),
    "rewound": Arm("inherited", "E", "schedule"),
    "random": Arm("random", "quarter", "low"),
    "random_rewound": Arm("random", "E", "schedule"),
    "scratch_e": Arm("fresh", "E", "schedule"),
    "scratch_again": Arm("again", "E", "schedule"),
    "scratch_b": Arm("fresh", "B", "schedule"),
}
# A training plan of the tests: optimizer, steps (E), rate, batch_size, drops (shares of the steps
# at which the rate falls by ten), low (the lowest rate over the first), decay of the weights.
PLAN: dict[str, Any] = {
    "optimizer": "momentum", "steps": 4, "rate": 0.05, "batch_size": 30, "drops": [0.5, 0.75],
    "low": 0.01, "decay": 1e-4,
}  # fmt: skip


def factors(
    steps: int, own: int, rate: str, drops: Sequence[float], low: float
) -> NDArray[np.float64]:
    """Factor of the rate at each of `steps` steps for an arm that makes `own` of them; 0 after."""
    found = np.zeros(steps)
    found[:own] = low if rate == "low" else 1.0
    if rate == "schedule":
        for share in drops:
            found[int(share * own) : own] *= 0.1
    return found


@dataclass(frozen=True)
class Task:
    """Images (n, d) and classes that all networks share, and the plan of their training."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    plan: Mapping[str, Any]

    @classmethod
    def of(cls, data: Dataset, pool: int, plan: Mapping[str, Any]) -> Task:
        """Images averaged over squares of `pool` pixels, and then of standard deviation one."""
        x, x_test = images(data, pool)
        scale = float(x.std()) if pool > 1 else 1.0  # averages vary less than pixels
        return cls(x / scale, data.y_train, x_test / scale, data.y_test, plan)

    def train(
        self,
        start: Stack,
        seeds: Sequence[int],
        *,
        own: Sequence[int] | None = None,
        rates: Sequence[str] | None = None,
        masks: Masks | None = None,
        lr: Any = None,
        loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    ) -> Stack:
        """A stack trained by the plan; members of one seed see the same batches.

        seeds : one a member. own : steps that each makes, E for all by default. rates : "low" or
        "schedule", the latter by default. lr : another rate than the plan's, one or one a member.
        """
        plan, members = self.plan, len(start)
        own = [plan["steps"]] * members if own is None else list(own)
        rates = ["schedule"] * members if rates is None else list(rates)
        steps = max(own)
        table = [
            factors(steps, n, choice("rate", rate, ("low", "schedule")), plan["drops"], plan["low"])
            for n, rate in zip(own, rates, strict=True)
        ]
        end, _ = train_stack(
            start,
            epoch_batches(self.x, self.y, batch_size=plan["batch_size"], seeds=seeds),
            loss,
            steps=steps,
            lr=plan["rate"] if lr is None else lr,
            optimizer=plan["optimizer"],
            weight_decay=plan["decay"],
            lr_schedule=np.stack(table, axis=1),
            masks=masks,
            own="xy",
        )
        return end


def joined(stacks: Sequence[Stack]) -> Stack:
    """The members of all stacks, one after the other."""
    names = stacks[0].tensors
    return replace(
        stacks[0], tensors={name: torch.cat([s.tensors[name] for s in stacks]) for name in names}
    )


def train_arms(
    task: Task,
    arms: Sequence[str],
    starts: Mapping[str, Stack],
    seeds: Sequence[int],
    budgets: Sequence[int],
    masks: Mapping[str, Masks] | None = None,
) -> dict[str, Stack]:
    """Trained networks of every arm: name of `ARMS` -> stack of the seeds.

    starts : source -> stack of the seeds. budgets : steps of Scratch-B, one a seed. masks : source
    -> masks. Arms of one length are one stack. Raises ValueError for an arm that is not there.
    """
    for arm in arms:
        choice("arms", arm, tuple(ARMS))
    whole = int(task.plan["steps"])
    lengths = {"quarter": [whole // 4] * len(seeds), "E": [whole] * len(seeds), "B": list(budgets)}
    ends: dict[str, Stack] = {}
    for length, own in lengths.items():
        of_length = [arm for arm in arms if ARMS[arm].length == length]
        if not of_length:
            continue
        sources = [ARMS[arm].source for arm in of_length]
        together = None
        if masks is not None:
            together = {
                name: torch.cat([masks[source][name] for source in sources])
                for name in masks[sources[0]]
            }
        start = joined([starts[source] for source in sources])
        if together is not None:
            start = replace(start, tensors=apply_masks(start.tensors, together))
        end = task.train(
            start,
            list(seeds) * len(of_length),
            own=own * len(of_length),
            rates=[ARMS[arm].rate for arm in of_length for _ in seeds],
            masks=together,
        )
        for place, arm in enumerate(of_length):
            part = slice(place * len(seeds), (place + 1) * len(seeds))
            ends[arm] = replace(end, tensors={n: t[part] for n, t in end.tensors.items()})
    return ends
