"""How long the paper profile of all series would take on many workers: an estimate.

A notebook's training is spread over its seeds at least, since runs are stored one seed an entry; so
its longest piece is at most its core-seconds over the seeds of its claims. One notebook at a time
(`make figures PROFILE=paper` as it is) takes the longer of that piece and an equal share of the
work, notebook after notebook; all side by side (`JOBS=...`) the longer of the longest piece of all
and an equal share of all. Time that a notebook itself needs (frames, figures) is added where one
waits for it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Work", "lines", "minutes", "works"]


class Work(NamedTuple):
    """One notebook: core-seconds of its runs, seeds they are spread over, its own seconds."""

    name: str
    core_seconds: float
    seeds: int
    own: float

    @property
    def piece(self) -> float:
        """Seconds of the longest piece that cannot be divided."""
        return self.core_seconds / self.seeds


def works(folder: Path) -> list[Work]:
    """The notebooks of a profile's results folder.

    What a notebook itself took is the median over all of those whose runs were found in the store
    (less than a tenth of the training): the others' seconds hold training.
    """
    found = []
    for path in sorted((folder / "times").glob("*.json")):
        times = json.loads(path.read_text(encoding="utf-8"))
        record = json.loads((folder / path.name).read_text(encoding="utf-8"))
        found.append((path.stem, times, _seeds(record["claims"])))
    idle = [t["seconds"] for _, t, _ in found if t["seconds"] < 0.1 * t["core_seconds"]]
    own = statistics.median(idle)
    return [Work(name, times["core_seconds"], seeds, own) for name, times, seeds in found]


def _seeds(claims: Sequence[dict[str, Any]]) -> int:
    of_seeds = [claim["repeats"] for claim in claims if claim.get("unit") == "seed"]
    return max([1, *(of_seeds or [claim["repeats"] for claim in claims])])


def minutes(notebooks: Sequence[Work], workers: int) -> tuple[float, float]:
    """One notebook at a time, and all side by side."""
    in_turn = sum(max(w.core_seconds / workers, w.piece) + w.own for w in notebooks)
    share = sum(w.core_seconds + w.own for w in notebooks) / workers
    beside = max(share, max(w.piece + w.own for w in notebooks))
    return in_turn / 60, beside / 60


def lines(
    notebooks: Sequence[Work], overhead: float, counts: Sequence[int] = (1, 2, 10, 100)
) -> str:
    """Markdown; `overhead` is what the asking process spends on a run of a cluster, in seconds."""
    total = sum(work.core_seconds for work in notebooks) / 3600
    longest = max(notebooks, key=lambda work: work.piece)
    last = counts[-1]
    table = []
    for count in counts:
        in_turn, beside = minutes(notebooks, count)
        table.append(f"| {count} | {in_turn / 60:.1f} h | {beside / 60:.1f} h |")
    return f"""## All series at the paper profile, on many workers

An estimate from what was stored: {len(notebooks)} notebooks, {total:.0f} core-hours of training
(some of it measured on a busy machine, so rather too much), and the overhead of a sweep above.
Workers are the cores of one machine for the notebooks (`RCLIB_WORKERS`), those of a cluster for
sweeps of your own.

| workers | one notebook at a time | all side by side (`JOBS`) |
|---|---|---|
{chr(10).join(table)}

What breaks first on {last} workers:

1. The work itself: a notebook is sure to have no more pieces than seeds. {longest.name}
   has the longest, at most {longest.piece / 60:.0f} minutes; one notebook at a time, most workers
   wait. Therefore notebooks can run side by side, and what one has finished the next finds.
2. The process that asks: it spends {1e3 * overhead:.0f} ms on a run of a cluster, so {last} workers
   are too many for it when runs are shorter than {last * overhead:.1f} s. Therefore small networks
   are trained as stacks, many seeds in one run.
3. Not the disk: workers need no common one, and the asking process alone writes, one file a run.
"""
