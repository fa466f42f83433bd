"""Language models of notebook 92 over the bytes that occur in a text: n-grams and a small GPT, and
any model that gives logits, asked for its laws after every prefix of a list of words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from rclib.data.text import TextData
from rclib.nets.gpt import GPT, build_gpt
from rclib.training.lm_loop import train_lm
from rclib.training.lm_recipe import Recipe

__all__ = [
    "LOWER",
    "Alphabet",
    "Letters",
    "NGram",
    "alphabet_of",
    "frequent_words",
    "prompts",
    "relettered",
    "sequence_laws",
    "trained_gpt",
]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Logits = Callable[[Tensor], Tensor]
Letters = tuple[int, int]  # first and last byte of those that words are made of
LOWER: Letters = (97, 122)


@dataclass(frozen=True, eq=False)
class Alphabet:
    """values (V,) : the bytes that occur in a text, in order; tokens are their places."""

    values: Ints

    def tokens(self, raw: Any) -> Ints:
        """Places of bytes. Raises ValueError for one that does not occur in the text."""
        raw = np.asarray(raw, dtype=np.int64)
        found = np.searchsorted(self.values, raw).clip(max=len(self.values) - 1)
        if not np.array_equal(self.values[found], raw):
            raise ValueError("raw must hold bytes of the alphabet alone")
        return np.asarray(found)

    def of(self, raw: bytes) -> Ints:
        """Tokens of bytes. Raises ValueError for one that does not occur in the text."""
        return self.tokens(np.frombuffer(raw, dtype=np.uint8))

    def between_words(self, letters: Letters = LOWER) -> np.ndarray:
        """(V,) bool: bytes that end a word of these letters."""
        return np.array([v not in _in_words(letters) for v in self.values.tolist()])


def alphabet_of(text: TextData) -> Alphabet:
    """Of both parts of a text."""
    return Alphabet(np.unique(text.tokens.numpy()).astype(np.int64))


class NGram:
    """Interpolated n-gram of the given order, smoothed as Witten and Bell do:

    p_k(y | c) = (count(c y) + types(c) p_{k-1}(y | c')) / (count(c) + types(c)),

    with c the last k - 1 tokens, c' one token less, types(c) the number of different tokens after
    c, and p_0 uniform; a context that never occurred leaves p_{k-1}. Source: Chen and Goodman, "An
    empirical study of smoothing techniques for language modeling" (1999).
    """

    def __init__(self, tokens: Ints, order: int, V: int) -> None:
        if not 1 <= order <= 8 or V**order > 2**62:
            raise ValueError(f"order must lie in 1 ... 8 for V = {V}, got {order}")
        self.order, self.V = order, V
        self.tables: list[tuple[Ints, sparse.csr_array]] = []
        code = np.zeros(len(tokens), dtype=np.int64)  # of the k - 1 tokens before each place
        for k in range(order):
            if k:
                code[k:] += tokens[:-k] * V ** (k - 1)
            contexts, rows = np.unique(code[k:], return_inverse=True)
            ones = np.ones(len(rows))
            counts = sparse.csr_array((ones, (rows, tokens[k:])), shape=(len(contexts), V))
            counts.sum_duplicates()
            self.tables.append((contexts, counts))

    def laws(self, contexts: Ints) -> Floats:
        """(n, V) : next-token laws after contexts (n, c), of which the last order - 1 tokens
        count. Raises ValueError for shorter contexts."""
        n, length = contexts.shape
        if length < self.order - 1:
            raise ValueError(f"contexts must have {self.order - 1} tokens, got {length}")
        found = np.full((n, self.V), 1 / self.V)
        code = np.zeros(n, dtype=np.int64)
        for k, (known, counts) in enumerate(self.tables):
            if k:
                code += contexts[:, length - k] * self.V ** (k - 1)
            at = np.searchsorted(known, code).clip(max=len(known) - 1)
            here = np.flatnonzero(known[at] == code)
            own = counts[at[here]].toarray()
            types = (own > 0).sum(1, keepdims=True)
            found[here] = (own + types * found[here]) / (own.sum(1, keepdims=True) + types)
        return found


def trained_gpt(
    text: TextData, *, seed: int, network: Mapping[str, Any], recipe: Mapping[str, Any]
) -> GPT:
    """A GPT under SP on a text's bytes; network, recipe : of `GPT` and `Recipe`, without seeds."""
    model = build_gpt({"parametrization": "SP", **network, "seed": seed})
    train_lm(model, text, Recipe(**{**recipe, "seed": seed}), progress=False)
    return model.eval()


def sequence_laws(
    logits: Logits, prompt: Ints, words: Sequence[Ints], places: Sequence[tuple[int, int]],
    kept: Ints | None = None, *, batch: int = 64,
) -> Floats:  # fmt: skip
    """(Q, V) : laws of the token after the prompt and each prefix of `trie`'s places.

    logits : tokens (n, L) -> (n, L, V'), of a causal model. kept : those of the V' tokens that
    there are; the others' mass is dropped. Longer words are batched with shorter ones, which are
    filled up behind, where a causal model does not see it.
    """
    used = sorted({w for w, _ in places})
    row = {w: n for n, w in enumerate(used)}
    longest = max(len(words[w]) for w in used)
    sequences = np.zeros((len(used), len(prompt) + longest), dtype=np.int64)
    sequences[:, : len(prompt)] = prompt
    for w in used:
        sequences[row[w], len(prompt) : len(prompt) + len(words[w])] = words[w]
    wanted: dict[int, list[tuple[int, int]]] = {}
    for q, (w, n) in enumerate(places):
        wanted.setdefault(row[w] // batch, []).append((q, n))
    V = 0 if kept is None else len(kept)
    found = np.zeros((len(places), V))
    with torch.inference_mode():
        for part, asked in wanted.items():
            values = logits(torch.from_numpy(sequences[part * batch : (part + 1) * batch]))
            at = [row[places[q][0]] - part * batch for q, _ in asked]
            own = values[at, [len(prompt) - 1 + n for _, n in asked]].double()
            own = own if kept is None else own[:, torch.from_numpy(kept)]
            laws = torch.softmax(own, -1).numpy()
            if found.shape[1] != laws.shape[1]:
                found = np.zeros((len(places), laws.shape[1]))
            found[[q for q, _ in asked]] = laws
    return found


def _in_words(letters: Letters) -> frozenset[int]:
    """Bytes that are no end of a word: these letters, and all that other words are made of."""
    others = [v for v in range(256) if v > 127 or chr(v).isalnum() or chr(v) in "'_"]
    return frozenset([*others, *range(letters[0], letters[1] + 1)])


def frequent_words(
    text: TextData, count: int, *, least: int = 3, letters: Letters = LOWER
) -> list[bytes]:
    """The most frequent words of these letters (first and last byte of a range) alone, of at least
    so many, in the training part; words of one frequency in their bytes' order."""
    inside = _in_words(letters)
    gap = next(v for v in range(32, 256) if v not in inside)
    table = bytes(v if v in inside else gap for v in range(256))
    own = bytes(range(letters[0], letters[1] + 1))
    counts: dict[bytes, int] = {}
    for word in bytes(text.train.numpy()).translate(table).split(bytes([gap])):
        if len(word) >= least and not word.translate(None, own):
            counts[word] = counts.get(word, 0) + 1
    return sorted(counts, key=lambda word: (-counts[word], word))[:count]


def relettered(words: Sequence[bytes], random: np.random.Generator) -> list[bytes]:
    """The same words with one random exchange of letters: as long, as many, as alike, and none of
    the language. Letters that do not occur stay out of it."""
    letters = sorted(set(b"".join(words)))
    table = bytearray(range(256))
    for letter, k in zip(letters, random.permutation(len(letters)), strict=True):
        table[letter] = letters[k]
    return [word.translate(bytes(table)) for word in words]


def prompts(
    text: TextData, count: int, length: int, random: np.random.Generator, *,
    letters: Letters = LOWER,
) -> Ints:  # fmt: skip
    """(count, length) bytes of the validation part, each ending with the space before one of the
    letters. Raises ValueError for a text with fewer such places."""
    raw = text.validation.numpy()
    letter = (raw >= letters[0]) & (raw <= letters[1])
    starts = np.flatnonzero((raw[:-1] == 32) & letter[1:]) + 1
    starts = starts[starts >= length]
    if len(starts) < count:
        raise ValueError(f"text must have {count} words to go on with, got {len(starts)}")
    chosen = random.choice(starts, size=count, replace=False)
    return np.asarray(raw[chosen[:, None] - np.arange(length, 0, -1)], dtype=np.int64)
