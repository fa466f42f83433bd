"""Valid checkpoints of every structure and their neighbours, against the formats' own readers."""

from __future__ import annotations

import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load, save

from rclib.checkpoints.opening import CheckpointError, open_checkpoint

some = settings(max_examples=60, derandomize=True, deadline=None, database=None)
KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
         torch.int16, torch.int8, torch.uint8, torch.bool)  # fmt: skip
names = st.text("abw.0_é ", min_size=1, max_size=8)
shapes = st.lists(st.integers(0, 4), max_size=3)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """A tensor of any type and layout: plain, transposed, every second row, expanded."""
    shape, kind = draw(shapes), draw(st.sampled_from(KINDS))
    seed = draw(st.integers(0, 2**16))
    values = torch.randint(-100, 100, shape, generator=torch.Generator().manual_seed(seed))
    tensor = values.to(kind)
    match draw(st.integers(0, 3)):
        case 1 if tensor.ndim > 1:
            return tensor.transpose(0, 1)
        case 2 if tensor.ndim and tensor.shape[0] > 1:
            return tensor[::2]
        case 3:
            return tensor.expand(2, *tensor.shape)
    return tensor


states = st.dictionaries(names, tensors(), min_size=1, max_size=4)


def ours(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    path.write_bytes(content)
    with open_checkpoint(path) as checkpoint:
        assert not checkpoint.left_out
        return {name: checkpoint.tensor(name).clone() for name in checkpoint.tensors}


def same(mine: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(mine) == set(other)
    for name, tensor in other.items():
        assert mine[name].dtype == tensor.dtype, name
        assert mine[name].shape == tensor.shape, name
        assert repr(mine[name].tolist()) == repr(tensor.tolist()), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("structured")


@some
@given(state=states)
def test_safetensors(folder: Path, state: dict[str, torch.Tensor]) -> None:
    content = save({name: tensor.contiguous() for name, tensor in state.items()})
    same(ours(content, folder / "m.safetensors"), load(content))


@some
@given(state=states, data=st.data())
def test_neighbours_of_safetensors_are_read_as_there_or_refused(
    folder: Path, state: dict[str, torch.Tensor], data: st.DataObject
) -> None:
    content = save({name: tensor.contiguous() for name, tensor in state.items()})
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    name = data.draw(st.sampled_from(sorted(header)))
    field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
    odd = st.one_of(st.lists(st.integers(-1, 70), max_size=3), st.sampled_from(["F32", "I8", None]))
    header[name][field] = data.draw(odd)
    text = json.dumps(header).encode()
    changed = struct.pack("<Q", len(text)) + text + content[8 + length :]
    try:
        mine = ours(changed, folder / "n.safetensors")
    except CheckpointError:
        return
    try:
        other = load(changed)
    except SafetensorError:
        pytest.fail(f"read what safetensors refuses: {text!r}")
    same(mine, other)


@some
@given(state=states, old=st.booleans(), nested=st.booleans())
def test_torch_save(folder: Path, state: dict[str, torch.Tensor], old: bool, nested: bool) -> None:
    buffer = io.BytesIO()
    value = {"model": state, "step": 3} if nested else state
    torch.save(value, buffer, _use_new_zipfile_serialization=not old)
    theirs = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    same(ours(buffer.getvalue(), folder / "m.pt"), theirs["model"] if nested else theirs)


@some
@given(state=states, data=st.data())
def test_neighbours_of_torch_save_are_read_as_there_or_refused(
    folder: Path, state: dict[str, torch.Tensor], data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    content = bytearray(buffer.getvalue())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        mine = ours(bytes(content), folder / "n.pt")
        theirs = torch.load(io.BytesIO(bytes(content)), weights_only=True)
    except (CheckpointError, AssertionError):
        return
    except Exception:  # torch raises anything for a damaged file
        return
    if isinstance(theirs, dict) and all(isinstance(v, torch.Tensor) for v in theirs.values()):
        same(mine, {k: v for k, v in theirs.items() if isinstance(k, str)})


@some
@given(shape=shapes.filter(bool), kind=st.sampled_from("fdhilB"), protocol=st.integers(3, 5))
def test_arrays_in_pickles_whatever_their_size(
    folder: Path, shape: list[int], kind: str, protocol: int
) -> None:
    array = np.arange(np.prod(shape), dtype=kind).reshape(shape)
    found = ours(pickle.dumps({"w": array}, protocol=protocol), folder / "m.pkl")
    np.testing.assert_array_equal(found["w"].numpy(), array)


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("change", range(30))
def test_neighbours_of_gguf_are_read_as_there_or_refused(
    folder: Path, kind: str, change: int
) -> None:
    gguf = pytest.importorskip("gguf")
    path = folder / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    values = np.linspace(-1, 1, 128, dtype=np.float32).reshape(4, 32)
    which = getattr(gguf.GGMLQuantizationType, kind)
    writer.add_tensor("w", gguf.quants.quantize(values, which), raw_dtype=which)
    for step in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file", "close"):
        getattr(writer, step)()
    content = bytearray(path.read_bytes())
    if change:
        random = np.random.default_rng(change)
        content[random.integers(len(content))] = random.integers(256)
    try:
        mine = ours(bytes(content), path)
        other = gguf.GGUFReader(path)
    except Exception:
        if not change:
            raise
        return
    for tensor in other.tensors:
        if tensor.name in mine and mine[tensor.name].dtype == torch.float32:
            with np.errstate(all="ignore"):
                wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(mine[tensor.name].numpy().ravel(), wanted.ravel())
