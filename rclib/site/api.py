"""Pages on `rclib` itself, made by pdoc from the docstrings, in the gallery's colours."""

from __future__ import annotations

import re
import warnings
from importlib.resources import as_file, files
from pathlib import Path

import pdoc
import pdoc.render

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
        with warnings.catch_warnings():
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
