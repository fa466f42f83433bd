"""Work on many matrices side by side: in threads, in bounded memory, results in order.

The linear algebra of one matrix runs on one core and without Python's lock, so that matrices of one
model keep as many cores busy as there are workers, and share what is in memory; on a machine that
others use as well, eight threads inside of each matrix wait for each other and are slower than one.
Results do not depend on the number of workers, bit for bit.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

from rclib.checks.arguments import count
from rclib.files.memory import available_memory

__all__ = ["cores", "in_order", "limited"]

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """`$RCLIB_WORKERS` if it is set, else the cores that this process may use.

    Raises ValueError for a variable that is no positive integer.
    """
    text = os.environ.get("RCLIB_WORKERS", "")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"RCLIB_WORKERS must be a positive integer, got {text!r}")
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """So many threads for the linear algebra of NumPy, SciPy and torch, and as before afterwards.

    Raises ValueError for what is no positive integer.
    """
    threads = count("threads", threads)
    before = torch.get_num_threads()
    with threadpool_limits(limits=threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class _Room:
    """Memory that those at work have asked for. What is larger than all of it comes alone."""

    def __init__(self, size: int) -> None:
        self.size, self.taken, self.change = size, 0, threading.Condition()

    @contextlib.contextmanager
    def take(self, size: int) -> Iterator[None]:
        with self.change:
            self.change.wait_for(lambda: not self.taken or self.taken + size <= self.size)
            self.taken += size
        try:
            yield
        finally:
            with self.change:
                self.taken -= size
                self.change.notify_all()


def in_order(
    work: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int = 1,
    size: Callable[[T], int] = lambda _: 0,
    threads: int = 1,
) -> Generator[R]:
    """work(item) of every item, in their order, `workers` at a time; with one in this thread.

    size : bytes that an item takes while it is worked on; items wait until there is room. threads :
    of torch in each worker (those of BLAS belong to the whole process: `limited`).
    The first exception is raised in its turn. Raises ValueError for workers that are no positive
    integer.
    """
    if count("workers", workers) == 1 or len(items) < 2:
        yield from map(work, items)
        return
    # Some of what is free is left for the results and for who else is there.
    room = _Room(available_memory() * 3 // 4)

    def one(item: T) -> R:
        with room.take(size(item)):
            return work(item)

    def start() -> None:
        torch.set_num_threads(threads)  # a setting of each thread

    pool = ThreadPoolExecutor(min(workers, len(items)), initializer=start)
    pending: deque[Future[R]] = deque()
    waiting = iter(items)
    try:
        for item in waiting:
            pending.append(pool.submit(one, item))
            if len(pending) > 2 * workers:  # so that finished results do not pile up
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # A generator that nobody holds may be closed in a worker, which cannot wait for itself.
        with contextlib.suppress(RuntimeError):
            pool.shutdown(wait=True, cancel_futures=True)
