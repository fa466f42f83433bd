"""Frames of notebook 55: which starts of a sine network reach a signal's band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from rclib.data.images import Dataset
from rclib.experiments.starts.siren import CONSTANTS, band_signal, centroid, noise_scales
from rclib.experiments.starts.siren_runs import band_runs, picture, picture_runs
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays

__all__ = [
    "Fits",
    "arm_scales",
    "at_step",
    "band_fits",
    "centroid_steps",
    "curves",
    "decibels",
    "in_order",
    "networks",
    "off_grid",
    "picture_frame",
    "spectra",
    "sweep_frame",
    "swept",
    "windows",
]


@dataclass(frozen=True)
class Fits:
    """Networks by band, arm and seed, with their runs (`siren_runs.band_runs`) in this order."""

    keys: pd.DataFrame  # band, arm, seed, s0, s1, law
    runs: list[Arrays]


def arm_scales(arm: str, psi: float) -> tuple[float, float, str]:
    """s0, s1 and the law of an arm for a target of centroid ψ.

    arm : "SIREN"; "WINNER" and "uniform" with the image constants, "audio" with those; "s0 alone"
        and "s1 alone", of WINNER; "s1 of audio"; or "s0 = <number>", nothing else.
    Raises ValueError for another.
    """
    s0, s1 = noise_scales(psi, "image")
    if arm.startswith("s0 = "):
        return float(arm.removeprefix("s0 = ")), 0.0, "normal"
    known = {
        "SIREN": (0.0, 0.0, "normal"),
        "WINNER": (s0, s1, "normal"),
        "uniform": (s0, s1, "uniform"),
        "audio": (*noise_scales(psi, "audio"), "normal"),
        "s0 alone": (s0, 0.0, "normal"),
        "s1 alone": (0.0, s1, "normal"),
        "s1 of audio": (0.0, CONSTANTS["audio"][2] * psi, "normal"),
    }
    if arm not in known:
        raise ValueError(f"arm must be one of {list(known)} or 's0 = ...', got {arm!r}")
    return known[arm]


def band_fits(
    seeds: Sequence[int],
    arms: Mapping[str, Sequence[str]],
    bands: Mapping[str, Sequence[float]],
    settings: Mapping[str, Any],
    *,
    group: int = 10,
) -> Fits:
    """Fits of every arm named for a band.

    settings : what `band_runs` gets besides the band and the group.
    """
    rows, configs = [], []
    for band, names in arms.items():
        low, high = map(float, bands[band])
        for arm in names:
            for seed in seeds:
                psi = centroid(band_signal(int(settings["n"]), low, high, seed=seed)[0])
                s0, s1, law = arm_scales(arm, psi)
                rows.append((band, arm, seed, s0, s1, law))
                own = {"seed": seed, "s0": s0, "s1": s1, "law": law}
                configs.append({**settings, "low": low, "high": high, **own})
    members = ["seed", "s0", "s1", "law"]
    runs = sweep_stacked(band_runs, configs, members=members, group=group, description="fits")
    columns = ["band", "arm", *members]
    return Fits(pd.DataFrame(rows, columns=columns), runs)


def curves(fits: Fits) -> pd.DataFrame:
    """band, arm, seed, step, error, off: MSE over the signal's variance on and off the grid."""
    frames = []
    for key, run in zip(fits.keys.itertuples(index=False), fits.runs, strict=True):
        frame = pd.DataFrame({"step": run["at"], "error": run["error"], "off": run["off"]})
        frames.append(frame.assign(band=key.band, arm=key.arm, seed=key.seed))
    found = pd.concat(frames, ignore_index=True)
    return found[["band", "arm", "seed", "step", "error", "off"]]


def networks(fits: Fits) -> pd.DataFrame:
    """One row a network: what its start says, and its weights at start and end.

    centroid : of the last hidden layer; share, slope : of the kernel; spikes_start, spikes_end;
    means_start, means_end : largest correlation over its chance level; moved_1, kept_1, moved_2,
    kept_2 : of W_1 and W_2.
    """
    rows = []
    for run in fits.runs:
        over = run["means"] / run["chance"]
        rows.append({
            "centroid": float(run["centroids"][-1]), "share": float(run["band"]),
            "slope": float(run["slope"]),
            "spikes_start": float(run["spikes"][0]), "spikes_end": float(run["spikes"][1]),
            "means_start": float(over[0]), "means_end": float(over[1]),
            "moved_1": float(run["moved"][0]), "kept_1": float(run["kept"][0]),
            "moved_2": float(run["moved"][1]), "kept_2": float(run["kept"][1]),
        })  # fmt: skip
    return pd.concat([fits.keys, pd.DataFrame(rows)], axis=1)


def at_step(frame: pd.DataFrame, band: str, arm: str, step: int, what: str = "error") -> pd.Series:
    """A column of `curves` by seed. Raises ValueError if the step was not recorded."""
    own = frame[(frame.band == band) & (frame.arm == arm) & (frame.step == step)]
    if own.empty:
        raise ValueError(f"step must be recorded for {band}, {arm}, got {step}")
    found: pd.Series = own.set_index("seed")[what]
    return found


def decibels(error: pd.Series) -> pd.Series:
    """-10 log10 of a relative error: decibels below the signal's variance."""
    return -10 * np.log10(error)


def swept(keys: pd.DataFrame) -> list[str]:
    """The arms "s0 = ..." by their number."""
    names = {arm for arm in keys.arm if arm.startswith("s0 = ")}
    return sorted(names, key=lambda arm: float(arm.removeprefix("s0 = ")))


def centroid_steps(ends: pd.DataFrame, band: str) -> pd.Series:
    """Smallest rise of the last layer's centroid from SIREN along the arms "s0 = ...", by seed."""
    table = ends[ends.band == band].pivot_table(index="seed", columns="arm", values="centroid")
    return table[["SIREN", *swept(ends)]].diff(axis=1).iloc[:, 1:].min(axis=1).rename("rise")


def in_order(ends: pd.DataFrame, frame: pd.DataFrame, band: str, step: int) -> pd.Series:
    """Spearman's correlation over arms of centroid at the start and error at a step, by seed."""
    errors = frame[(frame.band == band) & (frame.step == step)].set_index(["seed", "arm"]).error
    joined = ends[ends.band == band].set_index(["seed", "arm"]).centroid.to_frame().join(errors)
    found = {
        seed: spearmanr(group.centroid, group.error).statistic
        for seed, group in joined.groupby("seed")
    }
    return pd.Series(found, name="spearman").rename_axis("seed")


def off_grid(frame: pd.DataFrame, step: int) -> pd.DataFrame:
    """band, arm, seed, error, off at a step."""
    return frame[frame.step == step].drop(columns="step").reset_index(drop=True)


def spectra(fits: Fits, band: str, arms: Sequence[str], *, bins: int = 64) -> pd.DataFrame:
    """arm, layer, frequency (over Nyquist), energy: of the hidden layers at the start, mean over
    seeds and units; each layer's energies, in bins, sum to one."""
    rows = []
    for arm in arms:
        chosen = np.flatnonzero((fits.keys.band == band) & (fits.keys.arm == arm))
        mean = np.mean([fits.runs[i]["spectrum"] for i in chosen], axis=0)
        size = mean.shape[1] // min(bins, mean.shape[1])
        used = mean[:, : mean.shape[1] // size * size].reshape(len(mean), -1, size).sum(2)
        for layer, energies in enumerate(used, start=1):
            for place, energy in enumerate(energies):
                rows.append((arm, layer, (place + 0.5) / len(energies), float(energy)))
    return pd.DataFrame(rows, columns=["arm", "layer", "frequency", "energy"])


def windows(fits: Fits, band: str, arms: Sequence[str], seed: int) -> pd.DataFrame:
    """point, and the first points of a seed's signal and of the end's output of each arm."""
    found: dict[str, Any] = {}
    for arm in arms:
        keys = fits.keys
        (i,) = np.flatnonzero((keys.band == band) & (keys.arm == arm) & (keys.seed == seed))
        found["signal"], found[arm] = fits.runs[i]["fit"]
    return pd.DataFrame({"point": np.arange(len(found["signal"])), **found})


def picture_frame(
    data: Dataset, seeds: Sequence[int], kinds: Sequence[str], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """kind, arm ("SIREN", "WINNER"), seed, psnr: the best of a training, in dB.

    settings : what `picture_runs` gets besides kind and group.
    """
    side = int(settings["side"])
    rows, configs = [], []
    for kind in kinds:
        for seed in seeds:
            scales = noise_scales(centroid(picture(data, kind, side, seed=seed)), "image")
            for arm, (s0, s1) in {"SIREN": (0.0, 0.0), "WINNER": scales}.items():
                rows.append((kind, arm, seed))
                configs.append({**settings, "kind": kind, "seed": seed, "s0": s0, "s1": s1})
    runs = sweep_stacked(
        picture_runs, configs, members=["seed", "s0", "s1"], data=data, group=10,
        description="pictures",
    )  # fmt: skip
    found = pd.DataFrame(rows, columns=["kind", "arm", "seed"])
    return found.assign(psnr=[-10 * np.log10(float(run["error"].min())) for run in runs])


def sweep_frame(fits: Fits, frame: pd.DataFrame, step: int) -> pd.DataFrame:
    """band, seed, s0, decibels, recipe: fits at a step of the arms "s0 = ..." and of WINNER."""
    chosen = fits.keys[fits.keys.arm.isin([*swept(fits.keys), "WINNER"])]
    errors = frame[frame.step == step].set_index(["band", "arm", "seed"]).error
    found = chosen.join(errors, on=["band", "arm", "seed"])
    return pd.DataFrame({
        "band": found.band, "seed": found.seed, "s0": found.s0,
        "decibels": decibels(found.error), "recipe": found.arm == "WINNER",
    }).reset_index(drop=True)  # fmt: skip
