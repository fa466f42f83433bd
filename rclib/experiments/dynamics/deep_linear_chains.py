"""Chains of matrices and deep tanh networks: the runs of notebook 60 against depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.runs import sweep
from rclib.runs.source import Source
from rclib.runs.store import Arrays

__all__ = [
    "CHAINS",
    "TINY",
    "aligned_steps",
    "depth_frame",
    "depth_ratio",
    "depth_steps",
    "orthogonal",
    "pretrained",
    "tanh_frame",
    "tanh_losses",
    "whitened_target",
]

CHAINS = ("orthogonal", "Gaussian", "pretrained")
TINY: dict[str, dict[str, Any]] = {
    "depth_steps": {
        "seed": 0, "start": "pretrained", "depth": 2, "width": 10, "low": 0.5, "high": 2.0,
        "rates": [0.1], "share": 0.5, "most": 3,
    },
    "aligned_steps": {
        "seed": 0, "depths": [2], "u0": 0.1, "modes": 2, "low": 0.5, "high": 2.0, "share": 0.5,
        "most": 3, "n_rates": 4},
    "tanh_losses": {
        "seed": 0, "gains": [1.0], "rates": [0.1], "depth": 2, "width": 4, "batch_size": 8,
        "steps": 2,
    },
}  # fmt: skip


def depth_steps(
    data: Dataset | None,
    *,
    seed: int,
    start: str,
    depth: int,
    width: int,
    low: float,
    high: float,
    rates: Sequence[float],
    share: float,
    most: int,
) -> Arrays:
    """Stored run: steps of gradient descent until `share` of the error ½ |Σ31|² is left, with
    `depth` square matrices of one width, at every rate side by side; it ends with the first.

    Σ31 has `width` modes drawn from [low, high] along random directions; with data it is that of
    its centred images, whitened in their first `width` principal components, and its centred
    one-hot labels. start : each matrix random orthogonal, Gaussian of variance 1 / width, or
    Gaussian and pretrained, layer by layer, as an autoencoder with tied weights.

    steps () : `most` if no rate is done by then. rate () : of the first, nan if none is.
    """
    random = np.random.default_rng([seed, depth, CHAINS.index(choice("start", start, CHAINS))])
    drawing = np.random.default_rng([seed, 99])  # the same task for every start and depth
    if data is None:
        left, right = (orthogonal(drawing, width) for _ in range(2))
        target = (left * drawing.uniform(low, high, width)) @ right.T
    else:
        target = whitened_target(data, width)
    matrices = [random.standard_normal((width, width)) / np.sqrt(width) for _ in range(depth)]
    if start == "orthogonal":
        matrices = [orthogonal(random, width) for _ in range(depth)]
    elif start == "pretrained":
        matrices = pretrained(matrices)
    eta = np.array(rates, dtype=float)[:, None, None]
    layers = [np.repeat(w[None], len(rates), axis=0) for w in matrices]
    goal = share * np.square(target).sum()
    with np.errstate(over="ignore", invalid="ignore"):  # rates that are too large
        for step in range(most + 1):
            before = [layers[0]]
            for w in layers[1:]:
                before.append(w @ before[-1])
            error = target - before[-1]
            left_over = np.square(error).sum((1, 2))
            done = np.flatnonzero(left_over <= goal)
            if len(done):
                return {"steps": np.array(step), "rate": np.array(rates[done[0]])}
            alive = np.isfinite(left_over) & (left_over < 1e12)
            if not alive.all():
                layers, before = [w[alive] for w in layers], [p[alive] for p in before]
                error, eta, rates = error[alive], eta[alive], list(np.array(rates)[alive])
            if not len(rates):
                break
            behind = eta * error
            for k in range(depth - 1, -1, -1):
                gradient = behind @ before[k - 1].swapaxes(1, 2) if k else behind
                behind = layers[k].swapaxes(1, 2) @ behind
                layers[k] = layers[k] + gradient
    return {"steps": np.array(most), "rate": np.array(np.nan)}


def whitened_target(data: Dataset, width: int) -> np.ndarray:
    """Σ31 (width, width) of whitened images and centred labels; rows beyond the classes are zero.

    Images of 3 x 32 x 32 are averaged over colours and squares of 2 x 2 pixels first. Raises
    ValueError if the images have fewer than `width` principal components, or more classes.
    """
    if width < data.n_classes:
        raise ValueError(f"width must be at least the {data.n_classes} classes, got {width}")
    x = data.x_train.numpy().astype(float).reshape(len(data.x_train), -1)
    if x.shape[1] == 3 * 32 * 32:
        x = x.reshape(-1, 3, 16, 2, 16, 2).mean((1, 3, 5)).reshape(-1, 256)
    x = x - x.mean(0)
    _, values, right = np.linalg.svd(x.T @ x / len(x))
    if (values[:width] > 1e-8 * values[0]).sum() < width:
        raise ValueError(f"width must be at most the rank of the images, got {width}")
    white = x @ right[:width].T / np.sqrt(values[:width])
    labels = np.eye(data.n_classes)[data.y_train.numpy()]
    target = np.zeros((width, width))
    target[: data.n_classes] = (labels - labels.mean(0)).T @ white / len(x)
    return target


def aligned_steps(
    data: Source | None,
    *,
    seed: int,
    depths: Sequence[int],
    u0: float,
    modes: int,
    low: float,
    high: float,
    share: float,
    most: int,
    n_rates: int,
) -> Arrays:
    """Stored run: as `depth_steps`, for aligned layers, where every mode is one scalar a with
    u = a^L and a' = a^(L-1) (s - u). steps, rate (depths,), over `n_rates` rates up to 2 / L."""
    s = np.random.default_rng([seed, 98]).uniform(low, high, modes)
    found = []
    for depth in depths:
        eta = np.geomspace(2e-3, 2.0, n_rates)[:, None] / depth
        a = np.full((n_rates, modes), u0 ** (1.0 / depth))
        best = (most, np.nan)
        with np.errstate(over="ignore", invalid="ignore"):
            for step in range(most + 1):
                error = s - a**depth
                done = np.flatnonzero(np.square(error).sum(1) <= share * np.square(s).sum())
                if len(done):
                    best = (step, float(eta[done[0], 0]))
                    break
                a = a + eta * a ** (depth - 1) * error
        found.append(best)
    return {"steps": np.array([f[0] for f in found]), "rate": np.array([f[1] for f in found])}


def tanh_losses(
    data: Dataset,
    *,
    seed: int,
    gains: Sequence[float],
    rates: Sequence[float],
    depth: int,
    width: int,
    batch_size: int,
    steps: int,
) -> Arrays:
    """Stored run: losses (2, gains, rates) on the training images after `steps` of SGD, of tanh
    networks with `depth` hidden layers, orthogonal and Gaussian (of variance 1 / fan-in) times the
    gain. All of them are trained at once on the same batches. A diverged one is infinite."""
    generator = torch.Generator().manual_seed(seed)
    x, y = data.x_train.float().flatten(1), data.y_train
    d, shape = x.shape[1], (2, len(gains), len(rates))
    scales = torch.tensor(gains).repeat_interleave(len(rates))
    layers = []
    for fan_in in [d] + [width] * (depth - 1):
        gauss = torch.randn(width, fan_in, generator=generator)
        turned = torch.nn.init.orthogonal_(torch.empty(width, fan_in), generator=generator)
        two = [turned, gauss / fan_in**0.5]
        layers.append(torch.cat([scales[:, None, None] * w for w in two]).requires_grad_())
    readout = torch.randn(data.n_classes, width, generator=generator) / width**0.5
    layers.append(readout.repeat(len(layers[0]), 1, 1).requires_grad_())
    eta = torch.tensor(rates).repeat(2 * len(gains))[:, None, None]

    def losses(batch: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        h = batch.T.expand(len(layers[0]), -1, -1)
        for w in layers[:-1]:
            h = torch.tanh(w @ h)
        logits = (layers[-1] @ h).transpose(1, 2)
        wide = labels.expand(len(logits), -1)
        each = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), wide.flatten(), reduction="none"
        )
        return each.view(len(logits), -1).mean(1)

    for _ in range(steps):
        chosen = torch.randint(len(x), (batch_size,), generator=generator)
        slopes = torch.autograd.grad(losses(x[chosen], y[chosen]).sum(), layers)
        with torch.no_grad():
            for w, g in zip(layers, slopes, strict=True):
                w -= eta * g
    with torch.no_grad():
        after = losses(x[:2000], y[:2000]).nan_to_num(torch.inf).view(shape)
    return {"losses": after.numpy()}


def depth_frame(
    data: Dataset | None,
    seeds: Sequence[int],
    *,
    depths: Mapping[str, Sequence[int]],
    aligned: Mapping[str, Any],
    **shared: Any,
) -> pd.DataFrame:
    """Steps at the best rate: start, depth, seed, steps, rate. depths : start -> depths;
    aligned : what `aligned_steps` gets besides (no entry "aligned" in `depths`: none)."""
    configs = [
        {"seed": seed, "start": start, "depth": depth, **shared}
        for start, several in depths.items() if start != "aligned"
        for depth in several for seed in seeds
    ]  # fmt: skip
    runs = sweep.run(
        depth_steps, configs, data=data, cost=lambda c: float(c["depth"]), description="chains"
    )
    rows = [
        (c["start"], c["depth"], c["seed"], int(r["steps"]), float(r["rate"]))
        for c, r in zip(configs, runs, strict=True)
    ]
    if "aligned" in depths:
        same = {name: shared[name] for name in ("low", "high", "share", "most")}
        scalars = [
            {"seed": seed, "depths": list(depths["aligned"]), **same, **aligned} for seed in seeds
        ]
        for config, run in zip(scalars, sweep.run(aligned_steps, scalars), strict=True):
            rows += [
                ("aligned", depth, config["seed"], int(steps), float(rate))
                for depth, steps, rate in zip(
                    depths["aligned"], run["steps"], run["rate"], strict=True
                )
            ]
    return pd.DataFrame(rows, columns=["start", "depth", "seed", "steps", "rate"])


def depth_ratio(frame: pd.DataFrame, over: tuple[str, int], under: tuple[str, int]) -> pd.Series:
    """Steps of one (start, depth) over those of another, by seed."""
    table = frame.pivot_table(index="seed", columns=["start", "depth"], values="steps")
    return (table[over] / table[under]).rename("ratio")


def tanh_frame(
    data: Dataset,
    seeds: Sequence[int],
    *,
    gains: Sequence[float],
    rates: Sequence[float],
    **shared: Any,
) -> pd.DataFrame:
    """Training loss of the deep tanh networks at the best rate: start, gain, seed, loss."""
    configs = [
        {"seed": seed, "gains": list(gains), "rates": list(rates), **shared} for seed in seeds
    ]
    runs = sweep.run(tanh_losses, configs, data=data, description="tanh networks")
    return pd.DataFrame(
        [
            (start, gain, config["seed"], float(run["losses"][i, j].min()))
            for config, run in zip(configs, runs, strict=True)
            for i, start in enumerate(("orthogonal", "Gaussian"))
            for j, gain in enumerate(gains)
        ],
        columns=["start", "gain", "seed", "loss"],
    )


def orthogonal(random: np.random.Generator, n: int) -> np.ndarray:
    """A random orthogonal matrix (n, n) from the uniform law."""
    q, r = np.linalg.qr(random.standard_normal((n, n)))
    return np.asarray(q * np.sign(np.diag(r)))


def pretrained(
    matrices: Sequence[np.ndarray], *, rate: float = 0.1, steps: int = 150
) -> list[np.ndarray]:
    """Greedy pretraining, one layer after the other: gradient descent of ½ E|h - Wᵀ W h|² on what
    the layers below make of whitened inputs. matrices : square, of one size."""
    cov, found = np.eye(len(matrices[0])), []
    for w in matrices:
        for _ in range(steps):
            missed = np.eye(len(w)) - w.T @ w
            w = w + rate * w @ (missed @ cov + cov @ missed)
        found.append(w)
        cov = w @ cov @ w.T
    return found
