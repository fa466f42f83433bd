"""training.classifier.

Against loops written with torch and numpy, scikit-learn's losses, repeated runs.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from rclib.data.images import Dataset, load
from rclib.nets.mlp import MLP
from rclib.training.classifier import DivergedError, History, evaluate, make_step, train


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    return digits.subset(150, 60)


def network(width: int = 16, **options: Any) -> MLP:
    return MLP(64, width, 10, **{"seed": 1, **options})


def run(data: Dataset, model: MLP | None = None, **options: Any) -> History:
    settings: dict[str, Any] = {"epochs": 2, "lr": 0.2, "batch_size": 32, "progress": False}
    return train(model or network(), data, **{**settings, **options})


def test_losses_and_accuracy_against_scikit_learn(digits: Dataset) -> None:
    model = network()
    p = torch.softmax(model(digits.x_test).detach().double(), 1).numpy()
    loss, accuracy = evaluate(model, digits.x_test, digits.y_test)
    assert loss == pytest.approx(log_loss(digits.y_test, p, labels=range(10)), rel=1e-5)
    assert accuracy == accuracy_score(digits.y_test, p.argmax(1))
    # Batches of unequal length must not change the mean.
    for size in (7, 359, 360, 5000):
        split = evaluate(model, digits.x_test, digits.y_test, batch_size=size)
        assert split == pytest.approx((loss, accuracy), rel=1e-5)


def test_evaluating_refuses_unequal_or_empty_sets() -> None:
    model = network()
    with pytest.raises(ValueError, match="x and y must be equally long and not empty, got 3 and 2"):
        evaluate(model, torch.zeros(3, 64), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="got 0 and 0"):
        evaluate(model, torch.zeros(0, 64), torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize("name", ["SP", "MF", "muP"])
def test_training_against_a_plain_torch_loop(few: Dataset, name: str) -> None:
    # p ← p - η c_p ∇_p (1/B) Σ ℓ over the batches of one seeded permutation an epoch.
    few = replace(few, x_train=few.x_train.double(), x_test=few.x_test.double())
    model = network(parametrization=name).double()
    reference = network(parametrization=name).double()
    history = run(few, model, epochs=2, lr=0.1, batch_size=32, seed=9)
    factors = reference.lr_factors("sgd")
    optimizer = torch.optim.SGD(
        [{"params": [p], "lr": 0.1 * factors[n]} for n, p in reference.named_parameters()], lr=0.0
    )
    generator = torch.Generator().manual_seed(9)
    losses = []
    for _ in range(2):
        order = torch.randperm(150, generator=generator)
        for first in range(0, 150, 32):  # the last batch holds 22
            batch = order[first : first + 32]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(reference(few.x_train[batch]), few.y_train[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    np.testing.assert_allclose(history.batch_loss, losses, rtol=1e-5)
    for key, p in reference.named_parameters():
        torch.testing.assert_close(model.get_parameter(key), p, rtol=1e-6, atol=1e-9)
    end = evaluate(reference, few.x_test, few.y_test)
    assert float(history.test_loss[-1]) == pytest.approx(end[0], rel=1e-6)
    assert float(history.test_accuracy[-1]) == pytest.approx(end[1])


def test_adam_steps_against_the_formula(few: Dataset) -> None:
    # m ← β1 m + (1 - β1) g, v ← β2 v + (1 - β2) g², p ← p - η c m̂ / (√v̂ + ε)  (Kingma, Ba 2015).
    model = network(parametrization="muP").double()
    reference = network(parametrization="muP").double()
    step = make_step(model, lr=0.01, optimizer="adam")
    factors = reference.lr_factors("adam")
    first = {n: torch.zeros_like(p) for n, p in reference.named_parameters()}
    second = {n: torch.zeros_like(p) for n, p in reference.named_parameters()}
    for t in range(1, 5):
        some = slice(10 * t, 10 * t + 10)
        x, y = few.x_train[some].double(), few.y_train[some]
        loss = nn.functional.cross_entropy(reference(x), y)
        gradient = torch.autograd.grad(loss, list(reference.parameters()))
        assert float(step(x, y)) == pytest.approx(loss.item(), rel=1e-9)
        with torch.no_grad():
            for (n, p), g in zip(reference.named_parameters(), gradient, strict=True):
                first[n] = 0.9 * first[n] + 0.1 * g
                second[n] = 0.999 * second[n] + 0.001 * g**2
                m, v = first[n] / (1 - 0.9**t), second[n] / (1 - 0.999**t)
                p.sub_(0.01 * factors[n] * m / (v.sqrt() + 1e-15))
    # Inputs that are zero in all 40 images have no gradient; there both leave the weight alone.
    for n, p in reference.named_parameters():
        torch.testing.assert_close(model.get_parameter(n), p, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["SP", "MF", "muP"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_learns_the_digits(digits: Dataset, name: str, optimizer: str) -> None:
    model = network(32, parametrization=name)
    history = run(
        digits, model, epochs=5, lr={"sgd": 1.0, "adam": 0.05}[optimizer], optimizer=optimizer
    )
    assert history.train_loss[-1] < 0.5 * history.train_loss[0]
    assert history.test_loss[-1] < 0.5 * history.test_loss[0]
    assert history.test_accuracy[-1] > 0.85


def test_the_record_of_a_run(few: Dataset) -> None:
    model = network()
    before = evaluate(model, few.x_train, few.y_train)[0]
    start = evaluate(model, few.x_test, few.y_test)
    history = run(few, model, epochs=3, batch_size=40)
    assert history.batch_loss.shape == (3 * 4,)
    for record in (history.train_loss, history.test_loss, history.test_accuracy):
        assert record.shape == (4,)
    assert float(history.train_loss[0]) == pytest.approx(before)
    assert (float(history.test_loss[0]), float(history.test_accuracy[0])) == pytest.approx(start)
    means = history.batch_loss.numpy().reshape(3, 4).mean(1)
    np.testing.assert_allclose(history.train_loss[1:], means, rtol=1e-6)
    now = evaluate(model, few.x_test, few.y_test)
    assert (float(history.test_loss[-1]), float(history.test_accuracy[-1])) == pytest.approx(now)


def test_no_epochs_only_evaluates(few: Dataset) -> None:
    model = network()
    before = {n: p.clone() for n, p in model.state_dict().items()}
    history = run(few, model, epochs=0, snapshots=(0,))
    assert history.batch_loss.shape == (0,)
    assert history.train_loss.shape == (1,)
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())
    assert set(history.snapshots) == {0}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_same_seed_same_numbers_to_the_last_bit(few: Dataset, optimizer: str) -> None:
    options: dict[str, Any] = {"lr": 0.01, "optimizer": optimizer, "snapshots": (2,)}
    first, again, other = (run(few, seed=s, **options) for s in (3, 3, 4))
    torch.manual_seed(5)  # the global state does not enter
    after = run(few, seed=3, **options)
    for record in ("train_loss", "test_loss", "test_accuracy", "batch_loss"):
        assert torch.equal(getattr(first, record), getattr(again, record))
        assert torch.equal(getattr(first, record), getattr(after, record))
    for name, p in first.snapshots[2].items():
        assert torch.equal(p, again.snapshots[2][name])
        assert torch.equal(p, after.snapshots[2][name])
    # Another order of the batches is another run from the same start.
    assert torch.equal(first.test_loss[:1], other.test_loss[:1])
    assert not torch.equal(first.batch_loss, other.batch_loss)


def test_snapshots_are_copies_of_the_weights_then(few: Dataset) -> None:
    model = network()
    history = run(few, model, epochs=3, snapshots=(0, 1, 3))
    assert list(history.snapshots) == [0, 1, 3]
    for epoch, state in history.snapshots.items():
        loss, accuracy = evaluate(network().like(16, state), few.x_test, few.y_test)
        assert loss == pytest.approx(float(history.test_loss[epoch]), rel=1e-6)
        assert accuracy == pytest.approx(float(history.test_accuracy[epoch]))
    assert all(torch.equal(network().state_dict()[n], p) for n, p in history.snapshots[0].items())
    kept = history.snapshots[3]["W1"].clone()
    with torch.no_grad():
        model.get_parameter("W1").add_(1.0)
    assert torch.equal(history.snapshots[3]["W1"], kept)


def test_epochs_can_be_numbered_on(few: Dataset) -> None:
    model = network()
    whole = run(few, epochs=1, seed=5, snapshots=(1,))
    late = run(few, model, epochs=2, seed=5, first_epoch=4, snapshots=(4, 5, 6))
    assert list(late.snapshots) == [4, 5, 6]
    assert late.train_loss.shape == (3,)
    # The number is a name: from the same weights and seed the run is the same.
    assert torch.equal(late.train_loss[:2], whole.train_loss)
    for name, p in whole.snapshots[1].items():
        assert torch.equal(late.snapshots[5][name], p)
        assert torch.equal(late.snapshots[6][name], model.state_dict()[name])


def test_a_run_can_be_continued_from_a_snapshot(few: Dataset) -> None:
    first = run(few, epochs=2, seed=5, snapshots=(2,))
    goes_on = network().like(16, first.snapshots[2])
    second = run(few, goes_on, epochs=2, seed=6, first_epoch=2)
    assert float(second.test_loss[0]) == pytest.approx(float(first.test_loss[-1]), rel=1e-6)
    assert second.test_loss[-1] < first.test_loss[-1]


# Divergence and errors -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_nan_is_reported_at_its_step(digits: Dataset, seed: int) -> None:
    # One training image is damaged: the loss is NaN at the step whose batch holds it.
    few = digits.subset(260, 20)
    x = few.x_train.clone()
    x[123, 7] = math.nan
    order = torch.randperm(260, generator=torch.Generator().manual_seed(seed))
    step = int((order == 123).nonzero()) // 2  # up to 129: beyond several looks at the losses
    model = network(8, parametrization="muP")
    with pytest.raises(
        DivergedError,
        match=rf"^loss is nan at step {step} with learning rate 0\.025 and width 8 \(muP, sgd\)$",
    ):
        run(replace(few, x_train=x), model, epochs=1, lr=0.025, batch_size=2, seed=seed)


def test_a_learning_rate_far_too_large_is_reported(few: Dataset) -> None:
    model = network((5, 9), activation="identity", parametrization="SP")  # type: ignore[arg-type]
    with pytest.raises(
        DivergedError, match=r"loss is (nan|inf) at step \d+ with learning rate 1e\+30 and width 9"
    ):
        run(few, model, lr=1e30)


def test_divergence_of_the_last_step_shows_in_the_test_loss(few: Dataset) -> None:
    # One batch an epoch: its loss is that before the step and still finite.
    model = network(activation="identity", parametrization="SP")
    with pytest.raises(
        DivergedError, match=r"test loss is (nan|inf) after step 1 with learning rate 1e\+30"
    ):
        run(few, model, epochs=1, lr=1e30, batch_size=150)
    assert issubclass(DivergedError, RuntimeError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs must be an integer >= 0, got -1"),
        ({"epochs": 1.5}, r"epochs must be an integer >= 0, got 1\.5"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"batch_size": 32.0}, r"batch_size must be a positive integer, got 32\.0"),
        ({"lr": 0.0}, r"lr must be positive and finite, got 0\.0"),
        ({"lr": -0.1}, r"lr must be positive and finite, got -0\.1"),
        ({"lr": math.inf}, "lr must be positive and finite, got inf"),
        ({"lr": math.nan}, "lr must be positive and finite, got nan"),
        ({"lr": "0.1"}, r"lr must be positive and finite, got '0\.1'"),
        ({"optimizer": "rmsprop"}, "optimizer must be one of .* got 'rmsprop'"),
    ],
)
def test_bad_arguments_are_named_with_their_value(
    few: Dataset, options: dict[str, Any], message: str
) -> None:
    model = network()
    before = {n: p.clone() for n, p in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        run(few, model, **options)
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())


def test_snapshots_outside_the_run_are_refused() -> None:
    data = load("digits").subset(40, 20)
    with pytest.raises(ValueError, match=r"snapshots must lie in epochs 0 \.\.\. 1, got \[4\]"):
        train(MLP(64, 4, 10), data, epochs=1, lr=0.1, snapshots=(1, 4), progress=False)
