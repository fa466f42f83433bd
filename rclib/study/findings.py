"""What the replication found that was not known: sentences whose numbers come from the results.

`papers/findings.yaml` holds them in order of weight, one entry a finding:

    id           a short name
    contradicts  id of the paper that it contradicts; such findings stand first
    title        the finding in a few words       text    one or two sentences more
    claims       notebook -> key of a claim -> the verdict that the finding stands on
    figure       the figure that shows it, one of the first notebook's

`{key}` in title or text becomes the claim's value with its interval. A finding is told while every
one of its claims is in the results with the verdict that it stands on; otherwise it is left out, so
that no sentence outlives its numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rclib.study.claims import VERDICTS

__all__ = ["MOST", "Finding", "Told", "measured", "number", "read_findings", "told"]

Record = Mapping[str, Any]
MOST = 6  # on the README and on the site's start page
_PLACE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Finding:
    """One entry of `papers/findings.yaml`."""

    id: str
    title: str
    text: str
    claims: Mapping[str, Mapping[str, str]]
    figure: str = ""
    contradicts: str = ""

    def __post_init__(self) -> None:
        keys = [key for by_key in self.claims.values() for key in by_key]
        if not keys or len(set(keys)) < len(keys):
            raise ValueError(f"finding {self.id!r} must stand on claims of different keys")
        verdicts = {verdict for by_key in self.claims.values() for verdict in by_key.values()}
        if verdicts - set(VERDICTS):
            raise ValueError(
                f"finding {self.id!r}: unknown verdict {min(verdicts - set(VERDICTS))!r}"
            )
        places = _PLACE.findall(self.title + self.text)
        if set(places) - set(keys):
            raise ValueError(
                f"finding {self.id!r} shows {min(set(places) - set(keys))!r}, which is none of its "
                "claims"
            )


@dataclass(frozen=True)
class Told:
    """A finding with its numbers, and the claims it stands on: (notebook, claim)."""

    finding: Finding
    title: str
    text: str
    evidence: tuple[tuple[str, Record], ...]

    @property
    def notebook(self) -> str:
        """The notebook that shows it."""
        return self.evidence[0][0]


def measured(claim: Record) -> str:
    """A claim's value with its interval, e.g. "0.41 [0.39, 0.43]"; the value alone where it has
    none."""
    if claim["value"] is None:
        return "not measured"
    if claim["low"] == claim["high"] == claim["value"]:
        return number(claim["value"])
    return f"{number(claim['value'])} [{number(claim['low'])}, {number(claim['high'])}]"


def number(value: float) -> str:
    """Three digits, e.g. "0.0288", "26,100", "1.2e-06"."""
    short = f"{value:.3g}"
    return f"{float(short):,.0f}" if 1e3 <= abs(float(short)) < 1e7 else short


def read_findings(content: Any) -> tuple[Finding, ...]:
    """The findings of a parsed file; ValueError saying which is not as this module says."""
    try:
        found = tuple(Finding(**entry) for entry in content)
    except (TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None
    if len({finding.id for finding in found}) < len(found):
        raise ValueError("two findings have one id")
    return found


def told(findings: Iterable[Finding], records: Mapping[str, Record]) -> tuple[Told, ...]:
    """The findings that the results bear out, those that contradict a paper first.

    records : notebook -> its results, at the largest scale that was run.
    """
    known = [one for finding in findings if (one := _told(finding, records)) is not None]
    return tuple(sorted(known, key=lambda one: not one.finding.contradicts))


def _told(finding: Finding, records: Mapping[str, Record]) -> Told | None:
    evidence = tuple(_evidence(finding, records))
    if len(evidence) < sum(len(by_key) for by_key in finding.claims.values()):
        return None
    values = {claim["key"]: measured(claim) for _, claim in evidence}

    def filled(text: str) -> str:
        return _PLACE.sub(lambda place: values[place[1]], " ".join(text.split()))

    return Told(finding, filled(finding.title), filled(finding.text), evidence)


def _evidence(finding: Finding, records: Mapping[str, Record]) -> Iterator[tuple[str, Record]]:
    """The claims that came out as the finding needs them, in its order."""
    for notebook, by_key in finding.claims.items():
        claims = {c["key"]: c for c in records.get(notebook, {"claims": ()})["claims"]}
        for key, verdict in by_key.items():
            if key in claims and claims[key]["verdict"] == verdict:
                yield notebook, claims[key]
