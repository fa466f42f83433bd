"""config.json, of which a few sizes are used: what is odd elsewhere in it stops nothing.

Python writes Infinity and NaN, which are no JSON; some tools write a byte order mark, or a key
twice. A key whose two values differ is left out, as if it were not there: nobody can say which
one is meant, and the sizes that are missing are asked for by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rclib.checkpoints.safetensors_file import parse_bounded_json, read_bytes

__all__ = ["read_config"]

MAX_BYTES = 20_000_000


def read_config(path: Path) -> dict[str, Any]:
    """The parsed file. Raises CheckpointError if it is no JSON object or cannot be read."""
    text = read_bytes(path, MAX_BYTES).removeprefix(b"\xef\xbb\xbf")
    return parse_bounded_json(text, where=str(path), strict=False)
