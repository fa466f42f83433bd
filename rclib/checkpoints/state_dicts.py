"""Which mapping of names to tensors a pickle is about, and what stands beside it.

Training scripts keep the weights under a key of their own ("model", "net", "state_dict", ...),
beside the epoch, the optimizer and averaged copies of the weights. The mapping is looked for at
the top, one level and two levels down, by what is in it and never by its key; further down, where
optimizers have a mapping for each parameter, only if there is no matrix above. Where there are
several, one has to be asked for by name: which one a script meant, nothing here can know.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rclib.checkpoints.errors import CheckpointError
from rclib.checkpoints.pickle_values import Array, Instance, PickledTensor
from rclib.checkpoints.tensor_file import brief_line

__all__ = ["TOP", "StateDict", "find_state_dict"]

LEVELS, DEEPEST = 2, 12
SHOWN = 12
MAX_SETS = 200
TOP = "."
# Where scripts keep the sizes of the model (nanoGPT, Lightning, DETR, ...).
ARGUMENTS = ("model_args", "model_config", "config", "hyper_parameters", "args", "cfg")
MAX_ARGUMENTS = 10_000


@dataclass(frozen=True)
class StateDict:
    """tensors : by name; key : where they were found ("." for the top); beside : the other keys
    there; arguments : the model's, as the file keeps them, or None; nameless : tensors whose key
    is no name, and why that is."""

    tensors: Mapping[str, PickledTensor | Array]
    key: str = TOP
    beside: tuple[str, ...] = ()
    arguments: Mapping[str, Any] | None = None
    nameless: Mapping[str, str] = field(default_factory=dict)


def find_state_dict(value: Any, where: str, key: str | None = None) -> StateDict:
    """The mapping of tensors in a value, or the one under `key` (levels joined by dots).

    Raises CheckpointError (one line) if there is none, or several and no key.
    """
    value = _by_place(value)
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise CheckpointError(f"{where}: holds no tensors by name but {kind}")
    found = _sets(value, LEVELS)
    if not (key in found if key is not None else any(map(_matrices, found.values()))):
        found = _sets(value, DEEPEST)
    if key is None:
        # A mapping of matrices is a model's; of vectors alone (a normaliser, a random state) only
        # if there is nothing else.
        chosen = {k: m for k, m in found.items() if _matrices(m)} or found
        chosen = _different(chosen)
    else:
        chosen = {key: found[key]} if key in found else {}
    if not chosen:
        raise CheckpointError(_nothing(value, found, where, key))
    if len(chosen) > 1:
        shown = ", ".join(
            f"{k} ({sum(map(_is_tensor, m.values()))} tensors)"
            for k, m in list(chosen.items())[:SHOWN]
        )
        more = f" and {len(chosen) - SHOWN} more" if len(chosen) > SHOWN else ""
        raise CheckpointError(
            f"{where}: holds several sets of weights; choose one with --key: {shown}{more}"
        )
    [(at, mapping)] = chosen.items()
    tensors = {k: v for k, v in mapping.items() if _is_tensor(v) and isinstance(k, str)}
    nameless = {
        f"#{place}": _why_nameless(k)
        for place, (k, v) in enumerate(mapping.items())
        if _is_tensor(v) and not isinstance(k, str)
    }
    # What stands beside the tensors themselves: a step, or the extra state of torch's modules.
    others = [k for k, v in mapping.items() if not _is_tensor(v)]
    others = [k for k in others if not str(k).endswith("_extra_state")]
    if at != TOP:
        others += [k for k in value if k != at.partition(".")[0]]
    beside = tuple(brief_line(k, 40)[1:-1] if isinstance(k, str) else str(k) for k in others)
    return StateDict(tensors, at, beside, _arguments(value), nameless)


def _sets(value: dict[Any, Any], levels: int) -> dict[str, dict[Any, Any]]:
    """The mappings of tensors by their keys, at most so many levels down."""
    found: dict[str, dict[Any, Any]] = {}
    for at, mapping in itertools.islice(_candidates(value, levels), MAX_SETS):
        while at in found:  # "a.b" at the top and b below a
            at += "'"
        found[at] = mapping
    return found


def _why_nameless(key: Any) -> str:
    if isinstance(key, int):
        return f"has the number {key} for a name; save it under a text"
    return "has no text of at most 256 bytes for a name"


def _by_place(value: Any) -> Any:
    """A list or tuple with mappings in it, such as (weights, step), as a mapping by place."""
    if isinstance(value, (list, tuple)) and any(isinstance(v, dict) for v in value[:MAX_SETS]):
        return {str(place): entry for place, entry in enumerate(value[:MAX_SETS])}
    return value


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (PickledTensor, Array))


def _candidates(value: dict[Any, Any], levels: int) -> Iterator[tuple[str, dict[Any, Any]]]:
    """(key, mapping) of every mapping with a tensor of its own, at most so many levels down."""
    level: list[tuple[str, dict[Any, Any]]] = [(TOP, value)]
    seen: set[int] = set()
    for depth in range(levels + 1):
        below: list[tuple[str, dict[Any, Any]]] = []
        for at, mapping in level:
            if id(mapping) in seen:  # the same under a second key, or inside of itself
                continue
            seen.add(id(mapping))
            if any(_is_tensor(v) and isinstance(k, str) for k, v in mapping.items()):
                yield at, mapping
            if depth < levels:
                below += [
                    (k if at == TOP else f"{at}.{k}", v)
                    for k, v in mapping.items()
                    if isinstance(v, dict) and isinstance(k, str)
                ]
        level = below


def _matrices(mapping: Mapping[Any, Any]) -> bool:
    return any(
        _is_tensor(v) and (len(v.shape) > 1 or (isinstance(v, PickledTensor) and v.reason))
        for v in mapping.values()
    )


def _different(found: Mapping[str, dict[Any, Any]]) -> dict[str, dict[Any, Any]]:
    """The mappings without those that hold the tensors of another one under the same names."""
    kept: dict[str, dict[Any, Any]] = {}
    seen: set[frozenset[tuple[Any, Any]]] = set()
    for key, mapping in found.items():
        tensors = frozenset((k, v) for k, v in mapping.items() if _is_tensor(v))
        if tensors not in seen:
            seen.add(tensors)
            kept[key] = mapping
    return kept


def _nothing(value: Any, found: Mapping[str, Any], where: str, key: str | None) -> str:
    if key is not None:
        there = ", ".join(list(found)[:SHOWN]) or "none"
        return f"{where}: no tensors under the key {brief_line(key)}; keys with tensors: {there}"
    for name, entry in list(value.items())[:1]:
        kinds = ", ".join(f"{brief_line(k, 40)}" for k in list(value)[:SHOWN])
        if _is_tensor(entry):
            return f"{where}: holds no tensors by name; the first {_why_nameless(name)}"
        return (
            f"{where}: holds no tensors by name; entry {brief_line(name)} is no tensor but "
            f"{_kind(entry)} (its keys: {kinds})"
        )
    return f"{where}: holds no tensors, it is empty"


def _kind(value: Any) -> str:
    kind = getattr(value, "kind", None)
    return kind if isinstance(kind, str) else type(value).__name__


def _arguments(value: Mapping[Any, Any]) -> Mapping[str, Any] | None:
    """Plain values (whole numbers, texts, switches) of the model's arguments."""
    for key in ARGUMENTS:
        found = value.get(key)
        found = found.state if isinstance(found, Instance) else found
        if isinstance(found, dict) and found and len(found) <= MAX_ARGUMENTS:
            plain = {
                k: v
                for k, v in found.items()
                if isinstance(k, str) and isinstance(v, (str, int, float, bool))
            }
            if plain:
                return plain
    return None
