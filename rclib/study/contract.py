"""What a claim that says on which seeds it is judged demands, when declared and when measured.

Used by `rclib.study.claims`. Needs the standard library alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from rclib.checks.arguments import brief, count, number, seed_of

__all__ = [
    "Seeds",
    "check_count",
    "check_finite",
    "check_labels",
    "check_repeats",
    "declared_seeds",
    "inside",
    "interval_given",
    "labelled",
    "restated",
    "seen_seeds",
]

Seeds = list[int] | int | None  # seeds, or how many; None where a claim does not say it

_ELSEWHERE = re.compile(r"(\d\d_\w+)/(\w+)")  # a claim of another notebook


def restated(value: str, earlier: Collection[str]) -> str | None:
    """The other notebook whose claim is restated by `value`, a key or "notebook/key"; None for a
    claim of the same one. Raises ValueError for a key that is not among the `earlier` ones, and
    for what is neither; whether the other notebook has the claim is not known here."""
    if "/" not in value and value in earlier:
        return None
    found = _ELSEWHERE.fullmatch(value)
    if not found:
        raise ValueError(f"{value[:60]!r}, which is no claim before it nor one of another notebook")
    return found[1]


def declared_seeds(name: str, value: Any) -> list[int] | int:
    """Seeds as a list, or their number. Raises ValueError for none, equal ones, what are none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return count(name, value)
    flat = isinstance(value, Iterable) and getattr(value, "ndim", 1) == 1
    if isinstance(value, str) or not flat:
        raise ValueError(f"{name} must be a list of seeds or their number, got {brief(value)}")
    found = [seed_of(name, one) for one in value]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{name} must be different ones, at least one, got {found}")
    return found


def seen_seeds(key: str, seen_on: Any, judged: Seeds, *, blind: bool) -> list[int]:
    """The seeds on which a criterion was seen. Raises ValueError if one of them judges it."""
    seen = declared_seeds(f"seen_on of {key!r}", seen_on)
    if isinstance(seen, int):
        raise ValueError(f"seen_on of {key!r} must be a list of seeds, got {seen}")
    if blind:
        raise ValueError(f"claim {key!r} was seen on seeds {seen}, so it needs blind=False")
    if not isinstance(judged, list):
        raise ValueError(f"claim {key!r} was seen on seeds {seen}: seeds must be a list of others")
    both = sorted(set(seen) & set(judged))
    if both:
        raise ValueError(
            f"seeds of {key!r} must be fresh, not those that its criterion was seen on "
            f"(seen_on), got {both}"
        )
    return seen


def labelled(key: str, values: Any) -> tuple[list[Any], list[Any] | None]:
    """The values, and their seeds where they say them. Raises ValueError for what are none."""
    if isinstance(values, Mapping):
        return list(values.values()), _plain(values)
    # Numbers of numpy and torch have no dimension; they are no sequence either.
    if isinstance(values, (int, float)) or getattr(values, "ndim", None) == 0:
        return [values], None
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"values of {key!r} must be numbers, got {brief(values)}")
    index: Any = getattr(values, "index", None)  # of a pandas Series; that of a list is a method
    return list(values), _plain(index) if getattr(index, "name", None) == "seed" else None


def _plain(labels: Iterable[Any]) -> list[Any]:
    return [int(one) if isinstance(one, Integral) else one for one in labels]


def check_labels(key: str, labels: Sequence[Any] | None, seeds: Seeds) -> None:
    """Raises ValueError for values of other seeds than the declared ones, or two of one seed."""
    if labels is None or not isinstance(seeds, list):
        return
    others = [label for label in labels if label not in seeds]
    if others:
        raise ValueError(
            f"values of {key!r} must be of its declared seeds {seeds}, got seeds {others}"
        )
    if len(set(labels)) < len(labels):
        raise ValueError(f"values of {key!r} must be one a seed, got seeds {labels}")


def check_count(key: str, found: int, seeds: Seeds) -> None:
    """Raises ValueError unless there is one value a declared seed."""
    expected = len(seeds) if isinstance(seeds, list) else seeds
    if expected is not None and found != expected:
        raise ValueError(
            f"claim {key!r} declares {expected} seeds and takes one value a seed, got {found}"
        )


def check_finite(key: str, values: Sequence[Any], names: Sequence[Any] | Seeds) -> None:
    """Raises ValueError naming the seed whose value is NaN or infinite."""
    known = names if isinstance(names, Sequence) and len(names) == len(values) else None
    for place, value in enumerate(values):
        if not math.isfinite(number(f"values of {key!r}", value)):
            whose = f"repeat {place + 1}" if known is None else f"seed {known[place]}"
            raise ValueError(f"values of {key!r} must be finite, got {value} for {whose}")


def interval_given(key: str, interval: Any, value: float) -> tuple[float, float]:
    """(low, high) of a fit or a bootstrap. Raises ValueError unless finite, ordered and around the
    value."""
    if not isinstance(interval, (tuple, list)) or len(interval) != 2:
        raise ValueError(f"interval of {key!r} must be a pair, got {brief(interval)}")
    low, high = (number(f"interval of {key!r}", end) for end in interval)
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"interval of {key!r} must be finite and ordered, got {interval}")
    if not inside(value, low, high):
        given = f"got {interval} for {value:g}"
        raise ValueError(f"interval of {key!r} must hold the mean of its values, {given}")
    return low, high


def inside(value: float, low: float, high: float) -> bool:
    """Whether a value lies in its interval, but for rounding."""
    slack = 1e-9 * max(abs(low), abs(high))
    return low - slack <= value <= high + slack


def check_repeats(key: str, made: int, seeds: Seeds) -> None:
    """Raises ValueError if an interval that was given rests on fewer seeds than declared."""
    expected = len(seeds) if isinstance(seeds, list) else seeds
    if expected is not None and made < expected:
        raise ValueError(
            f"claim {key!r} declares {expected} seeds and its interval rests on {made}; say on "
            "how many with repeats="
        )
