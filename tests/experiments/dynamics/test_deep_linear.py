"""dynamics.deep_linear: closed forms, runs and frames of deep linear networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import solve_ivp

from rclib.data.images import load
from rclib.experiments.dynamics import deep_linear as experiment
from rclib.experiments.dynamics import deep_linear_chains as chains
from rclib.experiments.dynamics import deep_linear_runs as runs
from rclib.experiments.dynamics import deep_linear_theory as theory
from rclib.experiments.dynamics import plots_deep_linear as plots

COURSE: dict[str, Any] = {
    "seed": 3, "size": 1e-2, "task": [2.0, 1.0], "width": 6, "common": False, "rate": 0.01,
    "steps": 600, "every": 6,
}  # fmt: skip


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
    np.testing.assert_allclose(
        theory.unbalanced_strength([0.0, time, 1e3], s=s, a0=b0, b0=a0), [a0 * b0, 0.95 * s, s]
    )
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
    t = np.linspace(0.0, 4.0, 9)
    np.testing.assert_allclose(
        theory.unbalanced_strength(t, s=2.0, a0=0.2 + 1e-7, b0=0.2),
        theory.mode_strength(t, s=2.0, u0=0.04), rtol=1e-5,
    )  # fmt: skip


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
        lambda: theory.unbalanced_strength([1.0], s=1.0, a0=0.1, b0=0.1),
        lambda: theory.unbalanced_strength([1.0], s=1.0, a0=2.0, b0=0.6),
        lambda: theory.deep_time(s=1.0, u0=0.1, end=0.5, depth=0),
        lambda: theory.infinite_time(s=1.0, u0=0.0, end=0.5),
    ],
)
def test_impossible_courses_are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=r"is needed|must be"):
        call()


def test_a_decoupled_start_follows_the_closed_form_and_keeps_its_balance() -> None:
    run = runs.courses(None, start="decoupled", **COURSE | {"rate": 0.002, "steps": 3000})
    exact = theory.mode_strength(run["times"][:, None], s=run["s"], u0=1e-2)
    np.testing.assert_allclose(run["u"], exact, atol=0.01)
    # Balanced, so the eigenvalues of W21ᵀ W21 are the strengths themselves.
    np.testing.assert_allclose(run["eigenvalues"][:, :2], -np.sort(-run["u"], axis=1), atol=1e-9)
    np.testing.assert_allclose(run["eigenvalues"][:, 2:], 0.0, atol=1e-12)


def test_an_unbalanced_start_follows_its_closed_form_and_not_the_printed_one() -> None:
    more = {"rate": 0.002, "steps": 3000, "size": 1e-3}
    frame = experiment.course_frame(
        [3], {"apart": {"start": "unbalanced"}}, **{k: v for k, v in COURSE.items() if k != "seed"}
        | more,
    )  # fmt: skip
    off = experiment.deviations(frame, "apart", u0=1e-3, unbalance=runs.UNBALANCE)
    assert off.max() < 0.005
    shown = experiment.shown_course(frame, "apart", u0=1e-3, unbalance=runs.UNBALANCE)
    assert (shown.exact - shown.u).abs().max() < 0.01
    assert (shown.printed - shown.u).abs().max() > 0.2
    # a² - b² is a0² - b0², so the eigenvalues of W21ᵀ W21 are a² = c0 + √(c0² + u²).
    run = runs.courses(None, start="unbalanced", **COURSE | more)
    c0 = 0.5 * (1e-3 * runs.UNBALANCE - 1e-3 / runs.UNBALANCE)
    expected = c0 + np.hypot(c0, np.sort(run["u"], axis=1)[:, ::-1])
    np.testing.assert_allclose(run["eigenvalues"][:, :2], expected, rtol=2e-3)


def test_what_both_matrices_conserve_drifts_with_the_rate_alone() -> None:
    """W21 W21ᵀ - W32ᵀ W32 is constant under gradient flow: by a given time its drift halves with
    the rate."""
    random = np.random.default_rng(0)
    start = 0.3 * random.standard_normal((2, 5, 5))
    target, drifts = random.standard_normal((5, 5)), []
    for rate in (0.01, 0.005):
        first, second = start
        for _ in range(round(3 / rate)):
            first, second = runs.descended(first, second, rate * (target - second @ first))
        kept = [a @ a.T - b.T @ b for a, b in (start, (first, second))]
        drifts.append(float(np.abs(kept[1] - kept[0]).max()))
        np.testing.assert_allclose(second @ first, target, atol=0.5)  # it has moved
    assert 0 < drifts[1] < 0.05
    assert drifts[0] / drifts[1] == pytest.approx(2.0, rel=0.1)


def test_a_common_mode_is_written_into_rows_and_others_are_not() -> None:
    """In the limit W21 is Σ √s r vᵀ: a constant v puts s over the sum of all s into row means."""
    shared = {"task": [4.0, 1.0, 1.0], "width": 24, "size": 1e-3, "steps": 1200}
    frame = experiment.course_frame(
        [0, 1, 2], {name: {"start": "random", "common": name == "common"} for name in
        ("plain", "common")}, **{k: v for k, v in COURSE.items() if k not in ("seed", "common")}
        | shared,
    )  # fmt: skip
    last = {arm: experiment.last_means(frame, arm) for arm in ("plain", "common")}
    assert last["plain"].abs().max() < 0.15
    np.testing.assert_allclose(last["common"], 4 / 6, atol=0.15)
    means = experiment.shown_means(frame, {"plain": "p", "common": "c"})
    assert set(means.arm) == {"p", "c"}
    assert means.t.nunique() == math.ceil(201 / 5)
    left, s, right, target = runs._task(np.random.default_rng(0), [3.0, 2.0], 7, common=True)
    np.testing.assert_allclose(left.T @ left, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(np.abs(right[:, 0]), 7**-0.5)
    np.testing.assert_allclose(left.T @ target @ right, np.diag(s), atol=1e-12)


def test_a_long_product_of_orthogonal_matrices_loses_nothing() -> None:
    """All singular values of 50 stay one, as of torch's; those of 50 Gaussian ones fall apart."""
    random, whole, gauss = np.random.default_rng(0), np.eye(20), np.eye(20)
    turned = torch.eye(20, dtype=torch.float64)
    for _ in range(50):
        whole = chains.orthogonal(random, 20) @ whole
        gauss = random.standard_normal((20, 20)) / 20**0.5 @ gauss
        turned = torch.nn.init.orthogonal_(torch.empty(20, 20, dtype=torch.float64)) @ turned
    for product in (whole, turned.numpy()):
        np.testing.assert_allclose(np.linalg.svd(product, compute_uv=False), 1.0, atol=1e-10)
    spread = np.linalg.svd(gauss, compute_uv=False)
    assert spread[0] / spread[10] > 1e4


def test_gradient_descent_is_that_of_autograd() -> None:
    """Two matrices, and chains from every start, against torch on the same loss."""
    target = torch.from_numpy(runs.tree(2))
    random = np.random.default_rng([7, runs.STARTS.index("random")])
    first = torch.from_numpy(0.3 * random.standard_normal((5, 4))).requires_grad_()
    second = torch.from_numpy(0.3 * random.standard_normal((7, 5))).requires_grad_()
    left, _, right = np.linalg.svd(target.numpy(), full_matrices=False)
    for _ in range(20):
        loss = 0.5 * (target - second @ first).square().sum()
        slopes = torch.autograd.grad(loss, [first, second])
        with torch.no_grad():
            first -= 0.05 * slopes[0]
            second -= 0.05 * slopes[1]
    run = runs.courses(
        None, seed=7, start="random", size=0.3, task=2, width=5, common=False, rate=0.05, steps=20,
        every=20,
    )  # fmt: skip
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
    s = np.linalg.svd(runs.tree(2), compute_uv=False)
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
    apart = one.assign(printed=one.exact)
    means = experiment.shown_means(frame, {"a": "one", "c": "other"})
    figure = plots.course_panels(
        one, all_halves, counts, experiment.shown_course(tree, "tree"), apart, means
    )
    assert len(figure.axes) == 6

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


def test_order_plateau_and_rates_by_hand() -> None:
    """A plateau's share is tanh(0.1 ln(s/u0 - 1)) by the closed form, of regression's
    1 - e^(-t) it is 2^(-0.8) - 2^(-1.2)."""
    s, u0, t = 2.0, 1e-3, np.linspace(0, 12, 2401)
    rows = [
        pd.DataFrame({"arm": arm, "seed": 0, "mode": 1, "s": s, "t": t, "u": u})
        for arm, u in (
            ("two", theory.mode_strength(t, s=s, u0=u0)), ("one", s * (1 - np.exp(-t))),
        )
    ]  # fmt: skip
    frame = pd.concat(rows)
    expected = {"two": math.tanh(0.1 * math.log(s / u0 - 1)), "one": 2**-0.8 - 2**-1.2}
    for arm, share in expected.items():
        found = experiment.rise_in_middle(frame, arm, mode=1)
        assert found.tolist() == pytest.approx([share], abs=1e-3)
    halves = pd.DataFrame({
        "seed": [0, 0, 0, 1, 1, 1], "s": [4.0, 2.0, 1.0] * 2, "half": [1, 2, 3, 1, 3, 2.4],
    })  # fmt: skip
    assert experiment.in_order(halves).tolist() == pytest.approx([1.5, 0.8])
    rates = pd.DataFrame({
        "start": "aligned", "seed": 0, "depth": [2, 8, 16], "rate": [9.0, 0.1, 0.06],
    })  # fmt: skip
    assert experiment.rate_spread(rates, "aligned", least=8).tolist() == pytest.approx([1.2])
