"""Executors for the machines of notebook 85: each of their tasks needs a process to itself, and is
started again where that is killed.

The standard library's pool ends all its tasks with one of its processes. Dask starts a lost task
again, and so does `Processes` here, which needs nothing that is installed besides.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

__all__ = ["WHERE", "Processes", "executor_for"]

WHERE = ("threads", "processes", "dask")

_CHILD = (
    "import pickle, sys\n"
    "call, given = pickle.load(sys.stdin.buffer)\n"
    "out = sys.stdout.buffer\n"
    "try:\n    found = (True, call(*given))\n"
    "except Exception as error:\n    found = (False, error)\n"
    "pickle.dump(found, out)\n"
)


class Processes(Executor):
    """One process of its own for every task, started again, at most `again` times, where it was
    killed. A pool of the standard library ends all its tasks with one of its processes."""

    def __init__(self, again: int = 1) -> None:
        self.again = again

    def submit(
        self, fn: Callable[..., Any], /, *given: Any, **named: Any
    ) -> Future[Any]:  # named: none, as `exchange` has none
        """Start `fn(*given)` in a new process."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        call = pickle.dumps((fn, given))
        threading.Thread(target=self._follow, args=(call, future), daemon=True).start()
        return future

    def _follow(self, call: bytes, future: Future[Any]) -> None:
        paths = os.pathsep.join(filter(None, sys.path))
        for _ in range(self.again + 1):
            done = subprocess.run(
                [sys.executable, "-c", _CHILD], input=call, stdout=subprocess.PIPE, check=False,
                env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip
            if done.returncode == 0:
                fine, found = pickle.loads(done.stdout)
                if fine:
                    future.set_result(found)
                else:
                    future.set_exception(found)
                return
        future.set_exception(RuntimeError(f"a task's process ended with {done.returncode}"))


@contextlib.contextmanager
def executor_for(where: str, tasks: int) -> Iterator[Executor]:
    """One that runs so many tasks side by side: threads of this process, a process each, or a Dask
    cluster of this machine with a worker each.

    Raises ValueError for another word, ImportError for Dask without the extra [cluster].
    """
    if where == "threads":
        with ThreadPoolExecutor(tasks) as pool:
            yield pool
    elif where == "processes":
        yield Processes()
    elif where == "dask":
        # Beside a notebook's kernel, whose loop stands still while a cell waits: on it, no worker
        # that was lost would be replaced.
        with ThreadPoolExecutor(1) as aside:
            cluster, client = aside.submit(_dask, tasks).result()
            try:
                # One machine a worker at a time: two in turn would wait for each other.
                yield client.get_executor(pure=False, resources={"machine": 1})
            finally:
                aside.submit(client.close).result()
                aside.submit(cluster.close).result()
    else:
        raise ValueError(f"where must be one of {', '.join(WHERE)}, got {where!r}")


def _dask(tasks: int) -> tuple[Any, Any]:
    """A cluster of this machine with so many workers, and a client of it."""
    import distributed

    cluster = distributed.LocalCluster(
        n_workers=tasks, threads_per_worker=1, processes=True, host="127.0.0.1",
        dashboard_address=None, silence_logs=logging.ERROR, resources={"machine": 1},
    )  # fmt: skip
    client = distributed.Client(cluster.scheduler_address)
    client.wait_for_workers(tasks, timeout=120)
    return cluster, client
