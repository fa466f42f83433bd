"""checkpoints.pickle_program, pickle_values and pickled: the same tensors as torch reads, and
nothing that a stranger's file could do: no code, no memory, no time, no memory of others."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rclib.checkpoints.opening import CheckpointError, open_checkpoint
from rclib.checkpoints.pickle_program import read_pickle
from rclib.checkpoints.pickle_values import Refused


def _kinds() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def r(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    base = r(40)
    return {
        "plain": r(5, 6), "transposed": r(5, 6).t(), "expanded": r(1, 6).expand(4, 6),
        "scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3), "steps": torch.arange(20)[3:17:2],
        "permuted": r(2, 3, 4).permute(2, 0, 1), "shared a": base[:10], "shared b": base[5:40],
        "parameter": torch.nn.Parameter(r(3, 3)), "bf16": r(2, 2).bfloat16(),
        "bool": torch.tensor([True, False]), "complex": torch.complex(r(2, 2), r(2, 2)),
        "large": r(600, 700).t(), "float64": r(3, 3).double(),
    }  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("form", ["zip", "old"])
def test_the_same_as_torch_reads(protocol: int, form: str, tmp_path: Path) -> None:
    tensors = _kinds()
    if form == "zip":
        tensors["float8"] = torch.randn(4, 4).to(torch.float8_e4m3fn)
        tensors["uint16"] = torch.arange(4).to(torch.uint16)
    others = {
        "sparse": torch.eye(3).to_sparse(), "meta": torch.empty(3, device="meta"),
    }  # fmt: skip
    path = tmp_path / "x.pt"
    torch.save(
        {**tensors, **others}, path, pickle_protocol=protocol,
        _use_new_zipfile_serialization=form == "zip",
    )  # fmt: skip
    theirs = torch.load(path, weights_only=True) if protocol == 2 else tensors
    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint.tensors) == set(tensors)
        assert set(checkpoint.left_out) == set(others)
        for name in tensors:
            ours, wanted = checkpoint.tensor(name), theirs[name].detach()
            assert (ours.shape, ours.dtype) == (wanted.shape, wanted.dtype)
            a, b = (t.contiguous().view(-1).view(torch.uint8) for t in (ours, wanted))
            assert torch.equal(a, b), name
            count = wanted.numel()
            part = checkpoint.entries(name, count // 3, count)
            assert torch.equal(
                part.view(torch.uint8), b.view(ours.dtype)[count // 3 :].view(torch.uint8)
            )


def test_numpy_arrays_of_a_plain_pickle(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        "a": generator.normal(size=(30, 40)).astype("f4"),
        "fortran": np.asfortranarray(generator.normal(size=(30, 40))),
        "small": np.arange(3.0),  # as short as a text
        "none": np.empty((0, 3)),
    }
    more = {**arrays, "text": np.array(["a"])}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": more, "it": 3}, protocol=4))
    with open_checkpoint(tmp_path / "x.pkl") as checkpoint:
        for name, array in arrays.items():
            np.testing.assert_array_equal(checkpoint.tensor(name).numpy(), array)
        assert set(checkpoint.left_out) == {"text"}


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _tuple(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def _call(module: str, name: str, *args: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + _tuple(*args) + b"R"


def _mapping(**entries: bytes) -> bytes:
    return b"}(" + b"".join(_text(k) + v for k, v in entries.items()) + b"u"


def _tensor(size: tuple[int, ...], stride: tuple[int, ...], count: int = 4) -> bytes:
    storage = _tuple(
        _text("storage"), b"ctorch\nFloatStorage\n", _text("0"), _text("cpu"), _number(count)
    )
    return _call(
        "torch._utils", "_rebuild_tensor_v2", storage + b"Q", _number(0),
        _tuple(*map(_number, size)), _tuple(*map(_number, stride)), b"\x89", b"}",
    )  # fmt: skip


def _saved(body: bytes, data: bytes = struct.pack("<4f", 1, 2, 3, 4), level: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
        file.writestr("archive/data/0", data)
    return out.getvalue()


SOUND = _mapping(w=_tensor((2, 2), (2, 1)))
DEEP = b")" + b"\x85" * 300_000  # a tuple in a tuple in a tuple ...
HOSTILE: dict[str, tuple[bytes, str]] = {
    "bytearray": (_mapping(w=_call("builtins", "bytearray", _number(6 * 10**9))), "bytearray"),
    "bytearray beside": (
        _mapping(w=_tensor((2, 2), (2, 1)), v=_call("builtins", "bytearray", _number(10**10))),
        "bytearray",
    ),
    "codecs": (
        _mapping(w=_call("_codecs", "encode", _text("a" * 99), _text("punycode"))),
        "_codecs.encode",
    ),
    "many copies": (
        b"]q\x00(" + b"NN\x86" * 50_000 + b"e0(" + b"ccollections\nOrderedDict\nh\x00\x85R" * 900
        + b"t", "more than 600 MB",
    ),
    "code": (_mapping(w=_call("os", "system", _text("touch executed"))), "os.system"),
    "eval": (_mapping(w=_call("builtins", "eval", _text("1"))), "builtins.eval"),
    "getattr": (_mapping(w=_call("builtins", "getattr", _text("1"))), "builtins.getattr"),
    "hash of a deep key": (b"}" + DEEP + b"Ns" + SOUND, "middle of a value"),
    "equal hashes": (
        b"}(" + b"".join(_number(k * (2**61 - 1)) + b"N" for k in range(1, 60_000)) + b"u",
        "no tensors",
    ),
    "heap": (_mapping(w=_call("torch", "FloatTensor", _number(64), _number(64))), "FloatTensor"),
    "no data": (_mapping(w=_tensor((2, 3), (3, 1))), "beyond the 16 bytes"),
    "negative": (_mapping(w=_tensor((2, -2), (2, 1))), "not whole numbers"),
    "expanded": (_mapping(w=_tensor((200_000, 200_000), (0, 0))), "repeated ones"),
    "huge": (_mapping(w=_tensor((2**40, 2**40), (1, 1))), "too large"),
    "containers": (b"(" * 8_000_000, "more than 600 MB"),
    "long number": (b"\x8b" + struct.pack("<I", 2**30), "a whole number of"),
    "long text": (b"X" + struct.pack("<I", 2**31), "ends too early"),
    "unknown opcode": (b"i", "opcode"),
    "stack": (b"R", "ends too early"),
    "memo": (b"h\x07", "KeyError"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_a_file_can_do(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, message = HOSTILE[case]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.pt"
    path.write_bytes(_saved(body))
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(path)
    assert time.process_time() - begin < 60  # a hang, whatever the machine
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000  # kB
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["m.pt"]


def test_a_compressed_archive_is_no_way_around(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(_saved(SOUND, bytes(10**7), level=1))
    with pytest.raises(CheckpointError, match="is compressed"):
        open_checkpoint(tmp_path / "m.pt")


def test_under_a_limit_of_memory(tmp_path: Path) -> None:
    """A matrix that the memory cannot hold is named, by a process that may take 6 GB."""
    (tmp_path / "m.pt").write_bytes(
        _saved(_mapping(**{"a.weight": _tensor((30_000, 30_000), (0, 0))}))
    )
    text = b'{"a.weight":{"dtype":"F32","shape":[40000,40000],"data_offsets":[0,6400000000]}}'
    with open(tmp_path / "m.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 6_400_000_000)
    (tmp_path / "a.yaml").write_text("tensors:\n  a.weight: out <- in\n", encoding="utf-8")
    for name in ("m.pt", "m.safetensors"):
        command = f"ulimit -v 6000000; {sys.executable} -m rclib spectra {name} --axes a.yaml"
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert name in done.stderr
        assert "a.weight" in done.stderr


@pytest.mark.parametrize("form", ["zip", "old"])
def test_mutations_give_our_error_alone(form: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    weights = {"w": torch.randn(4, 3), "t": torch.randn(4, 3).t()}
    torch.save({"model": weights, "step": 3}, path, _use_new_zipfile_serialization=form == "zip")
    sound = path.read_bytes()
    generator = np.random.default_rng(1)
    before = len(os.listdir("/dev/fd"))
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1500):
        damaged = bytearray(sound)
        for at in generator.integers(0, len(damaged), generator.integers(1, 4)):
            damaged[at] = generator.integers(0, 256)
        path.write_bytes(damaged[: len(damaged) - int(generator.integers(0, 3))])
        try:
            with open_checkpoint(path) as checkpoint:
                for name in checkpoint.tensors:
                    checkpoint.tensor(name)
            outcomes["read"] += 1
        except CheckpointError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("make", [pickle.dumps, lambda v, protocol: pickle.dumps([v], protocol)])
def test_plain_values(make: Callable[..., bytes]) -> None:
    value = {"a": [1, -2, 2**70, 1.5, None, True], "b": ("x" * 100, b"y" * 100, {}), 3: {"c": ()}}
    for protocol in (2, 3, 4, 5):
        if protocol == 2:
            value = {k: v for k, v in value.items() if k != "b"}
        found, end = read_pickle(memoryview(make(value, protocol=protocol)))
        assert found in (value, [value])
        assert end == len(make(value, protocol=protocol))
    with pytest.raises(Refused):
        read_pickle(memoryview(b""))
