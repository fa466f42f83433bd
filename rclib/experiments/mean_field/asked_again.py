"""Questions of Figures 4.3 and six that three seeds left open, asked again of fresh seeds.

Only what a question needs is run: sources, what becomes of them at another width, and (for what
stays ahead) the training after it. One value a seed, so that the claims can be looked at after more
and more of them (`rclib.stats.sequential`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from rclib.data.images import Dataset
from rclib.data.text import TextData
from rclib.experiments.mean_field.figure_4_3 import pooled_exponent, source
from rclib.experiments.mean_field.growth_runs import resized_cost, resized_run
from rclib.experiments.mean_field.lm_runs import (
    Arrays,
    cost,
    lm_configuration,
    losses_at,
    restore_gpt,
    train_gpt,
)
from rclib.experiments.mean_field.mlp_runs import runs_needed, train_mlp, zero_shot
from rclib.resizing.methods import change_width
from rclib.runs import store, sweep
from rclib.training.lm_loop import evaluate_lm

__all__ = [
    "BROKEN",
    "SAMPLING",
    "TINY",
    "exponent_at",
    "gap_frame",
    "lost_by_seed",
    "lost_frame",
    "resized_losses",
    "trained_on",
    "values_frame",
]

SAMPLING = "RC sampling"
BROKEN = "RC sampling, r1 = 1"

# Tiny arguments of the stored function, for the tests.
TINY: dict[str, dict[str, Any]] = {
    "resized_losses": {
        "source": lm_configuration(
            width=16, steps=2, lr=0.01, context=8, batch_size=2, eval_steps=[0, 2],
            snapshot_steps=[2],
        ),
        "step": 2,
        "width": 32,
        "methods": [SAMPLING, BROKEN],
        "draws": 2,
    }
}  # fmt: skip


def resized_losses(
    data: TextData,
    *,
    source: Mapping[str, Any],
    step: int,
    width: int,
    methods: Sequence[str],
    draws: int,
) -> Arrays:
    """Validation losses of a `train_gpt` run right after changes of its width, without training.

    Returns `loss` (methods, draws): each draw has a seed of its own, the same for all methods, and
    `source_loss`, that of the run after `step`, on the same windows. Raises ValueError where the
    run kept no snapshot of that step or did not evaluate it.
    """
    run = store.fetch(train_gpt, source, data=data)
    model, _ = restore_gpt(run, source["network"], step=step)
    recipe, seed = source["recipe"], int(source["network"]["seed"])
    windows = {"context": source["network"]["context"], "batch_size": recipe["batch_size"]}
    windows |= {"batches": recipe["eval_batches"]} if "eval_batches" in recipe else {}
    found = np.zeros((len(methods), draws))
    with torch.no_grad():
        for at in np.ndindex(*found.shape):
            moved = change_width(model, width, method=methods[at[0]], seed=seed + 10_000 * at[1])
            found[at] = evaluate_lm(moved.model, data, **windows)
    return {"loss": found, "source_loss": np.asarray(losses_at(run, [step])[0])}


def _source_run(config: Mapping[str, Any]) -> list[sweep.Need]:
    return [(train_gpt, config["source"])]


def _kept(width: int, seed: int, step: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """A language model trained up to the change of its width and kept whole there."""
    return lm_configuration(
        width=width,
        seed=seed,
        steps=step,
        eval_steps=[0, step],
        snapshot_steps=[step],
        snapshot_moments=True,
        **options,
    )


def lost_frame(
    data: TextData,
    *,
    width: int,
    to_width: int,
    step: int,
    methods: Sequence[str],
    draws: int,
    seeds: Sequence[int],
    floor: float,
    **options: Any,
) -> pd.DataFrame:
    """What a change of width loses before any training: one row a method, seed and draw.

    floor : loss of a model that reads no context (`growth_tables.byte_frequency_loss`); options :
    of `lm_configuration`. Columns name, width (the new one), seed, draw, source_loss, loss, `lost`
    = (loss - source_loss) / (floor - source_loss), as in `growth_tables.lost_table`.
    """
    sources = [_kept(width, seed, step, options) for seed in seeds]
    sweep.run(train_gpt, sources, data=data, cost=cost, description=f"sources, N = {width}")
    common = {"step": step, "width": to_width, "methods": list(methods), "draws": draws}
    runs = sweep.run(
        resized_losses,
        [{"source": config, **common} for config in sources],
        data=data,
        description=f"{width} → {to_width}",
        needs=_source_run,
    )
    rows = []
    for seed, run in zip(seeds, runs, strict=True):
        reached = float(run["source_loss"])
        for i, name in enumerate(methods):
            for draw, loss in enumerate(map(float, run["loss"][i])):
                lost = (loss - reached) / (floor - reached)
                rows.append((name, to_width, seed, draw, reached, loss, lost))
    columns = ["name", "width", "seed", "draw", "source_loss", "loss", "lost"]
    return pd.DataFrame(rows, columns=columns)


def lost_by_seed(frame: pd.DataFrame, name: str) -> pd.Series:
    """Mean over draws of what a method loses, by seed. Raises ValueError for a method that the
    frame does not have."""
    rows = frame[frame.name == name]
    if rows.empty:
        raise ValueError(f"name must be one of {sorted(set(frame.name))}, got {name!r}")
    return rows.groupby("seed", sort=False).lost.mean()


def trained_on(
    data: TextData,
    *,
    width: int,
    to_width: int,
    small: int,
    step: int,
    last: int,
    methods: Sequence[str],
    seeds: Sequence[int],
    **options: Any,
) -> pd.DataFrame:
    """Validation losses after `last` steps of networks whose width changed after `step`, and of one
    trained at width `small` from the start, on the same batches.

    Columns: one a method, `small`; index seed. Adam's means move along; options : of
    `lm_configuration`.
    """
    natives = [
        lm_configuration(width=small, seed=seed, steps=last, eval_steps=[0, last], **options)
        for seed in seeds
    ]
    scratch = sweep.run(train_gpt, natives, data=data, cost=cost, description=f"N = {small}")
    keys = [(method, seed) for method in methods for seed in seeds]
    configs = []
    for method, seed in keys:
        kept = _kept(width, seed, step, options)
        later = {"first_step": step, "steps": last, "warmup": 0, "eval_steps": [step, last]}
        later |= {"snapshot_steps": [], "snapshot_moments": False}
        moved = {"source": kept, "width": to_width, "method": method, "moments": True}
        configs.append(moved | {"recipe": kept["recipe"] | later})
    runs = sweep.run(
        resized_run,
        configs,
        data=data,
        cost=resized_cost,
        description=f"{width} → {to_width}, trained on",
        needs=_source_run,
    )
    found = {"small": [float(losses_at(run, [last])[0]) for run in scratch]}
    for (method, _), run in zip(keys, runs, strict=True):
        found.setdefault(method, []).append(float(losses_at(run, [last])[0]))
    return pd.DataFrame(found, index=pd.Index(seeds, name="seed"))


def gap_frame(
    data: Dataset,
    *,
    source_widths: Sequence[int],
    target_widths: Sequence[int],
    transfer_epoch: int,
    draws: int,
    seeds: Sequence[int],
    **options: Any,
) -> pd.DataFrame:
    """Test loss right after a transfer minus the source's: one row a source, target and seed.

    Sources are trained up to the transfer; options : of `mlp_runs.configuration`. Columns source,
    target, seed, gap (mean over draws).
    """
    keys = [(n, s) for s in seeds for n in source_widths]
    trained = [
        source(width=n, seed=s, epochs=transfer_epoch, transfer_epoch=transfer_epoch, **options)
        for n, s in keys
    ]
    sweep.run(train_mlp, trained, data=data, cost=_width, description="sources")
    base = {"epoch": transfer_epoch, "draws": draws, "widths": list(target_widths)}
    runs = sweep.run(
        zero_shot,
        [{"source": config, **base} for config in trained],
        data=data,
        description="target widths",
        needs=runs_needed,
    )
    rows = [
        (n, target, s, float(run["loss"][i, 0, 0].mean() - run["source_loss"]))
        for (n, s), run in zip(keys, runs, strict=True)
        for i, target in enumerate(target_widths)
    ]
    return pd.DataFrame(rows, columns=["source", "target", "seed", "gap"])


def _width(config: Mapping[str, Any]) -> float:
    return float(config["network"]["width"])


def exponent_at(
    frame: pd.DataFrame, seeds: Sequence[int]
) -> Callable[[int, float], tuple[float, float, float]]:
    """The exponent of the mean gap in the target width for a claim under the sequential rule.

    Returns (n, level) -> value, low and high from the first n of `seeds`
    (`figure_4_3.pooled_exponent`). Raises ValueError for a seed that the frame does not have.
    """
    missing = sorted(set(seeds) - set(frame.seed))
    if missing:
        raise ValueError(f"frame has no seeds {missing}")

    def estimate(n: int, level: float) -> tuple[float, float, float]:
        first = frame[frame.seed.isin(list(seeds)[:n])]
        return pooled_exponent(first, x="target", y="gap", level=level)

    return estimate


def values_frame(values: Mapping[str, pd.Series], criteria: Sequence[str]) -> pd.DataFrame:
    """Values by seed of several questions, one row each: question, seed, value, criterion."""
    frames = [
        pd.DataFrame(
            {"question": name, "seed": found.index, "value": found.values, "criterion": criterion}
        )
        for (name, found), criterion in zip(values.items(), criteria, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)
