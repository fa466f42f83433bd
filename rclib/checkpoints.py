"""Checkpoints of any kind behind one small interface, read one tensor or row chunk at a time.

    with open_checkpoint("EleutherAI/pythia-160m") as checkpoint:
        for name, info in checkpoint.tensors.items():      # no data read yet
            for first, rows in checkpoint.chunks(name):     # bounded memory
                ...

Sources: a safetensors file, a directory with one or with shards and their index, a pickle file
of tensors, a Hugging Face id, a `torch.nn.Module`, or a mapping from names to tensors.

Nothing in a checkpoint is executed: pickles load with `weights_only=True` and never otherwise,
and code that a model repository may carry is neither fetched nor run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rclib.safetensors_file import (
    CheckpointError,
    SafetensorsFile,
    TensorInfo,
    brief,
    read_json,
)

__all__ = ["Checkpoint", "CheckpointError", "TensorInfo", "open_checkpoint"]

CHUNK = 16 << 20
INDEX = "model.safetensors.index.json"


class Reader(Protocol):
    """What stands behind a checkpoint: a file, or tensors in memory."""

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
    """Tensors of one safetensors file."""

    def __init__(self, path: Path) -> None:
        self._file = SafetensorsFile(path)
        self.tensors: Mapping[str, TensorInfo] = self._file.tensors

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        """Read by position into `buffer`, which is allocated if there is none."""
        dtype = _torch_dtype(name, self.tensors[name].dtype)
        size = dtype.itemsize
        if buffer is None:
            try:
                buffer = torch.empty((stop - start) * size, dtype=torch.uint8)
            except RuntimeError:
                raise CheckpointError(
                    f"tensor {brief(name)}: no memory for {(stop - start) * size} bytes"
                ) from None
        part = buffer[: (stop - start) * size]
        if len(part):
            self._file.read_into(name, start * size, part.numpy())
        return part.view(dtype)

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        """Entries in pages of the file, mapped for as long as the result lives."""
        dtype = _torch_dtype(name, self.tensors[name].dtype)
        size = dtype.itemsize
        mapped = self._file.map(name, start * size, stop * size, alignment=size)
        if mapped is None:
            return self.read(name, start, stop, buffer)
        return torch.from_numpy(mapped).view(dtype)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class MemoryReader:
    """Tensors that are already in memory (or mapped by torch); nothing is copied."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(tuple(t.shape), _dtype_name(t.dtype), t.numel() * t.itemsize)
            for name, t in self._tensors.items()
        }

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        """A view where the tensor is contiguous on the CPU, a copy of the entries elsewhere."""
        tensor = self._tensors[name].detach()
        if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
            raise CheckpointError(f"tensor {brief(name)} holds no plain dense values")
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


class Checkpoint:
    """Named tensors of one source; a context manager.

    source : as given, for titles; config : the parsed config.json, None without one;
    tensors : {name: TensorInfo} in file order, known without reading data.
    """

    def __init__(
        self, source: str, readers: list[Reader], config: Mapping[str, Any] | None = None
    ) -> None:
        self.source = source
        self.config = config
        self._readers = readers
        self._closed = False
        self._home = {name: reader for reader in readers for name in reader.tensors}
        self.tensors: Mapping[str, TensorInfo] = {
            name: info for reader in readers for name, info in reader.tensors.items()
        }
        if not self.tensors:
            self.close()
            raise CheckpointError(f"{source}: holds no tensors")

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())

    def info(self, name: str) -> TensorInfo:
        """Shape, type and size of a tensor. Raises CheckpointError for an unknown name."""
        if self._closed:
            raise CheckpointError(f"{self.source}: the checkpoint is closed")
        if name not in self.tensors:
            raise CheckpointError(f"{self.source}: no tensor {brief(name)}")
        return self.tensors[name]

    def entries(self, name: str, start: int, stop: int, buffer: Tensor | None = None) -> Tensor:
        """Entries start to stop of the flattened (row-major) tensor, in its own type.

        buffer : contiguous uint8 memory that is used instead of new memory where data must be
        copied; the result is valid until the buffer is used again. Thread-safe.
        Raises CheckpointError for unknown names, bad ranges and reading errors.
        """
        self._range(name, start, stop)
        return self._home[name].read(name, start, stop, buffer)

    def _range(self, name: str, start: int, stop: int) -> None:
        count = math.prod(self.info(name).shape)
        if not 0 <= start <= stop <= count:
            raise CheckpointError(
                f"{self.source}: tensor {brief(name)} has {count} entries, "
                f"{start} to {stop} were asked for"
            )

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        """`entries` for one use: may be pages of the file, which go when the result goes.

        Faster than `entries` for large ranges. Not to be written to; a file that another
        process cuts short while its pages are in use ends this process, as with any mapping.
        """
        self._range(name, start, stop)
        return self._home[name].view(name, start, stop, buffer)

    def tensor(self, name: str) -> Tensor:
        """A whole tensor in its own type; of a live module it shares the memory."""
        shape = self.info(name).shape
        return self.entries(name, 0, math.prod(shape)).view(shape)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows start to stop (along axis 0) of a tensor, in its own type."""
        shape = self.info(name).shape
        if not shape or not 0 <= start <= stop <= shape[0]:
            raise CheckpointError(
                f"{self.source}: tensor {brief(name)} of shape {shape} has no rows "
                f"{start} to {stop}"
            )
        width = math.prod(shape[1:])
        return self.entries(name, start * width, stop * width).view(stop - start, *shape[1:])

    def chunks(self, name: str, *, max_bytes: int = CHUNK) -> Iterator[tuple[int, Tensor]]:
        """(first row, rows) of a tensor from top to bottom, at most `max_bytes` at a time.

        A row longer than that comes alone. Memory is used again: a chunk is valid until the
        next one is asked for. A tensor without axes comes as it is.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be positive, got {max_bytes}")
        info = self.info(name)
        if not info.shape:
            yield 0, self.tensor(name)
            return
        height, width = info.shape[0], math.prod(info.shape[1:])
        row_bytes = max(1, info.nbytes // max(1, height))
        step = min(max(1, max_bytes // row_bytes), max(1, height))
        buffer = torch.empty(step * row_bytes, dtype=torch.uint8)
        for first in range(0, height, step):
            last = min(first + step, height)
            flat = self.entries(name, first * width, last * width, buffer)
            yield first, flat.view(last - first, *info.shape[1:])

    def close(self) -> None:
        """Close all files; tensors that were handed out stay valid."""
        self._closed = True
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_checkpoint(
    source: str | os.PathLike[str] | nn.Module | Mapping[str, Tensor],
    *,
    revision: str | None = None,
) -> Checkpoint:
    """Open a checkpoint without reading its tensors.

    source : path of a safetensors or pickle file (.bin, .pt, .pth), path of a directory, Hugging
        Face id `owner/name` or `owner/name@revision`, a module, or a mapping of tensors.
    revision : branch, tag or commit of a Hugging Face id.
    Raises CheckpointError (one line) for anything that cannot be read.
    """
    if isinstance(source, nn.Module):
        return Checkpoint(type(source).__name__, [MemoryReader(_checked(source.state_dict()))])
    if isinstance(source, Mapping):
        return Checkpoint("state dict", [MemoryReader(_checked(source))])
    path = Path(source)
    if path.is_dir():
        return _from_directory(path, str(source))
    if path.suffix == ".safetensors":
        return Checkpoint(str(source), [FileReader(path)], _config(path.parent))
    raise CheckpointError(f"{source}: no such file, directory or Hugging Face id")


def _from_directory(folder: Path, source: str) -> Checkpoint:
    config = _config(folder)
    if (folder / "model.safetensors").exists():
        return Checkpoint(source, [FileReader(inside(folder, "model.safetensors"))], config)
    if (folder / INDEX).exists():
        return Checkpoint(source, open_shards(folder, INDEX), config)
    found = sorted(p.name for p in folder.iterdir())
    raise CheckpointError(
        f"{source}: neither model.safetensors nor {INDEX} there, only {brief(found)}"
    )


def _config(folder: Path) -> Mapping[str, Any] | None:
    path = folder / "config.json"
    return read_json(path) if path.is_file() else None


def inside(folder: Path, name: str) -> Path:
    """Path of a file that an index names, which must lie in the folder.

    A link out of the folder is refused as well, except into the `blobs` of a Hugging Face cache,
    where every snapshot is made of such links. Raises CheckpointError.
    """
    where = f"{folder}: file {brief(name)}"
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
        raise CheckpointError(f"{where} lies outside the directory")
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{where} is missing")
    root, real = folder.resolve(), path.resolve()
    homes = [root]
    if root.parent.name == "snapshots":
        homes.append(root.parent.parent / "blobs")
    if not any(real.is_relative_to(home) for home in homes):
        raise CheckpointError(f"{where} is a link that leads outside the directory")
    return path


def open_shards(folder: Path, index: str) -> list[Reader]:
    """Readers of all shards that an index names, checked against it.

    Raises CheckpointError for missing shards, and where index and shards disagree.
    """
    where = folder / index
    weights = read_json(inside(folder, index)).get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(v, str) for v in weights.values()):
        raise CheckpointError(f"{where}: weight_map must map tensors to files")
    shards: dict[str, set[str]] = {}
    for name, shard in weights.items():
        shards.setdefault(shard, set()).add(name)
    paths = {shard: inside(folder, shard) for shard in sorted(shards)}
    readers: list[Reader] = []
    try:
        for shard, path in paths.items():
            readers.append(FileReader(path))
            for name in sorted(shards[shard] ^ set(readers[-1].tensors)):
                there = "lacks" if name in shards[shard] else "holds"
                but = "puts there" if name in shards[shard] else "does not put there"
                raise CheckpointError(f"{path} {there} tensor {brief(name)}, which {index} {but}")
    except BaseException:
        for reader in readers:
            reader.close()
        raise
    return readers


def _checked(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict without the extra state that modules may add; only tensors otherwise."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if str(name).endswith("_extra_state"):
            continue
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"state dict: entry {brief(name)} is no tensor but {type(value).__name__}"
            )
        found[name] = value
    return found


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _torch_dtype(name: str, dtype: str) -> torch.dtype:
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise CheckpointError(f"tensor {brief(name)}: this torch has no type {dtype}")
    return found
