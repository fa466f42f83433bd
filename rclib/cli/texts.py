"""Tables and JSON as the commands of `python -m rclib` print them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rclib.cli.output import json_safe

if TYPE_CHECKING:  # `--help` answers without it
    import pandas as pd

__all__ = ["json_text", "plain", "records", "table_text", "words_text"]


def json_text(record: dict[str, Any]) -> str:
    """JSON without NaN: missing numbers are null."""
    text = json.dumps(plain(record), indent=1, ensure_ascii=False, allow_nan=False)
    return json_safe(text)


def plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # torch, numpy
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, None where a value is missing."""
    rows: list[dict[str, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return rows


def words_text(frame: pd.DataFrame, words: Sequence[str]) -> str:
    """Some columns of a table, under their headings; a column of notes that are empty is left out.

    The words are those of `rclib.inspection.vocabulary`.
    """
    from rclib.inspection.vocabulary import TEXTS, cell, heading

    rows = [[cell(word, record) or "-" for word in words] for record in records(frame)]
    kept = [i for i, w in enumerate(words) if w != "note" or any(row[i] != "-" for row in rows)]
    return table_text(
        [heading(words[i]) for i in kept],
        [[row[i] for i in kept] for row in rows],
        left=[place for place, i in enumerate(kept) if words[i] in TEXTS],
    )


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> str:
    """Aligned columns, numbers to the right; `left` are the columns of text."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, *rows]
    ]
    return "\n".join(lines)
