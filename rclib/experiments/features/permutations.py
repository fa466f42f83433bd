"""Frames of notebook 72: what learning a permutation costs an ensemble of wide networks.

The paper's networks see the k unit vectors alone, and their averaged output, cut at zero, is asked
for all other binary inputs. Looked at: how many networks that takes, with which layers trained, and
for which way of reading a bit. Networks of finite width: `permutation_nets`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.features.permutation_runs import RULES, averages, first_sizes
from rclib.experiments.features.permutation_theory import (
    KERNELS,
    all_inputs,
    closed_means,
    closed_size,
    trained,
    trained_mean,
    unit,
)
from rclib.runs import sweep
from rclib.stats.slopes import slope

__all__ = [
    "PUBLISHED",
    "PUBLISHED_OUTPUTS",
    "authors_outputs",
    "average_frame",
    "distances",
    "histogram_frame",
    "law_frame",
    "one_size",
    "published_frame",
    "right",
    "sign_margins",
    "size_frame",
    "size_slopes",
    "tests_frame",
]

# Sizes of ensembles in the authors' repository (opallab/permlearn, results/), one trial each: the
# last row of results.csv for 90 percent (experiment_1, k = 2 to 30) and 99.9 percent of the inputs.
PUBLISHED: Mapping[float, Mapping[int, int]] = {
    0.9: dict(enumerate([
        1, 2, 10, 43, 34, 29, 40, 37, 69, 70, 62, 72, 56, 103, 89, 105, 105, 106, 117, 131, 128,
        124, 150, 157, 157, 162, 165, 174, 175,
    ], start=2)),
    0.999: {2: 1, 5: 43, 10: 129, 15: 163, 20: 254, 25: 308, 30: 318},
}  # fmt: skip

# Mean on- and off-bit over all networks and test inputs of its predictions.pt, by k (experiment_1).
PUBLISHED_OUTPUTS: Mapping[int, tuple[float, float]] = {
    5: (0.5976, -0.0439), 9: (0.6121, -0.0244), 10: (0.6173, -0.0224), 14: (0.6240, -0.0183),
}  # fmt: skip


def published_frame() -> pd.DataFrame:
    """target, k, size: the authors' counts."""
    rows = [(t, k, size) for t, sizes in PUBLISHED.items() for k, size in sizes.items()]
    return pd.DataFrame(rows, columns=["target", "k", "size"])


def authors_outputs() -> pd.DataFrame:
    """k, on, off of the authors' networks, and beside them the closed means of both kernels."""
    rows: list[dict[str, float]] = []
    for k, (on, off) in PUBLISHED_OUTPUTS.items():
        rows.append({"k": k, "on": on, "off": off})
        for which in KERNELS:
            for name, mean in zip(("on", "off"), closed_means(k, 2, which), strict=True):
                rows[-1][f"{name}, {which}"] = mean
    return pd.DataFrame(rows)


def size_frame(
    seeds: Sequence[int], ks: Sequence[int], test: str, settings: Mapping[str, Any]
) -> pd.DataFrame:
    """which, k, seed, rule, target, size (NaN: not reached) by `first_sizes`.

    settings : what it gets besides seed, k, which and test.
    """
    configs = [
        {**settings, "test": test, "which": which, "k": k, "seed": seed}
        for which in KERNELS
        for k in ks
        for seed in seeds
    ]
    runs = sweep.run(first_sizes, configs, description=f"ensembles, {test}")
    rows = [
        (c["which"], c["k"], c["seed"], rule, target, float(run["sizes"][r, t]))
        for c, run in zip(configs, runs, strict=True)
        for r, rule in enumerate(RULES)
        for t, target in enumerate(settings["targets"])
    ]
    return pd.DataFrame(rows, columns=["which", "k", "seed", "rule", "target", "size"])


def one_size(
    frame: pd.DataFrame, which: str, target: float, rule: str = "zero", *, least: int = 0
) -> pd.DataFrame:
    """Sizes of one kernel, target and rule for k of at least `least`: seeds in rows, k in columns.
    Raises ValueError if there are none."""
    chosen = frame[(frame.which == which) & (frame.target == target) & (frame.rule == rule)]
    chosen = chosen[chosen.k >= least]
    if chosen.empty:
        raise ValueError(f"frame must hold {which}, target {target}, rule {rule}, k >= {least}")
    return chosen.pivot_table(index="seed", columns="k", values="size")


def size_slopes(
    frame: pd.DataFrame, which: str, target: float, *, least: int, most: int = 1000
) -> pd.Series:
    """Log-log slope of the size by rule "zero" against k in [least, most], by seed."""
    table = one_size(frame, which, target, least=least)
    table = table[[k for k in table.columns if k <= most]]
    return table.apply(lambda row: slope(list(table.columns), list(row)), axis=1).rename("slope")


def distances(frame: pd.DataFrame, which: str, target: float, *, least: int) -> pd.DataFrame:
    """ln(published size / size) for every k of both, at least `least`: seeds in rows."""
    table = one_size(frame, which, target, least=least)
    known = [k for k in table.columns if k in PUBLISHED[target]]
    return np.log(pd.Series(PUBLISHED[target])[known] / table[known])


def average_frame(
    seeds: Sequence[int], which: str, *, k: int, at: Sequence[int], without: int | None = None
) -> pd.DataFrame:
    """seed, size, first, second, bit, on, output: mean outputs of ensembles at the inputs with two
    ones, at `first` and `second`, by output bit; on: whether it is one of the two."""
    configs = [
        {"seed": seed, "k": k, "which": which, "at": list(at), "without": without} for seed in seeds
    ]
    frames = []
    for config, run in zip(configs, sweep.run(averages, configs), strict=True):
        outputs, bits = run["outputs"], run["bits"]
        pairs = np.array([np.flatnonzero(row) for row in bits])
        sizes, inputs, _ = np.indices(outputs.shape)
        frames.append(pd.DataFrame({
            "seed": config["seed"], "size": np.array(at)[sizes.ravel()],
            "first": pairs[inputs.ravel(), 0], "second": pairs[inputs.ravel(), 1],
            "bit": np.indices(outputs.shape)[2].ravel(),
            "on": np.broadcast_to(bits > 0, outputs.shape).ravel(), "output": outputs.ravel(),
        }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def right(
    frame: pd.DataFrame, size: int, *, holds: int | None = None, lacks: int | None = None,
    skip: int | None = None,
) -> pd.Series:  # fmt: skip
    """Share of inputs with every bit right (output above zero where it is on), by seed.

    holds, lacks : inputs with this bit, without it, alone. skip : an output that is not looked at.
    """
    chosen = frame[frame["size"] == size]
    for bit, wanted in ((holds, True), (lacks, False)):
        if bit is not None:
            chosen = chosen[((chosen["first"] == bit) | (chosen.second == bit)) == wanted]
    chosen = chosen[chosen.bit != skip]
    good = ((chosen.output > 0) == chosen.on).groupby([chosen.seed, chosen["first"], chosen.second])
    return good.all().groupby("seed").mean().rename("right")


def histogram_frame(frame: pd.DataFrame, *, bins: int = 300) -> pd.DataFrame:
    """size, on, at, height: of the outputs over seeds and inputs, between -0.3 and 0.9; the
    highest bin of a histogram is 1."""
    edges = np.linspace(-0.3, 0.9, bins + 1)
    rows = []
    for (size, on), group in frame.groupby(["size", "on"]):
        # Bins as wide as a fifth of the spread, so that few outputs give no comb.
        wide = max(1, round(float(group.output.std()) / 5 / (edges[1] - edges[0])))
        own = edges[:: min(wide, 5)]
        counts, _ = np.histogram(group.output, bins=own)
        places = zip((own[1:] + own[:-1]) / 2, counts / counts.max(), strict=True)
        rows += [(size, on, *place) for place in places]
    return pd.DataFrame(rows, columns=["size", "on", "at", "height"])


def law_frame(ks: Sequence[int], share: float = 0.9) -> pd.DataFrame:
    """which, k, ones, mu1, mu0, sd, size: closed means, the standard deviation of an output, and
    the size of the ensemble that has a share of the inputs with so many ones right."""
    rows = []
    for which in KERNELS:
        for k in ks:
            for ones in range(2, k):
                x = np.zeros((1, k))
                x[0, :ones] = 1
                law = trained(unit(x), which)
                size = closed_size(k, ones, which, share)
                means = closed_means(k, ones, which)
                rows.append((which, k, ones, *means, law.covariance[0, 0], size))
    found = pd.DataFrame(rows, columns=["which", "k", "ones", "mu1", "mu0", "sd", "size"])
    return found.assign(sd=np.sqrt(found.sd))


def sign_margins(ks: Sequence[int]) -> pd.DataFrame:
    """which, k, on, off: smallest mean of a bit that is one, and largest of one that is zero, over
    all inputs with two ones or more, from the kernel matrices of all of them."""
    rows = []
    for which in KERNELS:
        for k in ks:
            bits = all_inputs(k)
            mean = trained_mean(unit(bits), which)
            rows.append((which, k, mean[bits > 0].min(), mean[bits == 0].max()))
    return pd.DataFrame(rows, columns=["which", "k", "on", "off"])


def tests_frame(pairs: pd.DataFrame, mixed: pd.DataFrame, every: pd.DataFrame) -> pd.DataFrame:
    """test, k, seed, size, with all layers trained and threshold zero, of three `size_frame`s:
    inputs with two ones and random bits (90 percent), and all inputs (all of them)."""
    rows = []
    for test, frame, target in (
        ("90 % of two ones", pairs, 0.9),
        ("90 % of random bits", mixed, 0.9),
        ("all inputs", every, 1.0),
    ):
        chosen = frame[(frame.which == "all layers") & (frame.rule == "zero")]
        rows.append(chosen[chosen.target == target][["k", "seed", "size"]].assign(test=test))
    return pd.concat(rows, ignore_index=True)
