"""Sample size, ridge, label noise and decay of the rate: the losses of paper B's student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.spikes.frames import expand, steps_frame, train_all

__all__ = ["families", "final_slopes"]


def families(
    seeds: Sequence[int],
    *,
    base: Mapping[str, Any],
    axes: Mapping[str, Sequence[float]],
) -> pd.DataFrame:
    """Losses over the steps, varying one setting at a time.

    base : all settings of a run but the seed. axes : name of a setting -> its values; n counts
    as any other. Runs that two families share are computed once. Columns: family, setting, seed,
    step, train_loss, test_loss, test_loss_clean, kta, gap = test_loss - train_loss.
    """
    out = []
    for name, values in axes.items():
        configs = expand({**base, "quantities": ["losses"]}, seed=list(seeds), **{name: values})
        frame = steps_frame(configs, train_all(configs), keys=["seed", name])
        out.append(frame.rename(columns={name: "setting"}).assign(family=name))
    whole = pd.concat(out, ignore_index=True)
    return whole.assign(gap=whole.test_loss - whole.train_loss)


def final_slopes(frame: pd.DataFrame, *, family: str, quantity: str) -> list[float]:
    """Per seed: slope of a quantity after the last step against log10 of the setting."""
    chosen = frame[(frame.family == family) & (frame.step == frame.step.max())]
    return [
        float(np.polyfit(np.log10(group.setting), group[quantity], 1)[0])
        for _, group in chosen.groupby("seed")
    ]
