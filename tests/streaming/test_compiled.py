"""streaming.compiled.

Every value of a type, and sums against float64, compiled and as plain Python.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rclib.checkpoints.opening import CheckpointError, open_checkpoint
from rclib.streaming import compiled, tiles
from rclib.streaming import means as streaming
from rclib.streaming.compiled import TYPES, bits, cut_into, kernel
from rclib.streaming.means import Blocks, block_means, stream_means

TYPE_LIST = sorted(TYPES, key=str)
needs_numba = pytest.mark.skipif(not compiled.available(), reason="numba is not installed")


def _random(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.3 * torch.randn(shape, generator=generator) + 0.1).to(dtype)


@pytest.mark.parametrize("dtype", [t for t in TYPE_LIST if t.itemsize < 4], ids=str)
def test_every_value_of_a_type(dtype: torch.dtype) -> None:
    codes = torch.arange(256**dtype.itemsize, dtype=torch.int64)
    values = codes.to({1: torch.uint8, 2: torch.uint16}[dtype.itemsize]).view(dtype)
    if dtype.itemsize == 2:  # the interesting exponents whole, of the others a part
        mantissa = 7 if dtype == torch.bfloat16 else 10
        field = (codes >> mantissa) & (2 ** (15 - mantissa) - 1)
        values = values[(field < 2) | (field > field.max() - 2) | (codes % 7 == 0)]
    with np.errstate(all="ignore"):
        found = np.array([compiled._DECODE[dtype](x) for x in bits(values)], dtype=np.float32)
    expected = values.float().numpy()
    np.testing.assert_array_equal(found, expected)
    known = ~np.isnan(expected)
    assert (np.signbit(found) == np.signbit(expected))[known].all()


Run = Callable[..., None]


def _sums(run: Run, w: Tensor, rows: Tensor | None, columns: Tensor | None) -> list[Any]:
    layout = cut_into(rows, columns, (w.shape[0], w.shape[1]))
    assert layout is not None
    a, b = layout.sizes
    found = [np.zeros((len(w), b)), np.zeros((a, w.shape[1])), np.zeros((a, b))]
    run(bits(w), layout.row_block, layout.runs, *found)
    return found


def _expected(w: Tensor, rows: Tensor | None, columns: Tensor | None) -> list[Any]:
    """The same with a further block of what is in none."""
    a, b = torch.ones(1, len(w)).double(), torch.ones(w.shape[1], 1).double()
    if rows is not None:
        a = torch.cat([rows, 1 - rows.sum(0, keepdim=True)])
    if columns is not None:
        b = torch.cat([columns, 1 - columns.sum(1, keepdim=True)], dim=1)
    whole = w.double()
    return [(whole @ b).numpy(), (a @ whole).numpy(), (a @ whole.square() @ b).numpy()]


def _marks(height: int, width: int) -> tuple[Tensor, Tensor]:
    rows, columns = torch.zeros(3, height).double(), torch.zeros(width, 2).double()
    for i in range(0, height - 20, 20):  # interleaved; the last rows are in no block
        rows[i // 20 % 3, i : i + 20] = 1
    columns[17:40, 1] = columns[60:, 0] = 1
    return rows, columns


@pytest.mark.parametrize("blocks", [False, True], ids=["one block", "blocks"])
@pytest.mark.parametrize("squares", [False, True], ids=["sums", "squares"])
@pytest.mark.parametrize("dtype", TYPE_LIST, ids=str)
def test_loop_as_plain_python(
    dtype: torch.dtype, squares: bool, blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "LINE", 16)
    monkeypatch.setattr(compiled, "STRIP", 32)
    w = _random((70, 77), dtype)
    marks = _marks(*w.shape) if blocks else (None, None)
    with np.errstate(over="ignore"):
        found = _sums(compiled._sums(compiled._DECODE[dtype], squares), w, *marks)
    for one, other in zip(found[: 2 + squares], _expected(w, *marks), strict=False):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-5)
    assert squares or not found[2].any()


@pytest.mark.slow
@needs_numba
@pytest.mark.parametrize("squares", [False, True], ids=["sums", "squares"])
@pytest.mark.parametrize("dtype", TYPE_LIST, ids=str)
def test_compiled_loop(dtype: torch.dtype, squares: bool) -> None:
    w = _random((700, 9000), dtype)
    for marks in ((None, None), _marks(*w.shape)):
        found = _sums(kernel(dtype, squares), w, *marks)
        for one, other in zip(found[: 2 + squares], _expected(w, *marks), strict=False):
            np.testing.assert_allclose(one, other, rtol=2e-6, atol=3e-4)
        assert squares or not found[2].any()


@pytest.mark.slow
@needs_numba
@pytest.mark.parametrize("mean", [0.0, 1.0, 1000.0])
def test_accuracy_where_float32_alone_would_lose_digits(mean: float) -> None:
    generator = torch.Generator().manual_seed(3)
    tensor = mean + torch.randn(9000, 3000, generator=generator)
    with open_checkpoint({"w": tensor}) as checkpoint:
        found = block_means(checkpoint, "w", squares=True, compiled=True)["", ""]
    size = float(tensor.double().square().mean().sqrt())
    for vector, axis in ((found.rows, 1), (found.columns, 0)):
        error = float((vector - tensor.double().mean(axis)).abs().max())
        # A row's terms are spread over the lanes of a register: 16, or 8 on other processors.
        assert error < (1e-6 if mean else 5e-8) * size
    assert found.square == pytest.approx(size**2, rel=1e-6)


BLOCKS: dict[str, Blocks] = {
    "all": Blocks(),
    "fused rows": Blocks({"q": slice(0, 100), "k": slice(100, 200), "v": slice(200, 300)}),
    "fused columns": Blocks(columns={"q": slice(0, 90), "v": slice(90, 180)}),
    "interleaved": Blocks({str(h): [*range(h * 20, h * 20 + 20)] for h in range(9)}),
    "both": Blocks({"q": slice(40, 100)}, {"v": slice(90, 160)}),
    "steps": Blocks({"even": slice(0, None, 2)}, {"b": slice(5, 100, 7)}),  # by tiles
    "overlapping": Blocks({"a": slice(0, 10), "b": slice(5, 300)}),  # by tiles
}


@pytest.mark.slow
@needs_numba
@pytest.mark.parametrize("small", [False, True], ids=["large windows", "small windows"])
@pytest.mark.parametrize("case", BLOCKS)
def test_means_are_those_of_the_tiles(
    case: str, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small:  # also windows of pieces of a row
        monkeypatch.setattr(tiles, "WINDOW", 1 << 8)
    tensors = {str(t): _random((300, 180), t) for t in (*TYPE_LIST, torch.float64)}
    tensors["vector"] = _random((300,), torch.bfloat16)
    requests = {
        n: BLOCKS[case] if t.ndim == 2 else Blocks(BLOCKS[case].rows) for n, t in tensors.items()
    }
    with open_checkpoint(tensors) as checkpoint:
        one, other = (
            dict(stream_means(checkpoint, requests, squares=True, workers=2, compiled=how))
            for how in (True, False)
        )
    assert list(one) == list(other) == list(requests)
    for name, blocks in one.items():
        for key, found in blocks.items():
            expected = other[name][key]
            torch.testing.assert_close(found.rows, expected.rows, rtol=0, atol=1e-6)
            torch.testing.assert_close(found.columns, expected.columns, rtol=0, atol=1e-6)
            assert found.mean == pytest.approx(expected.mean, abs=1e-6)
            assert found.square == pytest.approx(expected.square, rel=1e-6)
            assert found.count == expected.count


@needs_numba
def test_number_of_workers_changes_no_bit() -> None:
    with open_checkpoint({"w": _random((3000, 9000), torch.bfloat16)}) as checkpoint:
        one, other = (
            block_means(checkpoint, "w", workers=n, compiled=True)["", ""] for n in (1, 4)
        )
    assert torch.equal(one.rows, other.rows)
    assert torch.equal(one.columns, other.columns)


@needs_numba
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2):
        w = torch.ones(200, 300)
        w[190, 17] = value
        with open_checkpoint({"w": w.to(dtype)}) as checkpoint:
            for blocks in (Blocks(), Blocks({"a": slice(0, 50)}, {"b": slice(100, 200)})):
                with pytest.raises(CheckpointError, match=rf"entry \[190, 17\] is {value}"):
                    list(stream_means(checkpoint, {"w": blocks}, compiled=True))


@needs_numba
def test_numbers_near_the_ends_of_the_range() -> None:
    for dtype, value in ((torch.float32, 3e38), (torch.bfloat16, 3e38), (torch.float32, 1e-25)):
        tensor = torch.full((50, 40), value).to(dtype)
        with open_checkpoint({"w": tensor}) as checkpoint:
            found = block_means(checkpoint, "w", squares=True, compiled=True)["", ""]
        entry = float(tensor[0, 0])
        assert found.mean == pytest.approx(entry, rel=1e-7)
        assert found.square == pytest.approx(entry**2, rel=1e-7)


def test_only_large_requests_are_compiled_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noted(*arguments: Any) -> None:
        asked.append(arguments[2])

    monkeypatch.setattr(streaming.compiled_loop, "cut_into", noted)
    with open_checkpoint({"w": torch.ones(10, 20), "x": torch.ones(30, 20)}) as checkpoint:
        for size, installed, expected in (
            (40 * 20 * 4, True, [(10, 20), (30, 20)]),
            (40 * 20 * 4 + 1, True, []),
            (40 * 20 * 4, False, []),
        ):
            monkeypatch.setattr(streaming, "COMPILE_FROM", size)
            monkeypatch.setattr(streaming.compiled_loop, "available", lambda i=installed: i)
            list(stream_means(checkpoint, {"w": Blocks(), "x": Blocks()}))
            assert asked == expected
            asked.clear()


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "numba" else find(name, *a)
    )
    assert not compiled.available()
    with open_checkpoint({"w": torch.ones(4, 6)}) as checkpoint:
        assert block_means(checkpoint, "w")["", ""].mean == 1
        with pytest.raises(ValueError, match=r"compiled=True needs numba: .*rclib\[fast\]"):
            block_means(checkpoint, "w", compiled=True)


def test_cut() -> None:
    rows = torch.zeros(2, 64).double()
    rows[0, :16] = rows[0, 32:48] = rows[1, 16:32] = 1
    columns = torch.zeros(96, 1).double()
    columns[20:60] = 1
    found = cut_into(rows, columns, (64, 96))
    assert found is not None
    assert found.row_block.tolist() == [0] * 16 + [1] * 16 + [0] * 16 + [2] * 16
    assert found.runs.tolist() == [[0, 20, 1], [20, 60, 0], [60, 96, 1]]
    assert (found.counts, found.sizes) == ((2, 1), (3, 2))
    whole = cut_into(None, None, (3, 2))
    assert whole is not None
    assert whole.runs.tolist() == [[0, 2, 0]]
    assert (whole.counts, whole.sizes) == ((1, 1), (1, 1))
    rows[1, 0] = 1  # twice
    assert cut_into(rows, columns, (64, 96)) is None
    columns[::2] = 0  # runs of one column
    assert cut_into(None, columns, (64, 96)) is None
