"""rclib.study.papers: which committed results stand for a notebook."""

from __future__ import annotations

from typing import Any

import pytest

from rclib.study import papers


def claim(key: str, value: float | None) -> dict[str, Any]:
    return {"key": key, "value": value, "statement": f"{key} holds"}


def test_a_claim_that_only_a_smaller_scale_makes_comes_along_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = {
        "laptop": [
            {"notebook": "n", "claims": [claim("a", 1.0), claim("b", 2.0), claim("only", 3.0)]},
            {"notebook": "small", "claims": [claim("c", 4.0)]},
        ],
        "paper": [{"notebook": "n", "claims": [claim("a", 5.0), claim("b", None)]}],
    }
    monkeypatch.setattr(papers, "load_results", lambda profile: both[profile])
    runs = papers.committed_runs()
    found = {c["key"]: c for c in runs["n"].record["claims"]}
    assert (runs["n"].profile, list(found)) == ("paper", ["a", "b", "only"])
    assert [found[key]["value"] for key in found] == [5.0, None, 3.0]
    assert found["only"]["statement"] == "only holds (laptop profile)"
    assert found["a"]["statement"] == "a holds"
    assert runs["n"].smaller["b"] == ("laptop", claim("b", 2.0))
    assert (runs["small"].profile, len(runs["small"].record["claims"])) == ("laptop", 1)
    assert len(both["paper"][0]["claims"]) == 2  # what was read stays as it was
