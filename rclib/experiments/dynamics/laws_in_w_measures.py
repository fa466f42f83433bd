"""What is looked at in a matrix while a network learns, and what chance gives for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rclib.runs.store import Arrays
from rclib.spectral.power_law import power_law
from rclib.spectral.random_matrix import outliers
from rclib.spectral.spectra import esd

__all__ = ["LEAST_TAIL", "MEASURES", "NULL_DRAWS", "measured", "moments_of", "record"]

MEASURES = ("spikes", "outside", "stable_rank", "alpha", "means", "energies")
NULL_DRAWS = 49
LEAST_TAIL = 10  # `power_law` takes no fewer


def measured(w: np.ndarray, *, variance: float) -> dict[str, float]:
    """`MEASURES` of a matrix W (h, d) whose start had independent entries of `variance`.

    spikes : share of ‖W‖² in eigenvalues of WᵀW beyond the bulk, whose variance is taken from the
    median eigenvalue. outside : the same beyond the edge of the start, so that a matrix which grows
    as a whole is beyond it too. stable_rank :
    ‖W‖² over the largest. alpha : Hill's exponent of the upper half, NaN for fewer than
    `LEAST_TAIL` positive eigenvalues. means, energies : share of the variance of W, and of its
    squares, that row and column means explain, less that of independent entries.
    """
    return {name: float(found[0]) for name, found in _each(w[None], variance=variance).items()}


def _each(stack: np.ndarray, *, variance: float) -> dict[str, np.ndarray]:
    """`measured` of every matrix of a stack (k, h, d): (k,) by name."""
    h, d = stack.shape[1:]
    out = {name: np.empty(len(stack)) for name in MEASURES}
    for i, w in enumerate(stack):
        values = esd(w)
        found, total = outliers(values, rows=h), values.sum()
        # The threshold is proportional to the variance.
        beyond = values[values > found.threshold * (variance / found.variance)]
        tail = np.count_nonzero(values > 0) >= LEAST_TAIL
        out["spikes"][i] = found.values.sum() / total
        out["outside"][i] = beyond.sum() / total
        out["stable_rank"][i] = total / values.max()
        out["alpha"][i] = power_law(values).alpha if tail else np.nan
    for name, own in (("means", stack), ("energies", stack * stack)):
        centred = own - own.mean((1, 2), keepdims=True)
        total = (centred * centred).sum((1, 2))
        if not (total > 0).all():
            raise ValueError(f"stack: the {name} of matrix {int(np.argmin(total))} do not vary")
        rows, columns = centred.mean(2), centred.mean(1)
        explained = d * (rows * rows).sum(1) + h * (columns * columns).sum(1)
        # What `row_column_share` gives for one matrix, and its chance value.
        out[name] = explained / total - (h + d - 2) / (h * d - 1)
    return out


def moments_of(steps: int, moments: int) -> list[int]:
    """Step 0 and about `moments` steps from 1 to `steps`, equally far apart on a logarithm."""
    found = np.geomspace(1, steps, moments).round().astype(int)
    return sorted({0, *map(int, found)})


def record(
    seed: int, times: Sequence[int], progress: ArrayLike, found: Sequence[np.ndarray],
    variance: float,
) -> Arrays:  # fmt: skip
    """What a run stores of matrices (..., h, d), one at every time; several networks are averaged.

    times (T,) : steps done. progress (T,). One array (T,) for each of `MEASURES`, and the same for
    matrices with shuffled entries: shuffled_.... null_... (2,) : mean and standard deviation over
    `NULL_DRAWS` matrices of independent Gaussian entries of `variance`, that of the start.
    """
    random = np.random.default_rng([seed, 66])
    each = [w.reshape(-1, *w.shape[-2:]).astype(float) for w in found]
    mixed = [random.permuted(w.reshape(len(w), -1), axis=1).reshape(w.shape) for w in each]
    draws = variance**0.5 * random.standard_normal((NULL_DRAWS, *each[0].shape[-2:]))
    out = {"times": np.array(times), "progress": np.array(progress, dtype=float)}
    for prefix, matrices in (("", each), ("shuffled_", mixed), ("null_", [draws])):
        tables = [_each(some, variance=variance) for some in matrices]
        for name in MEASURES:
            at = np.array([table[name].mean() for table in tables])
            if prefix == "null_":
                alone = tables[0][name]
                # The mean over several networks is as much steadier.
                at = np.array([alone.mean(), alone.std(ddof=1) / len(each[0]) ** 0.5])
            out[prefix + name] = at
    return out
