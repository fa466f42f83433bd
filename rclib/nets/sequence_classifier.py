"""Small sequence encoders with a denoising and a classifying head, many at once.

    shape = Shape("transformer", features=2, outputs=1, classes=10, length=64)
    tensors = start(shape, seeds=[0, 1, 2])
    Stack(tensors, partial(classify, shape))(x)       # (3, n, 10), for x (n, 64, 2)
    Stack(tensors, partial(denoise, shape))(x)        # (3, n, 64, 1)

LayerNorm stands before each part of a block, as in Amos and others 2024: a mixing of positions and
a feed-forward of expansion 2 with GELU, both added. The mixing is attention in "transformer", with
a learned table of positions at the input, and y = GELU(K u + D u) with a matrix behind it in "ssm"
(`rclib.nets.state_space`), which has no table. The classifying head reads the mean over positions.
Functions are of one network, tensors by name; `rclib.nets.stack.Stack` maps them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rclib.checks.arguments import choice, count, seed_of
from rclib.nets import state_space

__all__ = [
    "HEADS",
    "KINDS",
    "Shape",
    "classify",
    "denoise",
    "encode",
    "pooled",
    "position_attention",
    "position_scores",
    "start",
]

KINDS = ("transformer", "ssm")
HEADS = {"denoise": ("out.W", "out.b"), "classify": ("class.W", "class.b")}  # tensors of each head


@dataclass(frozen=True)
class Shape:
    """kind : of `KINDS`. features, outputs : inputs and denoised numbers of a position. length : L.
    width, blocks, heads : of the encoder. modes, init, dt : of `rclib.nets.state_space.start`.
    position : standard deviation of the table of positions at the start.

    Raises ValueError naming the argument for another kind, a count that is not positive, or heads
    that do not divide the width.
    """

    kind: str
    features: int
    outputs: int
    classes: int
    length: int
    width: int = 32
    blocks: int = 2
    heads: int = 4
    modes: int = 8
    init: str = "structured"
    dt: tuple[float, float] = (0.005, 0.1)
    position: float = 0.3

    def __post_init__(self) -> None:
        choice("kind", self.kind, KINDS)
        for name in ("features", "outputs", "classes", "length", "width", "blocks", "heads"):
            count(name, getattr(self, name))
        if self.width % self.heads:
            raise ValueError(f"heads must divide the width {self.width}, got {self.heads}")


def start(shape: Shape, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Tensors of len(seeds) networks, each with a first axis of members.

    Matrices (out, in) have standard deviation in^(-1/2), biases are 0, gains 1; those of a block
    are named "0.q" and so on. Raises ValueError for a seed that is none.
    """
    members = []
    for place, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed_of(f"seeds[{place}]", seed))
        members.append(_member(shape, generator))
    return {name: torch.stack([one[name] for one in members]) for name in members[0]}


def _member(shape: Shape, generator: torch.Generator) -> dict[str, Tensor]:
    d = shape.width

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator) / math.sqrt(columns)

    found = {"embed.W": matrix(d, shape.features), "embed.b": torch.zeros(d)}
    if shape.kind == "transformer":
        table = torch.randn(shape.length, d, generator=generator)
        found["P"] = shape.position * table
    for b in range(shape.blocks):
        if shape.kind == "transformer":
            found |= {f"{b}.{name}": matrix(d, d) for name in ("q", "k", "v")}
        else:
            layer = state_space.start(generator, d, shape.modes, init=shape.init, dt=shape.dt)
            found |= {f"{b}.{name}": value for name, value in layer.items()}
            found[f"{b}.D"] = torch.randn(d, generator=generator)
        found |= {f"{b}.mix": matrix(d, d), f"{b}.in": matrix(2 * d, d)}
        found |= {f"{b}.in.b": torch.zeros(2 * d), f"{b}.out": matrix(d, 2 * d)}
        for norm in ("norm", "norm2"):
            found |= {f"{b}.{norm}.g": torch.ones(d), f"{b}.{norm}.b": torch.zeros(d)}
    found |= {"norm.g": torch.ones(d), "norm.b": torch.zeros(d)}
    found |= {"out.W": matrix(shape.outputs, d), "out.b": torch.zeros(shape.outputs)}
    return found | {"class.W": matrix(shape.classes, d), "class.b": torch.zeros(shape.classes)}


def _linear(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """x (..., in) to (..., out), in one product of matrices."""
    out = x.reshape(-1, x.shape[-1]) @ W.mT
    return (out if b is None else out + b).reshape(*x.shape[:-1], W.shape[-2])


def _norm(x: Tensor, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    scaled: Tensor = F.layer_norm(x, x.shape[-1:])
    out: Tensor = scaled * tensors[f"{name}.g"] + tensors[f"{name}.b"]
    return out


def _split(x: Tensor, heads: int) -> Tensor:
    """(n, L, d) to (n, heads, L, d / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)  # type: ignore[no-any-return]


def _scores(tensors: Mapping[str, Tensor], block: int, heads: int, x: Tensor) -> Tensor:
    """Queries times keys over the root of a head's width, (n, heads, L, L)."""
    q, k = (_split(_linear(x, tensors[f"{block}.{name}"]), heads) for name in ("q", "k"))
    scores: Tensor = q @ k.mT / math.sqrt(q.shape[-1])
    return scores


def encode(shape: Shape, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Encoded positions (n, L, width) of inputs x (n, L, features)."""
    h = _linear(x, tensors["embed.W"], tensors["embed.b"])
    if shape.kind == "transformer":
        h = h + tensors["P"]
    for b in range(shape.blocks):
        u = _norm(h, tensors, f"{b}.norm")
        if shape.kind == "transformer":
            v = _split(_linear(u, tensors[f"{b}.v"]), shape.heads)
            mixed = torch.softmax(_scores(tensors, b, shape.heads, u), -1) @ v
            y = mixed.transpose(-3, -2).flatten(-2)
        else:
            layer = {name: tensors[f"{b}.{name}"] for name in state_space.MODES}
            y = F.gelu(state_space.by_toeplitz(layer, u) + tensors[f"{b}.D"] * u)
        h = h + _linear(y, tensors[f"{b}.mix"])
        u = _norm(h, tensors, f"{b}.norm2")
        u = F.gelu(_linear(u, tensors[f"{b}.in"], tensors[f"{b}.in.b"]))
        h = h + _linear(u, tensors[f"{b}.out"])
    return _norm(h, tensors, "norm")


def denoise(shape: Shape, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """What the denoising head says at each position, (n, L, outputs)."""
    return _linear(encode(shape, tensors, x), tensors["out.W"], tensors["out.b"])


def pooled(shape: Shape, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Mean over positions of what is encoded, (n, width)."""
    return encode(shape, tensors, x).mean(-2)


def classify(shape: Shape, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Logits (n, classes), from the pooled positions."""
    return _linear(pooled(shape, tensors, x), tensors["class.W"], tensors["class.b"])


def position_scores(shape: Shape, tensors: Mapping[str, Tensor], block: int = 0) -> Tensor:
    """P M Pᵀ of each head, (heads, L, L), M = W_qᵀ W_k: scores that positions alone have, without
    the root of the width. Not for "ssm", which raises KeyError."""
    P = tensors["P"]
    q, k = (_split(_linear(P[None], tensors[f"{block}.{name}"]), shape.heads) for name in "qk")
    return (q @ k.mT)[0]


def position_attention(shape: Shape, tensors: Mapping[str, Tensor], block: int = 0) -> Tensor:
    """Attention (heads, L, L) to positions alone: the first block's on its normed table of
    positions with the embedding's offset. Not for "ssm", which raises KeyError."""
    u = _norm((tensors["P"] + tensors["embed.b"])[None], tensors, f"{block}.norm")
    return torch.softmax(_scores(tensors, block, shape.heads, u), -1)[0]
