"""Stacks of residual networks whose blocks can be taken out: full layers, or 3 x 3 convolutions.

    nets = residual_stack(inputs=64, width=32, inner=32, blocks=8, classes=10, seeds=range(8))
    nets.tensors["U"]                        # (8, 8, 32, 32): member, block, inner, width
    fewer = keep_blocks(nets, kept)          # kept (8, 5), block numbers of every member
    narrow = keep_units(nets, units)         # units (8, 8, 12), inner units of every block

    h_0 = A x + a,    h_i = h_{i-1} + V_i relu(U_i norm(h_{i-1}) + b_i),    f = C h_L + c

The norm is that of a layer without gains (all channels and pixels of an image together), or none.
With `side`, inputs are images, channel-major, A, U and V are convolutions and C reads the mean over
pixels. All blocks have one shape, so that any of them can go.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear

from rclib.checks.arguments import count, flag, seed_of
from rclib.nets.stack import Stack

__all__ = ["keep_blocks", "keep_units", "multiplications", "residual_stack"]


def residual_stack(
    *, inputs: int, width: int, inner: int, blocks: int, classes: int, seeds: Iterable[int],
    norm: bool = False, side: int | None = None,
) -> Stack:  # fmt: skip
    """Networks from Gaussian starts, one a seed.

    inputs : of one example; with `side`, colours times side². Variances: of A 1 / fan-in, of U
    2 / fan-in, of V 1 / (blocks · fan-in), of C 1 / width; biases are zero. With no blocks the
    tensors U, b and V are absent. Raises ValueError naming an argument that does not fit.
    """
    width, inner, classes = count("width", width), count("inner", inner), count("classes", classes)
    inputs, blocks = count("inputs", inputs), count("blocks", blocks, 0)
    kernel: tuple[int, ...] = ()
    if side is not None:
        if inputs % count("side", side) ** 2:
            raise ValueError(f"inputs must be a multiple of side² = {side**2}, got {inputs}")
        inputs, kernel = inputs // side**2, (3, 3)
    numbers = [seed_of("seeds", seed) for seed in seeds]
    if not numbers:
        raise ValueError("seeds must hold at least one seed, got none")
    area = math.prod(kernel)
    shapes = {
        "A": ((width, inputs, *kernel), 1 / (inputs * area)),
        "U": ((blocks, inner, width, *kernel), 2 / (width * area)),
        "V": ((blocks, width, inner, *kernel), 1 / (max(1, blocks) * inner * area)),
        "C": ((classes, width), 1 / width),
    }
    members: dict[str, list[Tensor]] = {}
    for seed in numbers:
        generator = torch.Generator().manual_seed(seed)
        for name, (shape, variance) in shapes.items():
            value = math.sqrt(variance) * torch.randn(shape, generator=generator)
            members.setdefault(name, []).append(value)
    tensors = {name: torch.stack(rows) for name, rows in members.items()}
    for name, shape in {"a": (width,), "b": (blocks, inner), "c": (classes,)}.items():
        tensors[name] = torch.zeros(len(numbers), *shape)
    return _without_empty(Stack(tensors, partial(_forward, norm=flag("norm", norm), side=side)))


def _forward(tensors: Mapping[str, Tensor], x: Tensor, *, norm: bool, side: int | None) -> Tensor:
    if side is not None:
        x = x.reshape(*x.shape[:-1], -1, side, side)
    h = _layer(x, tensors["A"], tensors["a"])
    if "U" in tensors:
        for u, b, v in zip(
            tensors["U"].unbind(0), tensors["b"].unbind(0), tensors["V"].unbind(0), strict=True
        ):
            own = _normed(h) if norm else h
            h = h + _layer(torch.relu(_layer(own, u, b)), v, None)
    return linear(h if side is None else h.mean((-2, -1)), tensors["C"], tensors["c"])


def _layer(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return linear(x, weight, bias) if weight.ndim == 2 else conv2d(x, weight, bias, padding=1)


def _normed(h: Tensor) -> Tensor:
    axes = tuple(range(1, h.ndim))
    h = h - h.mean(axes, keepdim=True)
    return h / (h.square().mean(axes, keepdim=True) + 1e-5).sqrt()


def _without_empty(nets: Stack) -> Stack:
    if nets.tensors["b"].shape[1]:
        return nets
    return replace(nets, tensors={n: t for n, t in nets.tensors.items() if n not in "UbV"})


def keep_blocks(nets: Stack, kept: Tensor) -> Stack:
    """The same networks without the other blocks, whose work is the identity.

    kept : (S, k) numbers of blocks, ascending. Raises ValueError for another shape, for numbers
    that are no blocks, and for those that do not ascend.
    """
    blocks = nets.tensors["U"].shape[1]
    fits = kept.ndim == 2 and len(kept) == len(nets) and kept.dtype == torch.long
    if not fits or bool(((kept < 0) | (kept >= blocks)).any()) or bool((kept.diff() < 1).any()):
        raise ValueError(
            f"kept must be ascending numbers below {blocks}, one row for each of {len(nets)} "
            f"members, got shape {tuple(kept.shape)}"
        )
    rows = torch.arange(len(nets))[:, None]
    tensors = {n: t[rows, kept].clone() if n in "UbV" else t for n, t in nets.tensors.items()}
    return _without_empty(replace(nets, tensors=tensors))


def keep_units(nets: Stack, units: Tensor) -> Stack:
    """The same networks without the other inner units.

    units : (S, blocks, k) numbers of inner units. Raises ValueError for another shape and for
    numbers that are no units.
    """
    members, blocks, inner = nets.tensors["U"].shape[:3]
    if units.ndim != 3 or units.shape[:2] != (members, blocks) or units.dtype != torch.long:
        raise ValueError(
            f"units must have shape ({members}, {blocks}, k), got {tuple(units.shape)}"
        )
    if bool(((units < 0) | (units >= inner)).any()):
        raise ValueError(f"units must lie in 0 to {inner - 1}, got others")
    s, i = torch.arange(members)[:, None, None], torch.arange(blocks)[None, :, None]
    out = nets.tensors["V"].transpose(2, 3)[s, i, units].transpose(2, 3)
    return replace(
        nets,
        tensors=nets.tensors
        | {"U": nets.tensors["U"][s, i, units], "b": nets.tensors["b"][s, i, units], "V": out},
    )


def multiplications(nets: Stack, side: int | None = None) -> int:
    """Multiplications of weights with values for one example, forward, in one network."""
    area = 1 if side is None else count("side", side) ** 2
    sizes = {n: t[0].numel() for n, t in nets.tensors.items() if n in "AUVC"}
    return sum(size * (1 if name == "C" else area) for name, size in sizes.items())
