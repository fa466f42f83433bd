"""rclib.resizing.gpt: a grown network computes the same, its gradients scale as predicted."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rclib.nets.gpt import GPT
from rclib.resizing.gpt import gpt_maps, gradient_factors, move_gpt, move_moments, resize_gpt
from rclib.training.lm_recipe import Recipe, make_optimizer
from rclib.training.lm_state import adam_moments, set_adam_moments

SMALL: dict[str, Any] = {"blocks": 2, "context": 7, "vocabulary": 11, "head_size": 4}
KINDS = list(itertools.product(("layer", "rms"), ("learned", "rotary")))


def small(name: str = "MF", *, width: int = 8, **options: Any) -> GPT:
    model = GPT(width, parametrization=name, seed=3, **SMALL, **options).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # off the start, where gains are 1 and some biases 0
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model


def tokens(n: int = 4) -> Tensor:
    return torch.randint(11, (n, 8), generator=torch.Generator().manual_seed(0))


def loss(model: GPT, x: Tensor) -> Tensor:
    return functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())


@pytest.mark.parametrize(("norm", "positions"), KINDS)
@pytest.mark.parametrize("name", ["MF", "muP", "SP"])
def test_growing_by_a_whole_factor_keeps_the_function(name: str, norm: str, positions: str) -> None:
    model = small(name, norm=norm, positions=positions)
    x = tokens()[:, :-1]
    for width in (16, 24):
        grown = resize_gpt(model, width, replacement=False, seed=2)
        assert grown.width == width
        torch.testing.assert_close(grown(x), model(x), rtol=1e-10, atol=1e-12)
    if name == "MF":  # entries are copied as they are
        before, after = (m.get_parameter("blocks.0.Wup").detach() for m in (model, grown))
        assert set(after.flatten().tolist()) == set(before.flatten().tolist())


def test_shrinking_what_was_grown_by_copies_gives_it_back() -> None:
    model = small()
    grown = resize_gpt(model, 16, replacement=False, seed=0)
    x = tokens()[:, :-1]
    # Every other neuron of a sorted order: one copy of each.
    maps = gpt_maps(model, 16, replacement=False, seed=0)
    back = {
        place: torch.stack([(m == i).nonzero()[0, 0] for i in range(int(m.max()) + 1)])
        for place, m in maps.items()
    }
    torch.testing.assert_close(move_gpt(grown, 8, back)(x), model(x), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_sampling_error_falls_with_the_width_and_broken_indices_do_not() -> None:
    model = small(width=16, norm="rms")
    x = tokens()[:, :-1]
    target = model(x).detach()

    def error(width: int, rate: float) -> float:
        moved = [resize_gpt(model, width, random_rate=rate, seed=s) for s in range(4)]
        draws = [m(x).detach() for m in moved]
        return float(torch.stack([(d - target).square().mean() for d in draws]).mean().sqrt())

    assert error(512, 0.0) < 0.5 * error(32, 0.0)
    assert error(512, 1.0) > 2.0 * error(512, 0.0)


@pytest.mark.parametrize(("norm", "positions"), KINDS)
@pytest.mark.parametrize("name", ["MF", "muP", "SP"])
def test_gradient_factors_and_moments_of_a_grown_network(
    name: str, norm: str, positions: str
) -> None:
    model = small(name, norm=norm, positions=positions)
    x = tokens()
    maps = gpt_maps(model, 24, replacement=False, seed=5)
    grown = move_gpt(model, 24, maps)
    for one in (model, grown):
        loss(one, x).backward()
    gradients = {
        f"{key}/{n}": p.grad**power
        for n, p in model.named_parameters()
        if p.grad is not None
        for key, power in (("exp_avg", 1), ("exp_avg_sq", 2))
    }
    steps = {f"step/{n}": torch.tensor(3.0) for n in model.axes}
    moved = move_moments(model, gradients | steps, 24, maps)
    for n, p in grown.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(moved[f"exp_avg/{n}"], p.grad, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(moved[f"exp_avg_sq/{n}"], p.grad**2, rtol=1e-8, atol=1e-20)
        assert float(moved[f"step/{n}"]) == 3.0
    with pytest.raises(ValueError, match="moments must hold exp_avg of"):
        move_moments(model, steps, 24, maps)


def test_factors_by_hand() -> None:
    factors = gradient_factors(small("MF"), 24)
    third = pytest.approx(1 / 3)
    assert (factors["embedding"], factors["blocks.0.Bup"], factors["W"]) == (third, third, third)
    for name in ("Wq", "Wo", "Wup", "Wdown"):
        assert factors[f"blocks.1.{name}"] == pytest.approx(1 / 9)
    assert factors["B"] == 1.0
    assert gradient_factors(small("SP"), 24)["blocks.0.Wup"] == third
    assert gradient_factors(small("muP"), 4)["blocks.0.gain1"] == pytest.approx(2.0)


def test_training_goes_on_as_if_nothing_had_happened() -> None:
    # Under mean field Adam treats copies alike and has one rate at every width: the grown
    # network with moved means follows the small one step for step.
    model, x = small(norm="rms"), tokens()
    recipe = Recipe(steps=10, lr=0.01)

    def run(one: GPT, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = group["base"]
            value = loss(one, x)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(float(value.detach()))
        return losses

    optimizer = make_optimizer(model, recipe)
    run(model, optimizer, 5)
    maps = gpt_maps(model, 16, replacement=False, seed=1)
    grown = move_gpt(model, 16, maps)
    other = make_optimizer(grown, recipe)
    set_adam_moments(grown, other, move_moments(model, adam_moments(model, optimizer), 16, maps))
    fresh = move_gpt(model, 16, maps)
    expected = run(model, optimizer, 5)
    assert run(grown, other, 5) == pytest.approx(expected, rel=1e-6)
    assert run(fresh, make_optimizer(fresh, recipe), 5) != pytest.approx(expected, rel=1e-4)
