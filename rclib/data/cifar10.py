"""CIFAR-10 as arrays of bytes: found, checked, decoded once and kept.

It comes from a folder (`rclib.data.images.load` says which), the first of: torchvision's archive,
an image folder `cifar10*` or `cifar10*.zip` (whatever its capitals, hyphens and underscores),
torchvision's checked download. It is decoded once and kept there as
`rclib-cifar10-*.safetensors`, which is verified at every load and may be deleted at any time.
Archives are data from elsewhere: `rclib.data.image_folder` and
`rclib.data.cifar10_batches` check every name and size before it is read, extract nothing to disk
and unpickle nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from rclib.data.cifar10_batches import ARCHIVE, BATCHES, decode_batches
from rclib.data.image_folder import decode_folder, decode_zip
from rclib.files.archives import DAMAGE, some
from rclib.files.plain import DataError
from rclib.files.terminal import printable

__all__ = ["Arrays", "DataError", "arrays_checksum", "read_cifar10", "sha256_json"]

_FORMAT = "1"  # part of the array file's name: raise it when decoding changes
_SCRATCH = ".rclib-tmp-"
_MAX_KEPT = 2**30  # bytes of the array file; the whole set takes 184 million
_TIMEOUT = 30.0  # seconds without an answer after which a download has failed

Arrays = dict[str, Tensor]  # x_train, x_test: uint8 (n, c, h, w); y_train, y_test: uint8 (n,)


def read_cifar10(root: Path, download: bool) -> tuple[str, Arrays, str]:
    """Description, arrays and checksum, from the array file in `root` or else from the source.

    `download` allows torchvision's download when there is no source. Raises DataError for a
    missing, damaged or refused data file.
    """
    source = _find(root) or _fetch(root, download)
    with _locked(root):
        fingerprint = _fingerprint(source)
        kept = root / f"rclib-cifar10-{fingerprint[:16]}.safetensors"
        found = _read_kept(kept, fingerprint)
        if found:
            return found
        description, arrays = _decode(source)
        checksum = arrays_checksum(arrays)
        seal = sha256_json([checksum, description, fingerprint])
        try:
            with _scratch(root) as scratch:
                part = scratch / kept.name
                part.write_bytes(save(arrays, {"description": description, "sha256": seal}))
                _publish(part, kept)
        except OSError as error:
            warnings.warn(
                printable(f"cannot keep the decoded images in {root} ({error}); ")
                + "they will be decoded again next time",
                stacklevel=3,
            )
    return description, arrays, checksum


def _read_kept(path: Path, fingerprint: str) -> tuple[str, Arrays, str] | None:
    if not path.is_file():  # a pipe in its place would not answer
        return None
    try:
        if path.stat().st_size > _MAX_KEPT:
            raise ValueError(f"it has more than {_MAX_KEPT:,} bytes")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        _check_arrays(arrays)
        checksum, description = arrays_checksum(arrays), metadata.get("description", "")
        # One hash covers images, labels, description and source.
        if metadata.get("sha256") == sha256_json([checksum, description, fingerprint]):
            return description, arrays, checksum
        problem = "its sha256 does not match"
    except Exception as error:  # a damaged header can say anything
        problem = str(error)
    text = f"{path} is damaged ({problem}); decoding the images again"
    warnings.warn(printable(text), stacklevel=4)
    return None


def _check_arrays(arrays: Arrays) -> None:
    """ValueError unless the arrays are images and labels: anybody can write a matching hash."""
    shapes = {"x_train": (3, 32, 32), "y_train": (), "x_test": (3, 32, 32), "y_test": ()}
    if arrays.keys() != shapes.keys():
        raise ValueError(f"it holds {sorted(arrays)}")
    for name, array in arrays.items():
        n = len(arrays["y" + name[1:]]) if array.ndim else 0
        if array.dtype != torch.uint8 or array.shape != (n, *shapes[name]) or n == 0:
            raise ValueError(f"its {name} is {array.dtype} of shape {tuple(array.shape)}")
        if not shapes[name] and int(array.max()) > 9:
            raise ValueError(f"its {name} has a label of {int(array.max())}")


def _find(root: Path) -> Path | None:
    """The source in `root` that comes first: torchvision's, then an image folder or zip."""
    for path in (root / BATCHES, root / ARCHIVE):
        if os.path.lexists(path):
            return path
    found = sorted(
        (
            path
            for path in root.glob("*")
            if (path.is_dir() or path.suffix.lower() == ".zip") and _is_image_set(path.name)
        ),
        key=lambda path: (path.is_dir(), path.name),
    )
    if len(found) > 1:
        others = ", ".join(path.name for path in found[1:])
        warnings.warn(printable(f"using {found[0]}, not {others}; keep one of them"), stacklevel=4)
    return found[0] if found else None


def _is_image_set(name: str) -> bool:
    """Whether a folder or zip is called after CIFAR-10: in capitals or not, with hyphens or not.

    CIFAR-100 and the batches of other programs are something else.
    """
    plain = re.sub(r"[-_ .]", "", name.lower())
    return plain.startswith("cifar10") and not plain.startswith(("cifar100", "cifar10batches"))


def _seen(root: Path) -> str:
    """What is in the folder instead, for a message."""
    try:
        names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    except OSError:
        return "the folder is not there" if not root.exists() else "the folder cannot be read"
    return f"it holds {some(names)}" if names else "it is empty"


def _fetch(root: Path, download: bool) -> Path:
    """torchvision's download, checked by its md5, which appears in `root` only when whole."""
    if not download:
        problem = "download=False was given"
    elif os.environ.get("RCLIB_OFFLINE", "0") not in ("", "0"):
        problem = "RCLIB_OFFLINE is set"
    else:
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import download_url

        timeout = socket.getdefaulttimeout()
        arrived = 0
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _locked(root), _scratch(root) as scratch:
                found = _find(root)
                if found:  # another process was faster
                    return found
                part = scratch / ARCHIVE
                socket.setdefaulttimeout(_TIMEOUT)  # torchvision sets none and would hang
                try:
                    download_url(CIFAR10.url, str(scratch), ARCHIVE, CIFAR10.tgz_md5)
                finally:
                    arrived = part.stat().st_size if part.exists() else 0
                _publish(part, root / ARCHIVE)
                return root / ARCHIVE
        except Exception as error:  # whatever the network does ends in the one message below
            problem = f"from {CIFAR10.url} to {root}: {type(error).__name__}: {error}"
            if arrived:
                problem += f" ({arrived:,} bytes arrived; expected md5 {CIFAR10.tgz_md5})"
        finally:
            socket.setdefaulttimeout(timeout)
    raise DataError(
        f"CIFAR-10 was not found in {root} (change the folder with RCLIB_DATA); {_seen(root)}. "
        "Three ways:\n"
        f"  1. put torchvision's archive there: {ARCHIVE}, or the folder {BATCHES};\n"
        "  2. put an image folder there, cifar10*.zip or a folder cifar10* (or CIFAR-10*,\n"
        "     cifar_10*), with train/<class>/* and test/<class>/*, png or jpg;\n"
        f"  3. let torchvision download it; this did not work: {problem}"
    )


def _decode(source: Path) -> tuple[str, Arrays]:
    notes: list[str] = []
    try:
        if source.name in (BATCHES, ARCHIVE):
            arrays = decode_batches(source)
        else:
            arrays, jpeg = (decode_folder if source.is_dir() else decode_zip)(source)
            kind = "JPEG-compressed copy," if jpeg else "image folder"
            name = source.name.encode("utf-8", "backslashreplace").decode()  # may be any bytes
            notes = [f"{kind} {name}"]
    except DAMAGE as error:
        raise DataError(f"{source} cannot be read or is damaged: {error}") from None
    sizes = len(arrays["y_train"]), len(arrays["y_test"])
    if sizes != (50_000, 10_000):
        notes.append(f"{sizes[0]:,} + {sizes[1]:,} images")
    return "CIFAR-10" + (f" ({', '.join(notes)})" if notes else ""), arrays


def _fingerprint(source: Path) -> str:
    """sha256 of the source's name and its files' names, sizes and times of change."""
    try:
        files: Iterable[Path] = [source]
        if source.is_dir():
            files = sorted(Path(top, n) for top, _, names in os.walk(source) for n in names)
        states = [(str(file.relative_to(source)), os.stat(file)) for file in files]
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error}") from None
    entries = [[name, state.st_size, state.st_mtime_ns] for name, state in states]
    return sha256_json([_FORMAT, source.name, entries])


def arrays_checksum(arrays: Arrays) -> str:
    """sha256 (hex) of the arrays' names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name].numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def sha256_json(value: object) -> str:
    """sha256 (hex) of a value written as JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the folder, so that of several processes one decodes and the others wait for it.

    The lock sits on the folder itself and leaves no file. Under it, what a killed process
    left half-written belongs to nobody and is removed.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):  # Windows, or a disk without locks
            import fcntl

            handle = os.open(root, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
            for stale in root.glob(_SCRATCH + "*"):
                shutil.rmtree(stale, ignore_errors=True)
        yield


@contextlib.contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=root, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _publish(part: Path, path: Path) -> None:
    """Give a finished file its name: on the disk first, so that the name never shows a part."""
    with open(part, "r+b") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
