"""What can stand behind a checkpoint: a file with tensors in order, or tensors in memory."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.tensor_file import TensorFile, TensorInfo, brief_line
from rclib.files.memory import available_memory

__all__ = ["Chosen", "FileReader", "MemoryReader", "Reader", "only_tensors", "room"]

# Below this, nobody asks how much memory there is.
ASK_FROM = 64 << 20


class Reader(Protocol):
    """Tensors that can be read in pieces, from several threads at once."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor, in the order in which it is best read."""

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        """Entries start to stop of the flattened tensor, in `buffer` (bytes) if that helps."""

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        """As `read`, for entries that are used once and dropped: mapped where that is faster."""

    def close(self) -> None:
        """Give back what is held."""


class FileReader:
    """Tensors whose entries lie in order in a file.

    left_out : {name: reason} of those that the file holds and that cannot be read.
    """

    def __init__(self, file: TensorFile) -> None:
        self._file = file
        self.tensors: Mapping[str, TensorInfo] = file.tensors
        self.left_out: Mapping[str, str] = {
            name: f"is of the packed type {info.dtype}, which is not read"
            for name, info in file.tensors.items()
            if not isinstance(getattr(torch, info.dtype, None), torch.dtype)
        }

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        """Read by position into `buffer`, which is allocated if there is none.

        Raises CheckpointError where memory for it is missing.
        """
        dtype = _torch_dtype(name, self.tensors[name].dtype)
        size = (stop - start) * dtype.itemsize
        if buffer is None:
            buffer = room(size, f"{self._file.path}: tensor {brief_line(name)}")
        part = buffer[:size]
        if size:
            self._file.read_into(name, start * dtype.itemsize, part.numpy())
        return part.view(dtype)

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        """Pages of the file, mapped for as long as the result lives."""
        dtype = _torch_dtype(name, self.tensors[name].dtype)
        size = dtype.itemsize
        mapped = self._file.map(name, start * size, stop * size, alignment=size)
        if mapped is None:
            return self.read(name, start, stop, buffer)
        return torch.from_numpy(mapped).view(dtype)

    def check_unchanged(self) -> None:
        """Raise CheckpointError for a file that was cut or written to since it was opened."""
        change = self._file.change()
        if change:
            raise CheckpointError(
                f"{self._file.path}: {change} while it was read: what was read is of no one state "
                "of it; read it again when nobody writes to it"
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def room(size: int, where: str) -> Tensor:
    """Memory of `size` bytes. Raises CheckpointError where it is missing."""
    # The system grants more than it has, and ends the process that uses it.
    if size <= ASK_FROM or size <= available_memory():
        try:
            return torch.empty(size, dtype=torch.uint8)
        except RuntimeError:
            pass
    raise CheckpointError(f"{where}: no memory for {size} bytes")


class MemoryReader:
    """Tensors that are already in memory; only what is not on the CPU in order is copied."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(tuple(t.shape), _dtype_name(t.dtype), t.numel() * t.itemsize)
            for name, t in self._tensors.items()
        }

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        """A view where the tensor is contiguous on the CPU, a copy of the entries elsewhere.

        Raises CheckpointError for a tensor without plain dense values.
        """
        tensor = self._tensors[name].detach()
        if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
            raise CheckpointError(f"tensor {brief_line(name)} holds no plain dense values")
        if tensor.is_contiguous():
            return tensor.view(-1)[start:stop].cpu()
        width = max(1, math.prod(tensor.shape[1:]))
        first = start // width  # only the rows that hold these entries are copied
        rows = tensor[first : -(-stop // width)].flatten()
        return rows[start - first * width : stop - first * width].cpu()

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        """The same as `read`."""
        return self.read(name, start, stop, buffer)

    def close(self) -> None:
        """Let go of the tensors."""
        self._tensors = {}


class Chosen:
    """Some of the tensors of another reader."""

    def __init__(self, reader: Reader, names: Collection[str]) -> None:
        self._reader = reader
        self.tensors: Mapping[str, TensorInfo] = {
            name: info for name, info in reader.tensors.items() if name in names
        }

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        """As the other reader's."""
        return self._reader.read(name, start, stop, buffer)

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        """As the other reader's."""
        return self._reader.view(name, start, stop, buffer)

    def close(self) -> None:
        """Close the other reader."""
        self._reader.close()


def only_tensors(state: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    """The tensors of a state dict. Raises CheckpointError for entries of other kinds.

    The extra state that torch modules may keep beside their tensors is left out.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(name, str) and name.endswith("_extra_state"):
            continue
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{where}: entry {brief_line(name)} is no tensor but {type(value).__name__}"
            )
        found[name] = value
    return found


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _torch_dtype(name: str, dtype: str) -> torch.dtype:
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise CheckpointError(f"tensor {brief_line(name)}: type {brief_line(dtype)} cannot be read")
    return found
