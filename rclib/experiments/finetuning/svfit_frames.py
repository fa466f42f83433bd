"""Frames of notebook 82 from the matrices of stored runs: which values and vectors an adaptation
moves, the rank that 99 percent ask for, and row-column structure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rclib.experiments.finetuning.bases import Chain
from rclib.experiments.finetuning.loldu import Studied
from rclib.experiments.finetuning.svfit_weights import (
    POWERS,
    hidden_correlation,
    kept_rank,
    kept_shares,
    rank_correlation,
    right_overlap,
    scaled_top,
    value_moves,
    vector_share,
)
from rclib.rowcolumn.measure import row_column_share
from rclib.runs.store import Arrays
from rclib.stats.sequential import interval

__all__ = [
    "FACTORS",
    "SHARE",
    "TOP",
    "by_seed",
    "changes",
    "interventions",
    "kept_curves",
    "kept_frame",
    "moves",
    "weight_measures",
]

SHARE = 0.99  # of the matrix, which r is to keep
TOP = 10  # leading right singular vectors whose space is followed
FACTORS = (0.0, 0.5, 1.0, 1.5, 2.0)  # of the largest singular value
ADAM, SGD = "images", "images, SGD"  # systems whose changes are measured, by optimiser


def _both(run: Mapping[str, np.ndarray], what: str) -> list[Tensor]:
    return [torch.from_numpy(run[f"{what}_{k}"]).double() for k in (0, 1)]


def _of_arm(system: Studied, arm: str) -> Iterator[tuple[int, Arrays]]:
    """(seed, run) of an arm whose matrices were kept."""
    for (own, _, seed), run in system.runs.items():
        if own == arm:
            yield seed, run


def _change(run: Arrays) -> list[tuple[float, ...]]:
    """A row a layer, of the columns of `changes` from "spearman" on."""
    weights, added = _both(run, "weight"), _both(run, "change")
    before = hidden_correlation(weights)
    after = hidden_correlation([w + d for w, d in zip(weights, added, strict=True)])
    return [
        (
            rank_correlation(*value_moves(w, d)), vector_share(w, d),
            right_overlap(w, w + d, min(TOP, *w.shape)), float(d.norm() / w.norm()),
            before, after, abs(after - before),
        )
        for w, d in zip(weights, added, strict=True)
    ]  # fmt: skip


def changes(systems: Mapping[str, Studied], arms: Sequence[str]) -> pd.DataFrame:
    """Of arms whose matrices were kept, on images: optimizer ("Adam", "SGD"), arm, seed, layer,
    spearman (of |moves| with values), off (`vector_share`), overlap (of the leading right spaces
    before and after), moved (‖ΔW‖ / ‖W‖), and of the run, in both rows, correlation_before,
    correlation_after and correlation_moved (by what size, `hidden_correlation`)."""
    rows = [
        (optimizer, arm, seed, layer, *row)
        for optimizer, name in (("Adam", ADAM), ("SGD", SGD))
        for arm in arms
        for seed, run in _of_arm(systems[name], arm)
        for layer, row in enumerate(_change(run), start=1)
    ]
    columns = ["optimizer", "arm", "seed", "layer", "spearman", "off", "overlap", "moved"]
    columns += [f"correlation_{what}" for what in ("before", "after", "moved")]
    return pd.DataFrame(rows, columns=columns)


def moves(systems: Mapping[str, Studied], arm: str, *, layer: int) -> pd.DataFrame:
    """optimizer, place, value, move, half: of each singular value of a layer, its mean size, the
    mean size of its move over seeds, and the half width of the 95 percent t-interval of that.
    systems : optimiser -> system."""
    frames = []
    for optimizer, system in systems.items():
        found = [
            value_moves(_both(run, "weight")[layer - 1], _both(run, "change")[layer - 1])
            for _, run in _of_arm(system, arm)
        ]
        value, move = (torch.stack(side).abs().numpy() for side in zip(*found, strict=True))
        over = [interval(column.tolist(), 0.05) for column in move.T]
        half = [mean - low for mean, low, _ in over]
        columns = {"optimizer": optimizer, "place": range(1, value.shape[1] + 1)}
        means = {"value": value.mean(0), "move": move.mean(0), "half": half}
        frames.append(pd.DataFrame({**columns, **means}).round(5))
    return pd.concat(frames, ignore_index=True)


def _spectra(system: Studied, arm: str) -> Iterator[tuple[int, int, str, np.ndarray]]:
    """(seed, layer, matrix, singular values) of the pre-trained matrices ("trained"), and of those
    that pre-training began with ("start")."""
    for seed, run in _of_arm(system, arm):
        trained = _both(run, "weight")
        net = Chain(trained[0].shape[1], trained[0].shape[0], 1, seed=seed)
        for layer, weight in enumerate(trained):
            # The hidden layers are drawn first, so the number of classes does not matter.
            start = net.layers[layer].get_parameter("weight").detach().double()
            yield seed, layer + 1, "trained", torch.linalg.svdvals(weight).numpy()
            yield seed, layer + 1, "start", torch.linalg.svdvals(start).numpy()


def kept_frame(systems: Mapping[str, Studied], arm: str) -> pd.DataFrame:
    """system ("images", "text" if there is one), seed, layer, matrix ("trained", "start"), power
    (1, 2), share: r/k for the r that keeps 99 percent. arm : one whose matrices were kept."""
    rows = [
        (name, seed, layer, matrix, power, kept_rank(values, SHARE, power) / len(values))
        for name in (ADAM, "text")
        if name in systems
        for seed, layer, matrix, values in _spectra(systems[name], arm)
        for power in POWERS
    ]
    return pd.DataFrame(rows, columns=["system", "seed", "layer", "matrix", "power", "share"])


def kept_curves(system: Studied, arm: str, *, layer: int) -> pd.DataFrame:
    """matrix, power, part (r/k), kept: mean share over seeds that the first r values hold."""
    frames = []
    for _, own, matrix, values in _spectra(system, arm):
        for power in POWERS if own == layer else ():
            part = np.arange(1, len(values) + 1) / len(values)
            kept = kept_shares(values, power)
            frames.append(
                pd.DataFrame({"matrix": matrix, "power": power, "part": part, "kept": kept})
            )
    whole = pd.concat(frames, ignore_index=True)
    return whole.groupby(["matrix", "power", "part"], as_index=False).kept.mean().round(5)


def interventions(system: Studied, arm: str) -> pd.DataFrame:
    """seed, factor, correlation (`hidden_correlation`, its size), share (of row and column means,
    mean of both matrices): the pre-trained matrices with s_1 of both times a factor."""
    rows = []
    for seed, run in _of_arm(system, arm):
        weights = _both(run, "weight")
        for factor in FACTORS:
            both = [scaled_top(w, factor) for w in weights]
            share = float(np.mean([row_column_share(w).value for w in both]))
            rows.append((seed, factor, abs(hidden_correlation(both)), share))
    return pd.DataFrame(rows, columns=["seed", "factor", "correlation", "share"])


def by_seed(frame: pd.DataFrame, what: str, *, least: bool = False, **where: Any) -> pd.Series:
    """Mean over layers by seed, or the least, of the rows where columns have these values.

    Raises ValueError if there are none.
    """
    for name, value in where.items():
        frame = frame[frame[name] == value]
    if frame.empty:
        raise ValueError(f"frame must have rows with {where}, got none")
    over = frame.groupby("seed", sort=False)[what]
    found: pd.Series = over.min() if least else over.mean()
    return found


def weight_measures(
    changed: pd.DataFrame, scaled: pd.DataFrame, shares: pd.DataFrame, arm: str
) -> dict[str, pd.Series]:
    """Values by seed of the claims about weights. arm : the one that trains all values."""
    adam, sgd = (changed[changed.optimizer == name] for name in ("Adam", "SGD"))
    squares = shares[shares.power == 2]
    images = squares[squares.system == ADAM]
    found = {
        "rank_squares": by_seed(images, "share", least=True, matrix="trained"),
        "rank_sums": by_seed(shares, "share", least=True, system=ADAM, matrix="trained", power=1),
        "rank_start": by_seed(images, "share", matrix="trained")
        - by_seed(images, "share", matrix="start"),
        "frozen": by_seed(adam, "off", arm=arm),
        "full_off": by_seed(adam, "off", arm="full"),
        "full_rotates": by_seed(adam, "overlap", arm="full"),
        "all_turn": by_seed(adam, "overlap", arm=arm),
        "sgd_first": by_seed(sgd, "spearman", arm=arm, layer=1),
        "sgd_second": by_seed(sgd, "spearman", arm=arm, layer=2),
        "adam_moves": by_seed(adam, "spearman", arm=arm),
        "correlation_top": by_seed(scaled, "correlation", factor=FACTORS[-1])
        - by_seed(scaled, "correlation", factor=FACTORS[0]),
        "correlation_moves": by_seed(adam, "correlation_moved", arm=arm)
        - by_seed(adam, "correlation_moved", arm="full"),
    }
    if "text" in set(shares.system):
        found["text_rank"] = by_seed(squares, "share", least=True, system="text", matrix="trained")
    return found
