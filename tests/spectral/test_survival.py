"""spectral.survival: what of a start survives, against constructions with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from rclib.spectral.survival import loss_gain, survival


def test_an_untrained_and_a_scaled_matrix() -> None:
    w0 = np.random.default_rng(0).standard_normal((7, 5))
    same = survival(w0, w0, products=5)
    assert same.moved == pytest.approx(0, abs=1e-12)
    assert (same.start, same.products, same.spectrum) == pytest.approx((1, 1, 1))
    twice = survival(-3 * w0, w0, products=5)
    assert twice.moved == pytest.approx(4)
    assert twice.start == pytest.approx(1)


def test_known_parts() -> None:
    """W0 = diag(3, 2, 1); W keeps the first product, loses the second, turns the third."""
    w0 = np.diag([3.0, 2.0, 1.0])
    w = np.array([[3.0, 0, 0], [0, 0, 4.0], [0, 0, 0]])
    found = survival(w, w0, products=2)
    assert found.moved == pytest.approx(np.sqrt((4 + 16 + 1) / 14))
    assert found.start == pytest.approx(81 / (25 * 14))
    assert found.products == pytest.approx(9 / 25)
    assert found.spectrum == pytest.approx((4 * 3 + 3 * 2) ** 2 / (25 * 14))


def test_products_are_a_least_squares_fit_and_rotations_keep_the_spectrum() -> None:
    random = np.random.default_rng(1)
    w, w0 = random.standard_normal((2, 8, 6))
    left, _, right = np.linalg.svd(w0)
    basis = np.stack([np.outer(left[:, i], right[i]).ravel() for i in range(3)], 1)
    rest = np.linalg.lstsq(basis, w.ravel(), rcond=None)[1][0]
    assert survival(w, w0, products=3).products == pytest.approx(1 - rest / np.sum(w * w))
    q, p = (np.linalg.qr(random.standard_normal((n, n)))[0] for n in (8, 6))
    turned = survival(q @ w0 @ p, w0, products=6)
    assert turned.spectrum == pytest.approx(1)
    assert turned.products < 0.5


def test_chance_levels() -> None:
    random = np.random.default_rng(2)
    w0 = random.standard_normal((10, 6))
    found = [survival(random.standard_normal((10, 6)), w0, products=4) for _ in range(2000)]
    assert np.mean([f.start for f in found]) == pytest.approx(1 / 60, rel=0.1)
    assert np.mean([f.products for f in found]) == pytest.approx(4 / 60, rel=0.1)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_no_scale_is_lost(scale: float) -> None:
    random = np.random.default_rng(3)
    w, w0 = random.standard_normal((2, 4, 4))
    expected, found = survival(w, w0, products=2), survival(scale * w, scale * w0, products=2)
    assert vars(found) == pytest.approx(vars(expected))


def test_losses_by_hand() -> None:
    at, own, plain = [0, 10, 30], [3.0, 1.0, 0.0], [2.0, 2.0, 1.0]
    gain, lead = loss_gain(at, own, plain)
    assert gain == pytest.approx((3 - 1) / 30)
    assert lead == pytest.approx((0 * 10 + 1 * 20) / 30)
    assert loss_gain(at, plain, plain) == (0, 0)
    assert np.isnan(loss_gain(at, [1.0, np.inf, 2.0], plain)).all()


def test_what_is_refused() -> None:
    eye = np.eye(3)
    with pytest.raises(ValueError, match="start must not be zero"):
        survival(eye, 0 * eye, products=1)
    with pytest.raises(ValueError, match="end must be finite"):
        survival(np.nan * eye, eye, products=1)
    with pytest.raises(ValueError, match="end must be a matrix"):
        survival(np.ones(3), eye, products=1)
    with pytest.raises(ValueError, match="one shape"):
        survival(np.ones((3, 2)), eye, products=1)
    with pytest.raises(ValueError, match="products must be at most 3, got 4"):
        survival(eye, eye, products=4)
    with pytest.raises(ValueError, match="at must ascend"):
        loss_gain([0, 0], [1, 1], [1, 1])
    with pytest.raises(ValueError, match="plain must have the shape"):
        loss_gain([0, 1], [1, 1], [1, 1, 1])
