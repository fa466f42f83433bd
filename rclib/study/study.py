"""What a notebook needs around its figure: profile, claims, results file, saved figures.

A notebook opens one `Study` from its parameters, declares claims, computes, measures, saves
figures with the data behind them, and closes the study, which writes
`results/<profile>/<name>.json`. Files are whole or not there; same data, same bytes.
"""

from __future__ import annotations

import io
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.runs import sweep
from rclib.runs.source import Source
from rclib.study.claims import Claims
from rclib.study.results import times_path

if TYPE_CHECKING:  # a reader of results draws nothing
    from matplotlib.figure import Figure

__all__ = ["Study", "environment"]


MAX_PNG = 400_000  # bytes; maps of noise do not compress


class Study:
    """One notebook's run: its parameters, claims, figures and results.

    name : the notebook's file name without ending; title : one line for the scoreboard;
    parameters : the literals of the parameters cell, "profile" among them. Raises ValueError
    for an unknown profile or a parameter that is no plain value.
    """

    def __init__(
        self, name: str, *, title: str, parameters: Mapping[str, Any], data: Source | None = None
    ) -> None:
        self.name, self.title = name, title
        self.parameters = dict(parameters)
        self.profile = str(self.parameters.get("profile", "quick"))
        self._results = paths.results_dir(self.profile)
        self._figures = paths.figures_dir(self.profile, name)
        try:
            json.dumps(self.parameters, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"parameters must be plain values: {error}") from None
        self.data = data
        self.claims = Claims()
        self.figures: list[dict[str, str]] = []
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self._begin = time.monotonic()
        from rclib.plots import style

        torch.set_num_threads(1)  # results repeat bit for bit with the same thread count
        style.use_style()

    @property
    def data_note(self) -> str:
        """What a caption says about the data."""
        return self.data.description if self.data is not None else "no data set"

    def table(self, name: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Keep a table with the results and return it for display."""
        # Significant digits: pandas' JSON keeps decimal places, and small numbers become 0.
        self.tables[name] = [
            {str(k): _rounded(_plain(v)) for k, v in row.items()}
            for row in frame.to_dict(orient="records")
        ]
        return frame

    def save_figure(self, figure: Figure, name: str, *, caption: str, data: pd.DataFrame) -> str:
        """Write `figures/<profile>/<notebook>/<name>.png`, `.pdf` and the data behind it as `.csv`.

        The caption is completed with the data set and the profile, kept with the results and
        returned, for the reader of the notebook. The data are in long form, one row a value.
        """
        from rclib.plots import style

        whole = f"{caption} Data: {self.data_note}; profile: {self.profile}."
        self._figures.mkdir(parents=True, exist_ok=True)
        files: dict[str, bytes] = {}
        # The layout is solved once, not once a file format.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        style.stamp(figure, f"Data: {self.data_note}; {self.profile} profile")
        for kind, meta in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=meta)
            files[kind] = buffer.getvalue()
        if len(files["png"]) > MAX_PNG:
            files["png"] = _fewer_colours(files["png"])
        text = data.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        files["csv"] = text.encode()
        for kind, payload in files.items():  # only now: picture and data belong together
            write_atomically(self._figures / f"{name}.{kind}", payload)
        self.figures = [f for f in self.figures if f["name"] != name]  # a cell may run again
        self.figures.append({"name": name, "caption": whole})
        return whole

    def close(self) -> Path:
        """Write the results file and return its path. All claims must have been measured.

        The times that it took go to `times/<notebook>.json` beside it.
        """
        record = {
            "notebook": self.name,
            "title": self.title,
            "profile": self.profile,
            "parameters": self.parameters,
            "data": {
                "description": self.data_note,
                "checksum": self.data.checksum if self.data is not None else None,
            },
            "claims": self.claims.rows(),
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
        path = self._results / f"{self.name}.json"
        write_atomically(times_path(path), _text(times))
        write_atomically(path, _text(record))
        return path


def _text(record: dict[str, Any]) -> bytes:
    text = json.dumps(_plain(record), indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _fewer_colours(png: bytes) -> bytes:
    """The same picture with a palette of 256 colours, about a quarter of the size.

    The palette covers the colours that occur evenly (not by how often they occur), so that the
    ends of a colour scale stay what they are.
    """
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        small = picture.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


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
