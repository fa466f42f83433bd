"""One epoch of the 3-layer network on 50,000 x 3,072 inputs, as ratios within one run.

Compared with
(a) the usual way: a torchvision-style data set of PIL images with ToTensor and Normalize, read
    by a DataLoader (2 workers), autograd and torch.optim.SGD; and the same loop over a
    DataLoader of ready tensors;
(b) the machine's limit: the five matrix products of each step (two forward, three backward;
    the output layer's are left out), same shapes, same number of threads.
(b+) the same products with the memory that training cannot spare: batches gathered from all images,
    updates added to the matrices in place.
Each way trains on the same number of batches in turn, round after round, and the medians over
the rounds are scaled to an epoch. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from kept import Kept
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from rclib.nets.mlp import MLP
from rclib.training.classifier import make_step

N_TRAIN, D, CLASSES, LR = 50_000, 3072, 10, 0.1


class Images(Dataset[tuple[Tensor, int]]):
    """PIL images with the usual transforms, as torchvision's CIFAR10 gives them."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = pixels.numpy(), labels.tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[i])).flatten(), self.labels[i]


def usual_loop(model: MLP, batches: Iterator[list[Tensor]], steps: int) -> float:
    """Seconds of `steps` steps of autograd and torch.optim.SGD over a DataLoader's batches."""
    factors = model.lr_factors("sgd")
    groups = [{"params": [p], "lr": LR * factors[n]} for n, p in model.named_parameters()]
    optimizer = torch.optim.SGD(groups)
    begin = time.perf_counter()
    for _ in range(steps):
        x, y = next(batches)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begin


def our_loop(model: MLP, x: Tensor, y: Tensor, order: Tensor, size: int) -> float:
    """Seconds of rclib's step over the batches of `order`."""
    step = make_step(model, lr=LR)
    begin = time.perf_counter()
    for batch in order.split(size):
        step(x.index_select(0, batch), y[batch])
    return time.perf_counter() - begin


def bare_products(width: int, size: int, steps: int) -> float:
    """Seconds of the matrix products of `steps` steps, nothing else."""
    x, w1 = torch.randn(size, D), torch.randn(width, D)
    h, w2 = torch.randn(size, width), torch.randn(width, width)
    begin = time.perf_counter()
    for _ in range(steps):
        torch.mm(x, w1.t())
        torch.mm(h, w2.t())
        torch.mm(h, w2)
        torch.mm(h.t(), h)
        torch.mm(h.t(), x)
    return time.perf_counter() - begin


def products_in_place(width: int, size: int, x: Tensor, order: Tensor) -> float:
    """Seconds of the same products with the memory that training cannot spare: each batch is
    gathered from all images, and what a product says of a matrix is added to it."""
    w1, w2 = torch.randn(width, D), torch.randn(width, width)
    h = torch.randn(size, width)
    begin = time.perf_counter()
    for batch in order.split(size):
        of_batch = x.index_select(0, batch)
        torch.mm(of_batch, w1.t())
        torch.mm(h, w2.t())
        torch.mm(h, w2)
        w2.addmm_(h.t(), h, alpha=-1e-6)
        w1.addmm_(h.t(), of_batch, alpha=-1e-6)
    return time.perf_counter() - begin


def measure(width: int, size: int, steps: int, rounds: int, kept: Kept) -> None:
    """Print and keep one table for a width and batch size."""
    pixels = torch.randint(0, 256, (N_TRAIN, 32, 32, 3), dtype=torch.uint8)
    x = torch.randn(N_TRAIN, D)
    y = torch.randint(0, CLASSES, (N_TRAIN,))
    images = DataLoader(Images(pixels, y), size, shuffle=True, num_workers=2)
    tensors = DataLoader(TensorDataset(x, y), size, shuffle=True)

    def over(loader: DataLoader[list[Tensor]]) -> Callable[[], float]:
        def timed() -> float:
            batches = iter(loader)
            next(batches)  # the workers' start is not counted
            return usual_loop(MLP(D, width, CLASSES), batches, steps)

        return timed

    order = torch.randperm(N_TRAIN)[: steps * size]
    ways: dict[str, Callable[[], float]] = {
        "rclib": lambda: our_loop(MLP(D, width, CLASSES), x, y, order, size),
        "bare matrix products (b)": lambda: bare_products(width, size, steps),
        "... and memory (b+)": lambda: products_in_place(width, size, x, order),
        "DataLoader of images (a)": over(images),
        "DataLoader of tensors": over(tensors),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            seconds = way()
            if turn:  # the first round warms up
                times[name].append(seconds * N_TRAIN / (steps * size))
    ours = statistics.median(times["rclib"])
    print(f"N = {width}, batch {size}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name, values in times.items():
        m = statistics.median(values)
        spread = f"[{min(values):.2f}, {max(values):.2f}]"
        print(f"  {name:26s} {m:7.2f} s an epoch {spread:16s} {m / ours:5.2f} x rclib")
    kept.add(f"N = {width}, batch {size}, an epoch", times)


def main() -> None:
    """Parse the options and print a table for each width."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keep", action="store_true", help="for docs/speed.md")
    options = parser.parse_args()
    kept = Kept("epoch", threads=options.threads, keeping=options.keep)
    torch.set_num_threads(options.threads)
    for width in options.widths:
        for size in options.batch:
            measure(width, size, options.steps, options.rounds, kept)
    kept.write()


if __name__ == "__main__":
    main()
