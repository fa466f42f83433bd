"""Frames of notebook 84: networks with power-of-two weights that are moved to other classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.finetuning.bases import PARTS
from rclib.experiments.finetuning.denseshift import (
    DENSE_3,
    PLAIN,
    Cell,
    chosen_cells,
    ends_frame,
    run_cells,
)
from rclib.experiments.finetuning.denseshift_runs import transfer_runs
from rclib.runs.stacked import sweep_stacked

__all__ = ["TRANSFER", "move_differences", "transferred"]

TRANSFER: dict[str, tuple[dict[str, Any], str]] = {
    "float": ({"kind": "Float"}, "Kaiming"),
    "dense 3, low": (DENSE_3, "low"),
    "dense 3, Kaiming": (DENSE_3, "Kaiming"),
    "dense 3, one": (DENSE_3, "one"),
    "with zero 3, low": ({"kind": "ShiftWithZero", "bits": 3}, "low"),
}


def transferred(
    data: Dataset, rates: Mapping[str, Sequence[float]], tuning_seeds: Sequence[int],
    seeds: Sequence[int], settings: Mapping[str, Any], slow: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Networks moved to other classes and new ones, each at its chosen rate and at a slow one.

    rates : "base" and "task", of pre-training and after. settings : width, base, task, steps,
    batch_size. The rate of pre-training is that of least validation loss on the old classes.
    Gives the frame (arm, moved, rate, chosen, seed, ever, train, accuracy) and the chosen rates
    (arm, base_rate, moved, rate).
    """
    own = {"width": settings["width"], **settings["base"]}
    starts = {arm: {**PLAIN, "code": code} for arm, (code, _) in TRANSFER.items()}
    grid = {arm: [(std, float(r)) for r in rates["base"]] for arm, (_, std) in TRANSFER.items()}
    bases = chosen_cells(ends_frame(run_cells(data, starts, grid, tuning_seeds, own)))
    arms = [(arm, moved) for arm in TRANSFER for moved in (True, False)]
    keys = [(*arm, float(r), int(s)) for arm in arms for r in rates["task"] for s in tuning_seeds]
    tuning = _moved(data, keys, bases, settings)
    mean = tuning.groupby(["arm", "moved", "rate"]).validation.mean()
    best = {key: float(found[2]) for key, found in mean.groupby(["arm", "moved"]).idxmin().items()}
    keys = [(*arm, r, int(s)) for arm in arms for r in sorted({best[arm], slow}) for s in seeds]
    frame = _moved(data, keys, bases, settings)
    pairs = zip(frame.arm, frame.moved, strict=True)
    frame["chosen"] = frame.rate == [best[pair] for pair in pairs]
    rows = [(arm, bases[arm][1], moved, best[arm, moved]) for arm, moved in arms]
    return frame, pd.DataFrame(rows, columns=["arm", "base_rate", "moved", "rate"])


def _moved(
    data: Dataset, keys: Sequence[tuple[str, bool, float, int]], bases: Mapping[str, Cell],
    settings: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    configs = [
        {
            **settings, "code": TRANSFER[arm][0], "std": TRANSFER[arm][1], "seed": s, "rate": rate,
            "base_rate": bases[arm][1], "moved": moved,
        }
        for arm, moved, rate, s in keys
    ]  # fmt: skip
    runs = sweep_stacked(
        transfer_runs, configs, members=["seed", "rate", "std", "base_rate", "moved"], data=data,
        group=120, description="moved networks",
    )  # fmt: skip
    rows = [
        (*key, float(run["ever"]), *run["end"], run["accuracy"][2])
        for key, run in zip(keys, runs, strict=True)
    ]
    columns = ["arm", "moved", "rate", "seed", "ever", *PARTS, "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def move_differences(moved: pd.DataFrame, slow: float) -> dict[str, pd.Series]:
    """The measured values of the claims on transfer, by seed."""
    best, small = moved[moved.chosen], moved[np.isclose(moved.rate, slow)]

    def of(frame: pd.DataFrame, arm: str, pre: bool, what: str = "accuracy") -> pd.Series:
        own: pd.Series = frame[(frame.arm == arm) & (frame.moved == pre)].set_index("seed")[what]
        return own

    low, zero = "dense 3, low", "with zero 3, low"
    return {
        "move_level": of(best, low, True) - of(best, "float", True),
        "move_gain": of(best, low, True) - of(best, low, False),
        "move_gain_zero": of(best, zero, True) - of(best, zero, False),
        "move_start": of(best, low, True) - of(best, "dense 3, Kaiming", True),
        "move_one": of(best, low, True) - of(best, "dense 3, one", True),
        "move_slow": of(small, low, True) - of(small, low, False),
        "move_frozen": of(small, low, True, "ever") - of(small, low, False, "ever"),
    }
