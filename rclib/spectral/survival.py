"""What of a start survives training: the three numbers of series 5, for any start.

    moved       ‖W - W0‖ / ‖W0‖
    share       of ‖W‖² that something of the start explains:
                  start      one multiple of W0 itself, <W, W0>² / (‖W‖² ‖W0‖²)
                  products   its k leading outer products with free coefficients,
                             Σ_i (u_iᵀ W v_i)² / ‖W‖², W0 = Σ_i s_i u_i v_iᵀ
                  spectrum   one multiple of its singular values, in order, with W's own vectors,
                             (Σ_i σ_i s_i)² / (Σ σ_i² Σ s_i²)
    gain        loss gained per step, own start minus plain start

Each share is that of an orthogonal projection (of W, or of its ordered singular values), so it lies
in [0, 1]. Chance, for W (h, d) independent of W0 with isotropic directions: 1 / (h d) for `start`
and k / (h d) for `products`. `spectrum` has no small chance level: all ordered spectra of i.i.d.
matrices of one shape agree, so compare it with that of a plain start of the same shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rclib.checks.arguments import count
from rclib.checks.arrays import Floats, real_array

__all__ = ["Survival", "loss_gain", "survival"]


@dataclass(frozen=True)
class Survival:
    """Numbers of the module's table: moved >= 0, and three shares in [0, 1]."""

    moved: float
    start: float
    products: float
    spectrum: float


def _matrix(name: str, value: ArrayLike) -> Floats:
    matrix = real_array(name, value)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"{name} must be a matrix with entries, got shape {matrix.shape}")
    if not matrix.any():
        raise ValueError(f"{name} must not be zero: its shares are undefined")
    return np.asarray(matrix / np.abs(matrix).max())  # squares neither overflow nor vanish


def survival(end: ArrayLike, start: ArrayLike, *, products: int) -> Survival:
    """How far `end` (h, d) is from `start` (h, d), and what of it the start explains.

    products : k, at most min(h, d). Raises ValueError naming the argument for matrices of different
    shapes, not finite or zero, and for k outside 1 ... min(h, d).
    """
    w, w0 = _matrix("end", end), _matrix("start", start)
    if w.shape != w0.shape:
        raise ValueError(f"end and start must have one shape, got {w.shape} and {w0.shape}")
    if not count("products", products) <= min(w.shape):
        raise ValueError(f"products must be at most {min(w.shape)}, got {products}")
    scale = np.abs(real_array("end", end)).max() / np.abs(real_array("start", start)).max()
    norm, norm0 = float(np.sum(w * w)), float(np.sum(w0 * w0))
    left, s0, right = np.linalg.svd(w0, full_matrices=False)
    along = np.einsum("ik,ij,kj->k", left[:, :products], w, right[:products])
    s = np.linalg.svd(w, compute_uv=False)
    return Survival(
        moved=float(np.linalg.norm(scale * w - w0) / norm0**0.5),
        start=min(1.0, float(np.sum(w * w0)) ** 2 / (norm * norm0)),
        products=min(1.0, float(along @ along) / norm),
        spectrum=min(1.0, float(s @ s0) ** 2 / (norm * norm0)),
    )


def loss_gain(at: ArrayLike, losses: ArrayLike, plain: ArrayLike) -> tuple[float, float]:
    """Loss gained per step by a start and its mean lead, both against a plain start.

    at (T,) : steps done, ascending from any first one; losses, plain (T,) : there.
    The first number is [(l_0 - l_T) - (p_0 - p_T)] / (steps between), positive where the start
    learns faster; it counts a worse loss at the start as something to gain. The second is the area
    between the curves (trapezoids) over the same number of steps, positive where the start's loss
    is lower on average. Curves that diverged (not finite) give NaN.

    Raises ValueError for other shapes, fewer than two moments or `at` that does not ascend.
    """
    steps = real_array("at", at)
    own, other = (np.asarray(curve, dtype=np.float64) for curve in (losses, plain))
    if steps.ndim != 1 or len(steps) < 2 or not np.all(np.diff(steps) > 0):
        raise ValueError("at must ascend and hold at least two moments")
    for name, curve in (("losses", own), ("plain", other)):
        if curve.shape != steps.shape:
            raise ValueError(f"{name} must have the shape {steps.shape} of at, got {curve.shape}")
    if not (np.isfinite(own).all() and np.isfinite(other).all()):
        return float("nan"), float("nan")
    lead, span = other - own, float(steps[-1] - steps[0])
    area = float(np.sum((lead[1:] + lead[:-1]) / 2 * np.diff(steps)))
    return float(lead[-1] - lead[0]) / span, area / span
