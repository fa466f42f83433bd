"""experiments.mean_field.coordinates.

Slopes, the sizes of one network by hand, Table 1 measured.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from rclib.data.images import Dataset
from rclib.experiments.mean_field.coordinates import coordinate_check
from rclib.experiments.mean_field.mlp_runs import build_mlp
from rclib.nets.parametrization import first_step_exponents, parametrization
from rclib.stats.slopes import slope
from rclib.training.backprop import gradients

OPTIONS: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "steps": [1, 3], "batch_size": 16}


def test_slope_of_a_power() -> None:
    x = [8, 32, 100, 1000]
    assert slope(x, [3.0 * v**-1.5 for v in x]) == pytest.approx(-1.5)
    # With noise: the least-squares solution of the normal equations.
    y = [1.0, 0.7, 0.2, 0.3]
    u, v = np.log(x), np.log(y)
    expected = ((u - u.mean()) * (v - v.mean())).sum() / ((u - u.mean()) ** 2).sum()
    assert slope(x, y) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("x", "y"), [([1.0], [1.0]), ([1, 2], [0.0, 1.0]), ([1, 2], [1.0]), ([1, 2], [1.0, math.nan])]
)
def test_slope_needs_positive_pairs(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="need at least two positive pairs, got x = "):
        slope(x, y)


@pytest.mark.parametrize("bias", ["random", "none"])
def test_one_step_by_hand(digits: Dataset, bias: str) -> None:
    # W(1) - W(0) = -η c ∇W, so the layer's own update needs no training at all.
    network = {"width": 12, "parametrization": "muP", "bias": bias}
    found = coordinate_check(digits, network=network, seed=5, **OPTIONS)
    model = build_mlp(digits, network, seed=5).double()
    generator = torch.Generator().manual_seed(5)
    probe = digits.x_test[torch.randperm(len(digits.x_test), generator=generator)[:64]].double()
    batch = torch.randint(len(digits.x_train), (16,), generator=generator)
    _, gradient = gradients(model, digits.x_train[batch].double(), digits.y_train[batch])
    factors = model.lr_factors("sgd")
    h, sizes, moves = probe.numpy(), [], []
    for layer in (1, 2, 3):
        m = model.multiplier(layer)
        w = model.get_parameter(f"W{layer}").detach().numpy()
        dz = -0.1 * factors[f"W{layer}"] * m * h @ gradient[f"W{layer}"].numpy().T
        z = m * h @ w.T
        if bias != "none":
            dz = dz - 0.1 * factors[f"B{layer}"] * gradient[f"B{layer}"].numpy()
            z = z + model.get_parameter(f"B{layer}").detach().numpy()
        sizes.append(math.sqrt((z**2).mean()))
        moves.append(math.sqrt((dz**2).mean()))
        h = np.tanh(z)
    np.testing.assert_allclose(found["start"], sizes, rtol=1e-9)
    np.testing.assert_allclose(found["update"][0], moves, rtol=1e-7)


def test_changes_in_all_and_of_one_layer(digits: Dataset) -> None:
    found = coordinate_check(digits, network={"width": 12}, seed=1, **OPTIONS)
    assert found["start"].shape == (3,)
    assert found["change"].shape == found["update"].shape == (2, 3)
    # The first layer has nothing below it: its change is its own update.
    np.testing.assert_allclose(found["change"][:, 0], found["update"][:, 0], rtol=1e-9)
    assert np.all(np.abs(found["change"][:, 1] / found["update"][:, 1] - 1) > 1e-3)
    assert np.all(found["update"][1] > found["update"][0])


def test_rows_are_the_steps_of_one_run(digits: Dataset) -> None:
    both = coordinate_check(digits, network={"width": 8}, seed=1, **OPTIONS)
    for row, steps in enumerate(([1], [3])):
        one = coordinate_check(digits, network={"width": 8}, seed=1, **{**OPTIONS, "steps": steps})
        assert np.array_equal(one["update"][0], both["update"][row])
        assert np.array_equal(one["change"][0], both["change"][row])


def test_same_seed_same_numbers(digits: Dataset) -> None:
    first, again, other = (
        coordinate_check(digits, network={"width": 8}, seed=s, **OPTIONS) for s in (2, 2, 3)
    )
    for name, value in first.items():
        assert np.array_equal(value, again[name])
        assert not np.array_equal(value, other[name])


@pytest.mark.parametrize("steps", [[], [0, 1], [3, 1], [2, 2]])
def test_steps_must_increase_from_one(digits: Dataset, steps: list[int]) -> None:
    with pytest.raises(ValueError, match="steps must be increasing and positive, got"):
        coordinate_check(digits, network={"width": 4}, seed=0, **{**OPTIONS, "steps": steps})


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["SP", "MF", "muP"])
def test_table_1_first_updates_scale_as_the_exponents_say(
    digits: Dataset, name: str, optimizer: str
) -> None:
    widths, seeds = (128, 1024), (0, 1)
    rms = np.zeros((len(widths), 3))
    for row, n in enumerate(widths):
        for seed in seeds:
            found = coordinate_check(
                digits,
                network={"width": n, "parametrization": name},
                seed=seed,
                optimizer=optimizer,
                lr=1e-3,
                steps=[1],
                batch_size=32,
            )
            rms[row] += found["update"][0] / len(seeds)
    measured = [slope(widths, rms[:, layer].tolist()) for layer in range(3)]
    assert measured == pytest.approx(first_step_exponents(name, 3, optimizer), abs=0.12)


@pytest.mark.slow
def test_first_updates_of_a_deep_mean_field_network(digits: Dataset) -> None:
    # Each hidden layer below the last two loses another √N in the error (zero-mean start).
    predicted = first_step_exponents("MF", 5, "sgd")
    assert predicted == [-1.5, -1.0, -0.5, 0.0, 0.0]
    mean_square = {n: np.zeros(5) for n in (64, 512)}
    for n, total in mean_square.items():
        for seed in range(6):  # one draw of the error path alone spreads the slopes by 0.1
            total += (
                coordinate_check(
                    digits,
                    network={"width": n, "depth": 5},
                    seed=seed,
                    optimizer="sgd",
                    lr=1e-3,
                    steps=[1],
                    batch_size=32,
                )["update"][0]
                ** 2
            )
    measured = 0.5 * np.log(mean_square[512] / mean_square[64]) / math.log(512 / 64)
    np.testing.assert_allclose(measured, predicted, atol=0.12)


@pytest.mark.slow
def test_start_scales_as_multiplier_and_initial_scale_say(digits: Dataset) -> None:
    # A sum over N independent zero-mean terms: exponent mult + init + 1/2.
    for name in ("SP", "MF", "muP"):
        size = {}
        for n in (128, 1024):
            size[n] = np.mean(
                [
                    coordinate_check(
                        digits,
                        network={"width": n, "parametrization": name, "bias": "none"},
                        seed=s,
                        **{**OPTIONS, "steps": [1]},
                    )["start"]
                    for s in range(2)
                ],
                axis=0,
            )
        hidden = parametrization(name).exponents("hidden")
        predicted = hidden["multiplier"] + hidden["init"] + 0.5
        measured = np.log(size[1024] / size[128]) / math.log(8)
        assert measured[0] == pytest.approx(0.0, abs=0.1)
        assert measured[1] == pytest.approx(predicted, abs=0.1)
