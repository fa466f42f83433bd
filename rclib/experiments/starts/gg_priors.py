"""Frames of notebook 53: generalised Gaussian starts, trained weights, and their bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import gennorm

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.starts.gg_lm import gg_lm_runs
from rclib.experiments.starts.gg_runs import ARMS, gg_runs
from rclib.runs import sweep
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.stats.generalized_gaussian import GeneralizedGaussian

__all__ = [
    "RATES",
    "Networks",
    "at_end",
    "by_arm",
    "fitted_entries",
    "histogram",
    "language_frame",
    "laws_frame",
    "losses",
    "over_time",
    "paired",
    "towards_normal",
    "train_networks",
]

RATES = ("entropy", "exp_golomb", "huffman", "fixed")


class Networks:
    """Networks by seed, start's shape ν and strength of BackSlash, with their runs (`gg_runs`)."""

    def __init__(self, keys: pd.DataFrame, runs: list[Arrays]) -> None:
        self.keys, self.runs = keys, runs

    def column(self, name: str) -> list[Any]:
        """One array of every run."""
        return [run[name] for run in self.runs]


def train_networks(
    data: Dataset,
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    *,
    shapes: Sequence[float] = (2.0,),
    strengths: Sequence[float] = (0.0,),
    group: int = 20,
) -> Networks:
    """Every shape with every strength. settings : what `gg_runs` gets besides the group."""
    rows = [(seed, float(nu), float(s)) for s in strengths for nu in shapes for seed in seeds]
    members = ["seed", "nu", "strength"]
    configs = [{**settings, **dict(zip(members, row, strict=True))} for row in rows]
    runs = sweep_stacked(
        gg_runs, configs, members=members, data=data, group=group, description="networks"
    )
    return Networks(pd.DataFrame(rows, columns=members), runs)


def at_end(networks: Networks, *, first: int = 100) -> pd.DataFrame:
    """One row a network: seed, nu, strength, shape (by maximum likelihood, mean of the matrices),
    moments_1, moments_2, pooled, accuracy, early (mean loss of the `first` batches), kurtosis,
    edge (of the second matrix), means_start, means_end, and the rates in bits a weight."""
    rows = []
    for run in networks.runs:
        rows.append({
            "shape": float(run["likelihood"].mean()),
            "moments_1": float(run["nu"][-1, 0]), "moments_2": float(run["nu"][-1, 1]),
            "pooled": float(run["pooled"]), "accuracy": float(run["accuracy"]),
            "early": float(run["loss"][:first].mean()), "kurtosis": float(run["kurtosis"]),
            "edge": float(run["edge"][1]),
            "means_start": float(run["means"][0]), "means_end": float(run["means"][1]),
            **dict(zip(RATES, map(float, run["bits"]), strict=True)),
        })  # fmt: skip
    return pd.concat([networks.keys, pd.DataFrame(rows)], axis=1)


def over_time(networks: Networks) -> pd.DataFrame:
    """seed, nu (of the start), strength, step, shape: by moments, mean of the two matrices."""
    frames = []
    for key, run in zip(networks.keys.itertuples(index=False), networks.runs, strict=True):
        frame = pd.DataFrame({"step": run["at"], "shape": run["nu"].mean(axis=1)})
        frames.append(frame.assign(seed=key.seed, nu=key.nu, strength=key.strength))
    return pd.concat(frames, ignore_index=True)


def losses(networks: Networks, *, every: int) -> pd.DataFrame:
    """seed, nu, step (middle of `every` batches), loss (their mean)."""
    frames = []
    for key, run in zip(networks.keys.itertuples(index=False), networks.runs, strict=True):
        whole = len(run["loss"]) // every
        means = run["loss"][: whole * every].reshape(whole, every).mean(axis=1)
        steps = (np.arange(whole) + 0.5) * every
        frames.append(pd.DataFrame({"step": steps, "loss": means}).assign(seed=key.seed, nu=key.nu))
    return pd.concat(frames, ignore_index=True)


def histogram(networks: Networks) -> pd.DataFrame:
    """z, density of the second matrix's entries over their standard deviation, all networks."""
    counts = np.sum(networks.column("histogram"), axis=0)
    edges = np.linspace(-4, 4, len(counts) + 1)
    return pd.DataFrame({
        "z": (edges[1:] + edges[:-1]) / 2, "density": counts / counts.sum() / np.diff(edges),
    })  # fmt: skip


def fitted_entries(networks: Mapping[str, Networks]) -> pd.DataFrame:
    """setting, z, density, normal, fitted: `histogram` of each, the normal density, and that of the
    GG law of unit variance whose shape is the mean of the second matrices' at the end."""
    frames = []
    for setting, found in networks.items():
        frame = histogram(found)
        nu = float(np.mean([run["likelihood"][1] for run in found.runs]))
        law = GeneralizedGaussian.of_variance(nu, 1.0)
        frame["normal"] = gennorm.pdf(frame.z, 2.0, scale=2**0.5)
        frame["fitted"] = gennorm.pdf(frame.z, nu, scale=law.scale)
        frames.append(frame.assign(setting=setting))
    return pd.concat(frames, ignore_index=True)


def laws_frame(networks: Mapping[str, pd.DataFrame], language: pd.DataFrame) -> pd.DataFrame:
    """setting, seed, shape, kind ("per matrix", "pooled") of trained weights.

    networks : setting -> `at_end`. language : `language_frame`, there by moments.
    """
    frames = []
    for setting, frame in networks.items():
        for column, kind in (("shape", "per matrix"), ("pooled", "pooled")):
            own = pd.DataFrame({"seed": frame.seed, "shape": frame[column]})
            frames.append(own.assign(setting=setting, kind=kind))
    for column, kind in (("shape_end", "per matrix"), ("pooled", "pooled")):
        own = pd.DataFrame({"seed": language.seed, "shape": language[column]})
        frames.append(own.assign(setting="GPT, Adam", kind=kind))
    return pd.concat(frames, ignore_index=True)


def paired(frame: pd.DataFrame, what: str, over: float, under: float, by: str = "nu") -> pd.Series:
    """A measure at one value of `by` minus that at another, seed by seed."""
    table = frame.pivot_table(index="seed", columns=by, values=what)
    found: pd.Series = table[over] - table[under]
    return found.rename(what)


def towards_normal(frame: pd.DataFrame, *, narrow: float, wide: float) -> pd.Series:
    """How far the starts of ν = 0.5 and 8 are within their bounds at the end, the smaller of
    ν_end(0.5) - narrow and wide - ν_end(8) by seed; shapes by moments, mean of the matrices."""
    ends = frame.sort_values("step").groupby(["seed", "nu"])["shape"].last().unstack()
    return pd.concat([ends[0.5] - narrow, wide - ends[8.0]], axis=1).min(axis=1).rename("within")


def by_arm(networks: Networks) -> pd.DataFrame:
    """seed, arm, bits, accuracy, tuned_bits, tuned_accuracy, error, overlap of `gg_runs.ARMS`,
    without BackSlash. Raises ValueError for networks that were not compressed."""
    frames = []
    for key, run in zip(networks.keys.itertuples(index=False), networks.runs, strict=True):
        if "arm_bits" not in run:
            raise ValueError(
                "networks must have been trained with compress, got some that were not"
            )
        if key.strength == 0:
            frame = pd.DataFrame({
                "arm": ARMS, "bits": run["arm_bits"], "accuracy": run["arm_accuracy"],
                "tuned_bits": run["tuned_bits"], "tuned_accuracy": run["tuned_accuracy"],
                "error": run["error"], "overlap": run["overlap"],
            })  # fmt: skip
            frames.append(frame.assign(seed=key.seed))
    return pd.concat(frames, ignore_index=True)


def language_frame(
    text: TextData,
    seeds: Sequence[int],
    shapes: Sequence[float],
    settings: Mapping[str, Any],
    *,
    first: int,
) -> pd.DataFrame:
    """Language models: seed, nu, early (mean loss of the `first` batches), ending, validation,
    shape_start, shape_end (by moments, mean of the matrices of the blocks), pooled.

    settings : what `gg_lm_runs` gets besides seed and shape.
    """
    keys = [(seed, float(nu)) for nu in shapes for seed in seeds]
    configs = [{**settings, "seed": seed, "nu": nu} for seed, nu in keys]
    runs = sweep.run(gg_lm_runs, configs, data=text, description="language models")
    rows = [
        {
            "early": float(run["loss"][:first].mean()), "ending": float(run["ending"]),
            "validation": float(run["validation"]),
            "shape_start": float(run["nu_start"].mean()), "shape_end": float(run["nu_end"].mean()),
            "pooled": float(run["pooled"]),
        }
        for run in runs
    ]  # fmt: skip
    return pd.concat([pd.DataFrame(keys, columns=["seed", "nu"]), pd.DataFrame(rows)], axis=1)
