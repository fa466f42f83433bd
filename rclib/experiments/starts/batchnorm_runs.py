"""Stored runs of notebook 56: residual networks of which only some parameters are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.data.pooling import pooled_inputs
from rclib.nets.resnet import ResNet
from rclib.nets.stack import Stack, stack
from rclib.rowcolumn.measure import chance_level
from rclib.runs.store import Arrays
from rclib.spectral.power_law import power_law
from rclib.spectral.spectra import esd
from rclib.training.stacked import epoch_batches, train_stack

__all__ = ["ARMS", "FRACTIONS", "TINY", "batchnorm_runs", "trained_by"]

# What is trained; "shared" has one gain and one shift a layer, "shuffled" trains BatchNorm on
# labels in random order, "no decay" trains it without weight decay.
ARMS = (
    "all", "BN only", "random-2", "output only", "shortcuts only", "BN + output", "shared",
    "shuffled", "no decay",
)  # fmt: skip
FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.5)  # of the gains, set to zero
SMALL = 0.01  # |γ| of a feature that is switched off
LAST = "2_0_2"  # the convolution whose effective matrix is looked at
NEXT = {"0_0_1": "0_0_2", "1_0_1": "1_0_2", "2_0_1": LAST}  # whose output only the next one reads
TINY: dict[str, dict[str, Any]] = {
    "batchnorm_runs": {
        "group": [{"seed": 0}, {"seed": 1}], "arm": "random-2", "pool": 1, "n": 48, "depth": 1,
        "width": 4, "batch_size": 16, "rate": 0.1, "decay": 1e-4, "steps": 2,
    },
}  # fmt: skip


def trained_by(arm: str, name: str) -> bool:
    """Whether an arm trains the parameter of this name. Raises ValueError for no arm."""
    norm, output = name.endswith(("_gain", "_shift")), name.startswith("out_")
    match choice("arm", arm, ARMS):
        case "all":
            return True
        case "BN only" | "shared" | "shuffled" | "no decay":
            return norm
        case "random-2":
            return name.endswith("_V")
        case "output only":
            return output
        case "shortcuts only":
            return name.endswith("_short_K")
        case _:
            return norm or output


def batchnorm_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], arm: str, pool: int, n: int, depth: int,
    width: int, batch_size: int, rate: float, decay: float, steps: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of members, each a seed, of one arm and one ResNet-(6D+2).

    SGD with momentum 0.9, the rate divided by ten after half and after three quarters of the
    updates, weight decay on what is trained. Networks of one seed start alike in all arms. Tests
    take the statistics of the whole test set.

    accuracy (2,) : test, at start and end. gains (C,), gains_start (C,) : all γ, layer by layer.
    layer (C,) : the number of the layer that each belongs to. small (2,) : accuracy at the end with
    every |γ| < 0.01 set to zero, and with as many random ones. zeroed (2, 5) : with the smallest
    |γ|, and with random ones, for each of `FRACTIONS`. alpha (2,) : Hill exponent of the effective
    matrix diag(γ / σ) W of the last block's second convolution, start and end. kurtosis (2,) : of
    |γ| / σ over its channels. rows () : correlation of γ and the row means of W over the channels
    of all layers, over its 95 percent level, at the end. columns () : the same of |γ| and the size
    of the column that reads it, where only one convolution does. moved () : ‖K - K0‖ / ‖K0‖ of
    all convolutions.
    """
    # One by one: convolutions of several networks at once round otherwise than those of one, and
    # are slower on a CPU.
    found = [
        _member(
            data, int(member["seed"]), arm, pool, n, depth, width, batch_size, rate, decay, steps
        )
        for member in group
    ]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _member(
    data: Dataset, seed: int, arm: str, pool: int, n: int, depth: int, width: int,
    batch_size: int, rate: float, decay: float, steps: int,
) -> Arrays:  # fmt: skip
    """`batchnorm_runs` of one seed, a first axis of one."""
    x, x_test = pooled_inputs(data, pool)
    side = round((x.shape[1] / (3 if x.shape[1] % 3 == 0 else 1)) ** 0.5)
    seeds = [seed]
    models = [
        ResNet(
            side=side, depth=depth, width=width, classes=data.n_classes,
            colours=x.shape[1] // side**2, two_each=arm == "random-2", shared=arm == "shared",
            seed=10 * seed,
        )
        for seed in seeds
    ]  # fmt: skip
    start = stack(models)
    subsets = torch.stack([
        torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n] for seed in seeds
    ])  # fmt: skip
    y = data.y_train
    if arm == "shuffled":
        y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    masks = {name: torch.stack([m.chosen()[name] for m in models]) for name in models[0].chosen()}
    end, _ = train_stack(
        start,
        epoch_batches(x, y, batch_size=batch_size, seeds=seeds, subsets=subsets),
        cross_entropy,
        steps=steps, lr=rate, optimizer="momentum", one_by_one=True,
        weight_decay=0.0 if arm == "no decay" else decay,
        frozen=[name for name in start.tensors if not trained_by(arm, name)], masks=masks,
        lr_schedule=lambda t: 0.1 ** ((t >= steps / 2) + (t >= 3 * steps / 4)),
    )  # fmt: skip
    gains = [name for name in start.tensors if name.endswith("_gain")]
    first, last = (torch.cat([nets.tensors[name] for name in gains], 1) for nets in (start, end))
    sizes = [start.tensors[name].shape[1] for name in gains]
    layer = torch.repeat_interleave(torch.arange(len(gains)), torch.tensor(sizes))
    sample = x[subsets[:, :200]]
    ends = [_effective(nets, models[0], sample) for nets in (start, end)]
    rows = {
        "accuracy": torch.stack([_accuracy(nets, x_test, data.y_test) for nets in (start, end)], 1),
        "gains": last,
        "gains_start": first,
        "layer": layer.expand(1, -1),
        **_without(end, gains, seeds, x_test, data.y_test),
        "alpha": torch.stack([e[0] for e in ends], 1),
        "kurtosis": torch.stack([e[1] for e in ends], 1),
        **_correlations(end, gains),
        "moved": _moved(start, end),
    }  # fmt: skip
    return {name: value.numpy() for name, value in rows.items()}


def _accuracy(nets: Stack, x: Tensor, y: Tensor) -> Tensor:
    """Each network by itself: under vmap convolutions take twice the time."""
    with torch.no_grad():
        guesses = [nets.one(nets.member(s), x).argmax(-1) for s in range(len(nets))]
    return (torch.stack(guesses) == y).double().mean(1)


def _kernel(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A convolution as a matrix (S, out, in · k²)."""
    both = tensors[f"{name}_K"] + tensors.get(f"{name}_V", torch.zeros(()))
    return both.flatten(2).double()


def _without(
    end: Stack, gains: Sequence[str], seeds: Sequence[int], x: Tensor, y: Tensor
) -> dict[str, Tensor]:
    """Accuracies with gains set to zero: all small ones or as many random, and fractions."""
    flat = torch.cat([end.tensors[name] for name in gains], 1)
    sizes = [end.tensors[name].shape[1] for name in gains]
    count = flat.shape[1]
    ranks = flat.abs().argsort(1).argsort(1)
    lots = torch.stack([
        torch.randperm(count, generator=torch.Generator().manual_seed(77 + seed)) for seed in seeds
    ])  # fmt: skip
    small = (flat.abs() < SMALL).sum(1, keepdim=True)

    def accuracy(off: Tensor) -> Tensor:
        parts = torch.split(flat.masked_fill(off, 0.0), sizes, dim=1)
        tensors = {**end.tensors, **dict(zip(gains, parts, strict=True))}
        return _accuracy(Stack(tensors, end.one), x, y)

    cuts = [round(fraction * count) for fraction in FRACTIONS]
    return {
        "small": torch.stack([accuracy(order < small) for order in (ranks, lots)], 1),
        "zeroed": torch.stack(
            [torch.stack([accuracy(o < cut) for cut in cuts], 1) for o in (ranks, lots)], 1
        ),
    }


def _effective(nets: Stack, model: ResNet, sample: Tensor) -> tuple[Tensor, Tensor]:
    """α of diag(γ / σ) W of `LAST`, and kurtosis of |γ| / σ; σ over a sample (S, n, d)."""
    kept: dict[str, Tensor] = {}

    def watch(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return model.deviations(tensors, x)[LAST]

    with torch.no_grad():
        kept["sigma"] = torch.vmap(watch)(dict(nets.tensors), sample)
    gain = nets.tensors[f"{LAST}_gain"].double()
    factor = gain / kept["sigma"].double()
    effective = factor[:, :, None] * _kernel(nets.tensors, LAST)
    alpha = [power_law(esd(w)).alpha if bool(w.isfinite().all()) else np.nan for w in effective]
    size = factor.abs()
    z = size - size.mean(1, keepdim=True)
    kurtosis = z.pow(4).mean(1) / z.square().mean(1).square()
    return torch.tensor(alpha, dtype=torch.double), kurtosis


def _correlations(nets: Stack, gains: Sequence[str]) -> dict[str, Tensor]:
    """Correlations over channels, each over the level of chance; NaN with one gain a layer."""
    gain, mean, size, column = [], [], [], []
    for name in gains:
        base = name.removesuffix("_gain")
        w, own = _kernel(nets.tensors, base), nets.tensors[name].double()
        if own.shape[1] != w.shape[1]:
            nothing = torch.full((len(nets),), torch.nan, dtype=torch.double)
            return {"rows": nothing, "columns": nothing}
        gain.append(own)
        mean.append(w.mean(2) / w.square().mean((1, 2)).sqrt()[:, None])
        if base in NEXT:
            kernel = nets.tensors[f"{NEXT[base]}_K"] + nets.tensors.get(
                f"{NEXT[base]}_V", torch.zeros(())
            )
            reads = kernel.double().square().sum((1, 3, 4)).sqrt()
            size.append(own.abs())
            column.append(reads / reads.mean(1, keepdim=True))
    return {
        "rows": _over_chance(torch.cat(gain, 1), torch.cat(mean, 1)),
        "columns": _over_chance(torch.cat(size, 1), torch.cat(column, 1)),
    }


def _over_chance(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    found: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return found / chance_level(a.shape[1])


def _moved(start: Stack, end: Stack) -> Tensor:
    """‖K - K0‖ / ‖K0‖ of all convolutions together."""
    names = [n.removesuffix("_K") for n in start.tensors if n.endswith("_K")]
    old, new = (
        torch.cat([_kernel(nets.tensors, name).flatten(1) for name in names], 1)
        for nets in (start, end)
    )
    found: Tensor = (new - old).norm(dim=1) / old.norm(dim=1)
    return found
