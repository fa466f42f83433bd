"""Frames of notebook 71: what one attention layer learns whose scores are random and frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.features.arms import chosen, excess_ratio
from rclib.experiments.features.attention_runs import heads_run, layer_run, trained_layer_run
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.stats.slopes import slope

__all__ = [
    "chosen", "dimensions_frame", "excess_frame", "excess_ratio", "exponents", "heads_frame",
    "keys_frame", "layer_frame", "least", "needed", "spikes_frame", "steps_up", "trained_frame",
]  # fmt: skip

Settings = Mapping[str, Any]


def _runs(seeds: Sequence[int], settings: Settings) -> list[Arrays]:
    configs = [{"seed": seed, **settings} for seed in seeds]
    return sweep.run(layer_run, configs, description="layers")


def _long(
    runs: Sequence[Arrays], what: str, index: Mapping[str, Sequence[Any]], value: str
) -> pd.DataFrame:
    """Arrays of runs, one axis a name of `index` behind that of the runs, in long form."""
    places = pd.MultiIndex.from_product(list(index.values()), names=list(index))
    values = np.concatenate([run[what].ravel() for run in runs])
    return pd.DataFrame({value: values}, index=places).reset_index()


def layer_frame(seeds: Sequence[int], settings: Settings) -> pd.DataFrame:
    """seed, model, n, target, error: `layer_run` in long form."""
    index = {"seed": seeds, "model": settings["models"], "n": settings["sizes"],
             "target": settings["targets"]}  # fmt: skip
    return _long(_runs(seeds, settings), "error", index, "error")


def spikes_frame(seeds: Sequence[int], settings: Settings) -> pd.DataFrame:
    """seed, model (with heads), target, share, beyond, cosine: of the fitted values' spectrum."""
    index = {"seed": seeds, "model": settings["models"], "target": settings["targets"]}
    runs = _runs(seeds, settings)
    first, *others = (_long(runs, what, index, what) for what in ("share", "beyond", "cosine"))
    for other in others:
        first = first.merge(other, on=list(index))
    return first.dropna().reset_index(drop=True)


def keys_frame(seeds: Sequence[int], settings: Settings, keys: Sequence[int]) -> pd.DataFrame:
    """keys, and the columns of `layer_frame`: over the number of keys N."""
    frames = [layer_frame(seeds, {**settings, "keys": n}).assign(keys=n) for n in keys]
    return pd.concat(frames, ignore_index=True)


def steps_up(frame: pd.DataFrame, targets: Sequence[str], **where: Any) -> pd.Series:
    """Smallest rise of the error from one target to the next, by seed."""
    errors = [chosen(frame, target=target, **where) for target in targets]
    return pd.concat(errors, axis=1).diff(axis=1).iloc[:, 1:].min(axis=1).rename("rise")


def least(frame: pd.DataFrame, models: Sequence[str], target: str) -> pd.Series:
    """Least error of some models over all numbers of samples, by seed."""
    own = frame[frame.model.isin(models) & (frame.target == target)]
    return own.groupby("seed").error.min()


def needed(frame: pd.DataFrame, *, level: float) -> pd.DataFrame:
    """seed, model, target, and other columns but n: the samples with which the error falls to the
    level, between sizes by logarithms; NaN where it does not, or begins below."""
    keys = [name for name in frame.columns if name not in ("n", "error")]
    rows = []
    for key, own in frame.sort_values("n").groupby(keys, sort=False):
        n, errors = np.log(own.n.to_numpy()), own.error.to_numpy()
        below = np.flatnonzero(errors <= level)
        found = np.nan
        if len(below) and below[0] > 0:
            k = int(below[0])
            share = (errors[k - 1] - level) / (errors[k - 1] - errors[k])
            found = float(np.exp(n[k - 1] + share * (n[k] - n[k - 1])))
        rows.append((*key, found))
    return pd.DataFrame(rows, columns=[*keys, "samples"])


def dimensions_frame(
    seeds: Sequence[int], settings: Settings, dims: Sequence[int], *, level: float
) -> pd.DataFrame:
    """d, seed, model, target, samples: what `needed` says at each dimension."""
    frames = [layer_frame(seeds, {**settings, "d": d}).assign(d=d) for d in dims]
    return needed(pd.concat(frames, ignore_index=True), level=level)


def exponents(dimensions: pd.DataFrame) -> pd.DataFrame:
    """target, model, samples by d (geometric means over the seeds that get there), exponent:
    log-log slope of the samples in d over the dimensions where all seeds do."""
    rows = []
    for (name, model), own in dimensions.groupby(["target", "model"], sort=False):
        table = own.pivot_table(index="d", columns="seed", values="samples", dropna=False)
        whole = table.dropna()
        power = slope(whole.index, np.exp(np.log(whole).mean(axis=1))) if len(whole) > 1 else np.nan
        means = {f"d = {d}": float(np.exp(np.log(table.loc[d]).mean())) for d in table.index}
        rows.append({"target": name, "model": model, **means, "exponent": power})
    return pd.DataFrame(rows)


def heads_frame(seeds: Sequence[int], settings: Settings) -> pd.DataFrame:
    """seed, model, features (coefficients, M (d + 1)), target, error: over the number of heads."""
    runs = sweep.run(heads_run, [{"seed": s, **settings} for s in seeds], description="heads")
    features = [heads * (int(settings["d"]) + 1) for heads in settings["heads"]]
    index = {"seed": seeds, "model": settings["models"], "features": features,
             "target": settings["targets"]}  # fmt: skip
    return _long(runs, "error", index, "error")


def trained_frame(seeds: Sequence[int], settings: Settings, targets: Sequence[str]) -> pd.DataFrame:
    """One row a layer: seed, target, features, frozen, error, start, aligned, tied_start, tied.

    frozen, error : of the layer as it starts, refitted, and after training. start, aligned : mean
    |cosine| of W_m, and of its change, with the identity (T3: with S). tied_start, tied : share of
    heads whose row and column means correlate beyond the 95 percent level.
    """
    keys = [(seed, target) for target in targets for seed in seeds]
    configs = [{"seed": seed, "target": target, **settings} for seed, target in keys]
    runs = sweep.run(trained_layer_run, configs, description="training")
    features = int(settings["heads"]) * (int(settings["d"]) + 1)
    rows = [
        (*key, features, *run["error"], *run["aligned"], *run["tied"])
        for key, run in zip(keys, runs, strict=True)
    ]
    names = [
        "seed",
        "target",
        "features",
        "frozen",
        "error",
        "start",
        "aligned",
        "tied_start",
        "tied",
    ]
    return pd.DataFrame(rows, columns=names)


def excess_frame(heads: pd.DataFrame, learned: pd.DataFrame) -> pd.DataFrame:
    """Excess risk over the oracle against the number of features: target, arm, features, seed,
    excess.

    Targets have no noise, so the oracle's risk is zero and the excess is the error. Arms: "RFA",
    "BRFA", "RFMLP", and "trained" for the targets that have it.
    """
    frozen = heads.rename(columns={"model": "arm", "error": "excess"})
    trained = learned[learned.target.isin(heads.target)].rename(columns={"error": "excess"})
    names = ["target", "arm", "features", "seed", "excess"]
    both = [frozen[names], trained.assign(arm="trained")[names]]
    return pd.concat(both, ignore_index=True)
