"""Stored runs of notebook 84: networks with power-of-two weights, from scratch and moved on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from rclib.data.images import Dataset
from rclib.experiments.finetuning.denseshift_nets import (
    Images,
    code_of,
    coupling,
    images_of,
    level_shares,
    measured,
    over_edge,
    trained,
)
from rclib.nets.coded_stack import CodedStack
from rclib.runs.store import Arrays

__all__ = ["STDS", "TINY", "shift_runs", "transfer_runs"]

STDS = {"low": 1e-3, "Kaiming": None, "one": 1.0}  # of the latents at the start
_TASK = {"pool": 1, "n_train": 20, "n_validation": 4, "n_test": 4}
TINY: dict[str, dict[str, Any]] = {
    "shift_runs": {
        "group": [
            {"seed": 0, "rate": 0.01, "std": "low"},
            {"seed": 3, "rate": 0.1, "std": "Kaiming"},
            {"seed": 0, "rate": 0.1, "std": "one"},
        ],
        "code": {"kind": "DenseShift", "bits": 3}, "width": 8, "norm": True, "frozen": [],
        "task": {**_TASK, "classes": [0, 10]}, "steps": 12, "batch_size": 16,
    },
    "transfer_runs": {
        "group": [
            {"seed": 0, "rate": 0.01, "std": "low", "base_rate": 0.01, "moved": True},
            {"seed": 3, "rate": 0.1, "std": "one", "base_rate": 0.1, "moved": False},
        ],
        "code": {"kind": "ShiftWithZero", "bits": 3}, "width": 8,
        "base": {"task": {**_TASK, "classes": [0, 5]}, "steps": 12, "batch_size": 16},
        "task": {**_TASK, "classes": [5, 10]}, "steps": 12, "batch_size": 16,
    },
}  # fmt: skip


def shift_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], code: Mapping[str, Any], width: int,
    norm: bool, frozen: Sequence[str], task: Mapping[str, Any], steps: int, batch_size: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of members, each a seed, a rate and a start of `STDS`, of one code.

    Two hidden layers of `width` units. curve (S, 10), ever (S,), flips (S,) : of `Watched`.
    end, accuracy (S, 3) : of `measured`. shares (S, 2, 9) : `level_shares` at start and end.
    edges (S, 2, 2) : `over_edge` at start and end, of both hidden matrices. coupling (S, 2, 2) :
    of `coupling`, of both hidden matrices, at start and end.
    """
    seeds = [int(member["seed"]) for member in group]
    images = images_of(data, seeds, task)
    nets = _start(images, seeds, code, width, [str(m["std"]) for m in group], norm=norm)
    before = _of_weights(nets)
    found = trained(
        nets, images, seeds, rates=[float(m["rate"]) for m in group], steps=steps,
        batch_size=batch_size, frozen=frozen,
    )  # fmt: skip
    end, accuracy = measured(nets, images)
    after = _of_weights(nets)
    return {
        "curve": found.curve, "ever": found.ever, "flips": found.flips, "end": end,
        "accuracy": accuracy,
        **{name: np.stack([before[name], after[name]], axis=1) for name in before},
    }  # fmt: skip


def _start(
    images: Images, seeds: Sequence[int], code: Mapping[str, Any], width: int,
    std: Sequence[str], *, norm: bool = True,
) -> CodedStack:  # fmt: skip
    sizes = [images.x.shape[1], width, width, images.classes]
    return CodedStack.start(code_of(code), sizes, seeds, [STDS[name] for name in std], norm=norm)


def _of_weights(nets: CodedStack) -> dict[str, np.ndarray]:
    first, second = nets.net.weights[:2]
    edges = [[over_edge(one), over_edge(two)] for one, two in zip(first, second, strict=True)]
    both = [coupling(one, two) for one, two in zip(first, second, strict=True)]
    return {"shares": level_shares(nets), "edges": np.array(edges), "coupling": np.array(both)}


Member = tuple[int, str, float]  # seed, start, rate of pre-training


@lru_cache(maxsize=4)
def _pre_trained(
    data: Dataset, code: str, width: int, base: str, members: tuple[Member, ...]
) -> CodedStack:
    given, seeds = json.loads(base), [seed for seed, _, _ in members]
    images = images_of(data, seeds, given["task"])
    nets = _start(images, seeds, json.loads(code), width, [std for _, std, _ in members])
    trained(
        nets, images, seeds, rates=[rate for _, _, rate in members], steps=given["steps"],
        batch_size=given["batch_size"],
    )  # fmt: skip
    return nets


def transfer_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], code: Mapping[str, Any], width: int,
    base: Mapping[str, Any], task: Mapping[str, Any], steps: int, batch_size: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of members: a network pre-trained on some classes gets a new head and
    is trained on few images of others (moved), or a new network is (not moved).

    members : seed, rate, std, base_rate (of pre-training) and moved. base : task, steps and
    batch_size of pre-training. ever, flips (S,), end, accuracy (S, 3) : as in `shift_runs`.
    """
    seeds = [int(member["seed"]) for member in group]
    images = images_of(data, seeds, task)
    nets = _start(images, seeds, code, width, [str(m["std"]) for m in group])
    keys: list[Member] = [(int(m["seed"]), str(m["std"]), float(m["base_rate"])) for m in group]
    moved = [bool(m["moved"]) for m in group]
    own = tuple(sorted({key for key, there in zip(keys, moved, strict=True) if there}))
    if own:
        texts = [json.dumps(dict(given), sort_keys=True) for given in (code, base)]
        _take(nets, _pre_trained(data, texts[0], width, texts[1], own), keys, own, moved)
    found = trained(
        nets, images, seeds, rates=[float(m["rate"]) for m in group], steps=steps,
        batch_size=batch_size,
    )  # fmt: skip
    end, accuracy = measured(nets, images)
    return {"ever": found.ever, "flips": found.flips, "end": end, "accuracy": accuracy}


def _take(
    nets: CodedStack, old: CodedStack, keys: Sequence[Member], own: Sequence[Member],
    moved: Sequence[bool],
) -> None:  # fmt: skip
    """Give each member that is moved everything but the head of its pre-trained network."""
    for name, tensor in nets.tensors.items():
        if name in ("bias", f"W{len(nets.latents) + 1}"):
            continue  # the head of a new network
        source = old.tensors[name]
        for place, key in enumerate(keys):
            if moved[place]:
                tensor[place] = source[own.index(key)]
    nets.refresh()
