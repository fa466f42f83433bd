"""Results of an executor's tasks, each taken over the moment it is there.

A finished result that nobody has fetched is lost with the worker that holds it, and one whose
future is still held is computed again by a cluster when that worker dies, since it counts as
wanted. `Arrivals` fetches each result when it is ready and lets its future go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

__all__ = ["Arrivals"]

Label = TypeVar("Label")


class Arrivals(Generic[Label]):
    """Tasks of one executor, by label, and their outcomes in the order in which they end."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._submitted = 0
        self._pending: set[Future[Any]] = set()
        self._arrived: SimpleQueue[tuple[Label, Callable[[], Any]]] = SimpleQueue()

    def submit(self, label: Label, call: Callable[..., Any], *given: Any) -> None:
        """Start `call(*given)`. Raises RuntimeError if the executor takes no more tasks."""
        future = self._executor.submit(call, *given)
        self._submitted += 1
        self._pending.add(future)
        future.add_done_callback(partial(self._take_over, label))

    def _take_over(self, label: Label, future: Future[Any]) -> None:
        self._pending.discard(future)
        self._arrived.put((label, _outcome(future)))

    def __iter__(self) -> Iterator[tuple[Label, Callable[[], Any]]]:
        """(label, outcome) of each task as it ends; `outcome()` returns its result or raises."""
        while self._submitted:
            arrived = self._arrived.get()
            self._submitted -= 1
            yield arrived

    def cancel(self) -> None:
        """Nothing that has not begun is begun."""
        for future in list(self._pending):
            future.cancel()


def _outcome(future: Future[Any]) -> Callable[[], Any]:
    """What a finished future holds, without the future."""
    if future.cancelled():
        return partial(_raise, CancelledError())
    error = future.exception()  # not raised here, where its traceback would hold the future
    if error is not None:
        return partial(_raise, error)
    result = future.result()
    return lambda: result


def _raise(error: BaseException) -> Any:
    raise error
