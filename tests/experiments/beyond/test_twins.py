"""beyond.twins: duplication keeps the function, Adam is torch's, the linearised update is that of a
neuron's potential and the limit of small noise."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rclib.data import images
from rclib.experiments.beyond import networks, plots_copying, twins
from rclib.nets.mlp import MLP
from rclib.training.classifier import train

SOURCE = networks.configuration(
    parametrization="MF", start="zero mean", width=6, seed=0, epochs=1, lr=0.5, batch_size=32,
    snapshots=[0, 1], keep=["*"],
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path_factory.getbasetemp() / "runs"))
    monkeypatch.setenv("TQDM_DISABLE", "1")


def data() -> images.Dataset:
    return images.load("digits").subset(64, 40)


def run(**changes: object) -> dict[str, np.ndarray]:
    options = {
        "source": SOURCE, "epoch": 1, "optimizer": "SGD", "lr": 1.0, "steps": 12, "every": 4,
        "batch_size": 16, "noise": 1e-3, "n_train": 48, "n_probe": 20,
    }  # fmt: skip
    return twins.twin_run(data(), **{**options, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("parametrization", ["MF", "muP", "SP"])
def test_duplication_keeps_the_function(parametrization: str) -> None:
    model = MLP(64, [5, 7], 10, parametrization=parametrization, seed=3)
    twice = twins.duplicated(model)
    x = data().x_test
    assert twice.sizes == (64, 10, 14, 10)
    assert torch.allclose(twice(x.double()), model(x).double(), atol=1e-5)


def test_noise_is_opposite_on_a_pair_and_leaves_the_function_to_first_order() -> None:
    model = twins.duplicated(MLP(64, 5, 10, seed=3))
    noise = twins.pair_noise(model, seed=1)
    assert torch.equal(noise["B1"][:5], -noise["B1"][5:])
    assert torch.equal(noise["W3"][:, :5], -noise["W3"][:, 5:])
    assert not noise["B3"].any()
    w2 = noise["W2"]
    # Row pairs and column pairs: no part is of opposite sign in both.
    both = w2[:5, :5] - w2[5:, :5] - w2[:5, 5:] + w2[5:, 5:]
    assert both.abs().max() < 1e-12
    assert float((w2[:5] - w2[5:]).std()) > 0
    x = data().x_test.double()
    moved = []
    for size in (1e-2, 1e-3):
        other = twins.duplicated(MLP(64, 5, 10, seed=3))
        state = {n: p.detach() + size * noise[n] for n, p in model.named_parameters()}
        other.load_state_dict(state)
        moved.append(float((other(x) - model(x)).detach().abs().max()))
    assert moved[0] / moved[1] == pytest.approx(100, rel=0.05)  # of second order


@pytest.mark.parametrize("optimizer", ["GD", "SGD", "Adam"])
def test_twins_without_noise_are_equal_for_ever_and_others_follow_the_linearised_update(
    optimizer: str,
) -> None:
    found = run(optimizer=optimizer, lr=0.01 if optimizer == "Adam" else 1.0, steps=40)
    assert found["exact"].max() < 1e-12
    assert found["loss"][-1] < found["loss"][0]
    assert found["distance"].shape == found["predicted"].shape == found["unlike"].shape == (11, 2)
    assert np.allclose(found["distance"] / found["predicted"], 1, rtol=2e-3)
    # There is something to predict: distances change by far more than that.
    assert np.abs(np.log(found["distance"][-1] / found["distance"][0])).max() > 0.02
    assert list(found["step"]) == list(range(0, 41, 4))


def test_the_linearised_update_is_that_of_a_neurons_potential() -> None:
    """φ of a neuron of the last hidden layer: signals below and errors above are the network's."""
    model = twins.duplicated(MLP(64, 5, 10, seed=3))
    x, y = data().x_train.double(), data().y_train
    noise = twins.pair_noise(model, seed=1)
    theta = {n: p.detach().clone() for n, p in model.named_parameters()}

    def loss(p: dict[str, Tensor]) -> Tensor:
        out: Tensor = cross_entropy(torch.func.functional_call(model, p, (x,)), y)
        return out

    dg = torch.func.jvp(torch.func.grad(loss), (theta,), (noise,))[1]
    zs, hs = model.forward_all(x)
    out = zs[-1].detach().requires_grad_()
    errors = torch.autograd.grad(cross_entropy(out, y), out)[0]
    h1 = hs[1].detach()

    def potential(row: Tensor, bias: Tensor, column: Tensor) -> Tensor:
        unit = torch.tanh(model.multiplier(2) * h1 @ row + bias)
        value: Tensor = model.multiplier(3) * (errors @ column * unit).sum()
        return value

    for i in (0, 3):
        # The pair of i moves in opposite directions: rows of W2 by their odd part alone.
        odd = (noise["W2"][i] - noise["W2"][i + 5]) / 2
        neuron = (theta["W2"][i], theta["B2"][i], theta["W3"][:, i])
        along = (odd, noise["B2"][i], noise["W3"][:, i])
        got = torch.func.jvp(torch.func.grad(potential, (0, 1, 2)), neuron, along)[1]
        wanted = ((dg["W2"][i] - dg["W2"][i + 5]) / 2, dg["B2"][i], dg["W3"][:, i])
        for one, other in zip(got, wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-14)
            assert float(other.abs().max()) > 1e-6


def test_steps_are_those_of_the_training_loop() -> None:
    found = run(optimizer="SGD", lr=0.7, steps=6, every=3, batch_size=16, n_train=48, noise=0.0)
    model = twins.duplicated(networks.network_at(data(), SOURCE, 1)).float()
    part = data().subset(48, 20)
    train(model, part, epochs=2, lr=0.7, batch_size=16, seed=SOURCE["seed"], progress=False)
    with torch.no_grad():
        loss = float(cross_entropy(model(part.x_train), part.y_train))
    assert found["loss"][-1] == pytest.approx(loss, rel=1e-5)


def test_adam_is_torchs() -> None:
    torch.manual_seed(0)
    theta = {"W1": torch.randn(4, dtype=torch.float64)}
    leaf = theta["W1"].clone().requires_grad_()
    peer = torch.optim.Adam([leaf], lr=0.02)
    rule = twins.step_rule("Adam", 0.01, {"W1": 2.0})
    memory: dict[str, Tensor] = {}
    for _ in range(5):
        g = 2 * theta["W1"] ** 3
        rule(theta, memory, {"W1": g}, None, {}, {})
        leaf.grad = 2 * leaf.detach() ** 3
        peer.step()
    assert torch.allclose(theta["W1"], leaf.detach(), rtol=1e-12)


def looks() -> pd.DataFrame:
    rows = [
        (name, seed, t, 0.1 * math.exp(rate * t), 0.1 * math.exp(rate * t), 2.0, 0.0, math.exp(-t))
        for name, rate in (("SGD", 0.1), ("Adam", 0.3))
        for seed in (0, 1)
        for t in (0, 1, 2)
    ]
    columns = ["optimizer", "seed", "step", "distance", "predicted", "unlike", "exact", "loss"]
    return pd.DataFrame(rows, columns=columns)


def test_growth() -> None:
    found = twins.growth(looks()).set_index(["optimizer", "seed"])
    assert found.measured["Adam", 0] == pytest.approx(0.6)
    assert found.predicted["SGD", 1] == pytest.approx(0.2)
    assert found.share["SGD", 0] == pytest.approx(0.05 * math.exp(0.2))
    assert found.rate["Adam", 1] == pytest.approx(0.3)


def test_figure_of_twins() -> None:
    figure = plots_copying.twin_curves(looks(), noise=0.01)
    left, middle, right = figure.axes
    assert np.min(left.lines[0].get_ydata()) == pytest.approx(0.05)
    assert np.max(middle.lines[2].get_ydata()) == pytest.approx(math.exp(0.6))
    assert list(right.lines[0].get_xdata()) == [0, 1, 2]  # type: ignore[arg-type]
    plt.close(figure)


def test_sweep_of_twins() -> None:
    frame = twins.sweep_twins(
        data(), parametrization="MF", rates={"SGD": 1.0, "Adam": 0.01}, seeds=[0, 1],
        source_lr=0.5, width=6, epochs=1, source_batch=32, steps=2, every=1, batch_size=16,
        noise=0.01, n_train=48, n_probe=20,
    )  # fmt: skip
    assert len(frame) == 2 * 2 * 3
    first = frame[(frame.optimizer == "SGD") & (frame.seed == 0)]
    other = twins.twin_run(
        data(), source=networks.configuration(
            parametrization="MF", start="zero mean", width=6, seed=0, epochs=1, lr=0.5,
            batch_size=32, snapshots=[0, 1], keep=["*"],
        ), epoch=1, optimizer="SGD", lr=1.0, steps=2, every=1, batch_size=16, noise=0.01,
        n_train=48, n_probe=20,
    )  # fmt: skip
    assert list(first.distance) == pytest.approx(list(np.sqrt((other["distance"] ** 2).mean(1))))
    assert list(first.loss) == pytest.approx(list(other["loss"]))
