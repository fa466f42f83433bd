"""Stored runs of notebook 72: ensembles of infinite width, and trained networks of finite width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.checks.arguments import choice
from rclib.checks.arrays import Floats
from rclib.experiments.features.permutation_theory import (
    KERNELS,
    all_inputs,
    closed_means,
    trained,
    two_bit_inputs,
    unit,
)
from rclib.nets.permutation_net import start, train_all, train_last
from rclib.rowcolumn.measure import correlations, mean_vectors
from rclib.runs.source import Source
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import marchenko_pastur
from rclib.spectral.spectra import esd

__all__ = ["RULES", "TESTS", "TINY", "averages", "first_sizes", "networks"]

RULES = ("zero", "midpoint", "estimated")
TESTS = ("two bits", "random bits", "all inputs")
TINY: dict[str, dict[str, Any]] = {
    "first_sizes": {
        "seed": 0, "k": 4, "which": "last layer", "test": "two bits", "n_inputs": 20,
        "targets": [0.9, 1.0], "most": 200,
    },
    "averages": {"seed": 0, "k": 4, "which": "all layers", "at": [1, 5], "without": 1},
    "networks": {
        "seed": 0, "k": 4, "width": 16, "n_networks": 3, "scaling": "NTK", "activation": "relu",
        "layers": "all layers", "zero_start": False, "rate": 2.0, "steps": 3,
    },
}  # fmt: skip
_MEMBERS = 32  # of an ensemble, drawn at once


def _test_inputs(test: str, k: int, n_inputs: int, random: np.random.Generator) -> Floats:
    """0/1 inputs (n, k) with two ones or more; those of the first two tests are drawn with
    repetition, as the authors draw them."""
    if test == "all inputs":
        return all_inputs(k)
    if test == "two bits":
        pairs = two_bit_inputs(k)
        return np.asarray(pairs[random.integers(0, len(pairs), n_inputs)])
    found = np.zeros((0, k))
    while len(found) < n_inputs:
        drawn = random.integers(0, 2, (n_inputs, k)).astype(float)
        found = np.concatenate([found, drawn[drawn.sum(1) > 1]])
    return found[:n_inputs]


def _means(
    mean: Floats, root: Floats, most: int, random: np.random.Generator
) -> Iterator[tuple[int, Floats]]:
    """(members before, running means (members, T, k)) of an ensemble up to `most` members."""
    T, k = mean.shape
    total = np.zeros((T, k))
    for before in range(0, most, _MEMBERS):
        members = min(_MEMBERS, most - before)
        noise = random.standard_normal((T, members, k)).cumsum(axis=1) + total[:, None]
        total = noise[:, -1]
        sizes = before + 1 + np.arange(members)
        spread = (root @ noise.reshape(T, -1)).reshape(T, members, k) / sizes[:, None]
        yield before, mean + spread.transpose(1, 0, 2)


def _right(outputs: Floats, levels: Any, bits: Floats) -> np.ndarray:
    """Whether every coordinate is right: (members, T)."""
    return np.asarray(((outputs > levels) == (bits > 0)).all(axis=-1))


def first_sizes(
    data: Source | None,
    *,
    seed: int,
    k: int,
    which: str,
    test: str,
    n_inputs: int,
    targets: Sequence[float],
    most: int,
) -> Arrays:
    """Stored run: the first size at which an ensemble of infinitely wide networks is right on a
    share of the test inputs, every coordinate of them, by the rule that reads a bit.

    Rules (`RULES`): the mean output is above zero; above the midpoint of the closed means for this
    number of ones; above the middle between mean on- and off-bit of one held-out input with two
    ones (for "two bits" alone). Raises ValueError for an unknown kernel or test.

    sizes (rules, targets) : NaN where `most` members, or those that rule "zero" needed for the
    last target, did not reach it.
    """
    choice("which", which, KERNELS), choice("test", test, TESTS)
    random = np.random.default_rng([seed, k, KERNELS.index(which), TESTS.index(test)])
    drawn = _test_inputs(test, k, n_inputs, random)
    bits, copies = np.unique(drawn, axis=0, return_counts=True)
    held = two_bit_inputs(k)[random.integers(0, k * (k - 1) // 2)]
    law = trained(unit(np.concatenate([bits, held[None]])), which)
    ones = bits.sum(1).astype(int)
    middle = {m: sum(closed_means(k, m, which)) / 2 for m in set(ones.tolist())}
    levels = np.array([middle[m] for m in ones.tolist()])[:, None]
    sizes = np.full((len(RULES), len(targets)), np.nan)
    # The held-out input may be among the test inputs: then its rows are equal, and so are outputs.
    for before, means in _means(law.mean, law.root(), most, random):
        own, other = means[:, :-1], means[:, -1]
        estimate = (other[:, held > 0].mean(1) + other[:, held == 0].mean(1)) / 2
        rules: list[Any] = [0.0, levels, estimate[:, None, None]]
        for r, level in enumerate(rules if test == "two bits" else rules[:2]):
            share = _right(own, level, bits) @ copies / copies.sum()
            for t, target in enumerate(targets):
                passed = np.flatnonzero(share >= target - 1e-12)
                if len(passed) and np.isnan(sizes[r, t]):
                    sizes[r, t] = before + 1 + passed[0]
        if not np.isnan(sizes[0]).any():
            break
    return {"sizes": sizes}


def averages(
    data: Source | None, *, seed: int, k: int, which: str, at: Sequence[int], without: int | None
) -> Arrays:
    """Stored run: outputs of an ensemble of infinitely wide networks at all inputs with two ones.

    without : a bit whose unit vector was left out of the training.
    outputs (at, T, k) float32 : means over the first members. bits (T, k) : the inputs.
    """
    choice("which", which, KERNELS)
    random = np.random.default_rng([seed, k, KERNELS.index(which), 7])
    bits = two_bit_inputs(k)
    law = trained(unit(bits), which, without=without)
    wanted = {size: place for place, size in enumerate(at)}
    found = np.zeros((len(at), *bits.shape), dtype=np.float32)
    for before, means in _means(law.mean, law.root(), max(at), random):
        for j, mean in enumerate(means):
            if before + 1 + j in wanted:
                found[wanted[before + 1 + j]] = mean
    return {"outputs": found, "bits": bits.astype(np.uint8)}


def _measured(W1: Tensor, W2: Tensor, first: Tensor) -> tuple[float, float, float]:
    """Of one network: relative change of W1 (n, k) from `first`, correlation over hidden units
    between the means of incoming and outgoing weights, largest eigenvalue of W1ᵀ W1 / n over the
    edge of noise."""
    change = float((W1 - first).norm() / first.norm())
    axes = {"W1": ("h", "x"), "W2": ("y", "h")}
    found = correlations({"h": mean_vectors({"W1": W1, "W2": W2}, axes)["h"]})
    width, k = W1.shape
    edge = width * marchenko_pastur(k / width).upper
    return change, float(found.matrix[0, 1]), float(esd(W1)[-1]) / edge


def networks(
    data: Source | None,
    *,
    seed: int,
    k: int,
    width: int,
    n_networks: int,
    scaling: str,
    activation: str,
    layers: str,
    zero_start: bool,
    rate: float,
    steps: int,
) -> Arrays:
    """Stored run: networks of finite width, trained on (e_i, P e_i) with a random permutation P.

    scaling, activation, zero_start : of `rclib.nets.permutation_net.start`. layers : "all layers"
    by gradient descent, or "last layer" by its limit in closed form (`steps` and `rate` unused).

    outputs (networks, T, k) float32 : at all inputs with two ones, outputs renamed so that output
    c belongs to bit c. bits (T, k). residual (networks,) : largest error on the training pairs.
    change, correlation, top (networks,) : of W1 at the end (`_measured`); correlation_start.
    """
    choice("layers", layers, KERNELS)
    bits = two_bit_inputs(k)
    x = torch.tensor(unit(bits))
    order = torch.tensor(np.random.default_rng([seed, k]).permutation(k))
    targets = torch.eye(k, dtype=torch.float64)[order]  # column i is P e_i
    back = torch.argsort(order)
    rows: dict[str, list[Any]] = {
        name: [] for name in ("outputs", "residual", "change", "correlation", "top")
    }
    starts: list[float] = []
    at_once = max(1, 2048 // width)  # so many that their matrices stay in the cache
    for begin in range(0, n_networks, at_once):
        members = range(begin, min(begin + at_once, n_networks))
        generators = [torch.Generator().manual_seed(1_000_003 * seed + 1009 * m) for m in members]
        first = start(
            k, width, scaling=scaling, activation=activation, zero_last=zero_start,
            generators=generators,
        )  # fmt: skip
        if layers == "last layer":
            nets = train_last(first, targets)
        else:
            nets = train_all(first, targets, rate=rate, steps=steps)
        rows["outputs"] += list(nets(x)[:, :, back].numpy().astype(np.float32))
        off = nets(torch.eye(k, dtype=x.dtype)).mT - targets
        rows["residual"] += off.abs().amax((1, 2)).tolist()
        for s in range(len(members)):
            measured = _measured(nets.W1[s], nets.W2[s], first.W1[s])
            for name, value in zip(("change", "correlation", "top"), measured, strict=True):
                rows[name].append(value)
            before = first.W1[s], first.W2[s], first.W1[s]
            starts.append(np.nan if zero_start else _measured(*before)[1])
    found = {name: np.array(values) for name, values in rows.items()}
    return {**found, "correlation_start": np.array(starts), "bits": bits.astype(np.uint8)}
