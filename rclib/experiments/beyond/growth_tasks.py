"""The two kinds of networks of notebook 35 with their data: how they start, train and are tested.

A task trains several networks of one shape at once (`rclib.training.stacked`), each with batches of
its own seed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import avg_pool2d, cross_entropy

from rclib.data.images import Dataset
from rclib.data.text import VOCABULARY, TextData
from rclib.nets.gpt import GPT
from rclib.nets.init import Init
from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack
from rclib.resizing.copying import Network
from rclib.training.stacked import epoch_batches, train_stack

__all__ = ["Images", "Task", "Text", "evaluations", "pooled"]


def evaluations(steps: int, every: int) -> list[int]:
    """Steps with a test loss: every `every` and the last one."""
    return sorted({*range(0, steps + 1, every), steps})


def _tensor(name: str) -> Callable[[Stack], Tensor]:
    return lambda now: now.tensors[name]


class Task(ABC):
    """One kind of network with its data: how it starts, trains and is tested."""

    looked_at: Tensor  # inputs of the test
    answers: Tensor
    inputs: Tensor  # training inputs for a selection by activations

    @abstractmethod
    def build(self, width: int, seed: int) -> Network:
        """A network before training."""

    @abstractmethod
    def batches(self, seeds: Sequence[int]) -> Callable[[int], tuple[Tensor, Tensor]]:
        """step -> inputs (S, b, ...) and answers, in the order of each seed."""

    @abstractmethod
    def settings(self, model: Network) -> dict[str, Any]:
        """Optimiser, rate and what else `train_stack` is told."""

    def test(self, now: Stack) -> Tensor:
        """Test loss of every member, (S,)."""
        found = now(self.looked_at, own=False).flatten(1, -2)
        answers = self.answers.flatten()
        return torch.stack([cross_entropy(one, answers) for one in found])

    def train(
        self,
        models: Sequence[Network],
        seeds: Sequence[int],
        *,
        first: int,
        steps: int,
        at: Sequence[int],
        kept: int | None = None,
    ) -> tuple[Stack, dict[str, Tensor]]:
        """Train for `steps` steps from step `first` of the batches of each member's seed.

        at : steps, counted from the first, with a test loss. kept : step of which all tensors are
        returned under their names, (S, ...). Returns the trained stack and {"test": (len(at), S)}.
        """
        draw = self.batches(seeds)
        begin = stack(models)
        # Adam's state must not be cut in two: the tensors of a step in between are recorded.
        names = list(begin.tensors) if kept is not None else []
        due = sorted({0, *at, *([kept] if kept is not None else [])})
        record: dict[str, Callable[[Stack], Tensor]] = {"test": self.test}
        record |= {f"/{name}": _tensor(name) for name in names}
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernel of a CPU knows no stack
            now, found = train_stack(
                begin,
                lambda step: draw(first + step),
                lambda out, y: cross_entropy(out.flatten(0, -2), y.flatten()),
                steps=steps,
                record=record,
                at=due,
                **self.settings(models[0]),
            )
        out = {name: found[f"/{name}"][due.index(kept or 0)] for name in names}
        return now, out | {"test": found["test"][[due.index(s) for s in at]]}


def pooled(data: Dataset, pool: int, n_train: int, n_test: int) -> tuple[Tensor, ...]:
    """A subset's images with squares of `pool` x `pool` pixels averaged: x, y, x_test, y_test.

    Raises ValueError (torch's RuntimeError for sizes that do not divide) for other numbers.
    """
    part = data.subset(n_train, n_test)
    found = []
    for x in (part.x_train, part.x_test):
        if pool > 1:
            x = avg_pool2d(x.view(len(x), 3, 32, 32), pool).flatten(1)
        found.append(x)
    return found[0], part.y_train, found[1], part.y_test


class Images(Task):
    """A fully connected network with four matrices: two of them hidden, as AKI needs."""

    def __init__(
        self, data: Dataset, parametrization: str, lr: float, batch_size: int, part: tuple[int, ...]
    ) -> None:
        self.x, self.y, self.looked_at, self.answers = pooled(data, *part)
        self.inputs, self.classes = self.x[:256], data.n_classes
        self.parametrization, self.lr, self.batch_size = parametrization, lr, batch_size

    def build(self, width: int, seed: int) -> Network:
        """A network before training."""
        return MLP(
            self.x.shape[1], width, self.classes, depth=4, parametrization=self.parametrization,
            seed=seed,
        )  # fmt: skip

    def batches(self, seeds: Sequence[int]) -> Callable[[int], tuple[Tensor, Tensor]]:
        """step -> inputs (S, b, ...) and answers, in the order of each seed."""
        return epoch_batches(self.x, self.y, batch_size=self.batch_size, seeds=seeds)

    def settings(self, model: Network) -> dict[str, Any]:
        """Optimiser, rate and what else `train_stack` is told."""
        return {"lr": self.lr, "factors": model.lr_factors("sgd")}


class Text(Task):
    """A small transformer under Adam, its output matrix zero at the start."""

    def __init__(self, text: TextData, lr: float, batch_size: int, warmup: int, n_test: int,
                 **options: Any) -> None:  # fmt: skip
        self.text, self.options, self.context = text, options, int(options["context"])
        self.lr, self.batch_size, self.warmup = lr, batch_size, warmup
        windows = next(text.validation_batches(1, batch_size=n_test, context=self.context))
        self.looked_at, self.answers = windows[:, :-1], windows[:, 1:]
        self.inputs = text.batch(0, seed=0, batch_size=16, context=self.context)[:, :-1]

    def build(self, width: int, seed: int) -> Network:
        """A network before training."""
        zero = {"output": Init("gaussian", scale=0.0)}
        model = GPT(width, vocabulary=VOCABULARY, init=zero, seed=seed, **self.options)
        return model.like(width, model.state_dict())  # one seed's options for all: they stack

    def batches(self, seeds: Sequence[int]) -> Callable[[int], tuple[Tensor, Tensor]]:
        """step -> inputs (S, b, ...) and answers, in the order of each seed."""

        def draw(step: int) -> tuple[Tensor, Tensor]:
            size = {"batch_size": self.batch_size, "context": self.context}
            found = {s: self.text.batch(step, seed=s, **size) for s in dict.fromkeys(seeds)}
            windows = torch.stack([found[s] for s in seeds])
            return windows[..., :-1], windows[..., 1:]

        return draw

    def settings(self, model: Network) -> dict[str, Any]:
        """Optimiser, rate and what else `train_stack` is told."""
        return {
            "lr": self.lr, "factors": model.lr_factors("adam"), "optimizer": "adam",
            "betas": (0.9, 0.95), "eps": 1e-15, "own": "xy",
            "lr_schedule": lambda step: min(1.0, (step + 1) / max(1, self.warmup)),
        }  # fmt: skip
