"""More seeds where claims under the sequential rule are undecided.

A claim that is declared with `looks` (`rclib.study.sequential`) names its seeds. As long as one is
undecided, `rclib.execution.runner.execute_looks` executes the notebook again with the seeds of the
next look in the parameter that holds them, up to its parameter `n_most`, the most seeds that the
profile spends: one number for all its seeds, or a number by parameter where only some of them
belong to claims under the rule. Runs are in the store, one file a seed, so each look computes what
is new alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rclib.checks.arguments import count
from rclib.study.sequential import open_seeds

__all__ = ["CAP", "caps_of", "next_seeds"]

CAP = "n_most"  # the parameter


def next_seeds(
    record: Mapping[str, Any], parameters: Mapping[str, Any], names: Sequence[str]
) -> dict[str, list[int]]:
    """The parameters that get more seeds for the next look, with these seeds; {} at the end.

    record : a results file. parameters, names : those of the run, and which of them hold seeds.
    Raises ValueError for an undecided claim whose seeds are none of them: they cannot be added to.
    """
    caps = caps_of(parameters, names)
    if not caps:
        return {}
    found: dict[str, list[int]] = {}
    for seeds, more in open_seeds(record["claims"], max(caps.values())):
        holders = [name for name in caps if parameters[name] == seeds]
        if not holders:
            raise ValueError(
                f"{record['notebook']}: a claim with looks must have the seeds of a parameter, "
                f"got {seeds}"
            )
        found |= {name: more for name in holders if len(more) <= caps[name]}
    return found


def caps_of(parameters: Mapping[str, Any], names: Sequence[str]) -> dict[str, int]:
    """The most seeds of each parameter whose claims are under the rule; {} for a notebook without.

    parameters, names : as those of `next_seeds`. Raises ValueError for a cap of a parameter that
    holds no seeds, or that is no number.
    """
    most = parameters.get(CAP)
    if most is None:
        return {}
    caps = most if isinstance(most, Mapping) else dict.fromkeys(names, most)
    for name in caps:
        if name not in names:
            raise ValueError(f"{CAP} must name parameters that hold seeds, got {name!r}")
    return {name: count(f"{CAP} of {name}", cap) for name, cap in caps.items()}
