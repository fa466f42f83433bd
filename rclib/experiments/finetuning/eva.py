"""Frames of notebook 81: are the main directions of a layer's inputs a good start of LoRA's A?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning.eva_inputs import (
    Signals,
    by_place,
    explained_gain,
    first_explained,
    seen_minus,
    smaller,
)
from rclib.experiments.finetuning.loldu import Studied, difference, studied
from rclib.experiments.finetuning.tuned_runs import arm_frame, run_arms
from rclib.inspection.block_correlations import expected_largest
from rclib.rowcolumn.measure import correlations, mean_vectors
from rclib.spectral.spectra import stable_rank

__all__ = [
    "added",
    "arm_means",
    "arms_of",
    "at_common_rate",
    "curves",
    "early_minus",
    "excess",
    "final_by_rate",
    "gain",
    "on_images",
    "on_text",
    "sgd_arms",
    "study_sgd",
    "text_arms",
]

TEXT_ARMS = ("LoRA", "LoRA, unit rows", "EVA", "PiSSA")


def arms_of(rank: int, *, full: bool) -> dict[str, Any]:
    """Arms of the images; with `full` also full fine-tuning."""
    eva = {"kind": "EVA", "rank": rank}
    arms: dict[str, Any] = {
        "LoRA": {"kind": "LoRA", "rank": rank},
        "LoRA, unit rows": {"kind": "LoRA", "rank": rank, "unit": True},
        "EVA": eva,
        "uncentred": {**eva, "centred": False},
        "permuted": {**eva, "which": "permuted"},
        "bottom": {**eva, "which": "bottom"},
        "whitened": {**eva, "whiten": True},
        "PiSSA": {"kind": "PiSSA", "rank": rank},
        "redistributed": {"kind": "EVA", "rank": 2 * rank, "budget": rank},
    }
    return {**arms, "full": {"kind": "Full"}} if full else arms


def text_arms(rank: int) -> dict[str, Any]:
    """Arms of the text: those that claims are about."""
    return {name: arms_of(rank, full=False)[name] for name in TEXT_ARMS}


def sgd_arms(rank: int) -> dict[str, Any]:
    """Arms that are trained without Adam too."""
    return {name: arms_of(rank, full=False)[name] for name in TEXT_ARMS[1:]}


def study_sgd(
    data: Dataset, rank: int, rates: Sequence[float], tuning_seeds: Sequence[int],
    seeds: Sequence[int], settings: Mapping[str, Any], *, head_rate: float, inputs: int,
) -> Studied:  # fmt: skip
    """`studied` with plain gradient descent in place of Adam, and a rate of the head for it."""
    task = {**settings["task"], "head_rate": head_rate}
    own = {**settings, "task": task, "optimizer": "sgd"}
    return studied(data, sgd_arms(rank), rates, tuning_seeds, seeds, own, inputs=inputs)


def at_common_rate(
    data: Dataset | TextData, arms: Mapping[str, Any], rate: float, seeds: Sequence[int],
    settings: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """`arm_frame` of all arms at one rate."""
    own = {name: spec for name, spec in arms.items() if spec["kind"] != "Linear"}
    return arm_frame(run_arms(data, own, {name: [rate] for name in own}, seeds, settings))


def gain(frame: pd.DataFrame) -> pd.Series:
    """Early loss of LoRA minus that of EVA, by seed."""
    return difference(frame, "LoRA", "EVA", "early")


def arm_means(system: Studied, common: pd.DataFrame) -> pd.DataFrame:
    """By arm: the rate chosen, whether it is an end of the grid, and means over seeds, also of the
    runs at the common rate."""
    columns = ["early", "train", "test", "accuracy"]
    own = system.frame.groupby("arm", sort=False)[columns].mean()
    alike = common.groupby("arm", sort=False)[columns].mean().add_suffix(", common rate")
    table = own.join(alike).assign(rate=own.index.map(system.rates))
    grid = system.tuning.rate.agg(["min", "max"]).to_list()
    table["end of grid"] = table.rate.isin(grid) & (table.index != "none")
    return table.reset_index().round(4)


def early_minus(frames: Mapping[str, pd.DataFrame], arms: Sequence[str]) -> pd.DataFrame:
    """system, arm, seed, value: early loss of EVA minus that of each of `arms` that is there."""
    found = [
        difference(frame, "EVA", arm, "early").rename("value").reset_index().assign(
            system=name, arm=arm
        )
        for name, frame in frames.items()
        for arm in arms
        if arm in set(frame.arm)
    ]  # fmt: skip
    return pd.concat(found, ignore_index=True)


def on_images(
    frame: pd.DataFrame, common: pd.DataFrame, sgd: pd.DataFrame, found: Signals,
    changes: pd.DataFrame,
) -> dict[str, pd.Series]:  # fmt: skip
    """What is claimed of the images, by the key of the claim.

    frame, common, sgd : `arm_frame` at each one's rates, at the common rate and without Adam.
    changes : of `added`.
    """
    unit = "LoRA, unit rows"
    others = {"lora": "LoRA", "unit": unit, "permuted": "permuted", "pissa": "PiSSA"}
    return {
        **{f"best_{key}": difference(frame, "EVA", arm, "early") for key, arm in others.items()},
        **{f"common_{key}": difference(common, "EVA", arm, "early") for key, arm in others.items()},
        "signal": seen_minus(found, "EVA", "random"),
        "centring": seen_minus(found, "uncentred", "EVA"),
        "bottom_signal": seen_minus(found, "bottom", None, worst="max"),
        "bottom_early": difference(frame, "bottom", unit, "early"),
        "final_loss": difference(frame, "EVA", unit, "train"),
        "final_accuracy": difference(frame, "EVA", unit, "accuracy"),
        "final_lora": difference(frame, "EVA", "LoRA", "accuracy"),
        "bottom_final": difference(frame, "EVA", "bottom", "train"),
        "centring_early": difference(frame, "uncentred", "EVA", "early"),
        "shared_out": explained_gain(found),
        "ranks_accuracy": difference(frame, "redistributed", "EVA", "accuracy"),
        "spectrum": smaller(found, "explained", "white"),
        "whitened": difference(frame, "whitened", "EVA", "accuracy"),
        "sgd_best": difference(sgd, "EVA", unit, "early"),
        "sgd_pissa": difference(sgd, "EVA", "PiSSA", "early"),
        "narrow": difference(changes, "EVA", unit, "rank"),
        "chance": excess(changes, "EVA"),
        "full_more": difference(changes, "full", "EVA", "correlation"),
    }


def on_text(
    images: pd.DataFrame, words: pd.DataFrame, common: pd.DataFrame, found: Mapping[str, Signals]
) -> dict[str, pd.Series]:
    """What is claimed of the text, by the key of the claim.

    images, words, common : `arm_frame` of both systems at their rates, and of the text at the
    common rate. found : "images" and "text".
    """
    start = found["text"]
    return {
        "text_signal": seen_minus(start, "EVA", "random"),
        "text_common": difference(common, "EVA", "LoRA", "early"),
        "text_best": difference(words, "EVA", "LoRA", "early"),
        "text_end": difference(words, "EVA", "LoRA", "test"),
        "text_pissa": difference(words, "EVA", "PiSSA", "early"),
        "text_gain": by_place(gain(images), gain(words)),
        "text_explained": by_place(first_explained(found["images"]), first_explained(start)),
    }


def added(system: Studied, arms: Sequence[str]) -> pd.DataFrame:
    """arm, seed, rank (stable rank of the change of the second matrix), correlation (|·| of the
    first change's means over inputs with the second one's means over outputs, neuron by neuron of
    the layer between), chance (its mean for independent vectors), of arms whose matrices were
    kept."""
    axes = {"first": ("h", "x"), "second": ("y", "h")}
    rows = []
    for (arm, _, seed), run in system.runs.items():
        if arm in arms:
            both = [torch.from_numpy(run[f"change_{k}"]).double() for k in (0, 1)]
            vectors = mean_vectors(dict(zip(axes, both, strict=True)), axes)
            found = correlations({"h": vectors["h"]})
            size = float(found.matrix[0, 1].abs())
            rows.append((arm, seed, stable_rank(both[1]), size, expected_largest(found.n)))
    return pd.DataFrame(rows, columns=["arm", "seed", "rank", "correlation", "chance"])


def excess(frame: pd.DataFrame, arm: str) -> pd.Series:
    """Correlation of an arm of `added` above chance, by seed."""
    own = frame[frame.arm == arm].set_index("seed")
    above: pd.Series = own.correlation - own.chance
    return above


def curves(system: Studied, arms: Sequence[str], *, points: int = 24) -> pd.DataFrame:
    """arm, seed, step, loss: batch losses averaged within `points` windows that grow in size."""
    rows = []
    for (arm, _, seed), run in system.runs.items():
        if arm in arms:
            losses = run["losses"]
            edges = np.unique(np.geomspace(1, len(losses) + 1, points + 1).round().astype(int)) - 1
            for first, last in pairwise(edges):
                middle = np.sqrt((first + 1) * last)
                rows.append((arm, seed, middle, losses[first:last].mean()))
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "loss"])


def final_by_rate(system: Studied, arms: Sequence[str]) -> pd.DataFrame:
    """arm, rate, seed, train, early, chosen, of the seeds by which rates are chosen."""
    own = system.tuning[system.tuning.arm.isin(arms)]
    frame = own[["arm", "rate", "seed", "train", "early"]].copy()
    frame["chosen"] = frame.rate == frame.arm.map(system.rates)
    return frame.reset_index(drop=True)
