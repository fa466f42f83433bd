"""Stored runs of notebook 94: expert paths, and images distilled from them.

Trajectory matching (Cazenavette and others, CVPR 2022): a student starts at an expert's weights
θ*_t, takes N steps of size α on the images X, and X and log α follow the gradient of

    L = ‖θ̂_N - θ*_{t+M}‖² / ‖θ*_t - θ*_{t+M}‖².

AST (Shen, Yang, Lam, arXiv 2310.10541; from the authors' code) trains smoother experts: the loss is
multiplied by 0.5 ... 0.9 in epochs 1 to 5 ("clip"), or 0.1 mean (‖∇_x Σ_c logit_c‖ - 1)² is added
("penalty"); and it steadies the student. The bi-level form (Wang and others, arXiv 1811.10959)
differentiates the loss on real images after the student's steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from rclib.data.images import Dataset
from rclib.experiments.language import distillation_nets as nets
from rclib.experiments.language.distillation_nets import Shape, mean_statistics
from rclib.runs.store import Arrays
from rclib.training.stacked_optimizers import Settings, Updates

__all__ = [
    "ARMS",
    "BASELINES",
    "CLIP",
    "EXPERTS",
    "TINY",
    "balance",
    "bilevel",
    "distilled",
    "expert_paths",
    "first_images",
    "generator_of",
    "matched",
]

CLIP = (0.5, 0.6, 0.7, 0.8, 0.9)
# Name -> clip, weight of the penalty, factor of the rate, labels shuffled.
EXPERTS: dict[str, tuple[bool, float, float, bool]] = {
    "plain": (False, 0.0, 1.0, False),
    "clip": (True, 0.0, 1.0, False),
    "penalty": (False, 0.1, 1.0, False),
    "clip + penalty": (True, 0.1, 1.0, False),
    "half rate": (False, 0.0, 0.5, False),
    "shuffled": (False, 0.0, 1.0, True),
}
# Name -> expert, first images, and what differs.
ARMS: dict[str, tuple[str, str, dict[str, float]]] = {
    **{name: (name, "real", {}) for name in EXPERTS},
    "means, plain": ("plain", "means", {}),
    "means, clip": ("clip", "means", {}),
    "perturbed": ("clip", "means", {"perturb": 0.5}),
    "middle": ("clip", "means", {"middle": 0.5}),
    "balanced": ("clip", "means", {"balance": 1.0}),
    "all tricks": ("clip", "means", {"perturb": 0.5, "middle": 0.5, "balance": 1.0}),
    "all, real first": ("clip", "real", {"perturb": 0.5, "middle": 0.5, "balance": 1.0}),
    "all, exact start": ("clip", "means", {"middle": 0.5, "balance": 1.0}),
    "all, no middle": ("clip", "means", {"perturb": 0.5, "balance": 1.0}),
    "all, unbalanced": ("clip", "means", {"perturb": 0.5, "middle": 0.5}),
    "short window": ("clip", "real", {"starts": 2}),
}
BASELINES = ("random", "nearest", "means")
_OF_EXPERTS = {"n_experts": 4, "epochs": 12, "batch": 128, "lr": 0.02, "hidden": 48}
TINY: dict[str, dict[str, Any]] = {
    "distilled": {
        "seed": 0, "arms": ["plain", "all tricks"], "n_nets": 2, "n_train": 3, "rates": [0.1],
        "matching": {"iterations": 2, "n_steps": 2, "starts": 2, "ahead": 2, "lr_images": 0.03,
                     "lr_rate": 0.02, "alpha": 0.05},
        "experts": {"n_experts": 2, "epochs": 5, "batch": 32, "lr": 0.02, "hidden": 6},
    },
    "bilevel": {
        "seed": 0, "n_steps": 2, "batch": 20, "n_starts": 2, "n_nets": 2, "hidden": 6,
        "learning": {"iterations": 2, "lr_images": 0.03, "lr_rate": 0.02, "alpha": 0.05},
    },
}  # fmt: skip


def generator_of(*entropy: int) -> torch.Generator:
    """A generator for a seed and a purpose, both whole numbers."""
    state = np.random.SeedSequence(entropy).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


def expert_paths(
    data: Dataset, seed: int, names: Sequence[str], *, n_experts: int, epochs: int, batch: int,
    lr: float, hidden: int,
) -> Tensor:  # fmt: skip
    """Weights (len(names), n_experts, epochs + 1, P) at the ends of epochs, the start first.

    Descent with momentum 0.9 and weight decay 0.001; experts of one number have the same start and
    the same batches under all names. Raises KeyError for a name that EXPERTS lacks.
    """
    generator = generator_of(seed, 1)
    x, y = data.x_train, data.y_train
    shape, V = Shape(x.shape[1], hidden, data.n_classes), len(names)
    kinds = [EXPERTS[name] for name in names]
    theta = nets.drawn(n_experts, shape, generator).repeat(V, 1)
    wrong = y[torch.randperm(len(y), generator=generator)]
    labels = torch.stack([wrong if kind[3] else y for kind in kinds])
    targets = one_hot(labels.repeat_interleave(n_experts, 0), shape.K).float()
    weight = torch.tensor([kind[1] for kind in kinds]).repeat_interleave(n_experts)
    rate = lr * torch.tensor([kind[2] for kind in kinds]).repeat_interleave(n_experts)
    clipped = torch.tensor([kind[0] for kind in kinds]).repeat_interleave(n_experts)
    velocity, path = torch.zeros_like(theta), [theta]
    for epoch in range(epochs):
        order = torch.randperm(len(y), generator=generator)
        scale = torch.where(clipped, CLIP[epoch] if epoch < len(CLIP) else 1.0, 1.0)
        for rows in order.split(batch):
            found = scale.unsqueeze(1) * nets.gradient(theta, x[rows], targets[:, rows], shape)
            some = weight > 0
            if some.any():
                leaf = theta[some].requires_grad_()
                norms = nets.input_gradient(leaf, x[rows], shape).norm(dim=-1)
                penalty = (weight[some] * (norms - 1).square().mean(1)).sum()
                found[some] += torch.autograd.grad(penalty, leaf)[0]
            velocity = 0.9 * velocity + found + 1e-3 * theta
            theta = theta - rate.unsqueeze(1) * velocity
        path.append(theta)
    found_paths: Tensor = torch.stack(path, 1).unflatten(0, (V, n_experts))  # type: ignore[no-untyped-call]
    return found_paths


def balance(start: int, starts: int) -> float:
    """Factor of the inner loss for a start at an epoch of 0 ... starts - 1: log_5(t - T/2 + 8) in
    the later half, 1 / log_5(T/2 - t + 8) in the earlier one (T = starts)."""
    late = start - starts / 2
    return math.log(late + 8, 5) if late >= 0 else 1 / math.log(8 - late, 5)


def first_images(data: Dataset, generator: torch.Generator) -> dict[str, Tensor]:
    """One image a class (K, d): a random one, the one nearest to the class's mean, the mean.

    Raises ValueError for data without an image of a class.
    """
    counts = torch.bincount(data.y_train, minlength=data.n_classes)
    if int(counts.min()) == 0:
        raise ValueError(f"data must hold every class, got counts {counts.tolist()}")
    found: dict[str, list[Tensor]] = {name: [] for name in BASELINES}
    for k in range(data.n_classes):
        own = data.x_train[data.y_train == k]
        mean = own.mean(0)
        found["random"].append(own[torch.randint(len(own), (1,), generator=generator)[0]])
        found["nearest"].append(own[(own - mean).norm(dim=1).argmin()])
        found["means"].append(mean)
    return {name: torch.stack(rows) for name, rows in found.items()}


def _adam(x: Tensor, log_rate: Tensor, settings: Mapping[str, Any]) -> Updates:
    """Adam on images and logarithms of step sizes, each (members, ...)."""
    factors = {"x": settings["lr_images"], "log_rate": settings["lr_rate"]}
    own = Settings("adam", 1.0, factors=factors)
    return Updates(own, {"x": x.detach(), "log_rate": log_rate.detach()}, settings["iterations"])


def _move(adam: Updates, i: int, loss: Tensor, *leaves: Tensor) -> None:
    gradients = torch.autograd.grad(loss, leaves)
    for leaf, change in zip(leaves, adam.step(i, gradients), strict=True):
        leaf.data -= change


def matched(
    paths: Tensor, x: Tensor, shape: Shape, generator: torch.Generator, arms: Sequence[str],
    names: Sequence[str], settings: Mapping[str, Any],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Images (A, n, d), step sizes (A,) and losses (A, iterations) of all arms at once, from images
    x (A, n, d) of which the first n / K are of class 0, the next of class 1, ..."""
    N, M, A = settings["n_steps"], settings["ahead"], len(arms)
    which = torch.tensor([names.index(ARMS[arm][0]) for arm in arms])
    options = [ARMS[arm][2] for arm in arms]
    window = [int(own.get("starts", settings["starts"])) for own in options]
    perturb = torch.tensor([own.get("perturb", 0.0) for own in options]).unsqueeze(1)
    middle = torch.tensor([own.get("middle", 0.0) for own in options])
    x = x.clone().requires_grad_()
    log_rate = torch.full((A,), math.log(settings["alpha"])).requires_grad_()
    adam = _adam(x, log_rate, settings)
    onehot = torch.eye(shape.K).repeat_interleave(x.shape[1] // shape.K, 0)
    losses = torch.empty(settings["iterations"], A)
    for i in range(settings["iterations"]):
        expert = int(torch.randint(paths.shape[1], (1,), generator=generator))
        place = float(torch.rand((), generator=generator))
        t = [int(place * own) for own in window]
        even = [balance(t[a], window[a]) if "balance" in options[a] else 1.0 for a in range(A)]
        start, goal, half = (paths[which, expert, torch.tensor(t) + m] for m in (0, M, M // 2))
        begun = start + perturb * nets.noise(start, shape, generator) * start
        end, (passed,) = nets.descend(
            begun, x, onehot, log_rate.exp(), N, shape, factor=torch.tensor(even), kept=[N // 2]
        )
        scale = (start - goal).square().sum(1)
        main = (end - goal).square().sum(1) / scale
        other = (passed - half).square().sum(1) / (start - half).square().sum(1)
        _move(adam, i, (main + middle * other).sum(), x, log_rate)
        losses[i] = main.detach()
    return x.detach(), log_rate.detach().exp(), losses.T


def distilled(data: Dataset, *, seed: int, arms: list[str], experts: dict[str, Any], n_nets: int,
              n_train: int, rates: list[float], matching: dict[str, Any]) -> Arrays:  # fmt: skip
    """All arms of one seed, which share experts, first images, starts and draws.

    matching : iterations, n_steps N, ahead M, starts T, lr_images, lr_rate, alpha. n_nets : fresh
    networks a set of images, trained for n_train steps. rates : of which real images get that of
    the best accuracy on the training data. Rows of accuracy and statistics are the arms, then
    BASELINES. Raises KeyError for unknown arms; ValueError for windows beyond the experts' epochs
    and for data without one of the classes.
    """
    names = list(dict.fromkeys(ARMS[arm][0] for arm in arms))
    M, epochs, starts = matching["ahead"], experts["epochs"], matching["starts"]
    if starts - 1 + M > epochs:
        most = epochs - M + 1
        raise ValueError(f"starts must be at most epochs - ahead + 1 = {most}, got {starts}")
    paths = expert_paths(data, seed, names, **experts)
    shape = Shape(data.x_train.shape[1], experts["hidden"], data.n_classes)
    generator = generator_of(seed, 2)
    first = first_images(data, generator)
    begun = torch.stack([first["means" if ARMS[a][1] == "means" else "random"] for a in arms])
    images, alpha, losses = matched(paths, begun, shape, generator, arms, names, matching)
    fresh = nets.drawn(n_nets, shape, generator)

    def trained(x: Tensor, rate: Tensor) -> Tensor:
        """Fresh networks (B, n_nets, P) trained on each of B sets of images."""
        B = len(x)
        own, sizes = x.repeat_interleave(n_nets, 0), rate.repeat_interleave(n_nets)
        onehot = torch.eye(shape.K)
        end, _ = nets.descend(fresh.repeat(B, 1), own, onehot, sizes, n_train, shape)
        nested: Tensor = end.unflatten(0, (B, n_nets))  # type: ignore[no-untyped-call]
        return nested

    base = torch.stack([first[name] for name in BASELINES])
    tried = torch.stack([trained(base, torch.full((len(base),), rate)) for rate in rates])
    fits = nets.accuracy(tried.flatten(0, 2), data.x_train, data.y_train, shape)
    best = fits.unflatten(0, tried.shape[:3]).mean(2).argmax(0)
    chosen = torch.stack([tried[best[b], b] for b in range(len(base))])
    final = torch.cat([trained(images, alpha), chosen])
    right = nets.accuracy(final.flatten(0, 1), data.x_test, data.y_test, shape)
    ends = nets.accuracy(paths[:, :, -1].flatten(0, 1), data.x_test, data.y_test, shape)
    own, sets = paths[names.index("plain")] if "plain" in names else paths[0], [*images, *base]
    shares = [
        [nets.leading(path[t + M], path[t], shape) for path in own] for t in range(epochs - M + 1)
    ]
    ahead = paths[:, :, 1:] - paths[:, :, :-1]
    return {
        "accuracy": right.unflatten(0, final.shape[:2]).mean(1).numpy(),
        "experts": ends.unflatten(0, paths.shape[:2]).mean(1).numpy(),
        "norms": ahead.norm(dim=-1).mean(1).numpy(),
        "losses": losses.numpy(), "alpha": alpha.numpy(),
        "before": begun.numpy(), "after": images.numpy(),
        "shares": np.mean(shares, axis=1),
        "statistics": np.array([
            mean_statistics(end, fresh, x, shape) for end, x in zip(final, sets, strict=True)
        ]),
        "expert_statistics": np.array([
            mean_statistics(own[:, -1], own[:, 0], x, shape) for x in sets
        ]),
    }  # fmt: skip


def bilevel(data: Dataset, *, seed: int, n_steps: int, batch: int, n_starts: int, n_nets: int,
            hidden: int, learning: dict[str, Any]) -> Arrays:  # fmt: skip
    """Distilled for one start (row 0) and for random ones (row 1), n_starts of them an iteration.

    Each step of the student has a learned size of its own. learning : iterations, lr_images,
    lr_rate, alpha. accuracy (2, 2) : after n_steps from the
    start of row 0, and from fresh starts. Raises ValueError for data without one of the classes.
    """
    generator = generator_of(seed, 3)
    shape, onehot = Shape(data.x_train.shape[1], hidden, data.n_classes), torch.eye(data.n_classes)
    begun = first_images(data, generator)["random"]
    fixed, fresh = nets.drawn(1, shape, generator), nets.drawn(n_nets, shape, generator)
    rows, images, losses = [], [], []
    for random in (False, True):
        x = begun.clone().unsqueeze(0).requires_grad_()
        log_rate = torch.full((1, n_steps), math.log(learning["alpha"])).requires_grad_()
        adam = _adam(x, log_rate, learning)
        for i in range(learning["iterations"]):
            theta = nets.drawn(n_starts, shape, generator) if random else fixed
            few = torch.randperm(len(data.y_train), generator=generator)[:batch]
            for rate in log_rate.exp()[0]:
                theta = theta - rate * nets.gradient(theta, x, onehot, shape)
            z = nets.logits(theta, data.x_train[few], shape)
            loss = cross_entropy(z.flatten(0, 1), data.y_train[few].repeat(len(theta)))
            _move(adam, i, loss, x, log_rate)
            losses.append(float(loss.detach()))
        with torch.no_grad():
            found = []
            for theta in (fixed, fresh):
                for rate in log_rate.exp()[0]:
                    theta = theta - rate * nets.gradient(theta, x, onehot, shape)
                found.append(nets.accuracy(theta, data.x_test, data.y_test, shape).mean().item())
        rows.append(found)
        images.append(x.detach()[0].numpy())
    return {
        "accuracy": np.array(rows), "images": np.stack(images),
        "losses": np.array(losses).reshape(2, -1),
    }  # fmt: skip
