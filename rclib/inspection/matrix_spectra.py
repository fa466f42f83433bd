"""Spectra of every matrix of a checkpoint: power-law exponents, spikes, stable rank.

Each matrix (part of a fused one, expert of a stack, convolution as out x (in · places)) is taken as
W (outputs, inputs) (`rclib.inspection.matrix_plan`); λ are the eigenvalues of W^T W or W W^T,
whichever is smaller. A very large matrix that is much taller than wide, such as an embedding of
100,000 tokens, is first reduced by QR in row chunks: W = Q R has the eigenvalues of R.

Several workers take a tensor each (`rclib.inspection.side_by_side`). What is said of a spectrum is
in `rclib.inspection.spectrum`.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from rclib.checkpoints.opening import Checkpoint, CheckpointError, opened
from rclib.checkpoints.tensor_file import brief_line
from rclib.families.layout import Layout, check_layout
from rclib.files.memory import available_memory
from rclib.inspection.change import Change
from rclib.inspection.matrix_plan import MatrixPlan, plan_matrices, spectra_layout
from rclib.inspection.side_by_side import in_order
from rclib.inspection.spectrum import MatrixSpectrum, spectrum_of
from rclib.spectral.rounding import Precision, precision
from rclib.spectral.spectra import esd

__all__ = ["check_blocks", "in_blocks", "matrix_spectra"]

WHOLE = 1 << 26  # entries (512 MB as float64) up to which a tall matrix is taken whole

Failures = list[tuple[str, CheckpointError]]


def matrix_spectra(
    checkpoint: Checkpoint | nn.Module | Mapping[str, Tensor] | str | os.PathLike[str],
    layout: Layout | None = None,
    *,
    blocks: Collection[int | None] | None = None,
    plans: Collection[MatrixPlan] | None = None,
    progress: Callable[[int], object] | None = None,
    failed: Callable[[str, CheckpointError], object] | None = None,
    workers: int = 1,
) -> Iterator[MatrixSpectrum]:
    """The spectrum of every matrix, block by block, those outside the blocks last.

    checkpoint : an open one, or what `rclib.open_checkpoint` takes.
    layout : of the checkpoint; None takes the table that fits, or names and shapes alone. plans :
        the matrices themselves, instead (`rclib.inspection.matrix_plan.plan_matrices`).
    blocks : which ones (None: matrices outside the blocks); default all. progress : called with
        the bytes of each tensor that is done. failed : called with the name and error of each
        tensor that cannot be measured, which is then left out; without it the first is raised.
    workers : tensors that are worked on at a time, as far as the memory allows. With more than one
        the linear algebra of each should have one thread (`rclib.inspection.side_by_side.limited`).
    Raises CheckpointError naming the tensor for NaN or infinite weights, types without fractions
    and missing memory, ValueError for blocks that are not there, TypeError for a layout that is
    none.
    """
    with opened(checkpoint) as source:
        yield from _measured(
            source, layout, blocks=blocks, plans=plans, progress=progress, failed=failed,
            workers=workers,
        )  # fmt: skip


def _measured(
    checkpoint: Checkpoint,
    layout: Layout | None,
    *,
    blocks: Collection[int | None] | None,
    plans: Collection[MatrixPlan] | None,
    progress: Callable[[int], object] | None,
    failed: Callable[[str, CheckpointError], object] | None,
    workers: int,
) -> Iterator[MatrixSpectrum]:
    if plans is None:
        unknown: frozenset[str] = frozenset()
        if layout is None:
            layout, unknown = spectra_layout(checkpoint.tensors, checkpoint.config)
        else:
            check_layout(layout)
        plans, left = plan_matrices(checkpoint.tensors, layout, unknown)
        check_blocks(plans, blocks)
        for name in left:
            if layout is not None and name in layout.weights:
                where = f"{checkpoint.source}: tensor {brief_line(name)}"
                error = CheckpointError(f"{where}: spectra are taken of floating types only")
                if failed is None:
                    raise error
                failed(name, error)
    else:
        check_blocks(plans, blocks)
    chosen = in_blocks(plans, blocks)

    def measured(plan: MatrixPlan) -> tuple[list[MatrixSpectrum], Failures]:
        errors: Failures = []
        found: list[MatrixSpectrum] = []
        try:
            for one in _spectra_of(checkpoint, plan, errors):
                found.append(one)
        except (CheckpointError, MemoryError, RuntimeError) as error:
            errors.append((plan.name, _named(checkpoint, plan.name, error)))
        return found, errors

    def size(plan: MatrixPlan) -> int:
        return checkpoint.tensors[plan.name].nbytes + 8 * _numbers(checkpoint, plan)

    with contextlib.closing(in_order(measured, chosen, workers=workers, size=size)) as results:
        for plan, (found, errors) in zip(chosen, results, strict=True):
            yield from found
            for name, error in errors:
                if failed is None:
                    raise error
                failed(name, error)
            if progress is not None:
                progress(checkpoint.tensors[plan.name].nbytes)


def _named(checkpoint: Checkpoint, name: str, error: Exception) -> CheckpointError:
    """The error as one of this tensor, if it is one of the file or of missing memory."""
    if isinstance(error, CheckpointError):
        return error
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        where = f"{checkpoint.source}: tensor {brief_line(name)}"
        return CheckpointError(f"{where}: no memory for its spectrum")
    raise error


def check_blocks(plans: Collection[MatrixPlan], blocks: Collection[int | None] | None) -> None:
    """ValueError for block numbers that no matrix has; None is always there."""
    there = sorted({p.block for p in plans if p.block is not None})
    missing = sorted({b for b in blocks or () if b is not None} - set(there))
    if missing:
        raise ValueError(f"the model has no block {missing[0]}, it has {there}")


def in_blocks(
    plans: Collection[MatrixPlan], blocks: Collection[int | None] | None = None
) -> list[MatrixPlan]:
    """The plans of some blocks (all by default), block by block, those outside the blocks last.

    A file's own order may be 0, 1, 10, 11, 2, or that of its shards.
    """
    chosen = [plan for plan in plans if blocks is None or plan.block in blocks]
    return sorted(chosen, key=lambda plan: (plan.block is None, plan.block or 0))


def _by_chunks(plan: MatrixPlan) -> bool:
    height, width = plan.shape
    return plan.whole and height > 2 * width and height * width > WHOLE


def _numbers(checkpoint: Checkpoint, plan: MatrixPlan) -> int:
    """How many float64 numbers the spectra of a tensor take, beside the tensor."""
    height, width = plan.shape
    if _by_chunks(plan):
        return 10 * width * width
    others = 3 if isinstance(checkpoint, Change) else 1
    return others * height * width + 3 * min(height, width) ** 2


def _check_memory(checkpoint: Checkpoint, plan: MatrixPlan) -> None:
    """CheckpointError if what a tensor takes does not fit into the memory: the system would end the
    process, and with it what was measured before."""
    needed = checkpoint.tensors[plan.name].nbytes + 8 * _numbers(checkpoint, plan)
    if needed > WHOLE and needed > available_memory():
        raise CheckpointError(
            f"{checkpoint.source}: tensor {brief_line(plan.name)}: no memory for {needed} bytes, "
            "which its spectrum takes"
        )


def _spectra_of(
    checkpoint: Checkpoint, plan: MatrixPlan, errors: Failures
) -> Iterator[MatrixSpectrum]:
    """The spectra of a tensor. One bad expert of a stack does not stop the others: it goes into
    `errors`."""
    _check_memory(checkpoint, plan)
    name = plan.name
    if _by_chunks(plan):
        values = esd(_triangle(checkpoint, name, plan.shape[1]))
        known = _known_of_large(checkpoint, plan, float(values.sum()))
        yield spectrum_of(plan, plan.label, plan.kind, plan.shape, values, None, known)
        return
    for label, kind, matrix, known_change in _matrices(checkpoint, plan):
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.t()
        try:
            values = esd(tall.double())  # what is rounding, and said so, spectrum_of finds
        except ValueError as error:
            one = f", {label}" if plan.count > 1 else ""
            where = f"{checkpoint.source}: tensor {brief_line(name)}{one}"
            refused = CheckpointError(f"{where}: {error}")
            if plan.count == 1:
                raise refused from None
            errors.append((f"{name}[{label}]", refused))
            continue
        rows, columns = (int(n) for n in matrix.shape)
        if known_change is None:
            yield spectrum_of(plan, label, kind, (rows, columns), values, tall, precision(tall))
        else:  # its entries' size says nothing on how precisely they are known
            yield spectrum_of(plan, label, kind, (rows, columns), values, None, known_change)


def _matrices(
    checkpoint: Checkpoint, plan: MatrixPlan
) -> Iterator[tuple[str, str, Tensor, Precision | None]]:
    if not isinstance(checkpoint, Change):
        for label, kind, matrix in plan.matrices(checkpoint):
            yield label, kind, matrix, None
        return
    there = plan.of(checkpoint.partner[plan.name])
    pairs = zip(plan.matrices(checkpoint.after), there.matrices(checkpoint.before), strict=True)
    for (label, kind, after), (_, _, before) in pairs:
        known = checkpoint.known(plan.name, after, before)
        if known.shape[0] < known.shape[1]:
            known = Precision(known.eps, known.rms, known.shape[::-1])
        difference = after.double() if after.dtype != torch.float64 else after.clone()
        difference -= before  # in place: these may be large
        yield label, kind, difference, known


def _triangle(checkpoint: Checkpoint, name: str, width: int) -> Tensor:
    """R of the QR decomposition of a tall matrix (m, n), (n, n), a chunk of rows at a time."""
    top = torch.zeros(0, width, dtype=torch.float64)
    height = math.prod(checkpoint.tensors[name].shape) // width
    for first in range(0, height, 4 * width):
        last = min(first + 4 * width, height)
        rows = checkpoint.entries(name, first * width, last * width).view(last - first, width)
        stacked = torch.cat([top, rows.double()])
        if not bool(torch.isfinite(stacked).all()):
            raise CheckpointError(
                f"{checkpoint.source}: tensor {brief_line(name)} holds NaN or infinity"
            )
        top = torch.linalg.qr(stacked, mode="r").R
    return top


def _known_of_large(checkpoint: Checkpoint, plan: MatrixPlan, squares: float) -> Precision:
    """Of a matrix that is not taken whole, by its stored type; squares : sum of all entries'."""
    name, (height, width) = plan.name, plan.shape
    dtypes = [checkpoint.tensors[name].dtype]
    if isinstance(checkpoint, Change):
        dtypes = [
            checkpoint.after.tensors[name].dtype,
            checkpoint.before.tensors[checkpoint.partner[name]].dtype,
        ]
        squares = 2.0 * sum(
            float(rows.double().square().sum()) for _, rows in checkpoint.after.chunks(name)
        )
    eps = min(float(torch.finfo(getattr(torch, kind)).eps) for kind in dtypes)
    return Precision(eps, math.sqrt(squares / (height * width)), (height, width))
