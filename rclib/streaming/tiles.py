"""Sums over the rows and columns of a matrix, window by window and tile by tile.

A window is a few MB of a matrix in the order of its bytes: whole rows, or a piece of one row that
is longer than a window. `Tiler.sums` cuts it into tiles that stay in a core's cache and gives

    rows[i, b]    = Σ_{j in column block b} W_ij        columns[a, j] = Σ_{i in row block a} W_ij

and, if asked for, squares[a, b] = Σ_{i in a, j in b} W_ij². Sums within a tile are float32 and
have at most 16384 (rows) and 256 (columns) terms; the rest is float64. A selection with a cut
goes through the compiled loop of `rclib.streaming.compiled` instead, if there is one for its type.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rclib.checkpoints.opening import Checkpoint, CheckpointError
from rclib.checkpoints.safetensors_file import brief_line
from rclib.streaming import compiled
from rclib.streaming.widen import Widener

__all__ = ["Part", "Selection", "Tiler", "Window", "windows"]

# Bytes of a window: large enough that mapping it costs little, small beside the memory.
WINDOW = 32 << 20
# Entries of a tile: 1 MB as float32, half of a current core's second-level cache.
TILE = 1 << 18
# Terms of a float32 sum: torch sums rows in a tree, which is exact enough for many; columns, and
# both in products of matrices, are added up one by one.
TREE, LINE = 16384, 256
# Below this mean square, squares of float32 numbers lose digits to underflow.
TINY_SQUARE = 1e-30


@dataclass(frozen=True)
class Window:
    """Rows top ... bottom - 1 and columns left ... right - 1 of a matrix."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def entries(self) -> int:
        """Number of entries."""
        return (self.bottom - self.top) * (self.right - self.left)


def windows(height: int, width: int, itemsize: int) -> Iterator[Window]:
    """The windows of a matrix, in the order of its bytes. Sizes in entries and bytes."""
    if width == 1:  # a vector is widened as a whole
        step = WINDOW // 16
        for top in range(0, height, step):
            yield Window(top, min(top + step, height), 0, 1)
        return
    rows = WINDOW // (width * itemsize)
    if rows:
        for top in range(0, height, rows):
            yield Window(top, min(top + rows, height), 0, width)
        return
    step = WINDOW // itemsize
    for top in range(height):
        for left in range(0, width, step):
            yield Window(top, top + 1, left, min(left + step, width))


@dataclass(frozen=True)
class Selection:
    """Which rows and columns are summed.

    rows : (A, height), columns : (width, B), float64 of zeros and ones; None: all in one block.
    cut : the same for the compiled loop; None: tiles.
    """

    rows: Tensor | None = None
    columns: Tensor | None = None
    cut: compiled.Cut | None = None


@dataclass(frozen=True)
class Part:
    """Sums over one window: rows (h, B), columns (A, w), squares (A, B) or None; float64."""

    window: Window
    rows: Tensor
    columns: Tensor
    squares: Tensor | None


class Tiler:
    """Sums windows of matrices with memory that it keeps; one for each thread."""

    def __init__(self) -> None:
        self._wideners: dict[tuple[torch.dtype, torch.dtype], Widener] = {}
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def sums(
        self,
        checkpoint: Checkpoint,
        name: str,
        shape: tuple[int, int],
        window: Window,
        selection: Selection,
        *,
        squares: bool,
    ) -> Part:
        """Sums over a window of a tensor that is seen as a matrix of that shape (row-major).

        Raises CheckpointError for NaN and infinite weights, naming the first.
        """
        start = window.top * shape[1] + window.left
        height, width = window.bottom - window.top, window.right - window.left
        info = checkpoint.info(name)
        needed = height * width * (info.nbytes // max(1, math.prod(info.shape)))
        if len(self._buffer) < needed:
            self._buffer = torch.empty(max(needed, WINDOW), dtype=torch.uint8)
        flat = checkpoint.view(name, start, start + height * width, self._buffer)
        matrix = flat.view(height, width)
        if selection.cut is not None and width > 1 and matrix.dtype in compiled.TYPES:
            part = _compiled(matrix, window, selection.cut, squares=squares)
            if part is not None:
                return part
        chosen = Selection(
            None if selection.rows is None else selection.rows[:, window.top : window.bottom],
            None if selection.columns is None else selection.columns[window.left : window.right],
        )
        narrow = matrix.dtype != torch.float64 and width > 1
        if narrow:
            part = self._sums(matrix, window, chosen, squares=squares, to=torch.float32)
            if _precise(part, matrix.numel()):
                return part
        # float32 overflows at 3e38; only float64 tells large weights from infinite ones.
        part = self._sums(matrix, window, chosen, squares=squares, to=torch.float64)
        if not _finite(part):
            raise _not_finite(checkpoint, name, shape, start, flat)
        return part

    def _sums(
        self,
        matrix: Tensor,
        window: Window,
        chosen: Selection,
        *,
        squares: bool,
        to: torch.dtype,
    ) -> Part:
        height, width = matrix.shape
        columns = 1 if chosen.columns is None else chosen.columns.shape[1]
        rows = 1 if chosen.rows is None else chosen.rows.shape[0]
        across = torch.zeros(height, columns, dtype=torch.float64)
        down = torch.zeros(rows, width, dtype=torch.float64)
        total = torch.zeros(rows, columns, dtype=torch.float64) if squares else None
        whole = chosen.rows is None and chosen.columns is None
        side = math.ceil(width / math.ceil(width / (TREE if whole else 2 * LINE)))
        for left in range(0, width, side):
            strip = matrix[:, left : left + side]
            right = left + strip.shape[1]
            square: Tensor | float
            if whole:
                square = self._strip(strip, across[:, 0], down[0, left:right], squares, to)
            else:
                part = Selection(
                    chosen.rows, None if chosen.columns is None else chosen.columns[left:right]
                )
                square = self._blocks(strip, across, down[:, left:right], part, squares, to)
            if total is not None:
                total += square
        return Part(window, across, down, total)

    def _strip(
        self, strip: Tensor, across: Tensor, down: Tensor, squares: bool, to: torch.dtype
    ) -> float:
        """Add the sums of one block of all: few calls a tile, since a tile takes 50 µs."""
        height, width = strip.shape
        step = _tile_height(width)
        widen = self._widener(strip.dtype, to)
        rows, columns = torch.empty(height, dtype=to), torch.zeros(width, dtype=to)
        room = torch.empty(step if squares and not widen else 0, width, dtype=to)
        ones = torch.ones(step, dtype=to)
        total, summed = 0.0, 0
        for block, row_sums in zip(strip.split(step), rows.split(step), strict=True):
            tile = widen(block) if widen else block
            torch.sum(tile, 1, out=row_sums)
            if summed + step > LINE:
                down += columns
                columns.zero_()
                summed = 0
            if len(tile) < step:
                ones = ones[: len(tile)]
            torch.addmv(columns, tile.t(), ones, out=columns)
            summed += step
            if squares:
                # A dot product would be faster, but adds up all entries in a few float32 sums.
                out = tile if widen else room[: len(tile)]  # the weights themselves stay
                total += torch.mul(tile, tile, out=out).sum().item()
        across += rows
        down += columns
        return total

    def _blocks(
        self,
        strip: Tensor,
        across: Tensor,
        down: Tensor,
        chosen: Selection,
        squares: bool,
        to: torch.dtype,
    ) -> Tensor:
        """Add the sums of several blocks, as products with matrices of zeros and ones."""
        height, width = strip.shape
        step = _tile_height(width)
        widen = self._widener(strip.dtype, to)
        by_rows = torch.ones(1, height) if chosen.rows is None else chosen.rows
        by_columns = torch.ones(width, 1) if chosen.columns is None else chosen.columns
        by_rows, by_columns = by_rows.to(to), by_columns.to(to)
        total = torch.zeros(len(by_rows), by_columns.shape[1], dtype=torch.float64)
        for top, block in zip(range(0, height, step), strip.split(step), strict=True):
            tile = widen(block) if widen else block
            picked = by_rows[:, top : top + step]
            across[top : top + step] += tile @ by_columns
            down += picked @ tile
            if squares:
                total += picked @ (tile.square() @ by_columns)
        return total

    def _widener(self, dtype: torch.dtype, to: torch.dtype) -> Widener | None:
        if dtype == to:
            return None
        if (dtype, to) not in self._wideners:
            self._wideners[dtype, to] = Widener(dtype, to, TILE)
        return self._wideners[dtype, to]


def _compiled(matrix: Tensor, window: Window, cut: compiled.Cut, *, squares: bool) -> Part | None:
    """Sums by the compiled loop; None where float32 is not enough, or weights are not finite."""
    height, width = matrix.shape
    runs = cut.runs[(cut.runs[:, 1] > window.left) & (cut.runs[:, 0] < window.right)].copy()
    runs[:, :2] = runs[:, :2].clip(window.left, window.right) - window.left
    a, b = cut.sizes
    rows, columns, total = np.zeros((height, b)), np.zeros((a, width)), np.zeros((a, b))
    loop = compiled.kernel(matrix.dtype, squares)
    row_block = cut.row_block[window.top : window.bottom]
    loop(compiled.bits(matrix), row_block, runs, rows, columns, total)
    sums = [torch.from_numpy(s) for s in (rows, columns, total)]
    if not _precise(Part(window, sums[0], sums[1], sums[2] if squares else None), matrix.numel()):
        return None
    a, b = cut.counts  # what is in no block had to be finite too
    return Part(window, sums[0][:, :b], sums[1][:a], sums[2][:a, :b] if squares else None)


def _tile_height(width: int) -> int:
    return max(1, min(LINE, TILE // width))


def _precise(part: Part, entries: int) -> bool:
    """Whether float32 sums neither overflowed nor lost their squares to underflow."""
    tiny = part.squares is not None and bool(part.squares.sum() < TINY_SQUARE * entries)
    return _finite(part) and not tiny


def _finite(part: Part) -> bool:
    sums = [part.rows, part.columns] + ([] if part.squares is None else [part.squares])
    return all(math.isfinite(s.sum().item()) for s in sums)


def _not_finite(
    checkpoint: Checkpoint, name: str, shape: tuple[int, int], start: int, flat: Tensor
) -> CheckpointError:
    """The error for a window (entries from `start` on) whose sums are not finite."""
    where = f"{checkpoint.source}: tensor {brief_line(name)}"
    for offset in range(0, len(flat), TILE):
        values = flat[offset : offset + TILE].double()
        wrong = (~torch.isfinite(values)).nonzero()
        if len(wrong):
            at = int(wrong[0])
            row, column = divmod(start + offset + at, shape[1])
            place = f"[{row}, {column}]" if shape[1] > 1 else f"[{row}]"
            return CheckpointError(f"{where}: entry {place} is {float(values[at])}")
    return CheckpointError(f"{where}: its entries are too large to be summed in float64")
