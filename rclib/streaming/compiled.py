"""Sums over rows and columns in one loop, compiled when it is first used (needs numba).

The tiles of `rclib.streaming.tiles` are read several times from a core's cache: to be widened, then
once for each sum. Here a weight is fetched, widened in a register and added to the sums of its row
and its column at once, so that the memory's bandwidth is the limit for 16-bit types. Compiling
takes about a second for each type, which only checkpoints of several GB earn back; rclib works
without numba (`pip install 'rclib[fast]'`).

Bits become values without a table: a float16 or float8 is shifted to where a float32 has its
exponent and mantissa, and the difference of the exponents' biases is added; the numbers without
a leading one (exponent field 0) are given one, which is then subtracted. All of it is exact.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["TYPES", "Cut", "available", "bits", "cut_into", "kernel"]

# Terms of a float32 sum down a column, and the columns of a strip, whose sums (16 KB) stay in a
# core's first-level cache. Along a row, 16 or more sums run side by side over a strip.
LINE, STRIP = 256, 4096
# Runs of rows or columns of one block that are shorter on average are left to products of
# matrices: the loop would be mostly about their ends.
SHORTEST = 16
_lock = threading.Lock()


def available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def _float32(x: Any) -> Any:
    return x


def _bfloat16(x: Any) -> Any:
    return np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)


def _float16(x: Any) -> Any:
    moved = np.uint32(np.uint32(x & np.uint16(0x7FFF)) << np.uint32(13))
    exponent = np.uint32(moved & np.uint32(0x0F800000))
    value = np.uint32(moved + np.uint32(112 << 23)).view(np.float32)
    if exponent == np.uint32(0):
        value = np.uint32(moved + np.uint32(113 << 23)).view(np.float32) - np.float32(2.0**-14)
    if exponent == np.uint32(0x0F800000):  # infinite or NaN
        value = np.uint32(moved + np.uint32(224 << 23)).view(np.float32)
    return -value if x >> np.uint16(15) else value


def _float8_e4m3fn(x: Any) -> Any:
    moved = np.uint32(np.uint32(x & np.uint8(0x7F)) << np.uint32(20))
    value = np.uint32(moved + np.uint32(120 << 23)).view(np.float32)
    if np.uint32(moved & np.uint32(0x07800000)) == np.uint32(0):
        value = np.uint32(moved + np.uint32(121 << 23)).view(np.float32) - np.float32(2.0**-6)
    if moved == np.uint32(0x07F00000):
        value = np.float32(np.nan)
    return -value if x >> np.uint8(7) else value


def _float8_e5m2(x: Any) -> Any:
    moved = np.uint32(np.uint32(x & np.uint8(0x7F)) << np.uint32(21))
    exponent = np.uint32(moved & np.uint32(0x0F800000))
    value = np.uint32(moved + np.uint32(112 << 23)).view(np.float32)
    if exponent == np.uint32(0):
        value = np.uint32(moved + np.uint32(113 << 23)).view(np.float32) - np.float32(2.0**-14)
    if exponent == np.uint32(0x0F800000):
        value = np.uint32(moved + np.uint32(224 << 23)).view(np.float32)
    return -value if x >> np.uint8(7) else value


_DECODE: dict[torch.dtype, Callable[[Any], Any]] = {
    torch.float32: _float32,
    torch.bfloat16: _bfloat16,
    torch.float16: _float16,
    torch.float8_e4m3fn: _float8_e4m3fn,
    torch.float8_e5m2: _float8_e5m2,
}
TYPES = frozenset(_DECODE)
_BITS = {1: torch.uint8, 2: torch.uint16, 4: torch.float32}


@dataclass(frozen=True)
class Cut:
    """Blocks of a matrix's rows and columns that do not overlap.

    row_block : (height,) int64, the block of each row; runs : (R, 3) int64, first column, last
    column + 1 and block of each run of columns, all columns in their order; counts : numbers of
    row blocks and column blocks. Rows and columns of no block have a further one of their own;
    sizes : numbers with it.
    """

    row_block: NDArray[np.int64]
    runs: NDArray[np.int64]
    counts: tuple[int, int]
    sizes: tuple[int, int]


def cut_into(rows: Tensor | None, columns: Tensor | None, shape: tuple[int, int]) -> Cut | None:
    """From marks (A, height) and (width, B) of zeros and ones, None for one block of all.

    None where blocks overlap or mostly alternate after a few rows or columns.
    """
    marks = (rows, None if columns is None else columns.t())
    found = []
    for mark, size in zip(marks, shape, strict=True):
        block = np.zeros(size, np.int64)
        if mark is not None:
            taken = mark.numpy()
            if taken.sum(0).max() > 1:
                return None
            block = np.where(taken.any(0), taken.argmax(0), len(taken))
        ends = np.append(np.flatnonzero(np.diff(block)) + 1, size)
        if len(ends) > 1 and size < SHORTEST * len(ends):
            return None
        found.append((block, ends))
    (row_block, _), (column_block, ends) = found
    starts = np.append(0, ends[:-1])
    runs = np.stack([starts, ends, column_block[starts]], axis=1)
    counts = (1 if rows is None else len(rows), 1 if columns is None else columns.shape[1])
    return Cut(row_block, runs, counts, (int(row_block.max()) + 1, int(column_block.max()) + 1))


def bits(tensor: Tensor) -> NDArray[Any]:
    """What a kernel takes: the tensor's memory as unsigned integers (float32 as it is)."""
    found: NDArray[Any] = tensor.view(_BITS[tensor.dtype.itemsize]).numpy()
    return found


def _sums(decode: Callable[[Any], Any], squares: bool) -> Callable[..., None]:
    """The loop for one type, as plain Python: numba compiles it, tests also run it as it is."""

    def sums(x: Any, row_block: Any, runs: Any, rows: Any, columns: Any, total: Any) -> None:
        height = x.shape[0]
        line = np.empty(STRIP, np.float32)
        for run in range(runs.shape[0]):
            first, last, block = runs[run, 0], runs[run, 1], runs[run, 2]
            for left in range(first, last, STRIP):
                right = min(left + STRIP, last)
                n = right - left
                i = 0
                while i < height:
                    a = row_block[i]
                    end = i
                    while end < min(i + LINE, height) and row_block[end] == a:
                        end += 1
                    line[:n] = 0.0
                    q = np.float64(0.0)
                    # Four rows at a time: a column's sum is fetched and put back once for them.
                    while i + 4 <= end:
                        x0, x1 = x[i, left:right], x[i + 1, left:right]
                        x2, x3 = x[i + 2, left:right], x[i + 3, left:right]
                        s0 = s1 = s2 = s3 = np.float32(0.0)
                        q4 = np.float32(0.0)
                        for j in range(n):
                            v0, v1 = decode(x0[j]), decode(x1[j])
                            v2, v3 = decode(x2[j]), decode(x3[j])
                            s0 += v0
                            s1 += v1
                            s2 += v2
                            s3 += v3
                            if squares:
                                q4 += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3)
                            line[j] += (v0 + v1) + (v2 + v3)
                        rows[i, block] += s0
                        rows[i + 1, block] += s1
                        rows[i + 2, block] += s2
                        rows[i + 3, block] += s3
                        q += q4
                        i += 4
                    while i < end:
                        x0 = x[i, left:right]
                        s0 = q4 = np.float32(0.0)
                        for j in range(n):
                            v0 = decode(x0[j])
                            s0 += v0
                            if squares:
                                q4 += v0 * v0
                            line[j] += v0
                        rows[i, block] += s0
                        q += q4
                        i += 1
                    for j in range(n):
                        columns[a, left + j] += line[j]
                    if squares:
                        total[a, block] += q

    return sums


def kernel(dtype: torch.dtype, squares: bool) -> Callable[..., None]:
    """The compiled loop for one of `TYPES`; it lets other threads run.

    It takes, all contiguous: x (h, w) as from `bits`; row_block (h,) int64, the block a of each
    row; runs (R, 3) int64, which cover the columns: first, last + 1 and block b of each; and adds
    to rows (h, B), columns (A, w) and total (A, B), float64: sums of the entries in block b of
    each row, in block a of each column, and of the squares in both (left alone without squares).
    Raises ImportError without numba.
    """
    with _lock:  # threads that ask at once wait for one of them to compile it
        return _kernel(dtype, squares)


@cache
def _kernel(dtype: torch.dtype, squares: bool) -> Callable[..., None]:
    import numba

    # Sums may be reordered, so that they run in vectors; NaN and infinities stay what they are.
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "nsz"}}
    decode = numba.njit(_DECODE[dtype], inline="always")
    compiled: Callable[..., None] = numba.njit(_sums(decode, squares), **options)
    return compiled
