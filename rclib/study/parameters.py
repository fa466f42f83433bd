"""The parameters cell of a notebook: names, defaults, and which of them are seeds.

The cell holds `name = literal` alone. A parameter that holds seeds says so by its annotation,

    seeds: "Seeds" = [0, 1, 2]

a text, so that the name need not exist when the cell runs. What `make seeds` moves are these and
no others; a count of runs is called `n_...`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclib.files.plain import DataError, read_plain
from rclib.files.strict import parse_json

__all__ = [
    "SEEDS",
    "Parameters",
    "first_cell",
    "parse_parameters",
    "read_parameters",
    "undeclared_seeds",
    "whole_seeds",
]

SEEDS = "Seeds"  # the annotation of a parameter that holds seeds
_MAX_BYTES = 2**26  # of a notebook, outputs included


@dataclass(frozen=True)
class Parameters:
    """values : defaults by name, in the order of the cell. seeds : the names that hold seeds."""

    values: Mapping[str, Any]
    seeds: tuple[str, ...] = ()


def read_parameters(path: Path) -> Parameters:
    """The parameters cell (tagged "parameters") of a notebook file.

    Raises ValueError, without the file's name, for what is no notebook, has no such cell or holds
    anything else there.
    """
    try:
        notebook = parse_json(read_plain(path, _MAX_BYTES).decode("utf-8"))
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        tagged = [c["source"] for c in cells if "parameters" in c["metadata"].get("tags", [])]
        sources = ["".join(source) for source in tagged]
    except (ValueError, OSError, DataError) as error:
        raise ValueError(f"not a notebook that can be read: {_line(error)}") from None
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a notebook that can be read: {error!r}") from None
    found = parse_parameters(sources[0]) if sources else Parameters({})
    if not found.values:
        raise ValueError("no cell tagged 'parameters' with literals")
    return found


def parse_parameters(source: str) -> Parameters:
    """The names and literals of a parameters cell's text. Raises ValueError for anything else, and
    for seeds that are no whole numbers."""
    rule = "the parameters cell must hold `name = literal` alone"
    try:
        lines = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{rule}: {_line(error)}") from None
    values: dict[str, Any] = {}
    seeds: list[str] = []
    for line in lines:
        try:
            match line:
                case ast.Assign(targets=[ast.Name(id=key)], value=value):
                    values[key] = ast.literal_eval(value)
                case ast.AnnAssign(target=ast.Name(id=key), value=ast.expr() as value) as made:
                    values[key] = ast.literal_eval(value)
                    if isinstance(made.annotation, ast.Constant) and made.annotation.value == SEEDS:
                        seeds.append(key)
                case _:
                    raise ValueError("no assignment to one name")
        except ValueError:
            raise ValueError(f"{rule}, got {ast.unparse(line)!r}") from None
    for key in seeds:
        whole_seeds(key, values[key])
    return Parameters(values, tuple(seeds))


def whole_seeds(name: str, value: Any) -> list[int]:
    """The seeds of a parameter, one or a list. Raises ValueError for what are no whole numbers."""
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in found):
        raise ValueError(f"parameter {name!r} must hold whole numbers, got {value!r}")
    return found


def undeclared_seeds(parameters: Parameters) -> list[str]:
    """Parameters that are named like seeds and do not say that they are (or that they are not)."""
    return [
        name
        for name in parameters.values
        if (name in ("seed", "seeds") or name.endswith(("_seed", "_seeds")))
        and name not in parameters.seeds
    ]


def first_cell(sources: Sequence[str]) -> Parameters | None:
    """The first of the cells run so far that is a parameters cell: literals alone, one of them the
    profile. For notebooks whose file is out of reach."""
    for source in sources:
        try:
            found = parse_parameters(source)
        except ValueError:
            continue
        if "profile" in found.values:
            return found
    return None


def _line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
