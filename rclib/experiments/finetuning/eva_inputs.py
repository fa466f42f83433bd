"""Frames of notebook 81 without training: inputs of layers and gradients that starts see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning.bases import ADAPTED
from rclib.experiments.finetuning.signals import KINDS, SIZES, image_signals, text_signals
from rclib.runs.stacked import sweep_stacked
from rclib.spectral.random_matrix import outliers

__all__ = [
    "Signals",
    "by_place",
    "explained_gain",
    "first_explained",
    "mean_spectrum",
    "measured_signals",
    "overlaps",
    "seen_minus",
    "signal_table",
    "smaller",
]


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


def mean_spectrum(found: Signals) -> pd.DataFrame:
    """layer, place, share, white: means over seeds of `spectrum`."""
    over = found.spectrum.groupby(["layer", "place"], as_index=False)
    mean: pd.DataFrame = over[["share", "white"]].mean()
    return mean


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
