"""Files of weights that say two things, or ask for more than they hold: named, in bounds.

Every input is made here and given to the command line, with a limit of time and memory for each.
"""

from __future__ import annotations

import json
import os
import re
import resource
import struct
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rclib.__main__ import main
from rclib.checkpoints.names import shorter_names
from rclib.checkpoints.opening import CheckpointError, open_checkpoint
from rclib.cli.output import guarded
from rclib.families.layout import known_families
from rclib.families.table import Family

# Of one input: CPU time beyond which it hangs on any machine, and bytes beyond what was there.
SECONDS, MEMORY = 60.0, 1 << 29


def noise(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).standard_normal(count).astype("<f4").tobytes()


# --- pickles, byte by byte ------------------------------------------------------------------


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def whole(n: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", n)


def several(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def called(module: str, name: str, *args: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + several(*args) + b"R"


def mapping(*pairs: bytes) -> bytes:
    return b"}(" + b"".join(pairs) + b"u"


def view(
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    *,
    count: int,
    key: str = "0",
    kind: str = "FloatStorage",
    offset: int = 0,
) -> bytes:
    said = (text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"), whole(count))
    sizes = (several(*map(whole, shape)), several(*map(whole, stride)))
    ordered = b"ccollections\nOrderedDict\n)R"
    rebuild = ("torch._utils", "_rebuild_tensor_v2")
    return called(*rebuild, several(*said) + b"Q", whole(offset), *sizes, b"\x89", ordered)


def pt(folder: Path, body: bytes, *, data: bytes = noise(400), twice: str = "") -> Path:
    path = folder / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("a/data/0", data)
        if twice:
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr(twice, data[::-1])
    return path


def square(n: int = 20, **more: Any) -> bytes:
    return view((n, n), (n, 1), count=n * n, **more)


def expanded(folder: Path) -> Path:
    many = (text(f"w{i}") + view((2000, 2000), (0, 0), count=4) for i in range(500))
    return pt(folder, mapping(*many), data=noise(4))


def shared(folder: Path) -> Path:
    many = (text(f"w{i}") + square(300) for i in range(2000))
    return pt(folder, mapping(*many), data=noise(90_000))


def windows(folder: Path) -> Path:
    many = (text(f"w{i}") + view((300, 300), (300, 1), count=95_000, offset=i) for i in range(2000))
    return pt(folder, mapping(*many), data=noise(95_000))


def hankel(folder: Path) -> Path:
    many = (text(f"w{i}") + view((3000, 3000), (1, 1), count=5999) for i in range(20))
    return pt(folder, mapping(*many), data=noise(5999))


def two_types(folder: Path) -> Path:
    other = view((20, 40), (40, 1), count=800, kind="HalfStorage")
    return pt(folder, mapping(text("w") + square() + text("v") + other))


# --- safetensors and GGUF -------------------------------------------------------------------

BITS = {"F32": 4, "F16": 2, "I32": 4, "U8": 1, "F8_E4M3": 1, "BOOL": 1}
Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes]]


def safetensors(folder: Path, tensors: Tensors, name: str = "m.safetensors") -> Path:
    header, data = {}, b""
    for key, (kind, shape, raw) in tensors.items():
        size = BITS[kind] * int(np.prod(shape))
        assert len(raw) == size
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += raw
    said = json.dumps(header).encode()
    (folder / name).write_bytes(struct.pack("<Q", len(said)) + said + data)
    return folder / name


def good(folder: Path, name: str = "m.safetensors", tensor: str = "a.weight") -> Path:
    return safetensors(folder, {tensor: ("F32", (20, 20), noise(400))}, name)


def gptq(folder: Path, groups: list[int]) -> Path:
    index = struct.pack("<16i", *groups)
    parts: Tensors = {
        "a.qweight": ("I32", (2, 16), b"\x11" * 128), "a.qzeros": ("I32", (1, 2), b"\x11" * 8),
        "a.scales": ("F16", (1, 16), b"\x11" * 32), "a.g_idx": ("I32", (16,), index),
    }  # fmt: skip
    return safetensors(folder, parts)


def nf4(folder: Path, **about: Any) -> Path:
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [16, 16]} | about
    said = json.dumps(state).encode()
    parts: Tensors = {
        "a.weight": ("U8", (128, 1), bytes(range(128))),
        "a.weight.absmax": ("F32", (4,), noise(4)),
        "a.weight.quant_map": ("F32", (16,), noise(16)),
        "a.weight.quant_state.bitsandbytes__nf4": ("U8", (len(said),), said),
    }
    return safetensors(folder, parts)


def pruned(folder: Path, shape: tuple[int, int]) -> Path:
    size = shape[0] * shape[1]
    return safetensors(
        folder,
        {"a.weight_orig": ("F32", (20, 20), noise(400)),
         "a.weight_mask": ("BOOL", shape, b"\1" * size)},
    )  # fmt: skip


def many_parts(folder: Path, name: str) -> Path:
    names = [name.format(i) for i in range(15_000)]
    return safetensors(folder, {n: ("F32", (2, 2), bytes(16)) for n in names})


def gguf(folder: Path, tensors: list[tuple[bytes, int, int]], entries: bytes = b"") -> Path:
    """tensors : (name, side, place)."""
    count = entries.count(b"general.")
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), count) + entries
    for name, side, place in tensors:
        head += struct.pack("<Q", len(name)) + name
        head += struct.pack("<IQQIQ", 2, side, side, 0, place)
    path = folder / "m.gguf"
    path.write_bytes(head + bytes(-len(head) % 32) + noise(90_000))
    return path


def entry(key: bytes, value: int) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<II", 4, value)


ALIGNMENT = entry(b"general.alignment", 32) + entry(b"general.alignment", 64)


# --- folders --------------------------------------------------------------------------------


def shard_twice(folder: Path) -> Path:
    for i in ("1", "01", "2"):
        good(folder, f"model-{i}-of-2.safetensors", f"t{i}.weight")
    return folder


def device(folder: Path) -> Path:
    (folder / "model.safetensors").symlink_to("/dev/zero")
    return folder


PAIR = several(text("w"), square())

REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "expanded": (expanded, "bytes, the file .*: views of the same entries"),
    "shared": (shared, "views of the same entries"),
    "windows": (windows, "views of the same entries"),
    "hankel": (hankel, "views of the same entries"),
    "entry twice": (
        lambda f: pt(f, mapping(text("w") + square()), twice="a/data/0"),
        "an entry of the archive is there twice",
    ),
    "pickle twice": (
        lambda f: pt(f, mapping(text("w") + square()), twice="a/data.pkl"),
        "an entry of the archive is there twice",
    ),
    "tensor twice": (
        lambda f: pt(f, mapping(text("w") + square(), text("w") + square())),
        "tensor 'w' is there twice",
    ),
    "ordered key twice": (
        lambda f: pt(f, called("collections", "OrderedDict", b"](" + PAIR * 2 + b"e")),
        "OrderedDict with a key twice",
    ),
    "two types": (two_types, "storage '0' is said to be of two types or sizes"),
    "storage smaller than said": (
        lambda f: pt(f, mapping(text("w") + view((20, 20), (20, 1), count=7))),
        "reaches beyond the 28 bytes of its storage",
    ),
    "numbers for names": (
        lambda f: pt(f, mapping(whole(7) + square())),
        "the first has the number 7 for a name",
    ),
    "groups beyond the scales": (lambda f: gptq(f, [2**31 - 1] * 16), "g_idx is not in 0 to 0"),
    "groups below zero": (lambda f: gptq(f, [-1] * 16), "g_idx is not in 0 to 0"),
    "codes of another shape": (lambda f: nf4(f, shape=[10**6, 10**6]), "description is damaged"),
    "codes of fewer entries": (lambda f: nf4(f, shape=[16, 8]), "description is damaged"),
    "codes of no block": (lambda f: nf4(f, blocksize=0), "description is damaged"),
    "codes of other blocks": (lambda f: nf4(f, blocksize=32), "description is damaged"),
    "codes of negative sides": (lambda f: nf4(f, shape=[-16, -16]), "description is damaged"),
    "codes of infinite sides": (lambda f: nf4(f, shape=[1e999, 16]), "description is damaged"),
    "mask of another shape": (lambda f: pruned(f, (10, 40)), r"a mask of shape \(10, 40\)"),
    "many parametrisations": (
        lambda f: many_parts(f, "x.parametrizations.w{}.original"),
        "a class that the file does not",
    ),
    "overlap of all": (
        lambda f: gguf(f, [(b"blk.%d.w" % i, 300, 0) for i in range(2000)]),
        "tensor 'blk.1.w' overlaps 'blk.0.w'",
    ),
    "overlap of two": (lambda f: gguf(f, [(b"a", 20, 0), (b"b", 20, 32)]), "'b' overlaps 'a'"),
    "two alignments": (
        lambda f: gguf(f, [(b"a", 20, 0)], ALIGNMENT), "entry 'general.alignment' is there twice",
    ),
    "a shard twice": (shard_twice, "two files for one shard"),
    "a device in a fixed place": (device, "not a regular file but a device"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_says_two_things_or_asks_for_much_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, reason = REFUSED[name]
    path = make(tmp_path)
    cpu, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert main(["spectra", str(path)]) == 2
    assert time.process_time() - cpu < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert str(tmp_path) in said[0]
    assert re.search(reason, said[0]), said[0]


def test_what_the_parts_mean_where_they_fit(tmp_path: Path) -> None:
    """The other side: the same files with parts that fit are read."""
    with open_checkpoint(gptq(tmp_path, [0] * 16)) as checkpoint:
        assert checkpoint.tensor("a.weight").shape == (16, 16)
    with open_checkpoint(nf4(tmp_path)) as checkpoint:
        table, absmax = np.frombuffer(noise(16), "<f4"), np.frombuffer(noise(4), "<f4")
        codes = np.stack([np.arange(128) >> 4, np.arange(128) & 15], 1).ravel()
        right = (table[codes] * np.repeat(absmax, 64)).reshape(16, 16)
        np.testing.assert_allclose(checkpoint.tensor("a.weight").numpy(), right, rtol=1e-6)
    with open_checkpoint(pruned(tmp_path, (20, 20))) as checkpoint:
        right = np.frombuffer(noise(400), "<f4").reshape(20, 20)
        np.testing.assert_array_equal(checkpoint.tensor("a.weight").numpy(), right)


def test_one_weight_whose_parts_do_not_fit_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = gptq(tmp_path, [5] * 16)
    both = safetensors(
        tmp_path,
        {"b.weight": ("F32", (20, 20), noise(400))}
        | {n: ("I32" if n != "a.scales" else "F16", t.shape, t.numpy().tobytes())
           for n, t in load_file(path).items()},
        "both.safetensors",
    )  # fmt: skip
    assert main(["spectra", str(both)]) == 1
    said = capsys.readouterr()
    assert "left out: " + str(both) + ": tensor 'a.weight': its parts (gptq, 4 bits)" in said.err
    assert "20 x 20" in said.out


def test_tied_weights_and_small_expanded_ones_are_read(tmp_path: Path) -> None:
    """Forty layers that share one matrix, and a row that is expanded, are honest."""
    w, row = torch.randn(200, 200), torch.randn(1, 300)
    state = {f"layers.{i}.weight": w for i in range(40)} | {"mask": row.expand(300, 300)}
    torch.save(state, tmp_path / "tied.pt")
    with open_checkpoint(tmp_path / "tied.pt") as checkpoint:
        assert torch.equal(checkpoint.tensor("layers.39.weight"), w)
        assert torch.equal(checkpoint.tensor("mask"), row.expand(300, 300))


def test_tensors_without_a_name_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = view((20, 20), (20, 1), count=400)
    path = pt(tmp_path, mapping(text("w") + square(), whole(7) + other, text("x" * 300) + other))
    assert main(["spectra", str(path)]) == 1
    err = capsys.readouterr().err
    assert "tensor '#1' has the number 7 for a name; save it under a text" in err
    assert "tensor '#2' has no text of at most 256 bytes for a name" in err


@pytest.mark.parametrize("levels", [3, 4, 9])
def test_weights_further_down_are_found_where_there_is_none_above(
    tmp_path: Path, levels: int
) -> None:
    w = torch.randn(9, 12)
    value: dict[str, Any] = {"layer.weight": w}
    for i in reversed(range(levels)):
        value = {f"k{i}": value, "step": 3, "seed": torch.arange(4)}
    # An optimizer has matrices of its own below each parameter's number.
    optimizer = {"state": {0: {"exp_avg": torch.zeros(9, 12)}}, "param_groups": [{"lr": 0.1}]}
    torch.save(value | {"optimizer": optimizer}, tmp_path / "m.pt")
    with open_checkpoint(tmp_path / "m.pt") as checkpoint:
        assert next(iter(checkpoint.tensors)) == "layer.weight"
        assert torch.equal(checkpoint.tensor("layer.weight"), w)
        key = ".".join(f"k{i}" for i in range(levels))
        assert any(repr(key) in note for note in checkpoint.notes)
    with open_checkpoint(tmp_path / "m.pt", key=key) as checkpoint:
        assert torch.equal(checkpoint.tensor("layer.weight"), w)


def test_two_sets_further_down_have_to_be_chosen(tmp_path: Path) -> None:
    sets = {name: {"w": torch.randn(3, 4)} for name in ("model", "ema")}
    torch.save({"a": {"b": {"c": sets}}}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"--key: a\.b\.c\.model .*a\.b\.c\.ema"):
        open_checkpoint(tmp_path / "m.pt")
    open_checkpoint(tmp_path / "m.pt", key="a.b.c.ema").close()


@pytest.mark.parametrize("kind", ["pipe", "device", "loop"])
def test_a_configuration_that_is_no_file_is_said(tmp_path: Path, kind: str) -> None:
    good(tmp_path, "model.safetensors")
    if kind == "pipe":
        os.mkfifo(tmp_path / "config.json")
    else:
        target = {"device": "/dev/zero", "loop": "config.json"}[kind]
        (tmp_path / "config.json").symlink_to(target)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.config is None
        assert checkpoint.notes == ("config.json is no plain file and was not read",)


def test_a_table_that_does_not_fit_names_both_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, table = good(tmp_path), tmp_path / "t.yaml"
    for content, count in (("tensors: {zzz: out <- in}", 2), ("tensors: [", 1)):
        table.write_text(content)
        assert main(["spectra", str(path), "--axes", str(table)]) == 2
        err = capsys.readouterr().err
        assert str(table) in err
        assert err.count(str(tmp_path)) == count
    assert main(["correlations", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("size", ["x=" + "9" * 5000, "x=²", "x=0", "=3", "x"])
def test_a_size_that_is_none_is_named(
    tmp_path: Path, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["spectra", str(good(tmp_path)), "--size", size]) == 2
    err = capsys.readouterr().err
    assert "--size needs INDEX=NUMBER" in err
    assert len(err) < 250


def test_names_alike_are_looked_up_once_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a table remembers of names without a row changes no answer."""
    names = [f"{w}h.{i}.{part}" for w in ("", "module.", "transformer.") for i in (0, 7, 12)
             for part in ("attn.c_attn.weight", "attn.bias", "foo.weight")]  # fmt: skip
    for family in known_families():
        fresh = {name: Family(**_fields(family)) for name in names}
        for _ in range(2):
            for name in names:
                assert family.find(name) == fresh[name].find(name), name
                assert family.ignores(name) == fresh[name].ignores(name), name
    many = [f"blk.{i}.w" for i in range(30_000)]
    looked = 0

    def counted(name: str) -> list[str]:
        nonlocal looked
        looked += 1
        return shorter_names(name)

    monkeypatch.setattr("rclib.families.table.shorter_names", counted)
    families = [family for family in known_families() if family._plain]
    for family in families:
        assert not any(map(Family(**_fields(family)).find, many))
    assert families
    assert looked == len(families)


def _fields(family: Family) -> dict[str, Any]:
    return {name: getattr(family, name) for name in Family.__dataclass_fields__}


def test_prefixes_with_digits_are_taken_off_as_they_stand() -> None:
    family = Family("t", {"w{b}.x": "out <- in"}, {}, prefixes=("layer1.",))
    assert family.find("layer2.w3.x") is None
    assert family.find("layer1.w3.x") == ("w{b}.x", {"b": "3"})


@pytest.mark.parametrize("option", ["out", "table"])
def test_no_output_takes_the_place_of_weights(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = good(tmp_path)
    before = path.read_bytes()
    given = ["report", str(path), "--out", str(path)]
    if option == "table":
        given = ["spectra", str(path), "--write-table", str(path)]
    assert main(given) == 2
    assert f"{path} is there and is no " in capsys.readouterr().err
    assert path.read_bytes() == before
    # What was written there before is replaced.
    new = tmp_path / "new"
    for _ in range(2):
        assert main([*given[:-1], str(new)]) == 0


@pytest.mark.parametrize(
    "said", ["libtorch_cpu.so: failed to map segment from shared object", "can't start new thread"]
)
def test_memory_that_is_missing_for_a_library_is_said_so(
    said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise ImportError(said)

    assert guarded(work) == 2
    assert capsys.readouterr().err == f"error: not enough memory ({said})\n"
