"""Spectra against full SVDs, planted decompositions and the definitions."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from rclib.spectral import spectra

SHAPES = [(40, 25), (25, 40), (30, 30), (1, 12), (12, 1), (2, 2)]


def matrix(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def orthogonal(size: int, seed: int) -> np.ndarray:
    return np.linalg.qr(matrix((size, size), seed))[0]


def with_singular_values(h: int, d: int, sigma: np.ndarray) -> np.ndarray:
    k = sigma.size
    return (orthogonal(h, 1)[:, :k] * sigma) @ orthogonal(d, 2)[:, :k].T


@pytest.mark.parametrize("shape", SHAPES)
def test_esd_is_the_spectrum_of_the_d_by_d_matrix(shape: tuple[int, int]) -> None:
    W = matrix(shape)
    values = spectra.esd(W)
    assert values.shape == (shape[1],)
    assert values.dtype == np.float64
    assert np.all(np.diff(values) >= 0)
    exact = np.linalg.eigvalsh(W.T @ W)
    assert np.allclose(values, exact, rtol=1e-10, atol=1e-12 * exact[-1])
    missing = max(0, shape[1] - shape[0])
    assert np.all(values[:missing] == 0)
    assert np.all(values[missing:] > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_esd_takes_tensors_of_any_type(dtype: torch.dtype) -> None:
    W = torch.randn(20, 12, generator=torch.Generator().manual_seed(0)).to(dtype)
    W.requires_grad_()
    direct = torch.linalg.svdvals(W.detach().double()).flip(0) ** 2
    assert np.allclose(spectra.esd(W), direct.numpy(), rtol=1e-10)


@pytest.mark.parametrize(("h", "d"), [(50, 30), (30, 50)])
def test_small_eigenvalues_of_a_graded_matrix_keep_their_digits(h: int, d: int) -> None:
    for lowest in (-7, -5, -4.5):
        sigma = np.logspace(lowest, 2, 30)
        values = spectra.esd(with_singular_values(h, d, sigma))
        assert np.allclose(values[d - 30 :], sigma**2, rtol=1e-5, atol=0)
    # Just inside the span that the Gram matrix handles, the documented bound holds as well.
    sigma = np.logspace(-1.9, 2, 30)
    values = spectra.esd(with_singular_values(h, d, sigma))
    assert np.allclose(values[d - 30 :], sigma**2, rtol=1e-7, atol=0)


def test_numerical_rank_ends_in_exact_zeros() -> None:
    W = matrix((60, 5)) @ matrix((5, 40), seed=1)
    values = spectra.esd(W)
    assert np.all(values[:35] == 0)
    assert np.all(values[35:] > 1)
    assert spectra.esd(W.T)[20:].tolist() == pytest.approx(values.tolist())
    assert not spectra.esd(np.zeros((4, 3))).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_spectrum_adds_the_top_right_vector(shape: tuple[int, int]) -> None:
    for W in (matrix(shape), 1e9 * matrix(shape), matrix((shape[0], 1)) @ matrix((1, shape[1]))):
        found = spectra.spectrum(W)
        v1 = np.linalg.svd(W)[2][0]
        assert abs(found.v1 @ v1) == pytest.approx(1.0, abs=1e-10)
        assert np.linalg.norm(found.v1) == pytest.approx(1.0, abs=1e-12)
        assert np.allclose(found.eigenvalues, spectra.esd(W), rtol=1e-9)


def test_top_vector_of_a_tied_and_of_a_split_spectrum() -> None:
    """Diagonal matrices reduce to blocks of size one; tied tops leave a plane to choose in."""
    assert np.abs(spectra.spectrum(np.diag([1.0, 5.0, 2.0])).v1) == pytest.approx([0, 1, 0])
    tied = spectra.spectrum(np.diag([3.0, 1.0, 3.0])).v1
    assert tied[0] ** 2 + tied[2] ** 2 == pytest.approx(1.0)


@pytest.mark.parametrize(("h", "d"), [(70, 50), (50, 70)])
def test_alignment(h: int, d: int) -> None:
    W, beta = matrix((h, d)), matrix((1, d), seed=3)[0]
    v1 = np.linalg.svd(W)[2][0]
    expected = abs(v1 @ beta) / np.linalg.norm(beta)
    assert spectra.alignment(W, beta) == pytest.approx(expected, rel=1e-8)
    u = matrix((1, h), seed=4)[0]
    assert spectra.alignment(np.outer(u, beta), -3 * beta) == pytest.approx(1.0, abs=1e-12)
    assert spectra.alignment(torch.tensor(W), torch.tensor(beta)) == pytest.approx(expected)


@pytest.mark.parametrize(("h", "d"), [(30, 20), (20, 30)])
def test_overlaps_of_known_rotations(h: int, d: int) -> None:
    """M has W's singular vectors turned by P and Q, so the overlaps are their squared entries."""
    k = min(h, d)
    U, V = orthogonal(h, 1)[:, :k], orthogonal(d, 2)[:, :k]
    P, Q = orthogonal(k, 3), orthogonal(k, 4)
    W = (U * np.linspace(9, 1, k)) @ V.T
    M = ((U @ P) * np.linspace(5, 2, k)) @ (V @ Q).T
    left, right = spectra.overlaps(W, M)
    assert np.allclose(left, P**2, atol=1e-10)
    assert np.allclose(right, Q**2, atol=1e-10)
    few = spectra.overlaps(W, M, top=4)
    assert np.allclose(few.left, left[:4, :4])
    assert np.allclose(few.right, right[:4, :4])


@pytest.mark.parametrize(("n", "h"), [(30, 12), (12, 30)])
def test_kernel_target_alignment_follows_the_definition(n: int, h: int) -> None:
    Z, y = matrix((n, h)), matrix((1, n), seed=5)[0]
    K, T = Z @ Z.T, np.outer(y, y)
    direct = np.sum(K * T) / (np.linalg.norm(K) * np.linalg.norm(T))
    assert spectra.kernel_target_alignment(Z, y) == pytest.approx(direct, rel=1e-12)
    assert spectra.kernel_target_alignment(7 * Z, -2 * y) == pytest.approx(direct, rel=1e-12)
    assert spectra.kernel_target_alignment(y[:, None], y) == pytest.approx(1.0, rel=1e-12)


def test_ranks_of_known_spectra() -> None:
    W = with_singular_values(20, 15, np.array([4.0, 2.0, 2.0]))
    p = np.array([0.5, 0.25, 0.25])
    assert spectra.stable_rank(W) == pytest.approx((16 + 4 + 4) / 16)
    assert spectra.effective_rank(W) == pytest.approx(np.prod(p**-p))
    flat = with_singular_values(20, 15, np.full(6, 3.0))
    assert spectra.stable_rank(flat) == pytest.approx(6.0)
    assert spectra.effective_rank(flat) == pytest.approx(6.0)
    for rank in (spectra.stable_rank, spectra.effective_rank):
        assert rank(spectra.esd(W)) == pytest.approx(rank(W))
        assert rank(W.T) == pytest.approx(rank(W))


@pytest.mark.parametrize(
    "function",
    [
        spectra.esd,
        spectra.spectrum,
        spectra.stable_rank,
        spectra.effective_rank,
        spectra.singular_vectors,
        lambda W: spectra.alignment(W, np.ones(3)),
        lambda W: spectra.overlaps(W, np.ones((4, 3))),
    ],
)
def test_bad_matrices(function: object) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        W = np.ones((4, 3))
        W[1, 2] = bad
        with pytest.raises(ValueError, match=f"W must be finite, got {bad}"):
            function(W)  # type: ignore[operator]
    for shape in ((0, 3), (2, 3, 4)):
        with pytest.raises(ValueError, match="W must be a matrix"):
            function(np.ones(shape))  # type: ignore[operator]
    for values, kind in (
        (np.ones((4, 3)) * 1j, "complex128"),
        (torch.ones(4, 3) * 1j, "complex64"),
    ):
        with pytest.raises(
            ValueError, match=f"W must hold real numbers, got values of type {kind}"
        ):
            function(values)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"W must have its largest entry.*got 1e\+200"):
        function(np.full((4, 3), 1e200))  # type: ignore[operator]


@pytest.mark.parametrize(
    "function",
    [
        spectra.spectrum,
        spectra.stable_rank,
        spectra.effective_rank,
        lambda W: spectra.alignment(W, np.ones(3)),
        lambda W: spectra.kernel_target_alignment(np.ones((4, 3)), np.zeros(4)),
        lambda W: spectra.kernel_target_alignment(W, np.ones(4)),
        lambda W: spectra.alignment(np.ones((4, 3)), np.zeros(3)),
        lambda W: spectra.overlaps(W, np.ones((4, 3))),
        lambda W: spectra.overlaps(np.ones((4, 3)), W),
    ],
)
def test_zero_has_no_direction(function: object) -> None:
    with pytest.raises(ValueError, match="must not be zero"):
        function(np.zeros((4, 3)))  # type: ignore[operator]


def test_shapes_that_do_not_fit() -> None:
    W = matrix((6, 4))
    with pytest.raises(ValueError, match=r"beta must have shape \(4,\)"):
        spectra.alignment(W, np.ones(6))
    with pytest.raises(ValueError, match=r"M must have the shape of W, \(6, 4\), got \(4, 6\)"):
        spectra.overlaps(W, W.T)
    with pytest.raises(ValueError, match="top must be an integer from 1 to 4, got 5"):
        spectra.overlaps(W, W, top=5)
    with pytest.raises(ValueError, match=r"y must have shape \(6,\)"):
        spectra.kernel_target_alignment(W, np.ones(4))
    with pytest.raises(ValueError, match="eigenvalues must not be negative"):
        spectra.stable_rank([1.0, -1.0])
    with pytest.raises(ValueError, match="at least 10 positive"):
        spectra.power_law(spectra.esd(matrix((1, 50))))  # one row: one eigenvalue


# What lies at the edge of the domain ------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 1000), (1000, 2)])
def test_the_numerical_rank_counts_the_longer_side(shape: tuple[int, int]) -> None:
    """A singular value below max(h, d) · 2.2e-16 · σ_1, here 2.2e-13, is no part of the rank."""
    for second, kept in ((1e-14, 0.0), (2e-13, 0.0), (3e-13, 9e-26), (1e-12, 1e-24)):
        W = np.zeros(shape)
        W[0, 0], W[1, 1] = 1.0, second
        values = spectra.esd(W)
        assert values[-1] == 1.0
        assert values[-2] == pytest.approx(kept, rel=1e-9, abs=0)
        assert not values[:-2].any()


def test_top_vector_of_a_matrix_wider_than_a_block_of_the_reduction() -> None:
    for shape in ((150, 130), (130, 150)):
        W = matrix(shape)
        assert abs(spectra.spectrum(W).v1 @ np.linalg.svd(W)[2][0]) == pytest.approx(1, abs=1e-10)


def test_entries_whose_squares_leave_float64_are_refused_wherever_they_are() -> None:
    for peak in (1e100, -1e100, 1e200, -1e200):
        W = np.ones((3, 2))
        W[1, 0] = peak
        with pytest.raises(ValueError, match=r"W must have its largest entry .* got 1e\+[12]00"):
            spectra.esd(W)
    with pytest.raises(ValueError, match=r"W must have its largest entry .* got 1e-100"):
        spectra.esd(np.full((3, 2), 1e-100))
    assert spectra.esd(np.full((1, 1), 9e99)) == pytest.approx(8.1e199)
    assert spectra.esd(np.full((1, 1), -2e-100)) == pytest.approx(4e-200, abs=0)


def test_a_matrix_without_entries_is_refused_with_its_shape() -> None:
    with pytest.raises(ValueError, match=r"W must be a matrix with entries, got shape \(0, 3\)"):
        spectra.esd(np.ones((0, 3)))
    with pytest.raises(ValueError, match=r"W must not be zero, got shape \(4, 3\) of zeros"):
        spectra.spectrum(np.zeros((4, 3)))


@pytest.mark.parametrize(
    "v", [[1 + 2e-6, 0.0], [1 - 2e-6, 0.0], [1.5, 0.0], [0.0, 0.0], [-1e200, 0.0], [[1.0, 0.0]], []]
)
def test_a_direction_is_a_unit_vector(v: list[Any]) -> None:
    shape = str(np.shape(v)).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=f"v must be a vector of length one, got shape {shape}"):
        spectra.vector_alignment(np.array(v), np.ones(np.shape(v)))


def test_alignment_stays_in_its_interval_and_knows_no_sign_or_scale() -> None:
    # A length within rounding of one is let pass, and does not carry the alignment above one.
    assert spectra.vector_alignment(np.array([1 + 5e-7, 0.0]), [2.0, 0.0]) == 1.0
    v = np.array([-0.6, 0.8])
    for scale in (1.0, -3.0, 1e300, 1e-300):
        assert spectra.vector_alignment(v, [scale, 0.0]) == pytest.approx(0.6)
    with pytest.raises(ValueError, match=r"beta must have shape \(2,\), .* got \(3,\)"):
        spectra.vector_alignment(v, np.ones(3))


def test_overlaps_of_diagonal_matrices_are_permutations() -> None:
    W, M = np.diag([3.0, 2.0, 1.0]), np.diag([-1.0, 3.0, 2.0])
    # From the largest singular value: W has axes 0, 1, 2 and M has 1, 2, 0.
    turned = np.eye(3)[:, [1, 2, 0]]
    left, right = spectra.overlaps(W, M)
    assert np.allclose(left, turned)
    assert np.allclose(right, turned)
    assert np.allclose(spectra.overlaps(W, M, top=1).left, 0.0)
    for name, zero in (("W", (np.zeros((3, 3)), M)), ("M", (W, np.zeros((3, 3))))):
        with pytest.raises(ValueError, match=rf"{name} must not be zero, got shape \(3, 3\)"):
            spectra.overlaps(*zero)


def test_leading_singular_vectors_are_columns_of_their_own() -> None:
    W = matrix((7, 5))
    u, s, vt = np.linalg.svd(W, full_matrices=False)
    for top in (1, 3, 5):
        left, right = spectra.singular_vectors(W, top=top)
        assert (left.shape, right.shape) == ((7, top), (5, top))
        assert np.allclose(W @ right, left * s[:top])
        assert np.allclose(np.abs(u[:, :top].T @ left), np.eye(top))
        assert np.allclose(np.abs(vt[:top] @ right), np.eye(top))
        assert left.flags.c_contiguous
        assert right.flags.c_contiguous
    for bad in (True, 0, 6, 2.0):
        with pytest.raises(ValueError, match=f"top must be an integer from 1 to 5, got {bad}"):
            spectra.singular_vectors(W, top=bad)  # type: ignore[arg-type]


def test_vectors_that_have_no_overlaps_are_named() -> None:
    good = spectra.singular_vectors(matrix((4, 3)))
    names = ("first", "second")
    for at, name in enumerate(names):
        pairs: list[Any] = [good, good]
        pairs[at] = list(good)
        with pytest.raises(ValueError, match=rf"{name} must be a pair \(left, right\), got list"):
            spectra.vector_overlaps(*pairs)
        pairs[at] = (*good, good[0])
        with pytest.raises(ValueError, match=rf"{name} must be a pair \(left, right\), got tuple"):
            spectra.vector_overlaps(*pairs)
        for side_at, side in enumerate(("left", "right")):

            def broken(change: Any, at: int = at, side_at: int = side_at) -> list[Any]:
                pair = [part.copy() for part in good]
                pair[side_at] = change(pair[side_at])
                return [tuple(pair) if k == at else good for k in range(2)]

            with pytest.raises(ValueError, match=f"{side} vectors of {name} must be finite"):
                spectra.vector_overlaps(*broken(lambda part: part * np.nan))
            for value in (-1.5, 1.5):
                with pytest.raises(
                    ValueError, match=f"{side} vectors of first and second must have length one"
                ):
                    spectra.vector_overlaps(*broken(lambda part, to=value: np.full_like(part, to)))
            for change in (lambda part: part[:2], lambda part: part[0]):
                found = broken(change)
                u, v = (str(found[k][side_at].shape) for k in range(2))
                shapes = f"{u} and {v}".replace("(", r"\(").replace(")", r"\)")
                with pytest.raises(
                    ValueError, match=f"{side} vectors of first and second .* got shapes {shapes}"
                ):
                    spectra.vector_overlaps(*found)


def test_overlaps_let_the_rounding_of_a_unit_entry_pass() -> None:
    unit = np.array([[1.0 + 5e-7], [0.0]])
    left, right = spectra.vector_overlaps((unit, unit), (unit, -unit))
    assert left[0, 0] == pytest.approx(1.0, abs=3e-6)
    assert right[0, 0] == pytest.approx(1.0, abs=3e-6)


def test_kernel_target_alignment_with_zeros_inside_and_at_any_scale() -> None:
    # K = diag(4, 0, 1): <K, y y^T> = 4 y_0² + y_2², ‖K‖ = √17, ‖y y^T‖ = ‖y‖².
    Z = np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    y = np.array([1.0, 2.0, 0.0])
    for scale in (1.0, 1e200, 1e-200):
        found = spectra.kernel_target_alignment(Z, scale * y)
        assert found == pytest.approx(4 / (np.sqrt(17) * 5))
    for name, Z_, y_ in (("Z", 0 * Z, y), ("y", Z, 0 * y)):
        with pytest.raises(ValueError, match=f"{name} must not be zero"):
            spectra.kernel_target_alignment(Z_, y_)
    with pytest.raises(ValueError, match=r"y must have shape \(3,\), .* got \(2,\)"):
        spectra.kernel_target_alignment(Z, np.ones(2))


def test_ranks_know_no_scale() -> None:
    values = np.array([4.0, 1.0, 1.0, 0.0])  # singular values 2, 1, 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in (1.0, 1e-6, 4e307, 1e-307):
            assert spectra.stable_rank(scale * values) == pytest.approx(1.5)
            assert spectra.effective_rank(scale * values) == pytest.approx(2 * np.sqrt(2))
    assert spectra.effective_rank(1e-3 * np.eye(3)) == pytest.approx(3.0)
    with pytest.raises(ValueError, match=r"eigenvalues must not be .* missing, got \[\]"):
        spectra.stable_rank([])
    with pytest.raises(ValueError, match=r"eigenvalues must not be negative .*, got \[ 1\. -2\.\]"):
        spectra.effective_rank([1.0, -2.0])


def test_single_numbers_are_floats_of_python_and_results_stay_as_they_are() -> None:
    W, beta = matrix((5, 4)), np.ones(4)
    for found in (
        spectra.alignment(W, beta),
        spectra.alignment(np.eye(1), [1.0]),
        spectra.kernel_target_alignment(W, np.ones(5)),
        spectra.stable_rank(W),
        spectra.effective_rank(W),
    ):
        assert type(found) is float
    with pytest.raises(dataclasses.FrozenInstanceError):
        spectra.spectrum(W).v1 = beta  # type: ignore[misc]


def test_what_is_no_array_of_numbers_is_refused_by_name() -> None:
    v = np.array([1.0, 0.0])
    bad = np.array([np.nan, 1.0])
    for name, call in {
        "v": lambda: spectra.vector_alignment(bad, v),
        "beta": lambda: spectra.vector_alignment(v, bad),
        "M": lambda: spectra.overlaps(np.eye(2), bad * np.eye(2)),
        "Z": lambda: spectra.kernel_target_alignment(bad * np.eye(2), v),
        "y": lambda: spectra.kernel_target_alignment(np.eye(2), bad),
    }.items():
        with pytest.raises(ValueError, match=f"^{name} must be finite"):
            call()
    with pytest.raises(ValueError, match=r"^beta must not be zero$"):
        spectra.vector_alignment(v, 0 * v)


def test_a_whole_model_is_told_what_to_pass() -> None:
    layer = torch.nn.Linear(4, 3)
    for model, kind in ((layer, "Linear"), (layer.state_dict(), "OrderedDict")):
        with pytest.raises(ValueError, match=rf"W must be an array, got a {kind}; pass one weight"):
            spectra.esd(model)
    with pytest.raises(ValueError, match=r"or the whole model to rclib\.analyze"):
        spectra.power_law(layer)
    assert len(spectra.esd(layer.weight)) == 4
