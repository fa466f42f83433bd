"""Three stages of grokking: the top layer fits, units climb energies one by one, units interact.

Tian (arXiv 2509.21519). Here are networks on modular addition, the runs of `grokking_networks`:
times of fitting and of grokking with and without weight decay, from a zero top layer and on a
random table; what their hidden units have become; and the number of pairs from which networks
generalise. The energies that units climb are in `grokking_energies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.dynamics.grokking_networks import (
    GROKKED,
    MEASURES,
    narrow_network,
    recorded_steps,
    train_networks,
)
from rclib.runs import sweep
from rclib.runs.stacked import sweep_stacked
from rclib.stats.slopes import slope

__all__ = [
    "arms_of",
    "at_moment",
    "course",
    "critical_frame",
    "critical_shares",
    "crossing",
    "data_frame",
    "end_of",
    "exponents",
    "largest_deviation",
    "narrow_frame",
    "network_frame",
    "network_values",
    "ratio_of_times",
    "shown_weights",
    "time_slopes",
    "times",
    "typical_load",
]

PLAIN_DECAY = 2e-4
PLAIN = {"decay": PLAIN_DECAY, "zero": False, "labels": "group"}
MEMBERS = ["seed", "decay", "zero", "labels"]
FITTED = 0.99  # of the pairs that were trained on


def arms_of(
    decays: Mapping[str, float], *, steps: int, n_control: int
) -> dict[str, dict[str, Any]]:
    """What differs from `PLAIN` in the arms of the notebook: the plain one, "η = 2e-4", of `steps`
    at most; no decay, and random labels, for `n_control`; a top layer that starts at zero, and the
    other `decays` (name -> η, with steps like 1/η), until they grok."""
    arms: dict[str, dict[str, Any]] = {
        "η = 2e-4": {},
        "η = 0": {"decay": 0.0, "steps": n_control},
        "zero start": {"zero": True, "after": 1.0},
        "random": {"labels": "random", "steps": n_control, "after": 0.0},
    }
    for name, decay in decays.items():
        longer = round(steps * PLAIN_DECAY / decay)
        arms.setdefault(name, {"decay": decay, "after": 1.0, "steps": longer})
    return arms


def network_frame(
    seeds: Sequence[int], arms: Mapping[str, Mapping[str, Any]], **shared: Any
) -> pd.DataFrame:
    """Networks in long form: arm, seed, step and `MEASURES`, to the step at which each stopped.

    arms : name -> what differs from `PLAIN`, and from the settings `shared` of `train_networks`.
    """
    configs = _configs(seeds, arms, shared)
    runs = sweep_stacked(
        train_networks, [c for _, c in configs], members=MEMBERS, description="networks",
        cost=lambda c: float(c["steps"] * c["width"] * c["m"]),
    )  # fmt: skip
    frames = []
    for (arm, c), run in zip(configs, runs, strict=True):
        steps = recorded_steps(c["steps"], c["every"])
        frame = pd.DataFrame({"arm": arm, "seed": c["seed"], "step": steps})
        frame = frame.assign(**{name: run[name] for name in MEASURES})
        reached = frame.step[frame.test >= GROKKED]
        if c["after"] > 0 and len(reached):
            frame = frame[frame.step <= max(c["after"] * reached.iloc[0], reached.iloc[0])]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _configs(
    seeds: Sequence[int], arms: Mapping[str, Mapping[str, Any]], shared: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    return [
        (arm, {**shared, **PLAIN, **more, "seed": s}) for arm, more in arms.items() for s in seeds
    ]


def times(frame: pd.DataFrame) -> pd.DataFrame:
    """Steps of fitting (99 percent of the training pairs) and grokking (95 percent of the others),
    between recorded steps linearly: one row an arm and seed, NaN where it did not happen."""
    rows = []
    for (arm, seed), group in frame.groupby(["arm", "seed"], sort=False):
        fitted = crossing(group.step, group.train, FITTED)
        rows.append((arm, seed, fitted, crossing(group.step, group.test, GROKKED)))
    return pd.DataFrame(rows, columns=["arm", "seed", "fitted", "grokked"])


def crossing(x: Any, y: Any, level: float) -> float:
    """Where y first reaches a level, between two x linearly; the first x if it begins there, NaN if
    it never does."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    above = np.flatnonzero(y >= level)
    if not len(above):
        return float("nan")
    i = int(above[0])
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (x[i] - x[i - 1]) * (level - y[i - 1]) / (y[i] - y[i - 1]))


def _of(frame: pd.DataFrame, arm: str, column: str, *, at_most: float) -> pd.Series:
    """A column of `times` by seed; what did not happen counts as if at the end, `at_most`."""
    return frame[frame.arm == arm].set_index("seed")[column].fillna(at_most)


def ratio_of_times(
    frame: pd.DataFrame, over: tuple[str, str], under: tuple[str, str], *, at_most: float
) -> pd.Series:
    """One (arm, column) of `times` over another, by seed; at_most : the steps of the runs."""
    ratio = _of(frame, *over, at_most=at_most) / _of(frame, *under, at_most=at_most)
    return ratio.rename("ratio")


def time_slopes(frame: pd.DataFrame, decays: Mapping[str, float], *, at_most: float) -> pd.Series:
    """Log-log slope of the step of grokking against the decay, by seed. decays : arm -> η. One that
    did not grok counts as if at `at_most` · 2e-4 / η, where its run ended."""
    table = pd.DataFrame({
        arm: _of(frame, arm, "grokked", at_most=at_most * PLAIN_DECAY / decay)
        for arm, decay in decays.items()
    })  # fmt: skip
    return table.apply(lambda row: slope(list(decays.values()), list(row)), axis=1).rename("slope")


def at_moment(frame: pd.DataFrame, arm: str, column: str, share: float) -> pd.Series:
    """A measure between fitting and grokking, by seed: at the recorded step nearest to
    fitted^(1 - share) grokked^share."""
    chosen, found = frame[frame.arm == arm], {}
    for row in times(chosen).itertuples():
        group = chosen[chosen.seed == row.seed]
        wanted = row.fitted ** (1 - share) * row.grokked**share
        near = int((np.log(group.step + 1) - np.log(wanted + 1)).abs().to_numpy().argmin())
        found[row.seed] = float(group[column].iloc[near])
    return pd.Series(found, name=column).rename_axis("seed")


def end_of(frame: pd.DataFrame, arm: str, column: str, how: str = "last") -> pd.Series:
    """Last ("last"), largest ("max") or first ("first") value of a measure, by seed."""
    over = frame[frame.arm == arm].groupby("seed")[column]
    return over.agg(how)


def course(frame: pd.DataFrame, arms: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Over the seeds that still run: arm, step, measure, mean, low, high (least and largest)."""
    chosen = frame[frame.arm.isin(arms)].melt(["arm", "step"], list(columns), var_name="measure")
    over = chosen.groupby(["arm", "measure", "step"], sort=False).value
    return over.agg(mean="mean", low="min", high="max").reset_index()


def data_frame(
    seeds: Sequence[int], *, sizes: Sequence[int], loads: Sequence[float], **shared: Any
) -> pd.DataFrame:
    """Networks on n = load · m ln m pairs: m, seed, load, share, value (last test accuracy)."""
    arms = {
        f"{m} {load}": {"m": m, "share": round(load * np.log(m) / m, 6)}
        for m in sizes for load in loads if load * np.log(m) / m < 0.95
    }  # fmt: skip
    frame = network_frame(seeds, arms, **shared)
    end = frame.groupby(["arm", "seed"], sort=False).test.last().rename("value").reset_index()
    parts = end.arm.str.split(" ", expand=True)
    end = end.assign(m=parts[0].astype(int), load=parts[1].astype(float))
    end["share"] = end.load * np.log(end.m) / end.m
    return end.drop(columns="arm")


def narrow_frame(seeds: Sequence[int], **shared: Any) -> pd.DataFrame:
    """Narrow networks by rule: rule, seed, test, found. shared : settings of `narrow_network`."""
    configs = [{**shared, "seed": s, "rule": rule} for rule in ("adam", "muon") for s in seeds]
    runs = sweep.run(narrow_network, configs, description="narrow networks")
    rows = [
        (c["rule"], c["seed"], float(run["test"]), float(run["found"]))
        for c, run in zip(configs, runs, strict=True)
    ]
    return pd.DataFrame(rows, columns=["rule", "seed", "test", "found"])


def critical_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Share of the pairs at which the value reaches one half: one row a seed, one column a size;
    NaN where it never does."""
    found = {
        (seed, m): crossing(group.share, group.value, 0.5)
        for (seed, m), group in frame.sort_values("share").groupby(["seed", "m"])
    }
    return pd.Series(found).rename_axis(["seed", "m"]).unstack("m")


def critical_frame(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """`critical_shares` in long form: what, m, seed, share; where there is one."""
    parts = [
        critical_shares(frame).stack().rename("share").reset_index().assign(what=what)
        for what, frame in frames.items()
    ]
    return pd.concat(parts, ignore_index=True)


def typical_load(frame: pd.DataFrame) -> float:
    """Mean of the critical n over m ln m, over sizes and seeds."""
    table = critical_shares(frame)
    return float(np.nanmean(table * (table.columns / np.log(table.columns.to_numpy(dtype=float)))))


def network_values(
    frame: pd.DataFrame, *, grown: str, decays: Mapping[str, float], steps: int, lazy: float
) -> dict[str, pd.Series]:
    """What the claims of the notebook are about, by seed, from `network_frame`.

    grown : the arm with decay. decays : arm -> η. steps : of the arm `grown` at most. lazy : where
    between fitting and grokking, see `at_moment`.
    """
    moments = times(frame)
    end = (grown, "grokked")
    found = {
        "stage_order": ratio_of_times(moments, end, (grown, "fitted"), at_most=steps),
        "zero_start_faster": ratio_of_times(moments, ("zero start", "grokked"), end, at_most=steps),
        "time_law": time_slopes(moments, decays, at_most=steps),
        "no_decay_no_grokking": end_of(frame, "η = 0", "test", "max"),
        "random_labels": end_of(frame, "random", "test"),
        "pure_units": end_of(frame, grown, "purity"),
        "features_first": at_moment(frame, grown, "purity", 1.0),
        "constant_removed": end_of(frame, grown, "constant"),
    }
    names = {"gradient_is_ridge": "ridge", "gradient_is_signal": "signal", "independent": "overlap"}
    found |= {key: at_moment(frame, grown, name, lazy) for key, name in names.items()}
    found["rank_stays"] = end_of(frame, grown, "rank") / at_moment(frame, grown, "rank", lazy)
    return found


def largest_deviation(frame: pd.DataFrame) -> pd.Series:
    """Critical n over m ln m: the size that is furthest from the mean over sizes, by seed."""
    table = critical_shares(frame)
    load = table * (table.columns / np.log(table.columns.to_numpy(dtype=float)))
    return (load.div(load.mean(axis=1), axis=0) - 1).abs().max(axis=1).rename("deviation")


def exponents(frame: pd.DataFrame) -> pd.Series:
    """Log-log slope of the critical n over m against m, by seed: 1 for a fixed share of all pairs,
    about 0.4 for m ln m at these sizes."""
    needed = critical_shares(frame)
    needed = needed * needed.columns
    found = needed.apply(lambda row: slope(list(row.dropna().index), list(row.dropna())), axis=1)
    return found.rename("exponent")


def shown_weights(seed: int, **shared: Any) -> dict[str, np.ndarray]:
    """|FFT| of both blocks of W at the start and the end over its largest there, (m // 2 + 1, K):
    units sorted by their strongest frequency at the end, and then by its size."""
    [(_, config)] = _configs([seed], {"": {}}, shared)
    [run] = sweep_stacked(train_networks, [config], members=MEMBERS)
    hats = {}
    for name in ("first", "last"):
        blocks = run[name].reshape(2, config["m"], -1)
        hats[name] = np.sqrt(np.square(np.abs(np.fft.rfft(blocks, axis=1, norm="ortho"))).sum(0))
    order = np.lexsort((-hats["last"].max(0), hats["last"].argmax(0)))
    return {name: hat[:, order] / hat.max() for name, hat in hats.items()}
