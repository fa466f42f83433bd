"""Files and folders as people have them: opened by content, or one line says what they are.

Each case builds its input itself; the names are those of the public reports behind them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rclib.checkpoints.folders import cache_snapshot
from rclib.checkpoints.hub_names import hub_id
from rclib.checkpoints.names import shorter_names, unwrapped
from rclib.checkpoints.opening import CheckpointError, open_checkpoint


def _weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"layer.{i}.weight": torch.randn(4, 3, generator=generator) for i in range(3)} | {
        "layer.0.bias": torch.randn(4, generator=generator)
    }


def _same(path: Path, tensors: Mapping[str, Tensor], **options: Any) -> None:
    with open_checkpoint(path, **options) as checkpoint:
        assert set(checkpoint.tensors) == set(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(checkpoint.tensor(name), tensor)


def _refusal(path: Path | str, **options: Any) -> str:
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path, **options)
    assert len(os.listdir("/dev/fd")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What training scripts write around the weights.
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(4, 3)}}, "param_groups": [{"lr": 0.1}]}
AROUND: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "alone": lambda w: w,
    "pth.tar": lambda w: {
        "epoch": 3, "state_dict": w, "best_acc1": torch.tensor(71.2), "optimizer": OPTIMIZER,
    },
    "lightning": lambda w: {
        "state_dict": w, "pytorch-lightning_version": "2.4.0", "callbacks": {}, "loops": {},
    },
    "namespace": lambda w: {"model": w, "args": argparse.Namespace(lr=1e-3, out=Path("out"))},
    "net": lambda w: {"net": w, "acc": 95.16, "epoch": 199},
    "any key": lambda w: {"parámetros": w, "rng": torch.get_rng_state()},
    "two levels": lambda w: {"checkpoint": {"weights": w, "step": 3}, "loss": [0.1]},
    "weights and step": lambda w: (w, {"step": 3, "rates": [0.1]}),
    "in a list": lambda w: [3, {"net": w}],
    "numpy numbers": lambda w: {
        "model": w, "loss": np.float64(0.5), "steps": np.int64(3), "curve": np.arange(900.0),
        "dtype": np.dtype("f4"),
    },
    "the same twice": lambda w: {"model": w, "module": dict(w)},
    "a normaliser": lambda w: {"model": w, "mean": {"mean": torch.ones(3), "std": torch.ones(3)}},
    "parameters": lambda w: {k: nn.Parameter(v) for k, v in w.items()},
    "a set and a type": lambda w: {"model": w, "seen": {1, 2}, "dtype": torch.float16},
}  # fmt: skip


@pytest.mark.parametrize("ending", ["pth.tar", "ckpt", "pkl", "bin", "none", "model"])
def test_any_ending(ending: str, tmp_path: Path) -> None:
    path = tmp_path / ("x" if ending == "none" else f"x.{ending}")
    torch.save({"state_dict": _weights()}, path)
    _same(path, _weights())
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(_weights(), folder / f"y.{ending}")
    _same(folder / f"y.{ending}", _weights())


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("form", ["zip", "old", "protocol 5"])
def test_weights_are_found_under_any_key(around: str, form: str, tmp_path: Path) -> None:
    torch.save(
        AROUND[around](_weights()), tmp_path / "x.pt",
        _use_new_zipfile_serialization=form != "old", pickle_protocol=5 if "5" in form else 2,
    )  # fmt: skip
    _same(tmp_path / "x.pt", _weights())


def test_with_several_sets_one_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"model": _weights(), "model_ema": _weights(1), "epoch": 1}, path)
    assert "choose one with --key: model (4 tensors), model_ema (4 tensors)" in _refusal(path)
    _same(path, _weights(), key="model")
    _same(path, _weights(1), key="model_ema")
    assert "keys with tensors: model, model_ema" in _refusal(path, key="ema")
    torch.save({"a": {"G": _weights(), "D": _weights(1)}}, path)
    _same(path, _weights(1), key="a.D")
    with open_checkpoint(path, key="a.G") as checkpoint:
        assert torch.equal(checkpoint.tensor("layer.0.bias"), _weights()["layer.0.bias"])
    save_file(_weights(), tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="key must be None"):
        open_checkpoint(tmp_path / "x.safetensors", key="model")
    with pytest.raises(ValueError, match="key must be None"):
        open_checkpoint(_weights(), key="model")


def test_arguments_of_the_model_come_along(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    arguments = {"n_head": 4, "n_embd": 48, "bias": True, "dropout": 0.0, "list": [1]}
    torch.save({"model": _weights(), "model_args": arguments}, path)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.config == {"n_head": 4, "n_embd": 48, "bias": True, "dropout": 0.0}
    (tmp_path / "config.json").write_text('{"n_head": 2}', encoding="utf-8")
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.config == {"n_head": 2}


class OfItsOwn:
    """A class of the training script."""


def _script(path: Path) -> None:
    class Module(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    torch.jit.save(torch.jit.script(Module()), path)  # type: ignore[no-untyped-call]


def _numpy(path: Path, save: Callable[..., object]) -> None:
    with open(path, "wb") as file:
        save(file, np.ones(3))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 523000000\n"
NOT_WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "lfs": (lambda p: p.write_bytes(LFS), "Git LFS pointer, not the weights; run `git lfs pull`"),
    "script": (_script, "TorchScript program, not weights; save the weights alone"),
    "class": (
        lambda p: torch.save({"model": _weights(), "config": OfItsOwn()}, p),
        "OfItsOwn', which could be code; .* save the weights alone",
    ),
    "whole model": (lambda p: torch.save(nn.Linear(2, 2), p), r"Linear.* save the weights alone"),
    "old whole model": (
        lambda p: torch.save(nn.Linear(2, 2), p, _use_new_zipfile_serialization=False),
        r"Linear.* save the weights alone",
    ),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "page": (lambda p: p.write_bytes(b"<!DOCTYPE html><html>"), "a web page"),
    "json": (lambda p: p.write_bytes(b'{"a": 1}' + b" " * 999), "a JSON file"),
    "hdf5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "Keras or TensorFlow"),
    "npy": (lambda p: _numpy(p, np.save), "one numpy array"),
    "npz": (lambda p: _numpy(p, np.savez), "a zip archive, but not of torch.save"),
    "gzip": (lambda p: p.write_bytes(b"\x1f\x8b" + bytes(99)), "gzip; unpack it"),
    "onnx": (lambda p: p.write_bytes(b"\x08\x08\x12\x07pytorch" + bytes(99)), "an ONNX graph"),
    "old ggml": (lambda p: p.write_bytes(b"tjgg" + bytes(99)), "before GGUF"),
    "noise": (lambda p: p.write_bytes(b"\x07" * 999), "no checkpoint of a format that is read"),
    "text": (lambda p: p.write_bytes(b"Access to model x is restricted.\n"), "a text, .* anew"),
    "pipe": (lambda p: os.mkfifo(p), "not a regular file but a named pipe"),
}


@pytest.mark.parametrize("case", NOT_WEIGHTS)
@pytest.mark.parametrize("name", ["x.pt", "pytorch_model.bin"])
def test_messages_say_what_a_file_is(case: str, name: str, tmp_path: Path) -> None:
    make, message = NOT_WEIGHTS[case]
    path = tmp_path / name
    make(path)
    if not stat.S_ISFIFO(path.stat().st_mode):
        assert path.is_file()
    for source in (path, tmp_path):
        text = _refusal(source)
        assert str(path) in text
        assert re.search(message, text)


def test_devices_and_missing_files() -> None:
    assert "not a regular file but a device" in _refusal("/dev/zero")
    assert "no such file" in _refusal("nowhere/x.safetensors").lower()


# Folders: {name: content}; bytes, text, or tensors for a safetensors file.
def _shards(count: int = 2, stem: str = "model") -> dict[str, Any]:
    names = [f"{stem}-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    return {n: dict(list(_weights().items())[i::count]) for i, n in enumerate(names)}


def _index(shards: dict[str, Any]) -> str:
    return json.dumps({"weight_map": {t: f for f, part in shards.items() for t in part}})


def _folder(folder: Path, files: Mapping[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            save_file(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


FIRST = "model-00001-of-00002.safetensors"
GOOD_FOLDERS: dict[str, Mapping[str, Any]] = {
    "shards without an index": _shards(),
    "shards from 0": {f"part-{i}-of-2.safetensors": s for i, s in enumerate(_shards().values())},
    "extra tensor": {
        "model.safetensors.index.json": _index(_shards()),
        **_shards(), FIRST: _shards()[FIRST] | {"mtp.fc.weight": torch.ones(2, 2)},
    },
    "index of another name": {
        "diffusion_pytorch_model.safetensors.index.json": _index(_shards(2, "d")),
        **_shards(2, "d"),
    },
    "two precisions": {
        "diffusion_pytorch_model.safetensors": _weights(),
        "diffusion_pytorch_model.fp16.safetensors": {k: v.half() for k, v in _weights().items()},
    },
    "infinity in config.json": {
        "model.safetensors": _weights(),
        "config.json": '\ufeff{"time_step_limit": [0.0, Infinity], "a": NaN, "b": 1, "b": 1}',
    },
    "beside training": {
        "my.safetensors": _weights(), "training_args.bin": b"x", "optimizer.pt": b"y",
    },
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD_FOLDERS)
def test_folders_that_are_read(case: str, tmp_path: Path) -> None:
    _same(_folder(tmp_path, GOOD_FOLDERS[case]), _weights())


BAD_FOLDERS: dict[str, tuple[Mapping[str, Any], str]] = {
    "shard missing": (
        {"model.safetensors.index.json": _index(_shards()), FIRST: _shards()[FIRST]},
        "file 'model-00002-of-00002.safetensors' is missing",
    ),
    "shard missing, no index": ({FIRST: _shards()[FIRST]}, "shard 2 of 2 is missing"),
    "lora": (
        {"adapter_model.safetensors": _weights(), "adapter_config.json": "{}"},
        "a LoRA adapter: .* merge it into its base model",
    ),
    "lora's names": (
        {"model.safetensors": {f"q.lora_{k}.weight": torch.ones(2, 2) for k in "AB"}},
        "a LoRA adapter",
    ),
    "distcp": ({"__0_0.distcp": b"x", ".metadata": b"y"}, "dcp_to_torch"),
    "distcp below": ({"fsdp_0/__0_0.distcp": b"x"}, "dcp_to_torch .*fsdp_0 model.pt"),
    "zero shards": ({"zero_to_fp32.py": "", "latest": ""}, "python zero_to_fp32.py"),
    "zero-3": (
        {"model.safetensors": _weights() | {f"p{i}.weight": torch.empty(0) for i in range(4)}},
        "4 of 8 tensors are empty; tensor 'p0.weight' is empty: what DeepSpeed's ZeRO-3 leaves",
    ),
    "pipeline": (
        {"model_index.json": "{}", "unet/d.safetensors": _weights(), "vae/d.bin": b"x"},
        "no weights in the folder itself, but in unet, vae; pass one",
    ),
    "tensorflow": ({"tf_model.h5": b"x"}, "weights of TensorFlow or Keras"),
    "onnx": ({"model.onnx": b"x"}, "weights of ONNX"),
    "flax": ({"flax_model.msgpack": b"x"}, "weights of Flax"),
    "meta in parts": (
        {f"consolidated.0{i}.pth": b"x" for i in range(2)}, "tensor-parallel parts"
    ),
    "several": (
        {"a.safetensors": _weights(), "b.safetensors": _weights()}, "pass one of them by its path"
    ),
    "broken config": ({"model.safetensors": _weights(), "config.json": "{"}, "not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", ["page", "json", "text", "hdf5", "class", "lfs", "empty"])
def test_what_is_called_safetensors_and_is_not(case: str, tmp_path: Path) -> None:
    make, message = NOT_WEIGHTS[case]
    make(tmp_path / "model.safetensors")
    assert re.search(message, _refusal(tmp_path))


def test_files_cut_short_say_so(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(_weights(), path)
    whole = path.read_bytes()
    for missing in (1, 100):
        path.write_bytes(whole[:-missing])
        assert "cut short: by data_offsets" in _refusal(path)
        assert "fetch it anew" in _refusal(tmp_path)
    torch.save(_weights(), tmp_path / "x.safetensors")  # a name says little
    _same(tmp_path / "x.safetensors", _weights())


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_folders_that_are_named(case: str, tmp_path: Path) -> None:
    files, message = BAD_FOLDERS[case]
    _folder(tmp_path, files)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)
    assert str(tmp_path) in _refusal(tmp_path)


def test_a_key_with_two_values_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    files = {"model.safetensors": _weights(), "config.json": '{"n": 1, "m": 2, "n": 3}'}
    with open_checkpoint(_folder(tmp_path, files)) as checkpoint:
        assert checkpoint.config == {"m": 2}


def test_links_of_the_user_are_followed(tmp_path: Path) -> None:
    disk, own = tmp_path / "disk", tmp_path / "own"
    _folder(disk, {"w.safetensors": _weights(), **_shards()})
    own.mkdir()
    (own / "model.safetensors").symlink_to(disk / "w.safetensors")
    _same(own, _weights())
    (own / "model.safetensors").unlink()
    for name in _shards():
        (own / name).symlink_to(disk / name)
    _same(own, _weights())
    (own / "model.safetensors").symlink_to(disk / "gone")
    assert "is a link to nothing" in _refusal(own)


def test_metas_own_folder_and_an_index_by_its_path(tmp_path: Path) -> None:
    torch.save(_weights(), tmp_path / "consolidated.00.pth")
    (tmp_path / "params.json").write_text('{"n_heads": 4}', encoding="utf-8")
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.config == {"n_heads": 4}
    _folder(tmp_path / "s", {"model.safetensors.index.json": _index(_shards()), **_shards()})
    _same(tmp_path / "s" / "model.safetensors.index.json", _weights())


def test_the_hubs_cache_by_its_folder(tmp_path: Path) -> None:
    model = tmp_path / "models--org--name"
    _folder(model / "snapshots" / "0123", {"model.safetensors": _weights()})
    _same(model, _weights())
    _folder(model / "snapshots" / "4567", {"model.safetensors": _weights(1)})
    assert "2 snapshots" in _refusal(model)
    _folder(model, {"refs/main": "4567"})
    assert cache_snapshot(model).name == "4567"
    _same(model, _weights(1))


def test_what_is_on_disk_is_not_asked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rclib.checkpoints.opening.fetch_model", lambda *_: pytest.fail("asked"))
    (tmp_path / "runs").mkdir()
    torch.save({"net": _weights()}, tmp_path / "runs" / "last")
    _same(Path("runs/last"), _weights())
    assert "~nouser" in _refusal("~nouser/x.pt")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("gpt2", ("openai-community/gpt2", None)),
        ("gpt2@v1", ("openai-community/gpt2", "v1")),
        ("bert-base-uncased", ("google-bert/bert-base-uncased", None)),
        ("https://huggingface.co/openai-community/gpt2", ("openai-community/gpt2", None)),
        ("https://huggingface.co/gpt2", ("openai-community/gpt2", None)),
        ("https://huggingface.co/a/b/tree/v1", ("a/b", "v1")),
        ("huggingface.co/a/b/resolve/main/model.safetensors?download=true", ("a/b", "main")),
        ("hf://a/b", ("a/b", None)),
        ("hf.co/a/b/", ("a/b", None)),
        ("a/b@v2", ("a/b", "v2")),
        ("https://example.com/a/b", None),
        ("https://huggingface.co/unknown", None),
        ("modle", None),
    ],
)
def test_what_people_write_for_a_model(source: str, expected: tuple[str, str] | None) -> None:
    assert hub_id(source) == expected


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("_orig_mod.module.h.0.w", "h.0.w"),
        ("module._orig_mod.h.0.w", "h.0.w"),
        ("module.module.h.0.w", "h.0.w"),
        ("_fsdp_wrapped_module.h.0._checkpoint_wrapped_module.attn._orig_mod.w", "h.0.attn.w"),
        ("h.0.module.w", "h.0.w"),
        ("module", "module"),
        ("h.0.modules.w", "h.0.modules.w"),
    ],
)
def test_wrappers_are_taken_off_in_any_order(name: str, plain: str) -> None:
    assert unwrapped(name) == plain


def test_words_at_the_front_go_one_by_one() -> None:
    assert shorter_names("model.model.layers.0.w") == (
        "model.model.layers.0.w", "model.layers.0.w", "layers.0.w",
    )  # fmt: skip
    assert shorter_names("model") == ("model",)


def test_packed_types_are_named_and_the_others_read(tmp_path: Path) -> None:
    entries = {
        "a": ("F32", [2, 2], 16), "codes": ("F4", [4, 8], 16), "six": ("F6_E2M3", [4], 3),
    }  # fmt: skip
    header, at = {}, 0
    for name, (kind, shape, size) in entries.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(checkpoint.tensor("a"), torch.zeros(2, 2))
        assert set(checkpoint.left_out) == {"codes", "six"}
        with pytest.raises(CheckpointError, match=r"'codes'.*(left out|type 'F4')"):
            checkpoint.tensor("codes")
