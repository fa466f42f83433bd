"""The configuration of a model that is in memory: what its `config` attribute says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = ["config_of"]

WRAPPERS = ("module", "_orig_mod", "model", "base_model")


def config_of(module: nn.Module) -> Mapping[str, Any] | None:
    """The configuration of a module as a mapping, None if it has none.

    Understood are `to_dict()` (transformers), mappings, dataclasses (nanoGPT) and plain objects; a
    wrapper's is that of the module inside.
    """
    seen: set[int] = set()
    inside: Any = module
    while isinstance(inside, nn.Module) and id(inside) not in seen:
        seen.add(id(inside))
        found = _as_mapping(getattr(inside, "config", None))
        if found:
            return found
        inside = next(
            (m for n in WRAPPERS if isinstance(m := getattr(inside, n, None), nn.Module)), None
        )
    return None


def _as_mapping(config: Any) -> Mapping[str, Any] | None:
    if config is None or isinstance(config, (type, str, bytes, nn.Module)):
        return None
    if callable(getattr(config, "to_dict", None)):
        config = config.to_dict()
    elif dataclasses.is_dataclass(config):
        config = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    elif not isinstance(config, Mapping):
        config = getattr(config, "__dict__", None)
    return dict(config) if isinstance(config, Mapping) else None
