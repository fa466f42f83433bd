"""language.awrs*: exact laws, particles and models of notebook 92 against other routes."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rclib.data.text import TextData
from rclib.experiments.language import awrs, awrs_pretrained, awrs_runs, awrs_texts, plots_awrs
from rclib.experiments.language import awrs_exact as exact
from rclib.experiments.language import awrs_machines as machines
from rclib.experiments.language import awrs_models as models
from rclib.experiments.language import awrs_values as values
from rclib.experiments.language.awrs_smc import Particles, particles, weighted_marginals
from rclib.files.plain import DataError
from rclib.nets.gpt import build_gpt
from rclib.stats.rejection import METHODS, mean_checks

LINE = (
    b"the cat and the dog met a bear\nand the bear (not the cat) sat\n"
    b"the dog ran and the bear can (see [it])\nbut not the cat\n"
)


@pytest.fixture(scope="module")
def text() -> TextData:
    raw = torch.frombuffer(bytearray(LINE * 12), dtype=torch.uint8)
    return TextData("lines", "lines", raw, len(raw) - 400, "1" * 64)


# --- single draws --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["two runs", "recursive"])
def test_sets_agree_with_clocks(method: str) -> None:
    """The recursion over sets of rejected tokens has the closed mean number of checks."""
    random = np.random.default_rng(0)
    for V, accepted in ((3, 2), (5, 2), (6, 3)):
        p = random.dirichlet(np.ones(V))
        allowed = random.permutation(V) < accepted
        mean, square, checks = exact.exact_moments(p, allowed, method)
        np.testing.assert_allclose(mean, p * allowed, atol=1e-14)
        assert checks == pytest.approx(mean_checks(p[None], allowed[None], method)[1][0])
        assert square >= mean.sum() ** 2 - 1e-14


def test_two_tokens_by_hand() -> None:
    a = 0.3
    p, allowed = np.array([a, 1 - a]), np.array([True, False])
    mean, square, checks = exact.exact_moments(p, allowed, "two runs")
    assert mean[0] == pytest.approx(a)
    assert square == pytest.approx(a**2 + a * (1 - a) / 4 + (1 - a) * a**2 / 4)
    assert checks == pytest.approx(2 * a * a + 3 * a * (1 - a) + 3 * (1 - a))
    mean, square, checks = exact.exact_moments(p, allowed, "recursive")
    assert (mean[0], square) == (pytest.approx(a), pytest.approx(a * a))
    assert checks == pytest.approx(2)
    # Wrong weights: 1 - r1 is 1 or a; over 1 + n1 it is 1 or a/2; both means by hand.
    mean = exact.exact_moments(p, allowed, "mass alone")[0]
    assert mean[0] == pytest.approx(a + (1 - a) * a)
    mean = exact.exact_moments(p, allowed, "first run alone")[0]
    assert mean[0] == pytest.approx(a + (1 - a) * a / 2)
    mean = exact.exact_moments(p, allowed, "put back")[0]
    first = a * (a + (1 - a) / 2)  # the second run rejects the other token or does not
    assert mean[0] == pytest.approx(first + (1 - a) * a * (a / 2 + (1 - a) / 3))


def test_everything_accepted_costs_two_checks() -> None:
    p = np.array([0.2, 0.8])
    mean, square, checks = exact.exact_moments(p, np.ones(2, dtype=bool), "two runs")
    np.testing.assert_allclose(mean, p)
    assert (square, checks) == (pytest.approx(1), pytest.approx(2))


def test_variance_with_replacement() -> None:
    z, n = 0.2, np.arange(3000)
    chance = (n + 1) * z**2 * (1 - z) ** n
    assert chance @ (1 / (1 + n)) == pytest.approx(z)
    variance = chance @ (1 / (1 + n)) ** 2 - z**2
    assert exact.replacement_variance(z) == pytest.approx(variance)


# --- machines ------------------------------------------------------------------------------


def bigram(V: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(V, 0.7), V)


def matched(line: tuple[int, ...]) -> bool:
    """Of tokens ( ) [ ] newline: 0 to 4; 5 is a letter; two deep at most."""
    stack: list[int] = []
    for token in line[:-1]:
        if token == 4:
            return False
        if token in (0, 2):
            stack.append(token)
        elif token in (1, 3) and (not stack or stack.pop() != token - 1):
            return False
        if len(stack) > 2:
            return False
    return not stack and line[-1] == 4


def ends_well(line: tuple[int, ...]) -> bool:
    return 2 not in line[:-1] and line[-1:] == (2,) and line[:-1][-3:] == (0, 1, 0)


def spelt(line: tuple[int, ...]) -> bool:
    return line in {(0, 3), (0, 1, 3), (2, 1, 3), (2, 1, 4), (0, 4), (0, 1, 4)}


def brute(
    law: Callable[[tuple[int, ...]], np.ndarray], V: int, steps: int,
    good: Callable[[tuple[int, ...]], bool],
) -> dict[str, Any]:  # fmt: skip
    """Both laws from all strings of at most `steps` tokens, of which `good` are accepted."""
    every = [s for n in range(1, steps + 1) for s in itertools.product(range(V), repeat=n)]
    wanted = [s for s in every if good(s)]
    chance = {s: np.prod([law(s[:t])[s[t]] for t in range(len(s))]) for s in wanted}
    prefixes = {s[:n] for s in wanted for n in range(len(s) + 1)}

    def masked(s: tuple[int, ...]) -> float:
        found = 1.0
        for t in range(len(s)):
            own = law(s[:t])
            found *= own[s[t]] / sum(own[y] for y in range(V) if (*s[:t], y) in prefixes)
        return found

    mass = sum(chance.values())
    laws = {
        "target": {s: c / mass for s, c in chance.items()},
        "masked": {s: masked(s) for s in wanted},
    }
    marginals = {name: np.zeros((steps, V + 1)) for name in laws}
    for name, own in laws.items():
        for s, c in own.items():
            for t in range(steps):
                marginals[name][t, s[t] if t < len(s) else V] += c
    lengths = {name: sum(c * len(s) for s, c in own.items()) for name, own in laws.items()}
    log_p = {n: sum(c * np.log(chance[s]) for s, c in own.items()) for n, own in laws.items()}
    return {"mass": mass, "marginals": marginals, "tokens": lengths, "log_p": log_p}


def cases() -> list[Any]:
    P6, P4 = bigram(6), bigram(4, 1)
    start, allowed = P4[0], np.array([[0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0]]) > 0
    rows = {p: bigram(5, n + 2)[0] for n, p in enumerate([(), (0,), (0, 1), (2,), (2, 1)])}
    after, places = machines.trie([[0], [0, 1], [2, 1]], np.arange(5) > 2)
    words = [[0], [0, 1], [2, 1]]
    laws = np.array([rows[tuple(words[w][:n])] for w, n in places])
    chained = machines.chain(start, P4, allowed, 4)

    def follows(s: tuple[int, ...]) -> bool:
        return len(s) == 4 and all(allowed[a, b] for a, b in itertools.pairwise(s))

    return [
        (
            machines.brackets(P6, [(0, 1), (2, 3)], 4, 5),
            lambda s: P6[s[-1] if s else 4],
            6,
            matched,
        ),
        (machines.ending(P4, [0, 1, 0], 2, 5), lambda s: P4[s[-1] if s else 2], 4, ends_well),
        (chained, lambda s: P4[s[-1]] if s else start, 4, follows),
        (machines.completion(laws, after, 3), lambda s: rows.get(s, rows[()]), 5, spelt),
    ]


NAMES = ("brackets", "ending", "chain", "completion")


@pytest.fixture(scope="module")
def solved() -> dict[str, Any]:
    return {
        name: (machine, V, brute(law, V, machine.steps, good))
        for name, (machine, law, V, good) in zip(NAMES, cases(), strict=True)
    }


@pytest.mark.parametrize("name", NAMES)
def test_recursions_agree_with_all_strings(name: str, solved: dict[str, Any]) -> None:
    machine, _, expected = solved[name]
    for which in ("target", "masked"):
        found = machines.solve(machine, which)
        np.testing.assert_allclose(found.marginals, expected["marginals"][which], atol=1e-12)
        assert found.tokens == pytest.approx(expected["tokens"][which])
        assert found.log_p == pytest.approx(expected["log_p"][which])


@pytest.mark.parametrize("name", NAMES)
def test_automata_accept_what_a_program_accepts(name: str, solved: dict[str, Any]) -> None:
    machine, _, expected = solved[name]
    assert machine.mass == pytest.approx(expected["mass"], rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_particles_estimate_the_mass_without_bias(method: str, solved: dict[str, Any]) -> None:
    machine, V, expected = solved["brackets"]
    found = particles(
        machine, method, weights="drawn", runs=3000, size=8, random=np.random.default_rng(0)
    )
    ratio = np.exp(found.log_mass) / expected["mass"]
    assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / np.sqrt(len(ratio))
    # Runs that count by their estimated mass have the target's law without bias.
    w = (found.weights * ratio[:, None] / ratio.sum()).ravel()
    last = found.tokens.reshape(len(w), -1)[:, 2]
    law = np.bincount(last, weights=w, minlength=V + 1)
    assert machines.distance(law, expected["marginals"]["target"][2]) < 0.05
    masked = machines.distance(expected["marginals"]["masked"], expected["marginals"]["target"])
    assert masked[2] > 0.1
    live = found.weights > 0
    for tokens in found.tokens[live][:200]:
        string = tuple(int(t) for t in tokens if t < V)
        assert matched(string)


@pytest.mark.parametrize("size", [1, 8])
def test_without_weights_particles_have_the_masked_law(size: int, solved: dict[str, Any]) -> None:
    machine, V, expected = solved["completion"]
    random = np.random.default_rng(1)
    weights = "drawn" if size == 1 else "one"  # a run of one particle forgets its weight
    found = particles(
        machine, "two runs", weights=weights, runs=6000 // size, size=size, random=random
    )
    own = weighted_marginals(found, V)
    assert machines.distance(own, expected["marginals"]["masked"]).max() < 0.03
    first, checks = machines.solve(machine, "masked", ["two runs"]).checks["two runs"]
    assert found.first / found.drawn == pytest.approx(first, rel=0.03)
    assert found.checks / found.drawn == pytest.approx(checks, rel=0.03)
    log_p = (found.weights * found.log_p).sum(1).mean()
    assert log_p == pytest.approx(expected["log_p"]["masked"], abs=0.05)


def test_a_chain_without_a_way_out_loses_particles() -> None:
    P, allowed = bigram(3), np.array([[True, True, False]] * 2 + [[False] * 3])
    allowed[:, 2] = [True, False, False]
    machine = machines.chain(P[0], P, allowed, 3)
    found = particles(
        machine, "two runs", weights="drawn", runs=400, size=2, random=np.random.default_rng(0)
    )
    assert np.exp(found.log_mass).mean() == pytest.approx(machine.mass, rel=0.15)
    powers = np.linalg.matrix_power(P * allowed, 2)
    assert machine.mass == pytest.approx(P[0] @ powers @ np.ones(3))
    dead = Particles(found.tokens, 0 * found.weights, *[found.log_mass] * 2, 0.0, 0.0, 0)
    with pytest.raises(ValueError, match="living"):
        weighted_marginals(dead, 3)
    masked = machines.solve(machine, "masked", ["two runs"])
    assert masked.tokens < 3
    shut = machines.chain(P[0], P, allowed, 3, first=False)
    assert shut.mass == 0


def test_equal_rows_have_no_bias_and_perron_is_the_limit() -> None:
    run = awrs_runs.link_runs(None, seed=3, n_chains=4, V=12, steps=6, share=0.4)
    assert run["equal"].max() < 1e-12
    assert run["tv"].min() > 0.01
    assert (run["perron_long"] < 1e-3 + run["perron"]).all()
    # The first step of the target chain is the Doob transform that the machine solves.
    P = bigram(5)
    allowed = np.random.default_rng(5).random((5, 5)) < 0.7
    allowed[:, 0] = True
    machine = machines.chain(np.eye(5)[0], P, allowed, 4)
    M = P * allowed
    h = M @ M @ np.ones(5)
    second = machines.solve(machine, "target").marginals[1, :5]
    np.testing.assert_allclose(second, M[0] * h / (M[0] @ h))


# --- models --------------------------------------------------------------------------------


def test_n_grams_by_hand() -> None:
    tokens = np.array([0, 1, 0, 1, 2, 0, 1, 1])
    one = models.NGram(tokens, 1, 4).laws(np.zeros((1, 0), dtype=int))[0]
    np.testing.assert_allclose(one, (np.array([3, 4, 1, 0]) + 3 / 4) / (8 + 3))
    two = models.NGram(tokens, 2, 4)
    laws = two.laws(np.array([[2, 1], [9, 3]]))  # after 1: 0, 2, 1; 3 never occurred
    np.testing.assert_allclose(laws[0], (np.array([1, 1, 1, 0]) + 3 * one) / 6)
    np.testing.assert_allclose(laws[1], one)
    three = models.NGram(tokens, 3, 4).laws(np.array([[0, 1]]))[0]
    np.testing.assert_allclose(three, (np.array([1, 1, 1, 0]) + 3 * laws[0]) / 6)
    with pytest.raises(ValueError, match="contexts"):
        two.laws(np.zeros((1, 0), dtype=int))
    with pytest.raises(ValueError, match="order"):
        models.NGram(tokens, 9, 4)


def test_laws_after_prefixes_are_those_of_single_calls() -> None:
    net = build_gpt({"width": 16, "blocks": 1, "context": 32, "head_size": 8, "seed": 0}).eval()
    words = [np.array(w) for w in ([5, 6], [5, 7, 8], [9], [9, 1, 2, 3])]
    _, places = machines.trie([list(map(int, w)) for w in words], np.arange(256) > 250)
    prompt, kept = np.array([10, 11, 12]), np.arange(0, 256, 2)
    found = models.sequence_laws(net, prompt, words, places, kept, batch=2)
    for q, (w, n) in enumerate(places):
        tokens = torch.tensor([*prompt, *words[w][:n]])[None]
        own = torch.softmax(net(tokens)[0, -1].double()[torch.from_numpy(kept)], -1)
        np.testing.assert_allclose(found[q], own.detach().numpy(), rtol=1e-4)
    assert models.sequence_laws(net, prompt, words, places).shape == (len(places), 256)


def test_words_and_prompts(text: TextData) -> None:
    words = models.frequent_words(text, 4)
    assert words == [b"the", b"and", b"bear", b"cat"]
    other = models.relettered(words, np.random.default_rng(0))
    assert [len(w) for w in other] == [len(w) for w in words]
    assert other != words
    assert other[0][0] == other[3][2]  # the same exchange everywhere: t
    found = models.prompts(text, 5, 10, np.random.default_rng(0))
    whole = bytes(text.validation.numpy())
    assert all(bytes(row.astype(np.uint8)) in whole and row[-1] == 32 for row in found)
    with pytest.raises(ValueError, match="words to go on"):
        models.prompts(text, 10_000, 10, np.random.default_rng(0))
    alphabet = models.alphabet_of(text)
    with pytest.raises(ValueError, match="alphabet"):
        alphabet.of(b"Q")
    ends = {chr(v) for v in alphabet.values[alphabet.between_words()].tolist()}
    assert ends == set(" \n()[]")


def test_lines_of_a_text(text: TextData) -> None:
    brackets = awrs_texts.line_machine(text, seed=0, task="brackets", steps=6)
    assert 0 < brackets.mass < 1
    words = awrs_texts.line_machine(text, seed=0, task="words", steps=3, V=8, accepted=4)
    laws = awrs_texts._word_bigram(text, 8)
    own = laws[0][:4] @ np.linalg.matrix_power(laws[:4, :4], 2) @ np.ones(4)
    assert words.mass == pytest.approx(own)
    ending = awrs_texts.line_machine(text, seed=1, task="ending", steps=8)
    assert 0 < ending.mass < 0.2
    with pytest.raises(ValueError, match="task"):
        awrs_texts.line_machine(text, seed=0, task="rhymes", steps=8)


# --- a pretrained model --------------------------------------------------------------------


class Letters:
    """A tokenizer of single bytes."""

    def __len__(self) -> int:
        return 128

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return list(text.encode())

    def decode(self, tokens: list[int]) -> str:
        return bytes(tokens).decode()


def test_a_pretrained_model_is_asked_token_by_token(
    text: TextData, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"width": 16, "blocks": 1, "context": 40, "head_size": 8, "vocabulary": 128}
    net = build_gpt({**options, "seed": 0}).eval().requires_grad_(False)

    def model(tokens: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=net(tokens))

    monkeypatch.setattr(awrs_pretrained, "loaded", lambda: (model, Letters()))
    settings = {"n_words": 3, "n_prompts": 2, "prompt": 12}
    frame = awrs_pretrained.pretrained_frame(text, [0, 1], **settings)
    assert list(frame.seed) == [0, 0, 1, 1]
    assert (frame["two runs"] > frame["two runs, first"]).all()
    assert frame.masking.eq(128).all()
    # The mass of the first row from single calls.
    (raw, *_) = models.prompts(text, 2, 12, np.random.default_rng([0, 91]))
    start = list(bytes(raw.astype(np.uint8)).rstrip(b" "))
    ends = [k for k in range(128) if not (chr(k).isalnum() or chr(k) in "'_")]
    mass = 0.0
    for word in models.frequent_words(text, 3):
        chance, tokens = 1.0, start
        for byte in [32, *word]:
            law = torch.softmax(model(torch.tensor([tokens])).logits[0, -1].double(), -1)
            chance, tokens = chance * float(law[byte]), [*tokens, byte]
        law = torch.softmax(model(torch.tensor([tokens])).logits[0, -1].double(), -1)
        mass += chance * float(law[ends].sum())
    assert frame.mass[0] == pytest.approx(mass, rel=1e-5)


def test_where_the_model_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Path:
        raise DataError(f"{name} is not installed")

    monkeypatch.setattr(awrs_pretrained, "packaged_path", missing)
    assert not awrs_pretrained.installed()
    with pytest.raises(DataError, match="not installed"):
        awrs_pretrained.loaded()
    monkeypatch.setattr(awrs_pretrained, "packaged_path", lambda name: Path("folder/model.gguf"))
    assert awrs_pretrained.installed()
    asked = []

    def from_pretrained(folder: Path, **options: Any) -> torch.nn.Module:
        asked.append((folder, options["gguf_file"]))
        return torch.nn.Identity()

    known = SimpleNamespace(from_pretrained=from_pretrained)
    fake = SimpleNamespace(AutoModelForCausalLM=known, AutoTokenizer=known)
    monkeypatch.setitem(sys.modules, "transformers", fake)
    assert not awrs_pretrained.loaded()[0].training
    assert asked == [(Path("folder"), "model.gguf")] * 2


# --- frames --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frames(text: TextData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    seeds = [10, 11]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        patch.setattr(awrs, "named_text", lambda name: text)
        cells = {"V": 600, "n_sets": 2, "n_draws": 10, "shown": 2, "cells": awrs.law_cells()}
        few: dict[str, Any] = {"sizes": [1, 50], "total": 100}
        tasks = {
            "brackets": {"steps": 5}, "ending": {"steps": 8},
            "words": {"steps": 3, "V": 8, "accepted": 4},
        }  # fmt: skip
        known = {f"{k}-gram": {"kind": "n-gram", "order": k} for k in (1, 3)}
        asked = {"n_words": 4, "n_prompts": 2, "prompt": 10, "n_windows": 2, **few}
        words = awrs.word_frame(text, seeds, known, **asked)
        return {
            "moments": awrs.exact_frame(seeds, V=4, n_laws=4, largest=4),
            "laws": awrs.law_frame(seeds, **cells),
            "histogram": awrs.histogram_frame(seeds, **cells),
            "chains": awrs.chain_frame(
                seeds, V=8, steps=4, share=0.5, concentration=1.0, sizes=[1, 64], total=640,
                wide=1280, arms=[0, 3, 4],
            ),
            "link": awrs.link_frame(seeds, n_chains=6, V=8, steps=4, share=0.5),
            "lines": awrs.line_frame(text, seeds, tasks, **few),
            "words": words,
            "drawn": awrs.word_sampled(text, seeds, known, **asked),
        }  # fmt: skip


def test_values_are_by_seed(frames: dict[str, pd.DataFrame]) -> None:
    found = {
        **values.local_values(frames["moments"], frames["laws"], V=600),
        **values.chain_values(frames["chains"]),
        **values.link_values(frames["link"]),
        **values.text_values(frames["lines"], frames["words"], frames["drawn"], V=8),
    }
    assert len(found) == 35
    for key, own in found.items():
        assert list(own.index) == [10, 11], key
        assert own.index.name == "seed", key
        assert np.isfinite(own).all(), key
    assert found["two_runs_unbiased"].max() < 1e-12
    assert found["closed_form"].between(0.8, 1.2).all()
    assert found["better_cheaper"].max() < 1
    assert found["text_checks"].between(2 / 8, 1).all()
    assert len(awrs.over_seeds(frames["chains"], ["arm", "size", "total"])) == 7


def test_ranks_and_ratios_of_made_up_laws() -> None:
    rows = [
        {"seed": 1, "exponent": e, "accepted": a, "heavy": 0, "set": 0, "z": z, "method": m,
         "first": f, "checks": c, "closed": 2 * c}
        for m, f in (("two runs", 2.0), ("rejection", 6.0))
        for e, a, z, c in ((1.0, 1, 0.1, 30.0), (1.0, 9, 0.5, 3.0), (2.0, 1, 0.01, 20.0),
                           (2.0, 9, 0.4, 5.0))
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    assert values.within(frame)[1] == pytest.approx(1)
    assert values.across(frame)[1] == pytest.approx(0.8)
    assert values.reversal(frame, "checks")[1] == pytest.approx(np.log(20 / 30))
    assert values.reversal(frame, "inverse z")[1] == pytest.approx(np.log(10))
    assert values.rejection_gain(frame, accepted=9)[1] == pytest.approx(3)
    assert values.counted_over_closed(frame, "two runs")[1] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="must hold"):
        values.at(frame, accepted=5)


def test_figures(frames: dict[str, pd.DataFrame]) -> None:
    chains = values.at(frames["chains"], total=640)
    figure = plots_awrs.sampler_panels(frames["laws"], chains, frames["histogram"], V=600)
    assert [panel.get_title() for panel in figure.axes] == [
        "(a) cost",
        "(b) chains, equal totals",
        "(c) weights",
    ]
    costs = values.at(frames["words"], method="two runs")
    tasks = values.corrected(frames["lines"], frames["drawn"])
    assert set(tasks.task) == {"brackets", "ending", "completion"}
    figure = plots_awrs.text_panels(tasks, costs, frames["link"], rank=0.5)
    labels = [t.get_text() for t in figure.axes[1].get_legend().get_texts()]
    assert labels == ["natural words", "relettered words"]
