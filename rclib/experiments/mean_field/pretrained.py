"""Figure 4.4 on two pretrained models: correlations, row-column shares and spectra by block.

Each model is looked at in three states: as trained; with the entries of every matrix in random
order, which keeps all values and destroys rows and columns (control); and as a fresh model of the
same architecture, i.i.d. Gaussian entries. Correlations, shares and the ratio of the largest
eigenvalue to the bulk's edge do not depend on the scale of a matrix, so neither does the fresh
state on its standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pandas as pd
import torch
from torch import Tensor

from rclib.checkpoints.gguf_llama import as_llama, is_gguf_llama
from rclib.checkpoints.opening import Checkpoint, open_checkpoint
from rclib.data.images import DataError
from rclib.data.packaged_models import PACKAGED, packaged_path
from rclib.families.layout import Layout, layout
from rclib.inspection.block_correlations import block_correlations
from rclib.inspection.matrix_spectra import matrix_spectra
from rclib.rowcolumn.measure import row_column_share

__all__ = [
    "FRESH",
    "PERMUTED",
    "STATES",
    "TRAINED",
    "control_table",
    "correlation_table",
    "installed",
    "opened",
    "over_seeds",
    "shares_above",
    "state_of",
    "stream_ratios",
    "structure_table",
]

TRAINED, PERMUTED, FRESH = "trained", "entries permuted", "own initialisation"
STATES = (TRAINED, PERMUTED, FRESH)
BIASED = "trained, gains and biases too"


def installed(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(models that are there, {the others: reason})."""
    there, reasons = [], {}
    for name in names:
        try:
            packaged_path(name)
            there.append(name)
        except DataError as error:
            reasons[name] = str(error)
    return there, reasons


@contextmanager
def opened(name: str) -> Iterator[tuple[Checkpoint, Layout]]:
    """A packaged model under transformers' names, and its layout. Raises DataError if it is not
    installed, CheckpointError if its weights cannot be read."""
    with open_checkpoint(packaged_path(name)) as found:
        checkpoint = as_llama(found) if is_gguf_llama(found) else found
        yield checkpoint, layout(checkpoint.tensors, checkpoint.config)


def state_of(
    checkpoint: Checkpoint, described: Layout, state: str, *, seed: int = 0
) -> dict[str, Tensor]:
    """The tensors of the blocks in one of `STATES`, float32; gains and biases as trained.

    Raises ValueError for an unknown state.
    """
    if state not in STATES:
        raise ValueError(f"state must be one of {', '.join(STATES)}, got {state!r}")
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    for name, weight in described.weights.items():
        if weight.block is None:
            continue
        tensor = checkpoint.tensor(name).float()
        if tensor.ndim == 2 and state == PERMUTED:
            order = torch.randperm(tensor.numel(), generator=generator)
            tensor = tensor.flatten()[order].view(tensor.shape)
        elif tensor.ndim == 2 and state == FRESH:
            tensor = torch.randn(tensor.shape, generator=generator)
        found[name] = tensor
    return found


def correlation_table(names: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """The largest correlations of every block: model, state, seed, then the columns of
    `BlockCorrelations.table`.

    Means alone in every state, as in the paper's caption; the trained ones once more with gains
    and biases as vectors of their own. What is drawn is drawn once a seed.
    """
    frames = []
    for name in names:
        with opened(name) as (checkpoint, described):
            tensors = state_of(checkpoint, described, TRAINED)
            frames.append(_correlations(tensors, described, name, TRAINED, seeds[0]))
            frames += _controls(checkpoint, described, name, seeds)
            frames.append(_correlations(tensors, described, name, BIASED, seeds[0], biases=True))
    return pd.concat(frames, ignore_index=True)


def control_table(names: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """The rows of `correlation_table` for the two controls alone: entries permuted, own
    initialisation. Raises as `opened`."""
    frames = []
    for name in names:
        with opened(name) as (checkpoint, described):
            frames += _controls(checkpoint, described, name, seeds)
    return pd.concat(frames, ignore_index=True)


def _controls(
    checkpoint: Checkpoint, described: Layout, name: str, seeds: Sequence[int]
) -> list[pd.DataFrame]:
    return [
        _correlations(
            state_of(checkpoint, described, state, seed=seed), described, name, state, seed
        )
        for state in (PERMUTED, FRESH)
        for seed in seeds
    ]


def _correlations(
    tensors: Mapping[str, Tensor],
    described: Layout,
    name: str,
    state: str,
    seed: int,
    *,
    biases: bool = False,
) -> pd.DataFrame:
    blocks = described.blocks
    with open_checkpoint(tensors) as checkpoint:
        table = block_correlations(checkpoint, described, blocks=blocks, biases=biases).table()
    table.insert(0, "seed", seed)
    table.insert(0, "state", state)
    table.insert(0, "model", PACKAGED[name].title)
    return table


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """What a figure shows of `correlation_table`: model, state, block, set, then value (median over
    the seeds), low, high (their range) and chance."""
    by = table.groupby(["model", "state", "block", "set"], sort=False)
    found = by.agg(
        value=("value", "median"), low=("value", "min"), high=("value", "max"),
        chance=("chance", "first"),
    )  # fmt: skip
    return found.reset_index()


def structure_table(names: Sequence[str], *, seed: int) -> pd.DataFrame:
    """Row-column share and spectrum of every matrix of the blocks, in every state.

    Columns: model, state, block, matrix, share (of the variance that row and column means
    explain), share_over_chance, alpha (Hill), top_over_edge (largest eigenvalue over the edge of
    the Marchenko-Pastur bulk), stable_rank.
    """
    rows = []
    for name in names:
        with opened(name) as (checkpoint, described):
            for state in STATES:
                tensors = state_of(checkpoint, described, state, seed=seed)
                matrices = {n: t for n, t in tensors.items() if t.ndim == 2}
                shares = {n: row_column_share(t) for n, t in matrices.items()}
                with open_checkpoint(matrices) as own:
                    for found in matrix_spectra(own, layout(matrices, checkpoint.config)):
                        share = shares[found.layer]
                        rows.append(
                            (
                                PACKAGED[name].title, state, found.block, found.matrix,
                                share.value, share.value / share.chance, found.alpha_hill,
                                found.largest / (found.edge or float("nan")), found.stable_rank,
                            )
                        )  # fmt: skip
    return pd.DataFrame(
        rows,
        columns=[
            "model", "state", "block", "matrix", "share", "share_over_chance", "alpha",
            "top_over_edge", "stable_rank",
        ],
    )  # fmt: skip


def stream_ratios(table: pd.DataFrame, name: str, state: str = TRAINED) -> pd.Series[float]:
    """Largest |correlation| over the stream divided by its 95 percent level, one a block, of one
    packaged model. Raises ValueError when the table does not have it."""
    chosen = table[
        (table.model == PACKAGED[name].title) & (table.state == state) & (table.set == "stream")
    ]
    if chosen.empty:
        raise ValueError(f"the table has no blocks of {name!r}, {state}")
    return (chosen.value / chosen.chance).set_axis(chosen.block)


def shares_above(table: pd.DataFrame, state: str) -> pd.Series[float]:
    """Share of the tests (model, block, index set) above their 95 percent level, one a seed."""
    chosen = table[table.state == state]
    return (chosen.value > chosen.chance).groupby(chosen.seed).mean()
