"""The 3-layer network of paper A, Figure 4.3, trained at several widths and from two starts.

What the notebooks of this series share: one stored run a network, with its weights at chosen
epochs, and the network of a run again.

    configs = [configuration(width=n, seed=s, epochs=6, snapshots=[0, 6], ...) for ...]
    runs = train_all(data, configs)
    runs[0]["6/W2"]                      # (N, N), after epoch 6
    model = network_at(data, configs[0], 6)      # keep=["*"]; a sweep gives `needs=source_needed`

Starts. A layer is a mean over its n inputs of w h with the kernel w = n m W, m the multiplier.
"zero mean" draws W as the parametrisation says; "N(1, 3)" adds one to the kernel of every layer and
triples the variance, so the mean is the same operator under every parametrisation and at every
width. Under MF that is W ~ N(1, 3) for all layers that follow a hidden one (paper A, Figure 4.5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rclib.checks.arguments import choice
from rclib.data.images import Dataset, load
from rclib.nets.init import Init
from rclib.nets.mlp import MLP
from rclib.nets.parametrization import parametrization as lookup
from rclib.runs import store, sweep
from rclib.runs.store import Arrays
from rclib.training.classifier import train

__all__ = [
    "STARTS",
    "TINY",
    "build",
    "configuration",
    "load_images",
    "network_at",
    "source_needed",
    "start_laws",
    "state_at",
    "train_all",
    "train_network",
]

STARTS = ("zero mean", "N(1, 3)")
# Stored function -> a configuration that takes no time, for the tests that run all of them.
TINY = {
    "train_network": {
        "parametrization": "muP", "start": "N(1, 3)", "width": 6, "seed": 0, "epochs": 1,
        "lr": 0.1, "batch_size": 32, "snapshots": [0, 1], "keep": ["*"],
    }
}  # fmt: skip


def load_images(name: str, n_train: int | None = None, n_test: int | None = None) -> Dataset:
    """A data set, or the first images of a seeded permutation of it; see `Dataset.subset`.

    Raises ValueError for an unknown name and numbers that it does not have.
    """
    data = load(name)
    return data if n_train is None else data.subset(n_train, n_test)


def start_laws(
    parametrization: str, start: str, *, d: int, width: int, classes: int
) -> dict[str, Init]:
    """Initial law of each layer type, in units of the parametrisation's scale.

    Zero means are drawn as in Figure 4.1: uniform, under μP Gaussian. ValueError for a start that
    is none of `STARTS`.
    """
    if choice("start", start, dict.fromkeys(STARTS)) == "zero mean":
        law = Init("gaussian" if parametrization == "muP" else "uniform")
        return dict.fromkeys(("input", "hidden", "output"), law)
    fans = {"input": (d, width), "hidden": (width, width), "output": (width, classes)}
    laws = {}
    for kind, (n, m) in fans.items():
        scaling = lookup(parametrization)[kind]
        unit = n * scaling.multiplier(n, m) * scaling.init(n, m)  # kernel of a weight of one scale
        laws[kind] = Init("gaussian", mean=1.0 / unit, scale=math.sqrt(3.0))
    return laws


def configuration(
    *,
    parametrization: str,
    start: str,
    width: int,
    seed: int,
    epochs: int,
    lr: float,
    batch_size: int,
    snapshots: Sequence[int],
    keep: Sequence[str] = ("W2",),
) -> dict[str, Any]:
    """The configuration of a `train_network` run: one spelling, so that notebooks find each
    other's runs.

    seed : of the repeat; the run's own seed is another one for every width, since equal ones would
    give two widths neurons in common.
    """
    return {
        "parametrization": parametrization,
        "start": start,
        "width": int(width),
        "seed": 10_000 * int(seed) + int(width),
        "epochs": int(epochs),
        "lr": float(lr),
        "batch_size": int(batch_size),
        "snapshots": [int(epoch) for epoch in snapshots],
        "keep": list(keep),
    }


def build(data: Dataset, *, parametrization: str, start: str, width: int, seed: int) -> MLP:
    """The network of a configuration before training: tanh, zero-mean random biases."""
    d = data.x_train.shape[1]
    laws = start_laws(parametrization, start, d=d, width=width, classes=data.n_classes)
    return MLP(d, width, data.n_classes, parametrization=parametrization, init=laws, seed=seed)


def train_network(
    data: Dataset,
    *,
    parametrization: str,
    start: str,
    width: int,
    seed: int,
    epochs: int,
    lr: float,
    batch_size: int,
    snapshots: Sequence[int],
    keep: Sequence[str],
) -> Arrays:
    """Stored run: one network trained by SGD, batches in an order fixed by the seed.

    Returns `train_loss`, `test_loss`, `test_accuracy` (epochs + 1,) and, for each epoch e of
    `snapshots`, the tensors `e/<name>` named in `keep` ("*" for all). ValueError for names that
    the network does not have.
    """
    model = build(data, parametrization=parametrization, start=start, width=width, seed=seed)
    unknown = sorted(set(keep) - {"*", *model.state_dict()})
    if unknown:
        raise ValueError(f"keep must name tensors of {sorted(model.state_dict())}, got {unknown}")
    history = train(
        model, data, epochs=epochs, lr=lr, batch_size=batch_size, seed=seed, snapshots=snapshots,
        progress=False,
    )  # fmt: skip
    out = {
        "train_loss": history.train_loss.numpy(),
        "test_loss": history.test_loss.numpy(),
        "test_accuracy": history.test_accuracy.numpy(),
    }
    for epoch, state in history.snapshots.items():
        for name, tensor in state.items():
            if "*" in keep or name in keep:
                out[f"{epoch}/{name}"] = tensor.numpy()
    return out


def train_all(data: Dataset, configs: Sequence[Mapping[str, Any]]) -> list[Arrays]:
    """The runs of `configurations`, from the store where they are there."""
    return sweep.run(
        train_network,
        configs,
        data=data,
        cost=lambda config: float(config["epochs"] * config["width"]),
        description="networks",
    )


def state_at(run: Mapping[str, Any], epoch: int) -> dict[str, Tensor]:
    """The weights that a run kept of an epoch; ValueError if there are none."""
    prefix = f"{epoch}/"
    found = {
        name.removeprefix(prefix): torch.from_numpy(array.copy())
        for name, array in run.items()
        if name.startswith(prefix)
    }
    if not found:
        raise ValueError(f"the run kept nothing of epoch {epoch}")
    return found


def network_at(data: Dataset, source: Mapping[str, Any], epoch: int) -> MLP:
    """The network of a run that kept all its weights, as it was after `epoch`.

    For stored functions, whose sweep names the run with `source_needed`. ValueError if the run
    kept nothing of that epoch, RuntimeError (torch's) if it kept some tensors only.
    """
    names = ("parametrization", "start", "width", "seed")
    model = build(data, **{name: source[name] for name in names})
    model.load_state_dict(state_at(store.fetch(train_network, source, data=data), epoch))
    return model


def source_needed(config: Mapping[str, Any]) -> list[sweep.Need]:
    """The run that a configuration with the key "source" fetches: a sweep's `needs`."""
    return [(train_network, config["source"])]
