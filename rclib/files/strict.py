"""JSON and YAML from elsewhere, where a value means one thing only.

Both formats let a key stand twice (the last one wins, silently). Python's JSON reader takes NaN
and Infinity, which are no JSON; YAML has tags that name types and aliases that can grow one line
to gigabytes when somebody prints it. All of that is refused here, as are numbers that no float
holds and nesting that exhausts the stack. Each format's own parser does the reading.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["parse_json", "parse_yaml"]

_YAML_KINDS = {"map", "seq", "str", "int", "float", "bool", "null"}
_MAX_DEPTH = 50  # of YAML, its stream and document included
# YAML 1.1 takes 010 for eight and 1:30 for ninety.
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_MAX_DIGITS = 40  # of a whole number
_MAX_NODES = 100_000  # of a YAML file, aliases written out; a parameters file has some fifty


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError saying what is wrong and, if known, where."""
    import json

    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """The value of a YAML text of maps, lists, text, numbers, booleans and null.

    Raises ValueError saying what is wrong and, if known, where.
    """
    import yaml

    kind = _loader()
    try:
        _check_depth(yaml.parse(text, Loader=kind))
        loader = kind(text)
        try:
            node = loader.get_single_node()
            if node is None:  # an empty text
                return None
            for count, found in enumerate(_yaml_nodes(node)):
                if count >= _MAX_NODES:
                    raise ValueError(f"it has more than {_MAX_NODES:,} values, aliases written out")
                _check_node(found)
            value = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    return value


@functools.cache
def _loader() -> Any:
    """PyYAML's safe loader, with 1e-3 for a number: YAML 1.1 wants a point in it and takes what
    people write for text."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+\Z")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader


def _check_depth(events: Iterable[Any]) -> None:
    """Reads no further than the limit: PyYAML takes time quadratic in the depth."""
    depth = 0
    for event in events:
        depth += type(event).__name__.endswith("StartEvent")
        depth -= type(event).__name__.endswith("EndEvent")
        if depth > _MAX_DEPTH:
            raise ValueError(f"line {event.start_mark.line + 1}: it is nested too deeply")


def _yaml_nodes(node: Any) -> Iterator[Any]:
    """The node and all below it, those behind aliases as often as they are used."""
    todo = [node]
    while todo:
        found = todo.pop()
        yield found
        if found.id == "sequence":
            todo += found.value
        elif found.id == "mapping":
            todo += [part for pair in found.value for part in pair]


def _check_node(node: Any) -> None:
    kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
    where = f"line {node.start_mark.line + 1}"
    if kind not in _YAML_KINDS:
        raise ValueError(f"{where}: {kind[:60]!r} is no plain kind of value (quote text)")
    if kind == "float" and not math.isfinite(_yaml_float(node.value)):
        raise ValueError(f"{where}: {node.value:.60} is no finite number")
    if kind == "int" and not _DECIMAL.fullmatch(node.value):
        raise ValueError(f"{where}: {node.value:.60} is no whole number in decimal digits")
    if kind == "map":
        _refuse_twice([str(key.value) for key, _ in node.value], f"{where}: ")


def _yaml_float(text: str) -> float:
    try:
        return float(text.replace("_", ""))
    except ValueError:  # ".inf" and ".nan"; base 60 such as 1:30.5
        return math.nan


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse_twice([key for key, _ in pairs], "")
    return found


def _refuse_twice(keys: list[str], where: str) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"{where}key {key[:40]!r} is there twice")
        seen.add(key)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.60} is no finite number")
    return value


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"{text:.40}... has more than {_MAX_DIGITS} digits")
    return int(text)
