"""Pages on `rclib` itself, made by pdoc from the docstrings, in the gallery's colours."""

from __future__ import annotations

import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pdoc
import pdoc.doc
import pdoc.extract
import pdoc.render

import rclib
from rclib.site import clean
from rclib.site.content import first_sentence
from rclib.site.search import Entry

__all__ = ["write_api"]


def write_api(folder: Path) -> list[Entry]:
    """Write the API's pages into a folder; they load nothing from a network.

    Returns what the site's search finds of them: modules, classes and functions. Raises ValueError
    if pages have not the same style sheets.
    """
    with as_file(files("rclib.site").joinpath("templates", "pdoc")) as templates:
        pdoc.render.configure(
            docformat="markdown",
            favicon="data:,",
            template_directory=templates,
            search=False,  # its index is as large as all pages; the site's own search has the names
            show_source=False,  # it lies beside; ten megabytes more would say it again
            math=False,
        )
        with warnings.catch_warnings(), _face_as_text():
            # Types that exist for the type checker alone are shown as they are written.
            warnings.filterwarnings("ignore", "Error parsing type annotation")
            pdoc.pdoc("rclib", output_directory=folder)
            entries = list(_entries())
    sheet = ""
    for path in sorted(folder.rglob("*.html")):
        html = path.read_text(encoding="utf-8")
        # Links that are drawn by the style sheet alone have no name to read aloud.
        html = re.sub(
            r'<a class="headerlink" href="#([^"]*)"></a>',
            r'<a class="headerlink" href="#\1" aria-label="Link to \1"></a>',
            html,
        )
        # pdoc repeats its style sheets in every page.
        sheets = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
        if sheets:
            own = "\n".join(sheets)
            if sheet and own != sheet:
                raise ValueError(f"{path} has other style sheets than the pages before it")
            sheet = own
            up = "../" * (len(path.relative_to(folder).parts) - 1)
            link = f'<link rel="stylesheet" href="{up}api.css">'
            html = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
            html = html.replace("</head>", f"{link}</head>", 1)
        path.write_text(html, encoding="utf-8")
        clean.protect(path)
    (folder / "api.css").write_text(sheet, encoding="utf-8")
    return entries


def _entries() -> Iterator[Entry]:
    """Modules, classes and functions with the first sentence of their docstrings."""
    for name in pdoc.extract.walk_specs(["rclib"]):
        module = pdoc.doc.Module.from_name(name)
        page = f"api/{name.replace('.', '/')}.html"
        yield "API", name, _sentence(module), page, ""
        for member in module.own_members:
            if isinstance(member, (pdoc.doc.Class, pdoc.doc.Function)) and _public(member):
                yield "API", member.qualname, _sentence(member), f"{page}#{member.qualname}", name


def _public(member: pdoc.doc.Doc[Any]) -> bool:
    listed = getattr(sys.modules.get(member.modulename), "__all__", ())
    return member.qualname in listed


def _sentence(member: pdoc.doc.Doc[Any]) -> str:
    where = "" if member.kind == "module" else f"{member.modulename}: "
    return f"{where}{first_sentence(' '.join(member.docstring.split()))}"[:160]


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
