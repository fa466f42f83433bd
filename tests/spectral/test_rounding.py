"""rclib.spectral.rounding: what the entries' precision cannot tell from zero, both sides of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rclib.spectral import rounding, spectra

TYPES = [torch.float32, torch.float16, torch.bfloat16]


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def turned(sigma: Tensor, shape: tuple[int, int]) -> Tensor:
    """A matrix (h, d) with these singular values, float64."""
    u, v = (torch.linalg.qr(normal(n, len(sigma), seed=i)).Q for i, n in enumerate(shape))
    return (u * sigma) @ v.T


def positive(W: Any) -> int:
    return int((spectra.esd(W) > 0).sum())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(256, 256), (300, 64), (64, 300)])
@pytest.mark.parametrize("rank", [1, 20])
def test_the_rounding_of_a_matrix_of_low_rank_is_no_eigenvalue(
    dtype: torch.dtype, shape: tuple[int, int], rank: int
) -> None:
    W = (normal(shape[0], rank) @ normal(rank, shape[1], seed=1) * 0.01).to(dtype)
    assert positive(W) == positive(W.T) == rank
    assert positive(W.double()) > rank  # float64 is taken as exact
    found = spectra.esd(W)
    assert found.shape == (shape[1],)
    kept = np.linalg.svd(W.double().numpy(), compute_uv=False)[:rank] ** 2
    np.testing.assert_allclose(found[::-1][:rank], kept, rtol=1e-7)
    assert spectra.effective_rank(W) <= rank
    top = spectra.spectrum(W)
    assert int((top.eigenvalues > 0).sum()) == rank
    if dtype != torch.bfloat16:  # NumPy has no such type
        assert positive(W.numpy()) == rank


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(128, 128), (200, 128), (8, 8), (2, 2)])
def test_small_eigenvalues_of_matrices_of_full_rank_stay(
    dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    for seed in range(5):
        assert positive(normal(*shape, seed=seed).to(dtype)) == shape[1]
    rows = normal(*shape)
    rows[0] *= 1e-9 if dtype != torch.float16 else 1e-4  # a neuron that has all but gone
    assert positive(rows.to(dtype)) == shape[1]
    assert positive(torch.eye(shape[1], dtype=dtype)) == shape[1]
    assert positive(torch.diag(torch.tensor([1.0, 1e-4], dtype=dtype))) == 2


@pytest.mark.parametrize("n", [32, 200])
def test_values_beyond_the_bound_stay_and_values_below_it_go(n: int) -> None:
    """The bound of the module: eps rms (sqrt h + sqrt d) with h, d without the values above."""
    eps, known, few = 2.0**-23, n // 2, n - n // 2
    rms = math.sqrt(known) / n  # of `known` singular values of one
    bound = eps * rms * 2 * math.sqrt(few)
    # 40: beyond what sums in float32 leave; 3 after a step of a hundred is such a sum's error.
    for factor, rank in ((40.0, n), (3.0, known), (0.3, known)):
        sigma = torch.cat([torch.ones(known), torch.full((few,), factor * bound)]).double()
        W = turned(sigma, (n, n))  # exact, said to be known to eps
        whole = rounding.precision(W, eps=eps)
        assert rounding.numerical_rank(spectra.esd(W), W, whole) == rank, factor
    assert whole.bound() == pytest.approx(eps * rms * 2 * math.sqrt(n))
    # Values that fall evenly have no step: they stay down to the bound.
    W = turned(torch.logspace(0, math.log10(3 * bound), n, dtype=torch.float64), (n, n))
    whole = rounding.precision(W, eps=eps)
    assert rounding.numerical_rank(spectra.esd(W), W, whole) == n


def test_precision_is_that_of_the_type_or_of_what_was_rounded() -> None:
    W = normal(30, 20)
    for dtype in (torch.float64, *TYPES):
        stored = W.to(dtype)
        eps = torch.finfo(dtype).eps
        assert rounding.precision(stored).eps == eps
        assert rounding.precision(stored.double()).eps == eps
        assert rounding.entries_eps(stored) == (None if dtype == torch.float64 else eps)
    assert rounding.precision(W, eps=0.1).eps == 0.1
    assert rounding.entries_eps(W.numpy()) is None
    assert rounding.entries_eps(W.numpy().astype("f4")) == 2.0**-23
    assert rounding.entries_eps(torch.arange(3)) is None
    assert rounding.entries_eps([[1.0]]) is None


def test_equal_values_are_equal_up_to_rounding() -> None:
    W = turned(torch.ones(40).double(), (40, 40)).float()
    known = rounding.precision(W)
    assert rounding.same_value(spectra.esd(W), known)
    assert not rounding.same_value(spectra.esd(normal(40, 40).float()), known)
    assert not rounding.same_value(np.array([]), known)
