"""Checkpoints that are pickles (.bin, .pt, .pth), read without executing anything.

A pickle is a program. It is only ever run by `torch.load(weights_only=True)`, whose interpreter
knows tensors and plain containers and refuses everything else; there is no other way in.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.readers import MemoryReader, only_tensors
from rclib.checkpoints.safetensors_file import brief_line

__all__ = ["PICKLES", "PickleReader"]

PICKLES = (".bin", ".pt", ".pth")
# Where training scripts keep the weights beside other things.
NESTED = ("state_dict", "model_state_dict", "model")
# Pages of a mapped pickle stay resident until it is opened anew, after so many bytes.
REOPEN_AFTER = 128 << 20


class PickleReader:
    """Tensors of one pickle file, mapped where torch can (its format since 2020).

    Older files are loaded whole. Raises CheckpointError for anything that is refused.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        tensors, self._mapped = _load(path)
        self._memory = MemoryReader(tensors)
        self.tensors = self._memory.tensors
        self._touched = 0

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        """The entries, without a copy where they lie in order.

        Raises CheckpointError if the file was changed meanwhile.
        """
        with self._lock:
            if self._mapped and self._touched > REOPEN_AFTER:
                # The old mapping goes with the last tensor that uses it.
                self._memory = MemoryReader(_load(self._path)[0])
                if self._memory.tensors != self.tensors:
                    raise CheckpointError(f"{self._path}: was changed while it was read")
                self._touched = 0
            memory = self._memory
            found = memory.read(name, start, stop, buffer)
            self._touched += found.numel() * found.itemsize
        return found

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        """The same as `read`."""
        return self.read(name, start, stop, buffer)

    def close(self) -> None:
        """Let go of the tensors."""
        self._memory.close()


def _load(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Tensors by name, and whether they are mapped."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        loaded, mapped = _torch_load(path, mmap=True), True
    except CheckpointError:
        loaded, mapped = _torch_load(path, mmap=False), False
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: holds no tensors by name but {type(loaded).__name__}")
    for key in NESTED:
        if isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    return only_tensors(loaded, str(path)), mapped


def _torch_load(path: Path, *, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on storage types, of no use to the reader
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # whatever a damaged or hostile file leads to
        text = " ".join(str(error).split())
        code = re.search(r"GLOBAL (\S+)", text)
        reason = (
            f"it asks for {brief_line(code[1])}, which could be code; only tensors are loaded"
            if code
            else "not a file of tensors that torch.save wrote, or damaged"
        )
        raise CheckpointError(f"{path}: {reason}") from None
