"""How far the verdicts depend on the seeds, from the record that `make seeds` writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.files.plain import read_plain
from rclib.files.strict import parse_json
from rclib.study.results import tally

__all__ = [
    "claim_rows",
    "load_stability",
    "moving_verdicts",
    "seed_shares",
    "sentence",
    "share",
    "stability_path",
    "tallies",
]

_MAX_BYTES = 2**24


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


def stability_path(profile: str, notebook: str) -> Path:
    """Where `make seeds` keeps what it found for a notebook."""
    return paths.results_dir(profile).parent / "stability" / profile / f"{notebook}.json"


def load_stability(profile: str) -> dict[str, Any] | None:
    """The records of all notebooks of a profile: `profile`, `repeats` (the fewest sets of seeds
    of a notebook) and `notebooks`, name -> rows of `tallies`. None if there are none.

    Raises ValueError naming a file that is none.
    """
    notebooks: dict[str, Any] = {}
    repeats = []
    for path in sorted(stability_path(profile, "x").parent.glob("[0-9]*.json")):
        try:
            record = parse_json(read_plain(path, _MAX_BYTES).decode("utf-8"))
            for row in record["claims"]:
                share(row)
            notebooks[record["notebook"]] = record["claims"]
            repeats.append(int(record["repeats"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as e:
            raise ValueError(f"stability file {path} is not valid: {_brief(e)}") from None
    if not notebooks:
        return None
    return {"profile": profile, "repeats": min(repeats), "notebooks": notebooks}


def _brief(error: Exception) -> str:
    if isinstance(error, UnicodeError):  # its repr is the whole file
        return str(error)
    return repr(error)[:200]


def seed_shares(profile: str, claims: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
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
    return f"{text} (`results/stability/{record['profile']}/`)."


def moving_verdicts(record: Mapping[str, Any]) -> str:
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


def claim_rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every claim of these results with its notebook, its data, and in how many of the sets of
    seeds its verdict came out ("9/10", "" where that is not known)."""
    rows = []
    for record in records:
        often = seed_shares(record["profile"], [(record["notebook"], c) for c in record["claims"]])
        about = {"notebook": record["notebook"], "data": record["data"]["description"]}
        rows += [
            {**about, **c, "seeds": seeds} for c, seeds in zip(record["claims"], often, strict=True)
        ]
    return rows
