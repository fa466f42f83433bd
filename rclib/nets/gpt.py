"""A decoder-only transformer of which the width alone varies, under SP, MF or μP.

With tokens t_1 ... t_T, stream x ∈ R^N per position, L blocks and multipliers m of
`rclib.nets.parametrization` (1/fan-in for every hidden matrix under mean field),

    x_s    = m E[:, t_s] + P[:, s]                       (P only with learned positions)
    x_s   += m Wo · attention(norm(x))_s + Bo
    x_s   += m Wdown · gelu(m Wup · norm(x_s) + Bup) + Bdown
    f(t)_s = m W · norm(x_s) + B

The norm stands before each branch (pre-norm), the output matrix is its own (untied). Heads
have a fixed size d_h, so N / d_h of them grow with the width, and attention is
softmax(q·k / d_h): the factor is a constant in N, and 1/d_h rather than 1/√d_h is what μP
takes for products of trained vectors (Yang and Hu, arXiv 2203.03466).

Axes (`rclib.rowcolumn.axes`): `stream`, `head.<l>` (whole heads), `query.<l>` and `value.<l>`
(neurons inside a head, kept in order), `mlp.<l>`, `vocabulary`, `position`. The fan-in that grows
is the last axis of every tensor, which is what `rclib.rowcolumn.transfer` scales by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rclib.nets.gpt_block import Block, angles, normalised, own_parameters
from rclib.nets.init import BIASES, Init
from rclib.nets.parametrization import Parametrization
from rclib.nets.parametrization import parametrization as lookup

__all__ = ["GPT", "build_gpt", "gpt_axes"]

NORMS = ("layer", "rms")
POSITIONS = ("learned", "rotary")
GAUSSIAN = Init("gaussian")
MLP_RATIO = 4  # hidden neurons of the MLP branch per stream neuron, as in the paper's N x 4N


def gpt_axes(
    blocks: int, *, norm: str = "layer", positions: str = "learned", bias: bool = True
) -> dict[str, tuple[str, ...]]:
    """Axes of `GPT`'s tensors, output axis first (paper A, Definition 3.1)."""
    table: dict[str, tuple[str, ...]] = {"embedding": ("stream", "vocabulary")}
    if positions == "learned":
        table["position"] = ("stream", "position")
    for l in range(blocks):
        head, query, value, mlp = (f"{index}.{l}" for index in ("head", "query", "value", "mlp"))
        block: dict[str, tuple[str, ...]] = {
            "gain1": ("stream",),
            "shift1": ("stream",),
            "Wq": (head, query, "stream"),
            "Bq": (head, query),
            "Wk": (head, query, "stream"),
            "Bk": (head, query),
            "Wv": (head, value, "stream"),
            "Bv": (head, value),
            "Wo": ("stream", value, head),
            "Bo": ("stream",),
            "gain2": ("stream",),
            "shift2": ("stream",),
            "Wup": (mlp, "stream"),
            "Bup": (mlp,),
            "Wdown": ("stream", mlp),
            "Bdown": ("stream",),
        }
        table |= {
            f"blocks.{l}.{name}": axes
            for name, axes in block.items()
            if _kept(name, norm=norm, bias=bias)
        }
    last = {"gain": ("stream",), "shift": ("stream",), "W": ("vocabulary", "stream")}
    last["B"] = ("vocabulary",)
    return table | {name: axes for name, axes in last.items() if _kept(name, norm=norm, bias=bias)}


def _kept(name: str, *, norm: str, bias: bool) -> bool:
    if name.startswith("shift"):
        return norm == "layer" and bias
    return bias or not name.startswith("B")


class GPT(nn.Module):
    """A language model of `blocks` blocks over `vocabulary` tokens and `context` positions.

    Parameters
    ----------
    width : N, a multiple of `head_size`; the MLP branch has 4 N neurons.
    parametrization : "SP", "MF", "muP" or a `Parametrization`. Layer types: embedding and
        positions are "input" (their input is one-hot, so their fan-in counts as 1), the matrices
        of the blocks "hidden", W "output", B "output_bias", all else "bias".
    norm : "layer" or "rms" (root mean square, which keeps the mean). Gains start at 1.
    positions : "learned" (added to the stream) or "rotary" (in the query-key product).
    init : law of the weights; a mapping from layer type to law overrides single layer types
        ("input", "hidden", "output").
    bias : "none", "constant" (every entry `bias_init.mean`) or "random" (`bias_init`), for the
        neurons inside the branches (queries, keys, values, MLP). The biases of the stream and of
        the output start at zero.
    seed : initial weights are a function of the seed and the shapes alone.

    Raises ValueError naming the argument for sizes below one, unknown names, a width that the
    head size does not divide and an odd head size with rotary positions.
    """

    def __init__(
        self,
        width: int,
        *,
        blocks: int = 4,
        context: int = 64,
        vocabulary: int = 256,
        head_size: int = 16,
        parametrization: str | Parametrization = "MF",
        norm: str = "layer",
        positions: str = "learned",
        init: Init | Mapping[str, Init] = GAUSSIAN,
        bias: str = "random",
        bias_init: Init = GAUSSIAN,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {
            "width": width,
            "blocks": blocks,
            "context": context,
            "vocabulary": vocabulary,
            "head_size": head_size,
        }
        for name, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if width % head_size:
            raise ValueError(f"width must be a multiple of head_size = {head_size}, got {width}")
        for name, choice, known in (
            ("norm", norm, NORMS),
            ("positions", positions, POSITIONS),
            ("bias", bias, BIASES),
        ):
            if choice not in known:
                raise ValueError(f"{name} must be one of {known}, got {choice!r}")
        if positions == "rotary" and head_size % 2:
            raise ValueError(f"head_size must be even with rotary positions, got {head_size}")
        laws = dict(init) if isinstance(init, Mapping) else dict.fromkeys(_WEIGHT_TYPES, init)
        unknown = sorted(set(laws) - set(_WEIGHT_TYPES))
        if unknown:
            raise ValueError(f"init must name layer types {_WEIGHT_TYPES}, got {unknown}")
        self.width, self.context, self.vocabulary = width, context, vocabulary
        self.head_size, self.norm, self.positions, self.bias = head_size, norm, positions, bias
        self.laws, self.bias_init, self.seed = laws, bias_init, int(seed)
        self.parametrization = lookup(parametrization)
        self.axes = gpt_axes(blocks, norm=norm, positions=positions, bias=bias != "none")
        self.blocks = nn.ModuleList(Block(head_size, norm) for _ in range(blocks))
        self.multipliers: dict[str, float] = {}
        generator = torch.Generator().manual_seed(self.seed)
        for name in self.axes:
            owner, _, own = name.rpartition(".")
            module = self.get_submodule(owner)
            module.register_parameter(own, nn.Parameter(self._start(name, generator)))
            assert isinstance(module, GPT | Block)
            module.multipliers[own] = self.multiplier(name)
        if positions == "rotary":
            turns = angles(context, head_size)
            self.register_buffer("cosine", turns.cos(), persistent=False)
            self.register_buffer("sine", turns.sin(), persistent=False)

    def _shape(self, name: str) -> tuple[int, ...]:
        sizes = {
            "stream": self.width,
            "vocabulary": self.vocabulary,
            "position": self.context,
            "head": self.width // self.head_size,
            "query": self.head_size,
            "value": self.head_size,
            "mlp": MLP_RATIO * self.width,
        }
        return tuple(sizes[index.partition(".")[0]] for index in self.axes[name])

    def _start(self, name: str, generator: torch.Generator) -> Tensor:
        shape, kind, own = self._shape(name), self.layer_type(name), name.rpartition(".")[2]
        if kind in _WEIGHT_TYPES:
            scale = self.parametrization[kind].init(*self._fans(name))
            return scale * self.laws.get(kind, GAUSSIAN).sample(shape, generator)
        if own.startswith("gain"):
            return torch.ones(shape)
        if own not in ("Bq", "Bk", "Bv", "Bup"):
            return torch.zeros(shape)
        if self.bias == "constant":
            return torch.full(shape, float(self.bias_init.mean))
        return self.bias_init.sample(shape, generator)

    def layer_type(self, name: str) -> str:
        """Layer type of a parameter: "input", "hidden", "output", "bias" or "output_bias"."""
        return _LAYER_TYPES.get(name, "hidden" if name.rpartition(".")[2][0] == "W" else "bias")

    def _fans(self, name: str) -> tuple[int, int]:
        """(fan-in, fan-out) as the parametrisation counts them."""
        shape, own = self._shape(name), name.rpartition(".")[2]
        if own in ("Wq", "Wk", "Wv"):
            return shape[2], shape[0] * shape[1]
        if own == "Wo":
            return shape[1] * shape[2], shape[0]
        if self.layer_type(name) in ("hidden", "output"):
            return shape[1], shape[0]
        if self.layer_type(name) == "input":
            return 1, shape[0]  # the input is one-hot: one entry is active, and it is 1
        return 1, math.prod(shape)

    def multiplier(self, name: str) -> float:
        """m, the factor in front of a weight matrix, by parameter name."""
        return self.parametrization[self.layer_type(name)].multiplier(*self._fans(name))

    def lr_factors(self, optimizer: str = "adam") -> dict[str, float]:
        """Learning-rate factor of each parameter, by name."""
        return {
            name: self.parametrization[self.layer_type(name)].lr(optimizer)(*self._fans(name))
            for name in self.axes
        }

    def fan_in_exponents(self) -> dict[str, float]:
        """Exponent a of each weight's multiplier `fan_in ** -a`, for `rclib.rowcolumn.transfer`.

        Embedding and positions are copied as they are (a = 1), since their input is one-hot.
        """
        return {
            name: 1.0
            if self.layer_type(name) == "input"
            else -self.parametrization[self.layer_type(name)].multiplier.fan_in_exponent
            for name in self.axes
            if self.layer_type(name) in _WEIGHT_TYPES
        }

    def index_sizes(self, width: int) -> dict[str, int]:
        """Sizes at another width of all indices that grow: the `target` of
        `rclib.rowcolumn.transfer`.

        Raises ValueError for a width that the head size does not divide.
        """
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ValueError(f"width must be a positive integer, got {width!r}")
        if width % self.head_size:
            raise ValueError(
                f"width must be a multiple of head_size = {self.head_size}, got {width}"
            )
        sizes = {"stream": width}
        for l in range(len(self.blocks)):
            sizes |= {f"head.{l}": width // self.head_size, f"mlp.{l}": MLP_RATIO * width}
        return sizes

    def matrices(self, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Every weight matrix as (fan-out, fan-in), heads laid side by side; by name. `state` :
        tensors of the same names (e.g. of a snapshot); default the model's own."""
        tensors = dict(self.named_parameters()) if state is None else state
        out = {}
        for name in self.axes:
            if self.layer_type(name) in _WEIGHT_TYPES:
                w = tensors[name].detach()
                if name.endswith(".Wo"):
                    w = w.transpose(1, 2).flatten(1)
                out[name] = w.flatten(0, 1) if w.ndim == 3 else w
        return out

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, T, vocabulary) for tokens (batch, T); position s sees tokens 1 ... s.
        Raises ValueError for T > context."""
        return self.forward_all(tokens)[-1]

    def forward_all(self, tokens: Tensor) -> list[Tensor]:
        """[stream after the embedding, after block 1, ..., after block L, logits].

        Raises ValueError for more tokens than the context.
        """
        length = tokens.shape[-1]
        if length > self.context:
            raise ValueError(f"tokens must be at most context = {self.context} long, got {length}")
        p, m = own_parameters(self), self.multipliers
        # The table is stored output axis first; its transpose is the look-up table.
        x = functional.embedding(tokens, (p["embedding"] * m["embedding"]).t())
        turn = None
        if self.positions == "learned":
            x = x + (p["position"] * m["position"]).t()[:length]
        else:
            turn = (self.get_buffer("cosine")[:length], self.get_buffer("sine")[:length])
        streams = [x]
        for block in self.blocks:
            streams.append(block(streams[-1], turn))
        h = normalised(streams[-1], self.norm, p["gain"], p.get("shift"))
        return [*streams, functional.linear(h, p["W"] * m["W"], p.get("B"))]

    def options(self) -> dict[str, Any]:
        """The arguments this network was built with, as plain values; see `build_gpt`."""
        return {
            "width": self.width,
            "blocks": len(self.blocks),
            "context": self.context,
            "vocabulary": self.vocabulary,
            "head_size": self.head_size,
            "parametrization": self.parametrization.name,
            "norm": self.norm,
            "positions": self.positions,
            "init": {kind: asdict(law) for kind, law in self.laws.items()},
            "bias": self.bias,
            "bias_init": asdict(self.bias_init),
            "seed": self.seed,
        }

    def like(self, width: int, state: Mapping[str, Tensor] | None = None, *, seed: int = 0) -> GPT:
        """The same architecture at another width, of the same dtype and on the same device.

        It holds `state` if given, else a fresh draw from the same laws with `seed`.
        """
        options = self.options() | {"width": width, "seed": seed}
        other = build_gpt(options | {"parametrization": self.parametrization})
        first = next(self.parameters())
        other.to(device=first.device, dtype=first.dtype)
        if state is not None:
            other.load_state_dict(dict(state))
        return other


def build_gpt(options: Mapping[str, Any]) -> GPT:
    """A `GPT` from a JSON-able description: its arguments, with laws as {"kind", "mean", "scale"}
    and `init` optionally as {layer type: {...}}. Raises ValueError without a width."""
    arguments = dict(options)
    if "width" not in arguments:
        raise ValueError(f"options must give a width, got {arguments}")
    law = arguments.get("init")
    if isinstance(law, Mapping):
        by_type = any(isinstance(one, Mapping) for one in law.values())
        arguments["init"] = {k: Init(**one) for k, one in law.items()} if by_type else Init(**law)
    if isinstance(arguments.get("bias_init"), Mapping):
        arguments["bias_init"] = Init(**arguments["bias_init"])
    return GPT(arguments.pop("width"), **arguments)


_WEIGHT_TYPES = ("input", "hidden", "output")
_LAYER_TYPES = {"embedding": "input", "position": "input", "W": "output", "B": "output_bias"}
