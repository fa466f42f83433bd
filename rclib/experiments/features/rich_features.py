"""Is it the representation or the penalty that fails?.

What stands here is the example that `make new` writes: how the mean of n draws varies,

    s(n) = standard deviation over repeats of (x_1 + ... + x_n) / n,    x_i ~ N(0, 1)

Independent draws give s(n) = n^(-1/2). The control uses one draw n times: s(n) = 1 for every n.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rclib.checks.arguments import choice
from rclib.plots import panels
from rclib.plots.drawing import redrawable
from rclib.runs import sweep
from rclib.runs.source import Source
from rclib.runs.store import Arrays
from rclib.stats.slopes import slope

__all__ = ["ARMS", "TINY", "exponents", "mean_spread", "spread_panel", "spreads"]

ARMS = ("independent", "shared")  # the second is the control
# Stored function -> a configuration that takes no time, for the tests that run all of them.
TINY = {"mean_spread": {"arm": "independent", "seed": 0, "sizes": [2, 3], "n_repeats": 4}}


def mean_spread(
    data: Source | None, *, arm: str, seed: int, sizes: Sequence[int], n_repeats: int
) -> Arrays:
    """Stored run: {"spread": s(n) for every n of `sizes`, shape (sizes,)}.

    Raises ValueError for an arm that is none of `ARMS`.
    """
    choice("arm", arm, ARMS)
    random = np.random.default_rng(seed)
    found = []
    for n in sizes:
        drawn = random.standard_normal((n_repeats, n if arm == "independent" else 1))
        found.append(drawn.mean(axis=1).std(ddof=1))
    return {"spread": np.array(found)}


def spreads(seeds: Sequence[int], *, sizes: Sequence[int], n_repeats: int) -> pd.DataFrame:
    """All runs in long form: arm, seed, n, spread."""
    configs = [
        {"arm": arm, "seed": seed, "sizes": list(sizes), "n_repeats": n_repeats}
        for arm in ARMS
        for seed in seeds
    ]
    runs = sweep.run(mean_spread, configs, description="means")
    frames = [
        pd.DataFrame({"arm": c["arm"], "seed": c["seed"], "n": c["sizes"], "spread": r["spread"]})
        for c, r in zip(configs, runs, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def exponents(frame: pd.DataFrame, arm: str) -> pd.Series:
    """Log-log slope of the spread against n, by seed."""
    chosen = frame[frame.arm == arm].groupby("seed")
    found = {seed: slope(list(g.n), list(g.spread)) for seed, g in chosen}
    return pd.Series(found, name="exponent").rename_axis("seed")


@redrawable
def spread_panel(frame: pd.DataFrame) -> Figure:
    """The spread against n, by arm, with the law n^(-1/2)."""
    title = "spread of a mean"
    return panels.power_laws(
        {title: frame.rename(columns={"n": "x", "spread": "y"})},
        x={title: "number of draws n"},
        y={title: "standard deviation of the mean"},
        by="arm",
        slopes={title: -0.5},
    )
