"""Pre-trained networks that the notebooks on fine-tuning adapt, and the tasks that they adapt to.

Two systems, each of two hidden layers of rectified units whose matrices are adapted:

- images: pre-trained on some classes, adapted to others with a new head, which is trained along;
- text: bytes from the eight bytes before, pre-trained on one text and adapted to another, with
  embedding and head left as they were.

Every seed has its own network and its own split of the new task: images to train on, to choose
rates by (validation) and to report (test) are drawn anew, and so are windows of the text, from
three parts of it. Nothing is chosen by what is reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rclib.adapters.wrap import Product
from rclib.data.images import Dataset
from rclib.data.pooling import pooled_inputs
from rclib.data.text import VOCABULARY, TextData
from rclib.nets.stack import Stack, stack
from rclib.training.stacked import epoch_batches, train_stack

__all__ = [
    "ADAPTED",
    "HEAD",
    "PARTS",
    "Chain",
    "Task",
    "cosine",
    "image_bases",
    "image_task",
    "old_images",
    "relu_chain",
    "text_task",
]

ADAPTED = ("layers.0.weight", "layers.1.weight")
HEAD = ("layers.2.weight", "layers.2.bias")
PARTS = ("train", "validation", "test")


class Chain(nn.Module):
    """x (n, d) through two hidden layers of `width` rectified units to (n, classes).

    With `embedding`, x (n, context) holds bytes, each looked up in a trained table of that many
    columns, and d = context · embedding. Weights are torch's default for a seed.
    """

    def __init__(
        self, d: int, width: int, classes: int, *, embedding: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sizes = [d, width, width, classes]
        self.layers = nn.ModuleList(nn.Linear(sizes[i], sizes[i + 1]) for i in range(3))
        with torch.no_grad():
            for layer in self.layers:
                bound = layer.get_parameter("weight").shape[1] ** -0.5
                for name in ("weight", "bias"):
                    layer.get_parameter(name).uniform_(-bound, bound, generator=generator)
        if embedding:
            table = torch.randn(VOCABULARY, embedding, generator=generator)
            self.table = nn.Parameter(table)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        if hasattr(self, "table"):
            # A product with ones and zeros: its gradient is a product too.
            ones = (x[:, :, None] == torch.arange(VOCABULARY)).to(self.table.dtype)
            x = (ones @ self.table).flatten(1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


def relu_chain(tensors: Mapping[str, Tensor], x: Tensor, product: Product) -> Tensor:
    """`Chain` with its products open, for `rclib.adapters.wrap.adapt`; x (n, d) is embedded.

    "head_scale" (), where there is one, multiplies the head. The size of Adam's steps does not
    depend on a factor of the gradient, so the head then moves at head_scale times the rate: a rate
    of its own for every member of a stack.
    """
    for k in (0, 1):
        x = torch.relu(product(f"layers.{k}.weight", x) + tensors[f"layers.{k}.bias"])
    out = product("layers.2.weight", x) + tensors["layers.2.bias"]
    return out * tensors["head_scale"] if "head_scale" in tensors else out


def cosine(steps: int) -> Tensor:
    """Factors of the rate, from 1 to 0 along half a cosine."""
    return (1 + torch.cos(torch.pi * torch.arange(steps, dtype=torch.float64) / steps)) / 2


@dataclass(frozen=True, eq=False)
class Task:
    """A pre-trained stack of S networks and the new task of each.

    start : with its head as adaptation finds it. trained : names that are trained beside the
    adapted matrices. places : part -> (S, n) places of data. at : (S, m) places -> x (S, m, d),
    y (S, m). head_rate : of `trained`. seeds : of the members.
    """

    start: Stack
    trained: tuple[str, ...]
    places: dict[str, Tensor]
    at: Callable[[Tensor], tuple[Tensor, Tensor]]
    head_rate: float
    seeds: tuple[int, ...]


def _trained(nets: Sequence[Chain], batch: Any, settings: Mapping[str, Any]) -> Stack:
    steps = int(settings["steps"])
    end, _ = train_stack(
        stack(list(nets)), batch, cross_entropy, steps=steps, lr=settings["rate"],
        optimizer="adam", lr_schedule=cosine(steps), own="xy",
    )  # fmt: skip
    return end


@lru_cache(maxsize=2)
def _image_data(data: Dataset, pool: int) -> tuple[Tensor, Tensor]:
    """All images, those of training first, and their classes."""
    return torch.cat(pooled_inputs(data, pool)), torch.cat([data.y_train, data.y_test])


def old_images(
    data: Dataset, seeds: Sequence[int], base: Mapping[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Images x, classes y, and places (S, n) of those that each network is pre-trained on."""
    x, y = _image_data(data, int(base["pool"]))
    places = torch.nonzero(y < int(base["classes"]))[:, 0]
    drawn = [places[_order(len(places), s)[: int(base["n"])]] for s in seeds]
    return x, y, torch.stack(drawn)


def image_bases(data: Dataset, seeds: Sequence[int], base: Mapping[str, Any]) -> Stack:
    """Networks (S) pre-trained on the first classes, with the head that they have there."""
    own = tuple(sorted(set(seeds)))
    bases = _image_bases(data, json.dumps(dict(base), sort_keys=True), own)
    member = [own.index(s) for s in seeds]
    tensors = {name: t[member] for name, t in bases.tensors.items()}
    return Stack(tensors, partial(_plain, relu_chain))


@lru_cache(maxsize=8)
def _image_bases(data: Dataset, settings: str, seeds: tuple[int, ...]) -> Stack:
    given = json.loads(settings)
    x, y, subsets = old_images(data, seeds, given)
    batch = epoch_batches(x, y, batch_size=given["batch_size"], seeds=seeds, subsets=subsets)
    nets = [Chain(x.shape[1], given["width"], given["classes"], seed=s) for s in seeds]
    return _trained(nets, batch, given)


def image_task(
    data: Dataset, seeds: Sequence[int], *, base: Mapping[str, Any], task: Mapping[str, Any]
) -> Task:
    """Networks pre-trained on the first classes, and the others to be adapted to.

    base : pool (`pooled_inputs`), width, classes (how many are for pre-training), n images,
        batch_size, steps and rate of Adam with a cosine.
    task : n_train, n_validation, n_test images, head_rate of the new head.
    """
    tensors = image_bases(data, seeds, base).tensors
    x, y = _image_data(data, int(base["pool"]))
    old = int(base["classes"])
    there = torch.nonzero(y >= old)[:, 0]
    heads = [
        Chain(1, tensors[ADAPTED[1]].shape[1], data.n_classes - old, seed=s + 1) for s in seeds
    ]
    for name in HEAD:
        tensors[name] = torch.stack([head.get_parameter(name).detach() for head in heads])
    orders = torch.stack([there[_order(len(there), s)] for s in seeds])
    start = Stack(tensors, partial(_plain, relu_chain))
    return Task(
        start, HEAD, _split(orders, task), lambda at: (x[at], y[at] - old),
        float(task["head_rate"]), tuple(seeds),
    )  # fmt: skip


def _order(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _split(orders: Tensor, task: Mapping[str, Any]) -> dict[str, Tensor]:
    sizes = [int(task[f"n_{part}"]) for part in PARTS]
    if sum(sizes) > orders.shape[1]:
        raise ValueError(f"task must ask for at most {orders.shape[1]} images, got {sum(sizes)}")
    return dict(zip(PARTS, orders[:, : sum(sizes)].split(sizes, dim=1), strict=True))


def _plain(network: Any, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The network with plain matrices."""
    out: Tensor = network(tensors, x, lambda name, h: h @ tensors[name].T)
    return out


@lru_cache(maxsize=8)
def _text_bases(data: TextData, settings: str, seeds: tuple[int, ...]) -> Stack:
    given = json.loads(settings)
    size, context = given["batch_size"], given["context"]
    tokens = data.train.long()
    span = torch.arange(context + 1)
    draws = [torch.Generator().manual_seed(s) for s in seeds]

    def batch(step: int) -> tuple[Tensor, Tensor]:
        first = [torch.randint(len(tokens) - context, (size,), generator=g) for g in draws]
        windows = tokens[torch.stack(first)[:, :, None] + span]
        return windows[:, :, :-1], windows[:, :, -1]

    wide = context * given["embedding"]
    nets = [
        Chain(wide, given["width"], VOCABULARY, embedding=given["embedding"], seed=s) for s in seeds
    ]
    return _trained(nets, batch, given)


def text_task(
    data: TextData, seeds: Sequence[int], *, base: Mapping[str, Any], task: Mapping[str, Any]
) -> Task:
    """Networks pre-trained on the first of two texts, to be adapted to the second
    (`rclib.data.two_texts`).

    base : context (bytes), embedding, width, batch_size, steps and rate of Adam with a cosine.
    task : n_train, n_validation, n_test windows, out of the first eight tenths, the ninth and the
        tenth tenth of the second text.
    """
    own = tuple(sorted(set(seeds)))
    bases = _text_bases(data, json.dumps(dict(base), sort_keys=True), own)
    member = [own.index(s) for s in seeds]
    tensors = {name: t[member] for name, t in bases.tensors.items()}
    tables = tensors.pop("table")
    tokens, context = data.validation.long(), int(base["context"])
    span = torch.arange(context)
    bounds = [0, 8 * len(tokens) // 10, 9 * len(tokens) // 10, len(tokens)]
    draws = [torch.Generator().manual_seed(s) for s in seeds]
    places = {}
    for k, part in enumerate(PARTS):
        first, last, size = bounds[k], bounds[k + 1] - context, (int(task[f"n_{part}"]),)
        places[part] = torch.stack([torch.randint(first, last, size, generator=g) for g in draws])

    def at(first: Tensor) -> tuple[Tensor, Tensor]:
        windows = tokens[first[:, :, None] + span]
        x = torch.stack([table[w].flatten(1) for table, w in zip(tables, windows, strict=True)])
        return x, tokens[first + context]

    return Task(Stack(tensors, partial(_plain, relu_chain)), (), places, at, 0.0, tuple(seeds))
