"""What notebook 92 claims, as values by seed, from the frames of `awrs`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from rclib.experiments.language.awrs import HEAVY

__all__ = [
    "across",
    "at",
    "by_seed",
    "chain_values",
    "change",
    "corrected",
    "counted_over_closed",
    "left",
    "link_rank",
    "link_values",
    "local_values",
    "loss_rank",
    "rejection_gain",
    "reversal",
    "text_values",
    "within",
]

Values = dict[str, pd.Series]


def by_seed(frame: pd.DataFrame, column: str) -> pd.Series:
    """Mean of a column over everything else, by seed."""
    found: pd.Series = frame.groupby("seed", sort=False)[column].mean()
    return found


def at(frame: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """Rows with these values. Raises ValueError if there are none."""
    kept = frame
    for column, value in where.items():
        kept = kept[kept[column] == value]
    if kept.empty:
        raise ValueError(f"frame must hold {where}")
    return kept


def left(frame: pd.DataFrame, **where: Any) -> pd.Series:
    """Distance over that of the masked law, two runs with 50 particles, by seed."""
    own = at(frame, arm="two runs", size=50, **where)
    return by_seed(own.assign(left=own.tv / own.masked_tv), "left")


def rejection_gain(laws: pd.DataFrame, **where: Any) -> pd.Series:
    """Checks of rejection over those of a draw without replacement, both until the first accepted
    token, geometric mean over the sets, by seed."""
    table = at(laws, **where).pivot_table(index=["seed", "set"], columns="method", values="first")
    ratio = np.log(table["rejection"] / table["two runs"]).rename("gain").reset_index()
    return np.exp(by_seed(ratio, "gain"))


def _rank(frame: pd.DataFrame) -> float:
    """Spearman correlation of -log Z with the checks."""
    return float(spearmanr(-np.log(frame.z), frame.checks).statistic)


def _two_runs(laws: pd.DataFrame) -> pd.DataFrame:
    return at(laws, method="two runs", heavy=0)


def within(laws: pd.DataFrame) -> pd.Series:
    """Smallest over the exponents of the rank correlation of -log Z with checks, by seed."""
    parts = _two_runs(laws).groupby(["seed", "exponent"])[["z", "checks"]]
    return parts.apply(_rank).groupby("seed").min()


def across(laws: pd.DataFrame) -> pd.Series:
    """The same over all exponents together."""
    return _two_runs(laws).groupby("seed")[["z", "checks"]].apply(_rank)


def reversal(laws: pd.DataFrame, column: str) -> pd.Series:
    """Mean log of a column at the largest exponent over the smallest, one accepted token, by
    seed. column : "checks", or "inverse z" for 1 / Z."""
    one = at(_two_runs(laws), accepted=1)
    own = one.assign(value=np.log(1 / one.z if column == "inverse z" else one[column]))
    ends = [at(own, exponent=e) for e in (own.exponent.max(), own.exponent.min())]
    return by_seed(ends[0], "value") - by_seed(ends[1], "value")


def counted_over_closed(laws: pd.DataFrame, method: str) -> pd.Series:
    """Counted checks over their closed mean, mean over cells and sets, by seed."""
    own = at(laws, method=method)
    return by_seed(own.assign(ratio=own.checks / own.closed), "ratio")


def link_rank(link: pd.DataFrame, column: str) -> pd.Series:
    """Spearman correlation over chains of a column with tv, by seed."""
    parts = link.assign(value=link[column]).groupby("seed")[["value", "tv"]]
    return parts.apply(lambda own: float(spearmanr(own.value, own.tv).statistic))


def change(words: pd.DataFrame, which: str, method: str, one: str, other: str) -> pd.Series:
    """Checks a token of one model over another's, on a list, by seed."""
    own = at(words, list=which, method=method)
    return by_seed(at(own, model=one), "checks") / by_seed(at(own, model=other), "checks")


def loss_rank(words: pd.DataFrame, which: str) -> pd.Series:
    """Spearman correlation over models of the loss with checks in two runs, by seed."""
    own = at(words, list=which, method="two runs").groupby("seed")[["loss", "checks"]]
    return own.apply(lambda part: float(spearmanr(part.loss, part.checks).statistic))


def local_values(moments: pd.DataFrame, laws: pd.DataFrame, *, V: int) -> Values:
    """Of single draws, from `exact_frame` and `law_frame` of V tokens."""
    half = {"exponent": 1.0, "accepted": 500, "heavy": 0}
    rare = at(laws, exponent=1.5, accepted=10, method="two runs")
    checks = [by_seed(moments, f"checks, {name}") for name in ("recursive", "two runs")]
    return {
        "two_runs_unbiased": by_seed(moments, "error, two runs"),
        "recursive_unbiased": by_seed(moments, "error, recursive"),
        "recursive_spread": by_seed(moments, "smaller"),
        "recursive_checks": checks[0] / checks[1],
        "mass_alone": by_seed(moments, "bias, mass alone"),
        "few_checks": by_seed(rare, "checks") / V,
        "heavy_gain": rejection_gain(laws, heavy=int(HEAVY[2])),
        "no_gain": rejection_gain(laws, **half),
        "cost_within": within(laws),
        "cost_across": across(laws),
        "cost_order": reversal(laws, "checks"),
        "closed_form": counted_over_closed(laws, "two runs"),
    }


def chain_values(chains: pd.DataFrame) -> Values:
    """Of particles on chains, from `chain_frame` with 1 and 64 particles."""
    wide = at(chains, total=chains.total.max())
    chains = at(chains, total=chains.total.min())
    masked = by_seed(chains, "masked_tv")
    one, many, exact = (
        by_seed(at(chains, arm=arm, size=size), "tv")
        for arm, size in (("two runs", 1), ("two runs", 64), ("masking", 64))
    )
    sampled = by_seed(at(chains, arm="masking", size=1), "tv")
    unweighted = by_seed(at(chains, arm="two runs, weight 1", size=64), "tv")
    return {
        "masking_biased": masked,
        "smc_close": many,
        "smc_gain": masked - many,
        "smc_bias": by_seed(wide, "tv"),
        "price": many - exact,
        "evidence": by_seed(at(chains, arm="two runs", size=64), "ratio"),
        "one_particle": (one - sampled).abs(),
        "weight_one": (unweighted - sampled).abs(),
    }


def link_values(link: pd.DataFrame) -> Values:
    """Of the masked matrix, from `link_frame`."""
    return {
        "spread_predicts": link_rank(link, "spread"),
        "rc_at_chance": by_seed(link, "rc"),
        "rc_predicts_little": link_rank(link.assign(strength=link.rc.abs()), "strength"),
        "perron": link.groupby("seed").perron.max(),
        "equal_rows": link.groupby("seed").equal.max(),
    }


def text_values(lines: pd.DataFrame, words: pd.DataFrame, drawn: pd.DataFrame, *, V: int) -> Values:
    """Of texts, from `line_frame` (V tokens in "words"), `word_frame` and `word_sampled`."""
    likely = at(lines, task="words", arm="two runs", size=50)
    best = max(name for name in words.model if name.endswith("-gram"))
    other = at(words, list="relettered")
    ends = [by_seed(at(other, model=name), "surprise") for name in (best, "1-gram")]
    further = ends[0] - ends[1]
    return {
        "brackets": left(lines, task="brackets"),
        "ending": left(lines, task="ending"),
        "likelier": by_seed(likely, "log_p") - by_seed(likely, "masked_log_p"),
        "text_checks": by_seed(likely, "closed two runs") / V,
        "completion": left(drawn, model="3-gram"),
        "better_cheaper": change(words, "natural", "two runs", best, "1-gram"),
        "loss_orders": loss_rank(words, "natural"),
        "other_words": change(words, "relettered", "two runs", best, "1-gram"),
        "other_words_rejection": np.log10(change(words, "relettered", "rejection", best, "1-gram")),
        "other_words_surprise": further,
    }


def corrected(lines: pd.DataFrame, drawn: pd.DataFrame) -> pd.DataFrame:
    """task, seed, arm, size, tv, masked_tv, floor of the tasks whose laws can be told from
    samples, and of the completion by the 3-gram."""
    columns = ["task", "seed", "arm", "size", "tv", "masked_tv", "floor"]
    own = at(drawn, model="3-gram").assign(task="completion")
    return pd.concat([lines[lines.task != "words"][columns], own[columns]], ignore_index=True)
