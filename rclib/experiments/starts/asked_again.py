"""Frames of notebook 58: claims of notebooks 50, 53 and 55, asked again of fresh seeds.

Growth with the halves' rate chosen as the other rates are, DeepShape by the law with a mean, and
spectra of sine starts under a Hann window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.starts.asked_again_runs import (
    FORMS,
    WINDOWS,
    deepshape_runs,
    start_spectra,
)
from rclib.experiments.starts.mixture_growth import ARMS, curve_frame, gain, runs_of
from rclib.experiments.starts.mixture_growth_runs import LONG
from rclib.experiments.starts.siren import band_signal, centroid
from rclib.experiments.starts.spectral_bottleneck import arm_scales
from rclib.runs import sweep
from rclib.runs.stacked import sweep_stacked
from rclib.stats.sequential import interval

__all__ = [
    "BY_HALVES",
    "FLOOR",
    "chosen_pairs",
    "deepshape_frame",
    "gains_frame",
    "gains_of",
    "geometric",
    "growth_frame",
    "nyquist",
    "rises",
    "share_ratio",
    "spectrum_frame",
    "starts_frame",
    "tuning_frame",
    "with_rates",
]

BY_HALVES = ("orthogonal", "one half, equal compute")  # arms that the halves' rate can change
ALONE = ("untrained", "scratch, equal compute")  # arms that it cannot
FLOOR = 1e-12  # shares of the kernel below are rounding
Pairs = Mapping[str, tuple[float, float]]


def _ordered(names: Sequence[str]) -> list[str]:
    return [name for name in (*ARMS, *LONG) if name in names]


def tuning_frame(
    data: Dataset,
    seeds: Sequence[int],
    halves: Sequence[float],
    after: Sequence[float],
    plan: Mapping[str, Any],
) -> pd.DataFrame:
    """arm, rate (of the halves), after, seed, valid: accuracy on the validation set at the end.

    plan : what `mixture_growth_runs.growth_runs` gets besides seed, rate and rates. Arms that do
    not see the halves are run with the first of their rates alone, and have NaN there.
    """
    rows = []
    for place, rate in enumerate(halves):
        names = _ordered(BY_HALVES if place else (*BY_HALVES, *ALONE))
        for later in after:
            runs = runs_of(data, seeds, dict.fromkeys(names, float(later)), **plan, rate=rate)
            for seed, run in zip(seeds, runs, strict=True):
                for arm, valid in zip(names, run["valid"], strict=True):
                    own = float("nan") if arm in ALONE else float(rate)
                    rows.append((arm, own, float(later), seed, float(valid)))
    return pd.DataFrame(rows, columns=["arm", "rate", "after", "seed", "valid"])


def chosen_pairs(tuned: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Rate of the halves and rate after growth of every arm: the pair with the best mean accuracy
    on the validation set, the lower ones of equals. Arms that do not see the halves get those of
    "orthogonal"."""
    means = tuned.groupby(["arm", "rate", "after"], dropna=False).valid.mean().reset_index()
    best = {
        str(arm): rows.sort_values(["valid", "rate", "after"], ascending=[False, True, True])
        .iloc[0]
        for arm, rows in means.groupby("arm")
    }  # fmt: skip
    halves = float(best["orthogonal"].rate)
    return {
        arm: (halves if np.isnan(row.rate) else float(row.rate), float(row.after))
        for arm, row in best.items()
    }


def growth_frame(
    data: Dataset, seeds: Sequence[int], pairs: Pairs, plan: Mapping[str, Any]
) -> pd.DataFrame:
    """`mixture_growth.curve_frame` of every arm with its pair of rates; arms of one rate of the
    halves have the same halves."""
    frames = []
    for rate in sorted({rate for rate, _ in pairs.values()}):
        own = [arm for arm, pair in pairs.items() if pair[0] == rate]
        names = _ordered([*own, "untrained"])  # a run has one arm at least that is not long
        rates = {name: pairs[name][1] for name in names}
        runs = runs_of(data, seeds, rates, **plan, rate=rate)
        curves = curve_frame(data, runs, seeds, rates, plan)
        frames.append(curves[curves.arm.isin(own)])
    return pd.concat(frames, ignore_index=True)


def with_rates(ends: pd.DataFrame, pairs: Pairs) -> pd.DataFrame:
    """A frame by arm with columns halves (NaN for arms that do not see them) and after in front."""
    found = ends.copy()
    own = [float("nan") if arm in ALONE else pairs[arm][0] for arm in ends.index]
    found.insert(0, "halves", own)
    found.insert(1, "after", [pairs[arm][1] for arm in ends.index])
    return found.rename_axis("arm").reset_index()


def gains_frame(curves: pd.DataFrame, over: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """question, seed, gain: accuracy at the end of the first arm minus that of the second.

    over : question -> (arm, arm).
    """
    frames = []
    for question, (arm, other) in over.items():
        found = gain(curves, arm, other)
        frames.append(
            pd.DataFrame({"question": question, "seed": found.index, "gain": found.values})
        )
    return pd.concat(frames, ignore_index=True)


def gains_of(frame: pd.DataFrame, question: str) -> pd.Series:
    """Gains of a question by seed. Raises ValueError for one that the frame does not have."""
    rows = frame[frame.question == question]
    if rows.empty:
        raise ValueError(f"question must be one of {sorted(set(frame.question))}, got {question!r}")
    return rows.set_index("seed").gain


def deepshape_frame(
    data: Dataset, seeds: Sequence[int], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """seed, form, overlap, bits, accuracy, tuned_bits, tuned_accuracy, and of the dense network
    mean, flat (`asked_again_runs.deepshape_runs`). settings : what that gets besides the group."""
    configs = [{**settings, "seed": int(seed)} for seed in seeds]
    runs = sweep_stacked(
        deepshape_runs, configs, members=["seed"], data=data, group=5, description="DeepShape"
    )
    columns = ("overlap", "bits", "accuracy", "tuned_bits", "tuned_accuracy")
    frames = []
    for seed, run in zip(seeds, runs, strict=True):
        frame = pd.DataFrame({"form": FORMS, **{name: run[name] for name in columns}})
        frames.append(frame.assign(seed=seed, mean=float(run["mean"]), flat=float(run["flat"])))
    return pd.concat(frames, ignore_index=True)


def _starts(
    seeds: Sequence[int], arms: Sequence[str], bands: Mapping[str, Sequence[float]],
    settings: Mapping[str, Any],
) -> list[tuple[str, int, float, dict[str, np.ndarray]]]:  # fmt: skip
    """Arm, seed, s0 and run of every start; the scales are those of the first band's signals."""
    low, high = map(float, next(iter(bands.values())))
    keys, configs = [], []
    for arm in arms:
        for seed in seeds:
            psi = centroid(band_signal(int(settings["n"]), low, high, seed=seed)[0])
            s0, s1, _ = arm_scales(arm, psi)
            keys.append((arm, seed, s0))
            both = [list(map(float, band)) for band in bands.values()]
            configs.append({**settings, "seed": seed, "s0": s0, "s1": s1, "bands": both})
    runs = sweep.run(start_spectra, configs, description="starts of sine networks")
    return [(*key, run) for key, run in zip(keys, runs, strict=True)]


def starts_frame(
    seeds: Sequence[int], arms: Sequence[str], bands: Mapping[str, Sequence[float]],
    settings: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """arm, seed, s0, window, centroid (of the last hidden layer), and the kernel's share on each
    band, in a column of its name.

    arms : as `spectral_bottleneck.arm_scales` names them. settings : what `start_spectra` gets
    besides seed, scales and bands.
    """
    rows = []
    for arm, seed, s0, run in _starts(seeds, arms, bands, settings):
        for place, window in enumerate(WINDOWS):
            shares = dict(zip(bands, map(float, run["shares"][place]), strict=True))
            own = {"arm": arm, "seed": seed, "s0": s0, "window": window}
            rows.append({**own, "centroid": float(run["centroids"][place, -1]), **shares})
    return pd.DataFrame(rows)


def spectrum_frame(
    seeds: Sequence[int], arms: Sequence[str], bands: Mapping[str, Sequence[float]],
    settings: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """arm, window, frequency (over Nyquist), energy: of the last hidden layer, in bins that sum to
    one, mean over seeds."""
    total: dict[tuple[str, str], list[np.ndarray]] = {}
    for arm, _, _, run in _starts(seeds, arms, bands, settings):
        for place, window in enumerate(WINDOWS):
            total.setdefault((arm, window), []).append(run["spectrum"][place])
    frames = []
    for (arm, window), found in total.items():
        mean = np.mean(found, axis=0)
        at = (np.arange(len(mean)) + 0.5) / len(mean)
        frames.append(pd.DataFrame({"arm": arm, "window": window, "frequency": at, "energy": mean}))
    return pd.concat(frames, ignore_index=True)


def nyquist(n: int) -> float:
    """Largest frequency of a grid of n points on [-1, 1), in rad per unit: π n / 2."""
    return float(np.pi * n / 2)


def rises(starts: pd.DataFrame, window: str, *, most: float = np.inf) -> pd.Series:
    """Smallest rise of the last layer's centroid from SIREN along the arms "s0 = ...", by seed.

    most : arms of a larger s0 are left out. Raises ValueError if less than one arm is left.
    """
    line = starts[starts.arm.str.match(r"SIREN|s0 = ") & (starts.window == window)]
    line = line[line.s0 <= most]
    table = line.pivot_table(index="seed", columns="s0", values="centroid").sort_index(axis=1)
    if table.shape[1] < 2:
        raise ValueError(f"most must leave an arm with noise, got {most}")
    return table.diff(axis=1).iloc[:, 1:].min(axis=1).rename("rise")


def share_ratio(starts: pd.DataFrame, band: str, window: str) -> pd.Series:
    """log10 of the kernel's share on a band, WINNER over SIREN, by seed; a share below `FLOOR`
    counts as that."""
    rows = starts[starts.window == window]
    table = rows.pivot_table(index="seed", columns="arm", values=band).clip(lower=FLOOR)
    return np.log10(table["WINNER"] / table["SIREN"]).rename("decades")


def geometric(decades: pd.Series) -> Callable[[int, float], tuple[float, float, float]]:
    """The geometric mean of ratios for a claim under the sequential rule, from their log10 by seed.

    Returns (n, level) -> value, low and high of the first n seeds: powers of ten of the mean of the
    logarithms and of the ends of its t-interval. Raises ValueError for more seeds than there are.
    """

    def estimate(n: int, level: float) -> tuple[float, float, float]:
        if n > len(decades):
            raise ValueError(f"decades must have {n} seeds, got {len(decades)}")
        mean, low, high = interval(decades.iloc[:n].tolist(), level)
        return 10.0**mean, 10.0**low, 10.0**high

    return estimate
