"""Is it the weights that pruning keeps, or the network that it leaves?

Liu, Sun, Zhou, Huang and Darrell (arXiv 1810.05270): fine-tuned pruned networks against the same
networks trained from scratch for as many steps as the large one (Scratch-E), or for as much
computation (Scratch-B); and winning tickets against fresh starts at several rates. Runs are those
of `rethinking_runs`, `rethinking_slimming`, `rethinking_tickets` and `rethinking_conv`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.experiments.pruning.rethinking_conv import conv_pruned
from rclib.experiments.pruning.rethinking_runs import LOOKED_AT, pruned
from rclib.experiments.pruning.rethinking_slimming import slimmed
from rclib.experiments.pruning.rethinking_tickets import STARTS, tickets_by_rate
from rclib.runs import sweep
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.stats.sequential import interval

__all__ = [
    "best_rate",
    "compared",
    "conv_frame",
    "first_layer_frame",
    "gap",
    "inherited",
    "pruned_frame",
    "shown",
    "shown_differences",
    "shown_first_layer",
    "shown_tickets",
    "slimmed_frame",
    "sweep_pruned",
    "ticket_frame",
    "ticket_gap",
]

Runs = Mapping[int, Arrays]
COLUMNS = ["seed", "method", "keep", "left", "arm", "accuracy"]
COMPARED = (
    "fine_tuned",
    "long",
    "rewound",
)  # what Scratch-E and Scratch-B are held against in a figure


def sweep_pruned(data: Dataset, seeds: Sequence[int], *, group: int, **shared: Any) -> Runs:
    """Runs of `pruned` by seed. group : seeds that are computed together."""
    configs = [{"seed": int(seed), **shared} for seed in seeds]
    found = sweep_stacked(
        pruned, configs, data=data, members=["seed"], group=group, description="pruned networks"
    )
    return dict(zip(map(int, seeds), found, strict=True))


def _rows(
    seed: int, run: Arrays, method: str, prefix: str, keeps: Sequence[float]
) -> list[tuple[Any, ...]]:
    """Rows of `COLUMNS` of what a run calls prefix + arm."""
    found = []
    for name, values in run.items():
        arm = name.removeprefix(prefix)
        if not name.startswith(prefix) or arm == "left":
            continue
        found += [
            (seed, method, float(keep), float(left), arm, float(value))
            for keep, left, value in zip(keeps, run[f"{prefix}left"], values, strict=True)
        ]
    return found


def pruned_frame(runs: Runs, keeps: Sequence[float], shares: Sequence[float]) -> pd.DataFrame:
    """Test accuracy of every network: seed, method ("units", "weights"; "dense" for the large
    network), keep (share of the units or weights), left (of the multiplications), arm ("cut" or one
    of `rethinking_arms.ARMS`), accuracy."""
    rows = []
    for seed, run in runs.items():
        rows.append((seed, "dense", 1.0, 1.0, "dense", float(run["dense"])))
        rows += _rows(seed, run, "units", "units_", keeps)
        rows += _rows(seed, run, "weights", "weights_", shares)
    return pd.DataFrame(rows, columns=COLUMNS)


def slimmed_frame(
    data: Dataset, seeds: Sequence[int], *, group: int, **shared: Any
) -> pd.DataFrame:
    """As `pruned_frame`, with the method "gains" and, of its large network, "dense, gains"; and
    layer_1, layer_2, ...: units kept."""
    configs = [{"seed": int(seed), **shared} for seed in seeds]
    runs = sweep_stacked(
        slimmed, configs, data=data, members=["seed"], group=group, description="slimmed networks"
    )
    rows, widths = [], []
    for seed, run in zip(map(int, seeds), runs, strict=True):
        rows.append((seed, "dense, gains", 1.0, 1.0, "dense", float(run["dense"])))
        widths.append(shared["widths"])
        arms = {f"gains_{n}": v for n, v in run.items() if n not in ("dense", "widths")}
        own = _rows(seed, arms, "gains", "gains_", shared["keeps"])
        rows += own
        widths += [run["widths"][list(shared["keeps"]).index(row[2])] for row in own]
    layers = [f"layer_{k + 1}" for k in range(len(shared["widths"]))]
    return pd.concat(
        [pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(np.array(widths), columns=layers)],
        axis=1,
    )


def conv_frame(
    data: Dataset, seeds: Sequence[int], plan: Mapping[str, Any] | None
) -> pd.DataFrame | None:
    """As `pruned_frame` for convolutional networks: "filters" by L1 norm, "conv gains" by gains.
    None without a plan, which holds what `conv_pruned` takes."""
    if plan is None:
        return None
    configs = [{"seed": int(seed), **plan} for seed in seeds]
    runs = sweep.run(conv_pruned, configs, data=data, description="convolutional networks")
    rows = []
    for seed, run in zip(map(int, seeds), runs, strict=True):
        rows.append((seed, "dense", 1.0, 1.0, "dense", float(run["dense"])))
        rows.append((seed, "dense, gains", 1.0, 1.0, "dense", float(run["gains_dense"])))
        arms = {name: value for name, value in run.items() if name != "gains_dense"}
        rows += _rows(seed, arms, "filters", "units_", plan["keeps"])
        rows += _rows(seed, arms, "conv gains", "gains_", plan["gain_keeps"])
    return pd.DataFrame(rows, columns=COLUMNS)


def _chosen(frame: pd.DataFrame, method: str, keep: float, arm: str) -> pd.Series:
    at = frame[(frame.method == method) & np.isclose(frame.keep, keep) & (frame.arm == arm)]
    if at.empty:
        raise ValueError(f"no arm {arm!r} of {method!r} at {keep}")
    return at.set_index("seed").accuracy


def gap(frame: pd.DataFrame, method: str, keep: float, arm: str, other: str) -> pd.Series:
    """Test accuracy of an arm minus that of another, by seed. Raises ValueError for an arm that is
    not there."""
    own, theirs = (_chosen(frame, method, keep, name) for name in (arm, other))
    return (own - theirs).rename("gap")


def first_layer_frame(runs: Runs, keeps: Sequence[float]) -> pd.DataFrame:
    """The first hidden layer: seed, keep, which (of `rethinking_runs.LOOKED_AT`), correlation
    (largest |correlation| of its mean vectors), chance (its mean over shuffles), rank (stable rank
    of the first matrix)."""
    rows = [
        (
            seed,
            float(keep),
            which,
            *(float(run[n][k, w]) for n in ("correlation", "chance", "rank")),
        )
        for seed, run in runs.items()
        for k, keep in enumerate(keeps)
        for w, which in enumerate(LOOKED_AT)
    ]
    return pd.DataFrame(rows, columns=["seed", "keep", "which", "correlation", "chance", "rank"])


def inherited(frame: pd.DataFrame, keep: float) -> pd.DataFrame:
    """By seed, of `first_layer_frame`: cut (correlation of the pruned network before training over
    its chance), end (correlation fine-tuned minus that of Scratch-B), rank (likewise, over that of
    Scratch-B)."""
    at = frame[np.isclose(frame.keep, keep)].pivot(index="seed", columns="which")
    value, scratch = at["correlation"], at["rank"]["scratch_b"]
    return pd.DataFrame({
        "cut": value["cut"] - at["chance"]["cut"],
        "end": value["fine_tuned"] - value["scratch_b"],
        "rank": (at["rank"]["fine_tuned"] - scratch) / scratch,
    })  # fmt: skip


def ticket_frame(
    data: Dataset, seeds: Sequence[int], rates: Sequence[float], *, group: int, **shared: Any
) -> pd.DataFrame:
    """Test accuracy: seed, rate, how ("rounds", "one shot", "units"; "dense" for the large
    network), left (share of the weights; of the units for "units"), start (of
    `rethinking_tickets.STARTS`), accuracy."""
    keys = [(int(seed), float(rate)) for rate in rates for seed in seeds]
    configs = [{"seed": seed, "rate": rate, **shared} for seed, rate in keys]
    runs = sweep_stacked(
        tickets_by_rate, configs, data=data, members=["seed", "rate"], group=group,
        description="tickets at several rates",
    )  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for (seed, rate), run in zip(keys, runs, strict=True):
        left = [round(float(share), 3) for share in run["left"]]
        rows.append((seed, rate, "dense", 1.0, "ticket", float(run["dense"])))
        found = [("rounds", left[k + 1], row) for k, row in enumerate(run["weights"])]
        found += [("one shot", left[-1], run["one_shot"]), ("units", shared["keep"], run["units"])]
        for how, share, values in found:
            # Of whole units there is one fresh start: the small network's own.
            names = STARTS[: len(values)]
            rows += [
                (seed, rate, how, share, n, float(v)) for n, v in zip(names, values, strict=True)
            ]
    return pd.DataFrame(rows, columns=["seed", "rate", "how", "left", "start", "accuracy"])


def best_rate(tickets: pd.DataFrame) -> float:
    """The rate at which the large network is best, over the seeds."""
    dense = tickets[tickets.how == "dense"]
    return float(dense.groupby("rate").accuracy.mean().idxmax())


def ticket_gap(
    tickets: pd.DataFrame, how: str, place: int, rate: float, *, over: str = "fresh",
    start: str = "ticket",
) -> pd.Series:  # fmt: skip
    """Test accuracy of a start minus that of another in one mask, by seed.

    place : of the share among those of `how`, from the largest. Raises ValueError for what is not
    there.
    """
    at = tickets[(tickets.how == how) & np.isclose(tickets.rate, rate)]
    shares = sorted({*at.left}, reverse=True)
    if not -len(shares) <= place < len(shares):
        raise ValueError(f"no share {place} of {how!r} at rate {rate}, of {len(shares)}")
    table = at[at.left == shares[place]].pivot(index="seed", columns="start", values="accuracy")
    return (table[start] - table[over]).rename("gap")


def _summary(values: pd.Series) -> dict[str, float]:
    mean, low, high = interval(values.tolist(), 0.05)
    return {"mean": mean, "low": low, "high": high}


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """What a figure and a table show: method, keep, left, arm, mean, low, high of the accuracy (95
    percent t-interval over seeds)."""
    rows = [
        {"method": method, "keep": keep, "left": group.left.mean(), "arm": arm}
        | _summary(group.accuracy)
        for (method, keep, arm), group in frame.groupby(["method", "keep", "arm"], sort=False)
    ]
    return pd.DataFrame(rows)


def compared(frame: pd.DataFrame) -> list[tuple[str, float, str, str]]:
    """Pairs that a figure compares: method, keep, Scratch-E or Scratch-B, an arm of `COMPARED`."""
    pruned_ones = frame[~frame.method.str.startswith("dense")]
    return [
        (method, keep, arm, other)
        for (method, keep), group in pruned_ones.groupby(["method", "keep"], sort=False)
        for arm in ("scratch_e", "scratch_b")
        for other in COMPARED
        if {arm, other} <= {*group.arm}
    ]


def shown_differences(frame: pd.DataFrame) -> pd.DataFrame:
    """Scratch-E and Scratch-B minus each arm of `COMPARED` that is there: method, keep, arm, over,
    mean, low, high."""
    rows = [
        {"method": method, "keep": keep, "arm": arm, "over": other}
        | _summary(gap(frame, method, keep, arm, other))
        for method, keep, arm, other in compared(frame)
    ]
    return pd.DataFrame(rows)


def shown_tickets(tickets: pd.DataFrame) -> pd.DataFrame:
    """Ticket minus fresh and minus scaled start by rate: rate, how, left, over, mean, low, high;
    the accuracy of the large network with how "dense"."""
    rows = []
    for (rate, how, left), group in tickets.groupby(["rate", "how", "left"], sort=False):
        at = {"rate": rate, "how": how, "left": left}
        if how == "dense":
            rows.append({**at, "over": "", **_summary(group.accuracy)})
            continue
        table = group.pivot(index="seed", columns="start", values="accuracy")
        rows += [
            {**at, "over": over, **_summary(table["ticket"] - table[over])}
            for over in STARTS[1:]
            if over in table
        ]
    return pd.DataFrame(rows)


def shown_first_layer(frame: pd.DataFrame) -> pd.DataFrame:
    """keep, which, mean, low, high of the correlation, and chance, rank: means over seeds."""
    rows = [
        {"keep": keep, "which": which, **_summary(group.correlation)}
        | {"chance": group.chance.mean(), "rank": group["rank"].mean()}
        for (keep, which), group in frame.groupby(["keep", "which"], sort=False)
    ]
    return pd.DataFrame(rows)
