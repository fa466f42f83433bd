"""Everything that is measured of one checkpoint: spectra, and correlations where axes are known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import pandas as pd

from rclib.checkpoints.opening import Checkpoint, CheckpointError
from rclib.families.layout import Family, FamilyError, Layout, SizesError, base, layout
from rclib.inspection.block_correlations import BlockCorrelations, block_correlations
from rclib.inspection.matrix_correlations import MatrixCorrelation, matrix_correlations
from rclib.inspection.matrix_plan import MatrixPlan, plan_matrices, spectra_layout
from rclib.inspection.matrix_spectra import check_blocks, in_blocks, matrix_spectra
from rclib.inspection.spectrum import MatrixSpectrum, spectra_table
from rclib.inspection.vocabulary import said

__all__ = ["COLUMNS", "Measured", "measured"]

CORRELATION = (
    *("set", "n", "pairs", "correlation", "first", "second"),
    *("expected", "chance", "p_value"),
)
# The table's columns, in the words of `rclib.inspection.vocabulary`.
COLUMNS = (
    *("block", "layer", "matrix", "kind", "shape"),
    *("alpha_hill", "alpha_hill_low", "alpha_hill_high"),
    *("alpha_ks", "alpha_ks_low", "alpha_ks_high", "tail"),
    *("alpha_noise", "alpha_noise_low", "alpha_noise_high"),
    *("tail_ratio", "tail_ratio_noise", "verdict"),
    *("spikes", "over_edge", "stable_rank", "rank"),
    *CORRELATION,
    "note",
)
NO_AXES = (
    "no table of axes fits these names and none can be inferred (`python -m rclib correlations` "
    "says which rows are missing, --axes FILE.yaml takes them)"
)


@dataclass(frozen=True)
class Measured:
    """One checkpoint's measurements.

    of : `weights`, `before`, `after` or `change`; source : its title; axes : what was taken for the
    axes; tensors, nbytes : how many and how large. plans : the matrices, block by block, spectra :
    theirs; correlations : of the blocks, None where there are none; by_layer : of single matrices.
    left_out : {tensor: why it could not be measured}; notes : what else the reader should know.
    """

    of: str
    source: str
    axes: str
    tensors: int
    nbytes: int
    plans: tuple[MatrixPlan, ...]
    spectra: tuple[MatrixSpectrum, ...]
    correlations: BlockCorrelations | None
    by_layer: Mapping[str, MatrixCorrelation] = field(repr=False)
    left_out: Mapping[str, str]
    notes: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """One row a matrix, columns `COLUMNS`."""
        frame = spectra_table(self.spectra)
        rows = [
            [getattr(self.by_layer.get(s.layer), word, None) for word in CORRELATION]
            for s in self.spectra
        ]
        own = pd.DataFrame(rows, columns=list(CORRELATION), index=frame.index)
        numbers = ("correlation", "expected", "chance", "p_value")
        types = dict.fromkeys(numbers, "float64") | {"n": "Int64", "pairs": "Int64"}
        return pd.concat([frame, own.astype(types)], axis=1)[list(COLUMNS)]

    def sentence(self) -> str:
        """How many matrices are heavy-tailed and how many have spikes."""
        return said([s.verdict for s in self.spectra], [s.spikes for s in self.spectra])


def measured(
    checkpoint: Checkpoint,
    of: str = "weights",
    *,
    blocks: Collection[int | None] | None = None,
    family: Family | None = None,
    sizes: Mapping[str, int] | None = None,
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Measured:
    """Measure a checkpoint; one bad tensor is left out by name and does not stop the others.

    blocks : which ones (None: outside the blocks), default all. family, sizes : a table of axes of
    one's own, and sizes that neither shapes nor configuration tell. workers : matrices at a time.
    progress : called with the bytes of every tensor that is done.
    Raises ValueError if there is no matrix and for blocks that are not there, FamilyError for a
    table of one's own that does not fit.
    """
    tensors, config = checkpoint.tensors, checkpoint.config
    found, unknown = spectra_layout(tensors, config, family=family, sizes=sizes)
    plans, _ = plan_matrices(tensors, found, unknown)
    check_blocks(plans, blocks)
    left_out = {n: f"{checkpoint.source}: tensor {n!r} {r}" for n, r in checkpoint.left_out.items()}

    def failed(name: str, error: CheckpointError) -> None:
        left_out.setdefault(name, str(error))

    chosen = in_blocks(plans, blocks)
    spectra = tuple(
        matrix_spectra(checkpoint, plans=chosen, workers=workers, progress=progress, failed=failed)
    )
    if not spectra:
        more = next(iter(left_out.values()), "")
        raise ValueError(
            f"{checkpoint.source}: no matrix to take the spectrum of{'; ' * bool(more)}{more}"
        )
    notes = list(checkpoint.notes)
    described, correlations, by_layer = None, None, {}
    try:
        described = _axes_of(checkpoint, family, sizes, (found, unknown), notes)
        there = None if blocks is None else {b for b in blocks if b in (None, *described.blocks)}
        correlations = block_correlations(
            checkpoint, described, blocks=there, workers=workers, failed=failed
        )
        by_layer = matrix_correlations(correlations, described)
    except (FamilyError, CheckpointError) as error:
        why = NO_AXES if str(error).startswith("unknown layout") and family is None else str(error)
        notes.append(f"no correlations: {why}")
    except ValueError as error:  # nothing to compare
        notes.append(f"no correlations: {str(error).removeprefix(f'{checkpoint.source}: ')}")
    return Measured(
        of=of,
        source=checkpoint.source,
        axes=_axes(described if described is not None else found),
        tensors=len(tensors),
        nbytes=checkpoint.nbytes,
        plans=tuple(chosen),
        spectra=spectra,
        correlations=correlations,
        by_layer=by_layer,
        left_out=left_out,
        notes=tuple(notes),
    )


def _axes_of(
    checkpoint: Checkpoint,
    family: Family | None,
    sizes: Mapping[str, int] | None,
    spectra: tuple[Layout | None, frozenset[str]],
    notes: list[str],
) -> Layout:
    """The layout that correlations take. Where only the number of heads is missing, all other sets
    are compared, unless the parts of a fused matrix depend on it."""
    try:
        return layout(
            checkpoint.tensors, checkpoint.config, family=family, sizes=sizes, partial=True
        )
    except SizesError as error:
        found, unknown = spectra
        if (
            found is None
            or not unknown
            or any(
                axis.parts and {base(i) for i in axis.lead} & unknown
                for weight in found.weights.values()
                for axis in weight.axes.axes
            )
        ):
            raise
        given = ", ".join(sorted(error.indices))
        notes.append(
            f"no correlations over {given}: its number is not known (--size {given}=NUMBER)"
        )
        sets = {n: s for n, s in found.sets.items() if set(s) != unknown}
        return replace(found, sets=sets)


def _axes(found: Layout | None) -> str:
    if found is None:
        return "told by names and shapes"
    if found.inferred:
        return "axes inferred from names and shapes (a guess)"
    return f"layout {found.family}"
