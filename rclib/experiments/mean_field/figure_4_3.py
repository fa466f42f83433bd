"""Figure 4.3: training from different starts, and transfer between widths at one epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rclib.data.images import Dataset
from rclib.experiments.mean_field.mlp_runs import (
    configuration,
    runs_needed,
    train_mlp,
    transferred_run,
    zero_shot,
)
from rclib.runs import sweep
from rclib.stats.slopes import slope

__all__ = [
    "at_epoch",
    "at_rates",
    "from_starts",
    "gap_curves",
    "pooled_exponent",
    "source",
    "transfers",
    "zero_shot_table",
]


def _rows(run: Mapping[str, np.ndarray], first_epoch: int, name: str, seed: int) -> list[Any]:
    series = zip(run["train_loss"], run["test_loss"], run["test_accuracy"], strict=True)
    return [(name, seed, first_epoch + e, *map(float, values)) for e, values in enumerate(series)]


COLUMNS = ["name", "seed", "epoch", "train_loss", "test_loss", "test_accuracy"]


def _cost(config: Mapping[str, Any]) -> float:
    """Rough length of a run: epochs times width."""
    network = config.get("network")
    return float(config["epochs"] * (network["width"] if network else config["width"]))


def source(*, transfer_epoch: int, **options: Any) -> dict[str, Any]:
    """Configuration of a run that is kept whole at the start and at the transfer epoch."""
    return configuration(snapshots=(0, transfer_epoch), keep=("*",), **options)


def from_starts(
    data: Dataset,
    *,
    starts: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    epochs: int,
    **options: Any,
) -> pd.DataFrame:
    """Curves for different initial laws (panels a, d): one row a law, seed and epoch."""
    keys = [(name, seed) for name in starts for seed in seeds]
    configs = [
        configuration(
            init=dict(starts[name]),
            seed=seed,
            epochs=epochs,
            snapshots=(0, epochs),
            keep=("W2",),
            **options,
        )
        for name, seed in keys
    ]
    runs = sweep.run(train_mlp, configs, data=data, cost=_cost, description="initial laws")
    rows = [r for (n, s), run in zip(keys, runs, strict=True) for r in _rows(run, 0, n, s)]
    return pd.DataFrame(rows, columns=COLUMNS)


def transfers(
    data: Dataset,
    *,
    from_width: int,
    to_width: int,
    transfer_epoch: int,
    rates: Sequence[tuple[float, float]],
    seeds: Sequence[int],
    epochs: int,
    **options: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves of one direction (panels b, e or c, f).

    rates : pairs (r1, r2). Returns the curves (trained at `to_width` from the start, the source
    up to the transfer, each transferred network after it) and, for each transfer, how far apart
    copies of one neuron ended up.
    """
    natives = [
        source(width=n, seed=s, epochs=epochs, transfer_epoch=transfer_epoch, **options)
        for n in (from_width, to_width)
        for s in seeds
    ]
    runs = sweep.run(train_mlp, natives, data=data, cost=_cost, description="trained from start")
    rows: list[Any] = []
    for config, run in zip(natives, runs, strict=True):
        width = config["network"]["width"]
        last = transfer_epoch if width == from_width else epochs
        cut = {key: run[key][: last + 1] for key in ("train_loss", "test_loss", "test_accuracy")}
        name = f"N = {width}, source" if width == from_width else f"N = {width} from start"
        rows += _rows(cut, 0, name, config["seed"])
    keys = [(r1, r2, config) for r1, r2 in rates for config in natives[: len(seeds)]]
    moved = sweep.run(
        transferred_run,
        [
            {
                "source": config,
                "epoch": transfer_epoch,
                "width": to_width,
                "random_rate": r1,
                "norm_rate": r2,
                "epochs": epochs,
            }
            for r1, r2, config in keys
        ],
        data=data,
        cost=_cost,
        description="transferred",
        needs=runs_needed,
    )
    copies = []
    for (r1, r2, config), run in zip(keys, moved, strict=True):
        rows += _rows(run, transfer_epoch, f"r1 = {r1:g}, r2 = {r2:g}", config["seed"])
        copies.append((r1, r2, config["seed"], float(run["copy_spread"])))
    return (
        pd.DataFrame(rows, columns=COLUMNS),
        pd.DataFrame(copies, columns=["r1", "r2", "seed", "copy_spread"]),
    )


def zero_shot_table(
    data: Dataset,
    *,
    from_width: int,
    to_width: int,
    transfer_epoch: int,
    random_rates: Sequence[float],
    norm_rates: Sequence[float],
    draws: int,
    seeds: Sequence[int],
    **options: Any,
) -> pd.DataFrame:
    """Test loss and accuracy right after the transfer, over r1 and r2.

    Columns: r1, r2, seed, loss, accuracy (means over draws), source_loss, and `lost`, the share
    of the source's progress in loss that the transfer loses,
    (loss - source_loss) / (start_loss - source_loss).
    """
    configs = [
        {
            "source": source(width=from_width, seed=s, transfer_epoch=transfer_epoch, **options),
            "epoch": transfer_epoch,
            "widths": [to_width],
            "draws": draws,
            "random_rates": list(random_rates),
            "norm_rates": list(norm_rates),
        }
        for s in seeds
    ]
    runs = sweep.run(zero_shot, configs, data=data, description="zero-shot", needs=runs_needed)
    rows = []
    for seed, run in zip(seeds, runs, strict=True):
        begin, reached = float(run["start_loss"]), float(run["source_loss"])
        for i, r1 in enumerate(random_rates):
            for j, r2 in enumerate(norm_rates):
                loss = float(run["loss"][0, i, j].mean())
                accuracy = float(run["accuracy"][0, i, j].mean())
                lost = (loss - reached) / (begin - reached)
                rows.append((r1, r2, seed, loss, accuracy, reached, lost))
    columns = ["r1", "r2", "seed", "loss", "accuracy", "source_loss", "lost"]
    return pd.DataFrame(rows, columns=columns)


def at_rates(table: pd.DataFrame, r1: float, r2: float) -> pd.DataFrame:
    """The rows of `zero_shot_table` at one pair of rates, by seed.

    Raises ValueError for rates that it does not have."""
    return _by_seed(table[(table.r1 == r1) & (table.r2 == r2)], f"r1 = {r1:g}, r2 = {r2:g}")


def at_epoch(curves: pd.DataFrame, name: str, epoch: int) -> pd.DataFrame:
    """The rows of one name (a start, a pair of rates) after an epoch, by seed.

    Raises ValueError for a name or an epoch that `curves` does not have."""
    return _by_seed(
        curves[(curves.name == name) & (curves.epoch == epoch)], f"{name!r} after epoch {epoch}"
    )


def _by_seed(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    if rows.empty:
        raise ValueError(f"the table has no rows of {what}")
    return rows.set_index("seed")


def gap_curves(
    data: Dataset,
    *,
    source_widths: Sequence[int],
    target_widths: Sequence[int],
    transfer_epoch: int,
    draws: int,
    seeds: Sequence[int],
    epochs: Mapping[int, int],
    **options: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Zero-shot gap against the target width and against the source width.

    epochs : length of the training run by width (so that runs of the panels are found again);
    other widths are trained up to the transfer. Returns two frames with columns source, target,
    seed, distance (rms difference of logits, mean over draws), gap (test loss minus):
    - target: from the same network at its own width,
    - source: sources at the largest target width, from a network trained at the largest source
      width with another seed. This counts what a finite source misses of the measure.
    """
    widest = max(source_widths)

    def configured(width: int, seed: int) -> dict[str, Any]:
        last = epochs.get(width, transfer_epoch)
        return source(width=width, seed=seed, epochs=last, transfer_epoch=transfer_epoch, **options)

    trained = [configured(n, s) for n in source_widths for s in seeds]
    sweep.run(train_mlp, trained, data=data, cost=_cost, description="sources")
    base = {"epoch": transfer_epoch, "draws": draws}
    keys = [(n, s) for n in source_widths for s in seeds]
    own = sweep.run(
        zero_shot,
        [{"source": configured(n, s), "widths": list(target_widths), **base} for n, s in keys],
        data=data,
        description="target widths",
        needs=runs_needed,
    )
    other = {s: seeds[(i + 1) % len(seeds)] for i, s in enumerate(seeds)}
    wide = sweep.run(
        zero_shot,
        [
            {
                "source": configured(n, s),
                "widths": [max(target_widths)],
                "reference": configured(widest, other[s]),
                **base,
            }
            for n, s in keys
        ],
        data=data,
        description="source widths",
        needs=runs_needed,
    )
    reached = {
        s: float(run["source_loss"]) for (n, s), run in zip(keys, own, strict=True) if n == widest
    }
    by_target, by_source = [], []
    for (n, s), run, far in zip(keys, own, wide, strict=True):
        for i, target in enumerate(target_widths):
            gap = float(run["loss"][i, 0, 0].mean() - run["source_loss"])
            by_target.append((n, target, s, float(run["distance"][i, 0, 0].mean()), gap))
        gap = float(far["loss"][0, 0, 0].mean()) - reached[other[s]]
        distance = float(far["distance"][0, 0, 0].mean())
        by_source.append((n, max(target_widths), s, distance, gap))
    columns = ["source", "target", "seed", "distance", "gap"]
    return pd.DataFrame(by_target, columns=columns), pd.DataFrame(by_source, columns=columns)


def pooled_exponent(
    frame: pd.DataFrame, *, x: str, y: str, level: float = 0.05
) -> tuple[float, float, float]:
    """Log-log slope of the mean of `y` against `x`, with a jackknife interval over seeds.

    The mean is over everything but `x`; it must be positive. Returns (slope, low, high), the
    interval slope ± t · standard error with t of (seeds - 1) degrees of freedom, of the two-sided
    `level` (0.05: 95 percent).
    Raises ValueError for fewer than two seeds.
    """
    seeds = list(frame.seed.unique())
    if len(seeds) < 2:
        raise ValueError(f"frame must hold at least two seeds, got {seeds}")

    def fit(part: pd.DataFrame) -> float:
        mean = part.groupby(x)[y].mean()
        return slope(list(mean.index), list(mean))

    n = len(seeds)
    left_out = np.array([fit(frame[frame.seed != seed]) for seed in seeds])
    error = float(np.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum()))
    half = float(stats.t.ppf(1 - level / 2, n - 1)) * error
    value = fit(frame)
    return value, value - half, value + half
