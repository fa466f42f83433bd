"""Frames and values of notebook 95: shapes told from their fields, by what is read and by start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from rclib.data.shapes import KINDS
from rclib.experiments.language.triplane_runs import field_run
from rclib.rowcolumn.measure import leading_share
from rclib.runs import sweep
from rclib.runs.store import Arrays

__all__ = [
    "STARTS",
    "field_runs",
    "noise_share",
    "over_seeds",
    "picture_frame",
    "quality_frame",
    "read_frame",
    "share_frame",
    "stop_frame",
    "values",
]

STARTS = ("own", "shared")
Runs = Mapping[tuple[str, int], Arrays]
Values = dict[str, "pd.Series[float]"]


def field_runs(
    seeds: Sequence[int], arms: Mapping[str, Sequence[str]], stops: Sequence[int],
    settings: Mapping[str, Any], *, target: str = "occupancy",
) -> dict[tuple[str, int], Arrays]:  # fmt: skip
    """(start, seed) -> `field_run`, for each start that `arms` has; own starts are read at the
    stops too. settings : of `field_run`. Raises ValueError for a start that is none."""
    unknown = [start for start in arms if start not in STARTS]
    if unknown:
        raise ValueError(f"arms must have keys of {STARTS}, got {unknown[0]!r}")
    keys = [(start, seed) for start in arms for seed in seeds]
    configs = [
        {**settings, "seed": seed, "shared": start == "shared", "target": target,
         "arms": list(arms[start]), "stops": list(stops) if start == "own" else []}
        for start, seed in keys
    ]  # fmt: skip
    runs = sweep.run(field_run, configs, description=f"fields, {target}")
    return dict(zip(keys, runs, strict=True))


def read_frame(runs: Runs, arms: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """start, seed, arm, accuracy."""
    rows = [
        (start, seed, arm, float(accuracy))
        for (start, seed), run in runs.items()
        for arm, accuracy in zip(arms[start], run["accuracy"], strict=True)
    ]
    return pd.DataFrame(rows, columns=["start", "seed", "arm", "accuracy"])


def quality_frame(runs: Runs) -> pd.DataFrame:
    """start, seed, hybrid, no planes, other network, network (intersections over union), moved set,
    moved flat, share, share at start, hidden and channels (correlations over chance)."""
    rows = []
    for (start, seed), run in runs.items():
        names = ("hybrid", "no planes", "other network", "network")
        rows.append({
            "start": start, "seed": seed, **dict(zip(names, map(float, run["iou"]), strict=True)),
            "moved set": run["moved"][0], "moved flat": run["moved"][1],
            "share": run["share"].mean(), "share at start": run["share_start"].mean(),
            "hidden": run["rc"][0], "channels": run["rc"][1],
            "channels at start": run["rc_start"][1],
        })  # fmt: skip
    return pd.DataFrame(rows)


def share_frame(runs: Runs) -> pd.DataFrame:
    """start, seed, kind, share, share at start: means over shapes of a kind."""
    rows = [
        (start, seed, kind, *(float(run[name][run["kind"] == k].mean()) for name in
                              ("share", "share_start")))
        for (start, seed), run in runs.items()
        for k, kind in enumerate(KINDS)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["start", "seed", "kind", "share", "share at start"])


def stop_frame(runs: Runs, stops: Sequence[int], last: int) -> pd.DataFrame:
    """seed, step, iou, accuracy of the set, own starts. last : steps of a whole fit."""
    rows = [
        (seed, step, float(iou), float(accuracy))
        for (start, seed), run in runs.items()
        if start == "own"
        for step, iou, accuracy in zip(
            [*stops, last], run["stop_iou"], run["stop_accuracy"], strict=True
        )
    ]
    return pd.DataFrame(rows, columns=["seed", "step", "iou", "accuracy"])


def picture_frame(run: Arrays, names: Sequence[str] = ("xy", "xz")) -> pd.DataFrame:
    """fit, plane, channel, row, column, value of the first planes of a torus, fitted twice; over
    the largest value of each channel. names : of these planes."""
    pictures = run["pictures"][:, : len(names)]
    pictures = pictures / np.abs(pictures).max((-1, -2), keepdims=True)
    places = np.indices(pictures.shape).reshape(5, -1)
    columns = dict(zip(("fit", "plane", "channel", "row", "column"), places, strict=True))
    columns["plane"] = np.array(names)[columns["plane"]]
    return pd.DataFrame({**columns, "value": pictures.ravel().round(4)})


def noise_share(planes: Mapping[str, Any]) -> float:
    """Share of the top eigenvalue that noise has (Marchenko-Pastur), planes as in `field_run`."""
    shape = (3 * int(planes["channels"]), int(planes["R"]) ** 2)
    return leading_share(torch.ones(shape), 1).chance


def over_seeds(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Means of all other columns over the seeds, by the keys."""
    return frame.drop(columns="seed").groupby(list(keys), sort=False).mean().reset_index().round(4)


def _by(frame: pd.DataFrame, start: str, column: str) -> pd.Series[float]:
    return frame[frame.start == start].set_index("seed")[column]


def values(
    read: pd.DataFrame, quality: pd.DataFrame, share: pd.DataFrame, stopped: pd.DataFrame,
    distance: pd.DataFrame,
) -> Values:  # fmt: skip
    """Of all claims, by seed. distance : `read_frame` of fields of distances."""
    arms = {key: group.set_index("seed").accuracy for key, group in read.groupby(["start", "arm"])}
    far = {arm: group.set_index("seed").accuracy for arm, group in distance.groupby("arm")}
    kinds = {k: _by(group, "own", "share") for k, group in share.groupby("kind")}
    first, last = (
        stopped[stopped.step == step].set_index("seed").accuracy
        for step in (stopped.step.min(), stopped.step.max())
    )
    channels = arms["own", "set"]
    return {
        "planes_beat_weights": channels - arms["own", "network"],
        "neurons_as_set": channels - arms["own", "neurons"],
        "same_start": arms["shared", "set"] - arms["shared", "network"],
        "neuron_order": arms["shared", "network"] - arms["shared", "network, shuffled"],
        "equal_quality": _by(quality, "own", "network") - _by(quality, "own", "hybrid"),
        "set_own": channels - arms["own", "flat"],
        "set_shared": arms["shared", "set"] - arms["shared", "flat"],
        "flat_needs_order": arms["shared", "flat"] - arms["shared", "flat, shuffled"],
        "set_exact": _by(quality, "own", "moved set"),
        "transformer": arms["own", "transformer"] - arms["own", "flat"],
        "spatial": channels - arms["own", "spatial"],
        "signs": arms["own", "set, no signs"] - channels,
        "mixing": channels - arms["own", "set, mixed"],
        "quality_helps": last - first,
        "distances": far["set"] - far["flat"],
        "unfitted": arms["own", "set, unfitted"],
        "other_labels": arms["own", "set, other labels"],
        "decoder_own": arms["own", "decoder"],
        "decoder_shared": arms["shared", "decoder"],
        "not_exchanged": _by(quality, "own", "hybrid") - _by(quality, "own", "other network"),
        "few_pictures": _by(quality, "own", "share"),
        "noise_at_start": _by(quality, "own", "share at start"),
        "sphere_torus": kinds["sphere"] - kinds["torus"],
        "rc_hidden": _by(quality, "own", "hidden"),
        "rc_channels": _by(quality, "own", "channels"),
    }
