"""Sparse networks that train as well as dense ones, if they keep their starting values.

Frankle and Carbin (arXiv 1803.03635): iterative magnitude pruning with resetting finds a mask m
for which m ⊙ θ0 trains as well as θ0; with fresh starting values the same mask does not. Looked at
are the accuracies of tickets and of their controls (`lottery_runs`), what distinguishes the weights
that survive, and the masks as matrices: degrees of rows and columns, and spectra.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rclib.data.images import Dataset
from rclib.experiments.pruning.lottery_runs import (
    COLUMNS,
    drawn_elsewhere,
    starts_of,
    tickets,
)
from rclib.nets.masks import largest, shuffled
from rclib.rowcolumn.axes import mlp_axes
from rclib.rowcolumn.measure import correlations, mean_vectors
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.spectral.sparse import SparseLaw, entry_cumulants, sparse_law
from rclib.spectral.spectra import esd
from rclib.stats.sequential import interval

__all__ = [
    "MASKS",
    "accuracy_frame",
    "by_seed",
    "convolutional",
    "degree_frame",
    "dispersion_frame",
    "gap",
    "masks_of",
    "shown",
    "shown_spectrum",
    "shown_starts",
    "spike_frame",
    "survivor_frame",
    "sweep_tickets",
]

MASKS = ("learned", "iteration 0", "shuffled")
WEIGHTS = ("W1", "W2", "W3")  # of a fully connected network; the frames of masks are about these
Runs = Mapping[int, Arrays]


def sweep_tickets(data: Dataset, seeds: Sequence[int], *, group: int, **shared: Any) -> Runs:
    """The runs of all seeds, by seed. group : seeds that are computed together."""
    configs = [{"seed": int(seed), **shared} for seed in seeds]
    found = sweep_stacked(
        tickets, configs, data=data, members=["seed"], group=group, description="trials"
    )
    return dict(zip(map(int, seeds), found, strict=True))


def convolutional(
    data: Dataset, seeds: Sequence[int], plan: Mapping[str, Any] | None, **shared: Any
) -> pd.DataFrame | None:
    """`accuracy_frame` of trials with another network; None without a plan, which holds what
    `tickets` takes beside `shared`, and "group"."""
    if plan is None:
        return None
    return accuracy_frame(sweep_tickets(data, seeds, **plan, **shared), plan["arms"])


def accuracy_frame(runs: Runs, arms: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Test accuracy of every network: seed, arm ("ticket", those of `arms`, "fine_tuned"), round,
    left (share of the weights), accuracy, stopped_accuracy, stopped_at (`lottery_runs.COLUMNS`)."""
    rows = []
    for seed, run in runs.items():
        last = len(run["left"]) - 1
        places = {"ticket": range(last + 1), **arms, "fine_tuned": [last]}
        for arm in [arm for arm in places if arm in run]:
            for number, values in zip(places[arm], np.atleast_2d(run[arm]), strict=True):
                rows.append((seed, arm, number, run["left"][number], *values))
    return pd.DataFrame(rows, columns=["seed", "arm", "round", "left", *COLUMNS])


def by_seed(
    frame: pd.DataFrame, arm: str, rounds: Sequence[int], column: str = "accuracy"
) -> pd.Series:
    """Mean over rounds of a column of one arm, by seed."""
    chosen = frame[(frame.arm == arm) & frame["round"].isin(rounds)]
    return chosen.groupby("seed")[column].mean().rename(arm)


def gap(frame: pd.DataFrame, arm: str, other: str, number: int) -> pd.Series:
    """Test accuracy at the end of one arm minus that of another at a round, by seed."""
    both = [by_seed(frame, name, [number]) for name in (arm, other)]
    return (both[0] - both[1]).rename("gap")


def survivor_frame(runs: Runs) -> pd.DataFrame:
    """seed, matrix, size (mean |θ0| of the last ticket's weights over that of the pruned), moved
    (the same for |θ - θ0| of the dense training)."""
    rows = [
        (seed, name, float(run["sizes"][-1, place]), float(run["moved"][place]))
        for seed, run in runs.items()
        for place, name in enumerate(WEIGHTS)
    ]
    return pd.DataFrame(rows, columns=["seed", "matrix", "size", "moved"])


def _start(seed: int, masks: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """θ0 of a trial with masks (1, out, in) of these shapes."""
    inputs, (*widths, classes) = masks["W1"].shape[2], (masks[name].shape[1] for name in WEIGHTS)
    return starts_of({"widths": widths}, [seed], inputs, classes).tensors


def masks_of(seed: int, run: Arrays) -> dict[str, dict[str, Tensor]]:
    """Masks with the last ticket's counts in every matrix: kind of `MASKS` -> name -> (out, in)
    bool; inputs that hardly vary are left out of the first matrix."""
    learned = {name: torch.from_numpy(run[f"mask_{name}"])[None] for name in WEIGHTS}
    found = {
        "learned": learned,
        "iteration 0": largest(_start(seed, learned), like=learned),
        "shuffled": shuffled(learned, [drawn_elsewhere(seed, 2)]),
    }
    varies = torch.from_numpy(run["varies"])
    return {
        kind: {n: m[0][:, varies] if n == "W1" else m[0] for n, m in masks.items()}
        for kind, masks in found.items()
    }


def degree_frame(runs: Runs) -> pd.DataFrame:
    """Correlation over hidden units of the weights that come in and those that go out: seed, mask,
    index ("h1", "h2"), correlation."""
    rows = []
    for seed, run in runs.items():
        for kind, masks in masks_of(seed, run).items():
            vectors = mean_vectors(
                {name: mask.double() for name, mask in masks.items()},
                mlp_axes(len(WEIGHTS), bias=False),
            )
            for index in ("h1", "h2"):
                pair = vectors[index]  # of the matrix that leads to the units, and the next one
                # A layer whose units all have as many weights has no correlation.
                varies = all(float(vector.std()) > 0 for vector in pair.values())
                value = float(correlations({index: pair}).matrix[0, 1]) if varies else 0.0
                rows.append((seed, kind, index, value))
    return pd.DataFrame(rows, columns=["seed", "mask", "index", "correlation"])


def dispersion_frame(runs: Runs) -> pd.DataFrame:
    """Variance of degrees over the binomial one: seed, mask, matrix, incoming (of the units that it
    leads to) and outgoing (of those that it comes from)."""
    rows = []
    for seed, run in runs.items():
        for kind, masks in masks_of(seed, run).items():
            for name, mask in masks.items():
                share, found = float(mask.double().mean()), []
                for axis in (1, 0):
                    degrees = mask.double().sum(axis)
                    found.append(float(degrees.var()) / (mask.shape[axis] * share * (1 - share)))
                rows.append((seed, kind, name, *found))
    return pd.DataFrame(rows, columns=["seed", "mask", "matrix", "incoming", "outgoing"])


def _centred(mask: Tensor, *, degrees: bool) -> np.ndarray:
    """A mask minus its share of ones; or (`degrees`) minus what its row and column sums would give
    at random, each entry in units of its own standard deviation then, without empty rows."""
    values = mask.double().numpy()
    if not degrees:
        return np.asarray(values - values.mean())
    values = values[values.sum(1) > 0][:, values.sum(0) > 0]
    expected = np.outer(values.sum(1), values.sum(0)) / values.sum()
    expected = np.minimum(expected, 0.99)
    return np.asarray((values - expected) / np.sqrt(expected * (1 - expected)))


def spike_frame(runs: Runs) -> pd.DataFrame:
    """Eigenvalues beyond the edge of a sparse matrix of independent entries: seed, mask (or
    "trained ticket", "trained dense"), matrix (all but the last), spikes, and of a mask rest, those
    that are left without what its degrees give."""
    rows = []
    for seed, run in runs.items():
        for name in WEIGHTS[:-1]:
            for kind, masks in masks_of(seed, run).items():
                counts = [_spikes(_centred(masks[name], degrees=d)) for d in (False, True)]
                rows.append((seed, kind, name, *counts))
            columns = run["varies"] if name == "W1" else slice(None)
            for which in ("ticket", "dense"):
                weights = run[f"{which}_{name}"][:, columns].astype(float)
                rows.append((seed, f"trained {which}", name, _spikes(weights), np.nan))
    return pd.DataFrame(rows, columns=["seed", "mask", "matrix", "spikes", "rest"])


def _law(matrix: np.ndarray) -> SparseLaw:
    """The law of sparse matrices with as many rows, columns and such entries."""
    variance, cumulant = entry_cumulants(matrix)
    rows, columns = matrix.shape
    return sparse_law(rows=rows, columns=columns, variance=variance, cumulant=cumulant)


def _spikes(matrix: np.ndarray) -> int:
    return _law(matrix).beyond(esd(matrix))


def shown(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """What a figure shows: arm, round, left, and mean, low, high of a column (95 percent
    t-interval over seeds)."""
    rows = []
    for (arm, number), group in frame.groupby(["arm", "round"], sort=False):
        mean, low, high = interval(group[column].tolist(), 0.05)
        rows.append((arm, number, group.left.mean(), mean, low, high))
    return pd.DataFrame(rows, columns=["arm", "round", "left", "mean", "low", "high"])


def shown_starts(runs: Runs, bins: int) -> pd.DataFrame:
    """Histograms of θ0 in units of its standard deviation, over all seeds: matrix, which ("all",
    "learned", "iteration 0"), value (middle of the bin), density."""
    edges = np.linspace(-4, 4, bins + 1)
    counts: dict[tuple[str, str], np.ndarray] = {}
    for seed, run in runs.items():
        masks = {name: torch.from_numpy(run[f"mask_{name}"])[None] for name in WEIGHTS}
        start = _start(seed, masks)
        early = largest(start, like=masks)
        for name in WEIGHTS:
            scaled = start[name] / (2.0 / sum(start[name].shape[1:])) ** 0.5
            chosen = {"all": scaled, "learned": scaled[masks[name]]}
            chosen["iteration 0"] = scaled[early[name]]
            for which, values in chosen.items():
                found = np.histogram(values.numpy(), edges)[0]
                counts[name, which] = counts.get((name, which), 0) + found
    frames = [
        pd.DataFrame({
            "matrix": name, "which": which, "value": 0.5 * (edges[1:] + edges[:-1]),
            "density": count / (count.sum() * np.diff(edges)),
        })
        for (name, which), count in counts.items()
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def shown_spectrum(runs: Runs, matrix: str, bins: int) -> pd.DataFrame:
    """Histogram of the eigenvalues of the centred masks of all seeds, over the edge of each one's
    sparse law, and the law of one: what (of `MASKS`, or "law"), value (middle of the bin, or
    place), width (of the bin; 0 for the law), density."""
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in MASKS}
    for seed, run in runs.items():
        for kind, masks in masks_of(seed, run).items():
            centred = _centred(masks[matrix], degrees=False)
            law = _law(centred)
            found[kind].append(esd(centred) / law.upper)
    end = max(1.3, *(float(np.max(values)) for values in found.values()))
    edges = np.linspace(0.0, end, bins + 1)
    middle, width = 0.5 * (edges[1:] + edges[:-1]), float(edges[1])
    frames = [
        pd.DataFrame({
            "what": kind, "value": middle, "width": width,
            "density": np.histogram(np.concatenate(values), edges, density=True)[0],
        })
        for kind, values in found.items()
    ]  # fmt: skip
    at = np.linspace(1e-3, 1.02, 2 * bins)
    density = law.density(at * law.upper) * law.upper
    frames.append(pd.DataFrame({"what": "law", "value": at, "width": 0.0, "density": density}))
    return pd.concat(frames, ignore_index=True)
