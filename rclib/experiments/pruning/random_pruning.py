"""Frames of notebook 42: random masks against dense networks, over width, depth and density."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from rclib.data.images import Dataset
from rclib.experiments.pruning.random_judged import judged_runs
from rclib.experiments.pruning.random_runs import random_pruning_runs
from rclib.nets.densities import erdos_renyi, random_masks, uniform, uniform_plus
from rclib.runs.stacked import sweep_stacked
from rclib.spectral.sparse import sparse_law

__all__ = [
    "arms_frame",
    "depth_frame",
    "equal_frame",
    "gap",
    "gaps_frame",
    "inside_frame",
    "judged_frame",
    "judged_gains",
    "layer_densities",
    "matched_width",
    "networks",
    "starts_frame",
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
    """One row a network: width, layers (hidden), scheme, density, seed, weights and shares (kept,
    in all and by layer), and what `random_pruning_runs` measures.

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
        {
            "weights": int(run["kept"].sum()), "shares": tuple(run["kept"] / run["sizes"]),
            **{name: float(run[name]) for name in names},
        }
        for run in runs
    ]  # fmt: skip
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
    inputs: int, widths: Sequence[int], classes: int, density: float, *frames: pd.DataFrame
) -> pd.DataFrame:
    """scheme, layer, density: of uniform, uniform+ (where it can be met) and ER, and means over the
    networks of frames (scheme, width, layers, density, shares) with this size and density whose
    scheme is "SNIP" or "GraSP"."""
    sizes = [inputs, *widths, classes]
    shapes = {f"W{k}": (sizes[k], sizes[k - 1]) for k in range(1, len(sizes))}
    rows = []
    for scheme, form in {"uniform": uniform, "uniform+": uniform_plus, "ER": erdos_renyi}.items():
        try:
            found = form(shapes, density)
        except ValueError:  # no room for a dense first layer
            continue
        rows += [(scheme, layer, d) for layer, d in found.items()]
    for frame in frames:
        own = frame[
            (frame.width == str(widths[0])) & (frame.layers == len(widths))
            & np.isclose(frame.density, density) & frame.scheme.isin(["SNIP", "GraSP"])
        ]  # fmt: skip
        for scheme, some in own.groupby("scheme"):
            rows += [
                (str(scheme), layer, float(d))
                for layer, d in zip(shapes, np.mean(some.shares.tolist(), 0), strict=True)
            ]
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


def depth_frame(frame: pd.DataFrame, width: int, depths: Sequence[int]) -> pd.DataFrame:
    """layers, density, seed, gap of ER networks of one width."""
    rows = []
    for layers in depths:
        own = frame[(frame.width == str(width)) & (frame.layers == layers) & (frame.scheme == "ER")]
        for density in own.density.unique():
            for seed, value_ in gap(frame, width, "ER", density, layers).items():
                rows.append((layers, density, seed, value_))
    return pd.DataFrame(rows, columns=["layers", "density", "seed", "gap"])


def arms_frame(
    frame: pd.DataFrame, looked: pd.DataFrame, width: int, layers: int, density: float = 0.05
) -> pd.DataFrame:
    """arm, seed, gain: accuracy over that of ER densities, of every other scheme of one density.

    frame : of `networks`; looked : of `judged_frame`, whose seeds are others.
    """
    rows = []
    for some in (frame, looked):
        own = some[
            (some.width == str(width)) & (some.layers == layers)
            & np.isclose(some.density, density)
        ]  # fmt: skip
        base = value(some, "accuracy", width, "ER", density, layers)
        rows += [
            pd.DataFrame({"arm": arm, "seed": one.seed, "gain": one.accuracy - one.seed.map(base)})
            for arm, one in own.groupby("scheme", sort=False)
            if arm != "ER"
        ]
    return pd.concat(rows, ignore_index=True)


def judged_frame(
    data: Dataset,
    seeds: Sequence[int],
    width: int,
    layers: int,
    schemes: Mapping[str, Sequence[float]],
    *,
    group: int = 10,
    **settings: Any,
) -> pd.DataFrame:
    """One row a network, as `networks` has them: width, layers, scheme, density, seed, shares, and
    what `judged_runs` measures. schemes : of `JUDGED`, name -> densities."""
    keys = [
        (str(width), layers, scheme, float(density), seed)
        for scheme, densities in schemes.items() for density in densities for seed in seeds
    ]  # fmt: skip
    configs = [
        {**settings, "network": {"widths": [width] * layers}, "scheme": scheme, "density": density,
         "seed": seed}
        for _, _, scheme, density, seed in keys
    ]  # fmt: skip
    runs = sweep_stacked(
        judged_runs, configs, members=["seed"], data=data, group=group,
        description="judged networks",
    )  # fmt: skip
    frame = pd.DataFrame(keys, columns=["width", "layers", "scheme", "density", "seed"])
    frame["shares"] = [tuple(run["kept"] / run["sizes"]) for run in runs]
    for name in ("accuracy", "nll", "ece", "attacked", "outside"):
        frame[name] = [float(run[name]) for run in runs]
    return frame


def judged_gains(frame: pd.DataFrame, density: float) -> pd.DataFrame:
    """what, seed, gain: a measure of ER networks of one density minus that of dense ones."""
    width, layers = frame.width.iloc[0], int(frame.layers.iloc[0])
    rows = []
    for what in ("accuracy", "ece", "attacked", "outside"):
        sparse = value(frame, what, width, "ER", density, layers)
        for seed, gain in (sparse - value(frame, what, width, "dense", 1.0, layers)).items():
            rows.append((what, seed, gain))
    return pd.DataFrame(rows, columns=["what", "seed", "gain"])


def starts_frame(
    inputs: int, widths: Sequence[int], classes: int, densities: Sequence[float],
    seeds: Sequence[int],
) -> pd.DataFrame:  # fmt: skip
    """The last hidden matrix of a start under an ER mask, nothing trained: density (of the
    network), seed, share (of the matrix), dense_edge, sparse_edge, degrees.

    dense_edge, sparse_edge : largest singular value over the edge of Marchenko and Pastur's law
    with variance d σ², and over that of `sparse_law` with the fourth cumulant 3 d (1 - d) σ⁴ of
    masked Gaussian entries. degrees : correlation, over the units before it, of weights kept in and
    out; NaN for dense layers.
    """
    sizes = [inputs, *widths, classes]
    shapes = {f"W{k}": (sizes[k], sizes[k - 1]) for k in range(1, len(sizes))}
    last, before = list(shapes)[-2], list(shapes)[-3]
    rows_, columns = shapes[last]
    out = []
    for density in densities:
        masks = random_masks(shapes, erdos_renyi(shapes, density), seeds)
        for place, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(7_000_000 + seed)
            mask = masks[last][place].double()
            w = mask * torch.randn(mask.shape, generator=generator, dtype=torch.double)
            d, top = float(mask.mean()), float(torch.linalg.matrix_norm(w, 2))
            law = sparse_law(
                rows=rows_, columns=columns, variance=d, cumulant=max(0.0, 3 * d * (1 - d))
            )
            dense_edge = d**0.5 * (rows_**0.5 + columns**0.5)
            into, from_ = masks[before][place].double().sum(1), mask.sum(0)
            varies = float(into.std()) > 0 and float(from_.std()) > 0
            r = float(np.corrcoef(into.numpy(), from_.numpy())[0, 1]) if varies else np.nan
            out.append((density, seed, d, top / dense_edge, top / law.upper**0.5, r))
    names = ["density", "seed", "share", "dense_edge", "sparse_edge", "degrees"]
    return pd.DataFrame(out, columns=names)
