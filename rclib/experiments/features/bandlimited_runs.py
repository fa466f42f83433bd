"""Stored runs of notebook 70: networks whose hidden weights are frozen in a band.

    f(x) = Σ_l c_l g(a_l · x + b_l),   a_l (m,) and b_l drawn once from [-λ, λ]

Only c is fitted, by ridge regression on n samples (`rclib.stats.ridge`). Of a seed all bands have
the same draws, times λ, so that what differs between them is the band. Source: Li, Sonoda, Cao,
Wang and Liang (ICML 2023); sizes, targets and penalties are chosen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from rclib.checks.arguments import choice
from rclib.checks.arrays import Floats
from rclib.data.images import Dataset
from rclib.rowcolumn.measure import chance_level
from rclib.runs.store import Arrays
from rclib.stats.ridge import ridge_path

__all__ = [
    "ACTIVATIONS", "LAWS", "STEP", "TINY", "activate", "band_run", "draws", "image_run", "points",
    "relu_run", "target", "trained", "trained_run",
]  # fmt: skip

LAWS = ("uniform", "normal", "points")
ACTIVATIONS = ("sigmoid", "relu", "cos")
STEP = 0  # the "frequency" of a step at zero
TINY: dict[str, dict[str, Any]] = {
    "band_run": {
        "seed": 0, "lams": [1.0, 10.0], "widths": [4, 8], "frequencies": [0, 2],
        "penalties": [1e-6, 1e-12], "n": 30, "n_test": 20,
    },
    "relu_run": {
        "seed": 0, "lams": [0.1, 1.0], "width": 6, "frequency": 1, "penalty": 1e-6, "n": 30,
        "n_test": 20,
    },
    "trained_run": {
        "seed": 0, "lam": 1.0, "width": 6, "frequency": 1, "rate": 0.03, "steps": 3,
        "penalty": 1e-6, "n": 30, "n_test": 20,
    },
    "image_run": {
        "seed": 0, "lams": [1.0, 10.0], "width": 12, "penalties": [1e-4, 1e-2], "n": 60,
        "n_test": 30,
    },
}  # fmt: skip


def _stream(seed: int, place: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(place,)))


def points(seed: int, place: int, n: int, inputs: int) -> Floats:
    """n points (n, m), uniform on [-1, 1]^m; more of them begin with the fewer."""
    return _stream(seed, place).uniform(-1.0, 1.0, (n, inputs))


def target(x: Floats, frequency: float) -> Floats:
    """sin(π w x) for x (n, 1), sin(π w x₁) cos(π w x₂) for (n, 2); for w = 0 the sign of x₁: (n,).

    Raises ValueError for more inputs.
    """
    if x.shape[1] > 2:
        raise ValueError(f"x must have one or two inputs, got {x.shape[1]}")
    if frequency == STEP:
        return np.sign(x[:, 0])
    wave = np.sin(np.pi * frequency * x[:, 0])
    return wave if x.shape[1] == 1 else wave * np.cos(np.pi * frequency * x[:, 1])


def draws(seed: int, width: int, inputs: int, *, law: str = "uniform") -> tuple[Floats, Floats]:
    """a (L, m) and b (L,) of the band λ = 1; more units begin with the fewer.

    law : "uniform" on [-1, 1]; "normal" of the same variance 1/3; "points": a uniform and
        b = -a · x with x uniform on the domain, so that each unit bends inside it.
    Raises ValueError for another law.
    """
    choice("law", law, LAWS)
    if law == "normal":
        both = _stream(seed, 1).standard_normal((width, inputs + 1)) / np.sqrt(3.0)
    else:
        both = _stream(seed, 1).uniform(-1.0, 1.0, (width, inputs + 1))
    a, b = both[:, :inputs], both[:, inputs]
    if law == "points":
        b = -np.einsum("li,li->l", a, points(seed, 2, width, inputs))
    return a, b


def activate(z: Floats, activation: str) -> Floats:
    """g of z (any shape): "sigmoid", "relu" or "cos". Raises ValueError for another."""
    choice("activation", activation, ACTIVATIONS)
    if activation == "sigmoid":
        return np.asarray(expit(z))
    return np.maximum(z, 0.0) if activation == "relu" else np.cos(z)


def _samples(seed: int, n: int, n_test: int, inputs: int, frequencies: Sequence[float]) -> Any:
    x, fresh = points(seed, 3, n, inputs), points(seed, 4, n_test, inputs)
    return x, fresh, *(np.stack([target(p, w) for w in frequencies], 1) for p in (x, fresh))


def _relative(found: Floats, wanted: Floats) -> Floats:
    """‖found - wanted‖ / ‖wanted‖ along the points, the last axis but one."""
    return np.asarray(np.sqrt(np.square(found - wanted).sum(-2) / np.square(wanted).sum(-2)))


def band_run(
    data: None, *, seed: int, lams: Sequence[float], widths: Sequence[int],
    frequencies: Sequence[float], penalties: Sequence[float], n: int, n_test: int, inputs: int = 1,
    activation: str = "sigmoid", law: str = "uniform",
) -> Arrays:  # fmt: skip
    """Stored run of a seed: all bands, widths, frequencies and penalties.

    n : samples, or 3 L where that is more. error (bands, widths, frequencies, penalties) :
    relative error on `n_test` fresh points. norm : ‖c‖, likewise. rank (bands, widths) : singular
    values of H above 1e-10 of the largest. eigenvalues (bands, L) : of HᵀH/n for the last width.
    """
    most = max(n, 3 * max(widths))
    x, fresh, ys, wanted = _samples(seed, most, n_test, inputs, frequencies)
    a, b = draws(seed, max(widths), inputs, law=law)
    found: dict[str, list[Any]] = {"error": [], "norm": [], "rank": [], "eigenvalues": []}
    for lam in lams:
        rows: dict[str, list[Any]] = {"error": [], "norm": [], "rank": []}
        for width in widths:
            used = max(n, 3 * width)
            features, others = (
                activate(lam * (p @ a[:width].T + b[:width]), activation) for p in (x[:used], fresh)
            )
            path = ridge_path(features)
            c = path.coefficients(ys[:used], penalties)
            rows["error"].append(_relative(others @ c, wanted).T)
            rows["norm"].append(np.linalg.norm(c, axis=1).T)
            rows["rank"].append(path.rank())
        for name, row in rows.items():
            found[name].append(row)
        found["eigenvalues"].append(np.square(path.values) / used)
    return {name: np.array(values) for name, values in found.items()}


def relu_run(
    data: None, *, seed: int, lams: Sequence[float], width: int, frequency: float, penalty: float,
    n: int, n_test: int,
) -> Arrays:  # fmt: skip
    """Stored run of a seed: ReLU features under another scale of the weights, the penalty times λ².
    Of λ (a, b) the functions fitted are the same for all λ; of (λ a, b) they are not.

    together, alone (bands,) : relative errors with b scaled along and with b on [-1, 1].
    spread () : largest difference between the functions of the first kind, over ‖f‖ (rms).
    """
    x, fresh, ys, wanted = _samples(seed, n, n_test, 1, [frequency])
    a, b = draws(seed, width, 1)
    fits: dict[str, list[Floats]] = {"together": [], "alone": []}
    for lam in lams:
        for name, scale in (("together", lam), ("alone", 1.0)):
            features, others = (np.maximum(lam * p @ a.T + scale * b, 0.0) for p in (x, fresh))
            c = ridge_path(features).coefficients(ys, [lam**2 * penalty])[0]
            fits[name].append(others @ c)
    same = np.stack(fits["together"])
    spread = np.ptp(same, axis=0).max() / np.sqrt(np.square(wanted).mean())
    errors = {name: _relative(np.stack(each), wanted)[:, 0] for name, each in fits.items()}
    return {**errors, "spread": np.array(spread)}


def trained(
    x: Floats, y: Floats, start: Sequence[Floats], *, rate: float, steps: int
) -> tuple[list[Floats], Floats]:
    """a (L, m), b and c (L,) after full-batch Adam (β = 0.9, 0.999, ε = 1e-8) on the mean squared
    error of a sigmoid network, and the losses before each step, (steps,)."""
    now = [np.array(one, dtype=float) for one in start]
    first, second = ([np.zeros_like(one) for one in now] for _ in range(2))
    losses = np.empty(steps)
    for step in range(steps):
        a, b, c = now
        hidden = torch.sigmoid(torch.from_numpy(x @ a.T + b)).numpy()  # four times as fast
        wrong = hidden @ c - y
        losses[step] = np.square(wrong).mean()
        back = (2 / len(y)) * wrong[:, None] * hidden * (1 - hidden) * c
        gradients = [back.T @ x, back.sum(0), (2 / len(y)) * hidden.T @ wrong]
        one, two = 1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)
        for value, g, m, v in zip(now, gradients, first, second, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (np.square(g) - v)
            value -= rate * (m / one) / (np.sqrt(v / two) + 1e-8)
    return now, losses


def trained_run(
    data: None, *, seed: int, lam: float, width: int, frequency: float, rate: float, steps: int,
    penalty: float, n: int, n_test: int,
) -> Arrays:  # fmt: skip
    """Stored run of a seed: all weights trained from a start in the band, then c fitted anew.

    c starts at zero. error (2,), norm (2,) : relative error on fresh points and ‖c‖
    of the ridge fit, before and after the training. largest (2,) : largest |a| or |b|. correlation
    (2,) : |correlation| of a and b before, of a and c after (c as trained). chance () : what that
    stays below in 95 percent of independent draws.
    """
    x, fresh, ys, wanted = _samples(seed, n, n_test, 1, [frequency])
    a, b = draws(seed, width, 1)
    start = [lam * a, lam * b, np.zeros(width)]
    end, _ = trained(x, ys[:, 0], start, rate=rate, steps=steps)
    found: dict[str, list[Any]] = {"error": [], "norm": [], "largest": []}
    for weights, shifts in ((lam * a, lam * b), (end[0], end[1])):
        features, others = (expit(p @ weights.T + shifts) for p in (x, fresh))
        fitted = ridge_path(features).coefficients(ys, [penalty])[0]
        found["error"].append(_relative(others @ fitted, wanted)[0])
        found["norm"].append(np.linalg.norm(fitted))
        found["largest"].append(max(np.abs(weights).max(), np.abs(shifts).max()))
    pairs = ((a[:, 0], b), (end[0][:, 0], end[2]))
    correlation = [abs(np.corrcoef(one, other)[0, 1]) for one, other in pairs]
    chance = chance_level(width)
    return {name: np.array(v) for name, v in found.items()} | {
        "correlation": np.array(correlation), "chance": np.array(chance)
    }  # fmt: skip


def image_run(
    data: Dataset, *, seed: int, lams: Sequence[float], width: int, penalties: Sequence[float],
    n: int, n_test: int,
) -> Arrays:  # fmt: skip
    """Stored run of a seed: a ridge classifier on frozen sigmoid features of images.

    Images are scaled to length one and drawn anew; the penalty is the one of `penalties` with the
    most right on a third of the n images, which are not fitted. accuracy (bands,) : of the
    `n_test` test images. kept (bands,) : place of the penalty.
    """
    used = data.subset(n, n_test, seed=seed)
    x, fresh = (_unit(part.numpy()) for part in (used.x_train, used.x_test))
    labels, wanted = used.y_train.numpy(), used.y_test.numpy()
    a, b = (part.astype(np.float32) for part in draws(seed, width, x.shape[1]))
    projected, others = x @ a.T + b, fresh @ a.T + b
    held = n // 3
    ys = np.eye(data.n_classes)[labels[held:]]
    accuracy, kept = [], []
    for lam in lams:
        features, beside, tested = (
            expit(np.float32(lam) * part).astype(float)
            for part in (projected[held:], projected[:held], others)
        )
        gram, cross = features.T @ features / len(ys), features.T @ (ys - 0.1) / len(ys)
        fits = [cho_solve(cho_factor(gram + eta * np.eye(width)), cross) for eta in penalties]
        right = [float((np.argmax(beside @ c, 1) == labels[:held]).mean()) for c in fits]
        kept.append(int(np.argmax(right)))
        accuracy.append(float((np.argmax(tested @ fits[kept[-1]], 1) == wanted).mean()))
    return {"accuracy": np.array(accuracy), "kept": np.array(kept)}


def _unit(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=1, keepdims=True)
