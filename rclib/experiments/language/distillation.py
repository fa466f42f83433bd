"""Frames of notebook 94: accuracies of distilled images, expert paths, what networks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rclib.data.images import Dataset
from rclib.experiments.language.distillation_runs import (
    ARMS,
    BASELINES,
    EXPERTS,
    bilevel,
    distilled,
)
from rclib.runs import sweep

__all__ = [
    "accuracy_frame",
    "bilevel_frame",
    "bilevel_values",
    "by_seed",
    "image_arrays",
    "natural_values",
    "path_frame",
    "values",
]

NATURAL = ("plain", "clip", "penalty", "half rate", "shuffled", "means, plain", "means, clip")
STATISTICS = ("W1-W2", "W1-b1", "W2-b1", "row-column share", "leading share", "span")
EDGE = 20  # iterations over which losses are averaged, at both ends


def _runs(
    data: Dataset, seeds: Sequence[int], settings: Mapping[str, Any], arms: Sequence[str] = ()
) -> list[Any]:
    configs = [{**settings, "seed": seed, "arms": list(arms or ARMS)} for seed in seeds]
    return list(sweep.run(distilled, configs, data=data, description="distilled"))


def accuracy_frame(
    data: Dataset, seeds: Sequence[int], arms: Sequence[str] = (), **settings: Any
) -> pd.DataFrame:
    """seed, arm, accuracy, alpha, first and last loss, expert end (last accuracy of the arm's own
    experts; none of these for real images), the statistics of networks trained on the images, and
    with "expert " before them those of the plain experts.

    arms : of ARMS, all if none are given. settings : of `distilled`, without seed and arms.
    """
    frames, names = [], [*(arms or ARMS), *(f"real, {name}" for name in BASELINES)]
    for seed, run in zip(seeds, _runs(data, seeds, settings, arms), strict=True):
        none = np.full(len(BASELINES), np.nan)
        few = min(EDGE, run["losses"].shape[1] // 2)
        kinds = [ARMS[arm][0] for arm in names[: -len(BASELINES)]]
        ends = dict(zip(dict.fromkeys(kinds), run["experts"], strict=True))
        own = {
            "seed": seed, "arm": names, "accuracy": run["accuracy"],
            "alpha": np.concatenate([run["alpha"], none]),
            "first loss": np.concatenate([run["losses"][:, :few].mean(1), none]),
            "last loss": np.concatenate([run["losses"][:, -few:].mean(1), none]),
            "expert end": np.concatenate([[ends[kind] for kind in kinds], none]),
        }  # fmt: skip
        for place, name in enumerate(STATISTICS):
            own[name] = run["statistics"][:, place]
            own[f"expert {name}"] = run["expert_statistics"][:, place]
        frames.append(pd.DataFrame(own))
    return pd.concat(frames, ignore_index=True)


def path_frame(data: Dataset, seeds: Sequence[int], **settings: Any) -> pd.DataFrame:
    """seed, expert, epoch, norm of the epoch's step, the expert's last accuracy, and share: what
    K directions have of ‖ΔW1‖² over M epochs from here on (of plain experts, else missing)."""
    frames = []
    for seed, run in zip(seeds, _runs(data, seeds, settings), strict=True):
        epochs = run["norms"].shape[1]
        for v, name in enumerate(EXPERTS):
            share = np.full(epochs, np.nan)
            if name == "plain":
                share[: len(run["shares"])] = run["shares"]
            frames.append(pd.DataFrame({
                "seed": seed, "expert": name, "epoch": np.arange(epochs), "norm": run["norms"][v],
                "accuracy": run["experts"][v], "share": share,
            }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def image_arrays(
    data: Dataset, seed: int, arms: Sequence[str], **settings: Any
) -> dict[str, np.ndarray]:
    """ "first" (real) and the images (K, d) of some arms, of one seed; "class means" before the
    first arm that begins at them."""
    (run,) = _runs(data, [seed], settings)
    found = {"first": run["before"][0]}
    for arm in arms:
        place = list(ARMS).index(arm)
        if ARMS[arm][1] == "means":
            found.setdefault("class means", run["before"][place])
        found[arm] = run["after"][place]
    return found


def bilevel_frame(data: Dataset, seeds: Sequence[int], **settings: Any) -> pd.DataFrame:
    """seed, learned ("fixed" or "random" start), tested ("its start" or "fresh starts"), accuracy.
    settings : of `bilevel`."""
    configs = [{**settings, "seed": seed} for seed in seeds]
    rows = [
        {"seed": seed, "learned": learned, "tested": tested, "accuracy": run["accuracy"][i, j]}
        for seed, run in zip(seeds, sweep.run(bilevel, configs, data=data), strict=True)
        for i, learned in enumerate(("fixed", "random"))
        for j, tested in enumerate(("its start", "fresh starts"))
    ]
    return pd.DataFrame(rows)


def by_seed(frame: pd.DataFrame, column: str, **where: Any) -> pd.Series[float]:
    """A column by seed, of the rows in which others have the given values.

    Raises ValueError if there are none, or several for a seed.
    """
    for key, value in where.items():
        frame = frame[frame[key] == value]
    found = frame.set_index("seed")[column]
    if found.empty or not found.index.is_unique:
        raise ValueError(f"{where} must be one row a seed, got {len(found)}")
    return found


def _accuracies(frame: pd.DataFrame) -> dict[str, pd.Series[float]]:
    return {arm: by_seed(frame, "accuracy", arm=arm) for arm in frame.arm.unique()}


def natural_values(frame: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """Quantities of the claims on natural images, by seed, of `accuracy_frame` with NATURAL."""
    acc = _accuracies(frame)
    return {
        "natural_random": acc["plain"] - acc["real, random"],
        "natural_clip": acc["clip"] - acc["plain"],
        "natural_penalty": acc["penalty"] - acc["plain"],
        "natural_half_rate": acc["clip"] - acc["half rate"],
        "natural_means_plain": acc["means, plain"] - acc["real, means"],
        "natural_means_clip": acc["means, clip"] - acc["real, means"],
        "natural_shuffled": acc["shuffled"] - acc["real, random"],
    }


def values(frame: pd.DataFrame, paths: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """Quantities of the claims on matched images, by seed."""
    acc = _accuracies(frame)
    of = {name: by_seed(frame, name, arm="plain") for name in frame.columns[2:]}
    tricks = acc["means, clip"]
    share = paths[paths.expert == "plain"].dropna().pivot(index="seed", columns="epoch")["share"]
    early, late = share.iloc[:, :3].mean(axis=1), share.iloc[:, -3:].mean(axis=1)
    norm = {v: by_seed(paths, "norm", expert=v, epoch=0) for v in ("plain", "clip")}
    ranks = {
        seed: stats.spearmanr(own["expert span"], own.accuracy).statistic
        for seed, own in frame.groupby("seed")
    }
    random = by_seed(frame, "expert span", arm="real, random")
    return {
        "beats_random": acc["plain"] - acc["real, random"],
        "loss_falls": of["last loss"] / of["first loss"],
        "smoother": norm["clip"] / norm["plain"],
        "clip_helps": acc["clip"] - acc["plain"],
        "penalty_helps": acc["penalty"] - acc["plain"],
        "beyond_half_rate": acc["clip"] - acc["half rate"],
        "shuffled": acc["shuffled"],
        "means_plain": acc["means, plain"] - acc["real, means"],
        "means_clip": tricks - acc["real, means"],
        "perturbed": acc["perturbed"] - tricks,
        "middle": acc["middle"] - tricks,
        "balanced": acc["balanced"] - tricks,
        "all_tricks": acc["all tricks"] - tricks,
        "first_of_all": acc["all tricks"] - acc["all, real first"],
        "perturbed_of_all": acc["all tricks"] - acc["all, exact start"],
        "middle_of_all": acc["all tricks"] - acc["all, no middle"],
        "balanced_of_all": acc["all tricks"] - acc["all, unbalanced"],
        "window": acc["clip"] - acc["short window"],
        "early_share": early,
        "share_falls": early - late,
        "spans_more": of["expert span"] - random,
        "span_predicts": pd.Series(ranks).rename_axis("seed"),
        "rc_same": of["W1-W2"] - of["expert W1-W2"],
        "rc_share": of["row-column share"] - of["expert row-column share"],
    }


def bilevel_values(frame: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """Quantities of the claims on the bi-level form, by seed."""
    own = by_seed(frame, "accuracy", learned="fixed", tested="its start")
    fresh = by_seed(frame, "accuracy", learned="fixed", tested="fresh starts")
    random = by_seed(frame, "accuracy", learned="random", tested="fresh starts")
    return {"fixed_better": own - random, "fixed_elsewhere": fresh - own, "fresh": random - fresh}
