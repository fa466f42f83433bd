"""How far the verdicts depend on the seeds, from the record that `make seeds` writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.files.plain import DataError, read_plain
from rclib.files.strict import parse_json
from rclib.study.claims import VERDICTS
from rclib.study.results import tally

__all__ = [
    "claim_rows",
    "load_stability",
    "moving_verdicts",
    "readable_stability",
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
    found, broken = readable_stability(profile)
    if broken:
        raise ValueError(broken[0])
    return found


def readable_stability(profile: str) -> tuple[dict[str, Any] | None, list[str]]:
    """`load_stability` of the files that are valid, and one line for each that is not."""
    notebooks: dict[str, Any] = {}
    repeats, broken = [], []
    for path in sorted(stability_path(profile, "x").parent.glob("[0-9]*.json")):
        try:
            record = _read(path, profile)
        except (OSError, DataError, ValueError) as error:
            reason = " ".join(str(error).split()).removeprefix(f"{path} ")
            broken.append(f"stability file {path} is not valid: {reason}")
        else:
            notebooks[record["notebook"]] = record["claims"]
            repeats.append(record["repeats"])
    if not notebooks:
        return None, broken
    return {"profile": profile, "repeats": min(repeats), "notebooks": notebooks}, broken


def _read(path: Path, profile: str) -> dict[str, Any]:
    """A record of `make seeds`. Raises ValueError saying what is wrong with it."""
    record = parse_json(read_plain(path, _MAX_BYTES).decode("utf-8"))
    if not isinstance(record, dict):
        raise ValueError("not an object")
    for entry, expected in (("notebook", path.stem), ("profile", profile)):
        if record.get(entry) != expected:
            raise ValueError(f"its {entry} is {ascii(record.get(entry))[:60]}, not {expected!r}")
    repeats, claims = record.get("repeats"), record.get("claims")
    if type(repeats) is not int or repeats < 1:
        raise ValueError(f"repeats must be a positive whole number, got {ascii(repeats)[:60]}")
    if not isinstance(claims, list) or not claims:
        raise ValueError(f"claims must be a list of objects, got {ascii(claims)[:60]}")
    seen: set[str] = set()
    for row in claims:
        key = row.get("key") if isinstance(row, dict) else None
        if not isinstance(key, str) or not key.isprintable() or key in seen:
            raise ValueError(f"each claim must have a key of its own, got {ascii(key)[:60]}")
        seen.add(key)
        _check_counts(key, row.get("verdict"), row.get("verdicts"), repeats)
    return record


def _check_counts(key: str, verdict: object, counts: object, repeats: int) -> None:
    if not isinstance(counts, dict) or not all(
        name in VERDICTS and type(n) is int and n > 0 for name, n in counts.items()
    ):
        raise ValueError(f"claim {key[:60]!r}: verdicts must count {', '.join(VERDICTS)}")
    if not isinstance(verdict, str) or verdict not in counts:
        raise ValueError(f"claim {key[:60]!r}: its verdict is not among those that it counts")
    if sum(counts.values()) != repeats:
        raise ValueError(
            f"claim {key[:60]!r}: its verdicts are {sum(counts.values())} in all, not {repeats}"
        )


def seed_shares(
    profile: str,
    claims: Iterable[tuple[str, Mapping[str, Any]]],
    broken: list[str] | None = None,
) -> list[str]:
    """For each (notebook, claim), in how many of the runs its verdict came out, as "9/10".

    "" for claims that the committed record of the profile does not know. broken : gets one line
    for each record that is not valid; without it ValueError is raised for the first.
    """
    record, faults = readable_stability(profile)
    if broken is None and faults:
        raise ValueError(faults[0])
    if broken is not None:
        broken += [fault for fault in faults if fault not in broken]
    rows = {
        (n, row["key"]): row["verdicts"]
        for n, rows in (record or {"notebooks": {}})["notebooks"].items()
        for row in rows
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


def claim_rows(
    records: Sequence[dict[str, Any]], broken: list[str] | None = None
) -> list[dict[str, Any]]:
    """Every claim of these results with its notebook, its data, and in how many of the sets of
    seeds its verdict came out ("9/10", "" where that is not known).

    broken : as in `seed_shares`, which raises ValueError without it.
    """
    rows = []
    for record in records:
        claims = [(record["notebook"], claim) for claim in record["claims"]]
        often = seed_shares(record["profile"], claims, broken)
        about = {"notebook": record["notebook"], "data": record["data"]["description"]}
        rows += [
            {**about, **c, "seeds": seeds} for c, seeds in zip(record["claims"], often, strict=True)
        ]
    return rows
