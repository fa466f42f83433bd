"""The convolutional arm of notebook 45: a small network, one at a time, channels last.

The network: three convolutions of 3 x 3 with ReLU, the first two followed by a 2 x 2 maximum, then
the mean over what is left of the image and one linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.experiments.pruning.data_diet_runs import images
from rclib.experiments.pruning.data_scores import el2n, window
from rclib.runs import store, sweep
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_orders

__all__ = ["TINY", "conv_committee", "conv_frame", "conv_retrained"]

_SCORING: dict[str, Any] = {
    "seed": 0, "nets": 2, "epochs": 1, "channels": [2, 3, 4], "batch_size": 32, "rate": 1e-3,
    "pool": 1,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "conv_committee": _SCORING,
    "conv_retrained": {
        "seed": 0, "random": False, "offset": 0.5, "share": 0.5, "steps": 2, "scoring": _SCORING,
    },
}  # fmt: skip


def _pictures(data: Dataset, pool: int) -> tuple[Tensor, Tensor]:
    """(n, channels, side, side) for training and test, channels last in memory."""
    colours = 3 if data.name == "cifar10" else 1
    train, test = images(data, pool)
    side = math.isqrt(train.shape[1] // colours)
    shaped = [x.view(len(x), colours, side, side) for x in (train, test)]
    train, test = (x.contiguous(memory_format=torch.channels_last) for x in shaped)
    return train, test


def _network(colours: int, channels: Sequence[int], classes: int, seed: int) -> nn.Module:
    """He's start from the seed alone; biases at zero."""
    first, second, third = channels
    made = nn.Sequential(
        nn.Conv2d(colours, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(second, third, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(third, classes),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in made.parameters():
            spread = math.sqrt(2.0 / p[0].numel()) if p.ndim > 1 else 0.0
            p.copy_(spread * torch.randn(p.shape, generator=generator))
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _train(
    net: nn.Module, x: Tensor, y: Tensor, *, steps: int, batch_size: int, rate: float, seed: int
) -> None:
    order = epoch_orders(len(x), batch_size, [seed])
    adam = torch.optim.Adam(net.parameters(), lr=rate)
    for step in range(steps):
        places = order(step)[0]
        adam.zero_grad()
        batch = x[places].contiguous(memory_format=torch.channels_last)
        cross_entropy(net(batch), y[places]).backward()  # type: ignore[no-untyped-call]
        adam.step()


@torch.no_grad()
def _outputs(net: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([net(part) for part in x.split(1000)])


def conv_committee(
    data: Dataset,
    *,
    seed: int,
    nets: int,
    epochs: int,
    channels: Sequence[int],
    batch_size: int,
    rate: float,
    pool: int,
) -> Arrays:
    """Stored run: EL2N of all training images after `epochs` epochs, of `nets` networks of the
    seeds 1000 seed, 1000 seed + 1, ...: el2n (nets, n); accuracy (nets,) on them."""
    x, _ = _pictures(data, pool)
    steps = epochs * math.ceil(len(x) / batch_size)
    found, right = [], []
    for one in range(1000 * seed, 1000 * seed + nets):
        net = _network(x.shape[1], channels, data.n_classes, one)
        _train(net, x, data.y_train, steps=steps, batch_size=batch_size, rate=rate, seed=one)
        outputs = _outputs(net, x)
        found.append(el2n(outputs, data.y_train).numpy())
        right.append(float((outputs.argmax(1) == data.y_train).double().mean()))
    return {"el2n": np.array(found), "accuracy": np.array(right)}


def conv_retrained(
    data: Dataset,
    *,
    seed: int,
    random: bool,
    offset: float,
    share: float,
    steps: int,
    scoring: Mapping[str, Any],
) -> Arrays:
    """Stored run: a network trained from scratch for `steps` steps on a share of the images, a
    random one or the window at `offset` of the committee `scoring`. accuracy () : on the test set.
    labels (K,) : images of each class."""
    x, x_test = _pictures(data, scoring["pool"])
    if random:
        scores = np.random.default_rng([seed, 46]).permutation(len(x)).astype(float)
    else:
        scores = store.fetch(conv_committee, scoring, data=data)["el2n"].mean(0)
    places = torch.from_numpy(window(scores, share, offset))
    net = _network(x.shape[1], scoring["channels"], data.n_classes, seed)
    _train(
        net,
        x[places],
        data.y_train[places],
        steps=steps,
        batch_size=scoring["batch_size"],
        rate=scoring["rate"],
        seed=seed,
    )
    right = _outputs(net, x_test).argmax(1) == data.y_test
    counts = torch.bincount(data.y_train[places], minlength=data.n_classes)
    return {"accuracy": np.array(float(right.double().mean())), "labels": counts.numpy()}


def conv_frame(
    data: Dataset,
    seeds: Sequence[int],
    *,
    committee_seed: int,
    share: float,
    steps: int,
    **scoring: Any,
) -> pd.DataFrame:
    """Convolutional networks on a share of the images, as `data_diet.retrained_frame` has them, for
    the kinds "random", "EL2N" and "lowest EL2N"; all seeds have the scores of one committee."""
    wanted = [("random", 0.0), ("EL2N", round(1.0 - share, 9)), ("lowest EL2N", 0.0)]
    scored = {"seed": committee_seed, **scoring}
    configs = [
        {
            "seed": seed, "random": kind == "random", "offset": offset, "share": share,
            "steps": steps, "scoring": scored,
        }
        for kind, offset in wanted for seed in seeds
    ]  # fmt: skip
    runs = sweep.run(
        conv_retrained,
        configs,
        data=data,
        description="convolutional networks",
        needs=lambda config: [] if config["random"] else [(conv_committee, config["scoring"])],
    )
    keys = [(kind, seed) for kind, _ in wanted for seed in seeds]
    rows = [
        (
            kind, share, 0.0, np.nan, seed, float(run["accuracy"]), 0.0,
            float(run["labels"].max() / run["labels"].mean()),
        )
        for (kind, seed), run in zip(keys, runs, strict=True)
    ]  # fmt: skip
    columns = ["kind", "share", "noise", "offset", "seed", "accuracy", "wrong", "unbalance"]
    return pd.DataFrame(rows, columns=columns)
