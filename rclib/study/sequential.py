"""Claims that are looked at more than once: how they stop, what is said of it, what comes next.

A claim that is declared with `looks` (`rclib.stats.sequential.LOOKS`) is judged by the values of
its first seeds, then of more, at the levels of `rclib.stats.sequential`, and keeps the verdict of
the first look that decides; the interval that it shows is that of this look. Seeds that were run
for other claims of the notebook after it had stopped change nothing.

Used by `rclib.study.claims`. Importing it needs the standard library alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rclib.checks.arguments import brief, count

if TYPE_CHECKING:
    from rclib.stats.sequential import Look

__all__ = [
    "RULE",
    "Estimate",
    "Judge",
    "adjusted_mark",
    "check_looks",
    "design",
    "judged",
    "more_seeds",
    "open_seeds",
    "restated_place",
    "rule_text",
    "total_text",
]

# What pages say above claims of which some are marked.
RULE = (
    "An interval marked *adjusted* is that of a claim which is looked at after 5, 10, 20 and 40 "
    "seeds until one look decides: group-sequential, its levels spend 5 percent over all looks "
    "(Lan-DeMets, Pocock type); n is the number of seeds at the look where it stopped."
)

_UNDECIDED = "undecided"


def check_looks(key: str, looks: Any, seeds: Any) -> list[int]:
    """The numbers of repeats at which a claim is looked at.

    Raises ValueError unless they grow from 2 on, and for a claim whose seeds are no list: which
    values come first must be fixed beforehand.
    """
    name = f"looks of {key!r}"
    if isinstance(looks, str) or not isinstance(looks, Sequence) or not looks:
        raise ValueError(f"{name} must be a list of numbers of repeats, got {brief(looks)}")
    found = [count(name, one, 2) for one in looks]
    if sorted(set(found)) != found:
        raise ValueError(f"{name} must grow, got {found}")
    if not isinstance(seeds, list):
        raise ValueError(f"claim {key!r} is looked at more than once, so it needs a list of seeds")
    return found


class Judge(Protocol):
    """What says whether an interval meets a criterion: `rclib.study.claims.Criterion`."""

    def verdict(self, low: float, high: float, *, unit: str | None, repeats: int) -> str:
        """One of the verdicts."""


# (number of seeds, two-sided level) -> value, low, high from the first seeds.
Estimate = Callable[[int, float], tuple[float, float, float]]


def judged(
    key: str, criterion: Judge, looks: Any, seeds: Any, values: Mapping[int, float] | Estimate
) -> tuple[Look, str]:
    """The look that a claim stopped at, and its verdict.

    values : seed -> value; declared seeds without one were run and have none. Or an estimate that
    is no mean over seeds (`rclib.stats.sequential.follow`).
    Raises ValueError if none of them has one, and as `check_looks`.
    """
    from rclib.stats import sequential  # scipy, which readers of results go without

    looks = check_looks(key, looks, seeds)
    if not callable(values) and not values:
        raise ValueError(f"values of {key!r} must not be empty")

    def verdict(low: float, high: float, repeats: int) -> str:
        return criterion.verdict(low, high, unit="seed", repeats=repeats)

    def decides(low: float, high: float, repeats: int) -> bool:
        return verdict(low, high, repeats) != _UNDECIDED

    if callable(values):
        found = sequential.follow(values, len(seeds), decides, looks=looks)
    else:
        found = sequential.walk([values.get(seed) for seed in seeds], decides, looks=looks)
    decided = verdict(found.low, found.high, found.defined) if found.number else _UNDECIDED
    return found, decided


def rule_text(claim: Mapping[str, Any]) -> str:
    """What a row of a results file says of the rule; "" for a claim that has none.

    E.g. "interval adjusted for looks at 5, 10, 20, 40 seeds; decided at look 2".
    """
    looks = claim.get("looks")
    if not looks or claim["look"] is None:
        return ""
    at = ", ".join(map(str, looks))
    text = f"interval adjusted for looks at {at} seeds; "
    if claim["look"] == 0:
        return f"{text}{claim['repeats']} are too few for the first"
    ends = _UNDECIDED if claim["verdict"] == _UNDECIDED else "decided"
    return f"{text}{ends} at look {claim['look']} (level {claim['level']:.2g})"


def adjusted_mark(claim: Mapping[str, Any]) -> str:
    """What stands behind the interval of a claim under the rule: " (adjusted, n = 10)", or ""."""
    return f" (adjusted, n = {claim['repeats']})" if rule_text(claim) else ""


def design(claims: Sequence[Mapping[str, Any]], most: int | None) -> dict[str, Any] | None:
    """What a results file says of its claims under the rule: the looks, their levels, the `most`
    seeds that this profile spends on a claim and those `spent` so far. None if there are none."""
    under = [claim for claim in claims if claim["looks"]]
    if not under:
        return None
    from rclib.stats import sequential

    looks = under[0]["looks"]
    return {
        "spending": "Lan-DeMets, Pocock type",
        "alpha": sequential.ALPHA,
        "looks": looks,
        "levels": [float(f"{level:.6g}") for level in sequential.levels(looks)],
        "most": most,
        "spent": max(len(claim["declared_seeds"]) for claim in under),
    }


def more_seeds(seeds: Sequence[int], looks: Sequence[int], most: int) -> list[int] | None:
    """The seeds with those of the next look behind them, consecutive ones; None beyond `most`."""
    following = [n for n in looks if len(seeds) < n <= most]
    if not following:
        return None
    extra = following[0] - len(seeds)
    return [*seeds, *range(max(seeds) + 1, max(seeds) + 1 + extra)]


def open_seeds(claims: Sequence[Mapping[str, Any]], most: int) -> list[tuple[list[int], list[int]]]:
    """(seeds, seeds of the next look) of the undecided claims under the rule, each list once."""
    found: dict[tuple[int, ...], list[int]] = {}
    for claim in claims:
        if claim["looks"] and claim["verdict"] == _UNDECIDED:
            seeds = claim["declared_seeds"]
            more = more_seeds(seeds, claim["looks"], most)
            if more is not None:
                found[tuple(seeds)] = more
    return [(list(seeds), more) for seeds, more in found.items()]


def total_text(claims: Sequence[Mapping[str, Any]]) -> str:
    """How many of the testable claims are decided, and what became of the others.

    E.g. "99 of 109 testable claims are decided (90 percent); 3 of the others have a restatement
    that is. A claim and its restatements taken as one question: 97 of 104 (93 percent)". The second
    sentence stands only where there are restatements; "" if no claim is testable.
    """
    testable = [claim for claim in claims if claim["verdict"] != "not testable here"]
    if not testable:
        return ""
    decided = {_place(claim) for claim in testable if claim["verdict"] != _UNDECIDED}
    text = _of(len(decided), len(testable), "testable claims are decided ")
    before = {_place(claim): restated_place(claim) for claim in testable if claim.get("restates")}
    before = {place: first for place, first in before.items() if first in map(_place, testable)}
    if not before:
        return text
    restated = {first for place, first in before.items() if place in decided} - decided
    if restated:
        text += f"; {len(restated)} of the others have a restatement that is"

    def question(place: _Place) -> _Place:
        while place in before:
            place = before[place]
        return place

    questions = {question(_place(claim)) for claim in testable}
    answered = {question(place) for place in decided}
    said = _of(len(answered), len(questions), "")
    return f"{text}. A claim and its restatements taken as one question: {said}"


_Place = tuple[str | None, str]  # notebook and key


def restated_place(claim: Mapping[str, Any]) -> _Place:
    """Notebook and key of the claim that a row restates: of its own notebook, or "notebook/key"."""
    notebook, separator, key = str(claim["restates"]).partition("/")
    return (notebook, key) if separator else (claim.get("notebook"), notebook)


def _place(claim: Mapping[str, Any]) -> _Place:
    return claim.get("notebook"), claim["key"]


def _of(part: int, whole: int, what: str) -> str:
    return f"{part} of {whole} {what}({math.floor(100 * part / whole)} percent)"
