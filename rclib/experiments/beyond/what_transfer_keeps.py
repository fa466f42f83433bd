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

__all__ = [
    "alpha_moved",
    "broken",
    "esd_rows",
    "fall_by_drawing",
    "kept_rows",
    "law_rows",
    "measurements",
    "summary",
    "worst",
]


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

    arms : name -> parametrization, start and lr. Columns: arm, seed, M, r1; alpha (Hill) after,
    alpha_start, alpha_source (before training and before transfer), alpha_noise (independent
    entries M x M); zeros, zeros_expected (of the larger of two sides), zeros_side; identity, rank,
    distinct; loss, lost (share of the progress), tied, tied_left (share of the source's R²), means,
    aligned (of `kept_runs`).
    At the first rate alone, else NaN: alpha_predicted, alpha_untrained (the start, same map);
    spikes, seen, ks, ks_plain, ks_shape; spike_error, spike_plain, mean relative errors of the
    predicted spikes' singular values and of scaling the source's by c M / N (NaN without spikes).
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
            row: dict[str, Any] = {"arm": arm, "seed": seed, "M": m, "r1": rate}
            names = ("identity", "rank", "distinct", "loss", "tied", "means")
            row |= {name: run[name][t, r].item() for name in names}
            values = positive(run["values"][t, r])
            row |= {
                "alpha": power_law(values).alpha,
                "alpha_start": power_law(run["start_values"]).alpha,
                "alpha_source": power_law(run["trained_values"]).alpha,
                "alpha_noise": noise_tail(m, m).alpha,
                "zeros": 1 - row["rank"] / m,
                "zeros_expected": expected_zeros((n, n), (m, m)),
                "zeros_side": expected_zeros((n, n), (m, m), columns_alone=True),
                "aligned": float(run["aligned"]),
                "lost": (row["loss"] - float(run["own_loss"])) / progress,
                "tied_left": row["tied"] / float(run["own_tied"]),
            }
            rows.append(row | (_against(run, t, values, n, m) if r == 0 else {}))
    return rows


def _against(run: Arrays, t: int, values: np.ndarray, n: int, m: int) -> dict[str, float]:
    """Prediction against measurement, of a drawing at the first rate."""
    predicted, k = positive(run["predicted"][t]), int(run["spikes"][t])
    top = np.sqrt(values[::-1][:k])
    plain = np.sqrt(run["trained_values"][::-1][:k]) * float(run["scale"][t]) * m / n
    return {
        **{name: run[name][t].item() for name in ("spikes", "seen", "ks", "ks_plain", "ks_shape")},
        "alpha_predicted": power_law(predicted).alpha,
        "alpha_untrained": power_law(positive(run["untrained"][t])).alpha,
        "spike_error": _error(np.sqrt(predicted[::-1][:k]), top),
        "spike_plain": _error(plain, top),
    }


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
        predicted = positive(run["predicted"][t])
        spikes = predicted[predicted.size - int(run["spikes"][t]) :]
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


def alpha_moved(frame: pd.DataFrame) -> pd.Series:
    """α at the last random rate minus that at the first, mean over arms and targets, by seed."""
    table = frame.pivot_table(index="seed", columns="r1", values="alpha")
    return table[table.columns[-1]] - table[table.columns[0]]


def fall_by_drawing(frame: pd.DataFrame) -> pd.Series:
    """How far α of the start falls when it is drawn, over how far it falls by training: means over
    the cells of a seed at the first random rate."""
    first = frame[frame.r1 == 0].groupby("seed")[["alpha_start", "alpha_untrained", "alpha_source"]]
    mean = first.mean()
    drawn, trained = (mean.alpha_start - mean[f"alpha_{k}"] for k in ("untrained", "source"))
    return (drawn / trained).rename("fall")


def broken(frame: pd.DataFrame, *, arm: str) -> pd.Series:
    """What the last random rate loses of one arm, by seed: the smaller of the share of the progress
    in loss and the share of R², means over targets."""
    chosen = frame[(frame.arm == arm) & (frame.r1 == frame.r1.max())]
    means = chosen.assign(untied=1 - chosen.tied_left).groupby("seed")[["lost", "untied"]].mean()
    return means.min(axis=1)


def kept_rows(frame: pd.DataFrame, *, arm: str, target: int) -> pd.DataFrame:
    """Shares that are left at every random rate: seed, r1, what ("progress in loss", "R²" or "α"),
    left: of the source's progress and R², and of α at the first rate."""
    chosen = frame[(frame.arm == arm) & (target == frame.M)]
    first = chosen[chosen.r1 == chosen.r1.min()].set_index("seed").alpha
    left = {
        "progress in loss": 1 - chosen.lost,
        "R²": chosen.tied_left,
        "α": chosen.alpha / chosen.seed.map(first),
    }
    tables = [
        pd.DataFrame({"seed": chosen.seed, "r1": chosen.r1, "what": what, "left": values})
        for what, values in left.items()
    ]
    return pd.concat(tables, ignore_index=True)
