"""rclib.files.cut_short: a mapped file that is cut gives one line, not "Bus error"."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import fresh_process
import pytest
import torch
from safetensors.torch import save_file

from rclib.checkpoints.opening import CheckpointError, open_checkpoint
from rclib.checkpoints.tensor_file import TensorFile, opened
from rclib.cli.output import guarded
from rclib.families.layout import layout
from rclib.files import cut_short
from rclib.inspection.change import Change
from rclib.resizing.folder import resize_folder

SCRIPT = """
import sys, threading, torch, os
from rclib.checkpoints.opening import open_checkpoint
from rclib.cli.output import guarded
path, where = sys.argv[1:]
def work():
    with open_checkpoint(path) as checkpoint:
        def read():
            rows = checkpoint.view("a.weight", 0, 1 << 21, torch.empty(0, dtype=torch.uint8))
            os.truncate(path, 4096)
            rows.sum()
        if where == "thread":
            thread = threading.Thread(target=read)
            thread.start()
            thread.join()
        else:
            read()
    return 0
sys.exit(guarded(work))
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "m\x07.safetensors"
    save_file({"a.weight": torch.ones(2048, 1024), "b.weight": torch.ones(8, 8)}, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_file_cut_while_its_pages_are_mapped_is_named(weights: Path, where: str) -> None:
    done = fresh_process.run(["-c", SCRIPT, str(weights), where], cwd=weights.parent)
    escaped = str(weights).replace("\x07", "\\x07")
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"error: {escaped}: was cut short while it was read\n"


def test_the_handler_before_comes_back() -> None:
    """Without a handler of ours a second block would find that of the first."""
    assert not cut_short._kept
    for _ in range(2):
        with cut_short.named(lambda: "x"):
            assert len(cut_short._kept) == 1
    assert not cut_short._kept


def test_beside_the_main_thread_nothing_is_set() -> None:
    seen: list[int] = []

    def run() -> None:
        with cut_short.named(lambda: "x"):
            seen.append(len(cut_short._kept))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [0]


def changed(path: Path, how: str) -> None:
    if how == "cut":
        os.truncate(path, 1000)
    elif how == "longer":
        with open(path, "ab") as file:
            file.write(b"1234")
    else:
        with open(path, "r+b") as file:
            file.seek(5000)
            file.write(b"x")
        os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("how", ["cut", "longer", "written"])
def test_a_file_that_changes_while_it_is_read_is_named_at_the_end(weights: Path, how: str) -> None:
    checkpoint = open_checkpoint(weights)

    def use() -> None:
        with checkpoint:
            assert checkpoint.tensor("b.weight").shape == (8, 8)
            changed(weights, how)

    with pytest.raises(CheckpointError, match="while it was read: what was read is of no one"):
        use()
    assert checkpoint.files[0]._file._handle < 0


def test_a_file_that_is_replaced_is_read_on(weights: Path) -> None:
    with open_checkpoint(weights) as checkpoint:
        os.replace(weights, weights.with_name("old"))
        weights.write_bytes(b"another")
        assert float(checkpoint.tensor("b.weight").sum()) == 64.0


def test_an_error_in_the_block_is_the_one_that_is_raised(weights: Path) -> None:
    def use() -> None:
        with open_checkpoint(weights):
            changed(weights, "longer")
            raise KeyError("own")

    with pytest.raises(KeyError):
        use()


def test_both_of_a_change_are_looked_at(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"a.weight": torch.zeros(2048, 1024)}, other)
    for path in (weights, other):
        with (
            pytest.raises(CheckpointError, match="written to while it was read"),
            Change(open_checkpoint(weights), open_checkpoint(other), owns=True),
        ):
            changed(path, "written")


def test_closed_and_vanished_files_have_not_changed(weights: Path) -> None:
    file = TensorFile(weights)
    assert file in opened
    os.close(file._handle)
    assert file.change() == ""
    file._handle = -1
    assert file.change() == ""


def llama(folder: Path) -> Path:
    """A Llama of one block, 16 wide."""
    n, m, vocabulary = 16, 24, 32
    shapes = {
        "model.embed_tokens.weight": (vocabulary, n),
        "lm_head.weight": (vocabulary, n),
        "model.norm.weight": (n,),
        "model.layers.0.input_layernorm.weight": (n,),
        "model.layers.0.post_attention_layernorm.weight": (n,),
        **{f"model.layers.0.self_attn.{p}_proj.weight": (n, n) for p in "qkvo"},
        **{f"model.layers.0.mlp.{p}_proj.weight": (m, n) for p in ("gate", "up")},
        "model.layers.0.mlp.down_proj.weight": (n, m),
    }
    folder.mkdir()
    save_file({k: torch.randn(s) for k, s in shapes.items()}, folder / "model.safetensors")
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": n,
        "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": m,
        "num_hidden_layers": 1, "vocab_size": vocabulary,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_no_resized_model_of_a_source_that_changes(tmp_path: Path) -> None:
    source = llama(tmp_path / "source")
    count: list[int] = []

    def progress(done: int) -> None:
        if not count:
            os.utime(source / "model.safetensors", ns=(1, 1))
        count.append(done)

    with open_checkpoint(source) as checkpoint:
        found = layout(checkpoint.tensors, checkpoint.config)
        with pytest.raises(CheckpointError, match="written to while it was read"):
            resize_folder(checkpoint, found, tmp_path / "out", width=32, progress=progress)
        checkpoint.close()
    assert count
    assert not (tmp_path / "out").exists()


def test_the_line_without_a_file_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    from rclib.cli.output import _cut

    assert guarded(lambda: 0) == 0
    assert _cut().endswith(": was cut short while it was read")
