"""Weighted particles: how many equal ones they are worth, and drawing them anew.

Source: Doucet and Johansen, "A tutorial on particle filtering and smoothing" (2009).
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["effective_size", "systematic"]


def _weights(weights: Any) -> np.ndarray:
    found = np.asarray(weights, dtype=np.float64)
    if found.ndim < 1 or not (np.isfinite(found).all() and (found >= 0).all()):
        raise ValueError("weights must be finite and not negative, particles along the last axis")
    return found


def effective_size(weights: Any) -> np.ndarray:
    """(Σ w)² / Σ w² over the last axis, between 1 and its length; 0 where all weights are 0.

    Raises ValueError for weights that are negative or not finite.
    """
    w = _weights(weights)
    top = w.max(-1, keepdims=True)
    w = w / np.where(top > 0, top, 1.0)  # squares of tiny weights would vanish
    square = (w**2).sum(-1)
    return np.asarray(w.sum(-1) ** 2 / np.where(square > 0, square, 1.0))


def systematic(weights: Any, random: np.random.Generator) -> np.ndarray:
    """Numbers (R, M) of particles drawn anew, from weights (R, M), by one uniform number a row:
    particle m is drawn M w_m / Σ w times on average, and never a whole time more or less.

    Raises ValueError for weights that are negative or not finite, and a row of zeros.
    """
    w = _weights(weights)
    total = w.sum(-1, keepdims=True)
    if w.ndim != 2 or not (total > 0).all():
        raise ValueError(f"weights must be (R, M) with a positive one in each row, got {w.shape}")
    particles = w.shape[1]
    ends = np.cumsum(w / total, axis=1)
    at = (random.random((len(w), 1)) + np.arange(particles)) / particles
    found = (at[:, :, None] >= ends[:, None, :]).sum(-1)
    last = particles - 1 - (w[:, ::-1] > 0).argmax(1)  # rounding may leave the ends below 1
    return np.asarray(np.minimum(found, last[:, None]))
