"""Stored runs of notebook 64: how often random networks compute each Boolean function of four
inputs, the regret of mixtures over all of them, and Langevin chains against the exact mixture.

A function is its 16 values, packed into an integer: bit x is its value at the input whose four bits
are x. Labels are its values, flipped with probability δ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, logsumexp

from rclib.runs.source import Source
from rclib.runs.store import Arrays

__all__ = [
    "FUNCTIONS",
    "TINY",
    "bits_of",
    "chains",
    "divergence",
    "linear_regret",
    "log_weights",
    "regrets",
    "weights",
]

INPUTS = 16
FUNCTIONS = 2**INPUTS
FLOOR = 1e-7  # the weight of a function that no sampled network computes, before normalisation
CUBE = ((np.arange(INPUTS)[:, None] >> np.arange(4)) & 1).astype(float)  # (16, 4)
SIGNS = 2.0 * CUBE - 1.0  # what networks are shown: bits as -1 and 1
TINY: dict[str, dict[str, Any]] = {
    "weights": {"seed": 0, "hidden": 2, "nets": 50, "scaled": True},
    "regrets": {
        "seed": 0, "targets": [0], "sizes": [1, 2], "sets": 2, "delta": 0.1,
        "prior": {"seed": 0, "hidden": 2, "nets": 50, "scaled": True},
    },
    "linear_regret": {"seed": 0, "sizes": [4], "used": 2, "inputs": 3, "draws": 2},
    "chains": {
        "seed": 0, "target": 0, "n": 4, "delta": 0.1, "hidden": 2, "chains": 2, "rate": 2e-3,
        "steps": 3, "nets": 20,
    },
}  # fmt: skip


def bits_of(functions: Sequence[int] | np.ndarray) -> np.ndarray:
    """The 16 values of packed functions, (functions, 16) of 0 and 1, float32."""
    packed = np.asarray(functions)
    return np.asarray(((packed[:, None] >> np.arange(INPUTS)) & 1), dtype=np.float32)


def divergence(target: int, *, delta: float) -> np.ndarray:
    """D(target ‖ f) for every function f, mean over uniform inputs, in nats: (FUNCTIONS,)."""
    apart = np.bitwise_count(np.arange(FUNCTIONS, dtype=np.uint32) ^ np.uint32(target))
    scale = (1.0 - 2.0 * delta) * np.log((1.0 - delta) / delta)
    return np.asarray(apart / INPUTS * scale)


def _networks(
    random: np.random.Generator, hidden: int, nets: int, *, scaled: bool
) -> tuple[np.ndarray, ...]:
    """First weights (nets, hidden, 4) and biases, output weights (nets, hidden) and biases."""
    first, bias, last, shift = (0.5, 0.5, hidden**-0.5, 0.5) if scaled else (1.0, 1.0, 1.0, 1.0)
    return (
        first * random.standard_normal((nets, hidden, 4), dtype=np.float32),
        bias * random.standard_normal((nets, hidden), dtype=np.float32),
        last * random.standard_normal((nets, hidden), dtype=np.float32),
        shift * random.standard_normal(nets, dtype=np.float32),
    )


def _outputs(networks: tuple[np.ndarray, ...]) -> np.ndarray:
    """Outputs on the 16 inputs, (nets, 16)."""
    first, bias, last, shift = networks
    hidden = np.maximum(first @ SIGNS.T.astype(first.dtype) + bias[..., None], 0)
    return np.asarray((last[:, None] @ hidden)[:, 0] + shift[:, None])


def _packed(outputs: np.ndarray) -> np.ndarray:
    return np.asarray((outputs > 0) @ (1 << np.arange(INPUTS)))


def weights(data: Source | None, *, seed: int, hidden: int, nets: int, scaled: bool) -> Arrays:
    """Stored run: how many of `nets` random ReLU networks (4, hidden, 1) compute each function by
    the sign of their output. scaled : weights and biases N(0, 1/4), output weights N(0, 1/hidden);
    else everything N(0, 1). functions, counts (seen,)."""
    random = np.random.default_rng([seed, hidden, int(scaled)])
    counts = np.zeros(FUNCTIONS, dtype=np.int64)
    chunk = max(1, 2_000_000 // (INPUTS * hidden))
    for start in range(0, nets, chunk):
        some = _networks(random, hidden, min(chunk, nets - start), scaled=scaled)
        counts += np.bincount(_packed(_outputs(some)), minlength=FUNCTIONS)
    seen = np.flatnonzero(counts)
    return {"functions": seen, "counts": counts[seen]}


def log_weights(run: Arrays) -> np.ndarray:
    """ln w of every function from `weights`: at least `FLOOR`, normalised, (FUNCTIONS,)."""
    w = np.zeros(FUNCTIONS)
    w[run["functions"]] = run["counts"] / run["counts"].sum()
    w = np.maximum(w, FLOOR)
    return np.asarray(np.log(w / w.sum()))


def regrets(
    data: Source | None,
    *,
    seed: int,
    targets: Sequence[int],
    sizes: Sequence[int],
    sets: int,
    delta: float,
    prior: dict[str, Any] | None,
) -> Arrays:
    """Stored run: regret of the mixture over all functions under a prior, in nats.

    prior : configuration of the `weights` run that gives it, None for the uniform one. The data
    sets of one seed are the same for every prior, and a smaller one is the beginning of a larger.

    regret (targets, sizes) : mean over `sets` data sets of ln P(labels | target) - ln Q(labels).
    jensen (targets, sizes) : -ln Σ w e^(-n D). ball : min over ε of n ε - ln w{D <= ε}.
    weight (targets,) : -ln w of the target itself.
    """
    from rclib.runs import store

    log_w = np.full(FUNCTIONS, -np.log(FUNCTIONS))
    if prior is not None:
        log_w = log_weights(store.fetch(weights, prior, data=data))
    every, odds = bits_of(np.arange(FUNCTIONS)), float(np.log((1.0 - delta) / delta))
    w = np.exp(log_w).astype(np.float32)
    regret, jensen, ball = [], [], []
    for target in targets:
        random = np.random.default_rng([seed, target])
        x = random.integers(0, INPUTS, (sets, max(sizes)))
        y = bits_of([target])[0][x] != (random.random(x.shape) < delta)
        apart = divergence(target, delta=delta)
        order = np.argsort(apart, kind="stable")
        inside, radius = np.logaddexp.accumulate(log_w[order]), apart[order]
        rows = []
        for n in sizes:
            votes = np.zeros((sets, INPUTS), dtype=np.float32)
            np.add.at(votes, (np.arange(sets)[:, None], x[:, :n]), np.where(y[:, :n], 1.0, -1.0))
            # ln P(labels | f) up to what does not depend on f
            likelihood = odds * (votes @ every.T)
            best = likelihood.max(axis=1, keepdims=True)
            own = likelihood[:, target] - best[:, 0]
            rows.append(float((own - np.log(np.exp(likelihood - best) @ w)).mean()))
        regret.append(rows)
        jensen.append([-float(logsumexp(log_w - n * apart)) for n in sizes])
        ball.append([float((n * radius - inside).min()) for n in sizes])
    return {
        "regret": np.array(regret),
        "jensen": np.array(jensen),
        "ball": np.array(ball),
        "weight": -log_w[list(targets)],
    }


def linear_regret(
    data: Source | None, *, seed: int, sizes: Sequence[int], used: int, inputs: int, draws: int
) -> Arrays:
    """Stored run: regret (sizes,) of Bayesian linear regression, prior N(0, I) on `inputs`
    coefficients of which the data excite `used`, noise of variance one, mean over draws of the
    coefficients: ½ E ln det(I + X Xᵀ)."""
    random = np.random.default_rng([seed, used])
    found = np.zeros((draws, len(sizes)))
    for i in range(draws):
        x = np.zeros((max(sizes), inputs))
        x[:, :used] = random.standard_normal((max(sizes), used))
        for j, n in enumerate(sizes):
            found[i, j] = 0.5 * np.linalg.slogdet(np.eye(inputs) + x[:n].T @ x[:n])[1]
    return {"regret": found.mean(0)}


def chains(
    data: Source | None,
    *,
    seed: int,
    target: int,
    n: int,
    delta: float,
    hidden: int,
    chains: int,
    rate: float,
    steps: int,
    nets: int,
) -> Arrays:
    """Stored run: networks (4, hidden, 1) with labels of probability sigmoid(3 f), by Langevin
    chains and by the same descent without noise, against the exact mixture.

    target : a function, or -1 for one drawn from the prior with its own probabilities.

    Log-losses on fresh labels, mean over the 16 inputs, in nats: exact (importance sampling of
    `nets` prior networks; `effective` is their effective number), langevin and ascent (averaged
    predictions of the chains), langevin_one, ascent_one (mean of single chains), truth.
    """
    random = np.random.default_rng([seed, n, hidden])
    if target < 0:
        truth = expit(3.0 * _outputs(_networks(random, hidden, 1, scaled=True))[0].astype(float))
    else:
        truth = delta + (1.0 - 2.0 * delta) * bits_of([target])[0].astype(float)
    x = random.integers(0, INPUTS, n)
    y = random.random(n) < truth[x]
    ones, zeros = (np.bincount(x[y == v], minlength=INPUTS).astype(float) for v in (True, False))
    logits = 3.0 * _outputs(_networks(random, hidden, nets, scaled=True)).astype(float)
    prior = expit(logits)
    evidence = log_expit(logits) @ ones + log_expit(-logits) @ zeros
    share = np.exp(evidence - logsumexp(evidence))
    out = {"exact": _loss(share @ prior, truth), "effective": 1.0 / np.square(share).sum()}
    start = [w.astype(float) for w in _networks(random, hidden, chains, scaled=True)]
    for name, noisy in (("langevin", True), ("ascent", False)):
        state = _descend(random, [w.copy() for w in start], ones, zeros, rate, steps, noisy=noisy)
        found = expit(3.0 * _outputs(tuple(state)))
        out[name] = _loss(found.mean(0), truth)
        out[f"{name}_one"] = float(np.mean([_loss(one, truth) for one in found]))
    out["truth"] = _loss(truth, truth)
    return {name: np.array(value) for name, value in out.items()}


def _loss(predicted: np.ndarray, truth: np.ndarray) -> float:
    predicted = np.clip(predicted, 1e-12, 1 - 1e-12)
    return float(-(truth * np.log(predicted) + (1 - truth) * np.log1p(-predicted)).mean())


def _descend(
    random: np.random.Generator, state: list[np.ndarray], ones: np.ndarray, zeros: np.ndarray,
    rate: float, steps: int, *, noisy: bool, decay: float = 1.0,
) -> list[np.ndarray]:  # fmt: skip
    """Steps of θ - (rate/2) ∇U + √rate ξ for every network, U = -decay ln prior - ln likelihood."""
    hidden = state[0].shape[1]
    precision = [decay * k for k in (4.0, 4.0, hidden, 4.0)]  # of the prior, as in `_networks`
    for _ in range(steps):
        first, bias, last, shift = state
        before = first @ SIGNS.T + bias[..., None]
        active = np.maximum(before, 0)
        p = expit(3.0 * ((last[:, None] @ active)[:, 0] + shift[:, None]))
        back = 3.0 * (p * (ones + zeros) - ones)  # of -ln likelihood by the output
        inner = last[..., None] * back[:, None] * (before > 0)
        slopes = (inner @ SIGNS, inner.sum(-1), (active @ back[..., None])[..., 0], back.sum(-1))
        state = [
            w - 0.5 * rate * (g + k * w)
            + (np.sqrt(rate) * random.standard_normal(w.shape) if noisy else 0.0)
            for w, g, k in zip(state, slopes, precision, strict=True)
        ]  # fmt: skip
    return state
