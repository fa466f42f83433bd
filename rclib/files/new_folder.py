"""Folders written whole or not at all, as `rclib.files.atomic` does it for files.

A folder is filled under another name beside its place, with a locked file in it. One whose lock is
free is the leftover of a process that was killed; the next one that writes to the same place
removes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from rclib.files.atomic import unlocked

__all__ = ["new_folder"]

_LOCK = ".being-written"
_SOON = 60.0  # seconds in which another process may be between two steps


@contextlib.contextmanager
def new_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill, which gets its name `target` when the block ends without an error.

    replace : whether a folder that is there goes, with all that it holds; else an empty one alone.
    Raises OSError for what the system refuses, such as a target that is not empty.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    folder = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    folder.mkdir()
    with _held(folder / _LOCK):
        try:
            yield folder
            old = folder.with_name(f"{folder.name}.old")
            if target.exists() and replace:
                os.replace(target, old)
            elif target.is_dir():
                target.rmdir()
            os.replace(folder, target)
            (target / _LOCK).unlink()
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    with open(path, "wb") as file:
        with contextlib.suppress(ImportError, OSError):  # no such locks here: the age tells
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove_leftovers(target: Path) -> None:
    """Remove the folders that killed processes left beside the target."""
    name = re.compile(
        rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.part(?P<old>\.old)?", re.DOTALL
    )
    for folder in list(target.parent.iterdir()):
        found = name.fullmatch(folder.name)
        if not found or not folder.is_dir() or folder.is_symlink():
            continue
        with contextlib.suppress(OSError):
            if found["old"] or not (folder / _LOCK).exists():
                free = time.time() - folder.stat().st_ctime > _SOON
            else:
                with unlocked(folder / _LOCK) as free:
                    pass
            if free:
                shutil.rmtree(folder, ignore_errors=True)
