"""Images in an image folder or a zip of one: train/<class>/* and test/<class>/*, png or jpg.

An archive is data from elsewhere: nothing is extracted to disk, and every name, kind and size is
checked before it is read.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rclib.files.archives import Bounded, some
from rclib.files.plain import DataError, open_plain, read_plain

__all__ = ["decode_folder", "decode_zip"]

_SUFFIXES = (".png", ".jpg", ".jpeg")
# A 32 x 32 image needs about 3 KiB. Anything far above is no such image.
_MAX_BYTES, _MAX_TOTAL, _MAX_IMAGES = 2**20, 2**30, 100_000
_MAX_ZIP = 2**31
_MAX_DIRECTORY = 2**24  # bytes of a zip's list of members; 60,000 images take 8 million
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # these two decompress in bounded steps


def decode_zip(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Images and labels of a zip, and whether one image was a JPEG.

    Raises DataError for a refused archive or image, and what `rclib.files.archives.DAMAGE` lists
    for a damaged archive.
    """
    with (
        open_plain(path, _MAX_ZIP) as file,
        zipfile.ZipFile(
            Bounded(file, step=_MAX_DIRECTORY, end=os.fstat(file.fileno()).st_size)
        ) as archive,
    ):
        members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            name, mode = info.filename, stat.S_IFMT(info.external_attr >> 16)
            where = f"{path}: member {name!r}"
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise DataError(f"{where} is refused: its path leaves the archive")
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"{where} is refused: a link or special file")
            if info.compress_type not in _METHODS or info.flag_bits & 1:
                raise DataError(f"{where} is refused: encrypted, or neither stored nor deflated")
            if name in members:
                raise DataError(f"{where} is refused: it is there twice")
            members[name] = info

        def read(name: str) -> bytes:
            # A bound on the read as well: the declared size may lie.
            with archive.open(members[name]) as stream:
                return stream.read(_MAX_BYTES + 1)

        sizes = {name: max(i.file_size, i.compress_size) for name, i in members.items()}
        return _decode_images(path, sizes, read)


def decode_folder(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Images and labels of a folder, and whether one image was a JPEG.

    Raises DataError for a refused folder or image, OSError for what the system refuses.
    """
    home = path.resolve()
    sizes: dict[str, int] = {}
    for folder, _, names in os.walk(home, followlinks=False):
        for file in (Path(folder, name) for name in names):
            if file.is_symlink() and not file.resolve().is_relative_to(home):
                raise DataError(f"{file} is refused: a link that leaves {path}")
            if not file.is_file():
                raise DataError(f"{file} is refused: not a plain file")
            sizes[file.relative_to(home).as_posix()] = file.stat().st_size
    return _decode_images(path, sizes, lambda name: read_plain(home / name, _MAX_BYTES))


def _decode_images(
    where: Path, sizes: dict[str, int], read: Callable[[str], bytes]
) -> tuple[dict[str, Tensor], bool]:
    """All images of an image folder, sorted by class and name; and whether one was a JPEG."""
    from tqdm import tqdm

    classes, listing = _listing(where, sizes)
    jpeg = False
    arrays: dict[str, Tensor] = {}
    quiet = os.environ.get("TQDM_DISABLE", "") not in ("", "0")  # notebook bars do not look
    total = sum(map(len, listing.values()))
    with tqdm(total=total, desc="decoding CIFAR-10", unit="img", disable=quiet) as bar:
        for split, names in listing.items():
            images = torch.empty(len(names), 3, 32, 32, dtype=torch.uint8)
            rows = images.numpy()
            for row, name in zip(rows, names, strict=True):
                try:
                    row[:], was_jpeg = _decode_one(read(name))
                except Exception as error:  # zip, zlib and Pillow raise a dozen kinds
                    reason = f"{type(error).__name__}: {error}".replace("\n", " ")
                    raise DataError(f"{where}: image {name!r} cannot be read: {reason}") from None
                jpeg |= was_jpeg
                bar.update()
            labels = [classes.index(name.split("/")[-2]) for name in names]
            arrays[f"x_{split}"] = images
            arrays[f"y_{split}"] = torch.tensor(labels, dtype=torch.uint8)
    return arrays, jpeg


def _listing(where: Path, sizes: dict[str, int]) -> tuple[list[str], dict[str, list[str]]]:
    """The ten class names and, for train and test, the names of the images; all sorted."""
    listing: dict[str, list[str]] = {"train": [], "test": []}
    tops, total = set(), 0
    for parts in sorted(name.split("/") for name in sizes):
        name = "/".join(parts)
        hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
        image = name.lower().endswith(_SUFFIXES) and len(parts) > 2 and parts[-3] in listing
        if hidden or not image:
            continue
        if sizes[name] > _MAX_BYTES:
            raise DataError(
                f"{where}: image {name!r} is refused: {sizes[name]:,} bytes, more than "
                f"{_MAX_BYTES:,}"
            )
        total += sizes[name]
        tops.add("/".join(parts[:-3]))
        listing[parts[-3]].append(name)
    count = sum(map(len, listing.values()))
    if total > _MAX_TOTAL or count > _MAX_IMAGES:
        raise DataError(
            f"{where} is refused: {count:,} images of {total:,} bytes, more than "
            f"{_MAX_IMAGES:,} or {_MAX_TOTAL:,} bytes"
        )
    classes = {split: sorted({n.split("/")[-2] for n in names}) for split, names in listing.items()}
    if len(tops) != 1 or len(classes["train"]) != 10 or classes["train"] != classes["test"]:
        raise DataError(
            f"{where} must hold png or jpg images of the same ten classes as train/<class>/* "
            f"and test/<class>/*; found classes {some(classes['train'])} in train, "
            f"{some(classes['test'])} in test"
            + (f", in more than one folder: {some(sorted(tops))}" if len(tops) > 1 else "")
        )
    return classes["train"], listing


def _decode_one(content: bytes) -> tuple[np.ndarray, bool]:
    from PIL import Image

    # The size is known from the header, before any pixel is decoded.
    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
        if image.size != (32, 32):
            raise ValueError(f"it must be 32 x 32 pixels, got {image.width} x {image.height}")
        pixels = np.asarray(image.convert("RGB"))
        return pixels.transpose(2, 0, 1), image.format == "JPEG"
