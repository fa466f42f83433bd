"""nets.state_space: one layer by three routes, and what its kernels owe."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rclib.nets import state_space as layers


def layer(init: str = "structured", width: int = 3, modes: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    found = layers.start(generator, width, modes, init=init, dt=(0.01, 0.5))
    return {name: tensor.double() for name, tensor in found.items()}


def inputs(n: int = 2, length: int = 11, width: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(n, length, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("init", layers.INITS)
@pytest.mark.parametrize("length", [1, 2, 11])
def test_three_routes_agree(init: str, length: int) -> None:
    own, u = layer(init), inputs(length=length)
    by_matrix = layers.by_toeplitz(own, u)
    torch.testing.assert_close(layers.by_fft(own, u), by_matrix, rtol=0, atol=1e-11)
    torch.testing.assert_close(layers.by_recurrence(own, u), by_matrix, rtol=0, atol=1e-11)


def test_kernels_are_sums_of_complex_modes() -> None:
    own = layer()
    dt = own["log_dt"].exp()
    pole = torch.complex(-own["log_a"].exp(), own["omega"])
    c = torch.complex(own["c_re"], own["c_im"])
    for lag in (0, 1, 5):
        wanted = dt * (c * (dt[..., None] * pole * lag).exp()).sum(-1).real
        torch.testing.assert_close(layers.kernels(own, 6)[..., lag], wanted)


def test_the_toeplitz_matrix_entry_by_entry() -> None:
    both = torch.arange(1.0, 11.0).reshape(2, 1, 5)
    K = layers.toeplitz(both)[0]
    for t in range(5):
        for s in range(5):
            assert K[t, s] == (both[0, 0, t - s] if s <= t else both[1, 0, s - t])


def test_the_forward_kernel_alone_is_causal() -> None:
    own = layer()
    own["c_re"][1], own["c_im"][1] = 0.0, 0.0
    u = inputs(n=1, length=6)
    jacobian = torch.autograd.functional.jacobian(lambda x: layers.by_toeplitz(own, x), u)
    for t in range(6):
        later = jacobian[0, t, :, 0, t + 1 :]
        assert later.abs().sum() == 0
        assert t == 0 or jacobian[0, t, :, 0, :t].abs().sum() > 0


def test_starts() -> None:
    structured, random = layer(), layer("random")
    torch.testing.assert_close(structured["log_a"].exp(), torch.full((2, 3, 4), 0.5).double())
    assert bool(((structured["log_dt"].exp() >= 0.01) & (structured["log_dt"].exp() <= 0.5)).all())
    assert float(structured["omega"][0, 0, 3]) == pytest.approx(3 * torch.pi)
    assert random["log_dt"].abs().max() == 0
    assert random["log_a"].std() > 0.3
    generator = torch.Generator()
    with pytest.raises(ValueError, match="init must be one of"):
        layers.start(generator, 2, 2, init="other", dt=(0.1, 1.0))
    with pytest.raises(ValueError, match="dt must be"):
        layers.start(generator, 2, 2, init="random", dt=(1.0, 0.1))
