"""Comparing latent spaces of two networks: relative codes, retrieval, and maps fitted on anchors.

A space is a matrix (T, d), one latent vector a sample; two spaces correspond row by row. The
relative code of z is its cosine similarity to the latents of A anchors,

    r(z)_k = cos(z, E(a_k)),

which scaling and orthogonal maps of the space leave as it is, translations and general linear maps
do not. Source: Moschella et al., ICLR 2023 (arXiv 2209.15430), Section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rclib.checks.arguments import count

__all__ = ["Retrieval", "cka", "explained", "linear_map", "procrustes", "relative", "retrieval"]

Map = Callable[[Tensor], Tensor]


def relative(z: Tensor, anchors: Tensor) -> Tensor:
    """Cosine similarities (T, A) of latents z (T, d) and anchors (A, d)."""
    return normalize(z, dim=-1) @ normalize(anchors, dim=-1).mT


@dataclass(frozen=True)
class Retrieval:
    """How well a row of one space finds its partner in another.

    mrr : mean of 1/rank of the partner by cosine, where the rank counts the similarities that are
    at least the partner's, so ties count against it. cosine : mean of partners. jaccard : mean
    overlap (intersection over union) of the k nearest neighbours of a row and of its partner,
    both looked for in the second space.
    """

    mrr: float
    cosine: float
    jaccard: float


def retrieval(u: Tensor, v: Tensor, *, k: int = 10) -> Retrieval:
    """Rows of u (T, d) looked for among those of v (T, d).

    Raises ValueError for spaces of other shapes, and k below one or above T.
    """
    if u.shape != v.shape or u.ndim != 2:
        raise ValueError(
            f"u and v must have one shape (T, d), got {tuple(u.shape)}, {tuple(v.shape)}"
        )
    if count("k", k) > len(v):
        raise ValueError(f"k must be at most the {len(v)} rows, got {k}")
    there = normalize(v, dim=1)
    found, own = normalize(u, dim=1) @ there.T, there @ there.T
    true = found.diagonal()
    rank = (found >= true[:, None]).sum(1)
    hits = torch.zeros_like(found, dtype=torch.bool).scatter_(1, found.topk(k).indices, True)
    kin = torch.zeros_like(hits).scatter_(1, own.topk(k).indices, True)
    shared = (hits & kin).sum(1).double() / (hits | kin).sum(1)
    return Retrieval(
        float((1.0 / rank.double()).mean()), float(true.double().mean()), float(shared.mean())
    )


def procrustes(source: Tensor, target: Tensor) -> Map:
    """The best z -> s·z Q + c for corresponding rows, Q with orthonormal rows or columns.

    source (A, d), target (A, e); where d and e differ, Q keeps the min(d, e) directions in common.
    Raises ValueError for other numbers of rows.
    """
    start, end = _rows(source, target)
    a, b = source - start, target - end
    left, values, right = torch.linalg.svd(a.mT @ b, full_matrices=False)
    turn = left @ right
    # With d > e some of a's size is lost in the turn, and the scale is that of what is left.
    scale = values.sum() / (a @ turn).square().sum().clamp_min(torch.finfo(a.dtype).tiny)
    return lambda z: scale * ((z - start) @ turn) + end


def linear_map(source: Tensor, target: Tensor) -> Map:
    """The best z -> z M + c for corresponding rows, by least squares; of equally good M the
    smallest. Raises ValueError for other numbers of rows."""
    start, end = _rows(source, target)
    best = torch.linalg.pinv(source - start, rtol=1e-4) @ (target - end)
    return lambda z: (z - start) @ best + end


def _rows(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Means of both. ValueError unless they have equally many rows."""
    if source.ndim != 2 or target.ndim != 2 or len(source) != len(target):
        raise ValueError(
            f"source and target must have equally many rows, got {tuple(source.shape)}, "
            f"{tuple(target.shape)}"
        )
    return source.mean(0), target.mean(0)


def explained(found: Tensor, truth: Tensor) -> float:
    """Share R² of the variance of truth (T, d), over all entries, that `found` explains."""
    off = (found - truth).double().square().sum()
    return float(1.0 - off / (truth - truth.mean(0)).double().square().sum())


def cka(u: Tensor, v: Tensor) -> float:
    """Linear centred kernel alignment of u (T, d) and v (T, e), from 0 to 1.

    Source: Kornblith et al. 2019, Equation 3, with linear kernels.
    """
    a, b = (space.double() - space.double().mean(0) for space in (u, v))
    own = (a.T @ a).norm() * (b.T @ b).norm()
    return float((a.T @ b).square().sum() / own)
