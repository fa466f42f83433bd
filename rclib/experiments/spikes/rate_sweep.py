"""The learning-rate sweep of paper B, and what its claims ask of it.

"Move together up to a rate and then part": per repeat and optimiser, the best rate is the one
with the lowest test loss after the last step. Agreement on one side of it is the smaller of

    -ρ(test loss, alignment)    and    ρ(test loss, α)

ρ Spearman's rank correlation over the rates of that side, the best rate included, values
rounded to four digits (smaller differences are rounding). Together: near 1. Parted: ≤ 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2, rankdata

from rclib.experiments.spikes.first_step import critical_rate
from rclib.experiments.spikes.frames import expand, steps_frame, train_all
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.spectral.power_law import METHODS, bootstrap_alpha, power_law

__all__ = [
    "agreement",
    "alpha_uncertainty",
    "critical_rates",
    "differences",
    "first_rates",
    "spread_interval",
    "train",
]

Key = tuple[int, str, float]
DIGITS = 4
FEWEST = 3  # rates on a side that a rank correlation needs


def train(
    seeds: Sequence[int], *, optimizers: Sequence[str], rates: Sequence[float], **setting: Any
) -> tuple[dict[Key, Arrays], pd.DataFrame]:
    """Records by (seed, optimizer, rate) and their table of steps."""
    configs = expand(setting, seed=list(seeds), optimizer=list(optimizers), rate=list(rates))
    runs = train_all(configs)
    keys = ["seed", "optimizer", "rate"]
    frame = steps_frame(configs, runs, keys=keys)
    named = {
        (c["seed"], c["optimizer"], c["rate"]): run for c, run in zip(configs, runs, strict=True)
    }
    return named, frame


def critical_rates(
    seeds: Sequence[int], *, optimizers: Sequence[str], **setting: Any
) -> pd.DataFrame:
    """`spikes_first_step.critical_rate` of every seed and optimiser.

    Columns: seed, optimizer, rate, predicted, alignment (at twice that rate).
    """
    configs = expand(setting, seed=list(seeds), optimizer=list(optimizers))
    runs = sweep.run(critical_rate, configs, description="critical rates")
    rows = [
        {"seed": c["seed"], "optimizer": c["optimizer"]} | {k: float(v[0]) for k, v in r.items()}
        for c, r in zip(configs, runs, strict=True)
    ]
    return pd.DataFrame(rows)


def first_rates(frame: pd.DataFrame, *, step: int) -> pd.DataFrame:
    """Smallest rate of the grid with a spike at a step: seed, optimizer, rate (NaN if none)."""
    rows = []
    for (seed, optimizer), group in frame[frame.step == step].groupby(["seed", "optimizer"]):
        spiked = group[group.spikes > 0].rate
        rows.append((seed, optimizer, float(spiked.min()) if len(spiked) else np.nan))
    return pd.DataFrame(rows, columns=["seed", "optimizer", "rate"])


def differences(
    frame: pd.DataFrame, *, step: int, optimizer: str, rate: float, base: float
) -> pd.Series[float]:
    """Per seed: test loss at a rate minus that at the rate `base`, after a step."""
    chosen = frame[(frame.step == step) & (frame.optimizer == optimizer)]
    at = chosen.pivot(index="seed", columns="rate", values="test_loss")
    return at[rate] - at[base]


def agreement(frame: pd.DataFrame, *, step: int, alpha: str = "alpha_hill") -> pd.DataFrame:
    """Agreement on both sides of the best rate (module docstring).

    Columns: seed, optimizer, best (rate), up_to, beyond; NaN where a side has fewer than three
    rates or a value does not vary.
    """
    rows = []
    chosen = frame[(frame.step == step) & frame.finite]
    for (seed, optimizer), group in chosen.groupby(["seed", "optimizer"]):
        ordered = group.sort_values("rate").reset_index(drop=True)
        at = int(ordered.test_loss.idxmin())
        sides = (ordered.iloc[: at + 1], ordered.iloc[at:])
        rows.append((seed, optimizer, ordered.rate[at], *(_agree(s, alpha) for s in sides)))
    return pd.DataFrame(rows, columns=["seed", "optimizer", "best", "up_to", "beyond"])


def _agree(side: pd.DataFrame, alpha: str) -> float:
    if len(side) < FEWEST:
        return np.nan
    loss, along, exponent = (
        rankdata([float(f"{v:.{DIGITS}g}") for v in side[c]])
        for c in ("test_loss", "alignment", alpha)
    )
    if min(np.ptp(loss), np.ptp(along), np.ptp(exponent)) == 0:
        return np.nan
    with_alignment = -np.corrcoef(loss, along)[0, 1]
    with_alpha = np.corrcoef(loss, exponent)[0, 1]
    return float(min(with_alignment, with_alpha))


def alpha_uncertainty(
    spectra: dict[str, dict[int, np.ndarray]], *, draws: int = 100
) -> pd.DataFrame:
    """Three measures of how uncertain α is.

    spectra : state -> {seed: eigenvalues}. Columns: state, method, alpha (mean over seeds),
    standard_error (the formula's, mean), bootstrap (standard deviation over resamples, mean),
    repeats (standard deviation over seeds), ratio = repeats / standard_error, and the 95
    percent interval of the ratio (low, high) for normal values.
    """
    rows = []
    for state, by_seed in spectra.items():
        for method in METHODS:
            fits = [power_law(v, method) for v in by_seed.values()]
            error = float(np.mean([f.standard_error for f in fits]))
            resampled = [
                bootstrap_alpha(v, method, draws=draws, seed=s).std(ddof=1)
                for s, v in by_seed.items()
            ]
            spread = float(np.std([f.alpha for f in fits], ddof=1))
            low, high = spread_interval(spread, len(fits))
            mean = float(np.mean([f.alpha for f in fits]))
            row = (state, method, mean, error, float(np.mean(resampled)), spread)
            rows.append((*row, spread / error, low / error, high / error))
    columns = ["state", "method", "alpha", "standard_error", "bootstrap", "repeats", "ratio"]
    return pd.DataFrame(rows, columns=[*columns, "low", "high"])


def spread_interval(spread: float, count: int) -> tuple[float, float]:
    """95 percent interval of a standard deviation measured from `count` normal values.

    Raises ValueError for a count below two.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")
    df = count - 1
    low, high = chi2.ppf([0.975, 0.025], df)
    return float(spread * np.sqrt(df / low)), float(spread * np.sqrt(df / high))
