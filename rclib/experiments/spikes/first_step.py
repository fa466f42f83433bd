"""The first step alone: where its spike sits, and the rate that it takes to make one.

W_1 = W_0 + η M, with the first update M at rate one (for both optimisers it is linear in η).
u, w : top left and right singular vectors of M.

    strength    s² = |u^T W_1|² - v d: what the rank-one term s u w^T must have added along u,
                as noise of variance v alone has |u^T W_0|² ≈ v d
    v           mean square of the entries of W_1 with the direction u taken out
    prediction  `rclib.spectral.random_matrix.spike(s)`: (s² + v d)(s² + v h) / s² beyond the
                transition

The eigenvalue itself is not used in the prediction. Source: Benaych-Georges and Nadakuditi
2012, as in `rclib.spectral.random_matrix`; the setting is paper B's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rclib.spectral import spectra
from rclib.spectral.random_matrix import outliers, spike
from rclib.teacher.problem import Problem, make_problem
from rclib.training.descent import make_descent

__all__ = ["critical_rate", "one_step"]

Floats = NDArray[np.float64]
LOWEST, HIGHEST, HALVINGS = -4.0, 6.0, 12  # decades searched for the critical rate


def _first_update(problem: Problem, optimizer: str) -> Floats:
    _, gradient = problem.first_step
    return np.asarray(make_descent(optimizer).update(gradient, 1.0), dtype=np.float64)


def one_step(
    data: None,
    *,
    seed: int,
    optimizer: str,
    rates: Sequence[float],
    d: int,
    h: int,
    n: int,
    noise: float = 0.3,
) -> dict[str, Floats]:
    """The spike after one step, each array (len(rates),).

    top: largest eigenvalue of W_1^T W_1. predicted: its place by random-matrix theory.
    detached: 1 where theory puts it outside the bulk. edge: of the bulk, of variance v.
    strength: s (0 where s² would be negative). variance: v. alignment: of W_1 with β.
    """
    problem = make_problem(seed, d=d, h=h, n=n, n_test=1, noise=noise)
    names = ("top", "predicted", "detached", "edge", "strength", "variance", "alignment")
    out = {name: np.zeros(len(rates)) for name in names}
    with threadpool_limits(limits=1):
        update = _first_update(problem, optimizer)
        u = update @ spectra.spectrum(update).v1  # the top left singular vector, but for its length
        u /= np.linalg.norm(u)
        start = problem.W0.astype(np.float64)
        for i, rate in enumerate(rates):
            W = start + rate * update
            along = u @ W
            variance = float((np.sum(W * W) - along @ along) / ((h - 1) * d))
            strength = max(float(along @ along) - variance * d, 0.0) ** 0.5
            law = spike(strength, rows=h, columns=d, variance=variance)
            found = spectra.spectrum(W)
            values = (
                found.eigenvalues[-1],
                law.eigenvalue,
                float(law.detached),
                variance * (np.sqrt(h) + np.sqrt(d)) ** 2,
                strength,
                variance,
                spectra.vector_alignment(found.v1, problem.beta),
            )
            for name, value in zip(names, values, strict=True):
                out[name][i] = value
    return out


def critical_rate(
    data: None, *, seed: int, optimizer: str, d: int, h: int, n: int, noise: float = 0.3
) -> dict[str, Floats]:
    """Smallest rate at which one step puts an eigenvalue beyond the bulk.

    rate (1,): by bisection of log10 η in [-4, 6], to 0.0025 decades; "beyond" as counted by
        `rclib.spectral.random_matrix.outliers` (4 Tracy-Widom scales). NaN if the ends do not
        bracket it.
    predicted (1,): (h d)^(1/4) / σ_1(M), the transition for noise of variance one.
    alignment (1,): of W_1 with β at twice the critical rate.
    """
    problem = make_problem(seed, d=d, h=h, n=n, n_test=1, noise=noise)
    with threadpool_limits(limits=1):
        update, start = _first_update(problem, optimizer), problem.W0.astype(np.float64)

        def detached(exponent: float) -> bool:
            W = start + 10.0**exponent * update
            return outliers(spectra.esd(W), rows=h).count > 0

        low, high = LOWEST, HIGHEST
        bracketed = not detached(low) and detached(high)
        for _ in range(HALVINGS if bracketed else 0):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if detached(middle) else (middle, high)
        rate = 10.0**high if bracketed else np.nan
        alignment = (
            spectra.alignment(start + 2 * rate * update, problem.beta) if bracketed else np.nan
        )
        strongest = float(np.sqrt(spectra.esd(update)[-1]))
    return {
        "rate": np.array([rate]),
        "predicted": np.array([(h * d) ** 0.25 / strongest]),
        "alignment": np.array([alignment]),
    }
