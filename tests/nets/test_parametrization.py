"""rclib.nets.parametrization: exponents against two widths, Yang and Hu's μP and the abc shift.

The first-step exponents are measured in test_coordinates.py.
"""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from rclib.nets.init import Init
from rclib.nets.mlp import MLP
from rclib.nets.parametrization import (
    LAYER_TYPES,
    PARAMETRIZATIONS,
    Parametrization,
    Power,
    Scaling,
    first_step_exponents,
    parametrization,
)
from rclib.training.classifier import make_step

# One parameter of a network of depth 3 for each layer type.
EXAMPLE = {"input": "W1", "hidden": "W2", "output": "W3", "bias": "B2", "output_bias": "B3"}


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
@pytest.mark.parametrize("name", list(PARAMETRIZATIONS))
def test_table_1_exponents_are_the_slopes_between_two_widths(name: str, layer_type: str) -> None:
    widths = (16, 128)
    parameter = EXAMPLE[layer_type]
    measured: dict[str, list[float]] = {"multiplier": [], "init": [], "sgd": [], "adam": []}
    for n in widths:
        # A constant start (mean 1, scale 0) shows the initial scale in the weights themselves.
        model = MLP(5, n, 3, parametrization=name, init=Init(mean=1.0, scale=0.0))
        weight = model.get_parameter(parameter)
        is_weight = parameter[0] == "W"
        measured["init"].append(float(weight.detach().mean()) if is_weight else 1.0)
        measured["multiplier"].append(model.multiplier(int(parameter[1])) if is_weight else 1.0)
        measured["sgd"].append(model.lr_factors("sgd")[parameter])
        measured["adam"].append(model.lr_factors("adam")[parameter])
    slopes = {
        field: math.log(large / small) / math.log(widths[1] / widths[0])
        for field, (small, large) in measured.items()
    }
    assert parametrization(name).exponents(layer_type) == pytest.approx(slopes, abs=1e-6)


def abc_invariants(name: str, layer_type: str) -> tuple[float, float]:
    """(a + b, 2 a + c) for W = n^-a w, w ~ n^-b, rate n^-c: unchanged by (θ, -θ, -2 θ)."""
    e = parametrization(name).exponents(layer_type)
    a, b, c = -e["multiplier"], -e["init"], -e["sgd"]
    return a + b, 2 * a + c


@pytest.mark.parametrize(
    ("name", "layer_type", "abc"),
    [
        # Yang and Hu (arXiv 2011.14522), the table of abc-parametrisations: (a, b, c) by layer.
        ("muP", "input", (-0.5, 0.5, 0.0)),
        ("muP", "hidden", (0.0, 0.5, 0.0)),
        ("muP", "output", (0.5, 0.5, 0.0)),
        ("SP", "input", (0.0, 0.0, 0.0)),
        ("SP", "hidden", (0.0, 0.5, 0.0)),
        ("SP", "output", (0.0, 0.5, 0.0)),
    ],
)
def test_abc_parametrisations_of_yang_and_hu(
    name: str, layer_type: str, abc: tuple[float, float, float]
) -> None:
    a, b, c = abc
    assert abc_invariants(name, layer_type) == (a + b, 2 * a + c)


def test_mean_field_differs_from_mup_in_the_hidden_noise_alone() -> None:
    for layer_type in ("input", "output", "bias", "output_bias"):
        mf, mup = (parametrization(name)[layer_type] for name in ("MF", "muP"))
        assert mf == mup
    scale, rate = abc_invariants("MF", "hidden")
    assert (scale, rate) == (1.0, abc_invariants("muP", "hidden")[1])
    assert abc_invariants("muP", "hidden")[0] == 0.5


def shifted_mean_field() -> Parametrization:
    """MF with the hidden multiplier 1/N moved into the weights: multiplier 1, scale 1/N."""
    mf = parametrization("MF")
    hidden = Scaling(
        multiplier=Power(),
        init=Power(-1.0),
        # v = w / N: SGD's step on v is 1/N² of that on w, Adam's 1/N.
        sgd=Power(-1.0, 1.0),
        adam=Power(-1.0, 0.0),
    )
    return replace(mf, name="shifted", scalings={**mf.scalings, "hidden": hidden})


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_shifting_the_hidden_multiplier_leaves_training_unchanged(optimizer: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (20,), generator=generator)
    models = [
        MLP(5, (12, 20, 8), 3, depth=4, parametrization=p, seed=2).double()
        for p in ("MF", shifted_mean_field())
    ]
    with torch.no_grad():  # float32 draws: divide by the width once more in float64
        for layer, n in ((2, 12), (3, 20)):
            models[1].get_parameter(f"W{layer}").copy_(models[0].get_parameter(f"W{layer}") / n)
    start = models[0](x).detach()
    for model in models:
        step = make_step(model, lr=0.3 if optimizer == "sgd" else 0.01, optimizer=optimizer)
        for _ in range(6):
            step(x, y)
    ends = [model(x).detach() for model in models]
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-9)
    assert (ends[0] - start).abs().max() > 0.05  # training went somewhere
    # The shifted table is μP's but for the initial noise (module docstring).
    mup = parametrization("muP")["hidden"]
    assert shifted_mean_field()["hidden"] == replace(mup, init=Power(-1.0))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("depth", [2, 3, 4, 7])
def test_mup_moves_every_layer_by_order_one(depth: int, optimizer: str) -> None:
    assert first_step_exponents("muP", depth, optimizer) == [0.0] * depth


def test_power_is_the_product_of_two_powers() -> None:
    assert Power(-0.5, 2.0)(16, 3) == pytest.approx(3**2 / math.sqrt(16))
    assert Power()(7, 9) == 1.0


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        *[("SP", "SP"), ("sp", "SP"), ("standard", "SP"), ("mf", "MF"), ("Mf", "MF")],
        *[("muP", "muP"), ("mup", "muP"), ("MUP", "muP"), ("μP", "muP"), ("µP", "muP")],
    ],
)
def test_spellings_of_the_names(spelling: str, name: str) -> None:
    found = parametrization(spelling)
    assert found is PARAMETRIZATIONS[name]
    assert parametrization(found) is found


def test_unknown_names_are_refused_with_the_value() -> None:
    with pytest.raises(ValueError, match=r"parametrization must be one of SP, MF, muP, got 'NTK'"):
        parametrization("NTK")
    with pytest.raises(ValueError, match=r"layer type must be one of .* got 'embedding'"):
        parametrization("MF")["embedding"]
    with pytest.raises(ValueError, match=r"layer type must be one of .* got 'W1'"):
        parametrization("MF").exponents("W1")
    with pytest.raises(ValueError, match=r"optimizer must be one of .* got 'lion'"):
        parametrization("MF")["input"].lr("lion")
    with pytest.raises(ValueError, match="depth must be at least 2, got 1"):
        first_step_exponents("MF", 1, "sgd")


def test_the_tables_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        PARAMETRIZATIONS["MF"].scalings["hidden"] = Scaling()  # type: ignore[index]
    with pytest.raises(TypeError):
        PARAMETRIZATIONS["MF"] = PARAMETRIZATIONS["SP"]  # type: ignore[index]


def test_first_step_exponents_refuse_an_unknown_optimizer() -> None:
    with pytest.raises(ValueError, match="foo"):
        first_step_exponents("MF", 3, "foo")


# Table 1 at a fan-in of 4 and a fan-out of 9: multiplier, initial scale, SGD's and Adam's factor.
FACTORS = {
    "SP": {
        **dict.fromkeys(("input", "hidden", "output"), (1.0, 1 / 2, 1.0, 1.0)),
        **dict.fromkeys(("bias", "output_bias"), (1.0, 1.0, 1.0, 1.0)),
    },
    "MF": {
        "input": (1 / 2, 1.0, 9.0, 1.0),
        "hidden": (1 / 4, 1.0, 36.0, 1.0),
        "output": (1 / 4, 1.0, 4.0, 1.0),
        "bias": (1.0, 1.0, 9.0, 1.0),
        "output_bias": (1.0, 1.0, 1.0, 1.0),
    },
    "muP": {
        "input": (1 / 2, 1.0, 9.0, 1.0),
        "hidden": (1.0, 1 / 2, 9 / 4, 1 / 4),
        "output": (1 / 4, 1.0, 4.0, 1.0),
        "bias": (1.0, 1.0, 9.0, 1.0),
        "output_bias": (1.0, 1.0, 1.0, 1.0),
    },
}


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
@pytest.mark.parametrize("name", list(PARAMETRIZATIONS))
def test_factors_of_unequal_fans_are_those_of_the_table(name: str, layer_type: str) -> None:
    scaling = parametrization(name)[layer_type]
    assert parametrization(name).name == name
    powers = (scaling.multiplier, scaling.init, scaling.lr("sgd"), scaling.lr("adam"))
    found = tuple(power(4, 9) for power in powers)
    assert found == pytest.approx(FACTORS[name][layer_type])


@pytest.mark.parametrize(
    ("name", "optimizer", "exponents"),
    [
        # SP: the error is N^-1/2 at every layer below the output; sums over N inputs are coherent.
        ("SP", "sgd", [-0.5, 0.5, 0.5, 1.0]),
        ("SP", "adam", [0.0, 1.0, 1.0, 1.0]),
        # MF: the error is 1/N at the last hidden layer and loses √N at each one below.
        ("MF", "sgd", [-1.0, -0.5, 0.0, 0.0]),
        ("MF", "adam", [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_first_step_exponents_by_hand(name: str, optimizer: str, exponents: list[float]) -> None:
    assert first_step_exponents(name, 4, optimizer) == pytest.approx(exponents)
    expected = [exponents[-2] - (0.5 if (name, optimizer) == ("MF", "sgd") else 0.0)]
    if name == "SP":  # the input layer has no sum that grows
        expected = [exponents[0]]
    shallow = first_step_exponents(name, 3, optimizer)
    assert shallow == pytest.approx([*expected, *exponents[2:]])


def test_a_bias_that_moves_faster_than_its_weights_sets_the_exponent() -> None:
    fast = Scaling(sgd=Power(0.0, 3.0), adam=Power(0.0, 2.0))
    table = Parametrization("fast", {**parametrization("MF").scalings, "bias": fast})
    # SGD's bias moves by N^(3 + error), with an error of N^-1 and N^-1.5; Adam's by N^2.
    assert first_step_exponents(table, 3, "sgd") == [1.5, 2.0, 0.0]
    assert first_step_exponents(table, 3, "adam") == [2.0, 2.0, 0.0]


def test_powers_at_the_ends_of_their_domain() -> None:
    assert Power(9.0, -9.0)(4, 2) == 512.0
    assert Power(2.0, 3.0)(1, 1) == 1.0
    assert Power(1.0, 0.0)(2**53, 1) == 2.0**53
    assert Power(0.0, -1.0)(1, 0.5) == 2.0
    assert type(Power(np.float64(0.5))(4, 1)) is float
    for bad in (9.5, -9.5, math.nan):
        with pytest.raises(ValueError, match=rf"fan_in_exponent must lie in \[-9, 9\], got {bad}"):
            Power(bad)
        with pytest.raises(ValueError, match=rf"fan_out_exponent must lie in .*, got {bad}"):
            Power(0.0, bad)
    for bad in (0, -1, 2**54, math.nan):
        shown = str(float(bad)).replace("+", r"\+")
        message = rf"must be positive and at most 2\^53, got {shown}"
        with pytest.raises(ValueError, match=f"fan_in {message}"):
            Power()(bad, 1)
        with pytest.raises(ValueError, match=f"fan_out {message}"):
            Power()(1, bad)


def test_tables_are_copied_and_pickled_but_not_changed() -> None:
    for name, table in PARAMETRIZATIONS.items():
        for other in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
            assert other == table
            assert parametrization(other) is other
            assert first_step_exponents(other, 3, "sgd") == first_step_exponents(name, 3, "sgd")
    table = parametrization("MF")
    with pytest.raises(FrozenInstanceError):
        table.name = "SP"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        table["input"].init = Power()  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        table["input"].init.fan_in_exponent = 1.0  # type: ignore[misc]


def test_refusals_list_what_there_is() -> None:
    for bad in ("embedding", 3, None):
        with pytest.raises(ValueError, match="layer type must be one of") as caught:
            parametrization("MF")[bad]  # type: ignore[index]
        assert all(repr(kind) in str(caught.value) for kind in LAYER_TYPES)
        assert str(caught.value).endswith(f"got {bad!r}")
    with pytest.raises(ValueError, match=r"optimizer must be one of \('sgd', 'adam'\), got 'SGD'"):
        first_step_exponents("MF", 3, "SGD")
    with pytest.raises(ValueError, match="depth must be a positive integer, got 2"):
        first_step_exponents("MF", 2.0, "sgd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fan_out must be a number, got 'x'"):
        Power()(1, "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fan_in must be a number, got 'x'"):
        Power()("x", 1)  # type: ignore[arg-type]


def test_first_step_exponents_of_weights_by_hand() -> None:
    # Biases that hardly move, so that the weights alone decide; SGD's rate and Adam's differ.
    still = Scaling(sgd=Power(0.0, -9.0), adam=Power(0.0, -9.0))
    table = Parametrization(
        "own",
        {
            "input": Scaling(sgd=Power(0.0, 2.0), adam=Power(0.0, 0.5)),
            "hidden": Scaling(Power(-0.5), Power(-0.25), Power(1.5), Power(0.25)),
            "output": Scaling(Power(-1.0), Power(0.5), Power(1.5), Power(0.75)),
            "bias": still,
            "output_bias": Scaling(),  # as many as outputs: no power of the width
        },
    )
    # Entries of m W: N^-0.5 at the output, N^-0.75 in the hidden layer. The error is N^0,
    # N^-0.5 below the output, and N^(-0.5 - 0.75 + 0.5) = N^-0.75 below the hidden layer.
    output = 2 * -1.0 + 1.5 + 0.0 + 1.0
    hidden = 2 * -0.5 + 1.5 - 0.5 + 1.0
    first = 0.0 + 2.0 - 0.75
    assert first_step_exponents(table, 3, "sgd") == pytest.approx([first, hidden, output])
    # Adam's step knows no error: multiplier + rate + 1, the first layer without the sum.
    adam = [0.5, -0.5 + 0.25 + 1.0, -1.0 + 0.75 + 1.0]
    assert first_step_exponents(table, 3, "adam") == pytest.approx(adam)


def test_an_exponent_that_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^fan_out_exponent must be a number, got 'x'"):
        Power(0.0, "x")  # type: ignore[arg-type]
