"""What callers give, checked by name before anything is computed.

Needs the standard library alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

__all__ = ["LARGEST", "brief", "choice", "count", "flag", "mapping", "number", "seed_of", "text"]

LARGEST = 2**53  # up to here every whole number is a float


def number(name: str, value: Any) -> float:
    """A real number as a float, possibly NaN or infinite; also of numpy, or a tensor of no axis.

    Raises ValueError naming the argument for anything else, text among it.
    """
    plain = not (getattr(value, "is_meta", False) or hasattr(value, "mask"))
    if getattr(value, "ndim", None) == 0 and plain:
        value = value.detach().item() if hasattr(value, "detach") else value.item()
    if not isinstance(value, Real):
        raise ValueError(f"{name} must be a number, got {brief(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that a float holds, got a larger one") from None


def count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`, of Python or numpy; no bool.

    Raises ValueError naming the argument for anything else.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= int(value) <= LARGEST:
        needed = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"{name} must be {needed}, got {brief(value)}")
    return int(value)


def seed_of(name: str, value: Any) -> int:
    """A seed of a random generator: a whole number from 0 to 2^64 - 1. Raises ValueError."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not 0 <= int(value) < 2**64:
        raise ValueError(f"{name} must be an integer from 0 to 2^64 - 1, got {brief(value)}")
    return int(value)


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """One of the options. Raises ValueError naming the argument for anything else."""
    known = tuple(options)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {known}, got {brief(value)}")
    return value


def flag(name: str, value: Any) -> bool:
    """True or False. Raises ValueError naming the argument for anything else."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {brief(value)}")
    return value


def text(name: str, value: Any) -> str:
    """Text. Raises ValueError naming the argument for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {brief(value)}")
    return value


def mapping(name: str, value: Any) -> Mapping[Any, Any]:
    """A mapping. Raises TypeError naming the argument for anything else."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping, got {type(value).__name__}")
    return value


def brief(value: Any) -> str:
    """A value for a message; of an array or tensor its type and shape alone."""
    if hasattr(value, "shape"):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, int) and abs(value) > 10**40:
        return f"a number of {math.floor(math.log10(abs(value))) + 1} digits"
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:80] + "..."
