"""What a sweep costs besides the runs themselves, in this process and on a local Dask cluster.

The same small runs (paper B's teacher and student at d = 20, no test points to speak of), each
configuration once, a fresh store each time:

    sweep             in this process
    bare loop         the function called in a loop, nothing kept: the machine's limit
    found again       the second sweep, which only reads the store
    Dask, k workers   a local cluster of k processes with one thread each; starting it and its
                      first run on each worker are not counted

Numbers are milliseconds of wall time a configuration; the ways take turns, round after round. Then
memory: by how many bytes a configuration this process grows between two sweeps of which the second
is `--more` times as long. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from kept import Kept

from rclib.experiments.spikes.teacher_runs import student_run
from rclib.runs.sweep import sweep

SMALL = {"d": 20, "h": 30, "n": 40, "n_test": 20, "steps": 2, "optimizer": "gd", "rate": 0.1}
SMALL |= {"record_at": [2], "losses_at": [2]}


def configurations(first: int, count: int) -> list[dict[str, Any]]:
    """`count` small runs with seeds from `first` on."""
    return [{"seed": seed, **SMALL} for seed in range(first, first + count)]


@contextmanager
def own_store() -> Iterator[None]:
    """An empty store, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rclib-bench-") as folder:
        os.environ["RCLIB_CACHE"] = folder
        yield


def timed(work: Callable[[], object], count: int) -> float:
    """Milliseconds a configuration."""
    begin = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begin) / count


def round_here(count: int) -> dict[str, float]:
    """The ways that need no cluster."""
    todo = configurations(0, count)
    with own_store():
        first = timed(lambda: sweep(student_run, todo), count)
        again = timed(lambda: sweep(student_run, todo), count)
    bare = timed(lambda: [student_run(None, **one) for one in todo], count)
    return {"sweep": first, "bare loop": bare, "found again": again}


@contextmanager
def cluster(workers: int) -> Iterator[Executor]:
    """The executor of a local cluster, warm."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        ) as local,
        Client(local) as client,
    ):
        executor: Executor = client.get_executor(pure=False)
        with own_store():
            sweep(student_run, configurations(10**6, 4 * workers), executor)
        yield executor


def on_a_cluster(workers: int, count: int, rounds: int) -> list[float]:
    """Milliseconds a configuration, one a round."""
    todo, found = configurations(0, count), []
    with cluster(workers) as executor:
        for _ in range(rounds):
            with own_store():
                found.append(timed(lambda: sweep(student_run, todo, executor), count))
    return found


def resident() -> int:
    """Bytes of memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growth(count: int, more: int) -> float:
    """Bytes a configuration, results thrown away."""
    with own_store():
        sweep(student_run, configurations(0, count))
        before = resident()
        sweep(student_run, configurations(count, more * count))
        return (resident() - before) / (more * count)


def main() -> None:
    """Parse the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="configurations a sweep")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--more", type=int, default=4)
    parser.add_argument("--keep", action="store_true", help="for docs/speed.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TQDM_DISABLE"] = "1"
    kept = Kept("sweep", threads=1, keeping=options.keep)
    times: dict[str, list[float]] = {}
    for turn in range(options.rounds + 1):
        found = round_here(options.count)
        if turn:  # the first round warms up
            for way, number in found.items():
                times.setdefault(way, []).append(number)
    for workers in options.workers:
        name = f"Dask, {workers} {'worker' if workers == 1 else 'workers'}"
        times[name] = on_a_cluster(workers, options.count, options.rounds)
    bytes_each = [growth(options.count, options.more) for _ in range(options.rounds)]
    print(f"{options.count} small runs, {options.rounds} rounds, milliseconds a configuration")
    for name, numbers in times.items():
        print(
            f"  {name:16s} {statistics.median(numbers):7.2f} ms "
            f"[{min(numbers):.2f}, {max(numbers):.2f}]"
        )
    print(f"  memory {statistics.median(bytes_each):.0f} bytes a configuration")
    kept.add(f"{options.count} small runs, a configuration", times, unit="ms")
    kept.add("memory, a configuration", {"this process": bytes_each}, unit="bytes")
    kept.write()


if __name__ == "__main__":
    main()
