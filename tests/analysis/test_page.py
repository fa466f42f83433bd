"""rclib.analysis.page: what is on the page, and that nothing gets in or out."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
import torch
from bs4 import BeautifulSoup

import rclib
from rclib.analysis import page as page_of
from rclib.inspection.vocabulary import heading

EVIL = "h.0.</script><img src=x onerror=alert(1)>\"'`{{7*7}}&amp;.weight"


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def written(tmp_path: Path, *models: dict[str, torch.Tensor]) -> tuple[str, BeautifulSoup]:
    found = rclib.analyze(*models)
    text = found.report(tmp_path / "report.html").read_text("utf-8")
    return text, BeautifulSoup(text, "html.parser")


def test_nothing_remote_and_a_policy_that_holds(tmp_path: Path) -> None:
    text, soup = written(tmp_path, {"a.weight": noise(30, 20)})
    policy = soup.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (element,) = soup.find_all(tag)
        assert not element.attrs
        digest = base64.b64encode(hashlib.sha256(element.string.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    # The policy comes before anything that it rules.
    assert text.index("Content-Security-Policy") < text.index("<style>")
    for element in soup.find_all(True):
        for name, value in element.attrs.items():
            assert not name.startswith("on")
            assert name != "style"  # the policy forbids it
            if name in ("src", "href"):
                assert value.startswith(("data:", "#")), value
    assert not re.search(r"https?://", text.replace("http-equiv", ""))


def test_names_of_strangers_are_text(tmp_path: Path) -> None:
    _text, soup = written(tmp_path, {EVIL: noise(30, 20), "b\x1b[31m\x00.weight": noise(20, 12)})
    assert len(soup.find_all("script")) == 1
    assert not soup.find_all("img", src="x")
    assert "49" not in soup.select_one("#all").get_text() or "{{7*7}}" in soup.get_text()
    assert EVIL in {a.get_text() for a in soup.select("#all td a")}
    assert "onerror" not in {name for e in soup.find_all(True) for name in e.attrs}
    assert [h.get_text() for h in soup.select("h4")].count(EVIL) == 1


def test_the_table_holds_the_numbers_and_leads_to_the_pictures(tmp_path: Path) -> None:
    model = {f"layers.{b}.fc.weight": noise(40 + b, 30, seed=b) for b in (0, 1, 10, 2)}
    model["head.weight"] = noise(15, 30)
    _text, soup = written(tmp_path, model)
    found = rclib.analyze(model)
    heads = [th.get_text() for th in soup.select("#all thead th")]
    assert heads == [heading(word) for word in page_of.SHOWN]
    rows = soup.select("#all tbody tr")
    assert len(rows) == len(found) == 5
    for row, (_, wanted) in zip(rows, found.iterrows(), strict=True):
        cells = dict(zip(page_of.SHOWN, row.find_all("td"), strict=True))
        assert cells["layer"].get_text() == wanted.layer
        assert float(cells["tail_ratio"]["data-sort"]) == wanted.tail_ratio
        assert cells["alpha_hill"].get_text().startswith(f"{wanted.alpha_hill:.2f} [")
        anchor = cells["layer"].find("a")["href"].removeprefix("#")
        card = soup.find(id=anchor)
        assert card.h4.get_text() == wanted.layer
        assert len(card.select("img")) == 2
        assert len(card.select("svg")) == 3
    titles = [s.h3.get_text() for s in soup.select("details summary")]
    assert titles == ["Block 0", "Block 1", "Block 2", "Block 10", "Outside the blocks"]
    assert found.sentence in soup.get_text()
    for word in page_of.SHOWN:
        assert heading(word) in {dt.get_text() for dt in soup.select("dl dt")}


def test_two_models_side_by_side(tmp_path: Path) -> None:
    before = {f"layers.{b}.fc.weight": noise(40, 30, seed=b) for b in range(2)}
    after = {f"module.{n}": t + 0.2 * noise(40, 1, seed=9) for n, t in before.items()}
    _, soup = written(tmp_path, after, before)
    assert next(th.get_text() for th in soup.select("#all thead th")) == "of"
    for card in soup.select("article.card"):
        assert [p.get_text() for p in card.select(".panel > p.of")] == ["before", "after", "change"]
        assert len(card.select("img")) == 6
    assert len(soup.select("article.card")) == 2
    # A resized model: the two stand side by side, without a change.
    wider = {n: noise(60, 30, seed=3) for n in before}
    _text, soup = written(tmp_path, wider, before)
    for card in soup.select("article.card"):
        assert [p.get_text() for p in card.select(".panel > p.of")] == ["before", "after"]
    assert "no change: " in " ".join(n.get_text() for n in soup.select(".notes"))


def test_correlations_stand_with_chance(tmp_path: Path) -> None:
    stream = noise(24, seed=5)
    model = {}
    for b in range(3):
        model[f"h.{b}.mlp.c_fc.weight"] = noise(24, 36, seed=b) + stream[:, None]
        model[f"h.{b}.mlp.c_proj.weight"] = noise(36, 24, seed=9 + b) + stream
    _, soup = written(tmp_path, model)
    rows = [[td.get_text() for td in tr.find_all("td")] for tr in soup.select("#pairs tbody tr")]
    found = rclib.analyze(model).correlations
    assert len(rows) == len(found) > 3
    for row, (_, wanted) in zip(rows, found.iterrows(), strict=True):
        record = dict(zip(page_of.PAIRS, row, strict=True))
        assert record["correlation"] == f"{wanted.correlation:+.3f}"
        assert record["chance"] == f"{wanted.chance:.3f}"
    titles = [f.figcaption.get_text() for f in soup.select(".small figure")]
    assert {"stream", "mlp.c_fc", "mlp.c_proj"} <= set(titles)


def test_many_matrices_get_smaller_pictures_and_then_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {f"layers.{b}.fc.weight": noise(70, 60, seed=b) for b in range(6)}
    _, large = written(tmp_path, model)
    monkeypatch.setattr(page_of, "BUDGET", 48 * 48 * 12)
    _, small = written(tmp_path, model)
    sizes = [sum(len(i["src"]) for i in s.select("article img")) for s in (large, small)]
    assert sizes[1] < 0.7 * sizes[0]
    monkeypatch.setattr(page_of, "MOST_CARDS", 4)
    _, soup = written(tmp_path, model)
    assert len(soup.select("article.card")) == 4
    assert len(soup.select("#all tbody tr")) == 6
    assert "The first 4 of 6 matrices have pictures" in soup.get_text()


def test_the_same_model_gives_the_same_page(tmp_path: Path) -> None:
    model = {f"layers.{b}.fc.weight": noise(40, 30, seed=b) for b in range(3)}
    first = rclib.analyze(model, workers=1).report(tmp_path / "a.html").read_bytes()
    second = rclib.analyze(model, workers=3).report(tmp_path / "b.html").read_bytes()
    assert first == second
