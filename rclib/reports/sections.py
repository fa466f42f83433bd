"""Generated parts of files that hold other text as well."""

from __future__ import annotations

from collections.abc import Callable

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.terminal import note, report

__all__ = ["rewrite", "with_section"]


def with_section(text: str, name: str, content: str) -> str:
    """`text` with what stands between the markers of `name` replaced; ValueError if a marker is
    missing."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"text must hold {begin!r} and {end!r} once each, in this order")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


def rewrite(name: str, made: Callable[[str], str]) -> int:
    """Replace the project's file `name` by `made` of its text, where they differ, and say which.

    The exit status: 0, or 2 where `made` raises ValueError, whose text is shown; the file then
    stays as it is. Raises OSError where it cannot be read or written.
    """
    path = paths.project_root() / name
    text = path.read_text(encoding="utf-8")
    try:
        new = made(text)
    except ValueError as error:
        note(f"error: {error}")
        return 2
    if new != text:
        write_atomically(path, new.encode())
    report(f"{name} is current" if new == text else f"{name} updated")
    return 0
