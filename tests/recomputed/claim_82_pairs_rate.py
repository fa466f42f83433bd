"""Notebook 82: do proper singular pairs fit better than wrong ones, at one rate?

Value of a seed: training loss after adaptation with mispaired vectors minus that with the top
pairs, r = 64 of 128, rate 0.1. A network is trained on five classes and adapted to the other five:
of both hidden matrices the coefficients of 64 pairs are trained by Adam with a cosine, and a new
head at 0.001. Matrices are put together and multiplied whole; the notebook adapts stacks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache

import plain_images as images
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

SEEDS = range(8)
WIDTH, RANK, OLD, NEW = 128, 64, 20_000, 2000
PRE_STEPS, PRE_BATCH, PRE_RATE = 800, 128, 0.002
STEPS, BATCH, RATE, HEAD_RATE = 250, 64, 0.1, 0.001


@cache
def data() -> tuple[Tensor, Tensor]:
    """50,000 images of 3 x 8 x 8, of standard deviation one, and their classes."""
    x, y, _, _ = images.cifar(50_000, 1, pool=4)
    return x.flatten(1) / x.std(), y


def descend(
    groups: list[dict[str, object]],
    loss: Callable[[Tensor], Tensor],
    n: int,
    steps: int,
    batch: int,
) -> None:
    """Adam with rates that fall along half a cosine, on batches of n examples in random order."""
    adam = torch.optim.Adam(groups)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    rows: list[Tensor] = []
    for _ in range(steps):
        rows = rows or [r for r in torch.randperm(n).split(batch) if len(r) == batch]
        adam.zero_grad()
        loss(rows.pop()).backward()
        adam.step()
        falling.step()


def adapted(net: nn.Sequential, head: nn.Linear, x: Tensor, y: Tensor, wrong: bool) -> float:
    """Training loss in the end."""
    first, second, _ = (layer for layer in net if isinstance(layer, nn.Linear))
    parts, trained = [], []
    for layer in (first, second):
        u, _, vt = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
        left, right, w = u[:, :RANK].float(), vt[:RANK].float(), layer.weight.detach()
        # A change of the coefficients, which is zero at the start, beside the untouched matrix.
        change = torch.zeros(RANK, requires_grad=True)
        parts.append((w, left, right.flip(0) if wrong else right, change))
        trained.append(change)
    last = nn.Linear(WIDTH, 5)
    last.load_state_dict(head.state_dict())

    def output(z: Tensor) -> Tensor:
        for layer, (w, left, right, change) in zip((first, second), parts, strict=True):
            z = torch.relu(z @ (w + (left * change) @ right).T + layer.bias.detach())
        out: Tensor = last(z)
        return out

    groups: list[dict[str, object]] = [
        {"params": trained, "lr": RATE}, {"params": list(last.parameters()), "lr": HEAD_RATE},
    ]  # fmt: skip
    descend(groups, lambda rows: cross_entropy(output(x[rows]), y[rows]), NEW, STEPS, BATCH)
    with torch.no_grad():
        return float(cross_entropy(output(x), y))


def value(seed: int) -> float:
    """One network, one subset of images, one head, and the same order of batches for both."""
    torch.manual_seed(8200 + seed)
    x, y = data()
    old, new = (torch.nonzero(of)[:, 0] for of in (y < 5, y >= 5))
    old, new = old[torch.randperm(len(old))[:OLD]], new[torch.randperm(len(new))[:NEW]]
    net = nn.Sequential(
        nn.Linear(x.shape[1], WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, 5),
    )
    descend(
        [{"params": list(net.parameters()), "lr": PRE_RATE}],
        lambda rows: cross_entropy(net(x[old[rows]]), y[old[rows]]), OLD, PRE_STEPS, PRE_BATCH,
    )  # fmt: skip
    head = nn.Linear(WIDTH, 5)
    losses = []
    for wrong in (True, False):
        torch.manual_seed(8300 + seed)
        losses.append(adapted(net, head, x[new], y[new] - 5, wrong))
    return losses[0] - losses[1]


def main(seeds: Sequence[int] = SEEDS) -> list[float]:
    """One value a seed."""
    return [value(seed) for seed in seeds]


if __name__ == "__main__":
    print(*main([int(word) for word in sys.argv[1:]] or SEEDS), sep="\n")
