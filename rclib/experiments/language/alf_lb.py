"""Frames of notebook 93: balance, descent and regret of shifts; routers of a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from rclib.data.text import TextData
from rclib.experiments.language.balancing_lm import expert_runs
from rclib.experiments.language.balancing_runs import SCORES, fixed_runs, fresh_runs
from rclib.rowcolumn.measure import leading_share, row_column_share
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.training.load_balancing import max_violation

__all__ = [
    "arm_means",
    "curve_frame",
    "fixed_frame",
    "fixed_values",
    "fresh_frame",
    "fresh_values",
    "model_curves",
    "model_frame",
    "model_values",
    "swap_shares",
    "thinned",
]

Rules = Mapping[str, Mapping[str, Any]]
Values = dict[str, pd.Series]
EARLY, LATE = 100, 50  # iterations from the start, and up to the end
ALLOWED = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)  # from more, equal, fewer


def _fixed(seeds: Sequence[int], rules: Rules, settings: Mapping[str, Any]) -> list[Any]:
    """(seed, score, run) of `fixed_runs`."""
    keys = [(seed, score) for seed in seeds for score in SCORES]
    given = {"rules": [dict(rule) for rule in rules.values()], **settings}
    configs = [{**given, "seed": seed, "score": score} for seed, score in keys]
    runs = sweep.run(fixed_runs, configs, description="one batch")
    return [(*key, run) for key, run in zip(keys, runs, strict=True)]


def fixed_frame(seeds: Sequence[int], rules: Rules, **settings: Any) -> pd.DataFrame:
    """seed, score, rule, and of `fixed_runs`: start, early and late (MaxVio at first, after 100
    iterations, mean of the last 50), gap (last D minus the program's value), rises and late rises
    (share of the first 100 iterations, and of the last third, in which D grows), error, drift, rank
    (Spearman correlation of the shifts with the loads at p = 0), against, all swaps (swaps that
    preference forbids, and all), flat, fractional. settings : of `fixed_runs`, besides the rules.
    """
    rows = []
    for seed, score, run in _fixed(seeds, rules, settings):
        violation, rise = run["violation"], run["rise"]
        for r, rule in enumerate(rules):
            kinds, shifts = run["kinds"][r], run["shifts"][r]
            rows.append({
                "seed": seed, "score": score, "rule": rule, "start": violation[r, 0],
                "early": violation[r, :EARLY][-1], "late": violation[r, -LATE:].mean(),
                "gap": run["gap"][r, -1], "rises": rise[r, :EARLY].mean(),
                "late rises": rise[r, -(rise.shape[1] // 3) :].mean(), "error": run["error"][r],
                "drift": run["drift"][r], "against": kinds[~ALLOWED].sum(),
                "all swaps": kinds.sum(), "flat": float(run["flat"]),
                "rank": spearmanr(shifts, run["loads"]).statistic if shifts.any() else np.nan,
                "fractional": int(run["fractional"]),
            })  # fmt: skip
    return pd.DataFrame(rows)


def curve_frame(seeds: Sequence[int], rules: Rules, score: str, **settings: Any) -> pd.DataFrame:
    """seed, rule, iteration (from 1, spaced by logarithm), violation and gap, means since the
    iteration before. score, settings : of `fixed_runs`."""
    frames = []
    for seed, own, run in _fixed(seeds, rules, settings):
        if own != score:
            continue
        steps = run["gap"].shape[1]
        ends = np.unique(np.geomspace(1, steps, 40).astype(int))
        counts = np.diff(ends, prepend=0)
        for r, rule in enumerate(rules):
            parts = {
                name: np.diff(np.cumsum(run[name][r])[ends - 1], prepend=0) / counts
                for name in ("violation", "gap")
            }
            frames.append(pd.DataFrame({"seed": seed, "rule": rule, "iteration": ends, **parts}))
    return pd.concat(frames, ignore_index=True)


def swap_shares(
    seeds: Sequence[int], rules: Rules, rule: str, score: str, **settings: Any
) -> np.ndarray:
    """(E, E): shares of all swaps under a rule, from expert to expert by rank of load, largest
    first, over all seeds and iterations. score, settings : of `fixed_runs`."""
    place = list(rules).index(rule)
    runs = [run["ranked"][place] for _, own, run in _fixed(seeds, rules, settings) if own == score]
    total = np.sum(runs, axis=0)
    return np.asarray(total / total.sum())


def fresh_frame(seeds: Sequence[int], rules: Rules, **settings: Any) -> pd.DataFrame:
    """seed, rule, at (iterations done), regret until then, violation and floor. settings : of
    `fresh_runs`, besides the rules."""
    given = {"rules": [dict(rule) for rule in rules.values()], "score": "sigmoid", **settings}
    runs = sweep.run(fresh_runs, [{**given, "seed": s} for s in seeds], description="batches")
    return pd.concat(
        [
            pd.DataFrame({
                "seed": seed, "rule": rule, "at": run["at"], "regret": run["regret"][r],
                "violation": run["violation"][r], "floor": float(run["floor"]),
            })
            for seed, run in zip(seeds, runs, strict=True)
            for r, rule in enumerate(rules)
        ],
        ignore_index=True,
    )  # fmt: skip


def thinned(frame: pd.DataFrame, column: str, n: int = 40) -> pd.DataFrame:
    """Rows at about n values of a column, spaced by logarithm, the first and last among them."""
    values = np.unique(frame[column])
    near = np.searchsorted(values, np.geomspace(values[0], values[-1], n) * (1 - 1e-9))
    return frame[frame[column].isin(values[np.append(near[:-1], len(values) - 1)])]


def _model_runs(
    text: TextData, seeds: Sequence[int], arms: Rules, settings: Mapping[str, Any]
) -> dict[tuple[int, str], Arrays]:
    keys = [(seed, arm) for seed in seeds for arm in arms]
    configs = [{**settings, "seed": seed, "balancing": dict(arms[arm])} for seed, arm in keys]
    runs = sweep.run(expert_runs, configs, data=text, description="language models")
    return dict(zip(keys, runs, strict=True))


def model_frame(text: TextData, seeds: Sequence[int], arms: Rules, **settings: Any) -> pd.DataFrame:
    """seed, arm, block, loss, and of the block: late and mean (MaxVio of batches in the last tenth,
    and of all), used and plain (MaxVio on held-out text, as routed and without shifts).

    Of its router W_r with mean input h: top (share of the largest eigenvalue of W_r^T W_r) and rc
    (share of row and column means in the variance of W_r), with what independent entries have;
    spread (standard deviation over experts of W_r h); rank and order (Spearman correlations of
    W_r h, and of the shifts, with the loads without shifts). arms : name -> `balancing` of
    `expert_runs`; settings : its others.
    """
    rows = []
    for (seed, arm), run in _model_runs(text, seeds, arms, settings).items():
        late = max(1, len(run["violation"]) // 10)
        for b, w in enumerate(run["matrices"]):
            top = leading_share(torch.from_numpy(w), 1)
            rc = row_column_share(torch.from_numpy(w))
            offsets, shifts, plain = w @ run["means"][b], run["shifts"][b], run["plain"][b]
            rows.append({
                "seed": seed, "arm": arm, "block": b, "loss": float(run["loss"]),
                "late": run["violation"][-late:, b].mean(), "mean": run["violation"][:, b].mean(),
                "used": float(max_violation(run["used"][b])), "plain": float(max_violation(plain)),
                "top": top.value, "top chance": top.chance, "rc": rc.value, "rc chance": rc.chance,
                "spread": offsets.std(), "rank": spearmanr(offsets, plain).statistic,
                "order": spearmanr(shifts, plain).statistic if shifts.any() else np.nan,
            })  # fmt: skip
    return pd.DataFrame(rows)


def arm_means(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over blocks of `model_frame`, by seed and arm, and "loss gap": to the seed's model
    without balancing."""
    means = frame.drop(columns="block").groupby(["seed", "arm"], sort=False).mean().reset_index()
    plain = means[means.arm == "none"].set_index("seed").loss
    return means.assign(**{"loss gap": means.loss - means.seed.map(plain)})


def model_curves(
    text: TextData, seeds: Sequence[int], arms: Rules, **settings: Any
) -> pd.DataFrame:
    """seed, arm, step, violation: mean over blocks and one of 30 stretches of the training."""
    frames = []
    for (seed, arm), run in _model_runs(text, seeds, arms, settings).items():
        parts = np.array_split(run["violation"].mean(1), min(30, len(run["violation"])))
        ends = np.cumsum([len(part) for part in parts])
        own = [float(part.mean()) for part in parts]
        frames.append(pd.DataFrame({"seed": seed, "arm": arm, "step": ends, "violation": own}))
    return pd.concat(frames, ignore_index=True)


def _by(frame: pd.DataFrame, column: str, **where: Any) -> pd.Series:
    """Mean of a column by seed over the rows with these values. ValueError if there are none."""
    for name, value in where.items():
        frame = frame[frame[name] == value]
    if frame.empty:
        raise ValueError(f"frame must hold {where}")
    found: pd.Series = frame.groupby("seed", sort=False)[column].mean()
    return found


def fixed_values(frame: pd.DataFrame) -> Values:
    """What notebook 93 claims of one batch, by seed, from `fixed_frame`."""
    own = frame[frame.score == "sigmoid"]
    slow, fast = ({"rule": f"sign {u}"} for u in ("0.001", "0.01"))
    wrong, near, large = {"rule": "wrong loads"}, {"rule": "load 0.3/n"}, {"rule": "load 0.1"}
    worst = frame.groupby("seed", sort=False)
    optimal = frame[frame.rule == "load 0.3/n"].groupby("seed", sort=False)
    return {
        "preference": frame[frame.rule.isin([slow["rule"], fast["rule"]])]
        .groupby("seed", sort=False)
        .against.sum(),
        "wrong_loads": _by(own, "against", **wrong) / _by(own, "all swaps", **wrong),
        "identity": worst.error.max(),
        "descends": _by(own, "rises", **slow),
        "chatters": _by(own, "late rises", **slow),
        "balanced": _by(own, "late", **slow),
        "unbalanced": _by(own, "late", rule="none"),
        "flat": _by(own, "flat"),
        "step_size": _by(own, "late", **fast) - _by(own, "late", **slow),
        "speed": _by(own, "early", **slow) - _by(own, "early", **fast),
        "dual_gap": optimal.gap.max(),
        "exact": _by(frame, "late", **near),
        "unstable": _by(frame, "late", score="softmax", **large)
        - _by(frame, "late", score="softmax", rule="load 0.01"),
        "shifts_rank": _by(own, "rank", **slow),
    }


def _doubling(frame: pd.DataFrame, rule: str) -> pd.Series:
    """Regret of the last half over that of the quarter before it, by seed."""
    table = frame[frame.rule == rule].pivot_table(index="at", columns="seed", values="regret")
    end, half, quarter = (_upto(table, share) for share in (1.0, 0.5, 0.25))
    return (end - half) / (half - quarter)


def _upto(table: pd.DataFrame, share: float) -> pd.Series:
    """Regret (by column) until this share of all iterations, on the line between those known."""
    at = table.index.to_numpy(float)
    return table.apply(lambda own: float(np.interp(share * at[-1], at, own)))


def fresh_values(frame: pd.DataFrame) -> Values:
    """What notebook 93 claims of fresh batches, by seed, from `fresh_frame`."""
    table = frame[frame.rule == "3/n"].pivot_table(index="at", columns="seed", values="regret")
    return {
        "regret_log": _upto(table, 1.0) / _upto(table, 0.25),
        "regret_root": _doubling(frame, "0.3/√n"),
        "regret_sign": _doubling(frame, "sign 0.01"),
        "regret_short": _doubling(frame, "0.3/n"),
    }


def model_values(frame: pd.DataFrame) -> Values:
    """What notebook 93 claims of the language model, by seed, from `model_frame`."""

    def change(column: str, arm: str, other: str) -> pd.Series:
        return _by(frame, column, arm=arm) - _by(frame, column, arm=other)

    log = frame.assign(spread=np.log(frame.spread))
    return {
        "model_balance": change("late", "none", "sign"),
        "model_auxiliary": change("late", "none", "auxiliary loss"),
        "model_loss": change("loss", "sign", "none"),
        "model_frozen": change("late", "u/n", "sign"),
        "router_top": change("top", "none", "sign"),
        "router_rc": change("rc", "none", "sign"),
        "router_mean": _by(frame, "rank", arm="none"),
        "router_spread": _by(log, "spread", arm="none") - _by(log, "spread", arm="sign"),
        "router_auxiliary": _by(log, "spread", arm="none")
        - _by(log, "spread", arm="auxiliary loss"),
    }
