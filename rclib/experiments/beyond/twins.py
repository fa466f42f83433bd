"""How long two copies of a neuron stay alike when a duplicated network is trained on.

Duplication gives every neuron a twin with equal incoming weights, bias and outgoing weights. An
update that treats neurons alike, GD, SGD with any batches or Adam, gives both the same step:
without noise they are equal for ever. With noise ±ε ζ on a pair, ζ on all that a neuron has, the
network is the same to first order in ε, and the distance δ of a pair follows the linearised update

    δ_{t+1} = δ_t - η c (∇²φ_t) δ_t      (SGD; c the rate's factor),

with φ_t(θ) the potential of a neuron: the loss to first order in what one more neuron θ sends, the
signals that reach it and the errors above it being those of the network. The Gauss-Newton part of
the Hessian, which holds the outputs, drops out for such a pair: only the errors, through ∇²φ, move
twins apart. `twin_run` follows δ through the same batches, with the Hessian's products with it
(for Adam with the derivatives of its means), and beside it a network with a small ε.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.experiments.beyond import networks
from rclib.nets.init import ACTIVATIONS
from rclib.nets.mlp import MLP
from rclib.rowcolumn.transfer import IndexMaps, gather
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_orders

__all__ = [
    "TINY",
    "duplicated",
    "gradients",
    "growth",
    "pair_noise",
    "step_rule",
    "sweep_twins",
    "twin_run",
]

State = dict[str, Tensor]
BETAS, EPS = (0.9, 0.999), 1e-8
OPTIMIZERS = ("GD", "SGD", "Adam")
_SOURCE = {**networks.TINY["train_network"], "start": "zero mean", "parametrization": "MF"}
TINY = {
    "twin_run": {
        "source": _SOURCE, "epoch": 1, "optimizer": "Adam", "lr": 0.01, "steps": 3,
        "every": 2, "batch_size": 8, "noise": 0.01, "n_train": 24, "n_probe": 10,
    }
}  # fmt: skip


def duplicated(model: MLP) -> MLP:
    """Every hidden neuron twice, neuron i beside i + N, with the same function; float64."""
    maps: IndexMaps = {}
    for layer in range(1, model.depth):
        index = torch.arange(model.sizes[layer]).repeat(2)
        places = ((f"W{layer}", 0), (f"B{layer}", 0), (f"W{layer + 1}", 1))
        maps |= dict.fromkeys(places, index)
    state = gather(
        {name: t.double() for name, t in model.state_dict().items()},
        model.axes,
        maps,
        fan_in_exponents=model.fan_in_exponents(),
    )
    twice = model.like([2 * n for n in model.sizes[1:-1]]).double()
    twice.load_state_dict(state)
    return twice


def pair_noise(model: MLP, *, seed: int) -> State:
    """Noise of opposite sign on the two of every pair of a duplicated network.

    On all that a neuron has, in units of the spread of each tensor. Entries between two hidden
    layers have noise of their row and of their column pair. The output bias has none.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = {}
    for name, tensor in model.named_parameters():
        paired = [k for k in range(tensor.ndim) if _hidden(model, int(name[1:]), k)]
        total = torch.zeros_like(tensor.detach())
        for axis in paired:  # noise of the pairs along it, the same for both of the other axis
            half = [n // 2 if k in paired else n for k, n in enumerate(tensor.shape)]
            part = torch.randn(half, generator=generator, dtype=tensor.dtype)
            for k in paired:
                part = torch.cat([part, -part if k == axis else part], k)
            total += float(tensor.detach().std()) * part
        noise[name] = total
    return noise


def _hidden(model: MLP, layer: int, axis: int) -> bool:
    """Whether an axis of W or B of a layer runs over hidden neurons."""
    return layer < model.depth if axis == 0 else layer > 1


def step_rule(
    optimizer: str, lr: float, factors: Mapping[str, float]
) -> Callable[[State, State, State, State | None, State, State], None]:
    """A function (θ, memory, g, τ, memory of τ, derivative of g) that makes one step in place of θ
    and of its derivative τ along the noise (None: of θ alone)."""

    def sgd(theta: State, _: State, g: State, tau: State | None, __: State, dg: State) -> None:
        for name in theta:
            theta[name] = theta[name] - lr * factors[name] * g[name]
            if tau is not None:
                tau[name] = tau[name] - lr * factors[name] * dg[name]

    def adam(
        theta: State, memory: State, g: State, tau: State | None, moved: State, dg: State
    ) -> None:
        t = memory["t"] = memory.get("t", torch.zeros((), dtype=torch.float64)) + 1
        first, second = (1 - beta**t for beta in BETAS)
        for name in theta:
            m, v = memory.get(f"m/{name}", 0.0 * g[name]), memory.get(f"v/{name}", 0.0 * g[name])
            m, v = (
                BETAS[0] * m + (1 - BETAS[0]) * g[name],
                BETAS[1] * v + (1 - BETAS[1]) * g[name] ** 2,
            )
            memory[f"m/{name}"], memory[f"v/{name}"] = m, v
            root = v.sqrt() / second.sqrt()
            rate = lr * factors[name]
            theta[name] = theta[name] - rate * (m / first) / (root + EPS)
            if tau is None:
                continue
            dm = BETAS[0] * moved.get(f"m/{name}", 0.0) + (1 - BETAS[0]) * dg[name]
            dv = BETAS[1] * moved.get(f"v/{name}", 0.0) + (1 - BETAS[1]) * 2 * g[name] * dg[name]
            moved[f"m/{name}"], moved[f"v/{name}"] = dm, dv
            # Where a gradient has always been zero its derivative is zero too.
            droot = torch.where(v > 0, dv / (2 * v.sqrt()).clamp(min=1e-300), 0.0) / second.sqrt()
            tau[name] = tau[name] - rate * (dm - m * droot / (root + EPS)) / first / (root + EPS)

    return adam if optimizer == "Adam" else sgd


def twin_run(
    data: Dataset,
    *,
    source: Mapping[str, Any],
    epoch: int,
    optimizer: str,
    lr: float,
    steps: int,
    every: int,
    batch_size: int,
    noise: float,
    n_train: int,
    n_probe: int,
) -> Arrays:
    """Stored run: a duplicated network trained on, without noise and with it.

    source : a `train_network` run that kept all weights of `epoch`. optimizer : "GD" takes all
    `n_train` images at once, "SGD" and "Adam" batches. noise : ε. Looks after 0, `every`, ...
    steps, L of them. Returns, (L, 2) by hidden layer, root mean square distances of activations on
    `n_probe` test images: `distance` of twins with noise, `predicted` by the linearised update,
    `unlike` of neurons that are no twins; and (L,) `exact`, the largest difference of twins without
    noise in units of the spread of the tensor, `loss` on the `n_train` images, `step`.
    """
    seed = int(source["seed"])
    model = duplicated(networks.network_at(data, source, epoch))
    part = data.subset(n_train, n_probe)
    x, y, probe = part.x_train.double(), part.y_train, part.x_test.double()
    rule = step_rule(optimizer, lr, model.lr_factors("adam" if optimizer == "Adam" else "sgd"))
    theta: State = {name: p.detach() for name, p in model.named_parameters()}
    tau = pair_noise(model, seed=seed)
    noisy = {name: theta[name] + noise * tau[name] for name in theta}
    memory, moved, own = State(), State(), State()
    batch = epoch_orders(n_train, None if optimizer == "GD" else batch_size, [seed])

    def loss(parameters: State, places: Tensor) -> Tensor:
        return cross_entropy(functional_call(model, parameters, (x[places],)), y[places])

    found: dict[str, list[Any]] = {
        key: [] for key in ("distance", "predicted", "unlike", "exact", "loss", "step")
    }
    for t in range(steps + 1):
        if t % every == 0:
            hidden, along = _hidden_units(model, theta, probe, tau)
            found["predicted"].append([noise * _apart(h) for h in along])
            found["distance"].append([_apart(h) for h in _hidden_units(model, noisy, probe)[0]])
            found["unlike"].append([_unlike(h) for h in hidden])
            found["exact"].append(_largest(model, theta))
            found["loss"].append(float(loss(theta, torch.arange(n_train))))
            found["step"].append(t)
        if t == steps:
            break
        places = batch(t)[0]
        g, dg = gradients(partial(loss, places=places), theta, tau)
        rule(theta, memory, g, tau, moved, dg)
        g, _ = gradients(partial(loss, places=places), noisy)
        rule(noisy, own, g, None, {}, {})
    return {name: np.array(rows) for name, rows in found.items()}


def gradients(
    loss: Callable[[State], Tensor], theta: State, along: State | None = None
) -> tuple[State, State]:
    """(gradient, Hessian times `along`) of a loss; the second is empty without `along`."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in theta.items()}
    wanted = list(leaves.values())
    first = torch.autograd.grad(loss(leaves), wanted, create_graph=along is not None)
    g = {name: tensor.detach() for name, tensor in zip(leaves, first, strict=True)}
    if along is None:
        return g, {}
    parts = [(one * along[name]).sum() for name, one in zip(leaves, first, strict=True)]
    second = torch.autograd.grad(torch.stack(parts).sum(), wanted)
    return g, dict(zip(leaves, second, strict=True))


def _hidden_units(
    model: MLP, parameters: State, x: Tensor, along: State | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Activations (n, 2N) of every hidden layer, and their derivatives along a direction."""
    hs, dhs = [x], [torch.zeros_like(x)]
    for layer in range(1, model.depth):
        weight, bias, scale = parameters[f"W{layer}"], f"B{layer}", model.multiplier(layer)
        z = (scale * hs[-1] @ weight.t() + parameters[bias]).requires_grad_()
        h = ACTIVATIONS[model.activation](z)
        if along is not None:
            dz = scale * (dhs[-1] @ weight.t() + hs[-1] @ along[f"W{layer}"].t()) + along[bias]
            dhs.append(torch.autograd.grad(h.sum(), z)[0] * dz)
        hs.append(h.detach())
    return hs[1:], dhs[1:]


def _apart(h: Tensor) -> float:
    one, other = h.chunk(2, 1)
    return float((one - other).square().mean().sqrt())


def _unlike(h: Tensor) -> float:
    one = h.chunk(2, 1)[0]
    return float((one - one.roll(1, 1)).square().mean().sqrt())


def _largest(model: MLP, theta: State) -> float:
    """Largest difference of the twins' parameters, each tensor in units of its spread."""
    apart = 0.0
    for name, tensor in theta.items():
        for axis in range(tensor.ndim):
            if _hidden(model, int(name[1:]), axis):
                one, other = tensor.chunk(2, axis)
                apart = max(apart, float((one - other).abs().max() / tensor.std()))
    return apart


def sweep_twins(
    data: Dataset,
    *,
    parametrization: str,
    rates: Mapping[str, float],
    seeds: Sequence[int],
    source_lr: float,
    width: int,
    epochs: int,
    source_batch: int,
    **options: Any,
) -> pd.DataFrame:
    """Looks of all runs: optimizer, seed, step, distance, predicted, unlike (root mean squares
    over both hidden layers), exact, loss.

    rates : optimiser of "GD", "SGD", "Adam" -> its rate. options : those of `twin_run`.
    """
    sources = [
        networks.configuration(
            parametrization=parametrization, start="zero mean", width=width, seed=seed,
            epochs=epochs, lr=source_lr, batch_size=source_batch, snapshots=[0, epochs], keep=["*"],
        )
        for seed in seeds
    ]  # fmt: skip
    networks.train_all(data, sources)
    keys = [(name, place) for name in rates for place in range(len(seeds))]
    runs = sweep.run(
        twin_run,
        [
            {"source": sources[k], "epoch": epochs, "optimizer": n, "lr": rates[n], **options}
            for n, k in keys
        ],
        data=data,
        description="twins",
        needs=networks.source_needed,
    )
    frames = []
    for (name, place), run in zip(keys, runs, strict=True):
        frame = pd.DataFrame({"optimizer": name, "seed": seeds[place], "step": run["step"]})
        for key in ("distance", "predicted", "unlike"):
            frame[key] = np.sqrt(np.square(run[key]).mean(1))
        frame["exact"], frame["loss"] = run["exact"], run["loss"]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def growth(frame: pd.DataFrame) -> pd.DataFrame:
    """One row an optimiser and seed: `measured` and `predicted` growth of the logarithm of the
    distance over the run, `share` of the distance of unlike neurons at the end, `exact` the largest
    of the run, and `rate`, the measured growth for each e-fold of the training loss."""
    rows = []
    for (name, seed), part in frame.groupby(["optimizer", "seed"], sort=False):
        first, last = part.iloc[0], part.iloc[-1]
        measured = math.log(last.distance / first.distance)
        rows.append(
            {
                "optimizer": name,
                "seed": seed,
                "measured": measured,
                "predicted": math.log(last.predicted / first.predicted),
                "share": last.distance / last.unlike,
                "exact": float(part.exact.max()),
                "rate": measured / math.log(first.loss / last.loss),
            }
        )
    return pd.DataFrame(rows)
