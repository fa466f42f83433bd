"""Regret of Bayesian mixtures over a hypothesis class far larger than the data.

Feder, Urbanke and Fogel (arXiv 2506.07661): a mixture Q over all hypotheses with the prior w pays,
against the truth θ0 and n labels, at most

    R_n <= -ln Σ w(θ) e^(-n D(θ0 ‖ θ)) <= min over ε of n ε - ln w{θ : D(θ0 ‖ θ) <= ε}

nats in all: not the size of the class counts but the mass that the prior has near the truth. (By
Jensen, the mean of ln Q over labels is at least the ln of the mixture of e^(mean).) Looked at are
all 65,536 Boolean functions of four inputs, exactly, with the prior of random ReLU networks and the
uniform one, labels flipped with probability δ. The runs are those of `universality_runs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.dynamics.universality_runs import (
    CUBE,
    FUNCTIONS,
    chains,
    linear_regret,
    log_weights,
    regrets,
    weights,
)
from rclib.runs import store, sweep

__all__ = [
    "SIMPLE",
    "TARGETS",
    "chain_frame",
    "gap",
    "largest_over_bound",
    "lens_values",
    "linear_slopes",
    "rank_correlation",
    "rank_frame",
    "regret_frame",
    "several_targets",
    "shown_regret",
    "weight_frame",
    "weight_shift",
]


def _pack(values: np.ndarray) -> int:
    return int(values.astype(np.int64) @ (1 << np.arange(len(values))))


TARGETS: dict[str, int] = {
    "constant": _pack(np.ones(16)),
    "dictator": _pack(CUBE[:, 0]),
    "and": _pack(CUBE[:, 0] * CUBE[:, 1]),
    "majority": _pack(CUBE.sum(1) > 2),
    "parity": _pack(CUBE.sum(1) % 2),
    "random": 11_939,  # any function without structure; more are drawn by `several_targets`
}
SIMPLE = ("constant", "dictator", "and", "majority")


def _of(prior: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {"seed": seed, **prior}


def several_targets(prior: Mapping[str, Any], seed: int, *, seen: int, drawn: int) -> list[int]:
    """Functions of many weights: `seen`, log-spaced in their rank among those that the prior's
    networks compute, and `drawn` uniform ones."""
    sweep.run(weights, [_of(prior, seed)], description="priors")
    run = store.fetch(weights, _of(prior, seed))
    order = run["functions"][np.argsort(-run["counts"], kind="stable")]
    ranks = np.unique(np.geomspace(1, len(order), seen).round().astype(int)) - 1
    random = np.random.default_rng([seed, 5])
    return [int(f) for f in order[ranks]] + [int(f) for f in random.integers(0, FUNCTIONS, drawn)]


def regret_frame(
    seeds: Sequence[int],
    priors: Mapping[str, Mapping[str, Any] | None],
    targets: Mapping[str, int],
    *,
    prior_seed: int,
    sizes: Sequence[int],
    sets: int,
    delta: float,
) -> pd.DataFrame:
    """prior, target, n, seed, regret, jensen, ball, weight. priors : name -> what `weights` needs
    besides its seed, `prior_seed`, or None for the uniform prior."""
    configs = [
        (name, {
            "seed": seed, "targets": list(targets.values()), "sizes": list(sizes), "sets": sets,
            "delta": delta, "prior": None if prior is None else _of(prior, prior_seed),
        })
        for name, prior in priors.items() for seed in seeds
    ]  # fmt: skip
    runs = sweep.run(
        regrets,
        [config for _, config in configs],
        description="mixtures",
        needs=lambda config: [(weights, config["prior"])] if config["prior"] else [],
    )
    rows = [
        (
            prior, target, n, config["seed"], float(run["regret"][i, j]),
            float(run["jensen"][i, j]), float(run["ball"][i, j]), float(run["weight"][i]),
        )
        for (prior, config), run in zip(configs, runs, strict=True)
        for i, target in enumerate(targets) for j, n in enumerate(sizes)
    ]  # fmt: skip
    columns = ["prior", "target", "n", "seed", "regret", "jensen", "ball", "weight"]
    return pd.DataFrame(rows, columns=columns)


def largest_over_bound(frame: pd.DataFrame) -> pd.Series:
    """Regret over Jensen's bound by seed, for the prior, target and size where its mean over seeds
    is largest."""
    ratio = frame.assign(ratio=frame.regret / frame.jensen)
    table = ratio.pivot_table(index="seed", columns=["prior", "target", "n"], values="ratio")
    return pd.Series(table[table.mean().idxmax()].rename("ratio"))


def rank_correlation(frame: pd.DataFrame, prior: str, n: int) -> pd.Series:
    """Spearman correlation over targets of the regret and of -ln w, by seed."""
    chosen = frame[(frame.prior == prior) & (frame.n == n)]
    found = {
        seed: group.regret.corr(group.weight, method="spearman")
        for seed, group in chosen.groupby("seed")
    }
    return pd.Series(found, name="correlation").rename_axis("seed")


def gap(
    frame: pd.DataFrame,
    over: str,
    under: str,
    n: int,
    targets: Sequence[str],
    *,
    relative: bool = False,
) -> pd.DataFrame:
    """Regret under one prior minus that under another (over the other: `relative`): one row a
    seed, one column a target."""
    chosen = frame[(frame.n == n) & frame.target.isin(targets)]
    table = chosen.pivot_table(index="seed", columns=["prior", "target"], values="regret")
    difference = table[over] - table[under]
    return difference / table[under] if relative else difference


def linear_slopes(
    seeds: Sequence[int], *, sizes: Sequence[int], used: int, inputs: int, draws: int
) -> pd.Series:
    """Slope of the regret of linear regression in ln n, by seed."""
    configs = [
        {"seed": seed, "sizes": list(sizes), "used": used, "inputs": inputs, "draws": draws}
        for seed in seeds
    ]
    runs = sweep.run(linear_regret, configs, description="linear regression")
    found = {
        c["seed"]: float(np.polyfit(np.log(sizes), run["regret"], 1)[0])
        for c, run in zip(configs, runs, strict=True)
    }
    return pd.Series(found, name="slope").rename_axis("seed")


def chain_frame(seeds: Sequence[int], targets: Mapping[str, int], **shared: Any) -> pd.DataFrame:
    """Log-losses of `chains`: target, seed, exact, effective, langevin, langevin_one, ascent,
    ascent_one, truth. A target of -1 is drawn from the prior."""
    configs = [
        (name, {"seed": seed, "target": target, **shared})
        for name, target in targets.items() for seed in seeds
    ]  # fmt: skip
    runs = sweep.run(chains, [config for _, config in configs], description="chains")
    return pd.DataFrame(
        [
            {"target": name, "seed": config["seed"]} | {k: float(v) for k, v in run.items()}
            for (name, config), run in zip(configs, runs, strict=True)
        ]
    )


def weight_frame(
    seeds: Sequence[int], hidden: Sequence[int], *, nets: int, scaled: bool
) -> pd.DataFrame:
    """-ln w of the simple targets against the width: hidden, seed, target, weight, seen (number of
    functions that any network computes)."""
    configs = [
        {"seed": seed, "hidden": h, "nets": nets, "scaled": scaled}
        for h in hidden
        for seed in seeds
    ]
    runs = sweep.run(weights, configs, cost=lambda c: float(c["hidden"]), description="priors")
    rows = [
        (c["hidden"], c["seed"], name, -float(log_weights(run)[TARGETS[name]]), len(run["counts"]))
        for c, run in zip(configs, runs, strict=True)
        for name in SIMPLE
    ]
    return pd.DataFrame(rows, columns=["hidden", "seed", "target", "weight", "seen"])


def weight_shift(frame: pd.DataFrame) -> pd.Series:
    """Range of -ln w over the widths, the largest of the targets, by seed."""
    over = frame.groupby(["seed", "target"]).weight
    return (over.max() - over.min()).groupby("seed").max().rename("shift")


def shown_regret(frame: pd.DataFrame, many: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a figure shows, means over seeds: prior, target, n, regret, jensen of the first prior
    and, averaged over targets, of the uniform one; target, regret, jensen of many targets."""
    first = frame[frame.prior == frame.prior.iloc[0]]
    values = ["regret", "jensen"]
    growth = first.groupby(["prior", "target", "n"], sort=False)[values].mean().reset_index()
    flat = frame[frame.prior == "uniform"].groupby(["prior", "n"])[values].mean().reset_index()
    points = many.groupby("target", sort=False)[values].mean().reset_index()
    return pd.concat([growth, flat.assign(target="uniform")], ignore_index=True), points


def rank_frame(prior_seed: int, priors: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Weights in descending order, at log-spaced ranks: prior, rank, weight."""
    frames = []
    for name, prior in priors.items():
        counts = -np.sort(-store.fetch(weights, _of(prior, prior_seed))["counts"])
        ranks = np.unique(np.geomspace(1, len(counts), 80).astype(int))
        share = counts[ranks - 1] / counts.sum()
        frames.append(pd.DataFrame({"prior": name, "rank": ranks, "weight": share}))
    return pd.concat(frames, ignore_index=True)


def lens_values(
    frame: pd.DataFrame,
    many: pd.DataFrame,
    fresh: pd.DataFrame,
    widths: pd.DataFrame,
    chains: pd.DataFrame,
) -> dict[str, pd.Series]:
    """What the claims on regrets, weights and chains are about, by seed. frame, many, fresh :
    `regret_frame` of `TARGETS`, of many targets at n = 64, and of other seeds with few labels.
    widths, chains : of those frames; chains with the targets "majority" and one more."""
    simple, nets = list(SIMPLE), frame[frame.prior == "16 units"]
    grown = nets.pivot_table(index="seed", columns=["n", "target"], values="regret")
    kept = gap(frame, "128 units", "16 units", 64, simple, relative=True)
    lost = gap(frame, "16 units", "uniform", 64, ["parity", "random"])
    one = chains[chains.target == "majority"].set_index("seed")
    drawn = chains[chains.target != "majority"].set_index("seed")
    return {
        "below_bound": largest_over_bound(pd.concat([frame, many])),
        "below_bound_early": largest_over_bound(fresh),
        "weight_orders": rank_correlation(many, "16 units", 64),
        "width_is_no_cost": kept.abs().max(axis=1),
        "simple_beat_uniform": gap(frame, "uniform", "16 units", 64, simple).min(axis=1),
        "no_free_lunch": lost.min(axis=1),
        "regret_saturates": (grown[256][simple] / grown[128][simple] - 1).max(axis=1),
        "weights_free_of_width": weight_shift(widths),
        "langevin_is_mixture": one.langevin - one.exact,
        "averaging_matters": one.langevin_one - one.langevin,
        "mixture_beats_ascent": one.ascent - one.exact,
        "mixture_best_on_average": drawn.ascent - drawn.exact,
    }
