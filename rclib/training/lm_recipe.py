"""Recipe of a language model's training: steps, rates, batches, and when what is kept.

Step s uses, for parameter p, the learning rate

    η · c_p · w(s) · d(s),   w(s) = min(1, (s + 1 - first_step) / warmup)

with the parametrisation's factor c_p and d = 1 (constant) or a cosine from 1 to `final_lr`.
Weight decay is decoupled and taken with η alone, without c_p, so that it does not depend on
the width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rclib.nets.gpt import GPT

__all__ = ["Recipe", "learning_rate", "make_optimizer"]


@dataclass(frozen=True)
class Recipe:
    """How a language model is trained; plain values, so that they are part of a run's name.

    steps : number of the last step; a run makes steps - first_step of them.
    lr : η. optimizer : "adam" (decoupled weight decay) or "sgd".
    batch_size : windows a step, worked off in `accumulation` equal parts.
    warmup : steps of linear warm-up, counted from first_step. schedule : "constant" or "cosine".
    final_lr : share of η at the end of the cosine.
    seed, first_step : the batches of steps first_step ... steps - 1 of that seed. A grown network
        goes on at the step where its source stopped.
    eval_steps, eval_batches : when, and on how many fixed batches, the validation loss is taken.
    mean_steps, snapshot_steps : when the matrix means, and the whole model, are kept. Step s
        stands for "after s steps". snapshot_moments : keep Adam's means with the models.
    """

    steps: int
    lr: float
    optimizer: str = "adam"
    batch_size: int = 16
    accumulation: int = 1
    warmup: int = 0
    schedule: str = "constant"
    final_lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    # Under mean field a hidden weight's gradient is of order 1/N², far below torch's default.
    eps: float = 1e-15
    weight_decay: float = 0.0
    seed: int = 0
    first_step: int = 0
    eval_steps: tuple[int, ...] = ()
    eval_batches: int = 4
    mean_steps: tuple[int, ...] = ()
    snapshot_steps: tuple[int, ...] = ()
    snapshot_moments: bool = False

    def __post_init__(self) -> None:
        for name in ("eval_steps", "mean_steps", "snapshot_steps", "betas"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives lists
        for name, low in (
            ("first_step", 0),
            ("steps", self.first_step),
            ("batch_size", 1),
            ("accumulation", 1),
            ("warmup", 0),
            ("eval_batches", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name} must be an integer >= {low}, got {value!r}")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"accumulation must divide batch_size = {self.batch_size}, got {self.accumulation}"
            )
        if not (isinstance(self.lr, (int, float)) and math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr must be positive and finite, got {self.lr!r}")
        for name, low, high in (("final_lr", 0, 1), ("weight_decay", 0, math.inf), ("eps", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in [{low}, {high}], got {getattr(self, name)}")
        if not (len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")
        for name, known in (("optimizer", ("adam", "sgd")), ("schedule", ("constant", "cosine"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        for name in ("eval_steps", "mean_steps", "snapshot_steps"):
            outside = [s for s in getattr(self, name) if not self.first_step <= s <= self.steps]
            if outside:
                raise ValueError(
                    f"{name} must lie in {self.first_step} ... {self.steps}, got {outside}"
                )


def learning_rate(recipe: Recipe, step: int) -> float:
    """Share of the learning rate at a step: warm-up times schedule."""
    warm = 1.0
    if recipe.warmup:
        warm = min(1.0, (step + 1 - recipe.first_step) / recipe.warmup)
    if recipe.schedule == "constant":
        return warm
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / recipe.steps)
    return warm * (recipe.final_lr + (1.0 - recipe.final_lr) * cosine)


def make_optimizer(model: GPT, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or SGD with one group for each learning-rate factor; `base` is the group's η c_p."""
    factors = model.lr_factors(recipe.optimizer)
    by_factor: dict[float, list[Tensor]] = {}
    for name, p in model.named_parameters():
        by_factor.setdefault(factors[name], []).append(p)
    groups: list[dict[str, Any]] = [
        # torch multiplies the decay by the group's rate; c_p is divided out again.
        {"params": params, "base": recipe.lr * factor, "weight_decay": recipe.weight_decay / factor}
        for factor, params in by_factor.items()
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, fused=True)
