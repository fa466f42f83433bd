"""Vectors of words from a text: positive pointwise mutual information, cut to its largest axes.

With n_ij the number of times that words i and j stand at most `window` words apart,

    PPMI_ij = max(0, log(n_ij Σn / (n_i n_j))),   vectors = U_d √S_d of its singular values,

which word2vec with negative samples approximates (Levy and Goldberg, NIPS 2014). Words are runs of
letters a to z, in lower case; shorter ones than `letters` and rare ones are left out before
distances are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from rclib.checks.arguments import count
from rclib.data.text import TextData

__all__ = ["counts", "embedding", "positive_information", "tokens"]


def tokens(text: bytes, *, words: int, letters: int) -> NDArray[np.int64]:
    """The text's places in the list of its `words` commonest words, those left out omitted.

    Of equally common words the one that stands first in the alphabet is listed first. Raises
    ValueError if the text has fewer words.
    """
    pattern, lower = re.compile(rb"[a-z]{%d,}" % count("letters", letters)), text.lower()
    often = Counter(found.group() for found in pattern.finditer(lower))
    if count("words", words) > len(often):
        raise ValueError(f"words must be at most the {len(often)} of the text, got {words}")
    listed = sorted(often, key=lambda word: (-often[word], word))[:words]
    place = {word: number for number, word in enumerate(listed)}
    all_of_it = (place.get(found.group(), -1) for found in pattern.finditer(lower))
    places = np.fromiter(all_of_it, dtype=np.int64, count=often.total())
    kept: NDArray[np.int64] = places[places >= 0]
    return kept


def counts(listed: NDArray[np.int64], *, words: int, window: int) -> NDArray[np.int64]:
    """n (words, words): pairs of places at most `window` apart, symmetric."""
    total = np.zeros(words * words, dtype=np.int64)
    for apart in range(1, count("window", window) + 1):
        pairs = listed[:-apart] * words + listed[apart:]
        total += np.bincount(pairs, minlength=words * words)
    square = total.reshape(words, words)
    return square + square.T


def positive_information(n: NDArray[Any]) -> NDArray[np.float64]:
    """PPMI of a table of counts; 0 where there are none."""
    own, total = n.sum(1, dtype=np.float64), float(n.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(n * total / np.outer(own, own))
    found: NDArray[np.float64] = np.where(n > 0, np.maximum(information, 0.0), 0.0)
    return found


def embedding(
    data: TextData, *, half: int, window: int, words: int, latent: int, letters: int
) -> NDArray[np.float32]:
    """Vectors (words, latent) of the text's commonest words, the commonest first.

    half : 0 or 1, the part of the text in which pairs are counted; the words are those of the
    whole. Signs of axes are those that make each axis' largest entry positive.
    """
    listed = tokens(data.tokens.numpy().tobytes(), words=words, letters=letters)
    own = np.array_split(listed, 2)[half]
    table = positive_information(counts(own, words=words, window=window))
    if 4 * latent < words:
        start = np.random.RandomState(0).uniform(-1, 1, words)
        left, values, _ = svds(csr_array(table), k=latent, v0=start)
        order = np.argsort(-values)
        left, values = left[:, order], values[order]
    else:
        left, values, _ = np.linalg.svd(table)
        left, values = left[:, :latent], values[:latent]
    top = left[np.abs(left).argmax(0), np.arange(latent)]
    found: NDArray[np.float32] = (left * np.sign(top) * np.sqrt(values)).astype(np.float32)
    return found
