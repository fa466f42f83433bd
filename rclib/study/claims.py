"""Claims: a statement of a paper, a criterion fixed before looking, a measured value, a verdict.

A notebook declares its claims in a cell before anything is computed, measures them after, and
writes them to its results file. The value comes with an interval over repeats (seeds, draws);
the verdict is

    reproduced           the whole interval meets the criterion
    not reproduced       no part of it does
    undecided            the interval straddles the criterion, or there are fewer than three repeats
    not testable here    nothing was measured; the reason is given

A claim that says on which seeds it will be judged (`Claims.declare(..., seeds=...)`) is judged on
these and no others: `Claims.measure` refuses fewer, more, others, and values that are undefined.
Claims that say nothing of their seeds are judged by their interval alone. One that is declared
with `looks` is looked at after 5, 10, ... of its seeds, with intervals adjusted for that
(`rclib.study.sequential`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rclib.checks.arguments import brief, choice, count, flag, number, text
from rclib.study import contract, sequential
from rclib.study.interval import interval_of

__all__ = [
    "MIN_REPEATS",
    "UNITS",
    "VERDICTS",
    "Claim",
    "Claims",
    "Criterion",
    "above",
    "below",
    "between",
]

VERDICTS = ("reproduced", "not reproduced", "undecided", "not testable here")
# What is repeated: whole runs, draws within a run, resamples of a fixed set; or nothing is.
UNITS = ("seed", "draw", "bootstrap", "exact")
MIN_REPEATS = 3  # behind a verdict, unless the claim is exact


@dataclass(frozen=True)
class Criterion:
    """The value must lie in [low, high]."""

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        for name, value in (("low", self.low), ("high", self.high)):
            object.__setattr__(self, name, number(name, value))
        if not self.low <= self.high:
            raise ValueError(f"criterion needs low <= high, got {self.low:g} and {self.high:g}")
        if math.isinf(self.low) and math.isinf(self.high):
            raise ValueError(f"criterion needs a finite bound, got {self.low} and {self.high}")

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"≤ {self.high:g}"
        if math.isinf(self.high):
            return f"≥ {self.low:g}"
        return f"in [{self.low:g}, {self.high:g}]"

    def verdict(self, low: float, high: float, *, unit: str | None = None, repeats: int = 1) -> str:
        """Verdict for an interval [low, high] of the measured value.

        unit, repeats : what is repeated and how often; fewer than `MIN_REPEATS` leave it
            undecided, unless it is "exact". None for a claim that does not say it, which the
            interval alone decides.
        Raises ValueError for an interval that is not ordered, or of NaN, and an unknown unit.
        """
        low, high = number("low", low), number("high", high)
        if not low <= high:
            raise ValueError(f"interval must be ordered, got low {low} and high {high}")
        few = count("repeats", repeats, 0) < MIN_REPEATS
        if unit is not None and choice("unit", unit, UNITS) != "exact" and few:
            return "undecided"
        if self.low <= low and high <= self.high:
            return "reproduced"
        if high < self.low or low > self.high:
            return "not reproduced"
        return "undecided"


def above(low: float) -> Criterion:
    """The value is at least `low`."""
    return Criterion(low=low)


def below(high: float) -> Criterion:
    """The value is at most `high`."""
    return Criterion(high=high)


def between(low: float, high: float) -> Criterion:
    """The value lies in [low, high]."""
    return Criterion(low, high)


@dataclass
class Claim:
    """One claim; `value`, `low`, `high` are None until measured.

    paper : where it stands, e.g. "A, Figure 4.1". seeds : those it is judged on, or how many;
    None if it does not say. unit : what is repeated (`UNITS`); None likewise. look : the one that
    it stopped at, of `looks`, and its `level`.
    """

    key: str
    paper: str
    statement: str
    quantity: str
    criterion: Criterion
    item: str | None = None
    unit: str | None = None
    seeds: list[int] | int | None = None
    control: bool = False
    blind: bool = True
    seen_on: list[int] | None = None
    looks: list[int] | None = None
    partial: bool = False
    restates: str | None = None
    look: int | None = None
    level: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    repeats: int = 0
    verdict: str = ""
    note: str = ""


@dataclass
class Claims:
    """The claims of one notebook, in the order of declaration.

    paper : the paper that they are about, e.g. "A", "arxiv-1803.03635", "beyond"; "" if every
    claim says it itself.
    """

    claims: dict[str, Claim] = field(default_factory=dict)
    paper: str = ""

    def declare(
        self,
        key: str,
        *,
        statement: str,
        quantity: str,
        criterion: Criterion,
        item: str | None = None,
        paper: str | None = None,
        seeds: Sequence[int] | int | None = None,
        unit: str | None = None,
        control: bool = False,
        blind: bool = True,
        seen_on: Iterable[int] | None = None,
        looks: Sequence[int] | None = None,
        partial: bool = False,
        restates: str | None = None,
    ) -> None:
        """Write a claim down before its value is known.

        item : figure, table or section of the study's paper, e.g. "Figure 3".
        paper : another paper than the study's; without `item` the whole source, e.g.
            "A, Figure 4.1" or "beyond the paper".
        seeds : on which it will be judged, or how many.
        unit : what is repeated, one of `UNITS`; "seed" where `seeds` are given.
        control : it must fail if the effect is absent.
        blind : False if the criterion was written after somebody had seen a value; then
            `seen_on` names the seeds of that value, and `seeds` must be others.
        looks : after how many seeds it is looked at, with adjusted intervals
            (`rclib.stats.sequential.LOOKS`); partial : some of these seeds may have no value.
        restates : key of an earlier claim that cannot be decided as it was stated, or
            "notebook/key" for one of another notebook.
        Raises ValueError when the key is taken or the above do not fit together, TypeError for a
        criterion that is none.
        """
        if not isinstance(criterion, Criterion):
            raise TypeError(f"criterion of {key!r} must be a Criterion, got {brief(criterion)}")
        for name, value in (("statement", statement), ("quantity", quantity)):
            text(name, value)
        if text("key", key) in self.claims:
            raise ValueError(f"claim {key!r} is declared already")
        label, item = self._source(key, paper, item)
        judged = None if seeds is None else contract.declared_seeds(f"seeds of {key!r}", seeds)
        if unit is not None:
            choice(f"unit of {key!r}", unit, UNITS)
        if unit == "exact" and judged is not None:
            raise ValueError(f"claim {key!r} is exact, so it has no seeds, got seeds={judged}")
        if unit is None and judged is not None:
            unit = "seed"
        flag("control", control), flag("blind", blind)
        if looks is not None:
            looks = sequential.check_looks(key, looks, judged)
        if flag("partial", partial) and looks is None:
            raise ValueError(f"claim {key!r} is partial, so it needs looks")
        if restates is not None:
            try:
                contract.restated(text("restates", restates), self.claims)
            except ValueError:
                raise ValueError(
                    f"claim {key!r} restates {restates!r}, which is not declared"
                ) from None
        seen = None if seen_on is None else contract.seen_seeds(key, seen_on, judged, blind=blind)
        self.claims[key] = Claim(
            key, label, statement, quantity, criterion, item, unit, judged, control, blind, seen,
            looks, partial, restates,
        )  # fmt: skip

    def _source(self, key: str, paper: str | None, item: str | None) -> tuple[str, str | None]:
        """What the row calls "paper", and the item."""
        if item is None:
            if paper is None:
                raise ValueError(
                    f"claim {key!r} needs an item (or paper) that says where it stands"
                )
            return text("paper", paper), None
        owner = self.paper if paper is None else text("paper", paper)
        if not owner:
            raise ValueError(f"claim {key!r} needs a paper: its study names none")
        if not text("item", item):
            raise ValueError(f"item of {key!r} must not be empty")
        return f"{owner}, {item}", item

    def measure(
        self,
        key: str,
        values: float | Iterable[float] | Mapping[int, float],
        *,
        interval: tuple[float, float] | None = None,
        repeats: int | None = None,
        note: str = "",
    ) -> str:
        """Set the measured value and return the verdict.

        values : one value or one a repeat (mean and 95 percent t-interval are taken). Labelled
            by seed (a mapping, a pandas Series whose index is named "seed") they must be of the
            declared seeds.
        interval : (low, high) instead, finite, around the value, e.g. of a fit; `repeats` says how
            many seeds, draws or resamples are behind it (default: as many as there are values).
        A claim that declares seeds takes one value a seed, or an interval with at least as many
        `repeats`; one with `looks` takes values labelled by seed. A claim is measured once; raises
        ValueError for a second time, an unknown key and whatever the declaration does not allow.
        After an error the claim is as it was.
        """
        claim, note = self._open(key), text("note", note)
        found, labels = contract.labelled(key, values)
        contract.check_labels(key, labels, claim.seeds)
        if claim.looks is not None:
            return self._stop(claim, found, labels, interval, note)
        if claim.unit == "seed" and interval is None:
            contract.check_count(key, len(found), claim.seeds)
        contract.check_finite(key, found, labels or claim.seeds)
        value, low, high = interval_of(found)
        made = len(found)
        if interval is not None:
            low, high = contract.interval_given(key, interval, value)
            made = made if repeats is None else count(f"repeats of {key!r}", repeats)
        elif repeats is not None:
            raise ValueError(f"repeats of {key!r} goes with an interval, got {repeats}")
        contract.check_repeats(key, made, claim.seeds)
        verdict = claim.criterion.verdict(low, high, unit=claim.unit, repeats=made)
        if verdict != claim.criterion.verdict(low, high):
            few = f"a verdict needs {MIN_REPEATS} repeats, got {made}"
            note = f"{note}; {few}" if note else few
        claim.value, claim.low, claim.high = value, low, high
        claim.repeats, claim.note, claim.verdict = made, note, verdict
        return verdict

    def _stop(
        self, claim: Claim, found: list[Any], labels: list[Any] | None, interval: Any, note: str
    ) -> str:
        """`measure` for a claim with `looks`."""
        key = claim.key
        if interval is not None or labels is None:
            raise ValueError(f"claim {key!r} has looks: its values must be labelled by seed")
        if not claim.partial:
            contract.check_count(key, len(found), claim.seeds)
        contract.check_finite(key, found, labels)
        return self._keep(claim, dict(zip(labels, map(float, found), strict=True)), note)

    def follow(self, key: str, estimate: sequential.Estimate, *, note: str = "") -> str:
        """`measure` for a claim with looks whose value is no mean over seeds, e.g. a slope.

        estimate : (n, level) -> value, low and high from the first n of the declared seeds alone,
        with an interval of this two-sided level. Raises ValueError for a claim without looks, one
        that is `partial`, a callable that is none, and as `rclib.stats.sequential.follow`.
        """
        claim, note = self._open(key), text("note", note)
        if claim.looks is None or claim.partial:
            raise ValueError(f"claim {key!r} needs looks, and a value from every seed")
        if not callable(estimate):
            raise ValueError(f"estimate of {key!r} must be callable, got {brief(estimate)}")
        return self._keep(claim, estimate, note)

    def _keep(self, claim: Claim, found: dict[int, float] | sequential.Estimate, note: str) -> str:
        """The look at which a claim stopped, as its row says it."""
        at, verdict = sequential.judged(claim.key, claim.criterion, claim.looks, claim.seeds, found)
        claim.value, claim.low, claim.high = at.value, at.low, at.high
        claim.look, claim.level, claim.repeats = at.number, at.level, at.defined
        claim.note, claim.verdict = note, verdict
        return verdict

    def not_testable(self, key: str, reason: str) -> None:
        """Close a claim that cannot be measured here, with the reason.

        Raises ValueError without a reason, for an unknown key or a claim that is measured already.
        """
        claim = self._open(key)
        if not text("reason", reason):
            raise ValueError(f"claim {key!r} needs a reason to be not testable")
        claim.verdict, claim.note = "not testable here", reason

    def _open(self, key: str) -> Claim:
        if text("key", key) not in self.claims:
            raise ValueError(f"claim {key!r} was not declared; declared are {list(self.claims)}")
        if self.claims[key].verdict:
            raise ValueError(f"claim {key!r} is measured already")
        return self.claims[key]

    def verdicts(self, *, leave_out: Iterable[str] = ()) -> str:
        """One line a claim: verdict and key. Raises ValueError if one is still open.

        leave_out: keys that get no line. What stands in a notebook is compared with what comes
        out on other machines, and a verdict near its criterion may differ there. ValueError for
        an unknown key.
        """
        left_out = set(leave_out)
        if not left_out <= set(self.claims):
            raise ValueError(
                f"leave_out names unknown claims: {sorted(left_out - set(self.claims))}"
            )
        still_open = [c.key for c in self.claims.values() if not c.verdict]
        if still_open:
            raise ValueError(f"claims declared but not measured: {still_open}")
        shown = [c for c in self.claims.values() if c.key not in left_out]
        return "\n".join(f"{c.verdict:18s} {c.key}" for c in shown)

    def rows(self) -> list[dict[str, Any]]:
        """JSON-ready records, one a claim."""
        self.verdicts()
        return [
            {
                "key": c.key,
                "paper": c.paper,
                "item": c.item,
                "statement": c.statement,
                "quantity": c.quantity,
                "criterion": str(c.criterion),
                "criterion_low": None if math.isinf(c.criterion.low) else c.criterion.low,
                "criterion_high": None if math.isinf(c.criterion.high) else c.criterion.high,
                "value": c.value,
                "low": c.low,
                "high": c.high,
                "repeats": c.repeats,
                "unit": c.unit,
                "declared_seeds": c.seeds,
                "control": c.control,
                "blind": c.blind,
                "seen_on": c.seen_on,
                "looks": c.looks,
                "look": c.look,
                "level": c.level,
                "restates": c.restates,
                "verdict": c.verdict,
                "note": c.note,
            }
            for c in self.claims.values()
        ]
