"""data.two_texts: one text whose training part is the first of two."""

from __future__ import annotations

import torch

from rclib.data.text import TextData
from rclib.data.two_texts import two_texts


def test_two_texts_are_one_with_the_first_for_training() -> None:
    words = TextData("words", "words", torch.arange(3000).remainder(91).byte(), 2000, "0" * 64)
    both = two_texts(words, words, 1000)
    assert (both.n_train, len(both.tokens)) == (1000, 2000)
    assert torch.equal(both.train, both.validation)
    assert both.checksum != two_texts(words, words, 1001).checksum
