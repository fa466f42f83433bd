"""Early stopping that is determined afterwards: the step at which each member was best.

    best = BestSoFar(x_valid, y_valid, cross_entropy)
    end, found = train_stack(..., record={"validation": best}, at=range(0, 1001, 50))
    best.stack()                          # every member as it was at its smallest loss
    best.look                             # (S,) number of that measurement, from 0

Training runs its whole length, as in Frankle and Carbin (2019); what is kept is one more copy of
the tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rclib.nets.stack import Stack
from rclib.training.losses import under_vmap

__all__ = ["BestSoFar", "accuracy"]


def accuracy(now: Stack, x: Tensor, y: Tensor, *, own: bool | None = None) -> Tensor:
    """Share of correct classes of every member, (S,) float64.

    x, own : as `Stack.__call__` takes them; y : (n,) or (S, n) classes. Raises ValueError for
    classes that are not as many as the outputs, and as that call does.
    """
    with torch.no_grad():
        guess = now(x, own=own).argmax(-1)
    if y.shape not in (guess.shape, guess.shape[1:]):
        raise ValueError(
            f"y must have shape {tuple(guess.shape)} or {tuple(guess.shape[1:])}, got "
            f"{tuple(y.shape)}"
        )
    return (guess == y).double().mean(1)


class BestSoFar:
    """A measurement for `train_stack`: losses (S,) on held-out data, and the best networks so far.

    x : (n, ...) shared or (S, n, ...) by `own`, y : (n,) or (S, n). loss : (output of one network
    (n, ...), y (n,)) -> (). A loss that is no number is never better; of equal ones the earlier
    counts. Used for one run only.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        own: bool | None = None,
    ) -> None:
        self.x, self.y, self.own = x, y, own
        self.each = torch.vmap(under_vmap(loss))
        self.kept: Stack | None = None
        self.looks = 0
        self.value, self.look = torch.empty(0), torch.empty(0, dtype=torch.long)

    def __call__(self, now: Stack) -> Tensor:
        """The losses (S,) of the stack as it is; its tensors are copied where they are better."""
        outputs = now(self.x, own=self.own)
        y = self.y if self.y.ndim == 2 else self.y.expand(len(now), *self.y.shape)
        found: Tensor = self.each(outputs, y).detach()
        if self.kept is None:
            self.kept = replace(now, tensors={n: t.clone() for n, t in now.tensors.items()})
            self.value = torch.full_like(found, torch.inf)
            self.look = torch.zeros(len(now), dtype=torch.long, device=found.device)
        better = found < self.value
        self.value = torch.where(better, found, self.value)
        self.look = torch.where(better, self.looks, self.look)
        for name, kept in self.kept.tensors.items():
            kept[better] = now.tensors[name][better]
        self.looks += 1
        return found

    def stack(self) -> Stack:
        """Every member at its best. Raises ValueError before the first measurement."""
        if self.kept is None:
            raise ValueError("nothing was measured yet: give it to train_stack as a record")
        return self.kept
