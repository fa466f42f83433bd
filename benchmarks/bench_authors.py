"""Paper B's learning-rate sweep: this library against the authors' released code, in one run.

    python benchmarks/bench_authors.py PATH      a checkout of kvignesh1420/single-index-ht

One repeat of the authors' own protocol: GD and Adam at nine rates on one teacher, ten steps, full
size, measured after steps 0 and 10. Three ways take turns, round after round, each in a process of
its own with one thread; imports are not counted, drawing the data is. Seconds are those that the
process had of its core, so that waiting for a busy machine does not count (its caches do); medians
are printed.

    authors       their bulk_lr.py as it is, with their figures (pictures of losses, KTA, ...)
    rclib         the same 18 runs with 200 test points: losses and KTA by both evaluations,
                  spectrum, alignment, both exponents
    notebook 21   what the notebook computes: one more spectrum after step 1, 20,000 test points
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from kept import Kept

WAYS = ("authors", "rclib", "notebook 21")
RATES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 2000.0, 3000.0)


def authors(path: Path, seed: int) -> float:
    """Seconds of the authors' sweep, one repeat."""
    os.environ["MPLBACKEND"] = "Agg"
    sys.path.insert(0, str(path))
    try:
        import weightwatcher  # noqa: F401  # imported by their tracker, not used by this protocol
    except ImportError:
        sys.modules["weightwatcher"] = ModuleType("weightwatcher")
    import bulk_lr
    import torch
    import yaml

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = yaml.safe_load((path / "configs" / "bulk_lr.yml").read_text()) | {"repeat": 1}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        Path("one.yml").write_text(yaml.safe_dump(config))
        sys.argv = ["bulk_lr.py", "one.yml"]
        begin = time.process_time()
        bulk_lr.main()
        seconds = time.process_time() - begin
        os.chdir("/")
    return seconds


def ours(seed: int, *, notebook: bool) -> float:
    """Seconds of the same 18 runs by this library."""
    from rclib.experiments.spikes.teacher_runs import student_run

    at = [0, 1, 10] if notebook else [0, 10]
    n_test = 20_000 if notebook else 200
    begin = time.process_time()
    for optimizer in ("gd", "adam"):
        for rate in RATES:
            student_run(
                None,
                seed=seed,
                optimizer=optimizer,
                rate=rate,
                record_at=at,
                losses_at=[0, 10],
                n_test=n_test,
            )
    return time.process_time() - begin


def child(way: str, path: Path, seed: int) -> float:
    """Seconds of one way, in this process."""
    if way == "authors":
        return authors(path, seed)
    return ours(seed, notebook=way == "notebook 21")


def main() -> None:
    """Take turns, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="a checkout of the authors' repository")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help="for docs/speed.md")
    options = parser.parse_args()
    path = options.path.resolve()
    if options.child:
        seconds = child(options.child, path, options.seed)
        print(json.dumps(seconds), file=sys.__stdout__)
        return
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(options.rounds):
        for way in WAYS:
            done = subprocess.run(
                [sys.executable, __file__, str(path), "--child", way, "--seed", str(seed)],
                env=os.environ | one | {"TQDM_DISABLE": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            )
            times[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {seed + 1}, {way}: {times[way][-1]:.1f} s", file=sys.stderr)
    kept = Kept("authors", threads=1, keeping=options.keep)
    kept.add("18 runs, d = 1000, CPU", times)
    kept.write()
    base = statistics.median(times["authors"])
    load = os.getloadavg()[0]
    print(f"18 runs of one repeat, one thread, {options.rounds} rounds; load {load:.1f}")
    for way, values in times.items():
        m = statistics.median(values)
        spread = f"[{min(values):.1f}, {max(values):.1f}]"
        print(f"  {way:13s} {m:6.1f} s  {spread:15s}  authors / this {base / m:5.2f}")


if __name__ == "__main__":
    main()
