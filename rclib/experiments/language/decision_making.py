"""Frames and values of notebook 91: policies that start from language models, by arm and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.household import OBJECTS
from rclib.data.text import TextData
from rclib.experiments.language.decision_gathering import GATHERED, gathering_runs
from rclib.experiments.language.decision_inputs import WORDS
from rclib.experiments.language.decision_runs import MEMBERS, TESTS, language_runs, policy_runs
from rclib.experiments.language.decision_texts import MEASURES
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays

__all__ = [
    "arm_frame",
    "attention_frame",
    "curve_frame",
    "gathering_frame",
    "gathering_values",
    "language_frame",
    "language_values",
    "main_values",
    "more_values",
    "origin_frames",
    "over_seeds",
    "policies",
]

GATHERERS = ("LM", "scratch, small")
GROUP = 5  # seeds that are trained side by side, one look's
Runs = Mapping[tuple[str, int], Arrays]
Values = dict[str, "pd.Series[float]"]


def policies(
    data: TextData, seeds: Sequence[int], arms: Sequence[str], settings: Mapping[str, Any]
) -> dict[tuple[str, int], Arrays]:
    """(arm, seed) -> `policy_runs`; settings : its net, language and cloning."""
    keys = [(arm, int(seed)) for arm in arms for seed in seeds]
    configs = [{**settings, "arm": arm, "seed": seed} for arm, seed in keys]
    runs = sweep_stacked(
        policy_runs, configs, members=MEMBERS, data=data, group=GROUP, description="policies"
    )
    return dict(zip(keys, runs, strict=True))


def arm_frame(runs: Runs) -> pd.DataFrame:
    """arm, seed, success on each of `TESTS` at the end, verbs and entities (share of right ones,
    novel pairs), the same in distribution, loss and matching of both blocks after cloning."""
    rows = []
    for (arm, seed), run in runs.items():
        known, novel = run["accuracy"]
        rows.append({
            "arm": arm, "seed": seed, **dict(zip(TESTS, map(float, run["end"]), strict=True)),
            "verbs": novel[0], "entities": novel[1], "verbs, known": known[0],
            "entities, known": known[1], "loss": float(run["loss"]),
            "matching": float(run["matching"].max()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def curve_frame(runs: Runs, checkpoints: Sequence[int]) -> pd.DataFrame:
    """arm, seed, step, success on novel pairs."""
    rows = [
        (arm, seed, step, float(value))
        for (arm, seed), run in runs.items()
        for step, value in zip(checkpoints, run["curve"], strict=True)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "success"])


def attention_frame(run: Arrays) -> pd.DataFrame:
    """entity, word, weight, row, column: attention of one episode from entities to the words of its
    goal, with names as "o7" for objects and "r3" for receptacles."""
    names = [
        "" if name < 0 else f"o{name}" if name < OBJECTS else f"r{name - OBJECTS}"
        for name in run["shown"].tolist()
    ]
    rows = [
        (entity, word, float(run["attention"][row, column]), row, column)
        for row, entity in enumerate(names[WORDS:])
        for column, word in enumerate(names[:WORDS])
        if word
    ]
    return pd.DataFrame(rows, columns=["entity", "word", "weight", "row", "column"]).round(4)


def language_frame(
    data: TextData, seeds: Sequence[int], kinds: Sequence[str], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """kind, seed, steps, block, loss (nan at the start) and `decision_texts.MEASURES`.

    settings : net and language of `language_runs`; others are left aside.
    """
    keys = [(kind, int(seed)) for kind in kinds for seed in seeds]
    own = {name: settings[name] for name in ("net", "language")}
    configs = [{**own, "kind": kind, "seed": seed} for kind, seed in keys]
    runs = sweep_stacked(
        language_runs, configs, members=MEMBERS, data=data, group=GROUP, description="texts"
    )
    marks = [0, *sorted(settings["language"]["marks"])]
    rows = [
        (kind, seed, steps, block, float(loss), *map(float, values))
        for (kind, seed), run in zip(keys, runs, strict=True)
        for steps, loss, blocks in zip(marks, [np.nan, *run["loss"]], run["measures"], strict=True)
        for block, values in enumerate(blocks)
    ]
    return pd.DataFrame(rows, columns=["kind", "seed", "steps", "block", "loss", *MEASURES])


def gathering_frame(
    data: TextData, seeds: Sequence[int], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """arm, relabelled, seed, success on `GATHERED`, first and last (goals reached while exploring),
    examples; empty where nothing is gathered.

    settings : net, language and gathering of `gathering_runs`; gathering may be empty, others are
    left aside.
    """
    names = ["arm", "relabelled", "seed", *GATHERED, "first", "last", "examples"]
    if not settings["gathering"]:
        return pd.DataFrame(columns=names)
    keys = [(a, again, int(s)) for a in GATHERERS for again in (True, False) for s in seeds]
    own = {name: settings[name] for name in ("net", "language", "gathering")}
    configs = [{**own, "arm": a, "relabel": again, "seed": s} for a, again, s in keys]
    runs = sweep_stacked(
        gathering_runs, configs, members=MEMBERS, data=data, group=GROUP, description="gathering"
    )
    rows = [
        (*key, *map(float, run["end"]), float(run["explored"][0]), float(run["explored"][-1]),
         int(run["examples"][-1]))
        for key, run in zip(keys, runs, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def over_seeds(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Means of all other columns over the seeds, by the keys."""
    own = frame.drop(columns="seed").groupby(list(keys), sort=False)
    return own.mean().reset_index().round(3)


def origin_frames(
    arms: pd.DataFrame, languages: pd.DataFrame, gathered: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """What the figure of origins shows: arm, seed, success on novel pairs; kind (and "start"),
    seed, value of matching in the first block; arm, relabelled, seed, success on one novel pair."""
    success = arms[["arm", "seed", "novel pairs"]].rename(columns={"novel pairs": "success"})
    first = languages[languages.block == 0]
    start = first[(first.steps == 0) & (first.kind == "text")].assign(kind="start")
    both = pd.concat([first[first.steps == first.steps.max()], start])
    matching = both[["kind", "seed", "matching"]].rename(columns={"matching": "value"}).round(4)
    found = gathered[["arm", "relabelled", "seed", GATHERED[1]]]
    return success, matching, found.rename(columns={GATHERED[1]: "success"})


def _of(frame: pd.DataFrame, column: str, **where: Any) -> pd.Series[float]:
    """A column by seed. Raises ValueError if there are no such rows."""
    kept = frame
    for name, value in where.items():
        kept = kept[kept[name] == value]
    if kept.empty:
        raise ValueError(f"frame must hold {where}")
    found: pd.Series[float] = kept.set_index("seed")[column].astype(float)
    return found


class _Arms(dict[str, "pd.Series[float]"]):
    """Success by arm; nothing for one that was not run."""

    def __missing__(self, arm: str) -> pd.Series[float]:
        return pd.Series(dtype=float)


def _by_arm(frame: pd.DataFrame, column: str) -> _Arms:
    return _Arms({arm: _of(frame, column, arm=arm) for arm in frame.arm.unique()})


def _there(values: Values) -> Values:
    """Without differences to an arm that was not run."""
    known = {key: value.dropna() for key, value in values.items()}
    return {key: value for key, value in known.items() if len(value)}


def main_values(arms: pd.DataFrame, curves: pd.DataFrame, early: int) -> Values:
    """What is claimed of scratch, small tables, texts and single symbols, by seed, where the arms
    were run. early : number of updates at which the two tables are compared first."""
    novel, first = _by_arm(arms, "novel pairs"), _by_arm(curves[curves.step == early], "success")
    known, three = _by_arm(arms, "in distribution"), _by_arm(arms, "three pairs")
    small = "scratch, small"
    return _there({
        "lm_helps": novel["LM"] - novel[small],
        "scale_early": first[small] - first["scratch"],
        "scale_late": novel[small] - novel["scratch"],
        "iid": novel["LM, i.i.d."] - novel[small],
        "learned": novel["LM"],
        "gap": known["LM"] - novel["LM"],
        "three": three["LM"],
        "matching_cloned": _by_arm(arms, "matching")[small],
    })  # fmt: skip


def more_values(arms: pd.DataFrame) -> Values:
    """What is claimed of the other arms, by seed, where they were run."""
    novel = _by_arm(arms, "novel pairs")
    lm, small = novel["LM"], novel["scratch, small"]
    return _there({
        "names": novel["names permuted"] - lm,
        "trunk": novel["trunk only"] - novel["embeddings only"],
        "entries": lm - novel["entries shuffled"],
        "mlp": novel["MLP"],
        "frozen": novel["frozen"],
        "longer": novel["LM, 1500"] - lm,
        "copies": novel["LM, copies"] - small,
        "pairs": novel["LM, pairs"] - small,
        "words": novel["LM, words"] - lm,
        "scrambled": lm - novel["scrambled"],
        "fixed_order": lm - novel["fixed order"],
    })  # fmt: skip


def gathering_values(frame: pd.DataFrame) -> Values:
    """What is claimed of active gathering, by seed; nothing of an empty frame."""
    if frame.empty:
        return {}

    def end(arm: str, again: bool, test: int) -> pd.Series[float]:
        return _of(frame, GATHERED[test], arm=arm, relabelled=again)

    return {
        "relabelled": end("LM", True, 1) - end("LM", False, 1),
        "gathering_lm": end("LM", True, 1) - end("scratch, small", True, 1),
        "gathering_two": end("LM", True, 2),
    }


def language_values(frame: pd.DataFrame) -> Values:
    """What is claimed of the language models' weights, by seed, at their last mark; the start is
    that of both kinds."""
    last = int(frame.steps.max())

    def own(measure: str, kind: str, steps: int, block: int | None = None) -> pd.Series[float]:
        rows = frame[(frame.kind == kind) & (frame.steps == steps)]
        rows = rows if block is None else rows[rows.block == block]
        found: pd.Series[float] = rows.groupby("seed", sort=False)[measure].mean()
        return found

    return {
        "matching_text": own("matching", "text", last, 0),
        "matching_iid": own("matching", "i.i.d.", last, 0),
        "matching_start": own("matching", "text", 0, 0),
        "spikes_text": own("spikes", "text", last),
        "spikes_iid": own("spikes", "i.i.d.", last),
        "spikes_start": own("spikes", "text", 0),
        "rc_text": own("rc", "text", last),
        "rc_iid": own("rc", "i.i.d.", last),
    }
