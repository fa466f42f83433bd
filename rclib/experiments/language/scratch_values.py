"""What notebook 90 claims of its networks, by seed, from the frames of `never_from_scratch`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

__all__ = ["digit_values", "jackknifed_rank_correlation", "row_peak", "sequence_values"]

Values = dict[str, pd.Series]
T, S = "transformer", "ssm"


def _of(frame: pd.DataFrame, column: str, **where: Any) -> pd.Series:
    """A column by seed. Raises ValueError if there are no such rows."""
    kept = frame
    for name, value in where.items():
        kept = kept[kept[name] == value]
    if kept.empty:
        raise ValueError(f"frame must hold {where}")
    found: pd.Series = kept.set_index("seed")[column]
    return found


def _gain(frame: pd.DataFrame, kind: str) -> pd.Series:
    """Accuracy after denoising minus that from scratch."""
    return _of(frame, "test", kind=kind, arm="denoised") - _of(
        frame, "test", kind=kind, arm="scratch"
    )


def _gap(frame: pd.DataFrame, arm: str) -> pd.Series:
    """Accuracy of the state-space model minus that of the Transformer."""
    return _of(frame, "test", kind=S, arm=arm) - _of(frame, "test", kind=T, arm=arm)


def jackknifed_rank_correlation(a: pd.Series, b: pd.Series) -> pd.Series:
    """Pseudo-values n r - (n - 1) r_i of Spearman's r of two columns, r_i without seed i.

    Their mean is the estimate and their spread its standard error (Tukey 1958). Raises ValueError
    for fewer than 4 seeds.
    """
    n = len(a)
    if n < 4:
        raise ValueError(f"a must have at least 4 seeds, got {n}")
    b = b.reindex(a.index)

    def r(kept: Any) -> float:
        value = float(spearmanr(a[kept], b[kept]).statistic)
        return 0.0 if np.isnan(value) else value

    everything = r(np.ones(n, dtype=bool))
    return pd.Series(
        [n * everything - (n - 1) * r(np.arange(n) != place) for place in range(n)], index=a.index
    )


def row_peak(kernels: pd.DataFrame, side: int) -> pd.Series:
    """K_max at the distance of one row, lag `side`, over the mean of its two neighbours; of
    structured kernels, after denoising minus start, by seed. kernels : of `kernel_frame`."""
    own = kernels[kernels.init == "structured"].set_index(["moment", "seed", "lag"])["size"]

    def ratio(moment: str) -> pd.Series:
        table = own[moment].unstack("lag")
        found: pd.Series = 2 * table[side] / (table[side - 1] + table[side + 1])
        return found

    return ratio("denoised") - ratio("start")


def digit_values(frame: pd.DataFrame, kernels: pd.DataFrame) -> Values:
    """What is claimed of the digits, by seed, from `digit_frame` and `kernel_frame`; of variants
    only what the frame holds."""
    by = {variant: frame[frame.variant == variant] for variant in frame.variant.unique()}
    plain = by["plain"]
    denoised, labels = ({"kind": T, "arm": arm} for arm in ("denoised", "scratch"))

    def sides(moment: str, where: Mapping[str, str]) -> pd.DataFrame:
        pair = {side: _of(plain, f"{side}, {moment}", **where) for side in ("rows", "columns")}
        return pd.DataFrame(pair)

    def over_labels(name: str) -> pd.Series:
        return _of(plain, f"{name}, denoised", **denoised) - _of(plain, f"{name}, end", **labels)

    def frozen(kind: str) -> pd.Series:
        own = {"kind": kind, "arm": "denoised"}
        return _of(plain, "frozen, denoised", **own) - _of(plain, "frozen, start", **own)

    found = {
        "gap": _gap(plain, "scratch"),
        "gain": _gain(plain, T),
        "halved": _gap(plain, "denoised") - _gap(plain, "scratch") / 2,
        "level": _gap(plain, "denoised"),
        "losses": _of(plain, "denoising", **denoised)
        - _of(plain, "denoising", kind=S, arm="denoised"),
        "row_peak": row_peak(kernels, 8),
        "near": _of(plain, "near, denoised", **denoised),
        "near_labels": _of(plain, "near, end", **labels),
        "grid": sides("denoised", denoised).min(axis=1),
        "grid_labels": sides("end", labels).abs().max(axis=1),
        "frozen": frozen(T),
        "frozen_ssm": frozen(S),
        "spikes": over_labels("table"),
        "scores": over_labels("scores"),
        "rc": _of(plain, "rc, denoised", **denoised),
    }
    if "more images" in by:
        larger = by["more images"]
        few = plain[plain.seed.isin(larger.seed)]
        found |= {
            "larger_gap": _gap(larger, "scratch"),
            "larger_halved": _gap(larger, "denoised") - _gap(larger, "scratch") / 2,
            "scarcity": _gain(few, T) - _gain(larger, T),
            "scarcity_ssm": _gain(few, S) - _gain(larger, S),
        }
    if "random kernels" in by:
        random = by["random kernels"]
        few = plain[plain.seed.isin(random.seed)]
        made = {
            arm: _of(few, "test", kind=S, arm=arm) - _of(random, "test", kind=S, arm=arm)
            for arm in ("scratch", "denoised")
        }
        found["kernels"] = made["scratch"]
        found["redundant"] = made["denoised"] - made["scratch"] / 2
    if "shuffled pixels" in by:
        shuffled = _of(by["shuffled pixels"], "test", kind=T, arm="shuffled")
        found["shuffled"] = shuffled - _of(plain, "test", **labels)[shuffled.index]
    return found


def sequence_values(frame: pd.DataFrame, best_loss: float) -> Values:
    """What is claimed of the generated sequences, by seed, from `sequence_frame`.

    best_loss : the lowest possible denoising loss of the texture.
    """
    own = {task: frame[(frame.task == task) & ~frame.permuted] for task in frame.task.unique()}
    texture, moved = own["texture"], frame[(frame.task == "texture") & frame.permuted]

    def lost(kind: str) -> pd.Series:
        where = {"kind": kind, "arm": "scratch"}
        return _of(texture, "test", **where) - _of(moved, "test", **where)

    denoised = {"kind": T, "arm": "denoised"}
    near = _of(texture, "near, denoised", **denoised)
    losses = pd.DataFrame({k: _of(texture, "denoising", kind=k, arm="denoised") for k in (T, S)})
    found = {
        "texture_gap": _gap(texture, "scratch"),
        "texture_gain": _gain(texture, T),
        "texture_gain_ssm": _gain(texture, S),
        "texture_near": near - _of(texture, "near, end", kind=T, arm="scratch"),
        "texture_rank": jackknifed_rank_correlation(near, _of(texture, "test", **denoised)),
        "texture_bound": losses.min(axis=1) - best_loss,
        "permuted": lost(S),
        "permuted_won": _gain(moved, S) - lost(S) / 2,
        "permuted_transformer": lost(T),
        "counting": _gain(own["counting"], T),
    }
    for task in ("retrieval", "lists"):
        if task in own:
            found[f"{task}_gain"] = _gain(own[task], T)
            found[f"{task}_gain_ssm"] = _gain(own[task], S)
    return found
