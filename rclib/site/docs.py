"""The project's texts (docs/, replication.md, CONTRIBUTING.md) as pages of the site."""

from __future__ import annotations

from pathlib import Path

from bs4 import BeautifulSoup, Tag

from rclib.site import clean, links
from rclib.site.notebook_page import markdown

__all__ = ["Text", "page", "texts"]

GUIDE = "guide"  # the page that lists the others

Text = tuple[str, Path, str]  # page, file, heading


def texts(root: Path) -> dict[str, Text]:
    """The texts of a project: file below it -> page, file, first heading. The guide comes first,
    then the pages in its order, then the others."""
    found: dict[str, Text] = {}
    guide = root / "docs" / f"{GUIDE}.md"
    listed = guide.read_text(encoding="utf-8") if guide.is_file() else ""

    def place(path: Path) -> tuple[int, str]:
        if path.stem == GUIDE:
            return -1, ""
        at = listed.find(f"]({path.name})")
        return (at if at >= 0 else len(listed)), path.name

    for path in sorted((root / "docs").glob("*.md"), key=place):
        found[f"docs/{path.name}"] = (f"docs/{path.stem}.html", path, _heading(path))
    for name in ("replication.md", "CONTRIBUTING.md"):
        path = root / name
        if path.is_file():
            found[name] = (f"{path.stem.lower()}.html", path, _heading(path))
    return found


def _heading(path: Path) -> str:
    first = path.read_text(encoding="utf-8").lstrip().partition("\n")[0]
    return first.removeprefix("# ").strip() or path.stem


def page(name: str, text: Text, resolver: links.Resolver) -> str:
    """HTML of a text. name : its file below the project."""
    address, path, _ = text
    soup = BeautifulSoup(markdown(path.read_text(encoding="utf-8")), "html.parser")
    links.drawings(soup, path.parent)
    folder, root = name.rpartition("/")[0], "../" * address.count("/")
    links.relink(soup, folder, root, resolver)
    links.anchors(soup)
    for table in soup.find_all("table"):
        for cell in table.find_all("th"):
            cell["scope"] = "col"
        _stacked(table)
        frame = table.wrap(soup.new_tag("div", attrs={"class": "scroll wide", "tabindex": "0"}))
        frame["role"], frame["aria-label"] = "region", _above(table)
    for number, code in enumerate(soup.find_all("pre"), 1):
        code["tabindex"], code["role"], code["aria-label"] = "0", "region", f"Example {number}"
    return clean.body(str(soup))


def _stacked(table: Tag) -> None:
    """On a phone a table of more than two columns stands as one block a row, each cell below the
    name of its column: the style sheet needs these names, and readers of screens the roles that
    blocks have not."""
    names = [cell.get_text() for cell in table.find_all("th")]
    if len(names) < 3:
        return
    table["class"], table["role"] = "stack", "table"
    for part in table.find_all(["thead", "tbody"]):
        part["role"] = "rowgroup"
    for row in table.find_all("tr"):
        row["role"] = "row"
        for name, cell in zip(names, row.find_all(["th", "td"]), strict=False):
            cell["role"] = "columnheader" if cell.name == "th" else "cell"
            if cell.name == "td":
                cell["data-label"] = name


def _above(table: object) -> str:
    """The heading that a table stands under, as its name."""
    heading = table.find_previous(["h1", "h2", "h3"])  # type: ignore[attr-defined]
    return f"Table: {heading.get_text()}" if heading else "Table"
