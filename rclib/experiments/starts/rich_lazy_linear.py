"""How lazily a linear network of two layers learns, by the rank of its start.

Liu, Baratin, Cornford, Mihalas, Shea-Brown and Lajoie (arXiv 2310.08513): f(x) = aᵀ W x with white
inputs, W (h, d), a(0) = 0, target βᵀ x with |β| = 1, gradient flow

    da/dt = W g,    dW/dt = a gᵀ,    g = β - Wᵀ a

until |g| is small. Starts of all ranks have one Frobenius norm s. The tangent kernel on white
inputs is M = Wᵀ W + |a|² I; its alignment <M0, Mf> / (|M0| |Mf|) is 1 where learning is lazy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from rclib.checks.arguments import choice, count, number
from rclib.runs.source import Source
from rclib.runs.store import Arrays

__all__ = ["FAMILIES", "TINY", "aligned_solution", "linear_flow", "start_of"]

FAMILIES = ("flat", "truncated", "aligned")
TINY: dict[str, dict[str, Any]] = {
    "linear_flow": {
        "seed": 0, "family": "flat", "rank": 2, "norm": 1.0, "h": 4, "d": 3, "task": 0,
        "left": 1e-2, "most": 50.0,
    },
}  # fmt: skip
Floats = NDArray[np.float64]


def start_of(
    family: str, rank: int, *, norm: float, shape: tuple[int, int], seed: int, beta: Floats
) -> Floats:
    """W0 (h, d) of rank `rank` and Frobenius norm `norm`, from one Gaussian matrix for all ranks.

    family : "flat", equal singular values; "truncated", the largest of the Gaussian matrix, as in
    the paper; "aligned", rank one with the right vector `beta` (d,). Raises ValueError for an
    unknown family, a rank outside 1 ... min(h, d) or a norm that is not positive.
    """
    h, d = shape
    if not 1 <= count("rank", rank) <= min(h, d):
        raise ValueError(f"rank must lie in 1 ... {min(h, d)}, got {rank}")
    if not 0 < number("norm", norm) < np.inf:
        raise ValueError(f"norm must be positive, got {norm}")
    drawn = np.random.default_rng([seed, h, d]).standard_normal((h, d))
    left, s, right = np.linalg.svd(drawn, full_matrices=False)
    choice("family", family, FAMILIES)
    if family == "aligned":
        rank, right = 1, beta[None]
    kept = s[:rank] if family == "truncated" else np.ones(rank)
    w = (left[:, :rank] * kept) @ right[:rank]
    return np.asarray(norm / np.linalg.norm(w) * w)


def linear_flow(
    data: Source | None, *, seed: int, family: str, rank: int, norm: float, h: int, d: int,
    task: int, left: float, most: float,
) -> Arrays:  # fmt: skip
    """Stored run: the flow from one start until |β - Wᵀ a| ≤ `left`, at most to the time `most`.

    task : which β of this seed. kernel (), of M; weights (), |W - W0|; residual (), |g| at the end;
    time (); conserved (), largest |W Wᵀ - a aᵀ - W0 W0ᵀ| at the end, over norm².
    """
    random = np.random.default_rng([seed, 52, task])
    beta = random.standard_normal(d)
    beta /= np.linalg.norm(beta)
    w0 = start_of(family, rank, norm=norm, shape=(h, d), seed=seed, beta=beta)

    def motion(_: float, state: Floats) -> Floats:
        a, w = state[:h], state[h:].reshape(h, d)
        g = beta - w.T @ a
        out = np.empty_like(state)
        np.matmul(w, g, out=out[:h])
        np.multiply(a[:, None], g, out=out[h:].reshape(h, d))
        return out

    def there(_: float, state: Floats) -> float:
        return float(np.linalg.norm(beta - state[h:].reshape(h, d).T @ state[:h]) - left)

    there.terminal = True  # type: ignore[attr-defined]
    begin = np.concatenate([np.zeros(h), w0.ravel()])
    solved = solve_ivp(motion, (0, most), begin, events=there, rtol=1e-7, atol=1e-9)
    a, w = solved.y[:h, -1], solved.y[h:, -1].reshape(h, d)
    first, last = w0.T @ w0, w.T @ w + a @ a * np.eye(d)
    off = w @ w.T - np.outer(a, a) - w0 @ w0.T
    out = {
        "kernel": np.sum(first * last) / (np.linalg.norm(first) * np.linalg.norm(last)),
        "weights": np.linalg.norm(w - w0),
        "residual": np.linalg.norm(beta - w.T @ a),
        "time": solved.t[-1],
        "conserved": np.abs(off).max() / norm**2,
    }
    return {name: np.array(value) for name, value in out.items()}


def aligned_solution(norm: float, *, d: int) -> tuple[float, float]:
    """|W - W0| and the kernel's alignment at the end from the start s u βᵀ, s = `norm`.

    W stays s(t) u βᵀ and a along u, with w² - a² = s² conserved and w a = 1 at the end, so
    w² = (s² + √(s⁴ + 4)) / 2. Derived here; the paper names the case without its numbers.
    """
    s2 = number("norm", norm) ** 2
    w2 = (s2 + np.sqrt(s2**2 + 4.0)) / 2.0
    a2 = 1.0 / w2
    kernel = (w2 + a2) / np.sqrt(d * a2**2 + 2 * a2 * w2 + w2**2)
    return float(np.sqrt(w2) - norm), float(kernel)
