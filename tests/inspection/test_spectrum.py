"""rclib.inspection.spectrum: the verdict, on matrices whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rclib.checkpoints.opening import open_checkpoint
from rclib.inspection.matrix_spectra import matrix_spectra
from rclib.inspection.spectrum import HEAVY, NOT_HEAVY, MatrixSpectrum
from rclib.spectral.heavy_tails import noise_tail


def spectrum(matrix: np.ndarray) -> MatrixSpectrum:
    with open_checkpoint({"w.weight": torch.from_numpy(matrix)}) as checkpoint:
        (found,) = matrix_spectra(checkpoint)
    return found


def turned(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square matrix with these eigenvalues of W^T W."""
    u, v = (np.linalg.qr(rng.standard_normal((len(values),) * 2))[0] for _ in range(2))
    return u * np.sqrt(values) @ v


def test_noise_spikes_and_orthogonal_matrices_are_not_heavy_tailed() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((200, 200))
    u, v = (np.linalg.qr(rng.standard_normal((200, 200)))[0] for _ in range(2))
    cases = {
        "gauss": noise,
        "uniform": rng.uniform(-1, 1, (300, 100)),
        "wide": rng.standard_normal((64, 600)),
        "five spikes": noise + 60 * u[:, :5] @ v[:5],
        # A narrow bulk: a steep power law fits it better than Marchenko-Pastur.
        "nearly orthogonal": u + 0.1 * noise / np.sqrt(200),
    }
    for name, matrix in cases.items():
        found = spectrum(matrix)
        assert found.verdict == NOT_HEAVY, name
        rows, columns = max(matrix.shape), min(matrix.shape)
        noise_of_it = noise_tail(rows, columns)
        assert found.alpha_noise == noise_of_it.alpha
        assert found.tail_ratio_noise == noise_of_it.tail_ratio
        assert found.spikes == (5 if name == "five spikes" else 0)
    assert spectrum(cases["nearly orthogonal"]).tail_ratio < 1  # why a value beyond is asked for


@pytest.mark.parametrize("alpha", [1.7, 2.5])
def test_power_laws_are_heavy_tailed(alpha: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(3):
        found = spectrum(turned(rng.random(200) ** (-1 / (alpha - 1)), rng))
        assert found.verdict == HEAVY
        assert found.alpha_hill_low < alpha < found.alpha_hill_high


def test_noise_of_small_matrices_is_rarely_called_heavy_tailed() -> None:
    rng = np.random.default_rng(2)
    for shape in ((12, 12), (30, 10), (24, 16)):
        called = sum(spectrum(rng.standard_normal(shape)).verdict == HEAVY for _ in range(60))
        assert called <= 2, shape


def test_a_matrix_of_low_rank_is_compared_with_noise_of_that_rank() -> None:
    rng = np.random.default_rng(3)
    found = spectrum(rng.standard_normal((300, 40)) @ rng.standard_normal((40, 200)))
    assert found.rank == 40
    assert found.alpha_noise == noise_tail(300, 40).alpha


def test_intervals_hold_the_exponent_of_independent_values_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(40):
        found = spectrum(turned(rng.random(120) ** (-1 / 1.5), rng))
        inside += bool(found.alpha_hill_low <= 2.5 <= found.alpha_hill_high)
    assert inside >= 33  # 38 expected; binomial, P < 0.01
