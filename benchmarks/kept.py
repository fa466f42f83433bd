"""What the benchmarks keep of a run: the seconds of every way in every round, and the machine.

A benchmark run with `--keep` writes `benchmarks/measured/<name>.json`, whole or not at all;
`python benchmarks/table.py` makes `docs/speed.md` from these files.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from rclib.files.atomic import write_atomically

__all__ = ["FOLDER", "Kept", "processor"]

FOLDER = Path(__file__).parent / "measured"


def processor() -> str:
    """The processor's name, as the system gives it; its architecture where it gives none."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


class Kept:
    """The settings of one benchmark, each with its ways and their seconds a round.

    `name` is that of the file without `bench_`; `threads` are those of the measured code. `keeping`
    false makes `write` do nothing, so that a benchmark calls it either way.
    """

    def __init__(self, name: str, *, threads: int, keeping: bool, folder: Path = FOLDER) -> None:
        self.path = folder / f"{name}.json"
        self.keeping = keeping
        self.content: dict[str, Any] = {
            "benchmark": f"bench_{name}.py",
            "date": datetime.now(UTC).date().isoformat(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": threads,
            "torch": torch.__version__,
            "load_before": round(os.getloadavg()[0], 2),
            "settings": [],
        }

    def add(self, setting: str, times: Mapping[str, Sequence[float]], *, unit: str = "s") -> None:
        """The numbers of each way, one a round, in `unit`. Raises ValueError if a way has none."""
        for way, numbers in times.items():
            if not len(numbers):
                raise ValueError(f"times: {way!r} has no round in {setting!r}")
        ways = {way: [float(f"{x:.5g}") for x in numbers] for way, numbers in times.items()}
        self.content["settings"].append({"setting": setting, "unit": unit, "ways": ways})

    def write(self) -> None:
        """Write the file if it is to be kept. Raises OSError as `write_atomically` does."""
        if self.keeping:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.content, indent=1, ensure_ascii=False) + "\n"
            write_atomically(self.path, text.encode())
