"""resizing.growing and its families: each method on its own guarantee, and against loops."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from rclib.nets.gpt import GPT
from rclib.nets.mlp import MLP
from rclib.resizing.blocks import FILLS, random_growth, recombination
from rclib.resizing.copying import advanced, grown_sizes, lossless, net2net, upper
from rclib.resizing.growing import GROWTH, SHRINKING, Given, rc_sampling
from rclib.resizing.selecting import importance, selection, truncation

NAMES = ["MF", "muP", "SP"]
DTYPES = {torch.float32: 1e-5, torch.float64: 1e-10}


def moved(model: Any, seed: int) -> Any:
    """Away from its start, so that nothing is kept by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * p.std().nan_to_num(1.0) * torch.randn(p.shape, generator=generator).to(p)
    return model


def mlp(width: int = 6, *, seed: int = 0, name: str = "MF", **options: Any) -> MLP:
    options = {"depth": 4, **options}
    return moved(MLP(5, width, 3, parametrization=name, seed=seed, **options).double(), seed)


def gpt(width: int = 8, *, seed: int = 0, name: str = "MF", **options: Any) -> GPT:
    sizes = {"blocks": 2, "context": 7, "vocabulary": 11, "head_size": 4, **options}
    return moved(GPT(width, parametrization=name, seed=seed, **sizes).double(), seed)


def inputs(model: Any) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    if isinstance(model, GPT):
        return torch.randint(11, (5, 7), generator=generator)
    first = next(model.parameters())
    return torch.randn(20, 5, generator=generator, dtype=torch.float64).to(first.dtype)


def outputs(model: Any, state: Any = None, like: Any = None) -> Tensor:
    if state is not None:
        width = like.width if isinstance(like, GPT) else like.sizes[1]
        model = model.like(width, state)
    with torch.no_grad():
        found: Tensor = model(inputs(model))
    return found


def change(source: Any, start: Any, state: Any) -> float:
    """Largest change of an output over the largest output."""
    own = outputs(source)
    return float((outputs(source, state, start) - own).abs().max() / own.abs().max())


def given(source: Any, start: Any, kind: Any) -> Given:
    second = kind(seed=5, name=source.parametrization.name)
    starts = tuple(kind(seed=s, name=source.parametrization.name).state_dict() for s in (21, 22))
    return Given(source, start, 3, second, starts, inputs(source))  # type: ignore[arg-type]


WIDTH = {mlp: 6, gpt: 8}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [mlp, gpt])
@pytest.mark.parametrize("dtype", DTYPES)
def test_methods_keep_the_function_if_they_say_so_and_no_other_does(
    kind: Any, name: str, dtype: torch.dtype
) -> None:
    source = kind(name=name).to(dtype)
    start = kind(2 * WIDTH[kind], seed=1, name=name).to(dtype)
    about = given(source, start, lambda **options: kind(**options).to(dtype))
    assert sum(method.keeps for method in GROWTH.values()) == 2
    for label, method in GROWTH.items():
        state = method.make(about)
        assert {n: t.shape for n, t in state.items()} == {
            n: t.shape for n, t in start.state_dict().items()
        }
        assert all(t.dtype == dtype for t in state.values())
        found = change(source, start, state)
        assert (found < DTYPES[dtype]) if method.keeps else (found > 1e-4), (label, found)


@pytest.mark.parametrize("kind", [mlp, gpt])
def test_methods_leave_what_they_are_given_alone(kind: Any) -> None:
    source, start = kind(), kind(2 * WIDTH[kind], seed=1)
    about = given(source, start, kind)
    before = [{n: t.clone() for n, t in m.state_dict().items()} for m in (source, start)]
    for method in GROWTH.values():
        state = method.make(about)
        again = method.make(about)
        assert all(torch.equal(state[n], again[n]) for n in state)
        for tensor in state.values():
            tensor.mul_(2)
    for model, old in zip((source, start), before, strict=True):
        assert all(torch.equal(t, old[n]) for n, t in model.state_dict().items())


# --- copies --------------------------------------------------------------------------------


def test_net2net_by_loops() -> None:
    """Algorithm 1 of the paper for one hidden layer, in its own words: ψ, counts, U and V."""
    source, start = mlp(4, depth=2, name="SP"), mlp(7, depth=2, name="SP")
    state = net2net(source, start, seed=3)
    old = source.state_dict()
    psi = [next(j for j in range(4) if torch.equal(state["W1"][c], old["W1"][j])) for c in range(7)]
    assert psi[:4] == [0, 1, 2, 3]
    for c, j in enumerate(psi):
        assert state["B1"][c] == old["B1"][j]
        for i in range(3):
            assert float(state["W2"][i, c]) == pytest.approx(float(old["W2"][i, j]) / psi.count(j))
    assert len({tuple(net2net(source, start, seed=s)["B1"].tolist()) for s in range(4)}) > 1


def test_noise_is_on_the_copies_alone_and_as_large_as_it_says() -> None:
    source, start = mlp(40), mlp(80)
    plain, noisy = net2net(source, start, seed=1), net2net(source, start, noise=0.1, seed=1)
    for name in ("W1", "B1", "W2"):
        assert torch.equal(
            noisy[name][:40, :40] if name != "B1" else noisy[name][:40],
            plain[name][:40, :40] if name != "B1" else plain[name][:40],
        )
    added = (noisy["W2"] - plain["W2"])[40:]
    assert float(added.std() / plain["W2"].std()) == pytest.approx(0.1, rel=0.1)
    with pytest.raises(ValueError, match="noise must be finite and not negative, got -1"):
        net2net(source, start, noise=-1.0)


@pytest.mark.parametrize("kind", [mlp, gpt])
def test_unequal_multiples(kind: Any) -> None:
    """Sums bear any width; the stream's norm does not, but for LEMON."""
    wide = 2 * WIDTH[kind] + 4
    for norm in ("layer", "rms") if kind is gpt else (None,):
        options = {"norm": norm} if norm else {}
        for name in NAMES:
            source, start = kind(name=name, **options), kind(wide, seed=1, name=name, **options)
            assert change(source, start, lossless(source, start)) < 1e-10
            assert change(source, start, lossless(source, start, scale=0.0)) < 1e-10
            copies = change(source, start, net2net(source, start))
            assert copies < 1e-10 if kind is mlp else copies > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_copies_of_lossless_growth_get_different_gradients_and_those_of_fpi_equal_ones(
    name: str,
) -> None:
    source, start = mlp(name=name), mlp(12, seed=1, name=name)
    for state, apart in ((net2net(source, start), False), (lossless(source, start), True)):
        model = source.like(12, state)
        model(inputs(model)).square().sum().backward()
        rows = model.get_parameter("W2").grad
        assert rows is not None
        same = (model.get_parameter("B2")[:, None] == model.get_parameter("B2")).nonzero()
        pairs = [(int(i), int(j)) for i, j in same if i < j]
        assert pairs
        differ = max(float((rows[i] - rows[j]).abs().max() / rows.abs().max()) for i, j in pairs)
        assert (differ > 1e-3) if apart else (differ < 1e-12)


def test_projection_is_the_nearest_point_with_the_right_sums() -> None:
    source, start = mlp(name="SP"), mlp(15, seed=1, name="SP")
    state, z = lossless(source, start), start.state_dict()["W2"]
    equal = lossless(source, start, scale=0.0)["W2"]
    turn = torch.arange(15) % 6
    sums = torch.stack([state["W2"][:, turn == j].sum(1) for j in range(6)], 1)
    torch.testing.assert_close(sums, source.state_dict()["W2"][turn])
    # From a nearest point every way to others with these sums is at right angles to Z's.
    torch.testing.assert_close(
        ((state["W2"] - z) * (equal - state["W2"])).sum(1), torch.zeros(15).double()
    )
    with pytest.raises(ValueError, match="scale must be finite"):
        lossless(source, start, scale=float("inf"))


def test_aki_takes_new_rows_from_the_layer_above() -> None:
    source, start = mlp(depth=5), mlp(11, depth=5)
    old, state, plain = source.state_dict(), advanced(source, start), net2net(source, start)
    names = ["W1", "W2", "W3", "W4", "W5", "B1", "B2", "B5"]
    assert [upper(source, n) for n in names] == [None, "W3", "W4", None, None, None, "B3", None]
    for name in old:
        above = upper(source, name)
        if above is None:
            assert torch.equal(state[name], plain[name])
            continue
        assert torch.equal(state[name][:6], plain[name][:6])
        for row in state[name][6:]:  # a row of the layer above, whose copies add up to it
            if name[0] == "B":
                assert bool((old[above] == row).any())
            else:
                own = [(row.sum() - (11 / 6) * r.sum()).abs() < 1e-9 for r in old[above]]
                assert sum(map(bool, own)) == 1


def test_aki_of_a_transformer_moves_heads_neurons_and_channels_from_the_block_above() -> None:
    source = gpt(blocks=3)
    assert upper(source, "embedding") is None
    assert upper(source, "W") is None
    assert upper(source, "blocks.2.Wq") is None
    assert upper(source, "blocks.0.gain1") is None
    for own in ("Wq", "Bk", "Wo", "Bo", "Wup", "Bup", "Wdown", "Bdown"):
        assert upper(source, f"blocks.1.{own}") == f"blocks.2.{own}"
    state, old = advanced(source, gpt(16, blocks=3)), source.state_dict()
    for biases in ("Bq", "Bup"):
        above = old[f"blocks.1.{biases}"].reshape(-1)
        new = state[f"blocks.0.{biases}"]
        assert torch.isin(new[new.shape[0] // 2 :].reshape(-1), above).all()
        assert torch.equal(new[: new.shape[0] // 2], old[f"blocks.0.{biases}"])


# --- blocks --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_zero_blocks_give_the_mean_of_the_two_networks(name: str) -> None:
    one, two, start = mlp(name=name), mlp(seed=4, name=name), mlp(12, seed=1, name=name)
    state = recombination(one, two, start, fill="zero")
    expected = (outputs(one) + outputs(two)) / 2
    torch.testing.assert_close(outputs(one, state, start), expected, rtol=1e-10, atol=1e-12)


def test_blocks_of_every_fill() -> None:
    one, two, start = mlp(name="SP"), mlp(seed=4, name="SP"), mlp(12, seed=1, name="SP")
    starts = mlp(seed=21).state_dict(), mlp(seed=22).state_dict()
    a, b, z = one.state_dict()["W2"], two.state_dict()["W2"], start.state_dict()["W2"]
    expected = {
        "zero": (0 * a, 0 * b),
        "copy": (a, b),
        "random": (z[:6, 6:], z[6:, :6]),
        "orthogonal": (2 * starts[0]["W2"] - a, 2 * starts[1]["W2"] - b),
    }
    assert set(expected) == set(FILLS)
    for fill, (right, left) in expected.items():
        w = recombination(one, two, start, fill=fill, starts=starts)["W2"]
        for found, wanted in (
            (w[:6, :6], a),
            (w[6:, 6:], b),
            (w[:6, 6:], right),
            (w[6:, :6], left),
        ):
            torch.testing.assert_close(found, wanted)
    # Coefficients (1, -1) are orthogonal to (1, 1): so are the blocks, for templates of one length.
    coefficients = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    assert float(coefficients[0] @ coefficients[1]) == 0.0


def test_a_transformer_is_recombined_head_by_head() -> None:
    one, two, start = gpt(), gpt(seed=4), gpt(16, seed=1)
    state = recombination(one, two, start, fill="zero")
    a, b = one.state_dict(), two.state_dict()
    q = state["blocks.1.Wq"]
    torch.testing.assert_close(q[:2, :, :8], 2 * a["blocks.1.Wq"])  # MF: m halves, W doubles
    torch.testing.assert_close(q[2:, :, 8:], 2 * b["blocks.1.Wq"])
    assert not q[:2, :, 8:].any()
    assert torch.equal(state["embedding"], torch.cat([a["embedding"], b["embedding"]]))
    torch.testing.assert_close(state["W"], torch.cat([a["W"], b["W"]], 1))  # 2 W, halved
    assert torch.equal(state["B"], (a["B"] + b["B"]) / 2)


@pytest.mark.parametrize("name", NAMES)
def test_random_growth_keeps_what_old_neurons_send_each_other(name: str) -> None:
    source, start = mlp(name=name), mlp(10, seed=1, name=name)
    state = random_growth(source, start)
    model = source.like(10, state)
    for layer in range(1, 5):
        w = model.multiplier(layer) * state[f"W{layer}"]
        old = source.multiplier(layer) * source.state_dict()[f"W{layer}"]
        torch.testing.assert_close(w[: old.shape[0], : old.shape[1]], old)
    assert torch.equal(state["W2"][6:], start.state_dict()["W2"][6:])


# --- RC sampling ---------------------------------------------------------------------------


def test_rc_sampling_keeps_the_function_in_the_limit_under_any_parametrisation() -> None:
    for name in NAMES:
        source = mlp(name=name)
        own, errors = outputs(source), []
        for width in (60, 960):
            drawn = [
                outputs(source, rc_sampling(source, mlp(width, name=name), seed=s), mlp(width))
                for s in range(3)
            ]
            errors.append(float((torch.stack(drawn) - own).square().mean().sqrt()))
        assert errors[1] < 0.5 * errors[0]  # M^(-1/2) would be a quarter


# --- shrinking -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [mlp, gpt])
def test_truncation_undoes_duplication(kind: Any, name: str) -> None:
    source, start = kind(name=name), kind(2 * WIDTH[kind], seed=1, name=name)
    wide = source.like(2 * WIDTH[kind], lossless(source, start, scale=0.0))
    state = truncation(wide, source)
    for key, tensor in source.state_dict().items():
        torch.testing.assert_close(state[key], tensor, rtol=1e-10, atol=1e-12)
    half = truncation(wide, source, scaled=False)
    w = "W2" if kind is mlp else "blocks.0.Wup"
    torch.testing.assert_close(half[w], state[w] / 2)


@pytest.mark.parametrize("name", NAMES)
def test_selection_leaves_out_what_is_silent_and_keeps_the_function(name: str) -> None:
    source, start = mlp(9, name=name, activation="relu"), mlp(5, name=name, activation="relu")
    silent = {1: [0, 4, 6, 8], 2: [1, 2, 3, 7], 3: [0, 1, 2, 3]}
    with torch.no_grad():
        for layer, places in silent.items():
            source.get_parameter(f"B{layer}")[places] = -1e6
    found = importance(source, inputs(source))
    for layer, places in silent.items():
        assert not found[f"h{layer}"][places].any()
    state = selection(source, start, inputs(source))
    torch.testing.assert_close(outputs(source, state, start), outputs(source))
    scaled = selection(source, start, inputs(source), scaled=True)
    assert change(source, start, scaled) > 1e-3


def test_importance_of_a_transformer_is_that_of_what_its_matrices_read() -> None:
    model, tokens = gpt(norm="rms", blocks=1), torch.randint(11, (3, 7))
    found = importance(model, tokens)
    assert {i: len(v) for i, v in found.items()} == {"stream": 8, "head.0": 2, "mlp.0": 32}
    with torch.no_grad():
        for name, size in (("blocks.0.Wdown", 32), ("blocks.0.Wo", 2)):
            index = "mlp.0" if size == 32 else "head.0"
            least = int(found[index].argmin())
            reading = model.get_parameter(name)
            reading.select(-1, least).zero_()  # changes nothing of what is sent to it
            again = importance(model, tokens)
            torch.testing.assert_close(again[index], found[index])
        # Two heads alike are equally important; one whose values are zero is not at all.
        for part in ("Wv", "Bv"):
            model.get_parameter(f"blocks.0.{part}")[1] = 0.0
    silent = importance(model, tokens)["head.0"]
    assert float(silent[1]) == 0.0 < float(silent[0])
    stream = model.forward_all(tokens)
    x = stream[0]
    h = (
        x
        / x.square().mean(-1, keepdim=True).add(1e-5).sqrt()
        * model.get_parameter("blocks.0.gain1")
    )
    parts = importance(model, tokens)["stream"]
    assert (parts >= h.abs().mean(1).square().sum(0).sqrt() - 1e-9).all()


@pytest.mark.parametrize("name", NAMES)
def test_selection_of_a_transformer_drops_silent_heads_and_neurons(name: str) -> None:
    source, start = gpt(12, name=name), gpt(8, seed=1, name=name)
    with torch.no_grad():
        for block in range(2):
            for part in ("Wv", "Bv"):
                source.get_parameter(f"blocks.{block}.{part}")[1] = 0.0
            source.get_parameter(f"blocks.{block}.Bup")[:16] = -1e3
    assert all(float(importance(source, inputs(source))[f"head.{l}"][1]) == 0 for l in (0, 1))
    state = selection(source, start, inputs(source))
    for block in range(2):
        bias = source.state_dict()[f"blocks.{block}.Bup"]
        assert torch.equal(state[f"blocks.{block}.Bup"], bias[16:])
        keys = source.state_dict()[f"blocks.{block}.Bk"]
        assert torch.equal(state[f"blocks.{block}.Bk"], keys[[0, 2]])
    assert {n: t.shape for n, t in state.items()} == {
        n: t.shape for n, t in start.state_dict().items()
    }


# --- refused -------------------------------------------------------------------------------


def test_refused() -> None:
    small, large = mlp(), mlp(12)
    for method in (net2net, advanced, lossless, random_growth):
        with pytest.raises(ValueError, match="start must be wider than source: 'h1' has 12 and 6"):
            method(large, small)
    with pytest.raises(ValueError, match="start must be narrower than source: 'h1' has 6 and 12"):
        truncation(small, large)
    with pytest.raises(ValueError, match="same sizes"):
        grown_sizes(small, mlp())
    with pytest.raises(ValueError, match="wider everywhere or nowhere"):
        grown_sizes(small, small.like([8, 6, 4]))
    with pytest.raises(ValueError, match="in its width alone"):
        grown_sizes(small, mlp(12, name="SP"))
    with pytest.raises(ValueError, match="in its width alone, not in 'y'"):
        grown_sizes(small, MLP(5, 12, 4, depth=4))
    with pytest.raises(TypeError, match="start must be an MLP or a GPT, got Linear"):
        grown_sizes(small, torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="twice as wide: 'h1' has 6 and 13"):
        recombination(small, mlp(), mlp(13), fill="zero")
    with pytest.raises(ValueError, match="second must have the width of first"):
        recombination(small, mlp(5), large, fill="zero")
    with pytest.raises(ValueError, match="starts must be given"):
        recombination(small, mlp(), large)
    about = Given(small, large)
    with pytest.raises(ValueError, match="second must be a trained network"):
        GROWTH["recombination"].make(about)
    with pytest.raises(ValueError, match="x must hold inputs"):
        SHRINKING["selection"].make(dataclasses.replace(about, source=large, start=small))


def test_the_table_of_shrinking() -> None:
    for kind in (mlp, gpt):
        source, start = kind(2 * WIDTH[kind]), kind(seed=1)
        about = dataclasses.replace(given(source, start, kind), x=inputs(source))
        for method in SHRINKING.values():
            state = method.make(about)
            assert {n: t.shape for n, t in state.items()} == {
                n: t.shape for n, t in start.state_dict().items()
            }
