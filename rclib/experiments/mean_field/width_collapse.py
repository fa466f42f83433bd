"""Width collapse: language models of several widths trained alike, loss against the step.

Independence. A start is drawn from a seed of its own for every width and repeat: equal seeds
would give equal first numbers at two widths, and two networks with neurons in common. All runs
see the same batches in the same order, so two seeds of one width differ by their start alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.data.text import VOCABULARY, TextData
from rclib.experiments.mean_field.lm_runs import (
    Arrays,
    cost,
    lm_configuration,
    losses_at,
    train_gpt,
)
from rclib.runs import sweep

__all__ = [
    "Key",
    "Runs",
    "check_losses",
    "collapse_errors",
    "curve_differences",
    "differences_from_widest",
    "loss_curves",
    "start_seed",
    "start_seeds",
    "train_all",
]

Key = tuple[str, int, int]  # parametrisation, width, seed
Runs = Mapping[Key, Arrays]


def start_seed(width: int, seed: int) -> int:
    """Seed of a start, different for every width and repeat; see the module's docstring."""
    return 10_000 * seed + width


def start_seeds(repeats: Mapping[int, Sequence[int]]) -> list[int]:
    """`start_seed` of every repeat: repeats by width -> seeds, width by width."""
    return [start_seed(width, seed) for width, found in repeats.items() for seed in found]


def train_all(
    data: TextData,
    *,
    rates: Mapping[str, float],
    widths: Sequence[int],
    seeds: Sequence[int],
    steps: int,
    start: str,
    skip: Collection[Key] = (),
    **options: Any,
) -> dict[Key, Arrays]:
    """Train every parametrisation of `rates` (its η, for all widths) at every width and seed.

    options : of `lm_configuration`. skip : runs to leave out. All runs see the same batches.
    """
    keys = [(name, width, seed) for name in rates for width in widths for seed in seeds]
    keys = [key for key in keys if key not in skip]
    configs = [
        lm_configuration(
            parametrization=name,
            width=width,
            lr=rates[name],
            seed=start_seed(width, seed),
            data_seed=0,
            steps=steps,
            start=start,
            **options,
        )
        for name, width, seed in keys
    ]
    runs = sweep.run(
        train_gpt, configs, data=cast(Dataset, data), cost=cost, description="language models"
    )
    return dict(zip(keys, runs, strict=True))


def check_losses(runs: Runs, steps: Sequence[int]) -> pd.DataFrame:
    """Validation losses (nats per byte): parametrization, width, seed, step, loss."""
    rows = [
        (*key, step, float(loss))
        for key, run in runs.items()
        for step, loss in zip(steps, losses_at(run, steps), strict=True)
    ]
    return pd.DataFrame(rows, columns=["parametrization", "width", "seed", "step", "loss"])


def collapse_errors(losses: pd.DataFrame, small: int, large: int) -> pd.DataFrame:
    """Largest |loss at small / loss at large - 1| over the steps: parametrization, seed, error.

    A run that diverged counts with the loss of a uniform guess, log 256.
    """
    table = losses.fillna({"loss": math.log(VOCABULARY)}).pivot_table(
        index=["parametrization", "seed", "step"], columns="width", values="loss"
    )
    error = (table[small] / table[large] - 1).abs()
    return error.groupby(level=["parametrization", "seed"]).max().rename("error").reset_index()


def differences_from_widest(losses: pd.DataFrame, *, step: int) -> pd.DataFrame:
    """|mean loss / mean loss of the widest - 1| at one step, over seeds: parametrization, width,
    difference; the widest itself is left out."""
    at = losses[losses.step == step].groupby(["parametrization", "width"], sort=False).loss.mean()
    rows = []
    for name, group in at.groupby(level=0, sort=False):
        by_width = group.droplevel(0).sort_index()
        relative = (by_width / by_width.iloc[-1] - 1).abs().iloc[:-1]
        rows += [(name, int(width), float(value)) for width, value in relative.items()]
    return pd.DataFrame(rows, columns=["parametrization", "width", "difference"])


def loss_curves(runs: Runs, *, points: int = 30) -> pd.DataFrame:
    """Training loss, the mean over all seeds and a window of steps: parametrization, width, step
    (the middle of the window), loss."""
    groups: dict[tuple[str, int], list[np.ndarray]] = {}
    for (name, width, _), run in runs.items():
        groups.setdefault((name, width), []).append(run["train_loss"])
    rows = []
    for (name, width), curves in groups.items():
        mean = np.mean(curves, axis=0)
        for window in np.array_split(np.arange(len(mean)), min(points, len(mean))):
            middle = float(window.mean()) + 1
            rows.append((name, width, middle, float(mean[window].mean())))
    return pd.DataFrame(rows, columns=["parametrization", "width", "step", "loss"])


def curve_differences(curves: pd.DataFrame) -> pd.DataFrame:
    """The rows of `loss_curves` but for the widest network's, with `difference`: relative to its
    loss in the same window."""
    widest = curves[curves.width == curves.width.max()]
    keys = ["parametrization", "step"]
    both = curves.merge(widest[[*keys, "loss"]], on=keys, suffixes=("", "_widest"))
    both = both.assign(difference=both.loss / both.loss_widest - 1.0).drop(columns="loss_widest")
    return both[both.width < curves.width.max()].reset_index(drop=True)
