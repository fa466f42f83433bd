"""The decaying rate of paper B, and which singular direction carries the update.

Overlaps are squared inner products of singular vectors: of W_t ("before") or W_{t+1}
("after") with those of the update M_t, left and right (`rclib.spectral.spectra.overlaps`). For one
direction of M_t they sum to one over all directions of W.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.spikes.frames import expand, steps_frame, train_all
from rclib.runs.store import Arrays
from rclib.teacher.record import STANDARD

__all__ = [
    "carriers",
    "decay_effect",
    "long_maps",
    "overlap_maps",
    "together",
    "train",
]

SIDES = ("left", "right")


def train(
    seeds: Sequence[int],
    *,
    optimizer: str,
    rate: float,
    gammas: Sequence[float],
    overlap_top: int,
    **setting: Any,
) -> tuple[dict[tuple[int, float], Arrays], pd.DataFrame]:
    """Records by (seed, gamma) and their table of steps."""
    base = {"optimizer": optimizer, "rate": rate, "overlap_top": overlap_top, **setting}
    base["quantities"] = [*STANDARD, "updates", "overlaps"]
    configs = expand(base, seed=list(seeds), gamma=list(gammas))
    runs = train_all(configs)
    named = {(c["seed"], c["gamma"]): run for c, run in zip(configs, runs, strict=True)}
    return named, steps_frame(configs, runs, keys=["seed", "gamma"])


def decay_effect(frame: pd.DataFrame, *, by: str = "gamma") -> pd.DataFrame:
    """Test loss at the last step against the constant rate's, and against the run's own best.

    Columns: seed, `by`, final, against_constant = final / final of γ = 1 with the same seed,
    against_best = final / lowest test loss over the steps from 1 on.
    """
    last = frame.step.max()
    after = frame[frame.step > 0]
    lowest = after.groupby(["seed", by]).test_loss.min()
    final = frame[frame.step == last].set_index(["seed", by]).test_loss
    out = pd.DataFrame({"final": final, "against_best": final / lowest}).reset_index()
    constant = out[out[by] == 1.0].set_index("seed").final
    out["against_constant"] = out.final / out.seed.map(constant)
    return out


def carriers(
    runs: dict[tuple[int, float], Arrays], *, shown: int = 3, when: str = "before"
) -> pd.DataFrame:
    """How the update's first direction is shared between the directions of W.

    Columns: seed, gamma, side, step (of the update), direction ("1", "2", ..., up to `shown`,
    and "others"), share; the shares of one update sum to one.
    """
    rows = []
    for (seed, gamma), run in runs.items():
        for side in SIDES:
            of_first = run[f"overlap_{side}_{when}"][:, :, 0]  # (U, k)
            for step, shares in zip(run["update_steps"], of_first, strict=True):
                key = (seed, gamma, side, int(step))
                rows += [(*key, str(i + 1), float(shares[i])) for i in range(shown)]
                rows.append((*key, "others", float(1.0 - shares[:shown].sum())))
    columns = ["seed", "gamma", "side", "step", "direction", "share"]
    return pd.DataFrame(rows, columns=columns)


def together(frame: pd.DataFrame, directions: Sequence[str]) -> pd.DataFrame:
    """The frame of `carriers` with the shares of some directions added up, called "2 + 3"."""
    name = " + ".join(directions)
    renamed = frame.assign(direction=frame.direction.replace(dict.fromkeys(directions, name)))
    keys = ["seed", "gamma", "side", "step", "direction"]
    return renamed.groupby(keys, sort=False, as_index=False).share.sum()


def overlap_maps(
    run: Arrays, *, steps: Sequence[int], top: int, when: str = "after"
) -> dict[str, dict[str, np.ndarray]]:
    """Overlap matrices (top, top) by side and step: {"left": {"step 0": ...}, "right": ...}."""
    index = [list(run["update_steps"]).index(step) for step in steps]
    return {
        side: {
            f"step {step}": run[f"overlap_{side}_{when}"][i, :top, :top]
            for step, i in zip(steps, index, strict=True)
        }
        for side in SIDES
    }


def long_maps(maps: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    """The matrices of `overlap_maps` as one row an entry: side, step, w, m, overlap.

    w, m : numbers of the directions of W and of the update, from 1.
    """
    rows = [
        (side, step, i + 1, j + 1, float(matrix[i, j]))
        for side, by_step in maps.items()
        for step, matrix in by_step.items()
        for i, j in np.ndindex(*matrix.shape)
    ]
    return pd.DataFrame(rows, columns=["side", "step", "w", "m", "overlap"])
