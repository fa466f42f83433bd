"""At equal numbers of kept weights: positions, values, signs, layer densities, or the data?

All arms of notebooks 40 to 45 on one network, with one start, one order of the batches and one
number of weights a seed. A part of a ticket is a contrast of two arms that differ in it alone. The
runs are those of `keeps_runs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.pruning.keeps_runs import ARMS, LINKS, ways_to_keep
from rclib.runs.stacked import sweep_stacked
from rclib.stats.sequential import interval

__all__ = [
    "CONTRASTS",
    "arm_table",
    "column",
    "contrast",
    "contrast_table",
    "keep_frame",
    "link_table",
]

# Part -> the arm that has it, and one that differs in nothing else.
CONTRASTS: Mapping[str, tuple[str, str]] = {
    "positions": ("ticket_fresh", "shuffled"),
    "values": ("ticket", "ticket_fresh"),
    "signs alone": ("ticket_signs", "ticket_fresh"),
    "sizes alone": ("ticket_sizes", "ticket_fresh"),
    "layer densities": ("shuffled", "er"),
    "other half of the data": ("ticket", "half_random"),
    "hard half, not random": ("half_hard", "half_random"),
    "nothing (control)": ("er_again", "er"),
}


def keep_frame(data: Dataset, seeds: Sequence[int], *, group: int, **shared: Any) -> pd.DataFrame:
    """Every arm with every seed: seed, arm, mask, values, accuracy, kept (number of weights),
    density_1, ... (of each matrix), and `keeps_runs.LINKS`. group : seeds computed together."""
    configs = [{"seed": int(seed), **shared} for seed in seeds]
    runs = sweep_stacked(
        ways_to_keep, configs, data=data, members=["seed"], group=group, description="seeds"
    )
    rows = []
    for seed, run in zip(map(int, seeds), runs, strict=True):
        for place, (arm, (mask, values)) in enumerate(ARMS.items()):
            rows.append({
                "seed": seed, "arm": arm, "mask": mask, "values": values,
                "accuracy": float(run["accuracy"][place]), "kept": int(run["kept"][place]),
                **{f"density_{k + 1}": float(d) for k, d in enumerate(run["layers"][place])},
                **dict(zip(LINKS, map(float, run["links"][place]), strict=True)),
            })  # fmt: skip
    return pd.DataFrame(rows)


def column(frame: pd.DataFrame, arm: str, name: str = "accuracy") -> pd.Series:
    """A column of one arm, by seed. Raises ValueError for an arm that is not there."""
    chosen = frame[frame.arm == arm]
    if chosen.empty:
        raise ValueError(f"arm must be of {sorted(set(frame.arm))}, got {arm!r}")
    return chosen.set_index("seed")[name]


def contrast(frame: pd.DataFrame, part: str) -> pd.Series:
    """Accuracy that a part of `CONTRASTS` carries, by seed. Raises ValueError for another name."""
    if part not in CONTRASTS:
        raise ValueError(f"part must be of {list(CONTRASTS)}, got {part!r}")
    first, second = CONTRASTS[part]
    return (column(frame, first) - column(frame, second)).rename(part)


def _told(values: pd.Series) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), interval(values.tolist(), 0.05), strict=True))


def arm_table(frame: pd.DataFrame) -> pd.DataFrame:
    """arm, mask, values, kept, accuracy, and of the accuracy less that of random masks with
    Erdos-Renyi densities: mean, low, high (paired, 95 percent t-interval over seeds)."""
    rows = []
    for arm in dict.fromkeys(frame.arm):
        own = frame[frame.arm == arm]
        rows.append({
            "arm": arm, "mask": own["mask"].iloc[0], "values": own["values"].iloc[0],
            "kept": own.kept.mean(), "accuracy": own.accuracy.mean(),
            **_told(column(frame, arm) - column(frame, "er")),
        })  # fmt: skip
    return pd.DataFrame(rows)


def contrast_table(frame: pd.DataFrame) -> pd.DataFrame:
    """part, mean, low, high, for every part of `CONTRASTS`."""
    return pd.DataFrame([{"part": part, **_told(contrast(frame, part))} for part in CONTRASTS])


def link_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a mask and measure: mask, measure ("degrees", that of the mask less that of it
    shuffled; "spikes" of the masks; "trained", spikes of the trained matrices), mean, low, high."""
    rows = []
    one = frame.drop_duplicates(["seed", "mask"])
    for mask in dict.fromkeys(one["mask"]):
        own = one[one["mask"] == mask]
        measures = {
            "degrees": own.degrees - own.shuffled, "spikes": own.spikes, "trained": own.trained,
        }  # fmt: skip
        rows += [{"mask": mask, "measure": name, **_told(v)} for name, v in measures.items()]
    return pd.DataFrame(rows)
