"""Networks, losses and the three rounds of notebook 75 (Zhang et al. 2022, arXiv 2203.15516).

    Φ(x) = relu(W2 relu(W1 x + B1) + B2),    f = W3 Φ + B3        (one logit, or K in the synthesis)

With losses ℓ_e of E environments, an objective is

    (mean ℓ_e + λ · penalty + decay · Σ w²) / max(1, λ),

    vREx:   Σ (ℓ_e - mean ℓ)² / (E - 1)
    IRMv1:  mean_e (dℓ_e(s f)/ds at s = 1)² = mean_e (mean (σ(f) - y) f)²

Everything is full-batch; arms of one seed are members of one stack, told apart by columns of their
targets. Gradients in the logits are written out beside the losses, for all members at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import linear

from rclib.checks.arguments import choice
from rclib.nets.stack import Stack, stack
from rclib.training.stacked import train_stack
from rclib.training.stacked_backprop import Layers, Slope, gradients

__all__ = [
    "PENALTIES",
    "Head",
    "Net",
    "discovery_loss",
    "discovery_slope",
    "irm",
    "member",
    "objective",
    "objective_slope",
    "synthesis_batches",
    "synthesis_loss",
    "synthesis_slope",
    "targets",
    "trained",
    "vrex",
    "with_mean_head",
]

PENALTIES = ("none", "vREx", "IRMv1")


class Net(nn.Module):
    """x (n, d) -> logits (n, heads); weights by Glorot's uniform law, biases zero at first."""

    layers = Layers([("W1", "B1"), ("W2", "B2"), ("W3", "B3")], [1.0] * 3)

    def __init__(self, d: int, hidden: int, *, heads: int = 1, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for k, shape in enumerate([(hidden, d), (hidden, hidden), (heads, hidden)], start=1):
            most = (6 / sum(shape)) ** 0.5
            drawn = (2 * torch.rand(shape, generator=generator) - 1) * most
            self.register_parameter(f"W{k}", nn.Parameter(drawn))
            self.register_parameter(f"B{k}", nn.Parameter(torch.zeros(shape[0])))

    def features(self, x: Tensor) -> Tensor:
        """Φ(x), (n, hidden)."""
        own = dict(self.named_parameters())
        h = torch.relu(linear(x, own["W1"], own["B1"]))
        return torch.relu(linear(h, own["W2"], own["B2"]))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, heads)."""
        own = dict(self.named_parameters())
        return linear(self.features(x), own["W3"], own["B3"])


class Head(nn.Module):
    """A linear head on features (n, k) that starts as another network's W3 (1, k) and B3 (1,)."""

    layers = Layers([("W3", "B3")], [1.0])

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.W3 = nn.Parameter(weight.detach().clone())
        self.B3 = nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 1)."""
        return linear(x, self.W3, self.B3)


def vrex(losses: Tensor) -> Tensor:
    """Unbiased variance of the environments' losses (E,)."""
    return losses.var(correction=1)


def irm(logits: Tensor, y: Tensor) -> Tensor:
    """IRMv1's penalty of logits (E, n) and labels (E, n)."""
    return ((torch.sigmoid(logits) - y) * logits).mean(1).square().mean()


def targets(y: Tensor, penalty: str, strength: float) -> Tensor:
    """What `objective` takes: labels (E, n) as (E n, 3) with λ of vREx and of IRMv1 beside them.

    Raises ValueError for an unknown penalty.
    """
    place = PENALTIES.index(choice("penalty", penalty, PENALTIES))
    columns = [torch.full((y.numel(),), strength * (place == k)) for k in (1, 2)]
    return torch.stack([y.flatten(), *columns], dim=1)


def objective(logits: Tensor, given: Tensor, *, environments: int = 2) -> Tensor:
    """The objective without its decay, of logits (E n, 1) and `targets` (E n, 3)."""
    y, f = given[:, 0].view(environments, -1), logits[:, 0].view(environments, -1)
    losses = cross_entropy(f, y, reduction="none").mean(1)
    of_vrex, of_irm = given[0, 1], given[0, 2]
    total = losses.mean() + of_vrex * vrex(losses) + of_irm * irm(f, y)
    return total / torch.clamp_min(torch.maximum(of_vrex, of_irm), 1.0)


def discovery_loss(logits: Tensor, given: Tensor) -> Tensor:
    """Larger one of the losses on what earlier models have right and wrong.

    given (n, 2) : label, and 1.0 where the earlier model is right.
    """
    each = cross_entropy(logits[:, 0], given[:, 0], reduction="none")
    right = given[:, 1]
    groups = [(each * part).sum() / part.sum().clamp_min(1.0) for part in (right, 1 - right)]
    return torch.maximum(groups[0], groups[1])


def synthesis_loss(logits: Tensor, given: Tensor) -> Tensor:
    """Sum over heads of the loss on the labels (n, K) that the models predict."""
    return cross_entropy(logits, given, reduction="none").mean(0).sum()


class _Each:
    """Cross-entropy of every logit, `values`, by the steps of torch's own under `torch.vmap`."""

    def __init__(self, f: Tensor, y: Tensor) -> None:
        most = (-f).clamp_min_(0)
        self.f, self.away = f, 1 - y
        self.top, self.low = (-most).exp_(), (-f - most).exp_()
        self.both = self.top + self.low
        self.values = (self.away * f).add_(most).add_(self.both.log())

    def slope(self, upper: Tensor, others: Tensor | None = None) -> Tensor:
        """Gradient in f from that in the values, added to `others`, in autograd's order."""
        share = upper / self.both
        low = share * self.low
        of_most = low.neg().sub_(share * self.top).add_(upper)
        found = -low if others is None else others.sub_(low)
        return found.add_(upper * self.away).sub_(torch.where(self.f < 0, of_most, 0))


def objective_slope(
    logits: Tensor, given: Tensor, *, environments: int = 2
) -> tuple[Tensor, Tensor]:
    """`objective` of every member and its gradient, of logits (S, E n, 1), given (S, E n, 3)."""
    f = logits.view(len(logits), environments, -1)
    y = given[..., 0].view(f.shape)
    each, p = _Each(f, y), torch.sigmoid(f)
    off = p - y
    losses, scaled = each.values.mean(2), (off * f).mean(2)
    of_vrex, of_irm = given[:, 0, 1], given[:, 0, 2]
    below = torch.clamp_min(torch.maximum(of_vrex, of_irm), 1.0)
    total = losses.mean(1) + of_vrex * losses.var(1, correction=1)
    total = (total + of_irm * scaled.square().mean(1)) / below
    unit = 1 / below
    away = losses - losses.mean(1, keepdim=True)
    of_losses = (2.0 / (environments - 1)) * (unit * of_vrex)[:, None] * away
    of_losses += (unit / environments)[:, None]
    of_scaled = (unit * of_irm / environments)[:, None] * (2 * scaled)
    of_scaled = (of_scaled / f.shape[2])[..., None]
    of_irm_alone = of_scaled * off + torch.ops.aten.sigmoid_backward(of_scaled * f, p)
    delta = each.slope((of_losses / f.shape[2])[..., None], of_irm_alone)
    return total, delta.view(logits.shape)


def discovery_slope(logits: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """`discovery_loss` of every member and its gradient, of logits (S, n, 1), given (S, n, 2)."""
    each = _Each(logits[..., 0], given[..., 0])
    parts = [given[..., 1], 1 - given[..., 1]]
    counts = [part.sum(1).clamp_min(1.0) for part in parts]
    groups = [(each.values * part).sum(1) / n for part, n in zip(parts, counts, strict=True)]
    first = torch.sign(groups[0] - groups[1]) / 2 + 0.5
    upper = (first / counts[0])[:, None] * parts[0]
    upper += ((1 - first) / counts[1])[:, None] * parts[1]
    return torch.maximum(groups[0], groups[1]), each.slope(upper)[..., None]


def synthesis_slope(logits: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """`synthesis_loss` of every member and its gradient, of logits and given (S, n, K)."""
    each = _Each(logits, given)
    upper = torch.ones_like(logits) / logits.shape[1]
    return each.values.mean(1).sum(1), each.slope(upper)


_SLOPES: dict[Any, Slope] = {
    objective: objective_slope,
    discovery_loss: discovery_slope,
    synthesis_loss: synthesis_slope,
}


def synthesis_batches(x: Tensor, predicted: Tensor, y: Tensor, *, seed: int) -> Any:
    """step -> a batch as large as x (n, d), half of it drawn from samples where all models are
    right or all wrong, half from the others; predicted (n, K) labels of the models, y (n,)."""
    right = (predicted == y[:, None]).sum(1)
    alike = (right == 0) | (right == predicted.shape[1])
    pools = [torch.nonzero(part)[:, 0] for part in (alike, ~alike)]
    pools = [pool for pool in pools if len(pool)]
    generator = torch.Generator().manual_seed(seed)

    def batch(_: int) -> tuple[Tensor, Tensor]:
        half = len(x) // len(pools)
        chosen = torch.cat([
            pool[torch.randint(len(pool), (half,), generator=generator)] for pool in pools
        ])  # fmt: skip
        return x[chosen][None], predicted[chosen][None]

    return batch


def trained(
    models: Sequence[Net | Head], x: Tensor, given: Tensor, loss: Any, *, steps: int, rate: float,
    decay: float, strengths: Sequence[float] = (), batch: Any = None, **options: Any,
) -> tuple[Stack, Mapping[str, Tensor]]:  # fmt: skip
    """Adam on one of the three objectives for arms as members; x (S, n, d), given (S, n, c).

    decay : of the objective, divided by max(1, λ) as all of it is. strengths : λ by member.
    options : of `train_stack`.
    """
    over = [2 * decay / max(1.0, s) for s in strengths or [0.0] * len(models)]
    return train_stack(
        stack(models), batch or (lambda _: (x, given)), loss, steps=steps, lr=rate,
        optimizer="adam", weight_decay=over, own="xy",
        written=partial(gradients, models[0].layers, slope=_SLOPES[loss]), **options,
    )  # fmt: skip


def with_mean_head(net: Stack, d: int, hidden: int) -> Net:
    """A network of one head, the mean of a synthesised one's."""
    state = net.member(0)
    one = Net(d, hidden)
    heads = {name: state[name].mean(0, keepdim=True) for name in ("W3", "B3")}
    one.load_state_dict({**state, **heads})
    return one


def member(net: Stack, place: int, d: int, hidden: int) -> Net:
    """One member as a module."""
    one = Net(d, hidden)
    one.load_state_dict(net.member(place))
    return one
