"""Stored runs of notebook 81 without training: inputs of layers, and the gradient that starts see.

With B = 0 the first update of W′ = W + B A is -η G Aᵀ A for the gradient G = ∂L/∂W: a start sees
the part of G that lies in the row space of A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.adapters.activations import EVA, IncrementalSVD, decomposed, redistributed
from rclib.adapters.low_rank import LoRA, PiSSA
from rclib.adapters.method import Method
from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.finetuning.bases import ADAPTED, Task, image_task, relu_chain, text_task
from rclib.runs.store import Arrays

__all__ = [
    "KINDS",
    "SIZES",
    "TINY",
    "gradients",
    "image_signals",
    "layer_inputs",
    "seen_share",
    "signals",
    "text_signals",
]

# Starts of A by name, as methods of a rank; the last one is the best that r rows can see.
KINDS = ("EVA", "uncentred", "PiSSA", "random", "permuted", "bottom", "best")
SIZES = (64, 256)  # points whose main directions are compared with those of all
_BASE = {"width": 8, "batch_size": 16, "steps": 3, "rate": 0.01}
_SHARED: dict[str, Any] = {"group": [{"seed": 0}, {"seed": 3}], "ranks": [1, 3], "rank": 3}
TINY: dict[str, dict[str, Any]] = {
    "image_signals": {
        **_SHARED, "base": {**_BASE, "pool": 1, "classes": 5, "n": 30},
        "task": {"n_train": 40, "n_validation": 8, "n_test": 8, "head_rate": 0.001},
    },
    "text_signals": {
        **_SHARED, "base": {**_BASE, "context": 4, "embedding": 2},
        "task": {"n_train": 80, "n_validation": 8, "n_test": 8},
    },
}  # fmt: skip


def seen_share(gradient: Tensor, rows: Tensor) -> float:
    """‖G P‖² / ‖G‖² with P onto the row space of A (r, i); ‖G Aᵀ‖² / ‖G‖² for orthonormal rows."""
    frame = torch.linalg.qr(rows.double().T)[0]
    wide = gradient.double()
    return float((wide @ frame).square().sum() / wide.square().sum())


def layer_inputs(tensors: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """What the two adapted matrices of one network get, (n, i) each."""
    hidden = torch.relu(x @ tensors[ADAPTED[0]].T + tensors["layers.0.bias"])
    return [x, hidden]


def gradients(tensors: Mapping[str, Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
    """∂L/∂W of the two adapted matrices of one network, of the mean loss over all points."""
    leaves = {name: tensors[name].detach().clone().requires_grad_() for name in ADAPTED}
    own = {**tensors, **leaves}
    loss = cross_entropy(relu_chain(own, x, lambda name, h: h @ own[name].T), y)
    return list(torch.autograd.grad(loss, [leaves[name] for name in ADAPTED]))


def _starts(rank: int) -> dict[str, Method]:
    return {
        "EVA": EVA(rank), "uncentred": EVA(rank, centred=False), "PiSSA": PiSSA(rank),
        "random": LoRA(rank, orthonormal=True), "permuted": EVA(rank, which="permuted"),
        "bottom": EVA(rank, which="bottom"),
    }  # fmt: skip


def _layer(
    weight: Tensor, inputs: Tensor, gradient: Tensor, *, seed: int, ranks: Sequence[int], rank: int
) -> dict[str, np.ndarray]:
    """Of one matrix: see `signals`."""
    shares = []
    for r in ranks:
        rows = [m.start(weight, seed=seed, inputs=inputs)["A"] for m in _starts(r).values()]
        best = float(torch.linalg.svdvals(gradient.double())[:r].square().sum())
        total = float(gradient.double().square().sum())
        shares.append([*(seen_share(gradient, a) for a in rows), best / total])
    wide = inputs.double()
    centred = wide - wide.mean(0)
    plain, own = torch.linalg.svdvals(wide).square(), torch.linalg.svdvals(centred).square()
    # White data: the entries of every column in another order. Same variances, no directions.
    generator = torch.Generator().manual_seed(seed)
    order = torch.argsort(torch.rand(wide.shape, generator=generator), dim=0)
    mixed = torch.linalg.svdvals(centred.gather(0, order)).square()
    main = decomposed(wide, rank, centred=True, batch_size=None, tau=1.0).directions
    overlap = []
    for size in SIZES:
        few = IncrementalSVD(rank)
        few.update(wide[:size])
        overlap.append(float((few.directions @ main.T).square().sum()) / rank)
    return {
        "seen": np.array(shares),
        "explained": np.array([float(v[:rank].sum() / v.sum()) for v in (own, plain, mixed)]),
        "mean_share": np.array(1 - float(own.sum() / plain.sum())),
        "spectrum": (own / own.sum()).numpy(),
        "white": (mixed / mixed.sum()).numpy(),
        "overlap": np.array(overlap),
    }


def signals(
    task: Task, group: Sequence[Mapping[str, Any]], *, ranks: Sequence[int], rank: int
) -> Arrays:
    """Of every member, on the training part of its task, before anything is trained.

    seen (S, 2, R, 7) : `seen_share` by layer, rank of `ranks` and `KINDS`. explained (S, 2, 3) :
    share of the first `rank` directions in the sum of squares of the centred inputs, of the inputs
    themselves, and of centred inputs whose columns are shuffled. mean_share (S, 2) : of the mean
    in the sum of squares. spectrum_0, spectrum_1 (S, i) : shares of all centred directions,
    white_0, white_1 : of shuffled columns. overlap (S, 2, 2) : mean cos² of the main directions of
    the first points (`SIZES`) with those of all. kept (S, 2) : ranks of both layers at ρ = 2.
    """
    rows = []
    for s, member in enumerate(group):
        places = task.places["train"]
        x, y = (t[s] for t in task.at(places))
        tensors = {name: t[s] for name, t in task.start.tensors.items()}
        inputs, found = layer_inputs(tensors, x), []
        for j, (name, gradient) in enumerate(zip(ADAPTED, gradients(tensors, x, y), strict=True)):
            seed = int(member["seed"]) + 1009 * j
            found.append(
                _layer(tensors[name], inputs[j], gradient, seed=seed, ranks=ranks, rank=rank)
            )
        both = {
            name: np.stack([layer[name] for layer in found])
            for name in ("seen", "explained", "mean_share", "overlap")
        }
        for name in ("spectrum", "white"):
            both |= {f"{name}_{j}": layer[name] for j, layer in enumerate(found)}
        most = min(2 * rank, *(len(layer["spectrum"]) for layer in found))
        shares = [torch.from_numpy(layer["spectrum"])[:most] for layer in found]
        both["kept"] = np.array(redistributed(shares, rank, rho=most / rank))
        rows.append(both)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def image_signals(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], base: Mapping[str, Any],
    task: Mapping[str, Any], ranks: Sequence[int], rank: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds: `signals` on `image_task`."""
    found = image_task(data, [int(m["seed"]) for m in group], base=base, task=task)
    return signals(found, group, ranks=ranks, rank=rank)


def text_signals(
    data: TextData, *, group: Sequence[Mapping[str, Any]], base: Mapping[str, Any],
    task: Mapping[str, Any], ranks: Sequence[int], rank: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds: `signals` on `text_task`."""
    found = text_task(data, [int(m["seed"]) for m in group], base=base, task=task)
    return signals(found, group, ranks=ranks, rank=rank)
