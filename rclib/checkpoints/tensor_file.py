"""What readers of files share: a regular file whose tensors lie at known places in it.

Tensors are read by position into memory that the caller owns, or mapped a window at a time:
pages count as resident memory for as long as they are mapped, so no mapping lives long.
"""

from __future__ import annotations

import mmap
import os
import stat
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rclib.checkpoints.errors import CheckpointError

__all__ = ["TensorFile", "TensorInfo", "brief_line", "kind_of_path", "open_regular", "opened"]

# Below this, mapping costs more than copying.
MAP_FROM = 1 << 20


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


def open_regular(path: Path) -> int:
    """File descriptor of a regular file. Raises CheckpointError for anything else."""
    try:
        # A pipe would block for ever without O_NONBLOCK; regular files do not mind it.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path}: cannot be opened: {reason}") from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise CheckpointError(f"{path}: not a regular file but {kind_of_path(mode)}")
    return handle


def kind_of_path(mode: int) -> str:
    """What a path's st_mode says it is."""
    kinds = {
        stat.S_IFIFO: "a named pipe (write its content into a file first)",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
        stat.S_IFDIR: "a directory",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


# Every open file; those of a process that ends by a signal are named by it.
opened: weakref.WeakSet[TensorFile] = weakref.WeakSet()


class TensorFile:
    """An open regular file; a subclass fills `tensors` and `_starts` when it opens.

    tensors : {name: TensorInfo} in the order of their bytes. Reading is thread-safe.
    """

    tensors: Mapping[str, TensorInfo]
    _starts: Mapping[str, int]  # in bytes from the start of the file

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._handle = open_regular(self.path)
        state = os.fstat(self._handle)
        self.size, self._written = state.st_size, state.st_mtime_ns
        opened.add(self)

    def read_at(self, count: int, offset: int) -> bytes:
        """Bytes of the file. Raises CheckpointError if it ends before."""
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
        total = self._length(name)
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

    def change(self) -> str:
        """What became of the file since it was opened: "was cut short", "was written to", or "".

        One that was replaced by another of its name is read on as it was.
        """
        if self._handle < 0:
            return ""
        try:
            state = os.fstat(self._handle)
        except OSError:
            return ""
        if state.st_size < self.size:
            return "was cut short"
        same = (state.st_size, state.st_mtime_ns) == (self.size, self._written)
        return "" if same else "was written to"

    def _length(self, name: str) -> int:
        """Bytes of a tensor in the file."""
        return self.tensors[name].nbytes

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
