"""A stack of networks with batch normalisation whose hidden matrices are read from latent numbers.

    nets = CodedStack.start(DenseShift(3), [64, 16, 16, 10], seeds=range(8), std=[1e-3] * 8)
    gradients = nets.gradients(x, y)            # in the order of nets.tensors
    nets.refresh()                              # after nets.tensors were changed in place

The network is that of `rclib.nets.normed_stack`; the matrix of the output layer is real, and the
hidden ones are those of `rclib.nets.power_of_two`, with no scale of their own: batch normalisation
after them takes it away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rclib.nets.normed_stack import NormedStack
from rclib.nets.power_of_two import Code

__all__ = ["CodedStack"]


@dataclass
class CodedStack:
    """S networks of one shape and code.

    net : whose hidden weights hold the values of the code. latents : of each hidden layer, name ->
    (S, out, in).
    """

    code: Code
    net: NormedStack
    latents: list[dict[str, Tensor]]

    @classmethod
    def start(
        cls, code: Code, sizes: Sequence[int], seeds: Iterable[int], std: Sequence[float | None],
        *, norm: bool = True,
    ) -> CodedStack:  # fmt: skip
        """Networks of the sizes [d, h_1, ..., classes], one a seed.

        std : of the latents by member, None for √(2 / fan-in). The output layer starts as that of
        `NormedStack`. Raises ValueError if they are not as many as the seeds, and as `NormedStack`.
        """
        seeds = list(seeds)
        if len(std) != len(seeds):
            raise ValueError(f"std must be one for each of {len(seeds)} seeds, got {len(std)}")
        net = NormedStack.start(sizes, seeds, norm=norm)
        latents = []
        for layer, weight in enumerate(net.weights[:-1]):
            shape = tuple(weight.shape[1:])
            drawn = []
            for seed, own in zip(seeds, std, strict=True):
                generator = torch.Generator().manual_seed(1009 * seed + layer + 1)
                size = (2.0 / shape[1]) ** 0.5 if own is None else own
                drawn.append(code.start(shape, size, generator))
            latents.append({name: torch.stack([d[name] for d in drawn]) for name in code.names})
        nets = cls(code, net, latents)
        nets.refresh()
        return nets

    def __len__(self) -> int:
        return len(self.net.bias)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is trained, by name: W1.sign, ..., the output's matrix, gain1, ..., bias."""
        named = {
            f"W{layer}.{name}": tensor
            for layer, own in enumerate(self.latents, 1)
            for name, tensor in own.items()
        }
        hidden = len(self.latents)
        others = {n: t for n, t in self.net.tensors.items() if n not in self._coded}
        assert f"W{hidden + 1}" in others
        return {**named, **others}

    @property
    def _coded(self) -> list[str]:
        return [f"W{layer}" for layer in range(1, len(self.latents) + 1)]

    def refresh(self) -> None:
        """Read the hidden matrices from the latents."""
        for layer, own in enumerate(self.latents):
            self.net.weights[layer] = self.code.value(own)

    def gradients(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Gradients of each member's mean cross-entropy, in the order of `tensors`.

        x (S, n, d), y (S, n); each batch is normalised as a whole. The latents must not have
        changed since `refresh`.
        """
        of_net, _ = self.net.gradients(x, y, ghost=x.shape[1])
        hidden = len(self.latents)
        pulled: list[Tensor] = []
        for own, gradient in zip(self.latents, of_net[:hidden], strict=True):
            found = self.code.pull(own, gradient)
            pulled += [found[name] for name in own]
        return [*pulled, *of_net[hidden:]]
