"""Which training examples can be left out: scores early in training, and what they choose.

Paul, Ganguli and Dziugaite (arXiv 2107.07075). A committee of networks scores every example; a
network trained from scratch on the share that a score chooses is held against one on a random
subset of that size, both from the same start and for as many steps. The runs are those of
`data_diet_runs`, `data_diet_conv` and `data_diet_dynamics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.pruning.data_diet_runs import committee, images, needed, retrained
from rclib.experiments.pruning.data_scores import (
    auc,
    rank_correlation,
    split_half,
    wrong_labels,
)
from rclib.runs.stacked import sweep_stacked

__all__ = [
    "KINDS",
    "arms_of",
    "committees_of",
    "extremes",
    "gain",
    "link_gap",
    "link_kinds",
    "over_random",
    "retrained_frame",
    "score_frame",
    "shown_gains",
]

# Kind of subset -> score, whether before training, how many networks are averaged (None: all),
# which end of the order is kept, whether within every class.
KINDS: Mapping[str, tuple[str, bool, int | None, str, bool]] = {
    "random": ("random", False, None, "low", False),
    "EL2N": ("el2n", False, None, "high", False),
    "GraNd": ("grand", False, None, "high", False),
    "lowest EL2N": ("el2n", False, None, "low", False),
    "one network": ("el2n", False, 1, "high", False),
    "forgetting": ("forgetting", False, None, "high", False),
    "input norm": ("norm", False, None, "high", False),
    "permuted": ("permuted", False, None, "high", False),
    "EL2N, balanced": ("el2n", False, None, "high", True),
    "EL2N at start": ("el2n", True, None, "high", False),
    "GraNd at start": ("grand", True, None, "high", False),
    "EL2N at start, balanced": ("el2n", True, None, "high", True),
    "GraNd at start, balanced": ("grand", True, None, "high", True),
    "window": ("el2n", False, None, "offset", False),
}
_MEMBERS = ("seed", "committee", "score", "epoch", "nets", "offset", "balanced")


def arms_of(
    shares: Mapping[str, Sequence[float]],
    noisy: Mapping[str, Sequence[float]],
    *,
    noise: float,
    windows: Sequence[float] = (),
    noisy_windows: Sequence[float] = (),
    window_share: float = 0.4,
) -> pd.DataFrame:
    """One row a kind of subset: kind, share, noise, offset (NaN where the kind says it).

    shares, noisy : kind -> shares that are kept, without and with wrong labels. windows,
    noisy_windows : offsets of windows of `window_share`. Raises ValueError for an unknown kind.
    """
    rows = [(kind, share, 0.0, np.nan) for kind, many in shares.items() for share in many]
    rows += [(kind, share, noise, np.nan) for kind, many in noisy.items() for share in many]
    rows += [("window", window_share, 0.0, offset) for offset in windows]
    rows += [("window", window_share, noise, offset) for offset in noisy_windows]
    unknown = {row[0] for row in rows} - KINDS.keys()
    if unknown:
        raise ValueError(f"kinds must be of {list(KINDS)}, got {min(unknown)!r}")
    return pd.DataFrame(rows, columns=["kind", "share", "noise", "offset"])


def committees_of(seeds: Sequence[int], n_committees: int) -> list[int]:
    """The committee of every seed: the first `n_committees` seeds in turn, so that those of the
    first seeds stay when seeds are added."""
    return [seeds[place % min(n_committees, len(seeds))] for place in range(len(seeds))]


def _configs(
    arms: pd.DataFrame, seeds: Sequence[int], n_committees: int, steps: int,
    scoring: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    for arm in arms.itertuples():
        score, start, nets, end, balanced = KINDS[str(arm.kind)]
        offset = {"low": 0.0, "high": round(1.0 - arm.share, 9), "offset": arm.offset}[end]
        for seed, of in zip(seeds, committees_of(seeds, n_committees), strict=True):
            yield {
                "seed": seed, "committee": of, "score": score,
                "epoch": scoring["epochs"][0 if start else -1],
                "nets": scoring["nets"] if nets is None else nets, "offset": offset,
                "balanced": balanced, "share": arm.share, "noise": arm.noise, "steps": steps,
                "scoring": dict(scoring),
            }  # fmt: skip


def retrained_frame(
    data: Dataset,
    seeds: Sequence[int],
    arms: pd.DataFrame,
    *,
    n_committees: int,
    steps: int,
    group: int,
    **scoring: Any,
) -> pd.DataFrame:
    """Every arm with every seed: kind, share, noise, offset, seed, accuracy, wrong, moved, spikes,
    top, rank, rowcolumn (`retrained`), and unbalance, the most over the mean number of examples of
    a class.

    scoring : of `committee` without seed and noise; epoch 0 comes first. group : how many networks
    are trained at once.
    """
    scored = arms.kind.map(lambda kind: KINDS[kind][0] in ("el2n", "grand", "forgetting"))
    _scored(data, seeds, sorted({*arms.noise[scored]}), n_committees, scoring)
    configs = list(_configs(arms, seeds, n_committees, steps, scoring))
    runs = sweep_stacked(
        retrained,
        configs,
        data=data,
        members=_MEMBERS,
        group=group,
        description="subsets",
        needs=needed,
    )
    names = ("accuracy", "wrong", "moved", "spikes", "top", "rank", "rowcolumn")
    rows = [
        {name: float(run[name]) for name in names}
        | {"unbalance": float(run["labels"].max() / run["labels"].mean())}
        for run in runs
    ]
    repeated = arms.loc[arms.index.repeat(len(seeds))].reset_index(drop=True)
    repeated["seed"] = list(seeds) * len(arms)
    return pd.concat([repeated, pd.DataFrame(rows)], axis=1)


def _scored(
    data: Dataset, seeds: Sequence[int], noises: Sequence[float], n_committees: int,
    scoring: Mapping[str, Any],
) -> dict[tuple[int, float], Mapping[str, np.ndarray]]:  # fmt: skip
    """Committees: (seed, noise) -> arrays."""
    chosen = list(dict.fromkeys(committees_of(seeds, n_committees)))
    keys = [(seed, noise) for noise in noises for seed in chosen]
    configs = [{"seed": seed, "noise": noise, **scoring} for seed, noise in keys]
    # Digits are so small that several committees go together.
    together = 1 if len(data.y_train) > 5000 else max(1, 30 // int(scoring["nets"]))
    runs = sweep_stacked(
        committee, configs, data=data, members=["seed"], group=together, description="committees"
    )
    return dict(zip(keys, runs, strict=True))


def score_frame(
    data: Dataset, seeds: Sequence[int], *, n_committees: int, noise: float, **scoring: Any
) -> pd.DataFrame:
    """What scores are like over training, by committee (seed) and epoch.

    agreement : rank correlation of EL2N and GraNd. reliability, of_grand : of the means over two
    halves of the committee. norm : rank correlation of GraNd with the norm of the input. forgetting
    : of EL2N with the events. auc : of EL2N for wrong labels, where a share `noise` is wrong.
    """
    norms = images(data, scoring["pool"])[0].norm(dim=1).numpy()
    runs = _scored(data, seeds, [0.0, noise], n_committees, scoring)
    rows = []
    for seed in dict.fromkeys(committees_of(seeds, n_committees)):
        clean, dirty = runs[seed, 0.0], runs[seed, noise]
        _, wrong = wrong_labels(data.y_train.numpy(), noise, data.n_classes, seed)
        events = clean["forgetting"].mean(0)
        for k, epoch in enumerate(scoring["epochs"]):
            el2n, grand = clean["el2n"][k], clean["grand"][k]
            rows.append({
                "seed": seed, "epoch": epoch,
                "agreement": rank_correlation(el2n.mean(0), grand.mean(0)),
                "reliability": split_half(el2n), "of_grand": split_half(grand),
                "norm": rank_correlation(grand.mean(0), norms),
                "forgetting": rank_correlation(el2n.mean(0), events),
                "auc": auc(dirty["el2n"][k].mean(0), wrong),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _chosen(
    frame: pd.DataFrame, kind: str, share: float, noise: float, offset: float | None
) -> pd.DataFrame:
    at = frame[(frame.kind == kind) & np.isclose(frame.share, share) & (frame.noise == noise)]
    if offset is not None:
        at = at[np.isclose(at.offset, offset)]
    if at.empty:
        raise ValueError(f"no arm {kind!r} with share {share}, noise {noise}, offset {offset}")
    return at.set_index("seed")


def gain(
    frame: pd.DataFrame,
    kind: str,
    share: float,
    *,
    over: str = "random",
    over_share: float | None = None,
    noise: float = 0.0,
    offset: float | None = None,
) -> pd.Series:
    """Accuracy of one kind of subset minus that of another, from the same starts, by seed.

    offset : of a window. over_share : of the other one, the same by default. Raises ValueError for
    an arm that is not there.
    """
    own = _chosen(frame, kind, share, noise, offset).accuracy
    other = _chosen(frame, over, share if over_share is None else over_share, noise, None).accuracy
    return (own - other).rename("gain")


def link_gap(frame: pd.DataFrame, column: str, share: float) -> pd.Series:
    """A measurement of the weights trained on the highest scores minus that of those trained on the
    lowest, by seed."""
    high, low = (_chosen(frame, kind, share, 0.0, None) for kind in ("EL2N", "lowest EL2N"))
    return (high[column] - low[column]).rename(column)


def over_random(frame: pd.DataFrame) -> pd.DataFrame:
    """Values of `data_diet_dynamics.velocity_frame` over those of random examples, by seed and
    epoch: seed, epoch, group, value, for the other groups."""
    table = frame.pivot_table(index=["seed", "epoch"], columns="group", values="value")
    ratio = table.drop(columns="random").div(table["random"], axis=0)
    return ratio.stack().rename("value").reset_index()


def link_kinds(link: pd.DataFrame) -> pd.Series:
    """What a figure calls the arms whose weights are looked at."""
    names = {"EL2N": "highest EL2N"}
    wrong = link.noise.map(lambda noise: f", {noise:.0%} wrong" if noise else "")
    return link.kind.replace(names) + wrong


def shown_gains(frame: pd.DataFrame) -> pd.DataFrame:
    """Gains over a random subset for a figure: kind, share, noise, offset, gain, error (1.96
    standard errors), accuracy, wrong, unbalance; "all data" against random subsets besides."""
    rows = []
    for (kind, share, noise, offset), arm in frame.groupby(
        ["kind", "share", "noise", "offset"], dropna=False, sort=False
    ):
        if kind == "random" and share < 1:
            continue
        at = [share] if kind != "random" else sorted({*frame.share[frame.noise == noise]} - {1.0})
        for compared in at:
            other = frame[(frame.kind == "random") & (frame.noise == noise)]
            other = other[np.isclose(other.share, compared)]
            if other.empty:
                continue
            gains = arm.set_index("seed").accuracy - other.set_index("seed").accuracy
            rows.append({
                "kind": "all data" if kind == "random" else kind, "share": compared,
                "noise": noise, "offset": offset, "gain": gains.mean(),
                "error": 1.96 * gains.std() / np.sqrt(len(gains)),
                "accuracy": arm.accuracy.mean(), "wrong": arm.wrong.mean(),
                "unbalance": arm.unbalance.mean(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def extremes(
    data: Dataset, seed: int, *, n: int, n_committees: int, **scoring: Any
) -> dict[str, np.ndarray]:
    """The images with the lowest and the highest EL2N at the last epoch, for a figure: name ->
    (n, side, side), or (n, side, side, 3) of values in [0, 1]."""
    run = _scored(data, [seed], [0.0], n_committees, scoring)[seed, 0.0]
    order = np.argsort(run["el2n"][-1].mean(0), kind="stable")
    shown = {}
    for name, places in (("lowest", order[:n]), ("highest", order[-n:])):
        x = data.x_train[places.copy()].numpy()
        channels = 3 if data.name == "cifar10" else 1
        side = round((x.shape[1] / channels) ** 0.5)
        x = np.moveaxis(x.reshape(n, channels, side, side), 1, -1)
        low, high = x.min((1, 2, 3), keepdims=True), x.max((1, 2, 3), keepdims=True)
        shown[name] = ((x - low) / (high - low)).squeeze(-1) if channels == 1 else x
    return shown
