"""Stored runs of notebook 71: random-feature attention against a random network, and trained.

Queries and keys are independent, uniform on the unit sphere. Targets, with a unit vector β and a
rotation S of the seed:

    T1_p = (1/N) Σ_i ⟨β, x_i⟩^p        T2_p = (1/N) Σ_i ⟨x_0, x_i⟩^p ⟨β, x_i⟩
    T3_p = as T2_p with ⟨x_0, S x_i⟩   T4 = ⟨β, x_1⟩⟨β, x_2⟩

They have no noise and are standardised. Models, features and kernels are those of
`rclib.nets.random_attention`; they are fitted by ridge regression, the penalty chosen on a third of
the samples and then used on all of them. An error is the mean square on fresh points over the
target's variance there: 1 is what the mean has, 0 the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.checks.arguments import choice
from rclib.checks.arrays import Floats
from rclib.nets.random_attention import (
    attention_kernel,
    augmented,
    head_features,
    mlp_features,
    mlp_kernel,
    query_keys,
)
from rclib.rowcolumn.measure import chance_level
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import outliers
from rclib.stats.ridge import kernel_path

__all__ = [
    "MODELS", "PENALTIES", "TINY", "direction", "heads_run", "layer_run", "sphere", "target",
    "trained_layer_run",
]  # fmt: skip

MODELS = ("RFA", "BRFA", "RFMLP", "RFA kernel", "RFMLP kernel")
PENALTIES = (1e-4, 1e-2, 0.1, 1.0, 100.0)  # over the mean of the kernel's diagonal
TINY: dict[str, dict[str, Any]] = {
    "layer_run": {
        "seed": 0, "d": 3, "keys": 2, "sizes": [12, 24], "n_test": 10, "heads": 6,
        "targets": ["T1_2", "T4"], "models": ["RFA", "BRFA", "RFA kernel", "RFMLP kernel"],
    },
    "heads_run": {
        "seed": 0, "d": 3, "keys": 2, "n": 24, "n_test": 10, "heads": [2, 4],
        "targets": ["T1_2"], "models": ["RFA", "RFMLP"],
    },
    "trained_layer_run": {
        "seed": 0, "d": 3, "keys": 2, "n": 24, "n_test": 10, "heads": 3, "target": "T3_1",
        "rate": 0.01, "steps": 3,
    },
}  # fmt: skip


def _stream(seed: int, place: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(place,)))


def sphere(seed: int, place: int, n: int, keys: int, d: int) -> Floats:
    """Query and keys of n samples, unit vectors, (n, N + 1, d); more begin with the fewer."""
    x = _stream(seed, place).standard_normal((n, keys + 1, d))
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def direction(seed: int, d: int) -> tuple[Floats, Floats]:
    """β (d,), a unit vector, and S (d, d), a rotation or reflection, of a seed."""
    generator = _stream(seed, 3)
    beta = generator.standard_normal(d)
    rotation = np.linalg.qr(generator.standard_normal((d, d)))[0]
    return beta / np.linalg.norm(beta), rotation


def target(name: str, x: Floats, beta: Floats, rotation: Floats) -> Floats:
    """T1_p, T2_p, T3_p or T4 of x (n, N + 1, d), not standardised: (n,).

    Raises ValueError for another name.
    """
    query, keys = x[:, 0], x[:, 1:]
    along = keys @ beta
    if name == "T4":
        return np.asarray(along[:, 0] * along[:, 1])
    kind, _, power = name.partition("_")
    choice("target", kind, ("T1", "T2", "T3"))
    if kind == "T1":
        return np.asarray((along ** int(power)).mean(1))
    turned = keys if kind == "T2" else keys @ rotation.T
    scores = np.einsum("nd,nid->ni", query, turned) ** int(power)
    return np.asarray((scores * along).mean(1))


def _task(seed: int, d: int, keys: int, n: int, n_test: int, names: Sequence[str]) -> Any:
    """x, fresh x (float32), targets (n, T), fresh targets, standardised as the fresh ones are."""
    beta, rotation = direction(seed, d)
    x, fresh = sphere(seed, 4, n, keys, d), sphere(seed, 5, n_test, keys, d)
    y, wanted = (np.stack([target(t, p, beta, rotation) for t in names], 1) for p in (x, fresh))
    mean, scale = wanted.mean(0), wanted.std(0)
    pair = ((x, y), (fresh, wanted))
    return *(p.astype(np.float32) for p, _ in pair), *((t - mean) / scale for _, t in pair)


def _weights(model: str, seed: int, heads: int, d: int) -> Floats:
    return query_keys(seed, heads, d, biased=model == "BRFA")


def _kernels(model: str, x: Floats, fresh: Floats, seed: int, heads: int) -> tuple[Floats, Floats]:
    """Kernel of the samples with each other (n, n), and of fresh points with them (n', n)."""
    choice("model", model, MODELS)
    if model.endswith("kernel"):
        kernel = attention_kernel if model == "RFA kernel" else mlp_kernel
        return kernel(x, x), kernel(fresh, x)
    both = np.concatenate([x, fresh])
    d = x.shape[2]
    if model == "RFMLP":
        blocks: Any = [mlp_features(both, seed, heads * (d + 1))]
    else:
        blocks = head_features(both, _weights(model, seed, heads, d))
    total: Any = np.zeros((len(both), len(x)), np.float32)
    for features in blocks:
        total += features @ features[: len(x)].T
    return np.asarray(total[: len(x)]), np.asarray(total[len(x) :])


def _fitted(kernel: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Coefficients (n, T) of the best penalty of each target, their places (T,) and the means."""
    held = len(y) // 3
    kept = slice(held, None)
    mean = y[kept].mean(0)
    path = kernel_path(kernel[kept, kept]).coefficients(y[kept] - mean, PENALTIES)
    wrong = np.square(kernel[:held, kept] @ path + mean - y[:held]).mean(1)
    places = wrong.argmin(0)
    full = kernel_path(kernel).coefficients(y - y.mean(0), PENALTIES)
    return full[places, :, np.arange(y.shape[1])].T, places, y.mean(0)


def layer_run(
    data: None, *, seed: int, d: int, keys: int, sizes: Sequence[int], n_test: int, heads: int,
    targets: Sequence[str], models: Sequence[str],
) -> Arrays:  # fmt: skip
    """Stored run of a seed: errors of some models over numbers of samples.

    heads : M of "RFA" and "BRFA"; "RFMLP" has M (d + 1) units, as many coefficients. error
    (models, sizes, targets). penalty : place of the penalty, likewise. Of the values v_m at the
    last size without the constant's, V (M, d), for models with heads (else NaN), (models, targets):
    share, of VᵀV's largest eigenvalue in its trace; beyond, that eigenvalue over the edge that a
    bulk of Marchenko and Pastur would have; cosine, |cosine| of its vector with β.
    """
    x, fresh, y, wanted = _task(seed, d, keys, max(sizes), n_test, targets)
    found: dict[str, list[Any]] = {
        name: [] for name in ("error", "penalty", "share", "beyond", "cosine")
    }
    for model in models:
        kernel, beside = _kernels(model, x, fresh, seed, heads)
        errors, penalties = [], []
        for n in sizes:
            a, places, mean = _fitted(kernel[:n, :n], y[:n])
            errors.append(np.square(beside[:, :n] @ a + mean - wanted).mean(0))
            penalties.append(places)
        spikes = np.full((3, len(targets)), np.nan)
        if model in ("RFA", "BRFA"):
            weights = _weights(model, seed, heads, d)
            blocks = [block.T @ a for block in head_features(x[: sizes[-1]], weights)]
            values = np.concatenate(blocks).reshape(heads, d + 1, len(targets))[:, :-1]
            spikes = np.stack(
                [_spike(v, direction(seed, d)[0]) for v in values.transpose(2, 0, 1)], 1
            )
        for name, value in zip(found, (errors, penalties, *spikes), strict=True):
            found[name].append(value)
    return {name: np.array(values) for name, values in found.items()}


def _spike(values: Floats, beta: Floats) -> Floats:
    """share, beyond and cosine of V (M, d), (3,).

    The constant's coordinate of x̃ is d times as large as the others are on average, and so is what
    noise leaves in its values: it would be a spike for every target.
    """
    eigenvalues, vectors = np.linalg.eigh(values.T @ values)
    bulk = outliers(np.maximum(eigenvalues, 0.0), rows=len(values))
    share = eigenvalues[-1] / eigenvalues.sum()
    return np.array([share, eigenvalues[-1] / bulk.edge, abs(vectors[:, -1] @ beta)])


def heads_run(
    data: None, *, seed: int, d: int, keys: int, n: int, n_test: int, heads: Sequence[int],
    targets: Sequence[str], models: Sequence[str],
) -> Arrays:  # fmt: skip
    """Stored run of a seed: errors over numbers of heads, M (d + 1) coefficients each.

    error (models, heads, targets).
    """
    x, fresh, y, wanted = _task(seed, d, keys, n, n_test, targets)
    errors = np.empty((len(models), len(heads), len(targets)))
    for place, model in enumerate(models):
        for row, number in enumerate(heads):
            kernel, beside = _kernels(model, x, fresh, seed, number)
            a, _, mean = _fitted(kernel, y)
            errors[place, row] = np.square(beside @ a + mean - wanted).mean(0)
    return {"error": errors}


def _output(x: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """f of the augmented x (n, N + 1, d + 1) for W (M, d + 1, d + 1) and V (M, d + 1): (n,)."""
    query, keys = x[:, 0], x[:, 1:]
    scores = torch.relu(torch.einsum("na,mab,nib->nmi", query, weights, keys))
    return (scores * (values @ keys.transpose(1, 2))).sum((1, 2)) / keys.shape[1]


def trained_layer_run(
    data: None, *, seed: int, d: int, keys: int, n: int, n_test: int, heads: int, target: str,
    rate: float, steps: int,
) -> Arrays:  # fmt: skip
    """Stored run of a seed: the layer with W_m and v_m trained from RFA's start, full-batch Adam on
    the mean square, v_m from zero, over √M; the best of ten moments on a third of the samples.

    error (2,) : of the frozen layer (as `layer_run`) and of the trained one. aligned (2,) : mean
    over heads of |cosine| of W_m with the identity (T3: with S) in the d coordinates, at the start
    and of the change. tied (2,) : share of heads whose row means correlate with the column means
    beyond the 95 percent level of independent ones, at start and end.
    """
    x, fresh, y, wanted = _task(seed, d, keys, n, n_test, [target])
    kernel, beside = _kernels("RFA", x, fresh, seed, heads)
    a, _, mean = _fitted(kernel, y)
    frozen = np.square(beside @ a + mean - wanted).mean()
    start = query_keys(seed, heads, d)
    weights = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    values = torch.zeros(heads, d + 1, requires_grad=True)
    inputs, others = (torch.from_numpy(augmented(p)) for p in (x, fresh))
    labels = torch.from_numpy(y[:, 0].astype(np.float32))
    held, scale = n // 3, 1 / heads**0.5
    optimizer = torch.optim.Adam([weights, values], lr=rate)
    best, error, end = np.inf, np.nan, start
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = (scale * _output(inputs[held:], weights, values) - labels[held:]).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % max(1, steps // 10) == 0:
            with torch.no_grad():
                beside_it, tested = (
                    scale * _output(p, weights, values) for p in (inputs[:held], others)
                )
            wrong = float((beside_it - labels[:held]).square().mean())
            if wrong < best:
                best, end = wrong, weights.detach().numpy().astype(float)
                error = float(np.square(tested.numpy() - wanted[:, 0]).mean())
    mold = direction(seed, d)[1] if target.startswith("T3") else np.eye(d)
    aligned = [_aligned(part, mold) for part in (start, end - start)]
    return {
        "error": np.array([frozen, error]), "aligned": np.array(aligned),
        "tied": np.array([_tied(part) for part in (start, end)]),
    }  # fmt: skip


def _aligned(weights: Floats, mold: Floats) -> float:
    """Mean |cosine| of W_m (M, d + 1, d + 1), without the constant's row and column, and (d, d)."""
    inner = weights[:, :-1, :-1]
    norms = np.sqrt(np.square(inner).sum((1, 2)) * np.square(mold).sum())
    return float(np.abs((inner * mold).sum((1, 2)) / np.maximum(norms, 1e-30)).mean())


def _tied(weights: Floats) -> float:
    """Share of heads whose row and column means correlate beyond chance."""
    pairs = zip(weights.mean(2), weights.mean(1), strict=True)
    found = np.array([abs(np.corrcoef(one, other)[0, 1]) for one, other in pairs])
    return float((found > chance_level(weights.shape[1])).mean())
