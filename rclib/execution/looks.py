"""More seeds where claims under the sequential rule are undecided.

A claim that is declared with `looks` (`rclib.study.sequential`) names its seeds. As long as one is
undecided, `rclib.execution.runner.execute_looks` executes the notebook again with the seeds of the
next look in the parameter that holds them, up to its parameter `n_most`, the most seeds that the
profile spends. Runs are in the store, one file a seed, so each look computes what is new alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rclib.study.sequential import open_seeds

__all__ = ["CAP", "next_seeds"]

CAP = "n_most"  # the parameter


def next_seeds(
    record: Mapping[str, Any], parameters: Mapping[str, Any], names: Sequence[str]
) -> dict[str, list[int]]:
    """The parameters that get more seeds for the next look, with these seeds; {} at the end.

    record : a results file. parameters, names : those of the run, and which of them hold seeds.
    Raises ValueError for an undecided claim whose seeds are none of them: they cannot be added to.
    """
    most = parameters.get(CAP)
    if most is None:
        return {}
    wanted = open_seeds(record["claims"], most)
    found: dict[str, list[int]] = {}
    for seeds, more in wanted:
        holders = [name for name in names if parameters[name] == seeds]
        if not holders:
            raise ValueError(
                f"{record['notebook']}: a claim with looks must have the seeds of a parameter, "
                f"got {seeds}"
            )
        found |= dict.fromkeys(holders, more)
    return found
