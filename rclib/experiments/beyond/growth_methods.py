"""What growing is worth, on equal terms: loss right after, loss at equal compute, compute saved.

Compute is counted as 6 operations for every matrix entry that a sample (a token) meets in a
training step, and 12 L T N more for attention (`rclib.training.lm_loop.flops_per_token`). What the
methods do to weights, the forward passes of a selection and the tests are not counted. Two
accounts, since what is fair depends on where the source comes from:

    own    the steps after growth alone: the source was there anyway;
    all    and the training of the source, or of both, which recombination needs.

`growth_networks` has the runs; the frames here have one row a run and evaluated step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.images import Dataset
from rclib.data.text import VOCABULARY, TextData
from rclib.experiments.beyond.growth_networks import gpt_run, mlp_run
from rclib.experiments.beyond.growth_tasks import evaluations
from rclib.nets.gpt import MLP_RATIO
from rclib.resizing.growing import GROWTH, SHRINKING
from rclib.runs.stacked import sweep_stacked

__all__ = [
    "ACCOUNTS",
    "GPT_NAME",
    "MLP_NAME",
    "at_growth",
    "equal_compute",
    "gpt_operations",
    "mlp_operations",
    "saved",
    "shrunk_rows",
    "summary",
    "sweep_gpts",
    "sweep_mlps",
]

ACCOUNTS = ("own", "all")
MLP_NAME, GPT_NAME = "network", "language model"
SCRATCH, STAYED = "from scratch", "stays small"
_KEYS = ["kind", "parametrization", "seed"]


def mlp_operations(width: int, *, inputs: int, classes: int, batch_size: int) -> float:
    """Operations of one training step of the network with four matrices."""
    return 6.0 * batch_size * (inputs * width + 2 * width**2 + classes * width)


def gpt_operations(width: int, *, blocks: int, context: int, batch_size: int) -> float:
    """Operations of one training step of the language model."""
    entries = (4 + 2 * MLP_RATIO) * blocks * width**2 + VOCABULARY * width
    return float(batch_size * context * (6 * entries + 12 * blocks * context * width))


def sweep_mlps(
    data: Dataset, *, rates: Mapping[str, float], seeds: Sequence[int], group: int, **options: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All runs of the fully connected networks; see `_frames`.

    rates : parametrisation -> learning rate. group : seeds that are computed together. options :
    the plan of `growth_networks` without its methods, and the arguments of `mlp_run`.
    """
    pixels = data.x_train.shape[1] // int(options["pool"]) ** 2
    cost = {
        width: mlp_operations(
            options[width],
            inputs=pixels,
            classes=data.n_classes,
            batch_size=options["batch_size"],
        )
        for width in ("small", "large")
    }
    configs, keys, plan = _configurations(rates, seeds, cost, options)
    runs = sweep_stacked(
        mlp_run, configs, data=data, members=["seed"], group=group, description="networks"
    )
    return _frames(MLP_NAME, keys, runs, plan, cost)


def sweep_gpts(
    data: TextData, *, rates: Mapping[str, float], seeds: Sequence[int], group: int, **options: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All runs of the language models, as `sweep_mlps`; arguments of `gpt_run`."""
    cost = {
        width: gpt_operations(
            options[width],
            blocks=options["blocks"],
            context=options["context"],
            batch_size=options["batch_size"],
        )
        for width in ("small", "large")
    }
    configs, keys, plan = _configurations(rates, seeds, cost, options)
    runs = sweep_stacked(
        gpt_run, configs, data=data, members=["seed"], group=group, description="language models"
    )
    return _frames(GPT_NAME, keys, runs, plan, cost)


_PLAN = ("small", "large", "before", "after", "every")


def _configurations(
    rates: Mapping[str, float],
    seeds: Sequence[int],
    cost: Mapping[str, float],
    options: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], list[tuple[str, int]], dict[str, Any]]:
    plan: dict[str, Any] = {name: int(options[name]) for name in _PLAN}
    # The small network may spend what a grown one spends, its source included.
    more = round(plan["after"] * cost["large"] / cost["small"])
    plan["small_steps"] = plan["before"] + more
    plan |= {"methods": [*GROWTH], "shrinking": [*SHRINKING]}
    rest = {name: value for name, value in options.items() if name not in _PLAN}
    keys = [(name, seed) for name in rates for seed in seeds]
    configs = [
        {"parametrization": name, "lr": float(rates[name]), "seed": int(seed), "plan": plan, **rest}
        for name, seed in keys
    ]
    return configs, keys, plan


def _frames(
    kind: str,
    keys: Sequence[tuple[str, int]],
    runs: Sequence[Mapping[str, np.ndarray]],
    plan: Mapping[str, Any],
    cost: Mapping[str, float],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(curves, growths).

    curves : one row a run and evaluation: kind, parametrization, seed, way ("grown", "shrunk",
    "from scratch" or "stays small"), method, step (after the change), loss, own and all
    (operations). growths : one row a change of width: kind, parametrization, seed, way, method,
    start (test loss of the untrained source), source and loss (before and after), lost, and of
    grown networks changed, rank_before and rank.
    """
    before, after, every = int(plan["before"]), int(plan["after"]), int(plan["every"])
    steps = evaluations(after, every)
    curves: list[dict[str, Any]] = []
    growths: list[dict[str, Any]] = []
    for (name, seed), run in zip(keys, runs, strict=True):
        head = {"kind": kind, "parametrization": name, "seed": seed}
        for way, width, last in (
            (SCRATCH, "large", before + after),
            (STAYED, "small", int(plan["small_steps"])),
        ):
            for step, loss in zip(evaluations(last, every), run[width], strict=True):
                spent = {"own": step * cost[width], "all": step * cost[width]}
                curves.append(
                    {**head, "way": way, "method": way, "step": step, "loss": loss, **spent}
                )
        for way, rows, names, widths in (
            ("grown", "grown", plan["methods"], ("small", "large")),
            ("shrunk", "shrunk", plan["shrinking"], ("large", "small")),
        ):
            source, start = run["at_source"][int(way == "shrunk")], run[widths[0]][0]
            for place, method in enumerate(names):
                sources = GROWTH[method].sources if way == "grown" else 1
                losses = run[rows][place]
                for step, loss in zip(steps, losses, strict=True):
                    own = step * cost[widths[1]]
                    spent = {"own": own, "all": own + sources * before * cost[widths[0]]}
                    curves.append(
                        {**head, "way": way, "method": method, "step": step, "loss": loss, **spent}
                    )
                found = {
                    **head, "way": way, "method": method, "start": start, "source": source,
                    "loss": losses[0], "lost": (losses[0] - source) / (start - source),
                }  # fmt: skip
                if way == "grown":
                    found["changed"] = run["changed"][place]
                    found["rank_before"], found["rank"] = run["rank"][place]
                growths.append(found)
    return pd.DataFrame(curves), pd.DataFrame(growths)


def at_growth(
    growths: pd.DataFrame, method: str, column: str, *, way: str = "grown", **where: str
) -> pd.Series:
    """One column of `growths` by seed, for one method; where : kind, parametrization.

    Raises ValueError unless that leaves one row a seed.
    """
    chosen = growths[(growths.way == way) & (growths.method == method)]
    return _by_seed(chosen, where)[column]


def _by_seed(frame: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    for name, value in where.items():
        frame = frame[frame[name] == value]
    if frame.empty or frame.seed.duplicated().any():
        raise ValueError(f"where must leave one row a seed, got {dict(where)}: {len(frame)} rows")
    return frame.set_index("seed")


def equal_compute(curves: pd.DataFrame, *, account: str) -> pd.DataFrame:
    """What every grown network gains on one trained from scratch that has spent as much.

    One row a kind, parametrisation, seed and method: loss at the end, scratch (loss of the large
    network from scratch at as many operations, between its evaluations on a straight line), gain =
    scratch - loss, and ahead = loss of the small network at as many operations - loss. NaN where
    the others never spend as much (account "own": never). Raises ValueError for another account.
    """
    if account not in ACCOUNTS:
        raise ValueError(f"account must be one of {', '.join(ACCOUNTS)}, got {account!r}")
    rows = []
    for key, part in curves.groupby(_KEYS, sort=False):
        base = {way: part[part.way == way] for way in (SCRATCH, STAYED)}
        for method, grown in part[part.way == "grown"].groupby("method", sort=False):
            end = grown.iloc[-1]
            at = {
                way: _between(frame["all"], frame.loss, end[account]) for way, frame in base.items()
            }
            row = dict(zip(_KEYS, key, strict=True))
            rows.append(
                {
                    **row, "method": method, "loss": end.loss, "scratch": at[SCRATCH],
                    "gain": at[SCRATCH] - end.loss, "ahead": at[STAYED] - end.loss,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _between(x: pd.Series, y: pd.Series, at: float) -> float:
    if at > float(x.iloc[-1]) * (1 + 1e-9):
        return float("nan")
    return float(np.interp(at, x, y))


def saved(curves: pd.DataFrame, *, account: str) -> pd.DataFrame:
    """Share of the compute from scratch that is saved when a grown network is as good.

    One row a kind, parametrisation, seed and method: `saved` = 1 - operations of the grown network
    where it first comes down to the last loss of the large one from scratch, over those of that
    one; NaN if it never does, and `reached` says whether it does. Raises ValueError for an account
    that is none.
    """
    if account not in ACCOUNTS:
        raise ValueError(f"account must be one of {', '.join(ACCOUNTS)}, got {account!r}")
    rows = []
    for key, part in curves.groupby(_KEYS, sort=False):
        scratch = part[part.way == SCRATCH].iloc[-1]
        for method, grown in part[part.way == "grown"].groupby("method", sort=False):
            first = _first(list(grown[account]), list(grown.loss), float(scratch.loss))
            row = dict(zip(_KEYS, key, strict=True))
            share = 1 - first / float(scratch["all"])
            rows.append({**row, "method": method, "saved": share, "reached": not np.isnan(first)})
    return pd.DataFrame(rows)


def _first(x: Sequence[float], losses: Sequence[float], level: float) -> float:
    """First x at which the straight lines between points come down to `level`; NaN if never."""
    if losses[0] <= level:
        return x[0]
    for k in range(1, len(x)):
        if losses[k] <= level:
            share = (losses[k - 1] - level) / (losses[k - 1] - losses[k])
            return x[k - 1] + share * (x[k] - x[k - 1])
    return float("nan")


def summary(curves: pd.DataFrame, growths: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, one row a kind, parametrisation and method of growing: loss right after,
    lost, changed, rank, loss at the end, gain in both accounts, ahead, and compute saved (mean
    over the seeds that reach the level) with the share of seeds that do."""
    keys = ["kind", "parametrization", "method"]
    grown = growths[growths.way == "grown"].groupby(keys, sort=False)
    out = grown[["loss", "lost", "changed", "rank"]].mean().rename(columns={"loss": "at once"})
    for account in ACCOUNTS:
        found = equal_compute(curves, account=account).groupby(keys, sort=False)
        cheaper = saved(curves, account=account).groupby(keys, sort=False)
        if account == "own":
            out["end"] = found.loss.mean()
        else:
            out["ahead"] = found.ahead.mean()
        out[f"gain_{account}"] = found.gain.mean()
        out[f"saved_{account}"] = cheaper.saved.mean()
        out[f"reached_{account}"] = cheaper.reached.mean()
    return out.reset_index()


def shrunk_rows(curves: pd.DataFrame, growths: pd.DataFrame, *, before: int) -> pd.DataFrame:
    """Kind, parametrization, seed, method, lost and end of shrunk networks: the last loss minus
    that of the small one from scratch after as many steps, `before` and those since."""
    rows = []
    for key, part in curves.groupby(_KEYS, sort=False):
        small = part[part.way == STAYED]
        for method, shrunk in part[part.way == "shrunk"].groupby("method", sort=False):
            last = shrunk.iloc[-1]
            same = _between(small.step, small.loss, before + last.step)
            rows.append((*key, method, last.loss - same))
    ends = pd.DataFrame(rows, columns=[*_KEYS, "method", "end"])
    lost = growths[growths.way == "shrunk"][[*_KEYS, "method", "lost"]]
    return lost.merge(ends, on=[*_KEYS, "method"])
