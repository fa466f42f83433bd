"""The stored run of paper A's sixth figure: a language model whose width changes in mid-training.

`rclib.experiments.mean_field.growth` plans such runs, `growth_tables` reads them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rclib import paths
from rclib.data.text import TextData
from rclib.experiments.mean_field.lm_runs import Arrays, cost, restore_gpt, run_gpt, train_gpt
from rclib.resizing.methods import change_width, copy_spread
from rclib.runs import store
from rclib.training.lm_recipe import Recipe

__all__ = ["resized_cost", "resized_run"]


def resized_run(
    data: TextData,
    *,
    source: Mapping[str, Any],
    width: int,
    method: str,
    moments: bool,
    recipe: Mapping[str, Any],
) -> Arrays:
    """Change the width of a `train_gpt` run after `recipe["first_step"]` steps and train on.

    Returns the arrays of `rclib.experiments.mean_field.lm_runs.arrays_of` and `copy_spread`, how
    far the embeddings of copies of one neuron are apart at the end
    (`rclib.resizing.methods.copy_spread`, NaN where there are none). The validation loss of the
    first step is the zero-shot one. Raises ValueError if Adam's means are asked for and the source
    run kept none.
    """
    config = {"source": source, "width": width, "method": method, "moments": moments}
    key = store.run_key(resized_run, config | {"recipe": recipe}, data=data)
    run = store.fetch(train_gpt, source, data=data)
    model, means = restore_gpt(run, source["network"], step=recipe["first_step"])
    del run
    if moments and not means:
        raise ValueError("the source run kept no Adam means (snapshot_moments)")
    resized = change_width(
        model,
        width,
        method=method,
        moments=means if moments else None,
        seed=int(source["network"]["seed"]),
    )
    out = run_gpt(
        resized.model,
        data,
        Recipe(**recipe),
        paths.cache_dir() / "unfinished" / key,
        moments=resized.moments or None,
    )
    spread = copy_spread(resized.model, resized.maps) if resized.maps else math.nan
    return out | {"copy_spread": np.asarray(spread)}


def resized_cost(config: Mapping[str, Any]) -> float:
    """Estimate of a run's length, as `rclib.experiments.mean_field.lm_runs.cost`."""
    network = {**config["source"]["network"], "width": config["width"]}
    return cost({"network": network, "recipe": config["recipe"]})
