"""rowcolumn.kept: each part against what defines it, by another route."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rclib.rowcolumn.kept import PARTS, keep_part, row_column_part


@pytest.fixture(params=[(12, 20), (20, 12), (9, 9)])
def pair(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(sum(request.param))
    w = torch.randn(request.param, generator=random, dtype=torch.float64)
    return w * 3 + torch.arange(request.param[1]), torch.randn(
        request.param, generator=random, dtype=torch.float64
    )


def values(w: Tensor) -> np.ndarray:
    return np.sqrt(np.linalg.eigvalsh(w.numpy() @ w.numpy().T)[::-1][: min(w.shape)])


def test_the_row_column_part_is_the_least_squares_fit(pair: tuple[Tensor, Tensor]) -> None:
    w = pair[0]
    m, n = w.shape
    rows, columns = np.indices((m, n))
    design = np.concatenate(
        [np.eye(m)[rows.ravel()], np.eye(n)[columns.ravel()]], axis=1
    )  # one column a row mean, one a column mean
    fit = design @ np.linalg.lstsq(design, w.numpy().ravel(), rcond=None)[0]
    assert np.allclose(row_column_part(w).numpy().ravel(), fit)


def test_means_are_one_matrixs_and_the_rest_the_others(pair: tuple[Tensor, Tensor]) -> None:
    w, start = pair
    for one, other, part in ((w, start, "means"), (start, w, "no means")):
        found = keep_part(w, start, part)
        assert torch.allclose(found.mean(1), one.mean(1))
        assert torch.allclose(found.mean(0), one.mean(0))
        rest, whole = found - row_column_part(found), other - row_column_part(other)
        assert torch.allclose(rest, whole)
    both = keep_part(w, start, "means") + keep_part(w, start, "no means")
    assert torch.allclose(both, w + start)


def test_spectrum_and_directions_are_exchanged(pair: tuple[Tensor, Tensor]) -> None:
    w, start = pair
    directed, valued = (keep_part(w, start, part) for part in ("directions", "spectrum"))
    assert np.allclose(values(directed), values(start))
    assert np.allclose(values(valued), values(w))
    # Of one matrix's vectors the Gram matrices of both commute.
    for found, like in ((directed, w), (valued, start)):
        one, other = found @ found.T, like @ like.T
        assert torch.allclose(one @ other, other @ one)
    assert torch.allclose(keep_part(w, w, "directions"), w)
    assert torch.allclose(keep_part(w, w, "spectrum"), w)


def test_leading_pairs_are_replaced(pair: tuple[Tensor, Tensor]) -> None:
    w, start = pair
    q = max(1, min(w.shape) // 8)
    left, s, right = np.linalg.svd(w.numpy())
    left0, _, right0 = np.linalg.svd(start.numpy())
    leading = left[:, :q] @ np.diag(s[:q]) @ right[:q]
    rest = keep_part(w, start, "leading").numpy() - leading
    assert np.linalg.matrix_rank(rest, tol=1e-8) == min(w.shape) - q
    assert np.allclose(rest @ right0[:q].T, 0)
    assert np.allclose(left0[:, :q].T @ rest, 0)
    assert torch.allclose(keep_part(w, w, "leading"), w)


def test_random_places_keep_entries_and_samples_keep_the_spectrum(
    pair: tuple[Tensor, Tensor],
) -> None:
    w, start = pair
    entries, sampled = (keep_part(w, start, part, seed=3) for part in ("entries", "sampled"))
    for found in (entries, sampled):
        assert torch.equal(found.flatten().sort().values, w.flatten().sort().values)
        assert not torch.equal(found, w)
    assert np.allclose(values(sampled), values(w))
    assert not np.allclose(values(entries), values(w))
    assert torch.allclose(sampled.sum(1).sort().values, w.sum(1).sort().values)
    assert not torch.equal(sampled, keep_part(w, start, "sampled", seed=4))


@pytest.mark.parametrize("part", PARTS)
def test_dtype_and_shape_stay(part: str) -> None:
    w, start = torch.randn(8, 5), torch.randn(8, 5)
    found = keep_part(w, start, part)
    assert (found.dtype, found.shape) == (torch.float32, (8, 5))
    assert not torch.equal(found, start)


def test_what_cannot_be_kept_is_refused() -> None:
    w = torch.ones(3, 4)
    with pytest.raises(ValueError, match=r"part must be one of .* got 'rows'"):
        keep_part(w, w, "rows")
    with pytest.raises(ValueError, match=r"start must have w's shape \(3, 4\), got \(4, 3\)"):
        keep_part(w, w.T, "means")
    with pytest.raises(ValueError, match=r"w must be a matrix, its shape is \(3,\)"):
        keep_part(w[:, 0], w, "means")
    with pytest.raises(ValueError, match="start must be finite"):
        keep_part(w, w / 0, "means")
