"""Many small networks trained at once, as ratios within one run.

Compared with
(a) the usual way: a loop over the networks, each with autograd and torch.optim, on the same
    batches and for the same number of steps;
(b) the machine's limit: the five matrix products of each step (two forward, three backward: inputs
    have no gradient), of all networks in one `torch.bmm` each, same shapes, types and threads.
Networks are d-h-10, tanh, cross-entropy, each with an order of the data of its own. The ways take
turns, round after round, and medians are printed. Run it on an otherwise idle machine; runs of the
library have one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from kept import Kept
from torch import Tensor, nn

from rclib.nets.mlp import MLP
from rclib.nets.stack import stack
from rclib.training.stacked import epoch_batches, train_stack

CLASSES, LR, N_TRAIN = 10, 0.01, 1000
SHAPES = ((20, 50, 32), (64, 128, 128), (784, 100, 64))
KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "adam": torch.optim.Adam,
}
Shape = tuple[int, int, int]


def networks(shape: Shape, members: int) -> list[MLP]:
    """One network a seed."""
    d, h, _ = shape
    return [MLP(d, h, CLASSES, depth=2, parametrization="SP", seed=s) for s in range(members)]


def stacked(
    shape: Shape, members: int, steps: int, kind: str, x: Tensor, y: Tensor, size: int
) -> float:
    """Seconds of all networks at once; making the stack is counted."""
    models = networks(shape, members)
    begin = time.perf_counter()
    batch = epoch_batches(x, y, batch_size=size, seeds=range(members))
    train_stack(
        stack(models), batch, nn.functional.cross_entropy, steps=steps, lr=LR, optimizer=kind
    )
    return time.perf_counter() - begin


def loop(
    shape: Shape, members: int, steps: int, kind: str, x: Tensor, y: Tensor, size: int
) -> float:
    """Seconds of one network after the other."""
    models = networks(shape, members)
    begin = time.perf_counter()
    for s, model in enumerate(models):
        batch = epoch_batches(x, y, batch_size=size, seeds=[s])
        optimizer = KINDS[kind](model.parameters(), lr=LR)
        for step in range(steps):
            xb, yb = batch(step)
            loss = nn.functional.cross_entropy(model(xb[0]), yb[0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - begin


def bare_products(shape: Shape, members: int, steps: int) -> float:
    """Seconds of the matrix products of these steps, nothing else."""
    d, h, n = shape
    x, w1 = torch.randn(members, n, d), torch.randn(members, h, d)
    a, w2 = torch.randn(members, n, h), torch.randn(members, CLASSES, h)
    delta = torch.randn(members, n, CLASSES)
    begin = time.perf_counter()
    for _ in range(steps):
        torch.bmm(x, w1.mT)
        torch.bmm(a, w2.mT)
        torch.bmm(delta, w2)
        torch.bmm(delta.mT, a)
        torch.bmm(a.mT, x)
    return time.perf_counter() - begin


def measure(shape: Shape, members: int, steps: int, rounds: int, kind: str, kept: Kept) -> None:
    """Print and keep one table for a shape."""
    d, h, n = shape
    x, y = torch.randn(N_TRAIN, d), torch.randint(0, CLASSES, (N_TRAIN,))
    ways: dict[str, Callable[[], float]] = {
        "stacked": lambda: stacked(shape, members, steps, kind, x, y, n),
        "loop of plain torch (a)": lambda: loop(shape, members, steps, kind, x, y, n),
        "bare products (b)": lambda: bare_products(shape, members, steps),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            seconds = way()
            if turn:  # the first round warms up
                times[name].append(1e3 * seconds / steps)
    ours = statistics.median(times["stacked"])
    print(
        f"d {d}, h {h}, n {n}: {members} networks, {kind}, {steps} steps, "
        f"{torch.get_num_threads()} threads, {rounds} rounds"
    )
    for name, values in times.items():
        m = statistics.median(values)
        spread = f"[{min(values):.2f}, {max(values):.2f}]"
        print(f"  {name:26s} {m:7.2f} ms a step {spread:16s} {m / ours:5.2f} x stacked")
    kept.add(f"{members} networks of {d}-{h}-10, batch {n}, {kind}, a step", times, unit="ms")


def main() -> None:
    """Parse the options and print a table for each shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--optimizer", choices=list(KINDS), default="sgd")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="for docs/speed.md")
    options = parser.parse_args()
    kept = Kept("stack", threads=options.threads, keeping=options.keep)
    torch.set_num_threads(options.threads)
    for shape in SHAPES:
        measure(shape, options.members, options.steps, options.rounds, options.optimizer, kept)
    kept.write()


if __name__ == "__main__":
    main()
