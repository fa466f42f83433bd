"""Strips notebooks to what is stored: the printed text of cells tagged `keep_output`.

`python -m rclib.execution.strip FILES` is the hook that runs before a commit; it ends with 1 if it
changed a file, so that the commit is looked at again. `make notebooks` leaves the same form.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.files.terminal import Parser, note, report

__all__ = ["KEEP", "main", "stripped"]

KEEP = "keep_output"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# A file can hold anything, and nbformat finds it out in many ways.
_UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, NameError, AssertionError),
    RecursionError,
)


def stripped(notebook: Any) -> Any:
    """A copy of a notebook (nbformat 4.5) with nothing that another run would change."""
    import nbformat

    made = nbformat.from_dict(notebook)
    for cell in made.cells:
        for passing in ("collapsed", "scrolled", "execution", "papermill", "jupyter", "vscode"):
            cell.metadata.pop(passing, None)
        if cell.cell_type == "code":
            keep = KEEP in cell.metadata.get("tags", [])
            printed = [o for o in cell.outputs if o.output_type == "stream" and o.name == "stdout"]
            cell.outputs = printed if keep else []
            cell.execution_count = 1 if cell.outputs else None  # nbval asks for one
    made.metadata = nbformat.from_dict(METADATA)
    return made


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Strip notebooks in place; 1 if one of them changed or cannot be read."""
    import nbformat

    parser = Parser(
        prog="python -m rclib.execution.strip", description=(main.__doc__ or "").split(";")[0]
    )
    parser.add_argument("files", nargs="+", type=Path)
    status = 0
    for path in parser.parse_args(argv).files:
        try:
            text = path.read_text(encoding="utf-8")
            made = nbformat.writes(stripped(nbformat.reads(text, as_version=4)))
        except (*_UNREADABLE, nbformat.ValidationError) as error:
            reason = " ".join(str(error).split())[:200]
            note(f"error: {path}: not a notebook that can be read: {reason}")
            status = 1
            continue
        if (made.rstrip("\n") + "\n") != text:
            write_atomically(path, (made.rstrip("\n") + "\n").encode())
            report(f"stripped {path}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
