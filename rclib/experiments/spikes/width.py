"""How paper B's spikes and exponents depend on the width, at fixed aspect ratio.

Sizes are (d, h, n) = (d, aspect · d, samples · d). What scaling to expect of one step, for
large sizes (s the strength of the rank-one part of the update, the bulk's edge is of order d):

    Adam, fixed η    entries of M are ±η, so s² ~ η² h d: the spike is of order d², and the
                     rate that makes one falls like d^(-1/2)
    GD, η = c · d    ‖G‖ ~ 1 / √d, so s² ~ c² d: a fixed multiple of the edge; the rate that
                     makes a spike grows like d
    their ratio      grows like d^(3/2)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.spikes.first_step import critical_rate, one_step
from rclib.experiments.spikes.frames import expand, steps_frame, train_all
from rclib.runs import sweep
from rclib.stats.slopes import slope

__all__ = ["critical_rates_by_width", "exponents", "one_step_frame", "sizes_of", "train"]


def sizes_of(d: int, *, aspect: float, samples: float) -> dict[str, int]:
    """{"d", "h", "n"} of one size."""
    return {"d": d, "h": round(aspect * d), "n": round(samples * d)}


def one_step_frame(
    sizes: Sequence[Mapping[str, int]],
    *,
    seeds: Sequence[int],
    rates: Mapping[str, Sequence[float]],
    noise: float,
    per_width: Sequence[str] = ("gd",),
) -> pd.DataFrame:
    """Spike after one step and its prediction, for sizes, seeds, optimisers and rates.

    rates : optimizer -> rates; those of the optimisers in `per_width` are multiplied by d.
    Columns: d, seed, optimizer, factor (the rate as given), rate, and the arrays of
    `spikes_first_step.one_step`; error = top / predicted - 1.
    """
    configs, factors = [], []
    for size in sizes:
        for seed in seeds:
            for name, given in rates.items():
                scale = size["d"] if name in per_width else 1
                used = [float(r) * scale for r in given]
                configs.append(
                    {**size, "noise": noise, "seed": seed, "optimizer": name, "rates": used}
                )
                factors.append([float(r) for r in given])
    runs = sweep.run(one_step, configs, description="first steps")
    out = []
    for config, given, run in zip(configs, factors, runs, strict=True):
        key = {name: config[name] for name in ("d", "seed", "optimizer")}
        out.append(pd.DataFrame({"factor": given, "rate": config["rates"], **run}).assign(**key))
    frame = pd.concat(out, ignore_index=True)
    return frame.assign(error=frame.top / frame.predicted - 1.0)


def critical_rates_by_width(
    sizes: Sequence[Mapping[str, int]],
    *,
    seeds: Sequence[int],
    optimizers: Sequence[str],
    noise: float,
) -> pd.DataFrame:
    """Critical rates by size: d, seed, optimizer, rate, predicted, alignment."""
    configs = [
        config
        for size in sizes
        for config in expand({**size, "noise": noise}, seed=list(seeds), optimizer=list(optimizers))
    ]
    runs = sweep.run(critical_rate, configs, description="critical rates")
    rows = [
        {k: c[k] for k in ("d", "seed", "optimizer")} | {k: float(v[0]) for k, v in r.items()}
        for c, r in zip(configs, runs, strict=True)
    ]
    return pd.DataFrame(rows)


def train(
    sizes: Sequence[Mapping[str, int]],
    *,
    seeds: Sequence[int],
    record_at: Sequence[int],
    **setting: Any,
) -> pd.DataFrame:
    """Table of steps of whole runs at every size: d, seed, step, ... (`steps_frame`)."""
    base = {**setting, "record_at": list(record_at)}
    configs = [{**base, **size, "seed": seed} for size in sizes for seed in seeds]
    return steps_frame(configs, train_all(configs), keys=["d", "seed"])


def exponents(frame: pd.DataFrame, quantity: str) -> pd.Series[float]:
    """Per seed: log-log slope of a quantity against the width d. Rows with NaN are left out."""
    whole = frame[np.isfinite(frame[quantity])]
    slopes = {seed: slope(list(g.d), list(g[quantity])) for seed, g in whole.groupby("seed")}
    return pd.Series(slopes).rename_axis("seed")
