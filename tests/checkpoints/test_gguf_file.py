"""checkpoints.gguf_file: every type that the package `gguf` writes, against its own dequantiser;
damaged files; families. Without the package only what it does not need."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rclib.__main__ import main
from rclib.checkpoints.opening import CheckpointError, open_checkpoint

try:
    import gguf
    from gguf import quants
except ImportError:
    gguf = None  # type: ignore[assignment]

needed = pytest.mark.skipif(gguf is None, reason="pip install 'rclib[gguf]'")
PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64", "I32": "int32"}


def _types() -> list[str]:
    """The types that this package dequantises."""
    found = []
    for kind in gguf.GGMLQuantizationType if gguf is not None else ():
        try:
            quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError:
            continue
        if kind.name not in PLAIN:
            found.append(kind.name)
    return found


def _packed(kind: Any, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Values of a type as bytes: quantised where the package can, else bytes of small scales."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=shape).astype(np.float32)
    try:
        return np.asarray(quants.quantize(values, kind))
    except NotImplementedError:
        entries, nbytes = gguf.GGML_QUANT_SIZES[kind]
        # No byte above 59: no scale is NaN or infinite.
        return generator.integers(0, 60, (shape[0], shape[1] // entries * nbytes), dtype=np.uint8)


def _written(path: Path, tensors: dict[str, tuple[np.ndarray, Any]], arch: str = "llama") -> Path:
    writer = gguf.GGUFWriter(path, arch)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_embedding_length(64)
    writer.add_token_list(["a" * (i % 7) for i in range(300)])
    writer.add_array("some.numbers", [1.5] * 20)
    writer.add_chat_template("x" * 100_000)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@needed
@pytest.mark.parametrize("kind", _types())
def test_quantised_types_as_the_package_reads_them(kind: str, tmp_path: Path) -> None:
    named = gguf.GGMLQuantizationType[kind]
    data = _packed(named, (5, 512), seed=3)
    wanted = quants.dequantize(data, named)
    path = _written(tmp_path / "x.gguf", {"w": (data, named), "n": (np.ones(4, np.float32), None)})
    with open_checkpoint(path) as checkpoint:
        info = checkpoint.tensors["w"]
        assert (info.shape, info.dtype, info.nbytes) == ((5, 512), "float32", 5 * 512 * 4)
        np.testing.assert_array_equal(checkpoint.tensor("w").numpy(), wanted)
        flat = wanted.ravel()
        for start, stop in ((0, 1), (31, 33), (255, 1300), (7, 7), (2559, 2560)):
            np.testing.assert_array_equal(
                checkpoint.entries("w", start, stop).numpy(), flat[start:stop]
            )
        buffer = torch.empty(4 * 700, dtype=torch.uint8)
        np.testing.assert_array_equal(checkpoint.view("w", 100, 800, buffer).numpy(), flat[100:800])


@needed
def test_plain_types_and_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = gguf.GGMLQuantizationType
    values = torch.randn(6, 32)
    tensors = {
        "F32": (values.numpy(), None),
        "F16": (values.half().numpy(), None),
        "F64": (values.double().numpy(), None),
        "I32": (np.arange(12, dtype=np.int32).reshape(3, 4), None),
        "BF16": (values.bfloat16().view(torch.uint8).numpy(), kinds.BF16),
        "Q8_0": (quants.quantize(values.numpy(), kinds.Q8_0), kinds.Q8_0),
    }
    path = _written(tmp_path / "no_ending", tensors)
    monkeypatch.setattr("rclib.checkpoints.gguf_file.PIECE", 64)
    with open_checkpoint(path) as checkpoint:
        for name, dtype in PLAIN.items():
            assert checkpoint.tensors[name].dtype == dtype
        assert torch.equal(checkpoint.tensor("F32"), values)
        assert torch.equal(checkpoint.tensor("F64"), values.double())
        assert torch.equal(checkpoint.tensor("BF16"), values.bfloat16())
        assert checkpoint.tensor("I32").tolist() == np.arange(12).reshape(3, 4).tolist()
        wanted = quants.dequantize(tensors["Q8_0"][0], kinds.Q8_0)
        np.testing.assert_array_equal(checkpoint.tensor("Q8_0").numpy(), wanted)
        config = dict(checkpoint.config or {})
        assert config.pop("gguf")["llama.attention.head_count"] == 4
        assert config == {
            "model_type": "gguf-llama", "num_attention_heads": 4, "num_key_value_heads": 2,
            "hidden_size": 64, "tie_word_embeddings": True,
        }  # fmt: skip


def _llama() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (80, 64),
        "output_norm.weight": (64,),
    }
    for b in range(2):
        shapes |= {
            f"blk.{b}.attn_norm.weight": (64,), f"blk.{b}.ffn_norm.weight": (64,),
            f"blk.{b}.attn_q.weight": (64, 64), f"blk.{b}.attn_k.weight": (32, 64),
            f"blk.{b}.attn_v.weight": (32, 64), f"blk.{b}.attn_output.weight": (64, 64),
            f"blk.{b}.ffn_gate.weight": (96, 64), f"blk.{b}.ffn_up.weight": (96, 64),
            f"blk.{b}.ffn_down.weight": (64, 96),
        }  # fmt: skip
    return shapes


@needed
def test_correlations_of_a_quantised_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    kind = gguf.GGMLQuantizationType.Q8_0
    tensors: dict[str, tuple[np.ndarray, Any]] = {}
    for name, shape in _llama().items():
        values = generator.normal(size=shape).astype(np.float32)
        matrix = len(shape) == 2
        tensors[name] = (quants.quantize(values, kind), kind) if matrix else (values, None)
    (tmp_path / "model").mkdir()
    _written(tmp_path / "model" / "tiny.Q8_0.gguf", tensors)
    assert main(["correlations", str(tmp_path / "model")]) == 0
    out = capsys.readouterr().out
    assert "layout gguf, 20 tensors" in out
    for row in ("stream", "MLP hidden", "query heads", "value-output channels"):
        assert row in out


def _header(tensors: list[tuple[str, list[int], int, int]], version: int = 3) -> bytes:
    text = b"GGUF" + struct.pack("<IQQ", version, len(tensors), 1)
    key = b"general.architecture"
    text += struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, 5) + b"llama"
    for name, sizes, kind, offset in tensors:
        text += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(sizes))
        text += struct.pack(f"<{len(sizes)}Q", *sizes) + struct.pack("<IQ", kind, offset)
    return text + bytes(-len(text) % 32)


SOUND = _header([("w", [4, 2], 0, 0)]) + bytes(32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGUF" + struct.pack("<IQQ", 3, 272, 34) + bytes(4096), "no tensors|damaged|twice"),
        (b"GGUF", "header ends"),
        (_header([], 1), "version 1"),
        (b"GGUF" + bytes([0, 0, 0, 3]) + bytes(64), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "damaged"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "damaged"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 2**62), "header ends"),
        (_header([("w", [4, 2], 0, 64)]) + bytes(32), "'w' ends at byte"),
        (_header([("w", [2**40, 2**40], 0, 0)]), "of sizes"),
        (_header([("w", [4] * 9, 0, 0)]), "with 9 axes"),
        (_header([("w", [4], 0, 0), ("w", [4], 0, 0)]) + bytes(64), "twice"),
        (_header([("w", [4], 999, 0)]) + bytes(64), "holds no tensors but 'w'"),
    ],
)
def test_damaged_files_are_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plain_file_needs_no_package_and_mutations_give_our_error_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(SOUND)
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(checkpoint.tensor("w"), torch.zeros(2, 4))
    generator = np.random.default_rng(0)
    before = len(os.listdir("/dev/fd"))
    for _ in range(1000):
        damaged = bytearray(SOUND)
        for at in generator.integers(0, len(damaged), generator.integers(1, 4)):
            damaged[at] = generator.integers(0, 256)
        path.write_bytes(damaged[: generator.integers(8, len(damaged) + 1)])
        try:
            with open_checkpoint(path) as checkpoint:
                for name in checkpoint.tensors:
                    checkpoint.tensor(name)
        except CheckpointError:
            pass
    assert len(os.listdir("/dev/fd")) == before
