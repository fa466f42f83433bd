"""Few bits for trained weights: 8-bit formats, the rate of quantised weights, and DeepShape.

Of arXiv 2506.00486: RF8 writes a weight as one or two signed powers of two; DeepShape gives the
sorted weights the quantiles of a narrower generalised Gaussian law. The rate of weights is what
their values cost after rounding to a grid: entropy, exp-Golomb code of frequency ranks, Huffman
code, or a fixed length.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import gennorm
from torch import Tensor

from rclib.stats.generalized_gaussian import GeneralizedGaussian, fit

__all__ = [
    "deepshape",
    "entropy_bits",
    "exp_golomb_bits",
    "fixed_bits",
    "huffman_bits",
    "relative_error",
    "to_e4m3",
    "to_int8",
    "to_rf8",
]

RF8_SPAN = 4  # the second power is kept within this many binary places of the first
CLOSEST = 1e-6  # outermost quantiles of DeepShape's target


def to_rf8(w: Tensor) -> Tensor:
    """Nearest power of two in log scale plus that of what is left; zero stays zero.

    a = ±2^e1 with e1 = round(log2 |w|), b the same of w - a, which is dropped if e1 - e2 > 4.
    Bits of the exponents are not counted: their range in the paper was not read.
    """
    a = _power(w)
    rest = w - a
    b = _power(rest)
    near = (b != 0) & (a.abs() <= b.abs() * 2.0**RF8_SPAN)
    return a + torch.where(near, b, torch.zeros_like(b))


def _power(w: Tensor) -> Tensor:
    size = w.double().abs()
    e = torch.round(torch.log2(size.clamp_min(1e-300)))
    found: Tensor = torch.where(size > 0, torch.sign(w.double()) * 2.0**e, size).to(w.dtype)
    return found


def to_e4m3(w: Tensor) -> Tensor:
    """8-bit floating numbers of 4 exponent and 3 mantissa bits (torch.float8_e4m3fn), no scale."""
    return w.to(torch.float8_e4m3fn).to(w.dtype)


def to_int8(w: Tensor) -> Tensor:
    """Whole multiples of largest |w| / 127, per tensor; w unchanged if all of it is zero."""
    step = w.abs().max() / 127
    return torch.where(step > 0, torch.round(w / step.clamp_min(1e-38)) * step, w)


def relative_error(w: Tensor, found: Tensor) -> float:
    """Root mean square of what a format changes, over that of the weights."""
    w = w.double()
    return float((found.double() - w).norm() / w.norm())


def _counts(w: Tensor, step: float) -> NDArray[np.int64]:
    """How often each value occurs after rounding to multiples of `step`, most frequent first."""
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"step must be positive and finite, got {step!r}")
    values = np.rint(w.detach().double().numpy() / step).astype(np.int64)
    counts = np.unique(values, return_counts=True)[1]
    return np.sort(counts)[::-1]


def entropy_bits(w: Tensor, step: float) -> float:
    """Bits a weight, entropy of the values after rounding to multiples of `step`.

    Raises ValueError unless step is positive, as the other rates.
    """
    p = _counts(w, step) / w.numel()
    return float(-(p * np.log2(p)).sum())


def exp_golomb_bits(w: Tensor, step: float) -> float:
    """Bits a weight of the order-0 exp-Golomb code of frequency ranks (0 the most frequent)."""
    counts = _counts(w, step)
    lengths = 2 * np.floor(np.log2(np.arange(1, len(counts) + 1))) + 1
    return float((counts * lengths).sum() / w.numel())


def huffman_bits(w: Tensor, step: float) -> float:
    """Bits a weight of the best prefix code of single values, its table not counted."""
    heap = _counts(w, step).tolist()
    if len(heap) == 1:
        return 1.0
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:  # every merge costs its members one bit
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total / w.numel()


def fixed_bits(w: Tensor, step: float) -> float:
    """Bits a weight if all values that occur get words of one length."""
    return float(math.ceil(math.log2(len(_counts(w, step)))) or 1)


def deepshape(w: Tensor, *, shape: float, scale: float) -> tuple[Tensor, GeneralizedGaussian]:
    """Weights with the quantiles of a GG law of shape `shape` ν and scale `scale` β, ranks kept.

    ν and β are those of the law of largest likelihood of w. shape = 1 with scale = s is that law
    shrunk by s. Equal weights stay next to each other. Returns the weights and the target law.

    Raises ValueError for factors that are not positive.
    """
    own = fit(w.detach().double().numpy())
    law = GeneralizedGaussian(shape * own.shape, scale * own.scale)
    flat = w.detach().flatten()
    places = torch.empty(len(flat), dtype=torch.float64)
    order = torch.argsort(flat, stable=True)
    places[order] = (torch.arange(len(flat), dtype=torch.float64) + 0.5) / len(flat)
    inside = places.clamp(CLOSEST, 1 - CLOSEST).numpy()
    values = gennorm.ppf(inside, law.shape, scale=law.scale)
    return torch.from_numpy(values).to(w.dtype).reshape(w.shape), law
