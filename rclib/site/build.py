"""Builds the gallery: pages, copies of figures, thumbnails, notebooks, the API.

The site is made in a temporary folder beside its place and renamed when it is whole, so an
error leaves the one that was there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from rclib import paths
from rclib.files.command import command
from rclib.files.new_folder import new_folder
from rclib.files.terminal import Parser, note, report
from rclib.site.loading import load_gallery
from rclib.site.pages import Site
from rclib.site.search import Entry

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

    api : whether to make the pages on `rclib`, which a second process does beside the others.
    Raises ValueError for a target that holds something else than a site; it then is as it was.
    """
    _check_target(target)
    gallery = load_gallery()
    with new_folder(target, replace=True) as folder, _api(folder / "api", wanted=api) as entries:
        site = Site(folder, gallery, has_api=api)
        site.write()
        site.index(entries())
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Built(
        figures=len(site.gallery.figures),
        claims=len(gallery.claims),
        notebooks=len(site.pages),
        bytes=total,
        problems=(*gallery.problems, *site.problems),
    )


@contextmanager
def _api(folder: Path, *, wanted: bool) -> Iterator[Callable[[], Sequence[Entry]]]:
    """The pages on `rclib`, made in a process of their own meanwhile: it imports every module and
    takes half as long as all others. Gives what waits for them and returns their entries."""
    if not wanted:
        yield lambda: ()
        return
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_write_api, args=(folder, there), daemon=True)
    process.start()
    there.close()  # so that a process that is killed is noticed: nobody else can write

    def entries() -> Sequence[Entry]:
        try:
            made = here.recv()
        except EOFError:
            process.join()
            raise OSError(
                f"the process that makes the pages on rclib ended with status {process.exitcode}"
            ) from None
        if isinstance(made, Exception):
            raise made
        return tuple(made)

    try:
        yield entries
    finally:
        process.terminate()  # of no effect on one that is done
        process.join()
        here.close()


def _write_api(folder: Path, out: Connection) -> None:
    from rclib.site.api import write_api

    try:
        out.send(write_api(folder))
    except (ValueError, OSError) as error:
        out.send(error)


def _check_target(target: Path) -> None:
    """Never remove a folder that no build made."""
    if target.exists() and not (target / ".rclib-site").is_file() and any(target.iterdir()):
        raise ValueError(f"{target} holds something else than a site; remove it or name another")


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
