"""torchvision's CIFAR-10: five training batches and a test batch, each a Python 2 pickle.

A batch is read only after its md5 was found right, and then by `rclib.data.pickled_batch`, which
runs nothing. The archive is not unpacked to disk.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import torch
from torch import Tensor

from rclib.data.pickled_batch import parse_batch
from rclib.files.archives import Bounded, stream_md5
from rclib.files.plain import DataError, open_plain, read_plain

__all__ = ["ARCHIVE", "BATCHES", "decode_batches"]

BATCHES, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"  # torchvision's names

# The archive has 170,498,071 bytes and unpacks to 186 million, a batch has 31 million bytes.
_MAX_ARCHIVE, _MAX_UNPACKED, _MAX_BATCH = 2**28, 2**28, 2**25


def decode_batches(source: Path) -> dict[str, Tensor]:
    """Images and labels of torchvision's archive or unpacked folder.

    Raises DataError for a file that is not what torchvision expects, and what
    `rclib.files.archives.DAMAGE` lists for one that cannot be read.
    """
    from torchvision.datasets import CIFAR10

    parts = {"train": CIFAR10.train_list, "test": CIFAR10.test_list}
    names = {name for files in parts.values() for name, _ in files}
    if source.is_dir():
        blobs = {name: read_plain(source / name, _MAX_BATCH) for name in sorted(names)}
    else:
        blobs = _unpack(source, names, CIFAR10.tgz_md5)
    arrays: dict[str, Tensor] = {}
    for split, files in parts.items():
        images: list[Tensor] = []
        labels: list[int] = []
        for name, md5 in files:
            content = blobs.get(name, b"")
            found = hashlib.md5(content, usedforsecurity=False).hexdigest()
            _check_md5(source / name, len(content), found, md5)
            try:
                pixels, numbers = parse_batch(content)
            except ValueError as error:
                raise DataError(f"{source / name} is refused: {error}") from None
            images.append(torch.from_numpy(pixels))
            labels += numbers
        arrays[f"x_{split}"] = torch.cat(images).reshape(-1, 3, 32, 32)
        arrays[f"y_{split}"] = torch.tensor(labels, dtype=torch.uint8)
    return arrays


def _unpack(source: Path, names: set[str], md5: str) -> dict[str, bytes]:
    blobs: dict[str, bytes] = {}
    with open_plain(source, _MAX_ARCHIVE) as file:
        _check_md5(source, file.seek(0, io.SEEK_END), stream_md5(file), md5)
        with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
            bounded = Bounded(unpacked, step=_MAX_BATCH, end=_MAX_UNPACKED)
            with tarfile.open(fileobj=bounded, mode="r:") as tar:
                for member in tar:
                    name = member.name.rpartition("/")[2]
                    if name not in names or not member.isreg():
                        continue
                    # A sparse file has holes, so its size has no bound in the archive.
                    if member.issparse() or member.size > _MAX_BATCH or name in blobs:
                        raise DataError(
                            f"{source}: member {member.name!r} is refused: sparse, there twice, "
                            f"or of more than {_MAX_BATCH:,} bytes"
                        )
                    stream = tar.extractfile(member)
                    blobs[name] = stream.read() if stream else b""
    return blobs


def _check_md5(path: Path, size: int, found: str, expected: str) -> None:
    if found != expected:
        raise DataError(
            f"{path} is damaged or incomplete: {size:,} bytes with md5 {found}, "
            f"torchvision expects {expected}; delete or replace it"
        )
