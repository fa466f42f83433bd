"""rclib.data.images and rclib.data.cifar10: against scikit-learn and Pillow, and with bad archives.

Every archive is made here. torchvision's download runs for real, from a server on 127.0.0.1.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

import rclib.data.image_folder
from rclib.data.images import DataError, Dataset, load

CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]
CLASSES += ["dog", "frog", "horse", "ship", "truck"]
PER_CLASS = {"train": 4, "test": 2}
Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def _quiet_and_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_OFFLINE", "1")
    monkeypatch.delenv("RCLIB_DATA", raising=False)


def encode(pixels: np.ndarray, kind: str = "png") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, {"jpg": "JPEG"}.get(kind, kind))
    return out.getvalue()


@functools.cache
def pictures(split: str) -> np.ndarray:
    """(10, per class, 32, 32, 3) uint8: smooth gradients with noise, other colours a class."""
    random = np.random.default_rng(["train", "test"].index(split))
    shape = (10, PER_CLASS[split], 32, 32, 3)
    ramp = np.linspace(0, 90, 32).reshape(1, 1, 32, 1, 1)
    colour = random.integers(0, 120, (10, 1, 1, 1, 3))
    return (ramp + colour + random.integers(0, 40, shape)).astype(np.uint8)


def image_files(kind: str = "png") -> Files:
    """Paths and contents of an image folder, in no particular order."""
    files = {
        f"{split}/{name}/{i:04d}.{kind}": encode(pictures(split)[c, i], kind)
        for split in ("test", "train")
        for i in range(PER_CLASS[split])
        for c, name in reversed(list(enumerate(CLASSES)))
    }
    return {**files, "README.txt": b"no image"}


def write_zip(path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_folder(path: Path, files: Files) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def kept(root: Path) -> list[Path]:
    return list(root.glob("rclib-cifar10-*.safetensors"))


def left(root: Path) -> set[str]:
    """What `root` holds, without the array file."""
    return {path.name for path in root.iterdir()} - {path.name for path in kept(root)}


def expected(split: str, kind: str = "png") -> tuple[np.ndarray, np.ndarray]:
    """Standardised images and labels, computed with numpy in float64 from Pillow's pixels."""

    def pixels(which: str) -> np.ndarray:
        flat = pictures(which).reshape(-1, 32, 32, 3)
        if kind != "png":
            flat = np.stack([np.asarray(Image.open(io.BytesIO(encode(p, kind)))) for p in flat])
        return flat.transpose(0, 3, 1, 2).astype(float)

    train = pixels("train")
    mean = train.mean((0, 2, 3), keepdims=True)
    std = train.std((0, 2, 3), keepdims=True)
    x = ((pixels(split) - mean) / std).reshape(-1, 3072)
    return x, np.repeat(np.arange(10), PER_CLASS[split])


def assert_is_expected(data: Dataset, kind: str = "png") -> None:
    for split, (x, y) in {
        "train": (data.x_train, data.y_train),
        "test": (data.x_test, data.y_test),
    }.items():
        want_x, want_y = expected(split, kind)
        torch.testing.assert_close(x.double(), torch.from_numpy(want_x), atol=2e-6, rtol=0)
        assert y.tolist() == want_y.tolist()
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert x.is_contiguous()


# --- digits -------------------------------------------------------------------------------


def test_digits_are_scikit_learns_images_each_once() -> None:
    x_train, y_train, x_test, y_test = data = load("digits")
    assert (x_train.shape, x_test.shape) == ((1437, 64), (360, 64))
    bunch = load_digits()
    # Undo the standardisation: one channel, so two numbers map pixels 0 ... 16 to the tensor.
    everything = torch.cat([x_train, x_test]).double()
    low, high = everything.min(), everything.max()
    pixels = ((everything - low) / (high - low) * 16).round().to(torch.int64)
    labels = torch.cat([y_train, y_test])
    ours = sorted((*row, y) for row, y in zip(pixels.tolist(), labels.tolist(), strict=True))
    theirs = sorted(
        (*row, y)
        for row, y in zip(bunch.data.astype(int).tolist(), bunch.target.tolist(), strict=True)
    )
    assert ours == theirs
    assert data.n_classes == len(bunch.target_names)
    assert data.description == "scikit-learn digits"


def test_digits_split_is_stratified_and_repeats() -> None:
    data, again = load("digits"), load("digits")
    share = np.bincount(load_digits().target) * 360 / 1797
    assert np.abs(np.bincount(data.y_test.numpy()) - share).max() < 1
    assert all(torch.equal(a, b) for a, b in zip(data, again, strict=True))
    assert data.checksum == again.checksum


def test_standardisation_uses_the_training_set_alone(tmp_path: Path) -> None:
    write_zip(tmp_path / "cifar10.zip", image_files())
    for data, channels in ((load("digits"), 1), (load("cifar10", root=tmp_path), 3)):
        train = data.x_train.double().unflatten(1, (channels, -1))
        torch.testing.assert_close(
            train.mean((0, 2)), torch.zeros(channels).double(), atol=1e-6, rtol=0
        )
        torch.testing.assert_close(
            train.std((0, 2), correction=0), torch.ones(channels).double(), atol=1e-6, rtol=0
        )
        # The test set's own mean is not 0: its statistics were not used.
        test = data.x_test.double().unflatten(1, (channels, -1)).mean((0, 2))
        assert test.abs().max() > 1e-3


def test_unknown_name_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"cifar10, digits, got 'mnist'"):
        load("mnist")


# --- Dataset ------------------------------------------------------------------------------


def test_subsets_are_nested_parts_of_the_set() -> None:
    data = load("digits")
    small, large = data.subset(50, 20), data.subset(200)
    assert torch.equal(small.x_train, large.x_train[:50])
    assert torch.equal(large.x_test, data.x_test)
    for x, y, all_x, all_y in (
        (small.x_train, small.y_train, data.x_train, data.y_train),
        (small.x_test, small.y_test, data.x_test, data.y_test),
    ):
        places = [int((all_x == image).all(1).nonzero()[0]) for image in x]
        assert len(set(places)) == len(x) == len(y)  # different images of the set
        assert torch.equal(all_y[places], y)
    assert small.y_train.unique().numel() > 5  # not sorted by class
    others = (data, small, large, data.subset(50), data.subset(50, 20, seed=1))
    assert len({d.checksum for d in others}) == len(others)
    assert small.description == "scikit-learn digits, subset of 50 + 20 images"


@pytest.mark.parametrize(
    ("argument", "value"), [("n_train", 0), ("n_train", 1438), ("n_test", 1.5)]
)
def test_subset_names_a_wrong_number(argument: str, value: float) -> None:
    sizes = {"n_train": 10, "n_test": 10, argument: value}
    with pytest.raises(ValueError, match=rf"{argument} must .* got {re.escape(str(value))}"):
        load("digits").subset(**sizes)  # type: ignore[arg-type]


def test_to_and_share_memory_keep_the_values() -> None:
    data = load("digits")
    moved = data.to("meta")
    assert all(t.device.type == "meta" for t in moved)
    assert moved.checksum == data.checksum
    before = [t.clone() for t in data]
    shared = data.share_memory()
    assert all(t.is_shared() for t in shared)
    assert all(torch.equal(a, b) for a, b in zip(before, shared, strict=True))


# --- image folders and zips ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_image_folder_and_zip(
    tmp_path: Path, kind: str, write: Callable[[Path, Files], Path]
) -> None:
    name = "cifar10-small.zip" if write is write_zip else "cifar10_small"
    write(tmp_path / name, image_files(kind))
    data = load("cifar10", root=tmp_path)
    assert_is_expected(data, kind)
    what = "JPEG-compressed copy," if kind == "jpg" else "image folder"
    assert data.description == f"CIFAR-10 ({what} {name}, 40 + 20 images)"
    assert left(tmp_path) == {name}


@pytest.mark.parametrize(
    "name", ["CIFAR-10-images-master", "cifar_10", "Cifar10 png", "CIFAR-10.v2", "cifar10"]
)
@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_the_name_is_compared_without_capitals_hyphens_and_underscores(
    tmp_path: Path, name: str, write: Callable[[Path, Files], Path]
) -> None:
    # The archive of a repository holds its folder, whose images are two folders down.
    inside = {f"{name}/{path}": content for path, content in image_files().items()}
    write(tmp_path / (f"{name}.zip" if write is write_zip else name), inside)
    assert_is_expected(load("cifar10", root=tmp_path, download=False))


def test_other_sets_are_not_taken_for_it_and_what_is_there_is_said(tmp_path: Path) -> None:
    for name in ("CIFAR-100-images", "cifar-10-batches-bin", "images10", "cifar-100-python"):
        write_folder(tmp_path / name, {"train/cat/0000.png": b""})
    with pytest.raises(DataError, match=r"it holds \['CIFAR-100-images', 'cifar-10-batches-bin'"):
        load("cifar10", root=tmp_path, download=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="it is empty"):
        load("cifar10", root=tmp_path / "empty", download=False)
    with pytest.raises(DataError, match="the folder is not there"):
        load("cifar10", root=tmp_path / "nowhere", download=False)


def test_checksum_belongs_to_the_data_not_to_the_container(tmp_path: Path) -> None:
    for folder in "abcd":
        (tmp_path / folder).mkdir()
    write_zip(tmp_path / "a" / "cifar10.zip", image_files())
    write_folder(tmp_path / "b" / "cifar10png", image_files())
    inside = {f"cifar10/{name}": content for name, content in image_files().items()}
    write_zip(tmp_path / "c" / "cifar10-other.zip", inside, zipfile.ZIP_STORED)
    other = image_files()
    other["train/cat/0000.png"] = other["train/dog/0000.png"]
    write_zip(tmp_path / "d" / "cifar10.zip", other)
    a, b, c, d = (load("cifar10", root=tmp_path / folder).checksum for folder in "abcd")
    assert a == b == c != d


def test_rclib_data_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(tmp_path / "cifar10.zip", image_files())
    monkeypatch.setenv("RCLIB_DATA", str(tmp_path))
    assert_is_expected(load("cifar10"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RCLIB_DATA", "somewhere/else")
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "somewhere/else"))):
        load("cifar10")


def test_two_archives_are_reported(tmp_path: Path) -> None:
    for name in ("cifar10-a.zip", "cifar10-b.zip", "cifar100.zip"):
        write_zip(tmp_path / name, image_files())
    with pytest.warns(UserWarning, match=r"using .*cifar10-a\.zip, not cifar10-b\.zip; keep one"):
        assert "cifar10-a.zip" in load("cifar10", root=tmp_path).description


def png(width: int, height: int) -> bytes:
    return encode(np.zeros((height, width, 3), np.uint8))


@pytest.mark.parametrize("write", [write_zip, write_folder])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train/cat/0001.png": png(32, 31)}, r"'train/cat/0001\.png'.* 32 x 32 .* got 32 x 31"),
        (
            {"train/cat/0001.png": encode(np.zeros((32, 32, 3), np.uint8), "gif")},
            r"'train/cat/0001\.png' cannot be read",
        ),
        ({"train/cat/0001.png": png(32, 32)[:-30]}, r"'train/cat/0001\.png' cannot be read"),
        ({"train/eel/0001.png": png(32, 32)}, r"same ten classes .*'eel'"),
        ({"test/cat/0000.png": None, "test/cat/0001.png": None}, r"same ten classes"),
        ({"test/cat/0000.png": bytes(2**20 + 1)}, r"'test/cat/0000\.png' is refused: 1,048,577"),
    ],
)
def test_wrong_image_files_are_named(
    tmp_path: Path,
    write: Callable[[Path, Files], Path],
    change: dict[str, bytes | None],
    message: str,
) -> None:
    files = {name: content for name, content in {**image_files(), **change}.items() if content}
    path = write(tmp_path / ("cifar10.zip" if write is write_zip else "cifar10"), files)
    with pytest.raises(DataError, match=message) as caught:
        load("cifar10", root=tmp_path)
    assert str(path) in str(caught.value)
    assert left(tmp_path) == {path.name}
    assert kept(tmp_path) == []


# --- damaged and hostile archives ----------------------------------------------------------


def test_zip_truncated_anywhere_is_named_and_its_replacement_works(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "cifar10.zip", image_files())
    whole = path.read_bytes()
    for length in [0, 10, *range(1, len(whole), len(whole) // 20), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=re.escape(str(path))):
            load("cifar10", root=tmp_path)
        assert left(tmp_path) == {path.name}
    path.write_bytes(whole)
    assert_is_expected(load("cifar10", root=tmp_path))


def test_flipped_bit_in_a_member_is_named(tmp_path: Path) -> None:
    files = image_files()
    path = write_zip(tmp_path / "cifar10.zip", files, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(files["test/frog/0001.png"]) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cifar10\.zip: image 'test/frog/0001\.png'.*CRC"):
        load("cifar10", root=tmp_path)


def special(name: str, **fields: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../outside.png", "its path leaves the archive"),
        ("train/cat/../../../outside.png", "its path leaves the archive"),
        ("/outside.png", "its path leaves the archive"),
        ("..\\outside.png", "its path leaves the archive"),
        (special("train/cat/link.png", external_attr=0o120777 << 16), "a link or special file"),
        (
            special("train/cat/z.png", compress_type=zipfile.ZIP_BZIP2),
            "neither stored nor deflated",
        ),
        ("train/cat/0000.png", "there twice"),
    ],
)
def test_hostile_members_are_refused(
    tmp_path: Path, member: str | zipfile.ZipInfo, message: str
) -> None:
    root = tmp_path / "inner"
    root.mkdir()
    path = write_zip(root / "cifar10.zip", image_files())
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # zipfile's, about the name that is there twice
        archive.writestr(member, b"/etc/passwd")
    with pytest.raises(DataError, match=rf"cifar10\.zip: member '.*' is refused: .*{message}"):
        load("cifar10", root=root)
    assert left(root) == {path.name}
    assert left(tmp_path) == {"inner"}


@pytest.mark.parametrize("lie", [False, True])
def test_zip_bomb_is_refused_and_takes_no_memory(tmp_path: Path, lie: bool) -> None:
    """64 MiB of zeros in 64 KiB, declared as they are or as a hundred bytes."""
    size = 64 * 2**20
    path = write_zip(tmp_path / "cifar10.zip", image_files() | {"train/cat/0000.png": bytes(size)})
    if lie:
        content, real = path.read_bytes(), size.to_bytes(4, "little")
        assert content.count(real) == 2  # the member's own header and the directory's
        path.write_bytes(content.replace(real, (100).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"cifar10\.zip: image 'train/cat/0000\.png'"):
            load("cifar10", root=tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size / 4


@pytest.mark.parametrize(("bound", "value"), [("_MAX_IMAGES", 59), ("_MAX_TOTAL", 50_000)])
def test_too_many_images_or_bytes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    write_zip(tmp_path / "cifar10.zip", image_files())
    monkeypatch.setattr(rclib.data.image_folder, bound, value)  # the real ones take a large archive
    with pytest.raises(DataError, match=rf"cifar10\.zip is refused: 60 images of .*{value:,}"):
        load("cifar10", root=tmp_path)


def test_links_in_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = write_folder(root / "cifar10", image_files())
    inside, outside = folder / "train/cat/0000.png", tmp_path / "outside.png"
    inside.rename(folder / "elsewhere.png")
    inside.symlink_to("../../elsewhere.png")
    assert_is_expected(load("cifar10", root=root))
    outside.write_bytes(png(32, 32))
    inside.unlink()
    inside.symlink_to(outside)
    with pytest.raises(DataError, match=r"train/cat/0000\.png is refused: a link that leaves"):
        load("cifar10", root=root)
    inside.unlink()
    os.mkfifo(inside)
    with pytest.raises(DataError, match=r"train/cat/0000\.png is refused: not a plain file"):
        load("cifar10", root=root)


# --- the kept array file -------------------------------------------------------------------


def test_kept_file_is_used_until_the_source_changes(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "cifar10.zip", image_files())
    first = load("cifar10", root=tmp_path)
    # Same size and time, no longer decodable: only the kept file can answer.
    state = path.stat()
    path.write_bytes(bytes(state.st_size))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    second = load("cifar10", root=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert (first.description, first.checksum) == (second.description, second.checksum)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(DataError, match=r"cifar10\.zip"):
        load("cifar10", root=tmp_path)


def test_folder_is_decoded_again_when_one_file_changes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cifar10", image_files())
    first = load("cifar10", root=tmp_path)
    (folder / "train/cat/0000.png").write_bytes(png(32, 32))
    assert load("cifar10", root=tmp_path).checksum != first.checksum


@pytest.mark.slow
def test_damage_anywhere_in_the_kept_file_is_found_and_repaired(tmp_path: Path) -> None:
    write_zip(tmp_path / "cifar10.zip", image_files())
    first = load("cifar10", root=tmp_path)
    (file,) = kept(tmp_path)
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    described = whole.index(b"40 + 20")
    damaged = [whole[:n] for n in (0, 7, 100, header, len(whole) // 2, len(whole) - 1)]
    for place in (0, 5, 7, 8, 20, described, header, len(whole) // 2, len(whole) - 1):
        for bit in (0, 6):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            damaged.append(bytes(flipped))
    for content in damaged:
        file.write_bytes(content)
        with open(file, "rb") as reader:
            with pytest.warns(UserWarning, match=re.escape(f"{file} is damaged")):
                data = load("cifar10", root=tmp_path)
            assert reader.read() == content  # replaced, not written over under a reader
        assert (data.checksum, data.description) == (first.checksum, first.description)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the file is whole again
            assert load("cifar10", root=tmp_path).checksum == first.checksum
        assert_is_expected(data)


def test_read_only_folder_works_without_the_kept_file() -> None:
    # Not pytest's folder: another user could not enter it.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "data"
        root.mkdir()
        write_zip(root / "cifar10.zip", image_files())
        assert_is_expected(load("cifar10", root=root))  # and everything needed is imported
        for file in kept(root):
            file.unlink()
        os.chmod(name, 0o755)
        os.chmod(root, 0o555)
        user = os.geteuid()
        try:
            if user == 0:  # nothing is read-only for the superuser
                os.seteuid(65534)
            with pytest.warns(UserWarning, match=r"cannot keep the decoded images in .*data"):
                data = load("cifar10", root=root)
        finally:
            os.seteuid(user)
            os.chmod(root, 0o755)
        assert_is_expected(data)
        assert left(root) == {"cifar10.zip"}
        assert kept(root) == []


STOPPED = """
import resource, signal, sys, warnings
from rclib.data.images import load
root = sys.argv[1]
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
with warnings.catch_warnings(record=True) as caught:  # Python ignores SIGXFSZ: writing fails
    warnings.simplefilter("always")
    load("cifar10", root=root)
print([str(w.message) for w in caught], flush=True)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # now the kernel kills the writer half way
load("cifar10", root=root)
print("not reached")
"""


@pytest.mark.slow
def test_full_disk_and_killed_writer_leave_no_half_file(tmp_path: Path) -> None:
    write_zip(tmp_path / "cifar10.zip", image_files())
    result = subprocess.run(
        [sys.executable, "-B", "-c", STOPPED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TQDM_DISABLE": "1"},
    )
    assert result.returncode == -signal.SIGXFSZ, result.stderr
    assert "cannot keep the decoded images" in result.stdout
    assert "not reached" not in result.stdout
    # The killed process could not clean up; its part has no valid name and goes with the next run.
    assert kept(tmp_path) == []
    parts = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".zip"]
    assert [path.stat().st_size for path in parts] == [65536]
    assert_is_expected(load("cifar10", root=tmp_path))
    assert left(tmp_path) == {"cifar10.zip"}
    assert len(kept(tmp_path)) == 1


def test_callers_at_the_same_time_decode_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads stand for processes here: the lock is on the folder and each opens it anew."""
    write_zip(tmp_path / "cifar10.zip", image_files())
    opened, real_open, callers = [], Image.open, 4

    def counting_open(*args: Any, **kwargs: Any) -> Image.Image:
        opened.append(1)
        return real_open(*args, **kwargs)

    monkeypatch.setattr(Image, "open", counting_open)
    barrier = threading.Barrier(callers, timeout=60)

    def call(_: int) -> str:
        barrier.wait()
        return load("cifar10", root=tmp_path).checksum

    with ThreadPoolExecutor(callers) as pool:
        checksums = set(pool.map(call, range(callers)))
    assert len(opened) == 60
    assert checksums == {load("cifar10", root=tmp_path).checksum}
    assert left(tmp_path) == {"cifar10.zip"}
    assert len(kept(tmp_path)) == 1


# --- torchvision's archive and download ----------------------------------------------------


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small archive in the real layout; torchvision expects its checksums from now on."""
    flat = {
        split: (
            pictures(split).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2).reshape(-1, 3072),
            np.repeat(np.arange(10), PER_CLASS[split]).tolist(),
        )
        for split in ("train", "test")
    }
    batches = {f"data_batch_{i + 1}": ("train", slice(8 * i, 8 * i + 8)) for i in range(5)}
    blobs = {}
    for name, (split, rows) in {**batches, "test_batch": ("test", slice(None))}.items():
        x, y = flat[split]
        entry = {"batch_label": name, "labels": y[rows], "data": x[rows], "filenames": []}
        blobs[name] = pickle.dumps(entry, protocol=2)
    blobs["batches.meta"] = pickle.dumps({"label_names": CLASSES}, protocol=2)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, blob in blobs.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    cifar = torchvision.datasets.CIFAR10
    md5 = {name: hashlib.md5(blob).hexdigest() for name, blob in blobs.items()}
    monkeypatch.setattr(cifar, "tgz_md5", hashlib.md5(out.getvalue()).hexdigest())
    monkeypatch.setattr(cifar, "train_list", [[name, md5[name]] for name in batches])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": md5["batches.meta"]})
    return out.getvalue()


@pytest.fixture
def server(
    tmp_path: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, list[str]]]:
    """The file served on 127.0.0.1 and the list of requests so far."""
    served = tmp_path / "served" / "cifar-10-python.tar.gz"
    served.parent.mkdir()
    served.write_bytes(archive)
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            requests.append(format % args)

    handler = functools.partial(Handler, directory=str(served.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{running.server_port}/{served.name}"
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.delenv("RCLIB_OFFLINE")
        try:
            yield served, requests
        finally:
            running.shutdown()
            thread.join()


def test_torchvisions_archive_and_folder(tmp_path: Path, archive: bytes) -> None:
    packed, unpacked = tmp_path / "packed", tmp_path / "unpacked"
    packed.mkdir()
    (packed / "cifar-10-python.tar.gz").write_bytes(archive)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(unpacked, filter="data")
    # Read by torchvision itself: the same images in the same order.
    theirs = torchvision.datasets.CIFAR10(str(unpacked), train=True)
    pixels = theirs.data.astype(float).transpose(0, 3, 1, 2)
    scaled = (pixels - pixels.mean((0, 2, 3), keepdims=True)) / pixels.std((0, 2, 3), keepdims=True)
    for root in (packed, unpacked):
        before = left(root)
        data = load("cifar10", root=root)
        assert_is_expected(data)
        want = torch.from_numpy(scaled.reshape(-1, 3072))
        torch.testing.assert_close(data.x_train.double(), want, atol=2e-6, rtol=0)
        assert data.y_train.tolist() == theirs.targets
        assert data.description == "CIFAR-10 (40 + 20 images)"
        assert left(root) == before


def test_torchvisions_archive_comes_before_an_image_folder(tmp_path: Path, archive: bytes) -> None:
    write_zip(tmp_path / "cifar10.zip", image_files("jpg"))
    assert "JPEG" in load("cifar10", root=tmp_path).description
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive)
    assert "JPEG" not in load("cifar10", root=tmp_path).description


def test_damaged_torchvision_files_are_named_and_nothing_else_is_used(
    tmp_path: Path, archive: bytes
) -> None:
    write_zip(tmp_path / "cifar10.zip", image_files())
    packed = tmp_path / "cifar-10-python.tar.gz"
    packed.write_bytes(archive[:-100])
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz is damaged .* md5"):
        load("cifar10", root=tmp_path)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(tmp_path, filter="data")
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    blob = bytearray(batch.read_bytes())
    blob[500] ^= 1
    batch.write_bytes(blob)
    with pytest.raises(DataError, match=r"cifar-10-batches-py.data_batch_3 is damaged"):
        load("cifar10", root=tmp_path)
    batch.unlink()
    with pytest.raises(DataError, match=r"data_batch_3"):
        load("cifar10", root=tmp_path)


def test_download_once(tmp_path: Path, server: tuple[Path, list[str]]) -> None:
    root = tmp_path / "new" / "data"
    data = load("cifar10", root=root)
    assert_is_expected(data)
    assert left(root) == {"cifar-10-python.tar.gz"}
    count = len(server[1])
    assert count > 0
    assert load("cifar10", root=root).checksum == data.checksum
    assert len(server[1]) == count


def test_corrupted_download_leaves_nothing_and_the_next_run_works(
    tmp_path: Path, server: tuple[Path, list[str]]
) -> None:
    served, _ = server
    whole, root = served.read_bytes(), tmp_path / "data"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (bytes(flipped), whole[:-1]):
        served.write_bytes(content)
        with pytest.raises(DataError, match=rf"{len(content):,} bytes arrived; expected md5"):
            load("cifar10", root=root)
        assert left(root) == set()
    served.unlink()
    with pytest.raises(DataError, match="404"):
        load("cifar10", root=root)
    served.write_bytes(whole)
    assert_is_expected(load("cifar10", root=root))


def test_nothing_there_lists_the_three_ways(
    tmp_path: Path, server: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = ("cifar-10-python.tar.gz", "cifar10*.zip", "download", "RCLIB_DATA", str(tmp_path))
    for allowed, offline, reason in (
        (False, "0", "download=False"),
        (True, "1", "RCLIB_OFFLINE is set"),
    ):
        monkeypatch.setenv("RCLIB_OFFLINE", offline)
        with pytest.raises(DataError) as caught:
            load("cifar10", root=tmp_path, download=allowed)
        assert all(part in str(caught.value) for part in (*ways, reason))
    assert server[1] == []  # nothing was asked for


def test_download_of_another_process_is_waited_for_and_used(
    tmp_path: Path, archive: bytes, server: tuple[Path, list[str]]
) -> None:
    fcntl, locks = pytest.importorskip("fcntl"), Path("/proc/locks")
    if not locks.is_file():
        pytest.skip("the kernel does not list its locks")
    root = tmp_path / "data"
    root.mkdir()
    waiting = re.compile(rf"-> FLOCK .*:{root.stat().st_ino} ")
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(load, "cifar10", root=root)
            for _ in range(600):
                if waiting.search(locks.read_text()):  # it found no source and wants the folder
                    break
                time.sleep(0.1)
            (root / "cifar-10-python.tar.gz").write_bytes(archive)
            fcntl.flock(handle, fcntl.LOCK_UN)
            assert_is_expected(found.result(60))
    finally:
        os.close(handle)
    assert server[1] == []  # nothing was asked for
