"""New neurons for an `MLP`, drawn from an estimate of its RC measure instead of copied.

A neuron of hidden layer l is one point of the measure. Its variables are what it has alone:

    incoming   l = 1: its row of W_1, on the `directions` leading principal axes of the inputs; what
               is left of the row, where the inputs hardly vary, stands behind as d columns;
               l > 1: its row variable u of W_l;
    bias       B_l;
    outgoing   l < L - 1: its column variable v of W_{l+1};  l = L - 1: its column of W_L.

A matrix between two hidden layers is what its rows and columns say and an entry's own part,

    W[i, j] = u_i · v_j + e_ij,

with u vᵀ the `products` leading outer products of W(t) - W(0), both of the same size, and e what is
left, the start of the entry for the most part (paper A's ansatz). Given its row and its column
neuron an entry has the law of the e: all of one matrix are taken as one sample, since what is left
is independent from entry to entry (notebook 30). New ones are drawn from it with repetition, at the
scale that the parametrisation gives a start at the new width.

So a network of width M is drawn in two steps: neurons by one of `LAWS` (`rclib.resizing.laws`), the
entries' own parts "new" or "copied". Copied neurons with copied entries are RC sampling, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from rclib.checks.arguments import choice, count, seed_of
from rclib.nets.mlp import MLP
from rclib.resizing import laws

__all__ = [
    "ENTRIES",
    "LAWS",
    "Neurons",
    "bandwidths",
    "draw_network",
    "fitted_mixtures",
    "neurons_of",
]

LAWS = ("copies", "smoothed", "normal", "mixture", "independent")
ENTRIES = ("new", "copied")


@dataclass(frozen=True, eq=False)
class Neurons:
    """The neurons of a network of hidden widths N_1 ... N_{L-1}.

    layers : (N_l, p_l) float64, one neuron a row: incoming, bias, outgoing, then what is estimated
        column by column. joint : how many columns stand before that, by layer.
    own : the own parts e (N_{l+1}, N_l) of the matrices between hidden layers.
    axes : (d, directions), orthonormal, the leading principal axes of the inputs.
    """

    model: MLP = field(repr=False)
    layers: list[Tensor] = field(repr=False)
    joint: list[int]
    own: list[Tensor] = field(repr=False)
    axes: Tensor = field(repr=False)
    directions: int
    products: int


@torch.no_grad()
def neurons_of(model: MLP, start: MLP, x: Tensor, *, directions: int, products: int) -> Neurons:
    """The variables of every hidden neuron.

    start : the same network as it was before training. x : (n, d) inputs, for their axes.
    directions : principal axes of the inputs that are estimated together, at most d. products :
    outer products of a change, at most the smallest hidden width.

    Raises ValueError naming the argument: for models of other shapes, fewer than two layers or
    without biases, inputs of another width, and numbers out of range; TypeError for no `MLP`.
    """
    for name, one in (("model", model), ("start", start)):
        if not isinstance(one, MLP):
            raise TypeError(f"{name} must be an MLP, got {type(one).__name__}")
    if model.depth < 2 or model.bias == "none":
        raise ValueError(
            f"model must have a hidden layer and biases, got depth {model.depth} and bias "
            f"{model.bias!r}"
        )
    if start.sizes != model.sizes:
        raise ValueError(f"start must have sizes {model.sizes}, got {start.sizes}")
    d, hidden = model.sizes[0], model.sizes[1:-1]
    if x.ndim != 2 or x.shape[1] != d or not len(x):
        raise ValueError(f"x must have shape (n, {d}), got {tuple(x.shape)}")
    q, r = count("directions", directions), count("products", products)
    if q > d:
        raise ValueError(f"directions must be at most the {d} of the inputs, got {q}")
    if model.depth > 2 and r > min(hidden):
        raise ValueError(f"products must be at most the width {min(hidden)}, got {r}")
    state = {name: t.cpu().double() for name, t in model.state_dict().items()}
    before = {name: t.cpu().double() for name, t in start.state_dict().items()}

    axes = _leading_axes(x.cpu().double(), q)
    first = state["W1"] @ axes
    rows, columns, own = [first], [], []
    for layer in range(2, model.depth):
        u, v = _products(state[f"W{layer}"] - before[f"W{layer}"], r)
        rows.append(u)
        columns.append(v)
        own.append(state[f"W{layer}"] - u @ v.t())
    columns.append(state[f"W{model.depth}"].t())
    layers = [
        torch.cat([row, state[f"B{i}"][:, None], column], 1)
        for i, (row, column) in enumerate(zip(rows, columns, strict=True), 1)
    ]
    joint = [one.shape[1] for one in layers]
    layers[0] = torch.cat([layers[0], state["W1"] - first @ axes.t()], 1)
    return Neurons(model, layers, joint, own, axes, q, r)


def _leading_axes(x: Tensor, q: int) -> Tensor:
    """(d, q) eigenvectors of the second moments of x (n, d), the largest first."""
    moments = (x.t() @ x / len(x)).numpy()
    d = len(moments)
    if q < d // 4:  # by Lanczos, from a fixed vector
        values, vectors = eigsh(moments, k=q, v0=np.ones(d))
        return torch.from_numpy(vectors[:, np.argsort(-values)])
    return torch.from_numpy(np.linalg.eigh(moments)[1][:, ::-1][:, :q].copy())


def _products(change: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """u (m, r), v (n, r) of equal mean square with u vᵀ the r leading outer products."""
    left, strengths, right = torch.linalg.svd(change, full_matrices=False)
    m, n = change.shape
    size = (strengths[:r] / math.sqrt(m * n)).sqrt()
    return left[:, :r] * size * math.sqrt(m), right[:r].t() * size * math.sqrt(n)


def bandwidths(neurons: Neurons) -> list[float]:
    """The held-out bandwidth of every hidden layer (`laws.held_out_bandwidth`).

    Raises ValueError as that, for too few neurons.
    """
    return [
        laws.held_out_bandwidth(layer[:, :joint])
        for layer, joint in zip(neurons.layers, neurons.joint, strict=True)
    ]


def fitted_mixtures(
    neurons: Neurons, components: Sequence[int] = (2, 4, 8), *, seed: int = 0
) -> list[laws.Mixture]:
    """The mixture of every hidden layer, of the number of components of smallest BIC.

    Raises ValueError as `laws.mixture`, for too few neurons.
    """
    return [
        laws.mixture(layer[:, :joint], components=components, seed=seed)
        for layer, joint in zip(neurons.layers, neurons.joint, strict=True)
    ]


@torch.no_grad()
def draw_network(
    neurons: Neurons,
    width: int,
    *,
    law: str,
    entries: str = "new",
    bandwidth: float | Sequence[float] | None = None,
    mixtures: Sequence[laws.Mixture] | None = None,
    seed: int = 0,
) -> MLP:
    """A network of hidden width M = `width` whose neurons are drawn by `law`.

    law : of `LAWS`; "smoothed" takes `bandwidth`, one or one a layer, None for the held-out one;
    "mixture" takes `mixtures`, one a layer, None for `fitted_mixtures`. entries : own parts of the
    matrices between hidden layers, "new" or, for the law "copies", "copied" with their neurons.

    Raises ValueError naming the argument and its value.
    """
    m = count("width", width)
    choice("law", law, LAWS)
    choice("entries", entries, ENTRIES)
    if entries == "copied" and law != "copies":
        raise ValueError(f"entries can be copied with the law 'copies' alone, got law {law!r}")
    if bandwidth is not None and law != "smoothed":
        raise ValueError(f"bandwidth is of the law 'smoothed', got {bandwidth!r} for {law!r}")
    generator = torch.Generator().manual_seed(seed_of("seed", seed))
    if mixtures is not None and law != "mixture":
        raise ValueError(f"mixtures are of the law 'mixture', got some for {law!r}")
    if law == "mixture":
        mixtures = fitted_mixtures(neurons) if mixtures is None else list(mixtures)
        if len(mixtures) != len(neurons.layers):
            raise ValueError(f"mixtures must be one for each of {len(neurons.layers)} layers")
    if law == "smoothed":
        given = bandwidths(neurons) if bandwidth is None else bandwidth
        hs = [given] * len(neurons.layers) if isinstance(given, (int, float)) else list(given)
        if len(hs) != len(neurons.layers):
            raise ValueError(f"bandwidth must be one for each of {len(neurons.layers)} layers")
    layers, maps = [], []
    for place, (sample, joint) in enumerate(zip(neurons.layers, neurons.joint, strict=True)):
        if law == "copies":
            maps.append(laws.copies(sample, m, generator=generator))
            layers.append(sample[maps[-1]])
        elif law == "independent":
            layers.append(laws.independent(sample, m, generator=generator))
        elif law == "mixture":
            assert mixtures is not None
            new = laws.smoothed(sample, m, bandwidth=math.inf, joint=0, generator=generator)
            new[:, :joint] = mixtures[place].draw(m, generator=generator)
            layers.append(new)
        else:
            h = math.inf if law == "normal" else hs[place]
            layers.append(laws.smoothed(sample, m, bandwidth=h, joint=joint, generator=generator))
    own = []
    for place, e in enumerate(neurons.own):
        if entries == "copied":
            own.append(e[maps[place + 1]][:, maps[place]])
        else:
            own.append(e.flatten()[torch.randint(e.numel(), (m, m), generator=generator)])
    return _assembled(neurons, m, layers, own, copied=entries == "copied")


def _assembled(
    neurons: Neurons, m: int, layers: Sequence[Tensor], own: Sequence[Tensor], *, copied: bool
) -> MLP:
    """The network of these neurons and own parts, each scaled for its new fan-in.

    What neurons say keeps its kernel, a factor (N / M)^(1 - a) with the multiplier fan_in^-a, as
    in `rclib.rowcolumn.transfer`; own parts that are new have the scale of a start at width M.
    """
    model = neurons.model
    exponents, (q, r) = model.fan_in_exponents(), (neurons.directions, neurons.products)
    first, joint = layers[0], neurons.joint[0]
    left = first[:, joint:]  # a draw column by column leaves the complement of the axes
    left = left - left @ neurons.axes @ neurons.axes.t()
    weights = {"W1": first[:, :q] @ neurons.axes.t() + left}
    weights["B1"] = first[:, q]
    last = model.depth - 1
    for layer in range(2, last + 1):
        name, n = f"W{layer}", model.sizes[layer - 1]
        v = layers[layer - 2][:, neurons.joint[layer - 2] - r : neurons.joint[layer - 2]]
        u, e = layers[layer - 1][:, :r], own[layer - 2]
        ratio = (n / m) ** (1 - exponents[name])
        init = model.parametrization[model.layer_type(name)].init
        scale = ratio if copied else init(m, m) / init(n, model.sizes[layer])
        weights[name] = ratio * (u @ v.t()) + scale * e
        weights[f"B{layer}"] = layers[layer - 1][:, r]
    name, n = f"W{model.depth}", model.sizes[last]
    outgoing = layers[-1][:, neurons.joint[-1] - model.sizes[-1] : neurons.joint[-1]]
    weights[name] = (n / m) ** (1 - exponents[name]) * outgoing.t()
    state = {name: t.to(dtype=model.get_parameter("W1").dtype) for name, t in weights.items()}
    return model.like(m, state | {f"B{model.depth}": model.state_dict()[f"B{model.depth}"]})
