"""Questions of Table 1 and Figure 4.3 that were measured badly, asked once more of fresh seeds.

Whether training under mean field has a limit in the width is asked after the first steps are over,
and how far a small network is from a wide one of networks that see the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from rclib.data.images import Dataset
from rclib.experiments.mean_field.coordinates import coordinate_check
from rclib.experiments.mean_field.figure_4_3 import pooled_exponent
from rclib.experiments.mean_field.mlp_runs import Arrays, build_mlp
from rclib.runs import sweep
from rclib.stats.slopes import slope
from rclib.training.classifier import train

__all__ = [
    "FLOOR",
    "FLOOR_OFF",
    "OTHER",
    "OTHER_FLOOR",
    "SAME",
    "TINY",
    "UNTRAINED",
    "change_slopes",
    "distances",
    "end_losses",
    "exponents",
    "floor_ratio",
    "largest_slopes",
    "pooled",
    "trained_logits",
    "trained_networks",
    "untrained_distances",
]

SAME, OTHER, FLOOR_OFF = "same batches", "other batches", "same batches, floor taken off"
FLOOR, OTHER_FLOOR = "two wide, same batches", "two wide, other batches"
UNTRAINED = "before training"

Runs = dict[tuple[int, int, int], Arrays]

# Tiny arguments of the stored function, for the tests.
TINY: dict[str, dict[str, Any]] = {
    "trained_logits": {
        "network": {"width": 6, "parametrization": "MF"},
        "start_seed": 1,
        "batch_seed": 2,
        "epochs": 1,
        "lr": 0.1,
        "batch_size": 32,
    }
}


def change_slopes(
    data: Dataset,
    *,
    widths: Sequence[int],
    seeds: Sequence[int],
    steps: Sequence[int],
    lr: float,
    batch_size: int,
    parametrization: str = "MF",
) -> pd.DataFrame:
    """Log-log slope against the width of the change of each pre-activation, along the training.

    Columns step, layer (from 1), seed, slope. The runs are those of `coordinates.coordinate_check`
    (SGD, float64), a uniform start; every width and seed has batches and probes of its seed.
    """
    network = {"parametrization": parametrization, "init": {"kind": "uniform"}}
    keys = [(seed, width) for seed in seeds for width in widths]
    configs = [
        {
            "network": {"width": width, **network},
            "seed": seed,
            "optimizer": "sgd",
            "lr": lr,
            "steps": list(steps),
            "batch_size": batch_size,
        }
        for seed, width in keys
    ]
    runs = sweep.run(
        coordinate_check, configs, data=data, cost=_square_width, description="change with steps"
    )
    change = {key: run["change"] for key, run in zip(keys, runs, strict=True)}
    layers = next(iter(change.values())).shape[1]
    rows = [
        (step, layer + 1, seed, slope(list(widths), [change[seed, n][i, layer] for n in widths]))
        for seed in seeds
        for i, step in enumerate(steps)
        for layer in range(layers)
    ]
    return pd.DataFrame(rows, columns=["step", "layer", "seed", "slope"])


def _square_width(config: Mapping[str, Any]) -> float:
    return float(config["network"]["width"]) ** 2


def largest_slopes(frame: pd.DataFrame, step: int) -> pd.Series[float]:
    """Largest |slope| over the layers after `step`, by seed. Raises ValueError for a step that the
    frame does not have."""
    rows = frame[frame.step == step]
    if rows.empty:
        raise ValueError(f"step must be one of {sorted(set(frame.step))}, got {step}")
    return rows.slope.abs().groupby(rows.seed, sort=False).max()


def trained_logits(
    data: Dataset,
    *,
    network: Mapping[str, Any],
    start_seed: int,
    batch_seed: int,
    epochs: int,
    lr: float,
    batch_size: int,
) -> Arrays:
    """What a network trained by SGD says of the test set.

    Its start is drawn with `start_seed`, the order of its batches with `batch_seed`, so that two
    networks may share either. Returns `logits` (n_test, classes) and `test_loss` (epochs + 1,).
    """
    model = build_mlp(data, network, seed=start_seed)
    history = train(
        model, data, epochs=epochs, lr=lr, batch_size=batch_size, seed=batch_seed, progress=False
    )
    with torch.no_grad():
        logits = model(data.x_test)
    return {"logits": logits.numpy(), "test_loss": history.test_loss.numpy()}


def trained_networks(
    data: Dataset,
    *,
    source_widths: Sequence[int],
    widest: int,
    seeds: Sequence[int],
    epochs: int,
    lr: float,
    batch_size: int,
    **network: Any,
) -> Runs:
    """(seed, width, place) -> run of `trained_logits`.

    Every seed s has two networks of the largest width, a_s (place 0) and b_s (place 1), and one f_s
    (place 2) of each source width, with starts of their own (10 s + place) and the same batches
    (10 s).
    """
    keys = [
        (seed, width, place) for seed in seeds for width, place in _members(source_widths, widest)
    ]
    configs = [
        {
            "network": {"width": width, **network},
            "start_seed": 10 * seed + place,
            "batch_seed": 10 * seed,
            "epochs": epochs,
            "lr": lr,
            "batch_size": batch_size,
        }
        for seed, width, place in keys
    ]
    runs = sweep.run(
        trained_logits, configs, data=data, cost=_square_width, description="shared batches"
    )
    return dict(zip(keys, runs, strict=True))


def _members(source_widths: Sequence[int], widest: int) -> list[tuple[int, int]]:
    """Width and place of each network of a seed."""
    return [(widest, 0), (widest, 1), *((width, 2) for width in source_widths)]


def distances(runs: Runs) -> pd.DataFrame:
    """Mean squared differences of logits on the test set: columns kind, width, seed, square.

    runs : of `trained_networks`. s' is the next seed, after the last the first one. With |.|² the
    mean square, kinds are

    - `SAME`: |f_s - a_s|², `OTHER`: |f_s - a_s'|²,
    - `FLOOR_OFF`: the mean of (f_s - a_s)(f_s - b_s). Given the batches a and b are independent
      and of one law, so what they add to `SAME` drops out of its mean; a value may be negative.
    - `FLOOR`: |a_s - b_s|², `OTHER_FLOOR`: |a_s - b_s'|², at the largest width.

    Neighbouring seeds share a network in `OTHER` and `OTHER_FLOOR`, so that an interval over seeds
    is slightly too narrow for these two.
    Raises ValueError for fewer than two seeds.
    """
    seeds = list(dict.fromkeys(seed for seed, _, _ in runs))
    if len(seeds) < 2:
        raise ValueError(f"runs must be of at least two seeds, got {seeds}")
    (widest,) = {width for _, width, place in runs if place == 0}
    of = {key: run["logits"].astype(float) for key, run in runs.items()}
    rows: list[tuple[str, int, int, float]] = []
    for seed, other in zip(seeds, seeds[1:] + seeds[:1], strict=True):
        a, b, far = of[seed, widest, 0], of[seed, widest, 1], of[other, widest, 0]
        for width in [width for at, width, place in runs if at == seed and place == 2]:
            f = of[seed, width, 2]
            rows.append((SAME, width, seed, _mean_product(f - a, f - a)))
            rows.append((OTHER, width, seed, _mean_product(f - far, f - far)))
            rows.append((FLOOR_OFF, width, seed, _mean_product(f - a, f - b)))
        rows.append((FLOOR, widest, seed, _mean_product(a - b, a - b)))
        apart = a - of[other, widest, 1]
        rows.append((OTHER_FLOOR, widest, seed, _mean_product(apart, apart)))
    return pd.DataFrame(rows, columns=["kind", "width", "seed", "square"])


def end_losses(runs: Runs) -> pd.DataFrame:
    """Test loss (cross-entropy, nats) before and after training of `trained_networks`: columns
    width, seed, start, end, a row a network."""
    rows = [
        (width, seed, float(run["test_loss"][0]), float(run["test_loss"][-1]))
        for (seed, width, _), run in runs.items()
    ]
    return pd.DataFrame(rows, columns=["width", "seed", "start", "end"])


def untrained_distances(
    data: Dataset,
    *,
    source_widths: Sequence[int],
    widest: int,
    seeds: Sequence[int],
    **network: Any,
) -> pd.DataFrame:
    """|f_s - a_s|² of `distances` before the first step: its columns, kind `UNTRAINED`.

    What starts alone make: means over a zero-mean start differ like N^(-1/2), whatever is learned.
    """
    rows = []
    for seed in seeds:
        logits = {}
        for width, place in _members(source_widths, widest):
            model = build_mlp(data, {"width": width, **network}, seed=10 * seed + place)
            with torch.no_grad():
                logits[width, place] = model(data.x_test).double().numpy()
        a = logits[widest, 0]
        for width in source_widths:
            f = logits[width, 2]
            rows.append((UNTRAINED, width, seed, _mean_product(f - a, f - a)))
    return pd.DataFrame(rows, columns=["kind", "width", "seed", "square"])


def _mean_product(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(x * y))


def _of_kind(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    rows = frame[frame.kind == kind]
    if rows.empty:
        raise ValueError(f"kind must be one of {sorted(set(frame.kind))}, got {kind!r}")
    return rows


def exponents(frame: pd.DataFrame, kind: str) -> pd.Series[float]:
    """Log-log slope of the rms difference against the source width, by seed. Raises ValueError for
    a kind that the frame does not have."""
    found = {
        seed: slope(list(rows.width), list(np.sqrt(rows.square)))
        for seed, rows in _of_kind(frame, kind).groupby("seed", sort=False)
    }
    return pd.Series(found).rename_axis("seed")


def pooled(frame: pd.DataFrame, kind: str) -> tuple[float, float, float]:
    """Slope, low and high of the root of the mean square over seeds against the source width.

    A jackknife over seeds (`figure_4_3.pooled_exponent`), for squares that may be negative for a
    single seed. Raises ValueError for a kind that the frame does not have.
    """
    value, low, high = pooled_exponent(_of_kind(frame, kind), x="width", y="square")
    return value / 2, low / 2, high / 2


def floor_ratio(frame: pd.DataFrame) -> pd.Series[float]:
    """Squared difference of two wide networks with the same batches, over that with other batches,
    by seed. Raises ValueError where the frame has no two wide networks."""
    same, other = (_of_kind(frame, kind).set_index("seed").square for kind in (FLOOR, OTHER_FLOOR))
    return same / other
