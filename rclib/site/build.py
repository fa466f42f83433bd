"""Builds the gallery: pages, copies of figures, thumbnails, notebooks, the API.

The site is made in a temporary folder beside its place and renamed when it is whole, so an
error leaves the one that was there.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rclib import paths
from rclib.files.atomic import unlocked
from rclib.files.command import command
from rclib.files.terminal import Parser, note, report
from rclib.site.loading import load_gallery
from rclib.site.pages import Site

__all__ = ["Built", "build", "main"]


@dataclass(frozen=True)
class Built:
    """What a site holds, and every file that could not be read and is left out."""

    figures: int
    claims: int
    notebooks: int
    bytes: int
    problems: tuple[str, ...]


def build(target: Path, *, api: bool = True) -> Built:
    """Build the site in folder `target`, replacing what is there.

    A results file, figure or notebook that is not valid is left out and named in the answer.

    api : whether to make the pages on `rclib`, which takes most of the time.
    Raises ValueError for a target that holds something else than a site; it then is as it was.
    """
    _check_target(target)
    gallery = load_gallery()
    with _whole(target) as folder:
        site = Site(folder, gallery, has_api=api)
        site.write()
        if api:
            from rclib.site.api import write_api

            site.index(write_api(folder / "api"))
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Built(
        figures=len(site.gallery.figures),
        claims=len(gallery.claims),
        notebooks=len(site.pages),
        bytes=total,
        problems=(*gallery.problems, *site.problems),
    )


def _check_target(target: Path) -> None:
    """Never remove a folder that no build made."""
    if target.exists() and not (target / ".rclib-site").is_file() and any(target.iterdir()):
        raise ValueError(f"{target} holds something else than a site; remove it or name another")


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    folder = target.with_name(f".{target.name}.{secrets.token_hex(8)}.site")
    folder.mkdir()
    with _held(folder / _LOCK):
        try:
            yield folder
            old = folder.with_name(folder.name + ".old")
            if target.exists():
                os.replace(target, old)
            os.replace(folder, target)
            (target / _LOCK).unlink()
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


_LOCK = ".building"  # locked in the folder while it is built, so that a killed build is known
_SOON = 60.0  # seconds in which another build may be between two steps


@contextmanager
def _held(path: Path) -> Iterator[None]:
    with open(path, "wb") as file:
        with suppress(ImportError, OSError):  # a system or a disk without locks: age tells there
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove_leftovers(target: Path) -> None:
    """Remove the folders that killed builds left beside the target."""
    name = re.compile(
        rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.site(?P<old>\.old)?", re.DOTALL
    )
    for folder in list(target.parent.iterdir()):
        found = name.fullmatch(folder.name)
        if not found or not folder.is_dir() or folder.is_symlink():
            continue
        with suppress(OSError):
            if found["old"] or not (folder / _LOCK).exists():
                free = time.time() - folder.stat().st_ctime > _SOON
            else:
                with unlocked(folder / _LOCK) as free:
                    pass
            if free:
                shutil.rmtree(folder, ignore_errors=True)


@command(kept="the site is as it was")
def main(argv: Sequence[str] | None = None) -> int:
    """Build the gallery from the results files and the executed notebooks."""
    parser = Parser(prog="python -m rclib.site", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=None, help="folder, default site/")
    parser.add_argument("--no-api", action="store_true", help="leave the pages on rclib out")
    arguments = parser.parse_args(argv)
    target = (arguments.out or paths.project_root() / "site").resolve()
    begin = time.monotonic()
    try:
        made = build(target, api=not arguments.no_api)
    except (ValueError, OSError) as error:
        note(f"error: {error}")
        return 1
    for problem in made.problems:
        note(f"error: left out: {' '.join(problem.split())}")
    report(
        f"{target / 'index.html'}: {made.figures} figures, {made.claims} claims, "
        f"{made.notebooks} notebooks, {made.bytes / 1e6:.1f} MB, "
        f"{time.monotonic() - begin:.0f} s"
    )
    return 1 if made.problems else 0
