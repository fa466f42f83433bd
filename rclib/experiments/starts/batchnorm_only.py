"""Frames of notebook 56: what training BatchNorm alone reaches, and which features it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.starts.batchnorm_runs import FRACTIONS, SMALL, batchnorm_runs
from rclib.nets.resnet import batch_norm_parameters
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays

__all__ = [
    "Trained",
    "ablation",
    "between",
    "ends",
    "gains",
    "layers",
    "resnets",
]


@dataclass(frozen=True)
class Trained:
    """Networks by depth D, width W, arm and seed, with their runs in this order."""

    keys: pd.DataFrame  # depth, width, arm, seed
    runs: list[Arrays]


def resnets(
    data: Dataset,
    seeds: Sequence[int],
    arms: Mapping[str, Sequence[str]],
    sizes: Mapping[str, Sequence[int]],
    settings: Mapping[str, Any],
    *,
    group: int = 5,
) -> Trained:
    """Networks of the sizes and arms named.

    sizes : name -> (D, W), or (D, W, updates) where they are others than in the settings.
    arms : name of the size -> arms.
    settings : what `batchnorm_runs` gets besides group, arm, depth and width.
    """
    rows = [
        (name, *map(int, sizes[name][:2]), arm, seed)
        for name, own in arms.items()
        for arm in own
        for seed in seeds
    ]
    keys = pd.DataFrame(rows, columns=["size", "depth", "width", "arm", "seed"])
    configs = [
        {**settings, "depth": depth, "width": width, "arm": arm, "seed": seed}
        | dict(zip(("steps",), map(int, sizes[str(name)][2:]), strict=False))
        for name, depth, width, arm, seed in rows
    ]
    runs = sweep_stacked(
        batchnorm_runs, configs, members=["seed"], data=data, group=group, description="ResNets"
    )
    return Trained(keys, runs)


def ends(trained: Trained) -> pd.DataFrame:
    """One row a network: size, depth, width, arm, seed, parameters (of BatchNorm), accuracy, start
    (accuracy), off (share of |γ| < 0.01), off_more (of |γ| < 0.05), spread (standard deviation of
    γ over that at the start), small, small_random, alpha_start, alpha_end, kurtosis, rows, columns,
    moved; as in `batchnorm_runs`."""
    rows = []
    for run in trained.runs:
        size = np.abs(run["gains"])
        rows.append({
            "accuracy": float(run["accuracy"][1]), "start": float(run["accuracy"][0]),
            "off": float((size < SMALL).mean()), "off_more": float((size < 5 * SMALL).mean()),
            "spread": float(run["gains"].std() / run["gains_start"].std()),
            "small": float(run["small"][0]), "small_random": float(run["small"][1]),
            "alpha_start": float(run["alpha"][0]), "alpha_end": float(run["alpha"][1]),
            "kurtosis": float(run["kurtosis"][1]), "rows": float(run["rows"]),
            "columns": float(run["columns"]), "moved": float(run["moved"]),
        })  # fmt: skip
    found = pd.concat([trained.keys, pd.DataFrame(rows)], axis=1)
    counts = [batch_norm_parameters(d, w) for d, w in zip(found.depth, found.width, strict=True)]
    return found.assign(parameters=counts)


def between(
    frame: pd.DataFrame, what: str, over: tuple[str, str], under: tuple[str, str]
) -> pd.Series:
    """A column of `ends` at one (size, arm) minus another, by seed. Raises KeyError for a pair
    that was not trained."""
    table = frame.pivot_table(index="seed", columns=["size", "arm"], values=what)
    found: pd.Series = table[over] - table[under]
    return found.rename(what)


def gains(trained: Trained, size: str, arms: Sequence[str], *, bins: int = 60) -> pd.DataFrame:
    """arm ("start" first), gain, density: of all γ of all seeds from -3 to 3."""
    edges = np.linspace(-3, 3, bins + 1)
    rows = []
    for place, arm in enumerate(("start", *arms)):
        source = arms[0] if place == 0 else arm
        at = np.flatnonzero((trained.keys["size"] == size) & (trained.keys.arm == source))
        name = "gains_start" if place == 0 else "gains"
        values = np.concatenate([trained.runs[i][name] for i in at])
        density = np.histogram(values, bins=edges)[0] / len(values) / np.diff(edges)
        rows.append(pd.DataFrame({
            "arm": arm, "gain": (edges[1:] + edges[:-1]) / 2, "density": density,
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def layers(trained: Trained, size: str, arms: Sequence[str]) -> pd.DataFrame:
    """arm, layer, off: share of |γ| < 0.05 by layer, mean over seeds."""
    rows = []
    for arm in arms:
        at = np.flatnonzero((trained.keys["size"] == size) & (trained.keys.arm == arm))
        numbers = trained.runs[at[0]]["layer"]
        off = np.mean([np.abs(trained.runs[i]["gains"]) < 5 * SMALL for i in at], axis=0)
        for number in range(int(numbers.max()) + 1):
            rows.append((arm, number, float(off[numbers == number].mean())))
    return pd.DataFrame(rows, columns=["arm", "layer", "off"])


def ablation(trained: Trained, size: str, arms: Sequence[str]) -> pd.DataFrame:
    """arm, order ("smallest", "random"), fraction, seed, lost: accuracy lost with this share of
    the gains at zero; fraction 0 loses nothing."""
    rows = []
    for key, run in zip(trained.keys.itertuples(index=False), trained.runs, strict=True):
        if key.size == size and key.arm in arms:
            for place, order in enumerate(("smallest", "random")):
                rows.append((key.arm, order, 0.0, key.seed, 0.0))
                for fraction, accuracy in zip(FRACTIONS, run["zeroed"][place], strict=True):
                    lost = float(run["accuracy"][1] - accuracy)
                    rows.append((key.arm, order, fraction, key.seed, lost))
    return pd.DataFrame(rows, columns=["arm", "order", "fraction", "seed", "lost"])
