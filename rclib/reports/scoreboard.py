"""Closing scoreboard of `make figures`: every claim's verdict, from the results files.

Needs the standard library alone, so that a `make figures` with nothing to do ends at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.study.claims import VERDICTS
from rclib.study.results_file import read_results, read_times

__all__ = [
    "claim_rows",
    "load_results",
    "main",
    "score",
    "scoreboard",
    "tally",
    "times_path",
]


def load_results(profile: str) -> list[dict[str, Any]]:
    """Results files of a profile, in the order of the notebooks, each with its times (zero where
    unknown).

    Raises ValueError naming the file when one is not valid (`rclib.study.results_file`).
    """
    records = []
    for path in sorted(paths.results_dir(profile).glob("[0-9]*.json")):
        times = times_path(path)
        known = read_times(times) if times.is_file() else {"core_seconds": 0.0, "seconds": 0.0}
        records.append(known | read_results(path))
    return records


def times_path(results: Path) -> Path:
    """Where the times of a results file are."""
    return results.parent / "times" / results.name


def score(record: dict[str, Any]) -> tuple[int, int]:
    """(claims reproduced, claims made) of one results file."""
    verdicts = [c["verdict"] for c in record["claims"]]
    return verdicts.count("reproduced"), len(verdicts)


def tally(verdicts: Iterable[str]) -> dict[str, int]:
    """How often each verdict occurs, in the order of `rclib.study.claims.VERDICTS`; none with 0."""
    found = list(verdicts)
    return {verdict: found.count(verdict) for verdict in VERDICTS if verdict in found}


def claim_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every claim of these results with its notebook, its data, and in how many of the sets of
    seeds its verdict came out ("9/10", "" where that is not known)."""
    from rclib.execution.stability import shares  # which counts verdicts with `tally`

    rows = []
    for record in records:
        often = shares(record["profile"], [(record["notebook"], c) for c in record["claims"]])
        about = {"notebook": record["notebook"], "data": record["data"]["description"]}
        rows += [
            {**about, **c, "seeds": seeds} for c, seeds in zip(record["claims"], often, strict=True)
        ]
    return rows


def scoreboard(records: Sequence[dict[str, Any]]) -> str:
    """One line a claim, then the totals.

    A verdict that changes with the seeds says with how many sets of seeds it came out.
    """
    lines = []
    for record in records:
        lines.append(f"{record['notebook']}  ({record['data']['description']})")
        for c in claim_rows([record]):
            value = (
                "" if c["value"] is None else f"{c['value']:.3g} [{c['low']:.3g}, {c['high']:.3g}]"
            )
            known, _, total = c["seeds"].partition("/")
            seeds = f"  (seeds: {c['seeds']})" if known != total else ""
            lines.append(f"  {c['verdict']:18s} {c['key']:28s} {c['criterion']:16s} {value}{seeds}")
    counts = tally(c["verdict"] for r in records for c in r["claims"])
    totals = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    lines.append(f"{sum(counts.values())} claims: {totals or 'none'}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the scoreboard of a profile."""
    parser = argparse.ArgumentParser(
        prog="python -m rclib.reports.scoreboard", description=main.__doc__
    )
    parser.add_argument("--profile", default="quick")
    try:
        text = scoreboard(load_results(parser.parse_args(argv).profile))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n" + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
