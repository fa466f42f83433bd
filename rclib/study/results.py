"""A results file, checked on reading: what `rclib.study.study.Study` writes and others build upon.

The scoreboard prints it, the README's table and replication.md are written from it, and the
gallery opens the files of the figures that it names. So a file of another shape, numbers that
are none, a verdict that its own interval contradicts, a name that leads out of its folder, and
text that moves the terminal's cursor stop here, with one line that names the file.

Files of version 0.1.0 hold a claim's criterion as text alone and say nothing of its seeds; what
they lack is filled in on reading, so that all that comes from here has one form.

Needs the standard library alone, as the scoreboard does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.files.plain import DataError, read_plain
from rclib.files.strict import parse_json
from rclib.study import agreement, contract
from rclib.study.claims import UNITS, VERDICTS, Criterion

__all__ = [
    "duration",
    "load_results",
    "read_results",
    "read_times",
    "readable_results",
    "score",
    "tally",
    "times_path",
]

_MAX_BYTES = 2**24  # a hundred times the largest so far
# Control characters, separators of lines, marks that turn the direction of text or are not seen,
# halves of characters.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_NUMBER = (float, int)
_ENVIRONMENT = ("python", "torch", "numpy", "system", "machine", "cores", "commit")


def read_results(path: Path) -> dict[str, Any]:
    """The record of a notebook; see `rclib.study.study.Study.close` for what it holds.

    Raises ValueError naming the file and the fault.
    """
    try:
        record = _parsed(path)
        record.setdefault("paper", None)
        _check(record, path)
    except ValueError as error:
        raise ValueError(f"results file {path} is not valid: {error}") from None
    return record


def read_times(path: Path) -> dict[str, float]:
    """Seconds of all runs on one core and of the notebook itself. ValueError as above."""
    try:
        record = _parsed(path)
        times = {key: float(_get(record, "", key, *_NUMBER)) for key in _TIMES}
        if min(times.values()) < 0:
            raise ValueError("its seconds are negative")
    except ValueError as error:
        raise ValueError(f"times file {path} is not valid: {error}") from None
    return times


_TIMES = ("core_seconds", "seconds")


def _parsed(path: Path) -> dict[str, Any]:
    try:
        record = parse_json(read_plain(path, _MAX_BYTES).decode("utf-8"))
    except (DataError, OSError) as error:
        raise ValueError(str(error).removeprefix(f"{path} ")) from None
    if not isinstance(record, dict):
        raise ValueError("not an object")
    return record


def _check(record: dict[str, Any], path: Path) -> None:
    if _get(record, "", "notebook", str) != path.stem:
        raise ValueError(f"its notebook is {record['notebook'][:60]!r}, not {path.stem!r}")
    _line(record, "", "title")
    _line(record, "", "profile")
    _optional(record, "", "paper")
    data = _get(record, "", "data", dict)
    _line(data, "data: ", "description")
    _get(data, "data: ", "checksum", str, type(None))
    _get(record, "", "parameters", dict)
    environment = _get(record, "", "environment", dict)
    for key in _ENVIRONMENT:
        if _get(environment, "environment: ", key, str, int, type(None)) is not None:
            _line({key: str(environment[key])}, "environment: ", key)
    figures: set[str] = set()
    for figure in _objects(record, "figures"):
        name = _line(figure, "figures: ", "name")
        if name in figures:
            raise ValueError(f"figures: name {name[:60]!r} is there twice")
        figures.add(name)
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"figures: name {name[:60]!r} is no plain file name")
        _line(figure, "figures: ", "caption")
    for name, table in _get(record, "", "tables", dict).items():
        _check_table(name, table)
    seen: set[str] = set()
    for claim in _objects(record, "claims"):
        if _word(claim, "claims: ", "key") in seen:
            raise ValueError(f"claims: key {claim['key'][:60]!r} is there twice")
        _check_claim(claim, seen)
        seen.add(claim["key"])


def _check_table(name: str, table: Any) -> None:
    """Names of columns and rows of as many values. In older files a list of objects, one a row."""
    if isinstance(table, list):
        if not all(isinstance(row, dict) for row in table):
            raise ValueError(f"tables: {name[:60]!r} must be a list of objects")
        return
    where = f"tables: {name[:60]!r}: "
    if not isinstance(table, dict):
        raise ValueError(f"{where}must have columns and rows")
    columns = _get(table, where, "columns", list)
    if not all(isinstance(column, str) for column in columns):
        raise ValueError(f"{where}the names of columns must be texts")
    for row in _get(table, where, "rows", list):
        if not isinstance(row, list) or len(row) != len(columns):
            raise ValueError(f"{where}every row must be a list of {len(columns)} values")


def _check_claim(claim: dict[str, Any], earlier: set[str]) -> None:
    where = f"claim {claim['key'][:60]!r}: "
    for key in ("paper", "statement", "quantity", "criterion"):
        _word(claim, where, key)
    _line(claim, where, "note")
    rounded = "criterion_low" not in claim
    if rounded:
        _fill(claim, where)
    criterion = _criterion(claim, where)
    _optional(claim, where, "item")
    if (unit := _optional(claim, where, "unit")) is not None and unit not in UNITS:
        raise ValueError(f"{where}unknown unit {unit[:60]!r}")
    _whole_numbers(
        where, "declared_seeds", _get(claim, where, "declared_seeds", list, int, type(None))
    )
    _whole_numbers(where, "seen_on", _get(claim, where, "seen_on", list, type(None)))
    _check_looks(claim, where)
    for key in ("control", "blind"):
        _get(claim, where, key, bool)
    if _line(claim, where, "verdict") not in VERDICTS:
        raise ValueError(f"{where}unknown verdict {claim['verdict'][:60]!r}")
    if _get(claim, where, "repeats", int) < 0:
        raise ValueError(f"{where}repeats must not be negative, got {claim['repeats']}")
    untested = claim["verdict"] == "not testable here"
    for key in ("value", "low", "high"):
        _get(claim, where, key, *([type(None)] if untested else _NUMBER))
    if not untested:
        _check_verdict(claim, where, criterion, rounded=rounded)
    agreement.check_row(claim, where, earlier)


def _check_looks(claim: dict[str, Any], where: str) -> None:
    """What a claim says of its looks; files of before 0.2.0 say nothing."""
    for key in ("looks", "look", "level", "restates"):
        claim.setdefault(key, None)
    looks = _get(claim, where, "looks", list, type(None))
    _whole_numbers(where, "looks", looks)
    look = _get(claim, where, "look", int, type(None))
    _get(claim, where, "level", *_NUMBER, type(None))
    _optional(claim, where, "restates")
    if look is not None and not 0 <= look <= len(looks or ()):
        raise ValueError(f"{where}look {look} is none of {looks}")


def _whole_numbers(where: str, key: str, seeds: Any) -> None:
    if isinstance(seeds, list) and not all(type(seed) is int for seed in seeds):
        raise ValueError(f"{where}{key} must hold whole numbers")


def _check_verdict(
    claim: dict[str, Any], where: str, criterion: Criterion, *, rounded: bool
) -> None:
    """The verdict must be what criterion, interval and number of repeats give."""
    low, high = claim["low"], claim["high"]
    if not low <= high:
        raise ValueError(f"{where}its interval [{low:g}, {high:g}] is not ordered")
    if not contract.inside(claim["value"], low, high):
        raise ValueError(
            f"{where}its value {claim['value']:g} lies outside its interval [{low:g}, {high:g}]"
        )
    # A criterion that was read from its text has six digits; an edge that near decides nothing.
    edges = [edge for edge in (criterion.low, criterion.high) if math.isfinite(edge)]
    if rounded and any(math.isclose(x, e, rel_tol=1e-5) for x in (low, high) for e in edges):
        return
    due = criterion.verdict(low, high, unit=claim["unit"], repeats=claim["repeats"])
    if claim["look"] == 0:  # too few repeats for the first look
        due = "undecided"
    if claim["verdict"] != due:
        raise ValueError(
            f"{where}verdict {claim['verdict']!r} contradicts its interval [{low:g}, {high:g}] of "
            f"{claim['repeats']} repeats against {claim['criterion']}, which gives {due!r}"
        )


_DIGITS = r"-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_CRITERIA = re.compile(
    rf"≤ (?P<most>{_DIGITS})|≥ (?P<least>{_DIGITS})|in \[(?P<low>{_DIGITS}), (?P<high>{_DIGITS})\]"
)


def _fill(claim: dict[str, Any], where: str) -> None:
    """What version 0.1.0 did not write: the criterion's numbers (from its text), and no
    item and seeds."""
    found = _CRITERIA.fullmatch(claim["criterion"])
    if found is None:
        raise ValueError(
            f"{where}criterion must be '≤ b', '≥ a' or 'in [a, b]', got {claim['criterion'][:60]!r}"
        )
    low, high = found["least"] or found["low"], found["most"] or found["high"]
    claim |= {
        "criterion_low": None if low is None else float(low),
        "criterion_high": None if high is None else float(high),
        "item": None,
        "unit": None,
        "declared_seeds": None,
        "control": False,
        "blind": True,
        "seen_on": None,
    }


def _criterion(claim: dict[str, Any], where: str) -> Criterion:
    """The criterion from its numbers, which its text must agree with."""
    ends = [
        _get(claim, where, key, *_NUMBER, type(None)) for key in ("criterion_low", "criterion_high")
    ]
    try:
        found = Criterion(
            -math.inf if ends[0] is None else ends[0], math.inf if ends[1] is None else ends[1]
        )
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
    if str(found) != claim["criterion"]:
        raise ValueError(
            f"{where}criterion {claim['criterion'][:60]!r} contradicts its numbers, {found}"
        )
    return found


def _optional(record: dict[str, Any], where: str, key: str) -> str | None:
    """A text on one line, or null."""
    if _get(record, where, key, str, type(None)) is None:
        return None
    return _line(record, where, key)


def _objects(record: dict[str, Any], key: str) -> list[dict[str, Any]]:
    values = _get(record, "", key, list)
    for value in values:
        if not isinstance(value, dict):
            raise ValueError(f"{key}: {_brief(value)} is not an object")
    return values  # type: ignore[no-any-return]


def _line(record: dict[str, Any], where: str, key: str) -> str:
    """A text that is shown to people, on one line."""
    text: str = _get(record, where, key, str)
    found = _HIDDEN.search(text)
    if found:
        raise ValueError(f"{where}{key} holds the character {found[0]!a}")
    return text


def _word(record: dict[str, Any], where: str, key: str) -> str:
    """A text of at least one letter, on one line."""
    text = _line(record, where, key)
    if not text.strip():
        raise ValueError(f"{where}{key} is empty")
    return text


def _get(record: dict[str, Any], where: str, key: str, *kinds: type) -> Any:
    if key not in record:
        raise ValueError(f"{where}it has no {key!r}")
    value = record[key]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(_NAMES[kind] for kind in kinds if kinds != _NUMBER or kind is float)
        raise ValueError(f"{where}{key} must be {names}, got {_brief(value)}")
    return value


_NAMES = {
    dict: "an object", list: "a list", str: "text", int: "a whole number", float: "a number",
    bool: "true or false",
    type(None): "null",
}  # fmt: skip


def _brief(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return ascii(value)[:60]


def load_results(profile: str) -> list[dict[str, Any]]:
    """Results files of a profile, in the order of the notebooks, each with its times (zero where
    unknown).

    Raises ValueError naming the file when one is not valid (`rclib.study.results`).
    """
    records, broken = readable_results(profile)
    if broken:
        raise ValueError(broken[0])
    return records


def readable_results(profile: str) -> tuple[list[dict[str, Any]], list[str]]:
    """`load_results` of the files that are valid, and one line for each that is not.

    For what shows many notebooks: one broken file hides no other's results.
    """
    records: list[dict[str, Any]] = []
    broken: list[str] = []
    for path in sorted(paths.results_dir(profile).glob("[0-9]*.json")):
        times = times_path(path)
        try:
            known = read_times(times) if times.is_file() else {"core_seconds": 0.0, "seconds": 0.0}
            record = read_results(path)
            if record["profile"] != profile:
                raise ValueError(
                    f"results file {path} is not valid: its profile is {record['profile'][:60]!r}"
                )
            records.append(known | record)
        except ValueError as error:
            broken.append(" ".join(str(error).split()))
    return records, broken


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


def duration(seconds: float) -> str:
    """A time in words, e.g. "26 s", "3.7 min", "1.2 h"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
