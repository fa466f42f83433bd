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
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.tensor_file import TensorFile, TensorInfo, brief_line, open_regular

__all__ = [
    "SafetensorsFile",
    "TensorInfo",
    "brief_line",
    "open_regular",
    "parse_bounded_json",
    "read_bytes",
    "read_json",
]

# The format's own limit.
MAX_HEADER = 100_000_000
# Python objects are larger than their text: what parsing may need at most.
MAX_PARSE_MEMORY = 400_000_000
MAX_AXES = 32

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
# Packed types: bits an entry. Their tensors are listed, under these names, and cannot be read.
PACKED = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


def parse_bounded_json(text: bytes, *, where: str, strict: bool = True) -> dict[str, Any]:
    """Parse a JSON object: no duplicate keys, no NaN, bounded memory and depth.

    strict : False lets NaN and Infinity pass, and leaves out a key that has two values.
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
            if not strict:
                seen: dict[str, Any] = {}
                clash = {k for k, v in pairs if seen.setdefault(k, v) != v}
                return {k: v for k, v in found.items() if k not in clash}
            twice = next(a for a, b in itertools.pairwise(keys) if a == b)
            raise CheckpointError(f"{where}: key {brief_line(twice)} is there twice")
        return found

    def no_constant(name: str) -> Any:
        if not strict:
            return float(name)
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


def read_bytes(path: Path, most: int) -> bytes:
    """Content of a regular file of at most `most` bytes. Raises CheckpointError."""
    handle = open_regular(path)
    try:
        size = os.fstat(handle).st_size
        if size > most:
            raise CheckpointError(f"{path}: {size} bytes are too many for a JSON file")
        return os.pread(handle, size, 0)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)


def read_json(path: Path) -> dict[str, Any]:
    """`parse_bounded_json` of a small file. Raises CheckpointError, also if it cannot be read."""
    return parse_bounded_json(read_bytes(path, MAX_HEADER), where=str(path))


class SafetensorsFile(TensorFile):
    """An open safetensors file whose header has been checked.

    tensors : {name: TensorInfo} in the order of their bytes. Reading is thread-safe.
    Raises CheckpointError for anything that is not a sound safetensors file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        try:
            header, data = self._read_header(self.size)
            starts, self.tensors = _check_header(header, self.size - data, where=str(self.path))
            self._starts = {name: data + start for name, start in starts.items()}
        except BaseException:
            self.close()
            raise

    def _read_header(self, size: int) -> tuple[dict[str, Any], int]:
        where = str(self.path)
        if size < 8:
            raise CheckpointError(f"{where}: {size} bytes are too few for a safetensors file")
        length = int.from_bytes(self.read_at(8, 0), "little")
        if length > MAX_HEADER:
            raise CheckpointError(
                f"{where}: the header claims {length} bytes, at most {MAX_HEADER} are allowed"
            )
        if 8 + length > size:
            raise CheckpointError(
                f"{where}: the header claims {length} bytes, the file has {size} (truncated, or "
                "no safetensors file)"
            )
        text = self.read_at(length, 8)
        if not text.startswith(b"{"):
            raise CheckpointError(
                f"{where}: the header starts with {brief_line(text[:8])}, not '{{'"
            )
        return parse_bounded_json(text, where=where), 8 + length


def _check_header(
    header: Mapping[str, Any], data: int, *, where: str
) -> tuple[dict[str, int], dict[str, TensorInfo]]:
    """Starts (bytes into the data) and infos of all tensors, in the order of their bytes.

    data : number of bytes behind the header, all of which the tensors must cover.
    """
    found: list[tuple[int, int, str, TensorInfo]] = []
    ends = [e["data_offsets"][1:] for e in header.values() if _has_offsets(e)]
    needed = max((end for [end] in ends), default=0)
    if needed > data:
        raise CheckpointError(
            f"{where}: cut short: by data_offsets {needed} bytes follow the header, {data} are "
            "there; a download or a copy that was broken off: fetch it anew"
        )
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
    if not isinstance(kind, str) or not (kind in DTYPES or kind in PACKED):
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
    # Sizes beside a zero must fit as well: torch would overflow on them.
    if math.prod(size for size in shape if size) >= 2**62:
        raise CheckpointError(f"{where}: shape {brief_line(shape)} is too large")
    dtype, bits = DTYPES[kind] if kind in DTYPES else (kind, PACKED[kind])
    nbytes, rest = divmod(math.prod(shape) * bits, 8)
    if rest or nbytes != stop - start:
        raise CheckpointError(
            f"{where}: shape {brief_line(shape)} of {kind} has {nbytes} bytes, data_offsets give "
            f"{stop - start}"
        )
    return start, stop, name, TensorInfo(tuple(shape), dtype, nbytes)


def _has_offsets(entry: Any) -> bool:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    return isinstance(offsets, list) and _naturals(offsets) and len(offsets) == 2


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)
