"""Functions and configurations as callers give them, in the one form that keys are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from rclib.runs import store

__all__ = ["unfolded"]

Config = Mapping[str, Any]


def unfolded(
    function: store.Experiment, configurations: Iterable[Config]
) -> tuple[store.Experiment, list[dict[str, Any]]]:
    """The function without its partials, whose keywords go into the configurations; the
    configurations with numpy's numbers as Python's, as keys and results are to be the same.

    Raises TypeError for a partial with positional arguments, for what is no function of a module,
    and for configurations that are no list of mappings.
    """
    keywords: dict[str, Any] = {}
    while isinstance(function, partial):
        if function.args:
            raise TypeError(
                "a partial of a sweep can only have keywords, got the positional arguments "
                f"{function.args!r:.80}; name them"
            )
        keywords = {**function.keywords, **keywords}
        function = function.func
    if not callable(function) or not hasattr(function, "__qualname__"):
        raise TypeError(f"function must be a function of a module, got {function!r:.80}")
    if isinstance(configurations, Mapping):
        raise TypeError("configurations must be a list of mappings, got one mapping: put it in [ ]")
    listed = []
    for config in configurations:
        if not isinstance(config, Mapping):
            raise TypeError(f"a configuration must map names to values, got {config!r:.80}")
        listed.append({key: _plain(value) for key, value in {**keywords, **config}.items()})
    return function, listed


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value
