"""Checkpoints of any kind behind one small interface, read one tensor or row chunk at a time.

    with open_checkpoint("EleutherAI/pythia-160m") as checkpoint:
        for name, info in checkpoint.tensors.items():      # no data read yet
            for first, rows in checkpoint.chunks(name):     # bounded memory
                ...

Sources: a file of safetensors, of torch.save or GGUF, a directory with one or with shards, a
Hugging Face id, a `torch.nn.Module`, or a mapping from names to tensors.

Nothing in a checkpoint is executed: pickles are read by an interpreter of their own that knows
tensors and plain values alone, and code that a model repository may carry is neither fetched nor
run.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from rclib.checkpoints.belonging import check_names, named_by_index, without_empty
from rclib.checkpoints.combined import combined
from rclib.checkpoints.config import read_config
from rclib.checkpoints.contents import GGUF, PICKLE, kind_of
from rclib.checkpoints.errors import CheckpointError, printable
from rclib.checkpoints.folders import cache_snapshot
from rclib.checkpoints.gguf_file import GgufReader
from rclib.checkpoints.hub import NotFoundError, fetch_model
from rclib.checkpoints.hub_names import hub_id
from rclib.checkpoints.live import config_of
from rclib.checkpoints.pickled import PickleReader
from rclib.checkpoints.readers import FileReader, MemoryReader, Reader, only_tensors
from rclib.checkpoints.safetensors_file import SafetensorsFile
from rclib.checkpoints.shards import indexed, weight_files
from rclib.checkpoints.state_dicts import TOP
from rclib.checkpoints.tensor_file import TensorInfo, brief_line

__all__ = ["Checkpoint", "CheckpointError", "TensorInfo", "open_checkpoint", "opened"]

CHUNK = 16 << 20
# The model's sizes beside its weights; params.json is Meta's.
CONFIGS = ("config.json", "params.json")
# A name that ends like this is a file, there or not.
FILES = (".safetensors", ".bin", ".pt", ".pth", ".tar", ".ckpt", ".pkl", ".gguf", ".json", ".npz")


class Checkpoint:
    """Named tensors of one source; a context manager.

    source : as given, for titles; config : the parsed config.json, None without one;
    tensors : {name: TensorInfo} in file order, known without reading data.
    left_out : {name: reason} of what the source holds and cannot be read, as "is sparse".
    notes : lines for the user on what was chosen where there was a choice.
    folder : what its files lie in, None for one in memory; files : their readers.
    """

    def __init__(
        self,
        source: str,
        readers: list[Reader],
        config: Mapping[str, Any] | None = None,
        *,
        left_out: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        folder: Path | None = None,
        files: Sequence[FileReader] = (),
    ) -> None:
        self.files = tuple(files)
        self.source = printable(source)
        self.folder = folder
        self.config = config
        self.left_out: Mapping[str, str] = left_out or {}
        self.notes = tuple(notes)
        self._readers = readers
        self._closed = False
        self._home = {name: reader for reader in readers for name in reader.tensors}
        self.tensors: Mapping[str, TensorInfo] = {
            name: info for reader in readers for name, info in reader.tensors.items()
        }
        if not self.tensors:
            self.close()
            first = next((f" but {brief_line(n)}, which {r}" for n, r in self.left_out.items()), "")
            raise CheckpointError(f"{source}: holds no tensors{first}")

    def __repr__(self) -> str:
        kind = (self.config or {}).get("model_type")
        more = f", model_type {kind}" if isinstance(kind, str) else ""
        more += f", {len(self.left_out)} left out" if self.left_out else ""
        more += ", closed" if self._closed else ""
        size = f"{self.nbytes / 1e9:.3g} GB"
        return f"<{type(self).__name__} {self.source}: {len(self.tensors)} tensors, {size}{more}>"

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())

    def info(self, name: str) -> TensorInfo:
        """Shape, type and size of a tensor. Raises CheckpointError for an unknown name."""
        if self._closed:
            raise CheckpointError(f"{self.source}: the checkpoint is closed")
        if name in self.left_out:
            raise CheckpointError(
                f"{self.source}: tensor {brief_line(name)} {self.left_out[name]}, so it is left out"
            )
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

    def check_unchanged(self) -> None:
        """Raise CheckpointError for a file that was written to since it was opened.

        Numbers from it may belong to no one state of the model. Asked at the end of a `with` block.
        """
        if not self._closed:
            for file in self.files:
                file.check_unchanged()

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
        try:
            if kind is None:
                self.check_unchanged()
        finally:
            self.close()


def open_checkpoint(
    source: str | os.PathLike[str] | nn.Module | Mapping[str, Tensor],
    *,
    revision: str | None = None,
    key: str | None = None,
) -> Checkpoint:
    """Open a checkpoint without reading its tensors.

    source : path of a file (safetensors, whatever torch.save wrote, GGUF, told by its content),
        path of a directory, Hugging Face id `owner/name` or `owner/name@revision`, a module (with
        its `config`, if it has one), or a mapping of tensors. What exists on disk is not looked for
        on the hub.
    revision : branch, tag or commit, for a Hugging Face id only.
    key : which set of weights, where a file of torch.save holds several.
    Raises CheckpointError (one line) for anything that cannot be read, ValueError for a revision
    of anything but a Hugging Face id, or a key of anything but a pickle, TypeError for a source
    that is none of these.
    """
    config: Mapping[str, Any] | None = None
    if isinstance(source, nn.Module):
        title, state = type(source).__name__, source.state_dict()
        config = config_of(source)
    elif isinstance(source, Mapping):
        title, state = "state dict", dict(source)
    elif not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            "source must be a path, a Hugging Face id, a module or a mapping of tensors by name, "
            f"got {type(source).__name__}"
        )
    else:
        try:
            return _from_path(os.fspath(source), revision, key)
        except OSError as error:  # no permission, a name that is too long, ...
            raise CheckpointError(f"{brief_line(source)}: {error.strerror or error}") from None
    for argument, value in (("revision", revision), ("key", key)):
        if value is not None:
            raise ValueError(f"{argument} must be None for a {title}, got {value!r}")
    readers, left_out, notes = combined([MemoryReader(only_tensors(state, title))], config)
    return Checkpoint(title, readers, config, left_out=left_out, notes=notes)


@contextlib.contextmanager
def opened(
    source: Any, *, revision: str | None = None, key: str | None = None
) -> Iterator[Checkpoint]:
    """A checkpoint as it is; what else `open_checkpoint` takes, open while this lasts.

    Raises as `open_checkpoint`, and ValueError for a revision or key of an open checkpoint.
    """
    if not isinstance(source, Checkpoint):
        with open_checkpoint(source, revision=revision, key=key) as found:
            yield found
        return
    for argument, value in (("revision", revision), ("key", key)):
        if value is not None:
            raise ValueError(f"{argument} must be None for an open checkpoint, got {value!r}")
    yield source


def _from_path(source: str, revision: str | None, key: str | None) -> Checkpoint:
    path = Path(source) if source else None
    if path is not None and source.startswith("~") and not os.path.lexists(path):
        path = Path(os.path.expanduser(source))
    if path is not None and (os.path.lexists(path) or path.name.endswith(FILES)):
        if revision is not None:
            raise ValueError(f"revision must be None for a path, got {revision!r}")
        return _opened_path(source, path, key)
    named = hub_id(source)
    if named is None:
        if revision is not None:
            raise ValueError(f"revision must be None for a path, got {revision!r}")
        raise CheckpointError(
            f"{brief_line(source) if len(source) > 200 else source or repr(source)}: no such file "
            "or directory, and no Hugging Face id (owner/name, such as openai-community/gpt2)"
        )
    repo, pinned = named
    if revision is not None and pinned is not None and revision != pinned:
        raise ValueError(f"revision {revision!r} contradicts the one in {source!r}")
    try:
        folder = fetch_model(repo, revision or pinned)
    except NotFoundError as error:
        if "://" in source:
            raise
        raise CheckpointError(f"{error}; and there is no file or directory {source} here") from None
    return _opened_path(source, folder, key)


def _opened_path(source: str, path: Path, key: str | None) -> Checkpoint:
    """The checkpoint at a path that exists, under the title `source`. Raises CheckpointError."""
    notes: list[str] = []
    if path.is_dir():
        path = cache_snapshot(path)
        (shards, note), folder = weight_files(path), path
        notes += [note] if note else []
    else:
        index = path.name.endswith(".index.json")
        shards, folder = indexed(path) if index else [(path, None)], path.parent
    files: list[FileReader] = []
    readers: list[Reader] = []
    left_out: dict[str, str] = {}
    try:
        for file, expected in shards:
            files.append(_reader(file, key))
            left_out |= files[-1].left_out
            readers.append(files[-1])
            if expected is not None:
                readers[-1] = named_by_index(file, files[-1], expected, notes)
        check_names(source, readers)
        readers = without_empty(source, readers, left_out)
        config, more = _about(folder, files)
        readers, parts, made = combined(readers, config, source)
        notes += [*more, *made]
        gone = left_out | parts
        about: dict[str, Any] = {"left_out": gone, "notes": notes, "folder": folder}
        return Checkpoint(source, readers, config, **about, files=files)
    except BaseException:
        for reader in files:
            reader.close()
        raise


def _reader(path: Path, key: str | None) -> FileReader:
    kind = kind_of(path)
    if kind == PICKLE:
        return PickleReader(path, key)
    if key is not None:
        raise ValueError(f"key must be None for a file of kind {kind}, got {key!r}")
    return GgufReader(path) if kind == GGUF else FileReader(SafetensorsFile(path))


def _about(folder: Path, readers: list[FileReader]) -> tuple[Mapping[str, Any] | None, list[str]]:
    """The model's configuration, from beside its weights or inside of them, and notes."""
    notes: list[str] = []
    said: Mapping[str, Any] | None = None
    for reader in readers:
        if isinstance(reader, PickleReader):
            state = reader.state
            said = said or state.arguments
            if state.beside:
                where = "at the top" if state.key == TOP else f"under {brief_line(state.key)}"
                notes.append(f"read the tensors {where}; beside: {', '.join(state.beside[:12])}")
        elif isinstance(reader, GgufReader):
            return reader.config, notes
    for name in CONFIGS:
        if (folder / name).is_file():
            return read_config(folder / name), notes
        if os.path.lexists(folder / name):
            notes.append(f"{name} is no plain file and was not read")
    return said, notes
