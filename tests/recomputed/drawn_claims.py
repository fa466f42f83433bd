"""Ten claims drawn at random over all series, to be recomputed without `rclib`.

The rule, written before the draw:

- The population: every claim of results/paper whose interval has a width, controls included, as
  "notebook/key", sorted.
- A claim is passed over where its notebook reads the long text (proposals.txt), which few readers
  have, or where three seeds of the whole notebook take more than `MOST` core-seconds
  (core-seconds of results/paper/times * 3 / repeats of the claim).
- One `random.Random(SEED)` puts the claims of series 1, 2, ... 9 in a random order, one series
  after the other, and then those of all series together. From each of the ten orders the first
  claim is taken that is neither passed over nor taken already.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, TypedDict

SEED = 20261128
MOST = 300.0  # core-seconds
LONG_TEXT = "proposals.txt"
SERIES = "123456789"


class Member(TypedDict):
    """A claim of the population: core-seconds of three seeds, whether it needs the long text."""

    seconds: float
    long_text: bool


class Drawn(TypedDict):
    """The ten, in the order of the draw, and those passed over with the reason."""

    taken: list[str]
    passed_over: dict[str, str]


def population(results: Path) -> dict[str, Member]:
    """Every claim of a folder of results that has an interval with a width."""
    found: dict[str, Member] = {}
    for path in sorted(results.glob("*.json")):
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        times = json.loads((results / "times" / path.name).read_text(encoding="utf-8"))
        long_text = LONG_TEXT in str(stored["data"])
        for claim in stored["claims"]:
            if claim["low"] is None or not claim["low"] < claim["high"]:
                continue
            seconds = round(times["core_seconds"] * 3 / max(claim["repeats"], 3), 1)
            found[f"{path.stem}/{claim['key']}"] = {"seconds": seconds, "long_text": long_text}
    return found


def draw(members: dict[str, Member]) -> Drawn:
    """The ten of a population, by the rule above."""
    rng = random.Random(SEED)
    names = sorted(members)
    strata = [[name for name in names if name[0] == digit] for digit in SERIES]
    taken: list[str] = []
    passed_over: dict[str, str] = {}
    for stratum in [*strata, names]:
        for name in rng.sample(stratum, len(stratum)):
            if name in taken:
                continue
            if members[name]["long_text"]:
                passed_over[name] = "needs the long text"
            elif members[name]["seconds"] > MOST:
                passed_over[name] = f"{members[name]['seconds']:.0f} core-seconds"
            else:
                taken.append(name)
                break
    return {"taken": taken, "passed_over": passed_over}
