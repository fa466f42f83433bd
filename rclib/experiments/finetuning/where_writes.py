"""Frames of notebook 86: where in the frozen weight does each method of fine-tuning write?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch

from rclib.data.images import Dataset
from rclib.data.text import TextData, named_text
from rclib.data.two_texts import two_texts
from rclib.experiments.finetuning.place_runs import (
    KINDS,
    MEASURES,
    image_places,
    text_places,
)
from rclib.experiments.finetuning.tuned_runs import Arms, chosen_rates, counts, method_of, tune
from rclib.runs.stacked import sweep_stacked
from rclib.runs.store import Arrays
from rclib.spectral.placement import place_distance

__all__ = [
    "EQUAL",
    "Placed",
    "arms",
    "block_table",
    "by_seed",
    "close_pairs",
    "distance_table",
    "equal_differ",
    "form_nearer",
    "full_nearer",
    "gathered",
    "mean_excess",
    "minus",
    "over_systems",
    "place_table",
    "place_tells",
    "placed",
    "texts",
]

# Arms with about as many trained numbers as each other.
EQUAL = (
    "LoRA", "rsLoRA", "PiSSA", "OLoRA", "EVA", "Bone, guided", "Bone, sum", "Bone, product",
)  # fmt: skip
Runs = Mapping[tuple[str, int], Arrays]  # (arm, seed) -> run


@dataclass(frozen=True, eq=False)
class Placed:
    """One system.

    frame : system, arm, kind, seed, layer and `MEASURES`. losses : system, arm, seed, count, train,
    test, accuracy and the correlations of means: update, form, before, after. blocks :
    (arm, kind, seed) -> (L, BLOCKS, BLOCKS), also of the reference seed, which is in no frame.
    tuning : arm, rate, seed, validation. rates : chosen.
    """

    system: str
    frame: pd.DataFrame
    losses: pd.DataFrame
    blocks: dict[tuple[str, str, int], np.ndarray]
    tuning: pd.DataFrame
    rates: dict[str, float]
    reference: int | None


def arms(rank: int, block: int, most: int) -> dict[str, Any]:
    """All arms. rank : of the low-rank ones; block : r of Bone; most : singular values and pivots
    that a matrix has, all of which SVFit and LoLDU train."""
    low = {name: {"kind": name, "rank": rank} for name in ("LoRA", "PiSSA", "OLoRA", "EVA")}
    bone = {f"Bone, {f}": {"kind": "Bone", "size": block, "form": f}
            for f in ("guided", "sum", "product")}  # fmt: skip
    found: dict[str, Any] = {
        **low, **bone, "rsLoRA": {"kind": "LoRA", "rank": rank, "stabilised": True}
    }  # fmt: skip
    found = {name: found[name] for name in EQUAL}
    few = {"SVFit": {"kind": "SingularValues", "rank": most},
           "LoLDU": {"kind": "LoLDU", "rank": most}}  # fmt: skip
    return {"head": {"kind": "Linear"}, **found, **few, "full": {"kind": "Full"}}


def texts(names: Sequence[str], most: int) -> TextData:
    """The two texts of a notebook's parameters as one: `two_texts`."""
    source, target = (named_text(name) for name in names)
    return two_texts(source, target, most)


def placed(
    system: str, data: Dataset | TextData, own: Arms, rates: Sequence[float],
    tuning_seeds: Sequence[int], seeds: Sequence[int], settings: Mapping[str, Any], *, inputs: int,
    reference: int,
) -> Placed:  # fmt: skip
    """Rates by the tuning seeds, then the reported seeds and the reference seed at these.

    inputs : of the first matrix.
    """
    tuning = tune(data, own, rates, tuning_seeds, settings)
    chosen = chosen_rates(tuning)
    function = text_places if isinstance(data, TextData) else image_places
    options: dict[str, Any] = {"members": ["seed", "rate", "method"], "group": 32, "data": data}
    alike: dict[tuple[object, ...], list[str]] = {}
    for arm, spec in own.items():
        alike.setdefault(method_of(spec).kin, []).append(arm)
    runs: dict[tuple[str, int], Arrays] = {}
    for members in alike.values():
        keys = [(arm, int(s)) for arm in members for s in (*seeds, reference)]
        configs = [
            {**settings, "method": dict(own[arm]), "seed": s, "rate": chosen[arm]}
            for arm, s in keys
        ]
        if function is text_places:
            found = sweep_stacked(text_places, configs, **options, description="text")
        else:
            found = sweep_stacked(image_places, configs, **options, description="images")
        runs |= dict(zip(keys, found, strict=True))
    ordered = {(arm, int(s)): runs[arm, int(s)] for arm in own for s in (*seeds, reference)}
    number = counts(own, int(settings["base"]["width"]), inputs)
    return gathered(system, ordered, tuning, chosen, number, reference)


def gathered(
    system: str, runs: Runs, tuning: pd.DataFrame, rates: Mapping[str, float],
    number: Mapping[str, int], reference: int | None,
) -> Placed:  # fmt: skip
    """Frames of runs with end, accuracy and `place_runs.places_of`."""
    rows, losses, blocks = [], [], {}
    for (arm, seed), run in runs.items():
        for kind, own, energy in zip(KINDS, run["measures"], run["blocks"], strict=True):
            blocks[arm, kind, seed] = energy
            if seed == reference:
                continue
            rows += [(system, arm, kind, seed, j, *m) for j, m in enumerate(own)]
        if seed == reference:
            continue
        train, _, test = run["end"]
        losses.append(
            (system, arm, seed, number[arm], train, test, run["accuracy"][2], *run["means"])
        )
    return Placed(
        system, pd.DataFrame(rows, columns=["system", "arm", "kind", "seed", "layer", *MEASURES]),
        pd.DataFrame(losses, columns=[
            "system", "arm", "seed", "count", "train", "test", "accuracy", "update", "form",
            "before", "after",
        ]), blocks, tuning, dict(rates), reference,
    )  # fmt: skip


# --- what claims are about -------------------------------------------------------------------


def over_systems(found: Sequence[pd.Series]) -> pd.Series:
    """Mean over systems, by seed."""
    series: pd.Series = pd.concat(list(found), axis=1).mean(axis=1, skipna=False)
    return series.rename_axis("seed")


def by_seed(system: Placed, arm: str, what: str, kind: str = "trained") -> pd.Series:
    """A measure of an arm's update, mean over matrices. Raises ValueError for another arm."""
    own = system.frame[(system.frame.arm == arm) & (system.frame.kind == kind)]
    if own.empty:
        raise ValueError(f"arm must be one of {sorted(set(system.frame.arm))}, got {arm!r}")
    found: pd.Series = own.groupby("seed", sort=False)[what].mean()
    return found


def minus(system: Placed, arm: str, other: str, what: str) -> pd.Series:
    """The difference of two arms, by seed."""
    return by_seed(system, arm, what) - by_seed(system, other, what)


def mean_excess(system: Placed, arm: str) -> pd.Series:
    """Correlation of row and column means in an arm's update, minus that in its random one."""
    own = system.losses[system.losses.arm == arm].set_index("seed")
    found: pd.Series = own["update"] - own["form"]
    return found


def _distance(system: Placed, one: tuple[str, str, int], other: tuple[str, str, int]) -> float:
    pairs = zip(system.blocks[one], system.blocks[other], strict=True)
    return float(np.mean([place_distance(torch.from_numpy(a), torch.from_numpy(b))
                          for a, b in pairs]))  # fmt: skip


def _seeds(system: Placed) -> list[int]:
    return list(dict.fromkeys(system.losses.seed))


def _series(values: Mapping[int, float]) -> pd.Series:
    return pd.Series(dict(values), dtype=float).rename_axis("seed")


def close_pairs(system: Placed, count: int = 5) -> list[tuple[str, str]]:
    """The pairs of arms of `EQUAL` whose validation losses on the tuning seeds, at the rates that
    were chosen, are closest: nothing of what is reported goes into the choice."""
    at_best = system.tuning[system.tuning.rate == system.tuning.arm.map(system.rates)]
    loss = at_best.groupby("arm").validation.mean()
    apart = {(a, b): abs(float(loss[a] - loss[b])) for a, b in combinations(EQUAL, 2)}
    return sorted(apart, key=lambda pair: apart[pair])[:count]


def equal_differ(system: Placed) -> pd.Series:
    """By seed: how far `close_pairs` write apart, minus how far each of them writes from where it
    does on the reference seed, with another network and other data.

    Raises ValueError for a system without a reference seed."""
    reference = system.reference
    if reference is None:
        raise ValueError(f"system must have a reference seed, {system.system} has none")
    found, pairs = {}, close_pairs(system)
    for seed in _seeds(system):
        apart, same = [], []
        for a, b in pairs:
            apart.append(_distance(system, (a, "trained", seed), (b, "trained", seed)))
            same += [_distance(system, (arm, "trained", seed), (arm, "trained", reference))
                     for arm in (a, b)]  # fmt: skip
        found[seed] = float(np.mean(apart) - np.mean(same))
    return _series(found)


def full_nearer(system: Placed, near: str, far: str) -> pd.Series:
    """Distance of full fine-tuning's place from one arm's, minus that from another's, by seed."""
    return _series({
        seed: _distance(system, ("full", "trained", seed), (near, "trained", seed))
        - _distance(system, ("full", "trained", seed), (far, "trained", seed))
        for seed in _seeds(system)
    })  # fmt: skip


def form_nearer(system: Placed) -> pd.Series:
    """Distance of an update from a random one of its own form, minus the mean over those of the
    forms of the other arms of `EQUAL`; mean over arms, by seed."""
    found = {}
    for seed in _seeds(system):
        rows = []
        for arm in EQUAL:
            to = {b: _distance(system, (arm, "trained", seed), (b, "form", seed)) for b in EQUAL}
            rows.append(to[arm] - np.mean([d for b, d in to.items() if b != arm]))
        found[seed] = float(np.mean(rows))
    return _series(found)


def place_tells(system: Placed, what: str) -> pd.Series:
    """Spearman's correlation of a measure and the test loss over arms of `EQUAL`, by seed."""
    at = pd.DataFrame({arm: by_seed(system, arm, what) for arm in EQUAL})
    loss = system.losses.pivot(index="seed", columns="arm", values="test")
    return _series({
        seed: float(np.corrcoef(at.loc[seed].rank(), loss.loc[seed, list(EQUAL)].rank())[0, 1])
        for seed in _seeds(system)
    })  # fmt: skip


# --- tables and data of figures --------------------------------------------------------------


def place_table(systems: Sequence[Placed]) -> pd.DataFrame:
    """By system, arm and kind: trained numbers, rate, losses and measures, mean over matrices and
    seeds; the head alone, which writes nothing, has no measures."""
    frames = []
    for own in systems:
        measures = own.frame.groupby(["system", "arm", "kind"], sort=False)[list(MEASURES)].mean()
        over = own.losses.groupby("arm", sort=False)[["count", "train", "test", "accuracy"]].mean()
        grid = own.tuning.groupby("arm").rate.agg(["min", "max"])
        ends = {arm: r in set(grid.loc[arm]) for arm, r in own.rates.items()}
        table = measures.reset_index().merge(over.reset_index(), on="arm")
        frames.append(table.assign(rate=table.arm.map(own.rates), end=table.arm.map(ends)))
    return pd.concat(frames, ignore_index=True).round(4)


def block_table(system: Placed) -> pd.DataFrame:
    """arm, kind, left, right (block), energy times BLOCKS²: mean over matrices and seeds, 1 by
    chance."""
    frames = []
    for arm in dict.fromkeys(system.losses.arm):
        for kind in KINDS:
            own = np.array([system.blocks[arm, kind, s] for s in _seeds(system)]).mean((0, 1))
            left, right = np.indices(own.shape)
            frames.append(pd.DataFrame({
                "system": system.system, "arm": arm, "kind": kind, "left": left.ravel(),
                "right": right.ravel(), "energy": (own * own.size).ravel().round(3),
            }))  # fmt: skip
    return pd.concat(frames, ignore_index=True).dropna()


def distance_table(systems: Sequence[Placed]) -> pd.DataFrame:
    """system, arm, seed, full, form: distance of an arm's place from that of full fine-tuning and
    from that of a random update of its form."""
    rows = []
    for own in systems:
        for arm in [a for a in dict.fromkeys(own.losses.arm) if a != "head"]:
            for seed in _seeds(own):
                here = (arm, "trained", seed)
                to = [_distance(own, here, there)
                      for there in (("full", "trained", seed), (arm, "form", seed))]  # fmt: skip
                rows.append((own.system, arm, seed, *to))
    return pd.DataFrame(rows, columns=["system", "arm", "seed", "full", "form"])
