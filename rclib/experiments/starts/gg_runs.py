"""Stored runs of notebook 53: networks from generalised Gaussian starts, and few bits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rclib.data.images import Dataset
from rclib.data.pooling import pooled_inputs
from rclib.experiments.starts import gg_formats as formats
from rclib.nets.stack import Stack, stack
from rclib.rowcolumn.measure import correlations, largest_correlation, mean_vectors
from rclib.runs.store import Arrays
from rclib.spectral.random_matrix import outliers
from rclib.spectral.spectra import esd
from rclib.stats.generalized_gaussian import GeneralizedGaussian, draw, fit, shape_by_moments
from rclib.training.stacked import epoch_batches
from rclib.training.stacked_backprop import Layers, gradients
from rclib.training.stacked_optimizers import Settings, Updates
from rclib.training.validation import accuracy as accuracy_of

__all__ = ["ARMS", "MATRICES", "TINY", "Relu", "backslash_step", "gg_network", "gg_runs"]

MATRICES = ("layers.0.weight", "layers.1.weight")  # those into hidden layers
LAYERS = Layers([(f"layers.{k}.weight", f"layers.{k}.bias") for k in range(3)], [1.0] * 3)
# What is done to all matrices at the end: factors of ν and β, or a format.
SHAPES = {"deepshape": (0.8, 0.6), "scale only": (1.0, 0.6)}
ARMS = ("dense", *SHAPES, "shape only", "RF8", "e4m3", "int8")
STEP = 2.0**-7  # of the grid on which rates are counted
ADDED = 0.01  # c of BackSlash: |w| + c
TINY: dict[str, dict[str, Any]] = {
    "gg_runs": {
        "group": [
            {"seed": 0, "nu": 2.0, "strength": 0.0},
            {"seed": 1, "nu": 1.0, "strength": 1e-3},
        ],
        "width": 8, "pool": 1, "n": 48, "batch_size": 16, "optimizer": "momentum", "rate": 0.05,
        "decay": 0.0, "steps": 4, "moments": [0, 2, 4], "tune": 2, "compress": True,
    },
}  # fmt: skip


class Relu(nn.Module):
    """x (n, d) through two hidden layers of `width` rectified units to (n, classes)."""

    def __init__(self, d: int, width: int, classes: int) -> None:
        super().__init__()
        sizes = [d, width, width, classes]
        self.layers = nn.ModuleList(nn.Linear(sizes[i], sizes[i + 1]) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        *inner, last = self.layers
        for layer in inner:
            x = torch.relu(layer(x))
        out: Tensor = last(x)
        return out


def gg_network(d: int, width: int, classes: int, *, nu: float, seed: int) -> Relu:
    """Every matrix i.i.d. GG of shape ν, variance 2 / fan-in (1 / fan-in for the last), biases 0.

    The same uniform numbers of a seed are inverted for every ν, so starts of one seed have equal
    ranks. The authors divide by fan-out: here fan-in, so that laws are compared at one variance.
    """
    model = Relu(d, width, classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for place, layer in enumerate(model.layers):
            weight = layer.get_parameter("weight")
            gain = 1.0 if place == len(model.layers) - 1 else 2.0
            law = GeneralizedGaussian.of_variance(nu, gain / weight.shape[1])
            weight.copy_(draw(law, weight.shape, generator=generator))
            layer.get_parameter("bias").zero_()
    return model


def backslash_step(tensors: Mapping[str, Tensor], strength: Tensor) -> None:
    """w ← w - s ν / 2 · sign(w) (|w| + c)^(ν - 1) for all matrices of a stack, in place.

    The rate R = mean |w|^ν has this derivative but for its factor; ν is that of all of a member's
    matrices by moments, at every step. strength (S,) : s, in the authors' code rdo / N with
    ν / 2 for ν, so that s is the step of a normal law. c = 0.01 keeps the power finite (the
    authors' c = 1 makes it constant).
    """
    weights = [t for name, t in tensors.items() if name.endswith("weight")]
    for s in range(len(strength)):
        if strength[s] == 0:
            continue
        own = [w[s] for w in weights]
        nu = shape_by_moments(torch.cat([w.flatten() for w in own]).double().numpy())
        for w in own:
            power = (w.abs() + ADDED) ** (nu - 1)
            w -= float(strength[s]) * nu / 2 * torch.sign(w) * power


def _trained(
    start: Stack,
    batch: Any,
    strength: Tensor,
    *,
    steps: int,
    settings: Settings,
    moments: Sequence[int],
) -> tuple[Stack, Tensor, list[dict[str, Tensor]]]:
    """The end, the losses (steps, S) and the tensors after each number of updates in `moments`.

    `train_stack` of the cross-entropy without its options, `backslash_step` after every update.
    """
    tensors = {name: t.clone() for name, t in start.tensors.items()}
    updates = Updates(settings, tensors, steps)
    losses, kept = [], []
    for step in range(steps + 1):
        if step in moments:
            kept.append({name: t.clone() for name, t in tensors.items()})
        if step == steps:
            break
        loss, slopes = gradients(LAYERS, tensors, *batch(step))
        losses.append(loss)
        amounts = updates.step(step, [slopes[name] for name in tensors])
        torch._foreach_sub_(list(tensors.values()), amounts)
        if bool((strength > 0).any()):
            backslash_step(tensors, strength)
    return Stack(tensors, start.one), torch.stack(losses) if losses else torch.empty(0), kept


def gg_runs(
    data: Dataset, *, group: Sequence[Mapping[str, Any]], width: int, pool: int, n: int,
    batch_size: int, optimizer: str, rate: float, decay: float, steps: int,
    moments: Sequence[int], tune: int, compress: bool,
) -> Arrays:  # fmt: skip
    """Stored runs of a group of members, each a seed, a start's shape ν and BackSlash's strength.

    Networks of two hidden layers on `n` training images; the batches of a seed are the same for
    every ν. at (T,) : updates done. nu (T, 2) : shape by moments of the two matrices into
    hidden layers. pooled () : of all matrices' entries together at the end. likelihood (2,) : by
    maximum likelihood at the end. loss (steps,) : of each batch. accuracy () : test, at the end.
    edge (2,) : largest eigenvalue of WᵀW at the start over its Marchenko-Pastur edge. means (2,) :
    largest |correlation| of mean vectors of one index over its 95 percent level, start and end.
    histogram (80,) : counts of the second matrix's entries at the end, within four standard
    deviations. kurtosis () : excess kurtosis of the first layer's pre-activations at the start,
    over units and 200 images, each divided by its image's length. bits (4,) : entropy,
    exp-Golomb, Huffman and fixed rate of the two matrices at the end.

    With `compress`, for each of `ARMS`: arm_bits, arm_accuracy, after `tune` further updates
    tuned_bits, tuned_accuracy, error, and overlap, (A,) each: |cos| of the second matrix's leading
    right singular vectors before and after.
    """
    x, x_test = pooled_inputs(data, pool)
    seeds = [int(member["seed"]) for member in group]
    start = stack([
        gg_network(x.shape[1], width, data.n_classes, nu=float(m["nu"]), seed=int(m["seed"]))
        for m in group
    ])  # fmt: skip
    subsets = torch.stack([
        torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n] for seed in seeds
    ])  # fmt: skip
    batch = epoch_batches(x, data.y_train, batch_size=batch_size, seeds=seeds, subsets=subsets)
    strength = torch.tensor([float(m["strength"]) for m in group])
    settings = Settings(optimizer, rate, weight_decay=decay)
    at = sorted({int(t) for t in moments} | {0, steps})
    end, losses, kept = _trained(
        start, batch, strength, steps=steps, settings=settings, moments=at
    )  # fmt: skip
    rows = []
    accuracy = accuracy_of(end, x_test, data.y_test)
    for s in range(len(group)):
        first, last = start.member(s), end.member(s)
        matrices = [t for t in last.values() if t.ndim > 1]
        some = x[subsets[s, :200]].double()
        z = first[MATRICES[0]].double() @ (some / some.norm(dim=1, keepdim=True)).T
        rows.append({
            "at": np.array(at),
            "nu": np.array([[_shape(t[name][s]) for name in MATRICES] for t in kept]),
            "pooled": np.array(_shape(torch.cat([t.flatten() for t in matrices]))),
            "likelihood": np.array([_likelihood(last[name]) for name in MATRICES]),
            "loss": losses[:, s].numpy(),
            "accuracy": accuracy[s].numpy(),
            "edge": np.array([_edge(first[name]) for name in MATRICES]),
            "means": np.array([_means(first), _means(last)]),
            "histogram": _histogram(last[MATRICES[1]]),
            "kurtosis": np.array(float(z.pow(4).mean() / z.square().mean() ** 2) - 3),
            "bits": np.array(_rates(last)),
        })  # fmt: skip
    out = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    if compress:
        out |= _compressed(end, x_test, data.y_test, batch, tune=tune, settings=settings)
    return out


def _shape(w: Tensor) -> float:
    return shape_by_moments(w.double().numpy()) if bool(w.isfinite().all()) else float("nan")


def _likelihood(w: Tensor) -> float:
    return fit(w.double().numpy()).shape if bool(w.isfinite().all()) else float("nan")


def _edge(w: Tensor) -> float:
    values = esd(w)
    return float(
        values.max() / outliers(values, rows=w.shape[0], variance=float(w.double().var())).edge
    )


def _means(tensors: Mapping[str, Tensor]) -> float:
    """Largest |correlation| within an index over its chance level."""
    axes: dict[str, tuple[str, ...]] = {}
    for place in range(3):
        ends = (f"h{place + 1}" if place < 2 else "class", f"h{place}" if place else "x")
        axes[f"layers.{place}.weight"], axes[f"layers.{place}.bias"] = ends, (ends[0],)
    if not all(bool(t.isfinite().all()) for t in tensors.values()):
        return float("nan")
    n = tensors[MATRICES[1]].shape[0]
    found = largest_correlation(correlations(mean_vectors(tensors, axes), n), within=True)
    return found.value / found.chance


def _histogram(w: Tensor) -> np.ndarray:
    z = w.double() / w.double().std()
    return np.histogram(z.numpy(), bins=80, range=(-4, 4))[0]


def _rates(tensors: Mapping[str, Tensor]) -> list[float]:
    w = torch.cat([tensors[name].flatten() for name in MATRICES])
    rates = (
        formats.entropy_bits, formats.exp_golomb_bits, formats.huffman_bits, formats.fixed_bits,
    )  # fmt: skip
    return [rate(w, STEP) if bool(w.isfinite().all()) else float("nan") for rate in rates]


def _changed(w: Tensor, arm: str) -> Tensor:
    """One matrix by one of `ARMS`. "shape only": 0.8 ν at the variance that it has."""
    if arm in SHAPES:
        shape, scale = SHAPES[arm]
        return formats.deepshape(w, shape=shape, scale=scale)[0]
    if arm == "shape only":
        own = fit(w.double().numpy())
        narrow = GeneralizedGaussian.of_variance(0.8 * own.shape, own.variance)
        return formats.deepshape(w, shape=0.8, scale=narrow.scale / own.scale)[0]
    by = {"RF8": formats.to_rf8, "e4m3": formats.to_e4m3, "int8": formats.to_int8}
    return by[arm](w) if arm in by else w.clone()


def _compressed(
    end: Stack, x_test: Tensor, y_test: Tensor, batch: Any, *, tune: int, settings: Settings
) -> Arrays:
    columns: dict[str, list[np.ndarray]] = {}
    zero = torch.zeros(len(end))
    for arm in ARMS:
        tensors = {
            name: torch.stack([_changed(w, arm) for w in t]) if t.ndim > 2 else t.clone()
            for name, t in end.tensors.items()
        }
        nets = Stack(tensors, end.one)
        tuned, _, _ = _trained(nets, batch, zero, steps=tune, settings=settings, moments=())
        before, after = end.tensors[MATRICES[1]].double(), tensors[MATRICES[1]].double()
        leading = [torch.linalg.svd(w).Vh[:, 0] for w in (before, after)]
        values = {
            "arm_bits": np.array([_rates(nets.member(s))[0] for s in range(len(end))]),
            "arm_accuracy": accuracy_of(nets, x_test, y_test).numpy(),
            "tuned_bits": np.array([_rates(tuned.member(s))[0] for s in range(len(end))]),
            "tuned_accuracy": accuracy_of(tuned, x_test, y_test).numpy(),
            "error": np.array([
                formats.relative_error(a, b) for a, b in zip(before, after, strict=True)
            ]),
            "overlap": (leading[0] * leading[1]).sum(1).abs().numpy(),
        }  # fmt: skip
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    return {name: np.stack(found, 1) for name, found in columns.items()}
