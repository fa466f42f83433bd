"""What the claims of notebook 42 are about, by seed, out of the frames of `random_pruning`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rclib.experiments.pruning.random_pruning import gap, judged_gains, value

__all__ = [
    "conv_values",
    "depth_values",
    "judged_values",
    "residual_values",
    "tables",
    "width_values",
]

Values = dict[str, pd.Series]
# Claim -> scheme, the one it is compared with, density, of networks of the large width.
PAIRS = {
    "er_over_uniform": ("ER", "uniform", 0.05),
    "places_of_snip": ("SNIP", "SNIP shuffled", 0.05),
    "ratio_of_snip": ("SNIP shuffled", "uniform", 0.05),
    "rescaling_helps": ("ER rescaled", "ER", 0.1),
    "two_masks": ("ER", "ER again", 0.1),
}
GRASP = {
    "places_of_grasp": ("GraSP", "GraSP shuffled", 0.05),
    "ratio_of_grasp": ("GraSP shuffled", "ER", 0.05),
}


def _compared(frame: pd.DataFrame, pairs: Mapping[str, Any], width: int, layers: int) -> Values:
    return {
        key: value(frame, "accuracy", width, over, density, layers)
        - value(frame, "accuracy", width, under, density, layers)
        for key, (over, under, density) in pairs.items()
    }


def width_values(
    runs: pd.DataFrame, *, small: int, wide: int, narrow: int, collapse: int, layers: int
) -> Values:
    """Of the networks of every width. narrow : width of the dense one with as many weights as the
    wide one keeps at density 0.1; collapse : the width that is too small."""
    own = {
        "width_closes": gap(runs, wide, "ER", 0.1, layers) - gap(runs, small, "ER", 0.1, layers),
        "too_small": gap(runs, collapse, "ER", 0.05, layers),
        "sparse_pays": value(runs, "accuracy", wide, "ER", 0.1, layers)
        - value(runs, "accuracy", narrow, "dense", 1.0, layers),
    }
    columns = {"more_spikes": ("spikes", 0.1), "means_rise": ("means", 0.1),
               "calibrated": ("ece", 0.3)}  # fmt: skip
    for key, (column, density) in columns.items():
        dense = value(runs, column, wide, "dense", 1.0, layers)
        own[key] = value(runs, column, wide, "ER", density, layers) - dense
    return own | _compared(runs, PAIRS, wide, layers)


def depth_values(
    deep: pd.DataFrame, *, width: int, density: float, depths: Sequence[int], collapse: int,
    layers: int, classes: int,
) -> Values:  # fmt: skip
    """Of the networks of every depth, and of the width that is too small: accuracy over chance over
    the dense network's."""
    ends = [gap(deep, width, "ER", density, depths[k]) for k in (-1, 0)]
    sparse, dense = (
        value(deep, "accuracy", collapse, *arm, layers) - 1 / classes
        for arm in (("ER", 0.05), ("dense", 1.0))
    )
    return {"depth_closes": ends[0] - ends[1], "too_small_share": sparse / dense}


def judged_values(looked: pd.DataFrame, edges: pd.DataFrame, *, wide: int, layers: int) -> Values:
    """Of `judged_frame` and `starts_frame`."""
    gains = judged_gains(looked, 0.3).set_index(["what", "seed"]).gain
    found = _compared(looked, GRASP, wide, layers) | {
        "nearly_dense": gap(looked, wide, "ER", 0.3, layers),
        "matches_dense": gap(looked, wide, "ER", 0.3, layers),
        "sees_other_images": gains["outside"],
        "stands_an_attack": gains["attacked"],
    }
    at = edges.set_index(["density", "seed"])
    return found | {
        "dense_edge": at.dense_edge[0.3],
        "sparse_edge": at.sparse_edge[0.05],
        "dense_edge_fails": at.dense_edge[0.05],
        "degrees_at_chance": at.degrees[0.1],
    }


def conv_values(runs: pd.DataFrame, conv: Mapping[str, Any]) -> Values:
    """Of the small VGG; none where it was not trained."""
    if not conv:
        return {}
    layers = len(conv["channels"]) + len(conv["widths"])
    erk, uniform = (gap(runs, "conv", scheme, 0.05, layers) for scheme in ("ER", "uniform"))
    return {"conv_erk": erk - uniform, "conv_nearly": gap(runs, "conv", "ER", 0.3, layers)}


def residual_values(frame: pd.DataFrame | None) -> Values:
    """Of `residual_frame`: the narrowest and widest of one block a group, the deepest of the second
    width; none where there is no frame."""
    if frame is None:
        return {}
    channels = sorted(frame.channels.unique())
    by = frame.set_index(["channels", "blocks", "scheme", "density", "seed"]).gap.sort_index()
    widest = by[channels[-1], 1]
    return {
        "residual_width": widest["ER", 0.1] - by[channels[0], 1, "ER", 0.1],
        "residual_depth": by[channels[1], max(frame.blocks), "ER", 0.1]
        - by[channels[1], 1, "ER", 0.1],
        "residual_erk": widest["ER", 0.1] - widest["uniform", 0.1],
    }


def tables(
    runs: pd.DataFrame, deep: pd.DataFrame, looked: pd.DataFrame, edges: pd.DataFrame,
    resnets: pd.DataFrame | None,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Means over seeds of what the frames hold, by name."""
    frames: dict[str, tuple[pd.DataFrame, list[str], list[str]]] = {
        "judged": (
            looked, ["scheme", "density"], ["accuracy", "nll", "ece", "attacked", "outside"],
        ),
        "starts": (edges, ["density"], ["share", "dense_edge", "sparse_edge", "degrees"]),
        "networks": (
            pd.concat([runs, deep]), ["width", "layers", "scheme", "density"],
            ["weights", "accuracy", "nll", "ece", "top", "spikes", "stretch", "moved", "degrees",
             "means"],
        ),
    }  # fmt: skip
    if resnets is not None:
        by = ["channels", "layers", "scheme", "density"]
        frames["residual"] = (resnets, by, ["weights", "accuracy", "nll", "loss", "gap"])
    return {
        name: frame.groupby(by, sort=False)[columns].mean().reset_index()
        for name, (frame, by, columns) in frames.items()
    }
