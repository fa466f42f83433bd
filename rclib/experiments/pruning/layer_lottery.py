"""Whole layers pruned before training, against units, and what the choice of layers matters.

Jordao et al. (arXiv 2301.10835): residual blocks are scored on the untrained network, those with
the lowest scores are deleted, and the rest is trained from its start. A ticket is held against the
dense network of the same start and batches. The runs are those of `layer_runs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.pruning.layer_runs import CRITERIA, block_scores, step_times, tickets
from rclib.runs.stacked import sweep_stacked
from rclib.stats.sequential import interval

__all__ = [
    "claim_values",
    "conv_values",
    "cut_frame",
    "gap",
    "gap_table",
    "inside_frame",
    "kept_blocks",
    "scores_of",
    "speed_frame",
    "ticket_frame",
    "time_ratios",
    "value",
]

MEASURES = (
    "accuracy", "cost", "weights", "moved", "spikes", "top", "spikes_start",
)  # fmt: skip


def kept_blocks(scores: np.ndarray, removed: int) -> list[int]:
    """Blocks with the highest scores (L,), ascending; of equal ones the later stay."""
    return sorted(np.argsort(scores, kind="stable")[removed:].tolist())


def scores_of(
    data: Dataset, seeds: Sequence[int], *, group: int, **settings: Any
) -> dict[int, Mapping[str, np.ndarray]]:
    """seed -> arrays of `block_scores`."""
    runs = sweep_stacked(
        block_scores, [{"seed": int(seed), "net": settings} for seed in seeds], data=data,
        members=["seed"], group=group, description="scores of blocks",
    )  # fmt: skip
    return dict(zip(map(int, seeds), runs, strict=True))


def ticket_frame(
    data: Dataset, seeds: Sequence[int], plan: Sequence[Mapping[str, Any]], *, group: int,
    **settings: Any,
) -> pd.DataFrame:  # fmt: skip
    """One row a network: arm ("dense", "layers", "units"), criterion, removed, seed, what `tickets`
    measures, gap (accuracy less that of the dense network), and lost, the gap over what the network
    without any block lacks, of the means over seeds ("linear" of all seeds).

    plan : mappings with removed (blocks), criteria (of `CRITERIA`) and units: criteria by which
    inner units go instead, as many as make the blocks' weights equal. The dense network and that
    without blocks are added. group : how many networks are trained at once. Raises ValueError for
    another criterion.
    """
    blocks, inner = settings["blocks"], settings["inner"]
    scores = scores_of(data, seeds, group=group, **settings)
    whole: list[Mapping[str, Any]] = [
        {"removed": 0, "criteria": ["random"]}, {"removed": blocks, "criteria": ["random"]},
    ]  # fmt: skip
    keys, configs = [], []
    for entry in [*whole, *plan]:
        removed = int(entry["removed"])
        for criterion in entry["criteria"]:
            if criterion not in CRITERIA:
                raise ValueError(f"criteria must be of {list(CRITERIA)}, got {criterion!r}")
            for seed in seeds:
                arm = {0: "dense", blocks: "linear"}.get(removed, "layers")
                keys.append((arm, criterion, removed, int(seed)))
                kept = kept_blocks(scores[int(seed)][criterion], removed)
                configs.append({"seed": int(seed), "kept": kept, "removed": removed, "units": "",
                                "left": inner, "net": settings})  # fmt: skip
        for criterion in entry.get("units", ()):
            left = max(1, round(inner * (blocks - removed) / blocks))
            for seed in seeds:
                keys.append(("units", criterion, removed, int(seed)))
                configs.append({"seed": int(seed), "kept": [*range(blocks)], "removed": 0,
                                "units": criterion, "left": left, "net": settings})  # fmt: skip
    runs = sweep_stacked(
        tickets, configs, data=data, members=["seed", "kept"], group=group, description="tickets"
    )
    frame = pd.DataFrame(keys, columns=["arm", "criterion", "removed", "seed"])
    for name in MEASURES:
        frame[name] = [float(run[name]) for run in runs]
    dense = frame[frame.arm == "dense"].set_index("seed").accuracy
    stake = dense.mean() - frame[frame.arm == "linear"].accuracy.mean()
    frame["gap"] = frame.accuracy - frame.seed.map(dense)
    frame["lost"] = -frame.gap / stake
    return frame


def value(
    frame: pd.DataFrame, what: str, criterion: str, removed: int, arm: str = "layers"
) -> pd.Series:
    """A column of one arm, by seed. Raises ValueError for an arm that is not there."""
    own = frame[(frame.arm == arm) & (frame.removed == removed)]
    own = own[own.criterion == criterion]
    if own.empty:
        raise ValueError(f"{arm} by {criterion!r}, {removed} removed: not run")
    found: pd.Series = own.set_index("seed")[what]
    return found


def gap(
    frame: pd.DataFrame, criterion: str, removed: Sequence[int], *, arm: str = "layers",
    over: tuple[str, str] | None = None,
) -> pd.Series:  # fmt: skip
    """Accuracy less that of the dense network, or of another (arm, criterion), by seed, mean over
    several numbers of removed blocks."""
    rows = []
    for p in removed:
        base = 0.0 if over is None else value(frame, "gap", over[1], p, over[0])
        rows.append(value(frame, "gap", criterion, p, arm) - base)
    return (pd.concat(rows, axis=1).mean(axis=1)).rename("gap")


def claim_values(
    frame: pd.DataFrame, scores: Mapping[int, Mapping[str, np.ndarray]], *,
    pooled: Sequence[int], most: int, blocks: int,
) -> dict[str, pd.Series]:  # fmt: skip
    """Values by seed of the claims about networks on vectors, by the claim's key.

    pooled : three numbers of removed blocks, few to many. most : nearly all of them.
    """
    few, mid, many = pooled
    dense = frame[frame.arm == "dense"].set_index("seed")
    linear = frame[frame.arm == "linear"].set_index("seed")
    found = {
        "wins_few": gap(frame, "GraSP", [few]),
        "wins_mid": gap(frame, "GraSP", [mid]),
        "wins_many": gap(frame, "GraSP", [many]),
        "wins_strictly": gap(frame, "GraSP", pooled),
        "all_win": gap(frame, "GraSP", [most]),
        "lost_share": value(frame, "lost", "GraSP", mid),
        "grasp_matters": gap(frame, "GraSP", pooled, over=("layers", "random")),
        "layers_over_units": gap(frame, "random", pooled, over=("units", "random")),
        "layers_over_units_most": gap(frame, "random", [most], over=("units", "random")),
        "cut_trained": pd.Series(
            {seed: one["cut"][mid - 1] for seed, one in scores.items()}
        ) - dense.accuracy,
        "no_blocks": linear.gap,
        "zeroed_is_deleted": pd.Series({s: float(one["zeroed"]) for s, one in scores.items()}),
        "work_taken_over": value(frame, "moved", "random", many) / dense.moved,
        "more_spikes": value(frame, "spikes", "random", many) - dense.spikes,
        "start_has_none": value(frame, "spikes_start", "random", many),
        "counted": dense.cost / value(frame, "cost", "random", many),
    }  # fmt: skip
    for criterion in ("SNIP", "GraSP", "anti-GraSP", "signed", "synflow", "KL"):
        if len(frame[(frame.criterion == criterion) & (frame.removed == mid)]):
            key = criterion.lower().replace("-", "_")
            found[f"{key}_is_random"] = gap(frame, criterion, pooled, over=("layers", "random"))
    for criterion in ("SNIP", "GraSP"):
        if len(frame[(frame.arm == "units") & (frame.criterion == criterion)]):
            found[f"{criterion.lower()}_layers_over_units"] = gap(
                frame, criterion, pooled, over=("units", criterion)
            )
    return {key: values.rename_axis("seed") for key, values in found.items()}


def conv_values(frame: pd.DataFrame | None, removed: int) -> dict[str, pd.Series]:
    """Values by seed of the claims about convolutional networks; none without a frame."""
    if frame is None:
        return {}
    return {
        "conv_wins": gap(frame, "GraSP", [removed]),
        "conv_grasp_is_random": gap(frame, "GraSP", [removed], over=("layers", "random")),
        "conv_layers_over_filters": gap(frame, "GraSP", [removed], over=("units", "GraSP")),
        "conv_no_blocks": frame[frame.arm == "linear"].set_index("seed").gap,
    }


def gap_table(frame: pd.DataFrame) -> pd.DataFrame:
    """arm, criterion, removed, mean, low, high (gap, paired 95 percent t-interval over seeds),
    lost, cost (over dense)."""
    rows = []
    dense = frame[frame.arm == "dense"].cost.iloc[0]
    for (arm, criterion, removed), one in frame.groupby(
        ["arm", "criterion", "removed"], sort=False
    ):
        told = interval(one.gap.tolist(), 0.05)
        rows.append({
            "arm": arm, "criterion": criterion, "removed": removed,
            **dict(zip(("mean", "low", "high"), told, strict=True)), "lost": one.lost.mean(),
            "cost": one.cost.iloc[0] / dense,
        })  # fmt: skip
    return pd.DataFrame(rows)


def time_ratios(
    data: Dataset, seeds: Sequence[int], removed: Sequence[int], *, members: int, repeats: int,
    **settings: Any,
) -> pd.DataFrame:  # fmt: skip
    """seed, removed, layers, units: time of a step, dense over ticket (`step_times`)."""
    runs = [
        step_times(
            data, seed=int(seed), members=members, removed=removed, repeats=repeats, net=settings
        )
        for seed in seeds
    ]
    return pd.concat(
        [
            pd.DataFrame({"seed": int(s), "removed": list(removed), **{k: run[k] for k in run}})
            for s, run in zip(seeds, runs, strict=True)
        ],
        ignore_index=True,
    )


def speed_frame(frame: pd.DataFrame, times: pd.DataFrame | None) -> pd.DataFrame:
    """kind ("counted", "layers", "units"), removed, speed, one row a seed where it is measured:
    dense over ticket, multiplications by weights and the time of a step."""
    dense = frame[frame.arm == "dense"].cost.iloc[0]
    own = frame[frame.arm.isin(["dense", "layers"])].drop_duplicates("removed")
    rows = [("counted", int(r.removed), dense / r.cost) for r in own.itertuples()]
    if times is not None:
        rows += [
            (kind, int(p), speed)
            for kind in ("layers", "units")
            for p, speed in zip(times.removed, times[kind], strict=True)
        ]
    found = pd.DataFrame(rows, columns=["kind", "removed", "speed"])
    return found.sort_values(["kind", "removed"], ignore_index=True)


def inside_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """removed, seed, moved (over the dense network's of this seed), spikes, of the dense network
    and of random blocks."""
    own = frame[frame.arm.isin(["dense", "layers"]) & (frame.criterion == "random")]
    dense = frame[frame.arm == "dense"].set_index("seed").moved
    own = own.assign(moved=own.moved / own.seed.map(dense))
    return own[["removed", "seed", "moved", "spikes"]].reset_index(drop=True)


def cut_frame(frame: pd.DataFrame, scores: Mapping[int, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """removed, seed, gap: accuracy of the trained network without blocks, nothing trained anew."""
    dense = frame[frame.arm == "dense"].set_index("seed").accuracy
    return pd.DataFrame(
        [
            (p, seed, float(right - dense[seed]))
            for seed, one in scores.items()
            for p, right in enumerate(one["cut"], 1)
        ],
        columns=["removed", "seed", "gap"],
    )
