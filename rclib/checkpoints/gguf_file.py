"""GGUF files: their header read with bounds, quantised weights as the float32 that they mean.

    "GGUF", version, number of tensors, number of entries       little-endian
    entries: key, kind, value                                   texts, numbers, arrays of them
    tensors: name, sizes (the fastest first), kind, place
    the tensors' bytes, each at a multiple of general.alignment

Weights of plain types are read as in any other file. Quantised ones come as blocks of 32 to 256
entries; they are dequantised by the package `gguf` (extra `gguf`), a few blocks at a time, and
count as float32 from then on.

Source of the format: ggml's docs/gguf.md; of the types, `gguf.constants`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.readers import FileReader, room
from rclib.checkpoints.tensor_file import TensorFile, TensorInfo, brief_line

__all__ = ["METADATA", "GgufReader"]

MAX_ENTRIES, MAX_TENSORS = 100_000, 1_000_000
MAX_TEXT, MAX_AXES = 65_536, 8
STEP = 1 << 20  # bytes of the header that are read at a time
PIECE = 1 << 20  # entries that are dequantised at a time

# Kinds of entries: how many bytes, how they are unpacked. 8 is text, 9 an array.
NUMBERS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
TEXT, ARRAY = 8, 9
PLAIN = {
    0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64",
    28: "float64", 30: "bfloat16",
}  # fmt: skip

# Under this key of the configuration: the file's own entries, numbers and texts.
METADATA = "gguf"
# The sizes in config.json's words, which the families' tables know.
CONFIG = {
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_local_experts": "expert_count",
    "vocab_size": "vocab_size",
}


@dataclass(frozen=True)
class _Blocks:
    """How a quantised type is stored: entries and bytes of a block, and what reads them."""

    entries: int
    nbytes: int
    read: Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class GgufReader(FileReader):
    """Tensors of one GGUF file, quantised ones as float32.

    config : the model's sizes in config.json's words, model_type "gguf-" and the architecture.
    left_out : {name: reason}. Raises CheckpointError for anything that is no sound file.
    """

    def __init__(self, path: Path) -> None:
        file = _GgufFile(path)
        super().__init__(file)
        self._blocks = file.blocks
        self.config: Mapping[str, Any] = file.config
        self.left_out = file.left_out

    def read(self, name: str, start: int, stop: int, buffer: Tensor | None) -> Tensor:
        """The entries, dequantised if need be, in `buffer` if there is one."""
        if name not in self._blocks:
            return super().read(name, start, stop, buffer)
        blocks, size = self._blocks[name], (stop - start) * 4
        if buffer is None:
            buffer = room(size, f"{self._file.path}: tensor {brief_line(name)}")
        found = buffer[:size].view(torch.float32)
        out = found.numpy()
        step = max(1, PIECE // blocks.entries) * blocks.entries
        for begin in range(start // blocks.entries * blocks.entries, stop, step):
            end = min(begin + step, -(-stop // blocks.entries) * blocks.entries)
            raw = np.empty((end - begin) // blocks.entries * blocks.nbytes, dtype=np.uint8)
            self._file.read_into(name, begin // blocks.entries * blocks.nbytes, raw)
            values = blocks.read(raw[None])[0]
            first, last = max(begin, start), min(end, stop)
            out[first - start : last - start] = values[first - begin : last - begin]
        return found

    def view(self, name: str, start: int, stop: int, buffer: Tensor) -> Tensor:
        """As `read`; mapped where the entries are plain."""
        if name in self._blocks:
            return self.read(name, start, stop, buffer)
        return super().view(name, start, stop, buffer)


class _GgufFile(TensorFile):
    """blocks : of the quantised tensors."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.left_out: dict[str, str] = {}
        self.blocks: dict[str, _Blocks] = {}
        self._at, self._window, self._window_at = 0, b"", 0
        try:
            self._read_header()
        except (struct.error, UnicodeDecodeError, OverflowError) as error:
            self.close()
            raise CheckpointError(f"{path}: a damaged GGUF file: {error}") from None
        except BaseException:
            self.close()
            raise

    def _length(self, name: str) -> int:
        if name not in self.blocks:
            return self.tensors[name].nbytes
        blocks = self.blocks[name]
        return math.prod(self.tensors[name].shape) // blocks.entries * blocks.nbytes

    # the header

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: a damaged GGUF file: {what}")

    def _take(self, count: int) -> bytes:
        if self._at + count > self.size:
            raise self._damaged(f"its header ends behind the file's {self.size} bytes")
        offset = self._at - self._window_at
        if offset < 0 or offset + count > len(self._window):
            self._window_at, offset = self._at, 0
            self._window = self.read_at(min(max(count, STEP), self.size - self._at), self._at)
        self._at += count
        return self._window[offset : offset + count]

    def _skip(self, count: int) -> None:
        if count > self.size - self._at:
            raise self._damaged(f"its header ends behind the file's {self.size} bytes")
        self._at += count

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _text(self) -> str:
        length = self._number("<Q")
        if length > MAX_TEXT:  # a template, of no use here
            self._skip(length)
            return ""
        return self._take(length).decode("utf-8", "replace")

    def _value(self, kind: int, depth: int = 0) -> Any:
        """A number or text; of an array its one value if all are equal numbers, else None."""
        if kind in NUMBERS:
            return self._number(NUMBERS[kind])
        if kind == TEXT:
            return self._text()
        if kind != ARRAY or depth > 1:
            raise self._damaged(f"an entry of kind {kind}")
        inner, count = self._number("<I"), self._number("<Q")
        if inner in NUMBERS:
            size = struct.calcsize(NUMBERS[inner])
            if not 0 < count * size <= MAX_TEXT:
                self._skip(count * size)
                return None
            values = {v for (v,) in struct.iter_unpack(NUMBERS[inner], self._take(count * size))}
            return values.pop() if len(values) == 1 else None
        if count * 8 > self.size - self._at:
            raise self._damaged(f"an array of {count} values")
        for _ in range(count):
            if inner == TEXT:
                self._skip(self._number("<Q"))
            else:
                self._value(inner, depth + 1)
        return None

    def _read_header(self) -> None:
        self._take(4)
        version, tensors, entries = self._number("<I"), self._number("<Q"), self._number("<Q")
        if version not in (2, 3):
            big = " (big-endian)" if version >> 24 in (2, 3) else ""
            raise CheckpointError(
                f"{self.path}: GGUF of version {version}{big}; 2 and 3 are read, convert it anew"
            )
        if tensors > MAX_TENSORS or entries > MAX_ENTRIES:
            raise self._damaged(f"{tensors} tensors, {entries} entries")
        said: dict[str, Any] = {}
        for _ in range(entries):
            key, kind = self._text(), self._number("<I")
            if key in said and key:
                raise self._damaged(f"entry {brief_line(key)} is there twice")
            said[key] = self._value(kind)
        places: dict[str, tuple[int, int, tuple[int, ...]]] = {}
        for _ in range(tensors):
            name, axes = self._text(), self._number("<I")
            if axes > MAX_AXES or not name or name in places:
                raise self._damaged(f"tensor {brief_line(name)} with {axes} axes, or twice")
            sizes = struct.unpack(f"<{axes}Q", self._take(8 * axes))
            if math.prod(n for n in sizes if n) >= 2**48:
                raise self._damaged(f"tensor {brief_line(name)} of sizes {brief_line(sizes)}")
            places[name] = self._number("<I"), self._number("<Q"), sizes[::-1]
        alignment = said.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20:
            raise self._damaged(f"alignment {brief_line(alignment)}")
        data = -(-self._at // alignment) * alignment
        self._window = b""
        self._place(places, data)
        self.config = _config(said, self.tensors)

    def _place(self, places: Mapping[str, tuple[int, int, tuple[int, ...]]], data: int) -> None:
        types: dict[int, _Blocks | str] = {}
        infos: dict[str, TensorInfo] = {}
        starts: dict[str, int] = {}
        end, before = 0, ""
        for name, (kind, offset, shape) in sorted(places.items(), key=lambda item: item[1][1]):
            count = math.prod(shape)
            if kind in PLAIN:
                info = TensorInfo(shape, PLAIN[kind], count * getattr(torch, PLAIN[kind]).itemsize)
                length = info.nbytes
            else:
                if kind not in types:
                    types[kind] = _blocks(kind)
                blocks = types[kind]
                if isinstance(blocks, str):
                    self.left_out[name] = blocks
                    continue
                if count % blocks.entries or (shape and shape[-1] % blocks.entries):
                    raise self._damaged(f"tensor {brief_line(name)} {shape} has parts of blocks")
                self.blocks[name] = blocks
                info = TensorInfo(shape, "float32", count * 4)
                length = count // blocks.entries * blocks.nbytes
            if data + offset + length > self.size:
                raise CheckpointError(
                    f"{self.path}: tensor {brief_line(name)} ends at byte {data + offset + length}"
                    f", the file has {self.size} (truncated, or damaged)"
                )
            if offset < end:
                raise self._damaged(f"tensor {brief_line(name)} overlaps {brief_line(before)}")
            end, before = max(end, offset + length), name
            infos[name], starts[name] = info, data + offset
        self.tensors, self._starts = infos, starts


def _blocks(kind: int) -> _Blocks | str:
    """How a quantised type is read, or why it is not."""
    try:
        from gguf import constants, quants
    except ImportError:
        return "is quantised (to read it, pip install 'rclib[gguf]')"
    try:
        named = constants.GGMLQuantizationType(kind)
        entries, nbytes = constants.GGML_QUANT_SIZES[named]
    except (ValueError, KeyError):
        return f"is of type {kind}, which the installed gguf does not know"

    def read(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
        with np.errstate(all="ignore"):  # of scales that are no numbers; the values say it
            found: NDArray[np.float32] = quants.dequantize(raw, named)
        return found

    try:
        read(np.zeros((1, nbytes), dtype=np.uint8))
    except NotImplementedError:
        return f"is of type {named.name}, which the installed gguf cannot dequantise"
    return _Blocks(int(entries), int(nbytes), read)


def _config(said: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    kind = said.get("general.architecture")
    if not isinstance(kind, str):
        return {}
    found = {key: said.get(f"{kind}.{name}") for key, name in CONFIG.items()}
    config: dict[str, Any] = {k: v for k, v in found.items() if type(v) is int}
    if "num_attention_heads" in config:
        config.setdefault("num_key_value_heads", config["num_attention_heads"])
    return {
        "model_type": f"gguf-{kind}",
        "tie_word_embeddings": "output.weight" not in tensors,
        **config,
        METADATA: {
            k: v for k, v in said.items() if v is not None and k != "tokenizer.chat_template"
        },
    }
