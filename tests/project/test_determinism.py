"""Two `make figures` at once, in two folders and with different -j: the same bytes come out.

They run side by side and compete for the cores, with stores of their own. Two notebooks stand
for all (one that trains networks, one on spectra); `make chaos` does it for every notebook.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import chaos
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ["00_overview", "11_figure_4_1_heat_maps", "20_spikes_one_configuration"]


def figures(folder: Path, jobs: int) -> subprocess.Popen[bytes]:
    # Without tracing for coverage, which takes as long again: other tests cover these lines.
    left = ("RCLIB_", "MAKE", "MF", "COVERAGE_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(left)}
    environment |= {"PYTHONPATH": str(folder), "TQDM_DISABLE": "1"}
    with open(folder / "make.log", "wb") as log:
        return subprocess.Popen(
            ["make", "figures", f"JOBS={jobs}"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / ".venv" / ".installed").exists(), reason="needs the environment that make builds"
)
def test_folder_load_and_number_of_jobs_change_no_byte(tmp_path: Path) -> None:
    folders = [chaos.copy_to(tmp_path / name, NOTEBOOKS) for name in ("one", "another/place")]
    running = [figures(folder, jobs) for folder, jobs in zip(folders, (1, 2), strict=True)]
    for process, folder in zip(running, folders, strict=True):
        log = folder / "make.log"
        assert process.wait(600) == 0, log.read_text(encoding="utf-8", errors="replace")
    first, second = map(chaos.outcome, folders)
    assert first.keys() == second.keys()
    names = {Path(path).stem for path in first if path.startswith("results")}
    assert names == set(NOTEBOOKS[1:])
    different = [path for path in first if first[path] != second[path]]
    assert different == []
    # What was compared is not empty, and the two did compute each for itself.
    for folder in folders:
        assert len(chaos.stored(folder)) > 5
