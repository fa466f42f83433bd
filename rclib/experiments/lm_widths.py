"""One learning rate for all widths: loss against step under MF, μP and SP (beyond paper A).

Under mean field the rows and columns of a language model are samples of one law whatever the
width, so the loss at a step is that of the infinitely wide network plus a sampling error that
falls with N. Runs of one seed see the same batches at every width: what differs is the width
(and the draw of the start).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from rclib import sweep
from rclib.experiments.lm_runs import cost, lm_configuration, train_gpt
from rclib.text import TextData

__all__ = ["loss_curves", "relative_spread", "width_slope"]


def loss_curves(
    data: TextData,
    *,
    widths: Sequence[int],
    lrs: Mapping[str, float],
    seeds: Sequence[int],
    steps: int,
    eval_steps: Sequence[int],
    **options: Any,
) -> pd.DataFrame:
    """Validation losses of every width: parametrization, width, seed, step, loss (nats a token).

    lrs : learning rate by parametrisation, one for all widths. options : of `lm_configuration`
    and `Recipe`. A diverged run has NaN from there on. Raises ValueError for fewer than two
    widths.
    """
    if len(set(widths)) < 2:
        raise ValueError(f"widths must hold at least two different ones, got {list(widths)}")
    keys = [(name, n, seed) for name in lrs for n in widths for seed in seeds]
    configs = [
        lm_configuration(
            width=n,
            seed=seed,
            parametrization=name,
            lr=lrs[name],
            steps=steps,
            eval_steps=tuple(eval_steps),
            **options,
        )
        for name, n, seed in keys
    ]
    runs = sweep.run(
        train_gpt, configs, data=cast(Any, data), cost=cost, description="loss against width"
    )
    rows = [
        {"parametrization": name, "width": n, "seed": seed, "step": int(s), "loss": float(loss)}
        for (name, n, seed), run in zip(keys, runs, strict=True)
        for s, loss in zip(run["eval_steps"], run["eval_loss"], strict=True)
    ]
    return pd.DataFrame(rows)


def relative_spread(curves: pd.DataFrame) -> pd.DataFrame:
    """Range of the losses over the widths, over their mean, by parametrisation, seed and step.

    One row each with `spread`; NaN where a width diverged.
    """
    groups = curves.groupby(["parametrization", "seed", "step"], sort=False)["loss"]
    # A plain max leaves NaN out, and a diverged width would look like agreement.
    spread = groups.agg(lambda x: np.ptp(x.to_numpy()) / np.mean(x.to_numpy()))
    return spread.rename("spread").reset_index()


def width_slope(curves: pd.DataFrame, *, step: int) -> dict[str, float]:
    """How fast widths approach one another, by parametrisation: the log-log slope against N of
    |loss(N) - loss(widest)| / loss(widest) at `step`, root mean square over seeds.

    Raises ValueError for a step that is not in the curves.
    """
    at = curves[curves.step == step]
    if at.empty:
        raise ValueError(f"step must be one of {sorted(set(curves.step))}, got {step}")
    slopes = {}
    for name, group in at.groupby("parametrization", sort=False):
        table = group.pivot_table(index="width", columns="seed", values="loss", dropna=False)
        widest = table.loc[table.index.max()]
        distance = ((table.drop(index=table.index.max()) - widest) / widest).pow(2).mean(axis=1)
        x, y = np.log(distance.index.to_numpy(float)), 0.5 * np.log(distance.to_numpy(float))
        slopes[str(name)] = float(np.polyfit(x, y, 1)[0]) if np.isfinite(y).all() else float("nan")
    return slopes
