"""Frames of notebook 90: networks from scratch and after denoising their own inputs."""

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
    "digit_frame",
    "digit_values",
    "sequence_frame",
    "sequence_values",
]

Cell = tuple[str, str]
Values = dict[str, pd.Series]
T, S = "transformer", "ssm"
DIGIT_CELLS: tuple[Cell, ...] = (
    (T, "scratch"), (T, "denoised"), (T, "shuffled"), (S, "scratch"), (S, "denoised"),
)  # fmt: skip
SEQUENCE_CELLS: dict[str, tuple[tuple[str, str, bool], ...]] = {  # kind, arm, permuted
    "texture": (
        (T, "scratch", False), (T, "denoised", False), (S, "scratch", False), (T, "scratch", True),
        (S, "scratch", True),
    ),
    "counting": ((T, "scratch", False), (T, "denoised", False)),
    "retrieval": ((T, "scratch", False), (T, "denoised", False)),
    "lists": ((T, "scratch", False), (T, "denoised", False)),
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


def _digit_runs(data: Dataset, seeds: Sequence[int], settings: Mapping[str, Any]) -> Any:
    keys = [(kind, arm, int(seed)) for kind, arm in DIGIT_CELLS for seed in seeds]
    configs = [{**settings, "kind": k, "arm": arm, "seed": seed} for k, arm, seed in keys]
    runs = sweep_stacked(digit_runs, configs, members=MEMBERS, data=data, description="digits")
    return list(zip(keys, runs, strict=True))


def digit_frame(data: Dataset, seeds: Sequence[int], **settings: Any) -> pd.DataFrame:
    """One row a network: kind, arm, seed, train, test, denoising, label_loss and its measures at
    the start, after denoising and at the end. settings : of `digit_runs`."""
    found = _digit_runs(data, seeds, settings)
    return pd.DataFrame(
        [_row(run, kind=kind, arm=arm, seed=seed) for (kind, arm, seed), run in found]
    )


def attention_frame(data: Dataset, seeds: Sequence[int], **settings: Any) -> pd.DataFrame:
    """arm, down, right, share: mean attention to positions alone, from one pixel to the one that
    is so many rows down and columns to the right, of the head with the most on neighbours; after
    labels alone ("scratch") and after denoising ("denoised", "shuffled"), times 64."""
    frames = []
    found = _digit_runs(data, seeds, settings)
    for arm in ("scratch", "denoised", "shuffled"):
        own = [run["attention"][-1 if arm == "scratch" else 1]
               for (kind, of, _), run in found if kind == T and of == arm]  # fmt: skip
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


def _of(frame: pd.DataFrame, column: str, **where: Any) -> pd.Series:
    """A column by seed. Raises ValueError if there are no such rows."""
    kept = frame
    for name, value in where.items():
        kept = kept[kept[name] == value]
    if kept.empty:
        raise ValueError(f"frame must hold {where}")
    found: pd.Series = kept.set_index("seed")[column]
    return found


def _gain(frame: pd.DataFrame, kind: str, arm: str = "denoised") -> pd.Series:
    return _of(frame, "test", kind=kind, arm=arm) - _of(frame, "test", kind=kind, arm="scratch")


def _gap(frame: pd.DataFrame, arm: str) -> pd.Series:
    return _of(frame, "test", kind=S, arm=arm) - _of(frame, "test", kind=T, arm=arm)


def digit_values(frame: pd.DataFrame) -> Values:
    """What is claimed of the digits, by seed, from `digit_frame`."""
    denoised, labels = ({"kind": T, "arm": arm} for arm in ("denoised", "scratch"))

    def sides(moment: str, where: Mapping[str, str]) -> pd.DataFrame:
        pair = {side: _of(frame, f"{side}, {moment}", **where) for side in ("rows", "columns")}
        return pd.DataFrame(pair)

    def over_labels(name: str) -> pd.Series:
        return _of(frame, f"{name}, denoised", **denoised) - _of(frame, f"{name}, end", **labels)

    return {
        "gap": _gap(frame, "scratch"),
        "gain": _gain(frame, T),
        "halved": _gap(frame, "denoised") - _gap(frame, "scratch") / 2,
        "level": _gap(frame, "denoised"),
        "shuffled": _gain(frame, T, "shuffled"),
        "near": _of(frame, "near, denoised", **denoised),
        "near_labels": _of(frame, "near, end", **labels),
        "grid": sides("denoised", denoised).min(axis=1),
        "grid_labels": sides("end", labels).abs().max(axis=1),
        "frozen": _of(frame, "frozen, denoised", **denoised)
        - _of(frame, "frozen, start", **denoised),
        "spikes": over_labels("table"),
        "scores": over_labels("scores"),
        "rc": _of(frame, "rc, denoised", **denoised),
    }


def sequence_values(frame: pd.DataFrame) -> Values:
    """What is claimed of the generated sequences, by seed, from `sequence_frame`."""
    own = {task: frame[(frame.task == task) & ~frame.permuted] for task in frame.task.unique()}
    texture = frame[frame.task == "texture"]

    def lost(kind: str) -> pd.Series:
        where = {"kind": kind, "arm": "scratch"}
        return _of(texture, "test", permuted=False, **where) - _of(
            texture, "test", permuted=True, **where
        )

    found = {
        "texture_gap": _gap(own["texture"], "scratch"),
        "texture_gain": _gain(own["texture"], T),
        "permuted": lost(S),
        "permuted_transformer": lost(T),
        "counting": _gain(own["counting"], T),
    }
    for task in ("retrieval", "lists"):
        if task in own:
            found[f"{task}_gain"] = _gain(own[task], T)
    return found
