"""Stored runs of notebook 65: posteriors of Gaussian processes, and networks that fit the data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist, pdist

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.runs.source import Source
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import outliers
from rclib.spectral.spectra import esd

__all__ = [
    "TEACHERS",
    "TINY",
    "components_law",
    "digits_bias",
    "likelihood_fits",
    "posterior",
    "refits",
]

TEACHERS = ("kernel", "sine", "noise")
TINY: dict[str, dict[str, Any]] = {
    "posterior": {
        "seed": 0, "teacher": "kernel", "dimensions": [2], "lengths": [1.0], "n": 5, "m": 4,
        "jitter": 1e-6,
    },
    "likelihood_fits": {
        "seed": 0, "d": 2, "n": 5, "m": 4, "jitter": 1e-6, "samples": 50, "shares": [0.5],
    },
    "components_law": {"seed": 0, "n": 20, "m": 10, "components": [2, 4]},
    "refits": {"seed": 0, "m": 6, "quantile": 0.01, "sizes": [20], "repeats": 3},
    "digits_bias": {
        "seed": 0, "n": 40, "m": 30, "nets": 3, "width": 4, "depth": 1, "steps": 3, "rate": 3e-3,
    },
}  # fmt: skip


def _conditioned(
    train: np.ndarray, test: np.ndarray, y: np.ndarray, length: float, jitter: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (m, outputs) and covariance (m, m) at the test points, kernel exp(-r² / 2 ℓ²)."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(-0.5 * cdist(a, b, "sqeuclidean") / length**2))

    inner = kernel(train, train) + jitter * np.eye(len(train))
    across = kernel(train, test)
    solved = np.linalg.solve(inner, np.concatenate([across, y], axis=1))
    mean = across.T @ solved[:, len(test) :]
    return mean, kernel(test, test) - across.T @ solved[:, : len(test)]


def _law(mean: np.ndarray, cov: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and shifts (m,) of the mean squared error over test points and outputs."""
    values, basis = np.linalg.eigh(0.5 * (cov + cov.T))
    count = y.size
    off = np.square(basis.T @ (mean - y)).sum(1) / count
    return np.clip(values, 0.0, None) / count, off


def posterior(
    data: Source | None,
    *,
    seed: int,
    teacher: str,
    dimensions: Sequence[int],
    lengths: Sequence[float],
    n: int,
    m: int,
    jitter: float,
) -> Arrays:
    """Stored run: the exact law of the test error of hypotheses drawn from a Gaussian process that
    is conditioned on `n` labels, for `dimensions` with the lengths beside them.

    Inputs are uniform of unit variance. teacher : "kernel", drawn from the same process; "sine",
    2 u·x with |u| = 1 inside a sine; "noise", N(0, 1) labels.

    weights, shift (dimensions, m) : of `inductive_bias_theory.Quadratic`, all df one. variance
    (dimensions,) : of the test labels.
    """
    choice("teacher", teacher, TEACHERS)
    weights, shifts, variances = [], [], []
    for d, length in zip(dimensions, lengths, strict=True):
        random = np.random.default_rng([seed, d, TEACHERS.index(teacher)])
        x = np.sqrt(3.0) * random.uniform(-1, 1, (n + m, d))
        if teacher == "kernel":
            gram = np.exp(-0.5 * cdist(x, x, "sqeuclidean") / length**2)
            values, basis = np.linalg.eigh(gram)
            y = basis @ (np.sqrt(np.clip(values, 0, None)) * random.standard_normal(n + m))
        elif teacher == "sine":
            direction = random.standard_normal(d)
            y = np.sin(2.0 * x @ direction / np.linalg.norm(direction))
        else:
            y = random.standard_normal(n + m)
        mean, cov = _conditioned(x[:n], x[n:], y[:n, None], length, jitter)
        weight, shift = _law(mean, cov, y[n:, None])
        weights.append(weight)
        shifts.append(shift)
        variances.append(y[n:].var())
    return {
        "weights": np.array(weights),
        "shift": np.array(shifts),
        "variance": np.array(variances),
    }


def refits(
    data: Source | None,
    *,
    seed: int,
    m: int,
    quantile: float,
    sizes: Sequence[int],
    repeats: int,
) -> Arrays:
    """Stored run: the fitted information at a far error, over samples of every size.

    The law has gamma(1/2) weights without shift; the error is where its exact probability is
    `quantile` ** 3 (bisection of the saddlepoint). exact () ; found (sizes, repeats).
    """
    from rclib.experiments.dynamics.inductive_bias_theory import Quadratic, fitted, information

    random = np.random.default_rng([seed, m])
    law = Quadratic.of(random.gamma(0.5, 1.0, m) / m, 1.0, 0.0)
    wanted = -3.0 * np.log(quantile)
    low, high = 1e-6 * law.cumulant(1), law.cumulant(1)
    for _ in range(60):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if information(law, middle) > wanted else (low, middle)
    found = [
        [information(fitted(law.sample(random, size)), high) for _ in range(repeats)]
        for size in sizes
    ]
    return {"exact": np.array(information(law, high)), "found": np.array(found)}


def likelihood_fits(
    data: Source | None,
    *,
    seed: int,
    d: int,
    n: int,
    m: int,
    jitter: float,
    samples: int,
    shares: Sequence[float],
) -> Arrays:
    """Stored run: the estimate as the authors' code makes it, for a teacher of the process in `d`
    dimensions (a `posterior` run's law with the length √d).

    exact, moments, likelihood, fallback (shares,) : information at these shares of the variance of
    the test labels: of the law, of the fit by cumulants, and the two of `likelihood_information`.
    """
    from rclib.experiments.dynamics.inductive_bias_theory import (
        Quadratic,
        fitted,
        information,
        likelihood_fit,
        likelihood_information,
    )

    run = posterior(
        None, seed=seed, teacher="kernel", dimensions=[d], lengths=[float(np.sqrt(d))], n=n, m=m,
        jitter=jitter,
    )  # fmt: skip
    law = Quadratic.of(run["weights"][0], 1.0, run["shift"][0])
    errors = law.sample(np.random.default_rng([seed, d, 9]), samples)
    fit, best, found = fitted(errors), likelihood_fit(errors), []
    for share in shares:
        at = share * float(run["variance"][0])
        of_code = likelihood_information(best, at)
        found.append((information(law, at), information(fit, at), *of_code))
    names = ("exact", "moments", "likelihood", "fallback")
    return dict(zip(names, np.array(found).T.copy(), strict=True))


def components_law(
    data: Dataset, *, seed: int, n: int, m: int, components: Sequence[int]
) -> Arrays:
    """Stored run: images in their leading principal components (of all training images), `n`
    labels to train and `m` to test, one-hot and centred: the law of the error in the space of a
    Gaussian process whose length is the median distance, for each number of components. Images of
    3 x 32 x 32 are averaged over squares of 2 x 2 pixels first.

    weights, shift (components, m) : as in `digits_bias` (df: the number of classes). variance ():
    of the test labels, a class.
    """
    x = data.x_train.flatten(1).numpy()
    if x.shape[1] == 3 * 32 * 32:
        x = x.reshape(-1, 3, 16, 2, 16, 2).mean((3, 5)).reshape(len(x), -1)
    x = x.astype(float) - x.mean(0)
    axes = np.linalg.eigh(x.T @ x)[1][:, ::-1][:, : max(components)]
    order = np.random.default_rng([seed, 11]).permutation(len(x))[: n + m]
    y = np.eye(data.n_classes)[data.y_train[order].numpy()]
    y = y - y[:n].mean(0)
    scores, laws = x[order] @ axes, []
    for k in components:
        part = scores[:, :k]
        length = float(np.median(pdist(part[:n])))
        mean, cov = _conditioned(part[:n], part[n:], y[:n], length, 1e-4)
        laws.append(_law(mean, cov, y[n:]))
    weights, shifts = (np.array(each) for each in zip(*laws, strict=True))
    variance = np.array(np.square(y[n:]).mean())
    return {"weights": weights, "shift": shifts, "variance": variance}


def digits_bias(
    data: Dataset,
    *,
    seed: int,
    n: int,
    m: int,
    nets: int,
    width: int,
    depth: int,
    steps: int,
    rate: float,
) -> Arrays:
    """Stored run: a split of images, `n` to train and `m` to test, one-hot labels, squared error
    (mean over images and classes).

    linear () : error of least squares with a ridge of 1e-3 n. weights, shift (m,) : law of the
    error in the space of a Gaussian process whose length is the median distance (df: the number of
    classes); short_weights, short_shift (m,) : with the length one for pixels of unit variance, as
    in the authors' code. networks, train (nets,) : errors of ReLU networks with `depth` hidden
    layers from different starts (uniform in ±1/√fan-in), Adam, full batch. spikes (nets,) :
    eigenvalues of the first matrix outside the bulk of its start.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data.y_train), generator=generator)[: n + m]
    images = data.x_train[order].double().flatten(1)
    y = np.eye(data.n_classes)[data.y_train[order].numpy()]
    x = images.numpy() / np.sqrt(images.shape[1])
    one = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    gram = one[:n].T @ one[:n] + 1e-3 * n * np.eye(one.shape[1]) / one.shape[1]
    linear = np.square(one[n:] @ np.linalg.solve(gram, one[:n].T @ y[:n]) - y[n:]).mean()
    centre = y[:n].mean(0)
    length = float(np.median(pdist(x[:n])))
    mean, cov = _conditioned(x[:n], x[n:], y[:n] - centre, length, 1e-4)
    weights, shift = _law(mean, cov, y[n:] - centre)
    near = 1.0 / np.sqrt(x.shape[1])
    short = _law(*_conditioned(x[:n], x[n:], y[:n] - centre, near, 1e-4), y[n:] - centre)

    inputs = torch.from_numpy(x * np.sqrt(x.shape[1])).float()
    labels = torch.from_numpy(y).float()
    sizes = [x.shape[1], *[width] * depth, data.n_classes]
    layers = [
        ((2 * torch.rand(nets, a, b, generator=generator) - 1) / a**0.5).requires_grad_()
        for a, b in pairwise(sizes)
    ]
    biases = [torch.zeros(nets, 1, b, requires_grad=True) for b in sizes[1:]]

    def outputs(batch: torch.Tensor) -> torch.Tensor:
        h = batch.expand(nets, -1, -1)
        for k, (w, b) in enumerate(zip(layers, biases, strict=True)):
            h = torch.baddbmm(b, h, w)
            h = torch.relu(h) if k < depth else h
        return h

    adam = torch.optim.Adam([*layers, *biases], lr=rate)
    for _ in range(steps):
        adam.zero_grad()
        (outputs(inputs[:n]) - labels[:n]).square().mean((1, 2)).sum().backward()
        adam.step()
    with torch.no_grad():
        errors = (outputs(inputs) - labels).square()
        first, start = layers[0].detach().double(), 1.0 / (3.0 * sizes[0])
        spikes = [outliers(esd(w), rows=sizes[0], variance=start).count for w in first]
    return {
        "linear": np.array(linear),
        "weights": weights,
        "shift": shift,
        "short_weights": short[0],
        "short_shift": short[1],
        "networks": errors[:, n:].mean((1, 2)).numpy(),
        "train": errors[:, :n].mean((1, 2)).numpy(),
        "spikes": np.array(spikes),
    }
