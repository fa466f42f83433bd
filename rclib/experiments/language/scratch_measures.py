"""What notebook 90 measures of its networks: attention to near positions, the table of positions,
the scores that positions alone have, state-space kernels, and what frozen features tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from rclib.checks.arrays import Floats
from rclib.nets import sequence_classifier as nets
from rclib.nets import state_space
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import outliers
from rclib.spectral.spectra import esd, stable_rank

__all__ = [
    "beyond_edge",
    "frozen_accuracy",
    "grid_correlations",
    "largest_kernel",
    "moments_of",
    "near_mass",
    "neighbours",
    "row_column_correlation",
]


def neighbours(length: int) -> Floats:
    """0/1 matrix (L, L) of positions that touch: on a square grid if L is a square above 32, on a
    line otherwise."""
    side = round(length**0.5)
    at = np.arange(length)
    if length > 32 and side * side == length:
        rows, columns = np.divmod(at, side)
    else:
        rows, columns = np.zeros(length, dtype=int), at
    apart = np.abs(rows[:, None] - rows) + np.abs(columns[:, None] - columns)
    return np.asarray(apart == 1, dtype=np.float64)


def near_mass(attention: Any) -> Floats:
    """Mean share of attention (heads, L, L) that goes to neighbours, by head."""
    weights = np.asarray(attention, dtype=np.float64)
    return np.asarray((weights * neighbours(weights.shape[-1])).sum(-1).mean(-1))


def grid_correlations(P: Any, side: int) -> tuple[float, float]:
    """Σ P_i·P_j / Σ |P_i|² over pairs next to each other in a row and in a column of the grid, as
    means over the pairs; P (side², d), centred here."""
    table = np.asarray(P, dtype=np.float64)
    table = (table - table.mean(0)).reshape(side, side, -1)
    power = float(np.square(table).sum(-1).mean())
    along = (table[:, 1:] * table[:, :-1]).sum(-1).mean()
    down = (table[1:] * table[:-1]).sum(-1).mean()
    return float(along) / power, float(down) / power


def beyond_edge(W: Any) -> float:
    """Share of ‖W‖² in eigenvalues of WᵀW beyond the Marchenko-Pastur edge, the noise's variance
    estimated by the median eigenvalue."""
    values = esd(W)
    found = outliers(values, rows=len(W))
    return float(found.values.sum() / values.sum())


def row_column_correlation(W: Any) -> float:
    """Correlation of the row means of a square matrix with its column means."""
    matrix = np.asarray(W, dtype=np.float64)
    return float(np.corrcoef(matrix.mean(1), matrix.mean(0))[0, 1])


def largest_kernel(tensors: Mapping[str, Tensor], block: int, length: int) -> Floats:
    """K_max (L,): the largest |k_h[l]| at lag l over channels h and both directions of a block."""
    layer = {name: tensors[f"{block}.{name}"].double() for name in state_space.MODES}
    return np.asarray(state_space.kernels(layer, length).abs().amax((0, 1)).numpy())


def frozen_accuracy(x: Any, y: Any, x_test: Any, y_test: Any) -> float:
    """Accuracy of logistic regression on features (n, d), standardised by the training set."""
    train, test = (np.asarray(one, dtype=np.float64) for one in (x, x_test))
    mean, scale = train.mean(0), train.std(0) + 1e-9
    model = LogisticRegression(max_iter=300).fit((train - mean) / scale, np.asarray(y))
    return float(np.mean(model.predict((test - mean) / scale) == np.asarray(y_test)))


def moments_of(
    shape: nets.Shape, moments: Sequence[Mapping[str, Tensor]],
    known: Sequence[tuple[Tensor, Tensor]], y: Tensor, y_test: Tensor,
) -> Arrays:  # fmt: skip
    """Measures at each moment (start, after denoising if there was any, end), members first.

    moments : tensors with a first axis of S members. known : features (S, n, d) of training and
    test inputs at all moments but the last.

    frozen (S, moments - 1): accuracy on frozen features. Of state-space models kernels (S, moments,
    blocks, L), see `largest_kernel`. With a table of positions also near (S,
    moments), the largest share of a head's attention to neighbours; attention (S, moments, L, L)
    of that head; grid (S, moments, 2), neighbours' correlation in rows and columns (NaN off a
    grid); table (S, moments), P's share beyond the Marchenko-Pastur edge; scores (S, moments), mean
    over heads of the share of ‖P M Pᵀ‖² in its largest singular value, and rc (S, moments), of the
    correlation of its row and column means.
    """
    members = range(len(y))
    found: dict[str, list[Any]] = {"frozen": [
        [frozen_accuracy(a[s], y[s], b[s], y_test[s]) for a, b in known] for s in members
    ]}  # fmt: skip
    if shape.kind != "transformer":
        found["kernels"] = [
            [
                [
                    largest_kernel({n: one[s] for n, one in tensors.items()}, b, shape.length)
                    for b in range(shape.blocks)
                ]
                for tensors in moments
            ]
            for s in members
        ]
        return {name: np.array(value) for name, value in found.items()}
    side = round(shape.length**0.5)
    square = bool(side * side == shape.length)
    names = ("near", "attention", "grid", "table", "scores", "rc")
    found |= {name: [] for name in names}
    for s in members:
        rows: dict[str, list[Any]] = {name: [] for name in names}
        for tensors in moments:
            own = {name: tensor[s] for name, tensor in tensors.items()}
            with torch.no_grad():
                attention = nets.position_attention(shape, own).numpy()
                scores = nets.position_scores(shape, own).double().numpy()
            mass, P = near_mass(attention), own["P"].double().numpy()
            rows["near"].append(mass.max())
            rows["attention"].append(attention[mass.argmax()])
            rows["grid"].append(grid_correlations(P, side) if square else (np.nan, np.nan))
            rows["table"].append(beyond_edge(P))
            rows["scores"].append(np.mean([1 / stable_rank(one) for one in scores]))
            rows["rc"].append(np.mean([row_column_correlation(one) for one in scores]))
        for name, values in rows.items():
            found[name].append(values)
    return {name: np.array(value) for name, value in found.items()}
