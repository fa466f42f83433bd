"""Frames of notebook 54: starts of graph networks that know the graph, or do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.starts.gnn_graphs import graph
from rclib.experiments.starts.gnn_init_runs import ARMS, start_runs
from rclib.nets.graphs import aggregation, start_variances
from rclib.runs import sweep
from rclib.runs.store import Arrays

__all__ = [
    "Runs",
    "curves",
    "graph_free",
    "in_order",
    "layers_frame",
    "named_slopes",
    "over_places",
    "over_seeds",
    "slopes",
    "start_values",
    "starts",
]

PLACE = ["graph", "features", "aggregation", "depth"]


@dataclass(frozen=True)
class Runs:
    """Runs with their keys, one row a run and in the same order."""

    keys: pd.DataFrame
    runs: list[Arrays]


def in_order(
    configs: Sequence[Mapping[str, Any]], data: Dataset, swept: Callable[..., list[Arrays]]
) -> list[Arrays]:
    """Runs in the order of their configurations; only those on images depend on the data.

    swept : (configurations, data or None) -> their runs.
    """
    found: dict[int, Arrays] = {}
    for images in (False, True):
        places = [i for i, c in enumerate(configs) if (c["kind"] == "neighbours") == images]
        runs = swept([configs[i] for i in places], data if images else None)
        found |= dict(zip(places, runs, strict=True))
    return [found[i] for i in range(len(configs))]


def starts(
    data: Dataset,
    seeds: Sequence[int],
    plans: Mapping[str, Mapping[str, Any]],
    depths: Sequence[int],
    **settings: Any,
) -> Runs:
    """Starts on every graph of `plans` (kind -> arguments of `graph`), with both kinds of drawn
    features or images, of every aggregation.

    depths : layers; the first one on all graphs, the others on planted partitions with Gaussian
        features alone. settings : width and draws of `start_runs`.
    """
    rows, configs = [], []
    for kind, plan in plans.items():
        for features in ("images",) if kind == "neighbours" else ("gaussian", "words"):
            for depth in depths:
                if depth != depths[0] and (kind, features) != ("planted", "gaussian"):
                    continue
                for how in ("symmetric", "mean", "sum"):
                    for seed in seeds:
                        rows.append((kind, features, how, depth, seed))
                        own = {"kind": kind, "features": features, "aggregation_kind": how}
                        configs.append(
                            {**settings, **own, "seed": seed, "plan": dict(plan), "layers": depth}
                        )

    def swept(chosen: list[dict[str, Any]], source: Dataset | None) -> list[Arrays]:
        return sweep.run(start_runs, chosen, data=source, description="starts")

    runs = in_order(configs, data, swept)
    return Runs(pd.DataFrame(rows, columns=[*PLACE, "seed"]), runs)


def curves(found: Runs) -> pd.DataFrame:
    """graph, features, aggregation, depth, seed, arm, layer, size: log10 of the mean square of the
    hidden layers at the start, mean over nodes and draws, of every arm."""
    frames = []
    base = list(ARMS).index("Kaiming")
    for key, run in zip(found.keys.itertuples(index=False), found.runs, strict=True):
        v = run["variances"][:, :-1]
        size = run["size"] + np.cumsum(np.log10(v / v[base]), axis=1)
        for a, arm in enumerate(ARMS):
            columns = {"arm": arm, "layer": np.arange(1, v.shape[1] + 1), "size": size[a]}
            frames.append(pd.DataFrame({**key._asdict(), **columns}))
    return pd.concat(frames, ignore_index=True)


def layers_frame(found: Runs) -> pd.DataFrame:
    """graph, features, aggregation, depth, seed, layer, near, open, centred: of Kaiming's start,
    correlation of neighbours, share of open gates, log10 of variance over mean square."""
    frames = []
    for key, run in zip(found.keys.itertuples(index=False), found.runs, strict=True):
        columns = {
            "layer": np.arange(1, len(run["near"]) + 1), "near": run["near"],
            "open": run["open"], "centred": run["spread"] - run["size"],
        }  # fmt: skip
        frames.append(pd.DataFrame({**key._asdict(), **columns}))
    return pd.concat(frames, ignore_index=True)


def slopes(frame: pd.DataFrame) -> pd.DataFrame:
    """graph, features, aggregation, depth, arm, seed, slope: decades a layer, least squares over
    the hidden layers. Depths of less than three hidden layers are left out."""
    rows = []
    for key, part in frame.groupby([*PLACE, "arm", "seed"], sort=False):
        if len(part) > 2:
            rows.append((*key, float(np.polyfit(part.layer, part["size"], 1)[0])))
    return pd.DataFrame(rows, columns=[*PLACE, "arm", "seed", "slope"])


def over_places(
    frame: pd.DataFrame, how: str, arm: str, *, features: str | None = None
) -> pd.DataFrame:
    """Slopes of an arm under an aggregation at the largest number of graphs' common depth, drawn
    graphs only: one row a seed, one column a graph and kind of features.

    features : only these.
    """
    depth = frame.depth.iloc[0]
    own = frame[(frame.aggregation == how) & (frame.arm == arm) & (frame.depth == depth)]
    own = own[own.graph != "neighbours"]
    if features is not None:
        own = own[own.features == features]
    return own.pivot_table(index="seed", columns=["graph", "features"], values="slope")


def named_slopes(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean slopes over seeds: one row a graph, features, aggregation, depth, one column an arm."""
    table = frame.pivot_table(index=PLACE, columns="arm", values="slope", sort=False)
    return table[list(ARMS)].reset_index()


def over_seeds(frame: pd.DataFrame, by: Sequence[str], what: str) -> pd.DataFrame:
    """Mean, smallest and largest value of a column over seeds, which a band is drawn from."""
    group = frame.groupby(list(by), sort=False)[what]
    return group.agg(["mean", "min", "max"]).reset_index().assign(what=what).round(5)


def graph_free(
    seeds: Sequence[int], *, regular: bool, n: int, layers: int, width: int
) -> pd.Series:
    """Largest |v_forward / v_Kaiming - 1| over layers where a graph says nothing, by seed.

    regular : a ring in which every node has six neighbours, all features equal, symmetric
        aggregation; or else no edges, Gaussian features, aggregation by sums.
    """
    found = {}
    for seed in seeds:
        x = graph(None, "planted", "gaussian", seed=seed, n=n).features
        adjacency = np.zeros((n, n))
        if regular:
            x = np.ones_like(x) * (1 + seed)
            for step in (1, 2, 3):
                adjacency += np.roll(np.eye(n), step, 0) + np.roll(np.eye(n), -step, 0)
        matrix = aggregation(adjacency, "symmetric" if regular else "sum")
        shared: dict[str, Any] = {"layers": layers, "width": width, "classes": 3}
        ours, plain = (start_variances(r, matrix, x, **shared) for r in ("forward", "kaiming"))
        found[seed] = float(np.abs(ours / plain - 1).max())
    return pd.Series(found, name="difference").rename_axis("seed")


def start_values(slopes: pd.DataFrame, inside: pd.DataFrame) -> dict[str, pd.Series]:
    """What the claims on starts are judged by, by seed: slopes (`over_places`) and correlations of
    neighbours, those on planted partitions with Gaussian features and symmetric aggregation.

    xavier_vanishes, kaiming_explodes : the slope nearest to flat. virgo_stable, mean_stable,
    sum_own : the largest |slope|; sum_released : the smallest. over_kaiming_gaussian, ..._words :
    |slope| of Kaiming minus Virgo, mean over graphs.
    """

    def at(how: str, arm: str, features: str | None = None) -> pd.DataFrame:
        return over_places(slopes, how, arm, features=features)

    found = {
        "xavier_vanishes": at("symmetric", "Xavier").max(axis=1),
        "kaiming_explodes": at("sum", "Kaiming").min(axis=1),
        "sum_released": at("sum", "Virgo, as released").abs().min(axis=1),
    }
    for key, how in (("virgo_stable", "symmetric"), ("mean_stable", "mean"), ("sum_own", "sum")):
        found[key] = at(how, "Virgo").abs().max(axis=1)
    for features in ("gaussian", "words"):
        plain, ours = (
            at("symmetric", arm, features).abs().mean(axis=1) for arm in ("Kaiming", "Virgo")
        )
        found[f"over_kaiming_{features}"] = plain - ours
    depth = slopes.depth.iloc[0]
    own = inside[(inside.graph == "planted") & (inside.features == "gaussian")]
    own = own[(own.aggregation == "symmetric") & (own.depth == depth)]
    near = own.pivot_table(index="seed", columns="layer", values="near")
    found["near_first"], found["near_last"] = near[1], near[depth - 1]
    return found
