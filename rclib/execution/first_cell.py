"""What every notebook begins with: the paper's figure below the title, and a cell that installs
`rclib` where it is absent.

The figure is the first of the committed results, linked and with its caption, so that a notebook
shows on GitHub what it is about. On Colab a notebook comes alone; in a checkout (Binder) the
package lies beside it. Where `rclib` is present, which is everywhere that `make` runs, the cell
does nothing. It takes the address of the repository from git's remote where that is known when it
is written; otherwise it asks Colab where the notebook was opened from.
`python -m rclib.execution.first_cell` writes both into every notebook, and a test checks that they
are there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.files.origin import repository_address
from rclib.files.terminal import note, report
from rclib.study.papers import Papers, Run, committed_runs, load_papers

__all__ = ["TAG", "address_in", "cover", "main", "source", "with_cover", "with_first_cell"]

TAG = "install"
_HEAD = """\
# Installs rclib where it is absent, as on Colab; where it is present this cell does nothing.
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("rclib") is None:
    source = str(Path.cwd().parent)  # a checkout, as on Binder
    if not (Path.cwd().parent / "pyproject.toml").is_file():
"""
_KNOWN = """\
        source = "git+@ADDRESS@"
"""
_ASKED = """\
        import re
        import socket
        import urllib.parse
        import urllib.request

        asked = f"http://{socket.gethostbyname(socket.gethostname())}:9000/api/sessions"
        try:  # Colab knows where it has the notebook from
            told = urllib.parse.unquote(urllib.request.urlopen(asked, timeout=9).read().decode())
            source = "git+https://" + re.search(r"github\\.com/[\\w.-]+/[\\w.-]+", told)[0]
        except (OSError, TypeError):
            raise RuntimeError("run %pip install git+ADDRESS-OF-THE-REPOSITORY first") from None
"""
_TAIL = """\
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)"""
BEGIN, END = "<!-- figure: begin -->", "<!-- figure: end -->"


def source(address: str = "") -> str:
    """The cell. address : of the repository, "https://github.com/OWNER/NAME"; "" if not known."""
    return _HEAD + (_KNOWN.replace("@ADDRESS@", address) if address else _ASKED) + _TAIL


def address_in(cell: str) -> str:
    """The address that a cell installs from; "" where it asks Colab."""
    found = re.search(r'source = "git\+(https://[^"]+)"', cell)
    return found[1] if found else ""


def cover(name: str, papers: Papers, run: Run) -> str:
    """Markdown of a notebook's first figure: a picture that links to itself, and its caption.

    "" for results without a figure.
    """
    figures = run.record["figures"]
    if not figures:
        return ""
    figure = figures[0]
    title = papers.figure_titles().get((name, figure["name"]), run.record["title"])
    path = f"../figures/{run.profile}/{name}/{figure['name']}.png"
    caption = re.sub(r"([\\*_$<`\[\]])", r"\\\1", figure["caption"])
    return f"{BEGIN}\n[![{title}]({path})]({path})\n\n*{caption}*\n{END}"


def with_cover(notebook: Any, text: str) -> Any:
    """A copy of a notebook with this figure below its title, once; without one for ""."""
    import nbformat

    made = nbformat.from_dict(notebook)
    if made.cells and made.cells[0].cell_type == "markdown":
        cell = made.cells[0]
        plain = re.sub(rf"{BEGIN}.*?{END}\n*", "", cell.source, flags=re.DOTALL)
        title, _, rest = plain.partition("\n")
        parts = [title.strip(), text, rest.strip()]
        cell.source = "\n\n".join(part for part in parts if part)
    return made


def with_first_cell(notebook: Any, address: str = "") -> Any:
    """A copy of a notebook (nbformat 4.5) with this cell before all other code, once.

    It stands below the title. One that is there already is replaced and keeps its id, and its
    address where none is given.
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
    address = address or (address_in(old[0].source) if old else "")
    cell = new_code_cell(source(address), id=identity, metadata={"tags": [TAG]})
    made.cells = [*cells[:place], cell, *cells[place:]]
    return made


def _write(path: Path, papers: Papers, runs: Mapping[str, Run], address: str) -> bool:
    import nbformat

    text = path.read_text(encoding="utf-8")
    made = with_first_cell(nbformat.reads(text, as_version=4), address)
    if path.stem in runs:
        made = with_cover(made, cover(path.stem, papers, runs[path.stem]))
    new = nbformat.writes(made).rstrip("\n") + "\n"
    if new != text:
        write_atomically(path, new.encode())
    return bool(new != text)


@command()
def main() -> int:
    """Write figure and cell into every notebook that lacks them or has another version of them."""
    root = paths.project_root()
    try:
        papers, runs = load_papers(), committed_runs()
    except ValueError as error:
        note(f"error: {error}")
        return 2
    address = repository_address(root)
    notebooks = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
    changed = [path.stem for path in notebooks if _write(path, papers, runs, address)]
    report("\n".join(changed) or "all notebooks have figure and cell")
    return 0


if __name__ == "__main__":
    sys.exit(main())
