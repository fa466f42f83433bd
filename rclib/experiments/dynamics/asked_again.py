"""Frames of notebook 68: claims of notebooks 62 and 63 that one learning rate may have decided.

There Muon and Adam had a rate each that was set once, and small and large batches one rate or a
rule. Here every optimiser, at every width, and every kind of batch has the rates of a grid that are
best over seeds which are used for nothing else; what the claims are about is then measured at these
and at the old ones, on the same seeds. Runs are those of `asked_again_runs` and `train_longer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from rclib.data.held_out import held_out
from rclib.data.images import Dataset
from rclib.experiments.dynamics.asked_again_runs import WEIGHTS, covered_at, narrow_networks
from rclib.experiments.dynamics.train_longer import difference, eigenvalue_ratio, regime_frames
from rclib.experiments.dynamics.train_longer_arms import ladder
from rclib.runs import sweep
from rclib.runs.stacked import sweep_stacked
from rclib.stats.grid import EQUAL, best_setting
from rclib.stats.sequential import interval
from rclib.training.regimes import Regime

__all__ = [
    "CHOICES",
    "KINDS",
    "Asked",
    "batch_answers",
    "batch_table",
    "batches",
    "change_frame",
    "chosen",
    "cover",
    "cover_answers",
    "cover_table",
    "difference_frame",
    "loss_difference",
    "narrow",
    "narrow_answers",
    "narrow_frame",
    "random_table",
    "rate_gain",
    "tuned",
    "weight_table",
]

CHOICES = ("own", "shared")  # every arm's own rates, or those of notebooks 62 and 63
KINDS = ("SB", "LB", "+GBN")  # small batches, large ones, and large ones in ghosts
MEMBERS = ["seed", "labels", "rate", "top", "decay"]
OLD = {"rate": 1.0, "top": 1.0, "decay": 1.0, "labels": "group"}  # as notebook 62 has it
RULES = {"adam": "Adam", "muon": "Muon"}
Answers = dict[str, "pd.Series[float]"]


@dataclass(frozen=True, eq=False)
class Asked:
    """`tuning` : stage (the setting that was tried), arm, seed, the settings and what they gave;
    `picks` : arm -> what it chose by setting; `frames` : choice -> the reported runs."""

    tuning: pd.DataFrame
    picks: dict[str, dict[str, float]]
    frames: dict[str, pd.DataFrame]


def chosen(tuning: pd.DataFrame, name: str, measure: str) -> dict[str, float]:
    """Arm -> the value of a setting with the best mean of the measure, the smallest of equal ones.

    tuning : arm, seed, the setting and the measure. Raises ValueError if an arm chooses the
    smallest or largest value: the best may then lie beyond, unless it is zero.
    """
    return {
        str(arm): best_setting(
            own.groupby(name)[measure].mean(), what=f"{name} of {arm!r}", open_end=0.0
        )
        for arm, own in tuning.groupby("arm", sort=False)
    }


def _last_equal(tuning: pd.DataFrame, name: str, measure: str) -> dict[str, float]:
    """As `chosen`, the largest of equal ones, be it an end: what a tie would have given too."""
    return {
        str(arm): float(means.index[means >= means.max() - EQUAL].max())
        for arm, means in tuning.groupby(["arm", name])[measure].mean().unstack(0).items()
    }


def tuned(asked: Asked, measure: str) -> pd.DataFrame:
    """stage, arm, rate, value, own: the mean of the measure over the tuning seeds at every value
    (`rate`, whichever setting it is) that was tried, and whether the arm chose it."""
    frames = []
    for stage, tried in asked.tuning.groupby("stage", sort=False):
        means = tried.groupby(["arm", stage], sort=False)[measure].mean().reset_index()
        picked = means.arm.map({arm: pick.get(stage) for arm, pick in asked.picks.items()})
        means = means.rename(columns={stage: "rate", measure: "value"})
        frames.append(means.assign(stage=stage, own=means.rate == picked))
    return pd.concat(frames, ignore_index=True)


def _by_rate(picks: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {arm: {"rate": rate} for arm, rate in picks.items()}


# --- narrow networks, Adam and Muon ----------------------------------------------------------


def narrow_frame(
    seeds: Sequence[int], arms: Mapping[str, Mapping[str, Any]], **shared: Any
) -> pd.DataFrame:
    """Networks of `narrow_networks`: arm, seed, rule, width, rate, top, decay, train, test, loss,
    found and `WEIGHTS`.

    arms : name -> rule, width and what differs from `OLD`; or a list of such for one name.
    shared : m, share, steps.
    """
    kinds = [
        (arm, {**OLD, **one})
        for arm, given in arms.items()
        for one in (given if isinstance(given, list) else [given])
    ]
    configs = [(arm, {**shared, **kind, "seed": int(s)}) for arm, kind in kinds for s in seeds]
    runs = sweep_stacked(
        narrow_networks, [c for _, c in configs], members=MEMBERS, group=50,
        description="narrow networks", cost=lambda c: float(c["steps"] * c["width"]),
    )  # fmt: skip
    kept = ("seed", "rule", "width", "rate", "top", "decay")
    return pd.DataFrame([
        {"arm": arm, **{name: c[name] for name in kept}, **{k: float(v) for k, v in run.items()}}
        for (arm, c), run in zip(configs, runs, strict=True)
    ])  # fmt: skip


def narrow(
    seeds: Sequence[int], tuning_seeds: Sequence[int], loss_seeds: Sequence[int],
    widths: Sequence[int], grids: Mapping[str, Sequence[float]], **shared: Any,
) -> Asked:  # fmt: skip
    """Adam and Muon at every width, with settings by test accuracy over the tuning seeds, one after
    the other: the rate of W, then that of V at it, then, at the first width, the decay at both.

    grids : values of "rate", "top" and "decay". frames : "own" (both rates), "shared"; at the first
    width "decay" (chosen as well), "random" (the own rates on a random table), "tied" (the largest
    of rates that are equally good, where `chosen` takes the smallest) and "loss" (the own rates,
    loss_seeds). shared : m, share, steps. Raises ValueError if an arm chooses an end of a grid.
    """
    arms = {f"{RULES[r]}, K = {k}": {"rule": r, "width": k} for k in widths for r in RULES}
    first = [arm for arm, one in arms.items() if one["width"] == widths[0]]
    now: dict[str, dict[str, Any]] = {arm: dict(one) for arm, one in arms.items()}
    stages, last = [], {arm: dict(one) for arm, one in arms.items()}
    for name in ("rate", "top", "decay"):
        tried = {arm: now[arm] for arm in (first if name == "decay" else arms)}
        each: dict[str, Any] = {
            arm: [{**one, name: value} for value in grids[name]] for arm, one in tried.items()
        }
        stages.append(narrow_frame(tuning_seeds, each, **shared).assign(stage=name))
        picks, ties = (of(stages[-1], name, "test") for of in (chosen, _last_equal))
        last = {arm: {**one, name: ties[arm]} for arm, one in last.items() if arm in ties}
        now |= {arm: {**one, name: picks[arm]} for arm, one in tried.items()}
    own = {arm: {**one, "decay": OLD["decay"]} for arm, one in now.items()}
    frames: dict[str, Any] = {
        "own": own,
        "shared": arms,
        "decay": {arm: now[arm] for arm in first},
        "random": {arm: {**own[arm], "labels": "random"} for arm in first},
        "tied": {arm: {**last[arm], "decay": OLD["decay"]} for arm in first},
    }
    found = {name: narrow_frame(seeds, each, **shared) for name, each in frames.items()}
    found["loss"] = narrow_frame(loss_seeds, {arm: own[arm] for arm in first}, **shared)
    return Asked(
        pd.concat(stages, ignore_index=True),
        {arm: {k: v for k, v in one.items() if k in grids} for arm, one in now.items()},
        found,
    )


def _pair(frame: pd.DataFrame, width: int, column: str) -> tuple[pd.Series, pd.Series]:
    """A column of Muon and of Adam at a width, by seed."""
    table = frame[frame.width == width].pivot(index="seed", columns="rule", values=column)
    return table.muon, table.adam


def narrow_answers(asked: Asked, choice: str, widths: Sequence[int]) -> Answers:
    """What the claims on narrow networks are about, by question and seed; where the choice is not
    "own", without the choice of decay."""
    frame, found = asked.frames[choice], {}
    for question, width in zip(("muon_narrow", "muon_narrower"), widths, strict=True):
        muon, adam = _pair(frame, width, "test")
        found[question] = muon - adam
    if choice == "own":
        muon, adam = _pair(asked.frames["decay"], widths[0], "test")
        found["muon_decay"] = muon - adam
    for question, column in (("muon_flatter", "rank"), ("muon_structure", "structure")):
        muon, adam = _pair(frame, widths[0], column)
        found[question] = muon / adam
    return found


def loss_difference(asked: Asked) -> pd.Series:
    """Test loss at the first width, Muon minus Adam, by seed of those that are for it alone."""
    frame = asked.frames["loss"]
    muon, adam = _pair(frame, frame.width.iloc[0], "loss")
    return muon - adam


def random_table(asked: Asked) -> pd.Series:
    """Test accuracy on a random table, mean of both rules, by seed."""
    found: pd.Series = asked.frames["random"].groupby("seed", sort=False).test.mean()
    return found


# --- few units that climb --------------------------------------------------------------------


def _covered(
    seeds: Sequence[int], arms: Mapping[str, Sequence[float]], shared: Mapping[str, Any]
) -> pd.DataFrame:
    """arm (the rule), seed, rate, count, pure, purity."""
    configs = [
        {**shared, "seed": int(s), "rule": rule, "rate": rate}
        for rule, rates in arms.items() for rate in rates for s in seeds
    ]  # fmt: skip
    runs = sweep.run(covered_at, configs, description="frequencies found")
    return pd.DataFrame([
        {"arm": c["rule"], "seed": c["seed"], "rate": c["rate"],
         **{name: float(value) for name, value in run.items()}}
        for c, run in zip(configs, runs, strict=True)
    ])  # fmt: skip


def cover(
    seeds: Sequence[int], tuning_seeds: Sequence[int], rates: Sequence[float], **shared: Any
) -> Asked:
    """Gradient ascent and Muon at the rate with which units at a maximum find most frequencies over
    the tuning seeds. shared : m, units, steps. Raises ValueError if a rule chooses an end."""
    rules = ("gradient", "muon")
    tuning = _covered(tuning_seeds, dict.fromkeys(rules, rates), shared)
    picks = chosen(tuning, "rate", "pure")
    frames = {
        "own": _covered(seeds, {rule: [picks[rule]] for rule in rules}, shared),
        "shared": _covered(seeds, dict.fromkeys(rules, (1.0,)), shared),
    }
    return Asked(tuning.assign(stage="rate"), _by_rate(picks), frames)


def cover_answers(asked: Asked, choice: str) -> Answers:
    """Frequencies that few units find, Muon minus gradient ascent, by seed."""
    table = asked.frames[choice].pivot(index="seed", columns="arm", values="count")
    return {"muon_covers": table.muon - table.gradient}


def cover_table(asked: Asked) -> pd.DataFrame:
    """choice, arm and means over seeds of count, pure and purity, of `covered_at`."""
    parts = [
        frame.groupby("arm", sort=False)[["count", "pure", "purity"]].mean().reset_index()
        .assign(choice=choice)
        for choice, frame in asked.frames.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


# --- small and large batches -----------------------------------------------------------------


def _at_rate(kind: str, small: Regime, larger: int, rate: float) -> Regime:
    """The regime of a kind at a rate."""
    own = replace(small, rate=float(rate))
    return own if kind == "SB" else own.larger(larger, ghosts=kind == "+GBN")


def batches(
    data: Dataset, seeds: Sequence[int], tuning_seeds: Sequence[int], rates: Sequence[float],
    n_valid: int, small: Regime, larger: int, **networks: Any,
) -> Asked:  # fmt: skip
    """Small batches, large ones `larger` times as large, and these in ghosts, at the rate of their
    best accuracy on n_valid training images held out over the tuning seeds.

    frames : ends of `regime_frames` by arm of notebook 63's ladder; of "own" + LR is LB, whose rate
    is chosen already. networks : of `regime_frames`. Raises ValueError if a kind chooses an end.
    """
    tried = {
        f"{kind} {rate:g}": (kind, rate, _at_rate(kind, small, larger, rate))
        for kind in KINDS for rate in rates
    }  # fmt: skip
    valid, _ = regime_frames(
        held_out(data, n_valid), tuning_seeds, {name: one[2] for name, one in tried.items()},
        **{**networks, "n_test": n_valid},
    )  # fmt: skip
    tuning = pd.DataFrame({
        "arm": [tried[name][0] for name in valid.arm], "seed": valid.seed,
        "rate": [float(tried[name][1]) for name in valid.arm], "accuracy": valid.accuracy,
    })  # fmt: skip
    picks = chosen(tuning, "rate", "accuracy")
    arms = {kind: _at_rate(kind, small, larger, picks[kind]) for kind in KINDS}
    own, _ = regime_frames(data, seeds, arms, **networks)
    shared, _ = regime_frames(data, seeds, ladder(small, larger, longer=False), **networks)
    both = pd.concat([own, own[own.arm == "LB"].assign(arm="+LR")], ignore_index=True)
    return Asked(tuning.assign(stage="rate"), _by_rate(picks), {"own": both, "shared": shared})


def batch_answers(asked: Asked, choice: str) -> Answers:
    """What the claims on batches are about, by question and seed."""
    ends = asked.frames[choice]
    return {
        "gap": difference(ends, "SB", "LB"),
        "ghosts": difference(ends, "+GBN", "+LR"),
        "epochs_differ": eigenvalue_ratio(ends, "+GBN", "SB"),
    }


def rate_gain(asked: Asked, column: str) -> pd.Series:
    """A column at the arms' own rates minus that at the old ones, mean of all arms, by seed."""
    own, shared = (
        asked.frames[choice].groupby("seed", sort=False)[column].mean() for choice in CHOICES
    )
    gain: pd.Series = own - shared
    return gain


# --- all of them -----------------------------------------------------------------------------


def difference_frame(answers: Mapping[str, Answers]) -> pd.DataFrame:
    """question, choice, seed, value. answers : choice -> question -> values by seed."""
    frames = [
        pd.DataFrame({"question": q, "choice": c, "seed": own.index, "value": own.to_numpy()})
        for c, found in answers.items()
        for q, own in found.items()
    ]
    return pd.concat(frames, ignore_index=True)


def change_frame(answers: Mapping[str, Answers]) -> pd.DataFrame:
    """question, own, shared (means), change, low, high: what the own rates change, with its 95
    percent t-interval over seeds. Of questions that have both."""
    own, shared = (answers[choice] for choice in CHOICES)
    rows = [
        (q, own[q].mean(), shared[q].mean(), *interval((own[q] - shared[q]).tolist(), 0.05))
        for q in own if q in shared
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["question", "own", "shared", "change", "low", "high"])


def weight_table(asked: Asked) -> pd.DataFrame:
    """choice, arm, means over seeds of train, test, loss, found and `WEIGHTS`, and spread, the
    standard deviation of test over seeds."""
    columns = ["train", "test", "loss", "found", *WEIGHTS]
    parts = []
    for choice, frame in asked.frames.items():
        arms = frame.groupby("arm", sort=False)
        table = arms[columns].mean().assign(spread=arms.test.std())
        parts.append(table.reset_index().assign(choice=choice))
    return pd.concat(parts, ignore_index=True)


def batch_table(asked: Asked) -> pd.DataFrame:
    """choice, arm and means over seeds of accuracy, recomputed, train, distance, alpha, leading,
    spikes and share, of `regime_frames`."""
    columns = ["accuracy", "recomputed", "train", "distance", "alpha", "leading", "spikes", "share"]
    parts = [
        asked.frames[choice].groupby("arm", sort=False)[columns].mean().reset_index()
        .assign(choice=choice)
        for choice in CHOICES
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)
