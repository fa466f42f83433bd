"""rclib.study.origins: words that are refused where they cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from rclib.study.origins import ORIGINS, check_origins
from rclib.study.papers import Paper, Papers, _paper

REASONS = {"11_x": {"a": "Because.", "empty": ""}}
FILE = """
id: A
title: T
short: S
authors: W
year: 2024
source: arXiv 1
items: []
reasons:
  11_x:
    a: Because.
origin:
  11_x:
    a: {word}
"""


def made(origin: dict[str, Any]) -> Paper:
    return Paper("A", "T", "S", "W", 2024, "arXiv 1", (), reasons=REASONS, origin=origin)


@pytest.mark.parametrize("word", ORIGINS)
def test_every_word_stands_beside_a_reason(word: str) -> None:
    check_origins({"11_x": {"a": word}}, REASONS)
    papers = Papers((made({}), made({"11_x": {"a": word}})))
    assert papers.origin("11_x", "a") == word
    assert (papers.origin("11_x", "b"), papers.origin("12_y", "a")) == ("", "")


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ({"11_x": {"a": "theirs"}}, "origin of 'a' in 11_x is 'theirs', none of paper, scale, "),
        ({"11_x": {"a": ""}}, "origin of 'a' in 11_x is ''"),
        ({"11_x": {"b": "scale"}}, "origin of 'b' in 11_x stands without a reason"),
        ({"11_x": {"empty": "scale"}}, "origin of 'empty' in 11_x stands without a reason"),
        ({"12_y": {"a": "scale"}}, "origin of 'a' in 12_y stands without a reason"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(origin: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(origin)


def test_a_file_is_named_with_its_error() -> None:
    assert _paper("a.yaml", FILE.format(word="data")).origin == {"11_x": {"a": "data"}}
    with pytest.raises(ValueError, match=r"papers/a\.yaml is not valid: origin of 'a' in 11_x"):
        _paper("a.yaml", FILE.format(word="theirs"))
    with pytest.raises(ValueError, match=r"papers/a\.yaml is not valid"):
        _paper("a.yaml", FILE.replace("{word}", "[scale]"))
