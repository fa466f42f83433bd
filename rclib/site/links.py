"""Links and pictures of the project's own texts (docs/, replication.md, notebooks) as links and
pictures of the site.

A text names files of the repository from where it lies. What the site has a page for becomes a
link to that page; a link to anything else inside the repository becomes its words alone, since the
site goes where the repository is not.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup

from rclib.site import clean

__all__ = ["Picture", "Resolver", "anchors", "drawings", "relink"]


@dataclass(frozen=True)
class Picture:
    """A picture on the site: its address from the site's root, and its size in pixels."""

    file: str
    width: int
    height: int


@dataclass(frozen=True)
class Resolver:
    """page : file of the repository -> page of the site from its root, None without one.
    picture : the same for pictures."""

    page: Callable[[str], str | None]
    picture: Callable[[str], Picture | None]


def relink(soup: Any, folder: str, root: str, resolver: Resolver) -> None:
    """Change the links and pictures of a text.

    soup : the parsed text. folder : where the text lies below the top of the repository. root :
    from its page to the site's root.
    """
    for image in soup.find_all("img", src=True):
        found = resolver.picture(_inside(folder, str(image["src"])))
        if found is not None:
            image["src"] = root + found.file
            image["width"], image["height"] = str(found.width), str(found.height)
            image["loading"] = "lazy"
    for link in soup.find_all("a", href=True):
        href = str(link["href"])
        if re.match(r"[a-z]+:|#", href):
            continue
        file, _, anchor = href.partition("#")
        goal = resolver.page(_inside(folder, file))
        if goal is None:
            link.unwrap()
        else:
            link["href"] = root + goal + (f"#{anchor}" if anchor else "")


def _inside(folder: str, file: str) -> str:
    """A path from the top of the repository; one that leads out of it begins with ".."."""
    return posixpath.normpath(posixpath.join(folder, file))


def anchors(soup: Any) -> None:
    """Give headings the anchors that GitHub gives them, so that links work in both places."""
    seen: dict[str, int] = {}
    for heading in soup.find_all(re.compile("h[1-6]")):
        name = re.sub(r"[^\w\- ]", "", heading.get_text().strip().lower()).replace(" ", "-")
        seen[name] = seen.get(name, -1) + 1
        number = seen[name] + (name in clean.RESERVED)
        heading["id"] = f"{name}-{number}" if number else name


def drawings(soup: Any, folder: Path) -> None:
    """Put drawings (SVG) that lie beside a text into its page, so that they follow its colours."""
    for image in soup.find_all("img", src=True):
        drawing = folder / str(image["src"])
        if drawing.suffix == ".svg" and drawing.is_file():
            svg = BeautifulSoup(drawing.read_text(encoding="utf-8"), "html.parser")
            frame = soup.new_tag("div", attrs={"class": "scroll drawing", "tabindex": "0"})
            frame["role"], frame["aria-label"] = "region", str(image.get("alt", ""))
            frame.append(svg)
            image.replace_with(frame)
