"""How many verdicts would stand if the number of claims were corrected for.

A verdict rests on a 95 percent interval, so among many claims a few are decided by chance. The
family is every claim that has an interval, decided or not. For a decided claim, p is the chance
of a mean at least as far on its side of the criterion's edge if the true value lay on that
edge: with the distance δ of the value from the edge and the standard error s behind its interval,

    p = P(t_{n-1} > δ / s)

for n repeats (Student's t; the normal law where the interval is that of a fit or a bootstrap). A
claim that was looked at more than once has the repeated p-value instead
(`rclib.stats.sequential.repeated_p`), the smallest error at which it would have ended at its look.
Holm's step-down procedure then says which verdicts hold together at a family-wise error of 2.5
percent on each side, the level of a single one. Claims without a spread, from one value or
exact, have no p and are counted apart.

Source: Holm, "A simple sequentially rejective multiple test procedure" (Scand. J. Statist. 1979).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from rclib.stats.sequential import repeated_p
from rclib.study.claims import VERDICTS

__all__ = ["Corrected", "corrected", "holm", "p_value"]

LEVEL = 0.025
_DECIDED = VERDICTS[:2]


def p_value(claim: Mapping[str, Any]) -> float | None:
    """p of a decided claim, one row of `rclib.study.claims.Claims.rows`; None where it has none."""
    if claim["verdict"] not in _DECIDED or claim["repeats"] < 1:
        return None
    value, low, high = (float(claim[key]) for key in ("value", "low", "high"))
    if not low < high:
        return None
    first, last = claim["criterion_low"], claim["criterion_high"]
    first, last = (-math.inf if first is None else first), (math.inf if last is None else last)
    n = claim["repeats"]
    # An interval around the mean of the repeats is Student's; any other is taken as normal.
    symmetric = math.isclose(value - low, high - value, rel_tol=1e-6)
    law, shape = (stats.t, (n - 1,)) if n > 1 and symmetric else (stats.norm, ())
    level = claim.get("level")
    error = (high - low) / 2 / float(law.ppf(0.975 if level is None else 1 - level / 2, *shape))
    if claim["verdict"] == "reproduced":
        distance = min(value - first, last - value)
    else:
        distance = max(first - value, value - last)
    p = float(law.sf(distance / error, *shape))
    if level is None:
        return p
    return repeated_p(2 * p, claim["look"], looks=claim["looks"]) / 2


def holm(ps: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of the hypotheses with these p are rejected together at a family-wise `level`.

    In ascending order, p_(k) is held against level / (m - k), k from 0; the first that is not
    below it ends the rejections. Raises ValueError for a p outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in ps):
        raise ValueError(f"ps must lie in [0, 1], got {ps}")
    rejected = [False] * len(ps)
    for k, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        if ps[i] > level / (len(ps) - k):
            break
        rejected[i] = True
    return rejected


@dataclass(frozen=True)
class Corrected:
    """Counts of claims: all with an interval, those of them that are decided, those whose
    verdict stands corrected for the number of all, and decided ones without a spread."""

    intervals: int
    decided: int
    standing: int
    without_spread: int

    def __str__(self) -> str:
        return (
            f"{self.intervals} claims have an interval and {self.decided} of them are decided by "
            f"it; {self.standing} of these verdicts stand when corrected for the number of claims "
            f"(Holm, family-wise 5 percent). {self.without_spread} more rest on one value or are "
            "exact."
        )


def corrected(claims: Iterable[Mapping[str, Any]]) -> Corrected:
    """Correct the verdicts of these claims (rows of results files) for their number."""
    measured = [claim for claim in claims if claim["value"] is not None]
    spread = [claim for claim in measured if claim["low"] < claim["high"]]
    ps = [p_value(claim) for claim in spread]
    # An undecided claim rejects nothing, but it was looked at like the others.
    standing = sum(holm([1.0 if p is None else p for p in ps]))
    decided = [claim for claim in measured if claim["verdict"] in _DECIDED]
    exact = sum(not claim["low"] < claim["high"] for claim in decided)
    return Corrected(len(spread), len(decided) - exact, standing, exact)
