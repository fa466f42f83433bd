"""Stored runs of notebook 86 on a pretrained encoder: its last two blocks adapted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.adapters.activations import EVA
from rclib.adapters.wrap import adapt
from rclib.data.packaged_models import packaged_path
from rclib.experiments.finetuning.bases import PARTS, cosine
from rclib.experiments.finetuning.bert_tail import (
    DRAWN,
    checksum,
    encoder,
    hidden,
    plain_tail,
    tail,
    tail_matrices,
)
from rclib.experiments.finetuning.place_runs import input_directions, places_of
from rclib.experiments.finetuning.tuned_runs import Arms, chosen_rates, method_of
from rclib.experiments.finetuning.where_writes import Placed, gathered
from rclib.files.plain import DataError
from rclib.nets.stack import Stack
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.spectral.placement import Directions, directions
from rclib.training.stacked import epoch_orders, train_stack

__all__ = ["TINY", "absent", "encoder_places", "placed_encoder"]

LOOKED_AT = 200  # sentences that inputs of a matrix are taken from
HEAD = ("head.weight", "head.bias")
TINY: dict[str, dict[str, Any]] = {
    "encoder_places": {
        "name": DRAWN, "weights": "", "seed": 0, "rate": 0.01, "measure": True,
        "method": {"kind": "LoRA", "rank": 2}, "sizes": [20, 8, 8], "steps": 3, "batch_size": 8,
        "head_rate": 0.01,
    },
}  # fmt: skip


def absent(name: str) -> str:
    """Why an encoder cannot be used, or "" if it is there."""
    try:
        packaged_path(name)
    except DataError as error:
        return str(error)
    return ""


def _matrix_inputs(name: str, x: Tensor) -> dict[str, Tensor]:
    """What every adapted matrix gets, (n t, i), in the pretrained encoder."""
    own, found = encoder(name), {}

    def product(matrix: str, h: Tensor) -> Tensor:
        found[matrix] = h
        weight = own.weights[matrix] if matrix in own.weights else torch.zeros(2, h.shape[1])
        return h @ weight.T

    tensors = {**own.weights, "head.bias": torch.zeros(2)}
    with torch.no_grad():
        tail(tensors, x, product, blocks=own.blocks, heads=own.heads)
    return {matrix: found[matrix] for matrix in tail_matrices(own.blocks)}


@lru_cache(maxsize=2)
def _places(name: str, count: int) -> tuple[list[Directions], list[Tensor]]:
    """Singular directions, and main directions of inputs, of every matrix: the same in all runs."""
    own = encoder(name)
    inputs = _matrix_inputs(name, hidden(name, count)[0][:LOOKED_AT])
    names = tail_matrices(own.blocks)
    return (
        [directions(own.weights[matrix]) for matrix in names],
        [input_directions(inputs[matrix]) for matrix in names],
    )


def encoder_places(
    data: None, *, name: str, weights: str, seed: int, rate: float, method: Mapping[str, Any],
    sizes: Sequence[int], steps: int, batch_size: int, head_rate: float, measure: bool,
) -> Arrays:  # fmt: skip
    """Stored run: end, accuracy (3,) as in `tuned_runs.adapted`, and with `measure` `places_of`.

    name, weights : of the encoder, and the checksum of its weights. sizes : sentences to train on,
    to choose rates by and to report, drawn anew by every seed from twice as many.
    """
    del data, weights
    own, count = encoder(name), 2 * sum(sizes)
    x, y = hidden(name, count)
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randperm(count, generator=generator)[: sum(sizes)].split(list(sizes))
    names = tail_matrices(own.blocks)
    prefixes = {matrix.split(".", 3)[2] for matrix in names}
    tensors = {
        key: t[None].clone()
        for key, t in own.weights.items()
        if key.startswith("encoder.layer.") and key.split(".")[2] in prefixes
    }
    scale = head_rate / rate
    head = (2 * torch.rand(2, x.shape[2], generator=generator) - 1) / x.shape[2] ** 0.5
    tensors |= {"head.weight": head[None] / scale, "head.bias": torch.zeros(1, 2)}
    tensors["head_scale"] = torch.tensor([scale])
    found = method_of(method)
    network = partial(tail, blocks=own.blocks, heads=own.heads)
    inputs = _matrix_inputs(name, x[parts[0][:LOOKED_AT]]) if isinstance(found, EVA) else {}
    wrapped = adapt(
        Stack(tensors, plain_tail(own)), dict.fromkeys(names, found), seeds=[seed],
        network=network, train=HEAD,
        inputs={matrix: h[None] for matrix, h in inputs.items()} or None,
    )  # fmt: skip
    orders = epoch_orders(sizes[0], batch_size, [seed])

    def batch(step: int) -> tuple[Tensor, Tensor]:
        places = parts[0][orders(step)]
        return x[places], y[places]

    end, _ = train_stack(
        wrapped.stack, batch, cross_entropy, steps=steps, lr=rate, optimizer="adam",
        lr_schedule=cosine(steps), frozen=wrapped.frozen, own="xy",
    )  # fmt: skip
    out = _scores(end, [(x[part], y[part]) for part in parts])
    if not measure:
        return out
    merged = wrapped.merged(end)
    plain = [own.weights[matrix] for matrix in names]
    bases, tops = _places(name, count)
    half = len(names) // 2  # value and output of a block share its units
    return out | places_of(
        plain, [merged[m][0] - w for m, w in zip(names, plain, strict=True)], found,
        [inputs.get(matrix, torch.empty(0)) for matrix in names], bases=bases, tops=tops,
        pairs=[(half - 2, half - 1), (2 * half - 2, 2 * half - 1)], seed=seed,
    )  # fmt: skip


def _scores(now: Stack, parts: Sequence[tuple[Tensor, Tensor]]) -> Arrays:
    losses, right = [], []
    with torch.no_grad():
        for x, y in parts:
            out = torch.cat([now(part[None], own=True)[0] for part in x.split(200)])
            losses.append(float(cross_entropy(out, y)))
            right.append(float((out.argmax(1) == y).double().mean()))
    return {"end": np.array(losses), "accuracy": np.array(right)}


def placed_encoder(
    system: str, own: Arms, rates: Sequence[float], tuning_seeds: Sequence[int],
    seeds: Sequence[int], settings: Mapping[str, Any],
) -> Placed:  # fmt: skip
    """As `where_writes.placed`, on the encoder that `settings` name: one network, and so no
    reference seed."""
    shared = {**settings, "weights": checksum(str(settings["name"]))}

    def runs(keys: Sequence[tuple[str, float, int]], *, measure: bool) -> list[Arrays]:
        configs = [
            {**shared, "seed": int(s), "rate": float(rate), "method": dict(own[arm]),
             "measure": measure}
            for arm, rate, s in keys
        ]  # fmt: skip
        return sweep.run(encoder_places, configs, description="encoder")

    grid = [
        (arm, rate, s)
        for arm, spec in own.items()
        for rate in (rates if spec["kind"] != "Linear" else rates[:1])
        for s in tuning_seeds
    ]
    tuning = pd.DataFrame(
        [(*key, run["end"][1]) for key, run in zip(grid, runs(grid, measure=False), strict=True)],
        columns=["arm", "rate", "seed", PARTS[1]],
    )
    chosen = chosen_rates(tuning)
    keys = [(arm, chosen[arm], int(s)) for arm in own for s in seeds]
    found = runs(keys, measure=True)
    base = encoder(str(settings["name"]))
    shapes = [tuple(base.weights[matrix].shape) for matrix in tail_matrices(base.blocks)]
    number = {
        arm: sum(method_of(spec).trained_count(*shape) for shape in shapes)
        for arm, spec in own.items()
    }
    by = {(arm, s): run for (arm, _, s), run in zip(keys, found, strict=True)}
    return gathered(system, by, tuning, chosen, number, None)
