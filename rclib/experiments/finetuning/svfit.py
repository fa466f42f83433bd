"""Arms, stored runs and tables of notebook 82: is it enough to fine-tune singular values?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning.bases import image_task
from rclib.experiments.finetuning.loldu import (
    Studied,
    arm_table,
    difference,
    inputs_of,
    studied,
    texts,
    tuning_curves,
)
from rclib.experiments.finetuning.svfit_frames import (
    by_seed,
    changes,
    interventions,
    kept_curves,
    kept_frame,
    moves,
    weight_measures,
)
from rclib.experiments.finetuning.tuned_runs import (
    Arms,
    adapted,
    arm_frame,
    chosen_rates,
    counts,
    run_arms,
)
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays

__all__ = [
    "TINY",
    "alike",
    "at_rate",
    "by_seed",
    "changes",
    "differences",
    "frontier",
    "image_arms",
    "inputs_of",
    "interventions",
    "kept_curves",
    "kept_frame",
    "moves",
    "sgd_runs",
    "sgd_studied",
    "small_arms",
    "studied",
    "tables",
    "text_arms",
    "texts",
    "tuning_curves",
    "weight_measures",
]

TINY: dict[str, dict[str, Any]] = {
    "sgd_runs": {
        "group": [
            {"seed": 0, "rate": 0.01, "method": {"kind": "SingularValues", "rank": 3}},
            {"seed": 3, "rate": 0.1, "method": {"kind": "RandomFrames", "rank": 3}},
        ],
        "base": {
            "width": 8, "batch_size": 16, "steps": 3, "rate": 0.01, "pool": 1, "classes": 5,
            "n": 30,
        },
        "task": {"n_train": 20, "n_validation": 8, "n_test": 8, "head_rate": 0.1},
        "steps": 3, "batch_size": 8,
    }
}  # fmt: skip


# --- arms ------------------------------------------------------------------------------------


def _values(rank: int, which: str = "top") -> dict[str, Any]:
    return {"kind": "SingularValues", "rank": rank, "which": which}


def _frames(rank: int) -> dict[str, Any]:
    return {"kind": "RandomFrames", "rank": rank, "frames_like": "orthonormal"}


def image_arms(ranks: Sequence[int], lora: Sequence[int]) -> dict[str, Any]:
    """Arms of the images: the top r singular values for all ranks (the last is all of them), at
    the last rank but one also the bottom and the mispaired ones and random orthonormal frames,
    which are there at the last rank too; LoRA, a head alone and full fine-tuning."""
    half, k = ranks[-2:]
    arms: dict[str, Any] = {"head": {"kind": "Linear"}}
    arms |= {f"top {r}": _values(r) for r in ranks}
    arms |= {f"{which} {half}": _values(half, which) for which in ("bottom", "mispaired")}
    arms |= {f"random {r}": _frames(r) for r in (half, k)}
    arms |= {f"LoRA {r}": {"kind": "LoRA", "rank": r} for r in lora}
    return {**arms, "full": {"kind": "Full"}}


def text_arms(ranks: Sequence[int], lora: Sequence[int]) -> dict[str, Any]:
    """Arms of the text: those of the images at the last two ranks without the mispaired ones, and
    no adaptation in place of a head alone."""
    half, k = ranks[-2:]
    arms: dict[str, Any] = {"none": {"kind": "Linear"}}
    arms |= {f"top {half}": _values(half), f"top {k}": _values(k)}
    arms |= {f"bottom {half}": _values(half, "bottom"), f"random {k}": _frames(k)}
    arms |= {f"LoRA {r}": {"kind": "LoRA", "rank": r} for r in lora}
    return {**arms, "full": {"kind": "Full"}}


def small_arms(rank: int, lora: Sequence[int]) -> dict[str, Any]:
    """Arms of the small task: a head alone, all values of its matrices, LoRA."""
    arms: dict[str, Any] = {"head": {"kind": "Linear"}, f"top {rank}": _values(rank)}
    return {**arms, **{f"LoRA {r}": {"kind": "LoRA", "rank": r} for r in lora}}


def at_rate(
    data: Dataset | TextData, arms: Arms, rate: float, seeds: Sequence[int],
    settings: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """`arm_frame` of arms at one rate for all."""
    return arm_frame(run_arms(data, arms, {arm: [rate] for arm in arms}, seeds, settings))


def frontier(system: Studied, what: str) -> pd.DataFrame:
    """family ("singular values", "LoRA", "random frames", "head", "none", "full"), count, seed,
    value: a column by family and trained numbers in the hidden layers."""
    names = {"top": "singular values", "random": "random frames"}
    alike = {name: name for name in ("LoRA", "head", "none", "full")}
    family = system.frame.arm.str.replace(r" \d+$", "", regex=True).map({**names, **alike})
    frame = system.frame.assign(family=family, value=system.frame[what])
    found = frame.dropna(subset=["family"])[["family", "count", "seed", "value"]]
    return found.reset_index(drop=True)


def differences(
    frames: Mapping[str, pd.DataFrame], arms: Mapping[str, tuple[str, str, str]]
) -> dict[str, pd.Series]:
    """key -> by seed, a column of one arm minus that of another, for those whose frame is there.

    arms : key -> (one, other, what); what is a column of the frame "images", or with the name of
    another behind a comma, "test, text".
    """
    found = {}
    for key, (one, other, what) in arms.items():
        column, _, where = what.partition(", ")
        if (where or "images") in frames:
            found[key] = difference(frames[where or "images"], one, other, column)
    return found


def alike(frames: Mapping[str, pd.DataFrame], arms: Sequence[str]) -> pd.DataFrame:
    """arm, rate (the name of a frame), seed, train: these arms of the frames."""
    own = [frame[frame.arm.isin(arms)].assign(rate=name) for name, frame in frames.items()]
    return pd.concat(own, ignore_index=True)[["arm", "rate", "seed", "train"]]


def tables(
    systems: Mapping[str, Studied], changed: pd.DataFrame, shares: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Tables of the results: "rates" (mean validation and training loss of the tuning seeds by
    system, arm and rate), "shares" and "changes" (means over seeds), "arms" (`arm_table`)."""
    tuning = pd.concat([s.tuning.assign(system=name) for name, s in systems.items()])
    kept = ["system", "layer", "matrix", "power"]
    by = ["optimizer", "arm", "layer"]
    return {
        "rates": tuning.groupby(["system", "arm", "rate"], sort=False)[["validation", "train"]]
        .mean().round(4).reset_index(),
        "shares": shares.groupby(kept, sort=False).share.mean().reset_index(),
        "changes": changed.groupby(by, sort=False).mean().drop(columns="seed").reset_index(),
        "arms": pd.concat([arm_table(s).assign(system=name) for name, s in systems.items()]),
    }  # fmt: skip


# --- without Adam ----------------------------------------------------------------------------


def sgd_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], base: Mapping[str, Any],
    task: Mapping[str, Any], steps: int, batch_size: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group: `adapted` on images with plain gradient steps, matrices kept."""
    found = image_task(data, [int(m["seed"]) for m in group], base=base, task=task)
    return adapted(
        found, group, steps=steps, batch_size=batch_size, keep=True, optimizer="sgd"
    )  # fmt: skip


def _sgd(
    data: Dataset, arms: Arms, rates: Mapping[str, Sequence[float]], seeds: Sequence[int],
    settings: Mapping[str, Any],
) -> dict[tuple[str, float, int], Arrays]:  # fmt: skip
    found: dict[tuple[str, float, int], Arrays] = {}
    for arm, spec in arms.items():  # one after the other: they are of different kin
        keys = [(arm, float(rate), int(s)) for rate in rates[arm] for s in seeds]
        configs = [
            {**settings, "method": dict(spec), "seed": s, "rate": rate} for _, rate, s in keys
        ]
        runs = sweep_stacked(
            sgd_runs, configs, members=["seed", "rate", "method"], group=32, data=data,
            description="SGD",
        )  # fmt: skip
        found |= dict(zip(keys, runs, strict=True))
    return found


def sgd_studied(
    data: Dataset, arms: Arms, tuning_seeds: Sequence[int], seeds: Sequence[int],
    settings: Mapping[str, Any], sgd: Mapping[str, Any], *, inputs: int,
) -> Studied:  # fmt: skip
    """As `studied`, with plain gradient steps. sgd : rates, and head_rate of the head."""
    own = {**settings, "task": {**settings["task"], "head_rate": sgd["head_rate"]}}
    tuning = arm_frame(_sgd(data, arms, dict.fromkeys(arms, sgd["rates"]), tuning_seeds, own))
    rates = chosen_rates(tuning)
    runs = _sgd(data, arms, {arm: [rate] for arm, rate in rates.items()}, seeds, own)
    frame, number = arm_frame(runs), counts(arms, int(settings["base"]["width"]), inputs)
    return Studied(tuning, rates, frame.assign(count=frame.arm.map(number)), runs)
