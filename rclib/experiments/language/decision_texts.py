"""Language models of notebook 91: what they are trained on, and what it leaves in their blocks.

Symbols are the 63 most frequent bytes of the text, the rest is one more. All kinds of sequences
have windows of context + 1 symbols, and all language models of a seed have one start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from rclib.checks.arguments import choice
from rclib.data.text import TextData
from rclib.nets.gpt import GPT
from rclib.nets.stack import Stack
from rclib.rowcolumn.measure import correlations
from rclib.spectral.placement import spike_count
from rclib.training.stacked import train_stack

__all__ = [
    "KINDS",
    "MEASURES",
    "SMALL",
    "SYMBOLS",
    "Symbols",
    "language_loss",
    "matching",
    "measures",
    "pretrained",
    "query_key",
    "shell",
    "start_tensors",
    "symbols",
    "warm",
    "windows",
]

SYMBOLS = 64
SMALL = 0.1  # of the entries of tables at the start
KINDS = ("text", "i.i.d.", "words", "copies", "pairs")
MEASURES = ("matching", "spikes", "qkv", "rc")
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Symbols:
    """The training part of a text as symbols (n,) int64, and with its words in random order."""

    checksum: str
    text: Tensor = field(compare=False, repr=False)
    words: Tensor = field(compare=False, repr=False)


def symbols(data: TextData) -> Symbols:
    """Symbols of a text; words are what stands between spaces."""
    raw = data.train.numpy()
    number = np.full(256, SYMBOLS - 1)
    common = np.argsort(-np.bincount(raw, minlength=256), kind="stable")[: SYMBOLS - 1]
    number[common] = np.arange(SYMBOLS - 1)
    parts = raw.tobytes().split(b" ")
    order = np.random.default_rng(0).permutation(len(parts))
    mixed = np.frombuffer(b" ".join(parts[k] for k in order), dtype=np.uint8)
    return Symbols(data.checksum, torch.from_numpy(number[raw]), torch.from_numpy(number[mixed]))


def windows(text: Symbols, kind: str, n: int, context: int, seed: int) -> Tensor:
    """(n, context + 1) symbols of a kind of `KINDS`.

    i.i.d.: each symbol drawn alone, with the text's frequencies. copies: half a window of symbols,
    all alike, and once more. pairs: pairs of such symbols, and then the same in another order.
    Raises ValueError for another kind.
    """
    choice("kind", kind, KINDS)
    random, size = torch.Generator().manual_seed(seed), context + 1
    if kind in ("text", "words"):
        own = text.text if kind == "text" else text.words
        starts = torch.randint(len(own) - context, (n, 1), generator=random)
        return own[starts + torch.arange(size)]
    if kind == "i.i.d.":
        return text.text[torch.randint(len(text.text), (n, size), generator=random)]
    if kind == "copies":
        half = torch.randint(SYMBOLS, (n, size // 2), generator=random)
        return torch.cat([half, half, half], 1)[:, :size]
    pairs = torch.randint(SYMBOLS, (n, size // 4, 2), generator=random)
    order = torch.rand(n, size // 4, generator=random).argsort(1)
    again = pairs.gather(1, order[..., None].expand_as(pairs))
    both = torch.cat([pairs, again, pairs], 1).flatten(1)
    return both[:, :size]


def shell(net: Mapping[str, Any], seed: int = 0) -> GPT:
    """The GPT of a notebook's settings, over `SYMBOLS`."""
    return GPT(**net, vocabulary=SYMBOLS, parametrization="SP", bias="none", seed=seed)


def start_tensors(net: Mapping[str, Any], seed: int, table: float = SMALL) -> Tensors:
    """Tensors of a start: the GPT's own matrices, positions of size `SMALL`, a table of symbols of
    size `table`."""
    found = {name: p.detach().clone() for name, p in shell(net, seed).named_parameters()}
    found["embedding"] = table * found["embedding"]
    found["position"] = SMALL * found["position"]
    return found


def language_loss(out: Tensor, y: Tensor) -> Tensor:
    """Mean over symbols; out (n, T, V), y (n, T)."""
    return cross_entropy(out.flatten(0, 1), y.flatten())


@lru_cache(maxsize=8)
def pretrained(
    text: Symbols, kind: str, net: str, language: str, seeds: tuple[int, ...]
) -> tuple[Tensor, dict[int, Tensors]]:
    """Losses (steps, S), and tensors (S, ...) after each number of updates of `marks`.

    net, language : JSON of the settings; language has marks, batch_size and rate of Adam, constant
    after 20 steps.
    """
    options, given = json.loads(net), json.loads(language)
    base, context, marks = shell(options), int(options["context"]), sorted(given["marks"])

    def one(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = functional_call(base, dict(tensors), (x,))
        return out

    def batch(step: int) -> tuple[Tensor, Tensor]:
        both = torch.stack([
            windows(text, kind, given["batch_size"], context, 1_000_003 * seed + step)
            for seed in seeds
        ])  # fmt: skip
        return both[:, :, :-1], both[:, :, 1:]

    starts = [start_tensors(options, seed) for seed in seeds]
    first = Stack({name: torch.stack([s[name] for s in starts]) for name in starts[0]}, one)
    with sdpa_kernel(SDPBackend.MATH):  # the others are called member by member in a stack
        _, found = train_stack(
            first, batch, language_loss, steps=marks[-1], lr=given["rate"], optimizer="adam",
            lr_schedule=warm, own="xy", record={name: _recorded(name) for name in first.tensors},
            at=marks,
        )  # fmt: skip
    kept = {
        mark: {name: found[name][place] for name in first.tensors}
        for place, mark in enumerate(marks)
    }
    return found["loss"], kept


def _recorded(name: str) -> Callable[[Stack], Tensor]:
    return lambda now: now.tensors[name]


def warm(step: int) -> float:
    """Factor of a rate that is constant after 20 steps."""
    return min(1.0, (step + 1) / 20)


def query_key(tensors: Mapping[str, Tensor], block: int) -> Tensor:
    """M = Σ_heads W_qᵀ W_k (d, d) of one network's block, so that x M y is the score of y for x,
    summed over heads."""
    q, k = (tensors[f"blocks.{block}.{name}"] for name in ("Wq", "Wk"))
    return torch.einsum("hqd,hqe->de", q, k).double()


def matching(tensors: Mapping[str, Tensor], block: int) -> float:
    """tr M / ‖M‖: does a token look for its equal? √d for the identity; for independent entries 0
    with standard deviation 1/√d."""
    m = query_key(tensors, block)
    return float(m.trace() / m.norm())


def _correlation(first: Tensor, second: Tensor) -> float:
    found = correlations({"index": {"first": first.flatten(), "second": second.flatten()}})
    return float(found.matrix[0, 1])


def measures(tensors: Mapping[str, Tensor], blocks: Sequence[int]) -> np.ndarray:
    """(blocks, 4): `matching`, singular values of W_down beyond the Marchenko-Pastur edge, the same
    of queries, keys and values (mean of three), and the mean of two correlations: of row and column
    means of M, and of the means of W_v and W_o at the neurons between them."""
    rows = []
    for block in blocks:
        own = {n: tensors[f"blocks.{block}.{n}"] for n in ("Wq", "Wk", "Wv", "Wo", "Wdown")}
        m = query_key(tensors, block)
        inner = own["Wv"].mean(2), own["Wo"].mean(0).t()  # (heads, values) both
        rows.append([
            matching(tensors, block), spike_count(own["Wdown"]),
            np.mean([spike_count(own[n].flatten(0, 1)) for n in ("Wq", "Wk", "Wv")]),
            (_correlation(m.mean(1), m.mean(0)) + _correlation(*inner)) / 2,
        ])  # fmt: skip
    return np.array(rows, dtype=float)
