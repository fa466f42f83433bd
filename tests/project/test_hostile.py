"""Files from elsewhere that lie, never end or carry code: each is refused by name, in bounds.

Archives and pickles of CIFAR-10, results files, parameters files, stored runs. Every attack is
made here and given to the reader that users call. `tests/test_data.py` and `tests/test_store.py`
hold what damage, not malice, does to the same files.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

import rclib.data.cifar10
from rclib.data.images import DataError, Dataset, load
from rclib.data.pickled_batch import parse_batch
from rclib.execution import runner
from rclib.experiments.mean_field import mlp_runs
from rclib.files.archives import Bounded
from rclib.files.plain import read_plain
from rclib.files.strict import parse_json, parse_yaml
from rclib.reports import readme, replication, scoreboard
from rclib.runs import store
from rclib.study import results
from rclib.study.claims import Claims, above
from rclib.study.papers import committed_runs, load_papers

CLASSES = [f"class{i}" for i in range(10)]
# Bounded and repeatable: the same examples at every run.
few = settings(max_examples=60, derandomize=True, deadline=None, database=None)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_OFFLINE", "1")


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """The block must not hold more than `size` bytes at any time (Python's and numpy's)."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size, f"{peak:,} bytes"


def refused(root: Path, file: str, reason: str) -> str:
    """The message with which `load` refuses the file; nothing is left or made in `root`."""
    before = set(root.parent.rglob("*"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=reason) as caught:
            load("cifar10", root=root)
    message = str(caught.value)
    assert file in message
    assert "\n" not in message
    assert len(message) < 2500
    assert set(root.parent.rglob("*")) == before
    return message


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(out, "png")
    return out.getvalue()


def images() -> dict[str, bytes]:
    """The smallest image folder: one image a class and split."""
    return {
        f"{split}/{name}/0.png": png(10 * i + j)
        for j, split in enumerate(("train", "test"))
        for i, name in enumerate(CLASSES)
    }


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


# --- zips and image folders ----------------------------------------------------------------


def test_zip_with_a_huge_directory_is_refused_before_it_is_read(root: Path) -> None:
    """Two million members of nothing would take two gigabytes; here the directory is of names."""
    files = {f"train/a/{i:04d}{'x' * 60_000}.png": b"" for i in range(300)}
    (root / "cifar10.zip").write_bytes(zipped(files))
    with at_most(2**26):
        refused(root, "cifar10.zip", "declares a part of more than 16,777,216 bytes")


def test_zip_that_declares_a_directory_it_does_not_have(root: Path) -> None:
    content = bytearray(zipped(images()))
    end = content.rindex(b"PK\5\6")
    content[end + 12 : end + 16] = (2**31 - 1).to_bytes(4, "little")  # its size
    (root / "cifar10.zip").write_bytes(content)
    with at_most(2**24):
        refused(root, "cifar10.zip", "cannot be read or is damaged")


@pytest.mark.parametrize("name", ["cifar10.zip", "cifar-10-python.tar.gz"])
def test_pipe_in_place_of_an_archive_does_not_hold_the_reader(root: Path, name: str) -> None:
    os.mkfifo(root / name)
    refused(root, name, "not a plain file")


@pytest.mark.parametrize("name", ["cifar10.zip", "cifar-10-python.tar.gz"])
def test_link_to_a_device_is_refused(root: Path, name: str) -> None:
    (root / name).symlink_to("/dev/zero")
    refused(root, name, "not a plain file")


@pytest.mark.parametrize("name", ["cifar10.zip", "cifar-10-python.tar.gz"])
def test_archive_of_a_terabyte_is_refused_unread(root: Path, name: str) -> None:
    with open(root / name, "wb") as file:
        file.truncate(2**40)  # takes no disk
    with at_most(2**24):
        refused(root, name, "is refused: 1,099,511,627,776 bytes")


@pytest.mark.parametrize("name", ["cifar10.zip", "cifar10", "cifar-10-python.tar.gz"])
def test_link_to_itself_or_to_nothing_is_refused(root: Path, name: str) -> None:
    if name != "cifar10":
        (root / name).symlink_to(name)
        refused(root, name, "cannot be read")
        return
    folder = root / name
    for path, content in images().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (folder / "train/class0/0.png").unlink()
    (folder / "train/class0/0.png").symlink_to("0.png")
    refused(root, name, "cannot be read")


def test_linked_folders_are_not_followed(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for path, content in images().items():
        for top in (root / "cifar10", elsewhere):
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_bytes(content)
    (root / "cifar10/train/class0/0.png").unlink()
    (root / "cifar10/train/class0").rmdir()
    (root / "cifar10/train/class0").symlink_to(elsewhere / "train/class0")
    (root / "cifar10/train/loop").symlink_to("..")
    refused(root, "cifar10", "same ten classes")


def test_message_stays_short_whatever_the_archive_holds(root: Path) -> None:
    files = {f"train/{i:04d}{'y' * 2000}/0.png": b"" for i in range(2000)}
    files |= {f"{i:04d}{'z' * 200}/test/a/0.png": b"" for i in range(100)}
    (root / "cifar10.zip").write_bytes(zipped(files))
    refused(root, "cifar10.zip", "2,000 in all.* in more than one folder: .*101 in all")


def test_name_that_is_no_text_is_described(root: Path) -> None:
    path = root / os.fsdecode(b"cifar10-\xff.zip")
    path.write_bytes(zipped(images()))
    data = load("cifar10", root=root)
    assert data.description == "CIFAR-10 (image folder cifar10-\\udcff.zip, 10 + 10 images)"
    assert same(data, load("cifar10", root=root))


def same(a: Dataset, b: Dataset) -> bool:
    return a.checksum == b.checksum and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def honest() -> bytes:
    return zipped(images())


@few
@given(st.data())
def test_zip_changed_anywhere_is_the_same_or_refused(
    honest: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(honest)
    directory = content.index(b"PK\1\2")
    for _ in range(data.draw(st.integers(1, 4))):
        # Most changes where the structure is: a member's own bytes are guarded by their CRC.
        low = data.draw(st.sampled_from([0, directory, len(content) - 22]))
        content[data.draw(st.integers(low, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    root = tmp_path_factory.mktemp("fuzz")
    (root / "cifar10.zip").write_bytes(bytes(content[:cut]))
    try:
        found = load("cifar10", root=root)
    except DataError as error:
        message = str(error)
    else:
        message = "cifar10.zip" if len(found.y_train) == len(found.y_test) == 10 else ""
    assert "cifar10.zip" in message


# --- torchvision's archive: a tar of pickles -----------------------------------------------

# The first operations of a batch as Python 2.7's cPickle writes them, up to the bytes.
PYTHON_2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
    b"q\x04K\x00\x85q\x05U\x01b\x87Rq\x06(K\x01K\x02M\x00\x0c\x86q\x07cnumpy\ndtype\nq\x08U\x02u1"
    b"q\tK\x00K\x01\x87q\nRq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0cb\x89T"
)
PYTHON_2_END = (
    b"tbU\x06labelsq\r]q\x0e(K\x06K\teU\x0bbatch_labelq\x0fU\x15training batch 1 of 5q\x10"
    b"U\tfilenamesq\x11]q\x12(U\x05a.pngq\x13U\x05b.pngq\x14eu."
)


def pixels(n: int) -> np.ndarray:
    return (np.arange(n * 3072) * 7 % 256).astype(np.uint8).reshape(n, 3072)


def batch(n: int = 2, **changes: Any) -> bytes:
    entry = {"batch_label": "b", "labels": [i % 10 for i in range(n)], "data": pixels(n)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pickle.dumps(entry | {"filenames": ["f.png"] * n} | changes, protocol=2)


def test_batches_of_python_2_and_3_are_read_without_unpickling() -> None:
    raw = pixels(2).tobytes()
    old = PYTHON_2 + len(raw).to_bytes(4, "little") + raw + PYTHON_2_END
    assert pickle.loads(old, encoding="latin1")["labels"] == [6, 9]  # a valid pickle
    for content, labels in ((old, [6, 9]), (batch(), [0, 1])):
        found, numbers = parse_batch(content)
        np.testing.assert_array_equal(found, pixels(2))
        assert found.dtype == np.uint8
        assert numbers == labels
    one, labels = parse_batch(batch(1))  # single items are written in other operations
    assert (one.shape, labels) == ((1, 3072), [0])
    np.testing.assert_array_equal(parse_batch(batch(1, filenames={"a": 1}))[0], pixels(1))
    fortran, _ = parse_batch(batch(data=np.asfortranarray(pixels(2))))
    np.testing.assert_array_equal(fortran, pixels(2))


class Runs:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickle_that_runs_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    made = tmp_path / "made"
    attack = pickle.dumps(Runs(made), protocol=2)
    pickle.loads(attack)
    assert made.is_dir()  # the attack works
    made.rmdir()
    for content in (
        attack,
        batch(data=Runs(made)),
        batch(labels=[Runs(made), 1]),
        batch(filenames=Runs(made)),
    ):
        with pytest.raises(ValueError, match="calls 'posix mkdir', which no batch needs"):
            parse_batch(content)
        assert not made.exists()


def memo_bomb() -> bytes:
    return b"\x80\x02}r\xff\xff\xff\x7f."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "exhausted|no end"),
        (b"\x80\x02]", "exhausted|no end"),
        (b"\x80\x02].", "not a pickle of a dictionary"),
        (b"\x80\x02.", "not a pickle of a batch"),
        (b"\x80\x02}a.", "not a pickle of a batch"),
        (b"\x80\x02}K\x01s.", "not a pickle of a batch"),
        (b"\x80\x02K\x01K\x02a.", "no list"),
        (b"\x80\x02K\x01K\x02K\x03s.", "no dictionary"),
        (b"\x80\x02](K\x01u.", "not a pickle of a batch"),
        (b"\x80\x02}(K\x01u.", "shorter|argument"),
        (b"\x80\x02}(]K\x01u.", "unhashable"),
        (b"\x80\x02h\x07.", "not a pickle of a batch"),
        (b"\x80\x02K\x01K\x02b.", "state of something that has none"),
        (memo_bomb(), "`data` must be an array"),
        (
            b"\x80\x04\x8e" + b"\xff" * 7 + b"\x00.",
            "expected .* bytes",
        ),
        (
            b"\x80\x05\x96" + b"\xff" * 6 + b"\x00\x00.",
            "expected .* bytes",
        ),
        (b"\x80\x02" + b"]" * 200_002 + b".", "more than 200,000 operations"),
        (b"\x80\x02" + b"(" * 200_002 + b".", "more than 200,000 operations"),
        (b"\x80\x02cos\nsystem\n.", "not a pickle of a dictionary"),
        (b"\x80\x02\x8c\x01a.", "SHORT_BINUNICODE"),
        (b"cos\nsystem\n(S'true'\ntR.", "STRING"),
        (b"(S'true'\nios\nsystem\n.", "STRING|INST"),
        (b"\x80\x02(cos\nsystem\no.", "OBJ"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02U\x01xQ.", "BINPERSID"),
        (b"\x80\x02cos\nsystem\nU\x04true\x85\x81.", "NEWOBJ"),
        (batch(data=pixels(2).astype(np.int16)), "array of bytes"),
        (batch(data=pixels(2)[:, :3000]), "shape"),
        (batch(data=pixels(2).ravel()), "shape"),
        (batch(data=np.array([{}, 1], object)), "array of bytes|calls"),
        (batch(data=[1, 2]), "`data` must be an array"),
        (batch(data=pixels(0)), "shape|calls"),
        (batch(labels=[1]), "list of 2 numbers"),
        (batch(labels=(1, 2)), "list of 2 numbers"),
        (batch(labels=[1, 10]), "from 0 to 9"),
        (batch(labels=[1, -1]), "from 0 to 9"),
        (batch(labels=[1, True]), "from 0 to 9"),
        (batch(labels=[1, None]), "from 0 to 9"),
        (batch(labels=np.arange(2)), "list of 2 numbers"),
    ],
)
def test_pickle_that_is_no_batch_is_refused(content: bytes, reason: str) -> None:
    with at_most(2**26), pytest.raises(ValueError, match=reason):
        parse_batch(content)


@few
@given(st.data())
def test_pickle_changed_anywhere_is_read_alike_or_refused(data: st.DataObject) -> None:
    content = bytearray(batch(1))
    head = content.index(b"latin1") if data.draw(st.booleans()) else len(content) - 120
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(head - 100, min(len(content), head + 100) - 1))
        content[place] = data.draw(st.integers(0, 255))
    try:
        found, labels = parse_batch(bytes(content))
    except ValueError:
        return
    assert found.shape == (len(labels), 3072)
    assert found.dtype == np.uint8


@few
@given(st.binary(max_size=40))
def test_any_bytes_are_no_batch(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_batch(b"\x80\x02" + content)


NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def tarred(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def members(**blobs: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    whole = {name: batch() for name in NAMES} | blobs
    return [(tarfile.TarInfo(f"cifar-10-batches-py/{name}"), b) for name, b in whole.items()]


@pytest.fixture
def expect(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Puts an archive there and makes torchvision expect it: the md5 protects from nothing."""

    def put(tar: bytes, **blobs: bytes) -> None:
        packed = gzip.compress(tar, compresslevel=1)
        cifar = torchvision.datasets.CIFAR10
        md5 = {n: hashlib.md5(blobs.get(n, batch())).hexdigest() for n in NAMES}
        monkeypatch.setattr(cifar, "tgz_md5", hashlib.md5(packed).hexdigest())
        monkeypatch.setattr(cifar, "train_list", [[name, md5[name]] for name in NAMES[:5]])
        monkeypatch.setattr(cifar, "test_list", [["test_batch", md5["test_batch"]]])
        (root / "cifar-10-python.tar.gz").write_bytes(packed)

    return put


def test_archive_with_foreign_members_is_read_and_nothing_is_unpacked(
    root: Path, expect: Callable[..., None]
) -> None:
    strange = [tarfile.TarInfo(name) for name in ("../../up", "/etc/down", "link", "hard", "pipe")]
    for info, kind in zip(strange[2:], (b"2", b"1", b"6"), strict=True):
        info.type, info.linkname = kind, "/etc/passwd"
    expect(tarred([*((info, b"x" if info.isreg() else b"") for info in strange), *members()]))
    before = {*root.parent.rglob("*")}
    data = load("cifar10", root=root)
    assert (len(data.y_train), len(data.y_test)) == (10, 2)
    (new,) = {*root.parent.rglob("*")} - before
    assert new.suffix == ".safetensors"


def linked(kind: bytes) -> bytes:
    """The third batch is a link to the machine's own files."""
    parts = members()
    info = tarfile.TarInfo(parts[2][0].name)
    info.type, info.linkname = kind, "/etc/passwd"
    parts[2] = (info, b"")
    return tarred(parts)


def pax(size: int) -> bytes:
    """An extended header of `size` bytes, which tarfile would read in one piece."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, size
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(size) + tarred(members())


def sparse() -> bytes:
    """A batch of a terabyte that is one hole, in GNU's old format."""
    info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[386:410] = b"%011o\0%011o\0" % (0, 0)
    header[483:495] = b"\x80" + (2**40).to_bytes(11, "big")
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:512]))
    return bytes(header) + tarred(members())


@pytest.mark.parametrize(
    ("tar", "reason"),
    [
        (linked(b"2"), "data_batch_3 is damaged or incomplete: 0 bytes"),
        (linked(b"1"), "data_batch_3 is damaged or incomplete: 0 bytes"),
        (pax(2**26), "declares a part of more than 33,554,432 bytes"),
        (sparse(), "'cifar-10-batches-py/data_batch_1' is refused: sparse"),
        (tarred([*members(), *members()]), "is refused: sparse, there twice"),
        (tarred(members(data_batch_2=bytes(2**25 + 1))), "or of more than 33,554,432 bytes"),
        (tarred([(tarfile.TarInfo("pad"), bytes(2**28)), *members()]), "beyond 268,435,456"),
        (tarred(members())[:9000], "data_batch_2 is damaged or incomplete|unexpected end"),
        (b"no tar at all" * 1000, "cannot be read or is damaged"),
        (b"", "damaged|empty"),
    ],
    ids=["symlink", "hardlink", "pax", "sparse", "twice", "large", "bomb", "cut", "text", "empty"],
)
def test_hostile_tar_is_refused(
    root: Path, expect: Callable[..., None], tar: bytes, reason: str
) -> None:
    expect(tar)
    with at_most(2**27):
        refused(root, "cifar-10-python.tar.gz", reason)


def test_pickle_with_code_in_the_archive_is_refused(
    root: Path, tmp_path: Path, expect: Callable[..., None]
) -> None:
    attack = batch(labels=Runs(tmp_path / "made"))
    expect(tarred(members(data_batch_4=attack)), data_batch_4=attack)
    refused(root, "data_batch_4", "is refused: its pickle calls 'posix mkdir'")
    assert not (tmp_path / "made").exists()


def test_batches_folder_with_a_pipe_or_a_large_file(
    root: Path, expect: Callable[..., None]
) -> None:
    expect(tarred(members()))
    (root / "cifar-10-python.tar.gz").unlink()
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(batch())
    with open(folder / "data_batch_2", "wb") as file:
        file.truncate(2**40)
    refused(root, "data_batch_2", "more than 33,554,432")
    (folder / "data_batch_2").unlink()
    os.mkfifo(folder / "data_batch_2")
    refused(root, "data_batch_2", "not a plain file")


def test_bounded_reads(tmp_path: Path) -> None:
    file = Bounded(io.BytesIO(bytes(100)), step=20, end=50)
    assert len(file.read(20)) == 20
    with pytest.raises(ValueError, match="a part of more than 20 bytes"):
        file.read(21)
    assert file.seek(45) == file.tell() == 45
    assert len(file.read(5)) == 5
    file.seek(45)
    with pytest.raises(ValueError, match="goes on beyond 50 bytes"):
        file.read()
    with pytest.raises(ValueError, match="goes on beyond 50 bytes"):
        file.seek(51)
    assert file.seek(0, io.SEEK_END) == 100  # zipfile looks for the directory from there


def test_file_that_is_longer_than_it_says() -> None:
    """The kernel's own files are plain, of size zero, and hold something."""
    assert Path("/proc/self/stat").stat().st_size == 0
    with pytest.raises(DataError, match="/proc/self/stat is refused: more than 10 bytes"):
        read_plain(Path("/proc/self/stat"), 10)


# --- the kept array file -------------------------------------------------------------------


def good_arrays() -> dict[str, torch.Tensor]:
    return {
        "x_train": torch.zeros(4, 3, 32, 32, dtype=torch.uint8),
        "y_train": torch.zeros(4, dtype=torch.uint8),
        "x_test": torch.ones(2, 3, 32, 32, dtype=torch.uint8),
        "y_test": torch.ones(2, dtype=torch.uint8),
    }


@pytest.mark.parametrize(
    "change",
    [
        {"x_train": torch.zeros(4, 3, 32, 32)},
        {"x_train": torch.zeros(3, 3, 32, 32, dtype=torch.uint8)},
        {"x_test": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)},
        {"x_test": torch.zeros(2, 3072, dtype=torch.uint8)},
        {"y_train": torch.full((4,), 10, dtype=torch.uint8)},
        {"y_train": torch.zeros(4, dtype=torch.int64)},
        {"y_test": torch.tensor(1, dtype=torch.uint8)},
        {"x_test": torch.zeros(0, 3, 32, 32, dtype=torch.uint8), "y_test": torch.zeros(0).byte()},
        {"more": torch.zeros(1)},
        {"y_test": None},
    ],
)
def test_kept_file_with_a_right_seal_and_wrong_arrays_is_decoded_again(
    root: Path, change: dict[str, torch.Tensor | None]
) -> None:
    source = root / "cifar10.zip"
    source.write_bytes(zipped(images()))
    honest = load("cifar10", root=root)
    (kept,) = root.glob("*.safetensors")
    arrays = {k: v for k, v in (good_arrays() | change).items() if v is not None}
    checksum = rclib.data.cifar10.arrays_checksum(arrays)
    print_ = rclib.data.cifar10._fingerprint(source)
    seal = rclib.data.cifar10.sha256_json([checksum, "forged", print_])
    kept.write_bytes(save(arrays, {"description": "forged", "sha256": seal}))
    with pytest.warns(UserWarning, match="is damaged .* decoding the images again"):
        assert same(load("cifar10", root=root), honest)
    assert same(load("cifar10", root=root), honest)


def test_kept_file_that_is_a_pipe_or_huge_is_replaced(root: Path) -> None:
    (root / "cifar10.zip").write_bytes(zipped(images()))
    honest = load("cifar10", root=root)
    (kept,) = root.glob("*.safetensors")
    kept.unlink()
    os.mkfifo(kept)
    assert same(load("cifar10", root=root), honest)
    with open(kept, "wb") as file:
        file.truncate(2**40)
    with pytest.warns(UserWarning, match="more than 1,073,741,824 bytes"):
        assert same(load("cifar10", root=root), honest)
    assert kept.stat().st_size < 2**20


# --- JSON and YAML -------------------------------------------------------------------------

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


@few
@given(plain)
def test_plain_json_is_read_as_python_reads_it(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@few
@given(plain)
def test_plain_yaml_is_read_as_pyyaml_reads_it(value: Any) -> None:
    text = yaml.safe_dump(value)
    assert parse_yaml(text) == yaml.safe_load(text)


@few
@given(st.text(st.sampled_from("{}[]\"':,-!&*|<?#%@ \n\t0123456789.eE+aNul~\\\x00"), max_size=40))
def test_any_text_is_a_value_or_one_error(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        try:
            parse(text)
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "key 'a' is there twice"),
        ("NaN", "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        ("1e999", "1e999 is no finite number"),
        ("-1e999", "no finite number"),
        ("9" * 41, "has more than 40 digits"),
        ("9" * 10_000, "has more than 40 digits"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("\ufeff{}", "BOM"),
        ("{} {}", "Extra data"),
        ("'a'", "Expecting value"),
    ],
)
def test_json_that_is_not_plain_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 200


def bomb(levels: int) -> str:
    """Ten to the power of `levels` values in a few lines."""
    lines = ["- &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for i in range(1, levels):
        lines.append(f"- &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: 2\na: 3", "line 1: key 'a' is there twice"),
        ("a: {b: 1,\n c: 1, b: 2}", "line 1: key 'b' is there twice"),
        ("a: !!python/object/apply:os.system [ls]", "'python/object/apply:os.system' is no plain"),
        ("a: !!python/name:os.system", "is no plain kind"),
        ("a: !mine 1", "'!mine' is no plain kind"),
        ("a: !!set {b}", "'set' is no plain kind"),
        ("a: !!binary aGk=", "'binary' is no plain kind"),
        ("a: 2001-02-03", "line 1: 'timestamp' is no plain kind of value .quote text"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "line 3: 'merge' is no plain kind"),
        ("a: 1\nb: .nan", "line 2: .nan is no finite number"),
        ("a: -.inf", "no finite number"),
        ("a: 1.0e+999", "no finite number"),
        ("[" * 10**5, "line 1: it is nested too deeply"),
        ("\n".join(" " * i + "a:" for i in range(99)), "line 49: it is nested too deeply"),
        ("a: &x [*x]", "more than 100,000 values"),
        (bomb(9), "more than 100,000 values"),
        ("[a]: 1", "unhashable"),
        ("a: \x07", "special characters"),
        ("a: *b", "undefined alias"),
        ("--- 1\n--- 2", "single document"),
        ("a: b: c", "mapping values"),
        ("a: " + "9" * 5000, "integer string"),
    ],
)
def test_yaml_that_is_not_plain_is_refused(text: str, reason: str) -> None:
    with at_most(2**26), pytest.raises(ValueError, match=reason) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_yaml_keeps_small_aliases_and_the_empty_text() -> None:
    assert parse_yaml(bomb(2))[1] == [[1] * 10] * 10
    assert parse_yaml("") is None
    assert parse_yaml("# only words") is None


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notebooks/paper").mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "results/paper/times").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"profile: paper\nwidth: 1\nwidth: 2\n", "line 1: key 'width' is there twice"),
        (b"profile: !!python/object/apply:os.getcwd []\n", "is no plain kind"),
        (b"profile: paper\nlr: .inf\n", "line 2: .inf is no finite number"),
        (b"profile: paper\nname: \xff\n", "can't decode byte 0xff"),
        (b"[" * 9999, "nested too deeply"),
        (b"profile: paper\n" + b"#" * 2**20, "is refused: 1,048,591 bytes"),
        (b"- profile\n", "must map names to values"),
    ],
)
def test_parameters_file_is_refused_by_name(checkout: Path, content: bytes, reason: str) -> None:
    (checkout / "notebooks/paper/10_a.yaml").write_bytes(content)
    with pytest.raises(runner.RunError, match=rf"notebooks/paper/10_a\.yaml.*{reason}"):
        runner.profile_parameters("10_a", "paper")


# --- results files -------------------------------------------------------------------------


def record() -> dict[str, Any]:
    claims = Claims()
    for key in ("good", "bad", "untested"):
        claims.declare(key, paper="A, x", statement="s", quantity="q", criterion=above(0.5))
    claims.measure("good", [0.9, 0.91])
    claims.measure("bad", 0.1)
    claims.not_testable("untested", "why")
    return {
        "notebook": "11_a",
        "title": "A title",
        "paper": "A",
        "profile": "paper",
        "parameters": {"profile": "paper", "seeds": [0, 1], "rates": [0.1, 1.0]},
        "data": {"description": "digits", "checksum": None},
        "claims": claims.rows(),
        "figures": [{"name": "figure_1", "caption": "c"}],
        "tables": {"t": [{"x": 1.0}]},
        "environment": {
            "python": "3",
            "torch": "2",
            "numpy": "2",
            "commit": None,
            "system": "Linux",
            "machine": "m",
            "cores": 2,
        },
    }


def write_results(checkout: Path, content: bytes) -> Path:
    path = checkout / "results/paper/11_a.json"
    path.write_bytes(content)
    return path


def everything(checkout: Path) -> str:
    """What is made of results files: scoreboard, README's sections, replication.md, manifest."""
    papers, runs = load_papers(), committed_runs()
    return "\n".join(
        [
            scoreboard.scoreboard(results.load_results("paper")),
            readme.series_table(papers, runs),
            replication.replication(papers, runs),
            replication.codecheck(papers, runs),
        ]
    )


def test_whole_record_is_read(checkout: Path) -> None:
    write_results(checkout, json.dumps(record()).encode())
    assert results.load_results("paper") == [record() | {"core_seconds": 0.0, "seconds": 0.0}]
    assert "1 reproduced" in everything(checkout)


def changed(path: str, value: Any) -> bytes:
    """The record with the entry at `path` (names and places, by dots) replaced."""
    content = copy.deepcopy(record())
    *parents, last = path.split(".")
    at: Any = content
    for part in parents:
        at = at[int(part) if isinstance(at, list) else part]
    at[int(last) if isinstance(at, list) else last] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"[1]", "not an object"),
        (b"\xff", "can't decode byte"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"notebook": "11_a", "notebook": "11_a"}', "'notebook' is there twice"),
        (b" " * (2**24 + 1), "is refused: 16,777,217 bytes"),
        (changed("notebook", "../../up"), "its notebook is '../../up', not '11_a'"),
        (changed("notebook", "12_b"), "not '11_a'"),
        (changed("title", None), "title must be text, got None"),
        (changed("title", "a\x1b]0;b\x07"), r"title holds the character '\\x1b'"),
        (changed("title", "a\n| b"), r"title holds the character '\\n'"),
        (changed("title", "\u202egnirts"), r"title holds the character '\\u202e'"),
        (changed("data.description", "\ud800"), r"description holds the character '\\ud800'"),
        (changed("data", []), "data must be an object, got a list"),
        (changed("data.checksum", 1), "checksum must be text or null, got 1"),
        (changed("figures.0.name", "../../etc/x"), "is no plain file name"),
        (changed("figures.0.name", ".hidden"), "is no plain file name"),
        (changed("figures.0.name", ""), "is no plain file name"),
        (changed("figures.0", "figure"), "'figure' is not an object"),
        (changed("environment.torch", []), "environment: torch must be text or a whole number or"),
        (changed("environment.system", "a\tb"), r"system holds the character '\\t'"),
        (changed("environment", {}), "environment: it has no 'python'"),
        (changed("tables", []), "tables must be an object"),
        (changed("tables.t", {}), "'t': it has no 'columns'"),
        (changed("tables.t", [1]), "'t' must be a list of objects"),
        (changed("claims", {}), "claims must be a list, got an object"),
        (changed("claims.0", None), "None is not an object"),
        (changed("claims.1.key", "good"), "key 'good' is there twice"),
        (changed("claims.0.verdict", "proved"), "unknown verdict 'proved'"),
        (changed("claims.0.verdict", ["reproduced"]), "verdict must be text, got a list"),
        (changed("claims.0.verdict", "not testable here"), "value must be null, got 0.9"),
        (changed("claims.0.value", None), "value must be a number, got None"),
        (changed("claims.0.value", True), "value must be a number, got True"),
        (changed("claims.0.low", "1"), "low must be a number, got '1'"),
        (changed("claims.0.high", float("nan")), "NaN is no JSON number"),
        (changed("claims.0.high", float("inf")), "Infinity is no JSON number"),
        (changed("claims.0.high", 10**400), "has more than 40 digits"),
        (changed("claims.0.low", 2.0), "its interval .* is not ordered"),
        (changed("claims.0.high", 0.2), "its interval .* is not ordered"),
        (changed("claims.1.verdict", "reproduced"), "claim 'bad': verdict 'reproduced' contra"),
        (changed("claims.0.criterion", "≥ 1"), "criterion '≥ 1' contradicts its numbers"),
        (changed("claims.0.criterion_low", "x\n"), "criterion_low must be a number"),
        (changed("claims.0.unit", "x\n"), r"unit holds the character '\\n'"),
        (changed("claims.0.item", "\u202egnirts"), "item holds the character"),
        (changed("claims.0.declared_seeds", ["x"]), "declared_seeds must hold whole numbers"),
        (changed("paper", "a\n"), r"paper holds the character '\\n'"),
        (changed("claims.0.repeats", 1.5), "repeats must be a whole number, got 1.5"),
        (changed("claims.0.repeats", False), "repeats must be a whole number, got False"),
    ],
)
def test_results_file_is_refused_by_name(checkout: Path, content: bytes, reason: str) -> None:
    path = write_results(checkout, content)
    for use in (lambda: results.load_results("paper"), lambda: everything(checkout)):
        with pytest.raises(ValueError, match=f"is not valid: .*{reason}") as caught:
            use()
        assert f"results file {path}" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


def test_results_file_that_is_no_file(checkout: Path) -> None:
    path = checkout / "results/paper/11_a.json"
    path.mkdir()
    with pytest.raises(ValueError, match=r"results file .* is not valid"):
        results.load_results("paper")
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is refused: not a plain file"):
        results.load_results("paper")
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="is refused: not a plain file"):
        results.load_results("paper")


@pytest.mark.parametrize(
    "times",
    ['{"core_seconds": 1, "seconds": -1}', '{"core_seconds": 1, "seconds": true}', "[]", "{}", "x",
     '{"core_seconds": NaN, "seconds": 1}', '{"core_seconds": 1}', '{"core_seconds": null}'],
)  # fmt: skip
def test_times_are_refused_by_name(checkout: Path, times: str) -> None:
    write_results(checkout, json.dumps(record()).encode())
    (checkout / "results/paper/times/11_a.json").write_text(times)
    with pytest.raises(ValueError, match=r"times file .*11_a\.json is not valid: .*\w"):
        results.load_results("paper")


def places(value: Any, path: str = "") -> list[str]:
    """Paths of all entries of a JSON value, as `changed` takes them."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    own = [(f"{path}.{key}".lstrip("."), entry) for key, entry in pairs]
    below = [p for name, v in own if isinstance(v, (dict, list)) for p in places(v, name)]
    return [name for name, _ in own] + below


@few
@given(place=st.sampled_from(places(record())), value=plain)
def test_what_the_reader_takes_everything_else_can_use(
    tmp_path_factory: pytest.TempPathFactory, place: str, value: Any
) -> None:
    folder = tmp_path_factory.mktemp("checkout")
    with pytest.MonkeyPatch.context() as patch:
        checkout.__wrapped__(folder, patch)  # type: ignore[attr-defined]
        path = write_results(folder, changed(place, value))
        try:
            results.load_results("paper")
        except ValueError as error:
            refusal = str(error)
        else:
            refusal = f"{path} " * bool(everything(folder).encode())
        assert str(path) in refusal


# --- stored runs ---------------------------------------------------------------------------


def entry(header: dict[str, Any] | bytes, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def tensor(kind: str, shape: list[int], size: int) -> bytes:
    return entry({"a": {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}, bytes(size))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("<Q", 2**62),
        entry(b"[" * 90_000),
        entry({"__metadata__": {"sha256": 3}}),
        entry(b'{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', bytes(4)),
        tensor("BF16", [2], 4),  # numpy has no such type
        tensor("F8_E4M3", [4], 4),
        tensor("F32", [2**40, 0], 0),
        tensor("F32", [2**63 - 1, 2**63 - 1], 0),
        tensor("F32", [1], 4),  # without metadata
    ],
)
def test_stored_run_of_any_content_is_set_aside_and_computed_again(
    tmp_path: Path, content: bytes
) -> None:
    function, arrays = mlp_runs.train_mlp, {"a": np.arange(3.0)}
    key = store.run_key(function, {}, data=None)
    store.keep(function, {}, arrays, key=key, seconds=1.0, root=tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(content)
    assert store.seconds_spent(function, {}, root=tmp_path) == 0.0
    with pytest.warns(UserWarning, match="is damaged"):
        assert store.lookup(function, {}, root=tmp_path) is None
    assert not path.exists()


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e999", "long", ""])
def test_stored_seconds_that_are_no_time_count_as_none(tmp_path: Path, seconds: str) -> None:
    function = mlp_runs.train_mlp
    key = store.run_key(function, {}, data=None)
    store.keep(function, {}, {"a": np.arange(3.0)}, key=key, seconds=1.0, root=tmp_path)
    assert store.seconds_spent(function, {}, root=tmp_path) == 1.0
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(save({"a": torch.zeros(1)}, {"seconds": seconds}))
    assert store.seconds_spent(function, {}, root=tmp_path) == 0.0


@pytest.mark.parametrize("kind", ["pipe", "device", "loop"])
def test_stored_run_that_is_no_file_is_computed_again(tmp_path: Path, kind: str) -> None:
    function, arrays = mlp_runs.train_mlp, {"a": np.arange(3.0)}
    key = store.run_key(function, {}, data=None)
    store.keep(function, {}, arrays, key=key, seconds=1.0, root=tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path}[kind])
    assert store.lookup(function, {}, root=tmp_path) is None
    assert store.seconds_spent(function, {}, root=tmp_path) == 0.0
    # A link in a circle is replaced; on a pipe or a device somebody else may wait.
    aside = (
        pytest.warns(UserWarning, match="a pipe or a device") if kind != "loop" else nullcontext()
    )
    with aside:
        store.keep(function, {}, arrays, key=key, seconds=1.0, root=tmp_path)
    found = store.lookup(function, {}, root=tmp_path)
    assert found is not None
    np.testing.assert_array_equal(found["a"], arrays["a"])
