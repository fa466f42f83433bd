"""Checkpoints that are pickles, of torch.save or plain ones, read without executing anything.

A pickle is a program. No unpickler ever runs it: `rclib.checkpoints.pickle_program` reads what
it would build, and the tensors' bytes are read from where they lie in the file.

    zip (torch.save since 2020)   data.pkl, and one stored entry data/KEY for each storage
    old (before)                  pickles of a magic number, a version, the machine and the value,
                                  one of the storages' keys, then for each its count and entries
    plain (pickle.dump)           one pickle; numpy arrays have their bytes inside of it

Source of the formats: torch.serialization.
"""

from __future__ import annotations

import math
import mmap
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.pickle_program import read_pickle
from rclib.checkpoints.pickle_values import (
    Array,
    Data,
    Foreign,
    Inline,
    PickledTensor,
    Refused,
    Storage,
)
from rclib.checkpoints.readers import FileReader
from rclib.checkpoints.state_dicts import StateDict, find_state_dict
from rclib.checkpoints.tensor_file import TensorFile, TensorInfo, brief_line
from rclib.files.archives import DAMAGE, Bounded

__all__ = ["PickleReader"]

MAGIC = 0x1950A86A20F9469CFC6C
# Entries of a zip take some 100 bytes of its directory, and 700 in memory.
MAX_DIRECTORY = 40_000_000
# Entries that overlapping ones (expanded tensors) may be written out into.
MAX_REPEATED = 1 << 24
# All tensors together may be so many times the file (tied weights, shared layers), and these bytes
# more: a file of a thousand bytes must not ask for hours of linear algebra.
MAX_SHARED, MAX_EXPANDED = 64, 1 << 24


class PickleReader(FileReader):
    """Tensors of one pickle file, at their places in it; see `rclib.checkpoints.state_dicts`.

    key : which of several mappings of tensors is meant. left_out : {name: reason}.
    Raises CheckpointError for anything that is refused.
    """

    def __init__(self, path: Path, key: str | None = None) -> None:
        file = _PickleFile(path, key)
        super().__init__(file)
        self._pickle = file
        self.left_out = file.left_out
        self.state = file.state

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        """The entries in the order of the tensor's axes, whatever theirs is in the file."""
        if name in self._pickle.strided:
            return self._pickle.strided_entries(name, start, stop)
        return super().read(name, start, stop, buffer)

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        """As `read`; mapped where the entries lie in order."""
        if name in self._pickle.strided:
            return self._pickle.strided_entries(name, start, stop)
        return super().view(name, start, stop, buffer)


class _PickleFile(TensorFile):
    """strided : tensors whose entries do not lie in order: (shape, strides, entries they span)."""

    def __init__(self, path: Path, key: str | None) -> None:
        super().__init__(path)
        self.left_out: dict[str, str] = {}
        self.strided: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {}
        self._starts: dict[str, int] = {}
        try:
            refusal = self._refusal(key)
        except BaseException:
            self.close()
            raise
        if refusal:  # raised here, so that no error keeps the pages, and with them the file
            self.close()
            raise CheckpointError(refusal)

    def _refusal(self, key: str | None) -> str:
        """Open the file; why it is refused, "" if it is not."""
        path = self.path
        try:
            pages = mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return f"{path}: is empty, or cannot be mapped"
        try:
            self._open(memoryview(pages), key)
        except CheckpointError as error:
            return str(error)
        except Foreign as error:
            return _foreign(path, str(error))
        except (Refused, *DAMAGE) as error:
            text = brief_line(" ".join(str(error).split()), 160)[1:-1]
            return f"{path}: not a file of tensors that torch.save wrote, or damaged: {text}"
        return ""

    def _open(self, content: memoryview, key: str | None) -> None:
        if bytes(content[:2]) == b"PK":
            value, places = self._zipped(content)
        else:
            value, places = _plain(content)
        if isinstance(value, (PickledTensor, Array)):
            value = {"tensor": value}
        self.state: StateDict = find_state_dict(value, str(self.path), key)
        infos: dict[str, tuple[int, TensorInfo]] = {}
        for name, tensor in self.state.tensors.items():
            found = self._placed(name, tensor, places)
            if isinstance(found, str):
                self.left_out[name] = found
            else:
                infos[name] = found
        total = sum(info.nbytes for _, info in infos.values())
        if total > MAX_SHARED * self.size + MAX_EXPANDED:
            raise Refused(
                f"its tensors have {total} bytes, the file {self.size}: views of the same entries"
            )
        self.left_out |= self.state.nameless
        # In the order of their bytes, which is the fastest to read.
        order = sorted(infos, key=lambda name: infos[name][0])
        self._starts = {name: infos[name][0] for name in order}
        self.tensors: Mapping[str, TensorInfo] = {name: infos[name][1] for name in order}

    def _zipped(self, content: memoryview) -> tuple[Any, dict[str, tuple[int, int]]]:
        """The value, and {storage: (first byte, number of bytes)}."""
        with os.fdopen(os.dup(self._handle), "rb") as raw:
            bounded = Bounded(raw, step=MAX_DIRECTORY, end=self.size)
            with zipfile.ZipFile(bounded) as archive:  # type: ignore[type-var]
                entries = {entry.filename: entry for entry in archive.infolist()}
                count = len(archive.infolist())
        if len(entries) < count:
            raise Refused("an entry of the archive is there twice")
        pickles = [name for name in entries if PurePosixPath(name).name == "data.pkl"]
        folder = pickles[0].removesuffix("data.pkl") if pickles else ""
        if f"{folder}constants.pkl" in entries or any(
            n.startswith(f"{folder}code/") for n in entries
        ):
            raise CheckpointError(
                f"{self.path}: a TorchScript program, not weights; save the weights alone: "
                "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')"
            )
        if len(pickles) != 1:
            inside = ", ".join(brief_line(name, 40) for name in list(entries)[:4])
            raise CheckpointError(
                f"{self.path}: a zip archive, but not of torch.save (it holds "
                f"{inside or 'nothing'}); unpack it, or pass a .safetensors or .pt file"
            )
        places = {
            entry.filename.removeprefix(folder): _span(entry, content) for entry in entries.values()
        }
        if "byteorder" in places:
            first, length = places["byteorder"]
            if bytes(content[first : first + min(length, 16)]).strip() not in (b"little", b""):
                raise Refused("its numbers are big-endian")
        start, length = places["data.pkl"]
        value, _ = read_pickle(content[: start + length], start)
        keyed = {n.removeprefix("data/"): p for n, p in places.items() if n.startswith("data/")}
        return value, keyed

    def _placed(
        self, name: str, tensor: PickledTensor | Array, places: Mapping[str, tuple[int, int]]
    ) -> tuple[int, TensorInfo] | str:
        """First byte and info of a tensor, or why it is left out. Refused for a damaged file."""
        if isinstance(tensor, Array):
            return self._placed_array(name, tensor)
        if tensor.reason or tensor.storage is None:
            return tensor.reason
        itemsize = _itemsize(tensor.dtype)
        shape, stride = tensor.shape, tensor.stride
        if math.prod(n for n in shape if n) >= 2**48 or any(s >= 2**48 for s in stride):
            return f"has a shape that is too large, {brief_line(shape)}"
        count = math.prod(shape)
        span = 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if count else 0
        first = tensor.offset + tensor.storage.first
        if tensor.storage.key not in places:
            raise Refused(f"the entries of tensor {brief_line(name)} are not in the file")
        start, length = places[tensor.storage.key]
        length = min(length, tensor.storage.count * _itemsize(tensor.storage.dtype or "uint8"))
        if (first + span) * itemsize > length:
            raise Refused(
                f"tensor {brief_line(name)} reaches beyond the {length} bytes of its storage"
            )
        info = TensorInfo(shape, tensor.dtype, count * itemsize)
        if count > max(span, MAX_REPEATED):
            return (
                f"has {count} entries, which are {span} repeated ones (an expanded tensor); save "
                "what it was expanded from"
            )
        if count and not _in_order(shape, stride):
            self.strided[name] = shape, stride, span
        return start + first * itemsize, info

    def _placed_array(self, name: str, array: Array) -> tuple[int, TensorInfo] | str:
        if not array.dtype:
            return "is a numpy array of another type than plain little-endian numbers"
        if not isinstance(array.data, (Data, Inline)) or getattr(array.data, "latin", False):
            return "is a numpy array stored as text; save it with pickle protocol 3 or later"
        info = TensorInfo(array.shape, array.dtype, math.prod(array.shape) * _itemsize(array.dtype))
        if info.nbytes != array.data.stop - array.data.start:
            raise Refused(f"array {brief_line(name)} does not have the bytes of its shape")
        if array.fortran and len(array.shape) > 1:
            steps = [math.prod(array.shape[:axis]) for axis in range(len(array.shape))]
            self.strided[name] = array.shape, tuple(steps), math.prod(array.shape)
        return array.data.start, info

    def _length(self, name: str) -> int:
        """Bytes from the tensor's first entry to its last."""
        if name not in self.strided:
            return self.tensors[name].nbytes
        return self.strided[name][2] * _itemsize(self.tensors[name].dtype)

    def strided_entries(self, name: str, start: int, stop: int) -> Tensor:
        """Entries start to stop, gathered: only the rows that hold them are copied."""
        shape, stride, span = self.strided[name]
        dtype = getattr(torch, self.tensors[name].dtype)
        size = span * dtype.itemsize
        pages = self.map(name, 0, size, alignment=dtype.itemsize)
        if pages is not None:
            flat = torch.from_numpy(pages).view(dtype)
        else:
            own = torch.empty(size, dtype=torch.uint8)
            self.read_into(name, 0, own.numpy())
            flat = own.view(dtype)
        tensor = torch.as_strided(flat, shape, stride)
        width = max(1, math.prod(shape[1:]))
        first = start // width
        rows = tensor[first : -(-stop // width)].flatten()
        return rows[start - first * width : stop - first * width].clone()


def _itemsize(dtype: str) -> int:
    size: int = getattr(torch, dtype).itemsize
    return size


def _in_order(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    expected = 1
    for length, step in zip(reversed(shape), reversed(stride), strict=True):
        if length != 1 and step != expected:
            return False
        expected *= length
    return True


def _foreign(path: Path, name: str) -> str:
    return (
        f"{path}: it asks for {brief_line(name)}, which could be code; only tensors and plain "
        "values are loaded. Where it was made, save the weights alone: "
        "torch.save(model.state_dict(), 'weights.pt')"
    )


def _span(entry: zipfile.ZipInfo, content: memoryview) -> tuple[int, int]:
    """Where the bytes of an entry lie: behind its own header, whose length varies."""
    at = entry.header_offset
    header = bytes(content[at : at + 30])
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise Refused(f"entry {brief_line(entry.filename)} is not where the directory says")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise Refused(f"entry {brief_line(entry.filename)} is compressed; torch.save stores")
    names, extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    start = at + 30 + names + extra
    if start + entry.file_size > len(content):
        raise Refused(f"entry {brief_line(entry.filename)} goes on beyond the file")
    return start, entry.file_size


def _plain(content: memoryview) -> tuple[Any, dict[str, tuple[int, int]]]:
    """The value of an old or plain pickle, and {storage: (first byte, number of bytes)}."""
    value, at = read_pickle(content)
    if value != MAGIC:
        return value, {}
    _, at = read_pickle(content, at)  # the version of the format
    machine, at = read_pickle(content, at)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused("its numbers are big-endian")
    storages: dict[str, Storage] = {}
    value, at = read_pickle(content, at, storages)
    keys, at = read_pickle(content, at)
    places: dict[str, tuple[int, int]] = {}
    for key in keys if isinstance(keys, list) else ():
        count = int.from_bytes(content[at : at + 8], "little")
        name = key.decode("ascii", "replace") if isinstance(key, bytes) else key
        if name not in storages:
            raise Refused("a storage that nothing refers to")
        length = count * _itemsize(storages[name].dtype or "uint8")
        if at + 8 + length > len(content):
            raise Refused("it ends before its last tensor")
        places[name] = at + 8, length
        at += 8 + length
    return value, places
