"""Frames of notebook 42: random masks against dense networks, over width, depth and density."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.pruning.random_runs import random_pruning_runs
from rclib.nets.densities import erdos_renyi, uniform, uniform_plus
from rclib.runs.stacked import sweep_stacked

__all__ = [
    "arms_frame",
    "depth_frame",
    "equal_frame",
    "gap",
    "gaps_frame",
    "inside_frame",
    "layer_densities",
    "matched_width",
    "networks",
    "value",
    "weights_in",
]


def weights_in(inputs: int, widths: Sequence[int], classes: int) -> int:
    """Weights, without biases, of a fully connected network."""
    sizes = [inputs, *widths, classes]
    return sum(a * b for a, b in itertools.pairwise(sizes))


def matched_width(inputs: int, layers: int, classes: int, weights: float) -> int:
    """The width of the dense network whose weights come closest to this number."""
    widths = range(1, 5000)
    sizes = np.array([weights_in(inputs, [w] * layers, classes) for w in widths])
    return int(np.argmin(np.abs(sizes - weights))) + 1


def networks(
    data: Dataset,
    seeds: Sequence[int],
    plan: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    group: int = 10,
) -> pd.DataFrame:
    """One row a network: width, layers (hidden), scheme, density, seed, weights (kept), and what
    `random_pruning_runs` measures.

    plan : mappings with "width", "layers", "schemes" (name -> densities) or, for a convolutional
    network, "channels" and "widths" too. settings : what the runs get besides these.
    """
    keys, configs = [], []
    for entry in plan:
        if "channels" in entry:
            network = {"channels": entry["channels"], "widths": entry["widths"]}
            label, layers = "conv", len(entry["channels"]) + len(entry["widths"])
        else:
            network = {"widths": [entry["width"]] * entry["layers"]}
            label, layers = str(entry["width"]), entry["layers"]
        for scheme, densities in entry["schemes"].items():
            for density in densities:
                for seed in seeds:
                    keys.append((label, layers, scheme, float(density), seed))
                    own = {"network": network, "scheme": scheme, "density": float(density)}
                    configs.append({**settings, **own, **entry.get("own", {}), "seed": seed})
    runs = sweep_stacked(
        random_pruning_runs, configs, members=["seed"], data=data, group=group,
        description="masked networks",
    )  # fmt: skip
    names = (
        "accuracy", "nll", "ece", "loss", "top", "spikes", "stretch", "moved", "degrees", "means",
    )  # fmt: skip
    rows = [
        {"weights": int(run["kept"].sum()), **{name: float(run[name]) for name in names}}
        for run in runs
    ]
    found = pd.DataFrame(keys, columns=["width", "layers", "scheme", "density", "seed"])
    return pd.concat([found, pd.DataFrame(rows)], axis=1)


def value(
    frame: pd.DataFrame, what: str, width: int | str, scheme: str, density: float, layers: int
) -> pd.Series:
    """A column by seed of one kind of network. Raises ValueError where there is none."""
    own = frame[
        (frame.width == str(width)) & (frame.scheme == scheme) & (frame.layers == layers)
        & np.isclose(frame.density, density)
    ]  # fmt: skip
    if own.empty:
        raise ValueError(f"width {width}, {scheme}, density {density:g}, {layers} layers: not run")
    found: pd.Series = own.drop_duplicates("seed").set_index("seed")[what]
    return found


def gap(
    frame: pd.DataFrame, width: int | str, scheme: str, density: float, layers: int
) -> pd.Series:
    """Test accuracy minus that of the dense network of this size, by seed."""
    dense = value(frame, "accuracy", width, "dense", 1.0, layers)
    return value(frame, "accuracy", width, scheme, density, layers) - dense


def layer_densities(
    inputs: int, widths: Sequence[int], classes: int, density: float
) -> pd.DataFrame:
    """scheme, layer, density: of uniform, uniform+ (where it can be met) and ER."""
    sizes = [inputs, *widths, classes]
    shapes = {f"W{k}": (sizes[k], sizes[k - 1]) for k in range(1, len(sizes))}
    rows = []
    for scheme, form in {"uniform": uniform, "uniform+": uniform_plus, "ER": erdos_renyi}.items():
        try:
            found = form(shapes, density)
        except ValueError:  # no room for a dense first layer
            continue
        rows += [(scheme, layer, d) for layer, d in found.items()]
    return pd.DataFrame(rows, columns=["scheme", "layer", "density"])


def gaps_frame(
    frame: pd.DataFrame, widths: Mapping[str, Mapping[str, Sequence[float]]], layers: int
) -> pd.DataFrame:
    """width, scheme ("ER", "uniform"), density, seed, gap."""
    rows = []
    for width, schemes in widths.items():
        for scheme in ("ER", "uniform"):
            for density in schemes.get(scheme, ()):
                for seed, value_ in gap(frame, width, scheme, density, layers).items():
                    rows.append((int(width), scheme, density, seed, value_))
    return pd.DataFrame(rows, columns=["width", "scheme", "density", "seed", "gap"])


def equal_frame(frame: pd.DataFrame, layers: int) -> pd.DataFrame:
    """density, width, seed, weights, accuracy of dense and ER networks of this depth."""
    own = frame[
        (frame.layers == layers) & frame.scheme.isin(["dense", "ER"]) & (frame.width != "conv")
    ]
    return own[["density", "width", "seed", "weights", "accuracy"]].reset_index(drop=True)


def inside_frame(frame: pd.DataFrame, width: int, layers: int) -> pd.DataFrame:
    """density, seed, spikes, moved, means of dense and ER networks of one size."""
    own = frame[
        (frame.width == str(width)) & (frame.layers == layers) & frame.scheme.isin(["dense", "ER"])
    ]
    return own[["density", "seed", "spikes", "moved", "means"]].reset_index(drop=True)


def depth_frame(
    frame: pd.DataFrame, width: int, depths: Sequence[int], density: float
) -> pd.DataFrame:
    """layers, density, seed, gap of ER networks of one width and density."""
    rows = [
        (layers, density, seed, lost)
        for layers in depths
        for seed, lost in gap(frame, width, "ER", density, layers).items()
    ]
    return pd.DataFrame(rows, columns=["layers", "density", "seed", "gap"])


def arms_frame(frame: pd.DataFrame, width: int, layers: int, density: float = 0.05) -> pd.DataFrame:
    """arm, seed, gain: accuracy over that of uniform densities, of every other scheme."""
    own = frame[
        (frame.width == str(width)) & (frame.layers == layers) & np.isclose(frame.density, density)
    ]
    plain = value(frame, "accuracy", width, "uniform", density, layers)
    rows = [
        pd.DataFrame({"arm": arm, "seed": rows.seed, "gain": rows.accuracy - rows.seed.map(plain)})
        for arm, rows in own.groupby("scheme", sort=False)
        if arm != "uniform"
    ]
    return pd.concat(rows, ignore_index=True)
