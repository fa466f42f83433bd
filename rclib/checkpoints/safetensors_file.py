"""Reader of safetensors files that trusts nothing it has not checked.

A safetensors file is an 8-byte little-endian length, a JSON header of that length

    {"name": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]}, "__metadata__": {...}}

and the tensors' bytes, row-major and little-endian, without holes or overlaps. The whole header
is checked before any tensor is read: lengths against the size of the file, offsets against
shapes and types, tensors against each other. Every refusal is a `CheckpointError` of one line.

Tensors are read by position into memory that the caller owns, or mapped a window at a time:
pages count as resident memory for as long as they are mapped, so no mapping lives long.

Source of the format: the documentation of the safetensors library.
"""

from __future__ import annotations

import itertools
import json
import math
import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rclib.checkpoints.errors import CheckpointError

__all__ = [
    "SafetensorsFile",
    "TensorInfo",
    "brief_line",
    "open_regular",
    "parse_bounded_json",
    "read_json",
]

# The format's own limit.
MAX_HEADER = 100_000_000
# Python objects are larger than their text: what parsing may need at most.
MAX_PARSE_MEMORY = 400_000_000
MAX_AXES = 32
# Below this, mapping costs more than copying.
MAP_FROM = 1 << 20

# Name in the file: (name in torch, bits an entry).
DTYPES: dict[str, tuple[str, int]] = {
    "BOOL": ("bool", 8),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "U16": ("uint16", 16),
    "I16": ("int16", 16),
    "U32": ("uint32", 32),
    "I32": ("int32", 32),
    "U64": ("uint64", 64),
    "I64": ("int64", 64),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F32": ("float32", 32),
    "F64": ("float64", 64),
    "C64": ("complex64", 64),
}


@dataclass(frozen=True)
class TensorInfo:
    """shape : sizes of the axes; dtype : as torch names it ("bfloat16"); nbytes : of the data."""

    shape: tuple[int, ...]
    dtype: str
    nbytes: int


def brief_line(value: object, width: int = 80) -> str:
    """`repr` of a value on one line of at most `width` characters."""
    if isinstance(value, (str, bytes, list, tuple)):
        value = value[: 2 * width]
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def parse_bounded_json(text: bytes, *, where: str) -> dict[str, Any]:
    """Parse a JSON object strictly: no duplicate keys, no NaN, bounded memory and depth.

    Raises CheckpointError that begins with `where`.
    """
    # One rule for memory: the text once as bytes, twice as str (4 bytes a character as soon as
    # one is beyond Latin-1), and at most some 250 bytes for each value between , [ and {.
    width = 1 if text.isascii() and b"\\u" not in text else 4
    values = text.count(b",") + text.count(b"[") + text.count(b"{")
    if len(text) * (1 + 2 * width) + 250 * values > MAX_PARSE_MEMORY:
        raise CheckpointError(
            f"{where}: its JSON ({len(text)} bytes, {values} values) would need more than "
            f"{MAX_PARSE_MEMORY // 10**6} MB of memory"
        )

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = sorted(key for key, _ in pairs)
            twice = next(a for a, b in itertools.pairwise(keys) if a == b)
            raise CheckpointError(f"{where}: key {brief_line(twice)} is there twice")
        return found

    def no_constant(name: str) -> None:
        raise CheckpointError(f"{where}: {name} is no JSON number")

    try:
        parsed = json.loads(
            text.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant
        )
    except CheckpointError:
        raise
    except RecursionError:
        raise CheckpointError(f"{where}: its JSON is nested too deeply") from None
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise CheckpointError(f"{where}: not JSON: {brief_line(str(error), 120)}") from None
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{where}: a JSON object is needed, got {brief_line(parsed)}")
    return parsed


def read_json(path: Path) -> dict[str, Any]:
    """`parse_json` of a small file. Raises CheckpointError, also if it cannot be read."""
    handle = open_regular(path)
    try:
        size = os.fstat(handle).st_size
        if size > MAX_HEADER:
            raise CheckpointError(f"{path}: {size} bytes are too many for a JSON file")
        text = os.pread(handle, size, 0)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)
    return parse_bounded_json(text, where=str(path))


def open_regular(path: Path) -> int:
    """File descriptor of a regular file. Raises CheckpointError for anything else."""
    try:
        # A pipe would block for ever without O_NONBLOCK; regular files do not mind it.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path}: cannot be opened: {reason}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise CheckpointError(f"{path}: not a regular file")
    return handle


class SafetensorsFile:
    """An open safetensors file whose header has been checked.

    tensors : {name: TensorInfo} in the order of their bytes. Reading is thread-safe.
    Raises CheckpointError for anything that is not a sound safetensors file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._handle = open_regular(self.path)
        try:
            size = os.fstat(self._handle).st_size
            header, data = self._read_header(size)
            self._starts, self.tensors = _check_header(header, size - data, where=str(self.path))
            self._starts = {name: data + start for name, start in self._starts.items()}
        except BaseException:
            self.close()
            raise

    def _read_header(self, size: int) -> tuple[dict[str, Any], int]:
        where = str(self.path)
        if size < 8:
            raise CheckpointError(f"{where}: {size} bytes are too few for a safetensors file")
        length = int.from_bytes(self._read(8, 0), "little")
        if length > MAX_HEADER:
            raise CheckpointError(
                f"{where}: the header claims {length} bytes, at most {MAX_HEADER} are allowed"
            )
        if 8 + length > size:
            raise CheckpointError(
                f"{where}: the header claims {length} bytes, the file has {size} (truncated, or "
                "no safetensors file)"
            )
        text = self._read(length, 8)
        if not text.startswith(b"{"):
            raise CheckpointError(
                f"{where}: the header starts with {brief_line(text[:8])}, not '{{'"
            )
        return parse_bounded_json(text, where=where), 8 + length

    def _read(self, count: int, offset: int) -> bytes:
        try:
            found = os.pread(self._handle, count, offset)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error.strerror}") from None
        if len(found) != count:
            raise CheckpointError(f"{self.path}: ends at byte {offset + len(found)} while reading")
        return found

    def read_into(self, name: str, offset: int, buffer: NDArray[Any]) -> None:
        """Fill `buffer` (contiguous bytes) with the bytes of a tensor from `offset` on.

        Raises CheckpointError if the file ends before, KeyError for an unknown name and
        ValueError when buffer and offset do not lie inside the tensor.
        """
        total = self.tensors[name].nbytes
        if not 0 <= offset <= offset + buffer.nbytes <= total:
            raise ValueError(
                f"bytes {offset} to {offset + buffer.nbytes} are not inside tensor {name!r} "
                f"of {total} bytes"
            )
        start, view, done = self._starts[name] + offset, buffer.data.cast("B"), 0
        while done < len(view):  # one call reads at most 2 GB on Linux
            try:
                got = os.preadv(self._handle, [view[done:]], start + done)
            except OSError as error:
                raise CheckpointError(
                    f"{self.path}: tensor {brief_line(name)} cannot be read: {error.strerror}"
                ) from None
            if got == 0:
                raise CheckpointError(
                    f"{self.path}: ends inside tensor {brief_line(name)}; it was cut after opening"
                )
            done += got

    def map(self, name: str, start: int, stop: int, *, alignment: int) -> NDArray[np.uint8] | None:
        """Bytes start to stop of a tensor as pages of the file, unmapped with the last reference.

        None where mapping does not pay (short ranges, bytes that are not aligned for their type)
        or is not possible, so that they must be read. Writing to them changes no file. Raises
        CheckpointError if the file was cut since it was opened.
        """
        begin, end = self._starts[name] + start, self._starts[name] + stop
        if stop - start < MAP_FROM or begin % alignment:
            return None
        if os.fstat(self._handle).st_size < end:
            raise CheckpointError(
                f"{self.path}: ends inside tensor {brief_line(name)}; it was cut after opening"
            )
        base = begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        try:
            pages = mmap.mmap(self._handle, end - base, access=mmap.ACCESS_COPY, offset=base)
        except (OSError, ValueError):  # a file system that cannot map
            return None
        return np.frombuffer(pages, dtype=np.uint8, offset=begin - base)

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _check_header(
    header: Mapping[str, Any], data: int, *, where: str
) -> tuple[dict[str, int], dict[str, TensorInfo]]:
    """Starts (bytes into the data) and infos of all tensors, in the order of their bytes.

    data : number of bytes behind the header, all of which the tensors must cover.
    """
    found: list[tuple[int, int, str, TensorInfo]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
                raise CheckpointError(f"{where}: __metadata__ must map strings to strings")
            continue
        found.append(_check_entry(name, entry, data, where=f"{where}: tensor {brief_line(name)}"))
    found.sort(key=lambda item: item[:2])
    position = 0
    for start, stop, name, _ in found:
        if start != position:
            what = "overlaps the one before" if start < position else "leaves a hole before it"
            raise CheckpointError(
                f"{where}: tensor {brief_line(name)} at bytes {start} to {stop} {what} "
                f"(which ends at {position})"
            )
        position = stop
    if position != data:
        raise CheckpointError(
            f"{where}: tensors cover {position} bytes, the file holds {data} behind its header"
        )
    return {n: start for start, _, n, _ in found}, {n: info for _, _, n, info in found}


def _check_entry(
    name: str, entry: Any, data: int, *, where: str
) -> tuple[int, int, str, TensorInfo]:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise CheckpointError(f"{where}: the name is not valid Unicode") from None
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(
            f"{where}: dtype, shape and data_offsets are needed, got {brief_line(entry)}"
        )
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise CheckpointError(
            f"{where}: dtype {brief_line(kind)} is not one of {', '.join(DTYPES)}"
        )
    if not _naturals(shape) or len(shape) > MAX_AXES:
        raise CheckpointError(f"{where}: shape {brief_line(shape)} is not a list of sizes")
    if not _naturals(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{where}: data_offsets {brief_line(offsets)} are not two positions")
    start, stop = offsets
    if not start <= stop <= data:
        raise CheckpointError(
            f"{where}: data_offsets {brief_line(offsets)} do not lie in order in {data} bytes"
        )
    dtype, bits = DTYPES[kind]
    # Sizes beside a zero must fit as well: torch would overflow on them.
    if math.prod(size for size in shape if size) >= 2**62:
        raise CheckpointError(f"{where}: shape {brief_line(shape)} is too large")
    nbytes = math.prod(shape) * bits // 8
    if nbytes != stop - start:
        raise CheckpointError(
            f"{where}: shape {brief_line(shape)} of {kind} has {nbytes} bytes, data_offsets give "
            f"{stop - start}"
        )
    return start, stop, name, TensorInfo(tuple(shape), dtype, nbytes)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)
