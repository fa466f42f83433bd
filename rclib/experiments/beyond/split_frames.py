"""Frames of `spikes_are_rc`: one row a trained matrix, what follows from it, what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.checks.arguments import choice
from rclib.experiments.beyond.split_measures import MATRICES
from rclib.runs.store import Arrays
from rclib.spectral.heavy_tails import noise_tail
from rclib.spectral.power_law import METHODS

__all__ = [
    "largest_rate",
    "loss_share",
    "removed_rows",
    "run_row",
    "spectrum_rows",
    "tail_rows",
    "undone",
]


def run_row(
    key: tuple[str, float, int], run: Arrays, size: tuple[int, int], ranks: Sequence[int]
) -> dict[str, Any]:
    """One row of the frame of `spikes_are_rc.frame`, which lists the columns: of the run of an
    (arm, rate, seed) whose matrix has this size (h, d)."""
    row: dict[str, Any] = dict(zip(("arm", "rate", "seed"), key, strict=True))
    for name, values in (
        ("kept kept_variables kept_start kept_shuffled", run["kept"]),
        ("predicted found owned independent", run["counts"]),
    ):
        row |= dict(zip(name.split(), values.tolist(), strict=True))
    out = run["detached"].astype(bool)
    errors = np.abs(run["places"][:, out] / run["predicted"][out] - 1).max(1, initial=0.0)
    row |= {"place_error": errors[0], "independent_error": errors[2]}
    apart = np.abs(run["overlaps"] - run["expected"])[:, out]
    row["overlap_error"] = apart.max(initial=0.0)
    for i, matrix in enumerate(MATRICES):
        row |= {f"alpha_{how}_{matrix}": run["alpha"][j, i] for j, how in enumerate(METHODS)}
        row[f"tail_ratio_{matrix}"] = run["tail_ratio"][i]
        for end, losses in zip(("", "_released"), run["losses"], strict=False):
            row[f"loss{end}_{matrix}"] = losses[i]
    row |= {f"alpha_{k}": value for k, value in zip(ranks, run["alpha_ranks"], strict=True)}
    return row | {"alpha_hill_noise": noise_tail(*size).alpha}


def undone(table: pd.DataFrame, *, matrix: str = "without", method: str = "hill") -> pd.Series:
    """Share of what training took from α that is back in `matrix`, by seed: 1 where taking the
    part out leaves the α of the start, 0 where it changes nothing."""
    whole, start, left = (
        table.set_index("seed")[f"alpha_{method}_{name}"] for name in ("whole", "start", matrix)
    )
    return (left - whole) / (start - whole)


def loss_share(table: pd.DataFrame, evaluation: str) -> pd.Series:
    """Share of the change of the test loss since the start that W(0) + part has, by seed.

    Raises ValueError for an evaluation that is none.
    """
    ends = {"equations": "", "released": "_released"}
    end = ends[choice("evaluation", evaluation, ends)]
    whole, start, part = (
        table.set_index("seed")[f"loss{end}_{name}"] for name in ("whole", "start", "part")
    )
    return (part - start) / (whole - start)


def tail_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Long form of α: arm, rate, seed, matrix, alpha_hill, alpha_ks, and the `noise`'s."""
    parts = [
        table[["arm", "rate", "seed"]].assign(
            matrix=name,
            alpha_hill=table[f"alpha_hill_{name}"],
            alpha_ks=table[f"alpha_ks_{name}"],
            noise=table.alpha_hill_noise,
        )
        for name in MATRICES
    ]
    return pd.concat(parts, ignore_index=True)


def spectrum_rows(
    runs: Mapping[tuple[str, float, int], Arrays], shown: Mapping[str, float], *, seed: int
) -> pd.DataFrame:
    """Eigenvalues of one seed at one rate an arm (`shown`): arm, rate, k from 1, value over the
    bulk's edge, owned, and predicted, the place over the edge, NaN where theory sees no spike.

    The first 60 of each and every fifth of the others.
    """
    rows = []
    for arm, rate in shown.items():
        run = runs[arm, float(rate), int(seed)]
        count = len(run["eigenvalues"])
        places = np.full(count, np.nan)
        out = run["detached"].astype(bool)
        places[: out.sum()] = run["predicted"][out] / run["edge"]
        kept = np.r_[0 : min(60, count), 60:count:5]
        rows.append(
            pd.DataFrame(
                {
                    "arm": arm,
                    "rate": float(rate),
                    "k": kept + 1,
                    "value": run["eigenvalues"][kept] / run["edge"],
                    "owned": run["owned"][kept],
                    "predicted": places[kept],
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def removed_rows(table: pd.DataFrame, ranks: Sequence[int]) -> pd.DataFrame:
    """α (Hill) without the k leading outer products of the change: arm, rate, seed, k, alpha,
    noise."""
    long = table.melt(
        id_vars=["arm", "rate", "seed", "alpha_hill_noise"],
        value_vars=[f"alpha_{k}" for k in ranks],
        var_name="k",
        value_name="alpha",
    ).rename(columns={"alpha_hill_noise": "noise"})
    return long.assign(k=long.k.str.removeprefix("alpha_").astype(int))


def largest_rate(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The rows of an arm at its largest learning rate."""
    part = table[table.arm == arm]
    return part[part.rate == part.rate.max()]
