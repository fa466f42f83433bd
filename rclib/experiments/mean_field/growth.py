"""Language models grown and shrunk in the middle of training (paper A's sixth figure).

A run of one width is the source; at a step it is given another width by a method of
`rclib.resizing.methods` and trained on with the batches that a run of the new width would see from
there. Everything is compared at equal steps (equal tokens, and for one width equal further cost)
and by the compute spent so far, the source's steps included.

Compute is counted by the usual model, 6 operations for every weight that multiplies a token and
12 L T N for attention (`rclib.training.lm_loop.flops_per_token`); evaluation and the change of
width itself are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rclib.data.text import VOCABULARY, TextData
from rclib.experiments.mean_field.growth_runs import resized_cost, resized_run
from rclib.experiments.mean_field.lm_runs import cost, lm_configuration, train_gpt
from rclib.nets.gpt import MLP_RATIO
from rclib.resizing.methods import METHODS
from rclib.runs import sweep

__all__ = [
    "COLUMNS",
    "Arm",
    "Plan",
    "flops_per_step",
    "plan_of",
    "run_plan",
]

COLUMNS = ["name", "width", "method", "moments", "at", "seed", "step", "loss", "flops"]


@dataclass(frozen=True)
class Arm:
    """One way to go on: at step `at` to `width` by `method`, trained up to step `last`.

    moments : whether Adam's means are moved along; otherwise the optimiser starts anew.
    warmup : steps of linear warm-up after the change.
    """

    width: int
    method: str
    at: int
    last: int
    moments: bool = True
    warmup: int = 0

    @property
    def name(self) -> str:
        """What a legend prints."""
        anew = "" if self.moments else ", Adam anew"
        return f"{self.method}{anew}{', warm-up' if self.warmup else ''}"


@dataclass(frozen=True)
class Plan:
    """What is run: two widths from their own starts, and the arms, for each seed.

    options : of `lm_configuration`, the same for all runs. steps : of the runs of the large
    width; the small one goes on to `small_steps`, to see where its cheap steps lead. every :
    steps between validation losses. first : steps after a change of width at which the loss is
    taken as well (0: without training). arms : an arm to one width leaves the run of the other.
    """

    small: int
    large: int
    steps: int
    small_steps: int
    every: int
    first: tuple[int, ...]
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not self.small < self.large:
            raise ValueError(f"small must be below large = {self.large}, got {self.small}")
        if self.small_steps < self.steps:
            raise ValueError(
                f"small_steps must be at least steps = {self.steps}, got {self.small_steps}"
            )
        for arm in self.arms:
            if arm.width not in (self.small, self.large):
                raise ValueError(
                    f"arms must go to width {self.small} or {self.large}, got {arm.width}"
                )
            if not 0 < arm.at <= arm.last <= self.steps:
                raise ValueError(
                    f"arms must satisfy 0 < at <= last <= steps = {self.steps}, "
                    f"got at = {arm.at}, last = {arm.last}"
                )

    def evaluations(self, begin: int, last: int, extra: Iterable[int] = ()) -> list[int]:
        """Steps with a validation loss between `begin` and `last`."""
        grid = set(range(0, last + 1, self.every)) | {begin, last} | set(extra)
        return sorted(s for s in grid if begin <= s <= last)

    def native(self, width: int, seed: int) -> dict[str, Any]:
        """Configuration of a run from the start, kept whole where arms leave it."""
        left = sorted({arm.at for arm in self.arms if arm.width != width})
        steps = self.steps if width == self.large else self.small_steps
        return lm_configuration(
            width=width,
            seed=seed,
            steps=steps,
            eval_steps=self.evaluations(0, steps, [*left, self.steps]),
            snapshot_steps=left,
            snapshot_moments=bool(left),
            **self.options,
        )

    def resized(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Configuration of `resized_run` for one arm."""
        source = self.native(self.small if arm.width == self.large else self.large, seed)
        extra = [arm.at + s for s in self.first]
        changed = {
            "first_step": arm.at,
            "steps": arm.last,
            "warmup": arm.warmup,
            "eval_steps": self.evaluations(arm.at, arm.last, extra),
            "snapshot_steps": [],
            "snapshot_moments": False,
        }
        return {
            "source": source,
            "width": arm.width,
            "method": arm.method,
            "moments": arm.moments,
            "recipe": source["recipe"] | changed,
        }


def plan_of(
    *,
    small: int,
    large: int,
    steps: int,
    small_steps: int,
    grow_steps: Sequence[int],
    compare_step: int,
    state_steps: int,
    every: int,
    first: Sequence[int],
    seeds: Sequence[int],
    **options: Any,
) -> Plan:
    """The plan of the notebook, all of it under mean field from a zero-mean start.

    Growing: RC sampling at every one of `grow_steps`; all other methods at `compare_step`, where
    RC sampling is also done with Adam started anew, with and without warm-up, for `state_steps`.
    Shrinking at `compare_step`. The other arguments are those of `Plan` and `lm_configuration`.
    """
    grown = [Arm(large, METHODS[0], at, steps) for at in dict.fromkeys([*grow_steps, compare_step])]
    grown += [Arm(large, method, compare_step, steps) for method in METHODS[1:]]
    grown += [
        Arm(large, METHODS[0], compare_step, compare_step + state_steps, moments=False, warmup=w)
        for w in (0, options.get("warmup", 0))
    ]
    shrunk = [Arm(small, method, compare_step, steps) for method in METHODS[:4]]
    options = {"parametrization": "MF", "start": "zero mean", **options}
    return Plan(
        small,
        large,
        steps,
        small_steps,
        every,
        tuple(first),
        tuple(seeds),
        tuple(dict.fromkeys(grown + shrunk)),
        options,
    )


def flops_per_step(config: Mapping[str, Any], width: int) -> float:
    """Operations of one training step at `width`, by the model of the module's docstring."""
    network, recipe = config["network"], config["recipe"]
    blocks, context = network["blocks"], network["context"]
    entries = (4 + 2 * MLP_RATIO) * blocks * width**2 + VOCABULARY * width
    tokens = recipe["batch_size"] * context
    return float(tokens * (6 * entries + 12 * blocks * context * width))


def run_plan(data: TextData, plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All runs of a plan.

    Returns the curves, one row a run and evaluated step (`COLUMNS`: name, new width, method,
    moments moved, step of the change, seed, step, validation loss in nats per token, operations
    so far with the source's), and for each arm and seed the spread of copies at its end.
    Runs from the start have the method "from scratch" and at = 0.
    """
    keys = [(width, seed) for width in (plan.small, plan.large) for seed in plan.seeds]
    natives = [plan.native(*key) for key in keys]
    runs = sweep.run(train_gpt, natives, data=data, cost=cost, description="from scratch")
    rows: list[Any] = []
    for (width, seed), config, run in zip(keys, natives, runs, strict=True):
        per_step = flops_per_step(config, width)
        for step, loss in zip(run["eval_steps"], run["eval_loss"], strict=True):
            head = (f"N = {width} from scratch", width, "from scratch", True, 0, seed)
            rows.append((*head, int(step), float(loss), per_step * float(step)))
    del runs  # they hold the snapshots; arms read them from the store
    pairs = [(arm, seed) for arm in plan.arms for seed in plan.seeds]
    configs = [plan.resized(arm, seed) for arm, seed in pairs]
    done = sweep.run(
        resized_run,
        configs,
        data=data,
        cost=resized_cost,
        description="changed width",
        needs=lambda config: [(train_gpt, config["source"])],
    )
    copies = []
    for (arm, seed), config, run in zip(pairs, configs, done, strict=True):
        source = config["source"]
        spent = arm.at * flops_per_step(source, source["network"]["width"])
        per_step = flops_per_step(source, arm.width)
        for step, loss in zip(run["eval_steps"], run["eval_loss"], strict=True):
            head = (arm.name, arm.width, arm.method, arm.moments, arm.at, seed)
            flops = spent + per_step * (float(step) - arm.at)
            rows.append((*head, int(step), float(loss), flops))
        head = (arm.name, arm.width, arm.method, arm.moments, arm.at, seed)
        copies.append((*head, arm.last, float(run["copy_spread"])))
    names = [*COLUMNS[:6], "last", "copy_spread"]
    return pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(copies, columns=names)
