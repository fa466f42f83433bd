"""A sharper test of the row-column ansatz on the middle matrix of a 3-layer network.

That rows and columns can be exchanged holds by symmetry, whatever training does. What can fail is

    one law across widths    the kernel w = N m W of a wide network is another sample of the law of
                             a narrow one, so the singular values of its change over N agree;
    few variables a neuron   w = μ + r_i + c_j + g(u_i, v_j) + e_ij with shares of variance that
                             mean field keeps at every N, and μP turns like 1/N into noise;
    nothing of its own       an entry's own start matters by its own value alone, to order 1/N, and
                             what row and column leave is independent from entry to entry.

The measures are those of `rclib.spectral.exchangeable`; the networks those of `networks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.beyond import networks
from rclib.nets.parametrization import parametrization as lookup
from rclib.runs import store, sweep
from rclib.runs.store import Arrays
from rclib.spectral.exchangeable import (
    VarianceShares,
    decompose,
    four_cycle_excess,
    given_start,
    kernel_values,
    own_start,
)
from rclib.stats.slopes import slope

__all__ = [
    "PARTS",
    "TINY",
    "TOP",
    "drift",
    "drift_rows",
    "excess",
    "measure_change",
    "measurements",
    "own_exponents",
    "spectrum_rows",
    "untrained",
]

TOP = 8  # singular values that are kept
PARTS = ("row", "column", "interaction", "residual")
_SOURCE = {**networks.TINY["train_network"], "width": 8}
TINY = {"measure_change": {"source": _SOURCE, "products": 2}}


def measure_change(data: Dataset, *, source: Mapping[str, Any], products: int) -> Arrays:
    """Stored run: what a `train_network` run, from its first to its last epoch, did to W2.

    values (8,) : largest singular values of the change of the kernel, over N (all, if fewer).
    kept : share of the squared norm of the change in its `products` leading outer products.
    own : `own_start` of the change off as many.
    before, after (4,) : shares of W2 (`PARTS`), from the matrix alone. given (4,) : those after
        with the start known. found (2,) : outer products seen before and after.
    excess, spread (2,) : `four_cycle_excess` of the residuals of both.
    train_loss, test_accuracy : after the last epoch.
    """
    run = store.fetch(networks.train_network, source, data=data)
    before, after = (run[f"{epoch}/W2"].astype(np.float64) for epoch in (0, source["epochs"]))
    width, change = source["width"], after - before
    multiplier = lookup(source["parametrization"])["hidden"].multiplier(width, width)
    values = kernel_values(change, multiplier=multiplier, top=width)
    own = own_start(change, before, products=products)
    parts = [decompose(matrix) for matrix in (before, after)]
    excess = [
        four_cycle_excess(part.residual, removed=len(part.strengths), permutations=4)
        for part in parts
    ]
    return {
        "values": values[:TOP],
        "kept": np.asarray(np.square(values[:products]).sum() / np.square(values).sum()),
        "own": np.asarray(own),
        "before": _array(parts[0].shares),
        "after": _array(parts[1].shares),
        "given": _array(given_start(after, before, own=own)),
        "found": np.array([len(part.strengths) for part in parts]),
        "excess": np.array([one.value for one in excess]),
        "spread": np.array([one.spread for one in excess]),
        "train_loss": np.asarray(run["train_loss"][-1]),
        "test_accuracy": np.asarray(run["test_accuracy"][-1]),
    }


def measurements(
    data: Dataset,
    *,
    rates: Mapping[str, float],
    widths: Sequence[int],
    seeds: Mapping[str, Sequence[int]],
    epochs: int,
    batch_size: int,
    products: int,
) -> pd.DataFrame:
    """One row a network: parametrization, start, width, seed, `sigma_1` ... `sigma_8`, `kept`,
    `own`, the shares `row` ... `residual` with the start known, as `seen_row` ... from the matrix
    alone and as `untrained_row` ... from the start alone, `found`, `excess`, `spread`,
    `untrained_excess`, `train_loss`, `test_accuracy`.

    rates : parametrisation -> its learning rate, the same at every width.
    seeds : start (of `networks.STARTS`) -> its seeds.
    """
    keys = [(p, s, n, seed) for p in rates for s in seeds for n in widths for seed in seeds[s]]
    sources = [
        networks.configuration(
            parametrization=name, start=start, width=width, seed=seed, epochs=epochs,
            lr=rates[name], batch_size=batch_size, snapshots=[0, epochs],
        )
        for name, start, width, seed in keys
    ]  # fmt: skip
    networks.train_all(data, sources)
    runs = sweep.run(
        measure_change,
        [{"source": source, "products": products} for source in sources],
        data=data,
        cost=lambda config: float(config["source"]["width"]),
        description="measures",
        needs=networks.source_needed,
    )
    rows = []
    for key, run in zip(keys, runs, strict=True):
        row = dict(zip(("parametrization", "start", "width", "seed"), key, strict=True))
        row |= {f"sigma_{k}": float(v) for k, v in enumerate(run["values"], 1)}
        for prefix, name in (("", "given"), ("seen_", "after"), ("untrained_", "before")):
            row |= {f"{prefix}{p}": float(v) for p, v in zip(PARTS, run[name], strict=True)}
        row |= {"found": int(run["found"][1]), "excess": float(run["excess"][1])}
        row |= {"spread": float(run["spread"][1]), "untrained_excess": float(run["excess"][0])}
        for name in ("kept", "own", "train_loss", "test_accuracy"):
            row[name] = float(run[name])
        rows.append(row)
    return pd.DataFrame(rows)


def drift(
    frame: pd.DataFrame,
    column: str,
    pair: Sequence[int],
    *,
    of: str,
    start: str = "zero mean",
    logarithm: bool = True,
) -> pd.Series:
    """What changes from the narrow to the wide network of a pair, by seed: the logarithm of the
    ratio of a column under the parametrisation `of`, or the difference."""
    chosen = frame[(frame.parametrization == of) & (frame.start == start)]
    table = chosen.pivot_table(index="seed", columns="width", values=column)
    table = np.log(table) if logarithm else table
    return (table[pair[1]] - table[pair[0]]).rename(column)


def drift_rows(
    frame: pd.DataFrame, widths: Sequence[int], *, of: Sequence[str], top: int = 4
) -> pd.DataFrame:
    """Mean `drift` of the first `top` values from each width to the next: start,
    parametrization, k, from, to, drift, error (standard error over seeds)."""
    rows = []
    for start in frame.start.unique():
        for name in of:
            for k in range(1, top + 1):
                for pair in pairwise(widths):
                    moved = drift(frame, f"sigma_{k}", pair, of=name, start=start)
                    error = float(moved.std() / len(moved) ** 0.5)
                    rows.append((start, name, k, *pair, float(moved.mean()), error))
    columns = ["start", "parametrization", "k", "from", "to", "drift", "error"]
    return pd.DataFrame(rows, columns=columns)


def own_exponents(
    frame: pd.DataFrame, widths: Sequence[int], *, of: Sequence[str], start: str = "zero mean"
) -> pd.DataFrame:
    """Log-log slope of |own| against the width: one row a seed, one column a parametrisation, and
    `furthest`, the one of these that lies furthest from the -1 of the theory."""
    chosen = frame[(frame.start == start) & frame.width.isin(widths)]
    found = {
        name: {
            int(seed): slope(list(group.width), list(group.own.abs()))
            for seed, group in chosen[chosen.parametrization == name].groupby("seed")
        }
        for name in of
    }
    table = pd.DataFrame(found).rename_axis("seed")
    furthest = (table + 1).abs().idxmax(axis=1)
    return table.assign(furthest=[table.loc[seed, name] for seed, name in furthest.items()])


def excess(frame: pd.DataFrame, width: int, *, of: str, start: str = "zero mean") -> pd.Series:
    """Excess of the residual of W2 at one width, by seed."""
    chosen = frame[(frame.parametrization == of) & (frame.start == start) & (frame.width == width)]
    return chosen.set_index("seed").excess


def untrained(frame: pd.DataFrame, narrowest: int) -> pd.Series:
    """Smallest residual share of an untrained W2 of at least this width, by seed."""
    chosen = frame[frame.width >= narrowest]
    return chosen.groupby("seed").untrained_residual.min()


def spectrum_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Long form of the singular values: parametrization, start, width, seed, k, value."""
    keys = ["parametrization", "start", "width", "seed"]
    values = [f"sigma_{k}" for k in range(1, TOP + 1)]
    long = frame.melt(id_vars=keys, value_vars=values, var_name="k")
    return long.assign(k=long.k.str.removeprefix("sigma_").astype(int))


def _array(shares: VarianceShares) -> np.ndarray:
    return np.array([getattr(shares, part) for part in PARTS])
