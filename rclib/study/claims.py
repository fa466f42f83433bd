"""Claims: a statement of a paper, a criterion fixed before looking, a measured value, a verdict.

A notebook declares its claims in a cell before anything is computed, measures them after, and
writes them to its results file. The value comes with an interval over repeats (seeds, draws);
the verdict is

    reproduced           the whole interval meets the criterion
    not reproduced       no part of it does
    undecided            the interval straddles the criterion
    not testable here    nothing was measured; the reason is given
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from rclib.checks.arguments import brief, number, text

__all__ = ["VERDICTS", "Claim", "Claims", "Criterion", "above", "below", "between", "interval_of"]

VERDICTS = ("reproduced", "not reproduced", "undecided", "not testable here")


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

    def verdict(self, low: float, high: float) -> str:
        """Verdict for an interval [low, high] of the measured value.

        Raises ValueError for an interval that is not ordered, or of NaN.
        """
        low, high = number("low", low), number("high", high)
        if not low <= high:
            raise ValueError(f"interval must be ordered, got low {low} and high {high}")
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


# 97.5 percent points of Student's t for 1 ... 30 degrees of freedom; kept as a table so that
# this module, which every `make` call loads, needs the standard library alone (a test
# compares it with scipy). Above, the expansion in 1/df does
# (Abramowitz and Stegun, 26.7.5).
_T975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_Z975 = 1.959964


def _t975(df: int) -> float:
    if df <= len(_T975):
        return _T975[df - 1]
    z = _Z975
    return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)


def _axes(values: Sequence[float]) -> int:
    return int(getattr(values, "ndim", 1))  # of an array or tensor


def interval_of(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high): 95 percent t-interval of the mean over repeats.

    One value gives an interval of width zero. Raises ValueError for no value, one that is no
    finite number, and values so large that their squares are not finite.
    """
    if isinstance(values, str) or not hasattr(values, "__len__") or _axes(values) != 1:
        raise ValueError(f"values must be a sequence of numbers, got {type(values).__name__}")
    if len(values) == 0:  # not `not values`: an array has no truth value
        raise ValueError("values must not be empty")
    values = [number("values", v) for v in values]
    if not all(math.isfinite(v) for v in values):
        raise ValueError(f"values must be finite, got {values}")
    if max(map(abs, values)) > 1e150:
        raise ValueError(f"values must be smaller, got {max(values, key=abs)}")
    mean = fmean(values)
    if len(values) == 1:
        return mean, mean, mean
    half = _t975(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


@dataclass
class Claim:
    """One claim; `value`, `low`, `high` are None until measured."""

    key: str
    paper: str
    statement: str
    quantity: str
    criterion: Criterion
    value: float | None = None
    low: float | None = None
    high: float | None = None
    repeats: int = 0
    verdict: str = ""
    note: str = ""


@dataclass
class Claims:
    """The claims of one notebook, in the order of declaration."""

    claims: dict[str, Claim] = field(default_factory=dict)

    def declare(
        self, key: str, *, paper: str, statement: str, quantity: str, criterion: Criterion
    ) -> None:
        """Write a claim down before its value is known.

        paper : where it stands, e.g. "A, Figure 4.1"; or "beyond the paper".
        Raises ValueError when the key is taken, TypeError for a criterion that is none.
        """
        if not isinstance(criterion, Criterion):
            raise TypeError(f"criterion of {key!r} must be a Criterion, got {brief(criterion)}")
        for name, value in (("paper", paper), ("statement", statement), ("quantity", quantity)):
            text(name, value)
        if text("key", key) in self.claims:
            raise ValueError(f"claim {key!r} is declared already")
        self.claims[key] = Claim(key, paper, statement, quantity, criterion)

    def measure(
        self,
        key: str,
        values: float | Iterable[float],
        *,
        interval: tuple[float, float] | None = None,
        note: str = "",
    ) -> str:
        """Set the measured value and return the verdict.

        values : one value or one a repeat (mean and 95 percent t-interval are taken).
        interval : (low, high) instead, finite, e.g. of a fit or a bootstrap.
        A claim is measured once; raises ValueError for a second time or an unknown key. After
        an error the claim is as it was.
        """
        claim, note = self._open(key), text("note", note)
        # Numbers of numpy and torch have no dimension; they are no sequence either.
        single = isinstance(values, (int, float)) or getattr(values, "ndim", None) == 0
        if not single and (isinstance(values, str) or not isinstance(values, Iterable)):
            raise ValueError(f"values of {key!r} must be numbers, got {brief(values)}")
        repeats = [values] if single else list(values)  # type: ignore[arg-type]
        value, low, high = interval_of(repeats)  # type: ignore[arg-type]
        if interval is not None:
            if not isinstance(interval, (tuple, list)) or len(interval) != 2:
                raise ValueError(f"interval of {key!r} must be a pair, got {brief(interval)}")
            low, high = (number(f"interval of {key!r}", end) for end in interval)
            if not -math.inf < low <= high < math.inf:
                raise ValueError(f"interval of {key!r} must be finite and ordered, got {interval}")
        claim.value, claim.low, claim.high = value, low, high
        claim.repeats, claim.note = len(repeats), note
        claim.verdict = claim.criterion.verdict(claim.low, claim.high)
        return claim.verdict

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
                "statement": c.statement,
                "quantity": c.quantity,
                "criterion": str(c.criterion),
                "value": c.value,
                "low": c.low,
                "high": c.high,
                "repeats": c.repeats,
                "verdict": c.verdict,
                "note": c.note,
            }
            for c in self.claims.values()
        ]
