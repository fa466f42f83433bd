"""Frames of notebook 72: trained networks of finite width, their risk and their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.features.permutation_runs import networks
from rclib.experiments.features.permutation_theory import KERNELS
from rclib.runs import sweep
from rclib.stats.slopes import slope

__all__ = [
    "judged_arms",
    "network_frame",
    "risk_arms",
    "risk_frame",
    "weights_frame",
    "width_slopes",
]

_BASE: Mapping[str, Any] = {
    "scaling": "NTK", "activation": "relu", "layers": "all layers", "zero_start": False,
    "rate": 2.0, "steps": 100,
}  # fmt: skip
_MF: Mapping[str, Any] = {**_BASE, "scaling": "MF", "steps": 400}  # its slow modes take longer


def judged_arms(
    *,
    k: int,
    widths: Sequence[int],
    n_networks: int,
    mean: Sequence[int],
    link: Sequence[int],
    n_link: int,
) -> dict[str, dict[str, Any]]:
    """Arms of `network_frame`: "n = <width>" with k bits; "mean" with 6 bits, its width and number
    of networks in `mean`; "linear", the identity in place of relu, at the first width; "NTK
    <width>" and "MF <width>" with 6 bits and `n_link` networks at the widths `link`."""
    found = {f"n = {w}": {**_BASE, "k": k, "width": w, "n_networks": n_networks} for w in widths}
    found["mean"] = {**_BASE, "k": 6, "width": mean[0], "n_networks": mean[1]}
    found["linear"] = {
        **_BASE, "k": k, "width": widths[0], "n_networks": 16, "activation": "identity",
    }  # fmt: skip
    for scaling, base in (("NTK", _BASE), ("MF", _MF)):
        for width in link:
            found[f"{scaling} {width}"] = {**base, "k": 6, "width": width, "n_networks": n_link}
    return found


def risk_arms(
    *, k: int, ensemble: Sequence[int], one: Sequence[int], moved: Sequence[int]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Arms of `risk_frame` and those that are ensembles: (width, number) of the networks of the
    ensembles, widths of single networks with zero output at the start whose last layer is trained,
    and of single networks whose features move (mean-field, all layers)."""
    width, number = ensemble
    found = {
        f"ensemble, {which}": {
            **_BASE,
            "k": k,
            "width": width,
            "n_networks": number,
            "layers": which,
        }
        for which in KERNELS
    }
    single = {"k": k, "n_networks": 4}
    for w in one:
        start = {"layers": "last layer", "zero_start": True}
        found[f"zero start, last layer:{w}"] = {**_BASE, **single, **start, "width": w}
    for w in moved:
        found[f"mean-field, all layers:{w}"] = {**_MF, **single, "width": w}
    return found, [f"ensemble, {which}" for which in KERNELS]


def network_frame(seeds: Sequence[int], arms: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """arm, seed, width and of the networks of a run: on, off (mean outputs), off_largest (largest
    absolute one), kurtosis (excess, of the off-bits), right and right_middle (share of inputs with
    every bit right at zero and at 1 / (2 sqrt 2)), residual (largest), change, correlation,
    correlation_start, top (means).

    arms : name -> what `networks` gets besides the seed.
    """
    configs = [{**settings, "seed": seed} for settings in arms.values() for seed in seeds]
    runs = sweep.run(networks, configs, description="networks")
    names = [(arm, seed) for arm in arms for seed in seeds]
    rows = []
    for (arm, seed), config, run in zip(names, configs, runs, strict=True):
        bits = run["bits"] > 0
        outputs = run["outputs"].astype(float)
        on, off = outputs[:, bits], outputs[:, ~bits]
        centred = off - off.mean()
        rows.append({
            "arm": arm, "seed": seed, "width": config["width"], "on": on.mean(), "off": off.mean(),
            "off_largest": np.abs(off).max(),
            "kurtosis": np.mean(centred**4) / np.mean(centred**2) ** 2 - 3,
            "right": ((outputs > 0) == bits).all(-1).mean(),
            "right_middle": ((outputs > 8**-0.5) == bits).all(-1).mean(),
            "residual": run["residual"].max(),
            **{n: run[n].mean() for n in ("change", "correlation", "correlation_start", "top")},
        })  # fmt: skip
    return pd.DataFrame(rows)


def width_slopes(frame: pd.DataFrame, arms: Sequence[str], column: str) -> pd.Series:
    """Log-log slope of a column against the width over arms, by seed."""
    table = frame[frame.arm.isin(arms)].pivot_table(index="seed", columns="width", values=column)
    return table.apply(lambda row: slope(list(table.columns), list(row)), axis=1).rename("slope")


def risk_frame(
    seeds: Sequence[int], arms: Mapping[str, Mapping[str, Any]], ensembles: Sequence[str]
) -> pd.DataFrame:
    """arm, seed, features, networks, risk: the share of inputs with two ones that are not exactly
    right at threshold zero, over that of the oracle (the permutation itself, zero), against
    the number of hidden units.

    arms : name -> what `networks` gets besides the seed; the part of a name before ":" is the arm
    of the frame. ensembles : names whose networks are averaged, the first 1, 2, 4, ... of them;
    networks of others are read one by one, and their risk is averaged.
    """
    rows = []
    for name, settings in arms.items():
        configs = [{**settings, "seed": seed} for seed in seeds]
        for seed, run in zip(seeds, sweep.run(networks, configs), strict=True):
            outputs, bits = run["outputs"].astype(float), run["bits"] > 0
            sizes = [1]
            if name in ensembles:
                sizes = [2**p for p in range(len(outputs).bit_length()) if 2**p <= len(outputs)]
            for size in sizes:
                # Every group of `size` networks that fits is an ensemble of its own.
                groups = outputs[: len(outputs) // size * size].reshape(-1, size, *bits.shape)
                good = ((groups.mean(1) > 0) == bits).all(-1).mean()
                features = size * int(settings["width"])
                rows.append((name.split(":")[0], seed, features, size, 1.0 - float(good)))
    return pd.DataFrame(rows, columns=["arm", "seed", "features", "networks", "risk"])


def weights_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """scaling, width, seed, change, correlation, top: of the arms "NTK ..." and "MF ..."."""
    chosen = frame[frame.arm.str.startswith(("NTK ", "MF "))]
    columns = ["width", "seed", "change", "correlation", "top"]
    return chosen[columns].assign(scaling=chosen.arm.str.split(" ").str[0]).reset_index(drop=True)
