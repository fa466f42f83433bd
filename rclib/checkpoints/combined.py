"""A checkpoint's readers with its weights put together: quantised codes, masks, factors.

The parts of a weight are no weights: their spectra and means say nothing about the model. What can
be made of them stands under the weight's own name, in float32, and is made when it is read
(`rclib.checkpoints.recipes`). What cannot, because the format is not written down, not known here,
or a scale is missing, is left out by name.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from rclib.checkpoints import recipes
from rclib.checkpoints.readers import Chosen, Reader
from rclib.checkpoints.recipes import Made, Parts, Recipe
from rclib.checkpoints.tensor_file import TensorInfo, brief_line

__all__ = ["combined"]

# Codes of formats that are not read, by the last part of the name.
UNREAD = {
    "q_weight": "exl2", "weight_packed": "compressed-tensors", "W_q": "hqq", "codes": "aqlm",
    "Qidxs": "quip", "qweight": "packed integers", "weight_quantized": "quanto",
}  # fmt: skip
# What stands beside codes: no weights either.
BESIDE = re.compile(
    r"(^|\.)(scales?|qzeros|g_idx|weight_scale(_inv|_2)?|weight_zero_point|weight_shape|q_scale"
    r"|q_scale_max|q_groups|q_invperm|q_perm|codebooks|SCB|zero|meta|SU|SV|Wscale|perm"
    r"|input_scale(_inv)?|output_scale|activation_scale|k_scale|v_scale)$"
)
EIGHT = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")


def combined(
    readers: Sequence[Reader], config: Mapping[str, Any] | None, where: str = ""
) -> tuple[list[Reader], dict[str, str], list[str]]:
    """(readers, {name: why it is left out}, notes); nothing changes if no weight is in parts.

    where : the file or folder, for errors in reading.
    """
    home = {name: reader for reader in readers for name in reader.tensors}
    infos = {name: info for reader in readers for name, info in reader.tensors.items()}
    finder = _Finder(home, infos, _quantisation(config))
    finder.find()
    if not finder.made and not finder.left_out:
        return list(readers), {}, []
    gone = finder.used | finder.left_out.keys()
    kept: list[Reader] = []
    for reader in readers:
        names = [name for name in reader.tensors if name not in gone]
        kept.append(reader if len(names) == len(reader.tensors) else Chosen(reader, names))
    counts = Counter(recipe.what for recipe in finder.made.values())
    notes = [f"{n} weights put together from their parts ({what})" for what, n in counts.items()]
    return [*kept, _Combined(finder.made, where)], finder.left_out, notes


def _quantisation(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    found = (config or {}).get("quantization_config")
    return found if isinstance(found, Mapping) else {}


class _Combined:
    """Weights by recipe."""

    def __init__(self, made: Mapping[str, Recipe], where: str) -> None:
        begin = f"{where}: tensor" if where else "tensor"
        self._made = {n: Made(recipe, f"{begin} {brief_line(n)}") for n, recipe in made.items()}
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(recipe.shape, "float32", 4 * math.prod(recipe.shape))
            for name, recipe in made.items()
        }

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        """Entries start to stop, made now."""
        return self._made[name].read(start, stop)

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        """The same as `read`."""
        return self.read(name, start, stop, buffer)

    def close(self) -> None:
        """The parts' readers are closed by who opened them."""


class _Finder:
    def __init__(
        self,
        home: Mapping[str, Reader],
        infos: Mapping[str, TensorInfo],
        quantisation: Mapping[str, Any],
    ) -> None:
        self.infos = infos
        self.about = quantisation
        self.method = str(quantisation.get("quant_method", "")).lower()
        self.parts = Parts(
            lambda name, start, stop: home[name].read(name, start, stop, None),
            {name: tuple(info.shape) for name, info in infos.items()},
        )
        self.sorted = sorted(infos)
        self.made: dict[str, Recipe] = {}
        self.used: set[str] = set()
        self.left_out: dict[str, str] = {}

    def find(self) -> None:
        """Every weight in parts."""
        for name in self.infos:
            for look in (self._norms, self._packed, self._bits, self._eight, self._blocks):
                if name not in self.used and name not in self.left_out:
                    look(name)
        stems = {_stem(name) for name in self.left_out}
        for name in self.infos:
            if name in self.used or name in self.left_out:
                continue
            if BESIDE.search(name) and _stem(name) in stems:
                self.left_out[name] = "belongs to quantised codes"

    def _beginning(self, prefix: str) -> list[str]:
        """The names that begin with a text, found in time that does not grow with all of them."""
        first = bisect.bisect_left(self.sorted, prefix)
        found = itertools.islice(self.sorted, first, None)
        return list(itertools.takewhile(lambda name: name.startswith(prefix), found))

    def _take(self, weight: str, names: Sequence[str], make: Callable[[], Recipe]) -> None:
        there = [name for name in names if name in self.infos]
        if weight in self.made or (weight in self.infos and weight not in there):
            return  # a weight of that name is there as well: the parts say nothing new
        self.made[weight] = make()
        self.used.update(there)

    def _refuse(self, name: str, reason: str) -> None:
        self.left_out[name] = reason

    def _norms(self, name: str) -> None:
        """Pruning, weight_norm, spectral_norm, and other parametrisations."""
        infos, parts = self.infos, self.parts
        if name.endswith("_orig"):
            weight = name.removesuffix("_orig")
            mask, u, v = (f"{weight}_{end}" for end in ("mask", "u", "v"))
            if mask in infos:
                self._take(weight, [name, mask], lambda: recipes.masked(parts, name, mask))
            elif u in infos:
                right = v if v in infos else None
                self._take(weight, [name, u, v], lambda: recipes.spectral(parts, name, u, right))
        elif name.endswith("_g") and name.removesuffix("_g") + "_v" in infos:
            weight = name.removesuffix("_g")
            v = weight + "_v"
            self._take(weight, [name, v], lambda: recipes.normed(parts, name, v))
        found = re.fullmatch(r"(.*?)parametrizations\.(\w+)\.original(\d*)", name)
        if found is None:
            return
        weight, base = found[1] + found[2], name.removesuffix("original" + found[3])
        beside = [n for n in self._beginning(base) if n != name]
        direction = base + "original1"
        u, v = base + "0._u", base + "0._v"
        if found[3] == "0" and beside == [direction]:
            self._take(weight, [name, direction], lambda: recipes.normed(parts, name, direction))
        elif not found[3] and {u, v} == set(beside):
            self._take(weight, [name, u, v], lambda: recipes.spectral(parts, name, u, v))
        elif not found[3] and beside == [base + "0.mask"]:  # a mask as a parametrisation
            self._refuse(name, "is parametrised by a class that the file does not hold")
            self._refuse(beside[0], "belongs to a parametrisation")
        else:
            for part in (name, *beside):
                self._refuse(part, "is parametrised by a class that the file does not hold")

    def _packed(self, name: str) -> None:
        """GPTQ and AWQ; other packed formats are refused by name."""
        stem, _, last = name.rpartition(".")
        stem = stem + "." if stem else ""
        if last == "codes" and stem + "codebooks" not in self.infos:
            return  # any tensor may be called so
        if last in UNREAD and last != "qweight" and "float" not in self.infos[name].dtype:
            self._refuse(name, f"holds codes of {self.method or UNREAD[last]}, not read")
            return
        if last != "qweight":
            return
        about, names = self.about, [stem + e for e in ("qweight", "qzeros", "scales", "g_idx")]
        rows = self.infos.get(stem + "scales"), self.infos.get(stem + "qzeros")
        shape = tuple(self.infos[name].shape)
        reason = ""
        if rows[0] is None or rows[1] is None or len(shape) != 2 or len(rows[0].shape) != 2:
            reason = f"holds codes ({self.method or 'packed integers'}) without their scales"
        elif rows[0].shape[1] == 8 * shape[1] and self.method in ("", "awq"):
            if str(about.get("version", "gemm")).lower() == "gemm" and about.get("bits", 4) == 4:
                self._take(stem + "weight", names, lambda: recipes.awq(self.parts, stem))
                return
            reason = f"holds codes of awq, version {about.get('version')}, not read"
        elif rows[0].shape[1] == shape[1] and self.method in ("", "gptq"):
            index = self.infos.get(stem + "g_idx")
            said = about.get("bits", 4)
            bits = 32 * shape[0] // index.shape[0] if index is not None else said
            offset = 0 if about.get("checkpoint_format") == "gptq_v2" else 1
            if bits in (2, 4, 8) and said in (bits, 4):
                self._take(
                    stem + "weight", names,
                    lambda: recipes.gptq(self.parts, stem, bits=bits, offset=offset),
                )  # fmt: skip
                return
            reason = f"holds codes of gptq of {bits} bits, not read"
        self._refuse(
            name, reason or f"holds codes of {self.method or 'an unknown format'}, not read"
        )

    def _bits(self, name: str) -> None:
        """bitsandbytes, and other integers that stand for a weight."""
        info = self.infos[name]
        if not name.endswith("weight") or "float" in info.dtype or len(info.shape) < 2:
            return
        scb = name.removesuffix("weight") + "SCB"
        state = next(
            (f"{name}.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4")
             if f"{name}.quant_state.bitsandbytes__{kind}" in self.infos), None,
        )  # fmt: skip
        if info.dtype == "int8" and scb in self.infos:
            beside = name.removesuffix("weight") + "weight_format"
            self._take(name, [name, scb, beside], lambda: recipes.int8(self.parts, name, scb))
        elif info.dtype == "uint8" and state is not None:
            parts = [name, *self._beginning(name + ".")]
            try:
                recipe = recipes.nf4(self.parts, name, state)
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                self._refuse(name, "holds codes of bitsandbytes whose description is damaged")
                return
            self._take(name, parts, lambda: recipe)
        else:
            known = f"codes of {self.method}" if self.method else f"integers ({info.dtype})"
            self._refuse(name, f"holds {known} without what they stand for")

    def _eight(self, name: str) -> None:
        """FP8 with scales."""
        info = self.infos[name]
        if info.dtype not in EIGHT or len(info.shape) < 2:
            return
        names = (f"{name}_scale_inv", f"{name}_scale", f"{_stem(name)}.scale")
        scale = next((n for n in names if n in self.infos), None)
        if scale is None:
            if self.method:
                self._refuse(name, f"holds codes of 8 bits ({self.method}) without their scales")
            return  # plain numbers of 8 bits
        shape, sizes = tuple(info.shape), tuple(self.infos[scale].shape)
        block = _block(shape, sizes, self.about.get("weight_block_size"))
        if block is None or "float8" in self.infos[scale].dtype:
            self._refuse(name, f"holds codes of 8 bits with scales of shape {sizes}, not read")
            return
        ends = ("input_scale", "input_scale_inv", "weight_scale_2")
        beside = [scale, *(f"{_stem(name)}.{end}" for end in ends)]
        by_row = None if block == (0, 0) else block
        self._take(name, [name, *beside], lambda: recipes.fp8(self.parts, name, scale, by_row))

    def _blocks(self, name: str) -> None:
        """MXFP4."""
        stem = name.removesuffix("_blocks")
        scales = stem + "_scales"
        if stem == name or scales not in self.infos or self.infos[name].dtype != "uint8":
            return
        if tuple(self.infos[name].shape[:-1]) == tuple(self.infos[scales].shape):
            self._take(stem, [name, scales], lambda: recipes.mxfp4(self.parts, stem))
        else:
            self._refuse(name, "holds codes of 4 bits with scales of another shape, not read")
            self._refuse(scales, "belongs to quantised codes")


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _block(shape: tuple[int, ...], scales: tuple[int, ...], said: object) -> tuple[int, int] | None:
    """(rows, columns) that share a scale; (0, 0) for one a tensor or row; None if unclear."""
    height, width = shape[-2:]
    stack = math.prod(shape[:-2])
    if math.prod(scales) == 1 or scales in ((height,), (height, 1), (*shape[:-1], 1), shape[:-1]):
        return (0, 0)
    if len(scales) != len(shape) or scales[:-2] != shape[:-2] or stack < 1:
        return None
    sides = said if isinstance(said, list | tuple) and len(said) == 2 else (128, 128)
    exact = [n // m if n % m == 0 else 0 for n, m in zip((height, width), scales[-2:], strict=True)]
    for rows, columns in (sides, exact):
        if (
            isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0
            and (-(-height // rows), -(-width // columns)) == scales[-2:]
        ):  # fmt: skip
            return rows, columns
    return None
