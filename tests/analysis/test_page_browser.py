"""The report page in a real browser, with the network cut, as the site is (tests/site)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from site_browser import DESKTOP, PHONE, accessible

import rclib

pytestmark = pytest.mark.slow
_SPEC = importlib.util.spec_from_file_location(
    "site_fixtures", Path(__file__).parents[1] / "site" / "conftest.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)
browser, visit = _FIXTURES.browser, _FIXTURES.visit


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def model(moved: float = 0.0) -> dict[str, torch.Tensor]:
    stream = noise(64, seed=50)
    state = {"wte.weight": noise(120, 64)}
    for b in range(3):
        state |= {
            f"h.{b}.mlp.c_fc.weight": noise(64, 96, seed=b) + moved * stream[:, None],
            f"h.{b}.mlp.c_proj.weight": noise(96, 64, seed=20 + b) + moved * stream,
        }
    state["h.1.<b onclick=alert(1)>odd</b>.weight"] = noise(40, 64, seed=7)
    return state


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rclib.analyze(model(0.4)).report(tmp_path_factory.mktemp("one") / "report.html")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = rclib.analyze(model(0.4), against=model())
    return found.report(tmp_path_factory.mktemp("two") / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_error_no_request_no_overflow_and_level_aa(
    one: Path, two: Path, visit: Any, viewport: dict[str, int], scheme: str
) -> None:
    visitor = visit(viewport, scheme)  # complains of what the policy refuses, too
    for path in (one, two):
        page = visitor.open(path)
        page.get_by_role("button", name="Open all blocks").click()
        assert visitor.overflow() <= 0
        accessible(page, path)
        broken = page.evaluate(
            "Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode()"
            ".then(() => null, () => i.src); })).then(found => found.filter(Boolean).length)"
        )
        assert broken == 0
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        bright = sum(map(int, ground.strip("rgb()").split(", "))) > 384
        assert bright == (scheme == "light")


def test_the_policy_stops_what_is_not_its_own(one: Path, browser: Any) -> None:
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.goto(one.as_uri())
    page.evaluate(
        "() => { window.ran = false; window.stopped = [];"
        "document.addEventListener('securitypolicyviolation',"
        " e => window.stopped.push(e.effectiveDirective));"
        "const s = document.createElement('script'); s.textContent = 'window.ran = true';"
        "document.body.append(s);"
        "const b = document.createElement('b'); b.setAttribute('onclick', 'window.ran = true');"
        "document.body.append(b); b.click(); }"
    )
    page.wait_for_function("window.stopped.length >= 2")
    assert page.evaluate("window.ran") is False
    assert {p.partition("-")[0] for p in page.evaluate("window.stopped")} == {"script"}
    context.close()


def column(page: Any, table: str, name: str) -> list[str]:
    heads = [h.inner_text().strip(" ▲▼") for h in page.locator(f"{table} th").all()]
    place = heads.index(name) + 1
    cells = page.locator(f"{table} tbody tr:visible td:nth-child({place})")
    return [str(c.get_attribute("data-sort")) for c in cells.all()]


def test_the_table_sorts_and_filters(two: Path, visit: Any) -> None:
    page = visit().open(two)
    total = len(column(page, "#all", "layer"))
    assert total == 24
    button = page.locator("#all th", has_text="tail ratio").get_by_role("button")
    button.click()
    values = [float(v) for v in column(page, "#all", "tail ratio") if v]
    assert values == sorted(values)
    button.click()
    found = column(page, "#all", "tail ratio")
    values = [float(v) for v in found if v]
    assert values == sorted(values, reverse=True)
    assert found[len(values) :] == [""] * (total - len(values))  # missing ones last
    page.locator("#all th", has_text="layer").get_by_role("button").click()
    names = column(page, "#all", "layer")
    assert names == sorted(names)
    page.get_by_role("searchbox").fill("CHANGE c_fc")
    assert set(column(page, "#all", "of")) == {"change"}
    assert page.get_by_role("status").inner_text() == f"3 of {total} rows"


def test_a_name_opens_its_block_and_colours_change(one: Path, visit: Any) -> None:
    page = visit().open(one)
    card = page.locator("article.card", has_text="h.2.mlp.c_fc.weight")
    assert not card.is_visible()
    page.locator("#all a", has_text="h.2.mlp.c_fc.weight").click()
    card.wait_for(state="visible")
    page.wait_for_function("document.querySelector('article:target').getBoundingClientRect().y<900")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Colours").click()
    page.get_by_role("button", name="Colours").click()
    assert page.get_by_role("button", name="Colours").inner_text() == "Colours: dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert page.locator("#all a", has_text="onclick=alert(1)").count() == 1


def test_everything_can_be_read_without_the_script(one: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False, viewport=DESKTOP)
    page = context.new_page()
    page.goto(one.as_uri())
    assert page.locator("#all tbody tr").count() == 8
    assert page.locator("article.card").first.is_visible()
    assert not page.get_by_role("searchbox").is_visible()
    context.close()
