"""Stored runs of notebook 55: sine networks fitted to signals of a band and to small images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib.checks.arguments import choice
from rclib.data.images import Dataset
from rclib.experiments.starts.siren import (
    Siren,
    band_share,
    band_signal,
    gradients,
    grid,
    hidden,
    kernel,
    winner_start,
)
from rclib.nets.stack import Stack, stack
from rclib.rowcolumn.measure import correlations, largest_correlation, mean_vectors
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import outliers
from rclib.spectral.spectra import esd
from rclib.training.stacked_optimizers import Settings, Updates

__all__ = ["PICTURES", "TINY", "band_runs", "picture", "picture_runs", "pixel_grid"]

PICTURES = ("image", "noise")
WINDOW = 64  # points of the fit that are kept for the figure
AT_ONCE = 2**16  # numbers of a layer of the networks that are trained at once
RANKS = (5, 200)  # of the kernel's eigenvalues whose slope is taken
DECAY, EVERY = 0.998, 20  # factor of the rate, and every how many updates
TINY: dict[str, dict[str, Any]] = {
    "band_runs": {
        "group": [
            {"seed": 0, "s0": 0.0, "s1": 0.0, "law": "normal"},
            {"seed": 1, "s0": 20.0, "s1": 0.3, "law": "uniform"},
        ],
        "n": 64, "low": 0.6, "high": 0.9, "width": 8, "layers": 3, "rate": 1e-4, "steps": 4,
        "moments": [0, 2, 4],
    },
    "picture_runs": {
        "group": [{"seed": 0, "s0": 0.0, "s1": 0.0}, {"seed": 1, "s0": 20.0, "s1": 0.3}],
        "kind": "image", "side": 16, "width": 8, "layers": 3, "rate": 1e-4, "steps": 3,
        "moments": [0, 3],
    },
}  # fmt: skip


def _start(member: Mapping[str, Any], inputs: int, width: int, layers: int) -> Siren:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(member["seed"]))
        model = Siren(inputs, width, layers)
    noise = torch.Generator().manual_seed(1_000_000 + int(member["seed"]))
    law = str(member.get("law", "normal"))
    return winner_start(model, float(member["s0"]), float(member["s1"]), law=law, generator=noise)


def _falling(steps: int) -> Tensor:
    """The rate's factor at each update, as in the authors' script."""
    return DECAY ** (torch.arange(steps) // EVERY).double()


def _fitted(
    start: Stack, x: Tensor, off: Tensor, ys: Tensor, offs: Tensor, *, rate: float, steps: int,
    moments: Sequence[int],
) -> tuple[Stack, Tensor]:  # fmt: skip
    """Train on (x, ys), full-batch Adam; the trained stack, and MSE over the signal's variance
    there and at other points, (T, S, 2), after each of the moments."""

    def looked(tensors: dict[str, Tensor]) -> Tensor:
        found = []
        for points, truth in ((x, ys), (off, offs)):
            # One by one: sums over points of several networks at once may round otherwise.
            wrong = torch.cat([
                (Stack(one, start.one)(points)[:, :, 0] - own).double().square().mean(1)
                for one, own in zip(_alone(tensors), truth.split(1), strict=True)
            ])  # fmt: skip
            found.append(wrong / torch.cat([_variance(own) for own in truth.split(1)]))
        return torch.stack(found, 1)

    tensors = {name: tensor.detach().clone() for name, tensor in start.tensors.items()}
    updates = Updates(Settings("adam", rate, schedule=_falling(steps)), tensors, steps)
    rows = []
    with torch.no_grad():
        for t in range(steps + 1):
            if t in moments:
                rows.append(looked(tensors))
            if t < steps:
                slopes = gradients(tensors, x, ys)
                torch._foreach_sub_(list(tensors.values()), updates.step(t, list(slopes.values())))
    return replace(start, tensors=tensors), torch.stack(rows)


def _variance(y: Tensor) -> Tensor:
    return y.double().var(dim=1, correction=0)


def _alone(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Each member as a stack of one."""
    parts = {name: tensor.split(1) for name, tensor in tensors.items()}
    members = len(next(iter(parts.values())))
    return [{name: part[s] for name, part in parts.items()} for s in range(members)]


def _in_cache(group: Sequence[Mapping[str, Any]], numbers: int) -> list[list[Mapping[str, Any]]]:
    """The group in parts whose layers of so many numbers a member stay in a core's cache."""
    size = max(1, AT_ONCE // numbers)
    return [list(group[i : i + size]) for i in range(0, len(group), size)]


def band_runs(
    data: None, *, group: Sequence[Mapping[str, Any]], n: int, low: float, high: float, width: int,
    layers: int, rate: float, steps: int, moments: Sequence[int],
) -> Arrays:  # fmt: skip
    """Stored runs of a group of members, each a seed (of signal and start), s0, s1 and a law.

    Full-batch Adam on `band_signal(n, low, high)`, the rate times 0.998 every 20 updates.
    at (T,) : updates done. error, off (T,) : MSE over the signal's variance on the training grid
    and half-way between its points. fit (2, 64) : the signal's first points and the end's output.
    spectrum (layers, n/2) : share of each frequency but zero in the energy of a hidden layer at
    the start, mean over units. centroids (layers,) : ψ of each layer's mean magnitudes there.
    band (), slope () : of the kernel at the start, share of its trace on the signal's band, and
    log-log slope of its eigenvalues of ranks 5 to 200 (not below rounding of the largest).
    spikes (2,) : eigenvalues of W_2 beyond its bulk, at start and end; means, chance (2,) : largest
    |correlation| of the mean vectors of one index, and the 95 percent level of that.
    moved (2,), kept (2,) : of W_1 and W_2, ‖W - W0‖ / ‖W0‖ and squared cosine of W and W0.
    """
    options: dict[str, Any] = {
        "n": n, "low": low, "high": high, "width": width, "layers": layers, "rate": rate,
        "steps": steps, "moments": moments,
    }  # fmt: skip
    found = [_band_run(part, **options) for part in _in_cache(group, n * width)]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _band_run(
    group: Sequence[Mapping[str, Any]], *, n: int, low: float, high: float, width: int,
    layers: int, rate: float, steps: int, moments: Sequence[int],
) -> Arrays:  # fmt: skip
    """`band_runs` of a part of its group."""
    seeds = [int(member["seed"]) for member in group]
    pairs = [band_signal(n, low, high, seed=seed) for seed in seeds]
    ys, offs = torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])
    x, off = grid(n), grid(n, shift=0.5)
    start = stack([_start(member, 1, width, layers) for member in group])
    at = sorted({int(t) for t in moments})
    end, looked = _fitted(start, x, off, ys, offs, rate=rate, steps=steps, moments=at)
    fitted = torch.cat([Stack(one, end.one)(x)[:, :, 0] for one in _alone(end.tensors)])
    rows = []
    for s in range(len(group)):
        first = {name: tensor.double() for name, tensor in start.member(s).items()}
        last = {name: tensor.double() for name, tensor in end.member(s).items()}
        rows.append({
            "at": np.array(at),
            "error": looked[:, s, 0].numpy(),
            "off": looked[:, s, 1].numpy(),
            "fit": torch.stack([ys[s, :WINDOW], fitted[s, :WINDOW]]).numpy(),
            **_at_start(first, x.double(), low, high),
            **_matrices(first, last),
        })  # fmt: skip
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _at_start(tensors: Mapping[str, Tensor], x: Tensor, low: float, high: float) -> Arrays:
    """What is said of a start alone."""
    energy, centroids = [], []
    for h in hidden(tensors, x):
        size = torch.fft.rfft(h, dim=0).abs()[1:]
        mean = size.mean(1)
        k = torch.arange(1, len(size) + 1, dtype=torch.float64) / len(size)
        centroids.append(float((mean * k).sum() / mean.sum()))
        power = size.square().mean(1)
        energy.append(power / power.sum())
    theta = kernel(tensors, x)
    values = torch.linalg.eigvalsh(theta).flip(0)
    values = values.clamp_min(float(values[0]) * len(values) * torch.finfo(torch.double).eps)
    ranks = np.arange(RANKS[0], min(RANKS[1], len(values)) + 1)
    slope = np.polyfit(np.log(ranks), np.log(values.numpy()[ranks - 1]), 1)[0]
    return {
        "spectrum": torch.stack(energy).float().numpy(),
        "centroids": np.array(centroids),
        "band": np.array(band_share(theta, low, high)),
        "slope": np.array(slope),
    }


def _matrices(first: Mapping[str, Tensor], last: Mapping[str, Tensor]) -> Arrays:
    """The two instruments on the weights, and how much of the start is left."""
    axes: dict[str, tuple[str, ...]] = {}
    for place in range(len(first) // 2):
        ends = (f"h{place + 1}", f"h{place}" if place else "x")
        axes[f"layers.{place}.weight"], axes[f"layers.{place}.bias"] = ends, (ends[0],)
    spikes, means, chance = [], [], []
    for tensors in (first, last):
        w = tensors["layers.1.weight"]
        if bool(w.isfinite().all()):
            spikes.append(float(outliers(esd(w), rows=w.shape[0]).count))
            inside = largest_correlation(correlations(mean_vectors(tensors, axes)), within=True)
            means.append(inside.value)
            chance.append(inside.chance)
        else:
            for column in (spikes, means, chance):
                column.append(float("nan"))
    moved, kept = [], []
    for name in ("layers.0.weight", "layers.1.weight"):
        old, new = first[name], last[name]
        moved.append(float((new - old).norm() / old.norm()))
        kept.append(float((new * old).sum().square() / (new.norm() * old.norm()).square()))
    return {
        "spikes": np.array(spikes),
        "means": np.array(means),
        "chance": np.array(chance),
        "moved": np.array(moved),
        "kept": np.array(kept),
    }


def picture(data: Dataset, kind: str, side: int, *, seed: int) -> Tensor:
    """A grey picture (side, side) of mean zero and largest value one.

    kind : "image", drawn from the training images: one of its size in grey, or a mosaic of smaller
        ones; "noise", independent normal pixels. Raises ValueError for a side that images of the
        data do not tile.
    """
    generator = torch.Generator().manual_seed(seed)
    if choice("kind", kind, PICTURES) == "noise":
        drawn = torch.randn(side, side, generator=generator)
    else:
        d = data.x_train.shape[1]
        channels = 3 if round((d / 3) ** 0.5) ** 2 * 3 == d else 1
        own = round((d / channels) ** 0.5)
        if channels * own**2 != d or side % own:
            raise ValueError(f"side must be a multiple of the images' {own}, got {side}")
        tiles = side // own
        order = torch.randperm(len(data.x_train), generator=generator)[: tiles**2]
        grey = data.x_train[order].float().reshape(tiles, tiles, channels, own, own).mean(2)
        drawn = grey.permute(0, 2, 1, 3).reshape(side, side)
    drawn = drawn - drawn.mean()
    scaled: Tensor = drawn / drawn.abs().max()
    return scaled


def pixel_grid(side: int) -> Tensor:
    """Middles of the pixels of a square picture in [-1, 1]², row by row: (side², 2)."""
    line = (torch.arange(side, dtype=torch.float64) + 0.5) * 2 / side - 1
    return torch.cartesian_prod(line, line).float()


def picture_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], kind: str, side: int, width: int,
    layers: int, rate: float, steps: int, moments: Sequence[int],
) -> Arrays:  # fmt: skip
    """Stored runs of a group of members, each a seed (of picture and start), s0 and s1.

    at (T,) : updates done. error (T,) : MSE over the picture's squared range.
    """
    options: dict[str, Any] = {
        "kind": kind, "side": side, "width": width, "layers": layers, "rate": rate,
        "steps": steps, "moments": moments,
    }  # fmt: skip
    found = [_picture_run(data, part, **options) for part in _in_cache(group, side**2 * width)]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _picture_run(
    data: Dataset, group: Sequence[Mapping[str, Any]], *, kind: str, side: int, width: int,
    layers: int, rate: float, steps: int, moments: Sequence[int],
) -> Arrays:  # fmt: skip
    """`picture_runs` of a part of its group."""
    seeds = [int(member["seed"]) for member in group]
    pictures = [picture(data, kind, side, seed=seed) for seed in seeds]
    ys = torch.stack([p.flatten() for p in pictures])
    x = pixel_grid(side)
    start = stack([_start(member, 2, width, layers) for member in group])
    at = sorted({int(t) for t in moments})
    _, looked = _fitted(start, x, x, ys, ys, rate=rate, steps=steps, moments=at)
    mse = looked[:, :, 0] * torch.cat([_variance(own) for own in ys.split(1)])
    spread = (ys.max(1).values - ys.min(1).values).double()
    error = (mse / spread.square()).T.contiguous()
    return {"at": np.tile(np.array(at), (len(group), 1)), "error": error.numpy()}
