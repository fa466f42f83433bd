"""Stored runs of notebook 42: trained sparse networks looked at beside their accuracy, and GraSP.

Detection of images that are not of the training set's kind, robustness against one step of the
gradient's sign, calibration; and masks by GraSP's score (`rclib.training.saliency`), at its own
places and at random ones of as many in every layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.data.pooling import pooled_inputs
from rclib.experiments.pruning.data_scores import auc
from rclib.experiments.pruning.random_runs import he_networks, masks_of, tested
from rclib.nets.masks import Masks, apply_masks, shuffled
from rclib.nets.stack import Stack
from rclib.runs.store import Arrays
from rclib.training.saliency import grasp, keep_highest
from rclib.training.stacked import epoch_batches, train_stack

__all__ = ["JUDGED", "TINY", "judged_runs"]

# "GraSP": the lowest scores stay, as the authors' code has it; "GraSP shuffled": as many in every
# layer, at random places.
JUDGED = ("dense", "ER", "GraSP", "GraSP shuffled")
TINY: dict[str, dict[str, Any]] = {
    "judged_runs": {
        "group": [{"seed": 0}, {"seed": 1}], "scheme": "GraSP shuffled", "density": 0.3, "pool": 1,
        "n": 48, "network": {"widths": [8, 8]}, "rate": 1e-3, "batch_size": 16, "steps": 3,
        "attack": 0.1,
    },
}  # fmt: skip


def judged_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], scheme: str, density: float, pool: int,
    n: int, network: Mapping[str, Any], rate: float, batch_size: int, steps: int, attack: float,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of members, each a seed, of one scheme of `JUDGED`: Adam under a fixed
    mask, as `random_runs.random_pruning_runs` trains.

    accuracy (), nll (), ece () : test, at the end. attacked () : accuracy after every input has
    been moved by `attack` times the sign of the loss's gradient. outside () : share of pairs, a
    test image and one with its inputs in a fixed random order, in which the first has the larger
    highest probability (AUROC). kept (L,), sizes (L,) : weights by layer.

    Raises ValueError for a scheme that is none.
    """
    x, x_test = pooled_inputs(data, pool)
    seeds = [int(member["seed"]) for member in group]
    start = he_networks(network, seeds, x.shape[1], data.n_classes)
    subsets = torch.stack([
        torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n] for seed in seeds
    ])  # fmt: skip
    batch = epoch_batches(x, data.y_train, batch_size=batch_size, seeds=seeds, subsets=subsets)
    masks = _masks(scheme, density, start, seeds, batch(0))
    begin = Stack(apply_masks(start.tensors, masks), start.one)
    end, _ = train_stack(
        begin, batch, cross_entropy, steps=steps, lr=rate, optimizer="adam", masks=masks
    )
    order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        log_p, mixed = (end(part).log_softmax(-1).double() for part in (x_test, x_test[:, order]))
    out = {
        **tested(log_p, data.y_test),
        "attacked": _attacked(end, x_test, data.y_test, attack),
        "outside": torch.tensor([_above(*pair) for pair in zip(log_p, mixed, strict=True)]),
        "kept": torch.stack([m.flatten(1).sum(1) for m in masks.values()], 1),
        "sizes": torch.tensor([m[0].numel() for m in masks.values()]).expand(len(seeds), -1),
    }
    return {name: value.numpy() for name, value in out.items()}


def _masks(
    scheme: str, density: float, start: Stack, seeds: Sequence[int], batch: tuple[Tensor, Tensor]
) -> Masks:
    if choice("scheme", scheme, JUDGED) in ("dense", "ER"):
        return masks_of(scheme, density, start, seeds, batch)
    names = [name for name in start.tensors if name[0] != "B"]
    scores = grasp(start, *batch, cross_entropy, names, own=True)
    found = keep_highest({name: -score for name, score in scores.items()}, density)
    return found if scheme == "GraSP" else shuffled(found, [5_000_000 + seed for seed in seeds])


def _attacked(nets: Stack, x: Tensor, y: Tensor, size: float) -> Tensor:
    """Accuracy (S,) after one step of the gradient's sign, each network's own."""
    moved = x.expand(len(nets), *x.shape).clone().requires_grad_()
    loss = cross_entropy(nets(moved, own=True).flatten(0, 1), y.repeat(len(nets)), reduction="sum")
    (slope,) = torch.autograd.grad(loss, moved)
    with torch.no_grad():
        guess = nets(moved.detach() + size * slope.sign(), own=True).argmax(-1)
    return (guess == y).double().mean(1)


def _above(inside: Tensor, outside: Tensor) -> float:
    sure = torch.cat([part.max(-1).values for part in (inside, outside)])
    which = torch.arange(len(sure)) < len(inside)
    return auc(sure.numpy(), which.numpy())
