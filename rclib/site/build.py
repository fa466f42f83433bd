"""Writes the gallery: pages from templates, copies of figures, thumbnails, notebooks, the API.

The site is made in a temporary folder beside its place and renamed when it is whole, so an
error leaves the one that was there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rclib import __version__, paths
from rclib.site import images, notebook_page
from rclib.site.content import PAPERS, ClaimRow, Figure, Gallery, Notebook, load_gallery
from rclib.study.claims import VERDICTS
from rclib.study.multiplicity import corrected
from rclib.study.results import duration, tally

__all__ = ["build", "main"]

STORED = "stored"  # in place of a profile: the notebook as it lies in notebooks/


def build(target: Path, *, api: bool = True) -> dict[str, int]:
    """Build the site in folder `target`, replacing what is there, and return what it holds
    (figures, claims, notebooks, bytes).

    api : whether to make the pages on `rclib`, which takes most of the time.
    Raises ValueError for a results file or notebook that is not valid, and for a target that
    holds something else than a site; the target then is as it was.
    """
    _check_target(target)
    gallery = load_gallery()
    with _whole(target) as folder:
        site = _Site(folder, gallery, has_api=api)
        site.write()
        if api:
            from rclib.site.api import write_api

            write_api(folder / "api")
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "figures": len(gallery.figures),
        "claims": len(gallery.claims),
        "notebooks": len(site.pages),
        "bytes": total,
    }


def _check_target(target: Path) -> None:
    """Never remove a folder that no build made."""
    if target.exists() and not (target / ".rclib-site").is_file() and any(target.iterdir()):
        raise ValueError(f"{target} holds something else than a site; remove it or name another")


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
        folder.chmod(0o755)
        old = folder.with_name(folder.name + ".old")
        if target.exists():
            os.replace(target, old)
        os.replace(folder, target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Site:
    """One build: the folder it goes to and what it shows."""

    def __init__(self, folder: Path, gallery: Gallery, *, has_api: bool) -> None:
        self.folder, self.gallery = folder, gallery
        self.has_replication = (paths.project_root() / "replication.md").is_file()
        self.all_verdicts = {v for claim in gallery.claims for v in claim.verdicts}
        self.cells: dict[str, dict[str, str]] = {}  # notebook -> key of a claim -> cell
        self.pages: dict[tuple[str, str], str] = {}  # (notebook, profile) -> page
        self.titles: dict[str, str] = {}  # notebook -> title
        self.environment = Environment(
            loader=PackageLoader("rclib.site"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.filters["duration"] = duration
        self.environment.filters["slug"] = lambda text: text.replace(" ", "-")
        self.environment.globals.update(
            version=__version__, papers=PAPERS, verdicts=VERDICTS, has_api=has_api
        )

    def write(self) -> None:
        (self.folder / ".rclib-site").touch()
        shutil.copytree(str(files("rclib.site").joinpath("assets")), self.folder / "assets")
        self._notebooks()
        sizes = {figure.name: self._figure_files(figure) for figure in self.gallery.figures}
        self._page("index.html", "index.html.j2", sizes=sizes)
        self._figure_pages(sizes)
        if self.has_replication:
            replication = paths.project_root() / "replication.md"
            text = _from_root(replication.read_text(encoding="utf-8"), self)
            body = notebook_page.markdown(text)
            self._page("replication.html", "prose.html.j2", body=body, heading="Item by item")

    def _page(self, name: str, template: str, /, **values: Any) -> None:
        root = "../" * name.count("/")
        html = self.environment.get_template(template).render(
            root=root, gallery=self.gallery, site=self, page=name, **values
        )
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")

    # --- figures ---

    def _figure_files(self, figure: Figure) -> tuple[int, int]:
        """Copies a figure's files; (width, height) of its thumbnail."""
        for profile, variant in figure.variants.items():
            folder = self.folder / "figures" / profile
            folder.mkdir(parents=True, exist_ok=True)
            for kind, path in variant.files.items():
                shutil.copyfile(path, folder / f"{figure.name}.{kind}")
        payload = images.thumbnail(figure.lead.files["png"])
        thumbnails = self.folder / "thumbnails"
        thumbnails.mkdir(exist_ok=True)
        (thumbnails / f"{figure.name}.png").write_bytes(payload)
        return images.size_of(payload)

    def _figure_pages(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        figures = self.gallery.figures
        for place, figure in enumerate(figures):
            self._page(
                f"figures/{figure.name}.html",
                "figure.html.j2",
                figure=figure,
                previous=figures[place - 1] if place else None,
                following=figures[place + 1] if place + 1 < len(figures) else None,
                claims=self.gallery.claims_of(figure.notebook.name),
                picture_sizes={p: images.size(v.files["png"]) for p, v in figure.variants.items()},
                sizes=sizes,
            )

    # --- notebooks ---

    def _notebooks(self) -> None:
        root = paths.project_root()
        by_name = {notebook.name: notebook for notebook in self.gallery.notebooks}
        sources = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
        for source in sources:
            stored = notebook_page.read_notebook(source)
            notebook = by_name.get(source.stem)
            self.titles[source.stem] = notebook.title if notebook else _heading(stored)
            keys = [claim.key for claim in self.gallery.claims_of(source.stem)]
            self.cells[source.stem] = notebook_page.declaring_cells(stored, keys)
            built = {
                profile: root / "build" / profile / source.name
                for profile in (*self.gallery.profiles, *self.gallery.missing)
            }
            found = {profile: path for profile, path in built.items() if path.is_file()}
            for profile in found or {STORED: source}:
                self.pages[source.stem, profile] = f"notebooks/{profile}/{source.stem}.html"
        for (name, profile), page in self.pages.items():
            path = (
                root / "notebooks" if profile == STORED else root / "build" / profile
            ) / f"{name}.ipynb"
            self._notebook_page(path, page, profile, by_name.get(name))

    def _notebook_page(
        self, path: Path, page: str, profile: str, notebook: Notebook | None
    ) -> None:
        content = notebook_page.render(
            notebook_page.read_notebook(path), pictures=f"{path.stem}_files"
        )
        folder = (self.folder / page).parent
        pictures = folder / f"{path.stem}_files"
        for name, payload in content.pictures.items():
            pictures.mkdir(parents=True, exist_ok=True)
            (pictures / name).write_bytes(payload)
        figures = [f for f in self.gallery.figures if f.notebook.name == path.stem]
        self._page(
            page,
            "notebook.html.j2",
            body=content.html,
            name=path.stem,
            profile=profile,
            stored=profile == STORED,
            heading=self.titles[path.stem],
            figures=figures,
            others={p: where for (n, p), where in self.pages.items() if n == path.stem},
            notebook=notebook,
        )
        shutil.copyfile(path, folder / path.name)

    def notebook_of(self, name: str, profile: str = "") -> str | None:
        """The page of a notebook, at this profile where it was executed there."""
        found = {p: page for (n, p), page in self.pages.items() if n == name}
        return found.get(profile) or next(iter(found.values()), None)

    def cell_of(self, claim: ClaimRow, profile: str = "") -> str | None:
        """Address of the cell that declares a claim."""
        page = self.notebook_of(claim.notebook, profile)
        cell = self.cells.get(claim.notebook, {}).get(claim.key)
        return f"{page}#cell-{cell}" if page and cell else page

    @property
    def cover(self) -> Figure | None:
        """The figure that the front page opens with: the first that a paper calls a figure."""
        figures = self.gallery.figures
        named = [figure for figure in figures if figure.label.startswith("Figure")]
        return next(iter([*named, *figures]), None)

    def leading(self, notebook: str = "") -> list[Mapping[str, Any]]:
        """Claims of all notebooks, or of one, each at the largest scale that was run."""
        chosen = [n for n in self.gallery.notebooks if notebook in ("", n.name)]
        return [claim for n in chosen for claim in n.records[n.leading]["claims"]]

    def tally(self, notebook: str = "") -> dict[str, int]:
        """Verdicts of these claims: verdict -> count."""
        return tally(claim["verdict"] for claim in self.leading(notebook))

    def corrected(self) -> str:
        """What is left of these verdicts when their number is corrected for."""
        return str(corrected(self.leading()))

    def parameters(self, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Parameters of a notebook in words; profile and data set stand elsewhere."""
        return [
            (name.replace("_", " "), ", ".join(map(str, v)) if isinstance(v, list) else str(v))
            for name, v in record["parameters"].items()
            if name not in ("profile", "dataset")
        ]


def _heading(notebook: Any) -> str:
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return str(cell.source.splitlines()[0][2:].strip())
    return "Notebook"


def _from_root(text: str, site: _Site) -> str:
    """Links of a file of the project, which point to its notebooks, as links of the site."""
    for notebook in site.titles:
        page = site.notebook_of(notebook)
        if page:
            text = text.replace(f"](notebooks/{notebook}.ipynb)", f"]({page})")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Build the gallery from the results files and the executed notebooks."""
    parser = argparse.ArgumentParser(prog="python -m rclib.site", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=None, help="folder, default site/")
    parser.add_argument("--no-api", action="store_true", help="leave the pages on rclib out")
    arguments = parser.parse_args(argv)
    target = (arguments.out or paths.project_root() / "site").resolve()
    begin = time.monotonic()
    try:
        made = build(target, api=not arguments.no_api)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{target / 'index.html'}: {made['figures']} figures, {made['claims']} claims, "
        f"{made['notebooks']} notebooks, {made['bytes'] / 1e6:.1f} MB, "
        f"{time.monotonic() - begin:.0f} s"
    )
    return 0
