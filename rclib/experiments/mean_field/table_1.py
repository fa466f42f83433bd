"""Table 1 as a table, and its coordinate check over widths and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.mean_field.coordinates import coordinate_check
from rclib.nets.parametrization import LAYER_TYPES, first_step_exponents, parametrization
from rclib.runs import sweep
from rclib.stats.slopes import slope

__all__ = ["check_sizes", "exponent_table", "slopes"]


def exponent_table(names: Sequence[str]) -> pd.DataFrame:
    """Exponents of the width N: multiplier, initial scale, learning rate for SGD and Adam."""
    rows = [
        {"parametrization": name, "layer": layer, **parametrization(name).exponents(layer)}
        for name in names
        for layer in LAYER_TYPES
    ]
    return pd.DataFrame(rows)


def check_sizes(
    data: Dataset,
    *,
    starts: Mapping[str, Mapping[str, Any]],
    optimizers: Mapping[str, float],
    widths: Sequence[int],
    seeds: Sequence[int],
    steps: int,
    batch_size: int,
) -> pd.DataFrame:
    """Sizes in long form: parametrization, optimizer, layer, width, seed, quantity, rms.

    starts : parametrisation -> initial law; optimizers : name -> learning rate η.
    Quantities: `start` (z at the start), `update` (the layer's own first update of z), `change`
    (change of z after `steps` steps).
    """
    keys = [(p, o, n, s) for p in starts for o in optimizers for n in widths for s in seeds]
    configs = [
        {
            "network": {"width": n, "parametrization": p, "init": dict(starts[p])},
            "seed": s,
            "optimizer": o,
            "lr": optimizers[o],
            "steps": [1, steps],
            "batch_size": batch_size,
        }
        for p, o, n, s in keys
    ]
    runs = sweep.run(
        coordinate_check,
        configs,
        data=data,
        cost=lambda c: float(c["network"]["width"]) ** 2,
        description="coordinate check",
    )
    rows = []
    for (p, o, n, s), run in zip(keys, runs, strict=True):
        sizes = {"start": run["start"], "update": run["update"][0], "change": run["change"][1]}
        for quantity, values in sizes.items():
            for layer, value in enumerate(values, start=1):
                rows.append((p, o, layer, n, s, quantity, float(value)))
    columns = ["parametrization", "optimizer", "layer", "width", "seed", "quantity", "rms"]
    return pd.DataFrame(rows, columns=columns)


def slopes(sizes: pd.DataFrame) -> pd.DataFrame:
    """Log-log slope of every size against the width, one row a seed, beside the prediction.

    `predicted` is the table's exponent for `update`, 0 (no dependence) for `change` and missing
    for `start`.
    """
    rows = []
    keys = ["parametrization", "optimizer", "quantity", "layer", "seed"]
    depth = int(sizes.layer.max())
    for key, group in sizes.groupby(keys, sort=False):
        name, optimizer, quantity, layer, seed = key
        predicted = {
            "start": float("nan"),
            "update": first_step_exponents(name, depth, optimizer)[layer - 1],
            "change": 0.0,
        }[quantity]
        value = slope(list(group.width), list(group.rms))
        rows.append((name, optimizer, quantity, layer, seed, value, predicted))
    return pd.DataFrame(rows, columns=[*keys, "slope", "predicted"])
