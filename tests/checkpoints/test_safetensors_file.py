"""checkpoints.safetensors_file: against the format's own reader, and against files that lie."""

from __future__ import annotations

import json
import os
import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.safetensors_file import (
    DTYPES,
    MAX_HEADER,
    SafetensorsFile,
    brief_line,
    parse_bounded_json,
)

SHAPES = ((3, 4), (5,), (), (0, 7), (2, 1, 3))


def _of_every_type() -> dict[str, Tensor]:
    """Random bytes in every type (booleans excepted) and some shapes."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for kind, (name, bits) in DTYPES.items():
        for shape in SHAPES:
            count = int(np.prod(shape)) * bits // 8
            high = 2 if name == "bool" else 256
            raw = torch.randint(0, high, (count,), dtype=torch.uint8, generator=generator)
            found[f"{kind} {shape}"] = raw.view(getattr(torch, name)).view(shape)
    return found


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _raw(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with any header: an object that becomes JSON, or bytes as they are."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _entry(start: int, stop: int, *, shape: Any = None, dtype: Any = "U8") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [stop - start] if shape is None else shape,
        "data_offsets": [start, stop],
    }


def _read_all(path: Path) -> dict[str, bytes]:
    with closing(SafetensorsFile(path)) as file:
        found = {}
        for name, info in file.tensors.items():
            buffer = np.empty(info.nbytes, dtype=np.uint8)
            file.read_into(name, 0, buffer)
            found[name] = buffer.tobytes()
        return found


def test_agrees_with_the_formats_own_reader(tmp_path: Path) -> None:
    tensors = _of_every_type()
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with closing(SafetensorsFile(tmp_path / "x.safetensors")) as file:
        assert set(file.tensors) == set(tensors)
        with safe_open(tmp_path / "x.safetensors", framework="pt") as theirs:
            for name, info in file.tensors.items():
                expected = theirs.get_tensor(name)
                assert info.shape == tuple(expected.shape)
                assert f"torch.{info.dtype}" == str(expected.dtype)
                assert info.nbytes == expected.numel() * expected.itemsize
    assert _read_all(tmp_path / "x.safetensors") == {n: _bytes(t) for n, t in tensors.items()}


def test_tensors_come_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    header = {"b": _entry(4, 8), "c": _entry(8, 8), "a": _entry(0, 4)}
    (tmp_path / "x").write_bytes(_raw(header, b"12345678"))
    with closing(SafetensorsFile(tmp_path / "x")) as file:
        assert list(file.tensors) == ["a", "b", "c"]
    assert _read_all(tmp_path / "x") == {"a": b"1234", "b": b"5678", "c": b""}


def test_parts_of_a_tensor(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(_raw({"a": _entry(0, 2), "b": _entry(2, 8)}, b"12345678"))
    with closing(SafetensorsFile(tmp_path / "x")) as file:
        buffer = np.empty(3, dtype=np.uint8)
        file.read_into("b", 2, buffer)
        assert buffer.tobytes() == b"567"
        for offset in (-1, 4):  # before its first byte, and beyond its last
            with pytest.raises(ValueError, match="not inside tensor 'b'"):
                file.read_into("b", offset, buffer)


def test_mapped_bytes_are_the_bytes_read(tmp_path: Path) -> None:
    values = torch.arange(3 << 19, dtype=torch.float32)
    save_file({"pad": torch.zeros(3), "w": values}, tmp_path / "x")
    with closing(SafetensorsFile(tmp_path / "x")) as file:
        start, stop = 4 << 10, 5 << 20
        mapped = file.map("w", start, stop, alignment=4)
        assert mapped is not None
        assert np.array_equal(mapped.view(np.float32), values.numpy()[start // 4 : stop // 4])
        assert file.map("w", 0, 64, alignment=4) is None  # short
        os.truncate(tmp_path / "x", 1 << 20)
        with pytest.raises(CheckpointError, match="cut after opening"):
            file.map("w", start, stop, alignment=4)
        with pytest.raises(CheckpointError, match="cut after opening"):
            file.read_into("w", start, np.empty(stop - start, dtype=np.uint8))


def test_bytes_that_are_not_aligned_are_not_mapped(tmp_path: Path) -> None:
    size = 2 << 20
    header = {"a": _entry(0, 1), "w": _entry(1, 1 + size, shape=[size // 4], dtype="F32")}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (tmp_path / "x").write_bytes(_raw(text, bytes(1 + size)))
    with closing(SafetensorsFile(tmp_path / "x")) as file:
        assert file.map("w", 0, size, alignment=4) is None
        assert file.map("w", 3, size, alignment=4) is not None


EIGHT = b"12345678"
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too few"),
    "seven bytes": (b"1234567", "too few"),
    "header longer than the file": (_raw({"a": _entry(0, 8)}, EIGHT, length=500), "truncated"),
    "huge header": (_raw({}, length=MAX_HEADER + 1), "at most"),
    "largest length": (b"\xff" * 16, "at most"),
    "no header": (_raw(b""), "starts with"),
    "leading space": (_raw(b' {"a": 1}'), "starts with"),
    "not UTF-8": (_raw(b'{"\xff": 1}'), "not JSON"),
    "not JSON": (_raw(b'{"a": }'), "not JSON"),
    "rest behind the object": (_raw(b"{} {}"), "not JSON"),
    "no object": (_raw(b"[]"), "starts with"),
    "NaN": (_raw(b'{"a": NaN}'), "no JSON number"),
    "digits": (_raw(b'{"a": ' + b"9" * 5000 + b"}"), "not JSON"),
    "depth": (_raw(b'{"a": ' + b"[" * 200_000 + b"}"), "nested"),
    "duplicate": (_raw(b'{"a": 1, "a": 2}'), "twice"),
    "duplicate inside": (_raw(b'{"a": {"dtype": "U8", "dtype": "U8"}}'), "twice"),
    "entry is no object": (_raw({"a": 3}), "are needed"),
    "entry lacks a field": (_raw({"a": {"dtype": "U8", "shape": [0]}}), "are needed"),
    "entry has more": (_raw({"a": _entry(0, 0) | {"code": 1}}), "are needed"),
    "metadata": (_raw({"__metadata__": {"a": 1}}), "__metadata__"),
    "unknown type": (_raw({"a": _entry(0, 8, dtype="F7")}, EIGHT), "dtype 'F7'"),
    "type is no name": (_raw({"a": _entry(0, 8, dtype=["U8"])}, EIGHT), "dtype"),
    "negative size": (_raw({"a": _entry(0, 8, shape=[-2, -4])}, EIGHT), "shape"),
    "size is true": (_raw({"a": _entry(0, 1, shape=[True])}, b"1"), "shape"),
    "size is a float": (_raw({"a": _entry(0, 8, shape=[8.0])}, EIGHT), "shape"),
    "shape is no list": (_raw({"a": _entry(0, 8, shape=8)}, EIGHT), "shape"),
    "many axes": (_raw({"a": _entry(0, 1, shape=[1] * 1000)}, b"1"), "shape"),
    "size beyond 64 bits": (_raw({"a": _entry(0, 0, shape=[0, 2**70])}), "too large"),
    "shape too large": (_raw({"a": _entry(0, 8, shape=[9])}, EIGHT), "9 bytes"),
    "shape too small": (_raw({"a": _entry(0, 8, shape=[7])}, EIGHT), "7 bytes"),
    "type too wide": (_raw({"a": _entry(0, 8, dtype="F32")}, EIGHT), "32 bytes"),
    "one offset": (_raw({"a": _entry(0, 8) | {"data_offsets": [0]}}, EIGHT), "two positions"),
    "negative offset": (_raw({"a": _entry(-8, 0, shape=[8])}, EIGHT), "two positions"),
    "offsets reversed": (_raw({"a": _entry(8, 0, shape=[0])}, EIGHT), "in order"),
    "beyond the file": (_raw({"a": _entry(0, 9)}, EIGHT), "cut short"),
    "truncated data": (_raw({"a": _entry(0, 8)}, EIGHT[:-1]), "cut short"),
    "backwards": (_raw({"a": _entry(0, 8) | {"data_offsets": [8, 0]}}, EIGHT), "do not lie"),
    "overlap": (_raw({"a": _entry(0, 5), "b": _entry(4, 8)}, EIGHT), "overlaps"),
    "the same bytes twice": (_raw({"a": _entry(0, 8), "b": _entry(0, 8)}, EIGHT), "overlaps"),
    "hole": (_raw({"a": _entry(0, 3), "b": _entry(4, 8)}, EIGHT), "hole"),
    "hole in front": (_raw({"a": _entry(4, 8)}, EIGHT), "hole"),
    "bytes left over": (_raw({"a": _entry(0, 7)}, EIGHT), "cover 7 bytes"),
    "name is no Unicode": (_raw(b'{"\\ud800": ' + json.dumps(_entry(0, 0)).encode() + b"}"), "Uni"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    content, message = REFUSED[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        SafetensorsFile(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert len(text) < len(str(path)) + 400


def test_refusals_leave_no_file_open(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"1")
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        with pytest.raises(CheckpointError):
            SafetensorsFile(tmp_path / "bad")
    assert len(os.listdir("/dev/fd")) == before


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("pipe", "not a regular"), (".", "not a regular"), ("no", "No such")):
        with pytest.raises(CheckpointError, match=message):
            SafetensorsFile(tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot be opened"):
        SafetensorsFile("a\0b")


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """traced() is the largest number of bytes that Python and NumPy have held since the start."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": [' + b"[]," * 4_000_000 + b"[]]}",
        b'{"a": [' + b"0," * 4_000_000 + b"0]}",
        b'{"' + b"a" * 50_000_000 + "𝔞".encode() + b'": 1}',
        b'{"' + b"a" * 50_000_000 + b'\\ud835\\udd1e": 1}',
    ],
    ids=["lists", "numbers", "wide text", "wide text, escaped"],
)
def test_headers_that_would_need_much_memory(text: bytes, traced: Callable[[], int]) -> None:
    with pytest.raises(CheckpointError, match="would need more than 400 MB"):
        parse_bounded_json(text, where="header")
    assert traced() < 1_000_000


def _mutations(valid: bytes, seed: int) -> Iterator[bytes]:
    """Endless damaged versions of a file."""
    rng = random.Random(seed)
    size = int.from_bytes(valid[:8], "little")
    text, data = valid[8 : 8 + size], valid[8 + size :]
    numbers = [0, 1, -1, 7, 8, size, len(data), len(data) + 1, 2**31, 2**63, 2**64, 1e3, 0.5, None]
    words = ["F32", "BF16", "I64", "F8_E4M3", "F4", "", "dtype", "shape", "__metadata__", "a" * 999]

    def edited() -> bytes:
        header = json.loads(text)
        name = rng.choice([n for n in header if n != "__metadata__"])
        what = rng.randrange(7)
        if what == 0:
            field = rng.choice(["shape", "data_offsets"])
            values = header[name][field]
            values.insert(rng.randrange(len(values) + 1), rng.choice(numbers))
        elif what == 1:
            field = rng.choice(["shape", "data_offsets"])
            values = header[name][field]
            if values:
                values[rng.randrange(len(values))] = rng.choice(numbers)
        elif what == 2:
            header[name]["dtype"] = rng.choice([*words, *numbers])
        elif what == 3:
            header[name][rng.choice(words)] = rng.choice([*words, *numbers, [], {}])
        elif what == 4:
            del header[name][rng.choice(list(header[name]))]
        elif what == 5:
            del header[name]
        else:
            other = rng.choice([n for n in header if n != "__metadata__"])
            header[name]["data_offsets"] = header[other]["data_offsets"]
        return json.dumps(header).encode()

    while True:
        kind = rng.randrange(7)
        damaged = bytearray(valid)
        if kind == 0:  # bits of the header
            for _ in range(rng.choice([1, 1, 2, 8])):
                damaged[rng.randrange(8 + size)] ^= 1 << rng.randrange(8)
        elif kind == 1:  # the length
            length = rng.choice([0, size - 1, size + 1, rng.randrange(2**64), rng.randrange(2**16)])
            damaged[:8] = length.to_bytes(8, "little")
        elif kind == 2:  # the end of the file
            del damaged[rng.randrange(len(damaged)) :]
        elif kind == 3:  # bytes too many
            damaged += rng.randbytes(rng.randrange(1, 64))
        elif kind == 4:  # a piece of the header taken out or doubled
            a, b = sorted(rng.choices(range(size + 1), k=2))
            piece = text[:a] + text[b:] if rng.random() < 0.5 else text[:b] + text[a:]
            damaged = bytearray(_raw(piece, data))
        elif kind == 5:  # a character of the header
            at = rng.randrange(size)
            character = rng.choice(b'{}[]:,"0123456789-.eE\\nu \x00\xff')
            damaged = bytearray(_raw(text[:at] + bytes([character]) + text[at + 1 :], data))
        else:  # a value of the header, which stays JSON
            damaged = bytearray(_raw(edited(), data))
        yield bytes(damaged)


def test_fuzz(tmp_path: Path, traced: Callable[[], int]) -> None:
    """1000 damaged files: success where the format's own reader succeeds too, or our error."""
    generator = torch.Generator().manual_seed(1)
    tensors = {
        "model.embed.weight": torch.randn(7, 4, generator=generator).bfloat16(),
        "model.norm": torch.randn(4, generator=generator),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "ids": torch.arange(5),
        "ünïcode": torch.randn(3, 3, generator=generator).to(torch.float8_e4m3fn),
    }
    valid = save(tensors, metadata={"format": "pt"})
    path = tmp_path / "x.safetensors"
    path.write_bytes(valid)
    assert _read_all(path) == {n: _bytes(t) for n, t in tensors.items()}
    outcomes = {"read": 0, "refused": 0}
    for _, damaged in zip(range(1000), _mutations(valid, seed=0), strict=False):
        path.write_bytes(damaged)
        try:
            ours = _read_all(path)
        except CheckpointError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        try:
            with safe_open(path, framework="pt") as theirs:
                assert ours == {n: _bytes(theirs.get_tensor(n)) for n in theirs.keys()}  # noqa: SIM118
        except SafetensorError as error:
            pytest.fail(f"read a file that the format's own reader refuses: {error}")
    assert outcomes["refused"] > 500
    assert outcomes["read"] > 10  # a name or a value may change without doing damage
    assert traced() < 20_000_000


def test_errors_are_one_printable_line() -> None:
    error = CheckpointError("tensor a\nb\x1b[31m \ud800 é: bad")
    assert str(error) == "tensor a\\nb\\x1b[31m \\ud800 é: bad"


def test_brief() -> None:
    assert brief_line("a\nb") == "'a\\nb'"
    assert len(brief_line("x" * 10_000)) == 80
    assert len(brief_line(list(range(10**6)), 50)) == 50
