"""resizing.methods: what each way to change the width keeps and draws anew."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rclib.nets.gpt import GPT, build_gpt
from rclib.nets.init import Init
from rclib.resizing.methods import METHODS, change_width, copy_spread
from rclib.training.lm_recipe import Recipe, make_optimizer
from rclib.training.lm_state import adam_moments

SMALL: dict[str, Any] = {"blocks": 2, "context": 7, "vocabulary": 11, "head_size": 4, "norm": "rms"}


def small(width: int = 8, *, seed: int = 3, **options: Any) -> GPT:
    """A network away from its start by outer products, as the ansatz has it, and a bit more."""
    model = GPT(width, seed=seed, **(SMALL | options)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model


def tokens(n: int = 4) -> Tensor:
    return torch.randint(11, (n, 8), generator=torch.Generator().manual_seed(0))


def loss(model: GPT, x: Tensor) -> Tensor:
    return functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())


def logits(model: GPT) -> Tensor:
    return model(tokens()[:, :-1]).detach()


@pytest.mark.parametrize("name", ["MF", "muP", "SP"])
@pytest.mark.parametrize("method", ["duplication", "duplication, new entries"])
def test_duplication_keeps_the_function(method: str, name: str) -> None:
    model = small(parametrization=name)
    for width in (16, 24):
        grown = change_width(model, width, method=method, seed=2).model
        torch.testing.assert_close(logits(grown), logits(model), rtol=1e-10, atol=1e-12)


def test_new_entries_break_the_symmetry_of_copies_and_nothing_else_does() -> None:
    model, x = small(), tokens()
    spread = {}
    for method in METHODS[:5]:
        grown = change_width(model, 32, method=method, seed=0)
        assert grown.maps is not None
        assert copy_spread(grown.model, grown.maps) == 0.0  # a neuron variable: copied
        loss(grown.model, x).backward()
        with torch.no_grad():  # one step of gradient descent
            for p in grown.model.parameters():
                assert p.grad is not None
                p -= 100.0 * p.grad
        spread[method] = copy_spread(grown.model, grown.maps)
    assert spread["RC sampling"] < 1e-12
    assert spread["duplication"] < 1e-12
    for method in ("RC sampling, r1 = 1", "RC sampling, new entries", "duplication, new entries"):
        assert spread[method] > 1e-3


def test_copy_spread_by_hand() -> None:
    model = small(8, vocabulary=2)
    maps = {("embedding", 0): torch.tensor([0, 1, 2, 3, 4, 5, 6, 0])}
    with torch.no_grad():
        model.get_parameter("embedding").fill_(1.0)
        model.get_parameter("embedding")[7] = torch.tensor([4.0, 5.0])
    rms = math.sqrt((14 + 16 + 25) / 16)
    assert copy_spread(model, maps) == pytest.approx(math.sqrt((9 + 16) / 2) / rms)
    assert math.isnan(copy_spread(model, {("embedding", 0): torch.arange(8)}))


@pytest.mark.parametrize("start", ["zero mean", "mean one"])
def test_new_entries_are_the_learned_part_and_a_new_start(start: str) -> None:
    law = Init("gaussian", mean=float(start == "mean one"), scale=2.0)
    model = small(init=law)
    old = build_gpt(model.options())
    grown = change_width(model, 32, method="RC sampling, new entries", seed=4)
    assert grown.maps is not None
    plain = change_width(model, 32, method="RC sampling", seed=4)
    for name in model.axes:
        new = grown.model.get_parameter(name).detach()
        if model.layer_type(name) != "hidden":
            assert torch.equal(new, plain.model.get_parameter(name).detach())
            continue
        learned = (model.get_parameter(name) - old.get_parameter(name).double()).detach()
        for axis in range(learned.ndim):
            if (name, axis) in grown.maps:
                learned = learned.index_select(axis, grown.maps[name, axis])
        noise = new - learned  # what is drawn anew: i.i.d. with the law of the start
        n = noise.numel()
        assert abs(float(noise.mean()) - law.mean) < 5 * 2.0 / math.sqrt(n)
        assert abs(float(noise.std()) - 2.0) < 5 * 2.0 / math.sqrt(2 * n)
        assert len(noise.flatten().unique()) == n
        again = noise.flatten()[:, None] == old.get_parameter(name).detach().double().flatten()
        assert not bool(again.any())  # no entry of the source's own start comes back


def test_noise_of_new_entries_vanishes_with_the_width() -> None:
    model = small(16)

    def error(width: int) -> float:
        draws = [
            change_width(model, width, method="RC sampling, new entries", seed=s).model
            for s in range(3)
        ]
        # Against the same neurons without the entries' noise, drawn at a large width.
        return float(
            torch.stack([(logits(d) - target).square().mean() for d in draws]).mean().sqrt()
        )

    learned = change_width(model, 16, method="duplication", seed=0).model
    start = build_gpt(model.options()).double()
    with torch.no_grad():
        for name in model.axes:
            if model.layer_type(name) == "hidden":
                maps = change_width(model, 16, method="duplication", seed=0).maps
                assert maps is not None
                own = start.get_parameter(name)
                for axis in range(own.ndim):
                    if (name, axis) in maps:
                        own = own.index_select(axis, maps[name, axis])
                learned.get_parameter(name).sub_(own)
    target = logits(learned)
    assert error(512) < 0.5 * error(64)


@pytest.mark.parametrize("name", ["MF", "muP", "SP"])
def test_random_growth_keeps_what_old_neurons_send(name: str) -> None:
    model = small(parametrization=name)
    grown = change_width(model, 16, method="random growth", seed=5).model
    start = model.like(16, seed=5 + 1_000_003)
    for label in model.axes:
        old, new = model.get_parameter(label), grown.get_parameter(label)
        corner = tuple(slice(n) for n in old.shape)
        # m' W' = m W in the corner, the initial law elsewhere.
        ratio = 1.0
        if model.layer_type(label) in ("input", "hidden", "output"):
            ratio = model.multiplier(label) / grown.multiplier(label)
        torch.testing.assert_close(new[corner], ratio * old)
        rest = torch.ones_like(new, dtype=torch.bool)
        rest[corner] = False
        assert torch.equal(new[rest], start.get_parameter(label)[rest])
    with pytest.raises(ValueError, match="width must be at least the source's 8"):
        change_width(model, 4, method="random growth")


def test_random_growth_without_use_of_new_neurons_is_the_old_function() -> None:
    # Silence the new neurons: embeddings, incoming weights and biases zero. What is left is the
    # old network, but for the norm's mean over twice as many neurons.
    model = small()
    grown = change_width(model, 16, method="random growth", seed=0).model
    n = {"stream": 8, "mlp": 32, "head": 2}
    with torch.no_grad():
        for label, axes in model.axes.items():
            p = grown.get_parameter(label)
            for axis, index in enumerate(axes):
                size = n.get(index.partition(".")[0])
                if size is None or (axis == p.ndim - 1 and p.ndim > 1):
                    continue
                if label.rpartition(".")[2].startswith("gain"):
                    p /= math.sqrt(2.0)  # the mean over 16 is half of that over 8
                else:
                    p.index_fill_(axis, torch.arange(size, p.shape[axis]), 0.0)
    torch.testing.assert_close(logits(grown), logits(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_moments_are_moved_with_the_weights(method: str) -> None:
    model, x = small(), tokens()
    optimizer = make_optimizer(model, Recipe(steps=3, lr=0.01))
    for _ in range(3):
        optimizer.zero_grad()
        loss(model, x).backward()
        optimizer.step()
    moments = adam_moments(model, optimizer)
    grown = change_width(model, 16, method=method, moments=moments, seed=1)
    assert set(grown.moments) == set(moments)
    for label, tensor in grown.moments.items():
        kind, _, name = label.partition("/")
        if kind == "step":
            assert float(tensor) == 3.0
        else:
            assert tensor.shape == grown.model.get_parameter(name).shape
    assert change_width(model, 16, method=method, seed=1).moments == {}
    if method == "random growth":
        # Old weights have W' = 2 W (m' = m / 2), so their gradients are half of what they were.
        up = grown.moments["exp_avg/blocks.0.Wup"]
        torch.testing.assert_close(up[:32, :8], moments["exp_avg/blocks.0.Wup"] / 2)
        assert not up[32:].any()
        assert not up[:, 8:].any()
        square = grown.moments["exp_avg_sq/W"]
        torch.testing.assert_close(square[:, :8], moments["exp_avg_sq/W"] / 4)


def test_refusals() -> None:
    model = small()
    with pytest.raises(ValueError, match="method must be one of RC sampling"):
        change_width(model, 16, method="magic")
    with pytest.raises(ValueError, match="multiple of head_size"):
        change_width(model, 18)
    with pytest.raises(ValueError, match="moments must hold"):
        change_width(model, 16, moments={"exp_avg/embedding": torch.zeros(1)})
