"""Cross-entropy as `torch.vmap` takes it at the cost of its products.

Under `torch.vmap` torch takes `cross_entropy` apart in Python at every call, which for a small
network costs about as much as the network, and at the first call imports what it does that with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["log_loss", "under_vmap"]

Loss = Callable[[Tensor, Tensor], Tensor]


def log_loss(out: Tensor, y: Tensor) -> Tensor:
    """Mean `cross_entropy` of outputs (n, classes) and classes y (n,) bit for bit, its gradient
    too. Raises RuntimeError for classes that are none."""
    return -torch.log_softmax(out, 1).gather(1, y[:, None])[:, 0].mean()


def under_vmap(loss: Loss) -> Loss:
    """What is to be given to `torch.vmap` in place of a loss: the same numbers, sooner."""
    return _either if loss is cross_entropy else loss


def _either(out: Tensor, y: Tensor) -> Tensor:
    plain = out.ndim == 2 and y.ndim == 1 and y.dtype == torch.long
    return log_loss(out, y) if plain else cross_entropy(out, y)
