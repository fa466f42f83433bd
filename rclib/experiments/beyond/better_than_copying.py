"""Neurons drawn from an estimate of the RC measure, against neurons that are copied.

A 3-layer network of width N, trained for some epochs, is brought to width M: by RC sampling, which
copies with repetition (paper A, Algorithm 1), and by draws of new neurons (`rclib.resizing.laws`,
`new_neurons`), with new own entries of the hidden matrix. Both are tested untrained and after one
further epoch, beside the source and a network that was trained at width M.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from rclib.data.images import Dataset
from rclib.experiments.beyond import networks
from rclib.nets.mlp import MLP
from rclib.nets.stack import stack
from rclib.resizing import laws
from rclib.resizing.new_neurons import bandwidths, draw_network, fitted_mixtures, neurons_of
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.training.stacked import epoch_batches, train_stack

__all__ = ["COPIED", "NEW", "TINY", "arms_of", "curve", "drawn_run", "less", "lost", "sweep_drawn"]

COPIED = "copies"  # RC sampling
NEW = "copies, new entries"
AXES_FROM = 2000  # inputs that the principal axes are taken from
_SOURCE = {
    **networks.TINY["train_network"], "start": "zero mean", "width": 40, "epochs": 2,
    "snapshots": [0, 1],
}  # fmt: skip
TINY = {
    "drawn_run": {
        "source": _SOURCE, "epoch": 1, "width": 8, "directions": 2, "products": 2, "draws": 2,
        "further": 1,
        "arms": [
            {"law": "copies", "entries": "copied"}, {"law": "smoothed"}, {"law": "mixture"},
            {"law": "smoothed", "bandwidth": 0.5}, {"law": "normal"}, {"law": "independent"},
        ],
    }
}  # fmt: skip


def arms_of(fixed: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Name of an arm -> arguments of `draw_network`. fixed : bandwidths beside the held-out one."""
    return {
        COPIED: {"law": "copies", "entries": "copied"},
        NEW: {"law": "copies"},
        **{f"h = {h:g}": {"law": "smoothed", "bandwidth": h} for h in fixed},
        "normal": {"law": "normal"},
        "held-out h": {"law": "smoothed"},
        "mixture": {"law": "mixture"},
        "independent": {"law": "independent"},
    }


def drawn_run(
    data: Dataset,
    *,
    source: Mapping[str, Any],
    epoch: int,
    width: int,
    directions: int,
    products: int,
    arms: Sequence[Mapping[str, Any]],
    draws: int,
    further: int,
) -> Arrays:
    """Stored run: all arms from one network, tested untrained and after `further` epochs.

    source : a `train_network` run that kept all weights of epoch 0 and of `epoch`. arms : each
    the arguments of `draw_network`; all see the batches of the epoch in one order. Returns `zero`
    (A,), test losses right after, means over `draws`; `after` (A,), of the first draw after those
    epochs; `bandwidth` and `silverman` (2,), by hidden layer; `components` (2,) of the mixture.
    """
    seed = int(source["seed"])
    model, start = (networks.network_at(data, source, e) for e in (epoch, 0))
    neurons = neurons_of(
        model, start, data.x_train[:AXES_FROM], directions=directions, products=products
    )
    held_out, mixtures = bandwidths(neurons), fitted_mixtures(neurons, seed=seed)

    def drawn(arm: Mapping[str, Any], draw: int) -> MLP:
        known: dict[str, Any] = dict(arm)
        if arm["law"] == "smoothed":
            known.setdefault("bandwidth", held_out)
        elif arm["law"] == "mixture":
            known["mixtures"] = mixtures
        return draw_network(neurons, width, seed=seed * 100 + draw, **known)

    zero = np.zeros((draws, len(arms)))
    models: list[MLP] = []
    for draw in range(draws):
        made = [drawn(arm, draw) for arm in arms]
        with torch.no_grad():
            zero[draw] = [float(cross_entropy(m(data.x_test), data.y_test)) for m in made]
        models = models or made
    size = source["batch_size"]
    after, _ = train_stack(
        stack(models),
        epoch_batches(data.x_train, data.y_train, batch_size=size, seeds=[seed + 1] * len(arms)),
        cross_entropy,
        steps=further * -(-len(data.x_train) // size),
        lr=source["lr"],
        factors=model.like(width).lr_factors(),
    )
    losses = []
    for place, one in enumerate(models):
        one.load_state_dict(after.member(place))
        with torch.no_grad():
            losses.append(float(cross_entropy(one(data.x_test), data.y_test)))
    parts = zip(neurons.layers, neurons.joint, strict=True)
    return {
        "zero": zero.mean(0),
        "after": np.array(losses),
        "bandwidth": np.array(held_out),
        "silverman": np.array([laws.silverman(len(layer), q) for layer, q in parts]),
        "components": np.array([len(mixture.weights) for mixture in mixtures]),
    }


def sweep_drawn(
    data: Dataset,
    *,
    rates: Mapping[str, float],
    seeds: Sequence[int],
    source_width: int,
    width: int,
    epochs: int,
    batch_size: int,
    directions: int,
    products: int,
    fixed: Sequence[float],
    draws: int,
    further: int = 1,
) -> pd.DataFrame:
    """All arms of all networks: one row a parametrisation, seed and arm.

    rates : parametrisation -> learning rate. fixed : bandwidths beside the held-out one.
    further : epochs after the transfer. Columns: parametrization, seed, N, arm, h (mean over
    layers; NaN where there is none), start (test loss of the source before training), source and
    native (of the source and of a network of width M at the transfer), zero (right after),
    source_after, native_after, after (`further` epochs later), silverman, components (means over
    layers).
    """
    arms, last = arms_of(fixed), epochs + further
    keys = [(name, seed) for name in rates for seed in seeds]
    sources, natives = (
        [
            networks.configuration(
                parametrization=name, start="zero mean", width=n, seed=seed, epochs=last,
                lr=rates[name], batch_size=batch_size, snapshots=snapshots, keep=keep,
            )
            for name, seed in keys
        ]
        for n, snapshots, keep in ((source_width, [0, epochs], ["*"]), (width, [], []))
    )  # fmt: skip
    trained = networks.train_all(data, [*sources, *natives])
    runs = sweep.run(
        drawn_run,
        [
            {
                "source": source, "epoch": epochs, "width": width, "directions": directions,
                "products": products, "arms": list(arms.values()), "draws": draws,
                "further": further,
            }
            for source in sources
        ],
        data=data,
        description="draws",
        needs=networks.source_needed,
    )  # fmt: skip
    frames = []
    for place, ((name, seed), run) in enumerate(zip(keys, runs, strict=True)):
        own, native = (trained[place + k]["test_loss"] for k in (0, len(keys)))
        held_out = float(run["bandwidth"].mean())
        hs = [_bandwidth(arm, held_out) for arm in arms.values()]
        frame = pd.DataFrame({"parametrization": name, "seed": seed, "arm": list(arms), "h": hs})
        frame.insert(2, "N", source_width)
        frame["start"], frame["source"], frame["source_after"] = own[0], own[epochs], own[-1]
        frame["native"], frame["native_after"] = native[epochs], native[-1]
        frame["zero"], frame["after"] = run["zero"], run["after"]
        frame["silverman"] = float(run["silverman"].mean())
        frame["components"] = float(run["components"].mean())
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _bandwidth(arm: Mapping[str, Any], held_out: float) -> float:
    fixed = {"copies": 0.0, "normal": math.inf, "smoothed": arm.get("bandwidth", held_out)}
    return float(fixed.get(arm["law"], math.nan))


def lost(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with what each arm loses, in shares of the source's progress start - source:
    `lost` right after and `lost_after` further training, both against the source."""
    progress = frame.start - frame.source
    return frame.assign(
        lost=(frame.zero - frame.source) / progress,
        lost_after=(frame.after - frame.source_after) / progress,
    )


def less(frame: pd.DataFrame, arm: str, than: str, *, of: str, column: str = "lost") -> pd.Series:
    """`column` of an arm minus that of another one, under a parametrisation, by seed.

    frame : of `lost`. Raises KeyError for an arm that it does not have.
    """
    part = frame[frame.parametrization == of]
    table = part.pivot(index="seed", columns="arm", values=column)
    return (table[arm] - table[than]).rename(column)


def curve(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, with standard errors: parametrization, arm, h, lost, lost_error,
    lost_after, lost_after_error. frame : of `lost`."""
    by = frame.groupby(["parametrization", "arm"], sort=False)
    found = by[["lost", "lost_after"]].mean()
    found.insert(0, "h", by.h.agg(lambda values: float(np.mean(values))))  # pandas': inf - inf
    for column in ("lost", "lost_after"):
        found[f"{column}_error"] = by[column].sem()
    return found.reset_index()
