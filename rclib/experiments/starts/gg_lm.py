"""Stored runs of notebook 53: language models from generalised Gaussian starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rclib.data.text import TextData
from rclib.nets.gpt import GPT, build_gpt
from rclib.runs.store import Arrays
from rclib.stats.generalized_gaussian import GeneralizedGaussian, draw, shape_by_moments
from rclib.training.lm_loop import DivergedRunError, train_lm
from rclib.training.lm_recipe import Recipe

__all__ = ["TINY", "gg_lm_runs", "gg_start"]

TINY: dict[str, dict[str, Any]] = {
    "gg_lm_runs": {
        "seed": 0, "nu": 1.0, "last": 2,
        "network": {
            "width": 16, "blocks": 1, "context": 8, "head_size": 8, "norm": "rms",
            "positions": "learned", "bias": "random",
        },
        "recipe": {"steps": 3, "lr": 0.003, "batch_size": 2, "eval_batches": 2},
    },
}  # fmt: skip


def gg_start(model: GPT, nu: float, *, seed: int) -> GPT:
    """Every tensor of two or more axes drawn anew, i.i.d. GG of shape ν and of the variance that
    its entries have; in place. One and the same uniform numbers of a seed for every ν."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                law = GeneralizedGaussian.of_variance(nu, float(parameter.double().var()))
                parameter.copy_(draw(law, parameter.shape, generator=generator))
    return model


def gg_lm_runs(
    data: TextData, *, seed: int, nu: float, last: int, network: Mapping[str, Any],
    recipe: Mapping[str, Any],
) -> Arrays:  # fmt: skip
    """One language model under SP from a GG start of shape ν.

    network, recipe : what `GPT` and `Recipe` get besides seeds, parametrisation and law.
    loss (steps,) : of each batch, NaN from where the run diverged. validation () : mean of the
    loss at the end on fixed batches. nu_start, nu_end (M,) : shape by moments of each matrix of
    the blocks. pooled () : of their entries together at the end, each divided by nothing.
    ending () : mean loss of the `last` batches.
    """
    law = {"kind": "gaussian", "mean": 0.0, "scale": 1.0}
    laws = dict.fromkeys(("input", "hidden", "output"), law)
    options = {**network, "parametrization": "SP", "init": laws, "seed": seed}
    model = gg_start(build_gpt(options), nu, seed=1_000_000 + seed)
    start = _shapes(model)
    settings = Recipe(**{**recipe, "seed": seed, "eval_steps": [int(recipe["steps"])]})
    loss = np.full(settings.steps, np.nan)
    try:
        history = train_lm(model, data, settings, progress=False)
        validation = float(history.eval_loss[settings.steps])
    except DivergedRunError as error:
        history, validation = error.history, float("nan")
    loss[: len(history.train_loss)] = history.train_loss.numpy()
    entries = [w.flatten() for name, w in model.matrices().items() if name.startswith("blocks")]
    together = torch.cat(entries).detach().double().numpy()
    finite = bool(np.isfinite(together).all())
    return {
        "loss": loss,
        "ending": np.array(loss[-last:].mean()),
        "validation": np.array(validation),
        "nu_start": start,
        "nu_end": _shapes(model),
        "pooled": np.array(shape_by_moments(together) if finite else np.nan),
    }


def _shapes(model: GPT) -> np.ndarray:
    """By moments, of the matrices of the blocks."""
    found = []
    for name, w in model.matrices().items():
        if name.startswith("blocks"):
            values = w.detach().double().numpy()
            found.append(shape_by_moments(values) if np.isfinite(values).all() else np.nan)
    return np.array(found)
