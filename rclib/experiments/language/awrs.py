"""Frames of notebook 92: what adaptive weighted rejection sampling costs and corrects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rclib.data.text import TextData, named_text
from rclib.experiments.language.awrs_runs import (
    ARMS,
    BINS,
    chain_runs,
    exact_runs,
    law_runs,
    link_runs,
)
from rclib.experiments.language.awrs_texts import LISTS, line_runs, word_runs
from rclib.runs import sweep
from rclib.runs.store import Arrays
from rclib.stats.rejection import METHODS

__all__ = [
    "HEAVY",
    "LAWS",
    "chain_frame",
    "exact_frame",
    "histogram_frame",
    "law_cells",
    "law_frame",
    "line_frame",
    "link_frame",
    "over_seeds",
    "word_frame",
    "word_sampled",
]

HEAVY = (2.0, 10, 10)  # exponent, accepted tokens, heaviest ones that are never accepted
LAWS: dict[str, list[float]] = {"exponents": [1.0, 1.5, 2.0], "accepted": [1, 10, 100, 500]}
NAMES = [method if weights == "drawn" else f"{method}, weight 1" for method, weights in ARMS]
LINE_ARMS = [NAMES[0], NAMES[3]]


def exact_frame(seeds: Sequence[int], **settings: Any) -> pd.DataFrame:
    """One row a seed: errors of both estimators' means, mean relative biases of the wrong ones,
    mean standard deviations and checks, and the share of laws in which the recursive form has the
    smaller standard deviation. settings : of `exact_runs`."""
    configs = [{**settings, "seed": seed} for seed in seeds]
    rows = []
    for seed, run in zip(seeds, sweep.run(exact_runs, configs), strict=True):
        sd, checks, bias = run["sd"], run["checks"], run["bias"].mean(0)
        rows.append({
            "seed": seed, "error, two runs": run["error"][0], "error, recursive": run["error"][1],
            "bias, mass alone": bias[0], "bias, first run": bias[1], "bias, put back": bias[2],
            "sd, two runs": sd[:, 0].mean(), "sd, recursive": sd[:, 1].mean(),
            "sd, replacement": sd[:, 2].mean(), "smaller": (sd[:, 1] < sd[:, 0]).mean(),
            "checks, two runs": checks[:, 0].mean(), "checks, recursive": checks[:, 1].mean(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def law_cells() -> list[list[float]]:
    """Cells of `law_runs`: LAWS, and HEAVY."""
    return [*([e, k, 0] for e in LAWS["exponents"] for k in LAWS["accepted"]), list(HEAVY)]


def _law_runs(seeds: Sequence[int], settings: Mapping[str, Any]) -> list[Arrays]:
    configs = [{**settings, "seed": seed} for seed in seeds]
    return list(sweep.run(law_runs, configs, description="laws"))


def law_frame(seeds: Sequence[int], **settings: Any) -> pd.DataFrame:
    """seed, exponent, accepted, heavy, set, z, method, first, checks, and both in closed form.
    settings : of `law_runs`."""
    frames = []
    for seed, run in zip(seeds, _law_runs(seeds, settings), strict=True):
        cells, sets, methods = np.indices(run["counted"].shape[:3]).reshape(3, -1)
        own = np.array(settings["cells"])[cells]
        frames.append(pd.DataFrame({
            "seed": seed, "exponent": own[:, 0], "accepted": own[:, 1].astype(int),
            "heavy": own[:, 2].astype(int), "set": sets, "z": run["z"][cells, sets],
            "method": np.array(METHODS)[methods],
            "first": run["counted"][..., 0].ravel(), "checks": run["counted"][..., 1].ravel(),
            "closed first": run["closed"][..., 0].ravel(), "closed": run["closed"][..., 1].ravel(),
        }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def histogram_frame(seeds: Sequence[int], **settings: Any) -> pd.DataFrame:
    """method, at, share: of w / Z over all draws of the cell `shown`, in BINS."""
    total = np.sum([run["histogram"] for run in _law_runs(seeds, settings)], axis=0)
    frames = [
        pd.DataFrame({"method": method, "at": (BINS[1:] + BINS[:-1]) / 2, "share": row / row.sum()})
        for method, row in zip(METHODS, total, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def over_seeds(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Means of all other columns over the seeds, by the keys."""
    over = frame.drop(columns="seed").groupby(list(keys), sort=False)
    return over.mean().reset_index().round(4)


def _sampled(run: Arrays, arms: Sequence[str], sizes: Sequence[int], **keys: Any) -> pd.DataFrame:
    """arm, size, tv, ratio, and where there are: log_p, dead, first, checks; masked_tv, floor."""
    places = [(a, k) for a in range(len(arms)) for k in range(len(sizes))]
    own: dict[str, Any] = {
        "arm": [arms[a] for a, _ in places],
        "size": [sizes[k] for _, k in places],
    }
    for name in ("tv", "ratio", "log_p", "dead"):
        if name in run:
            own[name] = [run[name][place] for place in places]
    if "checks" in run:
        own["first"] = [run["checks"][place][0] for place in places]
        own["checks"] = [run["checks"][place][1] for place in places]
    for name in ("masked_tv", "floor", "masked_log_p", "target_log_p", "log_mass", "tokens"):
        if name in run and run[name].ndim == 0:
            own[name] = float(run[name])
    return pd.DataFrame({**keys, **own})


def chain_frame(seeds: Sequence[int], *, wide: int, **settings: Any) -> pd.DataFrame:
    """seed, total and the columns of `sampled` by arm and number of particles.

    settings : of `chain_runs`. wide : total of further runs with the largest number of particles,
    for two runs alone.
    """
    further = {**settings, "sizes": [max(settings["sizes"])], "total": wide, "arms": [0]}
    frames = []
    for options in (settings, further):
        configs = [{**options, "seed": seed} for seed in seeds]
        arms = [NAMES[arm] for arm in options["arms"]]
        runs = sweep.run(chain_runs, configs, description="chains")
        for seed, run in zip(seeds, runs, strict=True):
            keys = {"seed": seed, "total": options["total"]}
            frames.append(_sampled(run, arms, options["sizes"], **keys))
    return pd.concat(frames, ignore_index=True)


def link_frame(seeds: Sequence[int], **settings: Any) -> pd.DataFrame:
    """seed, chain and the arrays of `link_runs`."""
    configs = [{**settings, "seed": seed} for seed in seeds]
    frames = [
        pd.DataFrame({"seed": seed, "chain": np.arange(len(run["tv"])), **run})
        for seed, run in zip(seeds, sweep.run(link_runs, configs), strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def line_frame(
    text: TextData, seeds: Sequence[int], tasks: Mapping[str, Mapping[str, Any]], **settings: Any
) -> pd.DataFrame:
    """task, seed, the columns of `sampled`, and "closed <method>": exact mean checks a token.

    tasks : what `line_runs` gets for each; settings : for all. The lines of "brackets" are those of
    the language reference of Python, which has some.
    """
    frames = []
    for task, own in tasks.items():
        options = {**settings, **own}
        configs = [{**options, "task": task, "seed": seed} for seed in seeds]
        runs = sweep.run(
            line_runs,
            configs,
            data=named_text("python") if task == "brackets" else text,
            description=task,
        )
        for seed, run in zip(seeds, runs, strict=True):
            closed = {f"closed {m}": run["closed"][k, 1] for k, m in enumerate(METHODS)}
            keys = {"task": task, "seed": seed, **closed}
            frames.append(_sampled(run, LINE_ARMS, options["sizes"], **keys))
    return pd.concat(frames, ignore_index=True)


def _word_runs(
    text: TextData, seeds: Sequence[int], models: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> dict[tuple[str, int], Arrays]:  # fmt: skip
    keys = [(name, seed) for name in models for seed in seeds]
    configs = [{**settings, "model": dict(models[name]), "seed": seed} for name, seed in keys]
    runs = sweep.run(word_runs, configs, data=text, description="words")
    return dict(zip(keys, runs, strict=True))


def word_frame(
    text: TextData, seeds: Sequence[int], models: Mapping[str, Mapping[str, Any]], **settings: Any
) -> pd.DataFrame:
    """model, seed, loss, list, surprise, masked_tv, masked_log_p, target_log_p, method, first,
    checks. models : name -> `model` of `word_runs`; settings : its others."""
    rows = []
    for (name, seed), run in _word_runs(text, seeds, models, settings).items():
        for l, which in enumerate(LISTS):
            columns = ("surprise", "masked_tv", "masked_log_p", "target_log_p")
            own = {column: float(run[column][l]) for column in columns}
            for m, method in enumerate(METHODS):
                first, checks = run["closed"][l, m]
                rows.append({
                    "model": name, "seed": seed, "loss": float(run["loss"]), "list": which, **own,
                    "method": method, "first": first, "checks": checks,
                })  # fmt: skip
    return pd.DataFrame(rows)


def word_sampled(
    text: TextData, seeds: Sequence[int], models: Mapping[str, Mapping[str, Any]], **settings: Any
) -> pd.DataFrame:
    """model, seed, arm, size, tv, ratio, masked_tv, floor on the natural list."""
    frames = []
    for (name, seed), run in _word_runs(text, seeds, models, settings).items():
        own = {**run, "masked_tv": run["masked_tv"][0]}
        keys = {"model": name, "seed": seed}
        frames.append(_sampled(own, LINE_ARMS, settings["sizes"], **keys))
    return pd.concat(frames, ignore_index=True)
