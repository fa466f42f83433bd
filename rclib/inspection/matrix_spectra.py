"""Spectra of every matrix of a checkpoint: power-law exponents, spikes, stable rank.

Each matrix (part of a fused one, expert of a stack, convolution as out x (in · places)) is taken as
W (outputs, inputs), one at a time (`rclib.inspection.matrix_plan`); λ are the eigenvalues of W^T W
or W W^T, whichever is smaller. A very large matrix that is much taller than wide, such as an
embedding of 100,000 tokens, is first reduced by QR in row chunks: W = Q R has the eigenvalues of R.

Eigenvalues that the entries' precision cannot tell from zero are zero, and a tail whose values
differ by rounding alone has no exponent (`rclib.inspection.rounding`).

Sources: paper B, "Quantities" (ESD, α by Hill and by KS); the bulk's edge and spikes as in
`rclib.spectral.random_matrix.outliers`, with the variance that the median eigenvalue tells, for a
matrix of as many rows as are not zero and as many columns as its rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from rclib.checkpoints.opening import Checkpoint, CheckpointError
from rclib.checkpoints.tensor_file import brief_line
from rclib.families.layout import Layout
from rclib.files.memory import available_memory
from rclib.inspection.matrix_plan import MatrixPlan, plan_matrices, spectra_layout
from rclib.inspection.rounding import Precision, numerical_rank, precision, same_value
from rclib.spectral.power_law import MIN_EIGENVALUES, PowerLaw, power_law
from rclib.spectral.random_matrix import marchenko_pastur, outliers
from rclib.spectral.spectra import esd, stable_rank

__all__ = ["MatrixSpectrum", "check_blocks", "esd_histogram", "matrix_spectra", "spectra_table"]

Floats = NDArray[np.float64]
BINS = 100  # of log10 of the eigenvalues, as in paper B
WHOLE = 1 << 26  # entries (512 MB as float64) up to which a tall matrix is taken whole


@dataclass(frozen=True)
class MatrixSpectrum:
    """One matrix's spectrum.

    block : number, None outside the blocks; name : of the tensor; matrix : its short name, with
    the part of a fused tensor; outputs, inputs : its shape. alpha_hill, alpha_ks : power-law
    exponents, alpha_ks_error : (α - 1)/√n of the second, tail : n, its number of eigenvalues;
    None below 10 positive eigenvalues and where they would measure rounding. spikes : eigenvalues
    beyond the Marchenko-Pastur bulk, edge : where it ends, variance : of the bulk's entries.
    largest : the largest eigenvalue.
    eigenvalues : (min(outputs, inputs),) ascending, zero where they are rounding; rank : how many
    are not zero. kind : what the tensor was taken for; note : why a number is missing.
    """

    block: int | None
    name: str
    matrix: str
    outputs: int
    inputs: int
    alpha_hill: float | None
    alpha_ks: float | None
    alpha_ks_error: float | None
    tail: int | None
    spikes: int
    edge: float
    variance: float
    largest: float
    stable_rank: float
    eigenvalues: Floats
    rank: int = 0
    kind: str = "matrix"
    note: str = ""


def _check_memory(checkpoint: Checkpoint, name: str, numbers: int) -> None:
    """CheckpointError if the tensor and so many float64 numbers do not fit into the memory: the
    system would end the process, and with it what was measured before."""
    needed = checkpoint.tensors[name].nbytes + 8 * numbers
    if needed > WHOLE and needed > available_memory():
        raise CheckpointError(
            f"{checkpoint.source}: tensor {brief_line(name)}: no memory for {needed} bytes, which "
            "its spectrum takes"
        )


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


def matrix_spectra(
    checkpoint: Checkpoint,
    layout: Layout | None = None,
    *,
    blocks: Collection[int | None] | None = None,
    plans: Collection[MatrixPlan] | None = None,
    progress: Callable[[int], object] | None = None,
    failed: Callable[[str, CheckpointError], object] | None = None,
) -> Iterator[MatrixSpectrum]:
    """The spectrum of every matrix, in the order of the file.

    layout : of the checkpoint; None takes the table that fits, or names and shapes alone. plans :
        the matrices themselves, instead (`rclib.inspection.matrix_plan.plan_matrices`).
    blocks : which ones (None: matrices outside the blocks); default all. progress : called with
    the bytes of each tensor that is done. failed : called with the name and error of each
    tensor that cannot be measured, which is then left out; without it the first is raised. Raises
    CheckpointError naming the tensor for NaN or infinite weights, types without fractions and
    missing memory, ValueError for blocks that are not there.
    """
    if plans is None:
        unknown: frozenset[str] = frozenset()
        if layout is None:
            layout, unknown = spectra_layout(checkpoint.tensors, checkpoint.config)
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
    for plan in plans:
        if blocks is None or plan.block in blocks:
            try:
                yield from _spectra_of(checkpoint, plan, failed)
            except (CheckpointError, MemoryError, RuntimeError) as error:
                refused = _named(checkpoint, plan.name, error)
                if failed is None:
                    raise refused from None
                failed(plan.name, refused)
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


def _spectra_of(
    checkpoint: Checkpoint,
    plan: MatrixPlan,
    failed: Callable[[str, CheckpointError], object] | None,
) -> Iterator[MatrixSpectrum]:
    height, width = plan.shape
    name = plan.name
    if plan.whole and height > 2 * width and height * width > WHOLE:
        _check_memory(checkpoint, name, 10 * width * width)
        triangle = _triangle(checkpoint, name, width)
        values = esd(triangle)
        stored = getattr(torch, str(checkpoint.tensors[name].dtype).removeprefix("torch."))
        rms = math.sqrt(float(values.sum()) / (height * width))
        known = Precision(float(torch.finfo(stored).eps), rms, (height, width))
        yield _spectrum(plan, plan.label, plan.kind, (height, width), values, None, known)
        return
    _check_memory(checkpoint, name, height * width + 3 * min(height, width) ** 2)
    for label, kind, matrix in plan.matrices(checkpoint):
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.t()
        try:
            values = esd(tall)
        except ValueError as error:
            one = f", {label}" if plan.count > 1 else ""
            where = f"{checkpoint.source}: tensor {brief_line(name)}{one}"
            refused = CheckpointError(f"{where}: {error}")
            if failed is None or plan.count == 1:
                raise refused from None
            failed(f"{name}[{label}]", refused)  # one expert does not stop the others
            continue
        rows, columns = (int(n) for n in matrix.shape)
        yield _spectrum(plan, label, kind, (rows, columns), values, tall, precision(tall))


def _spectrum(
    plan: MatrixPlan,
    label: str,
    kind: str,
    shape: tuple[int, int],
    values: Floats,
    matrix: Tensor | None,
    known: Precision,
) -> MatrixSpectrum:
    """values : eigenvalues of the smaller Gram matrix, ascending; matrix : tall, or None."""
    rank = numerical_rank(values, matrix, known)
    notes = []
    if rank < int((values > 0).sum()):
        notes.append(f"rank {rank} of {len(values)}, the rest is rounding")
        values = np.concatenate([np.zeros(len(values) - rank), values[len(values) - rank :]])
    elif rank < len(values):
        notes.append(f"rank {rank} of {len(values)}")
    hill, why = _fit(values, "hill", known)
    ks, why_ks = _fit(values, "ks", known)
    notes += [f"no α Hill: {why}"] if why and not why_ks else []
    notes += [f"no α KS: {why_ks}"] if why_ks and not why else []
    notes += [f"no α: {why}"] if why and why_ks else []
    positive = values[values > 0]
    rows = max(shape) if matrix is None else max(int((matrix != 0).any(1).sum()), len(positive))
    bulk = outliers(positive, rows=rows) if len(positive) else None
    outputs, inputs = shape if plan.outputs_first else shape[::-1]
    return MatrixSpectrum(
        block=plan.block,
        name=plan.name,
        matrix=label,
        outputs=outputs,
        inputs=inputs,
        alpha_hill=None if hill is None else hill.alpha,
        alpha_ks=None if ks is None else ks.alpha,
        alpha_ks_error=None if ks is None else ks.standard_error,
        tail=None if ks is None else ks.tail,
        spikes=0 if bulk is None else bulk.count,
        edge=0.0 if bulk is None else bulk.edge,
        variance=0.0 if bulk is None else bulk.variance,
        largest=float(values[-1]),
        stable_rank=stable_rank(values) if len(positive) else 0.0,
        eigenvalues=values,
        rank=rank,
        kind=kind,
        note="; ".join(notes),
    )


def _fit(values: Floats, method: str, known: Precision) -> tuple[PowerLaw | None, str]:
    """The fit, or None and why: too few eigenvalues, or a tail that is one value."""
    positive = values[values > 0]
    if len(positive) < MIN_EIGENVALUES:
        return None, f"fewer than {MIN_EIGENVALUES} eigenvalues"
    try:
        found = power_law(values, method)
    except ValueError:
        return None, "the eigenvalues of the tail are equal"
    if same_value(positive[found.index :], known):
        return None, "the eigenvalues of the tail are equal up to rounding"
    return found, ""


def spectra_table(spectra: Iterable[MatrixSpectrum]) -> pd.DataFrame:
    """One row a matrix: the fields of `MatrixSpectrum` but the eigenvalues."""
    columns = [f.name for f in fields(MatrixSpectrum) if f.name != "eigenvalues"]
    rows = [[getattr(s, name) for name in columns] for s in spectra]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype({"block": "Int64", "tail": "Int64", "alpha_hill": float, "alpha_ks": float})


def esd_histogram(spectrum: MatrixSpectrum, *, bins: int = BINS) -> pd.DataFrame:
    """Histogram of log10 of the positive eigenvalues, with the Marchenko-Pastur law beside it.

    Columns: left, right (of log10 λ), density, law (the law's mean density in the bin, of a
    matrix of i.i.d. entries with the bulk's variance). Empty for a zero matrix.
    """
    values = spectrum.eigenvalues[spectrum.eigenvalues > 0]
    if not len(values):
        return pd.DataFrame(columns=["left", "right", "density", "law"], dtype=float)
    logs = np.log10(values)
    low, high = float(logs.min()), float(logs.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    density, edges = np.histogram(logs, bins=bins, range=(low, high), density=True)
    tall, wide = max(spectrum.outputs, spectrum.inputs), min(spectrum.outputs, spectrum.inputs)
    law = marchenko_pastur(wide / tall, tall * spectrum.variance)
    mass = np.diff(law.cdf(10.0**edges)) / np.diff(edges)
    return pd.DataFrame({"left": edges[:-1], "right": edges[1:], "density": density, "law": mass})
