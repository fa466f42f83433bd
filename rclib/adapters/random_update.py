"""Updates of a method that learned nothing: its trained numbers moved at random.

Every trained number of a start gets an independent normal step, all of one size, so far that the
change of W has a given norm. What such an update looks like is the method's form; what a trained
update has beyond it is learning.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rclib.adapters.method import Method, Parts, generator_of
from rclib.checks.arguments import number

__all__ = ["random_update"]


def random_update(method: Method, parts: Parts, norm: float, *, seed: int) -> Tensor:
    """The change (o, i) float64 of W, with ‖change‖ = norm.

    parts : of `Method.start`. The change must be a polynomial of second degree in a common size of
    the steps, as all methods of `rclib.adapters` are: bilinear (low rank) or linear.
    Raises ValueError for a method that trains nothing and for a norm that is not positive.
    """
    if not 0 < number("norm", norm) < math.inf:
        raise ValueError(f"norm must be positive and finite, got {norm!r}")
    if not method.trained:
        raise ValueError(f"method must train something, got {method}")
    generator = generator_of(seed)
    start = {name: t.detach().double() for name, t in parts.items()}
    steps = {
        name: torch.randn(start[name].shape, generator=generator, dtype=torch.float64)
        for name in method.trained
    }
    zero = method.merge(start)
    plus, minus = (
        method.merge({**start, **{n: start[n] + sign * steps[n] for n in steps}}) - zero
        for sign in (1.0, -1.0)
    )
    linear, quadratic = (plus - minus) / 2, (plus + minus) / 2
    size = _size(linear, quadratic, norm)
    return size * linear + size**2 * quadratic


def _size(linear: Tensor, quadratic: Tensor, norm: float) -> float:
    """An e > 0 with ‖e L + e² Q‖ = norm."""
    a, b, c = (
        float((x * y).sum())
        for x, y in ((linear, linear), (linear, quadratic), (quadratic, quadratic))
    )

    def beyond(e: float) -> bool:
        return e * e * (a + 2 * b * e + c * e * e) > norm**2

    low, high = 0.0, 1.0
    while not beyond(high):
        high *= 2
    for _ in range(200):  # halved until two neighbouring numbers are left
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high
