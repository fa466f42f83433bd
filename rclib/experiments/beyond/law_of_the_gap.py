"""A law for the gap of zero-shot transfer: how far from a network trained at the target width.

A network trained at width N for a time t is sampled at width M (paper A, Algorithm 1) and its
test loss taken untrained, L(N → M). If networks of all widths are samples of one measure, with
L* the loss of the measure itself,

    E L(N → M) = L∞ + a / N + b / M,    E L(N) = L* + c / N,    L∞ = L*:

the source misses a / N of the measure, the drawing b / M, and nothing is left at infinite width.
`law` fits it, `floor` is (L∞ - L*) over the progress L(t = 0) - L*. The noise of the drawing alone
follows from the source: E |f_M - f|² = κ / M, κ of `rclib.resizing.weighted`. Under MF κ does not
depend on N; under μP and SP the start of the hidden matrix, entries of order N^-1/2, is itself noise
that a drawing repeats N / M-fold, so κ ∝ N.

Whether a width's networks agree at all: `seed_distance`, the mean squared difference of two
seeds' outputs, f + k / N with a floor f where what one seed learned is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
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
from rclib.stats.two_sample import Interval, Kept, jackknife
from rclib.training.stacked import epoch_batches, train_stack

__all__ = [
    "TINY",
    "floor_share",
    "gap_run",
    "gaps",
    "jackknifed",
    "law",
    "lost",
    "noise",
    "practical",
    "seed_distance",
    "sweep_grid",
]

KEPT = 300  # test points whose outputs are kept for the distance of seeds
TINY = {
    "gap_run": {
        "group": [{"seed": 0, "order": 0}, {"seed": 1, "order": 0}],
        "width": 6,
        "parametrization": "MF",
        "lr": 1.0,
        "batch_size": 16,
        "epochs": [0, 1],
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
    Returns, for T epochs and K targets, rows a member: `loss` (T,) on the test set, `moved` (T, K)
    the mean of the losses after `draws` transfers, `distance` (T, K) the mean squared difference of
    the outputs, `constant` (T,) κ, `broken` (T,) the loss at the widest target with r1 = 1, and
    `outputs` (KEPT, classes) at the last epoch.
    """
    part = data.subset(n_train, n_test)
    seeds = [int(one["seed"]) for one in group]
    options = {"parametrization": parametrization}
    models = [MLP(part.x_train.shape[1], width, part.n_classes, seed=s, **options) for s in seeds]
    a_epoch = -(-n_train // batch_size)
    looks = [epoch * a_epoch for epoch in epochs]

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
        head = [cross_entropy(own, y), torch.tensor(0.0), cross_entropy(broken, y)]
    head[1] = torch.tensor(sampling_constant(model, x[:KEPT]))
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
    Columns: arm, seed, N, M, epoch, start (loss at epoch 0), native (loss of the source), moved,
    distance, constant, broken.
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
                "start": float(run["loss"][0]),
                "moved": run["moved"].ravel(),
                "distance": run["distance"].ravel(),
            }
        )
        for column, array in (("native", "loss"), ("constant", "constant"), ("broken", "broken")):
            frame[column] = np.repeat(run[array], len(widths))
        frames.append(frame)
    outputs = {key: run["outputs"] for key, run in zip(keys, runs, strict=True)}
    return pd.concat(frames, ignore_index=True), outputs


def law(frame: pd.DataFrame, *, start: int) -> pd.Series:
    """Least squares of the law to one arm and epoch: widths of at least `start`, means over seeds.

    Returns limit (L∞), a, b, native_limit (L*), c, explained (share of the variance between the
    cells of the grid that the fit explains), floor, the (L∞ - L*) / (start loss - L*), and gap, the
    gap of the widest source and target over the loss of the target. Raises ValueError for fewer
    than three widths to fit.
    """
    part = frame[(start <= frame.N) & (start <= frame.M)]
    cells = part.groupby(["N", "M"]).moved.mean().reset_index()
    natives = part.groupby("N").native.mean()
    if len(natives) < 3:
        raise ValueError(f"start must leave at least three widths, got {start}")
    n, m, loss = (cells[c].to_numpy(float) for c in ("N", "M", "moved"))
    (limit, a, b), left = _least_squares([np.ones_like(n), 1 / n, 1 / m], loss)
    widths = natives.index.to_numpy(float)
    (own, c), _ = _least_squares([np.ones_like(widths), 1 / widths], natives.to_numpy())
    begin = float(part.start.mean())
    widest = float(natives.iloc[-1])
    corner = cells[(cells.N.max() == cells.N) & (cells.M.max() == cells.M)].moved.item()
    return pd.Series(
        {
            "limit": limit,
            "a": a,
            "b": b,
            "native_limit": own,
            "c": c,
            "explained": 1 - left / float(np.square(loss - loss.mean()).sum()),
            "floor": (limit - own) / (begin - own),
            "gap": (corner - widest) / widest,
        }
    )


def _least_squares(columns: list[np.ndarray], y: np.ndarray) -> tuple[list[float], float]:
    design = np.stack(columns, 1)
    found = np.linalg.lstsq(design, y, rcond=None)[0]
    return [float(v) for v in found], float(np.square(y - design @ found).sum())


def jackknifed(frame: pd.DataFrame, statistic: Callable[[pd.DataFrame], float]) -> Interval:
    """A statistic of all seeds with its 95 percent interval, a jackknife over seeds.

    Raises ValueError for fewer than two seeds.
    """
    seeds = sorted(frame.seed.unique())

    def of(kept: Kept) -> float:
        return statistic(frame[frame.seed.isin([seeds[place] for place in kept[0]])])

    return jackknife(of, {0: len(seeds)})


def noise(frame: pd.DataFrame) -> pd.DataFrame:
    """The noise of the drawing at the widest target, by arm, N, seed and epoch.

    Columns: arm, N, seed, epoch, measured (M · distance), predicted (κ), ratio.
    """
    part = frame[frame.M.max() == frame.M]
    found = part[["arm", "N", "seed", "epoch"]].copy()
    found["measured"] = part.M * part.distance
    found["predicted"] = part.constant
    found["ratio"] = found.measured / found.predicted
    return found.reset_index(drop=True)


def seed_distance(
    outputs: Mapping[tuple[str, int, int], np.ndarray],
    *,
    arm: str,
    widths: Sequence[int],
    seeds: Sequence[int],
) -> pd.DataFrame:
    """Mean squared difference of the outputs of two seeds: columns arm, N, first, second, distance."""
    rows = []
    for n in widths:
        for s, t in combinations(seeds, 2):
            difference = outputs[arm, n, s] - outputs[arm, n, t]
            rows.append((arm, n, s, t, float(np.square(difference).mean())))
    return pd.DataFrame(rows, columns=["arm", "N", "first", "second", "distance"])


def floor_share(distances: pd.DataFrame, seeds: Sequence[int], *, start: int) -> Interval:
    """Floor f of distance = f + k / N over the mean distance at the first width, `start`.

    Fitted with equal relative errors to all widths of at least `start`; the interval is a jackknife
    over seeds. Raises ValueError for fewer than three seeds.
    """
    if len(seeds) < 3:
        raise ValueError(f"seeds must be at least three, got {list(seeds)}")

    def share(kept: Kept) -> float:
        chosen = [seeds[place] for place in kept[0]]
        part = distances[distances["first"].isin(chosen) & distances["second"].isin(chosen)]
        mean = part[start <= part.N].groupby("N").distance.mean()
        n, y = mean.index.to_numpy(float), mean.to_numpy()
        (f, _), _ = _least_squares([1 / y, 1 / (n * y)], np.ones_like(y))
        return f / float(y[0])

    return jackknife(share, {0: len(seeds)})


def gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """The gap (L(N → M) - L(M)) / L(M) of means over seeds: columns arm, epoch, N, M, gap."""
    keys = ["arm", "epoch"]
    natives = frame.groupby([*keys, "N"], sort=False).native.mean().rename("own").reset_index()
    moved = frame.groupby([*keys, "N", "M"], sort=False).moved.mean().reset_index()
    both = moved.merge(natives.rename(columns={"N": "M"}), on=[*keys, "M"])
    both["gap"] = both.moved / both.own - 1
    return both[[*keys, "N", "M", "gap"]]


def practical(frame: pd.DataFrame, *, within: float) -> pd.DataFrame:
    """How wide must the source be: the narrowest N from which on the gap is below `within`.

    The gap is (L(N → M) - L(M)) / L(M), of means over seeds. Columns: arm, epoch, M, N (missing
    where no width of the grid does), gap (at the widest source).
    """
    rows = []
    for (arm, epoch, m), part in gaps(frame).groupby(["arm", "epoch", "M"], sort=False):
        gap = part.set_index("N").gap.sort_index()
        bad = gap.index[gap > within]
        good = gap.index if bad.empty else gap.index[gap.index > bad.max()]
        rows.append((arm, epoch, int(m), int(good.min()) if len(good) else None, gap.iloc[-1]))
    found = pd.DataFrame(rows, columns=["arm", "epoch", "M", "N", "gap"])
    return found.astype({"N": "Int64"})


def lost(frame: pd.DataFrame, column: str) -> pd.Series:
    """(`column` - native) / (start - native) at the widest source and target, by seed.

    With "moved" the share of the progress that a transfer loses, with "broken" the same at r1 = 1.
    """
    part = frame[(frame.N.max() == frame.N) & (frame.M.max() == frame.M)].set_index("seed")
    return (part[column] - part.native) / (part.start - part.native)
