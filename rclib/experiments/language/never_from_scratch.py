"""Frames of notebook 90: networks from scratch and after denoising their own inputs.

What is claimed of them is in `scratch_values`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.language.scratch_runs import MEMBERS, digit_runs, sequence_runs
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays

__all__ = [
    "DIGIT_CELLS",
    "SEQUENCE_CELLS",
    "attention_frame",
    "course_frame",
    "digit_frame",
    "kernel_frame",
    "sequence_frame",
]

Cell = tuple[str, str]
T, S = "transformer", "ssm"
BOTH: tuple[Cell, ...] = ((T, "scratch"), (T, "denoised"), (S, "scratch"), (S, "denoised"))
DIGIT_CELLS: dict[str, tuple[Cell, ...]] = {  # by variant, all but the first with fewer seeds
    "plain": BOTH, "more images": BOTH, "random kernels": BOTH[2:],
    "shuffled pixels": ((T, "shuffled"),),
}  # fmt: skip
SEQUENCE_CELLS: dict[str, tuple[tuple[str, str, bool], ...]] = {  # kind, arm, permuted
    "texture": (
        *((*cell, False) for cell in BOTH), (T, "scratch", True), (S, "scratch", True),
        (S, "denoised", True),
    ),
    "counting": tuple((*cell, False) for cell in BOTH[:2]),
    **dict.fromkeys(("retrieval", "lists"), tuple((*cell, False) for cell in BOTH)),
}  # fmt: skip
NUMBERS = ("train", "test", "denoising", "label_loss")
MEASURES = ("near", "table", "scores", "rc")  # a number at each moment


def _row(run: Arrays, **keys: Any) -> dict[str, Any]:
    """Numbers of a run; those of moments as "<name>, start", "<name>, denoised", "<name>, end"."""
    row: dict[str, Any] = {**keys, **{name: float(run[name]) for name in NUMBERS}}
    names = ["start", "denoised"] if len(run["frozen"]) == 2 else ["start"]
    row |= {f"frozen, {m}": float(v) for m, v in zip(names, run["frozen"], strict=True)}
    if "near" in run:
        for place, moment in enumerate([*names, "end"]):
            row |= {f"{name}, {moment}": float(run[name][place]) for name in MEASURES}
            for axis, name in enumerate(("rows", "columns")):
                row[f"{name}, {moment}"] = float(run["grid"][place, axis])
    return row


def _digit_runs(
    data: Dataset, seeds: Mapping[str, Sequence[int]], settings: Mapping[str, Any], n_larger: int
) -> list[tuple[tuple[str, str, str, int], Arrays]]:
    """((variant, kind, arm, seed), run) of each variant that has seeds."""
    own: dict[str, dict[str, Any]] = {
        "plain": {}, "shuffled pixels": {}, "more images": {"n_train": n_larger},
        "random kernels": {"network": {**settings["network"], "init": "random"}},
    }  # fmt: skip
    keys = [
        (variant, kind, arm, int(seed))
        for variant, cells in DIGIT_CELLS.items()
        for kind, arm in cells
        for seed in seeds.get(variant, ())
    ]
    configs = [
        {**settings, **own[variant], "kind": kind, "arm": arm, "seed": seed}
        for variant, kind, arm, seed in keys
    ]
    runs = sweep_stacked(digit_runs, configs, members=MEMBERS, data=data, description="digits")
    return list(zip(keys, runs, strict=True))


def digit_frame(
    data: Dataset,
    seeds: Sequence[int],
    n_variants: Mapping[str, int],
    n_larger: int,
    **settings: Any,
) -> pd.DataFrame:
    """One row a network: variant, kind, arm, seed, train, test, denoising, label_loss and its
    measures at the start, after denoising and at the end.

    n_variants : how many of the seeds a variant of `DIGIT_CELLS` but "plain" has, none if it is not
    named. n_larger : images of "more images". settings : of `digit_runs`.
    """
    by = {"plain": seeds, **{variant: seeds[:n] for variant, n in n_variants.items()}}
    return pd.DataFrame([
        _row(run, variant=variant, kind=kind, arm=arm, seed=seed)
        for (variant, kind, arm, seed), run in _digit_runs(data, by, settings, n_larger)
    ])  # fmt: skip


def kernel_frame(
    data: Dataset, seeds: Sequence[int], n_variants: Mapping[str, int], **settings: Any
) -> pd.DataFrame:
    """init, moment, seed, lag, size: the largest |k[lag]| of the first block's kernels over
    channels and directions, at the start, after denoising and after labels alone, of structured
    and of random kernels. n_variants : as in `digit_frame`. settings : of `digit_runs`."""
    by = {"plain": seeds, "random kernels": seeds[: n_variants.get("random kernels", 0)]}
    frames = []
    for (variant, kind, arm, seed), run in _digit_runs(data, by, settings, 0):
        if kind == S:
            places = {"labels": -1} if arm == "scratch" else {"start": 0, "denoised": 1}
            frames += [
                pd.DataFrame({
                    "init": "random" if variant == "random kernels" else "structured",
                    "moment": moment, "seed": seed, "lag": np.arange(run["kernels"].shape[-1]),
                    "size": run["kernels"][place, 0],
                })
                for moment, place in places.items()
            ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def course_frame(data: Dataset, seeds: Sequence[int], **settings: Any) -> pd.DataFrame:
    """kind, seed, step, loss: mean denoising losses of tenths of the phase that have a step, at
    their ends.
    settings : of `digit_runs`."""
    ends = np.cumsum([len(part) for part in np.array_split(range(settings["n_denoise"]), 10)])
    return pd.concat(
        [
            pd.DataFrame({"kind": kind, "seed": seed, "step": ends, "loss": run["course"]})
            for (_, kind, arm, seed), run in _digit_runs(data, {"plain": seeds}, settings, 0)
            if arm == "denoised"
        ],
        ignore_index=True,
    ).dropna()


def attention_frame(data: Dataset, seeds: Sequence[int], **settings: Any) -> pd.DataFrame:
    """arm, down, right, share: mean attention to positions alone, from one pixel to the one that
    is so many rows down and columns to the right, of the head with the most on neighbours; after
    labels alone ("scratch") and after denoising ("denoised"), times 64."""
    frames = []
    found = _digit_runs(data, {"plain": seeds}, settings, 0)
    for arm in ("scratch", "denoised"):
        own = [run["attention"][-1 if arm == "scratch" else 1]
               for (_, kind, of, _), run in found if kind == T and of == arm]  # fmt: skip
        weights = np.asarray(np.mean(own, axis=0, dtype=np.float64))
        side = round(len(weights) ** 0.5)
        rows, columns = np.divmod(np.arange(len(weights)), side)
        frame = pd.DataFrame({
            "down": (rows - rows[:, None]).ravel(), "right": (columns - columns[:, None]).ravel(),
            "share": len(weights) * weights.ravel(),
        })  # fmt: skip
        frames.append(frame.groupby(["down", "right"]).share.mean().reset_index().assign(arm=arm))
    return pd.concat(frames, ignore_index=True)[["arm", "down", "right", "share"]].round(4)


def sequence_frame(
    seeds: Sequence[int], tasks: Mapping[str, Mapping[str, Any]], **settings: Any
) -> pd.DataFrame:
    """task, permuted and the columns of `digit_frame`.

    tasks : name -> settings of its own; settings : of `sequence_runs`, for all.
    """
    rows = []
    for task, own in tasks.items():
        keys = [(*cell, int(seed)) for cell in SEQUENCE_CELLS[task] for seed in seeds]
        configs = [
            {**settings, **own, "task": task, "kind": kind, "arm": arm, "permuted": permuted,
             "seed": seed}
            for kind, arm, permuted, seed in keys
        ]  # fmt: skip
        runs = sweep_stacked(sequence_runs, configs, members=MEMBERS, description=task)
        rows += [
            _row(run, task=task, permuted=permuted, kind=kind, arm=arm, seed=seed)
            for (kind, arm, permuted, seed), run in zip(keys, runs, strict=True)
        ]
    return pd.DataFrame(rows)
