"""A figure as one call: which function drew it, and with what.

A function decorated with `redrawable` draws from what can be kept: its arguments are packed into
plain JSON, numbers to six digits, and it is called with what comes out of that again. So a picture
drawn later from the kept call is the same picture, and a label that was changed in the function
since is seen in it (`python -m rclib redraw NAME`).

    @redrawable
    def spread(frame: pd.DataFrame, *, slope: float) -> Figure: ...

What can be kept: None, truth values, numbers, text, lists, tuples, mappings, numpy arrays, frames
and series of these (without their index). Beside the picture it is one file, JSON packed with xz.
Nothing in it is run: it names a decorated function of `rclib`, and holds data.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import lzma
import math
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rclib.files.strict import parse_json

__all__ = ["MAX_BYTES", "SUFFIX", "Drawing", "drawing_of", "read_drawing", "redrawable"]

SUFFIX = "json.xz"  # behind the name of the figure
MAX_BYTES = 2**25  # of the unpacked text, about a hundred times the largest so far
DIGITS = 6  # significant; what the CSV beside it has too
_FORMAT = 1
_TAG = "="  # a mapping with this key says what the others stand for
_MARK = "_rclib_drawing"
_inside: ContextVar[bool] = ContextVar("rclib_drawing_inside", default=False)

P = ParamSpec("P")


@dataclass(frozen=True)
class Drawing:
    """function : "module:name" of a `redrawable` function. arguments : packed, by name. stamp : the
    small print below the picture. cell : a mark of the notebook's cell that drew it."""

    function: str
    arguments: Mapping[str, Any]
    stamp: str = ""
    cell: str = ""

    def draw(self) -> Figure:
        """The figure, without its small print.

        Raises ValueError for a function that is not there (any more), is not `redrawable` or does
        not take these arguments.
        """
        module, _, name = self.function.partition(":")
        what = f"it was drawn by {self.function}"
        if module.split(".")[0] != "rclib":
            raise ValueError(f"{what}, which is none of rclib's functions")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            raise ValueError(f"{what}, which is not there any more") from None
        if not getattr(function, _MARK, False):
            raise ValueError(f"{what}, which does not draw figures of its own")
        values = {key: _unpack(value) for key, value in self.arguments.items()}
        try:
            inspect.signature(function).bind(**values)
        except TypeError as error:
            raise ValueError(f"{what}, which takes other arguments now: {error}") from None
        figure: Figure = function(**values)
        return figure

    def to_bytes(self) -> bytes:
        """The file: the same bytes for the same call."""
        record = {
            "format": _FORMAT,
            "function": self.function,
            "stamp": self.stamp,
            "cell": self.cell,
            "arguments": dict(self.arguments),
        }
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return lzma.compress(text.encode(), preset=6)


def read_drawing(payload: bytes) -> Drawing:
    """The call in a file of `Drawing.to_bytes`. Raises ValueError for anything else."""
    unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=2**27)
    try:
        text = unpacker.decompress(payload, max_length=MAX_BYTES)
        if not unpacker.eof:
            raise ValueError(f"it is cut off or has more than {MAX_BYTES:,} bytes")
        record = parse_json(text.decode())
    except (lzma.LZMAError, ValueError) as error:
        raise ValueError(f"not a kept drawing: {error}") from None
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise ValueError("not a kept drawing of this version")
    function, stamp, cell = (record.get(key, "") for key in ("function", "stamp", "cell"))
    if not (isinstance(function, str) and isinstance(stamp, str) and isinstance(cell, str)):
        raise ValueError("not a kept drawing: its function, stamp and cell must be text")
    arguments = record.get("arguments")
    if not isinstance(arguments, dict):
        raise ValueError("not a kept drawing: its arguments must be an object")
    return Drawing(function, arguments, stamp, cell)


def redrawable(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorator: figures of this function can be drawn again from their data.

    Every argument must have a name (no *args, no **kwargs). Raises TypeError naming function and
    argument, when it is called with what cannot be kept.
    """
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"{function.__name__}: *{parameter.name} cannot be kept by name")
    path = f"{function.__module__}:{function.__qualname__}"

    @functools.wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Figure:
        if _inside.get():  # a part of another figure: that one's call is kept
            return function(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        packed = {}
        for name, value in given.items():
            try:
                packed[name] = _pack(value)
            except TypeError as error:
                raise TypeError(f"{function.__name__}: argument {name!r}: {error}") from None
        token = _inside.set(True)
        try:
            call: Any = function  # by name: what was positional need not be so
            figure: Figure = call(**{name: _unpack(value) for name, value in packed.items()})
        finally:
            _inside.reset(token)
        setattr(figure, _MARK, (Drawing(path, packed), _looks(figure)))
        return figure

    setattr(draw, _MARK, True)
    return draw


def drawing_of(figure: Figure) -> Drawing:
    """The call that drew a figure.

    Raises ValueError if no `redrawable` function drew it, or if it was changed afterwards, so that
    the call would draw another one.
    """
    kept = getattr(figure, _MARK, None)
    if kept is None:
        raise ValueError("no function decorated with rclib.plots.drawing.redrawable has drawn it")
    drawing, looks = kept
    if looks != _looks(figure):
        raise ValueError(f"it was changed after {drawing.function} had drawn it")
    found: Drawing = drawing
    return found


def _looks(figure: Figure) -> str:
    """A mark of what a figure holds: its lines, areas, pictures and texts, and the axes' ranges."""
    parts: list[Any] = [figure.get_size_inches().tolist()]
    for panel in figure.get_axes():
        parts += [panel.get_title(), panel.get_xlabel(), panel.get_ylabel(), panel.get_visible()]
        parts += [panel.get_xlim(), panel.get_ylim(), panel.get_xscale(), panel.get_yscale()]
        for line in panel.lines:
            data = np.asarray(line.get_xydata(), dtype=float)
            parts += [line.get_label(), line.get_color(), line.get_linestyle(), data.tobytes()]
        parts += [len(panel.collections), len(panel.patches), len(panel.images)]
        parts += [text.get_text() for text in panel.texts]
    parts += [text.get_text() for text in figure.texts if text.get_gid() != "stamp"]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _pack(value: Any) -> Any:
    """Plain JSON. Raises TypeError for what has no such form."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (np.bool_, np.str_)):
        return value.item()
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return _number(float(value))
    if isinstance(value, list):
        return [_pack(one) for one in value]
    if isinstance(value, tuple):
        return {_TAG: "tuple", "values": [_pack(one) for one in value]}
    if isinstance(value, Mapping):
        keys, values = [_pack(k) for k in value], [_pack(v) for v in value.values()]
        return {_TAG: "mapping", "keys": keys, "values": values}
    if isinstance(value, (pd.DataFrame, pd.Series)) and set(value.index.names) != {None}:
        # Numbers of rows are not kept; what an index with a name says would be lost with them.
        raise TypeError(f"an index {list(value.index.names)} cannot be kept: reset_index()")
    if isinstance(value, pd.DataFrame):
        columns = [_column(value.iloc[:, j]) for j in range(value.shape[1])]
        names = [_pack(name) for name in value.columns]
        return {_TAG: "frame", "names": names, "columns": columns, "rows": len(value)}
    if isinstance(value, pd.Series):
        return {_TAG: "series", "name": _pack(value.name), "column": _column(value)}
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise TypeError(f"an array of {value.dtype} cannot be kept")
        values = _values(value.ravel(), value.dtype.kind)
        return {
            _TAG: "array",
            "shape": list(value.shape),
            "kind": value.dtype.kind,
            "values": values,
        }
    raise TypeError(
        f"{type(value).__name__} cannot be kept; hand over numbers, text, arrays, frames, or "
        "lists, tuples and mappings of them"
    )


def _number(value: float) -> Any:
    if not math.isfinite(value):
        return {_TAG: "float", "value": repr(value)}
    return float(f"{value:.{DIGITS}g}")


def _values(array: np.ndarray, kind: str) -> list[Any]:
    if kind != "f":
        return list(array.tolist())
    return [_number(value) for value in array.astype(float).tolist()]


def _column(series: pd.Series[Any]) -> dict[str, Any]:
    """A column: whole columns of numbers as they are, others element by element."""
    kind = series.dtype.kind if isinstance(series.dtype, np.dtype) else "O"
    if kind in "fiub":
        return {"kind": kind, "values": _values(series.to_numpy(), kind)}
    missing = series.isna().tolist()
    values = [None if gone else one for one, gone in zip(series.tolist(), missing, strict=True)]
    # Numbers in a column of objects (two tables put together, one without blocks) come back as a
    # column of numbers, so they are kept as one: what is read is what is written again.
    told = pd.Series(values).dtype.kind if values else "O"
    if told in "fiub":
        return {"kind": told, "values": _values(pd.Series(values).to_numpy(), told)}
    return {"kind": "O", "values": [_pack(one) for one in values]}


_TYPES = {"f": np.float64, "i": np.int64, "u": np.int64, "b": np.bool_, "O": None}


def _unpack(value: Any) -> Any:
    """What `_pack` was given. Raises ValueError for what it does not write."""
    if isinstance(value, list):
        return [_unpack(one) for one in value]
    if not isinstance(value, dict):
        return value
    try:
        match value[_TAG]:
            case "float":
                return float(value["value"])
            case "tuple":
                return tuple(_unpack(one) for one in value["values"])
            case "mapping":
                pairs = zip(value["keys"], value["values"], strict=True)
                return {_unpack(k): _unpack(v) for k, v in pairs}
            case "array":
                flat = [_unpack(one) for one in value["values"]]
                return np.array(flat, dtype=_TYPES[value["kind"]]).reshape(value["shape"])
            case "series":
                return pd.Series(_unpack_column(value["column"]), name=_unpack(value["name"]))
            case "frame":
                columns = [pd.Series(_unpack_column(c)) for c in value["columns"]]
                frame = pd.DataFrame(dict(enumerate(columns)), index=range(value["rows"]))
                frame.columns = pd.Index([_unpack(name) for name in value["names"]])
                return frame
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a kept drawing: {error!r}") from None
    raise ValueError(f"not a kept drawing: {value[_TAG]!r}")


def _unpack_column(column: Mapping[str, Any]) -> Any:
    values = [_unpack(one) for one in column["values"]]
    kind = _TYPES[column["kind"]]
    return values if kind is None else np.array(values, dtype=kind)
