"""Figure 4.4: the largest correlation between the mean vectors of each block of a language model.

Two kinds of models: checkpoints that people have, read from a list of sources, and small models
trained here, seen at steps of their training from the start on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from rclib.checkpoints.opening import open_checkpoint
from rclib.data.images import Dataset
from rclib.experiments.mean_field.lm_runs import (
    Arrays,
    cost,
    lm_configuration,
    losses_at,
    restore_gpt,
    train_gpt,
)
from rclib.families.layout import Layout, layout
from rclib.inspection.block_correlations import BlockCorrelations, block_correlations
from rclib.nets.gpt import GPT, build_gpt
from rclib.runs import sweep

__all__ = [
    "block_matrices",
    "correlations_of",
    "measure_sources",
    "over_chance",
    "p_value_curve",
    "shares_above",
    "train_all",
    "trained_table",
    "untrained_table",
]

# {(variant, seed): (configuration, run)}
Runs = dict[tuple[str, int], tuple[dict[str, Any], Arrays]]
STREAM = "stream"


def correlations_of(model: GPT) -> BlockCorrelations:
    """The measure of a model in memory."""
    with open_checkpoint(model) as checkpoint:
        shapes = {name: tuple(t.shape) for name, t in checkpoint.tensors.items()}
        return block_correlations(checkpoint, _described(tuple(shapes.items())))


@functools.cache
def _described(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Layout:
    """The layout of tensors of these shapes, once: a hundred models have the same."""
    return layout({name: torch.empty(shape, device="meta") for name, shape in shapes})


def train_all(
    data: Dataset,
    *,
    variants: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    snapshots: Sequence[int],
    **common: Any,
) -> tuple[Runs, pd.DataFrame]:
    """Train every variant and seed.

    variants : name -> arguments of `lm_configuration` that are its own; common : those of all.
    snapshots : steps to look at, the last ends the run. Returns the runs and the validation
    losses: variant, seed, step, loss (nats per token).
    """
    steps = sorted({0, *snapshots})
    keys = [(name, seed) for name in variants for seed in seeds]
    settings = {"steps": steps[-1], "eval_steps": steps, "snapshot_steps": steps, **common}
    configs = [lm_configuration(seed=seed, **{**settings, **variants[name]}) for name, seed in keys]
    found = sweep.run(train_gpt, configs, data=data, cost=cost, description="training")
    runs = {key: (c, run) for key, c, run in zip(keys, configs, found, strict=True)}
    losses = [
        (*key, step, loss)
        for key, run in zip(keys, found, strict=True)
        for step, loss in zip(steps, losses_at(run, steps), strict=True)
    ]
    frame = pd.DataFrame(losses, columns=["variant", "seed", "step", "loss"])
    return runs, frame


def trained_table(runs: Runs) -> pd.DataFrame:
    """The table of `BlockCorrelations` for every run and kept step.

    Columns: variant, seed, step, then those of `BlockCorrelations.table`.
    """
    frames = []
    for (variant, seed), (config, run) in runs.items():
        for step in config["recipe"]["snapshot_steps"]:
            model, _ = restore_gpt(run, config["network"], step=step)
            table = correlations_of(model).table()
            frames.append(_with(table, variant=variant, seed=seed, step=step))
    return pd.concat(frames, ignore_index=True)


def untrained_table(runs: Runs, *, count: int) -> pd.DataFrame:
    """The same for fresh models of the first run's shape that nobody trained.

    count : seeds 10,000, 10,001, ..., none of which a training run uses. Columns: seed, then
    those of `BlockCorrelations.table`. All matrices are i.i.d.; the output matrix, zero at the
    start of a run, is drawn too.
    """
    config, _ = next(iter(runs.values()))
    laws = {layer: {"kind": "gaussian"} for layer in ("input", "hidden", "output")}
    frames = []
    for seed in range(10_000, 10_000 + count):
        model = build_gpt({**config["network"], "init": laws, "seed": seed})
        frames.append(_with(correlations_of(model).table(), seed=seed))
    return pd.concat(frames, ignore_index=True)


def _with(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    for i, (name, value) in enumerate(columns.items()):
        table.insert(i, name, value)
    return table


def shares_above(table: pd.DataFrame) -> pd.Series[float]:
    """Share of the rows above their own 95 percent level of chance, one a seed."""
    return (table.value > table.chance).groupby(table.seed).mean()


def over_chance(table: pd.DataFrame, *, name: str = STREAM) -> float:
    """Smallest over the blocks of (largest |correlation|) / (95 percent level), one index set.

    Above 1 every block has a pair of vectors that chance does not explain. Raises ValueError
    when the table has no block with this set.
    """
    chosen = table[(table.set == name) & table.block.notna()]
    if chosen.empty:
        raise ValueError(f"the table has no block with the set {name!r}")
    return float((chosen.value / chosen.chance).min())


def p_value_curve(tables: Mapping[str, pd.DataFrame], *, points: int = 600) -> pd.DataFrame:
    """How many rows have a p-value below p: group, p, share. Independent vectors: share = p.

    points : of more rows as many, evenly spaced in their order, the first and the last among them.
    """
    frames = []
    for name, table in tables.items():
        p = np.sort(table.p_value.to_numpy())
        share = np.arange(1, len(p) + 1) / len(p)
        kept = np.unique(np.linspace(0, len(p) - 1, min(len(p), points)).round().astype(int))
        frames.append(pd.DataFrame({"group": name, "p": p[kept], "share": share[kept]}))
    return pd.concat(frames, ignore_index=True)


def block_matrices(
    runs: Runs, *, variant: str, seed: int, step: int, block: int
) -> dict[str, tuple[tuple[str, ...], np.ndarray, float]]:
    """Correlation matrices of one block of one run: set -> (labels, matrix, chance level)."""
    config, run = runs[variant, seed]
    model, _ = restore_gpt(run, config["network"], step=step)
    return {
        row.set: (row.found.labels, row.found.matrix.numpy(), row.chance)
        for row in correlations_of(model).rows
        if row.block == block
    }


def measure_sources(sources: Sequence[str]) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """The table of every checkpoint that can be read, and for the others the reason.

    sources : what `open_checkpoint` takes. Nothing stops at a source that is out of reach.
    """
    tables: dict[str, pd.DataFrame] = {}
    reasons: dict[str, str] = {}
    for source in sources:
        try:
            with open_checkpoint(source) as checkpoint:
                described = layout(checkpoint.tensors, checkpoint.config)
                tables[source] = block_correlations(checkpoint, described).table()
        except ValueError as error:  # CheckpointError and FamilyError among them
            reasons[source] = re.sub(r"https?://\S+", "the hub", str(error))
    return tables, reasons
