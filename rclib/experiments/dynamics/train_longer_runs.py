"""Stored runs of notebook 63: networks with batch normalisation under one regime of batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rclib.checks.arguments import count
from rclib.data.images import Dataset
from rclib.nets.normed_stack import NormedStack
from rclib.rowcolumn.measure import row_column_share
from rclib.runs.store import Arrays
from rclib.spectral.spectra import esd
from rclib.training.classifier import DivergedError
from rclib.training.regimes import Regime, clip_factors
from rclib.training.stacked import epoch_orders
from rclib.training.stacked_optimizers import Settings, Updates

__all__ = ["TINY", "regime_run", "split"]

TINY: dict[str, dict[str, Any]] = {
    "regime_run": {
        "group": [{"seed": 0}, {"seed": 3}], "batch": 16, "ghost": 8, "rate": 0.1, "updates": 3,
        "drops": [2], "sizes": [12, 12], "n_train": 32, "n_test": 30, "pool": 1, "at": [0, 1, 3],
        "norm": True,
    }
}  # fmt: skip
MOMENTUM, DECAY, CLIP, RUNNING = 0.9, 5e-4, 5.0, 0.1
FLOOR = 1e-2  # added to the standard deviation of a pixel, which may be zero


def split(
    data: Dataset, *, seed: int, n_train: int, n_test: int, pool: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_train (n_train, d), y_train, x_test (n_test, d), y_test of one seed.

    The training images are drawn from the set's; tested is on its test images, spread evenly over
    all of them where fewer are asked for (a set may be sorted by class), and, if they are too few,
    on training images that were not drawn. Images are averaged over squares of `pool` pixels, and
    every pixel is standardised with the mean and the standard deviation (+ 0.01) of the images
    drawn. Raises ValueError for more images than there are.
    """
    have, extra = len(data.y_train), max(0, n_test - len(data.y_test))
    if n_train + extra > have:
        raise ValueError(
            f"n_train + n_test must be at most {have + len(data.y_test)}, got {n_train} + {n_test}"
        )
    order = torch.randperm(have, generator=torch.Generator().manual_seed(seed))
    chosen, left = order[:n_train], order[n_train : n_train + extra]
    train = _pooled(data.x_train[chosen], pool)
    own = n_test - extra
    spread_out = torch.arange(own) * len(data.y_test) // max(1, own)
    test = torch.cat([data.x_test[spread_out], data.x_train[left]])
    labels = torch.cat([data.y_test[spread_out], data.y_train[left]])
    mean, spread = train.mean(0), train.std(0, correction=0) + FLOOR
    return (
        (train - mean) / spread,
        data.y_train[chosen],
        (_pooled(test, pool) - mean) / spread,
        labels,
    )


def _pooled(x: Tensor, pool: int) -> Tensor:
    if count("pool", pool) == 1:
        return x
    channels = 3 if x.shape[1] % 3 == 0 else 1
    side = round((x.shape[1] / channels) ** 0.5)
    return avg_pool2d(x.view(-1, channels, side, side), pool).flatten(1)


def regime_run(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, int]],
    batch: int,
    ghost: int,
    rate: float,
    updates: int,
    drops: Sequence[int],
    sizes: Sequence[int],
    n_train: int,
    n_test: int,
    pool: int,
    at: Sequence[int],
    norm: bool,
) -> Arrays:
    """Stored run: networks of one regime, trained together. SGD with momentum 0.9, decay 5e-4 of
    all tensors and a gradient of norm 5 at most.

    group : a member a {"seed": of its images, its start and the order of its batches}; all
    regimes share these. sizes : hidden widths. at : updates after which it is measured.

    Rows a member: accuracy (R,) on test images with the running statistics; recomputed () at the
    end, with statistics of all training images; train () with the running ones. distance,
    start_norm : ‖w_t - w_0‖ (R,) and ‖w_0‖ () over all weight matrices. share (L - 1,) : variance
    of a hidden matrix in its row and column means. values1 ... : eigenvalues of WᵀW of each hidden
    matrix at the end. Raises DivergedError for weights that are not finite, ValueError for a batch
    that does not divide `n_train`.
    """
    regime = Regime(batch, ghost, rate, updates, tuple(drops))
    seeds = [int(one["seed"]) for one in group]
    parts = [split(data, seed=s, n_train=n_train, n_test=n_test, pool=pool) for s in seeds]
    x, y, x_test, y_test = (torch.stack(each) for each in zip(*parts, strict=True))
    if n_train % batch:
        raise ValueError(f"batch must divide the {n_train} training images, got {batch}")
    net = NormedStack.start([x.shape[2], *sizes, data.n_classes], seeds, norm=norm)
    begin = [w.clone() for w in net.weights]
    tensors = net.tensors
    settings = Settings(
        "momentum", rate, momentum=MOMENTUM, weight_decay=DECAY, schedule=regime.factors()
    )
    rule, columns = Updates(settings, tensors, updates), list(tensors.values())
    orders = epoch_orders(n_train, batch, seeds)
    members = torch.arange(len(seeds)).unsqueeze(1)
    accuracy, distance = [], []
    wanted = set(at)
    for step in range(updates + 1):
        if step in wanted:
            away = _norms([w - w0 for w, w0 in zip(net.weights, begin, strict=True)])
            _check(away, seeds, step)
            distance.append(away)
            accuracy.append(_accuracy(net.outputs(x_test), y_test))
        if step == updates:
            break
        places = orders(step)
        gradients, found = net.gradients(x[members, places], y[members, places], ghost=ghost)
        factors = clip_factors(gradients, CLIP)
        clipped = [g * factors.view(-1, *(1,) * (g.ndim - 1)) for g in gradients]
        torch._foreach_sub_(columns, rule.step(step, clipped))
        net.follow(found, RUNNING)
    _check(_norms(net.weights), seeds, updates)
    hidden = [w.double() for w in net.weights[:-1]]
    values = {f"values{i}": np.stack([esd(one) for one in w]) for i, w in enumerate(hidden, 1)}
    return {
        "accuracy": torch.stack(accuracy, 1).numpy(),
        "recomputed": _accuracy(net.outputs(x_test, net.recomputed(x)), y_test).numpy(),
        "train": _accuracy(net.outputs(x), y).numpy(),
        "distance": torch.stack(distance, 1).numpy(),
        "start_norm": _norms(begin).numpy(),
        "share": np.array(
            [[row_column_share(w[s]).value for w in hidden] for s in range(len(seeds))]
        ),
        **values,
    }


def _norms(tensors: Sequence[Tensor]) -> Tensor:
    """Norm of every member over all tensors, (S,)."""
    return torch.stack([t.double().flatten(1).square().sum(1) for t in tensors]).sum(0).sqrt()


def _accuracy(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs.argmax(2) == y).double().mean(1)


def _check(norms: Tensor, seeds: Sequence[int], step: int) -> None:
    bad = (~norms.isfinite()).nonzero()
    if len(bad):
        raise DivergedError(f"weights of seed {seeds[int(bad[0])]} are not finite at step {step}")
