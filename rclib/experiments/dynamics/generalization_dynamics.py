"""The test error over training time: linear students against their closed form, and ReLU students.

Advani and Saxe (arXiv 1710.03667). What is looked at:

    linear      E_g(t) of gradient flow against `generalization_theory`, at ratios α = P / N of
                samples to inputs; the peak of overtraining at α = 1; stopping against ridge
    frozen      directions without samples keep their start, in linear students and in the first
                matrix of a ReLU student under gradient descent; Adam leaves the span of the inputs
    ReLU        final and best error against the number of parameters, from small and large starts

The runs are those of `generalization_runs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.dynamics import generalization_theory as theory
from rclib.experiments.dynamics.generalization_runs import (
    OPTIMISERS,
    linear_curves,
    relu_student,
    span_of_change,
)
from rclib.runs import sweep

__all__ = [
    "bulk_weights",
    "frozen_excess",
    "linear_frame",
    "linear_values",
    "over_theory",
    "overtraining",
    "relu_frame",
    "shown_curves",
    "simulated_frame",
    "span_frame",
    "start_cost",
    "stopping",
    "student_ratio",
    "theory_frame",
    "theory_table",
    "train_gap",
]


def linear_frame(
    seeds: Sequence[int],
    arms: Mapping[str, Mapping[str, Any]],
    *,
    times: Sequence[float],
    n: int,
) -> pd.DataFrame:
    """All draws in long form: arm, seed, alpha, t, test, train, ridge.

    arms : name -> alphas, snr, inr, noise, permuted of `linear_curves`.
    """
    configs = [
        (arm, {**more, "seed": seed, "n": n, "times": list(times)})
        for arm, more in arms.items() for seed in seeds
    ]  # fmt: skip
    runs = sweep.run(
        linear_curves, [config for _, config in configs], description="linear students"
    )
    return pd.concat(
        [
            pd.DataFrame({
                "arm": arm, "seed": c["seed"], "alpha": alpha, "t": c["times"],
                "test": run["test"][k], "train": run["train"][k], "ridge": float(run["ridge"][k]),
            })
            for (arm, c), run in zip(configs, runs, strict=True)
            for k, alpha in enumerate(c["alphas"])
        ],
        ignore_index=True,
    )  # fmt: skip


def over_theory(frame: pd.DataFrame, arm: str, *, snr: float, inr: float) -> pd.Series:
    """Test error over the theory's, mean over the ratios and times, by seed."""
    chosen = frame[frame.arm == arm]
    exact = _theory(chosen, snr=snr, inr=inr)
    return (chosen.test / exact).groupby(chosen.seed).mean().rename("ratio")


def train_gap(frame: pd.DataFrame, arm: str, *, snr: float, inr: float) -> pd.Series:
    """Training error minus the theory's, over that at the start, mean over the ratios and times, by
    seed. (A ratio as of `over_theory` has no meaning where both go to zero, below α = 1.)"""
    chosen = frame[frame.arm == arm]
    exact = _theory(chosen, snr=snr, inr=inr, error=theory.training_error)
    gap = (chosen.train - exact) / (snr + inr + 1.0)
    return gap.groupby(chosen.seed).mean().rename("gap")


def theory_table(
    frame: pd.DataFrame, arm: str, *, snr: float, inr: float, times: Sequence[float]
) -> pd.DataFrame:
    """alpha, t, simulated (mean over draws), error (1.96 standard errors), theory, at some times;
    inside: whether they agree within the error and 3 percent."""
    chosen = frame[(frame.arm == arm) & frame.t.isin(times)]
    over = chosen.groupby(["alpha", "t"]).test
    table = over.mean().rename("simulated").reset_index()
    table["error"] = 1.96 * (over.std() / np.sqrt(over.count())).to_numpy()
    table["theory"] = _theory(table, snr=snr, inr=inr)
    off = (table.simulated - table.theory).abs()
    return table.assign(inside=off <= table.error + 0.03 * table.theory)


def _theory(
    frame: pd.DataFrame, *, snr: float, inr: float, error: Any = theory.generalization_error
) -> pd.Series:
    keys = frame[["alpha", "t"]].drop_duplicates()
    found = [
        group.assign(exact=error(group.t.to_numpy(), alpha=float(alpha), snr=snr, inr=inr))
        for alpha, group in keys.groupby("alpha")
    ]
    merged = frame[["alpha", "t"]].merge(pd.concat(found), on=["alpha", "t"], how="left")
    return pd.Series(merged.exact.to_numpy(), index=frame.index)


def overtraining(frame: pd.DataFrame, arm: str, *, late: float) -> pd.DataFrame:
    """Test error at the time `late` over the least before it: one row a seed, one column a ratio
    of samples to inputs."""
    chosen = frame[(frame.arm == arm) & (frame.t <= late)]
    least = chosen.groupby(["seed", "alpha"]).test.min()
    last = chosen[chosen.t == late].set_index(["seed", "alpha"]).test
    return (last / least).unstack("alpha")


def stopping(frame: pd.DataFrame, arm: str, *, snr: float, inr: float = 0.0) -> pd.DataFrame:
    """seed, alpha, best (time of the least test error), stopped (test error at the recorded time
    next to the theory's best time), ridge, and their ratio."""
    rows, chosen = [], frame[frame.arm == arm]
    times = {
        alpha: theory.best_time(alpha=float(alpha), snr=snr, inr=inr)[0]
        for alpha in chosen.alpha.unique()
    }
    for (seed, alpha), group in chosen.groupby(["seed", "alpha"]):
        near = int(
            (np.log(group.t.clip(lower=1e-9)) - np.log(times[alpha])).abs().to_numpy().argmin()
        )
        best = float(group.t.iloc[int(group.test.to_numpy().argmin())])
        stopped, ridge = float(group.test.iloc[near]), float(group.ridge.iloc[0])
        rows.append((seed, alpha, best, stopped, ridge, stopped / ridge))
    return pd.DataFrame(rows, columns=["seed", "alpha", "best", "stopped", "ridge", "ratio"])


def start_cost(stopped: pd.DataFrame, plain: pd.DataFrame) -> pd.DataFrame:
    """Error at the best time from a start of some variance over that from zero: one row a seed, one
    column a ratio α of both. stopped, plain : `stopping` of both arms."""
    over, under = (
        one.pivot(index="seed", columns="alpha", values="stopped") for one in (stopped, plain)
    )
    return over / under[over.columns]


def frozen_excess(
    frame: pd.DataFrame, arms: tuple[str, str], *, alpha: float, late: float, inr: float
) -> pd.Series:
    """Late test error from a start of variance `inr` minus that from zero, over (1 - α) INR, by
    seed. arms : from `inr`, from zero."""
    chosen = frame[(frame.alpha == alpha) & (frame.t == late)].set_index("seed")
    ends = [chosen[chosen.arm == arm].test for arm in arms]
    return ((ends[0] - ends[1]) / ((1.0 - alpha) * inr)).rename("excess")


def relu_frame(
    seeds: Sequence[int], *, widths: Sequence[int], starts: Mapping[str, float], **shared: Any
) -> pd.DataFrame:
    """ReLU students: start, width, ratio (parameters over samples), seed, final, best (test error
    at the end and at its least, in units of the signal's variance), train (at the end)."""
    configs = [
        (name, {"seed": seed, "width": width, "start": start, **shared})
        for name, start in starts.items() for width in widths for seed in seeds
    ]  # fmt: skip
    runs = sweep.run(
        relu_student,
        [config for _, config in configs],
        cost=lambda config: float(config["width"]),
        description="ReLU students",
    )
    rows = [
        (
            name, c["width"], c["width"] * (c["n"] + 1) / c["samples"], c["seed"],
            float(run["test"][-1]), float(run["test"].min()), float(run["train"][-1]),
        )
        for (name, c), run in zip(configs, runs, strict=True)
    ]  # fmt: skip
    columns = ["start", "width", "ratio", "seed", "final", "best", "train"]
    return pd.DataFrame(rows, columns=columns)


def student_ratio(frame: pd.DataFrame, over: tuple[str, int], under: tuple[str, int]) -> pd.Series:
    """Final test error of one (start, width) over that of another, by seed."""
    table = frame.pivot_table(index="seed", columns=["start", "width"], values="final")
    return (table[over] / table[under]).rename("ratio")


def span_frame(seeds: Sequence[int], rates: Mapping[str, float], **shared: Any) -> pd.DataFrame:
    """First matrix of students with fewer samples than inputs: optimiser, seed, outside, beyond,
    moved, loss, and frozen (mean eigenvalue in the directions without inputs times the inputs: 1
    at the start). rates : optimiser -> learning rate."""
    configs = [
        {"seed": seed, "optimiser": name, "rate": rates[name], **shared}
        for name in OPTIMISERS for seed in seeds
    ]  # fmt: skip
    runs = sweep.run(span_of_change, configs, description="first matrices")
    return pd.DataFrame(
        [
            {"optimiser": c["optimiser"], "seed": c["seed"]}
            | {name: float(run[name]) for name in ("outside", "beyond", "moved", "loss")}
            | {"frozen": float(run["frozen"].sum() / (c["n"] - c["samples"]) * c["n"])}
            for c, run in zip(configs, runs, strict=True)
        ]
    )


def linear_values(draws: pd.DataFrame, *, late: float, at: float) -> dict[str, pd.Series]:
    """What the claims on linear students are about, by seed; of `generalization_runs.linear_arms`.

    late : the last time for all but the frozen start, which is looked at at the end. at : when
    the error with permuted labels is looked at.
    """
    early = draws[draws.t <= late]
    over = overtraining(draws, "SNR 5", late=late)
    stops = {snr: stopping(early, f"SNR {snr}", snr=snr) for snr in (5, 1)}
    best = [stops[snr].pivot(index="seed", columns="alpha", values="best") for snr in (5, 1)]
    mixed = draws[draws.arm == "permuted"].pivot(index="seed", columns="t", values="test")
    cost = start_cost(stopping(early, "started", snr=5.0, inr=5.0), stops[5])
    end = float(draws.t.max())
    return {
        "theory_holds": over_theory(early, "SNR 5", snr=5.0, inr=0.0),
        "train_theory_holds": train_gap(early, "SNR 5", snr=5.0, inr=0.0),
        "peak_at_one": over[1.0] - over[[0.5, 2.0]].max(axis=1),
        "stopping_like_ridge": stops[5].groupby("seed").ratio.mean(),
        "signal_stops_late": (best[0] / best[1]).min(axis=1),
        "noiseless_never_overtrains": overtraining(draws, "noiseless", late=10.0).max(axis=1),
        "permuted_rises": mixed[at] / mixed[0.0],
        "frozen_start": frozen_excess(draws, ("started", "SNR 5"), alpha=0.5, late=end, inr=5.0),
        "start_hurts": cost[0.5] - cost[4.0],
    }


def theory_frame(alphas: Sequence[float], *, snr: float, late: float) -> pd.DataFrame:
    """Theory against the ratio of samples to inputs: alpha, what ("at its least", the late time,
    "best ridge"), error."""
    rows = []
    for alpha in alphas:
        at = float(theory.generalization_error(late, alpha=alpha, snr=snr))
        rows.append((alpha, "stopped at its least", theory.best_time(alpha=alpha, snr=snr)[1]))
        rows.append((alpha, f"at t = {late:g}", at))
        rows.append((alpha, "best ridge", theory.ridge_error(alpha=alpha, snr=snr)))
    return pd.DataFrame(rows, columns=["alpha", "what", "error"])


def shown_curves(
    frame: pd.DataFrame, arm: str, alphas: Sequence[float], *, snr: float
) -> pd.DataFrame:
    """`theory_table` at all times of some ratios, and best, the theory's best time."""
    chosen = frame[frame.alpha.isin(alphas) & (frame.t > 0)]
    table = theory_table(chosen, arm, snr=snr, inr=0.0, times=sorted(chosen.t.unique()))
    best = {alpha: theory.best_time(alpha=alpha, snr=snr)[0] for alpha in alphas}
    return table.assign(best=table.alpha.map(best))


def simulated_frame(
    frame: pd.DataFrame, stops: pd.DataFrame, arm: str, *, late: float
) -> pd.DataFrame:
    """Means over draws, named as in `theory_frame`: alpha, what, error. stops : `stopping`."""
    at = frame[(frame.arm == arm) & (frame.t == late)].groupby("alpha").test.mean()
    means = stops.groupby("alpha")[["stopped", "ridge"]].mean()
    named = {
        "stopped at its least": means.stopped, f"at t = {late:g}": at, "best ridge": means.ridge,
    }  # fmt: skip
    parts = [v.rename("error").reset_index().assign(what=k) for k, v in named.items()]
    return pd.concat(parts, ignore_index=True)[["alpha", "what", "error"]]


def bulk_weights(alphas: Sequence[float], times: Sequence[float]) -> pd.DataFrame:
    """Where noise enters: alpha, at (eigenvalue), density of the bulk, and for each time t the
    weight (1 - e^(-λt))² / λ as `t = ...`."""
    frames = []
    for alpha in alphas:
        law = theory.input_law(alpha)
        at = np.linspace(max(law.lower, 1e-3), law.upper, 200)
        frame = pd.DataFrame({"alpha": alpha, "at": at, "density": law.density(at)})
        for t in times:
            frame[f"t = {t:g}"] = np.expm1(-at * t) ** 2 / at
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
