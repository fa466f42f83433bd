"""Frames of notebook 96: what does pre-training leave in the weights that its uses draw on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.text import TextData, load_text, named_text
from rclib.data.two_texts import two_texts
from rclib.experiments.language.pretraining_runs import MEASURES, USES, leaves_run
from rclib.runs import sweep

__all__ = ["difference", "grown", "leaves", "part_table", "rank_agreement", "share_kept", "texts"]


def texts(names: Sequence[str] | None, most: int) -> TextData:
    """The two texts of a notebook's parameters as one (`rclib.data.two_texts`): the first to
    pre-train on, the second to use. Without names, the language reference that ships with Python:
    its training part, then its held-out part."""
    if names is None:
        return load_text("python")
    source, target = (named_text(name) for name in names)
    return two_texts(source, target, most)


def leaves(
    data: TextData, seeds: Sequence[int], settings: Mapping[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """losses : use, arm, seed, start, loss. kept : use, arm, seed, measure, value, where use
    "before" has arms "random" (the base's start) and "base"."""
    seeds = [int(s) for s in seeds]
    found = sweep.run(leaves_run, [{**settings, "seed": s} for s in seeds], data=data)
    losses, kept = [], []
    for seed, run in zip(seeds, found, strict=True):
        for use in [u for u in USES if u in settings["uses"]]:
            arms = settings["uses"][use]["arms"]
            for arm, *own in zip(arms, run[f"start_{use}"], run[f"loss_{use}"], strict=True):
                losses.append((use, arm, seed, *map(float, own)))
            for arm, values in zip(arms, run[f"kept_{use}"], strict=True):
                kept += [(use, arm, seed, m, v) for m, v in zip(MEASURES, values, strict=True)]
        for arm, values in zip(("random", "base"), run["base"], strict=True):
            kept += [("before", arm, seed, m, v) for m, v in zip(MEASURES, values, strict=True)]
    return (
        pd.DataFrame(losses, columns=["use", "arm", "seed", "start", "loss"]),
        pd.DataFrame(kept, columns=["use", "arm", "seed", "measure", "value"]),
    )


def _losses(losses: pd.DataFrame, use: str, what: str) -> pd.DataFrame:
    """(seeds, arms) of one use. Raises ValueError for a use that was not run."""
    own = losses[losses.use == use]
    if own.empty:
        raise ValueError(f"use must be one of {sorted(set(losses.use))}, got {use!r}")
    return own.pivot(index="seed", columns="arm", values=what)


def difference(
    losses: pd.DataFrame, use: str, arm: str, other: str, what: str = "loss"
) -> pd.Series:
    """Loss of an arm minus that of another, by seed."""
    own = _losses(losses, use, what)
    found: pd.Series = own[arm] - own[other]
    return found


def share_kept(losses: pd.DataFrame, use: str, arm: str) -> pd.Series:
    """How much of the gain of all matrices over none an arm has, by seed:
    (loss of "tables" - loss of the arm) / (loss of "tables" - loss of "all")."""
    own = _losses(losses, use, "loss")
    found: pd.Series = (own["tables"] - own[arm]) / (own["tables"] - own["all"])
    return found


def grown(kept: pd.DataFrame, measure: str) -> pd.Series:
    """A measure of the base minus that of its start, by seed."""
    own = kept[(kept.use == "before") & (kept.measure == measure)]
    table = own.pivot(index="seed", columns="arm", values="value")
    found: pd.Series = table["base"] - table["random"]
    return found


def rank_agreement(losses: pd.DataFrame, use: str, parts: Sequence[str]) -> pd.Series:
    """Spearman's correlation over arms of the loss before and after training, by seed: whether what
    a part is worth can be read before it is used."""
    before, after = (_losses(losses, use, what)[list(parts)] for what in ("start", "loss"))
    found = {
        seed: float(np.corrcoef(before.loc[seed].rank(), after.loc[seed].rank())[0, 1])
        for seed in before.index
    }
    return pd.Series(found, dtype=float).rename_axis("seed")


def part_table(losses: pd.DataFrame) -> pd.DataFrame:
    """use, arm, seed, start, loss, gain: loss of "tables" minus the arm's, after training."""
    frames = []
    for use in dict.fromkeys(losses.use):
        own = losses[losses.use == use]
        base = own[own.arm == "tables"].set_index("seed").loss
        frames.append(own.assign(gain=own.seed.map(base) - own.loss))
    return pd.concat(frames, ignore_index=True).round(4)
