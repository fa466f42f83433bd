"""What fine-tuning in notebook 85 writes into the weights: spectra, rows and columns, distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd

from rclib.experiments.finetuning import one_byte_nets as nets
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import marchenko_pastur, outliers
from rclib.spectral.spectra import esd, stable_rank

__all__ = ["eigenvalue_frame", "noise_density", "of_weights", "weights_frame"]

Runs = Mapping[str, Sequence[Arrays]]
INPUTS = 64  # pixels of an image of digits


def weights_frame(runs: Runs, names: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """One row an arm and seed, of the change Δ of the weights: rank (stable rank of ΔW1 over that
    of Gaussian matrices of its shape), spikes (eigenvalues of ΔW1ᵀΔW1 beyond the noise), means
    (correlation over neurons of row means of ΔW1 and column means of ΔW2), columns (root mean
    square of these column means over that of ΔW2), norms (correlation of squared norms of rows and
    columns), distance (|Δ| / |θ| of W1)."""
    rows = []
    for name in names:
        for seed, run in zip(seeds, runs[name], strict=True):
            first, _, second, _ = nets.parts(
                run["end"].astype(float) - run["start"].astype(float), INPUTS
            )
            start = nets.parts(run["start"], INPUTS)[0]
            size = np.sqrt(np.mean(second**2))
            rows.append({
                "arm": name, "seed": seed,
                "rank": stable_rank(first) / _gaussian_rank(first.shape),
                "spikes": outliers(esd(first), rows=len(first)).count,
                "means": _correlation(first.mean(1), second.mean(0)),
                "columns": float(np.sqrt(np.mean(second.mean(0) ** 2)) / size),
                "norms": _correlation((first**2).sum(1), (second**2).sum(0)),
                "distance": float(np.linalg.norm(first) / np.linalg.norm(start)),
            })  # fmt: skip
    return pd.DataFrame(rows)


@cache
def _gaussian_rank(shape: tuple[int, int], draws: int = 200) -> float:
    draw = np.random.default_rng(0)
    return float(np.mean([stable_rank(draw.standard_normal(shape)) for _ in range(draws)]))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def of_weights(frame: pd.DataFrame, arm: str, what: str) -> pd.Series:
    """A column of `weights_frame` by seed."""
    found: pd.Series = frame[frame.arm == arm].set_index("seed")[what]
    return found


def eigenvalue_frame(runs: Runs, names: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """arm, seed, eigenvalue: those of ΔW1ᵀΔW1 that are not zero, over h times the variance of the
    entries of ΔW1 (h, d)."""
    frames = []
    for name in names:
        for seed, run in zip(seeds, runs[name], strict=True):
            change = nets.parts(run["end"].astype(float) - run["start"].astype(float), INPUTS)[0]
            values = esd(change)
            values = values[values > 0] / (len(change) * np.mean(change**2))
            frames.append(pd.DataFrame({"arm": name, "seed": seed, "eigenvalue": values}))
    return pd.concat(frames, ignore_index=True)


def noise_density(hidden: int, points: int = 200) -> pd.DataFrame:
    """x, density of the positive eigenvalues of a Gaussian matrix (hidden, 64) in these units."""
    law = marchenko_pastur(INPUTS / hidden)
    x = np.linspace(law.lower, law.upper, points)
    return pd.DataFrame({"x": x, "density": law.density(x) / (1 - law.atom)})
