"""stats.ridge against normal equations in long arithmetic, scikit-learn and direct solves."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from rclib.stats.ridge import kernel_path, ridge_path


def made(
    seed: int, n: int = 40, width: int = 12, targets: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, width)), generator.standard_normal((n, targets))


def test_a_ridge_fit_is_that_of_scikit_learn() -> None:
    H, y = made(0)
    path = ridge_path(H).coefficients(y, [1e-3, 0.5])
    assert path.shape == (2, 12, 3)
    for eta, found in zip((1e-3, 0.5), path, strict=True):
        wanted = Ridge(alpha=len(H) * eta, fit_intercept=False, solver="cholesky").fit(H, y).coef_
        np.testing.assert_allclose(found, wanted.T, rtol=1e-8)
    np.testing.assert_allclose(
        ridge_path(H).coefficients(y[:, 1], [0.5])[0], path[1][:, 1], rtol=1e-12
    )


def test_without_a_penalty_it_is_the_shortest_solution() -> None:
    H, y = made(1, n=8, width=20)
    H[:, 3] = H[:, 4]
    found = ridge_path(H).coefficients(y, [0.0])[0]
    np.testing.assert_allclose(found, np.linalg.pinv(H) @ y, atol=1e-10)
    H[5] = H[6]  # σ of rounding is not zero
    assert ridge_path(H).rank() == 7
    assert ridge_path(np.diag([2.0, 0.0])).coefficients([4.0, 1.0], [0.0])[0].tolist() == [2.0, 0.0]


def test_small_singular_values_survive_that_normal_equations_lose() -> None:
    """Singular values of 1 and 1e-9: their squares differ by 1e-18, below double precision."""
    generator = np.random.default_rng(2)
    left, right = (np.linalg.qr(generator.standard_normal((k, 2)))[0] for k in (30, 2))
    H = left @ np.diag([1.0, 1e-9]) @ right.T
    y = left @ np.array([1.0, 1e-3])
    found = ridge_path(H).coefficients(y, [1e-24])[0]
    wanted = right @ np.array([1.0, 1e6])
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert ridge_path(H).values[1] == pytest.approx(1e-9, rel=1e-5)
    assert np.linalg.eigvalsh(H.T @ H)[0] != pytest.approx(1e-18, rel=0.5, abs=0)


def test_a_kernel_fit_is_that_of_scikit_learn_and_of_its_features() -> None:
    H, y = made(3)
    K = H @ H.T
    scale = float(np.mean(np.diag(K)))
    path = kernel_path(K)
    assert path.scale == pytest.approx(scale)
    for eta, found in zip((1e-2, 1.0), path.coefficients(y, [1e-2, 1.0]), strict=True):
        model = KernelRidge(alpha=eta * scale, kernel="precomputed").fit(K, y)
        np.testing.assert_allclose(found, model.dual_coef_, rtol=1e-7)
        primal = ridge_path(H).coefficients(y, [eta * scale / len(H)])[0]
        np.testing.assert_allclose(H.T @ found, primal, atol=1e-8)
    np.testing.assert_allclose(path.coefficients(y[:, 0], [1.0])[0], found[:, 0])


def test_what_cannot_be_fitted_is_refused() -> None:
    H, y = made(4)
    with pytest.raises(ValueError, match="penalties must be finite and not negative, got"):
        ridge_path(H).coefficients(y, [-1.0])
    with pytest.raises(ValueError, match="penalties must be finite and not negative, got"):
        ridge_path(H).coefficients(y, [])
    with pytest.raises(ValueError, match="targets must have 40 rows"):
        ridge_path(H).coefficients(y[:5], [1.0])
    with pytest.raises(ValueError, match="features must be a matrix"):
        ridge_path(y[:, 0])
    with pytest.raises(ValueError, match="kernel must be symmetric"):
        kernel_path(H)
    with pytest.raises(ValueError, match="kernel must be symmetric"):
        kernel_path(np.array([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="penalties of a kernel must be positive"):
        kernel_path(np.eye(3)).coefficients(np.ones(3), [0.0])
