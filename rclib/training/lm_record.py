"""Record of a language-model run: its losses and measurements, in memory and in a folder.

A folder holds the state of the run, one file (`rclib.training.lm_state`), and its snapshots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rclib.training import lm_state
from rclib.training.lm_recipe import Recipe
from rclib.training.recorder import Losses, Recorder

__all__ = ["STATE", "LMHistory", "LMRecord"]

STATE = "state.safetensors"


@dataclass
class LMHistory:
    """Record of a run, up to `step`.

    train_loss : (step - first_step,) batch losses in nats per token, of the batch before its step.
    eval_loss : {step: validation loss, nats per token}.
    means : {step: {"<matrix>.C" or ".R": (rows,) or (columns,) float32}}.
    snapshots : {step: {name: tensor}}, CPU copies; Adam's means as "exp_avg/<name>" and so on.
    """

    step: int
    train_loss: Tensor
    eval_loss: dict[int, float] = field(default_factory=dict)
    means: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)


class LMRecord:
    """The record of a run in progress.

    losses : of every step. kept : "eval_loss", "means" and "snapshots" at the recipe's steps.
    folder : where state and snapshots are kept, or None.
    """

    def __init__(self, recipe: Recipe, folder: Path | None, device: torch.device) -> None:
        self.folder = folder
        self.losses = Losses(recipe.first_step, recipe.steps, device=device)
        self.kept = Recorder(
            {
                "eval_loss": recipe.eval_steps,
                "means": recipe.mean_steps,
                "snapshots": recipe.snapshot_steps,
            }
        )
        self.settings: Mapping[str, Any] = {}

    def history(self, step: int) -> LMHistory:
        """The record up to a step."""
        return LMHistory(step, self.losses.until(step).cpu(), **self.kept.values)

    def snapshot(
        self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer | None
    ) -> None:
        """Keep the model, and Adam's means if an optimiser is given; in the folder as well."""
        tensors = dict(model.state_dict())
        if optimizer is not None:
            tensors |= lm_state.adam_moments(model, optimizer)
        kept = {name: t.detach().cpu().clone() for name, t in tensors.items()}
        self.kept.keep("snapshots", step, kept)
        if self.folder is not None:
            record = {"settings": self.settings, "step": step}
            lm_state.save_state(self._snapshot_path(step), kept, record)

    def _snapshot_path(self, step: int) -> Path:
        assert self.folder is not None
        return self.folder / f"snapshot-{step}.safetensors"

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the state; snapshots lie beside it already."""
        assert self.folder is not None
        tensors: dict[str, Tensor] = {f"model/{n}": t for n, t in model.state_dict().items()}
        moments = lm_state.adam_moments(model, optimizer)
        tensors |= {f"adam/{n}": t for n, t in moments.items()}
        tensors["train_loss"] = self.losses.until(step)
        for at, group in self.kept.values["means"].items():
            tensors |= {f"means/{at}/{label}": t for label, t in group.items()}
        record = {
            "settings": self.settings,
            "step": step,
            "eval_loss": {str(s): v for s, v in self.kept.values["eval_loss"].items()},
            "snapshots": sorted(self.kept.values["snapshots"]),
        }
        lm_state.save_state(self.folder / STATE, tensors, record)

    def resume(
        self, settings: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> int:
        """The step that the folder's state is of, which model and optimiser then have.

        The first step if it holds none. Raises StateError for a state of another run or damaged.
        """
        assert self.folder is not None
        self.settings = settings
        path = self.folder / STATE
        if not path.is_file():
            return self.losses.first
        tensors, record = lm_state.load_state(path)
        lm_state.check_same_run(path, record["settings"], settings)
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "adam": {}, "means": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            if kind in groups:
                groups[kind][rest] = tensor
        model.load_state_dict(groups["model"])
        if groups["adam"]:
            lm_state.set_adam_moments(model, optimizer, groups["adam"])
        done = tensors["train_loss"]
        self.losses.values[: len(done)] = done.to(self.losses.values.device)
        self.losses.looked = step = int(record["step"])
        for at, value in record["eval_loss"].items():
            self.kept.keep("eval_loss", int(at), float(value))
        for name, tensor in groups["means"].items():
            place, _, label = name.partition("/")
            self.kept.values["means"].setdefault(int(place), {})[label] = tensor
        for at in record["snapshots"]:
            path = self._snapshot_path(at)
            snapshot, own = lm_state.load_state(path)
            asked = {"settings": settings, "step": at}
            lm_state.check_same_run(path, {key: own.get(key) for key in asked}, asked)
            self.kept.keep("snapshots", at, snapshot)
        return step
