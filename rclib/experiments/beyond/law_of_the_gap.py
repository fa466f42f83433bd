"""A law for the gap of zero-shot transfer: how far from a network trained at the target width.

A network trained at width N for a time t is sampled at width M (paper A, Algorithm 1) and its
test loss taken untrained, L(N → M). If networks of all widths are samples of one measure, with
L* the loss of the measure itself,

    E L(N → M) = L∞ + a / N + b / M,    E L(N) = L* + c / N,    L∞ = L*:

the source misses a / N of the measure, the drawing b / M, and nothing is left at infinite width.
`gap_law` fits it. The noise of the drawing alone
follows from the source: E |f_M - f|² = κ / M, κ of `rclib.resizing.weighted`. Under MF κ does not
depend on N. Under μP and SP the start of the hidden matrix, entries of order N^-1/2, is itself
noise that a drawing repeats N / M-fold. SP's output passes it on (κ ∝ N); μP's averages it over
the last neurons, so κ stays, but every pre-activation is off by order √(N / M): a loss that no
width removes.

"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack
from rclib.resizing import mlp
from rclib.resizing.weighted import draw_weights, sampling_constant, weighted_outputs
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_batches, train_stack

__all__ = ["TINY", "gap_run", "sweep_grid"]

KEPT = 300  # test points whose outputs are kept for the distance of seeds
TINY = {
    "gap_run": {
        "group": [{"seed": 0, "order": 0}, {"seed": 1, "order": 0}],
        "width": 6,
        "parametrization": "MF",
        "lr": 1.0,
        "batch_size": 16,
        "epochs": [1, 2],
        "targets": [4, 8],
        "draws": 2,
        "n_train": 48,
        "n_test": 20,
    }
}


def gap_run(
    data: Dataset,
    *,
    group: Sequence[Mapping[str, int]],
    width: int,
    parametrization: str,
    lr: float,
    batch_size: int,
    epochs: Sequence[int],
    targets: Sequence[int],
    draws: int,
    n_train: int,
    n_test: int,
) -> Arrays:
    """Stored run: networks of one width, trained together, and their transfers at each epoch.

    group : a member a {"seed": of its start and its transfers, "order": of its batches}. SGD.
    Returns, for T epochs and K targets, rows a member: `start` () and `loss` (T,), the test loss
    before training and at the epochs; `moved` (T, K), the mean of the losses after `draws`
    transfers; `distance` (T, K), the mean squared difference of the outputs; `constant` (T,), κ;
    `broken` (T,), the loss at the widest target with r1 = 1; and `outputs` (KEPT, classes) at the
    last epoch.
    """
    part = data.subset(n_train, n_test)
    seeds = [int(one["seed"]) for one in group]
    models = [
        MLP(part.x_train.shape[1], width, part.n_classes, seed=s, parametrization=parametrization)
        for s in seeds
    ]
    a_epoch = -(-n_train // batch_size)
    looks = [epoch * a_epoch for epoch in epochs]
    with torch.no_grad():
        begin = [float(cross_entropy(m(part.x_test), part.y_test)) for m in models]

    def each(measure: Callable[[MLP, int], Tensor]) -> Callable[[Stack], Tensor]:
        def of(now: Stack) -> Tensor:
            for s, model in enumerate(models):
                model.load_state_dict(now.member(s))
            found = [measure(model, s) for model, s in zip(models, seeds, strict=True)]
            return torch.stack(found)

        return of

    _, found = train_stack(
        stack(models),
        epoch_batches(
            part.x_train,
            part.y_train,
            batch_size=batch_size,
            seeds=[int(g["order"]) for g in group],
        ),
        cross_entropy,
        steps=looks[-1],
        lr=lr,
        factors=models[0].lr_factors(),
        record={"transfers": each(lambda m, s: _transfers(m, part, targets, draws, s))},
        at=looks,
    )
    rows = np.moveaxis(found["transfers"].numpy(), 0, 1)
    k = len(targets)
    return {
        "start": np.array(begin),
        "loss": rows[:, :, 0],
        "constant": rows[:, :, 1],
        "broken": rows[:, :, 2],
        "moved": rows[:, :, 3 : 3 + k],
        "distance": rows[:, :, 3 + k : 3 + 2 * k],
        "outputs": rows[:, -1, 3 + 2 * k :].reshape(len(group), -1, part.n_classes),
    }


def _transfers(model: MLP, data: Dataset, targets: Sequence[int], draws: int, seed: int) -> Tensor:
    """Loss, κ, broken loss, K losses, K distances and KEPT outputs of one network, in a row."""
    x, y = data.x_test, data.y_test
    with torch.no_grad():
        own = model(x)
        moved, distance = [], []
        for target in targets:
            weights = draw_weights(model, target, draws, seed=seed)
            outputs = weighted_outputs(model, x, weights)
            moved.append(cross_entropy(outputs.flatten(0, 1), y.repeat(draws)))
            distance.append((outputs - own).square().mean())
        broken = mlp.resize(model, max(targets), random_rate=1.0, seed=seed)(x)
    constant = torch.tensor(sampling_constant(model, x))
    head = [cross_entropy(own, y), constant, cross_entropy(broken, y)]
    return torch.cat([torch.stack([*head, *moved, *distance]), own[:KEPT].flatten()])


def sweep_grid(
    data: Dataset,
    *,
    arms: Mapping[str, Mapping[str, Any]],
    widths: Sequence[int],
    seeds: Sequence[int],
    **options: Any,
) -> tuple[pd.DataFrame, dict[tuple[str, int, int], np.ndarray]]:
    """All runs: one row an arm, seed, source N, target M and epoch; and the outputs at the end.

    arms : name -> parametrization, lr and "orders": "own" or "one", whether every seed has its
        batches in an order of its own. Every width is a source and a target.
    Columns: arm, seed, N, M, epoch, start (loss before training), native (loss of the source),
    moved, distance, constant, broken.
    """
    keys = [(name, n, s) for name in arms for n in widths for s in seeds]
    configs = []
    for name, n, s in keys:
        arm = dict(arms[name])
        order = s if arm.pop("orders") == "own" else seeds[0]
        configs.append(
            {"seed": s, "order": order, "width": n, "targets": list(widths), **arm, **options}
        )
    runs = sweep_stacked(
        gap_run,
        configs,
        data=data,
        members=["seed", "order"],
        cost=lambda config: float(config["width"]),
        description="widths",
    )
    frames = []
    for (name, n, s), run in zip(keys, runs, strict=True):
        times = list(options["epochs"])
        frame = pd.DataFrame(
            {
                "arm": name,
                "seed": s,
                "N": n,
                "M": np.tile(widths, len(times)),
                "epoch": np.repeat(times, len(widths)),
                "start": float(run["start"]),
                "moved": run["moved"].ravel(),
                "distance": run["distance"].ravel(),
            }
        )
        for column, array in (("native", "loss"), ("constant", "constant"), ("broken", "broken")):
            frame[column] = np.repeat(run[array], len(widths))
        frames.append(frame)
    outputs = {key: run["outputs"] for key, run in zip(keys, runs, strict=True)}
    return pd.concat(frames, ignore_index=True), outputs
