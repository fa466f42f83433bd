"""Pictures of weight matrices: heat maps of bounded size, and row and column means.

A matrix that is larger than its picture is cut into tiles, and a tile shows the mean of its
entries, less the matrix's mean, in units of std/√k for tiles of k entries: what independent entries
would spread by. Noise looks the same at every size, and row and column structure, which does not
average out, stands out of it.

The second picture is sorted by row and by column means. Sorting noise by its own means would draw a
structure that is not there. So one half of the rows and columns decides the order (the odd ones)
and the entries of the others (the even ones) are shown: of independent entries the order says
nothing, and they stay noise.

Read in chunks of rows: memory is bounded by a chunk, not by the matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rclib.checkpoints.opening import Checkpoint
from rclib.inspection.matrix_plan import MatrixPlan

__all__ = ["LEVELS", "Map", "Picture", "pictures"]

Floats = NDArray[np.float64]
LEVELS = 16  # steps of colour on either side of zero
CHUNK = 1 << 21  # entries that are looked at together
LEAST, QUANTILE = 3.0, 0.98  # the scale's end: 3, or what 98 percent of the tiles stay below


@dataclass(frozen=True)
class Map:
    """levels : (rows, columns) int8 from -LEVELS to LEVELS; end : of the scale, in standard errors
    of a tile; tile : (rows, columns) of the matrix in the first tile."""

    levels: NDArray[np.int8]
    end: float
    tile: tuple[int, int]


@dataclass(frozen=True)
class Picture:
    """One matrix, outputs by inputs. layer : as in `MatrixSpectrum`; plain, sorted : its heat maps;
    rows, columns : mean of each; mean, std : of all entries; squares : the sum of their squares."""

    layer: str
    plain: Map
    sorted: Map | None
    rows: Floats
    columns: Floats
    mean: float
    std: float
    squares: float


def pictures(checkpoint: Checkpoint, plan: MatrixPlan, edge: int) -> Iterator[Picture]:
    """Pictures of the matrices of a plan, heat maps of at most `edge` tiles each way.

    Matrices with entries that are not finite are passed over; they have no spectrum either. Raises
    CheckpointError for what cannot be read.
    """
    if plan.whole:
        width = plan.shape[1]

        def read(first: int, last: int) -> Tensor:
            flat = checkpoint.entries(plan.name, first * width, last * width)
            return flat.view(last - first, width)

        found = _picture(plan.name, plan.shape, read, plan.outputs_first, edge)
        if found is not None:
            yield found
        return
    for label, _, matrix in plan.matrices(checkpoint):
        layer = plan.name + label.removeprefix(plan.label).replace(".", ":", 1)
        rows, columns = (int(n) for n in matrix.shape)
        whole = matrix  # bound for the closure

        def part(first: int, last: int, whole: Tensor = whole) -> Tensor:
            return whole[first:last]

        found = _picture(layer, (rows, columns), part, plan.outputs_first, edge)
        if found is not None:
            yield found


def _picture(
    layer: str,
    shape: tuple[int, int],
    read: Callable[[int, int], Tensor],
    outputs_first: bool,
    edge: int,
) -> Picture | None:
    """Of a matrix as stored, (h, d)."""
    h, d = shape
    plain = _Tiles(shape, edge)
    rows, columns = np.empty(h), np.zeros(d)
    orders = np.empty(h), np.zeros(d)  # means over the odd columns and over the odd rows
    squares = 0.0
    for first, chunk in _chunks(shape, read):
        last = first + len(chunk)
        rows[first:last] = chunk.sum(1)
        columns += chunk.sum(0)
        squares += float(np.einsum("ij,ij->", chunk, chunk))
        orders[0][first:last] = chunk[:, 1::2].sum(1)
        orders[1][:] += chunk[(first + 1) % 2 :: 2].sum(0)
        plain.add(chunk, np.arange(first, last))
    if not math.isfinite(squares):
        return None
    mean = float(rows.sum()) / (h * d)
    std = math.sqrt(max(0.0, squares / (h * d) - mean * mean))
    ordered = None
    if min(h, d) >= 4 and std > 0:
        by_rows, by_columns = (np.argsort(-o[::2], kind="stable") for o in orders)
        ordered = _Tiles((len(by_rows), len(by_columns)), edge)
        places = np.empty(len(by_rows), dtype=np.int64)
        places[by_rows] = np.arange(len(by_rows))
        for first, chunk in _chunks(shape, read):
            even = chunk[first % 2 :: 2, ::2][:, by_columns]
            begin = (first + 1) // 2
            ordered.add(even, places[begin : begin + len(even)])
    maps = [None if t is None else t.map(mean, std, outputs_first) for t in (plain, ordered)]
    assert maps[0] is not None
    means = rows / d, columns / h
    first_means, second_means = means if outputs_first else means[::-1]
    return Picture(layer, maps[0], maps[1], first_means, second_means, mean, std, squares)


def _chunks(
    shape: tuple[int, int], read: Callable[[int, int], Tensor]
) -> Iterator[tuple[int, Floats]]:
    h, d = shape
    step = max(1, CHUNK // d)
    for first in range(0, h, step):
        yield first, read(first, min(first + step, h)).double().numpy()


class _Tiles:
    """Sums over the tiles of a matrix, whose rows come in any order."""

    def __init__(self, shape: tuple[int, int], edge: int) -> None:
        # Of one size but for the last: z goes with the root of it, and must not draw stripes.
        self.starts = [np.arange(0, n, -(-n // edge)) for n in shape]
        self.sizes = [np.diff([*s, n]) for s, n in zip(self.starts, shape, strict=True)]
        self.sums = np.zeros([len(s) for s in self.starts])

    def add(self, chunk: Floats, places: NDArray[np.int64]) -> None:
        """Add rows of the matrix that stand at these places."""
        across = np.add.reduceat(chunk, self.starts[1], axis=1)
        tiles = np.searchsorted(self.starts[0], places, side="right") - 1
        np.add.at(self.sums, tiles, across)

    def map(self, mean: float, std: float, outputs_first: bool) -> Map:
        """In standard errors of each tile."""
        count = np.outer(*self.sizes).astype(np.float64)
        z = (self.sums / count - mean) * np.sqrt(count) / std if std > 0 else 0.0 * self.sums
        end = max(LEAST, float(np.quantile(np.abs(z), QUANTILE)))
        levels = np.clip(np.round(z * (LEVELS / end)), -LEVELS, LEVELS).astype(np.int8)
        tile = int(self.sizes[0][0]), int(self.sizes[1][0])
        if not outputs_first:
            levels, tile = np.ascontiguousarray(levels.T), tile[::-1]
        return Map(levels, end, tile)
