"""rclib.streaming.means: against whole tensors in float64, for all types, shapes and blocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rclib.checkpoints import tensor_file
from rclib.checkpoints.opening import Checkpoint, CheckpointError, open_checkpoint
from rclib.streaming import means as streaming
from rclib.streaming import tiles
from rclib.streaming.means import Blocks, axis_means, block_means, stream_means
from rclib.streaming.widen import FLOATING

SHAPES = ((7,), (1, 1), (1, 3000), (3000, 1), (300, 200), (33, 5000), (2, 3, 4, 5), (40, 3, 3), ())


def _random(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Tensor:
    """Normal entries with a mean, so that sums do not cancel; powers of two for float8_e8m0fnu."""
    generator = torch.Generator().manual_seed(seed)
    values = 0.3 * torch.randn(shape, generator=generator) + 0.1
    if dtype == "float8_e8m0fnu":
        values = values.abs() + 0.01
    return values.to(getattr(torch, dtype))


def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "WINDOW", 1 << 13)
    monkeypatch.setattr(tiles, "TILE", 1 << 10)
    monkeypatch.setattr(tiles, "TREE", 1 << 8)
    monkeypatch.setattr(tiles, "LINE", 1 << 5)
    monkeypatch.setattr(tensor_file, "MAP_FROM", 1 << 12)


def _mean_over_others(tensor: Tensor, axis: int) -> Tensor:
    others = [a for a in range(tensor.ndim) if a != axis]
    return tensor.double().mean(dim=others) if others else tensor.double()


@pytest.mark.parametrize("small", [False, True], ids=["large windows", "small windows"])
@pytest.mark.parametrize("dtype", FLOATING)
def test_axis_means(
    dtype: str, small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small:
        _small_windows(monkeypatch)
    tensors = {str(shape): _random(shape, dtype) for shape in SHAPES}
    save_file(tensors, tmp_path / "x.safetensors")
    for source in (tmp_path / "x.safetensors", tensors):
        with open_checkpoint(source) as checkpoint:
            for name, tensor in tensors.items():
                found = axis_means(checkpoint, name, squares=True, workers=2)
                size = float(tensor.double().square().mean().sqrt())
                assert len(found.means) == tensor.ndim
                for axis, vector in enumerate(found.means):
                    expected = _mean_over_others(tensor, axis)
                    assert vector.shape == expected.shape
                    assert float((vector - expected).abs().max()) < 1e-6 * size, (name, axis)
                assert found.mean == pytest.approx(float(tensor.double().mean()), abs=1e-6 * size)
                assert found.square == pytest.approx(size**2, rel=1e-6)
                assert found.count == tensor.numel()


def test_a_vector_is_its_own_mean_bit_for_bit() -> None:
    for dtype in FLOATING:
        tensor = _random((1000,), dtype)
        with open_checkpoint({"v": tensor}) as checkpoint:
            assert torch.equal(axis_means(checkpoint, "v").means[0], tensor.double())


BLOCKS: dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None]] = {
    "all": (None, None),
    "fused rows": ({"q": slice(0, 100), "k": slice(100, 200), "v": slice(200, 300)}, None),
    "fused columns": (None, {"q": slice(0, 90), "v": slice(90, 180)}),
    "interleaved": ({h: list(range(h * 10, 300, 60)) for h in range(6)}, {"": slice(None)}),
    "steps": ({"even": slice(0, None, 2), "odd": slice(1, None, 2)}, {"b": slice(5, 100, 7)}),
    "any order": ({"": [3, 1, 2]}, {"one": [179], "two": torch.tensor([0, 178])}),
    "overlapping": ({"a": slice(0, 10), "b": slice(5, 300)}, {"c": range(20), "d": range(10, 180)}),
}


@pytest.mark.parametrize("small", [False, True], ids=["large windows", "small windows"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("case", BLOCKS)
def test_block_means(case: str, dtype: str, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if small:
        _small_windows(monkeypatch)
    tensor = _random((300, 180), dtype)
    whole = tensor.double()
    rows, columns = BLOCKS[case]
    with open_checkpoint({"w": tensor}) as checkpoint:
        found = block_means(
            checkpoint, "w", row_blocks=rows, column_blocks=columns, squares=True, workers=2
        )
    rows, columns = rows or {"": slice(None)}, columns or {"": slice(None)}
    assert list(found) == [(r, c) for r in rows for c in columns]
    for (r, c), block in found.items():
        row, column = (
            list(range(*b.indices(n))) if isinstance(b, slice) else torch.as_tensor(list(b))
            for b, n in ((rows[r], 300), (columns[c], 180))
        )
        part = whole[row][:, column]
        torch.testing.assert_close(block.rows, part.mean(1), rtol=0, atol=3e-7)
        torch.testing.assert_close(block.columns, part.mean(0), rtol=0, atol=3e-7)
        assert block.mean == pytest.approx(float(part.mean()), abs=3e-7)
        assert block.square == pytest.approx(float(part.square().mean()), rel=1e-6)
        assert block.count == part.numel()


def test_blocks_of_a_vector() -> None:
    vector = _random((12,), "float32")
    with open_checkpoint({"b": vector}) as checkpoint:
        found = block_means(checkpoint, "b", row_blocks={"q": slice(0, 6), "k": [11, 6]})
    assert torch.equal(found["q", ""].rows, vector[:6].double())
    assert torch.equal(found["k", ""].rows, vector[[11, 6]].double())
    assert float(found["k", ""].columns) == pytest.approx(float(vector[[11, 6]].double().mean()))
    assert found["k", ""].square is None


def test_many_tensors_in_the_order_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _small_windows(monkeypatch)
    tensors = {f"w{i}": _random((10 + 50 * i, 30), "bfloat16", i) for i in range(12)}
    order = sorted(tensors, reverse=True)
    done: list[int] = []
    with open_checkpoint(tensors) as checkpoint:
        requests = {name: Blocks(rows={"a": slice(0, 5), "b": slice(5, None)}) for name in order}
        for name, (_, found) in zip(
            order,
            stream_means(checkpoint, requests, workers=3, progress=done.append),
            strict=True,
        ):
            expected = tensors[name][5:].double().mean(0)
            torch.testing.assert_close(found["b", ""].columns, expected, rtol=0, atol=1e-6)
        assert sum(done) == checkpoint.nbytes


@pytest.mark.parametrize("blocks", [Blocks(), Blocks(rows={"a": slice(0, 100), "b": slice(7, 9)})])
def test_results_do_not_depend_on_the_number_of_workers(
    blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    _small_windows(monkeypatch)
    with open_checkpoint({"w": _random((2000, 130), "bfloat16")}) as checkpoint:
        results = [
            next(stream_means(checkpoint, {"w": blocks}, squares=True, workers=n))[1]
            for n in (1, 2, 5, 2)
        ]
    for other in results[1:]:
        for key, block in results[0].items():
            assert torch.equal(block.rows, other[key].rows)
            assert torch.equal(block.columns, other[key].columns)
            assert (block.mean, block.square) == (other[key].mean, other[key].square)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [Blocks(), Blocks({"r": slice(0, 9000)}, {"c": range(2999)})])
@pytest.mark.parametrize("mean", [0.0, 1.0, 1000.0])
def test_accuracy_where_float32_alone_would_lose_digits(mean: float, blocks: Blocks) -> None:
    generator = torch.Generator().manual_seed(3)
    tensor = mean + torch.randn(9000, 3000, generator=generator)
    with open_checkpoint({"w": tensor}) as checkpoint:
        ((_, found),) = stream_means(checkpoint, {"w": blocks}, squares=True)
    ((key, block),) = found.items()
    part = tensor[:, :2999].double() if key[1] else tensor.double()
    size = float(part.square().mean().sqrt())
    for vector, axis in ((block.rows, 1), (block.columns, 0)):
        error = float((vector - part.mean(axis)).abs().max())
        assert error < (1e-6 if mean else 2e-8) * size
    assert block.square == pytest.approx(size**2, rel=1e-6)


def test_numbers_near_the_ends_of_the_range() -> None:
    for dtype, value in (("float32", 3e38), ("bfloat16", 3e38), ("float32", 1e-25)):
        tensor = torch.full((50, 40), value).to(getattr(torch, dtype))
        with open_checkpoint({"w": tensor}) as checkpoint:
            found = axis_means(checkpoint, "w", squares=True)
        entry = float(tensor[0, 0])
        assert found.mean == pytest.approx(entry, rel=1e-7)
        assert found.square == pytest.approx(entry**2, rel=1e-7)
        assert found.means[0].tolist() == pytest.approx([entry] * 50, rel=1e-7)
    with (
        open_checkpoint({"w": torch.full((5, 4), 1e308, dtype=torch.float64)}) as checkpoint,
        pytest.raises(CheckpointError, match="too large to be summed"),
    ):
        axis_means(checkpoint, "w")


@pytest.mark.parametrize("dtype", [d for d in FLOATING if d != "float8_e8m0fnu"])
def test_nan_is_named(dtype: str) -> None:
    tensor = _random((700, 500), "float32")
    tensor[601, 42] = torch.nan
    tensor[601, 43] = torch.nan
    narrow = tensor.to(getattr(torch, dtype))
    with open_checkpoint({"ok": torch.ones(3), "bad": narrow}) as checkpoint:
        for ask in (
            lambda: axis_means(checkpoint, "bad"),
            # also where no block holds it
            lambda: block_means(checkpoint, "bad", row_blocks={"a": [0]}),
            lambda: block_means(checkpoint, "bad", column_blocks={"a": [0]}, squares=True),
            lambda: list(stream_means(checkpoint, {"ok": Blocks(), "bad": Blocks()})),
        ):
            with pytest.raises(CheckpointError, match=r"'bad': entry \[601, 42\] is nan"):
                ask()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e5m2"])
def test_infinity_is_named(dtype: str) -> None:
    for value in (torch.inf, -torch.inf):
        matrix, vector = torch.ones(9, 8), torch.ones(9)
        matrix[7, 3] = matrix[8, 3] = vector[5] = value
        both = {n: t.to(getattr(torch, dtype)) for n, t in (("m", matrix), ("v", vector))}
        with open_checkpoint(both) as checkpoint:
            with pytest.raises(CheckpointError, match=rf"'m': entry \[7, 3\] is {value}"):
                axis_means(checkpoint, "m")
            with pytest.raises(CheckpointError, match=rf"'v': entry \[5\] is {value}"):
                axis_means(checkpoint, "v")


def _checkpoint() -> Checkpoint:
    return open_checkpoint(
        {
            "w": torch.ones(4, 6),
            "ids": torch.ones(4, 6, dtype=torch.int64),
            "flags": torch.ones(4, dtype=torch.bool),
            "z": torch.ones(3, dtype=torch.complex64),
            "empty": torch.ones(0, 6),
            "conv": torch.ones(4, 3, 2),
        }
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ids", "'ids' is int64; means are taken of floating types only"),
        ("flags", "'flags' is bool"),
        ("z", "'z' is complex64"),
        ("empty", r"'empty' of shape \(0, 6\) is empty"),
        ("conv", r"'conv' of shape \(4, 3, 2\) is neither vector nor matrix"),
        ("no", "no tensor 'no'"),
    ],
)
def test_tensors_without_means(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        # refused before the first tensor is read, not when its turn comes
        stream_means(_checkpoint(), {"w": Blocks(), name: Blocks()})


@pytest.mark.parametrize(
    "block",
    [
        slice(0, 5),
        slice(4, 9),
        slice(2, 2),
        [],
        [0, 0],
        [-1],
        [4],
        [0.5],
        [[0, 1]],
        [True, False, True, True],
        torch.tensor([0.0]),
    ],
    ids=str,
)
def test_blocks_that_do_not_fit(block: Any) -> None:
    with pytest.raises(ValueError, match="row block of tensor 'w': 'a'"):
        block_means(_checkpoint(), "w", row_blocks={"a": block})


def test_other_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="column block of tensor 'w': 'c'"):
        block_means(_checkpoint(), "w", column_blocks={"c": [6]})
    with pytest.raises(ValueError, match="at least one is needed"):
        list(stream_means(_checkpoint(), {"w": Blocks(rows={})}))
    with pytest.raises(ValueError, match="workers must be at least 1"):
        axis_means(_checkpoint(), "w", workers=0)
    monkeypatch.setattr(streaming, "MAX_MEANS", 9)
    with pytest.raises(CheckpointError, match="'w' has too many rows or columns"):
        axis_means(_checkpoint(), "w")


def test_threads_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    _small_windows(monkeypatch)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        others = set(threading.enumerate())
        bad = torch.ones(2000, 30)
        bad[100] = torch.nan
        with open_checkpoint({"a": torch.ones(2000, 30), "b": bad}) as checkpoint:
            stream = stream_means(checkpoint, {"a": Blocks(), "b": Blocks()}, workers=2)
            next(stream)
            stream.close()  # by a reader who has seen enough
            assert torch.get_num_threads() == 2
            assert set(threading.enumerate()) == others
            with pytest.raises(CheckpointError):
                axis_means(checkpoint, "b")
            assert torch.get_num_threads() == 2
            assert set(threading.enumerate()) == others
    finally:
        torch.set_num_threads(threads)


MEMORY = """
import re, sys
from rclib.checkpoints.opening import open_checkpoint
from rclib.streaming.means import Blocks, stream_means

def peak():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]) * 1024

with open_checkpoint({"w": __import__("torch").ones(600, 600)}) as c:
    list(stream_means(c, {"w": Blocks()}, workers=2))
before = peak()
with open_checkpoint(sys.argv[1]) as c:
    for name, found in stream_means(c, {n: Blocks() for n in c.tensors}, workers=2):
        assert found["", ""].mean == 0.0
print(before, peak(), c.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="peak memory is read from /proc"
)
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """1 GB of weights, a file with holes: it takes no disk, but every page of it is read."""

    shape, count = [65536, 4096], 2
    size = 2 * shape[0] * shape[1]
    header = {
        f"w{k}": {"dtype": "BF16", "shape": shape, "data_offsets": [k * size, (k + 1) * size]}
        for k in range(count)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = tmp_path / "large.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + count * size)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before, after, read = map(int, done.stdout.split())
    assert read == count * size > 1e9
    assert after < 1e9
    assert after - before < 100e6


def test_a_bad_tensor_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "WINDOW", 1 << 10)  # several windows a tensor
    state = {f"w{i}": torch.randn(40, 30) for i in range(5)}
    state["w1"][39, 2] = float("nan")
    state["w3"][0, 0] = float("inf")
    state |= {"ids": torch.arange(3), "empty": torch.zeros(0, 3), "cube": torch.ones(2, 2, 2)}
    good = ["w0", "w2", "w4"]
    with open_checkpoint(state) as checkpoint:
        for workers in (1, 3):
            failed: dict[str, str] = {}
            done: list[int] = []
            found = dict(
                stream_means(
                    checkpoint, {name: Blocks() for name in state}, workers=workers,
                    failed=lambda name, error, to=failed: to.update({name: str(error)}),
                    progress=done.append,
                )
            )  # fmt: skip
            assert list(found) == good
            assert set(failed) == set(state) - set(good)
            assert "entry [39, 2] is nan" in failed["w1"]
            assert sum(done) == 5 * 40 * 30 * 4
            for name in good:
                wanted = state[name].double().mean(1)
                torch.testing.assert_close(found[name]["", ""].rows, wanted, atol=1e-6, rtol=1e-5)
        with pytest.raises(CheckpointError, match="'w1'"):
            list(stream_means(checkpoint, {"w1": Blocks()}))


@pytest.mark.slow
def test_a_tensor_of_more_than_2_to_the_31_bytes(tmp_path: Path) -> None:
    """A look-up table with a matrix behind it: every byte is at its place. Sparse on the disk."""
    rows, width = 1_100_000, 512
    nbytes = rows * width * 4
    assert nbytes > 2**31
    behind = _random((8, width), "float32")
    header = {
        "embed.weight": {
            "dtype": "F32", "shape": [rows, width], "data_offsets": [0, nbytes],
        },
        "w": {
            "dtype": "F32", "shape": [8, width],
            "data_offsets": [nbytes, nbytes + behind.numel() * 4],
        },
    }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    known = {place: _random((1, width), "float32", seed=place) for place in (0, 700_000, rows - 1)}
    path = tmp_path / "model.safetensors"
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for place, row in known.items():
            file.seek(8 + len(text) + place * width * 4)
            file.write(row.numpy().tobytes())
        file.seek(8 + len(text) + nbytes)
        file.write(behind.numpy().tobytes())
    with open_checkpoint(path) as checkpoint:
        for place, row in known.items():
            assert torch.equal(checkpoint.rows("embed.weight", place, place + 1), row)
        assert torch.equal(checkpoint.tensor("w"), behind)
        found = dict(stream_means(checkpoint, {name: Blocks() for name in header}))
    columns = found["embed.weight"]["", ""].columns
    wanted = torch.cat(list(known.values())).double().sum(0) / rows
    torch.testing.assert_close(columns, wanted, rtol=1e-9, atol=1e-15)
    means = found["embed.weight"]["", ""].rows
    assert set(means.nonzero().flatten().tolist()) == set(known)
    torch.testing.assert_close(found["w"]["", ""].rows, behind.double().mean(1))
