"""What the runs of `rclib.experiments.mean_field.growth` say: tables and rows behind figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch

from rclib.data.text import VOCABULARY, TextData
from rclib.experiments.mean_field.growth import Plan
from rclib.resizing.methods import METHODS

__all__ = [
    "after_step",
    "byte_frequency_loss",
    "chosen",
    "ends",
    "final",
    "growth_frames",
    "lost_table",
    "method_frames",
    "reached_at",
    "savings_table",
]


def byte_frequency_loss(data: TextData, *, context: int, batches: int, batch_size: int) -> float:
    """Loss (nats per token), on the validation windows of the runs, of always predicting the
    byte frequencies of the training part: what a model reaches that reads no context."""
    counts = torch.bincount(data.train.int(), minlength=VOCABULARY).double() + 0.5
    loss = -(counts / counts.sum()).log()
    windows = data.validation_batches(batches, batch_size=batch_size, context=context)
    return float(torch.stack([loss[w[:, 1:]].mean() for w in windows]).mean())


def after_step(frame: pd.DataFrame, step: int) -> pd.Series:
    """Loss by seed of the rows of one run (and each seed) at a step.

    Raises ValueError for a step that was not evaluated or rows of several runs.
    """
    rows = frame[frame.step == step]
    if rows.empty:
        raise ValueError(f"step must have been evaluated, got {step}")
    if rows.seed.duplicated().any():
        raise ValueError(f"frame must hold one run a seed, got {sorted(set(rows.name))}")
    return rows.set_index("seed").loss


def final(frame: pd.DataFrame) -> pd.Series:
    """Loss by seed at the last step of the rows of one run. Raises ValueError as `after_step`."""
    return after_step(frame, int(frame.step.max()))


def chosen(frame: pd.DataFrame, name: str, *, width: int, at: int) -> pd.DataFrame:
    """The rows of one run, whose width is `width` since step `at`, by seed.

    Raises ValueError for a run that the frame does not have."""
    rows = frame[(frame.name == name) & (frame.width == width) & (frame["at"] == at)]
    if rows.empty:
        raise ValueError(f"frame has no {name!r} of width {width} from step {at}")
    return rows.set_index("seed")


def ends(curves: pd.DataFrame, step: int, *, width: int, at: int) -> dict[str, pd.Series]:
    """Loss by seed after a step, by name, of the runs whose width is `width` since step `at`; those
    that were not followed so far are left out.

    Raises ValueError where that leaves none, and for several runs of one name and seed."""
    rows = curves[(curves.width == width) & (curves["at"] == at) & (curves.step == step)]
    if rows.empty:
        raise ValueError(f"no run of width {width} from step {at} was evaluated after step {step}")
    return {str(name): after_step(group, step) for name, group in rows.groupby("name", sort=False)}


def lost_table(curves: pd.DataFrame, *, floor: float) -> pd.DataFrame:
    """What each change of width loses before any training.

    floor : loss of a model that reads no context. Columns name, width, at, seed, source_loss,
    loss (right after), `lost` = (loss - source_loss) / (floor - source_loss): 0 keeps all that
    was learned beyond byte frequencies, 1 nothing; more than 1 is worse than frequencies.
    """
    natives = curves[curves.method == "from scratch"].set_index(["width", "seed", "step"]).loss
    small, large = sorted(curves.width.unique())
    rows = []
    # How Adam goes on makes no difference before the first step.
    changed = curves[(curves["at"] > 0) & curves.moments]
    for (name, width, at, seed), group in changed.groupby(
        ["name", "width", "at", "seed"], sort=False
    ):
        source = float(natives[small if width == large else large, seed, at])
        loss = float(group[group.step == at].loss.iloc[0])
        rows.append((name, width, at, seed, source, loss, (loss - source) / (floor - source)))
    columns = ["name", "width", "at", "seed", "source_loss", "loss", "lost"]
    return pd.DataFrame(rows, columns=columns)


def reached_at(x: Sequence[float], losses: Sequence[float], level: float) -> float:
    """First x at which a curve comes down to `level`, between points on a straight line; NaN if
    it never does. x ascends; the first point counts if it is there already."""
    before = math.nan
    for i, loss in enumerate(losses):
        if loss <= level:
            if i == 0:
                return float(x[0])
            return float(x[i - 1] + (x[i] - x[i - 1]) * (before - level) / (before - loss))
        before = loss
    return math.nan


def savings_table(curves: pd.DataFrame, *, width: int) -> pd.DataFrame:
    """Compute to reach the last validation loss of the run of `width` from scratch, by seed.

    One row a run (of either width) and seed: `final` loss, `gap` = final minus that of the run
    from scratch, `share` = operations until its loss is reached over those of the whole run from
    scratch, the source's steps included (NaN if it was not reached), `saved` = 1 - share, and
    `spent`, the run's own operations over those of the run from scratch.
    """
    whole = curves[(curves.method == "from scratch") & (curves.width == width)]
    level, budget = final(whole), float(whole.flops.max())
    rows = []
    # The width too: growing and shrinking arms bear the same names.
    for (name, to, at, seed), group in curves.groupby(["name", "width", "at", "seed"], sort=False):
        run = group.sort_values("step")
        share = reached_at(list(run.flops), list(run.loss), float(level[seed])) / budget
        last = float(run.loss.iloc[-1])
        spent = float(run.flops.iloc[-1]) / budget
        gap = last - float(level[seed])
        rows.append((name, to, at, seed, last, gap, share, 1 - share, spent))
    columns = ["name", "width", "at", "seed", "final", "gap", "share", "saved", "spent"]
    return pd.DataFrame(rows, columns=columns)


def growth_frames(curves: pd.DataFrame, plan: Plan) -> dict[str, pd.DataFrame]:
    """Rows of the sixth figure by panel, with the names of its legend.

    `own` : operations of the network itself, for a shrunk one since the change (its source has
    spent ten times as many before).
    """
    scratch = curves[(curves.method == "from scratch") & (curves.step <= plan.steps)]
    changed = curves[(curves["at"] > 0) & curves.moments]
    grown = changed[(changed.width == plan.large) & (changed.method == METHODS[0])]
    grown = grown.assign(name=[f"grown by RC sampling at {at}" for at in grown["at"]])
    shrunk = changed[changed.width == plan.small]
    shrunk = shrunk.assign(
        name=["a subset of the neurons" if m == "duplication" else m for m in shrunk.method]
    )
    scratch, grown = scratch.assign(own=scratch.flops), grown.assign(own=grown.flops)
    before = shrunk.groupby(["name", "seed"]).flops.transform("min")
    shrunk = shrunk.assign(own=shrunk.flops - before)
    return {
        f"growing, N = {plan.small} → {plan.large}": pd.concat([scratch, grown]),
        f"shrinking, N = {plan.large} → {plan.small}": pd.concat([scratch, shrunk]),
    }


def method_frames(
    curves: pd.DataFrame, plan: Plan, *, at: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Growth at one step by all methods, as
    `rclib.experiments.mean_field.plots_growth.method_panels` draws it.

    Returns rows with `since` (steps since the change) among the first steps, with `gap` (loss
    minus that of the run of the large width from scratch at the same step and seed), and the
    first again for the runs that differ in what becomes of Adam's means.
    """
    grown = curves[(curves["at"] == at) & (curves.width == plan.large)]
    grown = grown.assign(since=grown.step - at)
    soon = grown[grown.since.isin(plan.first)]
    state = soon[soon.method == METHODS[0]]
    native = curves[curves.name == f"N = {plan.large} from scratch"][["seed", "step", "loss"]]
    gap = grown[grown.moments].merge(native, on=["seed", "step"], suffixes=("", "_scratch"))
    return soon[soon.moments], gap.assign(gap=gap.loss - gap.loss_scratch), state
