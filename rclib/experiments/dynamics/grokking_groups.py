"""Networks that grok groups that do not commute (notebook 67), from `grokking_representations`.

Tian (arXiv 2509.21519) states energies and their maxima for any finite group; that a hidden unit of
a trained network is at such a maximum, that the irreps with more energy (those of lower degree)
come first, and that larger degrees need more pairs, is looked at here in networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.experiments.dynamics import grokking_theory as theory
from rclib.experiments.dynamics.grokking_li2 import crossing, times
from rclib.experiments.dynamics.grokking_networks import GROKKED
from rclib.experiments.dynamics.grokking_representations import (
    BY_IRREP,
    MEASURES,
    moments,
    table_of,
    train_on_group,
)
from rclib.runs.stacked import sweep_stacked

__all__ = [
    "ARMS",
    "course",
    "critical_frame",
    "degree_slope",
    "end_of",
    "group_frames",
    "half_steps",
    "irrep_course",
    "irrep_names",
    "irreps_table",
    "least_mass",
    "ratio_of_shares",
    "stage_ratio",
    "values_of",
]

PLAIN = {"decay": 2e-4, "labels": "group"}
ARMS: dict[str, dict[str, Any]] = {
    "η = 2e-4": {},
    "η = 0": {"decay": 0.0},
    "random table": {"labels": "random"},
}
MEMBERS = ["seed", "decay", "labels"]
GROWN = "η = 2e-4"


def group_frames(
    seeds: Sequence[int],
    groups: Mapping[str, Mapping[str, Any]],
    *,
    arms: Sequence[str] = tuple(ARMS),
    n_control: int,
    **shared: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(networks, irreps) of all groups, arms and seeds, to the step at which each stopped.

    groups : name -> what differs from the settings `shared` of `train_on_group`. n_control : steps
    of the arms without decay and on a random table, which never stop before.

    networks : group, arm, seed, step and `MEASURES`. irreps : group, arm, seed, step, irrep (its
    name, `irrep_names`), degree, and `BY_IRREP`.
    """
    configs = []
    for of, own in groups.items():
        for arm in arms:
            more = {} if arm == GROWN else {"steps": n_control, "after": 0.0}
            plain = {**shared, **own, **PLAIN, **ARMS[arm], **more, "of": of}
            configs += [(arm, {**plain, "seed": int(seed)}) for seed in seeds]
    runs = sweep_stacked(
        train_on_group, [c for _, c in configs], members=MEMBERS, description="networks",
        cost=lambda c: float(c["steps"] * c["width"] * len(table_of(c["of"])) ** 3),
    )  # fmt: skip
    networks, irreps = [], []
    for (arm, c), run in zip(configs, runs, strict=True):
        at = np.array(moments(c["steps"], c["every"]))
        head = {"group": c["of"], "arm": arm, "seed": c["seed"]}
        reached = np.flatnonzero(run["test"] >= GROKKED)
        last = at[-1]
        if c["after"] > 0 and len(reached):
            first = at[reached[0]]
            last = max(c["after"] * first, first)
        kept = at <= last
        values = {name: run[name][kept] for name in MEASURES}
        networks.append(pd.DataFrame({**head, "step": at[kept], **values}))
        parts = theory.components(table_of(c["of"]))
        names = irrep_names(parts)
        for k, one in enumerate(parts):
            values = {name: run[name][kept, k] for name in BY_IRREP}
            own = {"irrep": names[k], "degree": one.degree}
            irreps.append(pd.DataFrame({**head, "step": at[kept], **own, **values}))
    return pd.concat(networks, ignore_index=True), pd.concat(irreps, ignore_index=True)


def irrep_names(parts: Sequence[theory.Component]) -> list[str]:
    """A name of each component: "trivial", then its degree, with primes for further ones of the
    same degree, and "c" or "q" for a complex pair or a quaternionic irrep: "3", "3'", "1c"."""
    names: list[str] = []
    for one in parts:
        kind = {"complex": "c", "quaternionic": "q"}.get(one.kind, "")
        name = "trivial" if one.kind == "trivial" else f"{one.degree}{kind}"
        while name in names:
            name += "'"
        names.append(name)
    return names


def stage_ratio(networks: pd.DataFrame, group: str, *, at_most: float) -> pd.Series:
    """Step of grokking over step of fitting, by seed; what did not happen counts as if at
    `at_most`."""
    found = times(_chosen(networks, group, GROWN)).set_index("seed").fillna(at_most)
    return (found.grokked / found.fitted).rename("ratio")


def _chosen(frame: pd.DataFrame, group: str, arm: str) -> pd.DataFrame:
    return frame[(frame.group == group) & (frame.arm == arm)]


def end_of(
    networks: pd.DataFrame, group: str, arm: str, column: str, how: str = "last"
) -> pd.Series:
    """Last ("last") or largest ("max") value of a measure, by seed."""
    return _chosen(networks, group, arm).groupby("seed")[column].agg(how)


def half_steps(irreps: pd.DataFrame, group: str) -> pd.DataFrame:
    """Step at which half of an irrep is in the outputs on pairs that were not trained on: seed,
    irrep, degree, step; NaN where it never is."""
    chosen = _chosen(irreps, group, GROWN)
    rows = [
        (seed, name, int(part.degree.iloc[0]), crossing(part.step, part.learned, 0.5))
        for (seed, name), part in chosen[chosen.irrep != "trivial"].groupby(["seed", "irrep"])
    ]
    return pd.DataFrame(rows, columns=["seed", "irrep", "degree", "step"])


def degree_slope(irreps: pd.DataFrame, group: str, *, at_most: float) -> pd.Series:
    """Log-log slope of `half_steps` against the degree, by seed; what did not happen counts as if
    at `at_most`."""
    found = half_steps(irreps, group).fillna({"step": at_most})
    return pd.Series({
        seed: float(np.polyfit(np.log(part.degree), np.log(np.maximum(part.step, 1.0)), 1)[0])
        for seed, part in found.groupby("seed")
    }, name="slope").rename_axis("seed")  # fmt: skip


def least_mass(irreps: pd.DataFrame, group: str) -> pd.Series:
    """What the units have at the end of each irrep over its share of the dimensions, the least of
    the irreps that are not trivial, by seed."""
    chosen = _chosen(irreps, group, GROWN)
    end = chosen[chosen.irrep != "trivial"].groupby(["seed", "irrep"]).mass.last().unstack()
    parts = theory.components(table_of(group))
    sizes = np.array([float(np.trace(one.projection)) for one in parts])
    shares = pd.Series(sizes / sizes[1:].sum(), index=irrep_names(parts)).drop("trivial")
    return (end / shares).min(axis=1).rename("least")


def irreps_table(irreps: pd.DataFrame) -> pd.DataFrame:
    """Of networks with decay, means over seeds: group, irrep, degree, half (step of `half_steps`),
    mass (at the end)."""
    frames = []
    for group in irreps.group.unique():
        chosen = _chosen(irreps, group, GROWN)
        end = chosen.groupby(["seed", "irrep"], sort=False).mass.last().groupby("irrep").mean()
        half = half_steps(irreps, group).groupby(["irrep", "degree"]).step.mean().reset_index()
        frames.append(half.rename(columns={"step": "half"}).assign(group=group))
        frames[-1]["mass"] = frames[-1].irrep.map(end)
    table = pd.concat(frames, ignore_index=True)
    return table[["group", "irrep", "degree", "half", "mass"]]


def course(networks: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Over the seeds that still run: group, arm, step, measure, mean, low, high."""
    keys = ["group", "arm", "step"]
    long = networks.melt(keys, list(columns), var_name="measure")
    over = long.groupby(["group", "arm", "measure", "step"], sort=False).value
    return over.agg(mean="mean", low="min", high="max").reset_index()


def irrep_course(irreps: pd.DataFrame) -> pd.DataFrame:
    """Of networks with decay, the trivial irrep aside, over the seeds that still run: group, irrep,
    degree, step, mean, low, high of what the outputs have learned."""
    chosen = irreps[(irreps.arm == GROWN) & (irreps.irrep != "trivial")]
    over = chosen.groupby(["group", "irrep", "degree", "step"], sort=False).learned
    return over.agg(mean="mean", low="min", high="max").reset_index()


def critical_frame(
    seeds: Sequence[int], *, groups: Sequence[str], loads: Sequence[float], **shared: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(ends, critical) of networks on n = load · M ln M pairs. ends : group, seed, load, value (the
    last test accuracy). critical : group, seed, load at which that is one half, between loads
    linearly; the largest load that was tried where it never is."""
    ends = []
    for of in groups:
        m = len(table_of(of))
        shares = {load: load * np.log(m) / m for load in loads}
        own = {
            load: {"of": of, "share": round(share, 6)}
            for load, share in shares.items()
            if share < 0.95
        }
        configs = [
            {**shared, **PLAIN, **more, "seed": int(seed)}
            for more in own.values()
            for seed in seeds
        ]
        runs = sweep_stacked(train_on_group, configs, members=MEMBERS, description="data")
        heads = [(of, int(seed), load) for load in own for seed in seeds]
        ends += [(*head, float(run["test"][-1])) for head, run in zip(heads, runs, strict=True)]
    frame = pd.DataFrame(ends, columns=["group", "seed", "load", "value"])
    found = [
        (of, seed, crossing(part.load, part.value, 0.5))
        for (of, seed), part in frame.sort_values("load").groupby(["group", "seed"], sort=False)
    ]
    critical = pd.DataFrame(found, columns=["group", "seed", "load"])
    most = frame.groupby("group").load.max()
    critical["load"] = critical.load.fillna(critical.group.map(most))
    return frame, critical


def ratio_of_shares(critical: pd.DataFrame, over: str, under: str) -> pd.Series:
    """Pairs that one group needs over those of another, by seed."""
    table = critical.pivot(index="seed", columns="group", values="load")
    return (table[over] / table[under]).rename("ratio")


def values_of(
    networks: pd.DataFrame, irreps: pd.DataFrame, *, groups: Sequence[str], steps: int
) -> dict[str, pd.Series]:
    """What the claims about networks are about, by seed: for each the worst of the groups. steps :
    of the networks at most."""

    def worst(values: list[pd.Series], how: str) -> pd.Series:
        return pd.concat(values, axis=1).agg(how, axis=1)

    each: dict[str, tuple[str, list[pd.Series]]] = {
        "stage_order": ("min", [stage_ratio(networks, g, at_most=steps) for g in groups]),
        "no_decay_no_grokking": (
            "max",
            [end_of(networks, g, "η = 0", "test", "max") for g in groups],
        ),
        "random_table": ("max", [end_of(networks, g, "random table", "test") for g in groups]),
        "one_irrep": ("min", [end_of(networks, g, GROWN, "purity") for g in groups]),
        "at_maxima": ("min", [end_of(networks, g, GROWN, "reached") for g in groups]),
        "low_degree_first": ("min", [degree_slope(irreps, g, at_most=steps) for g in groups]),
        "all_irreps": ("min", [least_mass(irreps, g) for g in groups]),
    }
    return {key: worst(values, how) for key, (how, values) in each.items()}
