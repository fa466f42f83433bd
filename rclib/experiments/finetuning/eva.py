"""Frames of notebook 81: are the main directions of a layer's inputs a good start of LoRA's A?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning.bases import ADAPTED
from rclib.experiments.finetuning.loldu import Studied, difference, studied
from rclib.experiments.finetuning.signals import KINDS, SIZES, image_signals, text_signals
from rclib.experiments.finetuning.tuned_runs import arm_frame, run_arms
from rclib.inspection.block_correlations import expected_largest
from rclib.rowcolumn.measure import correlations, mean_vectors
from rclib.runs.stacked import sweep_stacked
from rclib.spectral.random_matrix import outliers
from rclib.spectral.spectra import stable_rank

__all__ = [
    "Signals",
    "added",
    "arm_means",
    "arms_of",
    "at_common_rate",
    "by_place",
    "curves",
    "early_minus",
    "excess",
    "explained_gain",
    "final_by_rate",
    "first_explained",
    "gain",
    "measured_signals",
    "overlaps",
    "seen_minus",
    "sgd_arms",
    "signal_table",
    "smaller",
    "study_sgd",
    "text_arms",
]

TEXT_ARMS = ("LoRA", "LoRA, unit rows", "EVA", "PiSSA")


@dataclass(frozen=True, eq=False)
class Signals:
    """What `rclib.experiments.finetuning.signals` measures, as frames.

    seen : seed, layer (1, 2), rank, start, share. layers : seed, layer, explained (centred),
    uncentred, white, mean (its share of the sum of squares), kept (ranks at ρ = 2), spikes (values
    above the edge of noise), inputs. spectrum : seed, layer, place, share, white. rank : of EVA.
    overlap : seed, layer, points, value.
    """

    seen: pd.DataFrame
    layers: pd.DataFrame
    spectrum: pd.DataFrame
    overlap: pd.DataFrame
    rank: int


def arms_of(rank: int, *, full: bool) -> dict[str, Any]:
    """Arms of the images; with `full` also full fine-tuning."""
    eva = {"kind": "EVA", "rank": rank}
    arms: dict[str, Any] = {
        "LoRA": {"kind": "LoRA", "rank": rank},
        "LoRA, unit rows": {"kind": "LoRA", "rank": rank, "unit": True},
        "EVA": eva,
        "uncentred": {**eva, "centred": False},
        "permuted": {**eva, "which": "permuted"},
        "bottom": {**eva, "which": "bottom"},
        "whitened": {**eva, "whiten": True},
        "PiSSA": {"kind": "PiSSA", "rank": rank},
        "redistributed": {"kind": "EVA", "rank": 2 * rank, "budget": rank},
    }
    return {**arms, "full": {"kind": "Full"}} if full else arms


def text_arms(rank: int) -> dict[str, Any]:
    """Arms of the text: those that claims are about."""
    return {name: arms_of(rank, full=False)[name] for name in TEXT_ARMS}


def sgd_arms(rank: int) -> dict[str, Any]:
    """Arms that are trained without Adam too."""
    return {name: arms_of(rank, full=False)[name] for name in TEXT_ARMS[1:]}


def study_sgd(
    data: Dataset, rank: int, rates: Sequence[float], tuning_seeds: Sequence[int],
    seeds: Sequence[int], settings: Mapping[str, Any], *, head_rate: float, inputs: int,
) -> Studied:  # fmt: skip
    """`studied` with plain gradient descent in place of Adam, and a rate of the head for it."""
    task = {**settings["task"], "head_rate": head_rate}
    own = {**settings, "task": task, "optimizer": "sgd"}
    return studied(data, sgd_arms(rank), rates, tuning_seeds, seeds, own, inputs=inputs)


def at_common_rate(
    data: Dataset | TextData, arms: Mapping[str, Any], rate: float, seeds: Sequence[int],
    settings: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """`arm_frame` of all arms at one rate."""
    own = {name: spec for name, spec in arms.items() if spec["kind"] != "Linear"}
    return arm_frame(run_arms(data, own, {name: [rate] for name in own}, seeds, settings))


# --- inputs and gradients at the start ---------------------------------------------------------


def measured_signals(
    data: Dataset | TextData, seeds: Sequence[int], settings: Mapping[str, Any],
    ranks: Sequence[int], rank: int,
) -> Signals:  # fmt: skip
    """`image_signals` or `text_signals` of every seed."""
    shared = {"base": settings["base"], "task": settings["task"], "ranks": list(ranks)}
    configs = [{**shared, "rank": rank, "seed": s} for s in seeds]
    options: dict[str, Any] = {"members": ["seed"], "group": 32, "data": data}
    if isinstance(data, TextData):
        runs = sweep_stacked(text_signals, configs, **options, description="inputs of the text")
    else:
        runs = sweep_stacked(image_signals, configs, **options, description="inputs of images")
    points = int(settings["task"]["n_train"])
    seen, layers, spectra, overlap = [], [], [], []
    for seed, run in zip(seeds, runs, strict=True):
        for j in range(len(ADAPTED)):
            for r, shares in zip(ranks, run["seen"][j], strict=True):
                pairs = zip(KINDS, shares, strict=True)
                seen += [(seed, j + 1, r, kind, share) for kind, share in pairs]
            values, white = run[f"spectrum_{j}"], run[f"white_{j}"]
            # A share of the trace, and columns of one mean variance: noise has variance 1 / (n i).
            above = outliers(values, rows=points, variance=1.0 / (points * len(values)))
            layers.append((
                seed, j + 1, *run["explained"][j], run["mean_share"][j], run["kept"][j],
                above.count, len(values),
            ))  # fmt: skip
            both = zip(values, white, strict=True)
            spectra += [(seed, j + 1, place + 1, *pair) for place, pair in enumerate(both)]
            few = zip(SIZES, run["overlap"][j], strict=True)
            overlap += [(seed, j + 1, size, value) for size, value in few]
    columns = ["explained", "uncentred", "white", "mean", "kept", "spikes", "inputs"]
    return Signals(
        pd.DataFrame(seen, columns=["seed", "layer", "rank", "start", "share"]),
        pd.DataFrame(layers, columns=["seed", "layer", *columns]),
        pd.DataFrame(spectra, columns=["seed", "layer", "place", "share", "white"]),
        pd.DataFrame(overlap, columns=["seed", "layer", "points", "value"]),
        rank,
    )


def seen_minus(found: Signals, one: str, other: str | None, *, worst: str = "min") -> pd.Series:
    """Share of the gradient that one start sees, minus that of another, at EVA's rank, by seed: of
    the layer where it is least ("min") or most ("max")."""
    own = found.seen[found.seen["rank"] == found.rank]
    wide = own.pivot(index=["seed", "layer"], columns="start", values="share")
    minus = wide[one] if other is None else wide[one] - wide[other]
    least: pd.Series = minus.groupby("seed", sort=False).agg(worst)
    return least


def smaller(found: Signals, column: str, less: str) -> pd.Series:
    """One column of `layers` minus another, the smaller of both layers, by seed."""
    minus = found.layers.assign(value=found.layers[column] - found.layers[less])
    least: pd.Series = minus.groupby("seed", sort=False).value.min()
    return least


def first_explained(found: Signals) -> pd.Series:
    """Explained share of EVA's directions in the first layer, by seed."""
    share: pd.Series = found.layers[found.layers.layer == 1].set_index("seed").explained
    return share


def explained_gain(found: Signals) -> pd.Series:
    """Explained shares of all directions kept with shared-out ranks, minus those with as many in
    every layer, mean over layers, by seed."""
    rows = found.spectrum.merge(found.layers[["seed", "layer", "kept"]], on=["seed", "layer"])
    shared = rows[rows.place <= rows.kept].groupby("seed", sort=False).share.sum()
    even = rows[rows.place <= found.rank].groupby("seed", sort=False).share.sum()
    gained: pd.Series = (shared - even) / len(ADAPTED)
    return gained


def by_place(one: pd.Series, other: pd.Series) -> pd.Series:
    """Values of one system minus those of another, first seed minus first seed; by the first one's
    seeds. The two are drawn apart, so any pairing has the same mean and variance."""
    size = min(len(one), len(other))
    return pd.Series(one.to_numpy()[:size] - other.to_numpy()[:size], index=one.index[:size])


def gain(frame: pd.DataFrame) -> pd.Series:
    """Early loss of LoRA minus that of EVA, by seed."""
    return difference(frame, "LoRA", "EVA", "early")


def signal_table(systems: Mapping[str, Signals]) -> pd.DataFrame:
    """By system and layer: means over seeds of `layers`."""
    frames = [
        found.layers.drop(columns="seed").groupby("layer").mean().reset_index().assign(system=name)
        for name, found in systems.items()
    ]
    return pd.concat(frames).set_index("system").reset_index().round(3)


def overlaps(found: Signals) -> pd.DataFrame:
    """By layer and points: mean cos² of main directions of few points with those of all."""
    means = found.overlap.groupby(["layer", "points"]).value.mean().unstack("points")
    return means.reset_index().round(3)


# --- what training does ------------------------------------------------------------------------


def arm_means(system: Studied, common: pd.DataFrame) -> pd.DataFrame:
    """By arm: the rate chosen, whether it is an end of the grid, and means over seeds, also of the
    runs at the common rate."""
    columns = ["early", "train", "test", "accuracy"]
    own = system.frame.groupby("arm", sort=False)[columns].mean()
    alike = common.groupby("arm", sort=False)[columns].mean().add_suffix(", common rate")
    table = own.join(alike).assign(rate=own.index.map(system.rates))
    grid = system.tuning.rate.agg(["min", "max"]).to_list()
    table["end of grid"] = table.rate.isin(grid) & (table.index != "none")
    return table.reset_index().round(4)


def early_minus(frames: Mapping[str, pd.DataFrame], arms: Sequence[str]) -> pd.DataFrame:
    """system, arm, seed, value: early loss of EVA minus that of each of `arms` that is there."""
    found = [
        difference(frame, "EVA", arm, "early").rename("value").reset_index().assign(
            system=name, arm=arm
        )
        for name, frame in frames.items()
        for arm in arms
        if arm in set(frame.arm)
    ]  # fmt: skip
    return pd.concat(found, ignore_index=True)


def added(system: Studied, arms: Sequence[str]) -> pd.DataFrame:
    """arm, seed, rank (stable rank of the change of the second matrix), correlation (|·| of the
    first change's means over inputs with the second one's means over outputs, neuron by neuron of
    the layer between), chance (its mean for independent vectors), of arms whose matrices were
    kept."""
    axes = {"first": ("h", "x"), "second": ("y", "h")}
    rows = []
    for (arm, _, seed), run in system.runs.items():
        if arm in arms:
            both = [torch.from_numpy(run[f"change_{k}"]).double() for k in (0, 1)]
            vectors = mean_vectors(dict(zip(axes, both, strict=True)), axes)
            found = correlations({"h": vectors["h"]})
            size = float(found.matrix[0, 1].abs())
            rows.append((arm, seed, stable_rank(both[1]), size, expected_largest(found.n)))
    return pd.DataFrame(rows, columns=["arm", "seed", "rank", "correlation", "chance"])


def excess(frame: pd.DataFrame, arm: str) -> pd.Series:
    """Correlation of an arm of `added` above chance, by seed."""
    own = frame[frame.arm == arm].set_index("seed")
    above: pd.Series = own.correlation - own.chance
    return above


def curves(system: Studied, arms: Sequence[str], *, points: int = 24) -> pd.DataFrame:
    """arm, seed, step, loss: batch losses averaged within `points` windows that grow in size."""
    rows = []
    for (arm, _, seed), run in system.runs.items():
        if arm in arms:
            losses = run["losses"]
            edges = np.unique(np.geomspace(1, len(losses) + 1, points + 1).round().astype(int)) - 1
            for first, last in pairwise(edges):
                middle = np.sqrt((first + 1) * last)
                rows.append((arm, seed, middle, losses[first:last].mean()))
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "loss"])


def final_by_rate(system: Studied, arms: Sequence[str]) -> pd.DataFrame:
    """arm, rate, seed, train, early, chosen, of the seeds by which rates are chosen."""
    own = system.tuning[system.tuning.arm.isin(arms)]
    frame = own[["arm", "rate", "seed", "train", "early"]].copy()
    frame["chosen"] = frame.rate == frame.arm.map(system.rates)
    return frame.reset_index(drop=True)
