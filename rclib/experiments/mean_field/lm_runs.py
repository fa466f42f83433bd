"""Training runs of language models, shared by the notebooks on Figure 4.5 and on growth.

Starts, in units of the parametrisation's scale:

- "zero mean": every hidden entry N(0, 1); the output matrix starts at zero, so that the first
  loss is log 256 at every width.
- "mean one": hidden entries N(1, 3) as in paper A's Figure 4.5. We read the 3 as the variance, as
  N(μ, σ²) is usually written. Embeddings stay N(0, 1) and the output matrix zero.
- "paper": all entries N(1, 3), the output matrix zero.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rclib import paths
from rclib.data.text import TextData
from rclib.nets.gpt import GPT, build_gpt
from rclib.runs import store
from rclib.training.lm_loop import DivergedRunError, LMHistory, train_lm
from rclib.training.lm_recipe import Recipe

__all__ = [
    "STARTS",
    "Arrays",
    "arrays_of",
    "checkpoint_folder",
    "cost",
    "lm_configuration",
    "losses_at",
    "means_of",
    "restore_gpt",
    "run_gpt",
    "train_gpt",
]

Arrays = dict[str, np.ndarray]

_ZERO_MEAN = {"kind": "gaussian", "mean": 0.0, "scale": 1.0}
_MEAN_ONE = {"kind": "gaussian", "mean": 1.0, "scale": math.sqrt(3.0)}
_ZERO = {"kind": "gaussian", "mean": 0.0, "scale": 0.0}
STARTS: Mapping[str, dict[str, dict[str, Any]]] = {
    "zero mean": {"input": _ZERO_MEAN, "hidden": _ZERO_MEAN, "output": _ZERO},
    "mean one": {"input": _ZERO_MEAN, "hidden": _MEAN_ONE, "output": _ZERO},
    "paper": {"input": _MEAN_ONE, "hidden": _MEAN_ONE, "output": _ZERO},
}


def lm_configuration(
    *,
    width: int,
    steps: int,
    lr: float,
    parametrization: str = "MF",
    start: str = "zero mean",
    seed: int = 0,
    data_seed: int | None = None,
    blocks: int = 2,
    context: int = 64,
    head_size: int = 16,
    norm: str = "rms",
    positions: str = "learned",
    bias: str = "random",
    **recipe: Any,
) -> dict[str, Any]:
    """The configuration of a `train_gpt` run; extra arguments are those of `Recipe`.

    One spelling for all notebooks, so that runs they share are found in the store. `seed` draws
    the start and, unless `data_seed` is given, the batches. Raises ValueError for an unknown
    start or a recipe that `Recipe` refuses.
    """
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}, got {start!r}")
    batches = seed if data_seed is None else data_seed
    plain: dict[str, Any] = {k: list(v) if isinstance(v, tuple) else v for k, v in recipe.items()}
    plain |= {"steps": steps, "lr": lr, "seed": batches}
    Recipe(**plain)
    network = {
        "width": width,
        "blocks": blocks,
        "context": context,
        "head_size": head_size,
        "parametrization": parametrization,
        "norm": norm,
        "positions": positions,
        "init": STARTS[start],
        "bias": bias,
        "seed": seed,
    }
    return {"network": network, "recipe": plain}


def cost(config: Mapping[str, Any]) -> float:
    """Estimate of a run's length for `rclib.runs.sweep.run`: tokens times entries."""
    network, recipe = config["network"], config["recipe"]
    entries = 12 * network["blocks"] * network["width"] ** 2 + 256 * network["width"]
    steps = recipe["steps"] - recipe.get("first_step", 0)
    return float(entries * steps * recipe.get("batch_size", 16) * network["context"])


def train_gpt(data: TextData, *, network: Mapping[str, Any], recipe: Mapping[str, Any]) -> Arrays:
    """Train one language model from scratch; see `arrays_of` for what it returns.

    An interrupted run goes on from its last state in the cache folder, at most two minutes old.
    """
    folder = checkpoint_folder(data, network=network, recipe=recipe)
    return run_gpt(build_gpt(network), data, Recipe(**recipe), folder)


def checkpoint_folder(data: TextData, **config: Any) -> Path:
    """Where an unfinished `train_gpt` run keeps its state."""
    key = store.run_key(train_gpt, config, data=data)
    return paths.cache_dir() / "unfinished" / key


def run_gpt(
    model: GPT,
    data: TextData,
    recipe: Recipe,
    folder: Path,
    *,
    moments: Mapping[str, Tensor] | None = None,
) -> Arrays:
    """`train_lm` on a GPU if there is one, with its state in `folder` until it is done."""
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    diverged = -1
    try:
        history = train_lm(
            model, data, recipe, checkpoint=folder, keep_last=False, moments=moments, progress=False
        )
    except DivergedRunError as error:  # a result too: SP does at large rates
        history, diverged = error.history, error.step
    out = arrays_of(history, recipe, diverged=diverged)
    shutil.rmtree(folder, ignore_errors=True)
    return out


def arrays_of(history: LMHistory, recipe: Recipe, *, diverged: int = -1) -> Arrays:
    """A run's record as arrays.

    `train_loss` (steps - first_step,), `eval_steps` and `eval_loss` (as many as eval_steps), NaN
    from the step on where the run diverged, `diverged` that step or -1; the mean vectors
    `means/<step>/<matrix>.C` and `.R`, and the tensors `state/<step>/<name>` of snapshots.
    """
    loss = np.full(recipe.steps - recipe.first_step, np.nan, dtype=np.float32)
    loss[: len(history.train_loss)] = history.train_loss.numpy()
    out: Arrays = {
        "train_loss": loss,
        "eval_steps": np.array(sorted(recipe.eval_steps), dtype=np.int64),
        "eval_loss": np.array(
            [history.eval_loss.get(s, math.nan) for s in sorted(recipe.eval_steps)]
        ),
        "diverged": np.array(diverged),
    }
    for kind, groups in (("means", history.means), ("state", history.snapshots)):
        for step, tensors in groups.items():
            out |= {f"{kind}/{step}/{name}": t.numpy() for name, t in tensors.items()}
    return out


def means_of(run: Arrays, matrix: str, *, step: int, axis: str = "C") -> np.ndarray:
    """Row ("C") or column ("R") means of one matrix, e.g. "blocks.0.Wdown", after `step`.

    Raises ValueError when the run kept none, with the steps it has.
    """
    key = f"means/{step}/{matrix}.{axis}"
    if key not in run:
        kept = sorted({int(k.split("/")[1]) for k in run if k.startswith("means/")})
        raise ValueError(f"the run kept no {matrix}.{axis} at step {step}; it has steps {kept}")
    return run[key]


def restore_gpt(
    run: Arrays, network: Mapping[str, Any], *, step: int
) -> tuple[GPT, dict[str, Tensor]]:
    """The network of a finished run as it was after `step`, and Adam's means (empty if not kept).

    Raises ValueError when the run kept no snapshot of that step.
    """
    prefix = f"state/{step}/"
    kept = {
        key.removeprefix(prefix): torch.from_numpy(value.copy())
        for key, value in run.items()
        if key.startswith(prefix)
    }
    if not kept:
        steps = sorted({int(k.split("/")[1]) for k in run if k.startswith("state/")})
        raise ValueError(f"the run kept no snapshot of step {step}; it has steps {steps}")
    model = build_gpt(network)
    model.load_state_dict({name: kept.pop(name) for name in model.state_dict()})
    return model, kept


def losses_at(run: Arrays, steps: Sequence[int]) -> np.ndarray:
    """Validation losses of a run at the given steps; ValueError for a step not evaluated."""
    at = {int(s): float(v) for s, v in zip(run["eval_steps"], run["eval_loss"], strict=True)}
    missing = [s for s in steps if s not in at]
    if missing:
        raise ValueError(f"steps must have been evaluated ({sorted(at)}), got {missing}")
    return np.array([at[s] for s in steps])
