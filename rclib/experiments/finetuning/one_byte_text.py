"""Stored runs of notebook 85 on text: a language model that knows no capitals learns them from one
number a sample and round."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.data.text import TextData
from rclib.experiments.finetuning import one_byte_rounds as rounds
from rclib.experiments.finetuning.one_byte_codes import code_of
from rclib.nets.gpt import GPT
from rclib.runs.store import Arrays

__all__ = ["TINY", "Model", "folded", "text_run"]

ASCII = 128
TINY: dict[str, dict[str, Any]] = {
    "text_run": {
        "seed": 0, "net": {"width": 8, "blocks": 1, "head_size": 8, "context": 6},
        "before": {"steps": 3, "rate": 3e-3, "batch": 4},
        "plan": {
            "machines": 2, "samples": 1, "rounds": 3, "rate": 1e-2, "epsilon": 1e-3, "batch": 2,
        },
        "code": "byte", "every": 2, "windows": 4,
    },
}  # fmt: skip


def folded(tokens: Tensor) -> Tensor:
    """Bytes with capital letters of the Latin alphabet as small ones, and of bytes above 127 the
    last seven bits."""
    small = tokens % ASCII
    return small + 32 * ((small >= ord("A")) & (small <= ord("Z")))


class Model:
    """A GPT whose parameters are views of one vector `theta` (d,), float32."""

    def __init__(self, net: Mapping[str, Any], seed: int) -> None:
        self.gpt = GPT(vocabulary=ASCII, parametrization="SP", bias="constant", seed=seed, **net)
        own = list(self.gpt.parameters())
        self.theta = torch.cat([p.detach().flatten() for p in own])
        place = 0
        for p in own:
            p.data = self.theta[place : place + p.numel()].view_as(p)
            place += p.numel()

    def loss(self, windows: Tensor) -> Tensor:
        """Mean cross entropy a byte over windows (n, context + 1), nats."""
        logits = self.gpt(windows[:, :-1])
        return cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())

    def at(self, theta: Tensor, windows: Tensor) -> float:
        """The loss at other weights; one's own are left as they were."""
        kept = self.theta.clone()
        with torch.no_grad():
            self.theta.copy_(theta)
            found = float(self.loss(windows))
            self.theta.copy_(kept)
        return found


@lru_cache(maxsize=1)
def _before(
    data: TextData, seed: int, net: tuple[tuple[str, Any], ...], steps: int, rate: float, batch: int
) -> Tensor:
    """Weights after training with Adam on the text without capitals."""
    model = Model(dict(net), seed)
    optimizer = torch.optim.Adam(model.gpt.parameters(), lr=rate)
    for t in range(steps):
        windows = data.batch(t, seed=seed, batch_size=batch, context=model.gpt.context)
        optimizer.zero_grad(set_to_none=True)
        model.loss(folded(windows)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.theta


def text_run(
    data: TextData, *, seed: int, net: Mapping[str, Any], before: Mapping[str, Any],
    plan: Mapping[str, Any], code: str, every: int, windows: int,
) -> Arrays:  # fmt: skip
    """A stored run of one seed: training on the text without capitals, then fine-tuning on the text
    as it is, all machines in one process.

    net : width, blocks, head_size, context of the GPT. before : steps, rate, batch of the first
    training (Adam). plan : of `one_byte_rounds.Plan`; a batch is so many windows. code : of
    `one_byte_codes`, or "gradients". every : rounds between two looks. windows : of the validation
    part that are looked at.

    loss (moments,): on the text as it is, nats a byte, before rounds 0, every, ... and after the
    last. d: number of weights.
    """
    gradients = code == "gradients"
    own = rounds.Plan(seed=seed, code="float" if gradients else code, **plan)
    model = Model(net, seed)
    model.theta.copy_(_before(data, seed, tuple(sorted(net.items())), **before))
    held = next(data.validation_batches(1, batch_size=windows, context=model.gpt.context)) % ASCII
    seen = []
    for t in range(own.rounds):
        if t % every == 0:
            seen.append(model.at(model.theta, held))
        batch = [_batch(data, own, t, place, model.gpt.context) for place in own.places]
        if gradients:
            _descend(model, torch.cat(batch), own.rate)
        else:
            _one_round(model, own, t, batch)
    seen.append(model.at(model.theta, held))
    return {"loss": np.array(seen), "d": np.array(len(model.theta))}


def _batch(
    data: TextData, plan: rounds.Plan, t: int, place: tuple[int, int], context: int
) -> Tensor:
    """Windows of one sample of round t; a step of the text's own batches each, of another seed than
    the first training's."""
    number = t * len(plan.places) + place[0] * plan.samples + place[1]
    drawn = data.batch(number, seed=plan.seed + 10**6, batch_size=plan.batch, context=context)
    return drawn % ASCII


def _one_round(model: Model, plan: rounds.Plan, t: int, batch: list[Tensor]) -> None:
    drawn = [rounds.direction(plan, t, m, j, len(model.theta)) for m, j in plan.places]
    numbers = []
    for z, windows in zip(drawn, batch, strict=True):
        away = plan.epsilon * torch.from_numpy(z)
        both = [model.at(model.theta + sign * away, windows) for sign in (1, -1)]
        numbers.append((both[0] - both[1]) / (2 * plan.epsilon))
    rounds.step(plan, t, model.theta.numpy(), code_of(plan.code).read(numbers), drawn)


def _descend(model: Model, windows: Tensor, rate: float) -> None:
    """A step along the gradient by backpropagation."""
    parameters = list(model.gpt.parameters())
    found = torch.autograd.grad(model.loss(windows), parameters)
    with torch.no_grad():
        model.theta -= rate * torch.cat([g.flatten() for g in found])
