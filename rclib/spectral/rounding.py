"""What of a spectrum is rounding: numerical rank, and tails that are one value.

Entries are stored with a relative precision eps (2^-23 in float32, 2^-7 in bfloat16), so that a
matrix W is known up to an error E of about eps |W_ij| in each entry. Where W has rank r, the other
singular values are those of E between the two null spaces, of k = h - r and l = d - r dimensions: a
matrix of k x l nearly independent entries, whose largest singular value is about their size times
√k + √l (Bai and Yin 1993; Vershynin, "Introduction to the non-asymptotic analysis of random
matrices", 2010, Theorems 5.31 and 5.32). The rank is the smallest r with

    σ_{r+1} ≤ eps · rms · (√(h - r) + √(d - r))

which for a square matrix is at most (eps rms 2 √n)² on its eigenvalues. Here eps itself stands for
the size of an entry's error: rounding to nearest makes one of at most eps/√12, and sums in float32
before that some more. rms is the root mean square of the entries, weighed by where the null
vectors lie (their squared components): small rows are known as precisely as others, so that a
neuron of weight 1e-9 keeps its eigenvalue, and so does diag(1, 1e-9).

A square matrix of independent entries has its k smallest singular values near k rms/√n, beyond the
bound as soon as k > 4 eps² n. Fewer than 8 values are therefore taken for rounding in float32 and
float64 alone, and if the next one is ten times the bound. A product of long factors that was summed
in float32 has larger errors, up to 32 bounds; a step by a hundred shows where they begin.

`same_value`: singular values are known up to ‖E‖ ≲ eps rms (√h + √d), and up to some float32 steps
of the largest where an orthogonal matrix was computed in it. Values of a tail that differ by less
have no exponent: their logarithms measure rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Precision", "entries_eps", "numerical_rank", "precision", "same_value"]

Floats = NDArray[np.float64]
FEW = 8  # singular values that independent entries may put below the bound by chance
GAP = 10.0  # how far above the bound the next one must lie if they are few
STEP, SUMS = 100.0, 32.0  # errors of long sums in float32: their size, and the step above them
STEPS = 16  # float32 steps that orthogonalising leaves
_EPS32 = 2.0**-23


@dataclass(frozen=True)
class Precision:
    """eps : relative spacing of the entries; rms : their root mean square; shape : (h, d)."""

    eps: float
    rms: float
    shape: tuple[int, int]

    def bound(self) -> float:
        """The largest singular value of the entries' errors."""
        h, d = self.shape
        return self.eps * self.rms * (math.sqrt(h) + math.sqrt(d))


def entries_eps(matrix: Any) -> float | None:
    """Relative spacing of the entries of a tensor or an array by their type; None for float64,
    whole numbers and lists, which are taken as exact."""
    kind = getattr(matrix, "dtype", None)
    if isinstance(kind, torch.dtype):
        narrow = kind.is_floating_point and kind != torch.float64
        return float(torch.finfo(kind).eps) if narrow else None
    if isinstance(kind, np.dtype) and kind.kind == "f" and kind.itemsize < 8:
        return float(np.finfo(kind).eps)
    return None


def precision(matrix: Tensor, *, eps: float | None = None) -> Precision:
    """Of a matrix as it is stored, or known up to a relative `eps` of each entry.

    Entries of float32 or float64 that are all numbers of a narrower type were rounded to that
    and are no more precise.
    """
    found = matrix.dtype
    if eps is None and found in (torch.float32, torch.float64) and matrix.numel():
        for narrow in (torch.bfloat16, torch.float16, torch.float32):
            if narrow != found and bool((matrix.to(narrow).to(found) == matrix).all()):
                found = narrow
                break
    h, d = (int(n) for n in matrix.shape)
    rms = float(torch.linalg.vector_norm(matrix.double())) / math.sqrt(max(1, h * d))
    return Precision(float(torch.finfo(found).eps) if eps is None else eps, rms, (h, d))


def numerical_rank(values: Floats, matrix: Tensor | None, known: Precision) -> int:
    """How many of the eigenvalues are no rounding (module docstring).

    values : eigenvalues of the smaller Gram matrix of `matrix` (h, d), ascending. Without the
    matrix all entries count alike.
    """
    sigma = np.sqrt(values[::-1])
    most = int((sigma > 0).sum())
    rms, squared = known.rms, None
    for _ in range(8):
        found = _rank(sigma, most, known, rms)
        if found == most or matrix is None:
            return found
        squared = _squared_vectors(matrix) if squared is None else squared
        # The candidate stands if the error between its own null spaces is large enough for it.
        weighed = _null_rms(matrix, squared, found)
        if weighed >= 0.99 * rms or _rank(sigma, most, known, weighed) == found:
            return found
        rms = weighed
    return most


def _rank(sigma: Floats, most: int, known: Precision, rms: float) -> int:
    n = len(sigma)
    ranks = np.arange(most)
    h, d = known.shape
    unit = rms * (np.sqrt(h - ranks) + np.sqrt(d - ranks))
    bounds = known.eps * unit
    # Entries of eight bits leave more to chance: 4 eps² n values lie below the bound.
    few = max(FEW, round(8 * known.eps**2 * n))
    above = np.concatenate([[np.inf], sigma[: max(most - 1, 0)]])[:most]
    step = (above >= STEP * sigma[:most]) & (sigma[:most] <= SUMS * _EPS32 * unit)
    clear = (sigma[:most] <= bounds) & (known.eps <= _EPS32) & (above >= GAP * bounds)
    many = (sigma[:most] <= bounds) & (n - ranks >= few)
    found = np.flatnonzero(many | clear | step)
    return int(found[0]) if len(found) else most


def _squared_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Singular vectors, squared: (h, n) and (d, n), the largest singular value first."""
    u, _, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u.square(), vh.T.square()


def _null_rms(matrix: Tensor, squared: tuple[Tensor, Tensor], rank: int) -> float:
    """Root mean square of the entries as the null vectors of both sides weigh them."""
    rows, columns = (1.0 - side[:, :rank].sum(1).clamp(max=1.0) for side in squared)
    total = float(rows.sum() * columns.sum())
    if total <= 0:
        return 0.0
    return math.sqrt(max(0.0, float(rows @ matrix.double().square() @ columns) / total))


def same_value(values: Floats, known: Precision) -> bool:
    """Whether all these eigenvalues (of a tail) are one value up to rounding."""
    if not len(values):
        return False
    low, high = math.sqrt(float(values.min())), math.sqrt(float(values.max()))
    return high - low <= known.bound() + STEPS * _EPS32 * high
