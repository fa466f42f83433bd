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
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.hub import fetch_model, split_id
from rclib.checkpoints.pickled import PICKLES, PickleReader
from rclib.checkpoints.readers import FileReader, MemoryReader, Reader, only_tensors
from rclib.checkpoints.safetensors_file import TensorInfo, brief_line, read_json
from rclib.checkpoints.shards import Shard, weight_files

__all__ = ["Checkpoint", "CheckpointError", "TensorInfo", "open_checkpoint"]

CHUNK = 16 << 20
CONFIG = "config.json"


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
            raise CheckpointError(f"{self.source}: no tensor {brief_line(name)}")
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
                f"{self.source}: tensor {brief_line(name)} has {count} entries, "
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
        """Rows start to stop (along axis 0) of a tensor, in its own type.

        Raises CheckpointError for rows that it does not have.
        """
        shape = self.info(name).shape
        if not shape or not 0 <= start <= stop <= shape[0]:
            raise CheckpointError(
                f"{self.source}: tensor {brief_line(name)} of shape {shape} has no rows "
                f"{start} to {stop}"
            )
        width = math.prod(shape[1:])
        return self.entries(name, start * width, stop * width).view(stop - start, *shape[1:])

    def chunks(self, name: str, *, max_bytes: int = CHUNK) -> Iterator[tuple[int, Tensor]]:
        """(first row, rows) of a tensor from top to bottom, at most `max_bytes` at a time.

        A row longer than that comes alone. Memory is used again: a chunk is valid until the
        next one is asked for. A tensor without axes comes as it is. Raises ValueError for a
        `max_bytes` that is not positive.
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
        Face id `owner/name` or `owner/name@revision`, a module, or a mapping of tensors. What
        exists on disk is not looked for on the hub.
    revision : branch, tag or commit, for a Hugging Face id only.
    Raises CheckpointError (one line) for anything that cannot be read, ValueError for a revision
    of anything but a Hugging Face id.
    """
    if isinstance(source, nn.Module):
        title, state = type(source).__name__, source.state_dict()
    elif isinstance(source, Mapping):
        title, state = "state dict", dict(source)
    else:
        try:
            return _from_path(os.fspath(source), revision)
        except OSError as error:  # no permission, a name that is too long, ...
            raise CheckpointError(f"{brief_line(source)}: {error.strerror or error}") from None
    if revision is not None:
        raise ValueError(f"revision must be None for a {title}, got {revision!r}")
    return Checkpoint(title, [MemoryReader(only_tensors(state, title))])


def _from_path(source: str, revision: str | None) -> Checkpoint:
    path = Path(source)
    here = (source and path.is_dir()) or path.suffix in (".safetensors", *PICKLES)
    named = None if here else split_id(source)
    if named is not None:
        repo, pinned = named
        if revision is not None and pinned is not None and revision != pinned:
            raise ValueError(f"revision {revision!r} contradicts the one in {source!r}")
        folder = fetch_model(repo, revision or pinned)
        return _open(source, weight_files(folder), folder)
    if revision is not None:
        raise ValueError(f"revision must be None for a path, got {revision!r}")
    if source and path.is_dir():
        return _open(source, weight_files(path), path)
    if here:
        return _open(source, [(path, None)], path.parent)
    raise CheckpointError(
        f"{source or repr(source)}: no such file or directory, and no Hugging Face id (owner/name)"
    )


def _open(source: str, shards: list[Shard], folder: Path) -> Checkpoint:
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else None
    readers: list[Reader] = []
    try:
        for path, expected in shards:
            readers.append(PickleReader(path) if path.suffix in PICKLES else FileReader(path))
            if expected is not None:
                _compare(path, set(readers[-1].tensors), expected)
        return Checkpoint(source, readers, config)
    except BaseException:
        for reader in readers:
            reader.close()
        raise


def _compare(path: Path, held: set[str], expected: frozenset[str]) -> None:
    for name in sorted(expected - held):
        raise CheckpointError(
            f"{path}: lacks tensor {brief_line(name)}, which the index puts there"
        )
    for name in sorted(held - expected):
        raise CheckpointError(
            f"{path}: holds tensor {brief_line(name)}, which the index does not name"
        )
