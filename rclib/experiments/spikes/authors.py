"""The authors' own numbers for the learning-rate sweep, and how far ours are from them.

`authors_sweep.json`, beside this module, holds what the authors' released code printed when it
ran its own protocol (GD and Adam at nine rates, five repeats), and where it comes from.

Both sides are means over repeats that share nothing, so a difference is measured by Welch's t.
Five repeats a side make t heavy-tailed; z is the normal deviate of the same tail probability,
so that |z| > 3 is equally rare (1 in 370) whatever the spreads and numbers of repeats.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

__all__ = ["QUANTITIES", "authors_sweep", "compare", "provenance", "welch_z"]

QUANTITIES = ("train_loss", "test_loss", "kta", "alignment", "alpha_hill", "alpha_ks")


def _file() -> dict[str, Any]:
    text = (files("rclib.experiments.spikes") / "authors_sweep.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def provenance() -> dict[str, Any]:
    """Repository, commit, command, versions, machine and seeds of the authors' numbers."""
    found: dict[str, Any] = _file()["provenance"]
    return found


def authors_sweep() -> pd.DataFrame:
    """One row a seed, optimizer ("gd", "adam"), rate and step (0, 10), with `QUANTITIES`.

    The start stands once a seed, as all runs of a repeat share it.
    """
    found = _file()
    return pd.DataFrame(found["rows"], columns=found["columns"]).astype({"rate": float})


def welch_z(first: Sequence[float], second: Sequence[float]) -> float:
    """Normal deviate of Welch's t of two samples, with the sign of mean(first) - mean(second).

    Zero for samples without any spread and the same mean. Raises ValueError for fewer than two
    values a side.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"first and second need two values each, got {len(first)} and {len(second)}"
        )
    if np.ptp(first) == np.ptp(second) == 0:
        return 0.0 if first[0] == second[0] else float(np.copysign(np.inf, first[0] - second[0]))
    found = stats.ttest_ind(first, second, equal_var=False)
    tail = stats.t.logsf(abs(found.statistic), found.df)
    # Far out the tail is below the smallest number, its logarithm is not.
    size = -stats.norm.ppf(np.exp(tail)) if tail > -700 else float(np.sqrt(-2 * tail))
    return float(np.copysign(size, found.statistic))


def compare(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """z of every quantity at the start and at every optimizer and rate after the last step.

    Both with the columns of `authors_sweep`. Columns: setting ("start", "gd 0.1", ...), quantity,
    ours and theirs (means), z.
    """
    rows = []
    for name, own, other in _settings(ours, theirs):
        for quantity in QUANTITIES:
            first, second = own[quantity].to_numpy(), other[quantity].to_numpy()
            z = welch_z(first, second)
            rows.append((name, quantity, float(first.mean()), float(second.mean()), z))
    return pd.DataFrame(rows, columns=["setting", "quantity", "ours", "theirs", "z"])


def _settings(
    ours: pd.DataFrame, theirs: pd.DataFrame
) -> list[tuple[str, pd.DataFrame, pd.DataFrame]]:
    found = [("start", *(f[f.step == 0].drop_duplicates("seed") for f in (ours, theirs)))]
    last = theirs[theirs.step == theirs.step.max()]
    for (optimizer, rate), other in last.groupby(["optimizer", "rate"], sort=False):
        at = (ours.step == last.step.max()) & (ours.optimizer == optimizer) & (ours.rate == rate)
        found.append((f"{optimizer} {rate:g}", ours[at], other))
    return found
