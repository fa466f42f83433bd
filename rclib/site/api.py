"""Pages on `rclib` itself, made by pdoc from the docstrings, in the gallery's colours."""

from __future__ import annotations

import pkgutil
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

import pdoc
import pdoc.render

import rclib
from rclib.site import clean

__all__ = ["write_api"]


def write_api(folder: Path) -> None:
    """Write the API's pages into a folder; they load nothing from a network."""
    with as_file(files("rclib.site").joinpath("templates", "pdoc")) as templates:
        pdoc.render.configure(
            docformat="markdown",
            favicon="data:,",
            template_directory=templates,
            search=True,
            show_source=False,  # it lies beside; ten megabytes more would say it again
            math=False,
        )
        with warnings.catch_warnings(), _face_as_text():
            # Types that exist for the type checker alone are shown as they are written.
            warnings.filterwarnings("ignore", "Error parsing type annotation")
            pdoc.pdoc("rclib", output_directory=folder)
    for path in folder.rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        # Links that are drawn by the style sheet alone have no name to read aloud.
        html = re.sub(
            r'<a class="headerlink" href="#([^"]*)"></a>',
            r'<a class="headerlink" href="#\1" aria-label="Link to \1"></a>',
            html,
        )
        path.write_text(html, encoding="utf-8")
        clean.protect(path)


@contextmanager
def _face_as_text() -> Iterator[None]:
    """The package as pdoc can show it: names that are imported on first use are a list of links
    to where they are defined, and the packages stand as submodules."""
    doc, names = rclib.__doc__, rclib.__all__
    lines = [
        f"- `{name}`: {line}; `{where.replace(':', '.')}`"
        for name, (where, line) in rclib.FACE.items()
    ]
    own = "".join(f"    {name:20s} {line}\n" for name, (_, line) in rclib.FACE.items())
    packages = [m.name for m in pkgutil.iter_modules(rclib.__path__) if m.name[0] != "_"]
    try:
        rclib.__doc__ = (doc or "").replace(own, "\n".join(lines) + "\n")
        rclib.__all__ = packages
        yield
    finally:
        rclib.__doc__, rclib.__all__ = doc, names
