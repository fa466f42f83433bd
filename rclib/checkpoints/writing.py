"""Safetensors files written from the front to the back, one piece of a tensor after the other.

The library `safetensors` wants all tensors in memory; here the header, which needs shapes alone,
comes first, and the bytes follow as they are made. Format: `rclib.checkpoints.safetensors_file`.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from rclib.checkpoints.safetensors_file import DTYPES
from rclib.checkpoints.tensor_file import TensorInfo, brief_line

__all__ = ["SafetensorsWriter", "resized", "shard_names", "split_into_shards"]

_NAMES = {torch_name: name for name, (torch_name, _) in DTYPES.items()}


class SafetensorsWriter:
    """A new safetensors file; its tensors are written in the order of `infos`, each in pieces.

    infos : {name: shape, type and size}. Raises ValueError for a type that the format does not
    know, OSError where the file cannot be made. A context manager: leaving it without all bytes
    there is a ValueError.
    """

    def __init__(self, path: Path, infos: Mapping[str, TensorInfo]) -> None:
        if sys.byteorder != "little":
            raise ValueError("safetensors files are little-endian, this machine is not")
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        place = 0
        for name, info in infos.items():
            if info.dtype not in _NAMES:
                raise ValueError(f"tensor {brief_line(name)}: safetensors know no {info.dtype}")
            header[name] = {
                "dtype": _NAMES[info.dtype],
                "shape": list(info.shape),
                "data_offsets": [place, place + info.nbytes],
            }
            place += info.nbytes
        text = json.dumps(header, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._todo = [(name, info) for name, info in infos.items() if info.nbytes]
        self._left = self._todo[0][1].nbytes if self._todo else 0
        self.path = path
        self._file = open(path, "xb")  # noqa: SIM115  closed by __exit__
        self._file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, piece: Tensor) -> None:
        """The next entries of a tensor, row-major. Raises ValueError out of turn or for another
        type."""
        if not piece.numel():
            return
        expected = self._todo[0] if self._todo else None
        if expected is None or expected[0] != name:
            raise ValueError(f"tensor {brief_line(name)} is out of turn")
        if str(piece.dtype) != f"torch.{expected[1].dtype}":
            raise ValueError(f"tensor {brief_line(name)} is {expected[1].dtype}, not {piece.dtype}")
        data = piece.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        if data.nbytes > self._left:
            raise ValueError(f"tensor {brief_line(name)} has {expected[1].nbytes} bytes, not more")
        self._file.write(data.data)
        self._left -= data.nbytes
        if not self._left:
            self._todo.pop(0)
            self._left = self._todo[0][1].nbytes if self._todo else 0

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None and self._todo:
            raise ValueError(f"{self.path}: tensor {brief_line(self._todo[0][0])} is not whole")


def split_into_shards(infos: Mapping[str, TensorInfo], most: int) -> list[dict[str, TensorInfo]]:
    """The tensors in order, as many a file as fit into `most` bytes; a larger one comes alone.

    Raises ValueError for a `most` that is not positive.
    """
    if most < 1:
        raise ValueError(f"a shard must hold at least one byte, got {most}")
    shards: list[dict[str, TensorInfo]] = [{}]
    held = 0
    for name, info in infos.items():
        if shards[-1] and held + info.nbytes > most:
            shards.append({})
            held = 0
        shards[-1][name] = info
        held += info.nbytes
    return shards


def shard_names(count: int) -> list[str]:
    """The names that readers of safetensors expect of `count` files."""
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]


def resized(info: TensorInfo, shape: tuple[int, ...]) -> TensorInfo:
    """The same type in another shape."""
    size = info.nbytes // max(1, math.prod(info.shape))
    return TensorInfo(shape, info.dtype, size * math.prod(shape))
