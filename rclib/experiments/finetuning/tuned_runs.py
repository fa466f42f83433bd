"""Stored runs of series 8: a pre-trained network adapted by one method at one rate.

An arm is a method with its options, {"kind": "LoRA", "rank": 8}, for both hidden layers. Its rate
is chosen by one rule for all arms (`chosen_rates`): of one grid, the rate of least mean validation
loss over seeds that are used for nothing else (notebook 87: of least training loss as well). The
reported seeds are run at that rate alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.adapters.activations import EVA, decomposed, redistributed
from rclib.adapters.blocks import Bone
from rclib.adapters.diagonal import LoLDU, RandomFrames, SingularValues
from rclib.adapters.low_rank import LoRA, OLoRA, PiSSA
from rclib.adapters.method import Full, Linear, Method
from rclib.adapters.wrap import adapt
from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning.bases import (
    ADAPTED,
    PARTS,
    Task,
    cosine,
    image_task,
    relu_chain,
    text_task,
)
from rclib.nets.stack import Stack
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_orders, train_stack

__all__ = [
    "TINY",
    "Arms",
    "adapted",
    "arm_frame",
    "chosen_rates",
    "counts",
    "image_runs",
    "method_of",
    "run_arms",
    "text_runs",
    "tune",
]

KINDS: dict[str, type[Method]] = {
    kind.__name__: kind
    for kind in (Full, Linear, LoRA, PiSSA, OLoRA, EVA, LoLDU, SingularValues, RandomFrames, Bone)
}
EARLY = 50  # steps whose mean loss is the early loss
Arms = Mapping[str, Mapping[str, Any]]  # name -> {"kind": ..., options}
_LDU = {"kind": "LoLDU", "rank": 3}
_GROUP = [
    {"seed": 0, "rate": 0.01, "method": _LDU},
    {"seed": 3, "rate": 0.1, "method": {**_LDU, "z_start": "zeros"}},
    {"seed": 0, "rate": 0.1, "method": {"kind": "RandomFrames", "rank": 3}},
]
_BASE = {"width": 8, "batch_size": 16, "steps": 3, "rate": 0.01}
TINY: dict[str, dict[str, Any]] = {
    "image_runs": {
        "group": _GROUP, "base": {**_BASE, "pool": 1, "classes": 5, "n": 30},
        "task": {"n_train": 20, "n_validation": 8, "n_test": 8, "head_rate": 0.001},
        "steps": 3, "batch_size": 8, "keep": True,
    },
    "text_runs": {
        "group": _GROUP, "base": {**_BASE, "context": 4, "embedding": 2},
        "task": {"n_train": 20, "n_validation": 8, "n_test": 8},
        "steps": 3, "batch_size": 8, "keep": False,
    },
}  # fmt: skip


def method_of(spec: Mapping[str, Any]) -> Method:
    """The method that a configuration describes, all but "budget", which its matrices share out.
    Raises ValueError for another kind or option."""
    options = {key: value for key, value in spec.items() if key not in ("kind", "budget")}
    kind = KINDS.get(str(spec.get("kind")))
    if kind is None or set(options) - {field.name for field in fields(kind)}:  # type: ignore[arg-type]
        raise ValueError(f"method must be a kind of {sorted(KINDS)} with its options, got {spec}")
    return kind(**options)


def _redistributed(method: Method, budget: int, inputs: Sequence[Tensor]) -> list[Method]:
    """EVA of each matrix with the ranks that it has out of `budget` for each on average; the rank
    of `method` is the most that one may have. inputs : (n, i) of each matrix."""
    if not isinstance(method, EVA):
        raise ValueError(f"method must be EVA to have a budget, got {method}")
    look: dict[str, Any] = {
        "centred": method.centred, "batch_size": method.batch_size, "tau": method.tau,
    }  # fmt: skip
    explained = [decomposed(x, method.rank, **look).explained for x in inputs]
    kept = redistributed(explained, budget, rho=method.rank / budget)
    return [replace(method, kept=ranks) for ranks in kept]


def _inputs(task: Task, places: Tensor) -> dict[str, Tensor]:
    """What the adapted matrices of the pre-trained networks get on images of the new task."""
    x, _ = task.at(places)
    t = task.start.tensors
    hidden = torch.relu(x @ t[ADAPTED[0]].mT + t["layers.0.bias"][:, None])
    return {ADAPTED[0]: x, ADAPTED[1]: hidden}


def adapted(
    task: Task, group: Sequence[Mapping[str, Any]], *, steps: int, batch_size: int, keep: bool,
    optimizer: str = "adam",
) -> Arrays:  # fmt: skip
    """A group of members, each a seed, a rate and a method (of one kin), adapted with Adam or, as
    `optimizer` says, with "sgd".

    losses (S, steps) : of each batch, before its update (NaN if nothing is trained).
    start, end (S, 3) : mean loss on `PARTS`. accuracy (S, 3) : on them at the end. With `keep`,
    weight_0, weight_1, change_0, change_1 (S, o, i) : the pre-trained matrices and what adaptation
    added to them.
    """
    seeds = [int(member["seed"]) for member in group]
    rates = torch.tensor([float(member["rate"]) for member in group], dtype=torch.float64)
    methods = [method_of(member["method"]) for member in group]
    start = task.start
    if task.trained:  # the head moves at its own rate: see `relu_chain`
        scale = (task.head_rate / rates).float()
        if optimizer == "sgd":  # whose steps are head_scale times as large, as the gradient is
            scale = scale.sqrt()
        tensors = {
            name: t / scale.view(-1, *(1,) * (t.ndim - 1)) if name in task.trained else t
            for name, t in start.tensors.items()
        }
        start = Stack({**tensors, "head_scale": scale}, start.one)
    looks = any(isinstance(m, EVA) for m in methods)
    needed = {"inputs": _inputs(task, task.places["train"])} if looks else {}
    by_matrix: dict[str, list[Method]] = {name: list(methods) for name in ADAPTED}
    for s, member in enumerate(group):
        if "budget" in member["method"]:
            inputs = [needed["inputs"][name][s] for name in ADAPTED]
            shared = _redistributed(methods[s], int(member["method"]["budget"]), inputs)
            for name, own in zip(ADAPTED, shared, strict=True):
                by_matrix[name][s] = own
    wrapped = adapt(start, by_matrix, seeds=seeds, network=relu_chain, train=task.trained, **needed)
    train = task.places["train"]
    orders = epoch_orders(train.shape[1], batch_size, seeds)
    before = _measured(wrapped.stack, task)
    end, losses = wrapped.stack, torch.full((steps, len(group)), torch.nan)
    if wrapped.frozen != set(end.tensors):  # else there is nothing to train
        end, found = train_stack(
            end, lambda step: task.at(train.gather(1, orders(step))), cross_entropy,
            steps=steps, lr=rates, optimizer=optimizer, lr_schedule=cosine(steps),
            frozen=wrapped.frozen, own="xy",
        )  # fmt: skip
        losses = found["loss"]
    after = _measured(end, task)
    out = {"losses": losses.T.numpy(), "start": before[0], "end": after[0]}
    out["accuracy"] = after[1]
    if keep:
        merged = wrapped.merged(end)
        for k, name in enumerate(ADAPTED):
            weight = task.start.tensors[name]
            out |= {f"weight_{k}": weight.numpy(), f"change_{k}": (merged[name] - weight).numpy()}
    return out


def _measured(now: Stack, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Losses and accuracies (S, 3) on the parts of the task; member by member, so that sums over
    points have the bits that they have alone."""
    rows = []
    with torch.no_grad():
        for part in PARTS:
            x, y = task.at(task.places[part])
            outputs = now(x, own=True)
            rows.append([
                (float(cross_entropy(o, t)), float((o.argmax(1) == t).double().mean()))
                for o, t in zip(outputs, y, strict=True)
            ])  # fmt: skip
    both = np.array(rows).transpose(2, 1, 0)
    return both[0], both[1]


def image_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], base: Mapping[str, Any],
    task: Mapping[str, Any], steps: int, batch_size: int, keep: bool, optimizer: str = "adam",
) -> Arrays:  # fmt: skip
    """Stored runs of a group: `adapted` on `image_task`."""
    found = image_task(data, [int(m["seed"]) for m in group], base=base, task=task)
    shared: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "keep": keep}
    return adapted(found, group, optimizer=optimizer, **shared)


def text_runs(
    data: TextData, *, group: Sequence[Mapping[str, Any]], base: Mapping[str, Any],
    task: Mapping[str, Any], steps: int, batch_size: int, keep: bool, optimizer: str = "adam",
) -> Arrays:  # fmt: skip
    """Stored runs of a group: `adapted` on `text_task`."""
    found = text_task(data, [int(m["seed"]) for m in group], base=base, task=task)
    shared: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "keep": keep}
    return adapted(found, group, optimizer=optimizer, **shared)


def run_arms(
    data: Dataset | TextData, arms: Arms, rates: Mapping[str, Sequence[float]],
    seeds: Sequence[int], settings: Mapping[str, Any], *, keep: Sequence[str] = (),
) -> dict[tuple[str, float, int], Arrays]:  # fmt: skip
    """(arm, rate, seed) -> run, of every arm at its rates.

    settings : base, task, steps, batch_size of the runs. keep : arms whose matrices are kept.
    """
    options: dict[str, Any] = {"members": ["seed", "rate", "method"], "group": 32, "data": data}
    alike: dict[tuple[object, ...], list[tuple[str, float, int]]] = {}
    for arm, spec in arms.items():
        own = alike.setdefault((*method_of(spec).kin, arm in keep), [])
        own += [(arm, float(rate), int(s)) for rate in rates[arm] for s in seeds]
    found: dict[tuple[str, float, int], Arrays] = {}
    for (*_, kept), keys in alike.items():
        configs = [
            {**settings, "method": dict(arms[arm]), "keep": kept, "seed": s, "rate": rate}
            for arm, rate, s in keys
        ]
        if isinstance(data, TextData):
            runs = sweep_stacked(text_runs, configs, **options, description="text")
        else:
            runs = sweep_stacked(image_runs, configs, **options, description="images")
        found |= dict(zip(keys, runs, strict=True))
    return found


def arm_frame(runs: Mapping[tuple[str, float, int], Arrays]) -> pd.DataFrame:
    """arm, rate, seed, early (mean batch loss of the first steps), start (train loss before the
    first), train, validation, test (losses at the end), and accuracy on the test part."""
    rows = [
        (*key, run["losses"][:EARLY].mean(), run["start"][0], *run["end"], run["accuracy"][2])
        for key, run in runs.items()
    ]
    columns = ["arm", "rate", "seed", "early", "start", *PARTS, "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def chosen_rates(tuning: pd.DataFrame, by: str = "validation") -> dict[str, float]:
    """arm -> rate of least mean validation loss, or of another loss of `arm_frame`; a rate at which
    a run diverged is not chosen.

    Raises ValueError if all rates of an arm diverged.
    """
    mean = tuning.groupby(["arm", "rate"], sort=False)[by].agg(lambda v: v.mean(skipna=False))
    table = mean.unstack("rate").fillna(np.inf)
    if bool(np.isinf(table.min(axis=1)).any()):
        raise ValueError(f"rates must hold one at which no run diverges, got {list(table)}")
    return {str(arm): float(rate) for arm, rate in table.idxmin(axis=1).items()}


def tune(
    data: Dataset | TextData, arms: Arms, rates: Sequence[float], tuning_seeds: Sequence[int],
    settings: Mapping[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """`arm_frame` of the seeds by which rates are chosen; a head alone has no rate to choose."""
    grid = {
        arm: list(rates) if spec["kind"] != "Linear" else [float(rates[0])]
        for arm, spec in arms.items()
    }
    return arm_frame(run_arms(data, arms, grid, tuning_seeds, settings))


def counts(arms: Arms, rows: int, columns: int) -> dict[str, int]:
    """Trained numbers of an arm in the two hidden layers, (rows, columns) and (rows, rows)."""
    methods = {arm: method_of(spec) for arm, spec in arms.items()}
    return {
        arm: m.trained_count(rows, columns) + m.trained_count(rows, rows)
        for arm, m in methods.items()
    }
