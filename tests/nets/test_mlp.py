"""rclib.nets.mlp: the networks of paper A's examples written out, and the laws of their start."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats

from rclib.nets.init import ACTIVATIONS, Init
from rclib.nets.mlp import MLP

PLAIN = {
    "tanh": math.tanh,
    "relu": lambda z: max(z, 0.0),
    "softplus": lambda z: float(np.logaddexp(0.0, z)),
    "identity": lambda z: z,
}


def arrays(model: MLP) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


def probe(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_example_1_1_3_layer_mean_field_network(activation: str) -> None:
    d, n1, n2, classes = 4, 5, 6, 3
    model = MLP(d, (n1, n2), classes, activation=activation, seed=3).double()
    p, sigma = arrays(model), PLAIN[activation]
    x = probe(3, d)
    for row, f in zip(x.numpy(), model(x).detach().numpy(), strict=True):
        h1 = [
            sigma(sum(p["W1"][j, k] * row[k] for k in range(d)) / math.sqrt(d) + p["B1"][j])
            for j in range(n1)
        ]
        h2 = [
            sigma(sum(p["W2"][i, j] * h1[j] for j in range(n1)) / n1 + p["B2"][i])
            for i in range(n2)
        ]
        for c in range(classes):
            value = sum(p["W3"][c, i] * h2[i] for i in range(n2)) / n2 + p["B3"][c]
            assert f[c] == pytest.approx(value, rel=1e-12, abs=1e-14)


def test_example_1_2_2_layer_mean_field_network() -> None:
    d, n, classes = 4, 9, 2
    model = MLP(d, n, classes, depth=2, seed=1).double()
    p, x = arrays(model), probe(5, d)
    expected = np.zeros((5, classes))
    for i in range(n):  # an average over neurons of one function of (W2[:, i], W1[i], B1[i])
        neuron = np.tanh(x.numpy() @ p["W1"][i] / math.sqrt(d) + p["B1"][i])
        expected += np.outer(neuron, p["W2"][:, i]) / n
    np.testing.assert_allclose(model(x).detach().numpy(), expected + p["B2"], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "first", "middle", "last"),
    [("SP", "1", "1", "1"), ("muP", "1/sqrt(d)", "1", "1/n"), ("MF", "1/sqrt(d)", "1/n", "1/n")],
)
def test_multipliers_of_the_parametrisations(name: str, first: str, middle: str, last: str) -> None:
    d, widths = 5, (6, 7, 8)
    value = {"1": lambda n: 1.0, "1/n": lambda n: 1 / n, "1/sqrt(d)": lambda n: 1 / math.sqrt(n)}
    model = MLP(d, widths, 3, depth=4, parametrization=name, seed=2).double()
    p, x = arrays(model), probe(4, d)
    z = value[first](d) * x.numpy() @ p["W1"].T + p["B1"]
    for layer, fan_in, kind in ((2, 6, middle), (3, 7, middle), (4, 8, last)):
        z = value[kind](fan_in) * np.tanh(z) @ p[f"W{layer}"].T + p[f"B{layer}"]
    np.testing.assert_allclose(model(x).detach().numpy(), z, rtol=1e-11)


def test_without_bias_and_with_one_matrix() -> None:
    x = probe(3, 4)
    model = MLP(4, 5, 2, depth=2, bias="none", parametrization="SP").double()
    p = arrays(model)
    assert set(p) == {"W1", "W2"}
    expected = np.tanh(x.numpy() @ p["W1"].T) @ p["W2"].T
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-12)
    linear = MLP(4, (), 2, depth=1, parametrization="MF").double()
    expected = x.numpy() @ arrays(linear)["W1"].T / 2.0 + arrays(linear)["B1"]
    np.testing.assert_allclose(linear(x).detach().numpy(), expected, rtol=1e-12)


def test_intermediate_values_belong_together() -> None:
    model = MLP(4, (5, 6), 3, activation="softplus").double()
    x = probe(7, 4)
    zs, hs = model.forward_all(x)
    assert [tuple(z.shape) for z in zs] == [(7, 5), (7, 6), (7, 3)]
    assert hs[0] is x
    for z, h in zip(zs, hs[1:], strict=False):
        expected = special.log1p(np.exp(z.detach().numpy()))
        np.testing.assert_allclose(h.detach().numpy(), expected, rtol=1e-12)
    assert torch.equal(zs[-1], model(x))
    assert all(torch.equal(a, b) for a, b in zip(zs, model.preactivations(x), strict=True))


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_law_of_the_initial_weights(kind: str) -> None:
    law = Init(kind=kind, mean=0.5, scale=2.0)
    root3 = math.sqrt(3.0)
    reference = stats.norm() if kind == "gaussian" else stats.uniform(-root3, 2 * root3)
    for name, fan_in in (("MF", 1), ("SP", 60)):
        model = MLP(9, (60, 70), 4, parametrization=name, init=law, seed=5)
        entries = arrays(model)["W2"].ravel() * math.sqrt(fan_in)
        assert stats.kstest((entries - 0.5) / 2.0, reference.cdf).pvalue > 1e-3
        assert not stats.kstest(entries, reference.cdf).pvalue > 1e-3  # the law does matter


def test_initial_scales_of_the_parametrisations() -> None:
    # Root mean square of the entries: 1 for order-one layers, 1/√(fan-in) otherwise.
    shrinking = {"SP": {"W1", "W2", "W3"}, "muP": {"W2"}, "MF": set()}
    fan_in = {"W1": 40, "W2": 90, "W3": 160}
    for name, small in shrinking.items():
        model = MLP(40, (90, 160), 50, parametrization=name, init=Init("gaussian"))
        for weight, n in fan_in.items():
            size = float(model.get_parameter(weight).detach().square().mean().sqrt())
            expected = n**-0.5 if weight in small else 1.0
            assert size == pytest.approx(expected, rel=0.06), (name, weight)


def test_signals_at_the_start_against_the_width() -> None:
    # Mean field: a hidden sum of N independent terms over N, of order 1/√N; μP keeps order one.
    x = probe(30, 10).float()
    sizes = {}
    for name in ("MF", "muP"):
        for n in (64, 1024):
            z = MLP(10, n, 3, parametrization=name, bias="none", seed=1).preactivations(x)
            sizes[name, n] = [float(t.detach().square().mean().sqrt()) for t in z]
    slope = {
        name: np.log(np.divide(sizes[name, 1024], sizes[name, 64])) / math.log(16)
        for name in ("MF", "muP")
    }
    assert slope["MF"][:2] == pytest.approx([0.0, -0.5], abs=0.1)
    assert slope["muP"] == pytest.approx([0.0, 0.0, -0.5], abs=0.15)


def test_laws_by_layer_type() -> None:
    laws = {"input": Init(mean=1.0, scale=0.0), "hidden": Init(mean=2.0, scale=0.0)}
    p = arrays(MLP(3, 40, 10, init=laws))
    assert np.all(p["W1"] == 1.0)
    assert np.all(p["W2"] == 2.0)
    assert p["W3"].std() == pytest.approx(1.0, abs=0.1)  # not named: zero mean, unit variance


def test_start_of_the_biases() -> None:
    law = Init("gaussian", mean=0.7, scale=0.5)
    random = arrays(MLP(3, 2000, 10, depth=2, bias_init=law))
    assert stats.kstest((random["B1"] - 0.7) / 0.5, "norm").pvalue > 1e-3
    constant = arrays(MLP(3, (4, 5), 10, bias="constant", bias_init=law))
    assert np.all(constant["B1"] == np.float32(0.7))
    assert np.all(constant["B2"] == np.float32(0.7))
    assert np.all(random["B2"] == 0.0)
    assert np.all(constant["B3"] == 0.0)


def test_same_seed_same_network() -> None:
    first, again, other = (arrays(MLP(5, 8, 3, seed=s)) for s in (4, 4, 5))
    torch.manual_seed(99)
    after = arrays(MLP(5, 8, 3, seed=4))  # torch's global state does not enter
    for name, value in first.items():
        assert np.array_equal(value, again[name])
        assert np.array_equal(value, after[name])
        assert name == "B3" or not np.array_equal(value, other[name])


def test_building_a_network_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    MLP(5, 8, 3)
    assert torch.equal(torch.rand(3), expected)


def test_learning_rate_factors_by_layer() -> None:
    d, n1, n2 = 5, 6, 7
    mf = MLP(d, (n1, n2), 3).lr_factors("sgd")
    assert mf == {"W1": n1, "B1": n1, "W2": n1 * n2, "B2": n2, "W3": n2, "B3": 1}
    mup = MLP(d, (n1, n2), 3, parametrization="muP")
    assert mup.lr_factors("sgd")["W2"] == pytest.approx(n2 / n1)
    assert mup.lr_factors("adam")["W2"] == pytest.approx(1 / n1)
    assert set(MLP(d, (n1, n2), 3, parametrization="SP").lr_factors().values()) == {1.0}


def test_layer_types() -> None:
    model = MLP(3, 4, 2, depth=4)
    kinds = {name: model.layer_type(name) for name, _ in model.named_parameters()}
    assert [kinds[f"W{i}"] for i in (1, 2, 3, 4)] == ["input", "hidden", "hidden", "output"]
    assert [kinds[f"B{i}"] for i in (1, 2, 3, 4)] == ["bias"] * 3 + ["output_bias"]


@pytest.mark.parametrize("name", ["SP", "MF", "muP"])
def test_fan_in_exponents_are_those_of_the_multipliers(name: str) -> None:
    a, b = (MLP(7, n, 3, parametrization=name) for n in (8, 64))
    exponents = a.fan_in_exponents()
    for layer in (2, 3):
        slope = math.log(b.multiplier(layer) / a.multiplier(layer)) / math.log(64 / 8)
        assert -exponents[f"W{layer}"] == pytest.approx(slope)
    # The input layer: the same rule against the number of inputs.
    slope = math.log(MLP(28, 8, 3, parametrization=name).multiplier(1) / a.multiplier(1))
    assert -exponents["W1"] == pytest.approx(slope / math.log(4))


def test_like_takes_over_weights_and_options() -> None:
    model = MLP(4, 5, 3, depth=2, parametrization="muP", activation="relu", bias="constant", seed=3)
    copy = model.like(5, model.state_dict())
    x = probe(6, 4).float()
    assert torch.equal(copy(x), model(x))
    wide = model.like(9)
    assert wide.sizes == (4, 9, 3)
    assert (wide.parametrization, wide.activation, wide.bias) == (
        model.parametrization,
        "relu",
        "constant",
    )
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.like(9, model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": 0}, "d must be a positive integer, got 0"),
        ({"d": 2.5}, r"d must be a positive integer, got 2\.5"),
        ({"classes": -1}, "classes must be a positive integer, got -1"),
        ({"width": -3}, "width must be a positive integer, got -3"),
        ({"width": True}, "width must be a positive integer, got True"),
        ({"width": (4, 0)}, "width must be a positive integer, got 0"),
        ({"width": (4,)}, r"width must list 2 hidden widths, got \(4,\)"),
        ({"depth": 0}, "depth must be a positive integer, got 0"),
        ({"depth": 2.0}, r"depth must be a positive integer, got 2\.0"),
        ({"activation": "gelu"}, "activation must be one of .* got 'gelu'"),
        ({"bias": True}, "bias must be one of .* got True"),
        ({"parametrization": "NTP"}, "parametrization must be one of .* got 'NTP'"),
    ],
)
def test_bad_arguments_are_named_with_their_value(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"d": 4, "width": 5, "classes": 3, **change}
    with pytest.raises(ValueError, match=message):
        MLP(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "normal"}, "init kind must be 'uniform' or 'gaussian', got 'normal'"),
        ({"mean": float("nan")}, "init mean must be finite, got nan"),
        ({"scale": -1.0}, r"init scale must be finite and not negative, got -1\.0"),
        ({"scale": float("inf")}, "init scale must be finite and not negative, got inf"),
    ],
)
def test_bad_laws_are_named_with_their_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Init(**change)


def test_a_network_can_be_copied_and_pickled() -> None:
    model = MLP(4, 6, 3, parametrization="muP", seed=3)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.parametrization == model.parametrization
        assert torch.equal(copied(torch.ones(2, 4)), model(torch.ones(2, 4)))


def test_like_keeps_the_dtype() -> None:
    assert MLP(4, 6, 3).double().like(8).W1.dtype == torch.float64


def test_unknown_layer_type_of_a_law_is_refused() -> None:
    with pytest.raises(ValueError, match="hiden"):
        MLP(4, 6, 3, init={"hiden": Init()})
