"""Paper B's setting against autograd, finite differences and direct solvers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from rclib.teacher import evaluation
from rclib.teacher import problem as teacher

SMALL = {"d": 12, "h": 9, "n": 30, "n_test": 8}


def small(seed: int = 0, **sizes: object) -> teacher.Problem:
    return teacher.make_problem(seed, dtype=np.float64, **{**SMALL, **sizes})  # type: ignore[arg-type]


def torch_student(W: torch.Tensor, a: np.ndarray, X: np.ndarray) -> torch.Tensor:
    h, d = W.shape
    hidden = torch.tanh(torch.from_numpy(X.copy()) @ W.T / d**0.5)
    return hidden @ torch.from_numpy(a.copy()) / h**0.5


def test_labels_are_softplus_plus_noise() -> None:
    p = small(n_test=4000, noise=0.7)
    clean = torch.nn.functional.softplus(torch.from_numpy(p.X_test @ p.beta)).numpy()
    assert np.allclose(p.clean_test, clean, rtol=1e-6)
    xi = (p.y_test - clean) / 0.7
    assert abs(np.mean(xi)) < 4 / np.sqrt(4000)
    assert np.std(xi) == pytest.approx(1.0, abs=4 / np.sqrt(2 * 4000))
    assert abs(np.corrcoef(xi, clean)[0, 1]) < 4 / np.sqrt(4000)
    assert np.linalg.norm(p.beta) == pytest.approx(1.0)
    silent = small(noise=0.0)
    assert np.array_equal(silent.y_test, silent.clean_test)


def test_inputs_and_start_are_standard_normal() -> None:
    p = small(d=60, h=80, n=100, n_test=50)
    for array in (p.W0, p.X, p.X_fresh, p.X_test, p.a):
        z = array.ravel()
        assert abs(z.mean()) < 4 / np.sqrt(z.size)
        assert abs(z.var() - 1) < 4 * np.sqrt(2 / z.size)
    streams = [p.W0.ravel(), p.X.ravel(), p.X_fresh.ravel(), p.X_test.ravel()]
    for i, first in enumerate(streams):
        for second in streams[:i]:
            k = min(first.size, second.size)
            assert abs(np.corrcoef(first[:k], second[:k])[0, 1]) < 4.5 / np.sqrt(k)


def test_repeats_share_what_does_not_change() -> None:
    base, larger, wider, noisy = small(), small(n=50), small(h=20), small(noise=0.9)
    other = small(seed=1)
    for p in (larger, wider, noisy):
        assert np.array_equal(p.beta, base.beta)
        assert np.array_equal(p.X[:30], base.X)
        assert np.array_equal(p.X_test, base.X_test)
    assert np.array_equal(larger.W0, base.W0)
    assert np.allclose(larger.y_fresh[:30], base.y_fresh, rtol=1e-12)
    shift = (noisy.y - base.y) / (base.y - teacher.teacher(base.X, base.beta))
    assert np.allclose(shift, 0.6 / 0.3)
    for name in ("beta", "W0", "a", "X", "X_fresh", "X_test"):
        assert not np.allclose(getattr(other, name), getattr(base, name))
        with pytest.raises(ValueError, match="read-only"):
            getattr(base, name)[...] = 0.0


def test_float32_is_the_default() -> None:
    p = teacher.make_problem(0, **SMALL)  # type: ignore[arg-type]
    assert {array.dtype for array in vars(p).values()} == {np.dtype(np.float32)}


def test_loss_and_gradient_against_autograd() -> None:
    p = small()
    W = torch.from_numpy(p.W0.copy()).requires_grad_()
    prediction = torch_student(W, p.a, p.X)
    expected = torch.nn.functional.mse_loss(prediction, torch.from_numpy(p.y.copy()))
    expected.backward()
    loss, gradient = teacher.loss_and_gradient(p.W0, p.a, p.X, p.y)
    assert np.allclose(teacher.student(p.W0, p.a, p.X), prediction.detach().numpy(), rtol=1e-12)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert W.grad is not None
    assert np.allclose(gradient, W.grad.numpy(), rtol=1e-10, atol=1e-15)
    assert loss == p.first_step[0]
    assert np.array_equal(gradient, p.first_step[1])


def test_gradient_against_finite_differences() -> None:
    p, step = small(), 1e-5
    _, gradient = teacher.loss_and_gradient(p.W0, p.a, p.X, p.y)
    for i, j in [(0, 0), (4, 7), (8, 11)]:
        shift = np.zeros_like(p.W0)
        shift[i, j] = step
        up = np.mean((teacher.student(p.W0 + shift, p.a, p.X) - p.y) ** 2)
        down = np.mean((teacher.student(p.W0 - shift, p.a, p.X) - p.y) ** 2)
        assert gradient[i, j] == pytest.approx((up - down) / (2 * step), rel=1e-7)


@pytest.mark.parametrize(("n", "h"), [(40, 15), (15, 40), (20, 20)])
@pytest.mark.parametrize("ridge", [0.1, 1e-4])
def test_refit_against_sklearn_and_the_normal_equations(n: int, h: int, ridge: float) -> None:
    rng = np.random.default_rng(1)
    Z, y = rng.normal(size=(n, h)) / np.sqrt(h), rng.normal(size=n)
    fit = teacher.ridge_refit(Z, y, ridge=ridge)
    direct = np.linalg.inv(Z.T @ Z + ridge * n / h * np.eye(h)) @ (Z.T @ y)
    library = Ridge(alpha=ridge * n / h, fit_intercept=False, solver="svd").fit(Z, y)
    assert np.allclose(fit.coefficients, direct, rtol=1e-7)
    assert np.allclose(fit.coefficients, library.coef_, rtol=1e-7)
    assert np.allclose(fit.correlation, Z.T @ y)
    assert fit.gram_norm == pytest.approx(np.linalg.norm(Z @ Z.T))


@pytest.mark.parametrize(("n", "h"), [(300, 200), (200, 300)])
def test_refit_in_float32_against_float64(n: int, h: int) -> None:
    """Features dominated by one direction, as large rates make them: condition about 2e6.

    A plain float32 solve is wrong by some 2 % here; the refined one is 40 times better.
    """
    rng = np.random.default_rng(2)
    Z = np.tanh(rng.normal(size=(n, h)) + 30 * rng.normal(size=(n, 1)) * rng.normal(size=h))
    Z4, y4 = (Z / np.sqrt(h)).astype(np.float32), rng.normal(size=n).astype(np.float32)
    Z8, y8 = Z4.astype(np.float64), y4.astype(np.float64)
    exact = teacher.ridge_refit(Z8, y8, ridge=1e-4).coefficients
    single = teacher.ridge_refit(Z4, y4, ridge=1e-4).coefficients
    assert single.dtype == np.float32
    assert np.linalg.norm(single - exact) < 2e-3 * np.linalg.norm(exact)
    losses = [np.mean((Z8 @ a - y8) ** 2) for a in (single, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("h", [9, 50])
def test_evaluation_from_the_definitions(h: int) -> None:
    p = small(h=h)
    Z = np.tanh(p.X_fresh @ p.W0.T / np.sqrt(12)) / np.sqrt(h)
    Z_test = np.tanh(p.X_test @ p.W0.T / np.sqrt(12)) / np.sqrt(h)
    a = np.linalg.inv(Z.T @ Z + 0.02 * 30 / h * np.eye(h)) @ Z.T @ p.y_fresh
    K, T = Z @ Z.T, np.outer(p.y_fresh, p.y_fresh)
    found = evaluation.evaluate_student(p, p.W0, ridge=0.02)
    assert found.train_loss == pytest.approx(np.mean((Z @ a - p.y_fresh) ** 2), rel=1e-9)
    assert found.test_loss == pytest.approx(np.mean((Z_test @ a - p.y_test) ** 2), rel=1e-9)
    clean = np.log1p(np.exp(p.X_test @ p.beta))
    assert found.test_loss_clean == pytest.approx(np.mean((Z_test @ a - clean) ** 2), rel=1e-9)
    kta = np.sum(K * T) / (np.linalg.norm(K) * np.linalg.norm(T))
    assert found.kta == pytest.approx(kta, rel=1e-9)


@pytest.mark.parametrize("n_test", [8, 4500])  # 4500: more than one chunk, the last not full
def test_the_released_evaluation_is_that_of_smaller_weights(n_test: int) -> None:
    """The hook's storage is divided by √d twice, so features are those of W / √d."""
    p = small(n_test=n_test)
    found = evaluation.evaluate_both(p, p.W0, ridge=0.02)
    assert list(found) == list(evaluation.EVALUATIONS)
    Z_test = np.tanh(p.X_test @ p.W0.T / 12) / 3
    Z = np.tanh(p.X_fresh @ p.W0.T / 12) / 3
    a = np.linalg.inv(Z.T @ Z + 0.02 * 30 / 9 * np.eye(9)) @ Z.T @ p.y_fresh
    released = vars(found["released"])
    assert released["test_loss"] == pytest.approx(np.mean((Z_test @ a - p.y_test) ** 2), rel=1e-9)
    shrunk = evaluation.evaluate_student(p, p.W0 / np.sqrt(12), ridge=0.02)
    assert released == pytest.approx(vars(shrunk), rel=1e-9)
    written = vars(evaluation.evaluate_student(p, p.W0, ridge=0.02))
    assert vars(found["equations"]) == pytest.approx(written, rel=1e-12)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="h must be a positive integer, got -3"):
        small(h=-3)
    with pytest.raises(ValueError, match=r"n must be a positive integer, got 2\.5"):
        small(n=2.5)
    with pytest.raises(ValueError, match="noise must be finite and not negative, got -1"):
        small(noise=-1.0)
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, got -1"):
        small(seed=-1)
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got int64"):
        teacher.make_problem(0, dtype=np.int64)
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match=f"ridge must be positive and finite, got {bad}"):
            teacher.ridge_refit(np.ones((3, 2)), np.ones(3), ridge=bad)
    with pytest.raises(ValueError, match="y must have n = 3, as Z, got 2"):
        teacher.ridge_refit(np.ones((3, 2)), np.ones(2))
    with pytest.raises(ValueError, match="ridge must be larger for Z of float32, got 1e-25"):
        teacher.ridge_refit(np.full((9, 4), 3.0, np.float32), np.ones(9, np.float32), ridge=1e-25)
    with pytest.raises(FloatingPointError, match="features Z are not finite"):
        teacher.ridge_refit(np.full((3, 2), np.nan), np.ones(3))
