"""Classifiers that read the tensors of fields: sets of tokens, and rows of numbers.

set          c(max_t φ(x_t)),  φ two layers        the order of the tokens does not matter
transformer  c(max_t Tr(A x)_t), no positions      neither here (the paper's classifier)
flat         two hidden layers on all numbers in a row
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rclib.checks.arguments import choice
from rclib.data.shapes import KINDS

__all__ = ["READERS", "Reader", "accuracy", "build", "moved", "trained"]

READERS = ("set", "transformer", "flat")


@dataclass(frozen=True)
class Reader:
    """How classifiers are trained. width : of hidden layers; epochs : full-batch steps of AdamW
    with one cycle of the rate; lr : its largest. folds (B,) : of each shape, below n_folds."""

    width: int
    epochs: int
    lr: float
    folds: Tensor
    n_folds: int


class _Pooled(nn.Module):
    """Tokens (B, T, n) -> `inner` -> largest of the tokens -> classes."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.last = inner, nn.Linear(width, len(KINDS))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.inner(x).amax(1))
        return out


def build(kind: str, inputs: int, width: int, *, layers: int = 1, heads: int = 4) -> nn.Module:
    """A classifier of tokens (B, T, inputs) or rows (B, inputs) into KINDS; from torch's generator.

    layers, heads : of the transformer. Raises ValueError for an unknown kind.
    """
    choice("kind", kind, READERS)
    first: list[nn.Module] = [nn.Linear(inputs, width)]
    hidden = nn.Sequential(*first, nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    if kind == "flat":
        return nn.Sequential(hidden, nn.Linear(width, len(KINDS)))
    if kind == "set":
        return _Pooled(hidden, width)
    blocks = [
        nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
        for _ in range(layers)
    ]
    return _Pooled(nn.Sequential(*first, *blocks), width)


def trained(kind: str, x: Tensor, y: Tensor, reader: Reader, *, seed: int) -> nn.Module:
    """A classifier after full-batch training on (x, y)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build(kind, x.shape[-1], reader.width)
    optimizer = torch.optim.AdamW(net.parameters(), lr=reader.lr, foreach=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, reader.lr, total_steps=reader.epochs + 1
    )
    for _ in range(reader.epochs):
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def accuracy(kind: str, x: Tensor, y: Tensor, reader: Reader, *, seed: int) -> float:
    """Share of shapes that are told right by classifiers trained on the other folds."""
    right = 0
    for fold in range(reader.n_folds):
        test = reader.folds == fold
        net = trained(kind, x[~test], y[~test], reader, seed=seed + fold)
        with torch.no_grad():
            right += int((net(x[test]).argmax(1) == y[test]).sum())
    return right / len(y)


def moved(kind: str, x: Tensor, other: Tensor, y: Tensor, reader: Reader, *, seed: int) -> float:
    """Largest change of a logit when `other` is read in place of x, over the spread of the logits;
    trained without the first fold, asked of it."""
    test = reader.folds == 0
    net = trained(kind, x[~test], y[~test], reader, seed=seed)
    with torch.no_grad():
        logits, changed = net(x[test]), net(other[test])
    return float((changed - logits).abs().max() / logits.std())
