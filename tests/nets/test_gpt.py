"""nets.gpt: the forward pass written out with loops, symmetries, growth and exponents of N."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor
from torch.nn import functional

from rclib.nets.gpt import GPT, build_gpt, gpt_axes
from rclib.nets.init import Init
from rclib.rowcolumn.axes import gamma_sets, index_sizes
from rclib.rowcolumn.measure import mean_vectors
from rclib.training.lm_recipe import Recipe, make_optimizer

SMALL: dict[str, Any] = {"blocks": 2, "context": 7, "vocabulary": 11, "head_size": 4}
KINDS = list(itertools.product(("layer", "rms"), ("learned", "rotary")))


def tokens(n: int = 3, length: int = 7, vocabulary: int = 11, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (n, length), generator=generator)


def trained_like(model: GPT, seed: int = 1) -> GPT:
    """Gains, shifts and zero biases moved off their start, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model


# --- the forward pass, once more -------------------------------------------------------------


def written_out(model: GPT, sentence: list[int], multiplier: dict[str, float]) -> np.ndarray:
    """Logits (T, vocabulary) of one sentence, position by position and head by head (float64)."""
    p = {name: q.detach().double().numpy() for name, q in model.named_parameters()}
    d, length = model.head_size, len(sentence)

    def normed(x: np.ndarray, gain: str, shift: str) -> np.ndarray:
        if model.norm == "layer":
            x = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
        else:
            x = x / math.sqrt((x**2).mean() + 1e-5)
        return x * p[gain] + p.get(shift, 0.0)

    def turned(v: np.ndarray, s: int) -> np.ndarray:
        """Pairs (v_i, v_{i + d/2}) as complex numbers times exp(i s θ)."""
        if model.positions == "learned":
            return v
        half = d // 2
        pairs = v[:half] + 1j * v[half:]
        pairs = pairs * np.exp(1j * s * 10_000.0 ** (-2.0 * np.arange(half) / d))
        return np.concatenate([pairs.real, pairs.imag])

    x = []
    for s, t in enumerate(sentence):
        row = multiplier["input"] * p["embedding"][:, t]
        if model.positions == "learned":
            row = row + multiplier["input"] * p["position"][:, s]
        x.append(row)
    for l in range(len(model.blocks)):
        b = f"blocks.{l}."

        def projected(kind: str, h: np.ndarray, head: int, b: str = b) -> np.ndarray:
            bias = p[f"{b}B{kind}"][head] if f"{b}B{kind}" in p else 0.0
            return multiplier["hidden"] * p[f"{b}W{kind}"][head] @ h + bias

        h = [normed(row, b + "gain1", b + "shift1") for row in x]
        for s in reversed(range(length)):
            out = np.zeros(model.width)
            for head in range(model.width // d):
                q = turned(projected("q", h[s], head), s)
                scores = [q @ turned(projected("k", h[r], head), r) / d for r in range(s + 1)]
                share = special.softmax(scores)
                mixed = sum(share[r] * projected("v", h[r], head) for r in range(s + 1))
                out += multiplier["hidden"] * p[b + "Wo"][:, :, head] @ mixed
            x[s] = x[s] + out + p.get(b + "Bo", 0.0)
        for s in range(length):
            z = multiplier["hidden"] * p[b + "Wup"] @ normed(x[s], b + "gain2", b + "shift2")
            z = z + p.get(b + "Bup", 0.0)
            act = z * 0.5 * (1.0 + special.erf(z / math.sqrt(2.0)))  # GELU
            x[s] = x[s] + multiplier["down"] * p[b + "Wdown"] @ act + p.get(b + "Bdown", 0.0)
    last = [multiplier["output"] * p["W"] @ normed(row, "gain", "shift") for row in x]
    return np.array(last) + p.get("B", 0.0)


def multipliers(name: str, n: int) -> dict[str, float]:
    """By hand: mean field divides by the fan-in, μP only at the output; one-hot inputs by 1."""
    hidden = 1 / n if name == "MF" else 1.0
    return {
        "input": 1.0,
        "hidden": hidden,
        "down": hidden / 4 if name == "MF" else 1.0,
        "output": 1.0 if name == "SP" else 1 / n,
    }


@pytest.mark.parametrize(("norm", "positions"), KINDS)
@pytest.mark.parametrize("name", ["SP", "MF", "muP"])
def test_forward_pass_written_out(name: str, norm: str, positions: str) -> None:
    model = GPT(12, parametrization=name, norm=norm, positions=positions, seed=3, **SMALL)
    trained_like(model.double())
    x = tokens()
    logits = model(x).detach().numpy()
    for sentence, found in zip(x.tolist(), logits, strict=True):
        expected = written_out(model, sentence, multipliers(name, 12))
        # The rotary table is kept in float32.
        tolerance = 1e-9 if positions == "learned" else 1e-5
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_forward_pass_without_biases() -> None:
    model = trained_like(GPT(8, bias="none", norm="layer", **SMALL).double())
    assert not [n for n, _ in model.named_parameters() if "B" in n or "shift" in n]
    x = tokens()
    expected = written_out(model, x[0].tolist(), multipliers("MF", 8))
    np.testing.assert_allclose(model(x)[0].detach().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_position_sees_itself_and_the_past_alone(positions: str) -> None:
    model = trained_like(GPT(8, positions=positions, **SMALL).double())
    x = tokens()
    changed = x.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    a, b = model(x), model(changed)
    assert torch.equal(a[:, :4], b[:, :4])
    assert (a[:, 4:] - b[:, 4:]).abs().amax((0, 2)).gt(1e-6).all()


def test_order_of_the_past_matters() -> None:
    # Without positions attention is a set operation; both kinds of positions must break this.
    for positions in ("learned", "rotary"):
        model = trained_like(GPT(8, positions=positions, **{**SMALL, "blocks": 1}).double())
        x = tokens()
        swapped = x[:, [1, 0, 2, 3, 4, 5, 6]]
        assert not torch.allclose(model(x)[:, -1], model(swapped)[:, -1], atol=1e-6)


def test_intermediate_streams_belong_together() -> None:
    model = GPT(8, **SMALL).double()
    x = tokens()
    streams = model.forward_all(x)
    assert [tuple(s.shape) for s in streams] == [(3, 7, 8)] * 3 + [(3, 7, 11)]
    assert torch.equal(streams[1], model.blocks[0](streams[0]))
    assert torch.equal(streams[-1], model(x))
    assert torch.allclose(model(x[:, :4]), model(x)[:, :4])  # shorter than the context


# --- axes, permutations, growth ---------------------------------------------------------------


@pytest.mark.parametrize(("norm", "positions"), KINDS)
def test_axes_fit_the_tensors(norm: str, positions: str) -> None:
    model = GPT(12, norm=norm, positions=positions, **SMALL)
    assert sorted(model.axes) == sorted(dict(model.named_parameters()))
    sizes = index_sizes(model.axes, model.state_dict())
    assert {i: sizes[i] for i in model.index_sizes(12)} == model.index_sizes(12)
    rest = set(sizes) - set(model.index_sizes(12))
    assert {i.partition(".")[0] for i in rest} <= {"vocabulary", "position", "query", "value"}
    vectors = mean_vectors(model.state_dict(), model.axes)
    assert len(vectors["stream"]["blocks.0.Wdown.C"]) == 12
    assert len(vectors["mlp.1"]["blocks.1.Wdown.R"]) == 48
    assert len(vectors["head.0"]["blocks.0.Wo.2"]) == 3


@pytest.mark.parametrize(("norm", "positions"), KINDS)
def test_permuting_any_index_set_consistently_changes_nothing(norm: str, positions: str) -> None:
    model = trained_like(GPT(12, norm=norm, positions=positions, **SMALL).double())
    x = tokens()
    expected = model(x)
    state = dict(model.state_dict())
    for index, places in gamma_sets(model.axes).items():
        kind = index.partition(".")[0]
        if kind in ("vocabulary", "position") or (kind == "query" and positions == "rotary"):
            continue  # these are not neurons; rotary positions tie pairs of query neurons
        size = state[places[0][0]].shape[places[0][1]]
        order = torch.arange(size).roll(1)
        moved = dict(state)
        for name, axis in places:
            moved[name] = moved[name].index_select(axis, order)
        permuted = model.like(12, moved)
        assert any(not torch.equal(moved[n], state[n]) for n in state)
        torch.testing.assert_close(permuted(x), expected, rtol=1e-10, atol=1e-12)
        if len(places) > 1:  # one tensor left behind: another function
            moved[places[0][0]] = state[places[0][0]]
            wrong = model.like(12, moved)(x)
            same = torch.allclose(wrong, expected, atol=1e-9)
            # Bk alone does nothing: a constant in all scores of a query. So the first place,
            # which never is Bk, always shows.
            assert not same, index


def test_matrices_lay_heads_side_by_side() -> None:
    model = GPT(12, **SMALL)
    matrices = model.matrices()
    shapes = {name: tuple(w.shape) for name, w in matrices.items()}
    assert shapes["blocks.0.Wq"] == shapes["blocks.1.Wo"] == (12, 12)
    assert (shapes["blocks.0.Wup"], shapes["blocks.0.Wdown"]) == ((48, 12), (12, 48))
    assert (shapes["embedding"], shapes["position"], shapes["W"]) == ((12, 11), (12, 7), (11, 12))
    wq, wo = model.get_parameter("blocks.0.Wq"), model.get_parameter("blocks.0.Wo")
    assert torch.equal(matrices["blocks.0.Wq"][4 * 2 + 1], wq[2, 1])  # neuron 1 of head 2
    assert torch.equal(matrices["blocks.0.Wo"][:, 4 * 2 + 1], wo[:, 1, 2])
    other = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    assert float(model.matrices(other)["W"].abs().max()) == 0.0


# --- scales and rates ---------------------------------------------------------------------------


def test_layer_types_by_name() -> None:
    model = GPT(8, **SMALL)
    by_type: dict[str, set[str]] = {}
    for name, _ in model.named_parameters():
        by_type.setdefault(model.layer_type(name), set()).add(name.rpartition(".")[2])
    assert by_type["input"] == {"embedding", "position"}
    assert by_type["hidden"] == {"Wq", "Wk", "Wv", "Wo", "Wup", "Wdown"}
    assert (by_type["output"], by_type["output_bias"]) == ({"W"}, {"B"})
    biases = {"Bq", "Bk", "Bv", "Bo", "Bup", "Bdown"}
    norms = {"gain1", "shift1", "gain2", "shift2", "gain", "shift"}
    assert by_type["bias"] == biases | norms


def test_learning_rate_factors() -> None:
    n, v = 8, 11
    mf = GPT(n, **SMALL)
    assert set(mf.lr_factors("adam").values()) == {1.0}  # one rate for every width
    sgd = mf.lr_factors("sgd")
    assert sgd["blocks.0.Wq"] == sgd["blocks.0.Wo"] == n * n
    assert sgd["blocks.0.Wup"] == sgd["blocks.0.Wdown"] == 4 * n * n
    assert (sgd["embedding"], sgd["position"], sgd["W"], sgd["B"]) == (n, n, n, 1)
    assert (sgd["blocks.0.Bq"], sgd["blocks.0.Bup"], sgd["blocks.0.gain1"]) == (n, 4 * n, n)
    mup = GPT(n, parametrization="muP", **SMALL).lr_factors("adam")
    assert mup["blocks.1.Wk"] == mup["blocks.1.Wup"] == 1 / n
    assert mup["blocks.1.Wdown"] == 1 / (4 * n)
    assert {mup["embedding"], mup["W"], mup["gain"], mup["B"]} == {1.0}
    assert set(GPT(n, parametrization="SP", **SMALL).lr_factors().values()) == {1.0}
    assert v == mf.vocabulary


def test_law_of_the_start() -> None:
    laws = {"hidden": Init("gaussian", 1.0, math.sqrt(3.0)), "output": Init("gaussian", 0.0, 0.0)}
    for name, scale in (("MF", 1.0), ("SP", 32**-0.5), ("muP", 32**-0.5)):
        model = GPT(32, blocks=1, head_size=8, parametrization=name, init=laws, seed=2)
        up = model.get_parameter("blocks.0.Wup").detach()
        assert float(up.mean()) == pytest.approx(scale, rel=0.1)
        assert float(up.var()) == pytest.approx(3.0 * scale**2, rel=0.1)
        assert float(model.get_parameter("W").detach().abs().max()) == 0.0
        embedding = model.get_parameter("embedding").detach()  # not named: N(0, 1), whatever N
        assert float(embedding.std()) == pytest.approx(1.0, abs=0.05)
        assert torch.equal(model.get_parameter("blocks.0.gain1").detach(), torch.ones(32))
        assert float(model.get_parameter("blocks.0.Bdown").detach().abs().max()) == 0.0
        inner = model.get_parameter("blocks.0.Bup").detach()
        assert float(inner.std()) == pytest.approx(1.0, abs=0.2)
    constant = GPT(8, bias="constant", bias_init=Init(mean=0.5), **SMALL)
    assert torch.equal(constant.get_parameter("blocks.1.Bk").detach(), torch.full((2, 4), 0.5))


def rms(t: Tensor) -> float:
    return float(t.square().mean().sqrt())


def first_update(model: GPT, x: Tensor, optimizer: str) -> tuple[list[float], list[float]]:
    """Root mean squares of streams and logits at the start, and of their change by one step."""
    recipe = Recipe(steps=1, lr=1e-7, optimizer=optimizer)
    step = make_optimizer(model, recipe)
    for group in step.param_groups:
        group["lr"] = group["base"]
    before = model.forward_all(x[:, :-1])
    functional.cross_entropy(before[-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    step.step()
    with torch.no_grad():
        after = model.forward_all(x[:, :-1])
        change = [rms(b - a) for a, b in zip(before, after, strict=True)]
    return [rms(a.detach()) for a in before], change


@pytest.mark.parametrize(
    ("name", "optimizer", "start", "change"),
    [
        # [embedding, after block 1, after block 2, logits], exponents of N, from zero-mean
        # starts. The stream starts at order one: its embedding. Logits are sums of N independent
        # terms over N (MF, μP), or over √N (SP).
        # Adam: entries of order-one tensors move by η. A hidden matrix then moves its output by
        # m c N: 1 under MF (1/N · 1 · N) and μP (1 · 1/N · N), N under SP. The signs are those of
        # the output matrix, so the logits' sum over neurons is coherent: N · 1/√N · N under SP.
        ("MF", "adam", [0, 0, 0, -0.5], [0, 0, 0, 0]),
        ("muP", "adam", [0, 0, 0, -0.5], [0, 0, 0, 0]),
        ("SP", "adam", [0, 0, 0, 0], [0, 1, 1, 1.5]),
        # SGD: the error at the stream is 1/N times N(0, 1) under MF and μP and 1/√N under SP; a
        # Wdown moves its output by m² c N times that: N · 1/N, 1 · N · 1/N and N · 1/√N. The
        # output matrix moves the logits by m² c N: 1, 1 and N.
        ("MF", "sgd", [0, 0, 0, -0.5], [0, 0, 0, 0]),
        ("muP", "sgd", [0, 0, 0, -0.5], [0, 0, 0, 0]),
        ("SP", "sgd", [0, 0, 0, 0], [-0.5, 0.5, 0.5, 1]),
    ],
)
def test_coordinate_check(
    name: str, optimizer: str, start: list[float], change: list[float]
) -> None:
    widths, seeds = (32, 64, 128, 256), (0, 1, 2, 3)
    logs = np.zeros((len(widths), 8))
    for row, n in enumerate(widths):
        for seed in seeds:
            model = GPT(
                n, blocks=2, context=8, vocabulary=11, parametrization=name, norm="rms", seed=seed
            ).double()
            x = tokens(4, 9, seed=seed)
            values = np.concatenate(first_update(model, x, optimizer))
            logs[row] += np.log(values) / len(seeds)
    slopes = np.polyfit(np.log(widths), logs, 1)[0]
    assert slopes == pytest.approx([*start, *change], abs=0.16)


# --- construction -------------------------------------------------------------------------------


def test_same_seed_same_network_and_global_state_untouched() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    a, b, c = (GPT(8, seed=s, **SMALL) for s in (4, 4, 5))
    assert torch.equal(torch.rand(3), expected)
    for (name, p), q, r in zip(a.named_parameters(), b.parameters(), c.parameters(), strict=True):
        assert torch.equal(p, q)
        zero_or_one = name.rpartition(".")[2][:4] in ("gain", "shif", "Bo", "Bdow", "B")
        assert zero_or_one or not torch.equal(p, r), name


def test_options_describe_the_network_whole() -> None:
    model = GPT(
        8,
        parametrization="muP",
        norm="rms",
        positions="rotary",
        init=Init(mean=0.3),
        bias="constant",
        bias_init=Init(mean=0.2),
        seed=6,
        **SMALL,
    )
    again = build_gpt(json.loads(json.dumps(model.options())))
    assert again.options() == model.options()
    x = tokens()
    assert torch.equal(again(x), model(x))
    one_law = model.options() | {"init": {"kind": "uniform", "mean": 0.3, "scale": 1.0}}
    assert torch.equal(build_gpt(one_law)(x), model(x))
    with pytest.raises(ValueError, match="options must give a width"):
        build_gpt({"blocks": 2})


def test_like_takes_over_weights_options_and_dtype() -> None:
    model = GPT(8, parametrization="muP", norm="rms", positions="rotary", **SMALL).double()
    x = tokens()
    assert torch.equal(model.like(8, model.state_dict())(x), model(x))
    wide = model.like(12, seed=9)
    assert {**wide.options(), "width": 8, "seed": 0} == model.options()
    assert wide.get_parameter("W").dtype == torch.float64
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.like(12, model.state_dict())


def test_a_network_can_be_copied_and_pickled() -> None:
    model = GPT(8, positions="rotary", **SMALL)
    x = tokens()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x), model(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 10}, "width must be a multiple of head_size = 4, got 10"),
        ({"width": 0}, "width must be a positive integer, got 0"),
        ({"width": 8.0}, r"width must be a positive integer, got 8\.0"),
        ({"blocks": 0}, "blocks must be a positive integer, got 0"),
        ({"context": -1}, "context must be a positive integer, got -1"),
        ({"vocabulary": True}, "vocabulary must be a positive integer, got True"),
        ({"head_size": 0}, "head_size must be a positive integer, got 0"),
        ({"norm": "batch"}, "norm must be one of .* got 'batch'"),
        ({"positions": "sine"}, "positions must be one of .* got 'sine'"),
        ({"bias": True}, "bias must be one of .* got True"),
        ({"parametrization": "NTP"}, "parametrization must be one of .* got 'NTP'"),
        ({"init": {"hiden": Init()}}, "init must name layer types .* got .'hiden'"),
    ],
)
def test_bad_arguments_are_named_with_their_value(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"width": 8, **SMALL, **change}
    with pytest.raises(ValueError, match=message):
        GPT(**arguments)


def test_other_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="head_size must be even with rotary positions, got 5"):
        GPT(10, head_size=5, positions="rotary")
    model = GPT(8, **SMALL)
    with pytest.raises(ValueError, match="tokens must be at most context = 7 long, got 8"):
        model(tokens(length=8))
    with pytest.raises(ValueError, match="width must be a multiple of head_size = 4, got 6"):
        model.index_sizes(6)
    with pytest.raises(ValueError, match="width must be a positive integer, got 0"):
        model.index_sizes(0)


def test_table_of_axes_says_what_is_left_out() -> None:
    whole = set(gpt_axes(1))
    assert whole - set(gpt_axes(1, positions="rotary")) == {"position"}
    assert whole - set(gpt_axes(1, norm="rms")) == {"shift", "blocks.0.shift1", "blocks.0.shift2"}
    bare = whole - set(gpt_axes(1, bias=False))
    assert {n.rpartition(".")[2][0] for n in bare} == {"B", "s"}
