"""Frames of notebook 70: what frozen weights from a band cannot do, and at which price they can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.features.arms import chosen, excess_ratio
from rclib.experiments.features.bandlimited_runs import (
    LAWS,
    band_run,
    image_run,
    relu_run,
    trained_run,
)
from rclib.runs import sweep
from rclib.stats.slopes import slope

__all__ = [
    "band_frame", "band_slopes", "best", "chosen", "excess_ratio", "images_frame", "images_gain",
    "interior", "law_frame", "law_ratio", "least_bands", "norm_needed", "price", "ranks",
    "relu_frame", "slopes", "spectra_frame", "spectrum_fits", "straight_line", "trained_frame",
]  # fmt: skip

NUMERICAL = 1e-13  # share of the largest eigenvalue below which none is counted
Settings = Mapping[str, Any]


def _runs(seeds: Sequence[int], settings: Settings) -> list[dict[str, Any]]:
    configs = [{"seed": seed, **settings} for seed in seeds]
    return sweep.run(band_run, configs, description="bands")


def band_frame(seeds: Sequence[int], settings: Settings) -> pd.DataFrame:
    """seed, lam, features, frequency, penalty, error, norm: `band_run` in long form."""
    axes = ("lams", "widths", "frequencies", "penalties")
    names = ["seed", "lam", "features", "frequency", "penalty"]
    index = pd.MultiIndex.from_product([seeds, *(settings[axis] for axis in axes)], names=names)
    runs = _runs(seeds, settings)
    columns = {what: np.concatenate([run[what].ravel() for run in runs])
               for what in ("error", "norm")}  # fmt: skip
    return pd.DataFrame(columns, index=index).reset_index()


def law_frame(seeds: Sequence[int], settings: Settings) -> pd.DataFrame:
    """`band_frame` for each law of the weights, with a column law."""
    frames = [band_frame(seeds, {**settings, "law": law}).assign(law=law) for law in LAWS]
    return pd.concat(frames, ignore_index=True)


def slopes(frame: pd.DataFrame, **where: float) -> pd.Series:
    """Log-log slope of the error in the number of features, by seed."""
    own = frame
    for name, value in where.items():
        own = own[own[name] == value]
    found = {seed: slope(rows.features, rows.error) for seed, rows in own.groupby("seed")}
    return pd.Series(found, name="slope").rename_axis("seed")


def best(frame: pd.DataFrame) -> pd.DataFrame:
    """seed, frequency, lam, error: the least error over the bands, and its band."""
    places = frame.groupby(["seed", "frequency"]).error.idxmin()
    columns = ["seed", "frequency", "lam", "error"]
    return frame.loc[places, columns].reset_index(drop=True)


def interior(frame: pd.DataFrame, frequencies: Sequence[float], ends: Sequence[float]) -> pd.Series:
    """How much worse the better of two bands (`ends`) is than the best one: ratio of the errors,
    the least over the frequencies, by seed."""
    own = frame[frame.frequency.isin(frequencies)]
    least = best(own).set_index(["seed", "frequency"]).error
    outer = own[own.lam.isin(ends)].groupby(["seed", "frequency"]).error.min()
    return (outer / least).groupby("seed").min().rename("ratio")


def least_bands(frame: pd.DataFrame, *, level: float) -> pd.DataFrame:
    """The least λ with an error below the level, between bands by logarithms: seed, frequency, lam,
    NaN for a frequency without one."""
    rows = []
    for (seed, frequency), own in frame.sort_values("lam").groupby(["seed", "frequency"]):
        lams, errors = own.lam.to_numpy(), own.error.to_numpy()
        least = np.exp(_crossing(np.log(lams), np.log(errors), np.log(level)))
        rows.append((seed, frequency, least if errors.min() <= level else np.nan))
    return pd.DataFrame(rows, columns=["seed", "frequency", "lam"])


def _crossing(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """Where y first falls to the level, linear between points: the first x if it begins below, the
    last if it never does."""
    below = np.flatnonzero(y <= level)
    if not len(below):
        return float(x[-1])
    k = int(below[0])
    if k == 0:
        return float(x[0])
    return float(x[k - 1] + (x[k] - x[k - 1]) * (y[k - 1] - level) / (y[k - 1] - y[k]))


def band_slopes(frame: pd.DataFrame, *, level: float) -> pd.Series:
    """Log-log slope of `least_bands` in the frequencies that have one, by seed."""
    needed = least_bands(frame, level=level).dropna()
    found = {seed: slope(rows.frequency, rows.lam) for seed, rows in needed.groupby("seed")}
    return pd.Series(found, name="slope").rename_axis("seed")


def norm_needed(frame: pd.DataFrame, *, level: float, **where: float) -> pd.Series:
    """log10 ‖c‖ with which the error falls to the level along falling penalties, by seed.

    Where no penalty gets there it is that of the last, a lower bound.
    """
    own = frame
    for name, value in where.items():
        own = own[own[name] == value]
    found = {}
    for seed, rows in own.sort_values("penalty", ascending=False).groupby("seed"):
        norms, errors = np.log10(rows.norm.to_numpy()), np.log10(rows.error.to_numpy())
        found[seed] = _crossing(norms, errors, np.log10(level))
    return pd.Series(found, name="norm").rename_axis("seed")


def price(
    frame: pd.DataFrame, narrow: float, wide: float, *, level: float, **where: float
) -> pd.Series:
    """By how many decades ‖c‖ for an error is larger in the narrow band, by seed."""
    first, second = (norm_needed(frame, level=level, lam=lam, **where) for lam in (narrow, wide))
    return first - second


def law_ratio(
    frame: pd.DataFrame, first: str, second: str, frequencies: Sequence[float]
) -> pd.Series:
    """log10 of the ratio of two laws' best errors over bands, mean over frequencies, by seed."""
    own = frame[frame.frequency.isin(frequencies)]
    one, two = (
        np.log10(best(own[own.law == law]).set_index(["seed", "frequency"]).error)
        for law in (first, second)
    )
    return (one - two).groupby("seed").mean().rename("ratio")


def spectra_frame(seeds: Sequence[int], settings: Settings, lams: Sequence[float]) -> pd.DataFrame:
    """seed, lam, place (from 1), eigenvalue over the largest: of HᵀH/n, down to `NUMERICAL`."""
    frames = []
    places = [list(settings["lams"]).index(lam) for lam in lams]
    for seed, run in zip(seeds, _runs(seeds, settings), strict=True):
        for lam, place in zip(lams, places, strict=True):
            values = run["eigenvalues"][place]
            values = values[values > NUMERICAL * values[0]] / values[0]
            own = pd.DataFrame({"place": np.arange(1, len(values) + 1), "eigenvalue": values})
            frames.append(own.assign(seed=seed, lam=lam))
    return pd.concat(frames, ignore_index=True)[["seed", "lam", "place", "eigenvalue"]]


def spectrum_fits(spectra: pd.DataFrame) -> pd.DataFrame:
    """seed, lam, rank (eigenvalues counted), geometric and power (R² of a line through the
    logarithms of the eigenvalues in their place, and in its logarithm)."""
    rows = []
    for (seed, lam), own in spectra.groupby(["seed", "lam"]):
        logs = np.log(own.eigenvalue)
        fits = [np.corrcoef(x, logs)[0, 1] ** 2 for x in (own.place, np.log(own.place))]
        rows.append((seed, lam, len(own), *fits))
    return pd.DataFrame(rows, columns=["seed", "lam", "rank", "geometric", "power"])


def ranks(fits: pd.DataFrame) -> pd.Series:
    """Log-log slope of the numerical rank in λ, by seed."""
    found = {seed: slope(rows.lam, rows["rank"]) for seed, rows in fits.groupby("seed")}
    return pd.Series(found, name="slope").rename_axis("seed")


def relu_frame(seeds: Sequence[int], settings: Settings) -> pd.DataFrame:
    """seed, lam, together, alone (errors with b scaled along and not), spread (of the former)."""
    runs = sweep.run(relu_run, [{"seed": s, **settings} for s in seeds], description="relu")
    frames = [
        pd.DataFrame({"lam": settings["lams"], "together": run["together"], "alone": run["alone"]})
        .assign(seed=seed, spread=float(run["spread"]))
        for seed, run in zip(seeds, runs, strict=True)
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def trained_frame(
    seeds: Sequence[int], settings: Settings, cases: Sequence[tuple[float, int]]
) -> pd.DataFrame:
    """One row a network: seed, frequency, features, frozen, error, largest, independent, tied.

    cases : (frequency, features). frozen, error : relative errors before and after training.
    largest : |a| or |b| at the end. independent, tied : |correlation| of a and b at the start and
    of a and c at the end, over its 95 percent level.
    """
    keys = [(seed, w, width) for w, width in cases for seed in seeds]
    configs = [{"seed": s, "frequency": w, "width": width, **settings} for s, w, width in keys]
    runs = sweep.run(trained_run, configs, description="training")
    rows = [
        (*key, *run["error"], run["largest"][1], *(run["correlation"] / run["chance"]))
        for key, run in zip(keys, runs, strict=True)
    ]
    names = ["seed", "frequency", "features", "frozen", "error", "largest", "independent", "tied"]
    return pd.DataFrame(rows, columns=names)


def straight_line(frequency: float) -> float:
    """Relative error of the best straight line for sin(π w x) on [-1, 1], w a whole number: what a
    sigmoid network is in the limit λ → 0. Its slope is 3 ∫₀¹ x sin(π w x) dx = ±3 / (π w), which
    takes 2 · 3 / (π w)² of the energy 1."""
    return float(np.sqrt(1 - 6 / (np.pi * frequency) ** 2))


def images_frame(data: Dataset, seeds: Sequence[int], settings: Settings) -> pd.DataFrame:
    """seed, lam, accuracy, penalty: ridge classifiers on frozen features of images."""
    configs = [{"seed": seed, **settings} for seed in seeds]
    runs = sweep.run(image_run, configs, data=data, description="images")
    penalties = np.array(settings["penalties"])
    frames = [
        pd.DataFrame({"seed": seed, "lam": settings["lams"], "accuracy": run["accuracy"],
                      "penalty": penalties[run["kept"]]})
        for seed, run in zip(seeds, runs, strict=True)
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def images_gain(frame: pd.DataFrame) -> pd.Series:
    """Accuracy of the best band over that of the better of the outermost two, by seed."""
    table = frame.pivot_table(index="seed", columns="lam", values="accuracy")
    return (table.iloc[:, 1:-1].max(axis=1) - table.iloc[:, [0, -1]].max(axis=1)).rename("gain")
