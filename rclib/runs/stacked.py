"""Sweeps whose runs are computed several at once, and stored one by one.

    def train(data, *, group, width, steps):      # group: [{"seed": 0, "lr": 0.1}, ...]
        ...
        return {"loss": losses, "W1": weights}    # (S, ...) each, S = len(group)

    configurations = [{"width": 50, "steps": 1000, "seed": s, "lr": 0.1} for s in range(20)]
    results = sweep_stacked(train, configurations, data=data, members=["seed", "lr"])
    results[3]["loss"]                            # of configuration 3 alone

A run's entry in the store is that of its own configuration, so a new seed computes itself alone and
finds the others, whatever they were computed with. That is sound if the function gives every
member the numbers that it would have alone, which `rclib.training.stacked` does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np

from rclib.checks.arguments import brief, count
from rclib.runs import store, sweep
from rclib.runs.source import Source

__all__ = ["sweep_stacked"]

Config = Mapping[str, Any]


def sweep_stacked(
    function: store.Experiment,
    configurations: Sequence[Config],
    executor: Executor | None = None,
    *,
    members: Collection[str],
    data: Source | None = None,
    group: int = 16,
    cost: Callable[[Config], float] | None = None,
    description: str = "runs",
    needs: sweep.Needs | None = None,
) -> list[store.Arrays]:
    """Results of all configurations in their order, each as {name: array of one member}.

    function: called as `function(data, group=[{...}, ...], **shared)` for up to `group`
        configurations that are equal but for the keys `members`, which stand in `group`; it
        returns {name: (S, ...)} of NumPy arrays.
    configurations: keyword arguments, plain JSON, each with all the keys `members`.
    executor: as in `sweep.sweep`; None: `$RCLIB_WORKERS` processes, as `sweep.run`.
    data, cost, description, needs: as there.

    Raises ValueError for a configuration without one of the members, or with a key "group";
    SweepError, after all groups are done, if some failed: it names each configuration of those.
    """
    group = count("group", group)
    keys = tuple(members)
    if isinstance(members, str) or not keys:
        raise ValueError(f"members must be names of keys, at least one, got {brief(members)}")
    for place, config in enumerate(configurations):
        missing = [key for key in keys if key not in config]
        if missing or "group" in config:
            what = "hold no key 'group'" if not missing else f"hold {missing[0]!r}"
            raise ValueError(f"configurations[{place}] must {what}, got {brief(dict(config))}")
    jobs = sweep.Jobs(partial(_split, keys, group), partial(_call, keys))
    options: dict[str, Any] = {"data": data, "cost": cost, "needs": needs}
    options["description"] = description
    if executor is None:
        return sweep.run(function, configurations, jobs=jobs, **options)
    return sweep.sweep(function, configurations, executor, jobs=jobs, **options)


def _shared(keys: Collection[str], config: Config) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


def _split(keys: Collection[str], group: int, configurations: Sequence[Config]) -> list[list[int]]:
    """Places of the configurations that go together, at most `group`, in about equal parts."""
    alike: dict[str, list[int]] = {}
    for place, config in enumerate(configurations):
        alike.setdefault(json.dumps(_shared(keys, config), sort_keys=True), []).append(place)
    parts: list[list[int]] = []
    for places in alike.values():
        number = -(-len(places) // group)
        parts += [part.tolist() for part in np.array_split(np.array(places), number)]
    return parts


def _call(
    keys: Collection[str],
    function: store.Experiment,
    data: Source | None,
    configurations: Sequence[Config],
) -> list[store.Arrays]:
    """One group: its results, taken apart by member."""
    size = len(configurations)
    members = [{key: config[key] for key in keys} for config in configurations]
    found = function(data, group=members, **_shared(keys, configurations[0]))
    arrays = {name: np.asarray(value) for name, value in found.items()}
    for name, array in arrays.items():
        if array.shape[:1] != (size,):
            raise ValueError(
                f"{function.__qualname__} must return one row a member: {name!r} of a group of "
                f"{size} has shape {array.shape}"
            )
    return [{name: array[place] for name, array in arrays.items()} for place in range(size)]
