"""Stored runs of notebook 58: DeepShape by laws with a mean and without; windowed sine starts.

The networks are those of notebooks 53 (SGD with momentum, from a normal start) and 55 (starts
alone, not trained). What notebook 50's question needs is run by `mixture_growth_runs.growth_runs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.data.pooling import pooled_inputs
from rclib.experiments.starts import gg_formats as formats
from rclib.experiments.starts.gg_runs import MATRICES, SHAPES, STEP, gg_network
from rclib.experiments.starts.siren import Siren, band_share, grid, hidden, kernel, winner_start
from rclib.nets.stack import Stack, stack
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_batches, train_stack
from rclib.training.validation import accuracy

__all__ = ["FORMS", "TINY", "WINDOWS", "deepshape_runs", "reshaped", "start_spectra"]

# Trained weights as they are; quantiles of a law around zero, as notebook 53 gives them; of the law
# with the matrix' own mean; and the latter with the ranks of the entries drawn at random.
FORMS = ("dense", "around zero", "with the mean", "ranks at random")
WINDOWS = ("none", "Hann")
BINS = 64  # of a spectrum that is kept for the figure
TINY: dict[str, dict[str, Any]] = {
    "deepshape_runs": {
        "group": [{"seed": 0}, {"seed": 1}],
        "width": 8, "pool": 1, "n": 48, "batch_size": 16, "rate": 0.05, "steps": 4, "tune": 2,
    },
    "start_spectra": {
        "seed": 0, "s0": 20.0, "s1": 0.3, "n": 128, "bands": [[0.6, 0.9], [0.0, 0.1]],
        "width": 8, "layers": 3,
    },
}  # fmt: skip


def reshaped(w: Tensor, form: str, *, seed: int) -> Tensor:
    """One matrix by one of `FORMS`; DeepShape's factors are those of notebook 53 (0.8 ν, 0.6 β).

    A law with a mean μ is that of w - μ, moved by μ: the paper shrinks ν and β and leaves μ.
    seed : of the random ranks. Raises ValueError for another form.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {FORMS}, got {form!r}")
    if form == "dense":
        return w.clone()
    shape, scale = SHAPES["deepshape"]
    mean = torch.zeros(()) if form == "around zero" else w.double().mean().to(w.dtype)
    around: Tensor = formats.deepshape(w - mean, shape=shape, scale=scale)[0] + mean
    if form == "ranks at random":
        order = torch.randperm(w.numel(), generator=torch.Generator().manual_seed(seed))
        around = around.flatten()[order].reshape(w.shape)
    return around


def deepshape_runs(
    data: Dataset, *, group: Sequence[Mapping[str, int]], width: int, pool: int, n: int,
    batch_size: int, rate: float, steps: int, tune: int,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of seeds: networks of two hidden layers, trained, then remapped.

    Networks, images and batches are those of `gg_runs.gg_runs` with ν = 2, momentum, no decay. All
    three matrices are remapped, each by its own law. For each of `FORMS`, (F,): overlap, |cos| of
    the second matrix' leading right singular vector with that of the dense one; bits, accuracy
    before and tuned_bits, tuned_accuracy after `tune` further updates of the two DeepShapes
    (entropy of both matrices into hidden layers). mean () : of the second matrix' entries, over
    their standard deviation. flat () : |cos| of its leading right singular vector and the vector of
    equal entries.
    """
    x, x_test = pooled_inputs(data, pool)
    seeds = [int(member["seed"]) for member in group]
    start = stack([gg_network(x.shape[1], width, data.n_classes, nu=2.0, seed=s) for s in seeds])
    subsets = torch.stack([
        torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n] for seed in seeds
    ])  # fmt: skip
    batch = epoch_batches(x, data.y_train, batch_size=batch_size, seeds=seeds, subsets=subsets)

    def trained(nets: Stack, updates: int) -> Stack:
        return train_stack(
            nets, batch, cross_entropy, steps=updates, lr=rate, optimizer="momentum", own="xy"
        )[0]

    end = trained(start, steps)
    before = end.tensors[MATRICES[1]].double()
    leading = torch.stack([torch.linalg.svd(w).Vh[0] for w in before])
    columns: dict[str, list[np.ndarray]] = {}
    for form in FORMS:
        tensors = {
            name: torch.stack([reshaped(w, form, seed=s) for s, w in zip(seeds, t, strict=True)])
            if t.ndim > 2 else t.clone()
            for name, t in end.tensors.items()
        }  # fmt: skip
        nets = Stack(tensors, end.one)
        after = torch.stack([torch.linalg.svd(w.double()).Vh[0] for w in tensors[MATRICES[1]]])
        tuned = trained(nets, tune) if form in FORMS[1:3] else nets
        for key, value in {
            "overlap": (leading * after).sum(1).abs(),
            "bits": _bits(nets),
            "accuracy": accuracy(nets, x_test, data.y_test),
            "tuned_bits": _bits(tuned),
            "tuned_accuracy": accuracy(tuned, x_test, data.y_test),
        }.items():
            columns.setdefault(key, []).append(value.numpy())
    out = {key: np.stack(found, 1) for key, found in columns.items()}
    out["mean"] = np.array([float(w.mean() / w.std(correction=0)) for w in before])
    out["flat"] = np.array([float(v.sum().abs()) / width**0.5 for v in leading])
    return out


def _bits(nets: Stack) -> Tensor:
    """Entropy in bits a weight of the matrices into hidden layers, on the grid of notebook 53."""
    each = [
        torch.cat([member[name].flatten() for name in MATRICES])
        for member in (nets.member(s) for s in range(len(nets)))
    ]
    return torch.tensor([formats.entropy_bits(w, STEP) for w in each], dtype=torch.float64)


def _window(name: str, n: int) -> Tensor:
    """(n,) : ones, or the Hann window of period n, zero at the first point."""
    ones = torch.ones(n, dtype=torch.float64)
    return ones if name == "none" else torch.hann_window(n, dtype=torch.float64)


def start_spectra(
    data: None, *, seed: int, s0: float, s1: float, n: int, bands: Sequence[Sequence[float]],
    width: int, layers: int,
) -> Arrays:  # fmt: skip
    """Stored run of one start of a sine network, those of `siren_runs.band_runs`, not trained.

    bands : low and high over the Nyquist frequency, B of them. For each of `WINDOWS`, (2, ...):
    centroids (2, layers), of the mean magnitudes of a layer's units, the mean of each over the grid
    taken off and frequency zero left out; shares (2, B), of the kernel's trace on the modes of each
    band, of w Θ w for the window w; spectrum (2, 64), share of the last hidden layer's energy, mean
    over units, in as many bins of frequency (fewer where the grid has fewer frequencies).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Siren(1, width, layers)
    noise = torch.Generator().manual_seed(1_000_000 + seed)
    winner_start(model, s0, s1, law="normal", generator=noise)
    tensors = {name: t.detach().double() for name, t in model.state_dict().items()}
    x = grid(n).double()
    units, theta = hidden(tensors, x), kernel(tensors, x)
    found: dict[str, list[Any]] = {"centroids": [], "shares": [], "spectrum": []}
    for name in WINDOWS:
        window = _window(name, n)
        sizes = [_sizes(h, window) for h in units]
        found["centroids"].append([_centroid(size.mean(1)) for size in sizes])
        seen = window[:, None] * theta * window
        found["shares"].append([band_share(seen, float(low), float(high)) for low, high in bands])
        power = sizes[-1].square().mean(1)
        each = max(1, len(power) // BINS)
        power = power[: len(power) // each * each].reshape(-1, each).sum(1)
        found["spectrum"].append((power / power.sum()).tolist())
    return {key: np.array(values) for key, values in found.items()}


def _sizes(h: Tensor, window: Tensor) -> Tensor:
    """Magnitudes (n/2, units) of units' h (n, units) under a window, without frequency zero."""
    centred = h - h.mean(0)
    found: Tensor = torch.fft.rfft(window[:, None] * centred, dim=0).abs()[1:]
    return found


def _centroid(size: Tensor) -> float:
    """Mean frequency over Nyquist of magnitudes (n/2,) of the frequencies 1, 2, ..."""
    k = torch.arange(1, len(size) + 1, dtype=torch.float64) / len(size)
    return float((size * k).sum() / size.sum())
