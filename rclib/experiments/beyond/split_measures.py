"""What is measured on a trained matrix that was split into start, row-column part and rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rclib.checks.arrays import Floats
from rclib.runs.store import Arrays
from rclib.spectral import spectra
from rclib.spectral.heavy_tails import tail_shape
from rclib.spectral.power_law import METHODS, power_law
from rclib.spectral.random_matrix import outliers
from rclib.spectral.split import ownership, predicted_spikes, split_regression, split_svd

__all__ = ["MATRICES", "measures"]

# What is left of W: all of it, W(0), without the part (by SVD, by variables), the part on W(0).
MATRICES = ("whole", "start", "without", "without_variables", "part")


def measures(
    W: Floats,
    start: Floats,
    *,
    variance: float,
    rows: Floats,
    columns: Floats,
    early: Sequence[int],
    products: int,
    ranks: Sequence[int],
    seed: int,
) -> tuple[Arrays, dict[str, Floats]]:
    """Arrays of one trained matrix W (h, d), and the `MATRICES` (h, d) behind them.

    variance : of the entries of W(0), by its law. rows (h, p), columns (d, q) : variables of the
    neurons, of which the first `early` are of the start.

    eigenvalues, owned (min(h, d),) : of WᵀW, descending, and `ownership` of each by the part (SVD).
    kept (4,) : share of the change in the part by SVD, by all variables, by those of the start, and
        by all variables when the entries of the change are shuffled.
    strengths, predicted, detached (k,), expected (2, k), edge : `predicted_spikes` of the part.
    places (3, k) : leading eigenvalues of W, of W(0) + part, and of W(0) shuffled + part, where
        start and part have nothing in common. overlaps (2, k) : squared length of the leading left
        and right vectors of W in the span of the part's.
    counts (4,) : eigenvalues beyond the bulk as predicted, as found, those found that belong to the
        part (owned > 1/2), and as found in W(0) shuffled + part. alpha (2, 5), tail_ratio (5,) :
        of the `MATRICES`, by Hill and KS. alpha_ranks (R,) : α (Hill) of W without the leading k
        products of the change, for k of `ranks`.
    """
    generator = np.random.default_rng((seed, *W.shape))
    split = split_svd(W, start, products=products)
    tied = split_regression(W, start, rows=rows, columns=columns, products=products)
    first = split_regression(
        W, start, rows=rows[:, : early[0]], columns=columns[:, : early[1]], products=products
    )
    shuffled = generator.permutation((W - start).ravel()).reshape(W.shape)
    none = split_regression(start + shuffled, start, rows=rows, columns=columns, products=products)
    independent = generator.permutation(start.ravel()).reshape(W.shape) + split.row_column
    matrices = {
        "whole": W,
        "start": start,
        "without": start + split.rest,
        "without_variables": start + tied.rest,
        "part": start + split.row_column,
    }
    values = {name: spectra.esd(matrix) for name, matrix in matrices.items()}
    drawn = spectra.esd(independent)
    h, d = W.shape
    law = predicted_spikes(split.strengths, rows=h, columns=d, variance=variance)
    vectors = spectra.singular_vectors(W)
    owned = ownership(vectors, split)
    found, alone = (outliers(v, rows=h, variance=variance).count for v in (values["whole"], drawn))
    deepest = split_svd(W, start, products=max(ranks))
    left = [
        W - (deepest.left[:, :k] * deepest.strengths[:k]) @ deepest.right[:, :k].T for k in ranks
    ]
    overlaps = [
        np.square(part.T @ own[:, :products]).sum(0)
        for part, own in zip((split.left, split.right), vectors, strict=True)
    ]
    arrays = {
        "eigenvalues": values["whole"][::-1][: min(h, d)],
        "owned": owned,
        "kept": np.array([split.kept, tied.kept, first.kept, none.kept]),
        "strengths": split.strengths,
        "predicted": law.eigenvalues,
        "detached": law.detached,
        "expected": np.stack([law.left, law.right]),
        "edge": np.asarray(law.edge),
        "places": np.stack([v[::-1][:products] for v in (values["whole"], values["part"], drawn)]),
        "overlaps": np.stack(overlaps),
        "counts": np.array([law.number, found, (owned[:found] > 0.5).sum(), alone]),
        "alpha": np.array(
            [[power_law(values[name], how).alpha for name in MATRICES] for how in METHODS]
        ),
        "alpha_ranks": np.array([power_law(spectra.esd(matrix)).alpha for matrix in left]),
        "tail_ratio": np.array([tail_shape(values[name], rows=h).tail_ratio for name in MATRICES]),
    }
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, matrices
