"""Full-batch gradient descent and Adam on one matrix, and the step schedule of the rate.

    gd:    M_t = -η_t G_t
    adam:  m = b1 m + (1 - b1) G,  v = b2 v + (1 - b2) G²,
           M_t = -η_t m / (1 - b1^t) / (√(v / (1 - b2^t)) + ε)

with the step count t from 1. The update M_t is what is added to W_t.

Sources: Kingma and Ba 2015, Algorithm 1; defaults b1 = 0.9, b2 = 0.999, ε = 1e-8 as in
torch.optim.Adam. Schedule: paper B, "learning-rate schedule" (StepLR).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rclib.checks.arguments import brief, choice, number
from rclib.checks.arrays import real_array

__all__ = ["OPTIMIZERS", "Adam", "GradientDescent", "Optimizer", "make_descent", "step_rates"]

OPTIMIZERS = ("gd", "adam")


class GradientDescent:
    """M = -η G."""

    def update(self, gradient: NDArray[Any], rate: float) -> NDArray[Any]:
        """The update M, of the gradient's shape and dtype; the gradient is left as it is.

        Raises ValueError for a gradient that is no array of float32 or float64, or a rate that is
        negative or not finite. A rate beyond the dtype's range gives an infinite update.
        """
        rate = _checked(gradient, rate)
        return np.asarray(gradient.dtype.type(-rate) * gradient)


class Adam:
    """Adam without weight decay. Holds the two moments, which start at zero.

    Raises ValueError for b1 or b2 outside [0, 1) and an eps that is not positive and finite.
    """

    def __init__(self, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> None:
        for name, value in (("b1", b1), ("b2", b2)):
            if not 0 <= number(name, value) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        if not 0 < number("eps", eps) < np.inf:
            raise ValueError(f"eps must be positive, got {eps}")
        self.b1, self.b2, self.eps = b1, b2, eps
        self.steps = 0
        self.first: NDArray[Any] | None = None
        self.second: NDArray[Any] | None = None

    def update(self, gradient: NDArray[Any], rate: float) -> NDArray[Any]:
        """The update M, of the gradient's shape and dtype; the gradient is left as it is.

        Raises ValueError as `GradientDescent.update`, and for a gradient of another shape or dtype
        than the first.
        """
        rate = _checked(gradient, rate)
        real = gradient.dtype.type
        if self.first is None or self.second is None:
            self.first, self.second = np.zeros_like(gradient), np.zeros_like(gradient)
        if (gradient.shape, gradient.dtype) != (self.first.shape, self.first.dtype):
            raise ValueError(
                f"gradient must be {self.first.dtype} of shape {self.first.shape}, as the first "
                f"one, got {gradient.dtype} of shape {gradient.shape}"
            )
        self.steps += 1
        out = np.asarray(gradient * real(1 - self.b1))
        self.first *= real(self.b1)
        self.first += out
        np.multiply(gradient, gradient, out=out)
        out *= real(1 - self.b2)
        self.second *= real(self.b2)
        self.second += out
        np.sqrt(self.second, out=out)
        out /= real(np.sqrt(1 - self.b2**self.steps))
        out += real(self.eps)
        np.divide(self.first, out, out=out)
        out *= real(-rate / (1 - self.b1**self.steps))
        return out


def _checked(gradient: NDArray[Any], rate: float) -> float:
    plain = isinstance(gradient, np.ndarray) and not isinstance(gradient, np.ma.MaskedArray)
    if not plain or gradient.dtype not in (np.float32, np.float64):
        kind = getattr(gradient, "dtype", type(gradient).__name__)
        raise ValueError(f"gradient must be an array of float32 or float64, got {kind}")
    rate = number("rate", rate)
    if not 0 <= rate < np.inf:
        raise ValueError(f"rate must be finite and not negative, got {rate}")
    return rate


Optimizer = GradientDescent | Adam


def make_descent(name: str) -> Optimizer:
    """A fresh optimiser by name, "gd" or "adam". Raises ValueError for another name."""
    choice("optimizer", name, OPTIMIZERS)
    return Adam() if name == "adam" else GradientDescent()


def step_rates(
    rate: float | Sequence[float] | NDArray[Any], steps: int, *, gamma: float = 1.0, every: int = 1
) -> NDArray[np.float64]:
    """Learning rate of each step, (steps,): η_t = rate · γ^⌊t / every⌋ (StepLR), t from 0.

    A sequence of `steps` rates is taken as it is times the decay, for any other schedule.
    Raises ValueError for rates that are negative or not finite, a sequence of another length,
    a γ that is not positive and finite, or counts that are not positive integers.
    """
    for name, value, least in (("steps", steps, 0), ("every", every, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
            raise ValueError(f"{name} must be an integer of at least {least}, got {brief(value)}")
    gamma = number("gamma", gamma)
    if not np.isfinite(gamma) or gamma <= 0:
        raise ValueError(f"gamma must be positive and finite, got {gamma}")
    rates = real_array("rate", rate)
    if rates.ndim and rates.shape != (steps,):
        raise ValueError(f"rate must be one number or {steps} numbers, got shape {rates.shape}")
    bad = rates[rates < 0]
    if bad.size:
        raise ValueError(f"rate must be finite and not negative, got {bad[0]}")
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.asarray(rates * gamma ** (np.arange(steps) // every))
    if not np.isfinite(found).all():
        raise ValueError(f"gamma must be smaller, {gamma} makes rates infinite")
    return found
