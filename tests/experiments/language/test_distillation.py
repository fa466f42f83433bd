"""language.distillation*: gradients, closed forms and frames of notebook 94."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from rclib.data.images import Dataset, load
from rclib.experiments.language import distillation, plots_distillation
from rclib.experiments.language import distillation_nets as nets
from rclib.experiments.language import distillation_runs as runs
from rclib.experiments.language.distillation_nets import Shape

SHAPE = Shape(5, 4, 3)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits").subset(60, 30)


def made(B: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """θ (B, P), x (B, 3, 5) and one-hot labels, float64."""
    generator = torch.Generator().manual_seed(seed)
    theta = nets.drawn(B, SHAPE, generator).double()
    theta = theta + 0.1 * torch.randn(theta.shape, generator=generator, dtype=torch.float64)
    x = torch.randn(B, 3, 5, generator=generator, dtype=torch.float64)
    return theta, x, torch.eye(3, dtype=torch.float64)


def plain(theta: Tensor, x: Tensor) -> Tensor:
    """Outputs of one network, written with torch's layers."""
    W1, b1, W2, b2 = theta.split([20, 4, 12, 3])
    return linear(linear(x, W1.view(4, 5), b1).relu(), W2.view(3, 4), b2)


def test_gradients_agree_with_autograd() -> None:
    theta, x, onehot = made(3)
    found = nets.gradient(theta, x, onehot, SHAPE)
    inputs = nets.input_gradient(theta, x[0], SHAPE)
    for b in range(3):
        leaf, image = theta[b].clone().requires_grad_(), x[0].clone().requires_grad_()
        (own,) = torch.autograd.grad(cross_entropy(plain(leaf, x[b]), torch.arange(3)), leaf)
        torch.testing.assert_close(found[b], own)
        (own,) = torch.autograd.grad(plain(theta[b], image).sum(), image)
        torch.testing.assert_close(inputs[b], own)
    torch.testing.assert_close(nets.logits(theta, x, SHAPE)[1], plain(theta[1], x[1]))
    with pytest.raises(ValueError, match="39 columns, got 7"):
        nets.parts(theta[:, :7], SHAPE)


def distance(x: Tensor, log_rate: Tensor, steps: int) -> Tensor:
    theta, _, onehot = made(1)
    goal = made(1, seed=1)[0]
    end, _ = nets.descend(theta, x, onehot, log_rate.exp(), steps, SHAPE)
    return (end - goal).square().sum() / (theta - goal).square().sum()


def test_the_unrolled_gradient_is_that_of_finite_differences() -> None:
    x = made(1)[1].requires_grad_()
    log_rate = torch.full((1,), -1.0, dtype=torch.float64, requires_grad=True)
    gradients = torch.autograd.grad(distance(x, log_rate, 3), (x, log_rate))
    step = 1e-6
    for leaf, gradient in zip((x, log_rate), gradients, strict=True):
        for place in range(leaf.numel()):
            moved = [leaf.detach().clone() for _ in range(2)]
            for sign, one in zip((1, -1), moved, strict=True):
                one.view(-1)[place] += sign * step
            pairs = [(one, log_rate) if leaf is x else (x, one) for one in moved]
            up, down = (float(distance(*pair, 3).detach()) for pair in pairs)
            assert float(gradient.view(-1)[place]) == pytest.approx(
                (up - down) / (2 * step), abs=1e-7
            )
    still = torch.full((1,), -math.inf, dtype=torch.float64)
    assert float(distance(x, still, 3).detach()) == 1  # a step size of 0: no progress


def test_class_means_match_one_step_of_a_linear_model() -> None:
    """With the hidden layer dead but for its biases the step is known: class means give the same
    gradient as all data, when the model tells nothing yet and classes are of one size."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(3, 8, 5, generator=generator, dtype=torch.float64)
    W = torch.zeros(3, 5, dtype=torch.float64)
    onehot = torch.eye(3, dtype=torch.float64)

    def step(x: Tensor, targets: Tensor) -> Tensor:
        return (targets - (x @ W.T).softmax(-1)).T @ x / len(x)

    whole = step(data.flatten(0, 1), onehot.repeat_interleave(8, 0))
    torch.testing.assert_close(step(data.mean(1), onehot), whole)
    # The same with the network: outputs that do not depend on the input, all units on.
    W1 = torch.eye(4, 5, dtype=torch.float64)
    theta = torch.cat([W1.flatten(), torch.full((4,), 50.0), torch.zeros(15)]).double()[None]
    own = nets.gradient(theta, data.mean(1)[None], onehot, SHAPE)
    every = nets.gradient(theta, data.flatten(0, 1), onehot.repeat_interleave(8, 0), SHAPE)
    torch.testing.assert_close(own, every)


def test_passed_points_and_factors() -> None:
    theta, x, onehot = made(2)
    rates = torch.tensor([0.1, 0.3], dtype=torch.float64)
    end, (half,) = nets.descend(theta, x, onehot, rates, 4, SHAPE, kept=[2])
    torch.testing.assert_close(nets.descend(theta, x, onehot, rates, 2, SHAPE)[0], half)
    torch.testing.assert_close(nets.descend(half, x, onehot, rates, 2, SHAPE)[0], end)
    faster, _ = nets.descend(theta, x, onehot, rates / 2, 4, SHAPE, factor=2.0)
    torch.testing.assert_close(faster, end)


def test_noise_has_norm_one_in_every_tensor_and_half_its_entries() -> None:
    shape = Shape(64, 48, 10)
    found = nets.noise(torch.ones(2, sum(shape.sizes)), shape, torch.Generator().manual_seed(0))
    for piece in found[0].split(shape.sizes):
        assert float(piece.norm()) == pytest.approx(1, rel=1e-5)
    assert float((found[0] == 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(found[0], found[1])


def test_balance_grows_with_the_start() -> None:
    factors = [runs.balance(t, 8) for t in range(8)]
    assert factors == sorted(factors)
    assert factors[4] == pytest.approx(math.log(8) / math.log(5))
    assert factors[0] == pytest.approx(math.log(5) / math.log(12))


def test_experts_without_what_sets_them_apart_are_alike(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"n_experts": 2, "epochs": 3, "batch": 32, "lr": 0.02, "hidden": 6}
    names = ["plain", "clip", "penalty", "half rate"]
    paths = runs.expert_paths(digits, 0, names, **options)
    assert paths.shape == (4, 2, 4, 64 * 6 + 6 + 60 + 10)
    for v in range(1, 4):
        assert torch.equal(paths[v, :, 0], paths[0, :, 0])
        assert not torch.allclose(paths[v, :, 1], paths[0, :, 1])
    monkeypatch.setattr(runs, "CLIP", (1.0,))
    monkeypatch.setitem(runs.EXPERTS, "penalty", (False, 1e-12, 1.0, False))
    alike = runs.expert_paths(digits, 0, names, **options)
    torch.testing.assert_close(alike[1], alike[0])
    torch.testing.assert_close(alike[2], alike[0])
    # One epoch by hand, with torch's own optimiser.
    generator = runs.generator_of(0, 1)
    start = nets.drawn(2, Shape(64, 6, 10), generator)[0]
    torch.randperm(60, generator=generator)
    order = torch.randperm(60, generator=generator)
    leaf = start.clone().requires_grad_()
    sizes = [384, 6, 60, 10]
    optimizer = torch.optim.SGD([leaf], lr=0.02, momentum=0.9, weight_decay=1e-3)
    for rows in order.split(32):
        W1, b1, W2, b2 = leaf.split(sizes)
        hidden = linear(digits.x_train[rows], W1.view(6, 64), b1).relu()
        loss = cross_entropy(linear(hidden, W2.view(10, 6), b2), digits.y_train[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.testing.assert_close(paths[0, 0, 1], leaf.detach(), atol=1e-6, rtol=1e-4)


def test_a_student_of_few_images_stays_in_their_span() -> None:
    theta, x, onehot = made(1)
    rate = torch.tensor([0.5], dtype=torch.float64)
    end, _ = nets.descend(theta, x, onehot, rate, 5, SHAPE)
    *_, share, leading, span = nets.statistics(end[0], theta[0], x[0], SHAPE)
    assert span == pytest.approx(1)
    assert leading == pytest.approx(1)
    assert 0 < share < 1
    other = nets.statistics(end[0], theta[0], x[0, :1], SHAPE)
    assert other[5] < 0.99
    W1, b1, W2, _ = (part[0].numpy() for part in nets.parts(end, SHAPE))
    assert other[0] == pytest.approx(np.corrcoef(W1.mean(1), W2.mean(0))[0, 1])
    assert other[1] == pytest.approx(np.corrcoef(W1.mean(1), b1)[0, 1])
    assert other[2] == pytest.approx(np.corrcoef(W2.mean(0), b1)[0, 1])


def test_first_images(digits: Dataset) -> None:
    found = runs.first_images(digits, torch.Generator().manual_seed(0))
    for k in range(10):
        own = digits.x_train[digits.y_train == k]
        assert (own == found["random"][k]).all(1).any()
        distances = (own - found["means"][k]).norm(dim=1)
        assert float((found["nearest"][k] - found["means"][k]).norm()) == float(distances.min())
    with pytest.raises(ValueError, match="every class"):
        runs.first_images(digits.subset(5), torch.Generator().manual_seed(0))


def settings() -> dict[str, Any]:
    options = dict(runs.TINY["distilled"])
    return {key: options[key] for key in options if key not in ("seed", "arms")}


def matched(**changed: Any) -> dict[str, Any]:
    own = settings()
    return {**own, "matching": {**own["matching"], **changed}}


def test_an_arm_has_the_same_images_alone(digits: Dataset) -> None:
    alone = runs.distilled(digits, seed=3, arms=["plain"], **settings())
    beside = runs.distilled(digits, seed=3, arms=["plain", "all tricks"], **settings())
    for name in ("after", "alpha", "losses"):
        np.testing.assert_allclose(alone[name][0], beside[name][0], rtol=1e-3, atol=1e-5)
    moved = np.abs(alone["after"] - alone["before"])
    assert 0 < moved.max() < 2 * 0.0301  # two updates of Adam
    assert alone["statistics"][0, 5] == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="at most epochs"):
        runs.distilled(digits, seed=3, arms=["plain"], **matched(starts=5))


def test_the_bilevel_loss_falls(digits: Dataset) -> None:
    tiny = dict(runs.TINY["bilevel"])
    learning = {**tiny["learning"], "iterations": 40}
    run = runs.bilevel(digits, **{**tiny, "learning": learning, "n_steps": 3})
    assert run["accuracy"].shape == (2, 2)
    assert run["losses"][0, -5:].mean() < run["losses"][0, :5].mean()


@pytest.fixture(scope="module")
def frames(
    digits: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, pd.DataFrame | dict[str, np.ndarray]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RCLIB_CACHE", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        seeds, own = [5, 6], {k: v for k, v in runs.TINY["bilevel"].items() if k != "seed"}
        few = settings()
        return {
            "arms": distillation.accuracy_frame(digits, seeds, **few),
            "paths": distillation.path_frame(digits, seeds, **few),
            "bilevel": distillation.bilevel_frame(digits, seeds, **own),
            "images": distillation.image_arrays(digits, 5, ["clip", "means, clip"], **few),
            "natural": distillation.accuracy_frame(digits, seeds, distillation.NATURAL, **few),
        }


def test_values_and_figures(frames: dict[str, Any], digits: Dataset) -> None:
    found = {
        **distillation.values(frames["arms"], frames["paths"]),
        **distillation.bilevel_values(frames["bilevel"]),
        **distillation.natural_values(frames["natural"]),
    }
    assert len(found) == 34
    for key, own in found.items():
        assert list(own.index) == [5, 6], key
        assert np.isfinite(own).all(), key
    with pytest.raises(ValueError, match="one row a seed"):
        distillation.by_seed(frames["arms"], "accuracy")
    figure = plots_distillation.accuracy_panels(frames["paths"], frames["arms"], expert=0.9)
    assert [panel.get_title()[:3] for panel in figure.axes] == ["(a)", "(b)", "(c)", "(d)"]
    # The arms that both have are the same on the same images.
    both = [frames[name].set_index(["seed", "arm"]) for name in ("arms", "natural")]
    shared = both[1].index
    np.testing.assert_allclose(
        both[0].loc[shared, "last loss"], both[1]["last loss"], rtol=1e-3, equal_nan=True
    )
    assert both[0].loc[(5, "penalty"), "expert end"] != both[0].loc[(5, "plain"), "expert end"]
    assert both[0].loc[(5, "clip"), "expert end"] == both[0].loc[(5, "all tricks"), "expert end"]
    assert found["natural_clip"][6] == pytest.approx(
        both[1].accuracy[6, "clip"] - both[1].accuracy[6, "plain"]
    )
    figure = plots_distillation.natural_panels(frames["natural"])
    assert len(figure.axes) == 2
    images = frames["images"]
    assert list(images) == ["first", "clip", "class means", "means, clip"]
    means = [digits.x_train[digits.y_train == k].mean(0) for k in range(10)]
    np.testing.assert_allclose(images["class means"], np.stack(means), atol=1e-6)
    figure = plots_distillation.image_panels(images, side=8, limit=3.0)
    assert len(figure.axes) == 40
