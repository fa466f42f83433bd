"""Sine networks, the WINNER start and what is said of a start: spectra and the tangent kernel.

x in [-1, 1]^D, h_l = sin(ω0 (W_l h_{l-1} + b_l)), linear output (SIREN). WINNER (arXiv 2509.09719)
adds Gaussian noise to the first two matrices:

    W_1 += (s0 / ω0) ε,   W_2 += (s1 / ω0) ε'

so that s0 is the standard deviation of the angular frequency, in rad per unit of x, that the
first layer gains. Both scales come from the target's spectral centroid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rclib.checks.arguments import choice

__all__ = [
    "CONSTANTS",
    "LAWS",
    "OMEGA",
    "Siren",
    "band_share",
    "band_signal",
    "centroid",
    "gradients",
    "grid",
    "hidden",
    "kernel",
    "noise_scales",
    "winner_start",
]

Floats = NDArray[np.float64]

OMEGA = 30.0  # ω0 of all layers
LAWS = ("normal", "uniform")
# s_max, a and b of s0 = s_max (1 - exp(-a ψ / C)), s1 = b ψ / C, as the authors' code has them.
CONSTANTS: Mapping[str, tuple[float, float, float]] = {
    "audio": (3500.0, 7.0, 3.0),
    "image": (50.0, 5.0, 0.4),
}


class Siren(nn.Module):
    """x (n, D) to (n, 1) through `layers` hidden layers of `width` sines.

    W_1 ~ U(±1/D), W_l ~ U(±√(6/fan-in)/ω0), the output's too; biases U(±1/√fan-in), as torch
    draws them. Everything is drawn from torch's generator, layer by layer.
    """

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        super().__init__()
        sizes = [inputs, *[width] * layers, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        with torch.no_grad():
            for place, fan_in in enumerate(sizes[:-1]):
                bound = 1 / inputs if place == 0 else math.sqrt(6 / fan_in) / OMEGA
                self.weight(place).uniform_(-bound, bound)

    def weight(self, place: int) -> Tensor:
        """W_1 (width, D) at place 0, and so on."""
        return self.layers[place].get_parameter("weight")

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        *inner, last = self.layers
        for layer in inner:
            x = torch.sin(OMEGA * layer(x))
        # A sum, not a product with a single column: several of those at once round otherwise than
        # one does (`rclib.nets.stack`).
        assert isinstance(last, nn.Linear)
        out: Tensor = (x * last.weight[0]).sum(-1, keepdim=True) + last.bias
        return out


def winner_start(
    model: Siren, s0: float, s1: float, *, law: str, generator: torch.Generator
) -> Siren:
    """The first two matrices of a SIREN start with noise of scales s0 and s1; changed in place.

    law : "normal", as WINNER; "uniform", no noise, but the uniform entries stretched to the
        variance that the normal noise would have given: the control of its law.
    generator : of the noise; two draws are made for every pair of scales, so starts of one
        generator differ by factors alone. Biases and later layers are left alone.

    Raises ValueError for a law that is none, or a scale that is negative.
    """
    law = choice("law", law, LAWS)
    for name, scale in (("s0", s0), ("s1", s1)):
        if not (math.isfinite(scale) and scale >= 0):
            raise ValueError(f"{name} must be finite and not negative, got {scale}")
    with torch.no_grad():
        for place, scale in enumerate((s0, s1)):
            weight = model.weight(place)
            noise = torch.randn(weight.shape, generator=generator)
            fan_in = weight.shape[1]
            own = 1 / (3 * fan_in**2) if place == 0 else 2 / fan_in / OMEGA**2
            if law == "normal":
                weight += (scale / OMEGA) * noise
            else:
                weight *= math.sqrt(1 + (scale / OMEGA) ** 2 / own)
    return model


def centroid(y: Tensor) -> float:
    """ψ = 2 Σ f |ŷ| / Σ |ŷ|, f in cycles per sample, of a signal (n,); 1 is Nyquist, 0 for y = 0.

    An image (rows, columns) has the mean of its rows' centroids, as in the authors' code.
    """
    signals = y.double().reshape(-1, y.shape[-1])
    size = torch.fft.rfft(signals).abs()
    f = torch.fft.rfftfreq(y.shape[-1], dtype=torch.float64)
    total = size.sum(1)
    each = torch.where(total > 0, 2 * (size * f).sum(1) / total.clamp_min(1e-300), total)
    return float(each.mean())


def noise_scales(psi: float, kind: str, *, channels: int = 1) -> tuple[float, float]:
    """s0 (rad per unit) and s1 of a centroid ψ; both are 0 at ψ = 0.

    kind : whose constants, "audio" or "image". Raises ValueError for ψ outside [0, 1].
    """
    most, a, b = CONSTANTS[choice("kind", kind, tuple(CONSTANTS))]
    if not 0 <= psi <= 1:
        raise ValueError(f"psi must lie in [0, 1], got {psi}")
    return most * (1 - math.exp(-a * psi / channels)), b * psi / channels


def grid(n: int, *, shift: float = 0.0) -> Tensor:
    """x_j = -1 + 2 (j + shift) / n (n, 1), one period of [-1, 1); Nyquist is π n / 2 rad per unit.

    shift : 0.5 gives the points half-way between.
    """
    return (-1 + 2 * (torch.arange(n, dtype=torch.float64) + shift) / n).float()[:, None]


def band_signal(n: int, low: float, high: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """A random signal of a band, largest value one, on `grid(n)` and on `grid(n, shift=0.5)`: (n,).

    Fourier coefficients of low ... high times Nyquist are complex normal, others zero; the second
    is the same trigonometric polynomial, so it is exact. Raises ValueError for an empty band.
    """
    if not 0 <= low < high <= 1:
        raise ValueError(f"low and high must satisfy 0 <= low < high <= 1, got {low} and {high}")
    k = torch.arange(n // 2 + 1, dtype=torch.float64)
    within = (k >= max(1.0, low * n / 2)) & (k <= high * n / 2) & (k < n / 2)
    if not bool(within.any()):
        raise ValueError(f"low and high must hold a frequency of n = {n}, got {low} and {high}")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, len(k), generator=generator, dtype=torch.float64)
    coefficients = torch.complex(drawn[0], drawn[1]) * within
    y = torch.fft.irfft(coefficients, n=n)
    between = torch.fft.irfft(coefficients * torch.exp(1j * math.pi * k / n), n=n)
    scale = y.abs().max()
    return (y / scale).float(), (between / scale).float()


def gradients(tensors: Mapping[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Gradients of each member's mean square of f(x) - y, for a stack of `Siren`: (S, *shape).

    tensors : name -> (S, *shape); x (n, D), shared; y (S, n). By hand, with the bits that autograd
    gives one network: sums over points are taken member by member, since those of several at once
    round otherwise.
    """
    layers = len(tensors) // 2
    w, b = ([tensors[f"layers.{i}.{kind}"] for i in range(layers)] for kind in ("weight", "bias"))
    h, inside = [x.expand(len(y), *x.shape)], []
    for place in range(layers - 1):
        a = torch.bmm(h[-1], w[place].transpose(1, 2)).add_(b[place][:, None]).mul_(OMEGA)
        inside.append(a)
        h.append(torch.sin(a))
    wrong = (h[-1] * w[-1]).sum(-1).add_(b[-1]).sub_(y)
    slope = wrong.mul_(1 / y.shape[1]).mul_(2)
    found = {
        f"layers.{layers - 1}.bias": _over_points(slope)[:, None],
        f"layers.{layers - 1}.weight": _over_points(slope[:, :, None] * h[-1])[:, None],
    }
    back = slope[:, :, None] * w[-1]
    for place in range(layers - 2, -1, -1):
        back.mul_(inside[place].cos_()).mul_(OMEGA)
        found[f"layers.{place}.bias"] = _over_points(back)
        turned = back.transpose(1, 2)
        if place:
            found[f"layers.{place}.weight"] = torch.bmm(turned, h[place])
            back = torch.bmm(back, w[place])
        else:  # one by one too: several products with a single column at once round otherwise
            parts = zip(turned.split(1), h[0].split(1), strict=True)
            found["layers.0.weight"] = torch.cat([torch.bmm(one, points) for one, points in parts])
    return {name: found[name] for name in tensors}


def _over_points(values: Tensor) -> Tensor:
    """Sums over the second axis, (S, n, ...) to (S, ...), of each member as of one alone."""
    return torch.stack([one.sum(0) for one in values.unbind(0)])


def hidden(tensors: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Activations h_1, ..., h_L (n, width) of one network for x (n, D)."""
    found = [x]
    layers = len(tensors) // 2
    for place in range(layers - 1):
        weight, bias = tensors[f"layers.{place}.weight"], tensors[f"layers.{place}.bias"]
        found.append(torch.sin(OMEGA * (found[-1] @ weight.T + bias)))
    return found[1:]


def kernel(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Empirical tangent kernel Θ = J Jᵀ (n, n) of one network, all weights and biases.

    Layer by layer: with δ_l = ∂f/∂(input of layer l), Θ = Σ_l (δ_l δ_lᵀ) ∘ (h_{l-1} h_{l-1}ᵀ + 1).
    """
    layers = len(tensors) // 2
    h = [x, *hidden(tensors, x)]
    delta = x.new_ones(len(x), 1)
    total = h[-1] @ h[-1].T + 1
    for place in range(layers - 1, 0, -1):
        before = tensors[f"layers.{place - 1}.weight"]
        inside = OMEGA * (h[place - 1] @ before.T + tensors[f"layers.{place - 1}.bias"])
        delta = (delta @ tensors[f"layers.{place}.weight"]) * OMEGA * torch.cos(inside)
        total = total + (delta @ delta.T) * (h[place - 1] @ h[place - 1].T + 1)
    return total


def band_share(theta: Tensor, low: float, high: float) -> float:
    """Share of the trace of Θ (n, n) on the Fourier modes of low ... high times Nyquist."""
    n = len(theta)
    # F Θ Fᴴ of the unitary F; its diagonal is the energy at each frequency.
    energy = torch.fft.ifft(torch.fft.fft(theta.double(), dim=0), dim=1).diagonal().real
    k = torch.arange(n)
    k = torch.minimum(k, n - k)
    within = (k >= max(1.0, low * n / 2)) & (k <= high * n / 2)
    return float(energy[within].sum() / energy.sum())
