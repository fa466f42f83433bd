"""A batch of CIFAR-10, which is a pickle, read without unpickling it.

A pickle is a program that builds objects and may call anything. This reader runs none of it: it
goes through the operations, knows dictionaries, lists, numbers, text and the three records by
which numpy writes an array of bytes, and refuses everything else. Names in the file stay names;
nothing is imported or called for them.

Python 2 wrote the batches of CIFAR-10, with protocol 2; Python 3's protocol 2 is read as well.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["parse_batch"]

_MAX_STEPS = 200_000  # a batch of 10,000 images takes 50,000: labels, file names, memo entries
_PIXELS = 3 * 32 * 32
_VALUES = {"BININT", "BININT1", "BININT2", "SHORT_BINSTRING", "BINSTRING", "BINUNICODE"}


@dataclass
class _Array:
    """What numpy writes of an array: shape, layout and bytes, set when its state is read."""

    state: tuple[Any, ...] = ()


@dataclass(frozen=True)
class _Dtype:
    code: str


@dataclass(frozen=True)
class _Name:
    """A function or class by name; never looked up."""

    name: str


def parse_batch(content: bytes) -> tuple[np.ndarray, list[int]]:
    """(pixels (n, 3072) uint8, labels) of a pickled batch, without unpickling it.

    Raises ValueError for anything but a dictionary with `data`, an array of bytes of that
    shape, and `labels`, n integers from 0 to 9.
    """
    try:
        entry = _read_pickle(content)
    except (UnicodeDecodeError, UnicodeEncodeError) as error:  # says all that it could not decode
        raise ValueError(f"not a pickle of a batch: text that is none ({error.reason})") from None
    except (IndexError, KeyError, TypeError) as error:  # an operation without its operands
        raise ValueError(f"not a pickle of a batch ({type(error).__name__}: {error})") from None
    if not isinstance(entry, dict):
        raise ValueError("not a pickle of a dictionary")
    array, labels = entry.get("data"), entry.get("labels")
    if not isinstance(array, _Array) or len(array.state) != 5:
        raise ValueError("its `data` must be an array")
    _, shape, dtype, fortran, raw = array.state
    if isinstance(raw, str):  # Python 2's text is bytes; what is none becomes bytes too many
        raw = raw.encode("latin-1", "xmlcharrefreplace")
    if dtype != _Dtype("u1") or not isinstance(raw, bytes):
        raise ValueError("its `data` must be an array of bytes")
    if shape != (len(raw) // _PIXELS, _PIXELS) or len(raw) % _PIXELS or not raw:
        raise ValueError(f"its `data` must have shape (n, {_PIXELS}) and as many bytes")
    if not isinstance(labels, list) or len(labels) != shape[0]:
        raise ValueError(f"its `labels` must be a list of {shape[0]} numbers")
    if not all(type(label) is int and 0 <= label < 10 for label in labels):
        raise ValueError("its `labels` must be integers from 0 to 9")
    pixels = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
    return pixels.copy(), labels


def _read_pickle(content: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def items() -> list[Any]:
        start = marks.pop()
        found = stack[start:]
        del stack[start:]
        return found

    for step, (operation, argument, place) in enumerate(pickletools.genops(content)):
        if step > _MAX_STEPS:
            raise ValueError(f"its pickle has more than {_MAX_STEPS:,} operations")
        match operation.name:
            case "PROTO":
                pass
            case "STOP":
                pass  # always the last one
            case "MARK":
                marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case _ if operation.name in _VALUES:
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(operation.name == "NEWTRUE")
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(items()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(operation.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND" | "APPENDS":
                values = [stack.pop()] if operation.name == "APPEND" else items()
                _list(stack[-1]).extend(values)
            case "SETITEM" | "SETITEMS":
                if operation.name == "SETITEM":
                    marks.append(len(stack) - 2)
                pairs = items()
                _dict(stack[-1]).update(zip(pairs[::2], pairs[1::2], strict=True))
            case "GLOBAL":
                stack.append(_Name(str(argument)))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_record(stack.pop(), arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], _Array):
                    stack[-1].state = tuple(state)
                elif not isinstance(stack[-1], _Dtype):  # a dtype's state repeats its code
                    raise TypeError("state of something that has none")
            case name:
                raise ValueError(f"its pickle holds {name} at byte {place}, which no batch needs")
    return stack.pop()


def _record(name: Any, arguments: Any) -> _Array | _Dtype | bytes:
    """What one of the calls that numpy writes stands for."""
    match name, arguments:
        case _Name("numpy.core.multiarray _reconstruct" | "numpy._core.multiarray _reconstruct"), _:
            return _Array()
        case _Name("numpy dtype"), (str(code), _, _):
            return _Dtype(code)
        case _Name("_codecs encode"), (str(text), "latin1"):  # Python 3's bytes
            return text.encode("latin-1")
    raise ValueError(f"its pickle calls {getattr(name, 'name', name)!r:.80}, which no batch needs")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("items added to something that is no list")
    return value


def _dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError("entries set in something that is no dictionary")
    return value
