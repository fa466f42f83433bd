"""Small convolutional networks: pairs of 3 x 3 convolutions and pooling, then full layers.

ConvNet(side=32, channels=[64, 64], widths=[256, 256]) is the Conv-2 of Frankle and Carbin (2019),
channels=[64, 64, 128, 128] their Conv-4: VGG (Simonyan and Zisserman 2015) cut down for CIFAR-10.
Parameters are K1, K2, ... (out, in, 3, 3) and W1, W2, ... (out, in) with biases of the same number,
BK1, ... and B1, ....
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, max_pool2d

from rclib.checks.arguments import brief, count, seed_of

__all__ = ["ConvNet"]


class ConvNet(nn.Module):
    """Images (n, colours · side²), channel-major -> (n, classes).

    channels : of the convolutions, an even number of them; after every second one 2 x 2 blocks are
        pooled to their maximum, so `side` must be divisible by 2 that often.
    widths : of the full hidden layers. Activations are ReLU.
    seed : weights are Gaussian with variance 2 / (fan-in + fan-out), a function of the seed and the
        shapes alone; biases start at zero.

    Raises ValueError naming the argument for sizes below one, an odd number of convolutions and a
    side that cannot be halved.
    """

    def __init__(
        self,
        *,
        side: int,
        channels: Sequence[int],
        widths: Sequence[int],
        classes: int = 10,
        colours: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.side, self.colours = count("side", side), count("colours", colours)
        planes = [self.colours, *(count("channels", c) for c in channels)]
        self.convolutions = len(planes) - 1
        if self.convolutions == 0 or self.convolutions % 2:
            raise ValueError(f"channels must be an even number of them, got {brief(channels)}")
        pools = self.convolutions // 2
        if self.side % 2**pools:
            raise ValueError(f"side must be divisible by {2**pools}, got {self.side}")
        flat = planes[-1] * (self.side // 2**pools) ** 2
        sizes = [flat, *(count("widths", n) for n in widths), count("classes", classes)]
        self.layers = len(sizes) - 1
        generator = torch.Generator().manual_seed(seed_of("seed", seed))
        for k in range(self.convolutions):
            shape = (planes[k + 1], planes[k], 3, 3)
            self._add(f"K{k + 1}", f"BK{k + 1}", shape, generator)
        for k in range(self.layers):
            self._add(f"W{k + 1}", f"B{k + 1}", (sizes[k + 1], sizes[k]), generator)

    def _add(
        self, name: str, bias: str, shape: tuple[int, ...], generator: torch.Generator
    ) -> None:
        fans = (shape[0] + shape[1]) * (9 if len(shape) == 4 else 1)
        value = (2.0 / fans) ** 0.5 * torch.randn(shape, generator=generator)
        self.register_parameter(name, nn.Parameter(value))
        self.register_parameter(bias, nn.Parameter(torch.zeros(shape[0])))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, classes). Raises ValueError for inputs of another shape."""
        if x.ndim != 2 or x.shape[1] != self.colours * self.side**2:
            raise ValueError(
                f"x must have shape (n, {self.colours * self.side**2}), got {tuple(x.shape)}"
            )
        parameters = dict(self.named_parameters())
        h = x.view(-1, self.colours, self.side, self.side)
        for k in range(1, self.convolutions + 1):
            h = torch.relu(conv2d(h, parameters[f"K{k}"], parameters[f"BK{k}"], padding=1))
            h = h if k % 2 else max_pool2d(h, 2)
        h = h.flatten(1)
        for k in range(1, self.layers + 1):
            h = linear(h, parameters[f"W{k}"], parameters[f"B{k}"])
            h = torch.relu(h) if k < self.layers else h
        return h
