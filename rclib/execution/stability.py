"""How far the verdicts depend on the seeds: every notebook again with other seeds.

`python -m rclib.execution.stability --profile quick --repeats 10` (`make seeds`) runs each notebook
with every seed of its parameters shifted by 0, 1000, 2000, ... and writes
`results/stability/<profile>.json`: for each claim, how often each verdict came out. The closing
scoreboard, the overview and README say from this file how much a verdict depends on the seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.reports.scoreboard import tally

__all__ = [
    "describe",
    "load_stability",
    "main",
    "run",
    "sentence",
    "share",
    "shares",
    "shifted",
    "tallies",
]

STEP = 1000


def shifted(parameters: Mapping[str, Any], by: int) -> dict[str, Any]:
    """The parameters that hold seeds (named `seed`, `seeds` or `..._seeds`), moved by `by`.

    Raises ValueError for one that holds anything but whole numbers.
    """
    moved: dict[str, Any] = {}
    for name, value in parameters.items():
        if name != "seed" and name != "seeds" and not name.endswith(("_seed", "_seeds")):
            continue
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            raise ValueError(f"parameter {name!r} must hold whole numbers, got {value!r}")
        moved[name] = [v + by for v in values] if isinstance(value, list) else value + by
    return moved


def _one(name: str, profile: str, by: int) -> list[dict[str, Any]]:
    """The claims of one notebook with its seeds moved by `by`; nothing of it is kept."""
    from rclib.execution import runner

    with tempfile.TemporaryDirectory(prefix="rclib-seeds-") as folder:
        os.environ["RCLIB_OUT"] = folder
        parameters = runner.default_parameters(name) | runner.profile_parameters(name, profile)
        overrides = shifted(parameters, by)
        runner.execute(name, profile=profile, overrides=overrides, folder=Path(folder))
        results = paths.results_dir(profile) / f"{name}.json"
        claims: list[dict[str, Any]] = json.loads(results.read_text(encoding="utf-8"))["claims"]
        return claims


def tallies(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Claims of several runs of one notebook -> one row a claim: key, first verdict, counts."""
    return [
        {
            "key": first["key"],
            "verdict": first["verdict"],
            "verdicts": tally(
                c["verdict"] for run in runs for c in run if c["key"] == first["key"]
            ),
        }
        for first in runs[0]
    ]


def share(row: Mapping[str, Any]) -> float:
    """Share of the runs that came to the verdict of the first, for a row of `tallies`."""
    return float(row["verdicts"][row["verdict"]] / sum(row["verdicts"].values()))


def run(profile: str, repeats: int, jobs: int, names: Sequence[str]) -> dict[str, Any]:
    """Every notebook `repeats` times; the record that is written."""
    # Here, so that the scoreboard, which needs none of it, stays quick.
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        futures = {
            pool.submit(_one, name, profile, STEP * i): (name, i)
            for i in range(repeats)
            for name in names
        }
        for n, future in enumerate(as_completed(futures), 1):
            name, i = futures[future]
            found[name, i] = future.result()
            print(f"{n:3d} of {len(futures)}  {name}, seeds + {STEP * i}", flush=True)
    return {
        "profile": profile,
        "repeats": repeats,
        "step": STEP,
        "notebooks": {
            name: tallies([found[name, i] for i in range(repeats)])
            for name in names
            if found[name, 0]
        },
    }


def load_stability(profile: str) -> dict[str, Any] | None:
    """The record of a profile, or None if there is none. ValueError names a file that is none."""
    path = paths.results_dir(profile).parent / "stability" / f"{profile}.json"
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        for rows in record["notebooks"].values():
            for row in rows:
                share(row)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"stability file {path} is not valid: {error!r}") from None
    return dict(record)


def shares(profile: str, claims: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """For each (notebook, claim), in how many of the runs its verdict came out, as "9/10".

    "" for claims that the committed record of the profile does not know.
    """
    record = load_stability(profile) or {"notebooks": {}}
    rows = {
        (n, row["key"]): row["verdicts"] for n, rows in record["notebooks"].items() for row in rows
    }
    found = []
    for notebook, claim in claims:
        counts = rows.get((notebook, claim["key"]))
        found.append(f"{counts.get(claim['verdict'], 0)}/{sum(counts.values())}" if counts else "")
    return found


def sentence(record: Mapping[str, Any]) -> str:
    """What README says of a record."""
    rows = [row for rows in record["notebooks"].values() for row in rows]
    moving = [row for row in rows if share(row) < 1]
    both = [row for row in moving if {"reproduced", "not reproduced"} <= set(row["verdicts"])]
    text = (
        f"At the {record['profile']} profile, {len(rows) - len(moving)} of {len(rows)} claims come "
        f"to the same verdict with each of {record['repeats']} sets of seeds"
    )
    if len(moving) > len(both):
        text += f"; undecided with some sets: {len(moving) - len(both)}"
    if both:
        text += f"; reproduced with some, not reproduced with others: {len(both)}"
    return f"{text} (`results/stability/{record['profile']}.json`)."


def describe(record: Mapping[str, Any]) -> str:
    """Claims whose verdict changes with the seeds, and how many do not."""
    rows = [(name, row) for name, rows in record["notebooks"].items() for row in rows]
    moving = [(name, row) for name, row in rows if share(row) < 1]
    lines = [
        f"{len(rows) - len(moving)} of {len(rows)} claims have one verdict in all "
        f"{record['repeats']} runs with other seeds ({record['profile']} profile)"
    ]
    for name, row in moving:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in row["verdicts"].items())
        lines.append(f"  {name:40s} {row['key']:32s} {counts}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the notebooks with other seeds and write how often each verdict comes out."""
    from rclib.execution import kernels, runner
    from rclib.runs.store import write_atomically

    parser = argparse.ArgumentParser(
        prog="python -m rclib.execution.stability", description=main.__doc__
    )
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("names", nargs="*", help="notebooks; default all but the overview")
    arguments = parser.parse_args(argv)
    try:
        for name in ("repeats", "jobs"):
            if getattr(arguments, name) < 1:
                raise ValueError(f"--{name} must be positive, got {getattr(arguments, name)}")
        known = [n for n in runner.profile_names(arguments.profile) if not n.startswith("00")]
        unknown = sorted(set(arguments.names) - set(known))
        if unknown:
            raise ValueError(f"no notebook {unknown[0]!r}; there are {', '.join(known)}")
        path = paths.results_dir(arguments.profile).parent / "stability"
        names = arguments.names or known
        with kernels.serving():
            record = run(arguments.profile, arguments.repeats, arguments.jobs, names)
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        write_atomically(path / f"{arguments.profile}.json", text.encode())
    except (runner.RunError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(describe(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
