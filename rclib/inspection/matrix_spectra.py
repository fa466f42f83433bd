"""Spectra of every matrix of a checkpoint: power-law exponents, spikes, stable rank.

Each matrix (part of a fused one) is taken as W (outputs, inputs), heads side by side, one tensor
at a time; λ are the eigenvalues of W^T W or W W^T, whichever is smaller. A very large matrix that
is much taller than wide, such as an embedding of 100,000 tokens, is first reduced by QR in row
chunks: W = Q R has the eigenvalues of R.

Sources: paper B, "Quantities" (ESD, α by Hill and by KS); the bulk's edge and spikes as in
`rclib.spectral.random_matrix.outliers`, with the variance that the median eigenvalue tells.
"""

from __future__ import annotations

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
from rclib.families.matrix_view import MatrixView, as_matrices, matrix_view
from rclib.files.memory import available_memory
from rclib.spectral.power_law import PowerLaw, power_law
from rclib.spectral.random_matrix import marchenko_pastur, outliers
from rclib.spectral.spectra import esd, stable_rank

__all__ = ["MatrixSpectrum", "esd_histogram", "matrix_spectra", "spectra_table", "weight_matrices"]

Floats = NDArray[np.float64]
BINS = 100  # of log10 of the eigenvalues, as in paper B
WHOLE = 1 << 26  # entries (512 MB as float64) up to which a tall matrix is taken whole


@dataclass(frozen=True)
class MatrixSpectrum:
    """One matrix's spectrum.

    block : number, None outside the blocks; name : of the tensor; matrix : its short name, with
    the part of a fused tensor; outputs, inputs : its shape. alpha_hill, alpha_ks : power-law
    exponents, alpha_ks_error : (α - 1)/√n of the second, tail : n, its number of eigenvalues;
    None below 10 positive eigenvalues. spikes : eigenvalues beyond the Marchenko-Pastur bulk,
    edge : where it ends, variance : of the bulk's entries. largest : the largest eigenvalue.
    eigenvalues : (min(outputs, inputs),) ascending.
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


def weight_matrices(
    checkpoint: Checkpoint,
    layout: Layout,
    *,
    blocks: Collection[int | None] | None = None,
    failed: Callable[[str, CheckpointError], object] | None = None,
) -> Iterator[tuple[MatrixView, dict[str, Tensor]]]:
    """Every tensor that is a matrix, with its parts {label: (rows, columns) as stored}.

    In the order of the file, one tensor in memory at a time; a tensor that is not cut has one
    part, "". Vectors and biases are passed over. A very tall matrix comes as its R (float64).
    """
    layout.check_blocks(blocks)
    views = {
        name: matrix_view(layout.weights[name], layout)
        for name in checkpoint.tensors
        if name in layout.weights and (blocks is None or layout.weights[name].block in blocks)
    }
    views = {name: view for name, view in views.items() if view.is_matrix}
    if not views:
        return
    with as_matrices(checkpoint, views) as flat:
        for name, view in views.items():
            height, width = view.shape
            try:
                rows, columns = view.positions()
                if not rows and not columns and height > 2 * width and height * width > WHOLE:
                    _check_memory(flat, name, 10 * width * width)
                    yield view, {"": _triangle(flat, name)}
                    continue
                _check_memory(flat, name, height * width + 3 * min(height, width) ** 2)
                tensor = flat.tensor(name)
            except CheckpointError as error:
                if failed is None:
                    raise
                failed(name, error)
                continue
            if rows:
                yield view, {label: tensor[places] for label, places in rows.items()}
            elif columns:
                yield view, {label: tensor[:, places] for label, places in columns.items()}
            else:
                yield view, {"": tensor}


def _check_memory(checkpoint: Checkpoint, name: str, numbers: int) -> None:
    """CheckpointError if the tensor and so many float64 numbers do not fit into the memory: the
    system would end the process, and with it what was measured before."""
    needed = checkpoint.tensors[name].nbytes + 8 * numbers
    if needed > WHOLE and needed > available_memory():
        raise CheckpointError(
            f"{checkpoint.source}: tensor {brief_line(name)}: no memory for {needed} bytes, which "
            "its spectrum takes"
        )


def _triangle(checkpoint: Checkpoint, name: str) -> Tensor:
    """R of the QR decomposition of a tall matrix (m, n), (n, n), a chunk of rows at a time."""
    width = checkpoint.tensors[name].shape[1]
    top = torch.zeros(0, width, dtype=torch.float64)
    for _, rows in checkpoint.chunks(name, max_bytes=4 * width * width):
        stacked = torch.cat([top, rows.double()])
        if not bool(torch.isfinite(stacked).all()):
            raise CheckpointError(f"{checkpoint.source}: tensor {name!r} holds NaN or infinity")
        top = torch.linalg.qr(stacked, mode="r").R
    return top


def matrix_spectra(
    checkpoint: Checkpoint,
    layout: Layout,
    *,
    blocks: Collection[int | None] | None = None,
    progress: Callable[[int], object] | None = None,
    failed: Callable[[str, CheckpointError], object] | None = None,
) -> Iterator[MatrixSpectrum]:
    """The spectrum of every matrix, in the order of the file.

    blocks : which ones (None: matrices outside the blocks); default all. progress : called with
    the bytes of each tensor that is done. failed : called with the name and error of each tensor
    that cannot be measured, which is then left out; without it the first is raised. Raises
    CheckpointError naming the tensor for NaN or infinite weights, types without fractions and
    missing memory, ValueError for blocks that are not there.
    """
    for view, parts in weight_matrices(checkpoint, layout, blocks=blocks, failed=failed):
        weight = view.weight
        for part, matrix in parts.items():
            outputs, inputs = view.shape if view.sides[0] == "C" else view.shape[::-1]
            if part:  # a cut group's share of its side
                outputs, inputs = matrix.shape if view.sides[0] == "C" else matrix.shape[::-1]
            try:
                if not matrix.is_floating_point():
                    raise ValueError(
                        f"spectra are taken of floating types only, not {matrix.dtype}"
                    )
                values = esd(matrix if matrix.shape[0] >= matrix.shape[1] else matrix.t())
            except ValueError as error:
                where = f"{checkpoint.source}: tensor {weight.name!r}"
                if failed is None:
                    raise CheckpointError(f"{where}: {error}") from None
                failed(weight.name, CheckpointError(f"{where}: {error}"))
                break  # one line a tensor, whatever its parts
            label = f"{weight.label}.{part}" if part else weight.label
            yield _spectrum(weight.block, weight.name, label, (int(outputs), int(inputs)), values)
        if progress is not None:
            progress(checkpoint.tensors[weight.name].nbytes)


def _spectrum(
    block: int | None, name: str, matrix: str, shape: tuple[int, int], values: Floats
) -> MatrixSpectrum:
    """values : eigenvalues of the smaller Gram matrix, ascending."""
    hill, ks = _fit(values, "hill"), _fit(values, "ks")
    zero = not values.any()
    bulk = None if zero else outliers(values, rows=max(shape))
    return MatrixSpectrum(
        block=block,
        name=name,
        matrix=matrix,
        outputs=shape[0],
        inputs=shape[1],
        alpha_hill=None if hill is None else hill.alpha,
        alpha_ks=None if ks is None else ks.alpha,
        alpha_ks_error=None if ks is None else ks.standard_error,
        tail=None if ks is None else ks.tail,
        spikes=0 if bulk is None else bulk.count,
        edge=0.0 if bulk is None else bulk.edge,
        variance=0.0 if bulk is None else bulk.variance,
        largest=float(values[-1]),
        stable_rank=0.0 if zero else stable_rank(values),
        eigenvalues=values,
    )


def _fit(values: Floats, method: str) -> PowerLaw | None:
    """The fit, None where there are too few eigenvalues or all of the tail are equal."""
    try:
        return power_law(values, method)
    except ValueError:
        return None


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
