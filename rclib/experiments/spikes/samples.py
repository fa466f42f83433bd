"""Sample size, ridge, label noise and decay of the rate: the losses of paper B's student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.spikes.frames import evaluated, expand, steps_frame, train_all

__all__ = ["families", "final_differences", "final_slopes", "with_gap"]


def families(
    seeds: Sequence[int],
    *,
    base: Mapping[str, Any],
    axes: Mapping[str, Sequence[float]],
) -> pd.DataFrame:
    """Losses over the steps, varying one setting at a time.

    base : all settings of a run but the seed. axes : name of a setting -> its values; n counts
    as any other. Runs that two families share are computed once. Columns: family, setting, seed,
    step, losses and KTA by both evaluations (`steps_frame`).
    """
    out = []
    for name, values in axes.items():
        configs = expand({**base, "quantities": ["losses"]}, seed=list(seeds), **{name: values})
        frame = steps_frame(configs, train_all(configs), keys=["seed", name])
        out.append(frame.rename(columns={name: "setting"}).assign(family=name))
    return pd.concat(out, ignore_index=True)


def with_gap(frame: pd.DataFrame, evaluation: str) -> pd.DataFrame:
    """`evaluated` and the column gap = test_loss - train_loss."""
    chosen = evaluated(frame, evaluation)
    return chosen.assign(gap=chosen.test_loss - chosen.train_loss)


def final_differences(
    frame: pd.DataFrame, *, family: str, quantity: str, of: float, minus: float
) -> pd.Series[float]:
    """Per seed: a quantity after the last step at one setting minus that at another."""
    last = frame[(frame.family == family) & (frame.step == frame.step.max())]
    at = last.pivot(index="seed", columns="setting", values=quantity)
    return at[of] - at[minus]


def final_slopes(frame: pd.DataFrame, *, family: str, quantity: str) -> pd.Series[float]:
    """Per seed: slope of a quantity after the last step against log10 of the setting."""
    chosen = frame[(frame.family == family) & (frame.step == frame.step.max())]
    slopes = {
        seed: float(np.polyfit(np.log10(group.setting), group[quantity], 1)[0])
        for seed, group in chosen.groupby("seed")
    }
    return pd.Series(slopes).rename_axis("seed")
