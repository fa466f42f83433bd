"""Stored runs of notebook 80 without training: the factors of pre-trained matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.adapters.diagonal import STARTS, LoLDU, ldu
from rclib.data.images import Dataset
from rclib.experiments.finetuning.bases import ADAPTED, image_bases, old_images, relu_chain
from rclib.runs.store import Arrays

__all__ = ["KINDS", "START_ARMS", "TINY", "cosines", "factor_runs", "residuals", "start_loss"]

KINDS = ("LDU", "SVD")
START_ARMS = STARTS
TINY: dict[str, dict[str, Any]] = {
    "factor_runs": {
        "group": [{"seed": 0}, {"seed": 3}],
        "base": {
            "width": 8, "batch_size": 16, "steps": 3, "rate": 0.01, "pool": 1, "classes": 5,
            "n": 30,
        },
        "ranks": [2, 4, 8], "start_rank": 4,
    }
}  # fmt: skip


def cosines(rows: Tensor) -> Tensor:
    """|cosine| (k, k) between the rows of (k, n)."""
    unit = rows / rows.norm(dim=1, keepdim=True)
    gram: Tensor = unit @ unit.T
    return gram.abs()


def _off_diagonal(gram: Tensor) -> Tensor:
    return gram[~torch.eye(len(gram), dtype=torch.bool)]


def residuals(weight: Tensor, ranks: Sequence[int]) -> tuple[list[float], list[float]]:
    """‖W - its first r terms‖² / ‖W‖² for each r, of the LDU and of the singular decomposition."""
    weight = weight.double()
    found, total = ldu(weight), float(weight.square().sum())
    pivoted = [
        float((weight - (found.left[:, :r] * found.d[:r]) @ found.right[:r]).square().sum()) / total
        for r in ranks
    ]
    values = torch.linalg.svdvals(weight).square()
    return pivoted, [float(values[r:].sum()) / total for r in ranks]


def _shape(weight: Tensor) -> list[float]:
    """Of the columns of L and the rows of U: mean squared cosine of two of them times their
    dimension (random directions: 1), largest |cosine|, condition number."""
    found = ldu(weight)
    parts = [found.left.T, found.right]
    off = [_off_diagonal(cosines(rows)) for rows in parts]
    means = [float(o.square().mean()) * p.shape[1] for o, p in zip(off, parts, strict=True)]
    return [*means, *(float(o.max()) for o in off), *(float(torch.linalg.cond(p)) for p in parts)]


def start_loss(
    tensors: Mapping[str, Tensor], x: Tensor, y: Tensor, method: LoLDU, *, seed: int
) -> float:
    """Loss of one network, with the head that it has, once its matrices are taken apart."""
    merged = {
        name: method.merge(method.start(tensors[name], seed=seed + 1009 * j))
        for j, name in enumerate(ADAPTED)
    }
    own = {**tensors, **merged}
    return float(cross_entropy(relu_chain(own, x, lambda n, h: h @ own[n].T), y))


def factor_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], base: Mapping[str, Any],
    ranks: Sequence[int], start_rank: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds, on the networks of `image_bases`.

    shape (2, 6) : of both matrices, `_shape`. ranks (R,), residual (2, 2, R) : `residuals` by
    layer and `KINDS`, at every r up to k = min(o, i) that divides 32 parts of it, and at `ranks`.
    pivots, singular (2, k) : |d| as pivoting orders them, and singular values. starts (8, 2) :
    the pre-trained network's loss on images that it was pre-trained on, before any update, by start
    of z, broken and repaired, at `start_rank`.
    gram (2, m, m) : `cosines` of every second column of L and row of U of the second matrix.
    """
    seeds = [int(member["seed"]) for member in group]
    found = image_bases(data, seeds, base)
    x, y, places = old_images(data, seeds, base)
    rows: list[dict[str, np.ndarray]] = []
    for s, seed in enumerate(seeds):
        weights = [found.tensors[name][s].double() for name in ADAPTED]
        k = min(min(w.shape) for w in weights)
        every = sorted({*ranks, *range(0, k + 1, max(1, k // 32))})
        second = ldu(weights[1])
        grams = [cosines(rows_)[::2, ::2] for rows_ in (second.left.T, second.right)]
        losses = [
            [
                start_loss(
                    found.member(s),
                    x[places[s, :1000]],
                    y[places[s, :1000]],
                    LoLDU(start_rank, z_start=start, repaired=fixed),
                    seed=seed,
                )
                for fixed in (False, True)
            ]
            for start in START_ARMS
        ]
        rows.append({
            "shape": np.array([_shape(w) for w in weights]),
            "ranks": np.array(every),
            "residual": np.array([residuals(w, every) for w in weights]),
            "pivots": np.stack([ldu(w).d.abs()[:k].numpy() for w in weights]),
            "singular": np.stack([torch.linalg.svdvals(w)[:k].numpy() for w in weights]),
            "starts": np.array(losses),
            "gram": np.stack([gram.float().numpy() for gram in grams]),
        })  # fmt: skip
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
