"""The pages of one build, written from templates, with copies of what they show.

index.html                              findings, and the series with questions, scores, notebooks
series/<digit>.html                     a series: what it asks, its notebooks, its claims
papers/<id>.html, papers.html           a paper: its notebooks, item by item, its claims; all papers
notebooks/<profile>/<notebook>.html     a notebook as it was executed, or as it is stored;
                                        notebooks/<notebook>.ipynb is for download
figures/<notebook>/<figure>.html        a figure with its claims; its files lie in
                                        figures/<profile>/<notebook>/
claims.html, notebooks.html             all claims, with filters; all notebooks
docs/<name>.html, replication.html      texts of the project
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rclib import __version__, paths
from rclib.site import clean, docs, images, links, notebook_page
from rclib.site.content import BEYOND, ClaimRow, Figure, Gallery, Notebook, series_of
from rclib.site.search import Entry, search_entries, search_index
from rclib.study.claims import VERDICTS
from rclib.study.multiplicity import corrected
from rclib.study.papers import Series
from rclib.study.results import duration, tally

__all__ = ["STORED", "Site"]

STORED = "stored"  # in place of a profile: the notebook as it lies in notebooks/


class Site:
    """One build: the folder it goes to and what it shows.

    gallery : what is shown; `write` takes out the figures whose files cannot be read
    problems : what `write` could not read
    titles : notebook -> title, of all notebooks with or without results
    pages : (notebook, profile) -> page
    """

    def __init__(self, folder: Path, gallery: Gallery, *, has_api: bool) -> None:
        self.folder, self.gallery, self.has_api = folder, gallery, has_api
        self.problems: list[str] = []
        self.titles = {notebook.name: notebook.title for notebook in gallery.notebooks}
        self.pages: dict[tuple[str, str], str] = {}
        self.texts = docs.texts(paths.project_root())
        self.has_guide = f"docs/{docs.GUIDE}.md" in self.texts
        self.entries: list[Entry] = []  # of the search
        self._known: dict[str, notebook_page.Saved] = {}  # digest of a picture -> where it lies
        self._planned: dict[str, str] = {}  # notebook -> page, before all are there
        self._cells: dict[str, dict[str, str]] = {}  # notebook -> key of a claim -> cell
        self._bodies: dict[tuple[str, str], str] = {}  # (notebook, profile) -> HTML
        self._thumbnails: dict[tuple[str, str], tuple[int, int]] = {}
        self._sizes: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
        self.environment = Environment(
            loader=PackageLoader("rclib.site"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.filters["duration"] = duration
        self.environment.filters["slug"] = lambda text: text.replace(" ", "-")
        self.environment.filters["parts"] = _parts
        self.environment.filters["claims_of"] = lambda name, gallery: gallery.claims_of(name)
        first = files("rclib.site").joinpath("templates", "first.js").read_text(encoding="utf-8")
        self.environment.globals.update(policy=clean.policy([first]), first_script=first)
        self.environment.globals.update(
            version=__version__, verdicts=VERDICTS, has_api=has_api, beyond=BEYOND, site=self
        )

    def write(self) -> None:
        """Write everything but the API."""
        (self.folder / ".rclib-site").touch()
        shutil.copytree(str(files("rclib.site").joinpath("assets")), self.folder / "assets")
        self._figure_files()
        self._read_notebooks()
        self._page("index.html", "index.html.j2")
        self._page("claims.html", "claims.html.j2")
        self._page("papers.html", "papers.html.j2")
        self._page("notebooks.html", "notebooks.html.j2")
        for series in self.gallery.series:
            self._page(f"series/{series.digit}.html", "series.html.j2", series=series)
        for paper in self.gallery.papers.papers:
            self._page(f"papers/{paper.id}.html", "paper.html.j2", paper=paper)
        self._figure_pages()
        for (name, profile), page in self.pages.items():
            self._notebook_page(name, profile, page)
        self._texts()
        notebooks = {
            name: (title, page)
            for name, title in self.titles.items()
            for page in [self.notebook_of(name) or self.series_page(name)]
            if page
        }
        found = {heading: page for page, _, heading in self.texts.values()}
        self.entries = search_entries(self.gallery, notebooks, found)
        self.index(())

    def index(self, more: Iterable[Entry]) -> None:
        """Write the index of the search; `more` are entries of what others have made."""
        text = search_index([*self.entries, *more])
        (self.folder / "assets" / "search-index.js").write_text(text, encoding="utf-8")

    def _page(self, name: str, template: str, /, **values: Any) -> None:
        html = self.environment.get_template(template).render(
            root="../" * name.count("/"), gallery=self.gallery, page=name, **values
        )
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")

    def _texts(self) -> None:
        for name, text in self.texts.items():
            body = docs.page(name, text, self.resolver)
            self._page(text[0], "prose.html.j2", body=body, heading=text[2])

    @property
    def resolver(self) -> links.Resolver:
        """Files of the repository as places of the site."""
        return links.Resolver(self._place, self._picture)

    def _place(self, file: str) -> str | None:
        if file in self.texts:
            return self.texts[file][0]
        match file.split("/"):
            case ["README.md"]:
                return "index.html"
            case ["docs", "series", name] if self.series_page(name):
                return self.series_page(name)
            case ["notebooks", name]:
                return self._planned.get(name.removesuffix(".ipynb"))
            case [*_, "figures", _, notebook, name]:
                figure = self.gallery.figure(notebook, name.partition(".")[0])
                return figure.page if figure else None
            case ["rclib", *_] if self.has_api:
                source = paths.project_root() / file
                if source.suffix == ".py" or (source / "__init__.py").is_file():
                    return f"api/{file.removesuffix('.py')}.html"
        return None

    def _picture(self, file: str) -> links.Picture | None:
        match file.split("/"):
            case [*_, "figures", profile, notebook, name] if name.endswith(".png"):
                figure = self.gallery.figure(notebook, name.removesuffix(".png"))
                if figure is not None and profile in figure.variants:
                    size = self.picture_size(figure, profile)
                    return links.Picture(figure.file(profile), *size)
        return None

    # --- figures ---

    def _figure_files(self) -> None:
        """All figures' files, and thumbnails; a figure that is no picture goes. Vector and data
        are there at the largest scale alone."""
        kept = []
        for figure in self.gallery.figures:
            try:
                sizes = {p: images.size(v.files["png"]) for p, v in figure.variants.items()}
                payload, small = images.thumbnail(figure.lead.files["png"])
                made = {figure.thumbnail: payload}
                for profile, variant in figure.variants.items():
                    lead = variant is figure.lead
                    for kind, path in variant.files.items() if lead else ():
                        made[figure.file(profile, kind)] = path.read_bytes()
                    if not lead:
                        made[figure.file(profile)] = images.smaller(variant.files["png"])
            except ValueError as error:
                self.problems.append(str(error))
                continue
            kept.append(figure)
            self._sizes[figure.key], self._thumbnails[figure.key] = sizes, small
            for profile, variant in figure.variants.items():
                digest = notebook_page.digest(variant.files["png"].read_bytes())
                self._known[digest] = (f"../../{figure.file(profile)}", *sizes[profile])
            for name, content in made.items():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(content)
        self.gallery = dataclasses.replace(self.gallery, figures=tuple(kept))

    def _figure_pages(self) -> None:
        figures = self.gallery.figures
        for place, figure in enumerate(figures):
            own = self.gallery.own_claims(figure)
            self._page(
                figure.page,
                "figure.html.j2",
                figure=figure,
                previous=figures[place - 1] if place else None,
                following=figures[place + 1] if place + 1 < len(figures) else None,
                own=own,
                others=[c for c in self.gallery.claims_of(figure.notebook.name) if c not in own],
                series=self.series(figure.notebook.name),
            )

    def thumbnail_size(self, figure: Figure) -> tuple[int, int]:
        """(width, height) of a figure's thumbnail."""
        return self._thumbnails[figure.key]

    def picture_size(self, figure: Figure, profile: str) -> tuple[int, int]:
        """(width, height) of a figure at a profile."""
        return self._sizes[figure.key][profile]

    # --- notebooks ---

    def _read_notebooks(self) -> None:
        """Renders every notebook at every profile at which it was executed, or as it is stored."""
        root = paths.project_root()
        profiles = (*self.gallery.profiles, *self.gallery.missing)
        sources = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
        executed = {
            source: [p for p in profiles if (root / "build" / p / source.name).is_file()]
            for source in sources
        }
        for source, found in executed.items():
            profile = next(iter(found), STORED)
            self._planned[source.stem] = f"notebooks/{profile}/{source.stem}.html"
        for source, found in executed.items():
            name = source.stem
            stored = self._read(source)
            if stored:
                self.titles.setdefault(name, _heading(stored))
                keys = [claim.key for claim in self.gallery.claims_of(name)]
                self._cells[name] = notebook_page.declaring_cells(stored, keys)
            made = [self._render(root / "build" / p / source.name, p) for p in found]
            if stored and not any(made):
                self._render(source, STORED)
            if stored:  # without outputs, since the pictures are there already
                (self.folder / "notebooks").mkdir(exist_ok=True)
                shutil.copyfile(source, self.folder / "notebooks" / source.name)
        self.titles = dict(sorted(self.titles.items()))

    def _read(self, path: Path) -> Any:
        try:
            if path.is_symlink():  # as with figures: a copy would publish what it leads to
                raise ValueError(f"{path} is refused: it is a link, not a file")
            return notebook_page.read_notebook(path)
        except ValueError as error:
            self.problems.append(str(error))
        return None

    def _render(self, path: Path, profile: str) -> bool:
        """Takes one notebook in, with its pictures and a copy to download; whether it could."""
        name = path.stem
        saved = {
            figure.name: (f"../../{figure.file(profile)}", *self.picture_size(figure, profile))
            for figure in self.gallery.figures_of(name)
            if profile in figure.variants
        }
        notebook = self._read(path)
        if notebook is None:
            return False
        try:
            made = notebook_page.render(
                notebook,
                pictures=f"{name}_files",
                saved=saved,
                known=self._known,
                resolver=self.resolver,
            )
        except ValueError as error:
            problem = str(error)
            self.problems.append(problem if str(path) in problem else f"{path}: {problem}")
            return False
        folder = self.folder / "notebooks" / profile
        folder.mkdir(parents=True, exist_ok=True)
        for file, payload in made.pictures.items():
            (folder / f"{name}_files").mkdir(exist_ok=True)
            (folder / f"{name}_files" / file).write_bytes(payload)
        self._bodies[name, profile] = made.html
        self.pages[name, profile] = f"notebooks/{profile}/{name}.html"
        return True

    def _notebook_page(self, name: str, profile: str, page: str) -> None:
        self._page(
            page,
            "notebook.html.j2",
            body=self._bodies.pop((name, profile)),
            name=name,
            profile=profile,
            stored=profile == STORED,
            heading=self.titles.get(name, name),
            figures=self.gallery.figures_of(name),
            download=f"notebooks/{name}.ipynb",
            others={p: where for (n, p), where in self.pages.items() if n == name},
            series=self.series(name),
        )

    def notebook_of(self, name: str, profile: str = "") -> str | None:
        """The page of a notebook, at this profile where it was executed there."""
        found = {p: page for (n, p), page in self.pages.items() if n == name}
        return found.get(profile) or next(iter(found.values()), None)

    def cell_of(self, claim: ClaimRow, profile: str = "") -> str | None:
        """Address of the cell that declares a claim."""
        page = self.notebook_of(claim.notebook, profile)
        cell = self._cells.get(claim.notebook, {}).get(claim.key)
        return f"{page}#cell-{cell}" if page and cell else page

    def series(self, notebook: str) -> Series:
        """The series of a notebook."""
        return series_of(self.gallery.papers, [notebook])[0]

    def series_page(self, notebook: str) -> str | None:
        """The page of a notebook's series, which is there when the series has results."""
        if not notebook[:1].isdecimal():
            return None
        series = self.series(notebook)
        return f"series/{series.digit}.html" if series in self.gallery.series else None

    def all_series(self) -> tuple[Series, ...]:
        """The series of all notebooks, with or without results."""
        return series_of(self.gallery.papers, self.titles)

    # --- counts ---

    def tally(self, notebooks: Iterable[Notebook]) -> dict[str, int]:
        """Verdicts of these notebooks' claims, each at the largest scale that makes it."""
        return tally(claim["verdict"] for n in notebooks for claim in n.claims)

    def tally_of(self, claims: Iterable[ClaimRow]) -> dict[str, int]:
        """Verdicts of these claims, each at the largest scale at which it was measured."""
        return tally(claim.lead.verdict for claim in claims)

    def columns(self, claims: Iterable[ClaimRow], profiles: Iterable[str]) -> list[str]:
        """The profiles that a table of claims shows: the papers' scale, which may be missing
        still, and those at which one of the claims was measured."""
        measured = {profile for claim in claims for profile in claim.outcomes}
        return [profile for profile in profiles if profile == "paper" or profile in measured]

    def corrected(self) -> str:
        """What is left of all verdicts when their number is corrected for."""
        return str(corrected(claim for n in self.gallery.notebooks for claim in n.claims))

    def parameters(self, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Parameters of a notebook in words; profile and data set stand elsewhere."""
        return [
            (name.replace("_", " "), ", ".join(map(str, v)) if isinstance(v, list) else str(v))
            for name, v in record["parameters"].items()
            if name not in ("profile", "dataset")
        ]


def _parts(counts: Mapping[str, int], gap: float = 0.6) -> list[tuple[str, float, float]]:
    """(verdict, begin, width) of a bar's parts in percent of it."""
    total, begin = sum(counts.values()), 0.0
    found = []
    for verdict, count in counts.items():
        width = 100 * count / total
        found.append((verdict, round(begin, 2), round(max(width - gap, gap), 2)))
        begin += width
    return found


def _heading(notebook: Any) -> str:
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return str(cell.source.splitlines()[0][2:].strip())
    return "Notebook"
