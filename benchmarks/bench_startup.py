"""What a notebook costs before it does anything: ordinary kernels against forked ones.

    python benchmarks/bench_startup.py [--runs 3] [--notebooks 4]

A notebook that imports what the others import and opens and closes a study is executed by
`python -m rclib.execution.runner` in a temporary project. CPU seconds of all processes (runner and
kernel; the forked kernels' server is a row of its own, the difference between one notebook and
several) and seconds of wall time, medians over the runs; the kinds alternate, so that a busy
machine slows all of them.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from kept import Kept
from nbformat.v4 import new_code_cell, new_notebook

CELLS = """\
import matplotlib.pyplot as plt
import seaborn as sns
import torch
from rclib.data import images
from rclib.experiments.mean_field import table_1
from rclib.plots import panels, spectra
from rclib.study.claims import above
from rclib.study.study import Study
study = Study("10_empty", title="t", parameters={"profile": profile})
study.close()"""


def measure(kind: str, count: int) -> tuple[float, float]:
    """CPU and wall seconds of `count` notebooks, one after another."""
    run = f"{sys.executable} -m rclib.execution.runner run 10_empty >/dev/null"
    script = f"for i in $(seq {count}); do {run} || exit 1; done"
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "rclib.execution.kernels", "--", "bash", "-c", script],
        env=os.environ | {"RCLIB_KERNEL": kind},
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return used, time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU seconds of an empty notebook")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--notebooks", type=int, default=4)
    parser.add_argument("--keep", action="store_true", help="for docs/speed.md")
    arguments = parser.parse_args()
    kept = Kept("startup", threads=1, keeping=arguments.keep)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # as in the Makefile
    rows: dict[str, list[tuple[float, float]]] = {"ordinary": [], "forked": [], "server": []}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "notebooks").mkdir()
        Path(folder, "pyproject.toml").touch()
        parameters = new_code_cell('profile = "quick"', metadata={"tags": ["parameters"]})
        notebook = new_notebook(cells=[parameters, new_code_cell(CELLS)])
        nbformat.write(notebook, Path(folder, "notebooks", "10_empty.ipynb"))
        os.chdir(folder)
        more = arguments.notebooks
        for _ in range(arguments.runs):
            plain = measure("plain", 1)
            one, several = measure("forked", 1), measure("forked", 1 + more)
            each = ((several[0] - one[0]) / more, (several[1] - one[1]) / more)
            rows["ordinary"].append(plain)
            rows["forked"].append(each)
            rows["server"].append((one[0] - each[0], one[1] - each[1]))
        os.chdir("/")
    load = os.getloadavg()[0]
    print(f"medians of {arguments.runs} runs; load {load:.1f} on {os.cpu_count()} cores")
    middle = {}
    for kind, found in rows.items():
        middle[kind] = statistics.median(cpu for cpu, _ in found)
        wall = statistics.median(seconds for _, seconds in found)
        print(f"{kind:9s} {middle[kind]:6.2f} s CPU {wall:6.2f} s")
    cpu = {kind: [seconds for seconds, _ in found] for kind, found in rows.items()}
    kept.add("an empty notebook, CPU", cpu)
    kept.write()
    print(f"ratio     {middle['ordinary'] / middle['forked']:6.1f}")
    for count in (13, 55):
        forked = middle["server"] + count * middle["forked"]
        print(f"{count:2d} notebooks: {count * middle['ordinary']:.0f} s CPU -> {forked:.0f} s CPU")


if __name__ == "__main__":
    main()
