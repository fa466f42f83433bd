"""Residual convolutional networks for small images, with BatchNorm by statistics of the batch.

ResNet-(6D+2) for CIFAR (He et al. 2016): a stem of W channels, three stages of D blocks with W, 2W
and 4W channels, a block conv-BN-ReLU-conv-BN plus its input, then ReLU; where the shape changes the
input goes through a 1 x 1 convolution of stride 2 and BN. Then the mean over places and a full
layer. Every BatchNorm takes mean and variance of the batch that it is given, so that networks can
be stacked (`rclib.nets.stack`) and tested on a whole set at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d

from rclib.checks.arguments import choice, count, seed_of

__all__ = ["GAINS", "ResNet", "batch_norm_parameters"]

EPS = 1e-5
GAINS = ("uniform", "one")  # U(0, 1), as in open_lth, or 1


class ResNet(nn.Module):
    """Images (n, colours · side²), channel-major, to (n, classes).

    depth D, width W : ResNet-(6D+2). Parameters, with s the stage and b the block: convolutions
    `stem_K`, `s_b_1_K`, `s_b_2_K` and `s_b_short_K` (out, in, 3, 3) or (out, in, 1, 1); their gains
    and shifts `_gain`, `_shift` (out,), or (1,) with `shared`; `out_W` (classes, 4W), `out_B`.
    two_each : every convolution is the sum of `_K` and `_V`, of which `_V` holds two randomly drawn
        weights of each output channel and `_K` the others (`chosen` tells which).
    seed : convolutions and `out_W` are normal with variance 2 / fan-in, gains U(0, 1) or one,
        shifts and `out_B` zero.

    Raises ValueError naming the argument for sizes below one and unknown gains.
    """

    def __init__(
        self,
        *,
        side: int,
        depth: int,
        width: int,
        classes: int = 10,
        colours: int = 3,
        gain: str = "uniform",
        shared: bool = False,
        two_each: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.side, self.colours = count("side", side), count("colours", colours)
        self.depth, self.width = count("depth", depth), count("width", width)
        self.two_each = two_each
        gain = choice("gain", gain, GAINS)
        generator = torch.Generator().manual_seed(seed_of("seed", seed))
        chosen = torch.Generator().manual_seed(seed_of("seed", seed) + 1)
        for name, into, out, size in self._convolutions():
            weight = torch.randn(out, into, size, size, generator=generator)
            weight *= math.sqrt(2 / (into * size**2))
            g = torch.rand(1 if shared else out, generator=generator)
            if two_each:
                where = self._two(weight, chosen)
                self._add(f"{name}_K", weight * ~where)
                self._add(f"{name}_V", weight * where)
            else:
                self._add(f"{name}_K", weight)
            self._add(f"{name}_gain", g if gain == "uniform" else torch.ones_like(g))
            self._add(f"{name}_shift", torch.zeros_like(g))
        fan = 4 * self.width
        drawn = torch.randn(count("classes", classes), fan, generator=generator)
        self._add("out_W", drawn * math.sqrt(2 / fan))
        self._add("out_B", torch.zeros(classes))

    def _add(self, name: str, value: Tensor) -> None:
        self.register_parameter(name, nn.Parameter(value))

    @staticmethod
    def _two(weight: Tensor, generator: torch.Generator) -> Tensor:
        """Where each output channel's two drawn weights are, (out, in, k, k) bool."""
        flat = torch.zeros(weight.shape[0], weight[0].numel(), dtype=torch.bool)
        for row in flat:
            row[torch.randperm(len(row), generator=generator)[:2]] = True
        return flat.reshape(weight.shape)

    def _convolutions(self) -> Iterator[tuple[str, int, int, int]]:
        """(name, channels in, channels out, kernel size), in their order."""
        yield "stem", self.colours, self.width, 3
        before = self.width
        for s in range(3):
            own = self.width * 2**s
            for b in range(self.depth):
                yield f"{s}_{b}_1", before, own, 3
                yield f"{s}_{b}_2", own, own, 3
                if before != own:
                    yield f"{s}_{b}_short", before, own, 1
                before = own

    def chosen(self) -> dict[str, Tensor]:
        """With `two_each`: name of each `_V` -> where its weights are (ones and zeros)."""
        return {
            name: (p != 0).to(p.dtype) for name, p in self.named_parameters() if name.endswith("_V")
        }

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, classes). Raises ValueError for inputs of another shape."""
        return self._through(dict(self.named_parameters()), x, None)

    def deviations(self, tensors: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        """With these parameters: convolution ("stem", "0_0_1", ...) -> (out,), the standard
        deviation of what BatchNorm divides by, over images and places."""
        kept: dict[str, Tensor] = {}
        self._through(tensors, x, kept)
        return kept

    def _through(
        self, p: Mapping[str, Tensor], x: Tensor, kept: dict[str, Tensor] | None
    ) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.colours * self.side**2:
            raise ValueError(
                f"x must have shape (n, {self.colours * self.side**2}), got {tuple(x.shape)}"
            )

        def normed(name: str, x: Tensor, stride: int = 1) -> Tensor:
            """Convolution and BatchNorm by the batch's own statistics."""
            kernel = p[f"{name}_K"] + p[f"{name}_V"] if self.two_each else p[f"{name}_K"]
            z = conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
            if kept is not None:
                kept[name] = (z.var((0, 2, 3), correction=0) + EPS).sqrt()
            out = z.shape[1]
            # Gain and shift apart and the last product by `bmm`, as `torch.vmap` does them: the
            # bits are the same with it and without.
            gain, shift = (
                p[f"{name}_{part}"].expand(out)[:, None, None] for part in ("gain", "shift")
            )
            return batch_norm(z, None, None, training=True, eps=EPS) * gain + shift

        h = torch.relu(normed("stem", x.reshape(-1, self.colours, self.side, self.side)))
        for s in range(3):
            for b in range(self.depth):
                stride = 2 if s > 0 and b == 0 else 1
                inner = torch.relu(normed(f"{s}_{b}_1", h, stride))
                inner = normed(f"{s}_{b}_2", inner)
                short = f"{s}_{b}_short"
                h = torch.relu(inner + (normed(short, h, stride) if f"{short}_K" in p else h))
        out = torch.bmm(h.mean((2, 3))[None], p["out_W"].T[None])[0]
        return out + p["out_B"]


def batch_norm_parameters(depth: int, width: int) -> int:
    """Gains and shifts of a ResNet-(6D+2) with 1 x 1 shortcuts: 28 D W + 14 W."""
    return 28 * depth * width + 14 * width
