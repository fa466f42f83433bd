"""`python -m rclib redraw NAME`: a notebook's figures again, from the data kept beside them.

Nothing is trained and no data set is read: each figure is one kept call of a function of the
library (`rclib.plots.drawing`). So a label that was changed in that function, another style file or
another matplotlib is seen in seconds.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.plain import DataError, read_plain
from rclib.files.strict import parse_json
from rclib.files.terminal import note, report
from rclib.study.results import duration, read_results, read_times, times_path
from rclib.study.session import cell_mark

__all__ = ["HELP", "add_arguments", "figures_of", "run"]

HELP = "a notebook's figures again, from the data kept beside them, without training"
ABOUT = """\
Draws the figures of notebooks again from figures/<profile>/<notebook>/<figure>.json.xz, which
`make figures` writes beside each picture: the function of the library that drew it, and what it
drew. What has changed in that function since (a label, a colour) is seen at once; with --text, one
text of the picture (a label, a title, a name in a legend) in place of another; with --style, a
matplotlib style file on top of the project's. Without --out the pictures (png and pdf) take the
place of those that are there; data and results stay as they are."""
CODES = (
    "Exit codes: 0 all were drawn, 1 some could not be or a --text was nowhere, 2 none, 130 "
    "interrupted."
)
_MAX_FILE = 2**24  # bytes of a kept call, packed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill the command's parser."""
    parser.description = ABOUT
    parser.epilog = CODES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="+", metavar="NAME", help="notebook, its number, or all")
    parser.add_argument("--profile", default="paper", help="quick, laptop or paper (default)")
    parser.add_argument(
        "--text", action="append", default=[], metavar="OLD=NEW",
        help="write NEW where a picture has OLD (may be given more than once)",
    )  # fmt: skip
    parser.add_argument("--style", metavar="FILE", help="matplotlib style file, on top of ours")
    parser.add_argument("--out", metavar="DIR", help="folder for the pictures")


def run(arguments: argparse.Namespace) -> int:
    """Draw what is asked for. Raises ValueError for a name, profile or style that is not there."""
    os.environ.setdefault("MPLBACKEND", "agg")
    from rclib.plots import style

    style.use_style()
    if arguments.style is not None:
        style.use_also(paths.expanded(arguments.style, "--style"))
    out = paths.expanded(arguments.out, "--out") if arguments.out is not None else None
    names = list(dict.fromkeys(n for text in arguments.names for n in _matching(text, arguments)))
    new = _texts(arguments.text)
    seen: set[str] = set()
    there: set[str] = set()
    drawn, failed = 0, 0
    for name in names:
        cells = _cells(name)
        for figure in figures_of(name, arguments.profile):
            # Several notebooks into one folder: each its own, as in figures/.
            folder = out / name if out and len(names) > 1 else out
            place = folder or paths.figures_dir(arguments.profile, name)
            try:
                written = _draw(name, figure, arguments.profile, place, cells, new)
            except ValueError as error:
                note(f"{name}: figure {figure} cannot be drawn again: {error}")
                failed += 1
            else:
                drawn += 1
                there |= written
                seen |= written & new.keys()
    missing = [old for old in new if old not in seen]
    if missing and drawn:
        texts = ", ".join(repr(text) for text in sorted(there) if any(map(str.isalpha, text)))
        note(f"no picture has the text {' or '.join(map(repr, missing))}; there are {texts}")
    if failed:
        note(f"{drawn} of {drawn + failed} figures were drawn")
    return (1 if drawn else 2) if failed else int(bool(missing))


def _texts(given: list[str]) -> dict[str, str]:
    """{old: new} of `--text OLD=NEW`. Raises ValueError for one without "=" or without OLD."""
    found = {}
    for text in given:
        old, equals, new = text.partition("=")
        if not (old and equals):
            raise ValueError(f"--text {text!r}: must be OLD=NEW, such as 'epoch=passes'")
        found[old] = new
    return found


def figures_of(name: str, profile: str) -> list[str]:
    """The figures of a notebook's results, in their order; without results those of its folder."""
    path = paths.results_dir(profile) / f"{name}.json"
    if path.is_file():
        return [figure["name"] for figure in read_results(path)["figures"]]
    folder = paths.figures_dir(profile, name)
    return sorted({file.name.split(".")[0] for file in folder.glob("*.*")})


def _matching(text: str, arguments: argparse.Namespace) -> list[str]:
    """Notebooks with figures at this profile. Raises ValueError naming what there is."""
    profile = arguments.profile
    known = list(_drawn_at(profile))
    if text == "all" and known:
        return known
    found = [name for name in known if name == text] or [
        name for name in known if name.startswith(f"{text}_")
    ]
    if found:
        return found
    elsewhere = [
        other
        for other in paths.PROFILES
        if other != profile and any(n == text or n.startswith(f"{text}_") for n in _drawn_at(other))
    ]
    if elsewhere:
        raise ValueError(
            f"no figures of {text} at the {profile} profile; there are some at "
            f"{' and '.join(elsewhere)} (--profile {elsewhere[-1]})"
        )
    raise ValueError(
        f"no figures of {text!r} at the {profile} profile in {paths.figures_dir(profile)}; "
        f"there are {', '.join(known) or 'none'}"
    )


def _drawn_at(profile: str) -> Iterator[str]:
    folder = paths.figures_dir(profile)
    if folder.is_dir():
        yield from sorted(p.name for p in folder.iterdir() if p.is_dir() and any(p.iterdir()))


def _draw(
    name: str, figure: str, profile: str, place: Path, cells: set[str] | None, new: dict[str, str]
) -> set[str]:
    """Draw one figure. Returns its texts as they were before those of `new` were replaced."""
    import matplotlib.pyplot as plt
    from matplotlib.text import Text

    from rclib.plots import drawing, saving

    path = paths.figures_dir(profile, name) / f"{figure}.{drawing.SUFFIX}"
    if not path.is_file():
        raise ValueError(
            f"what it shows was not kept when it was drawn; `make figures PROFILE={profile} "
            f"ONLY={name}` keeps it{_cost(name, profile)}"
        )
    try:
        call = drawing.read_drawing(read_plain(path, _MAX_FILE))
    except (DataError, OSError) as error:
        raise ValueError(str(error)) from None
    drawn = call.draw()
    texts = {text for part in drawn.findobj(Text) if (text := part.get_text())}
    for part in drawn.findobj(Text):
        if part.get_text() in new:
            part.set_text(new[part.get_text()])
    try:
        files = saving.rendered(drawn, call.stamp)
    finally:
        plt.close(drawn)
    for kind, payload in files.items():
        write_atomically(place / f"{figure}.{kind}", payload)
        report(str(place / f"{figure}.{kind}"))
    if cells is not None and call.cell and call.cell not in cells:
        note(
            f"{name}: the cell that draws {figure} has changed since its data were kept: what the "
            "cell itself says (titles, chosen rows) is seen after the notebook's next run"
        )
    return texts


def _cost(name: str, profile: str) -> str:
    path = times_path(paths.results_dir(profile) / f"{name}.json")
    if not path.is_file():
        return ""
    return f" (last time {duration(read_times(path)['core_seconds'])} of one core)"


def _cells(name: str) -> set[str] | None:
    """Marks of the notebook's cells, None where the notebook is not there."""
    path = paths.project_root() / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        return None
    try:
        notebook: Any = parse_json(path.read_text(encoding="utf-8"))
        return {cell_mark("".join(cell["source"])) for cell in notebook["cells"]}
    except (ValueError, TypeError, KeyError, OSError):
        return None
