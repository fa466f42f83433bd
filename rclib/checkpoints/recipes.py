"""Weights that a checkpoint holds in parts: how each is put together again, a unit at a time.

Formats, with where they are written down:

- GPTQ (AutoGPTQ, `QuantLinear`): w[i, o] = scales[g, o] (q[i, o] - z[g, o] - 1), g = g_idx[i]; q in
  `qweight`, 32/bits of them in an int32 along the inputs, z in `qzeros` along the outputs.
  The 1 is not there in the format "gptq_v2".
- AWQ (AutoAWQ, version gemm): w[i, o] = scales[g, o] (q[i, o] - z[g, o]), 4 bits, both packed along
  the outputs in the order 0, 2, 4, 6, 1, 3, 5, 7.
- FP8 with scales (DeepSeek's `weight_scale_inv`, compressed-tensors' `weight_scale`): a code times
  the scale of its tensor, row or block, whatever "inv" says.
- bitsandbytes, 8 bits: q SCB / 127 by row. 4 bits: quant_map[q] absmax of each block of 64, the
  first of two codes in the high half of a byte; absmax may be quantised in its turn.
- MXFP4 (GPT-OSS; OCP Microscaling 1.0): 32 codes E2M1 share 2^(scale - 127), low half first; stored
  (expert, outputs, inputs/32, 16), read as (expert, inputs, outputs), as transformers does.
- torch.nn.utils: pruned, weight_orig · weight_mask; weight_norm, g v / ‖v‖; spectral_norm,
  W / u^T W v.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rclib.checkpoints.errors import CheckpointError

__all__ = [
    "Made",
    "Parts",
    "Recipe",
    "awq",
    "fp8",
    "gptq",
    "int8",
    "masked",
    "mxfp4",
    "nf4",
    "normed",
    "spectral",
]

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


class Parts:
    """Tensors of a checkpoint by name, whole or a range of entries."""

    def __init__(
        self, read: Callable[[str, int, int], Tensor], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._read = read
        self.shapes = shapes

    def whole(self, name: str) -> Tensor:
        """A tensor."""
        shape = self.shapes[name]
        return self._read(name, 0, math.prod(shape)).view(shape)

    def some(self, name: str, start: int, stop: int) -> Tensor:
        """Entries of the flattened tensor."""
        return self._read(name, start, stop)


@dataclass(frozen=True)
class Recipe:
    """How a weight is made. shape : its own; unit : entries that are made at a time; make :
    unit number -> those entries, float32; what : in words."""

    shape: tuple[int, ...]
    unit: int
    make: Callable[[int], Tensor]
    what: str


class Made:
    """Entries of recipes; the unit made last is kept. Thread-safe.

    where : names the weight in errors. Reading raises CheckpointError for parts that do not fit
    together, whatever torch says of them.
    """

    def __init__(self, recipe: Recipe, where: str) -> None:
        self.recipe, self.where = recipe, where
        self._lock = threading.Lock()
        self._kept: tuple[int, Tensor] | None = None

    def read(self, start: int, stop: int) -> Tensor:
        """Entries start to stop, float32."""
        unit = self.recipe.unit
        found = []
        for number in range(start // unit, -(-stop // unit)):
            entries = self._unit(number)
            first = number * unit
            found.append(entries[max(0, start - first) : stop - first])
        return found[0] if len(found) == 1 else torch.cat([torch.empty(0), *found])

    def _unit(self, number: int) -> Tensor:
        with self._lock:
            if self._kept is None or self._kept[0] != number:
                self._kept = None  # two need not be held at once
                self._kept = number, self._made(number)
            return self._kept[1]

    def _made(self, number: int) -> Tensor:
        unit, total = self.recipe.unit, math.prod(self.recipe.shape)
        try:
            found = self.recipe.make(number).float().reshape(-1)
            due = max(0, min(unit, total - number * unit))
            reason = f"{len(found)} entries instead of {due}" if len(found) != due else ""
        except (CheckpointError, MemoryError):
            raise
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if "allocate memory" in str(error):
                raise
            reason = " ".join(str(error).split())[:160] or type(error).__name__
        if reason:
            raise CheckpointError(
                f"{self.where}: its parts ({self.recipe.what}) do not fit together: {reason}"
            )
        return found


def _unpacked(codes: Tensor, bits: int, *, along: int) -> Tensor:
    """int32 words as their codes, the lowest bits first, along an axis; int16."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    shape = [1] * (codes.ndim + 1)
    shape[along + 1] = len(shifts)
    spread = torch.bitwise_right_shift(codes.unsqueeze(along + 1), shifts.view(shape))
    found: Tensor = (spread & (2**bits - 1)).to(torch.int16)
    return found.flatten(along, along + 1)


def gptq(parts: Parts, stem: str, *, bits: int, offset: int) -> Recipe:
    """offset : 1, or 0 in the second format. Made from groups that the scales lack it raises
    ValueError."""
    inputs = parts.shapes[stem + "qweight"][0] * 32 // bits
    outputs = parts.shapes[stem + "qweight"][1]

    def make(_: int) -> Tensor:
        scales = parts.whole(stem + "scales").float()
        zeros = _unpacked(parts.whole(stem + "qzeros"), bits, along=1)[:, :outputs]
        zeros = (zeros + offset) & (2**bits - 1) if offset else zeros
        if stem + "g_idx" in parts.shapes:
            groups = parts.whole(stem + "g_idx").long()
            if groups.numel() and not 0 <= int(groups.min()) <= int(groups.max()) < len(scales):
                raise ValueError(f"g_idx is not in 0 to {len(scales) - 1}")
        else:
            groups = torch.arange(inputs) // -(-inputs // len(scales))
        codes = _unpacked(parts.whole(stem + "qweight"), bits, along=0)
        found: Tensor = (codes.float() - zeros.float()[groups]) * scales[groups]
        return found.T

    return Recipe((outputs, inputs), outputs * inputs, make, f"gptq, {bits} bits")


def awq(parts: Parts, stem: str) -> Recipe:
    """4 bits, version gemm."""
    inputs, words = parts.shapes[stem + "qweight"]
    outputs = 8 * words
    place = torch.tensor([AWQ_ORDER.index(i) for i in range(8)])

    def ordered(name: str) -> Tensor:
        codes = _unpacked(parts.whole(stem + name), 4, along=1)
        found: Tensor = codes.view(len(codes), -1, 8)[:, :, place]
        return found.flatten(1).float()

    def make(_: int) -> Tensor:
        scales, zeros = parts.whole(stem + "scales").float(), ordered("qzeros")
        size = -(-inputs // len(scales))
        groups = torch.arange(inputs) // size
        return ((ordered("qweight") - zeros[groups]) * scales[groups]).T

    return Recipe((outputs, inputs), outputs * inputs, make, "awq, 4 bits")


def fp8(parts: Parts, name: str, scale: str, block: tuple[int, int] | None) -> Recipe:
    """block : rows and columns that share a scale; None for one scale a tensor or a row."""
    shape = parts.shapes[name]
    height, width = shape[-2], shape[-1]
    rows = block[0] if block else height
    steps = -(-height // rows)  # units within one matrix of a stack

    if height % rows:  # the last block is cut short: a matrix at a time
        rows, steps = height, 1

    def make(number: int) -> Tensor:
        stack, step = divmod(number, steps)
        start = (stack * height + step * rows) * width
        codes = parts.some(name, start, start + rows * width).view(rows, width).float()
        values = parts.whole(scale).float()
        if values.numel() == 1:
            return codes * values.reshape(())
        if block is None:
            values = values.reshape(-1, height)[stack]
            return codes * values[step * rows : step * rows + rows, None]
        values = values.reshape(-1, *values.shape[-2:])[stack]
        values = values.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        return codes * values[step * rows : step * rows + rows, :width]

    return Recipe(shape, rows * width, make, "fp8 with scales")


def int8(parts: Parts, name: str, scale: str) -> Recipe:
    """bitsandbytes' codes of 8 bits."""
    shape = parts.shapes[name]

    def make(_: int) -> Tensor:
        values = parts.whole(scale).float().view(-1, 1)
        return parts.whole(name).float() * values / 127.0

    return Recipe(shape, math.prod(shape), make, "bitsandbytes, 8 bits")


def nf4(parts: Parts, name: str, state: str) -> Recipe:
    """bitsandbytes' codes of 4 bits; state : the tensor that holds their description, JSON.

    Raises ValueError, KeyError or TypeError for a description that does not fit the codes.
    """
    about: dict[str, Any] = json.loads(bytes(parts.whole(state).to(torch.uint8).tolist()))
    shape = tuple(int(n) for n in about["shape"])
    size, total = int(about["blocksize"]), math.prod(shape)
    held, blocks = 2 * math.prod(parts.shapes[name]), math.prod(parts.shapes[f"{name}.absmax"])
    if any(n < 1 for n in shape) or not 0 <= held - total <= 1:
        raise ValueError(f"codes of {held} entries for a weight of shape {shape}")
    if size < 1 or -(-total // size) != blocks or len(shape) > 8:
        raise ValueError(f"{blocks} blocks of {size} entries for a weight of shape {shape}")

    def make(_: int) -> Tensor:
        packed = parts.whole(name).flatten().to(torch.uint8)
        codes = torch.stack([packed >> 4, packed & 15], 1).flatten()[:total].long()
        absmax = parts.whole(f"{name}.absmax")
        if f"{name}.nested_absmax" in parts.shapes:
            table = parts.whole(f"{name}.nested_quant_map").float()
            outer = parts.whole(f"{name}.nested_absmax").float()
            inner = table[absmax.long()]
            where = torch.arange(len(inner)) // int(about["nested_blocksize"])
            absmax = inner * outer[where] + float(about["nested_offset"])
        values = parts.whole(f"{name}.quant_map").float()[codes]
        return values * absmax.float()[torch.arange(total) // size]

    return Recipe(shape, total, make, f"bitsandbytes, {about.get('quant_type', '4 bits')}")


def mxfp4(parts: Parts, stem: str) -> Recipe:
    """An expert at a time."""
    *stack, outputs, groups, half = parts.shapes[stem + "_blocks"]
    count, inputs = math.prod(stack), 2 * groups * half
    table = torch.tensor([*E2M1, *(-v for v in E2M1)])

    def make(number: int) -> Tensor:
        size = outputs * groups
        blocks = parts.some(stem + "_blocks", number * size * half, (number + 1) * size * half)
        scales = parts.some(stem + "_scales", number * size, (number + 1) * size)
        blocks = blocks.view(size, half).to(torch.uint8).long()
        codes = torch.stack([blocks & 15, blocks >> 4], 2).flatten(1)
        values = torch.ldexp(table[codes], scales.view(size, 1).to(torch.int32) - 127)
        return values.view(outputs, inputs).T

    return Recipe((*stack, inputs, outputs) if count else (), inputs * outputs, make, "mxfp4")


def masked(parts: Parts, original: str, mask: str) -> Recipe:
    """A pruned weight. Made with a mask of another shape it raises ValueError."""
    shape = parts.shapes[original]
    same = parts.shapes[mask] == shape
    unit = max(1, math.prod(shape[1:])) if shape else 1
    rows = max(1, (1 << 20) // unit)
    total = math.prod(shape)

    def make(number: int) -> Tensor:
        if not same:
            raise ValueError(f"a mask of shape {parts.shapes[mask]} for {shape}")
        start, stop = number * unit * rows, min(total, (number + 1) * unit * rows)
        return parts.some(original, start, stop).float() * parts.some(mask, start, stop).float()

    return Recipe(shape, unit * rows, make, "pruned")


def normed(parts: Parts, size: str, direction: str) -> Recipe:
    """weight_norm: the norm runs over the axes that `size` has one entry of."""
    shape, sizes = parts.shapes[direction], parts.shapes[size]

    def make(_: int) -> Tensor:
        v, g = parts.whole(direction).float(), parts.whole(size).float()
        same = len(sizes) == len(shape)
        axes = [i for i in range(len(shape)) if not same or sizes[i] == 1]
        if same and all(n == 1 for n in sizes):
            axes = list(range(len(shape)))
        norm = torch.linalg.vector_norm(v, dim=axes, keepdim=True)
        found: Tensor = v * (g if same else g.reshape([1] * len(shape))) / norm
        return found

    return Recipe(shape, math.prod(shape), make, "weight_norm")


def spectral(parts: Parts, original: str, left: str, right: str | None) -> Recipe:
    """spectral_norm: the weight over its largest singular value, as the power method has it."""
    shape = parts.shapes[original]

    def make(_: int) -> Tensor:
        w, u = parts.whole(original).float(), parts.whole(left).float().flatten()
        axis = list(shape).index(len(u))  # transposed convolutions: 1
        matrix = w.movedim(axis, 0).flatten(1)
        if right is None:
            v = torch.nn.functional.normalize(matrix.T @ u, dim=0)
        else:
            v = parts.whole(right).float().flatten()
        return w / torch.dot(u, matrix @ v)

    return Recipe(shape, math.prod(shape), make, "spectral_norm")
