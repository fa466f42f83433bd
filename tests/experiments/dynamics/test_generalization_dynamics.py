"""dynamics.generalization_dynamics: closed forms and runs of linear and ReLU students."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Ridge

from rclib.data.images import load
from rclib.experiments.dynamics import generalization_dynamics as experiment
from rclib.experiments.dynamics import generalization_images as noisy
from rclib.experiments.dynamics import generalization_runs as runs
from rclib.experiments.dynamics import generalization_theory as theory
from rclib.experiments.dynamics import plots_generalization as plots

LINEAR: dict[str, Any] = {"n": 30, "snr": 3.0, "inr": 0.5, "noise": 1.0, "permuted": False}
STUDENT: dict[str, Any] = {"n": 5, "samples": 12, "teacher": 4, "rate": 0.01, "steps": 20}


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.5])
def test_the_law_and_the_limits_of_the_closed_form(alpha: float) -> None:
    """∫ρ is one with the atom and ∫λρ is α; start and end of both errors."""
    atom = theory.input_law(alpha).atom
    assert theory.expectation(np.ones_like, alpha) + atom == pytest.approx(1.0, abs=1e-6)
    assert theory.expectation(lambda at: at, alpha) == pytest.approx(alpha, rel=1e-9)
    given = {"alpha": alpha, "snr": 4.0, "inr": 0.5}
    assert theory.generalization_error(0.0, **given) == pytest.approx(5.5, abs=1e-5)
    assert theory.training_error(0.0, **given) == pytest.approx(5.5, abs=1e-5)
    end = theory.final_error(**given)
    if alpha == 1:  # without bound, like √t
        late = theory.generalization_error([1e2, 4e2], **given)
        assert end == np.inf
        assert (late[1] - 1) / (late[0] - 1) == pytest.approx(2.0, rel=0.05)
    else:
        assert theory.generalization_error(1e4, **given) == pytest.approx(end, rel=1e-6)
        left = max(0.0, 1.0 - 1.0 / alpha)
        assert theory.training_error(1e4, **given) == pytest.approx(left, abs=1e-6)


def test_quadrature_and_best_times_against_scipy() -> None:
    law = theory.input_law(2.0)
    by_quad, _ = quad(
        lambda at: float(law.density(at)) * np.expm1(-3.0 * at) ** 2 / at, law.lower, law.upper
    )
    bulk = theory.generalization_error(3.0, alpha=2.0, snr=1.0) - 1.0
    falling, _ = quad(lambda at: float(law.density(at)) * np.exp(-6.0 * at), law.lower, law.upper)
    assert bulk == pytest.approx(by_quad + falling, rel=1e-6)
    at, snr, inr = 0.7, 5.0, 0.2
    found = minimize_scalar(
        lambda t: (snr + inr) * np.exp(-2 * at * t) + np.expm1(-at * t) ** 2 / at,
        bounds=(0, 50), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    assert theory.direction_time(at, snr=snr, inr=inr) == pytest.approx(found.x, rel=1e-5)
    # At that time a direction has shrunk as by the best ridge.
    shrunk = -np.expm1(-at * theory.direction_time(at, snr=snr))
    assert shrunk == pytest.approx(at * snr / (1 + at * snr))
    time, least = theory.best_time(alpha=1.0, snr=5.0)
    around = theory.generalization_error([0.9 * time, 1.1 * time], alpha=1.0, snr=5.0)
    assert (around > least).all()
    assert 1.0 < least / theory.ridge_error(alpha=1.0, snr=5.0) < 1.03
    with pytest.raises(ValueError, match="alpha must be positive"):
        theory.input_law(0.0)


@pytest.mark.parametrize("snr", [1.0, 5.0])
def test_stopping_costs_a_little_more_than_ridge_and_a_start_more_where_data_are_few(
    snr: float,
) -> None:
    """At every ratio early stopping is at most three percent above the best ridge, never below; a
    start of the teacher's variance costs more than half of it at α = 0.5 and little at α = 4."""
    excess, costs = [], []
    for alpha in (0.25, 0.5, 0.9, 1.0, 1.1, 1.5, 2.0, 4.0):
        least = theory.best_time(alpha=alpha, snr=snr)[1]
        excess.append(least / theory.ridge_error(alpha=alpha, snr=snr) - 1.0)
        costs.append(theory.best_time(alpha=alpha, snr=snr, inr=snr)[1] - least)
    assert 0.0 < min(excess) < max(excess) < 0.03
    assert (np.diff(costs) < 0).all()
    assert costs[1] > 0.5 * snr
    assert costs[-1] < 0.05 * snr


@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_the_curves_are_those_of_gradient_descent(alpha: float) -> None:
    """Explicit steps of a small rate, and scikit-learn's ridge, on the same draw."""
    times = [0.0, 0.5, 5.0]
    run = runs.linear_curves(None, seed=4, alphas=[alpha], times=times, **LINEAR)
    random = np.random.default_rng([4, round(1000 * alpha), 30])
    samples = round(alpha * 30)
    x = random.standard_normal((samples, 30)) / np.sqrt(30)
    teacher = np.sqrt(3.0) * random.standard_normal(30)
    y = x @ teacher + random.standard_normal(samples)
    w = np.sqrt(0.5) * random.standard_normal(30)
    rate = 1e-4
    for step in range(50_001):
        if step in (0, 5_000, 50_000):
            k = times.index(step * rate)
            expected = 1.0 + np.square(w - teacher).sum() / 30
            assert run["test"][0, k] == pytest.approx(expected, rel=1e-3)
            assert run["train"][0, k] == pytest.approx(np.square(y - x @ w).mean(), rel=2e-3)
        w = w + rate * x.T @ (y - x @ w)
    ridge = Ridge(alpha=1 / 3.0, fit_intercept=False).fit(x, y).coef_
    assert run["ridge"][0] == pytest.approx(1.0 + np.square(ridge - teacher).sum() / 30)


def test_students_train_as_torch_does() -> None:
    """ReLU students by both optimisers, against torch's own."""
    for name, rate in (("gd", 0.05), ("adam", 0.01)):
        given = STUDENT | {"rate": rate, "optimiser": name}
        run = runs.relu_student(None, seed=1, width=3, start=0.7, every=20, **given)
        drawing = np.random.default_rng([1, 1])
        a, b = drawing.standard_normal((4, 5)) / np.sqrt(5), drawing.standard_normal(4)
        x, x_test = drawing.standard_normal((12, 5)), drawing.standard_normal((2000, 5))
        y_test = np.maximum(x_test @ a.T, 0) @ b
        scale = y_test.std()
        y = np.maximum(x @ a.T, 0) @ b / scale + drawing.standard_normal(12)
        random = np.random.default_rng([1, 2, 3])
        first = torch.from_numpy(0.7 * random.standard_normal((3, 5)) / np.sqrt(5)).requires_grad_()
        last = torch.from_numpy(0.7 * random.standard_normal(3) / np.sqrt(3)).requires_grad_()
        inputs, labels = torch.from_numpy(x), torch.from_numpy(y - y.mean())
        kind = torch.optim.SGD if name == "gd" else torch.optim.Adam
        optimiser = kind([first, last], lr=rate)  # type: ignore[operator]
        for _ in range(20):
            optimiser.zero_grad()
            (0.5 * (torch.relu(inputs @ first.T) @ last - labels).square().mean()).backward()
            optimiser.step()
        with torch.no_grad():
            guess = (torch.relu(torch.from_numpy(x_test) @ first.T) @ last).numpy() + y.mean()
        assert run["test"][-1] == pytest.approx(np.square(guess - y_test / scale).mean(), rel=1e-6)
    with pytest.raises(ValueError, match="optimiser must be one of"):
        runs.relu_student(
            None, seed=1, width=3, start=0.7, every=20, **STUDENT | {"optimiser": "lion"}
        )


def test_gradient_descent_stays_in_the_span_and_adam_does_not() -> None:
    shared = {"width": 20, "n": 16, "samples": 10, "steps": 200}
    frame = experiment.span_frame([0, 1], {"gd": 0.05, "adam": 0.01}, **shared)
    by = frame.groupby("optimiser")
    assert by.outside.max()["gd"] < 1e-12 < 0.05 < by.outside.min()["adam"]
    assert by.beyond.max()["gd"] < 1e-20 < by.beyond.min()["adam"]
    assert plots.span_panels(experiment.bulk_weights([0.5, 2.0], [1.0, 10.0]), frame).axes


def test_frames_measures_and_figure() -> None:
    times = [0.0, 0.1, 1.0, 10.0, 1e6]
    plain = {"alphas": [0.5, 2.0], **LINEAR, "inr": 0.0}
    del plain["n"]
    arms = {"zero": plain, "started": plain | {"inr": 2.0, "alphas": [0.5]}}
    frame = experiment.linear_frame(range(30), arms, times=times, n=30)
    early = frame[frame.t <= 10]
    over = experiment.over_theory(early, "zero", snr=3.0, inr=0.0)
    assert over.mean() == pytest.approx(1.0, abs=0.05)
    table = experiment.theory_table(early, "zero", snr=3.0, inr=0.0, times=[0.1, 10.0])
    assert len(table) == 4
    assert table.inside.mean() >= 0.75
    excess = experiment.frozen_excess(frame, ("started", "zero"), alpha=0.5, late=1e6, inr=2.0)
    assert excess.mean() == pytest.approx(1.0, abs=0.35)
    assert (experiment.overtraining(frame, "zero", late=10.0) >= 1).to_numpy().all()
    stops = experiment.stopping(early, "zero", snr=3.0)
    assert stops.ratio.mean() == pytest.approx(1.0, abs=0.1)
    students = experiment.relu_frame(
        [0, 1],
        widths=[2, 4],
        starts={"small": 0.3, "large": 3.0},
        every=5,
        optimiser="gd",
        **STUDENT,
    )
    assert set(students.ratio) == {1.0, 2.0}
    assert (students.best <= students.final).all()
    ratio = experiment.student_ratio(students, ("large", 4), ("small", 4))
    assert list(ratio.index) == [0, 1]
    gap = experiment.train_gap(early, "zero", snr=3.0, inr=0.0)
    assert gap.mean() == pytest.approx(0.0, abs=0.02)
    started = experiment.stopping(early, "started", snr=3.0, inr=2.0)
    cost = experiment.start_cost(started, stops)
    assert list(cost.columns) == [0.5]
    least = [theory.best_time(alpha=0.5, snr=3.0, inr=inr)[1] for inr in (2.0, 0.0)]
    assert cost[0.5].mean() == pytest.approx(least[0] / least[1], rel=0.15)
    curves = experiment.shown_curves(early, "zero", [0.5, 2.0], snr=3.0)
    late = experiment.theory_frame([0.5, 2.0], snr=3.0, late=10.0)
    drawn = experiment.simulated_frame(early, stops, "zero", late=10.0)
    assert set(drawn.what) == set(late.what)
    assert len(plots.generalization_panels(curves, late, drawn, students).axes) == 3


def test_students_of_noisy_images_train_as_torch_does() -> None:
    data = load("digits")
    given: dict[str, Any] = {"samples": 50, "tested": 40, "flipped": 0.4}
    shared: dict[str, Any] = {
        "width": 5,
        "start": 0.6,
        "rate": 0.01,
        "steps": 12,
        "every": 6,
        **given,
    }
    run = noisy.image_student(data, group=[{"seed": 2}, {"seed": 5}], **shared)
    alone = noisy.image_student(data, group=[{"seed": 5}], **shared)
    for name, value in alone.items():
        np.testing.assert_array_equal(value[0], run[name][1], err_msg=name)
    x, y, x_test, y_test, wrong = noisy.drawn_images(data, seed=5, **given)
    assert wrong == pytest.approx(0.4 * 0.9, abs=0.1)
    torch.testing.assert_close(x.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
    assert float(x.square().sum(1).mean()) == pytest.approx(64, rel=1e-4)
    assert float(y.sum()) == pytest.approx(0.0, abs=1e-4)
    random = np.random.default_rng([5, 12, 5])
    first = torch.from_numpy(0.6 * random.standard_normal((5, 64)) / 8).float().requires_grad_()
    last = torch.from_numpy(0.6 * random.standard_normal((10, 5)) / 5**0.5).float()
    last.requires_grad_()
    adam = torch.optim.Adam([first, last], lr=0.01)
    for _ in range(12):
        adam.zero_grad()
        (0.5 * (torch.relu(x @ first.T) @ last.T - y).square().sum(1).mean()).backward()
        adam.step()
    with torch.no_grad():
        out = torch.relu(x_test @ first.T) @ last.T
    expected = float((out - y_test).square().sum() / y_test.square().sum())
    assert run["test"][1, -1] == pytest.approx(expected, rel=1e-3)
    missed = float((out.argmax(1) != y_test.argmax(1)).float().mean())
    assert run["wrong"][1, -1] == pytest.approx(missed, abs=1e-6)
    del shared["width"]
    frame = noisy.image_frame(data, [2, 5], widths=[2, 5], **shared)
    assert frame[frame.width == 5].final.tolist() == run["test"][:, -1].tolist()
    assert (frame.best <= frame.final).all()
    assert noisy.full_width(data, [2, 7, 40], 50) == 7  # 7 x 74 for 50 x 10 labels
    assert list(noisy.image_ratio(frame, 2, 5).index) == [2, 5]
    frame = frame.assign(start="start 0.6")
    assert len(plots.student_panels(frame, frame, 0.3).axes) == 3
    with pytest.raises(ValueError, match="samples and tested must be at most"):
        noisy.drawn_images(data, seed=0, samples=10**6, tested=4, flipped=0.0)
