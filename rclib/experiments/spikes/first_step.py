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

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rclib.experiments.spikes.teacher_runs import repeat
from rclib.runs.threads import one_thread
from rclib.spectral import spectra
from rclib.spectral.random_matrix import outliers, spike
from rclib.teacher.problem import Problem
from rclib.training.descent import make_descent

__all__ = ["critical_rate", "one_step"]

Floats = NDArray[np.float64]
# Decades searched for the critical rate, and the grid on which it is found.
LOWEST, HIGHEST, CELLS = -4.0, 6.0, 4096
BEYOND = 1.8  # where the search begins, over the transition of noise of variance one
TURNS = 8


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
    problem = repeat(seed, d, h, n, 1, noise)
    names = ("top", "predicted", "detached", "edge", "strength", "variance", "alignment")
    out = {name: np.zeros(len(rates)) for name in names}
    with one_thread():
        update = _first_update(problem, optimizer)
        u = update @ spectra.top_direction(update)[1]  # top left singular vector but for its length
        u /= np.linalg.norm(u)
        start = problem.W0.astype(np.float64)
        for i, rate in enumerate(rates):
            W = start + rate * update
            along = u @ W
            variance = float((np.sum(W * W) - along @ along) / ((h - 1) * d))
            strength = max(float(along @ along) - variance * d, 0.0) ** 0.5
            law = spike(strength, rows=h, columns=d, variance=variance)
            top, v1 = spectra.top_direction(W)
            values = (
                top,
                law.eigenvalue,
                float(law.detached),
                variance * (np.sqrt(h) + np.sqrt(d)) ** 2,
                strength,
                variance,
                spectra.vector_alignment(v1, problem.beta),
            )
            for name, value in zip(names, values, strict=True):
                out[name][i] = value
    return out


def critical_rate(
    data: None, *, seed: int, optimizer: str, d: int, h: int, n: int, noise: float = 0.3
) -> dict[str, Floats]:
    """Smallest rate at which one step puts an eigenvalue beyond the bulk.

    rate (1,): on a grid of log10 η in [-4, 6], of 0.0025 decades; "beyond" as counted by
        `rclib.spectral.random_matrix.outliers` (4 Tracy-Widom scales). NaN if the ends do not
        bracket it.
    predicted (1,): (h d)^(1/4) / σ_1(M), the transition for noise of variance one.
    alignment (1,): of W_1 with β at twice the critical rate.
    """
    problem = repeat(seed, d, h, n, 1, noise)
    with one_thread():
        update, start = _first_update(problem, optimizer), problem.W0.astype(np.float64)

        def excess(cell: int) -> float:
            eigenvalues = spectra.esd(start + 10.0 ** _exponent(cell) * update)
            return float(np.log(eigenvalues[-1] / outliers(eigenvalues, rows=h).threshold))

        predicted = (h * d) ** 0.25 / np.sqrt(spectra.top_direction(update)[0])
        guess = (np.log10(BEYOND * predicted) - LOWEST) * CELLS / (HIGHEST - LOWEST)
        cell = _first_positive(excess, guess=int(np.clip(guess, 1, CELLS - 1)), last=CELLS)
        rate = np.nan if cell is None else 10.0 ** _exponent(cell)
        alignment = (
            np.nan if cell is None else spectra.alignment(start + 2 * rate * update, problem.beta)
        )
    return {
        "rate": np.array([rate]),
        "predicted": np.array([predicted]),
        "alignment": np.array([alignment]),
    }


def _exponent(cell: int) -> float:
    return LOWEST + (HIGHEST - LOWEST) * cell / CELLS


def _first_positive(function: Callable[[int], float], *, guess: int, last: int) -> int | None:
    """The smallest i from 1 to `last` with function(i) > 0, for a function that changes its sign
    once; None where it does not change it between 0 and `last`.

    From the guess outwards until the change is between two places, and between them where the
    straight line through the two smallest values is zero, after some turns halfway.
    """
    low, high, step = guess, guess, max(1, last // 128)
    values = {guess: function(guess)}
    while values[low] > 0:
        if low == 0:
            return None
        high, low, step = low, max(0, low - step), 2 * step
        values[low] = function(low)
    while values[high] <= 0:
        if high == last:
            return None
        low, high, step = high, min(last, high + step), 2 * step
        values[high] = function(high)
    turn = 0
    while high - low > 1:
        (x, f), (y, g) = sorted(values.items(), key=lambda item: abs(item[1]))[:2]
        middle = (low + high) // 2
        if turn < TURNS and f != g:
            middle = int(np.clip(np.ceil(x - f * (y - x) / (g - f)), low + 1, high - 1))
        values[middle] = function(middle)
        low, high = (low, middle) if values[middle] > 0 else (middle, high)
        turn += 1
    return high
