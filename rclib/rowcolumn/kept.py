"""What to keep of a trained matrix, all else being as a random start had it.

A matrix W (m, n) is a spectrum, directions, means of rows and columns, and entries in places. Each
function of `PARTS` keeps one of these and takes the rest from a random matrix W0 of the same shape,
so that a network that is trained on from there tells what that part was worth.

With W = U diag(s) Vᵀ, W0 = U0 diag(s0) V0ᵀ (singular values from large to small, k = min(m, n)):

    directions   U diag(s0) Vᵀ                          what the vectors know
    spectrum     U0 diag(s) V0ᵀ                         what the values know
    leading      W_q + (W0 - W0_q), q = max(1, k // 8)  the q largest pairs replaced by W's
    means        W0 - M0 + M                            M_ij = r_i + c_j - W̄, the row-column part
    no means     W - M + M0
    entries      the entries of W in random places
    sampled      rows and columns of W in random order: the exchangeable law of the matrix (paper A,
                 Definition 3.2) without its ties to other tensors
"""

from __future__ import annotations

import torch
from torch import Tensor

from rclib.checks.arguments import choice

__all__ = ["PARTS", "keep_part", "row_column_part"]

PARTS = ("directions", "spectrum", "leading", "means", "no means", "entries", "sampled")
_LEADING = 8  # one direction in so many is a leading one


def row_column_part(w: Tensor) -> Tensor:
    """M (m, n) of W (m, n): row mean plus column mean minus the mean of all, which is the
    least-squares fit of W by r_i + c_j."""
    found: Tensor = w.mean(1, keepdim=True) + w.mean(0, keepdim=True) - w.mean()
    return found


def keep_part(w: Tensor, start: Tensor, part: str, *, seed: int = 0) -> Tensor:
    """A matrix with one part of W, and the rest of a random start (see the module).

    w, start : (m, n), finite, of one real dtype, which the result has; computed in float64.
    part : one of `PARTS`. seed : of the random places of "entries" and "sampled".

    Raises ValueError for another part, for what is no matrix and for shapes that differ.
    """
    choice("part", part, PARTS)
    for name, value in (("w", w), ("start", start)):
        if value.ndim != 2 or 0 in value.shape:
            raise ValueError(f"{name} must be a matrix, its shape is {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} must be finite")
    if w.shape != start.shape:
        raise ValueError(f"start must have w's shape {tuple(w.shape)}, got {tuple(start.shape)}")
    one, other = w.double(), start.double()
    if part in ("means", "no means"):
        kept, rest = (one, other) if part == "means" else (other, one)
        return (rest - row_column_part(rest) + row_column_part(kept)).to(w.dtype)
    if part in ("entries", "sampled"):
        random = torch.Generator().manual_seed(seed)
        if part == "entries":
            return w.flatten()[torch.randperm(w.numel(), generator=random)].view_as(w)
        rows, columns = (torch.randperm(size, generator=random) for size in w.shape)
        return w[rows][:, columns]
    u, s, v = torch.linalg.svd(one, full_matrices=False)
    u0, s0, v0 = torch.linalg.svd(other, full_matrices=False)
    q = max(1, len(s) // _LEADING)
    found: Tensor = {
        "directions": (u * s0) @ v,
        "spectrum": (u0 * s) @ v0,
        "leading": (u[:, :q] * s[:q]) @ v[:q] + (u0[:, q:] * s0[q:]) @ v0[q:],
    }[part]
    return found.to(w.dtype)
