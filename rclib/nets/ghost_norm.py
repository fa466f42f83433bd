"""Ghost batch normalisation of a stack of networks: a batch is normalised in parts of fixed size.

The n rows of a batch are k = n / g ghosts of g rows each, in their order. With μ_i and σ_i² the
mean and the (biased) variance of one unit over ghost i,

    z = (x - μ_i) / √(σ_i² + ε),    y = γ z + β,

and the running statistics, which evaluation uses, move ghost by ghost with momentum ρ. In closed
form, for i = 1 ... k,

    μ_run ← (1 - ρ)^k μ_run + Σ_i (1 - ρ)^(k-i) ρ μ_i,

and the same with the unbiased variances σ_i² g / (g - 1), as `torch.nn.BatchNorm1d` has it.
One ghost of the whole batch is plain batch normalisation.

Source: Hoffer, Hubara and Soudry, "Train longer, generalize better" (arXiv 1705.08741),
Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.checks.arguments import count, number

__all__ = ["EPS", "Normalised", "ghosts_of", "normalise", "normalise_backward", "running_after"]

EPS = 1e-5  # torch's


@dataclass(frozen=True)
class Normalised:
    """A batch after `normalise`, and what its gradient needs.

    value (S, n, h) : z above. mean, variance (S, k, h) : of each ghost, the variance biased.
    inverse (S, k, 1, h) : 1 / √(variance + ε). ghost : rows g of a ghost.
    """

    value: Tensor
    mean: Tensor
    variance: Tensor
    inverse: Tensor
    ghost: int

    @property
    def unbiased(self) -> Tensor:
        """Variances with g - 1 below, (S, k, h)."""
        return self.variance * (self.ghost / (self.ghost - 1))


def ghosts_of(rows: int, ghost: int) -> int:
    """Ghosts k of a batch. Raises ValueError unless `ghost` is 2 or more and divides it."""
    rows, ghost = count("rows", rows), count("ghost", ghost, 2)
    if rows % ghost:
        raise ValueError(f"ghost must divide the batch of {rows} rows, got {ghost}")
    return rows // ghost


def normalise(x: Tensor, ghost: int) -> Normalised:
    """Each ghost of x (S, n, h) by its own statistics, without γ and β.

    Raises ValueError for x of other than three axes and a ghost that does not divide n.
    """
    if x.ndim != 3:
        raise ValueError(f"x must have shape (S, n, h), got {tuple(x.shape)}")
    members, rows, units = x.shape
    parts = x.reshape(members, ghosts_of(rows, ghost), ghost, units)
    mean = parts.mean(2, keepdim=True)
    centred = parts - mean
    variance = centred.square().mean(2, keepdim=True)
    inverse = 1.0 / (variance + EPS).sqrt()
    value = (centred * inverse).view(members, rows, units)
    return Normalised(value, mean[:, :, 0], variance[:, :, 0], inverse, ghost)


def normalise_backward(
    gradient: Tensor, gain: Tensor, found: Normalised
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a loss in x (S, n, h), γ and β (S, h), from that in y = γ z + β (S, n, h).

    gain : γ. found : of `normalise`.
    """
    members, ghosts, _, units = found.inverse.shape
    shape = (members, ghosts, found.ghost, units)
    upper, z = gradient.view(shape), found.value.view(shape)
    shift = upper.sum(2)
    along = (upper * z).sum(2)
    back = upper - (shift / found.ghost).unsqueeze(2)
    back -= z * (along / found.ghost).unsqueeze(2)
    back *= found.inverse * gain.view(members, 1, 1, units)
    return back.view(gradient.shape), along.sum(1), shift.sum(1)


def running_after(running: Tensor, values: Tensor, momentum: float) -> Tensor:
    """Running statistics (S, h) after k ghosts, from their values (S, k, h), in closed form.

    momentum : ρ, the weight of the new value. Raises ValueError for one outside (0, 1] and for
    shapes that do not fit.
    """
    if not 0 < number("momentum", momentum) <= 1:
        raise ValueError(f"momentum must lie in (0, 1], got {momentum}")
    if values.ndim != 3 or running.shape != (values.shape[0], values.shape[2]):
        raise ValueError(
            f"values must be (S, k, h) and running (S, h), got {tuple(values.shape)} and "
            f"{tuple(running.shape)}"
        )
    k, kept = values.shape[1], 1.0 - momentum
    weights = [momentum * kept ** (k - i) for i in range(1, k + 1)]
    row = torch.tensor(weights, dtype=values.dtype, device=values.device)
    return running * kept**k + (values * row.view(1, k, 1)).sum(1)
