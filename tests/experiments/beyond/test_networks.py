"""experiments.beyond.networks: starts against their definition, runs against training by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from rclib.data.images import Dataset, load
from rclib.experiments.beyond import networks
from rclib.nets.mlp import MLP
from rclib.training.classifier import train

OPTIONS: dict[str, Any] = {"lr": 0.1, "batch_size": 50, "epochs": 2, "snapshots": [0, 2]}


@pytest.fixture(scope="module")
def few() -> Dataset:
    return networks.load_images("digits", 150, 50)


def test_all_images_or_the_first_of_a_permutation(few: Dataset) -> None:
    whole = networks.load_images("digits")
    assert whole.description == load("digits").description
    assert few.checksum == whole.subset(150, 50).checksum


@pytest.mark.parametrize("name", ["MF", "muP", "SP"])
def test_n_1_3_is_one_more_in_the_kernel_of_every_layer(few: Dataset, name: str) -> None:
    """Kernel n m W: its mean is 1; the variance is three times that of the zero-mean start."""
    size = {"parametrization": name, "width": 300, "seed": 5}
    moved = networks.build(few, start="N(1, 3)", **size)
    centred = networks.build(few, start="zero mean", **size)
    for layer in (1, 2, 3):
        w, before = (m.get_parameter(f"W{layer}").detach() for m in (moved, centred))
        kernel = w.shape[1] * moved.multiplier(layer) * w.double()
        error = float(kernel.std()) / w.numel() ** 0.5
        assert float(kernel.mean()) == pytest.approx(1.0, abs=4 * error)
        assert float(w.var() / before.var()) == pytest.approx(3.0, rel=0.1)
        assert float(before.double().mean()) == pytest.approx(
            0.0, abs=4 * float(before.std()) / before.numel() ** 0.5
        )
    if name == "MF":  # the paper's words, for what follows a hidden layer
        w = moved.get_parameter("W2").detach()
        assert float(w.mean()) == pytest.approx(1.0, abs=0.03)
        assert float(w.var()) == pytest.approx(3.0, rel=0.03)


def test_zero_means_are_drawn_as_in_figure_4_1() -> None:
    size = {"d": 64, "width": 8, "classes": 10}
    assert {law.kind for law in networks.start_laws("MF", "zero mean", **size).values()} == {
        "uniform"
    }
    assert networks.start_laws("muP", "zero mean", **size)["hidden"].kind == "gaussian"
    with pytest.raises(ValueError, match="start must be one of"):
        networks.start_laws("MF", "another", **size)


def test_equal_repeats_of_two_widths_share_no_number() -> None:
    options = {"parametrization": "MF", "start": "zero mean", **OPTIONS}
    seeds = {
        networks.configuration(width=width, seed=seed, **options)["seed"]
        for width in (64, 128, 1024)
        for seed in range(5)
    }
    assert len(seeds) == 15


def test_a_run_is_a_training_by_hand_and_can_be_had_again(few: Dataset) -> None:
    options = {"parametrization": "muP", "start": "N(1, 3)", "width": 8, "seed": 3, **OPTIONS}
    config = networks.configuration(keep=["*"], **options)
    (run,) = networks.train_all(few, [config])
    laws = networks.start_laws("muP", "N(1, 3)", d=64, width=8, classes=10)
    assert laws["hidden"].mean == pytest.approx(1 / math.sqrt(8))
    model = MLP(64, 8, 10, parametrization="muP", init=laws, seed=config["seed"])
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(run[f"0/{name}"], tensor.numpy())
    train(model, few, epochs=2, lr=0.1, batch_size=50, seed=config["seed"], progress=False)
    assert run["train_loss"].shape == run["test_accuracy"].shape == (3,)
    again = networks.network_at(few, config, 2)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert networks.source_needed({"source": config}) == [(networks.train_network, config)]
    with pytest.raises(ValueError, match="kept nothing of epoch 1"):
        networks.network_at(few, config, 1)


def test_what_is_kept_is_what_was_asked_for(few: Dataset) -> None:
    config = networks.configuration(
        parametrization="MF", start="zero mean", width=6, seed=0, **OPTIONS
    )
    (run,) = networks.train_all(few, [config])
    assert {name for name in run if "/" in name} == {"0/W2", "2/W2"}
    with pytest.raises(ValueError, match=r"keep must name tensors .* got \['W9'\]"):
        networks.train_network(few, **{**config, "keep": ["W9"]})
