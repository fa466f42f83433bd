"""Networks of notebook 73: one hidden layer over k patches, with shared, local or full weights.

    φ_b(z) = relu(z - b) - relu(-z - b)         = z - sign(b) · (z cut off at ± |b|)

    full     f(x) = Σ_j φ_b(⟨w_j, x⟩),          w_j in R^(k d), j = 1..h
    local    f(x) = Σ_j φ_b(⟨w_g(j), x_j⟩),     w_g in R^d, j = 1..k, m filters

Patches share a filter in groups of k / m: m = 1 is the convolutional network (CNN), m = k the
locally connected one (LCN); a full one with h = k is the paper's FCN. The scalar b is trained too.

Full-batch gradient descent with momentum on the logistic loss, written out, since

    dφ_b/dz = 1 - sign(b) 1[|z| < |b|],    dφ_b/db = -sign(z) 1[|z| ≥ |b|]

R networks with the same start and other rates are trained at once on the same samples. Source:
Lahoti et al. 2024 (arXiv 2403.15707), Section 4; that hidden units are summed with weight one in
the full network too is taken over from the local ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Nets", "activation", "start", "train"]


def activation(z: Tensor, b: Tensor) -> Tensor:
    """φ_b(z); b broadcasts and may be negative."""
    size = b.abs()
    return z - b.sign() * torch.minimum(torch.maximum(z, -size), size)


@dataclass(frozen=True, eq=False)
class Nets:
    """R networks. W : (R, m, d) local or (R, h, k d) full; b : (R,); k : patches."""

    W: Tensor
    b: Tensor
    k: int
    local: bool

    def arranged(self, x: Tensor) -> Tensor:
        """x (n, k, d) as products want it: (m, (k / m) n, d) by filter and patch, or (n, k d)."""
        if not self.local:
            return x.flatten(1)
        filters = self.W.shape[1]
        return x.transpose(0, 1).reshape(filters, -1, x.shape[2]).contiguous()

    def before(self, arranged: Tensor, n: int) -> Tensor:
        """⟨w, x⟩ as (m, R, k / m, n), or (1, R, h, n): units lie along the first and third axis."""
        R, units = self.W.shape[:2]
        if not self.local:
            return (self.W.flatten(0, 1) @ arranged.mT).view(1, R, units, n)
        found = torch.bmm(self.W.transpose(0, 1), arranged.mT)
        return found.view(units, R, self.k // units, n)

    def pulled_back(self, slopes: Tensor, arranged: Tensor) -> Tensor:
        """Σ over samples of slopes (as `before`) times inputs, in the shape of W."""
        R, units = self.W.shape[:2]
        if not self.local:
            return (slopes.flatten(0, 2) @ arranged).view(R, units, -1)
        return torch.bmm(slopes.reshape(units, R, -1), arranged).transpose(0, 1)

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs (R, n) at x (n, k, d)."""
        z = self.before(self.arranged(x), len(x))
        return activation(z, self.b[None, :, None, None]).sum((0, 2))


def start(
    *, k: int, d: int, units: int, local: bool, copies: int, scale: float, b: float, seed: int
) -> Nets:
    """`copies` equal networks with weights N(0, scale²), over √k in a full one.

    Raises ValueError for a number of filters that does not divide k.
    """
    if local and k % units:
        raise ValueError(f"units must divide the {k} patches, got {units}")
    generator = torch.Generator().manual_seed(seed)
    width = d if local else k * d
    drawn = torch.randn(units, width, generator=generator) * (
        scale if local else scale / math.sqrt(k)
    )
    return Nets(drawn.repeat(copies, 1, 1), torch.full((copies,), b), k, local)


def train(
    nets: Nets, x: Tensor, y: Tensor, *, rates: Sequence[float], bias_rates: Sequence[float],
    steps: int, momentum: float, at: Sequence[int], look: Callable[[Nets], None],
) -> Nets:  # fmt: skip
    """Networks after the last step; those given are left as they are.

    x (n, k, d), y (n,) of ±1. rates, bias_rates : of each network, for W and for b. at : after how
    many steps `look` is called with the networks, whose tensors it must not keep.
    """
    now = Nets(nets.W.clone(), nets.b.clone(), nets.k, nets.local)
    n, inputs = len(y), now.arranged(x)
    eta, eta_b = torch.tensor(rates)[:, None, None], torch.tensor(bias_rates)
    speed, speed_b = torch.zeros_like(now.W), torch.zeros_like(now.b)
    for t in range(steps + 1):
        if t in at:
            look(now)
        if t == steps:
            break
        z = now.before(inputs, n)
        size, sign = now.b.abs(), now.b.sign()
        inside = (z.abs() < size[None, :, None, None]).to(z.dtype)
        outer = (z.sign() * (1 - inside)).sum((0, 2))  # -dφ/db, summed over units
        f = z.sum((0, 2)) - sign[:, None] * ((z * inside).sum((0, 2)) + size[:, None] * outer)
        pull = -torch.sigmoid(-y * f) * y / n  # dloss/df
        slopes = (1 - sign[None, :, None, None] * inside) * pull[None, :, None, :]
        speed.mul_(momentum).add_(now.pulled_back(slopes, inputs))
        speed_b.mul_(momentum).sub_((pull * outer).sum(1))
        now.W.sub_(eta * speed)
        now.b.sub_(eta_b * speed_b)
    return now
