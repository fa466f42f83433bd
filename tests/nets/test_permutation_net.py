"""nets.permutation_net: gradient descent on unit vectors, against autograd and its limits."""

from __future__ import annotations

import math

import pytest
import torch

from rclib.nets.permutation_net import Networks, start, train_all, train_last


def drawn(count: int, k: int, width: int, **options: object) -> Networks:
    generators = [torch.Generator().manual_seed(s) for s in range(count)]
    return start(k, width, generators=generators, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("scaling", ["NTK", "MF"])
@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_training_is_gradient_descent_of_autograd(scaling: str, activation: str) -> None:
    k, width, rate, steps = 4, 12, 0.7, 6
    nets = drawn(2, k, width, scaling=scaling, activation=activation)
    targets = torch.eye(k, dtype=torch.float64)[torch.tensor([2, 0, 3, 1])]
    found = train_all(nets, targets, rate=rate, steps=steps)
    for s in range(2):
        W1 = nets.W1[s].clone().requires_grad_()
        W2 = nets.W2[s].clone().requires_grad_()
        factor = 1 / math.sqrt(width) if scaling == "NTK" else 1 / width
        eta = rate if scaling == "NTK" else rate * width
        for _ in range(steps):
            hidden = torch.eye(k, dtype=torch.float64) @ W1.T / math.sqrt(k)
            hidden = hidden.relu() if activation == "relu" else hidden
            loss = 0.5 * (factor * hidden @ W2.T - targets.T).square().sum()
            one, two = torch.autograd.grad(loss, (W1, W2))
            with torch.no_grad():
                W1 -= eta * one
                W2 -= eta * two
        torch.testing.assert_close(found.W1[s], W1.detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close(found.W2[s], W2.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(nets.W1, drawn(2, k, width).W1)  # the start is as it was


def test_a_trained_last_layer_is_where_descent_ends() -> None:
    k, width = 3, 40
    nets = drawn(2, k, width)
    targets = torch.eye(k, dtype=torch.float64)[torch.tensor([1, 2, 0])]
    found = train_last(nets, targets)
    unit = torch.eye(k, dtype=torch.float64)
    A = nets.factor * nets.hidden(unit)
    W2 = nets.W2.clone()
    for _ in range(20_000):
        W2 -= 0.5 * (W2 @ A.mT - targets) @ A
    torch.testing.assert_close(found.W2, W2, rtol=0, atol=1e-8)
    torch.testing.assert_close(found(unit), targets.T.expand(2, k, k), rtol=0, atol=1e-12)
    assert torch.equal(found.W1, nets.W1)


def test_a_start_without_output_is_zero_and_a_member_is_that_of_its_generator() -> None:
    x = torch.rand(5, 3, dtype=torch.float64)
    assert torch.equal(drawn(2, 3, 8, zero_last=True)(x), torch.zeros(2, 5, 3).double())
    both, second = drawn(2, 3, 8), start(3, 8, generators=[torch.Generator().manual_seed(1)])
    torch.testing.assert_close(both(x)[1:], second(x))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="scaling must be one of"):
        drawn(1, 3, 8, scaling="SP")
    with pytest.raises(ValueError, match="activation must be one of"):
        drawn(1, 3, 8, activation="tanh")
    with pytest.raises(ValueError, match="rate must be positive"):
        train_all(drawn(1, 3, 8), torch.eye(3).double(), rate=0.0, steps=1)
