"""What the arms of notebook 83 add to the matrices, and what the sum of blocks gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning.bases import ADAPTED, Task, image_task, text_task
from rclib.experiments.finetuning.loldu import Studied
from rclib.rowcolumn.measure import correlations, mean_vectors
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.spectral.spectra import stable_rank

__all__ = [
    "KEPT",
    "TINY",
    "change_frame",
    "image_inputs",
    "input_frame",
    "neuron_correlation",
    "row_mean_share",
    "spectra",
    "summed_share",
    "text_inputs",
]

KEPT = ("LoRA", "Bone", "no guide", "permuted", "product", "product, permuted", "full")
RTOL = 1e-5  # singular values below it, relative to the largest, are rounding of single precision
_INPUTS: dict[str, Any] = {
    "group": [{"seed": 0}, {"seed": 3}], "size": 4,
    "base": {"width": 8, "batch_size": 16, "steps": 3, "rate": 0.01},
    "task": {"n_train": 20, "n_validation": 8, "n_test": 8},
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "image_inputs": {
        **_INPUTS, "base": {**_INPUTS["base"], "pool": 1, "classes": 5, "n": 30},
        "task": {**_INPUTS["task"], "head_rate": 0.001},
    },
    "text_inputs": {**_INPUTS, "base": {**_INPUTS["base"], "context": 4, "embedding": 2}},
}  # fmt: skip


def row_mean_share(change: Tensor) -> float:
    """Share of ‖ΔW‖² in the means of its rows: i Σ_a m_a² / ‖ΔW‖²; 1/i for independent entries.

    Raises ValueError for a change that is zero.
    """
    total = float(change.square().sum())
    if total == 0:
        raise ValueError("change must not be zero")
    return float(change.mean(1).square().sum()) * change.shape[1] / total


def neuron_correlation(first: Tensor, second: Tensor) -> float:
    """|correlation| over hidden neurons of the row means of the first matrix's change (h, i) with
    the column means of the second's (o, h)."""
    axes = {"first": ("h", "x"), "second": ("y", "h")}
    vectors = mean_vectors({"first": first, "second": second}, axes)
    return abs(float(correlations({"h": vectors["h"]}).matrix[0, 1]))


def _changes(system: Studied, arms: Sequence[str]) -> dict[tuple[str, int], list[Tensor]]:
    return {
        (arm, seed): [torch.from_numpy(run[f"change_{k}"]).double() for k in (0, 1)]
        for (arm, _, seed), run in system.runs.items()
        if arm in arms
    }


def change_frame(system: Studied, arms: Sequence[str] = KEPT) -> pd.DataFrame:
    """arm, seed, and of what training added to the two matrices: rank_1, rank_2 (numerical),
    rank (the smaller share of min(o, i)), stable (mean stable rank), rows_1, rows_2
    (`row_mean_share`), rows (their mean), neurons (`neuron_correlation`)."""
    rows = []
    for (arm, seed), both in _changes(system, arms).items():
        ranks = [int(torch.linalg.matrix_rank(c, rtol=RTOL)) for c in both]
        full = min(r / min(c.shape) for r, c in zip(ranks, both, strict=True))
        stable = float(np.mean([stable_rank(c) for c in both]))
        shares = [row_mean_share(c) for c in both]
        means = (*shares, float(np.mean(shares)))
        rows.append((arm, seed, *ranks, full, stable, *means, neuron_correlation(*both)))
    columns = ["arm", "seed", "rank_1", "rank_2", "rank", "stable", "rows_1", "rows_2", "rows",
               "neurons"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def spectra(system: Studied, arms: Sequence[str] = KEPT) -> pd.DataFrame:
    """arm, place, value: singular values of the second matrix's change over its Frobenius norm,
    geometric mean over seeds; those below `RTOL` times the largest are left out."""
    logs: dict[str, list[np.ndarray]] = {}
    for (arm, _), (_, change) in _changes(system, arms).items():
        values = torch.linalg.svdvals(change / change.norm()).numpy()
        logs.setdefault(arm, []).append(np.log(np.where(values > RTOL * values[0], values, np.nan)))
    rows = [
        (arm, place + 1, float(np.exp(value)))
        for arm, own in logs.items()
        for place, value in enumerate(np.mean(own, axis=0))
        if np.isfinite(value)
    ]
    return pd.DataFrame(rows, columns=["arm", "place", "value"])


# --- what the sum of blocks gets -----------------------------------------------------------------


def summed_share(inputs: Tensor, size: int) -> float:
    """Σ ‖Σ_b x_b‖² / Σ Σ_b ‖x_b‖² over points x (n, i) of i/s blocks: 1 where blocks are unrelated
    and have mean zero, i/s where they are all equal."""
    parts = inputs.double().reshape(len(inputs), -1, size)
    return float(parts.sum(1).square().sum() / parts.square().sum())


def _shares(task: Task, size: int) -> Arrays:
    """shares (S, 2) : `summed_share` of what both matrices get on the training part of the task."""
    x, _ = task.at(task.places["train"])
    t, rows = task.start.tensors, []
    for s, own in enumerate(x):  # one by one: a member has the bits that it has alone
        hidden = torch.relu(own @ t[ADAPTED[0]][s].T + t["layers.0.bias"][s])
        rows.append([summed_share(h, size) for h in (own, hidden)])
    return {"shares": np.array(rows)}


def image_inputs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], base: Mapping[str, Any],
    task: Mapping[str, Any], size: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds: `_shares` on `image_task`, before it is adapted to."""
    return _shares(image_task(data, [int(m["seed"]) for m in group], base=base, task=task), size)


def text_inputs(
    data: TextData, *, group: Sequence[Mapping[str, Any]], base: Mapping[str, Any],
    task: Mapping[str, Any], size: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds: `_shares` on `text_task`, before it is adapted to."""
    return _shares(text_task(data, [int(m["seed"]) for m in group], base=base, task=task), size)


def input_frame(
    data: Dataset | TextData, seeds: Sequence[int], settings: Mapping[str, Any], size: int
) -> pd.DataFrame:
    """seed, layer (1, 2), share: `summed_share` of the inputs of both matrices."""
    shared = {"base": settings["base"], "task": settings["task"], "size": size}
    configs = [{**shared, "seed": s} for s in seeds]
    options: dict[str, Any] = {"members": ["seed"], "group": 32, "data": data}
    if isinstance(data, TextData):
        runs = sweep_stacked(text_inputs, configs, **options, description="inputs")
    else:
        runs = sweep_stacked(image_inputs, configs, **options, description="inputs")
    rows = [
        (seed, layer + 1, float(share))
        for seed, run in zip(seeds, runs, strict=True)
        for layer, share in enumerate(run["shares"])
    ]
    return pd.DataFrame(rows, columns=["seed", "layer", "share"])
