"""Stored runs of notebook 92 on texts: lines under automata, words of a list after prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rclib.data.text import TextData
from rclib.experiments.language.awrs_machines import (
    Machine,
    brackets,
    chain,
    completion,
    distance,
    ending,
    solve,
    trie,
)
from rclib.experiments.language.awrs_models import (
    LOWER,
    Alphabet,
    NGram,
    alphabet_of,
    frequent_words,
    prompts,
    relettered,
    sequence_laws,
    trained_gpt,
)
from rclib.experiments.language.awrs_runs import sampled
from rclib.runs.store import Arrays
from rclib.stats.rejection import METHODS

__all__ = ["LISTS", "TASKS", "TINY", "line_machine", "line_runs", "word_machines", "word_runs"]

Laws = Callable[[Any, Sequence[Any], Sequence[tuple[int, int]]], Any]
TASKS = ("brackets", "ending", "words")
LISTS = ("natural", "relettered")
PAIRS = ((b"(", b")"), (b"[", b"]"))
TINY: dict[str, dict[str, Any]] = {
    "line_runs": {
        "seed": 0, "task": "words", "steps": 4, "V": 30, "accepted": 10, "sizes": [1, 4],
        "total": 8,
    },
    "word_runs": {
        "seed": 0, "n_words": 4, "n_prompts": 2, "prompt": 8, "n_windows": 2, "sizes": [1, 4],
        "total": 8, "letters": [33, 40],
        "model": {
            "kind": "gpt",
            "network": {"width": 16, "blocks": 1, "context": 32, "head_size": 8},
            "recipe": {"steps": 2, "lr": 0.003, "batch_size": 2},
        },
    },
}  # fmt: skip


@cache
def _ngram(text: TextData, order: int) -> tuple[Alphabet, NGram]:
    alphabet = alphabet_of(text)
    tokens = alphabet.tokens(text.train.numpy())
    return alphabet, NGram(tokens, order, len(alphabet.values))


@cache
def _word_bigram(text: TextData, V: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(V, V) laws of a bigram over the V - 1 most frequent words, all others are one; in the order
    of frequency. A word is what stands between white space."""
    words = bytes(text.train.numpy()).decode("latin-1").replace("\n", " \n ").split(" ")
    counts: dict[str, int] = {}
    for word in words:
        if word:
            counts[word] = counts.get(word, 0) + 1
    order = sorted(counts, key=lambda word: (-counts[word], word))[: V - 1]
    number = {word: n for n, word in enumerate(order)}
    tokens = np.array([number.get(word, V - 1) for word in words if word], dtype=np.int64)
    return NGram(tokens, 2, V).laws(np.arange(V)[:, None])


def line_machine(
    text: TextData, *, seed: int, task: str, steps: int, V: int = 0, accepted: int = 0
) -> Machine:
    """A task on lines of a text under a bigram model of it.

    task : "brackets", each bracket matched within `steps` bytes; "ending", the line ends with a
    word, drawn from the 20 most frequent; "words", over V words as tokens, of which only the
    `accepted` most frequent may stand. Raises ValueError for another task.
    """
    if task == "words":
        laws = _word_bigram(text, V)
        allowed = np.arange(V) < accepted
        return chain(laws[0], laws, np.tile(allowed, (V, 1)), steps, first=allowed)
    alphabet, model = _ngram(text, 2)
    laws = model.laws(np.arange(len(alphabet.values))[:, None])
    newline = int(alphabet.of(b"\n")[0])
    if task == "brackets":
        pairs = [(int(alphabet.of(a)[0]), int(alphabet.of(b)[0])) for a, b in PAIRS]
        return brackets(laws, pairs, newline, steps)
    if task != "ending":
        raise ValueError(f"task must be one of {TASKS}, got {task!r}")
    known = frequent_words(text, 20)
    word = known[int(np.random.default_rng([seed, 97]).integers(len(known)))]
    return ending(laws, alphabet.of(word), newline, steps)


def line_runs(
    data: TextData, *, seed: int, task: str, steps: int, sizes: Sequence[int], total: int,
    V: int = 0, accepted: int = 0,
) -> Arrays:  # fmt: skip
    """Stored run: particles on a task of `line_machine`. Arrays of `sampled` for "two runs" and
    "masking", and closed (methods, 2) : exact mean checks a token along the masked law, in the
    order of METHODS."""
    machine = line_machine(data, seed=seed, task=task, steps=steps, V=V, accepted=accepted)
    found = sampled(machine, seed=seed, sizes=sizes, total=total, arms=[0, 3])
    checks = solve(machine, "masked", METHODS).checks
    return {**found, "closed": np.array([checks[method] for method in METHODS])}


def word_runs(
    data: TextData, *, seed: int, model: Mapping[str, Any], n_words: int, n_prompts: int,
    prompt: int, n_windows: int, sizes: Sequence[int], total: int, letters: Sequence[int] = LOWER,
) -> Arrays:  # fmt: skip
    """Stored run: a model goes on with a word of a list, after prompts of the validation part.

    model : {"kind": "n-gram", "order": k} or {"kind": "gpt", "network": ..., "recipe": ...}, the
    latter trained with this seed. LISTS: the text's most frequent words, and the same with their
    letters exchanged. letters : first and last byte of those that words are made of.
    loss () : nats a byte of the validation part. closed (lists, methods, 2) : exact mean checks a
    token along the masked law. surprise (lists,) : mean -log Z. masked_tv, target_log_p,
    masked_log_p (lists,) : means over prompts. tv, ratio (arms, M), floor () : of `sampled` for
    "two runs" and "masking" on the first list, means over prompts.
    """
    span = int(letters[0]), int(letters[1])
    alphabet = alphabet_of(data)
    laws_after, loss = _model(data, alphabet, model, seed=seed, n_windows=n_windows)
    random = np.random.default_rng([seed, 98])
    words = frequent_words(data, n_words, letters=span)
    contexts = alphabet.tokens(prompts(data, n_prompts, prompt, random, letters=span))
    ends = alphabet.between_words(span)
    found: dict[str, list[Any]] = {
        name: [] for name in ("closed", "surprise", "masked_tv", "target_log_p", "masked_log_p")
    }
    drawn: list[Arrays] = []
    for which in (words, relettered(words, random)):
        rows: dict[str, list[Any]] = {name: [] for name in found}
        spelt = [alphabet.of(word) for word in which]
        for machine in word_machines(laws_after, contexts, spelt, ends):
            target, masked = solve(machine, "target"), solve(machine, "masked", METHODS)
            rows["closed"].append([masked.checks[method] for method in METHODS])
            rows["surprise"].append(masked.surprise)
            rows["masked_tv"].append(distance(masked.marginals, target.marginals).mean())
            rows["target_log_p"].append(target.log_p)
            rows["masked_log_p"].append(masked.log_p)
            if which is words and sizes:
                drawn.append(sampled(machine, seed=seed, sizes=sizes, total=total, arms=[0, 3]))
        for name, values in rows.items():
            found[name].append(np.mean(values, axis=0))
    arrays = {name: np.array(values) for name, values in found.items()}
    if drawn:
        arrays |= {
            name: np.asarray(np.mean([one[name] for one in drawn], axis=0))
            for name in ("tv", "ratio", "floor")
        }
    return {"loss": np.array(loss), **arrays}


def word_machines(
    laws_after: Laws, contexts: Any, words: Sequence[Any], ends: np.ndarray
) -> list[Machine]:
    """One machine a prompt: its completions by one of the words and a token of `ends`.

    laws_after : (context, words, places of `trie`) -> (Q, V). contexts (n, c), words : tokens.
    """
    after, places = trie(words, ends)
    steps = max(map(len, words)) + 1
    return [completion(laws_after(c, words, places), after, steps) for c in contexts]


def _model(
    text: TextData, alphabet: Alphabet, model: Mapping[str, Any], *, seed: int, n_windows: int
) -> tuple[Laws, float]:
    """Laws after a context and each prefix, and the loss on validation windows, of their tokens
    from the ninth on."""
    windows = list(text.validation_batches(n_windows, batch_size=4, context=32))
    if model["kind"] == "n-gram":
        _, gram = _ngram(text, int(model["order"]))
        reach = max(gram.order - 1, 1)

        def counted(context: Any, words: Sequence[Any], places: Sequence[tuple[int, int]]) -> Any:
            strings = [np.concatenate([context, words[w][:n]])[-reach:] for w, n in places]
            return gram.laws(np.array(strings))

        losses = [_ngram_loss(gram, alphabet.tokens(part.numpy())) for part in windows]
        return counted, float(np.mean(losses))
    net = trained_gpt(text, seed=seed, network=model["network"], recipe=model["recipe"])

    def computed(context: Any, words: Sequence[Any], places: Sequence[tuple[int, int]]) -> Any:
        raw = [alphabet.values[word] for word in words]
        return sequence_laws(net, alphabet.values[context], raw, places, alphabet.values)

    return computed, float(np.mean([_loss(net, part) for part in windows]))


FIRST = 8  # tokens of a window that are not judged, so that every model has its context


def _ngram_loss(gram: NGram, tokens: np.ndarray) -> float:
    at = np.arange(FIRST, tokens.shape[1])
    reach = max(gram.order - 1, 1)
    contexts = tokens[:, at[:, None] - np.arange(reach, 0, -1)].reshape(-1, reach)
    own = gram.laws(contexts)[np.arange(len(contexts)), tokens[:, at].ravel()]
    return float(-np.log(own).mean())


def _loss(net: Any, windows: Tensor) -> float:
    with torch.inference_mode():
        logits = net(windows[:, :-1])[:, FIRST - 1 :].flatten(0, 1)
        return float(functional.cross_entropy(logits, windows[:, FIRST:].flatten()))
