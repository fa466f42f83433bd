"""Diagonal state-space layers of small sequences, by Toeplitz matrix, by FFT and by recurrence.

Channel h with N modes has the kernel, for lags l = 0, 1, ... (S4D, Gu and others 2022; DLR, Gupta
and others 2022, in real arithmetic)

    k_h[l] = Δ_h Re Σ_n c_hn exp(Δ_h (-a_hn + i ω_hn) l),    a = exp(log_a) > 0.

A layer has one kernel for each direction, as S4's bidirectional one: the output at t is
Σ_{s ≤ t} k[t - s] u_s + Σ_{s > t} k'[s - t] u_s, so that k' has no lag 0. Functions take the
tensors of one layer by name (`MODES`); all of them can be mapped over networks by `torch.vmap`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rclib.checks.arguments import choice, count

__all__ = [
    "INITS",
    "MODES",
    "by_fft",
    "by_recurrence",
    "by_toeplitz",
    "kernels",
    "start",
    "toeplitz",
]

MODES = ("log_dt", "log_a", "omega", "c_re", "c_im")
INITS = ("structured", "random")


def start(
    generator: torch.Generator, width: int, modes: int, *, init: str, dt: tuple[float, float]
) -> dict[str, Tensor]:
    """Tensors of a layer: log_dt (2, width), the others of `MODES` (2, width, modes).

    init : "structured", a = 1/2 and ω_n = π n for n = 0, 1, ... with Δ log-uniform in `dt`
        (S4D-Lin); "random", log a and ω normal and Δ = 1. c is complex normal in both.
    The first axis holds the directions, forward and backward. Raises ValueError naming the
    argument for another init, or a dt that is not 0 < low <= high.
    """
    choice("init", init, INITS)
    shape = (2, count("width", width), count("modes", modes))
    low, high = dt
    if not 0 < low <= high < math.inf:
        raise ValueError(f"dt must be 0 < low <= high, got {dt}")
    span = torch.rand(shape[:2], generator=generator)
    c_re, c_im, log_a, omega = (torch.randn(shape, generator=generator) for _ in range(4))
    log_dt = math.log(low) + span * (math.log(high) - math.log(low))
    if init == "structured":
        log_a = torch.full(shape, math.log(0.5))
        omega = (math.pi * torch.arange(shape[2])).expand(shape).clone()
    else:
        log_dt = torch.zeros(shape[:2])
    return {"log_dt": log_dt, "log_a": log_a, "omega": omega, "c_re": c_re, "c_im": c_im}


def kernels(layer: Mapping[str, Tensor], length: int) -> Tensor:
    """Kernels (2, width, length), forward and backward, of lags 0 to length - 1."""
    dt = layer["log_dt"].exp()
    lags = torch.arange(length, dtype=dt.dtype, device=dt.device)
    at = dt[..., None, None] * lags  # (2, width, 1, length)
    fall = torch.exp(-layer["log_a"].exp()[..., None] * at)
    turn = layer["omega"][..., None] * at
    waves = layer["c_re"][..., None] * turn.cos() - layer["c_im"][..., None] * turn.sin()
    return dt[..., None] * (fall * waves).sum(-2)


def toeplitz(both: Tensor) -> Tensor:
    """K (width, L, L), output by input, of kernels (2, width, L)."""
    forward, backward = both[0], both[1]
    width, length = forward.shape
    # v[(s - t) mod 2L] is entry (t, s): lags of the backward kernel, then the forward one's.
    gap = torch.zeros_like(forward[:, :1])
    v = torch.cat([forward[:, :1], backward[:, 1:], gap, forward[:, 1:].flip(-1)], -1)
    rows = v[:, None, :].expand(width, length, 2 * length).reshape(width, -1)
    return rows[:, : length * (2 * length - 1)].reshape(width, length, -1)[..., :length]


def by_toeplitz(layer: Mapping[str, Tensor], u: Tensor) -> Tensor:
    """y (n, L, width) of inputs u (n, L, width), by the products with K."""
    K = toeplitz(kernels(layer, u.shape[-2]))
    return torch.matmul(K, u.permute(2, 1, 0)).permute(2, 1, 0)


def by_fft(layer: Mapping[str, Tensor], u: Tensor) -> Tensor:
    """The same by FFT of length 2L, in which nothing wraps around."""
    length = u.shape[-2]
    both = kernels(layer, length)
    seen = torch.fft.rfft(u, n=2 * length, dim=-2)
    lag_0 = torch.zeros_like(both[1][:, :1])
    ahead = torch.cat([lag_0, lag_0.expand(-1, length), both[1][:, 1:].flip(-1)], -1)
    forward = torch.fft.rfft(both[0], n=2 * length, dim=-1)
    whole = forward + torch.fft.rfft(ahead, dim=-1)
    found: Tensor = torch.fft.irfft(seen * whole.mT, n=2 * length, dim=-2)[..., :length, :]
    return found


def by_recurrence(layer: Mapping[str, Tensor], u: Tensor) -> Tensor:
    """The same by the states h_t = exp(Δ (-a + i ω)) h_{t-1} + u_t of both directions."""
    dt = layer["log_dt"].exp()[..., None]
    step = torch.exp(dt * torch.complex(-layer["log_a"].exp(), layer["omega"]))
    c = dt * torch.complex(layer["c_re"], layer["c_im"])
    n, length, width = u.shape
    state = torch.zeros(n, width, step.shape[-1], dtype=step.dtype, device=u.device)
    forward, backward = [], []
    ahead = state
    for t in range(length):
        state = step[0] * state + u[:, t, :, None]
        forward.append((c[0] * state).sum(-1).real)
        ahead = step[1] * ahead
        backward.append((c[1] * ahead).sum(-1).real)
        ahead = ahead + u[:, length - 1 - t, :, None]
    return torch.stack(forward, 1) + torch.stack(backward[::-1], 1)
