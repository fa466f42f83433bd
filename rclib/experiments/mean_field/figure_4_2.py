"""Figure 4.2: correlation matrices of the mean vectors of a 7-layer mean-field network."""

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
from rclib.stats.slopes import slope

__all__ = ["correlation_table", "correlation_tables", "spread_exponents", "spreads", "train_all"]

Vectors = dict[str, dict[str, Tensor]]
Runs = dict[tuple[str, int, int], dict[int, Vectors]]


def train_all(
    data: Dataset,
    *,
    biases: Mapping[str, Mapping[str, Any]],
    widths: Sequence[int],
    seeds: Sequence[int],
    snapshots: Sequence[int],
    **training: Any,
) -> tuple[Runs, pd.DataFrame]:
    """Train every bias variant, width and seed.

    biases : variant -> {"bias", "bias_init"}; snapshots : epochs to look at, the last ends the
    run. Returns the mean vectors {(variant, width, seed): {epoch: vectors}}, epoch 0 among them,
    and the losses.
    """
    keys = [(b, n, s) for b in biases for n in widths for s in seeds]
    configs = [
        configuration(
            width=n,
            seed=s,
            epochs=max(snapshots),
            snapshots=(0, *snapshots),
            **biases[b],
            **training,
        )
        for b, n, s in keys
    ]
    runs = sweep.run(
        train_mlp,
        configs,
        data=data,
        cost=lambda c: float(c["network"]["width"]) ** 1.5,
        description="training",
    )
    vectors = {
        key: {epoch: _vectors(run, epoch) for epoch in (0, *snapshots)}
        for key, run in zip(keys, runs, strict=True)
    }
    outcome = pd.DataFrame(
        [
            (*key, float(run["test_loss"][0]), float(run["test_loss"][-1]))
            for key, run in zip(keys, runs, strict=True)
        ],
        columns=["bias", "width", "seed", "start_loss", "test_loss"],
    )
    return vectors, outcome


def _vectors(run: Mapping[str, np.ndarray], epoch: int) -> Vectors:
    out: Vectors = {}
    for name, array in run.items():
        if name.startswith(f"{epoch}/mean/"):
            _, _, index, label = name.split("/")
            out.setdefault(index, {})[label] = torch.from_numpy(array)
    return out


def correlation_tables(
    runs: Runs, *, width: int, seed: int
) -> dict[str, tuple[Sequence[str], Sequence[str], np.ndarray]]:
    """Correlation matrices after training, one a bias variant: labels, indices, matrix."""
    out: dict[str, tuple[Sequence[str], Sequence[str], np.ndarray]] = {}
    for (bias, n, s), epochs in runs.items():
        if (n, s) == (width, seed):
            c = measure.correlations(epochs[max(epochs)], width)
            out[bias] = (c.labels, c.indices, c.matrix.numpy())
    return out


def correlation_table(runs: Runs, *, width: int) -> pd.DataFrame:
    """Largest |correlation| with its chance level, before and after training.

    Columns: bias, seed, stage ("start", "end"), index ("h1", ..., or "between" for pairs that
    share no index), value, pair, chance, p_value.
    """
    rows = []
    for (bias, n, seed), epochs in runs.items():
        if n != width:
            continue
        for stage, vectors in (("start", epochs[0]), ("end", epochs[max(epochs)])):
            groups = {i: {i: v} for i, v in vectors.items() if i.startswith("h")}
            for index, group in [*groups.items(), ("between", vectors)]:
                c = measure.correlations(group, width)
                largest = measure.largest_correlation(c, within=index != "between")
                pair = " - ".join(largest.pair)
                row = (bias, seed, stage, index, largest.value, pair, largest.chance)
                rows.append((*row, largest.p_value))
    columns = ["bias", "seed", "stage", "index", "value", "pair", "chance", "p_value"]
    return pd.DataFrame(rows, columns=columns)


def spreads(runs: Runs) -> pd.DataFrame:
    """How far training moves the row means of one layer's neurons apart.

    The standard deviation over neurons of the change of `W{l}.C` (the incoming weights of
    neurons h{l}). Columns: bias, index, width, seed, epoch, spread.
    """
    rows = []
    for (bias, n, seed), epochs in runs.items():
        for epoch, vectors in epochs.items():
            for index, group in vectors.items():
                label = f"W{index[1:]}.C"
                if epoch > 0 and index.startswith("h") and label in group:
                    change = group[label] - epochs[0][index][label]
                    rows.append((bias, index, n, seed, epoch, float(change.std())))
    return pd.DataFrame(rows, columns=["bias", "index", "width", "seed", "epoch", "spread"])


def spread_exponents(spread: pd.DataFrame) -> pd.DataFrame:
    """Log-log slope of `spreads` against the width: bias, index, seed, epoch, exponent."""
    keys = ["bias", "index", "seed", "epoch"]
    rows = [
        (*key, slope(list(group.width), list(group.spread)))
        for key, group in spread.groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows, columns=[*keys, "exponent"])
