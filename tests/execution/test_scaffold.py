"""execution.scaffold: a whole new notebook or nothing, from any text, that passes what is asked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from rclib.execution import first_cell, runner, scaffold
from rclib.execution.scaffold import MARK, ScaffoldError, plan, write
from rclib.study import papers

ROOT = Path(__file__).parents[2]
SERIES = "rclib/study/papers/series.yaml"
# As long as allowed, with all that Python, YAML, Markdown and the shell might trip over.
SLUG = "a_slug_that_is_as_long_as_it_may_be_x"
TITLE = "It's α: $(touch x) & $HOME; 'q' # {b} @SLUG@ | <i> %% *c* !"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What the scaffold looks at, without the library's code."""
    root = tmp_path / "project"
    for name in ("notebooks/paper", "rclib/nets", "rclib/experiments/spikes", "tests/experiments"):
        (root / name).mkdir(parents=True)
    (root / "pyproject.toml").touch()
    (root / "notebooks/11_figure_4_1_heat_maps.ipynb").touch()
    (root / "rclib/nets/gpt.py").touch()
    (root / "rclib/experiments/spikes/__init__.py").touch()
    (root / SERIES).parent.mkdir(parents=True)
    for name in ("a.yaml", "b.yaml"):
        shutil.copyfile((ROOT / SERIES).with_name(name), (root / SERIES).with_name(name))
    (root / SERIES).write_text(series_of_two_papers())
    return root


def series_of_two_papers() -> str:
    """The project's series, the later ones still empty."""
    text = (ROOT / SERIES).read_text(encoding="utf-8")
    return re.sub(r"^  papers: \[(?!A\]|B\])[^\]]*\]", "  papers: []", text, flags=re.MULTILINE)


def tree(root: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def test_files_and_their_places(project: Path) -> None:
    before = tree(project)
    write(plan("46_ticket", paper="arxiv-1803.03635", root=project))
    after = tree(project)
    assert sorted(after.keys() - before.keys()) == [
        "notebooks/46_ticket.ipynb",
        "notebooks/paper/46_ticket.yaml",
        "rclib/experiments/pruning",
        "rclib/experiments/pruning/__init__.py",
        "rclib/experiments/pruning/ticket.py",
        "rclib/study/papers/arxiv-1803.03635.yaml",
        "tests/experiments/pruning",
        "tests/experiments/pruning/test_ticket.py",
    ]
    assert [name for name in before if before[name] != after[name]] == [SERIES]
    page = yaml.safe_load((project / "rclib/study/papers/arxiv-1803.03635.yaml").read_text())
    made = papers._paper("arxiv-1803.03635.yaml", yaml.safe_dump(page))
    assert (made.id, made.year, made.source) == ("arxiv-1803.03635", 2018, "arXiv 1803.03635")
    assert [item.notebook for item in made.items] == ["46_ticket"]
    for name in ("notebooks/46_ticket.ipynb", "rclib/study/papers/arxiv-1803.03635.yaml"):
        assert MARK in (project / name).read_text()


def test_series_gets_the_paper_and_nothing_else_changes(project: Path) -> None:
    names = [f"arxiv-2001.{number:05d}" for number in range(12)]
    for place, paper in enumerate(names):
        before = (project / SERIES).read_text()
        write(plan(f"4{place % 10}_one_{place}" if place < 10 else f"6{place % 10}_one_{place}",
                   paper=paper, root=project))  # fmt: skip
        after = (project / SERIES).read_text()
        assert after.count("\n#") == before.count("\n#")  # comments stay
    content = {entry["digit"]: entry for entry in yaml.safe_load(after)}
    assert content[4]["papers"] == names[:10]  # a list of several lines
    assert content[6]["papers"] == names[10:]
    assert max(map(len, after.splitlines())) <= 100
    old = {entry["digit"]: entry for entry in yaml.safe_load(series_of_two_papers())}
    for entries in (content, old):
        for digit in (4, 6):
            entries[digit]["papers"] = []
    assert content == old


def test_known_paper_or_none_leaves_the_papers_alone(project: Path) -> None:
    before = tree(project / "rclib/study")
    write(plan("26_more_spikes", paper="B", root=project))
    write(plan("36_beyond_it", root=project))
    assert tree(project / "rclib/study") == before
    assert not (project / "rclib/experiments/spikes/__init__.py").read_text()  # was there
    assert 'paper="B"' in (project / "notebooks/26_more_spikes.ipynb").read_text().replace("\\", "")
    beyond = (project / "notebooks/36_beyond_it.ipynb").read_text().replace("\\", "")
    assert 'paper="beyond"' in beyond


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "NAME must be two digits"),
        ("46", "NAME must be two digits"),
        ("46_", "NAME must be two digits"),
        ("4_slug", "NAME must be two digits"),
        ("466_slug", "NAME must be two digits"),
        ("46_Slug", "NAME must be two digits"),
        ("46-slug", "NAME must be two digits"),
        ("46_slug\n", "NAME must be two digits"),
        ("46_slug.ipynb", "NAME must be two digits"),
        ("46_../x", "NAME must be two digits"),
        ("46_a b", "NAME must be two digits"),
        ("46_$(touch x)", "NAME must be two digits"),
        ("٤٦_slug", "NAME must be two digits"),
        ("46_" + "a" * 38, "NAME must be two digits"),
        ("46_3d", "cannot be '3d'"),
        ("46_lambda", "cannot be 'lambda'"),
        ("46__hidden", "cannot be '_hidden'"),
        ("06_slug", "no series 0"),
        ("11_slug", "number 11 is taken"),
        ("46_figure_4_1_heat_maps", "slug 'figure_4_1_heat_maps' is taken"),
        ("46_gpt", "the name 'gpt' is taken: rclib/nets/gpt.py"),
        ("46_nets", "the name 'nets' is taken: rclib/nets"),
    ],
)
def test_names_that_are_refused(project: Path, name: str, said: str) -> None:
    with pytest.raises(ScaffoldError, match=r"^.+$") as caught:
        plan(name, root=project)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "paper", ["arxiv", "arxiv-1", "../a", "arxiv-1803.03635\n", "nature-20-x", "x y", "C"]
)
def test_papers_that_are_refused(project: Path, paper: str) -> None:
    with pytest.raises(ScaffoldError, match="PAPER must be the id of a known paper"):
        plan("46_slug", paper=paper, root=project)


@pytest.mark.parametrize("title", ['say "x"', "a\nb", "a\\b", "`x`", "x" * 61, "\x1b[0m", " . "])
def test_titles_that_are_refused(project: Path, title: str) -> None:
    with pytest.raises(ScaffoldError, match="TITLE must be one line"):
        plan("46_slug", title=title, root=project)


def test_a_series_file_that_cannot_be_changed_is_said(project: Path) -> None:
    path = project / SERIES
    text = path.read_text()
    path.write_text(text.replace("  papers: []\n", "  papers: # none\n    []\n"))
    with pytest.raises(ScaffoldError, match=r"no line `papers: \[...\]` for series 4"):
        plan("46_slug", paper="arxiv-1803.03635", root=project)
    path.write_text("- digit: [")
    with pytest.raises(ScaffoldError, match="is not valid"):
        plan("46_slug", root=project)
    path.unlink()
    with pytest.raises(ScaffoldError, match="run this in a checkout"):
        plan("46_slug", root=project)


@pytest.mark.parametrize("place", range(8))
def test_all_or_nothing(project: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """Whichever file cannot be written, the tree is as it was."""
    before = tree(project)
    made = plan("46_ticket", paper="arxiv-1803.03635", root=project)
    files = [*made.new, *made.changed]
    if place < len(made.new):  # somebody else writes it in the meantime
        path = project / files[place]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
        before = tree(project)
        with pytest.raises(ScaffoldError, match="is there already"):
            write(made)
    else:

        def fails(path: Path, payload: bytes) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(scaffold, "write_atomically", fails)
        with pytest.raises(OSError, match="No space left"):
            write(made)
    assert tree(project) == before


def test_command(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project / "notebooks")
    monkeypatch.setenv("RCLIB_NEW_NAME", "46_ticket")
    monkeypatch.setenv("RCLIB_NEW_TITLE", "Ticket")
    monkeypatch.delenv("RCLIB_NEW_PAPER", raising=False)
    assert scaffold.main([]) == 0
    out = capsys.readouterr().out
    assert "new      notebooks/46_ticket.ipynb" in out
    assert ".venv/bin/python -m rclib.execution.runner run 46_ticket" in out
    assert scaffold.main(["46_ticket"]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: number 46 is taken: notebooks/46_ticket.ipynb")


def test_notebook_has_its_cells_in_order_and_within_the_limits(project: Path) -> None:
    write(plan("46_ticket", root=project))
    text = (project / "notebooks/46_ticket.ipynb").read_text()
    cells = nbformat.reads(text, as_version=4).cells
    nbformat.validate(nbformat.reads(text, as_version=4))
    assert nbformat.writes(first_cell.with_first_cell(nbformat.reads(text, as_version=4))) == (
        text.rstrip("\n")
    )
    assert [c.metadata.get("tags", [c.cell_type])[0] for c in cells] == [
        "markdown", "install", "parameters", "code", "markdown", "code", "markdown", "code",
        "markdown", "code", "keep_output", "markdown", "code", "code", "markdown",
    ]  # fmt: skip
    headings = [c.source.split("\n")[0] for c in cells if c.source.startswith("#")]
    assert [line for line in headings if not line.startswith("# Installs")] == [
        "# Ticket", "## Claims, written before anything is computed", "## Compute", "## Check",
        "# NBVAL_CHECK_OUTPUT", "## Draw", "## What it means",
    ]  # fmt: skip
    code = [c.source.splitlines() for c in cells if c.cell_type == "code"]
    assert len(code) <= 14
    assert sum(map(len, code)) <= 130
    assert max(map(len, code)) <= 25
    assert len(cells[0].source.splitlines()) <= 12


def test_nothing_committed_is_still_the_example() -> None:
    """What `make new` writes runs, so it must not stay by oversight."""
    places = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("rclib/study/papers/*.yaml")]
    left = [path.name for path in places if MARK in path.read_text(encoding="utf-8")]
    assert left == [], f"{MARK!r} still stands in them"


# --- in a copy of the whole project


def run(root: Path, *command: str) -> str:
    """What a command prints in the copy, which must not fail."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("RCLIB_", "MAKE", "MF"))}
    done = subprocess.run(
        command,
        cwd=root,
        env=outside | {"PYTHONPATH": str(root), "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_new_gives_what_lint_types_tests_and_the_runner_accept(tmp_path: Path) -> None:
    root = tmp_path / "project"
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("rclib", "notebooks"):
        shutil.copytree(ROOT / part, root / part, ignore=ignored)
    for part in ("pyproject.toml", "Makefile", "README.md"):
        shutil.copyfile(ROOT / part, root / part)
    shutil.copytree(ROOT / "tests/support", root / "tests/support", ignore=ignored)
    (root / "tests/experiments").mkdir()
    contracts = "tests/experiments/test_contracts.py"
    shutil.copyfile(ROOT / contracts, root / contracts)
    taken = {path.name[:2] for path in (root / "notebooks").glob("[0-9]*.ipynb")}
    number = next(str(n) for n in range(49, 99) if str(n) not in taken)
    name = f"{number}_{SLUG}"
    theme = {one.digit: one.theme for one in papers.load_papers().series}[int(number[0])]
    python = sys.executable
    make = ("make", "-o", ".venv/.installed", f"PY={python}")
    words = (f"NAME={name}", "PAPER=arxiv-1234.56789", f"TITLE={TITLE}")
    printed = run(root, *make, "new", *words)
    assert f"notebooks/{name}.ipynb" in printed
    assert not list(root.rglob("x"))
    module = Path("rclib/experiments") / theme / f"{SLUG}.py"
    test = Path("tests/experiments") / theme / f"test_{SLUG}.py"
    run(root, python, "-m", "ruff", "check", "--no-cache", "rclib", "tests", "notebooks")
    run(root, python, "-m", "ruff", "format", "--no-cache", "--check", "rclib", "tests")
    # The cache of the checkout: the copy's other modules are the same.
    cache = f"--cache-dir={ROOT / '.mypy_cache'}"
    run(root, python, "-m", "mypy", cache, str(module))
    # What every experiment and notebook owes holds for this one without a word in those tests.
    of_it = run(
        root, python, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(test), contracts,
        "-k", SLUG,
    )  # fmt: skip
    passed = [line for line in of_it.splitlines() if " PASSED " in line]
    assert [sum(file in line for line in passed) for file in (str(test), contracts)] == [4, 5]
    assert "2 of 2 claims reproduced" in run(
        root, python, "-m", "rclib.execution.runner", "run", name
    )
    run(root, python, "-m", "rclib.execution.runner", "check", "--profile", "paper")
    code = (
        "from rclib.study.papers import load_papers\n"
        "print({p.id: p.title for p in load_papers().papers}['arxiv-1234.56789'])"
    )
    assert run(root, python, "-c", code).rstrip("\n") == TITLE


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_runs_nothing_that_a_name_says(tmp_path: Path) -> None:
    """Neither make nor the shell reads the text."""
    for text in (
        "46_$(shell touch x)",
        "46_`touch x`",
        "46_$(touch x)",
        "46_';touch x;'",
        "46_\ny",
    ):
        for variable in ("NAME", "TITLE", "PAPER"):
            done = subprocess.run(
                ["make", "-f", str(ROOT / "Makefile"), "-o", ".venv/.installed", f"PY={PROBE}",
                 "new", f"{variable}={text}"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert f"RCLIB_NEW_{variable}={text}" in done.stdout
            assert not list(tmp_path.iterdir())


PROBE = "env | grep -A1 RCLIB_NEW_; :"


def test_runner_knows_the_default_parameters(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(plan("46_ticket", root=project))
    monkeypatch.chdir(project)
    assert runner.default_parameters("46_ticket")["seeds"] == [0, 1, 2, 3, 4]
    runner.check_parameters("46_ticket", runner.profile_parameters("46_ticket", "paper"))
