"""What is said of one matrix's spectrum: exponents, verdict, spikes, ranks.

α by Hill and by KS with 95 percent intervals α ± 1.96 (α - 1)/√n, the asymptotic ones of n
independent values above a fixed cut: eigenvalues repel each other, so Hill's is wide rather than
narrow, and that of KS leaves out that its cut was chosen from the same values. Beside them what
independent entries of the same shape give (`rclib.spectral.heavy_tails`), and the verdict:

    heavy-tailed   the tail ratio is below 1 and below that of every noise matrix drawn, and some
                   eigenvalue lies beyond the Marchenko-Pastur bulk

A matrix of noise meets it in at most one of 100 cases up to 1024 x 1024, and in none that we drew
from 32 x 32 on, where noise never comes below 1. A nearly orthogonal matrix has a narrow bulk that
a steep power law fits better than Marchenko-Pastur: it has no eigenvalue beyond, hence no tail.

Eigenvalues that the entries' precision cannot tell from zero are zero, and a tail whose values
differ by rounding alone has no exponent (`rclib.spectral.rounding`).

Sources: paper B, "Quantities" (ESD, α by Hill and by KS); Clauset et al. 2009, eq. 3.2; the bulk's
edge and spikes as in `rclib.spectral.random_matrix.outliers`, with the variance that the median
eigenvalue tells, for a matrix of as many rows as are not zero and as many columns as its rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from rclib.inspection.matrix_plan import MatrixPlan
from rclib.inspection.vocabulary import MEANINGS
from rclib.spectral.heavy_tails import noise_tail, tail_shape
from rclib.spectral.power_law import MIN_EIGENVALUES, PowerLaw, power_law
from rclib.spectral.random_matrix import marchenko_pastur, outliers
from rclib.spectral.rounding import Precision, numerical_rank, same_value
from rclib.spectral.spectra import stable_rank

__all__ = [
    "HEAVY",
    "NOT_HEAVY",
    "MatrixSpectrum",
    "esd_histogram",
    "spectra_table",
    "spectrum_of",
]

Floats = NDArray[np.float64]
BINS = 100  # of log10 of the eigenvalues, as in paper B
HEAVY, NOT_HEAVY = "heavy-tailed", "not heavy-tailed"
Z95 = 1.959963984540054


@dataclass(frozen=True)
class MatrixSpectrum:
    """One matrix's spectrum; what the fields mean is in `rclib.inspection.vocabulary.MEANINGS`.

    Numbers are None below 10 positive eigenvalues and where they would measure rounding.
    eigenvalues : (min(outputs, inputs),) ascending, zero where they are rounding.
    xmin : where the tail of each α begins, an eigenvalue, by "hill" and "ks".
    """

    block: int | None
    layer: str
    matrix: str
    kind: str
    outputs: int
    inputs: int
    alpha_hill: float | None
    alpha_hill_low: float | None
    alpha_hill_high: float | None
    alpha_ks: float | None
    alpha_ks_low: float | None
    alpha_ks_high: float | None
    tail: int | None
    alpha_noise: float | None
    alpha_noise_low: float | None
    alpha_noise_high: float | None
    tail_ratio: float | None
    tail_ratio_noise: float | None
    verdict: str | None
    spikes: int | None
    edge: float | None
    variance: float | None
    largest: float
    stable_rank: float
    rank: int
    note: str
    eigenvalues: Floats = field(repr=False)
    xmin: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def shape(self) -> str:
        """outputs x inputs, as text."""
        return f"{self.outputs} x {self.inputs}"

    @property
    def over_edge(self) -> float | None:
        """The largest eigenvalue over the bulk's edge."""
        return self.largest / self.edge if self.edge else None


def spectrum_of(
    plan: MatrixPlan,
    label: str,
    kind: str,
    shape: tuple[int, int],
    values: Floats,
    matrix: Tensor | None,
    known: Precision,
) -> MatrixSpectrum:
    """The spectrum of one matrix of a plan.

    label, kind : as `MatrixPlan.matrices` gives them; shape : as stored; values : eigenvalues of
    the smaller Gram matrix, ascending; matrix : tall, or None where it was not taken whole; known :
    how precisely its entries are known.
    """
    rank = numerical_rank(values, matrix, known)
    notes = []
    if rank < int((values > 0).sum()):
        notes.append(f"rank {rank} of {len(values)}, the rest is rounding")
        values = np.concatenate([np.zeros(len(values) - rank), values[len(values) - rank :]])
    elif rank < len(values):
        notes.append(f"rank {rank} of {len(values)}")
    hill, why = _fit(values, "hill", known)
    ks, why_ks = _fit(values, "ks", known)
    notes += [f"no α hill: {why}"] if why and not why_ks else []
    notes += [f"no α ks: {why_ks}"] if why_ks and not why else []
    notes += [f"no α: {why}"] if why and why_ks else []
    positive = values[values > 0]
    notes += ["no spikes: too few to have a bulk"] if len(positive) < MIN_EIGENVALUES else []
    rows = max(shape) if matrix is None else max(int((matrix != 0).any(1).sum()), len(positive))
    # A few values have no bulk: their median is one of them.
    bulk = outliers(positive, rows=rows) if len(positive) >= MIN_EIGENVALUES else None
    ratio = noise = None
    if hill is not None and bulk is not None:
        ratio = tail_shape(positive, rows=rows, variance=bulk.variance, fit=hill).tail_ratio
        noise = noise_tail(rows, len(positive))
    verdict = None
    if ratio is not None and noise is not None and bulk is not None:
        heavy = ratio < min(1.0, noise.tail_ratio) and bulk.count > 0
        verdict = HEAVY if heavy else NOT_HEAVY
    outputs, inputs = shape if plan.outputs_first else shape[::-1]
    low, high = _interval(hill)
    low_ks, high_ks = _interval(ks)
    return MatrixSpectrum(
        block=plan.block,
        layer=plan.name + label.removeprefix(plan.label).replace(".", ":", 1),
        matrix=label,
        kind=kind,
        outputs=outputs,
        inputs=inputs,
        alpha_hill=None if hill is None else hill.alpha,
        alpha_hill_low=low,
        alpha_hill_high=high,
        alpha_ks=None if ks is None else ks.alpha,
        alpha_ks_low=low_ks,
        alpha_ks_high=high_ks,
        tail=None if ks is None else ks.tail,
        alpha_noise=None if noise is None else noise.alpha,
        alpha_noise_low=None if noise is None else noise.low,
        alpha_noise_high=None if noise is None else noise.high,
        tail_ratio=ratio,
        tail_ratio_noise=None if noise is None else noise.tail_ratio,
        verdict=verdict,
        spikes=None if bulk is None else bulk.count,
        edge=None if bulk is None else bulk.edge,
        variance=None if bulk is None else bulk.variance,
        largest=float(values[-1]),
        stable_rank=stable_rank(values) if len(positive) else 0.0,
        rank=rank,
        note="; ".join(notes),
        eigenvalues=values,
        xmin={fit.method: fit.xmin for fit in (hill, ks) if fit is not None},
    )


def _interval(fit: PowerLaw | None) -> tuple[float | None, float | None]:
    if fit is None:
        return None, None
    half = Z95 * fit.standard_error
    return fit.alpha - half, fit.alpha + half


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
    """One row a matrix: the numbers of `MatrixSpectrum`, in the vocabulary's order and words."""
    own = {f.name for f in fields(MatrixSpectrum)} - {"eigenvalues", "xmin"}
    columns = [word for word in MEANINGS if word in own or word in ("shape", "over_edge")]
    rows = [[getattr(s, name) for name in columns] for s in spectra]
    frame = pd.DataFrame(rows, columns=columns)
    numbers = [c for c in columns if c.startswith(("alpha", "tail_", "over", "edge", "varia"))]
    whole = dict.fromkeys(("block", "tail", "spikes"), "Int64")
    return frame.astype(whole | dict.fromkeys(numbers, "float64"))


def esd_histogram(spectrum: MatrixSpectrum, *, bins: int = BINS) -> pd.DataFrame:
    """Histogram of log10 of the positive eigenvalues, with the Marchenko-Pastur law beside it.

    Columns: left, right (of log10 λ), density, law (the law's mean density in the bin, of a
    matrix of i.i.d. entries with the bulk's variance; NaN without a bulk). Empty for a zero matrix.
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
    mass = np.full(bins, np.nan)
    if spectrum.variance is not None:
        law = marchenko_pastur(wide / tall, tall * spectrum.variance)
        mass = np.diff(law.cdf(10.0**edges)) / np.diff(edges)
    return pd.DataFrame({"left": edges[:-1], "right": edges[1:], "density": density, "law": mass})
