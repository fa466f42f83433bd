"""Files written whole or not at all.

Everything is written under a temporary name in the same folder and renamed when it is on the disk.
The name has a random part: process numbers are the same in two containers, and on two hosts that
share a disk. A writer holds the operating system's lock on its temporary file, so a file of this
system that can be locked is the leftover of a writer that was killed; the next writer in its
folder removes it. Those of other systems (hosts, or this one before it was started again), whose
locks need not be seen here, go when they are an hour old.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "Part",
    "leftovers",
    "remove_leftovers",
    "unlocked",
    "write_atomically",
    "write_together",
    "writing",
]

# .<name>.<system><random>.tmp; version 0.1.0 had the process number instead.
_NAME = re.compile(r"\..+\.(?:(?P<system>[0-9a-f]{8})[0-9a-f]{16}|[0-9]{1,10})\.tmp", re.DOTALL)
_OLD = 3600.0  # seconds after which a temporary file cannot be in use, where no lock tells
_LONGEST = 200  # bytes of the name within a temporary name: 255 is what most systems take

_swept: set[Path] = set()  # folders whose leftovers this process has removed


def write_atomically(path: Path, payload: bytes) -> None:
    """Write a file whole or not at all. Raises OSError naming the file; what stood there stays."""
    write_together({path: payload})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together: all of them are on the disk before the first gets its name.

    Raises OSError naming the file that could not be written (IsADirectoryError where a folder has
    its place; a pipe or a device is refused too); then all are as they were.
    """
    with contextlib.ExitStack() as stack:
        renames = []
        for path, payload in files.items():
            _make_folder(path.parent)
            file = stack.enter_context(_temporary(path))
            with _naming(path):
                file.write(payload)
                _to_disk(file)
            renames.append((file.name, path))
        for path in files:
            _check_place(path)
        for temporary, path in renames:
            with _naming(path):
                os.replace(temporary, path)


@dataclass
class Part:
    """A file that is being written, and what it will be called."""

    file: BinaryIO
    path: Path

    def write(self, chunk: bytes) -> None:
        """Write a piece. Raises OSError naming the file."""
        with _naming(self.path):
            self.file.write(chunk)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Part]:
    """A file to write to, which gets its name (`path`, or another that is set) when the block ends
    without an error.

    For what is too large to be in memory. Raises OSError naming the file, also where a folder, a
    pipe or a device has its place.
    """
    _make_folder(path.parent)
    with _temporary(path) as file:
        part = Part(file, path)
        yield part
        _check_place(part.path)
        with _naming(part.path):
            _to_disk(file)
            os.replace(file.name, part.path)


def _check_place(path: Path) -> None:
    """A rename would take the place of a pipe or a device, on which somebody else waits; and a
    folder's cannot be taken."""
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    try:
        mode = path.stat().st_mode  # of what a link leads to, /dev/stdout for one
    except OSError:  # nothing there, or the rename says what is wrong
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or a device is there, no plain file", str(path))


def leftovers(folder: Path) -> Iterator[Path]:
    """Temporary files in a folder whose writers are gone."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _NAME.fullmatch(entry.name)
            if found and entry.is_file(follow_symlinks=False):
                path = folder / entry.name
                if found["system"] != _system():
                    if _is_old(path):
                        yield path
                    continue
                with unlocked(path) as free:
                    if free:
                        yield path


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove what killed writers left in a folder; returns what is gone."""
    removed = []
    for path in leftovers(folder):
        with contextlib.suppress(OSError):
            path.unlink()
            removed.append(path)
    return removed


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """The system's errors, with the name of the file that was to be written."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def _make_folder(folder: Path) -> None:
    with _naming(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[BinaryIO]:
    """A new locked file beside `path`, gone at the end unless it was renamed."""
    if path.parent not in _swept:
        _swept.add(path.parent)
        remove_leftovers(path.parent)
    name = path.name
    if len(os.fsencode(name)) > _LONGEST:
        name = os.fsencode(name)[:_LONGEST].decode("utf-8", "ignore")
    while True:
        temporary = path.with_name(f".{name}.{_system()}{secrets.token_hex(8)}.tmp")
        with _naming(path):
            file = open(temporary, "xb")  # noqa: SIM115
        try:
            _lock(file)
            # Somebody may have taken it for a leftover before it was locked.
            if os.fstat(file.fileno()).st_nlink:
                yield file
                return
        finally:
            # First the name, then the lock: an unlocked file is anybody's.
            temporary.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # what was not written then is said already
                file.close()


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _lock(file: BinaryIO) -> None:
    with contextlib.suppress(ImportError, OSError):  # a system, or a disk, without locks
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)


@contextlib.contextmanager
def unlocked(path: Path) -> Iterator[bool]:
    """Whether nobody writes to a temporary file; while the block lasts nobody begins to."""
    try:
        import fcntl
    except ImportError:
        yield _is_old(path)
        return
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        free = False
    except OSError:  # a disk without locks
        free = _is_old(path)
    else:
        free = True
    try:
        yield free
    finally:
        os.close(handle)


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _OLD
    except OSError:
        return False


@cache
def _system() -> str:
    """Eight hexadecimal digits for what has locks in common: a running kernel, all its containers
    included."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    except (OSError, ValueError):
        name = f"{uuid.getnode():x}"
    return sha256(name.encode()).hexdigest()[:8]
