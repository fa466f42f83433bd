"""The texts in the folder docs/ as pages of the site."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from bs4 import BeautifulSoup

from rclib.site.notebook_page import markdown

__all__ = ["page", "titles"]


def titles(folder: Path) -> dict[str, str]:
    """The Markdown files of a folder: name without ending -> first heading."""
    found = {}
    for path in sorted(folder.glob("*.md")):
        first = path.read_text(encoding="utf-8").lstrip().partition("\n")[0]
        found[path.stem] = first.removeprefix("# ").strip() or path.stem
    return found


def page(path: Path, *, has_api: bool) -> str:
    """HTML of a text. Drawings (SVG) that lie beside it are put into the page, so that they
    follow its colours; a link to another text, or to a package of the library, becomes one of the
    site, and a link to anything else inside the project its words alone."""
    soup = BeautifulSoup(markdown(path.read_text(encoding="utf-8")), "html.parser")
    for image in soup.find_all("img", src=True):
        drawing = path.parent / str(image["src"])
        if drawing.suffix == ".svg" and drawing.is_file():
            svg = BeautifulSoup(drawing.read_text(encoding="utf-8"), "html.parser")
            frame = soup.new_tag("div", attrs={"class": "scroll drawing", "tabindex": "0"})
            frame["role"], frame["aria-label"] = "region", str(image.get("alt", ""))
            frame.append(svg)
            image.replace_with(frame)
    for link in soup.find_all("a", href=True):
        href = str(link["href"])
        if href.startswith(("https:", "#")):
            continue
        file, _, anchor = href.partition("#")
        goal = _on_site(PurePosixPath(file), path.parent, has_api)
        if goal is None:
            link.unwrap()
        else:
            link["href"] = goal + (f"#{anchor}" if anchor else "")
    for table in soup.find_all("table"):
        for cell in table.find_all("th"):
            cell["scope"] = "col"
    return str(soup)


def _on_site(file: PurePosixPath, folder: Path, has_api: bool) -> str | None:
    if file.suffix == ".md" and len(file.parts) == 1 and (folder / file).is_file():
        return f"{file.stem}.html"
    if file.parts[:2] == ("..", "rclib") and has_api:
        module = PurePosixPath(*file.parts[1:]).with_suffix("")
        source = folder / file
        if (source / "__init__.py").is_file() or source.suffix == ".py":
            return f"../api/{module}.html"
    return None
