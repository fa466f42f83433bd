"""A small project with results, figures and notebooks, for the tests of the site."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from rclib.study.claims import Claims, above
from rclib.study.findings import Finding
from rclib.study.papers import Item, Paper, Papers, Series

PROFILE_VALUES = {"quick": 0.9, "paper": 0.2}


def picture(seed: int, width: int = 300, height: int = 200) -> bytes:
    """A PNG of coloured noise."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 255, size=(height // 10, width // 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def record(
    name: str, *, title: str, profile: str, figures: Sequence[str], paper: str = "A, Figure 4.1"
) -> dict[str, Any]:
    """What a study writes, with one claim of every verdict."""
    claims = Claims()
    for key in ("good", "bad", "open", "untested"):
        claims.declare(
            f"{key}_claim",
            paper=paper,
            statement=f"the {key} statement of {name}",
            quantity="|slope| <of> x",
            criterion=above(0.5),
        )
    claims.measure("good_claim", [0.9, 0.91, 0.92])
    claims.measure("bad_claim", 0.1)
    claims.measure("open_claim", PROFILE_VALUES.get(profile, 0.5), interval=(0.1, 0.95))
    claims.not_testable("untested_claim", "needs a machine that is not here")
    return {
        "notebook": name,
        "title": title,
        "profile": profile,
        "parameters": {"profile": profile, "dataset": "digits", "width": 8, "seeds": [0, 1]},
        "data": {"description": f"data & co of {profile}", "checksum": None},
        "claims": claims.rows(),
        "figures": [
            {
                "name": figure,
                "caption": f"Caption <b>{figure}</b> at N = 8. More words. "
                f"Data: data & co of {profile}; profile: {profile}.",
            }
            for figure in figures
        ],
        "tables": {},
        "environment": {"python": "3.11", "torch": "2", "numpy": "2", "commit": None, "cores": 2,
                        "system": "Linux", "machine": "x86_64", "threads_per_run": 1},
        "core_seconds": 90.0,
        "seconds": 3.0,
    }  # fmt: skip


def write_results(root: Path, content: Mapping[str, Any], seed: int = 0) -> Path:
    """Results file and the files of its figures."""
    profile = content["profile"]
    path = root / "results" / profile / f"{content['notebook']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    folder = root / "figures" / profile / content["notebook"]
    folder.mkdir(parents=True, exist_ok=True)
    for number, figure in enumerate(content["figures"]):
        payload = picture(seed + number + len(profile))
        (folder / f"{figure['name']}.png").write_bytes(payload)
        (folder / f"{figure['name']}.pdf").write_bytes(b"%PDF-1.4\n")
        (folder / f"{figure['name']}.csv").write_text("x,y\n1,2\n")
    return path


def write_notebook(folder: Path, name: str, *, title: str, executed: bool) -> Path:
    """A notebook that declares the claims of `record`; executed ones have a picture."""
    cells = [
        new_markdown_cell(f"# {title}\n\nInline $\\lambda_1$ and display\n\n$$\\frac{{a}}{{b}}$$"),
        new_code_cell('profile = "quick"', metadata={"tags": ["parameters"]}),
        new_code_cell('for kind in ("good", "bad"):\n    declare(f"{kind}_claim")'),
        new_code_cell('declare("open_claim")\ndeclare("untested_claim")'),
        new_code_cell('study.save_figure(figure, "figure_4_1_heat_maps")'),
        new_code_cell("frame"),
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"{name[:2]}-{number:02d}"
    if executed:
        cells[4].outputs = [
            new_output("execute_result", {"text/plain": "'A caption. Of two.'"}),
            new_output("display_data", {"image/png": base64.b64encode(picture(9)).decode()}),
            new_output(
                "display_data",
                {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%| | 0/9"},
            ),
        ]
        table = "<div><style scoped>x{}</style><script>alert(1)</script><table border='1' "
        table += "class='dataframe'><thead><tr><th></th><th onclick='f()'>n</th></tr></thead>"
        table += "<tbody><tr><th>0</th><td>1</td></tr></tbody></table></div>"
        cells[5].outputs = [new_output("execute_result", {"text/html": table, "text/plain": "t"})]
    notebook = new_notebook(cells=cells)
    notebook.metadata.language_info = {"name": "python"}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def paper(identity: str, *items: Item, **more: Any) -> Paper:
    """A paper with these items."""
    about = {"title": f"The title of {identity}", "short": f"Paper {identity}"}
    about |= {"authors": "Somebody, Else", "year": 2024, "source": "arXiv 2401.00001"}
    return Paper(**{"id": identity, **about, "items": items, **more})


def small_papers() -> Papers:
    """What the notebooks of `make_project` replicate."""
    figure = {"figure_4_1_heat_maps": "Heat maps of the middle layer"}
    item = Item("A", "Figure 4.1", "heat maps", "11_a", figure, open="What the text leaves out.")
    code = Item("A", "Algorithm 1", "sampling", code="rclib/rowcolumn/transfer.py")
    one = Item("B", "One configuration", "a spike", "20_b", claims=("good_claim", "bad_claim"))
    beside = Item("B", "Sweep", "more", "20_b", beside={"spikes_esd": "Spectra over steps"})
    return Papers(
        (
            paper("A", item, code, simplified={"11_a": "Fewer steps."}),
            paper("B", one, beside, source="A talk"),
        ),
        (
            Series(1, "one", "The first series", "Does it hold?", ("A",), says="It does."),
            Series(2, "two", "The second series", "Is there a spike?", ("B",)),
        ),
        (
            Finding("new", "New.", "It is {good_claim}.", {"11_a": {"good_claim": "reproduced"}}),
            Finding(
                "other", "Otherwise.", "It is {bad_claim}.",
                {"11_a": {"bad_claim": "not reproduced"}}, "new_figure", "A",
            ),
            Finding("quick", "Quick alone.", "x", {"20_b": {"good_claim": "reproduced"}}),
        ),
    )  # fmt: skip


def make_project(root: Path) -> Path:
    """Two notebooks of paper A, one of paper B and one beyond; quick has all, paper one."""
    (root / "notebooks").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    entries = [
        ("11_a", "Figure 4.1: heat maps", ["figure_4_1_heat_maps", "new_figure"], "A, Figure 4.1"),
        ("20_b", "Paper B: one configuration", ["spikes_esd"], "B, one configuration"),
        ("31_c", "Beyond the papers: more", ["more_of_it"], "beyond the paper"),
    ]
    for seed, (name, title, figures, source) in enumerate(entries):
        write_notebook(root / "notebooks", name, title=title, executed=False)
        write_notebook(root / "build" / "quick", name, title=title, executed=True)
        for profile in ("quick", "paper") if name == "11_a" else ("quick",):
            made = record(name, title=title, profile=profile, figures=figures, paper=source)
            write_results(root, made, seed=10 * seed)
    write_notebook(root / "notebooks", "12_d", title="Not run yet", executed=False)
    return root


def many_names() -> list[str]:
    """Sixty notebooks of nine series."""
    sizes = {digit: 7 if digit <= 6 else 6 for digit in range(1, 10)}
    return [f"{d}{i}_study_{d}{i}" for d, size in sizes.items() for i in range(size)]


def many_papers() -> Papers:
    """One paper a notebook of `make_many`, in nine series with long questions."""
    papers = [
        paper(
            f"p{name[:2]}",
            Item(f"p{name[:2]}", "Figure 1", "it", name, {"main": f"The main curve of {name}"}),
            titles={name: {"control": f"The control of {name}"}},
            title=f"Of the theory and practice of {name.replace('_', ' ')} in wide networks",
            short=f"Theory {name[:2]}",
        )
        for name in many_names()
    ]
    question = "What remains of it when width, data and learning rate change together, and does "
    question += "the same law hold at every width, or is it chance that rows and columns agree?"
    series = [
        Series(
            digit=digit,
            theme=f"theme{digit}",
            title=f"Series with a rather long title, the number {digit}",
            question=question,
            papers=tuple(p.id for p in papers if p.id[1] == str(digit)),
            says="They say one thing together. " * 3,
        )
        for digit in range(1, 10)
    ]
    return Papers(tuple(papers), tuple(series))


def make_many(root: Path) -> Path:
    """Sixty notebooks with the same names of figures everywhere; all have results of the paper's
    scale, every third of the quick profile as well, and these are executed."""
    (root / "notebooks").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    for seed, name in enumerate(many_names()):
        title = f"Study {name[:2]}: what it takes to see it in {name}"
        write_notebook(root / "notebooks", name, title=title, executed=False)
        profiles = ("paper",) if seed % 3 else ("paper", "quick")
        for profile in profiles:
            made = record(
                name, title=title, profile=profile, figures=("main", "control"),
                paper=f"p{name[:2]}, Figure 1",
            )  # fmt: skip
            write_results(root, made, seed=10 * seed)
        if "quick" in profiles:
            write_notebook(root / "build" / "quick", name, title=title, executed=True)
    return root


class Links(HTMLParser):
    """What a page loads, where it links to, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.anchors.add(str(found["id"]))
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        if tag == "link" and found.get("href"):
            self.loads.append(str(found["href"]))
        if found.get("src"):
            self.loads.append(str(found["src"]))
        if tag == "img":
            self.images.append(found)


def dangling(site: Path, *, below: str = "") -> list[str]:
    """Links and resources of all pages that lead nowhere inside the site."""
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    bad = []
    for path, page in pages.items():
        if not path.relative_to(site).as_posix().startswith(below):
            continue
        for target in [*page.links, *page.loads]:
            if target.startswith(("https://", "data:")) and target not in page.loads:
                continue
            if target.startswith("data:"):
                continue
            file, _, anchor = target.partition("#")
            goal = (path.parent / file).resolve() if file else path
            if anchor.startswith("?"):  # a choice of the filter
                anchor = "filter"
            if not goal.is_file() or (
                anchor and goal in pages and anchor not in pages[goal].anchors
            ):
                bad.append(f"{path.relative_to(site)} -> {target}")
    return bad


def copy_of_this_project(root: Path, source: Path) -> Path:
    """What is committed of this project's results, figures and notebooks, in a folder of its own:
    the quick profile of a checkout may be half made, or made by another test right now."""
    root.mkdir(parents=True)
    (root / "pyproject.toml").touch()
    (root / "docs").mkdir()
    for path in (source / "docs").glob("*.*"):
        shutil.copyfile(path, root / "docs" / path.name)
    for name in ("results", "figures"):
        for folder in sorted((source / name).iterdir()):
            if folder.is_dir() and folder.name != "quick":
                shutil.copytree(folder, root / name / folder.name)
    (root / "notebooks").mkdir()
    for path in (source / "notebooks").glob("[0-9]*.ipynb"):
        shutil.copyfile(path, root / "notebooks" / path.name)
    for name in ("replication.md", "CONTRIBUTING.md"):
        shutil.copyfile(source / name, root / name)
    return root
