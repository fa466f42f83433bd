"""A new notebook with all that belongs to it: what `make new NAME=46_slug` writes.

    notebooks/46_slug.ipynb                     cells in the order of every notebook
    notebooks/paper/46_slug.yaml                the paper's scale
    rclib/experiments/<theme>/slug.py           runs, frames, figures; the theme is the series'
    tests/experiments/<theme>/test_slug.py
    rclib/study/papers/<paper>.yaml             if a paper is named that is not known yet,
    rclib/study/papers/series.yaml              with its place in the series

Everything runs as it is: a small experiment with two claims, which the author replaces. It says
`MARK` wherever that is needed, and a test refuses a notebook or a paper that still says it. The
files are in `templates/`. Either all are written or none.
"""

from __future__ import annotations

import hashlib
import keyword
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.files.strict import parse_yaml
from rclib.files.terminal import Parser, note, report

__all__ = ["MARK", "Plan", "ScaffoldError", "main", "plan", "template", "write"]

MARK = "replace this example"
LONGEST_NAME, LONGEST_TITLE = 40, 60
SERIES = Path("rclib/study/papers/series.yaml")
EXPERIMENTS = Path("rclib/experiments")


class ScaffoldError(ValueError):
    """A notebook that cannot be made; the message is one line."""


@dataclass(frozen=True)
class Plan:
    """new : files that must not exist yet, by path below the project. changed : files that get
    new content, written after them."""

    root: Path
    new: Mapping[Path, bytes]
    changed: Mapping[Path, bytes]


def template(name: str) -> str:
    """The text of `templates/<name>.tmpl`, with its @NAMES@."""
    place = files("rclib.execution").joinpath("templates", f"{name}.tmpl")
    return place.read_text(encoding="utf-8")


def plan(name: str, *, paper: str = "", title: str = "", root: Path) -> Plan:
    """What would be written for a notebook.

    name : two digits and a slug, "46_slug". paper : id of its paper ("arxiv-1803.03635", or
    venue, year and a word as in "icml-2020-rigging"); none for what goes beyond the papers.
    title : one line; by default made from the slug. Raises ScaffoldError for what does not fit.
    """
    if not re.fullmatch(r"[0-9]{2}_[a-z0-9_]+", name) or len(name) > LONGEST_NAME:
        raise ScaffoldError(
            f"NAME must be two digits, _ and a slug of a-z, 0-9 and _, at most {LONGEST_NAME} "
            f"characters, as in 46_slug; got {name!r}"
        )
    slug = name[3:]
    if not slug.isidentifier() or keyword.iskeyword(slug) or slug.startswith("_"):
        raise ScaffoldError(f"the slug names a Python module, so it cannot be {slug!r}")
    series_text = _read(root / SERIES)
    series = _series(series_text, name)
    theme = str(series["theme"])
    _check_new(root, name, slug)
    title = _title(title or slug.replace("_", " ").strip().capitalize())
    words = {
        "NAME": name,
        "SLUG": slug,
        "THEME": theme,
        "DIGIT": name[0],
        "SERIES": str(series["title"]),
        "TITLE": title,
        "SHORT": slug.replace("_", " ").strip().capitalize(),
        "PAPER": paper or "beyond",
        "MARK": MARK,
    }
    new: dict[Path, bytes] = {}
    package = EXPERIMENTS / theme / "__init__.py"
    if not (root / package).exists():
        new[package] = _filled("package", words)
    new[EXPERIMENTS / theme / f"{slug}.py"] = _filled("experiment", words)
    new[Path("tests/experiments") / theme / f"test_{slug}.py"] = _filled("test", words)
    new[Path("notebooks/paper") / f"{name}.yaml"] = _filled("parameters", words)
    changed: dict[Path, bytes] = {}
    if paper and not _known(root, paper):
        words |= _about(paper)
        new[SERIES.with_name(f"{paper}.yaml")] = _filled("paper", words)
        changed[SERIES] = _with_paper(series_text, name[0], paper).encode()
    new[Path("notebooks") / f"{name}.ipynb"] = _notebook(name, words)
    return Plan(root, new, changed)


def write(made: Plan) -> None:
    """Write all files of a plan, or none: after an error what was written is taken away again.

    Raises ScaffoldError for a file that is there already, OSError where nothing can be written.
    """
    before = {path: (made.root / path).read_bytes() for path in made.changed}
    written: list[Path] = []
    folders: list[Path] = []
    try:
        for path, payload in made.new.items():
            target = made.root / path
            missing = [p for p in (target.parent, *target.parent.parents) if not p.exists()]
            for folder in reversed(missing):
                folder.mkdir()
                folders.append(folder)
            with open(target, "xb") as handle:
                written.append(target)
                handle.write(payload)
        for path, payload in made.changed.items():
            write_atomically(made.root / path, payload)
    except BaseException as error:
        for path, payload in before.items():
            if (made.root / path).read_bytes() != payload:
                write_atomically(made.root / path, payload)
        for target in reversed(written):
            target.unlink()
        for folder in reversed(folders):
            folder.rmdir()
        if isinstance(error, FileExistsError):
            raise ScaffoldError(f"{error.filename} is there already") from None
        raise


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        raise ScaffoldError(f"no {path}: run this in a checkout of the project") from None


def _series(text: str, name: str) -> Mapping[str, Any]:
    try:
        known = {str(entry["digit"]): entry for entry in parse_yaml(text)}
    except (ValueError, TypeError, KeyError) as error:
        raise ScaffoldError(f"{SERIES} is not valid: {error}") from None
    if name[0] not in known:
        raise ScaffoldError(
            f"no series {name[0]} in {SERIES}; there are {', '.join(sorted(known))}"
        )
    found: Mapping[str, Any] = known[name[0]]
    return found


def _check_new(root: Path, name: str, slug: str) -> None:
    """Raises ScaffoldError if the number, the slug or the module's name is taken."""
    for path in sorted((root / "notebooks").rglob("[0-9][0-9]_*")):
        if path.stem[:2] == name[:2]:
            raise ScaffoldError(f"number {name[:2]} is taken: {path.relative_to(root)}")
        if path.stem[3:] == slug:
            raise ScaffoldError(f"slug {slug!r} is taken: {path.relative_to(root)}")
    for path in (root / "rclib").rglob("*"):
        if path.stem == slug and (path.suffix == ".py" or path.is_dir()):
            raise ScaffoldError(f"the name {slug!r} is taken: {path.relative_to(root)}")


def _title(text: str) -> str:
    """Raises ScaffoldError for what Python, YAML and Markdown would not all take as it is."""
    text = text.strip().rstrip(".")
    if not text or not text.isprintable() or len(text) > LONGEST_TITLE or set(text) & set('"\\`'):
        raise ScaffoldError(
            f'TITLE must be one line of at most {LONGEST_TITLE} characters without ", \\ and `, '
            f"got {text!r}"
        )
    return text


def _known(root: Path, paper: str) -> bool:
    """Whether a file of the folder of papers has this id."""
    texts = [_read(path) for path in sorted((root / SERIES).parent.glob("*.yaml"))]
    return any(re.search(rf"^id: ['\"]?{re.escape(paper)}['\"]?$", t, re.MULTILINE) for t in texts)


def _about(paper: str) -> dict[str, str]:
    """Year and source of a new paper, from its id. Raises ScaffoldError for another form."""
    if number := re.fullmatch(r"arxiv-(([0-9]{2})[0-9]{2}\.[0-9]{4,5})", paper):
        return {"YEAR": f"20{number[2]}", "SOURCE": f"arXiv {number[1]}"}
    if parts := re.fullmatch(r"([a-z]+)-((?:19|20)[0-9]{2})-[a-z0-9_]+", paper):
        return {"YEAR": parts[2], "SOURCE": f"{parts[1].upper()} {parts[2]}"}
    raise ScaffoldError(
        "PAPER must be the id of a known paper, or arxiv-1234.56789, or venue, year and a word as "
        f"in icml-2020-rigging; got {paper!r}"
    )


def _with_paper(text: str, digit: str, paper: str) -> str:
    """series.yaml with one paper more in a series, everything else as it was.

    Raises ScaffoldError if that cannot be done in the text.
    """
    pattern = rf"(^- digit: {digit}\n(?:(?!^- digit:).)*?^  papers: \[)([^\]]*)\]"
    found = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ScaffoldError(f"no line `papers: [...]` for series {digit} in {SERIES}")
    listed = [*filter(None, re.split(r"[\s,]+", found[2])), paper]
    line = f"  papers: [{', '.join(listed)}]"
    if len(line) > 100:
        line = "  papers: [\n" + "".join(f"    {one},\n" for one in listed) + "  ]"
    start = text.rindex("  papers: [", found.start(), found.end())
    made = text[:start] + line + text[found.end() :]
    wanted = parse_yaml(text)
    for entry in wanted:
        if str(entry["digit"]) == digit:
            entry["papers"].append(paper)
    if parse_yaml(made) != wanted:
        raise ScaffoldError(f"{SERIES} could not be changed; add {paper} to series {digit} by hand")
    return made


def _filled(name: str, words: Mapping[str, str]) -> bytes:
    return _fill(template(name), words).encode()


def _fill(text: str, words: Mapping[str, str]) -> str:
    """All names in one pass, so that a title may hold an @NAME@."""
    return re.sub(r"@([A-Z]+)@", lambda found: words[found[1]], text)


def _notebook(name: str, words: Mapping[str, str]) -> bytes:
    """The notebook of the template: `%% kind tag`, then the cell."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    from rclib.execution.first_cell import with_first_cell

    cells: list[Any] = []
    for place, part in enumerate(template("notebook").removeprefix("%% ").split("\n%% ")):
        head, _, source = part.partition("\n")
        kind, *tags = head.split()
        source = _fill(source, words).rstrip("\n")
        identity = f"{name[:2]}-{place:02d}-{hashlib.sha256(source.encode()).hexdigest()[:6]}"
        make = new_code_cell if kind == "code" else new_markdown_cell
        cells.append(make(source, id=identity, metadata={"tags": tags} if tags else {}))
    notebook = new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
    )
    text: str = nbformat.writes(with_first_cell(notebook))
    return (text.rstrip("\n") + "\n").encode()


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Write a new notebook, its experiment, test and parameters, and its paper's file.

    What is not given is read from RCLIB_NEW_NAME, RCLIB_NEW_PAPER and RCLIB_NEW_TITLE, where
    `make new` puts it: text in the environment is text, whatever characters it has.
    """
    parser = Parser(
        prog="python -m rclib.execution.scaffold", description=(main.__doc__ or "").split("\n")[0]
    )
    parser.add_argument("name", nargs="?", default=os.environ.get("RCLIB_NEW_NAME", ""))
    parser.add_argument("--paper", default=os.environ.get("RCLIB_NEW_PAPER", ""))
    parser.add_argument("--title", default=os.environ.get("RCLIB_NEW_TITLE", ""))
    given = parser.parse_args(argv)
    try:
        made = plan(given.name, paper=given.paper, title=given.title, root=paths.project_root())
        write(made)
    except (ScaffoldError, OSError) as error:
        note(f"error: {error}")
        return 1
    for what, written in (("new", made.new), ("changed", made.changed)):
        for path in written:
            report(f"{what:8s} {path}")
    report(
        f"It runs as it is: .venv/bin/python -m rclib.execution.runner run {given.name}\n"
        f"Then put your own in its place; what still says {MARK!r} fails a test. CONTRIBUTING.md "
        "has the rules."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
