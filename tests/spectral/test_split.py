"""spectral.split: exact sums, invented row-column parts found again, spikes against drawn ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rclib.spectral import spectra
from rclib.spectral.split import (
    Split,
    ownership,
    predicted_spikes,
    split_regression,
    split_svd,
)

H, D = 60, 40


def invented(seed: int = 0, noise: float = 0.0) -> dict[str, Any]:
    """W(0), row and column variables, and a change that is two products of them (plus noise)."""
    generator = np.random.default_rng(seed)
    start = generator.standard_normal((H, D))
    rows, columns = generator.standard_normal((H, 4)), generator.standard_normal((D, 3))
    part = rows @ generator.standard_normal((4, 2)) @ generator.standard_normal((2, 3)) @ columns.T
    rest = noise * generator.standard_normal((H, D))
    return {"start": start, "rows": rows, "columns": columns, "part": part, "rest": rest}


def both(W: Any, start: Any, rows: Any, columns: Any, products: int) -> list[Split]:
    return [
        split_svd(W, start, products=products),
        split_regression(W, start, rows=rows, columns=columns, products=products),
    ]


@pytest.mark.parametrize("products", [1, 2, 3])
def test_the_parts_are_the_matrix_and_orthogonal(products: int) -> None:
    one = invented(1, noise=0.5)
    W = one["start"] + one["part"] + one["rest"]
    for split in both(W, one["start"], one["rows"], one["columns"], products):
        np.testing.assert_allclose(split.start + split.row_column + split.rest, W, atol=1e-12)
        for vectors in (split.left, split.right):
            np.testing.assert_allclose(vectors.T @ vectors, np.eye(products), atol=1e-12)
        assert float(np.sum(split.row_column * split.rest)) == pytest.approx(0.0, abs=1e-8)
        shares = [np.square(part).sum() for part in (split.row_column, split.rest)]
        assert split.kept == pytest.approx(shares[0] / sum(shares))
        assert np.all(np.diff(split.strengths) <= 0)


def test_a_known_part_is_found_exactly_either_way() -> None:
    one = invented(2)
    for split in both(one["start"] + one["part"], one["start"], one["rows"], one["columns"], 2):
        np.testing.assert_allclose(split.row_column, one["part"], atol=1e-10)
        np.testing.assert_allclose(split.rest, 0.0, atol=1e-10)
        assert split.kept == pytest.approx(1.0)


def test_variables_see_through_noise_that_the_svd_takes_along() -> None:
    """With the right variables the fit is nearer to the truth than the best sum of any kind."""
    one = invented(3, noise=3.0)
    W = one["start"] + one["part"] + one["rest"]
    free, tied = both(W, one["start"], one["rows"], one["columns"], 2)
    far, near = (np.linalg.norm(split.row_column - one["part"]) for split in (free, tied))
    assert near < 0.5 * far
    assert tied.kept < free.kept


def test_the_regression_is_least_squares() -> None:
    """Full rank: the normal equations of all products of a row and a column variable."""
    one = invented(4, noise=1.0)
    change = one["part"] + one["rest"]
    found = split_regression(
        one["start"] + change, one["start"], rows=one["rows"], columns=one["columns"], products=3
    )
    design = np.einsum("ip,jq->ijpq", one["rows"], one["columns"]).reshape(H * D, 12)
    solution, *_ = np.linalg.lstsq(design, change.ravel(), rcond=None)
    np.testing.assert_allclose(found.row_column.ravel(), design @ solution, atol=1e-9)


def test_limited_rank_is_the_best_of_its_rank() -> None:
    """No small step in the coefficients, at the same rank, comes nearer to the change."""
    one, generator = invented(5, noise=1.0), np.random.default_rng(0)
    change = one["part"] + one["rest"]
    found = split_regression(
        one["start"] + change, one["start"], rows=one["rows"], columns=one["columns"], products=1
    )
    u, w = found.left[:, 0] * found.strengths[0], found.right[:, 0]
    least = np.square(found.rest).sum()
    for _ in range(20):
        a = u + 0.05 * one["rows"] @ generator.standard_normal(4)
        b = w + 0.01 * one["columns"] @ generator.standard_normal(3)
        assert np.square(change - np.outer(a, b)).sum() > least


def test_copies_zeros_and_units_of_variables_change_nothing() -> None:
    one = invented(6, noise=1.0)
    W = one["start"] + one["part"] + one["rest"]
    plain = both(W, one["start"], one["rows"], one["columns"], 3)[1]
    rows = np.column_stack([1e-9 * one["rows"], one["rows"] @ np.ones((4, 1)), np.zeros(H)])
    other = split_regression(W, one["start"], rows=rows, columns=1e5 * one["columns"], products=3)
    np.testing.assert_allclose(other.row_column, plain.row_column, atol=1e-8)
    few = split_regression(
        W, one["start"], rows=one["rows"][:, :1], columns=one["columns"], products=3
    )
    assert few.strengths.shape == (1,)


def test_noise_leaves_chance_to_the_variables() -> None:
    """p q / (h d) of a change without structure."""
    generator = np.random.default_rng(7)
    shares = []
    for _ in range(200):
        start, change = generator.standard_normal((2, H, D))
        rows, columns = generator.standard_normal((H, 4)), generator.standard_normal((D, 3))
        split = split_regression(start + change, start, rows=rows, columns=columns, products=3)
        shares.append(split.kept)
    assert np.mean(shares) == pytest.approx(12 / (H * D), rel=0.1)


def test_ownership_of_products_alone_of_noise_and_its_sum() -> None:
    one = invented(8, noise=1.0)
    alone = split_svd(one["part"], np.zeros((H, D)), products=2)
    owned = ownership(spectra.singular_vectors(one["part"], top=3), alone)
    np.testing.assert_allclose(owned[:2], 1.0)
    assert owned[2] == pytest.approx(0.0, abs=1e-6)
    square = one["start"][:D]
    split = split_svd(square + one["part"][:D], square, products=2)
    assert ownership(spectra.singular_vectors(square), split).sum() == pytest.approx(2.0)


def test_spikes_against_drawn_matrices() -> None:
    """Number, places and overlaps of four products, one of them below the transition: means over
    drawn matrices, since overlaps near the transition scatter by several percent."""
    h, d, variance, draws = 450, 300, 0.25, 6
    transition = np.sqrt(variance * np.sqrt(h * d))
    strengths = transition * np.array([0.5, 1.8, 2.5, 3.5])
    found = predicted_spikes(strengths, rows=h, columns=d, variance=variance)
    assert found.number == 3
    assert found.eigenvalues[3] == pytest.approx(found.edge)
    assert (found.left[3], found.right[3]) == (0.0, 0.0)
    generator = np.random.default_rng(9)
    values, lefts, rights, owned = [], [], [], []
    for _ in range(draws):
        u, _ = np.linalg.qr(generator.standard_normal((h, 4)))
        w, _ = np.linalg.qr(generator.standard_normal((d, 4)))
        noise = np.sqrt(variance) * generator.standard_normal((h, d))
        W = noise + (u * strengths) @ w.T
        left, right = spectra.singular_vectors(W, top=4)
        values.append(spectra.esd(W)[::-1][:4])
        lefts.append(np.square(u.T @ left).sum(0))
        rights.append(np.square(w.T @ right).sum(0))
        owned.append(ownership((left, right), split_svd(W, noise, products=4)))
    top, left, right, own = (np.mean(one, axis=0) for one in (values, lefts, rights, owned))
    np.testing.assert_allclose(top[:3], found.eigenvalues[:3], rtol=0.03)
    assert top[3] == pytest.approx(found.edge, rel=0.03)
    np.testing.assert_allclose(left[:3], found.left[:3], atol=0.04)
    np.testing.assert_allclose(right[:3], found.right[:3], atol=0.04)
    np.testing.assert_allclose(own[:3], 0.5 * (found.left + found.right)[:3], atol=0.04)
    assert own[3] < 0.2


def test_spikes_in_their_limits() -> None:
    h, d = 300, 200
    far = predicted_spikes([1e4], rows=h, columns=d)
    assert far.eigenvalues[0] == pytest.approx(1e8 + h + d, rel=1e-9)  # s² and the two traces
    assert (far.left[0], far.right[0]) == pytest.approx((1.0, 1.0), abs=1e-4)
    transition = (h * d) ** 0.25
    near = predicted_spikes([transition * (1 + 1e-9)], rows=h, columns=d)
    assert near.number == 1
    assert near.eigenvalues[0] == pytest.approx(near.edge)
    assert (near.left[0], near.right[0]) == pytest.approx((0.0, 0.0), abs=1e-7)
    assert predicted_spikes([0.0], rows=h, columns=d).number == 0
    # The order of the products does not matter.
    mixed = predicted_spikes([20.0, 40.0, 30.0], rows=h, columns=d)
    assert np.all(np.diff(mixed.eigenvalues) < 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"W": np.ones(3)}, "W must be a matrix"),
        ({"start": np.zeros((D, H))}, "start must have the shape of W"),
        ({"start": np.ones((H, D))}, "W must differ from start"),
        ({"W": np.full((H, D), 1e150)}, "W must have its largest entry below"),
        ({"W": np.full((H, D), np.nan)}, "W"),
        ({"products": 0}, "products"),
        ({"products": D + 1}, f"products must lie in 1 ... {D}"),
        ({"rows": np.ones((D, 2))}, f"rows must have shape \\({H}, p\\)"),
        ({"rows": np.ones((H, H))}, "rows must have shape"),
        ({"columns": np.zeros((D, 2))}, "columns must not all be zero"),
    ],
)
def test_what_cannot_be_split_is_refused(changed: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "W": np.ones((H, D)), "start": np.zeros((H, D)), "rows": np.ones((H, 1)),
        "columns": np.ones((D, 1)), "products": 1,
    }  # fmt: skip
    given |= changed
    with pytest.raises(ValueError, match=message):
        split_regression(given.pop("W"), given.pop("start"), **given)


def test_vectors_and_strengths_of_another_shape_are_refused() -> None:
    one = invented(10)
    split = split_svd(one["part"], np.zeros((H, D)), products=2)
    with pytest.raises(ValueError, match="left vectors must have 60 rows"):
        ownership((np.eye(5), np.eye(D)), split)
    with pytest.raises(ValueError, match="strengths must have shape"):
        predicted_spikes([], rows=3, columns=3)
    with pytest.raises(ValueError, match="strength"):
        predicted_spikes([-1.0], rows=3, columns=3)
