"""RC statistics: what a weight tensor knows about its row and column neurons.

For an index (a set of neurons) of an axes table, each tensor that carries the index gives one
vector: its mean over all other axes, one value a neuron. Under the row-column (RC) ansatz of
paper A the vectors of one index are functions of the same neuron variables and correlate;
vectors of different indices are independent. Names follow the paper's Figure 4.4: `.C` is the
mean of each row (over the columns), `.R` the mean of each column (over the rows).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from rclib.checks.arguments import LARGEST, brief, count, flag, mapping, number
from rclib.checks.arrays import real_array
from rclib.checks.tensors import dense_real, safe_scale, with_values
from rclib.rowcolumn.axes import Axes, gamma_sets, index_sizes

__all__ = [
    "Correlations",
    "LargestCorrelation",
    "Share",
    "chance_level",
    "correlations",
    "heat_map",
    "largest_correlation",
    "leading_share",
    "leading_shares",
    "mean_vectors",
    "row_column_share",
]


def mean_vectors(tensors: Mapping[str, Tensor], axes: Axes) -> dict[str, dict[str, Tensor]]:
    """Per-index mean vectors: {index: {label: (N,) float64}}.

    Labels are the tensor's name for vectors, with `.C` (mean of each row) or `.R` (mean of
    each column) for matrices, and `.0`, `.1`, ... (the kept axis) for more axes.
    Source: paper A, Section 4 (Figures 4.2 and 4.4). A tensor that holds NaN gives NaN, which
    `correlations` names. Raises ValueError for an empty table, if tensors and table disagree, for
    complex or sparse tensors and those without entries; TypeError for what is no tensor.
    """
    if not mapping("axes", axes):
        raise ValueError(
            "axes must name the axes of at least one tensor, such as {'W1': ('h1', 'x')}, got none"
        )
    index_sizes(axes, tensors)
    out: dict[str, dict[str, Tensor]] = {}
    for index, places in gamma_sets(axes).items():
        out[index] = {}
        for name, axis in places:
            tensor = dense_real(f"tensor {name!r}", tensors[name])
            if tensor.numel() == 0:
                raise ValueError(f"tensor {name!r} must hold entries, its shape is {tensor.shape}")
            others = [a for a in range(tensor.ndim) if a != axis]
            # Summed in float64: a mean of many entries of order one is of order 1/√N.
            # A copy even where nothing is averaged: changing it must not change the weights.
            full = tensor.to(torch.float64, copy=not others)
            vector = full.mean(dim=others) if others else full
            suffix = "" if tensor.ndim == 1 else f".{'CR'[axis] if tensor.ndim == 2 else axis}"
            out[index][name + suffix] = vector
    return out


@dataclass(frozen=True)
class Correlations:
    """Pearson correlations of K equally long vectors.

    labels : K names; indices : K index names; matrix : (K, K) float64; n : vector length.
    """

    labels: tuple[str, ...]
    indices: tuple[str, ...]
    matrix: Tensor
    n: int


def correlations(vectors: Mapping[str, Mapping[str, Tensor]], n: int | None = None) -> Correlations:
    """Correlation matrix of the mean vectors of all indices with `n` neurons.

    `vectors` is what `mean_vectors` returns; `n` defaults to the most common length. Vectors
    of other lengths are left out, as are constant ones (their correlation is undefined).
    Raises ValueError when nothing is left, and for vectors of more axes, complex, sparse, not
    finite or on the meta device; TypeError for what is no tensor.
    """
    flat = [
        (index, label, with_values(f"vector {label!r}", v))
        for index, group in mapping("vectors", vectors).items()
        for label, v in mapping(f"vectors of {index!r}", group).items()
    ]
    for _, label, vector in flat:
        if vector.ndim != 1:
            raise ValueError(f"vector {label!r} must have one axis, its shape is {vector.shape}")
    if n is None:
        lengths = [len(v) for _, _, v in flat]
        if not lengths:
            raise ValueError("vectors must not be empty")
        n = max(set(lengths), key=lambda length: (lengths.count(length), length))
    n = count("n", n, 0)
    same = [(index, label, safe_scale(v)) for index, label, v in flat if len(v) == n and n > 1]
    chosen = [(index, label, v) for index, label, v in same if _varies(v)]
    if not chosen:
        raise ValueError(f"vectors must hold one that varies over n = {n} neurons, found none")
    stacked = torch.stack([v for _, _, v in chosen])
    centred = stacked - stacked.mean(1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True)
    matrix = (unit @ unit.t()).clamp(-1.0, 1.0).fill_diagonal_(1.0)
    return Correlations(tuple(c[1] for c in chosen), tuple(c[0] for c in chosen), matrix, n)


def _varies(vector: Tensor) -> bool:
    # Rounding alone leaves a constant vector with a spread of a few units in the last place.
    return float(vector.std()) > 1e-12 * (1e-300 + float(vector.abs().max()))


def chance_level(n: float, pairs: float = 1, *, level: float = 0.95) -> float:
    """Value that the largest |correlation| of `pairs` independent pairs stays below.

    For independent Gaussian vectors of length n, t = r √((n-2) / (1-r²)) has Student's law
    with n - 2 degrees of freedom; with M pairs treated as independent the level of one pair is
    level^(1/M) (Šidák). Mean vectors are averages of many entries, hence close to Gaussian.
    Raises ValueError for n < 3, pairs < 1 or level outside (0, 1).
    """
    n, pairs = number("n", n), number("pairs", pairs)
    for name, value, least in (("n", n, 3), ("pairs", pairs, 1)):
        if not least <= value:
            raise ValueError(f"{name} must be at least {least}, got {value:g}")
        if value > LARGEST:
            raise ValueError(f"{name} must be at most 2^53, got {value:g}")
    level = number("level", level)
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    # 1 - level^(1/M), accurate for large M.
    tail = -math.expm1(math.log(level) / pairs)
    t = float(stats.t.isf(tail / 2, n - 2))
    return t / math.sqrt(n - 2 + t * t)


@dataclass(frozen=True)
class LargestCorrelation:
    """Largest |correlation| among K vectors: the value, its pair, and what chance gives."""

    value: float
    pair: tuple[str, str]
    pairs: int
    chance: float  # 95 percent level of the largest of `pairs` independent correlations
    p_value: float  # corrected for the number of pairs (Šidák)


def largest_correlation(c: Correlations, *, within: bool | None = None) -> LargestCorrelation:
    """Largest |correlation| off the diagonal of `c`, with chance level and p-value.

    within : True looks only at pairs that share an index, False only at pairs that do not,
        None at all. Raises ValueError if there is no such pair, TypeError for a `c` that is none.
    """
    if not isinstance(c, Correlations):
        raise TypeError(f"c must be of type Correlations, got {type(c).__name__}")
    within = None if within is None else flag("within", within)
    k = len(c.labels)
    pairs = [
        (i, j)
        for i in range(k)
        for j in range(i + 1, k)
        if within is None or (c.indices[i] == c.indices[j]) == within
    ]
    if not pairs:
        raise ValueError(f"no pair of vectors with within={within} among {list(c.labels)}")
    i, j = max(pairs, key=lambda p: abs(float(c.matrix[p])))
    value = abs(float(c.matrix[i, j]))
    t = value * math.sqrt((c.n - 2) / max(1e-300, 1.0 - value**2))
    single = 2.0 * float(stats.t.sf(t, c.n - 2))
    corrected = -math.expm1(len(pairs) * math.log1p(-min(single, 1.0 - 1e-16)))
    return LargestCorrelation(
        value, (c.labels[i], c.labels[j]), len(pairs), chance_level(c.n, len(pairs)), corrected
    )


def heat_map(w: Tensor, *, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """Normalised values (W - mean) / std of a matrix, optionally with rows and columns reordered.

    rows (m,), columns (n,): permutations. Source: paper A, Figure 4.1. Raises ValueError for
    anything but a matrix with some variation, and for what is no permutation.
    """
    w = _varied(w)
    w = (w - w.mean()) / float(w.std())
    if rows is not None:
        w = w[_permutation("rows", rows, w.shape[0])]
    if columns is not None:
        w = w[:, _permutation("columns", columns, w.shape[1])]
    return w


def _permutation(name: str, order: Tensor, n: int) -> Tensor:
    found = real_array(name, order)
    if not np.array_equal(np.sort(found, axis=None), np.arange(n)) or found.ndim != 1:
        raise ValueError(f"{name} must be a permutation of 0 ... {n - 1}, got {brief(order)}")
    return torch.from_numpy(found).long()


def _matrix(name: str, w: Tensor) -> Tensor:
    """The matrix as float64, at a scale whose squares float64 holds."""
    w = dense_real(name, w)
    if w.ndim != 2 or min(w.shape) < 2:
        raise ValueError(f"{name} must be a matrix of at least 2 x 2, got shape {tuple(w.shape)}")
    return safe_scale(with_values(name, w))


def _varied(w: Tensor) -> Tensor:
    w = _matrix("w", w)
    if not _varies(w):
        raise ValueError("w must vary: all its entries are equal")
    return w


@dataclass(frozen=True)
class Share:
    """A share of variance in [0, 1] and what i.i.d. entries of the same shape would give."""

    value: float
    chance: float


def row_column_share(w: Tensor) -> Share:
    """Share of the variance of W (m, n) that row means and column means explain.

    Two-way analysis of variance without interaction: Σ (r_i + c_j)² / Σ (W_ij - W̄)², with r, c
    the centred row and column means. I.i.d. entries give (m + n - 2) / (m n - 1) on average.
    Raises ValueError for what is no matrix of finite numbers, and for one that does not vary.
    """
    w = _varied(w)
    m, n = w.shape
    centred = w - w.mean()
    explained = n * centred.mean(1).square().sum() + m * centred.mean(0).square().sum()
    total = float(centred.square().sum())
    return Share(float(explained) / total, (m + n - 2) / (m * n - 1))


def leading_share(w: Tensor, k: int) -> Share:
    """Share of ‖W‖² in the k leading outer products, Σ_{i≤k} s_i² / Σ s_i² (s: singular values).

    The chance value is the Marchenko-Pastur share of the k largest of min(m, n) eigenvalues,
    i.e. what a matrix of i.i.d. zero-mean entries gives as m, n grow. Raises ValueError for a k
    outside 1 ... min(m, n), and for a matrix that is zero or not finite.
    """
    m, n = _matrix("w", w).shape
    if isinstance(k, bool) or not isinstance(k, Integral) or not 1 <= k <= min(m, n):
        raise ValueError(f"k must lie in 1 ... {min(m, n)}, got {brief(k)}")
    return Share(float(leading_shares(w)[k - 1]), _marchenko_pastur_share(m, n, k))


def leading_shares(w: Tensor) -> Tensor:
    """`leading_share` for every k = 1 ... min(m, n) of a matrix (m, n), float64.

    Raises ValueError for a matrix that is zero or not finite.
    """
    s2 = torch.linalg.svdvals(_matrix("w", w)).square()
    if not float(s2.sum()) > 0:
        raise ValueError("w must not be zero")
    shares: Tensor = s2.cumsum(0) / s2.sum()
    return shares


@lru_cache(maxsize=4096)
def _marchenko_pastur_share(m: int, n: int, k: int) -> float:
    """E[λ; λ > q] / E[λ] for the Marchenko-Pastur law, q its 1 - k/min(m, n) quantile."""
    ratio = min(m, n) / max(m, n)
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    # λ = mid + half cos θ removes the square-root singularities at both edges.
    theta = torch.linspace(0.0, math.pi, 20_001, dtype=torch.float64)
    lam = (high + low) / 2 + (high - low) / 2 * theta.cos()
    density = (
        (high - low) ** 2 / 4 * theta.sin() ** 2 / (2 * math.pi * ratio * lam.clamp_min(1e-12))
    )
    mass = torch.cumulative_trapezoid(density, theta)
    first = torch.cumulative_trapezoid(density * lam, theta)
    at = int(torch.searchsorted(mass / mass[-1], k / min(m, n)).clamp_max(len(mass) - 1))
    return float(first[at] / first[-1])
