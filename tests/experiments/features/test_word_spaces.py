"""features.word_spaces: counts, information and vectors of small texts, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rclib.data.text import TextData
from rclib.experiments.features import word_spaces


def text_of(words: str) -> TextData:
    tokens = torch.tensor(list(words.encode()), dtype=torch.uint8)
    return TextData("own", "own", tokens, len(tokens) - 1, "0" * 64)


def test_words_are_listed_by_how_often_they_stand() -> None:
    text = b"Beta alpha-beta, gamma beta alpha it x"
    assert word_spaces.tokens(text, words=2, letters=4).tolist() == [0, 1, 0, 0, 1]
    assert word_spaces.tokens(text, words=4, letters=2).tolist() == [0, 1, 0, 2, 0, 1, 3]
    with pytest.raises(ValueError, match="words must be at most the 3 of the text, got 4"):
        word_spaces.tokens(text, words=4, letters=4)


def test_pairs_are_counted_both_ways() -> None:
    listed = np.array([0, 1, 0, 2, 1])
    by_hand = np.zeros((3, 3), dtype=int)
    for i in range(5):
        for j in range(5):
            if i != j and abs(i - j) <= 2:
                by_hand[listed[i], listed[j]] += 1
    assert word_spaces.counts(listed, words=3, window=2).tolist() == by_hand.tolist()


def test_independent_words_have_no_information() -> None:
    n = np.outer([2, 3, 5], [2, 3, 5])
    assert np.abs(word_spaces.positive_information(n)).max() < 1e-12
    found = word_spaces.positive_information(np.array([[0, 4], [4, 0]]))
    assert found == pytest.approx(np.array([[0, np.log(2)], [np.log(2), 0]]))


def test_vectors_are_the_largest_axes_of_the_table() -> None:
    random = np.random.RandomState(0)
    names = ["".join(random.choice(list("abcdefgh"), 5)) for _ in range(40)]
    text = text_of(" ".join(random.choice(names, 4000)))
    options = {"half": 1, "window": 3, "words": 30, "letters": 5}
    few = word_spaces.embedding(text, latent=4, **options)  # by Lanczos
    many = word_spaces.embedding(text, latent=20, **options)  # dense
    assert few.shape == (30, 4)
    assert np.allclose(few, many[:, :4], atol=1e-4)
    listed = word_spaces.tokens(text.tokens.numpy().tobytes(), words=30, letters=5)
    half = np.array_split(listed, 2)[1]
    table = word_spaces.positive_information(word_spaces.counts(half, words=30, window=3))
    assert (few**2).sum(0) == pytest.approx(np.linalg.svd(table)[1][:4], rel=1e-4)
    assert (few[np.abs(few).argmax(0), range(4)] > 0).all()
