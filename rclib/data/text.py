"""Text as bytes for language models: the vocabulary is the 256 byte values.

`python` is the language reference that ships with Python (`pydoc_data.topics`), about 470 kB;
any file, plain or packed with xz or gzip, can be given by its path. Packed files are unpacked
once into the data folder, whole or not at all; the copy bears the checksum of its bytes in its
name, which is compared whenever it is opened. Every file is mapped into memory, not read.

The last share of the bytes is held out for validation. Batches are windows at random places
of the training part, a pure function of (seed, step), so that a run can be resumed anywhere.

The reference's text changes between versions of Python, and results with it: the checksum is
that of the bytes, so that stored runs of another text are never mistaken for this one's.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import lzma
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import torch
from torch import Tensor

from rclib.data.images import DataError
from rclib.files.archives import DAMAGE
from rclib.files.atomic import writing
from rclib.paths import FolderError, data_dir, expanded, project_root

__all__ = ["MAX_BYTES", "VOCABULARY", "TextData", "load_text", "named_text"]

VOCABULARY = 256
MAX_BYTES = 2**31  # a packed file that unpacks to more is refused
_CHUNK = 1 << 20
_XZ_MEMORY = 2**28  # bytes; `xz -9` asks for a quarter of it


@dataclass(frozen=True, eq=False)
class TextData:
    """A text and its split.

    tokens : (n,) uint8, the bytes in order; the first `n_train` are for training, the others
        for validation. description : what a caption prints. checksum : sha256 (hex) of the bytes
        and the split.
    """

    name: str
    description: str
    tokens: Tensor = field(repr=False)
    n_train: int
    checksum: str
    path: str | None = None  # the file the tokens are mapped from
    origin: tuple[int, ...] | None = field(default=None, repr=False)  # what it was when mapped

    @property
    def train(self) -> Tensor:
        """The training part, (n_train,) uint8."""
        return self.tokens[: self.n_train]

    @property
    def validation(self) -> Tensor:
        """The held-out part, uint8."""
        return self.tokens[self.n_train :]

    def check_context(self, context: int) -> None:
        """ValueError if a part is too short for one window of `context` tokens and its target."""
        if isinstance(context, bool) or not isinstance(context, int) or context < 1:
            raise ValueError(f"context must be a positive integer, got {context!r}")
        for part, size in (("training", len(self.train)), ("validation", len(self.validation))):
            if size < context + 1:
                raise ValueError(
                    f"context must be shorter than the {part} part of {self.name!r}, "
                    f"which has {size} bytes; got {context}"
                )

    def batch(self, step: int, *, seed: int, batch_size: int, context: int) -> Tensor:
        """Training windows of one step, (batch_size, context + 1) int64: inputs and, one token
        on, targets. A pure function of (seed, step, batch_size, context)."""
        self.check_context(context)
        # Two words into one well-mixed stream; numpy keeps SeedSequence and PCG64 fixed.
        random = np.random.PCG64(np.random.SeedSequence([seed, step])).random_raw(batch_size)
        starts = (random % np.uint64(self.n_train - context)).astype(np.int64)
        return self._windows(torch.from_numpy(starts), context)

    def validation_batches(self, count: int, *, batch_size: int, context: int) -> Iterator[Tensor]:
        """`count` batches of evenly spaced validation windows, (batch_size, context + 1) int64.

        The same windows every time; they overlap where the validation part is short. Raises
        ValueError for a count or size that is not positive.
        """
        self.check_context(context)
        if count < 1 or batch_size < 1:
            raise ValueError(f"count and batch_size must be positive, got {count}, {batch_size}")
        last = len(self.validation) - context - 1
        starts = torch.linspace(0, last, count * batch_size, dtype=torch.float64).long()
        for part in (self.n_train + starts).split(batch_size):
            yield self._windows(part, context)

    def check_unchanged(self) -> None:
        """DataError if the file that the tokens are mapped from was written to since.

        Bytes of a mapped file that was cut end the process when they are read, and changed ones
        are another text; so this is asked before every batch. A file that was replaced by another
        of its name is still mapped as it was, and one that was only touched is what it was.
        """
        if self.path is None or self.origin is None:
            return
        try:
            state = _origin(os.stat(self.path))
        except OSError:
            return  # removed; what is mapped stays
        if state == self.origin or state[:2] != self.origin[:2]:
            return
        same = state[2] >= len(self.tokens)
        known: tuple[str | int, ...] = (self.path, *state, len(self.tokens), self.n_train)
        if same and known not in _verified:
            _verified[known] = _checksum(self.tokens, self.n_train)
        if not same or _verified[known] != self.checksum:
            raise DataError(f"text file {self.path} was changed while it was in use")

    def _windows(self, starts: Tensor, context: int) -> Tensor:
        self.check_unchanged()
        return self.tokens[starts[:, None] + torch.arange(context + 1)].long()

    def share_memory(self) -> Self:
        """Make worker processes share the text; a mapped file is shared as it is."""
        if self.path is None:
            self.tokens.share_memory_()  # type: ignore[no-untyped-call]
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        tokens = self.tokens if self.path is None else None
        fields = (self.name, self.description, self.n_train, self.checksum, self.path)
        return _rebuild, (tokens, *fields)


def _rebuild(
    tokens: Tensor | None, name: str, description: str, n_train: int, checksum: str, path: str
) -> TextData:
    """Another process maps the file again instead of getting a copy of it.

    Raises DataError if the file is another one by now.
    """
    if tokens is not None:
        return TextData(name, description, tokens, n_train, checksum, None)
    try:
        tokens, origin = _mapped(Path(path))
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: it is empty by now
        raise DataError(f"text file {path} cannot be read: {error}") from None
    known: tuple[str | int, ...] = (path, *origin, len(tokens), n_train)
    if known not in _verified:  # once a process: it comes along with every task
        _verified[known] = _checksum(tokens, n_train) if len(tokens) >= n_train else ""
    if _verified[known] != checksum:
        raise DataError(f"text file {path} was changed while it was in use")
    return TextData(name, description, tokens, n_train, checksum, path, origin)


# Path, `_origin`, bytes that are mapped of it, n_train -> checksum. A file that grew has more bytes
# than a mapping from before, so what was verified of one says nothing of the other.
_verified: dict[tuple[str | int, ...], str] = {}


def load_text(
    source: str | os.PathLike[str] = "python",
    *,
    validation: float = 0.1,
    max_bytes: int = MAX_BYTES,
) -> TextData:
    """The text `source`: "python" (the language reference of this Python) or a file's path.

    validation : share of the bytes, at the end, that is held out. A relative path starts at the
    project. A name ending in .xz or .gz is unpacked into the data folder (`$RCLIB_DATA`), at
    most `max_bytes` of it; it is unpacked anew when the packed file has changed.

    Raises DataError for a missing, empty, damaged or too large file, ValueError for a share
    that leaves no training or no validation text.
    """
    if not 0.0 < validation < 1.0:
        raise ValueError(f"validation must lie strictly between 0 and 1, got {validation!r}")
    if str(source) == "python":
        raw = _python_reference()
        tokens = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        return _split("python", "language reference of Python", tokens, validation, None)
    try:
        path = project_root() / expanded(os.fspath(source), "text file")
        there = path.is_file()
    except (FolderError, ValueError) as error:  # a name with a zero byte
        raise DataError(f"text file {str(source)!r} cannot be found: {error}") from None
    if not there:
        raise DataError(_missing(path, str(source)))
    plain = _unpacked(path, max_bytes) if path.suffix in (".xz", ".gz") else path
    if plain.stat().st_size == 0:
        raise DataError(f"text file {path} is empty")
    if plain.stat().st_size > max_bytes:
        raise DataError(f"text file {path} has more than max_bytes = {max_bytes} bytes")
    name = plain.name if plain is path else path.stem
    # A name may be any bytes; this one is printed and drawn.
    name = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
    tokens, origin = _mapped(plain)
    return _split(name, name, tokens, validation, str(plain), origin)


def _missing(path: Path, source: str) -> str:
    there = sorted(p.name for p in path.parent.glob("*") if _is_text(p))
    beside = f"; there are {', '.join(there[:8])}" if there else ""
    return (
        f"text file {path} is missing (source = {source!r}){beside}. Any text will do, plain or "
        f"packed with xz or gzip: put one of some megabytes into {path.parent} (or the folder that "
        "$RCLIB_DATA names) and give its name as the parameter `text`, or give text = 'python' for "
        "the language reference that ships with Python, 0.5 MB. Results depend on the text"
    )


def _is_text(path: Path) -> bool:
    return path.is_file() and path.suffix in (".txt", ".xz", ".gz", ".md") and path.name[0] != "."


def _split(
    name: str,
    what: str,
    tokens: Tensor,
    validation: float,
    path: str | None,
    origin: tuple[int, ...] | None = None,
) -> TextData:
    n = len(tokens)
    n_train = n - round(n * validation)
    if not 0 < n_train < n:
        raise ValueError(
            f"validation must leave both parts of {name!r} ({n} bytes) some text, got {validation}"
        )
    description = f"{what} ({n / 1e6:.2f} MB, bytes)"
    return TextData(name, description, tokens, n_train, _checksum(tokens, n_train), path, origin)


def _checksum(tokens: Tensor, n_train: int) -> str:
    digest = hashlib.sha256(f"text|{len(tokens)}|{n_train}|".encode())
    for chunk in tokens.split(_CHUNK):
        digest.update(chunk.numpy().tobytes())
    return digest.hexdigest()


def _python_reference() -> bytes:
    """The topics in alphabetical order, one after the other."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics)).encode("utf-8")


def _mapped(path: Path) -> tuple[Tensor, tuple[int, ...]]:
    """A file's bytes, and what it was when they were mapped."""
    # Not `torch.from_file`, which takes no name that is not UTF-8.
    with open(path, "rb") as file:
        origin = _origin(os.fstat(file.fileno()))
        return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="c")), origin


def _origin(state: os.stat_result) -> tuple[int, ...]:
    """Which file it is, its size and its date."""
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _unpacked(path: Path, max_bytes: int) -> Path:
    """The unpacked copy in the data folder, named by what the packed file and itself hold.

    A copy whose bytes are not those of its name is made anew.
    """
    folder = data_dir() / "text"
    try:
        stem = f"{path.stem[:80]}-{_digest(path)}-"
        for copy in sorted(folder.glob(f"{glob.escape(stem)}*")):
            if copy.is_file() and _digest(copy) == copy.name.removeprefix(stem):
                return copy
            warnings.warn(f"{copy} is damaged; unpacking {path} again", stacklevel=3)
        digest = hashlib.sha256()
        with writing(folder / stem) as part, open(path, "rb") as file:
            size = 0
            for chunk in _unxz(file) if path.suffix == ".xz" else _gunzip(file):
                size += len(chunk)
                if size > max_bytes:
                    raise DataError(f"text file {path} unpacks to more than {max_bytes} bytes")
                digest.update(chunk)
                part.write(chunk)
            part.path = folder / f"{stem}{digest.hexdigest()[:32]}"
    except (lzma.LZMAError, *DAMAGE) as error:
        raise DataError(f"text file {path} cannot be unpacked: {error}") from None
    return part.path


def _digest(path: Path) -> str:
    """The first half of the SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()[:32]


def _gunzip(file: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unpacker:
        while chunk := unpacker.read(_CHUNK):
            yield chunk


def _unxz(file: IO[bytes]) -> Iterator[bytes]:
    """What an xz file holds, stream by stream, in bounded memory: a file of a few bytes may ask
    for a dictionary of four gigabytes, which `lzma.open` grants."""
    unpacker = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
    while True:
        packed = b""
        if unpacker.eof:  # another stream may follow, after zeros
            packed = unpacker.unused_data
            while not (packed := packed.lstrip(b"\0")):
                packed = file.read(_CHUNK)
                if not packed:
                    return
            unpacker = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
        elif unpacker.needs_input:
            packed = file.read(_CHUNK)
            if not packed:
                raise EOFError("it ends in the middle")
        chunk = unpacker.decompress(packed, _CHUNK)
        if chunk:
            yield chunk


def named_text(name: str) -> TextData:
    """ "python" (the language reference of this Python), or a file of the data folder
    (`$RCLIB_DATA`, default data) by its name. Raises `rclib.data.images.DataError` if it is
    missing."""
    return load_text(name if name == "python" else data_dir() / name)
