"""Networks of notebook 74: autoencoders and classifiers whose codes are latents or relative codes.

    encoder   x -> z in R^d: one hidden layer of tanh, or strided convolutions of GELU, then linear
    code      z itself, or LayerNorm of its cosines to the latents of the anchors
    decoder   code -> images by one hidden layer of tanh; or code -> classes, linear

Anchors are encoded anew at every step with the encoder as it is; gradients do not flow through
them, as in the authors' code (github.com/lucmos/relreps).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, layer_norm, linear

from rclib.checks.arguments import choice
from rclib.experiments.features.spaces import relative

__all__ = ["KINDS", "Coder", "Shape"]

KINDS = ("autoencoder", "classifier")


@dataclass(frozen=True)
class Shape:
    """Sizes of a `Coder`.

    inputs : pixels of an image, colours times side². latent : d. anchors : A, 0 for absolute
    codes. hidden : of the full layers. channels : of the strided convolutions, none for a full
    layer in their place. colours : of the images.
    """

    kind: str
    inputs: int
    latent: int
    anchors: int = 0
    hidden: int = 128
    channels: tuple[int, ...] = ()
    colours: int = 1
    classes: int = 10

    def __post_init__(self) -> None:
        choice("kind", self.kind, KINDS)

    @property
    def side(self) -> int:
        """Side of the square images."""
        return math.isqrt(self.inputs // self.colours)


class Coder(nn.Module):
    """An encoder and a decoder of one shape; weights are a function of the seed and the shape.

    Parameters: K1, ... of convolutions (out, in, 3, 3); E1 (hidden, inputs) where there are none;
    E (latent, hidden or pixels of the last convolution); G, H of the LayerNorm of relative codes;
    D1 (hidden, code) and D (inputs, hidden), or D (classes, code); biases with a b in front. The
    law is torch's default, uniform in ±1/√fan-in.
    """

    def __init__(self, shape: Shape, *, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.draw = torch.Generator().manual_seed(seed)
        channels: Sequence[int] = (shape.colours, *shape.channels)
        for k in range(1, len(channels)):
            self._add(f"K{k}", (channels[k], channels[k - 1], 3, 3))
        if shape.channels:
            inner = channels[-1] * (-(-shape.side // 2 ** (len(channels) - 1))) ** 2
        else:
            self._add("E1", (shape.hidden, shape.inputs))
            inner = shape.hidden
        self._add("E", (shape.latent, inner))
        code = shape.anchors or shape.latent
        if shape.anchors:
            self.G, self.H = nn.Parameter(torch.ones(code)), nn.Parameter(torch.zeros(code))
        if shape.kind == "autoencoder":
            self._add("D1", (shape.hidden, code))
            self._add("D", (shape.inputs, shape.hidden))
        else:
            self._add("D", (shape.classes, code))
        del self.draw

    def _add(self, name: str, size: tuple[int, ...]) -> None:
        most = (size[1] * (9 if len(size) == 4 else 1)) ** -0.5
        for own, shape in ((name, size), (f"b{name}", size[:1])):
            drawn = (2 * torch.rand(shape, generator=self.draw) - 1) * most
            self.register_parameter(own, nn.Parameter(drawn))

    def encode(self, x: Tensor) -> Tensor:
        """Latents (n, d) of images (n, inputs)."""
        own, shape = dict(self.named_parameters()), self.shape
        if shape.channels:
            x = x.view(len(x), shape.colours, shape.side, shape.side)
            for k in range(1, len(shape.channels) + 1):
                x = gelu(conv2d(x, own[f"K{k}"], own[f"bK{k}"], stride=2, padding=1))
            x = x.flatten(1)
        else:
            x = torch.tanh(linear(x, own["E1"], own["bE1"]))
        return linear(x, own["E"], own["bE"])

    def code(self, z: Tensor, anchors: Tensor) -> Tensor:
        """What the decoder gets: z (n, d), or its cosines to the anchors' latents (A, d)."""
        return relative(z, anchors) if self.shape.anchors else z

    def decode(self, code: Tensor) -> Tensor:
        """Images (n, inputs) or scores (n, classes) of codes (n, d or A)."""
        own = dict(self.named_parameters())
        if self.shape.anchors:
            code = layer_norm(code, code.shape[-1:], own["G"], own["H"])
        if self.shape.kind == "autoencoder":
            code = torch.tanh(linear(code, own["D1"], own["bD1"]))
        return linear(code, own["D"], own["bD"])

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, ...) of x (A + n, inputs), whose first A rows are the anchors' images."""
        count = self.shape.anchors
        z = self.encode(x)
        return self.decode(self.code(z[count:], z[:count].detach()))
