"""Stored runs of notebook 42: networks under random masks, and what is seen in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.data.pooling import pooled_inputs
from rclib.nets.conv import ConvNet
from rclib.nets.densities import (
    erdos_renyi,
    random_masks,
    uniform,
    uniform_plus,
)
from rclib.nets.init import Init
from rclib.nets.masks import Masks, apply_masks, full_masks, shuffled
from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack
from rclib.rowcolumn.measure import correlations, largest_correlation, mean_vectors
from rclib.runs.store import Arrays
from rclib.training.saliency import keep_highest, snip
from rclib.training.stacked import epoch_batches, train_stack

__all__ = ["SCHEMES", "TINY", "he_networks", "masks_of", "random_pruning_runs", "tested"]

# "ER" is ER-kernel for convolutions. "ER again": other places; "ER rescaled": the start divided by
# the root of each layer's density; "SNIP": the highest scores, at their own places; "SNIP
# shuffled": as many in every layer, at random ones.
SCHEMES = (
    "dense", "uniform", "uniform+", "ER", "ER again", "ER rescaled", "SNIP", "SNIP shuffled",
)  # fmt: skip
BINS = 15  # of the calibration error
BEYOND = 1.02  # of the null's largest singular value
TINY: dict[str, dict[str, Any]] = {
    "random_pruning_runs": {
        "group": [{"seed": 0}, {"seed": 1}], "scheme": "SNIP shuffled", "density": 0.3, "pool": 1,
        "n": 48, "network": {"widths": [8, 8]}, "rate": 1e-3, "batch_size": 16, "steps": 3,
    },
}  # fmt: skip


def he_networks(
    network: Mapping[str, Any], seeds: Sequence[int], inputs: int, classes: int
) -> Stack:
    """ReLU networks, weights N(0, 2 / fan-in), the output's N(0, 1 / fan-in), biases zero.

    network : "widths" of the hidden layers, and "channels" for a `ConvNet` on colour images, whose
    own law (variance 2 / (fan-in + fan-out)) is brought to this variance.
    """
    widths = list(network["widths"])
    if "channels" not in network:
        he, plain = Init("gaussian", scale=2**0.5), Init("gaussian")
        laws = {"input": he, "hidden": he, "output": plain}
        return stack([
            MLP(
                inputs, widths, classes, depth=len(widths) + 1, parametrization="SP", seed=seed,
                activation="relu", init=laws, bias="constant", bias_init=Init(mean=0.0),
            )
            for seed in seeds
        ])  # fmt: skip
    side, channels = round((inputs / 3) ** 0.5), list(network["channels"])
    found = stack([
        ConvNet(side=side, channels=channels, widths=widths, classes=classes, seed=seed)
        for seed in seeds
    ])  # fmt: skip
    names = [name for name in found.tensors if name[0] != "B"]
    for name in names:
        shape = found.tensors[name].shape[1:]
        gain = 1.0 if name == names[-1] else 2.0
        fans = (shape[0] + shape[1]) * (9 if len(shape) == 4 else 1)
        wanted = gain / shape[1:].numel()
        found.tensors[name] = found.tensors[name] * (wanted * fans / 2) ** 0.5
    return found


def masks_of(
    scheme: str, density: float, start: Stack, seeds: Sequence[int], batch: tuple[Tensor, Tensor]
) -> Masks:
    """Masks of all weights but biases. batch : (S, n, d), (S, n), for SNIP.

    Raises ValueError for a scheme that is none.
    """
    names = [name for name in start.tensors if name[0] != "B"]
    shapes = {name: tuple(start.tensors[name].shape[1:]) for name in names}
    places = [5_000_000 + seed for seed in seeds]
    match choice("scheme", scheme, SCHEMES):
        case "dense":
            return full_masks(start.tensors, names)
        case "uniform":
            return random_masks(shapes, uniform(shapes, density), places)
        case "uniform+":
            return random_masks(shapes, uniform_plus(shapes, density), places)
        case "ER" | "ER rescaled":
            return random_masks(shapes, erdos_renyi(shapes, density), places)
        case "ER again":
            return random_masks(shapes, erdos_renyi(shapes, density), [p + 500_000 for p in places])
        case _:
            scores = snip(start, *batch, cross_entropy, names, own=True)
            found = keep_highest(scores, density)
            return found if scheme == "SNIP" else shuffled(found, places)


def random_pruning_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], scheme: str, density: float, pool: int,
    n: int, network: Mapping[str, Any], rate: float, batch_size: int, steps: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of members, each a seed, of one scheme: Adam under a fixed mask.

    Starts, images and batches of a seed are the same for every scheme. "dense" has no density.

    accuracy (), nll (), ece () : test, at the end; the calibration error has 15 bins of the largest
    probability. loss () : mean of the last tenth of the training batches. kept (L,), sizes (L,) :
    weights by layer. And for the last hidden matrix between two hidden layers (networks without
    convolutions, of two or more; NaN otherwise): top () : largest singular value of the masked
    start over σ √d (√rows + √columns); spikes () : singular values at the end above 1.02 times the
    masked start's largest; stretch () : the largest at the end over it; moved () : ‖ΔW‖ / ‖W0‖;
    degrees () : correlation, over the units between the last two hidden matrices, of weights kept
    in and out; means () : largest |correlation| of mean vectors of these units, at the end.
    """
    x, x_test = pooled_inputs(data, pool)
    seeds = [int(member["seed"]) for member in group]
    start = he_networks(network, seeds, x.shape[1], data.n_classes)
    subsets = torch.stack([
        torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n] for seed in seeds
    ])  # fmt: skip
    batch: Callable[[int], tuple[Tensor, Tensor]] = epoch_batches(
        x, data.y_train, batch_size=batch_size, seeds=seeds, subsets=subsets
    )
    masks = masks_of(scheme, density, start, seeds, batch(0))
    tensors = apply_masks(start.tensors, masks)
    if scheme == "ER rescaled":
        for name, mask in masks.items():
            share = mask.flatten(1).double().mean(1).view(-1, *[1] * (mask.ndim - 1))
            tensors[name] = tensors[name] / share.sqrt().to(tensors[name].dtype)
    begin = Stack(tensors, start.one)
    end, found = train_stack(
        begin, batch, cross_entropy, steps=steps, lr=rate, optimizer="adam", masks=masks
    )
    with torch.no_grad():
        log_p = end(x_test).log_softmax(-1).double()
    out = {
        **tested(log_p, data.y_test),
        "loss": found["loss"][-max(1, steps // 10) :].double().mean(0),
        "kept": torch.stack([m.flatten(1).sum(1) for m in masks.values()], 1),
        "sizes": torch.tensor([m[0].numel() for m in masks.values()]).expand(len(seeds), -1),
        **_inside(begin, end, masks),
    }
    return {name: value.numpy() for name, value in out.items()}


def tested(log_p: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Accuracy, negative log-likelihood and expected calibration error of (S, n, c)."""
    sure, guess = log_p.max(-1)
    right, p = (guess == y).double(), sure.exp()
    ece = torch.zeros(len(log_p), dtype=torch.double)
    for place in range(BINS):
        low, high = place / BINS, (place + 1) / BINS
        inside = ((p > low) & (p <= high)).double()
        ece += ((right - p) * inside).sum(1).abs() / len(y)
    nll = -log_p.gather(-1, y.expand(len(log_p), -1)[..., None])[..., 0].mean(1)
    return {"accuracy": right.mean(1), "nll": nll, "ece": ece}


def _inside(begin: Stack, end: Stack, masks: Masks) -> dict[str, Tensor]:
    """What the docstring of `random_pruning_runs` says of the last hidden matrix."""
    names = [name for name in masks if name[0] == "W"]
    keys = ("top", "spikes", "stretch", "moved", "degrees", "means")
    if len(names) != len(masks) or len(names) < 3:
        return {key: torch.full((len(begin),), torch.nan, dtype=torch.double) for key in keys}
    last, before = names[-2], names[-3]
    rows: dict[str, list[float]] = {key: [] for key in keys}
    axes: dict[str, tuple[str, ...]] = {}
    for k in range(1, len(names) + 1):
        ends = (f"h{k}" if k < len(names) else "class", f"h{k - 1}" if k > 1 else "x")
        axes[f"W{k}"], axes[f"B{k}"] = ends, (ends[0],)
    for s in range(len(begin)):
        w0, w = (nets.tensors[last][s].double() for nets in (begin, end))
        share = float(masks[last][s].double().mean())
        sigma = (2 / w0.shape[1]) ** 0.5
        first, now = torch.linalg.svdvals(w0), torch.linalg.svdvals(w)
        edge = sigma * share**0.5 * (w0.shape[0] ** 0.5 + w0.shape[1] ** 0.5)
        rows["top"].append(float(first[0]) / edge)
        rows["spikes"].append(float((now > BEYOND * first[0]).sum()))
        rows["stretch"].append(float(now[0] / first[0]))
        rows["moved"].append(float((w - w0).norm() / w0.norm()))
        into, out = masks[before][s].double().sum(1), masks[last][s].double().sum(0)
        rows["degrees"].append(_correlation(into, out))
        units = f"h{len(names) - 2}"
        vectors = {units: mean_vectors(end.member(s), axes)[units]}
        rows["means"].append(largest_correlation(correlations(vectors), within=True).value)
    return {key: torch.tensor(values, dtype=torch.double) for key, values in rows.items()}


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's; NaN where one does not vary, as in a dense layer."""
    if not bool((a != a[0]).any()) or not bool((b != b[0]).any()):
        return float("nan")
    return float(np.corrcoef(a.numpy(), b.numpy())[0, 1])
