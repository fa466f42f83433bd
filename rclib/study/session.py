"""What a notebook's kernel knows: the cell that runs now, and the notebook's file.

Outside of a kernel nothing is known. IPython is asked only if it is loaded already.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from pathlib import Path
from typing import Any

__all__ = [
    "ASKED_VARIABLE",
    "NOTEBOOK_VARIABLE",
    "Run",
    "cell_mark",
    "cells_run",
    "notebook_file",
    "running_cell",
    "show_saved",
]

NOTEBOOK_VARIABLE = "RCLIB_NOTEBOOK"  # path of the notebook, for the kernels of our own runner
ASKED_VARIABLE = "RCLIB_ASKED"  # where a study notes which runs it asked for, for `make figures`

Run = tuple[str, int]  # which cell, and its how manieth execution in this kernel it is


def _shell() -> Any:
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def cells_run() -> list[str]:
    """The sources of the cells run so far, the running one last; empty outside of a kernel."""
    shell = _shell()
    return [str(source) for source in shell.user_ns.get("In", [])] if shell is not None else []


def cell_mark(source: str | None = None) -> str:
    """A mark of the text of a cell, by default of the one that runs now; "" where none does."""
    if source is None:
        run = cells_run()
        source = run[-1] if run else ""
    return hashlib.sha256(source.strip().encode()).hexdigest()[:16] if source.strip() else ""


def running_cell() -> Run | None:
    """The cell that runs now, by the identity that the front end gives it or else by its source,
    and the number of this execution; None outside of a kernel."""
    shell, sources = _shell(), cells_run()
    if shell is None or not sources:
        return None
    try:  # what JupyterLab and VS Code send along
        sent = shell.kernel.get_parent()["metadata"].get("cellId")
    except (AttributeError, KeyError, TypeError):
        sent = None
    return (f"id {sent}" if sent else sources[-1]), int(shell.execution_count)


def notebook_file() -> Path | None:
    """The file of the notebook that this kernel runs; None where that is not known.

    From our runner, Jupyter's server or VS Code. A kernel keeps the name that it was started
    with, so a file that is not there any more was renamed and says nothing.
    """
    shell = _shell()
    if shell is None:  # a script that a kernel started has the same environment
        return None
    told = [os.environ.get(NOTEBOOK_VARIABLE), shell.user_ns.get("__vsc_ipynb_file__")]
    for place in [*told, os.environ.get("JPY_SESSION_NAME")]:
        if isinstance(place, str) and place.endswith(".ipynb") and Path(place).is_file():
            return Path(place)
    return None


def show_saved(figure: Any, png: bytes, *, draft: bool = False) -> bool:
    """Show a saved picture below the running cell instead of drawing its figure once more; whether
    this was done: only where the figure would have been shown there (the inline backend).

    figure : a matplotlib figure, closed by this. png : the file, shown at the figure's own size.
    draft : whether it has the figure's own number of dots (`rclib.plots.saving`).
    What is seen then is what was saved, small print included.
    """
    if _shell() is None:
        return False
    import matplotlib.pyplot as plt
    from IPython.display import Image, display

    managed = plt.fignum_exists(getattr(figure, "number", -1))
    if "inline" not in plt.get_backend() or not managed:
        return False
    dots = plt.rcParams["savefig.dpi"]
    scale = 1.0 if draft or dots == "figure" else figure.dpi / dots
    (width,) = struct.unpack(">I", png[16:20])  # where every PNG has it
    display(Image(data=png, format="png", width=round(width * scale)))
    plt.close(figure)
    return True
