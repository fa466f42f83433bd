"""experiments.beyond.split_measures: a matrix whose part, spikes and tail are known."""

from __future__ import annotations

import numpy as np
import pytest

from rclib.experiments.beyond.split_measures import MATRICES, measures
from rclib.spectral.power_law import power_law
from rclib.spectral.spectra import esd


def test_a_matrix_of_noise_and_two_products() -> None:
    generator = np.random.default_rng(0)
    h, d = 120, 80
    start = generator.standard_normal((h, d))
    rows, columns = generator.standard_normal((h, 3)), generator.standard_normal((d, 3))
    part = 0.6 * np.outer(rows[:, 0], columns[:, 1]) + 0.4 * np.outer(rows[:, 1], columns[:, 0])
    W = start + part
    found, matrices = measures(
        W, start, variance=1.0, rows=rows, columns=columns, early=(1, 2), products=2, ranks=[1, 2],
        seed=0,
    )  # fmt: skip
    assert list(matrices) == list(MATRICES)
    svd, variables, first, shuffled = found["kept"]
    assert svd == pytest.approx(1.0)
    assert variables == pytest.approx(1.0)
    # Of the start: the row variable 0 and the column variables 0 and 1.
    assert 0.5 < first < 0.95
    assert shuffled < 0.01
    assert found["counts"].tolist() == [2, 2, 2, 2]
    assert found["detached"].tolist() == [True, True]
    np.testing.assert_allclose(found["owned"][:2], 0.5 * found["expected"].sum(0), atol=0.06)
    assert found["owned"][2:].max() < 0.3
    np.testing.assert_allclose(found["overlaps"], found["expected"], atol=0.08)
    np.testing.assert_allclose(found["places"][0], found["predicted"], rtol=0.1)
    np.testing.assert_allclose(found["places"][0], esd(W)[::-1][:2])
    np.testing.assert_allclose(found["places"][2], found["predicted"], rtol=0.1)
    for name in ("without", "without_variables"):
        np.testing.assert_allclose(matrices[name], start, atol=1e-10)
    np.testing.assert_allclose(matrices["part"], W, atol=1e-10)
    alpha = dict(zip(MATRICES, found["alpha"][0], strict=True))
    assert alpha["without"] == pytest.approx(alpha["start"])
    assert alpha["whole"] < alpha["start"]
    assert found["alpha_ranks"][1] == pytest.approx(power_law(esd(start)).alpha)
    assert alpha["whole"] < found["alpha_ranks"][0] < found["alpha_ranks"][1]
