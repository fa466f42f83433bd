"""rclib.experiments.mean_field.mlp_runs: stored runs against the same steps made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rclib.data.images import Dataset, load
from rclib.experiments.mean_field.mlp_runs import (
    build_mlp,
    configuration,
    restore,
    train_mlp,
    transferred_run,
    zero_shot,
)
from rclib.nets.init import Init
from rclib.nets.mlp import MLP
from rclib.resizing import mlp
from rclib.training.classifier import evaluate, train

SOURCE = configuration(
    width=12, seed=3, epochs=3, lr=0.3, batch_size=30, snapshots=[0, 2], keep=["*"]
)


@pytest.fixture(scope="module")
def few() -> Dataset:
    return load("digits").subset(300, 80)


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def own_store(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Shared within this file, so that the source network is trained once.
    monkeypatch.setenv("RCLIB_CACHE", str(store_folder))


# Networks and configurations -------------------------------------------------------------------


def test_a_description_builds_the_network_it_says(few: Dataset) -> None:
    law: dict[str, Any] = {"kind": "gaussian", "mean": 0.5, "scale": 2.0}
    network = {"width": 6, "depth": 2, "parametrization": "muP", "init": law, "bias_init": law}
    built = build_mlp(few, network, seed=4)
    direct = MLP(
        64, 6, 10, depth=2, parametrization="muP", init=Init(**law), bias_init=Init(**law), seed=4
    )
    assert built.sizes == (64, 6, 10)
    assert all(torch.equal(direct.state_dict()[n], p) for n, p in built.state_dict().items())
    assert network["width"] == 6  # the description is left as it was


def test_a_description_with_one_law_a_layer_type(few: Dataset) -> None:
    laws = {"hidden": {"mean": 3.0, "scale": 0.0}, "output": {"kind": "gaussian"}}
    state = build_mlp(few, {"width": 50, "init": laws}, seed=0).state_dict()
    assert bool((state["W2"] == 3.0).all())
    assert float(state["W3"].abs().max()) > 3**0.5 > float(state["W1"].abs().max())


def test_a_configuration_is_plain_json_and_runs(few: Dataset) -> None:
    c = configuration(
        width=4, seed=1, epochs=1, lr=0.1, batch_size=50, snapshots=(1,), keep=("W2",), bias="none"
    )
    assert json.loads(json.dumps(c)) == c
    assert c["network"] == {"width": 4, "bias": "none"}
    assert train_mlp(few, **c)["test_loss"].shape == (2,)


# Trained networks ------------------------------------------------------------------------------


def test_a_run_is_the_training_it_describes(few: Dataset) -> None:
    found = train_mlp(few, **SOURCE)
    model = build_mlp(few, SOURCE["network"], seed=3)
    history = train(model, few, epochs=3, lr=0.3, batch_size=30, seed=3, snapshots=[2])
    for name in ("train_loss", "test_loss", "test_accuracy"):
        assert np.array_equal(found[name], getattr(history, name).numpy())
    for name, tensor in history.snapshots[2].items():
        assert np.array_equal(found[f"2/{name}"], tensor.numpy())
    assert {key.split("/")[0] for key in found if "/" in key} == {"0", "2"}


def test_mean_vectors_of_a_run(few: Dataset) -> None:
    found = train_mlp(few, **SOURCE)
    for epoch in (0, 2):
        w1, w2, w3 = (found[f"{epoch}/{name}"].astype(float) for name in ("W1", "W2", "W3"))
        by_hand = {
            "x/W1.R": w1.mean(0),
            "h1/W1.C": w1.mean(1),
            "h1/B1": found[f"{epoch}/B1"],
            "h1/W2.R": w2.mean(0),
            "h2/W2.C": w2.mean(1),
            "h2/B2": found[f"{epoch}/B2"],
            "h2/W3.R": w3.mean(0),
            "y/W3.C": w3.mean(1),
            "y/B3": found[f"{epoch}/B3"],
        }
        names = {key[len("0/mean/") :] for key in found if key.startswith(f"{epoch}/mean/")}
        assert names == set(by_hand)
        for name, vector in by_hand.items():
            np.testing.assert_allclose(found[f"{epoch}/mean/{name}"], vector, atol=1e-12)


def test_only_the_tensors_asked_for_are_kept(few: Dataset) -> None:
    found = train_mlp(few, **{**SOURCE, "epochs": 2, "keep": ["W2"]})
    whole = train_mlp(few, **SOURCE)
    assert {k for k in found if "/" in k and "/mean/" not in k} == {"0/W2", "2/W2"}
    assert np.array_equal(found["2/W2"], whole["2/W2"])


def test_same_seed_same_arrays(few: Dataset) -> None:
    first, again = train_mlp(few, **SOURCE), train_mlp(few, **SOURCE)
    other = train_mlp(few, **{**SOURCE, "seed": 4})
    assert first.keys() == again.keys()
    for name, value in first.items():
        assert np.array_equal(value, again[name]), name
    assert not np.array_equal(first["test_loss"], other["test_loss"])


def test_restored_networks_are_those_of_the_run(few: Dataset, store_folder: Path) -> None:
    for epoch in (0, 2):
        model, run = restore(few, SOURCE, epoch)
        loss, accuracy = evaluate(model, few.x_test, few.y_test)
        assert loss == pytest.approx(float(run["test_loss"][epoch]), rel=1e-6)
        assert accuracy == pytest.approx(float(run["test_accuracy"][epoch]))
    stored = list(store_folder.rglob("*.safetensors"))
    assert stored  # in the folder of this test and nowhere else
    before = {path: path.stat().st_mtime_ns for path in stored}
    again, _ = restore(few, SOURCE, 2)
    assert {p: p.stat().st_mtime_ns for p in store_folder.rglob("*.safetensors")} == before
    assert all(torch.equal(again.state_dict()[n], p) for n, p in model.state_dict().items())


def test_an_epoch_that_was_not_kept_is_refused(few: Dataset) -> None:
    with pytest.raises(ValueError, match="the source run kept no 'W1' after epoch 1"):
        restore(few, SOURCE, 1)
    part = {**SOURCE, "keep": ["W1", "B1"]}
    with pytest.raises(ValueError, match="the source run kept no 'W2' after epoch 2"):
        restore(few, part, 2)


# Transfers -------------------------------------------------------------------------------------


def follow(data: Dataset, **change: Any) -> dict[str, np.ndarray]:
    options: dict[str, Any] = {
        "source": SOURCE,
        "epoch": 2,
        "width": 30,
        "random_rate": 0.0,
        "norm_rate": 1.0,
        "epochs": 4,
    }
    return transferred_run(data, **{**options, **change})


@pytest.mark.parametrize(("rate", "norm", "width"), [(0.0, 1.0, 30), (0.5, 1.3, 5)])
def test_a_transferred_run_by_hand(few: Dataset, rate: float, norm: float, width: int) -> None:
    found = follow(few, random_rate=rate, norm_rate=norm, width=width)
    small, _ = restore(few, SOURCE, 2)
    large = mlp.resize(small, width, random_rate=rate, norm_rate=norm, seed=3)
    loss, accuracy = evaluate(large, few.x_test, few.y_test)
    assert (found["test_loss"][0], found["test_accuracy"][0]) == pytest.approx((loss, accuracy))
    assert found["test_loss"].shape == (4 - 2 + 1,)
    history = train(large, few, epochs=2, lr=0.3, batch_size=30, seed=2003, progress=False)
    assert np.array_equal(found["test_loss"], history.test_loss.numpy())
    assert np.array_equal(found["train_loss"], history.train_loss.numpy())
    # Copies: rows of W1 with one source, against the first of them.
    source = mlp.resize_maps(small, width, random_rate=rate, seed=3)["W1", 0].tolist()
    w1 = large.get_parameter("W1").detach().double().numpy()
    apart = np.stack([w1[j] - w1[source.index(source[j])] for j in range(width)])
    expected = np.sqrt((apart**2).mean() / (w1**2).mean())
    assert float(found["copy_spread"]) == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_copies_stay_copies_until_the_index_is_broken(few: Dataset) -> None:
    assert float(follow(few, epochs=2, random_rate=0.5)["copy_spread"]) == 0.0  # not yet trained
    whole = float(follow(few)["copy_spread"])
    broken = float(follow(few, random_rate=0.5)["copy_spread"])
    assert whole < 1e-5
    assert broken > 100 * max(whole, 1e-5)


def test_training_after_a_transfer_sees_other_batches_than_before(few: Dataset) -> None:
    source = {**SOURCE, "snapshots": [0, 2]}
    late = follow(few, source=source, epoch=0, epochs=1, width=12)
    order = train_mlp(few, **SOURCE)["train_loss"]
    assert late["train_loss"][1] != order[1]
    # Transferred at the start (epoch 0): a sample of i.i.d. weights trains like any other.
    assert late["test_loss"][1] < late["test_loss"][0]


def zero(data: Dataset, **change: Any) -> dict[str, np.ndarray]:
    options: dict[str, Any] = {"source": SOURCE, "epoch": 2, "widths": [12, 60], "draws": 3}
    return zero_shot(data, **{**options, **change})


def test_zero_shot_losses_by_hand(few: Dataset) -> None:
    found = zero(few, random_rates=[0.0, 0.5], norm_rates=[1.0, 0.8])
    small, run = restore(few, SOURCE, 2)
    target = small(few.x_test).detach()
    assert found["loss"].shape == found["accuracy"].shape == found["distance"].shape == (2, 2, 2, 3)
    for a, width in enumerate((12, 60)):
        for b, r1 in enumerate((0.0, 0.5)):
            for c, r2 in enumerate((1.0, 0.8)):
                for draw in range(3):
                    moved = mlp.resize(small, width, random_rate=r1, norm_rate=r2, seed=draw)
                    expected = evaluate(moved, few.x_test, few.y_test)
                    at = (a, b, c, draw)
                    assert (found["loss"][at], found["accuracy"][at]) == pytest.approx(expected)
                    gap = (moved(few.x_test).detach() - target).numpy()
                    assert found["distance"][at] == pytest.approx(
                        np.sqrt((gap**2).mean()), rel=1e-5
                    )
    assert float(found["source_loss"]) == float(run["test_loss"][2])
    assert float(found["source_accuracy"]) == float(run["test_accuracy"][2])
    assert float(found["start_loss"]) == float(run["test_loss"][0])


def test_zero_shot_of_the_first_draw_is_where_a_transferred_run_starts(few: Dataset) -> None:
    # A transferred run draws with the source's seed, here 3: the fourth draw.
    losses = zero(few, widths=[30], draws=4)["loss"][0, 0, 0]
    assert follow(few, epochs=2)["test_loss"][0] == pytest.approx(losses[3], rel=1e-6)
    assert len(set(losses)) == 4


@pytest.mark.parametrize("parametrization", ["MF", "muP", "SP"])
def test_one_neuron_can_only_be_copied(few: Dataset, parametrization: str) -> None:
    # Width 1: every draw picks the same neuron, so growing is exact at every random rate.
    source = configuration(
        width=1,
        seed=0,
        epochs=1,
        lr=0.05,
        batch_size=30,
        snapshots=[1],
        keep=["*"],
        parametrization=parametrization,
    )
    found = zero(
        few, source=source, epoch=1, widths=[1, 9], draws=2, random_rates=[0.0, 1.0],
        norm_rates=[1.0, 1.5],
    )  # fmt: skip
    exact, scaled = found["distance"][:, :, 0], found["distance"][:, :, 1]
    assert np.all(exact < 1e-5)
    assert np.all(scaled > 1e-3)
    np.testing.assert_allclose(found["loss"][:, :, 0], found["source_loss"], rtol=1e-5)


def test_more_neurons_and_a_shared_index_bring_the_function_closer(few: Dataset) -> None:
    found = zero(few, widths=[12, 600], draws=6, random_rates=[0.0, 1.0])
    error = np.sqrt((found["distance"] ** 2).mean(-1))[:, :, 0]
    assert error[1, 0] < 0.4 * error[0, 0]  # sampling error shrinks with the width ...
    assert error[1, 1] > 3 * error[1, 0]  # ... but not what breaking the index does


def test_distance_to_a_reference_network(few: Dataset) -> None:
    other = {**SOURCE, "seed": 8}
    found = zero(few, widths=[30], draws=1, reference=other)
    small, target = restore(few, SOURCE, 2)[0], restore(few, other, 2)[0]
    moved = mlp.resize(small, 30, seed=0)
    gap = (moved(few.x_test) - target(few.x_test)).detach().numpy()
    assert float(found["distance"].item()) == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-5)
    own = zero(few, widths=[30], draws=1)
    assert np.array_equal(found["loss"], own["loss"])  # the reference is for the distance alone
    assert not np.array_equal(found["distance"], own["distance"])


def test_bad_transfers_are_refused(few: Dataset) -> None:
    with pytest.raises(ValueError, match=r"random_rate must lie in \[0, 1\], got 2\.0"):
        zero(few, random_rates=[2.0])
    with pytest.raises(ValueError, match=r"norm_rate must be positive and finite, got -1\.0"):
        follow(few, norm_rate=-1.0)
    with pytest.raises(ValueError, match="target size of 'h1' must be a positive integer, got 0"):
        follow(few, width=0)
    with pytest.raises(ValueError, match="epochs must be at least the transfer epoch"):
        follow(few, epochs=1)
