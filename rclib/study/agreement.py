"""What a claim's row in a results file says of its seeds, repeats and looks must be possible.

`rclib.study.claims` refuses what does not fit together when a claim is declared and measured; a
file may have been written by something else. So the same rules are asked of what is read back.

Needs the standard library alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from rclib.study import contract, sequential

__all__ = ["LEVELS", "check_row"]

# Of `rclib.stats.sequential.levels()`, which needs scipy; a test compares them.
LEVELS = {(5, 10, 20, 40): (0.00972836, 0.0105151, 0.0169738, 0.0256450)}
ALPHA = 0.05


def check_row(claim: Mapping[str, Any], where: str, earlier: Collection[str]) -> None:
    """Raise ValueError, with `where` in front, for a row that no claim can have come to.

    claim : with every entry of its right type, and its verdict that of its interval (of
    `rclib.study.results`). earlier : keys of the claims before it.
    """
    try:
        _seeds(claim, earlier)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(where) else f"{where}{text}") from None
    if claim["verdict"] == "not testable here":
        if claim["repeats"] != 0:
            raise ValueError(f"{where}nothing was measured, {claim['repeats']} times")
        return
    if claim["repeats"] < 1:
        raise ValueError(f"{where}it was measured {claim['repeats']} times")
    seeds, repeats = claim["declared_seeds"], claim["repeats"]
    if claim["looks"]:
        _look(claim, where)
    elif seeds is not None and repeats < (declared := _number(seeds)):
        raise ValueError(f"{where}it declares {declared} seeds and rests on {repeats}")


def _seeds(claim: Mapping[str, Any], earlier: Collection[str]) -> None:
    """What was declared, as `rclib.study.claims.Claims.declare` asks it."""
    key, seeds, looks = claim["key"], claim["declared_seeds"], claim["looks"]
    if seeds is not None:
        contract.declared_seeds("declared_seeds", seeds)
        if claim["unit"] in (None, "exact"):
            raise ValueError(f"its unit is {claim['unit']!r}, so it has no declared_seeds")
    if claim["seen_on"] is not None:
        contract.seen_seeds(key, claim["seen_on"], seeds, blind=claim["blind"])
    if looks is not None:
        sequential.check_looks(key, looks, seeds)
    elif claim["look"] is not None or claim["level"] is not None:
        raise ValueError("it has a look or a level, and no looks")
    if claim["restates"] is not None:
        try:
            contract.restated(claim["restates"], earlier)
        except ValueError as error:
            raise ValueError(f"it restates {error}") from None


def _look(claim: Mapping[str, Any], where: str) -> None:
    """The look at which a claim stopped is one that its seeds allow, at the level of that look."""
    looks, look, level = claim["looks"], claim["look"], claim["level"]
    made, repeats = len(claim["declared_seeds"]), claim["repeats"]
    if look is None or level is None:
        raise ValueError(f"{where}it is looked at more than once, and was measured at no look")
    last = sum(n <= made for n in looks)  # the last look for which there are seeds
    most = looks[look - 1] if look else made
    if repeats > min(most, made):
        raise ValueError(f"{where}it declares {made} seeds and rests on {repeats}, at look {look}")
    if look > last or (look < last and claim["verdict"] == "undecided"):
        raise ValueError(
            f"{where}it stopped at look {look} of {looks}, {claim['verdict']}, with {made} seeds"
        )
    known = LEVELS.get(tuple(looks))
    due = known[max(look, 1) - 1] if known else level
    if not 0 < level < ALPHA or not math.isclose(level, due, rel_tol=1e-5):
        raise ValueError(f"{where}its level {level:g} is not that of look {look} of {looks}")


def _number(seeds: Any) -> int:
    return len(seeds) if isinstance(seeds, list) else int(seeds)
