"""Figure 4.1: the middle layer of a 3-layer network at the start and after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rclib.data.images import Dataset
from rclib.experiments.mean_field.mlp_runs import configuration, train_mlp
from rclib.rowcolumn import measure
from rclib.runs import sweep

__all__ = ["maps", "relative_changes", "share_curves", "share_rows", "train_all"]

Weights = dict[tuple[str, int], tuple[Tensor, Tensor]]


def train_all(
    data: Dataset,
    *,
    starts: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    epochs: int,
    **training: Any,
) -> tuple[Weights, pd.DataFrame]:
    """Train every parametrisation and seed.

    starts : parametrisation -> initial law. Returns {(parametrisation, seed): (W2(0), W2(T))},
    each (N, N), and the final losses and accuracies.
    """
    keys = [(name, seed) for name in starts for seed in seeds]
    configs = [
        configuration(
            parametrization=name,
            init=dict(starts[name]),
            seed=seed,
            epochs=epochs,
            snapshots=(0, epochs),
            keep=("W2",),
            **training,
        )
        for name, seed in keys
    ]
    runs = sweep.run(train_mlp, configs, data=data, description="training")
    weights = {
        key: (torch.from_numpy(run["0/W2"]), torch.from_numpy(run[f"{epochs}/W2"]))
        for key, run in zip(keys, runs, strict=True)
    }
    outcome = pd.DataFrame(
        [
            (name, seed, float(run["test_loss"][-1]), float(run["test_accuracy"][-1]))
            for (name, seed), run in zip(keys, runs, strict=True)
        ],
        columns=["parametrization", "seed", "test_loss", "test_accuracy"],
    )
    return weights, outcome


def maps(weights: Weights, *, seed: int, most: int = 75) -> dict[str, dict[str, np.ndarray]]:
    """Normalised maps of one seed: start and trained, as they are and sorted.

    Rows and columns are sorted by the leading singular vectors of the trained matrix. The start
    is sorted by the same order: what it shows is what sorting alone would show in noise. Of a
    matrix with more than `most` rows every second, third, ... row and column is there, in the
    order shown: a picture cannot show more, and neurons are exchangeable. Normalised with all
    entries, to tenths of their standard deviation.
    """
    out: dict[str, dict[str, np.ndarray]] = {}
    for (name, s), (start, trained) in weights.items():
        if s != seed:
            continue
        u, _, vt = torch.linalg.svd(trained.double())
        rows, columns = u[:, 0].argsort(), vt[0].argsort()
        every = -(-max(trained.shape) // most)
        shown = {
            "start": measure.heat_map(start),
            "trained": measure.heat_map(trained),
            "start, sorted": measure.heat_map(start, rows=rows, columns=columns),
            "trained, sorted": measure.heat_map(trained, rows=rows, columns=columns),
        }
        out[name] = {k: m[::every, ::every].numpy().round(1) for k, m in shown.items()}
    return out


def share_rows(weights: Weights, *, k: int) -> pd.DataFrame:
    """Share of the squared norm in k leading outer products, for each run.

    Columns: parametrization, seed, `start` (W(0)), `change` (W(T) - W(0)), `trained` (W(T)),
    `chance` (i.i.d. entries), `row_column` (share that row and column means explain of W(T)),
    `relative_change` ‖W(T) - W(0)‖ / ‖W(0)‖.
    """
    rows = []
    for (name, seed), (start, trained) in weights.items():
        at_start = measure.leading_share(start, k)
        rows.append(
            {
                "parametrization": name,
                "seed": seed,
                "start": at_start.value,
                "change": measure.leading_share(trained - start, k).value,
                "trained": measure.leading_share(trained, k).value,
                "chance": at_start.chance,
                "row_column": measure.row_column_share(trained).value,
                "relative_change": float((trained - start).norm() / start.norm()),
            }
        )
    return pd.DataFrame(rows)


def share_curves(weights: Weights) -> pd.DataFrame:
    """Share against the number k of outer products: parametrization, matrix, k, seed, share."""
    rows = []
    for (name, seed), (start, trained) in weights.items():
        matrices = {"start": start, "trained": trained, "change": trained - start}
        for label, w in matrices.items():
            curve = measure.leading_shares(w)
            ks = np.unique(np.geomspace(1, len(curve), 40).astype(int))
            rows += [(name, label, int(k), seed, float(curve[k - 1])) for k in ks]
    return pd.DataFrame(rows, columns=["parametrization", "matrix", "k", "seed", "share"])


def relative_changes(
    data: Dataset,
    *,
    starts: Mapping[str, Mapping[str, Any]],
    widths: Sequence[int],
    seeds: Sequence[int],
    epochs: int,
    **training: Any,
) -> pd.DataFrame:
    """‖W2(T) - W2(0)‖ / ‖W2(0)‖ against the width: parametrization, width, seed, change."""
    rows = []
    for width in widths:
        weights, _ = train_all(
            data, starts=starts, seeds=seeds, epochs=epochs, width=width, **training
        )
        for (name, seed), (start, trained) in weights.items():
            rows.append((name, width, seed, float((trained - start).norm() / start.norm())))
    return pd.DataFrame(rows, columns=["parametrization", "width", "seed", "change"])
