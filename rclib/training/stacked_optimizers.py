"""Updates of a stack's tensors: the rules of torch.optim, with settings that differ by member.

With gradient g, rate η, decay λ and step count t from 1, the update subtracts u from p:

    sgd:       u = η (g + λ p)
    momentum:  b ← μ b + g + λ p,   u = η b
    adam:      as adamw, with g + λ p for g, and without the last term
    adamw:     m ← β1 m + (1 - β1) g,  v ← β2 v + (1 - β2) g²,
               u = η m / (1 - β1^t) / (√v / √(1 - β2^t) + ε) + η λ p

Every operation here rounds once, so that a number's bits do not depend on where in a tensor it
stands (see `rclib.nets.stack`). Sources: Sutskever et al. 2013 as torch writes it; Kingma, Ba
2015, Algorithm 1; Loshchilov, Hutter 2019, Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rclib.checks.arguments import brief, choice, number
from rclib.checks.arrays import real_array

__all__ = ["OPTIMIZERS", "Schedule", "Settings", "Updates", "by_member"]

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
BLOCK = 1024  # steps whose rates are worked out at once

Schedule = Callable[[int], Any] | Tensor | NDArray[Any] | Sequence[float]


def by_member(name: str, value: Any, members: int, *, below: float = np.inf) -> NDArray[np.float64]:
    """One number for all members or one for each, as (S,) in [0, below).

    Raises ValueError naming the argument for other shapes and numbers.
    """
    found = real_array(name, value)
    if found.shape not in ((), (members,)):
        raise ValueError(
            f"{name} must be one number or {members}, one a member, got shape {found.shape}"
        )
    bad = found[(found < 0) | (found >= below)]
    if bad.size:
        bounds = f"lie in [0, {below:g})" if below < np.inf else "not be negative"
        raise ValueError(f"{name} must {bounds}, got {bad.flat[0]:g}")
    return np.broadcast_to(found, (members,)).copy()


@dataclass(frozen=True)
class Settings:
    """An optimiser with its numbers, each (S,) or one for all: see `train_stack`."""

    optimizer: str
    lr: Any
    momentum: Any = 0.9
    betas: Any = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: Any = 0.0
    factors: Mapping[str, float] | None = None
    schedule: Schedule | None = None


class Updates:
    """The optimiser of a stack in progress; holds its running means.

    tensors : name -> (S, ...), what is trained. Raises ValueError naming the setting out of range.
    """

    def __init__(self, settings: Settings, tensors: Mapping[str, Tensor], steps: int) -> None:
        self.kind = choice("optimizer", settings.optimizer, OPTIMIZERS)
        self.tensors = list(tensors.values())
        self.steps, members = steps, len(self.tensors[0])
        self.lr = by_member("lr", settings.lr, members)
        self.eps = number("eps", settings.eps)
        if not 0 < self.eps < np.inf:
            raise ValueError(f"eps must be positive and finite, got {settings.eps!r}")
        if not isinstance(settings.betas, (tuple, list)) or len(settings.betas) != 2:
            raise ValueError(f"betas must be two, β1 and β2, got {brief(settings.betas)}")
        self.betas = [
            by_member(f"betas[{i}]", beta, members, below=1.0)
            for i, beta in enumerate(settings.betas)
        ]
        mu = by_member("momentum", settings.momentum, members, below=1.0)
        decay = by_member("weight_decay", settings.weight_decay, members)
        factors = dict(settings.factors or {})
        self.factors = []
        for name in tensors:
            factor = number(f"factors[{name!r}]", factors.get(name, 1.0))
            if not 0 <= factor < np.inf:
                raise ValueError(f"factors[{name!r}] must be finite, not negative, got {factor}")
            self.factors.append(factor)
        self.schedule = _table(settings.schedule, steps, members)
        self.first, self.second = ([torch.zeros_like(p) for p in self.tensors] for _ in range(2))
        self.mu, self.decay = self._wide(mu), self._wide(decay)
        self.decays = bool(decay.any())
        b1, b2 = self.betas
        self.b1, self.b2 = self._wide(b1), self._wide(b2)
        self.c1, self.c2 = self._wide(1.0 - b1), self._wide(1.0 - b2)
        self.block = -1
        self.rates: dict[float, Tensor] = {}  # factor -> (BLOCK, S)
        self.plain, self.roots = torch.empty(0), torch.empty(0)

    def _wide(self, values: NDArray[np.float64]) -> list[Tensor]:
        """(S,) for every tensor, in its dtype and with as many axes."""
        first = self.tensors[0]
        row = torch.from_numpy(values).to(first.dtype).to(first.device)
        return self._views(row)

    def _views(self, row: Tensor) -> list[Tensor]:
        return [row.view(-1, *(1,) * (p.ndim - 1)) for p in self.tensors]

    def _work_out(self, block: int) -> None:
        """Rates of the steps of a block: η by factor, η/(1 - β1^t) with Adam, and √(1 - β2^t)."""
        first, last = block * BLOCK, min((block + 1) * BLOCK, self.steps)
        rates = np.broadcast_to(self.lr, (last - first, len(self.lr)))
        if self.schedule is not None:
            rates = rates * self.schedule[first:last]
        device, dtype = self.tensors[0].device, self.tensors[0].dtype
        self.plain = torch.tensor(rates, dtype=dtype, device=device)
        if self.kind in ("adam", "adamw"):
            # Python's powers: NumPy's depend on the place of a number in its array.
            one, two = (
                np.array([[1.0 - float(b) ** t for b in beta] for t in range(first + 1, last + 1)])
                for beta in self.betas
            )
            rates = rates / one
            self.roots = torch.tensor(np.sqrt(two), dtype=dtype, device=device)
        self.rates = {
            factor: torch.tensor(factor * rates, dtype=dtype, device=device)
            for factor in set(self.factors)
        }
        self.block = block

    def step(self, t: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """What update number t (from 0) subtracts from each tensor; called once a step, in order.

        Gradients are left as they are.
        """
        block, row = divmod(t, BLOCK)
        if block != self.block:
            self._work_out(block)
        rows = {factor: table[row] for factor, table in self.rates.items()}
        rates = [
            rows[factor].view(-1, *(1,) * (p.ndim - 1))
            for factor, p in zip(self.factors, self.tensors, strict=True)
        ]
        grads = list(gradients)
        if self.decays and self.kind != "adamw":
            grads = _sum(grads, torch._foreach_mul(self.tensors, self.decay))
        if self.kind == "sgd":
            return list(torch._foreach_mul(grads, rates))
        if self.kind == "momentum":
            torch._foreach_mul_(self.first, self.mu)
            torch._foreach_add_(self.first, grads)
            return list(torch._foreach_mul(self.first, rates))
        torch._foreach_mul_(self.first, self.b1)
        torch._foreach_add_(self.first, torch._foreach_mul(grads, self.c1))
        squares = torch._foreach_mul(grads, grads)
        torch._foreach_mul_(squares, self.c2)
        torch._foreach_mul_(self.second, self.b2)
        torch._foreach_add_(self.second, squares)
        below = torch._foreach_sqrt(self.second)
        torch._foreach_div_(below, self._views(self.roots[row]))
        torch._foreach_add_(below, self.eps)
        out = torch._foreach_div(self.first, below)
        torch._foreach_mul_(out, rates)
        if self.decays and self.kind == "adamw":
            decay = torch._foreach_mul(self.tensors, self.decay)
            torch._foreach_mul_(decay, self._decay_rates(row))
            return _sum(out, decay)
        return list(out)

    def _decay_rates(self, row: int) -> list[Tensor]:
        """η c_p of AdamW's decay, which has no bias correction."""
        views = self._views(self.plain[row])
        return [
            view if factor == 1.0 else view * factor
            for view, factor in zip(views, self.factors, strict=True)
        ]


def _sum(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
    return list(torch._foreach_add(list(a), list(b)))


def _table(schedule: Schedule | None, steps: int, members: int) -> NDArray[np.float64] | None:
    """Factors of the rate, (steps, 1) or (steps, S)."""
    if schedule is None:
        return None
    if callable(schedule) and not isinstance(schedule, Tensor):
        rows = [by_member(f"lr_schedule({t})", schedule(t), members) for t in range(steps)]
        return np.array(rows).reshape(steps, members)
    table = real_array("lr_schedule", schedule)
    if table.shape == (steps,):
        table = table[:, None]
    if table.shape not in ((steps, 1), (steps, members)):
        raise ValueError(
            f"lr_schedule must have shape ({steps},) or ({steps}, {members}), got {table.shape}"
        )
    bad = table[table < 0]
    if bad.size:
        raise ValueError(f"lr_schedule must not be negative, got {bad.flat[0]:g}")
    return table
