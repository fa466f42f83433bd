"""rclib.data.text: bytes of a file or of Python's reference, their split, windows and checksums."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import pickle
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch

from rclib.data.images import DataError
from rclib.data.text import load_text

CONTENT = bytes(range(256)) * 8 + "naïve café\n".encode()


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RCLIB_DATA", "kept")
    (tmp_path / "plain.txt").write_bytes(CONTENT)
    return tmp_path


def unpacked_files() -> list[str]:
    return sorted(p.name for p in Path("kept").rglob("*") if p.is_file())


def test_python_reference_is_what_ships_with_this_python() -> None:
    found = load_text()
    whole = bytes(found.tokens.tolist())
    assert whole.decode("utf-8").split("\n", 1)[0] == topics[min(topics)].split("\n", 1)[0]
    assert len(whole) == sum(len(t.encode()) for t in topics.values()) + len(topics) - 1
    assert all(topics[name].encode() in whole for name in topics)
    assert found.path is None
    assert "Python" in found.description


def test_split_is_at_the_end_and_fixed() -> None:
    found = load_text("plain.txt", validation=0.25)
    n = len(CONTENT)
    assert found.n_train == n - round(n / 4)
    assert bytes(found.train.tolist()) == CONTENT[: found.n_train]
    assert bytes(found.validation.tolist()) == CONTENT[found.n_train :]
    assert found.tokens.dtype == torch.uint8
    assert found.description == "plain.txt (0.00 MB, bytes)"


def test_checksum_is_of_bytes_and_split_not_of_the_file() -> None:
    expected = hashlib.sha256(
        f"text|{len(CONTENT)}|{len(CONTENT) - round(0.1 * len(CONTENT))}|".encode() + CONTENT
    ).hexdigest()
    Path("other name.txt").write_bytes(CONTENT)
    Path("packed.txt.xz").write_bytes(lzma.compress(CONTENT))
    Path("packed.txt.gz").write_bytes(gzip.compress(CONTENT, mtime=0))
    for name in ("plain.txt", "other name.txt", "packed.txt.xz", "packed.txt.gz"):
        assert load_text(name).checksum == expected
    assert load_text("plain.txt", validation=0.2).checksum != expected
    Path("plain.txt").write_bytes(CONTENT[:-1] + b"!")
    assert load_text("plain.txt").checksum != expected


def test_packed_file_is_unpacked_once_and_anew_when_it_changes() -> None:
    packed = Path("a.txt.xz")
    packed.write_bytes(lzma.compress(CONTENT))
    first = load_text("a.txt.xz")
    (name,) = unpacked_files()
    assert name.startswith("a.txt-")
    target = Path("kept/text") / name
    os.utime(target, (1, 1))
    assert load_text(Path("a.txt.xz").resolve()).checksum == first.checksum
    assert target.stat().st_mtime == 1  # not written again
    packed.write_bytes(lzma.compress(CONTENT * 2))
    assert len(load_text("a.txt.xz").tokens) == 2 * len(CONTENT)
    assert len(unpacked_files()) == 2


def test_file_is_mapped_not_copied_when_it_travels() -> None:
    Path("big.txt").write_bytes(CONTENT * 500)
    found = load_text("big.txt")
    payload = pickle.dumps(found)
    assert len(payload) < 1000
    other = pickle.loads(payload)
    assert torch.equal(other.tokens, found.tokens)
    assert (other.checksum, other.n_train, other.name) == (
        found.checksum,
        found.n_train,
        found.name,
    )
    reference = load_text().share_memory()
    assert reference.tokens.is_shared()
    assert torch.equal(pickle.loads(pickle.dumps(reference)).tokens, reference.tokens)


def test_batches_are_windows_of_the_training_part() -> None:
    found = load_text("plain.txt", validation=0.5)
    batch = found.batch(3, seed=1, batch_size=200, context=9)
    assert (batch.shape, batch.dtype) == ((200, 10), torch.int64)
    train = bytes(found.train.tolist())
    assert all(bytes(row) in train for row in batch.tolist())
    # Starts are spread over all possible places: the first and last appear in the long run.
    Path("tiny.txt").write_bytes(bytes(range(40)))
    tiny = load_text("tiny.txt", validation=0.5)
    starts = tiny.batch(0, seed=0, batch_size=4000, context=4)[:, 0]
    counts = torch.bincount(starts, minlength=16)
    assert counts.shape == (16,)  # 20 training bytes hold 16 windows of 5
    assert float(((counts - 250.0) ** 2 / 250.0).sum()) < 40.0  # χ² with 15 degrees: p > 0.0005


def test_batches_are_a_function_of_seed_and_step() -> None:
    found = load_text("plain.txt")
    options = {"batch_size": 8, "context": 16}
    first = found.batch(5, seed=2, **options)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    assert torch.equal(found.batch(5, seed=2, **options), first)
    for step, seed in ((6, 2), (5, 3), (2, 5)):
        assert not torch.equal(found.batch(step, seed=seed, **options), first)


def test_the_random_stream_is_pinned() -> None:
    # A change here would silently change every stored training run's batches.
    Path("count.txt").write_bytes(bytes(range(200)))
    starts = load_text("count.txt").batch(7, seed=11, batch_size=6, context=3)[:, 0]
    assert starts.tolist() == [21, 16, 89, 82, 83, 70]


def test_validation_windows_are_fixed_and_cover_the_part() -> None:
    found = load_text("plain.txt", validation=0.5)
    batches = list(found.validation_batches(4, batch_size=8, context=16))
    assert [tuple(b.shape) for b in batches] == [(8, 17)] * 4
    held = found.validation
    assert torch.equal(batches[0][0], held[:17].long())
    assert torch.equal(batches[-1][-1], held[-17:].long())
    again = found.validation_batches(4, batch_size=8, context=16)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))


def test_bytes_that_are_no_utf8_are_fine() -> None:
    Path("raw.bin").write_bytes(b"\xff\xfe\x80" * 100)
    assert load_text("raw.bin").batch(0, seed=0, batch_size=1, context=2).max() == 255


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, r"text file .*none\.txt is missing \(source = 'none\.txt'\)"),
        ("empty.txt", b"", r"text file .*empty\.txt is empty"),
        ("empty.txt.gz", gzip.compress(b"", mtime=0), r"text file .*empty\.txt\.gz is empty"),
        ("bad.txt.xz", b"no xz at all", r"text file .*bad\.txt\.xz cannot be unpacked"),
        ("cut.txt.xz", lzma.compress(CONTENT)[:-20], r"cut\.txt\.xz cannot be unpacked"),
        ("cut.txt.gz", gzip.compress(CONTENT, mtime=0)[:-20], r"cut\.txt\.gz cannot be unpacked"),
        ("bad.txt.gz", b"no gzip", r"bad\.txt\.gz cannot be unpacked"),
        ("bomb.txt.xz", lzma.compress(b"0" * 4_000_000), r"unpacks to more than 1000000 bytes"),
        ("large.txt", b"0" * 1_000_001, r"has more than max_bytes = 1000000 bytes"),
    ],
)
def test_bad_files_are_named(name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_text(name, max_bytes=1_000_000)
    assert not [n for n in unpacked_files() if not n.startswith("empty")]  # no part of a file


def test_bad_arguments_are_named() -> None:
    for share in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="validation must lie strictly between 0 and 1"):
            load_text("plain.txt", validation=share)
    Path("short.txt").write_bytes(b"abc")
    with pytest.raises(ValueError, match=r"validation must leave both parts of 'short\.txt'"):
        load_text("short.txt", validation=0.01)
    found = load_text("plain.txt")  # 206 bytes are held out
    with pytest.raises(ValueError, match=r"shorter than the validation part .* got 206"):
        found.batch(0, seed=0, batch_size=1, context=206)
    assert found.batch(0, seed=0, batch_size=1, context=205).shape == (1, 206)
    with pytest.raises(ValueError, match="context must be a positive integer, got 0"):
        found.check_context(0)
    with pytest.raises(ValueError, match="count and batch_size must be positive, got 0, 3"):
        list(found.validation_batches(0, batch_size=3, context=4))


@pytest.mark.parametrize("change", ["cut", "emptied", "changed"])
def test_a_file_that_is_cut_or_changed_while_it_is_mapped_is_refused(change: str) -> None:
    options = {"seed": 0, "batch_size": 4, "context": 8}
    path = Path("mine.txt")
    path.write_bytes(CONTENT * 100)
    found = load_text(path.name)
    found.batch(0, **options)
    with open(path, "r+b") as file:
        if change == "changed":
            file.write(b"another start")
        else:
            file.truncate(5000 if change == "cut" else 0)
    # Within one tick of the file system's clock the date may be the same.
    assert found.origin is not None
    os.utime(path, ns=(1, found.origin[3] + 1))
    for use in (
        lambda: found.batch(0, **options),
        lambda: list(found.validation_batches(1, batch_size=2, context=8)),
        found.check_unchanged,
        lambda: pickle.loads(pickle.dumps(found)),
    ):
        with pytest.raises(DataError, match=r"mine\.txt (was changed|cannot be read)"):
            use()


def test_a_file_that_grew_is_the_text_it_was_but_for_other_processes() -> None:
    path = Path("grows.txt")
    path.write_bytes(CONTENT * 100)
    found = load_text(path.name)
    before = found.batch(0, seed=0, batch_size=4, context=8)
    with open(path, "ab") as file:
        file.write(b"more")
    assert torch.equal(found.batch(0, seed=0, batch_size=4, context=8), before)
    with pytest.raises(DataError, match="was changed while it was in use"):
        pickle.loads(pickle.dumps(found))


def test_a_file_that_is_touched_replaced_or_removed_stays_the_text_it_was() -> None:
    options = {"seed": 0, "batch_size": 4, "context": 8}
    path = Path("stays.txt")
    path.write_bytes(CONTENT * 100)
    found = load_text(path.name)
    before = found.batch(0, **options)
    os.utime(path, (1, 1))
    assert torch.equal(found.batch(0, **options), before)
    assert torch.equal(pickle.loads(pickle.dumps(found)).tokens, found.tokens)
    Path("other.txt").write_bytes(b"x")
    os.replace("other.txt", path)
    assert torch.equal(found.batch(0, **options), before)
    path.unlink()
    assert torch.equal(found.batch(0, **options), before)
    with pytest.raises(DataError, match="cannot be read"):
        pickle.loads(pickle.dumps(found))
