"""dynamics.deep_linear: closed forms, runs and frames of deep linear networks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from rclib.data.images import load
from rclib.experiments.dynamics import deep_linear as experiment
from rclib.experiments.dynamics import deep_linear_chains as chains
from rclib.experiments.dynamics import deep_linear_theory as theory
from rclib.experiments.dynamics import plots_deep_linear as plots

COURSE: dict[str, Any] = {
    "seed": 3, "size": 1e-2, "task": [2.0, 1.0], "width": 6, "rate": 0.01, "steps": 600, "every": 6,
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "runs"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    yield
    plt.close("all")


def integrated(s: float, a0: float, b0: float, end: float) -> float:
    """Time of τ a' = b (s - ab), τ b' = a (s - ab) from a0 b0 to `end`."""

    def motion(_: float, y: np.ndarray) -> list[float]:
        return [y[1] * (s - y[0] * y[1]), y[0] * (s - y[0] * y[1])]

    def there(_: float, y: np.ndarray) -> float:
        return float(y[0] * y[1] - end)

    there.terminal = True  # type: ignore[attr-defined]
    found = solve_ivp(motion, (0, 1e4), [a0, b0], events=there, rtol=1e-11, atol=1e-13)
    return float(found.t_events[0][0])


@pytest.mark.parametrize(("s", "a0", "b0"), [(2.0, 0.3, 0.1), (0.7, 0.01, 0.4), (5.0, 1.0, 1e-3)])
def test_closed_forms_against_integration(s: float, a0: float, b0: float) -> None:
    time = theory.unbalanced_time(s=s, a0=a0, b0=b0, end=0.95 * s)
    assert time == pytest.approx(integrated(s, a0, b0, 0.95 * s), rel=1e-8)
    u0 = a0 * b0
    time = theory.balanced_time(s=s, u0=u0, end=0.95 * s)
    assert time == pytest.approx(integrated(s, u0**0.5, u0**0.5, 0.95 * s), rel=1e-8)
    np.testing.assert_allclose(theory.mode_strength([0.0, time], s=s, u0=u0), [u0, 0.95 * s])
    assert theory.deep_time(s=s, u0=u0, end=0.95 * s, depth=2) == pytest.approx(time, rel=1e-8)


def test_the_printed_time_contradicts_the_limit_of_balanced_layers() -> None:
    """a0 -> b0 must give the main text's (τ / 2s) ln ...; the appendix gives twice that."""
    near: dict[str, Any] = {"s": 2.0, "a0": 0.2 + 1e-7, "b0": 0.2, "end": 1.5}
    balanced = theory.balanced_time(s=2.0, u0=0.04, end=1.5)
    assert theory.unbalanced_time(**near) == pytest.approx(balanced, rel=1e-5)
    assert theory.unbalanced_time(**near, printed=True) == pytest.approx(2 * balanced, rel=1e-5)


def test_many_matrices_have_a_finite_time() -> None:
    limit = theory.infinite_time(s=1.5, u0=0.05, end=1.4)
    assert 1000 * theory.deep_time(s=1.5, u0=0.05, end=1.4, depth=1000) == pytest.approx(
        limit, rel=0.01
    )
    one = theory.deep_time(s=1.5, u0=0.05, end=1.4, depth=1)  # regression: u' = s - u
    assert one == pytest.approx(math.log(1.45 / 0.1), rel=1e-9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: theory.mode_strength([1.0], s=1.0, u0=2.0),
        lambda: theory.balanced_time(s=1.0, u0=0.5, end=1.0),
        lambda: theory.unbalanced_time(s=1.0, a0=0.1, b0=0.1, end=0.5),
        lambda: theory.unbalanced_time(s=1.0, a0=0.1, b0=-0.1, end=0.5),
        lambda: theory.deep_time(s=1.0, u0=0.1, end=0.5, depth=0),
        lambda: theory.infinite_time(s=1.0, u0=0.0, end=0.5),
    ],
)
def test_impossible_courses_are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=r"is needed|must be"):
        call()


def test_a_decoupled_start_follows_the_closed_form_and_keeps_its_balance() -> None:
    run = experiment.courses(None, start="decoupled", **COURSE | {"rate": 0.002, "steps": 3000})
    exact = theory.mode_strength(run["times"][:, None], s=run["s"], u0=1e-2)
    np.testing.assert_allclose(run["u"], exact, atol=0.01)
    # Balanced, so the eigenvalues of W21ᵀ W21 are the strengths themselves.
    np.testing.assert_allclose(run["eigenvalues"][:, :2], -np.sort(-run["u"], axis=1), atol=1e-9)
    np.testing.assert_allclose(run["eigenvalues"][:, 2:], 0.0, atol=1e-12)


def test_gradient_descent_is_that_of_autograd() -> None:
    """Two matrices, and chains from every start, against torch on the same loss."""
    target = torch.from_numpy(experiment.tree(2))
    random = np.random.default_rng([7, experiment.STARTS.index("random")])
    first = torch.from_numpy(0.3 * random.standard_normal((5, 4))).requires_grad_()
    second = torch.from_numpy(0.3 * random.standard_normal((7, 5))).requires_grad_()
    left, _, right = np.linalg.svd(target.numpy(), full_matrices=False)
    for _ in range(20):
        loss = 0.5 * (target - second @ first).square().sum()
        slopes = torch.autograd.grad(loss, [first, second])
        with torch.no_grad():
            first -= 0.05 * slopes[0]
            second -= 0.05 * slopes[1]
    run = experiment.courses(
        None, seed=7, start="random", size=0.3, task=2, width=5, rate=0.05, steps=20, every=20
    )
    whole = (second @ first).detach().numpy()
    np.testing.assert_allclose(run["u"][-1], np.diag(left.T @ whole @ right.T), atol=1e-12)


@pytest.mark.parametrize("start", chains.CHAINS)
def test_steps_of_a_chain_are_those_of_autograd(start: str) -> None:
    config: dict[str, Any] = {
        "seed": 2, "start": start, "depth": 3, "width": 4, "low": 0.5, "high": 2.0, "share": 0.2,
        "most": 400,
    }  # fmt: skip
    found = chains.depth_steps(None, rates=[0.01, 0.08, 50.0], **config)
    assert float(found["rate"]) == 0.08  # 50 diverges, 0.01 comes later
    random = np.random.default_rng([2, 3, chains.CHAINS.index(start)])
    drawing = np.random.default_rng([2, 99])
    left, right = (chains.orthogonal(drawing, 4) for _ in range(2))
    target = torch.from_numpy((left * drawing.uniform(0.5, 2.0, 4)) @ right.T)
    matrices = [random.standard_normal((4, 4)) / 2 for _ in range(3)]
    if start == "orthogonal":
        matrices = [chains.orthogonal(random, 4) for _ in range(3)]
    elif start == "pretrained":
        matrices = chains.pretrained(matrices)
    layers = [torch.from_numpy(w).requires_grad_() for w in matrices]
    for step in range(401):  # noqa: B007
        loss = 0.5 * (target - layers[2] @ layers[1] @ layers[0]).square().sum()
        if loss <= 0.2 * 0.5 * target.square().sum():
            break
        slopes = torch.autograd.grad(loss, layers)
        with torch.no_grad():
            for w, g in zip(layers, slopes, strict=True):
                w -= 0.08 * g
    assert int(found["steps"]) == step
    capped = chains.depth_steps(None, rates=[50.0], **config)  # nothing is left to train
    assert int(capped["steps"]) == 400
    assert np.isnan(capped["rate"])


def test_aligned_chains_are_the_scalars_that_are_trained_for_them() -> None:
    """A chain of diagonal matrices, by the matrix rule, takes as many steps as the scalars."""
    run = chains.aligned_steps(
        None, seed=1, depths=[3], u0=0.05, modes=4, low=0.5, high=2.0, share=0.1, most=500,
        n_rates=30,
    )  # fmt: skip
    s = np.random.default_rng([1, 98]).uniform(0.5, 2.0, 4)
    layers = [np.diag(np.full(4, 0.05 ** (1 / 3))) for _ in range(3)]
    steps = 0
    while np.square(np.diag(s) - layers[2] @ layers[1] @ layers[0]).sum() > 0.1 * s @ s:
        error = float(run["rate"][0]) * (np.diag(s) - layers[2] @ layers[1] @ layers[0])
        a, b, c = layers
        layers = [a + (c @ b).T @ error, b + c.T @ error @ a.T, c + error @ (b @ a).T]
        steps += 1
    assert steps == run["steps"][0]


def test_pretraining_leads_to_orthogonal_matrices() -> None:
    random = np.random.default_rng(0)
    found = chains.pretrained(
        [random.standard_normal((8, 8)) / 8**0.5 for _ in range(3)], steps=3000
    )
    for w in found:
        np.testing.assert_allclose(w @ w.T, np.eye(8), atol=1e-6)


def test_the_tree_has_one_strength_a_level() -> None:
    """Eigenvalues of the items' common ancestors, by hand for 4 items: 7/4, 3/4 and twice 1/4."""
    s = np.linalg.svd(experiment.tree(2), compute_uv=False)
    np.testing.assert_allclose(s**2, [7 / 4, 3 / 4, 1 / 4, 1 / 4])


def test_targets_of_images_are_the_least_squares_map() -> None:
    """Whitened, the best linear map is Σ31: against numpy's least squares; CIFAR's shape too."""
    digits = load("digits")
    target = chains.whitened_target(digits, 12)
    x = digits.x_train.numpy().astype(float)
    x -= x.mean(0)
    _, values, right = np.linalg.svd(x.T @ x / len(x))
    white = x @ right[:12].T / np.sqrt(values[:12])
    labels = np.eye(10)[digits.y_train.numpy()]
    fitted = np.linalg.lstsq(white, labels - labels.mean(0), rcond=None)[0].T
    np.testing.assert_allclose(target[:10], fitted, atol=1e-9)
    assert not target[10:].any()
    with pytest.raises(ValueError, match="width must be at most the rank"):
        chains.whitened_target(digits, 64)


def test_frames_and_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = {"a": {"start": "decoupled"}, "b": {"start": "regression"}, "c": {"start": "random"}}
    shared = {k: v for k, v in COURSE.items() if k != "seed"} | {"size": 0.05}
    frame = experiment.course_frame([0, 1], arms, **shared)
    assert (experiment.deviations(frame, "a", u0=0.05) < 0.02).all()
    halves = experiment.half_times(frame, "b")
    np.testing.assert_allclose(halves.half, math.log(2) - 0.0035, atol=1e-3)  # of steps of 0.01
    np.testing.assert_allclose(experiment.half_slopes(halves), 0.0, atol=1e-9)
    assert frame[frame.arm != "c"].seen.eq(0).all()
    assert experiment.spikes_match(frame, "c").between(0, 1).all()
    with pytest.raises(ValueError, match="does not pass half"):
        experiment.half_times(frame[frame.t < 0.1], "b")

    tree = experiment.course_frame([0, 1], {"tree": {"start": "random"}}, **shared | {
        "task": 3, "size": 1e-3, "rate": 0.05, "width": 8,
    })  # fmt: skip
    assert (experiment.level_order(experiment.half_times(tree, "tree")) > 1).all()
    all_halves = experiment.half_times(frame, "a").assign(arm="a")
    one, counts = (
        experiment.shown_course(frame, "a", u0=0.05), experiment.shown_counts(frame, "c"),
    )  # fmt: skip
    figure = plots.course_panels(one, all_halves, counts, experiment.shown_course(tree, "tree"))
    assert len(figure.axes) == 4

    scalars = {
        "u0": 0.1,
        "modes": 3,
        "low": 0.5,
        "high": 2.0,
        "share": 0.3,
        "most": 50,
        "n_rates": 9,
    }
    depths = {"orthogonal": [2, 3], "Gaussian": [2], "aligned": [2, 4]}
    steps = chains.depth_frame(
        None, [0, 1], depths=depths, aligned=scalars, width=3, low=0.5, high=2.0, rates=[0.1, 0.3],
        share=0.3, most=50,
    )  # fmt: skip
    assert len(steps) == 2 * 5
    ratio = chains.depth_ratio(steps, ("aligned", 4), ("aligned", 2))
    assert list(ratio.index) == [0, 1]
    digits = load("digits")
    deep = chains.tanh_frame(
        digits, [0], gains=[0.9, 1.1], rates=[0.1, 1e9], depth=3, width=6, batch_size=16, steps=3
    )
    assert np.isfinite(deep.loss).all()  # the best rate is no diverged one
    assert len(plots.depth_panels(steps, steps, deep, 50).axes) == 3


def test_one_rate_trains_a_tanh_network_as_torch_does() -> None:
    digits = load("digits")
    given: dict[str, Any] = {"depth": 2, "width": 5, "batch_size": 8, "steps": 3}
    run = chains.tanh_losses(digits, seed=4, gains=[1.1], rates=[0.2], **given)
    generator = torch.Generator().manual_seed(4)
    x, y = digits.x_train, digits.y_train
    two: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for fan_in in (x.shape[1], 5):
        gauss = torch.randn(5, fan_in, generator=generator)
        turned = torch.nn.init.orthogonal_(torch.empty(5, fan_in), generator=generator)
        two[0].append(1.1 * turned)
        two[1].append(1.1 * gauss / fan_in**0.5)
    readout = torch.randn(10, 5, generator=generator) / 5**0.5
    batches = [torch.randint(len(x), (8,), generator=generator) for _ in range(3)]
    for place, start in enumerate(two):
        net = torch.nn.Sequential(
            torch.nn.Linear(x.shape[1], 5, bias=False), torch.nn.Tanh(),
            torch.nn.Linear(5, 5, bias=False), torch.nn.Tanh(), torch.nn.Linear(5, 10, bias=False),
        )  # fmt: skip
        with torch.no_grad():
            for p, w in zip(net.parameters(), [*start, readout], strict=True):
                p.copy_(w)
        descent = torch.optim.SGD(net.parameters(), lr=0.2)
        for batch in batches:
            descent.zero_grad()
            torch.nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            descent.step()
        after = torch.nn.functional.cross_entropy(net(x[:2000]), y[:2000])
        assert float(run["losses"][place, 0, 0]) == pytest.approx(after.item(), rel=1e-5)
