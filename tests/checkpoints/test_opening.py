"""checkpoints.opening (with its readers, shards and pickles): every source, and every refusal."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rclib.checkpoints.opening import Checkpoint, CheckpointError, open_checkpoint

INDEX = "model.safetensors.index.json"


class Model(nn.Module):
    """A module with a parameter, a buffer and a part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("steps", torch.arange(3))


def _tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(10, 6, generator=generator),
        "a.bias": torch.randn(10, generator=generator).bfloat16(),
        "b.weight": torch.randn(4, 10, 2, generator=generator).half(),
        "b.scale": torch.tensor(2.0),
        "c.empty": torch.zeros(0, 5),
        "c.eight": torch.randn(6, 3, generator=generator).to(torch.float8_e4m3fn),
        "c.ids": torch.arange(7),
    }


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = (t.contiguous().view(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(a, b)


def _shard(folder: Path, tensors: Mapping[str, Tensor], count: int = 3, kind: str = "st") -> None:
    """Write shards of tensors in turn, and their index."""
    placed: dict[str, str] = {}
    for k in range(count):
        part = dict(list(tensors.items())[k::count])
        if kind == "st":
            name = f"model-{k + 1:05d}-of-{count:05d}.safetensors"
            save_file(part, folder / name)
        else:
            name = f"pytorch_model-{k + 1:05d}-of-{count:05d}.bin"
            torch.save(part, folder / name)
        placed |= dict.fromkeys(part, name)
    index = INDEX if kind == "st" else "pytorch_model.bin.index.json"
    whole = {"metadata": {"total_size": 1}, "weight_map": placed}
    (folder / index).write_text(json.dumps(whole), encoding="utf-8")


def _source(kind: str, folder: Path, tensors: dict[str, Tensor]) -> Any:
    if kind == "mapping":
        return tensors
    if kind == "shards":
        _shard(folder, tensors)
        return folder
    if kind == "shards of pickles":
        _shard(folder, tensors, kind="bin")
        return str(folder)
    if kind == "nested pickle":
        torch.save({"epoch": 3, "model_state_dict": tensors}, folder / "x.pt")
        return folder / "x.pt"
    if kind == "old pickle":
        torch.save(tensors, folder / "x.pth", _use_new_zipfile_serialization=False)
        return folder / "x.pth"
    if kind == "pickle":
        torch.save(tensors, folder / "pytorch_model.bin")
        return folder
    name = "other.safetensors" if kind == "single file of a directory" else "model.safetensors"
    save_file(tensors, folder / name)
    return folder / name if kind == "file" else folder


SOURCES = (
    "mapping",
    "file",
    "directory",
    "single file of a directory",
    "shards",
    "shards of pickles",
    "pickle",
    "nested pickle",
    "old pickle",
)


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_tensors(kind: str, tmp_path: Path) -> None:
    tensors = _tensors()
    if kind == "old pickle":
        del tensors["c.eight"]  # older than 8-bit types
    source = _source(kind, tmp_path, tensors)
    before = sorted(tmp_path.rglob("*"))
    with open_checkpoint(source) as checkpoint:
        assert set(checkpoint.tensors) == set(tensors)
        assert checkpoint.config is None
        assert checkpoint.source == ("state dict" if kind == "mapping" else str(source))
        assert checkpoint.nbytes == sum(t.numel() * t.itemsize for t in tensors.values())
        for name, tensor in tensors.items():
            info = checkpoint.tensors[name]
            assert info == checkpoint.info(name)
            assert info.shape == tuple(tensor.shape)
            assert f"torch.{info.dtype}" == str(tensor.dtype)
            assert _same(checkpoint.tensor(name), tensor), name
            if tensor.ndim:
                middle = len(tensor) // 2
                assert _same(checkpoint.rows(name, middle, len(tensor)), tensor[middle:]), name
            for size in (1, 7, 100, 10**6):
                _check_chunks(checkpoint, name, tensor, size)
    assert sorted(tmp_path.rglob("*")) == before  # nothing is written


def _check_chunks(checkpoint: Checkpoint, name: str, tensor: Tensor, size: int) -> None:
    found, expected_first = [], 0
    for first, rows in checkpoint.chunks(name, max_bytes=size):
        assert first == expected_first
        if tensor.ndim:
            assert len(rows) <= 1 or rows.numel() * rows.itemsize <= size
            expected_first += len(rows)
        found.append(rows.clone())
    if tensor.ndim == 0:
        assert len(found) == 1
        assert _same(found[0], tensor)
    elif len(tensor):
        # torch cannot join 8-bit floats, their bytes it can
        whole = torch.cat([f.view(torch.uint8) if f.itemsize == 1 else f for f in found])
        assert _same(whole.view(tensor.dtype), tensor)
    else:
        assert not found


def test_chunks_use_their_memory_again(tmp_path: Path) -> None:
    save_file({"w": torch.arange(4000.0).view(1000, 4)}, tmp_path / "x.safetensors")
    with open_checkpoint(tmp_path / "x.safetensors") as checkpoint:
        places = {rows.data_ptr() for _, rows in checkpoint.chunks("w", max_bytes=1600)}
        assert len(places) == 1
        with pytest.raises(ValueError, match="max_bytes"):
            next(checkpoint.chunks("w", max_bytes=0))


def test_a_module_shares_its_memory() -> None:
    model = Model()
    with open_checkpoint(model) as checkpoint:
        assert checkpoint.source == "Model"
        assert list(checkpoint.tensors) == ["scale", "steps", "part.weight", "part.bias"]
        model.part.weight.data[0, 0] = 7.0
        assert float(checkpoint.tensor("part.weight")[0, 0]) == 7.0
        assert not checkpoint.tensor("part.weight").requires_grad


def test_extra_state_of_modules_is_left_out() -> None:
    state: dict[str, Any] = {"w": torch.ones(2), "part._extra_state": {"step": 3}}
    with open_checkpoint(state) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]


def test_tensors_that_do_not_lie_in_order() -> None:
    tensor = torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1)
    with open_checkpoint({"w": tensor, "v": torch.arange(10.0)[::3]}) as checkpoint:
        assert torch.equal(checkpoint.tensor("w"), tensor)
        assert torch.equal(checkpoint.rows("w", 1, 3), tensor[1:3])
        assert torch.equal(checkpoint.entries("w", 5, 15), tensor.flatten()[5:15])
        assert torch.equal(checkpoint.entries("v", 1, 3), torch.tensor([3.0, 6.0]))


def test_config_is_read(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 8}', encoding="utf-8")
    for source in (tmp_path, tmp_path / "model.safetensors"):
        with open_checkpoint(source) as checkpoint:
            assert checkpoint.config == {"model_type": "gpt2", "n_embd": 8}
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json: not JSON"):
        open_checkpoint(tmp_path)


def test_one_file_is_preferred_to_shards_and_safetensors_to_pickles(tmp_path: Path) -> None:
    torch.save({"pickle": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    _shard(tmp_path, {"shard": torch.ones(1)}, count=1)
    with open_checkpoint(tmp_path) as checkpoint:
        assert list(checkpoint.tensors) == ["shard"]
    save_file({"file": torch.ones(1)}, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        assert list(checkpoint.tensors) == ["file"]


def test_a_pickle_that_is_replaced_stays_what_was_opened(tmp_path: Path) -> None:
    tensors = {f"w{i}": torch.randn(300, 1000) for i in range(3)}
    torch.save(tensors, tmp_path / "x.pt")
    with open_checkpoint(tmp_path / "x.pt") as checkpoint:
        torch.save({"w0": torch.ones(2)}, tmp_path / "y.pt")
        os.replace(tmp_path / "y.pt", tmp_path / "x.pt")
        for name, tensor in tensors.items():
            assert torch.equal(checkpoint.tensor(name), tensor)


# Directories. Each case changes a sound directory of shards; the message must name the culprit.
def _no_files(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _change_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    whole = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    change(whole["weight_map"])
    (folder / INDEX).write_text(json.dumps(whole), encoding="utf-8")


def _link_out(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    shutil.move(folder / SECOND, outside)
    (folder / "odd.safetensors").symlink_to(outside)
    _change_index(
        folder,
        lambda m: m.update({k: "odd.safetensors" for k, v in m.items() if v == SECOND}),
    )


def _truncate(folder: Path) -> None:
    path = folder / "model-00002-of-00003.safetensors"
    os.truncate(path, path.stat().st_size - 1)


FIRST = "model-00001-of-00003.safetensors"
SECOND = "model-00002-of-00003.safetensors"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (_no_files, "none of model.safetensors, "),
    "shard missing": (lambda d: (d / SECOND).unlink(), f"'{SECOND}' is missing"),
    "no index and a shard missing": (
        lambda d: ((d / INDEX).unlink(), (d / SECOND).unlink()),
        "shard 2 of 3 is missing",
    ),
    "no index and a tensor twice": (
        lambda d: ((d / INDEX).unlink(), shutil.copy(d / FIRST, d / SECOND)),
        "is in two of its files",
    ),
    "several files": (
        lambda d: ((d / INDEX).unlink(), (d / SECOND).rename(d / "other.safetensors")),
        "several files and no index",
    ),
    "index is a list": (lambda d: (d / INDEX).write_text("[1]"), "a JSON object is needed"),
    "index without map": (lambda d: (d / INDEX).write_text("{}"), "weight_map must map"),
    "index maps to numbers": (
        lambda d: (d / INDEX).write_text('{"weight_map": {"a": 1}}'),
        "weight_map must map",
    ),
    "empty index": (lambda d: (d / INDEX).write_text('{"weight_map": {}}'), "is empty"),
    "tensor that no shard has": (
        lambda d: _change_index(d, lambda m: m.update({"new": SECOND})),
        "lacks tensor 'new'",
    ),
    "tensor in another shard": (
        lambda d: _change_index(d, lambda m: m.update({"a.weight": SECOND})),
        "lacks tensor 'a.weight'",
    ),
    "upwards": (
        lambda d: _change_index(d, lambda m: m.update({"a.bias": "../x.safetensors"})),
        "'../x.safetensors' lies outside the directory",
    ),
    "upwards inside": (
        lambda d: _change_index(d, lambda m: m.update({"a.bias": f"x/../{SECOND}"})),
        "lies outside the directory",
    ),
    "absolute": (
        lambda d: _change_index(d, lambda m: m.update({"a.bias": str(d / SECOND)})),
        "lies outside the directory",
    ),
    "link to the outside": (_link_out, "leads outside"),
    "shard is a directory": (
        lambda d: ((d / SECOND).unlink(), (d / SECOND).mkdir()),
        "is missing",
    ),
    "shard truncated": (_truncate, f"{SECOND}: cut short"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_directories(case: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    _shard(folder, _tensors())
    with open_checkpoint(folder):
        pass
    change, message = BROKEN[case]
    change(folder)
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("blobs", ["models--tiny--model/blobs", "blobs/3f"])
def test_links_of_a_hugging_face_cache_are_followed(blobs: str, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--tiny--model" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    store = tmp_path / "hub" / blobs
    store.mkdir(parents=True)
    save_file({"w": torch.ones(2)}, store / "3f86")
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(store / "3f86", snapshot))
    with open_checkpoint(snapshot) as checkpoint:
        assert torch.equal(checkpoint.tensor("w"), torch.ones(2))


def test_what_is_not_there(tmp_path: Path) -> None:
    for source in (tmp_path / "x.safetensors", tmp_path / "x.bin", tmp_path / "x", "gpt2"):
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(source)
        assert str(source) in str(caught.value)


@pytest.mark.parametrize("source", ["", "x" * 5000, "a/" * 3000 + "x.bin", "a\0b", "a\0.bin", "\n"])
def test_names_that_no_system_takes(source: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(source)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    if not source.strip():
        assert "no such file or directory" in str(caught.value)


def test_revision_is_for_hub_ids(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    for source in (tmp_path, tmp_path / "model.safetensors", {"w": torch.ones(2)}, Model()):
        with pytest.raises(ValueError, match="revision must be None"):
            open_checkpoint(source, revision="v1")
    with pytest.raises(ValueError, match="contradicts"):
        open_checkpoint("owner/name@v2", revision="v1")


def test_bad_questions(tmp_path: Path) -> None:
    save_file({"w": torch.ones(4, 2), "s": torch.tensor(1.0)}, tmp_path / "x.safetensors")
    with open_checkpoint(tmp_path / "x.safetensors") as checkpoint:
        for ask in (
            lambda: checkpoint.tensor("v"),
            lambda: checkpoint.info("v"),
            lambda: checkpoint.rows("w", 0, 5),
            lambda: checkpoint.rows("w", -1, 2),
            lambda: checkpoint.rows("s", 0, 1),
            lambda: checkpoint.entries("w", 3, 2),
            lambda: next(checkpoint.chunks("v")),
        ):
            with pytest.raises(CheckpointError, match=r"tensor '[vws]'"):
                ask()
    checkpoint.close()
    with pytest.raises(CheckpointError, match="is closed"):
        checkpoint.tensor("w")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "holds no tensors"),
        ({"w": 3}, "entry 'w' is no tensor but int"),
        ({"w": {"v": torch.ones(1)}}, "entry 'w' is no tensor but dict"),
        ({3: torch.ones(1)}, "entry 3 is no tensor"),
    ],
)
def test_state_dicts_of_other_things(state: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(state)


def test_tensors_without_plain_values() -> None:
    for tensor in (torch.empty(3, device="meta"), torch.eye(3).to_sparse()):
        with (
            open_checkpoint({"w": tensor}) as checkpoint,
            pytest.raises(CheckpointError, match="no plain dense values"),
        ):
            checkpoint.tensor("w")


class Command:
    """Pickles to a program that writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.path}",))


def _code(path: Path, mark: Path) -> None:
    torch.save({"w": Command(mark)}, path)


def _old_code(path: Path, mark: Path) -> None:
    torch.save({"w": Command(mark)}, path, _use_new_zipfile_serialization=False)


def _bare_code(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Command(mark), protocol=2))


def _cut(path: Path, mark: Path) -> None:
    torch.save(_tensors(), path)
    os.truncate(path, path.stat().st_size * 2 // 3)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_code, r"asks for '(posix|nt)\.system', which could be code"),
        (_old_code, "could be code"),
        (_bare_code, "could be code"),
        (_cut, "or damaged"),
        (lambda path, mark: path.write_bytes(b""), "or damaged"),
        (lambda path, mark: path.write_bytes(b"\0" * 4096), "or damaged"),
        (lambda path, mark: path.write_bytes(b"PK\x03\x04" + b"\xff" * 4096), "or damaged"),
        (lambda path, mark: torch.save([torch.ones(1)], path), "no tensors by name but list"),
        (lambda path, mark: torch.save({"step": 3}, path), "entry 'step' is no tensor"),
    ],
)
def test_pickles_are_never_executed(
    write: Callable[[Path, Path], object], message: str, tmp_path: Path
) -> None:
    path, mark = tmp_path / "pytorch_model.bin", tmp_path / "executed"
    write(path, mark)
    for source in (path, tmp_path):
        with pytest.raises(CheckpointError, match=message) as caught:
            open_checkpoint(source)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not mark.exists()
