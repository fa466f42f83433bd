"""Row and column means of tensors that need not fit into memory, in one pass over their bytes.

    axis_means(checkpoint, "lm_head.weight").means      # one vector of means for each axis
    block_means(checkpoint, "c_attn.weight", column_blocks={"q": slice(0, 768), ...})
    stream_means(checkpoint, {"a.weight": Blocks(), "c_attn.weight": Blocks(columns={...})})

`block_means` is for matrices whose axes are several index sets in one (fused q, k, v). A block
of rows or columns is a slice or a list of positions, in the order in which the result comes;
for each pair (row block, column block) the submatrix W[rows][:, columns] gives

    rows[i]    = mean over the block's columns of W[row i]          (the paper's `.C`)
    columns[j] = mean over the block's rows of W[:, column j]       (the paper's `.R`)

together with the mean and, if asked for, the mean square of its entries. A vector has rows
only: its entries. All results are float64; NaN and infinite weights are refused by name.

How it is fast: windows of a few MB go to worker threads, each of which cuts its window into
tiles that stay in its core's cache, so that a weight is fetched from memory once, whatever is
done with it. Sums within a tile are float32, sums over tiles float64: the error of a mean is
below 1e-6 of the root mean square of the entries, for entries of mean zero below 1e-7. The
results do not depend on the number of workers, bit for bit. Checkpoints of several GB go through
a compiled loop where numba is installed (`rclib.streaming.compiled`): three times the rate, the
same bounds of the error, other last digits.

Source: paper A, Section 4 (the mean vectors of Figures 4.2 and 4.4).
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rclib.checkpoints.opening import Checkpoint, CheckpointError
from rclib.checkpoints.safetensors_file import brief_line
from rclib.streaming import compiled as compiled_loop
from rclib.streaming.positions import Block, marks_of, places_of
from rclib.streaming.tiles import Part, Selection, Tiler, Window, windows
from rclib.streaming.widen import FLOATING

__all__ = [
    "AxisMeans",
    "Block",
    "BlockMeans",
    "Blocks",
    "axis_means",
    "block_means",
    "stream_means",
]

# Means that are kept of one tensor, 512 MB as float64.
MAX_MEANS = 1 << 26
# Bytes that are handed to a thread at a time, if tensors are smaller than windows.
BATCH = 8 << 20
# More add memory (a window each) and no speed: the memory's bandwidth is used up before.
MOST_WORKERS = 8
# Bytes of checkpoints for which compiling pays: it takes one or two seconds.
COMPILE_FROM = 8 << 30


def _all() -> dict[str, Block]:
    return {"": slice(None)}


@dataclass(frozen=True)
class Blocks:
    """Named blocks of the rows and of the columns of a matrix; by default one of all, ""."""

    rows: Mapping[str, Block] = field(default_factory=_all)
    columns: Mapping[str, Block] = field(default_factory=_all)


@dataclass(frozen=True)
class BlockMeans:
    """Means of one block of a matrix.

    rows : (r,) float64, mean of each row; columns : (c,) float64, mean of each column;
    mean : of all entries; square : mean of their squares, None unless asked for;
    count : number of entries.
    """

    rows: Tensor
    columns: Tensor
    mean: float
    square: float | None
    count: int


@dataclass(frozen=True)
class AxisMeans:
    """means[a] : (size of axis a,) float64, the mean over all other axes; others as BlockMeans."""

    means: tuple[Tensor, ...]
    mean: float
    square: float | None
    count: int


Means = dict[tuple[str, str], BlockMeans]


def axis_means(
    checkpoint: Checkpoint,
    name: str,
    *,
    squares: bool = False,
    workers: int | None = None,
    compiled: bool | None = None,
) -> AxisMeans:
    """Mean over all other axes, for each axis of a tensor of any number of axes.

    A vector is its own mean. squares, workers, compiled and errors as in `stream_means`.
    """
    shape = _usable(checkpoint, name)
    # Seen as the matrix whose two vectors of sums are shortest; an axis is a part of one.
    split = min(
        range(len(shape) + 1), key=lambda k: (math.prod(shape[:k]) + math.prod(shape[k:]), -k)
    )
    height, width = math.prod(shape[:split]), math.prod(shape[split:])
    plan = _Plan(checkpoint, name, (height, width), Blocks(), squares)
    [(_, found)] = _stream([plan], workers, None, compiled)
    block = found["", ""]
    means: list[Tensor] = []
    for axis in range(len(shape)):
        vector, sizes = (
            (block.rows, shape[:split]) if axis < split else (block.columns, shape[split:])
        )
        kept = axis if axis < split else axis - split
        others = [a for a in range(len(sizes)) if a != kept]
        means.append(vector.view(sizes).mean(dim=others) if others else vector)
    return AxisMeans(tuple(means), block.mean, block.square, block.count)


def block_means(
    checkpoint: Checkpoint,
    name: str,
    *,
    row_blocks: Mapping[str, Block] | None = None,
    column_blocks: Mapping[str, Block] | None = None,
    squares: bool = False,
    workers: int | None = None,
    compiled: bool | None = None,
) -> Means:
    """{(row block, column block): BlockMeans} of a matrix or vector, in one pass.

    "" is the name of all rows or all columns where no blocks are given. squares, workers,
    compiled and errors as in `stream_means`.
    """
    blocks = Blocks(row_blocks or _all(), column_blocks or _all())
    [(_, found)] = stream_means(
        checkpoint, {name: blocks}, squares=squares, workers=workers, compiled=compiled
    )
    return found


def stream_means(
    checkpoint: Checkpoint,
    requests: Mapping[str, Blocks],
    *,
    squares: bool = False,
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
    compiled: bool | None = None,
    failed: Callable[[str, CheckpointError], object] | None = None,
) -> Iterator[tuple[str, Means]]:
    """(name, as `block_means`) of many matrices and vectors, in the order of `requests`.

    Fastest in the order of `checkpoint.tensors`. Small tensors keep all workers busy too.

    squares : also the mean squares, for about a third more time.
    workers : threads that read and sum; default as many as torch uses, at most 8. Each needs
        about 5 MB beside the 32 MB window that it looks at. torch's own threads stay out of it.
    progress : called with the number of bytes that were done since its last call.
    compiled : whether float32, float16, bfloat16, float8_e4m3fn and float8_e5m2 go through the
        compiled loop; default where numba is installed and 8 GB or more are asked for.
    failed : called with the name and the error of each tensor that cannot be measured, which is
        then left out; without it the first such error is raised.
    Raises ValueError (before anything is read) for blocks that do not fit, and CheckpointError
    for unknown names, tensors of other than one or two axes, types without fractions, empty
    tensors, and NaN or infinite weights.
    """
    plans = []
    for name, blocks in requests.items():
        try:
            shape = _usable(checkpoint, name)
            if not 1 <= len(shape) <= 2:
                raise CheckpointError(
                    f"{checkpoint.source}: tensor {brief_line(name)} of shape {shape} is neither "
                    "vector nor matrix"
                )
            matrix = (shape[0], shape[1] if len(shape) == 2 else 1)
            plans.append(_Plan(checkpoint, name, matrix, blocks, squares))
        except CheckpointError as error:
            if failed is None:
                raise
            failed(name, error)
    return _stream(plans, workers, progress, compiled, failed)


class _Plan:
    """What is asked of one tensor, and the sums that have been collected."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        name: str,
        shape: tuple[int, int],
        blocks: Blocks,
        squares: bool,
    ) -> None:
        self.checkpoint, self.name, self.shape = checkpoint, name, shape
        self.squares = squares
        self.error: CheckpointError | None = None
        self.itemsize = checkpoint.info(name).nbytes // math.prod(shape)
        where = f"tensor {brief_line(name)}"
        self.row_places = places_of(blocks.rows, shape[0], f"row block of {where}")
        self.column_places = places_of(blocks.columns, shape[1], f"column block of {where}")
        if shape[0] * len(blocks.columns) + shape[1] * len(blocks.rows) > MAX_MEANS:
            raise CheckpointError(
                f"{checkpoint.source}: {where} has too many rows or columns: means of "
                f"{shape[0]} x {len(blocks.columns)} and {shape[1]} x {len(blocks.rows)}, at "
                f"most {MAX_MEANS} are kept"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * self.itemsize

    def start(self, compiled: bool) -> None:
        """Make room for the sums: NumPy arrays, since torch would wake its threads for them."""
        rows = marks_of(self.row_places, self.shape[0])
        columns = marks_of(self.column_places, self.shape[1])
        marks = rows, None if columns is None else columns.t()
        cut = compiled_loop.cut_into(*marks, self.shape) if compiled else None
        self.selection = Selection(*marks, cut)
        kinds = len(self.row_places), len(self.column_places)
        self.rows = np.zeros((self.shape[0], kinds[1]))
        self.columns = np.zeros((kinds[0], self.shape[1]))
        self.square_sums = np.zeros(kinds)

    def add(self, part: Part) -> None:
        """Add the sums of a window."""
        window = part.window
        self.rows[window.top : window.bottom] += part.rows.numpy()
        self.columns[:, window.left : window.right] += part.columns.numpy()
        if part.squares is not None:
            self.square_sums += part.squares.numpy()

    def finish(self) -> Means:
        """Means from the sums."""
        found: Means = {}
        for a, (row_block, (rows, height)) in enumerate(self.row_places.items()):
            for b, (column_block, (columns, width)) in enumerate(self.column_places.items()):
                sums = self.rows[rows, b]
                count = height * width
                found[row_block, column_block] = BlockMeans(
                    torch.from_numpy(sums / width),
                    torch.from_numpy(self.columns[a, columns] / height),
                    float(sums.sum()) / count,
                    float(self.square_sums[a, b]) / count if self.squares else None,
                    count,
                )
        return found


# A window of a plan, and whether it is the last.
_Job = tuple[_Plan, Window, bool]


def _stream(
    plans: Sequence[_Plan],
    workers: int | None,
    progress: Callable[[int], object] | None,
    compiled: bool | None,
    failed: Callable[[str, CheckpointError], object] | None = None,
) -> Iterator[tuple[str, Means]]:
    if compiled is None:
        large = sum(plan.nbytes for plan in plans) >= COMPILE_FROM
        compiled = large and compiled_loop.available()
    elif compiled and not compiled_loop.available():
        raise ValueError("compiled=True needs numba: pip install 'rclib[fast]'")
    if workers is None:
        workers = min(MOST_WORKERS, torch.get_num_threads())
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    threads = torch.get_num_threads()
    tilers = threading.local()

    def prepare() -> None:
        # A tile is too small to be shared by threads; the windows are what runs side by side.
        torch.set_num_threads(1)
        tilers.own = Tiler()

    def work(jobs: list[_Job]) -> list[Part | Exception]:
        tiler: Tiler = tilers.own
        parts: list[Part | Exception] = []
        for plan, window, _ in jobs:
            where = plan.checkpoint, plan.name, plan.shape, window, plan.selection
            try:
                if plan.error is not None:  # of another window: nothing more is asked of it
                    raise plan.error
                parts.append(tiler.sums(*where, squares=plan.squares))
            except Exception as error:  # raised in its turn, after the tensors before it
                parts.append(error)
                if failed is None or not isinstance(error, CheckpointError):
                    break
        return parts

    # Work is handed out a few batches at a time and collected in its order, so that the sums do
    # not depend on which thread was faster and waiting results need little memory.
    pending: deque[tuple[list[_Job], Future[list[Part | Exception]]]] = deque()

    def collect() -> Iterator[tuple[str, Means]]:
        jobs, future = pending.popleft()
        for (plan, window, last), part in zip(jobs, future.result(), strict=False):
            if isinstance(part, Exception) and plan.error is None:
                if failed is None or not isinstance(part, CheckpointError):
                    raise part
                plan.error = part
                failed(plan.name, part)
            done = window.entries * plan.itemsize
            if plan.error is None and not isinstance(part, Exception):
                plan.add(part)
            if progress is not None:
                progress(done)
            if last and plan.error is None:
                yield plan.name, plan.finish()

    pool = ThreadPoolExecutor(workers, initializer=prepare)
    try:
        for jobs in _batches(plans, compiled):
            if len(pending) > 2 * workers:
                yield from collect()
            pending.append((jobs, pool.submit(work, jobs)))
        while pending:
            yield from collect()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)


def _batches(plans: Sequence[_Plan], compiled: bool) -> Iterator[list[_Job]]:
    """Windows in their order, those of small tensors together: handing them out costs time."""
    batch: list[_Job] = []
    size = 0
    waiting = deque(plans)
    while waiting:  # a plan is let go when its results are out
        plan = waiting.popleft()
        plan.start(compiled)
        todo = list(windows(*plan.shape, plan.itemsize))
        for window in todo:
            batch.append((plan, window, window is todo[-1]))
            size += window.entries * plan.itemsize
            if size >= BATCH:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _usable(checkpoint: Checkpoint, name: str) -> tuple[int, ...]:
    """Shape of a tensor that has means."""
    info = checkpoint.info(name)
    where = f"{checkpoint.source}: tensor {brief_line(name)}"
    if info.dtype not in FLOATING:
        raise CheckpointError(f"{where} is {info.dtype}; means are taken of floating types only")
    if not math.prod(info.shape):
        raise CheckpointError(f"{where} of shape {info.shape} is empty")
    return info.shape
