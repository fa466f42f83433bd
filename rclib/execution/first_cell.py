"""The first code cell of every notebook: it installs `rclib` where it is absent.

On Colab a notebook comes alone; in a checkout (Binder) the package lies beside it. Where `rclib`
is present, which is everywhere that `make` runs, the cell does nothing. Its source stands here
alone: `python -m rclib.execution.first_cell` writes it into every notebook, and a test checks that
it is there. Once the repository has a public address, `ADDRESS` is the one place to write it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command

__all__ = ["ADDRESS", "SOURCE", "TAG", "main", "with_first_cell"]

ADDRESS = ""  # of the repository, e.g. "https://github.com/OWNER/NAME"; asked for while empty
TAG = "install"
_ASKED = f'"{ADDRESS}"' if ADDRESS else 'input("Address of the repository of rclib: ")'
SOURCE = f"""\
# Installs rclib where it is absent, as on Colab; where it is present this cell does nothing.
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("rclib") is None:
    beside = (Path.cwd().parent / "pyproject.toml").is_file()  # in a checkout
    source = str(Path.cwd().parent) if beside else "git+" + {_ASKED}
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)"""


def with_first_cell(notebook: Any) -> Any:
    """A copy of a notebook (nbformat 4.5) with this cell before all other code, once.

    It stands below the title; one that is there already is replaced and keeps its id.
    """
    import nbformat
    from nbformat.v4 import new_code_cell

    made = nbformat.from_dict(notebook)
    old = [c for c in made.cells if TAG in c.metadata.get("tags", [])]
    cells = [c for c in made.cells if c not in old]
    place = next((i for i, c in enumerate(cells) if c.cell_type == "code"), len(cells))
    if len(cells) > 1 and cells[0].cell_type == "markdown":
        place = min(place, 1)
    identity = old[0].id if old else "install-rclib"
    cell = new_code_cell(SOURCE, id=identity, metadata={"tags": [TAG]})
    made.cells = [*cells[:place], cell, *cells[place:]]
    return made


def _write(path: Path) -> bool:
    import nbformat

    text = path.read_text(encoding="utf-8")
    made = with_first_cell(nbformat.reads(text, as_version=4))
    new = nbformat.writes(made).rstrip("\n") + "\n"
    if new != text:
        write_atomically(path, new.encode())
    return bool(new != text)


@command()
def main() -> int:
    """Write the cell into every notebook that lacks it or has another version of it."""
    folder = paths.project_root() / "notebooks"
    changed = [path.stem for path in sorted(folder.glob("[0-9]*.ipynb")) if _write(path)]
    print("\n".join(changed) or "all notebooks have the cell")
    return 0


if __name__ == "__main__":
    sys.exit(main())
