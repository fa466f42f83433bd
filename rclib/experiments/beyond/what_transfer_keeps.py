"""Tables of `kept_runs`: what RC sampling keeps of a trained matrix, predicted and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.beyond import networks
from rclib.experiments.beyond.kept_runs import positive, transfer_run
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.spectral.heavy_tails import noise_tail
from rclib.spectral.power_law import power_law
from rclib.spectral.resampled import expected_zeros

__all__ = ["esd_rows", "law_rows", "measurements", "summary", "worst"]


def measurements(
    data: Dataset,
    *,
    arms: Mapping[str, Mapping[str, Any]],
    width: int,
    targets: Sequence[int],
    random_rates: Sequence[float],
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    products: int,
    leading: int,
) -> tuple[pd.DataFrame, dict[tuple[str, int], Arrays]]:
    """One row an arm, seed, M and r1; and the runs by arm and seed.

    arms : name -> parametrization, start and lr. Columns: arm, seed, M, r1; alpha, alpha_predicted,
    alpha_untrained (start under the same map; r1 = first rate alone), alpha_start, alpha_source,
    alpha_noise (independent entries M x M); zeros, zeros_expected, zeros_side; identity, rank,
    distinct, spikes, seen, ks, ks_plain, ks_shape; spike_error, spike_plain, mean relative errors
    of the predicted spikes' singular values and of scaling the source's by c M / N; loss, lost
    (share of the progress), tied, tied_left (share of the source's R²), means.
    """
    keys = [(arm, seed) for arm in arms for seed in seeds]
    sources = [
        networks.configuration(
            **arms[arm], width=width, seed=seed, epochs=epochs, batch_size=batch_size,
            snapshots=[epochs], keep=["*"],
        )
        for arm, seed in keys
    ]  # fmt: skip
    networks.train_all(data, sources)
    shared = {"targets": list(targets), "random_rates": list(random_rates)}
    runs = sweep.run(
        transfer_run,
        [{"source": s, **shared, "products": products, "leading": leading} for s in sources],
        data=data,
        cost=lambda config: float(max(config["targets"])),
        description="transfers",
        needs=networks.source_needed,
    )
    found = dict(zip(keys, runs, strict=True))
    rows = [
        row
        for (arm, seed), run in found.items()
        for row in _rows(arm, seed, run, width, targets, random_rates)
    ]
    return pd.DataFrame(rows), found


def _rows(
    arm: str, seed: int, run: Arrays, n: int, targets: Sequence[int], rates: Sequence[float]
) -> list[dict[str, Any]]:
    progress = float(run["start_loss"] - run["own_loss"])
    rows = []
    for t, m in enumerate(targets):
        for r, rate in enumerate(rates):
            values, predicted = (positive(run[name][t, r]) for name in ("values", "predicted"))
            row: dict[str, Any] = {"arm": arm, "seed": seed, "M": m, "r1": rate}
            names = ("identity", "rank", "distinct", "spikes", "seen", "ks", "ks_plain", "ks_shape")
            row |= {name: run[name][t, r].item() for name in (*names, "loss", "tied", "means")}
            k = int(run["spikes"][t, r])
            top = np.sqrt(values[::-1][:k])
            plain = np.sqrt(run["trained_values"][::-1][:k]) * (float(run["scale"][t, r]) * m / n)
            rows.append(
                row
                | {
                    "alpha": power_law(values).alpha,
                    "alpha_predicted": power_law(predicted).alpha,
                    "alpha_untrained": power_law(positive(run["untrained"][t])).alpha,
                    "alpha_start": power_law(run["start_values"]).alpha,
                    "alpha_source": power_law(run["trained_values"]).alpha,
                    "alpha_noise": noise_tail(m, m).alpha,
                    "zeros": 1 - row["rank"] / m,
                    "zeros_expected": expected_zeros((n, n), (m, m)),
                    "zeros_side": expected_zeros((n, n), (m, m), columns_alone=True),
                    "spike_error": _error(np.sqrt(predicted[::-1][:k]), top),
                    "spike_plain": _error(plain, top),
                    "lost": (row["loss"] - float(run["own_loss"])) / progress,
                    "tied_left": row["tied"] / float(run["own_tied"]),
                }
            )
    return rows


def _error(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean relative error; NaN where there is nothing to compare."""
    return float(np.abs(predicted / measured - 1).mean()) if measured.size else float("nan")


def worst(frame: pd.DataFrame, column: str) -> pd.Series:
    """The largest over arms of the mean over targets and r1, by seed; cells without a value are
    left out."""
    return frame.groupby(["arm", "seed"])[column].mean().groupby("seed").max()


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds by arm, M and r1, in the order of the frame."""
    keys = ["arm", "M", "r1"]
    return frame.drop(columns="seed").groupby(keys, sort=False).mean().reset_index()


def esd_rows(
    runs: Mapping[tuple[str, int], Arrays], *, arm: str, seed: int, targets: Sequence[int]
) -> pd.DataFrame:
    """Positive eigenvalues of one network before and after its first drawing to every target:
    M (0: the source itself), kind ("source", "measured" or "spike", the predicted ones), value."""
    run = runs[arm, seed]
    tables = [pd.DataFrame({"M": 0, "kind": "source", "value": positive(run["trained_values"])})]
    for t, m in enumerate(targets):
        measured = positive(run["values"][t, 0])
        predicted = positive(run["predicted"][t, 0])
        spikes = predicted[predicted.size - int(run["spikes"][t, 0]) :]
        for kind, values in (("measured", measured), ("spike", spikes)):
            tables.append(pd.DataFrame({"M": m, "kind": kind, "value": values}))
    return pd.concat(tables, ignore_index=True)


def law_rows(
    runs: Mapping[tuple[str, int], Arrays], *, arm: str, seed: int, targets: Sequence[int]
) -> pd.DataFrame:
    """The predicted bulk of the same drawings: M, x, share, the share of the positive eigenvalues
    in a unit of log10 x."""
    run = runs[arm, seed]
    tables = []
    for t, m in enumerate(targets):
        x, below = run["x"][t], run["below"][t]
        middle = np.sqrt(x[1:] * x[:-1])
        share = np.diff(below) / np.diff(np.log10(x)) / float(run["rank"][t, 0])
        seen = share > 1e-3
        tables.append(pd.DataFrame({"M": m, "x": middle[seen], "share": share[seen]}))
    return pd.concat(tables, ignore_index=True)
