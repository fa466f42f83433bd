"""training.stacked_backprop: the written-out gradient of a stack against autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

from rclib.nets.conv import ConvNet
from rclib.nets.mlp import MLP
from rclib.nets.stack import Stack, stack
from rclib.training import stacked_backprop as written
from rclib.training.stacked import epoch_batches, train_stack


@pytest.mark.parametrize("parametrization", ["SP", "MF", "muP"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "identity"])
@pytest.mark.parametrize(("widths", "bias"), [([12, 7], "random"), ([9], "none"), ([], "constant")])
def test_gradients_are_those_of_autograd(
    parametrization: str, activation: str, widths: list[int], bias: str
) -> None:
    options: dict[str, Any] = {
        "depth": len(widths) + 1, "parametrization": parametrization, "activation": activation,
        "bias": bias,
    }  # fmt: skip
    models = [MLP(6, widths, 4, seed=s, **options).double() for s in range(3)]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 11, 6, generator=generator, dtype=torch.double)
    y = torch.randint(4, (3, 11), generator=generator)
    start = stack(models)
    layers = written.layers_of(start.one, cross_entropy)
    assert layers is not None
    losses, found = written.gradients(layers, start.tensors, x, y)
    assert set(found) == set(start.tensors)
    for place, one in enumerate(models):
        loss = cross_entropy(one(x[place]), y[place])
        loss.backward()  # type: ignore[no-untyped-call]
        assert torch.allclose(losses[place], loss, rtol=1e-12)
        for name, p in one.named_parameters():
            assert p.grad is not None
            assert torch.allclose(found[name][place], p.grad, rtol=1e-10, atol=1e-14)


def test_other_losses_and_networks_are_left_to_autograd() -> None:
    plain = stack([MLP(6, 5, 4, depth=2)])
    assert written.layers_of(plain.one, cross_entropy) is not None
    assert written.layers_of(plain.one, mse_loss) is None
    assert (
        written.layers_of(stack([MLP(6, 5, 4, depth=2, activation="softplus")]).one, cross_entropy)
        is None
    )
    conv = stack([ConvNet(side=8, channels=[4, 4], widths=[5], classes=3)])
    assert written.layers_of(conv.one, cross_entropy) is None
    assert written.layers_of(lambda tensors, x: x, cross_entropy) is None


def test_training_is_that_of_a_loss_that_is_not_known() -> None:
    """The same loss under another name takes the way through autograd."""
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(40, 6, generator=generator), torch.randint(4, (40,), generator=generator)
    start = stack([MLP(6, [12, 7], 4, seed=s, activation="relu") for s in range(3)])
    batch = epoch_batches(x, y, batch_size=12, seeds=range(3))
    shared: dict[str, Any] = {"steps": 30, "lr": 0.05, "optimizer": "adam", "frozen": ["B2"]}
    end, found = train_stack(start, batch, cross_entropy, **shared)
    other, same = train_stack(
        start, batch, lambda out, labels: cross_entropy(out, labels), **shared
    )
    assert torch.allclose(found["loss"], same["loss"], rtol=1e-4)
    for name, tensor in end.tensors.items():
        assert torch.allclose(tensor, other.tensors[name], rtol=1e-3, atol=1e-5)


def test_a_loss_may_come_with_its_slope() -> None:
    """Squares with their slope written out, against autograd on the same loss."""
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(3, 20, d, generator=generator) for d in (6, 4))
    start = stack([MLP(6, [12, 7], 4, seed=s, activation="tanh") for s in range(3)])
    layers = written.layers_of(start.one, cross_entropy)
    assert layers is not None

    def slope(out: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (out - wanted).square().mean((1, 2)), (out - wanted) * (2 / 80)

    def known(tensors: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
        return written.gradients(layers, tensors, x, y, slope)

    shared: dict[str, Any] = {"steps": 20, "lr": 0.1, "own": "xy", "frozen": ["W2"]}
    end, found = train_stack(start, lambda _: (x, y), mse_loss, written=known, **shared)
    other, same = train_stack(start, lambda _: (x, y), mse_loss, **shared)
    assert torch.allclose(found["loss"], same["loss"], rtol=1e-5)
    for name, tensor in end.tensors.items():
        assert torch.allclose(tensor, other.tensors[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("wrong", ["", "loss", "gradient of W2"])
def test_a_written_gradient_is_held_against_autograd_at_the_first_step(wrong: str) -> None:
    start = stack([MLP(6, 5, 4, depth=2, seed=s, bias="none") for s in range(2)])
    layers = written.layers_of(start.one, cross_entropy)
    assert layers is not None
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 9, 6, generator=generator)
    y = torch.randint(4, (2, 9), generator=generator)

    def given(tensors: Any, x: Any, y: Any) -> Any:
        losses, found = written.gradients(layers, tensors, x, y)
        if wrong == "loss":
            return losses * 1.01, found
        return losses, {**found, "W2": found["W2"] * (1.01 if wrong else 1.0)}

    def train() -> Any:
        return train_stack(
            start, lambda _: (x, y), cross_entropy, steps=3, lr=0.1, own="xy", written=given
        )

    if wrong:
        with pytest.raises(ValueError, match=f"written gives another {wrong} than autograd"):
            train()
        return
    alone, _ = train_stack(start, lambda _: (x, y), cross_entropy, steps=3, lr=0.1, own="xy")
    for name, tensor in train()[0].tensors.items():
        assert torch.equal(tensor, alone.tensors[name])


@pytest.mark.parametrize("way", ["autograd", "written"])
@pytest.mark.parametrize("columns", [(1, 4), (64, 1)])
def test_products_with_vectors_give_a_member_the_bits_it_has_among_others(
    way: str, columns: tuple[int, int]
) -> None:
    """One feature, or one output: alone, torch takes such products by other code."""
    features, outputs = columns
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(3, 40, features, generator=generator)
    y = torch.randn(3, 40, outputs, generator=generator)
    start = stack([MLP(features, [100, 64], outputs, seed=s) for s in range(3)])
    layers = written.layers_of(start.one, cross_entropy)
    assert layers is not None

    def known(tensors: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
        size = x.shape[1] * outputs
        return written.gradients(
            layers, tensors, x, y,
            lambda out, wanted: ((out - wanted).square().mean((1, 2)), (out - wanted) * (2 / size)),
        )  # fmt: skip

    options: dict[str, Any] = {"steps": 5, "lr": 0.05, "optimizer": "adam", "own": "xy"}
    options["written"] = known if way == "written" else None
    end, _ = train_stack(start, lambda _: (x, y), mse_loss, **options)
    out = end(x, own=True)
    for s in range(3):
        one = Stack({name: t[s : s + 1] for name, t in start.tensors.items()}, start.one)
        alone, _ = train_stack(one, lambda _, s=s: (x[[s]], y[[s]]), mse_loss, **options)
        for name, tensor in alone.member(0).items():
            assert torch.equal(tensor, end.member(s)[name])
        assert torch.equal(alone(x[[s]], own=True)[0], out[s])
