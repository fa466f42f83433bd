"""rclib.reports.architecture: the page and the picture of the layers, drawn from the code."""

from __future__ import annotations

import functools
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rclib.reports import architecture
from rclib.reports.architecture import layers, summaries, upward, without_detours
from rclib.reports.drawing import draw_layers

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
imports = functools.cache(architecture.imports)  # each time all modules are parsed


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture, "imports", imports)


@pytest.mark.usefixtures("read_once")
def test_committed_page_and_picture_are_current() -> None:
    how = "run `python -m rclib.reports.architecture`"
    for suffix, text in (("svg", architecture.picture(ROOT)), ("md", architecture.page(ROOT))):
        path = ROOT / "docs" / f"how_the_pieces_fit.{suffix}"
        assert path.read_text(encoding="utf-8") == text, how


def test_contract_names_every_package_and_every_import_goes_down() -> None:
    rows = layers(ROOT / "pyproject.toml")
    edges = imports(ROOT / "rclib")
    assert sorted(name for row in rows for name in row) == sorted(edges)
    assert upward(rows, edges) == []
    assert upward([["checks"], ["nets"]], {"checks": [], "nets": ["checks"]}) == [
        ("nets", "checks")
    ]


def test_every_package_says_in_one_line_what_it_holds() -> None:
    for name, line in summaries(ROOT / "rclib").items():
        if not name.startswith("__"):
            assert line.endswith("."), name


@pytest.mark.usefixtures("read_once")
def test_picture_holds_every_package_and_the_imports_that_follow_from_no_other() -> None:
    tree = ElementTree.fromstring(architecture.picture(ROOT))
    edges = imports(ROOT / "rclib")
    boxes = [text.text for text in tree.iter(f"{SVG}text")]
    assert sorted(map(str, boxes)) == sorted(edges)
    lines = [p for p in tree.iter(f"{SVG}path") if p.get("class") == "line"]
    kept = without_detours(edges)
    assert len(lines) == sum(map(len, kept.values()))
    assert reached(kept) == reached(edges)


def reached(edges: dict[str, list[str]]) -> set[tuple[str, str]]:
    found = {(a, b) for a, below in edges.items() for b in below}
    while True:
        more = {(a, d) for a, b in found for c, d in found if b == c} - found
        if not more:
            return found
        found |= more


def test_boxes_and_passing_lines_of_a_row_do_not_touch() -> None:
    text = draw_layers(
        [["top", "peak"], ["a", "middle", "b"], ["ground", "floor"]],
        {"top": ["floor", "a"], "peak": ["ground", "middle"], "b": ["floor"]},
        {"a": "<&>"},
        title="t & t",
    )
    tree = ElementTree.fromstring(text)
    rows: dict[str, list[tuple[float, float]]] = {}
    for box in tree.iter(f"{SVG}rect"):
        if box.get("class") == "box":
            x, width = float(str(box.get("x"))), float(str(box.get("width")))
            rows.setdefault(str(box.get("y")), []).append((x, x + width))
    for path in tree.iter(f"{SVG}path"):
        passed = re.findall(r"([\d.]+) (\d+)V", str(path.get("d")))
        for x, y in passed:
            rows[y].append((float(x), float(x)))
    assert sorted(map(len, rows.values())) == [2, 2, 5]
    for places in rows.values():
        for (_, end), (begin, _) in pairwise(sorted(places)):
            assert begin - end > 10
    assert "&lt;&amp;&gt;" in text


def test_imports_that_go_round_are_an_error() -> None:
    with pytest.raises(RecursionError):
        without_detours({"a": ["b"], "b": ["a"]})


def test_command_writes_what_is_not_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert architecture.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the picture")
    assert error.count("\n") == 1
    package = tmp_path / "rclib"
    for name, text in (("low", ""), ("high", "import rclib.low.x\nfrom rclib import low\n")):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text(f'"""The {name} one."""\n{text}')
    (tmp_path / "pyproject.toml").write_text(
        "[[tool.importlinter.contracts]]\nid = 'layers'\nlayers = ['high', 'low']\n"
    )
    assert architecture.main() == 0
    assert capsys.readouterr().out.count("updated") == 2
    assert architecture.main() == 0
    assert capsys.readouterr().out.count("is current") == 2
    page = (tmp_path / "docs" / "how_the_pieces_fit.md").read_text(encoding="utf-8")
    assert "| [`high`](../rclib/high) | The high one. | `low` |" in page
