"""What networks start from and apply: initial laws, biases, activations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rclib.checks.arguments import brief, count, number

__all__ = ["ACTIVATIONS", "BIASES", "Init"]


ACTIVATIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softplus": nn.functional.softplus,
    "identity": lambda z: z,
}


BIASES = ("none", "constant", "random")


@dataclass(frozen=True)
class Init:
    """Law of the initial entries, in units of the parametrisation's scale: mean + scale · ξ.

    ξ has zero mean and unit variance: "gaussian" N(0, 1) or "uniform" on (-√3, √3).
    """

    kind: str = "uniform"
    mean: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in ("uniform", "gaussian"):
            raise ValueError(f"init kind must be 'uniform' or 'gaussian', got {brief(self.kind)}")
        # Beyond the largest float32 an entry would be infinite.
        for name in ("mean", "scale"):
            object.__setattr__(self, name, number(f"init {name}", getattr(self, name)))
        if not abs(self.mean) < 1e37:
            raise ValueError(f"init mean must be finite, got {self.mean!r}")
        if not 0 <= self.scale < 1e37:
            raise ValueError(f"init scale must be finite and not negative, got {self.scale!r}")

    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """One draw of i.i.d. entries, float32, of the given shape.

        Raises ValueError for a shape that is no sequence of sizes, TypeError for a generator that
        is none: None would draw from the global one.
        """
        if not isinstance(shape, Sequence) or isinstance(shape, str):
            raise ValueError(f"shape must be a sequence of sizes, got {brief(shape)}")
        shape = [count("shape", size, 0) for size in shape]
        if not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
        if self.kind == "gaussian":
            noise = torch.randn(shape, generator=generator)
        else:
            noise = (2.0 * torch.rand(shape, generator=generator) - 1.0) * math.sqrt(3.0)
        return self.mean + self.scale * noise
