"""Notebook 94: from class means, with clipped experts, do ten distilled images beat class means?

Value of a seed: test accuracy of fresh networks trained on the distilled images, with the step size
learned along with them, minus that on the class means, with the step size of three that fits the
training data best. Experts are trained by torch.optim.SGD, and the student's steps are unrolled by
autograd through torch.func; the notebook has all networks in one stack and a written gradient.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import plain_images as images
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

SEEDS = range(8)
EXPERTS, EPOCHS, BATCH, RATE, HIDDEN = 4, 12, 128, 0.02, 48
CLIP = (0.5, 0.6, 0.7, 0.8, 0.9)  # of the loss in the first epochs, then 1
ITERATIONS, STUDENT, STARTS, AHEAD = 200, 15, 8, 2
FRESH, LONG, RATES = 4, 200, (0.03, 0.1, 0.3)
Weights = dict[str, Tensor]
LABELS = torch.arange(10)


def network() -> nn.Sequential:
    """64-48-10, weights of variance 2 / 64 and 1 / 48, no biases at the start."""
    net = nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    for layer, variance in zip(linear, (2 / 64, 1 / HIDDEN), strict=True):
        nn.init.normal_(layer.weight, std=variance**0.5)
        nn.init.zeros_(layer.bias)
    return net


def expert(x: Tensor, y: Tensor) -> list[Weights]:
    """Weights at the start and after each epoch."""
    net = network()
    descent = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, weight_decay=1e-3)
    path = [{k: p.detach().clone() for k, p in net.named_parameters()}]
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(y)).split(BATCH):
            descent.zero_grad()
            ((*CLIP, 1.0)[min(epoch, 5)] * cross_entropy(net(x[rows]), y[rows])).backward()
            descent.step()
        path.append({k: p.detach().clone() for k, p in net.named_parameters()})
    return path


def descended(net: nn.Module, at: Weights, x: Tensor, rate: Tensor, steps: int) -> Weights:
    """After plain steps on ten images, one a class; differentiable in x and rate."""
    for _ in range(steps):
        loss = cross_entropy(functional_call(net, at, (x,)), LABELS)
        slopes = torch.autograd.grad(loss, list(at.values()), create_graph=rate.requires_grad)
        at = {k: p - rate * g for (k, p), g in zip(at.items(), slopes, strict=True)}
        if not rate.requires_grad:  # nothing will be differentiated through the steps
            at = {k: p.detach().requires_grad_() for k, p in at.items()}
    return at


def distance(a: Weights, b: Weights) -> Tensor:
    """Squared, over all weights."""
    return torch.stack([((a[k] - b[k]) ** 2).sum() for k in a]).sum()


def scores(x: Tensor, rate: Tensor, starts: list[nn.Sequential], data: images.Split) -> Tensor:
    """Training and test accuracy of the fresh networks, on average."""
    rows = []
    for net in starts:
        at = descended(net, dict(net.named_parameters()), x, rate, LONG)
        both = ((data[0], data[1]), (data[2], data[3]))
        right = [functional_call(net, at, (u,)).argmax(1) == v for u, v in both]
        rows.append([float(one.double().mean()) for one in right])
    return torch.tensor(rows).mean(0)


def value(seed: int) -> float:
    """One split of the digits, four experts, one distillation."""
    torch.manual_seed(9400 + seed)
    data = images.digits(seed)
    x, y = data[:2]
    paths, net = [expert(x, y) for _ in range(EXPERTS)], network()
    means = torch.stack([x[y == k].mean(0) for k in range(10)])
    picture = means.clone().requires_grad_()
    log_rate = torch.tensor(math.log(0.1), requires_grad=True)
    adam = torch.optim.Adam([{"params": [picture], "lr": 0.03}, {"params": [log_rate], "lr": 0.02}])
    for _ in range(ITERATIONS):
        path, t = paths[int(torch.randint(EXPERTS, ()))], int(torch.randint(STARTS, ()))
        begin = {k: p.clone().requires_grad_() for k, p in path[t].items()}
        end = descended(net, begin, picture, log_rate.exp(), STUDENT)
        adam.zero_grad()
        (distance(end, path[t + AHEAD]) / distance(path[t], path[t + AHEAD])).backward()
        adam.step()
    starts = [network() for _ in range(FRESH)]
    real = max((scores(means, torch.tensor(r), starts, data) for r in RATES), key=lambda s: s[0])
    learned = scores(picture.detach(), log_rate.detach().exp(), starts, data)
    return float(learned[1] - real[1])


def main(seeds: Sequence[int] = SEEDS) -> list[float]:
    """One value a seed."""
    return [value(seed) for seed in seeds]


if __name__ == "__main__":
    print(*main([int(word) for word in sys.argv[1:]] or SEEDS), sep="\n")
