"""The stored functions of all experiments, each with a configuration that takes no time.

A function is stored if an experiment hands it to the store or to a sweep. The experiment's module
says how to run it small, by a table that this finds:

    TINY = {"train": {"width": 4, "seed": 0, "steps": 2}}     # function -> keyword arguments

The modules of series 1 and 2 have theirs here.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rclib import experiments
from rclib.data.images import Dataset, load
from rclib.data.text import TextData
from rclib.runs.store import Experiment

ROOT = Path(str(experiments.__file__)).parent
_NETWORK = {"width": 6, "depth": 3, "parametrization": "MF"}
_SOURCE = {
    "network": _NETWORK,
    "seed": 0,
    "epochs": 1,
    "lr": 0.1,
    "batch_size": 32,
    "snapshots": [0, 1],
    "keep": ["*"],
}
_TEACHER = {"seed": 0, "optimizer": "adam", "d": 12, "h": 16, "n": 24}


def _language_models() -> dict[str, dict[str, Any]]:
    from rclib.experiments.mean_field.lm_runs import lm_configuration

    source = lm_configuration(
        width=16, steps=3, lr=0.01, context=8, batch_size=2, eval_steps=[0, 3],
        mean_steps=[3], snapshot_steps=[2], snapshot_moments=True,
    )  # fmt: skip
    recipe = source["recipe"] | {"first_step": 2, "eval_steps": [2, 3], "snapshot_steps": []}
    moved = {"source": source, "width": 32, "method": "RC sampling", "moments": True}
    return {
        "mean_field.lm_runs.train_gpt": source,
        "mean_field.growth_runs.resized_run": moved
        | {"recipe": recipe | {"snapshot_moments": False}},
    }


OLDER: dict[str, dict[str, Any]] = {
    "mean_field.mlp_runs.train_mlp": _SOURCE,
    "mean_field.mlp_runs.transferred_run": {
        "source": _SOURCE,
        "epoch": 1,
        "width": 9,
        "random_rate": 0.5,
        "norm_rate": 1.0,
        "epochs": 2,
    },
    "mean_field.mlp_runs.zero_shot": {
        "source": _SOURCE,
        "epoch": 1,
        "widths": [4, 9],
        "draws": 2,
        "reference": {**_SOURCE, "seed": 1},
    },
    "mean_field.coordinates.coordinate_check": {
        "network": _NETWORK,
        "seed": 0,
        "optimizer": "adam",
        "lr": 0.01,
        "steps": [1, 2],
        "batch_size": 8,
    },
    "spikes.teacher_runs.student_run": {**_TEACHER, "rate": 1.0, "steps": 2, "n_test": 20},
    "spikes.first_step.one_step": {**_TEACHER, "rates": [0.1, 1.0]},
    "spikes.first_step.critical_rate": _TEACHER,
    **_language_models(),
}


def modules() -> list[str]:
    """All modules of experiments, as "theme.module"."""
    return [f"{p.parent.name}.{p.stem}" for p in sorted(ROOT.glob("*/*.py")) if p.stem[0] != "_"]


@functools.cache
def calls(module: str) -> tuple[tuple[str, ast.Call], ...]:
    """("theme.module.function", call) of what a module hands to the store or to a sweep."""
    return tuple(_calls(module))


def _calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    text = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    origin = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Name(id="sweep" | "store"),
                    attr="run" | "sweep" | "fetch" | "lookup",
                )
                | ast.Name(id="sweep_stacked"),
                args=[function, *_],
            ):
                match function:
                    case ast.Name(id=name):
                        place = origin.get(name, f"{experiments.__name__}.{module}.{name}")
                    case ast.Attribute(value=ast.Name(id=holder), attr=name):
                        place = f"{origin[holder]}.{name}"
                    case _:
                        raise AssertionError(f"{module}, line {node.lineno}: no function by name")
                yield place.removeprefix(f"{experiments.__name__}."), node
            case _:
                pass


@functools.cache
def stored_functions() -> tuple[str, ...]:
    """Every stored function, as "theme.module.function"."""
    return tuple(sorted({name for module in modules() for name, _ in calls(module)}))


def function_of(which: str) -> Experiment:
    """The function itself."""
    module, _, name = which.rpartition(".")
    found: Experiment = getattr(importlib.import_module(f"{experiments.__name__}.{module}"), name)
    return found


def tiny(which: str) -> dict[str, Any]:
    """A configuration of it that takes no time. KeyError if nobody wrote one down."""
    module, _, name = which.rpartition(".")
    own = getattr(importlib.import_module(f"{experiments.__name__}.{module}"), "TINY", {})
    found: dict[str, Any] = own[name] if name in own else OLDER[which]
    return found


def tiny_data(which: str) -> Any:
    """Data that it takes, by the annotation of its first argument."""
    first = next(iter(inspect.signature(function_of(which)).parameters.values()))
    kind = str(first.annotation)
    if "TextData" in kind:
        numbers = torch.arange(4000).remainder(97).byte()
        return TextData("numbers", "numbers", numbers, 3000, "0" * 64)
    return _digits().subset(60, 30) if "Dataset" in kind else None


@functools.cache
def _digits() -> Dataset:
    return load("digits")


def forget(which: str) -> None:
    """Empty what the function's module keeps between calls."""
    module = importlib.import_module(function_of(which).__module__)
    for value in vars(module).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
