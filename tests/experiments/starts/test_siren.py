"""starts.siren: sine networks, the WINNER start, band signals, the tangent kernel."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy.special import jv
from torch.func import functional_call, jacrev

from rclib.experiments.starts import siren


def _model(seed: int = 0, *, inputs: int = 1, width: int = 12, layers: int = 3) -> siren.Siren:
    torch.manual_seed(seed)
    return siren.Siren(inputs, width, layers)


def _tensors(model: siren.Siren) -> dict[str, torch.Tensor]:
    return {name: p.detach().double() for name, p in model.named_parameters()}


def test_the_network_is_that_of_a_peer() -> None:
    peer = pytest.importorskip("siren_pytorch")
    model = _model(inputs=2)
    other = peer.SirenNet(
        dim_in=2, dim_hidden=12, dim_out=1, num_layers=3, w0=30.0, w0_initial=30.0,
        final_activation=torch.nn.Identity(), dropout=0.0,
    )  # fmt: skip
    with torch.no_grad():
        for place, layer in enumerate([*other.layers, other.last_layer]):
            layer.weight.copy_(model.weight(place))
            layer.bias.copy_(model.layers[place].bias)
        # The peer activates its last layer as it is told: not at all.
        x = torch.rand(20, 2) * 2 - 1
        assert torch.allclose(other(x), model(x), atol=1e-5)
    assert model(x).std() > 0


@pytest.mark.parametrize("inputs", [1, 2])
def test_the_start_has_the_bounds_of_a_siren(inputs: int) -> None:
    model = _model(inputs=inputs, width=400, layers=2)
    first, second = model.weight(0).detach(), model.weight(1).detach()
    assert float(first.abs().max()) == pytest.approx(1 / inputs, rel=0.02)
    assert float(second.abs().max()) == pytest.approx(math.sqrt(6 / 400) / 30, rel=0.02)
    assert float(second.var()) == pytest.approx(2 / 400 / 30**2, rel=0.02)


def test_winner_changes_two_matrices_and_nothing_else() -> None:
    plain = _model()
    noisy = copy.deepcopy(plain)
    siren.winner_start(noisy, 40.0, 2.0, law="normal", generator=torch.Generator().manual_seed(3))
    changed = [
        name
        for (name, a), (_, b) in zip(
            plain.named_parameters(), noisy.named_parameters(), strict=True
        )
        if not torch.equal(a, b)
    ]
    assert changed == ["layers.0.weight", "layers.1.weight"]
    # Scales of one generator are factors of the same draws.
    twice = copy.deepcopy(plain)
    siren.winner_start(twice, 80.0, 2.0, law="normal", generator=torch.Generator().manual_seed(3))
    step, double = (m.weight(0) - plain.weight(0) for m in (noisy, twice))
    assert torch.allclose(double, 2 * step, atol=1e-5)
    assert torch.equal(noisy.weight(1), twice.weight(1))


def test_without_a_centroid_winner_is_siren_bit_for_bit() -> None:
    psi = siren.centroid(torch.zeros(32))
    assert psi == 0.0
    for kind in siren.CONSTANTS:
        s0, s1 = siren.noise_scales(psi, kind)
        plain = _model()
        same = siren.winner_start(
            copy.deepcopy(plain), s0, s1, law="normal", generator=torch.Generator().manual_seed(0)
        )
        for a, b in zip(plain.parameters(), same.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("law", siren.LAWS)
def test_layers_gain_the_variance_that_the_scales_say(law: str) -> None:
    """ω0² / (3 D²) + s0² of the first layer's frequencies, 2 / n + s1² of the second's."""
    model = _model(inputs=2, width=600, layers=2)
    siren.winner_start(model, 40.0, 0.3, law=law, generator=torch.Generator().manual_seed(1))
    first, second = (30 * model.weight(place).detach().double() for place in (0, 1))
    assert float(first.var()) == pytest.approx(900 / 12 + 1600, rel=0.1)
    assert float(second.var()) == pytest.approx(2 / 600 + 0.09, rel=0.02)
    kurtosis = float(first.pow(4).mean() / first.square().mean() ** 2)
    assert kurtosis == pytest.approx(3 if law == "normal" else 1.8, abs=0.4)


def test_starts_that_are_none_are_refused() -> None:
    g = torch.Generator()
    with pytest.raises(ValueError, match="law must be"):
        siren.winner_start(_model(), 1.0, 1.0, law="cauchy", generator=g)
    with pytest.raises(ValueError, match="s1 must be finite and not negative, got -1"):
        siren.winner_start(_model(), 1.0, -1.0, law="normal", generator=g)
    with pytest.raises(ValueError, match=r"psi must lie in \[0, 1\], got 1.5"):
        siren.noise_scales(1.5, "audio")
    with pytest.raises(ValueError, match="kind must be"):
        siren.noise_scales(0.5, "video")


def test_the_constants_are_those_of_the_code() -> None:
    assert siren.noise_scales(0.5, "audio") == pytest.approx((3500 * (1 - math.exp(-3.5)), 1.5))
    assert siren.noise_scales(0.5, "image") == pytest.approx((50 * (1 - math.exp(-2.5)), 0.2))
    assert siren.noise_scales(0.6, "image", channels=3)[1] == pytest.approx(0.08)


def test_a_centroid_is_exact_on_a_whole_number_of_periods() -> None:
    n = 96
    for k in (1, 7, 40, 48):
        y = torch.cos(2 * math.pi * k * torch.arange(n, dtype=torch.float64) / n)
        assert siren.centroid(y) == pytest.approx(2 * k / n, abs=1e-12)
    place = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    rows = torch.stack([torch.cos(8 * place), torch.cos(24 * place)])
    assert siren.centroid(rows) == pytest.approx((16 / n + 48 / n) / 2, abs=1e-12)


def test_a_band_signal_has_its_band_and_is_one_polynomial() -> None:
    n = 64
    y, between = siren.band_signal(n, 0.25, 0.5, seed=2)
    assert float(y.abs().max()) == pytest.approx(1.0)
    size = torch.fft.rfft(y.double()).abs()
    inside = (torch.arange(33) >= 8) & (torch.arange(33) <= 16)
    assert float(size[~inside].max()) < 1e-5 < float(size[inside].min())
    # Between the points: the same sum of sines, summed at those places by hand.
    coefficients = torch.fft.rfft(y.double())
    at = torch.arange(n, dtype=torch.float64) + 0.5
    by_hand = sum(
        2 / n * (coefficients[k] * torch.exp(2j * math.pi * k * at / n)).real for k in range(8, 17)
    )
    assert torch.allclose(between.double(), torch.as_tensor(by_hand), atol=1e-6)
    with pytest.raises(ValueError, match="low and high must satisfy"):
        siren.band_signal(64, 0.5, 0.5, seed=0)
    with pytest.raises(ValueError, match="must hold a frequency of n = 8"):
        siren.band_signal(8, 0.0, 0.1, seed=0)


def test_points_half_way_lie_half_way() -> None:
    x, off = siren.grid(8), siren.grid(8, shift=0.5)
    assert torch.allclose(off[:-1], (x[1:] + x[:-1]) / 2)
    assert float(x[0]) == -1.0


def test_a_layer_of_one_frequency_peaks_at_its_bin() -> None:
    """sin(ω x + φ) on [-1, 1) has frequency ω / π in whole periods of the grid."""
    n = 256
    wave = torch.sin(math.pi * 20 * siren.grid(n).double()[:, 0] + 0.3)
    assert int(torch.fft.rfft(wave).abs().argmax()) == 20


def test_a_sine_of_a_sine_has_the_harmonics_of_jacobi_and_anger() -> None:
    """sin(z sin θ) = 2 Σ J_m(z) sin(m θ), m odd: how a second layer makes new frequencies."""
    n, z = 512, 3.0
    theta = math.pi * siren.grid(n).double()[:, 0]
    tensors = {
        "layers.0.weight": torch.tensor([[math.pi / 30]]).double(),
        "layers.0.bias": torch.zeros(1).double(),
        "layers.1.weight": torch.tensor([[z / 30]]).double(),
        "layers.1.bias": torch.zeros(1).double(),
        "layers.2.weight": torch.ones(1, 1).double(),
        "layers.2.bias": torch.zeros(1).double(),
    }
    h1, h2 = siren.hidden(tensors, siren.grid(n).double())
    assert torch.allclose(h1[:, 0], torch.sin(theta), atol=1e-7)
    size = torch.fft.rfft(h2[:, 0]).abs() * 2 / n
    for m in (1, 3, 5, 7):
        assert float(size[m]) == pytest.approx(2 * abs(float(jv(m, z))), abs=1e-6)
    assert float(size[2]) < 1e-6


@pytest.mark.parametrize("inputs", [1, 2])
def test_the_kernel_is_that_of_autograd(inputs: int) -> None:
    model = _model(inputs=inputs).double()
    x = torch.rand(9, inputs, dtype=torch.float64) * 2 - 1
    tensors = _tensors(model)

    def outputs(t: dict[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = functional_call(model, t, (x,))
        return found[:, 0]

    parts = jacrev(outputs)(tensors)
    j = torch.cat([part.flatten(1) for part in parts.values()], 1)
    assert torch.allclose(siren.kernel(tensors, x), j @ j.T, rtol=1e-9)


def test_a_band_holds_the_share_of_its_modes() -> None:
    n = 40
    assert siren.band_share(torch.eye(n), 0.0, 1.0) == pytest.approx((n - 1) / n)
    k = 6
    wave = torch.cos(2 * math.pi * k * torch.arange(n, dtype=torch.float64) / n)
    theta = torch.outer(wave, wave)
    assert siren.band_share(theta, 0.25, 0.35) == pytest.approx(1.0)
    assert siren.band_share(theta, 0.35, 1.0) == pytest.approx(0.0, abs=1e-12)
    # By hand with the whole Fourier matrix.
    drawn = torch.randn(n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = drawn @ drawn.T
    f = np.fft.fft(np.eye(n)) / n**0.5
    energy = np.einsum("ki,ij,kj->k", f, theta.numpy(), f.conj()).real
    inside = [i for i in range(n) if 0.2 <= 2 * min(i, n - i) / n <= 0.6]
    expected = energy[inside].sum() / energy.sum()
    assert siren.band_share(theta, 0.2, 0.6) == pytest.approx(expected)


def test_what_a_plain_start_has_in_a_high_band_is_the_jump_between_the_ends() -> None:
    """Neither layers nor kernel are periodic on [-1, 1); a window that is zero at its ends leaves
    nothing of the plain start there, and of WINNER's what it has."""
    n = 512
    window = torch.hann_window(n, dtype=torch.double)
    shares = []
    for scales in ((0.0, 0.0), (49.0, 0.3)):
        noise = torch.Generator().manual_seed(1)
        model = siren.winner_start(
            _model(inputs=1, width=48), *scales, law="normal", generator=noise
        )
        theta = siren.kernel(_tensors(model), siren.grid(n).double())
        shares.append(
            [siren.band_share(each, 0.6, 0.9) for each in (theta, window[:, None] * theta * window)]
        )
    (plain, plain_inside), (winner, winner_inside) = shares
    assert plain > 1e-5
    assert plain_inside < 1e-9 * plain
    assert winner_inside > 0.1 * winner
