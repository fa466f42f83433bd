"""training.backprop.

Gradients by formula, autograd and finite differences; steps by torch's SGD.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rclib.nets.mlp import MLP
from rclib.training.backprop import gradients, sgd_step

CASES = list(
    itertools.product(
        ["tanh", "relu", "softplus", "identity"],
        ["SP", "MF", "muP"],
        [("none", 2), ("random", 3), ("constant", 4)],
    )
)


def batch(n: int = 6, d: int = 4, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=generator)


def network(activation: str, parametrization: str, bias: str, depth: int) -> MLP:
    return MLP(
        4,
        [5, 7, 6][: depth - 1],
        3,
        depth=depth,
        activation=activation,
        parametrization=parametrization,
        bias=bias,
        seed=depth,
    ).double()


@pytest.mark.parametrize(("activation", "name", "shape"), CASES)
def test_gradients_against_autograd(activation: str, name: str, shape: tuple[str, int]) -> None:
    model = network(activation, name, *shape)
    x, y = batch()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    value, found = gradients(model, x, y)
    assert float(value) == pytest.approx(loss.item(), rel=1e-12)
    assert found.keys() == dict(model.named_parameters()).keys()
    for parameter, p in model.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(found[parameter], p.grad, rtol=1e-7, atol=1e-13)
        assert p.grad.abs().max() > 0


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus", "identity"])
def test_gradients_against_finite_differences(activation: str) -> None:
    # The loss itself in plain numpy, so that neither torch nor its autograd takes part.
    model = network(activation, "MF", "random", 3)
    x, y = batch()
    sigmas: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "tanh": np.tanh,
        "relu": lambda z: np.maximum(z, 0.0),
        "softplus": lambda z: np.asarray(np.logaddexp(0.0, z)),
        "identity": lambda z: z,
    }
    sigma = sigmas[activation]
    values = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}

    def loss() -> float:
        h = x.numpy() / math.sqrt(4)
        for layer, scale in ((1, 1.0), (2, 1 / 5), (3, 1 / 7)):
            z = scale * h @ values[f"W{layer}"].T + values[f"B{layer}"]
            h = sigma(z)
        highest = z.max(1, keepdims=True)
        log_sum = highest[:, 0] + np.log(np.exp(z - highest).sum(1))
        return float(np.mean(log_sum - z[np.arange(len(y)), y.numpy()]))

    _, found = gradients(model, x, y)
    step = 1e-5
    for name, array in values.items():
        numeric = np.empty_like(array)
        for at in np.ndindex(*array.shape):
            kept = array[at]
            array[at] = kept + step
            above = loss()
            array[at] = kept - step
            numeric[at] = (above - loss()) / (2 * step)
            array[at] = kept
        np.testing.assert_allclose(found[name].numpy(), numeric, rtol=1e-5, atol=1e-9, err_msg=name)


def test_analytic_gradients_of_the_3_layer_network() -> None:
    # Paper A, Example 1.1, differentiated by hand, one summand at a time.
    model = network("tanh", "MF", "random", 3)
    x, y = batch()
    p = {name: value.detach().numpy() for name, value in model.named_parameters()}
    d, n1, n2, size = 4, 5, 7, len(x)
    expected = {name: np.zeros_like(value) for name, value in p.items()}
    for row, label in zip(x.numpy(), y.numpy(), strict=True):
        h1 = np.tanh(p["W1"] @ row / math.sqrt(d) + p["B1"])
        h2 = np.tanh(p["W2"] @ h1 / n1 + p["B2"])
        f = p["W3"] @ h2 / n2 + p["B3"]
        error = np.exp(f) / np.exp(f).sum() - np.eye(3)[label]  # ∂ loss / ∂ f
        for i in range(n2):
            own = (1 - h2[i] ** 2) * (error @ p["W3"][:, i]) / n2
            expected["W3"][:, i] += error * h2[i] / n2 / size
            expected["B2"][i] += own / size
            for j in range(n1):
                expected["W2"][i, j] += own * h1[j] / n1 / size
                below = (1 - h1[j] ** 2) * own * p["W2"][i, j] / n1
                expected["B1"][j] += below / size
                expected["W1"][j] += below * row / math.sqrt(d) / size
        expected["B3"] += error / size
    _, found = gradients(model, x, y)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-10, atol=1e-15, err_msg=name)


@pytest.mark.parametrize(("activation", "name", "shape"), CASES)
def test_steps_against_torch_sgd(activation: str, name: str, shape: tuple[str, int]) -> None:
    model = network(activation, name, *shape)
    reference = network(activation, name, *shape)
    rates = {p: 0.02 * (k + 1) for k, (p, _) in enumerate(model.named_parameters())}
    groups = [{"params": [p], "lr": rates[key]} for key, p in reference.named_parameters()]
    optimizer = torch.optim.SGD(groups, lr=0.0)
    for k in range(5):
        x, y = batch(seed=k)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(reference(x), y)
        loss.backward()
        optimizer.step()
        before = sgd_step(model, x, y, rates)
        assert float(before) == pytest.approx(loss.item(), rel=1e-10)  # the loss before the step
    for key, p in reference.named_parameters():
        torch.testing.assert_close(model.get_parameter(key), p, rtol=1e-8, atol=1e-12)


def test_every_parameter_takes_its_own_rate() -> None:
    x, y = batch()
    for moving in ("W1", "B1", "W2", "B2", "W3", "B3"):
        model = network("tanh", "MF", "random", 3)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        rates = {name: 0.5 * (name == moving) for name in before}
        _, gradient = gradients(model, x, y)
        sgd_step(model, x, y, rates)
        for name, p in model.named_parameters():
            expected = before[name] - rates[name] * gradient[name]
            torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=1e-15)


def test_a_step_adds_one_outer_product_a_point() -> None:
    # W2(t) = W2(0) + g(row variables, column variables): after T single points, rank T.
    model = MLP(4, 30, 3, seed=1).double()
    start = model.get_parameter("W2").detach().clone()
    x, y = batch(n=4)
    for k in range(4):
        sgd_step(model, x[k : k + 1], y[k : k + 1], model.lr_factors())
        values = torch.linalg.svdvals(model.get_parameter("W2").detach() - start)
        assert values[k] > 1e-6 * values[0]
        assert values[k + 1] < 1e-12 * values[0]


def test_asking_for_gradients_changes_nothing() -> None:
    model = network("tanh", "MF", "random", 3)
    before = copy.deepcopy(model.state_dict())
    x, y = batch()
    kept = x.clone()
    gradients(model, x, y)
    assert torch.equal(x, kept)
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_logits_far_apart_do_not_overflow() -> None:
    model = network("identity", "SP", "random", 2)
    x, y = batch()
    loss, found = gradients(model, 1e4 * x, y)
    reference = nn.functional.cross_entropy(model(1e4 * x), y)
    assert float(loss) == pytest.approx(reference.item())
    assert all(bool(torch.isfinite(g).all()) for g in found.values())
