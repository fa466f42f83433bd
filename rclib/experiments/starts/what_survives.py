"""What of a start survives training: the same three numbers for every start of series 5.

Moved, share of the end that the start explains, and loss gained per step against a plain start
(`rclib.spectral.survival`), for starts of one rectifier network (`survives_runs`) and for the two
starts of a sine network (notebook 55's runs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.starts.spectral_bottleneck import band_fits
from rclib.experiments.starts.survives_runs import STARTS, survives_runs
from rclib.runs.stacked import sweep_stacked
from rclib.spectral.survival import loss_gain
from rclib.stats.sequential import interval

__all__ = [
    "MEASURES",
    "UNTRAINED",
    "against",
    "column",
    "curve_frame",
    "rank_correlations",
    "sine_frame",
    "survival_frame",
    "survival_table",
]

MEASURES = ("moved", "start", "products", "spectrum", "chance", "gained", "lead", "accuracy")
# Starts of one architecture that nothing was trained for.
UNTRAINED = (
    "plain", "Xavier", "heavy", "uniform", "orthogonal", "large", "small", "rank", "aligned",
)  # fmt: skip
PLAIN = {name: "normed" if name in ("normed", "gains") else "plain" for name in STARTS}


def _runs(data: Dataset, seeds: Sequence[int], group: int, shared: Mapping[str, Any]) -> list[Any]:
    configs = [{"seed": int(seed), **shared} for seed in seeds]
    return sweep_stacked(
        survives_runs, configs, data=data, members=["seed"], group=group, description="seeds"
    )


def survival_frame(
    data: Dataset, seeds: Sequence[int], *, group: int, **shared: Any
) -> pd.DataFrame:
    """Every start with every seed: seed, start, and `MEASURES`; loss in nats a step against that of
    the plain start, for "normed" and "gains" of the plain start with BatchNorm.

    gained : loss gained per step; lead : how much lower the loss is on average over the steps.
    group : seeds computed together. shared : what `survives_runs` gets besides the group.
    """
    at, rows = sorted({int(t) for t in shared["moments"]}), []
    for seed, run in zip(map(int, seeds), _runs(data, seeds, group, shared), strict=True):
        for place, name in enumerate(STARTS):
            other = run["loss"][STARTS.index(PLAIN[name])]
            gained, lead = loss_gain(at, run["loss"][place], other)
            rows.append({
                "seed": seed, "start_kind": name,
                **{key: float(run[key][place]) for key in MEASURES if key in run},
                "gained": gained, "lead": lead,
            })  # fmt: skip
    return pd.DataFrame(rows).rename(columns={"start_kind": "of", "start": "share"})


def curve_frame(data: Dataset, seeds: Sequence[int], *, group: int, **shared: Any) -> pd.DataFrame:
    """of, seed, step, loss: of the test set, the same runs; behind: loss minus that of the plain
    start of the same architecture."""
    at, frames = sorted({int(t) for t in shared["moments"]}), []
    for seed, run in zip(map(int, seeds), _runs(data, seeds, group, shared), strict=True):
        frames += [
            pd.DataFrame(
                {
                    "of": name,
                    "seed": seed,
                    "step": at,
                    "loss": run["loss"][place],
                    "behind": run["loss"][place] - run["loss"][STARTS.index(PLAIN[name])],
                }
            )
            for place, name in enumerate(STARTS)
        ]
    return pd.concat(frames, ignore_index=True)


def sine_frame(
    seeds: Sequence[int], band: Sequence[float], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """The same for a sine network that fits a signal of a band: of ("SIREN", the plain start, and
    "WINNER", SIREN with noise in two matrices), seed, moved, share (of W_2), gained and lead in
    units of the signal's variance.

    settings : what `siren_runs.band_runs` gets besides group and band.
    """
    arms = ("SIREN", "WINNER")
    fits = band_fits(seeds, {"band": arms}, {"band": band}, settings)
    found = dict(zip(zip(fits.keys.arm, fits.keys.seed, strict=True), fits.runs, strict=True))
    rows = []
    for (arm, seed), run in found.items():
        gained, lead = loss_gain(run["at"], run["error"], found["SIREN", seed]["error"])
        rows.append({
            "seed": int(seed), "of": arm, "moved": float(run["moved"][1]),
            "share": float(run["kept"][1]), "gained": gained, "lead": lead,
        })  # fmt: skip
    return pd.DataFrame(rows)


def column(frame: pd.DataFrame, of: str, name: str) -> pd.Series:
    """A column of one start, by seed. Raises ValueError for a start that is not there."""
    chosen = frame[frame.of == of]
    if chosen.empty:
        raise ValueError(f"of must be one of {sorted(set(frame.of))}, got {of!r}")
    return chosen.set_index("seed")[name]


def against(frame: pd.DataFrame, first: str, second: str, name: str) -> pd.Series:
    """A column of one start minus that of another, by seed."""
    return column(frame, first, name) - column(frame, second, name)


def rank_correlations(frame: pd.DataFrame, a: str, b: str) -> pd.Series:
    """Spearman's correlation of two columns over the starts of `UNTRAINED`, by seed."""
    own = frame[frame.of.isin(UNTRAINED)]
    found = {
        int(seed): float(np.corrcoef(rows[a].rank(), rows[b].rank())[0, 1])
        for seed, rows in own.groupby("seed")
    }
    return pd.Series(found, name="correlation").rename_axis("seed")


def survival_table(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a system, start and measure: mean, low, high (95 percent t-interval over seeds).

    frames : system -> frame with of, seed and measures.
    """
    rows = []
    for system, frame in frames.items():
        for of in dict.fromkeys(frame.of):
            own = frame[frame.of == of].drop(columns=["of", "seed"])
            for measure in own:
                mean, low, high = interval(own[measure].tolist(), 0.05)
                rows.append({
                    "system": system, "of": of, "measure": str(measure),
                    "mean": mean, "low": low, "high": high,
                })  # fmt: skip
    return pd.DataFrame(rows)
