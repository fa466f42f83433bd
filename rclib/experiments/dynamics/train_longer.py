"""Large batches generalise worse because they make fewer updates (notebook 63).

Hoffer, Hubara and Soudry (arXiv 1705.08741). Looked at are, on one data order a seed,

    ladder         SB; LB with its epochs and rate; + LR (rate times √k); + GBN (ghosts of SB's
                   batch); + RA (SB's updates in every phase)
    equal updates  SB and LB with all three rules for other numbers of updates
    walk           ‖w_t - w_0‖ at a constant rate, which a random walk in a random potential makes
                   grow like ln t
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import curve_fit
from scipy.stats import t as student

from rclib.data.images import Dataset
from rclib.experiments.dynamics.train_longer_runs import regime_run
from rclib.runs import store
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.spectral.power_law import power_law
from rclib.spectral.random_matrix import outliers
from rclib.training.regimes import Regime

__all__ = [
    "apart",
    "arm_table",
    "difference",
    "eigenvalue_ratio",
    "equal_frame",
    "equal_means",
    "identity_gap",
    "intervals",
    "log_fits",
    "regime_frames",
    "shown_curves",
    "shown_walks",
    "slope_ratio",
    "steps",
]

FIRST = 4  # updates before are ballistic: the distance grows like t


def regime_frames(
    data: Dataset,
    seeds: Sequence[int],
    arms: Mapping[str, Regime],
    *,
    norm: bool = True,
    **shared: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(ends, curves) of all arms and seeds. shared : sizes, n_train, n_test, pool.

    ends : arm, seed, accuracy, recomputed, train; updates, samples, epochs; seconds (of one core,
    as it was computed); distance, start_norm; and means over the hidden matrices: alpha (Hill),
    leading (ln of the largest eigenvalue), spikes (over the bulk of the start), share (row-column).
    curves : arm, seed, updates, epochs, accuracy, distance, at powers of two, drops and the end.
    """
    configs = []
    for regime in arms.values():
        powers = {2**j for j in range(regime.updates.bit_length()) if 2**j <= regime.updates}
        at = sorted({0, regime.updates, *regime.drops} | powers)
        plain = {**regime.plain(), "at": at, "norm": norm, **shared}
        configs += [{"seed": int(seed), **plain} for seed in seeds]
    runs = sweep_stacked(
        regime_run,
        configs,
        data=data,
        members=["seed"],
        group=10,
        cost=lambda config: float(config["updates"] * config["batch"]),
        description="regimes",
    )
    names = [name for name in arms for _ in seeds]
    ends, curves = [], []
    for name, config, run in zip(names, configs, runs, strict=True):
        regime, n = arms[name], int(config["n_train"])
        seconds = store.seconds_spent(regime_run, config, data=data)
        head = {"arm": name, "seed": config["seed"]}
        ends.append(
            {
                **head,
                "accuracy": float(run["accuracy"][-1]),
                "recomputed": float(run["recomputed"]),
                "train": float(run["train"]),
                "updates": regime.updates,
                "samples": regime.samples,
                "epochs": regime.epochs(n),
                "seconds": seconds,
                "distance": float(run["distance"][-1]),
                "start_norm": float(run["start_norm"]),
                **_spectra(run, config["sizes"]),
            }
        )
        times = np.array(config["at"])
        curves.append(
            pd.DataFrame({
                **head, "updates": times, "epochs": times * regime.batch / n,
                "accuracy": run["accuracy"], "distance": run["distance"],
            })
        )  # fmt: skip
    return pd.DataFrame(ends), pd.concat(curves, ignore_index=True)


def _spectra(run: Arrays, sizes: Sequence[int]) -> dict[str, float]:
    """Means over the hidden matrices; the start's entries have variance 1 / (3 fan-in)."""
    alphas, leading, spikes = [], [], []
    for i, rows in enumerate(sizes, 1):
        values = run[f"values{i}"]
        alphas.append(power_law(values).alpha)
        leading.append(np.log(values.max()))
        spikes.append(outliers(values, rows=rows, variance=1.0 / (3.0 * len(values))).count)
    return {
        "alpha": float(np.mean(alphas)),
        "leading": float(np.mean(leading)),
        "spikes": float(np.mean(spikes)),
        "share": float(run["share"].mean()),
    }


def difference(
    ends: pd.DataFrame, arm: str, other: str, column: str = "accuracy"
) -> pd.Series[float]:
    """A column of one arm minus that of another, by seed."""
    table = ends.pivot(index="seed", columns="arm", values=column)
    return (table[arm] - table[other]).rename("difference")


def eigenvalue_ratio(ends: pd.DataFrame, arm: str, other: str) -> pd.Series[float]:
    """Largest eigenvalue of WᵀW of one arm over another's, geometric mean over the hidden matrices,
    by seed."""
    return np.exp(difference(ends, arm, other, "leading")).rename("ratio")


def intervals(ends: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Mean and half a 95 percent t-interval of some columns over seeds, by arm: arm, column, mean,
    half."""
    long = ends.melt(id_vars=["arm"], value_vars=list(columns), var_name="column")
    return _with_half(long, ["arm", "column"], "value")


def _with_half(frame: pd.DataFrame, keys: list[str], column: str) -> pd.DataFrame:
    """The keys, mean and half a 95 percent t-interval of a column."""
    found = frame.groupby(keys, sort=False)[column].agg(["mean", "sem", "count"]).reset_index()
    quantile = student.ppf(0.975, np.maximum(found["count"] - 1, 1))
    return found.assign(half=quantile * found["sem"]).drop(columns=["sem", "count"])


def steps(ends: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """What every rung of the ladder adds to the one before, and the last to SB: step, column, mean
    and half a 95 percent t-interval of the paired differences."""
    arms = [arm for arm in ("SB", "LB", "+LR", "+GBN", "+RA") if arm in set(ends.arm)]
    pairs = [*zip(arms[1:], arms[:-1], strict=True), (arms[-1], "SB")]
    frames = [
        difference(ends, one, two, column)
        .to_frame("value")
        .assign(step=f"{one} - {two}", column=column)
        for one, two in pairs
        for column in columns
    ]
    return _with_half(pd.concat(frames), ["step", "column"], "value")


def shown_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy and half a 95 percent interval: arm, updates, epochs, mean, half."""
    return _with_half(curves, ["arm", "updates", "epochs"], "accuracy")


def shown_walks(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean distance over seeds from the first update on: batch, rule, updates, distance."""
    found = curves[curves.updates > 0].groupby(["arm", "updates"], sort=False).distance.mean()
    frame = found.reset_index()
    parts = frame.arm.str.split(", ", expand=True)
    frame.insert(0, "batch", parts[0].astype(int))
    frame.insert(1, "rule", parts[1])
    return frame.drop(columns="arm")


def equal_frame(ends: pd.DataFrame, at: Sequence[int], full: int) -> pd.DataFrame:
    """Accuracy of LB minus SB after equally many updates: updates, arm ("all rules", "alone"),
    seed, difference. full : those of the ladder, which has no LB alone with as many."""
    pairs = [(full, "all rules", "+RA", "SB")]
    for n in at:
        pairs.append((n, "all rules", f"LB, {n}", f"SB, {n}"))
        pairs.append((n, "alone", f"LB alone, {n}", f"SB, {n}"))
    frames = [
        difference(ends, one, two).reset_index().assign(updates=n, arm=arm)
        for n, arm, one, two in sorted(pairs, key=lambda pair: pair[0])
    ]
    return pd.concat(frames, ignore_index=True)[["updates", "arm", "seed", "difference"]]


def equal_means(equal: pd.DataFrame) -> pd.DataFrame:
    """Means of `equal_frame` over seeds: updates, arm, mean, half of a 95 percent t-interval."""
    return _with_half(equal, ["updates", "arm"], "difference")


def arm_table(ends: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Means over seeds by arm, with updates, samples and epochs first."""
    kept = ["updates", "samples", "epochs", *columns]
    return ends.groupby("arm", sort=False)[kept].mean().reset_index()


def log_fits(curves: pd.DataFrame, arm: str) -> pd.DataFrame:
    """How ‖w_t - w_0‖ of an arm grows, at powers of two from 4 updates on, by seed: R² of
    a + b ln t, of a + b √t and of a t^b, all by least squares of the distance itself; b of the
    first; and `log`, by how much the first R² is over the largest of 0.98 and the two others.
    """
    rows = []
    for seed, group in _walk(curves, arm).groupby("seed"):
        t, d = group.updates.to_numpy(dtype=float), group.distance.to_numpy(dtype=float)
        line = np.polyfit(np.log(t), d, 1)
        root = np.polyfit(np.sqrt(t), d, 1)
        start = (max(float(d[0]), 1e-6), 0.3)
        power, _ = curve_fit(lambda x, a, b: a * x**b, t, d, p0=start, maxfev=10_000)
        found = [
            _r2(d, np.polyval(line, np.log(t))),
            _r2(d, np.polyval(root, np.sqrt(t))),
            _r2(d, power[0] * t ** power[1]),
        ]
        rows.append((seed, *found, float(line[0]), found[0] - max(0.98, *found[1:])))
    return pd.DataFrame(rows, columns=["seed", "r2", "root", "power", "slope", "log"]).set_index(
        "seed"
    )


def _walk(curves: pd.DataFrame, arm: str) -> pd.DataFrame:
    """An arm of the curves at powers of two from `FIRST` on."""
    chosen = curves[(curves.arm == arm) & (curves.updates >= FIRST)]
    return chosen[(chosen.updates & (chosen.updates - 1)) == 0]


def _r2(y: np.ndarray, fit: np.ndarray) -> float:
    return 1.0 - float(np.square(y - fit).sum() / np.square(y - y.mean()).sum())


def slope_ratio(curves: pd.DataFrame, arm: str, other: str) -> pd.Series[float]:
    """Growth a unit of ln t of one arm over another's, by seed."""
    return (log_fits(curves, arm).slope / log_fits(curves, other).slope).rename("ratio")


def apart(curves: pd.DataFrame, arm: str, other: str) -> pd.Series[float]:
    """How far two arms' distances lie apart: mean |ln ratio| over `_walk`, by seed."""
    one, two = (
        _walk(curves, name).set_index(["seed", "updates"]).distance for name in (arm, other)
    )
    return np.log(one / two).abs().groupby("seed").mean().rename("apart")


def identity_gap(
    data: Dataset, seeds: Sequence[int], regime: Regime, *, norm: bool, **shared: Any
) -> float:
    """Largest difference of accuracies and distances, over seeds and times, between a regime with
    ghosts and one with whole batches."""
    arms = {
        "ghosts": regime,
        "whole": Regime(regime.batch, regime.batch, regime.rate, regime.updates, regime.drops),
    }
    _, curves = regime_frames(data, seeds, arms, norm=norm, **shared)
    one, two = (
        curves[curves.arm == arm].set_index(["seed", "updates"])[["accuracy", "distance"]]
        for arm in arms
    )
    return float((one - two).abs().to_numpy().max())
