"""What a notebook needs around its figure: profile, claims, results file, saved figures.

A notebook opens one `Study` from its parameters, declares claims, computes, measures, saves
figures with the data behind them, and closes the study, which writes
`results/<profile>/<name>.json`. Files are whole or not there; same data, same bytes.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from rclib import paths
from rclib.files.atomic import write_atomically, write_together
from rclib.runs import sweep
from rclib.runs.source import Source
from rclib.study import sequential, session
from rclib.study.claims import Claims
from rclib.study.parameters import first_cell, read_parameters
from rclib.study.results import times_path

if TYPE_CHECKING:  # a reader of results draws nothing
    from matplotlib.figure import Figure

__all__ = ["Study", "environment"]


class Study:
    """One notebook's run: its parameters, claims, figures and results.

    name : the notebook's file name without ending; title : one line for the scoreboard;
    parameters : the literals of the parameters cell, "profile" among them; paper : what the
    claims are about, e.g. "A", "arxiv-1803.03635" or "beyond" ("" if each says it itself).
    Raises ValueError for an unknown profile, a parameter that is no plain value, and a name
    that is not that of the notebook, where the kernel knows its file.
    """

    def __init__(
        self,
        name: str,
        *,
        title: str,
        parameters: Mapping[str, Any],
        data: Source | None = None,
        paper: str = "",
    ) -> None:
        file = session.notebook_file()
        if file is not None and file.stem != name:
            raise ValueError(
                f"study {name!r} must bear the name of its notebook, {file.stem!r}: in a copy, "
                "change the name that Study is given"
            )
        self.name, self.title, self.paper = name, title, paper
        self.parameters = dict(parameters)
        self.profile = str(self.parameters.get("profile", "quick"))
        self._results = paths.results_dir(self.profile)
        self._figures = paths.figures_dir(self.profile, name)
        try:
            json.dumps(self.parameters, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"parameters must be plain values: {error}") from None
        self.data = data
        self.claims = Claims(paper=paper)
        self.figures: list[dict[str, str]] = []
        self._drawn_by: dict[str, session.Run | None] = {}
        self.tables: dict[str, dict[str, list[Any]]] = {}
        self._begin = time.monotonic()
        from rclib.plots import style

        torch.set_num_threads(1)  # results repeat bit for bit with the same thread count
        style.use_style()

    @classmethod
    def from_parameters(
        cls,
        name: str,
        namespace: Mapping[str, Any],
        *,
        title: str,
        data: Source | None = None,
        paper: str = "",
    ) -> Study:
        """A study of the parameters that the notebook's own parameters cell names.

        namespace : the notebook's `globals()`, which hold their values: the cell's own, or those
        that a profile or a caller set instead. Where the notebook's file is out of reach (as on
        Colab), the cell is found among those run so far. Raises ValueError if there is none, or
        if a parameter has no value yet.
        """
        path = session.notebook_file() or paths.project_root() / "notebooks" / f"{name}.ipynb"
        if path.is_file():
            try:
                found = read_parameters(path)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
        else:
            cell = first_cell(session.cells_run())
            if cell is None:
                raise ValueError(f"no parameters cell was run, and there is no notebook {path}")
            found = cell
        missing = [key for key in found.values if key not in namespace]
        if missing:
            raise ValueError(f"parameters {missing} have no value: run the parameters cell first")
        values = {key: namespace[key] for key in found.values}
        return cls(name, title=title, parameters=values, data=data, paper=paper)

    @property
    def data_note(self) -> str:
        """What a caption says about the data."""
        return self.data.description if self.data is not None else "no data set"

    def table(self, name: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Keep a table with the results and return it for display."""
        # Significant digits: pandas' JSON keeps decimal places, and small numbers become 0.
        rows = frame.to_dict(orient="split", index=False)["data"]
        self.tables[name] = {
            "columns": [str(column) for column in frame.columns],
            "rows": [[_rounded(_plain(value)) for value in row] for row in rows],
        }
        return frame

    def save_figure(
        self, figure: Figure, name: str, *, caption: str, data: pd.DataFrame, data_note: str = ""
    ) -> str:
        """Write `figures/<profile>/<notebook>/<name>.png`, `.pdf`, the data behind it as `.csv`,
        and the call that drew it as `.json.xz`, from which `python -m rclib redraw` draws it again.
        At the quick profile the picture is a draft for a screen, without `.pdf`.

        The caption is completed with the data set and the profile, kept with the results and
        returned, for the reader of the notebook, who is shown the saved picture. The data are
        a table: one row a value, or one row a run with all that the picture shows of it.
        data_note : what the picture says of its data, where that is not the data set's own line
        (one seed of five, sizes that vary). A figure that no `rclib.plots.drawing.redrawable`
        function drew is saved without its call, with a warning.
        A cell that runs again replaces its figures; ValueError for a name that another cell, or
        this one in the same run, has given to a figure already.
        """
        from rclib.plots import drawing, saving

        self._claim_name(name)
        note = data_note or self.data_note
        whole = f"{caption} Data: {note}; profile: {self.profile}."
        stamp = f"Data: {note}; {self.profile} profile"
        self._figures.mkdir(parents=True, exist_ok=True)
        try:
            kept = drawing.drawing_of(figure)
            call = replace(kept, stamp=stamp, cell=session.cell_mark()).to_bytes()
        except ValueError as error:
            call = None
            warnings.warn(f"figure {name!r} cannot be drawn again: {error}", stacklevel=2)
        draft = self.profile == "quick"
        files = saving.rendered(figure, stamp, draft=draft)
        text = data.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        files["csv"] = text.encode()
        if call is not None:
            files[drawing.SUFFIX] = call
        for kind in {"pdf", drawing.SUFFIX} - files.keys():  # an older picture's
            (self._figures / f"{name}.{kind}").unlink(missing_ok=True)
        # Only now, and at once: picture and data belong together.
        write_together(
            {self._figures / f"{name}.{kind}": payload for kind, payload in files.items()}
        )
        self.figures = [f for f in self.figures if f["name"] != name]  # a cell may run again
        self.figures.append({"name": name, "caption": whole})
        self._drawn_by[name] = session.running_cell()
        session.show_saved(figure, files["png"], draft=draft)
        return whole

    def _claim_name(self, name: str) -> None:
        """Raises ValueError if a figure of this name is another's."""
        if name not in self._drawn_by:
            return
        before, now = self._drawn_by[name], session.running_cell()
        again = before is not None and now is not None and before[0] == now[0]
        if not again or before == now:
            raise ValueError(f"study {self.name!r} has a figure {name!r} already")

    def close(self) -> Path:
        """Write the results file and return its path. All claims must have been measured.

        The times that it took go to `times/<notebook>.json` beside it.
        """
        rows = self.claims.rows()
        most = self.parameters.get("n_most")
        if isinstance(most, dict):  # by parameter
            most = max(most.values(), default=None)
        record = {
            "notebook": self.name,
            "title": self.title,
            "paper": self.paper or None,
            "profile": self.profile,
            "parameters": self.parameters,
            "data": {
                "description": self.data_note,
                "checksum": self.data.checksum if self.data is not None else None,
            },
            "sequential": sequential.design(rows, most if isinstance(most, int) else None),
            "claims": rows,
            "figures": self.figures,
            "tables": self.tables,
            "environment": environment(),
        }
        # Times never repeat, so they have a file of their own: the results file has the same
        # bytes whenever the same numbers come out. It is written last, as the sign of the end.
        times = {
            "core_seconds": round(sweep.core_seconds(), 1),
            "seconds": round(time.monotonic() - self._begin, 1),
        }
        if os.environ.get(session.ASKED_VARIABLE):  # the forecast of the next `make figures`
            write_atomically(Path(os.environ[session.ASKED_VARIABLE]), _text(sweep.asked()))
        path = self._results / f"{self.name}.json"
        write_atomically(times_path(path), _text(times))
        write_atomically(path, _text(record))
        return path


def _text(record: dict[str, Any]) -> bytes:
    """JSON to read and to compare line by line: a table has one line a row."""
    plain = _plain(record)
    tables = plain.pop("tables", None)
    options: dict[str, Any] = {"ensure_ascii": False, "allow_nan": False}
    text = json.dumps(plain, indent=1, **options)
    if tables is not None:
        parts = [
            f'  {json.dumps(name, **options)}: {{"columns": '
            f'{json.dumps(table["columns"], **options)}, "rows": [\n   '
            + ",\n   ".join(
                json.dumps(row, separators=(",", ":"), **options) for row in table["rows"]
            )
            + "\n  ]}"
            for name, table in tables.items()
        ]
        inner = " {\n" + ",\n".join(parts) + "\n }" if parts else " {}"
        text = f'{text.removesuffix(chr(10) + "}")},\n "tables":{inner}\n}}'
    return f"{text}\n".encode()


def environment() -> dict[str, Any]:
    """Versions and machine that a result was made with."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads_per_run": torch.get_num_threads(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=paths.project_root(),
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _plain(value: Any) -> Any:
    """JSON without NaN: missing numbers become null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _rounded(value: Any) -> Any:
    return float(f"{value:.10g}") if isinstance(value, float) else value
