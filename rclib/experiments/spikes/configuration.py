"""One configuration over its steps: histograms and tables for the spectra of paper B.

Histograms are long tables with one row a bin: `left`, `right`, `density` (per unit of the
axis, integral one), ready to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rclib.experiments.spikes.frames import expand, steps_frame, train_all
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import marchenko_pastur, outliers
from rclib.teacher.record import STANDARD

__all__ = ["esd_frames", "joined_bins", "singular_values", "train", "weight_values"]


def train(
    seeds: Sequence[int], *, optimizer: str, rate: float, **setting: Any
) -> tuple[dict[int, Arrays], pd.DataFrame]:
    """The record of every seed and their table of steps (`spikes_runs.steps_frame`)."""
    base = {"quantities": [*STANDARD, "weight_histogram"], **setting}
    configs = expand(base, seed=list(seeds), optimizer=[optimizer], rate=[rate])
    runs = train_all(configs)
    return dict(zip(seeds, runs, strict=True)), steps_frame(configs, runs, keys=["seed"])


def esd_frames(
    run: Arrays, *, rows: int, steps: Sequence[int], bins: int, log: bool, reach: float = 3.0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Histograms of the eigenvalues at chosen steps, and the Marchenko-Pastur law over them.

    log : of log10 of the eigenvalue, over its whole range; otherwise of the eigenvalue up to
    `reach` times the bulk's edge, which a spike may exceed. The law has the variance that the
    median eigenvalue gives. Columns: step, left, right, density, beyond (number of eigenvalues
    outside the drawn range), largest; and step, x, density. Densities are per unit of the axis
    and refer to all eigenvalues.
    """
    bars, curves = [], []
    for step in steps:
        values = run["eigenvalues"][list(run["steps"]).index(step)]
        law = marchenko_pastur(values.size / rows, rows * outliers(values, rows=rows).variance)
        if log:
            axis = np.log10(values[values > 0])
            edges = np.linspace(axis.min(), axis.max() + 1e-9, bins + 1)
            x = np.linspace(np.log10(law.lower), np.log10(law.upper), 400)
            height = law.log10_density(10.0**x)
        else:
            axis = values
            edges = np.linspace(0.0, reach * law.upper, bins + 1)
            x = np.linspace(law.lower, law.upper, 400)
            height = law.density(x)
        counts, _ = np.histogram(axis, edges)
        density = counts / (values.size * np.diff(edges))
        outside = int(values.size - counts.sum())
        bars.append(
            pd.DataFrame(
                {"step": step, "left": edges[:-1], "right": edges[1:], "density": density}
            ).assign(beyond=outside, largest=values[-1])
        )
        curves.append(pd.DataFrame({"step": step, "x": x, "density": height}))
    return pd.concat(bars, ignore_index=True), pd.concat(curves, ignore_index=True)


def weight_values(run: Arrays, *, steps: Sequence[int], fewest: int = 20) -> pd.DataFrame:
    """Histogram of the entries of W at chosen steps: step, value (the bin's middle), density.

    fewest : from the highest bin outwards, bins are joined until this many entries lie in each, so
    that the tails are smooth; what is left over at an end goes to the last one.
    """
    out = []
    for step in steps:
        i = list(run["steps"]).index(step)
        counts, edges = joined_bins(run["weight_counts"][i], run["weight_edges"][i], fewest)
        density = counts / (counts.sum() * np.diff(edges))
        middle = 0.5 * (edges[1:] + edges[:-1])
        out.append(pd.DataFrame({"step": step, "value": middle, "density": density}))
    return pd.concat(out, ignore_index=True)


def joined_bins(
    counts: NDArray[Any], edges: NDArray[Any], fewest: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Counts and edges with neighbouring bins joined until each holds `fewest`, seen from the
    highest bin; empty bins at the ends are left out."""
    seen = np.flatnonzero(counts)
    counts, edges = counts[seen[0] : seen[-1] + 1], edges[seen[0] : seen[-1] + 2]
    top = int(counts.argmax())
    right = top + _cuts(counts[top:], fewest)
    left = top - _cuts(counts[:top][::-1], fewest)[::-1] if top else np.array([0])
    cuts = np.unique(np.concatenate([left, right]))
    return np.add.reduceat(counts, cuts[:-1]), edges[cuts]


def _cuts(counts: NDArray[Any], fewest: int) -> NDArray[Any]:
    """Where to cut, from 0 to the number of bins, so that each piece holds `fewest`."""
    cuts, held = [0], 0
    for i, count in enumerate(counts):
        held += int(count)
        if held >= fewest:
            cuts.append(i + 1)
            held = 0
    if len(cuts) == 1:
        return np.array([0, len(counts)])
    return np.array([*cuts[:-1], len(counts)])


def singular_values(run: Arrays, *, steps: Sequence[int]) -> pd.DataFrame:
    """Singular values of W at chosen steps, the largest first: step, index (from 1), value.

    The first 60 and the last 10, between them indices evenly spaced on a logarithmic axis.
    """
    out = []
    for step in steps:
        values = np.sqrt(run["eigenvalues"][list(run["steps"]).index(step)])[::-1]
        count = values.size
        spaced = np.rint(np.geomspace(1, count, 200)).astype(int)
        ends = (np.arange(1, min(60, count) + 1), np.arange(max(1, count - 9), count + 1))
        index = np.unique(np.concatenate([spaced, *ends]))
        out.append(pd.DataFrame({"step": step, "index": index, "value": values[index - 1]}))
    return pd.concat(out, ignore_index=True)
