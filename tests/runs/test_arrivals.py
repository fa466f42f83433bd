"""runs.arrivals: every outcome once, in the order of their ends, and no future held."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from rclib.runs.arrivals import Arrivals


class ByHand(Executor):
    """Tasks end when the test says so; the executor itself holds no future."""

    def __init__(self) -> None:
        self.calls: list[tuple[weakref.ref[Future[Any]], Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.calls.append((weakref.ref(future), fn))
        return future

    def end(self, place: int, result: Any) -> None:
        future = self.calls[place][0]()
        assert future is not None
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


def test_in_the_order_of_their_ends_and_let_go_before_they_are_asked_for() -> None:
    by_hand = ByHand()
    tasks: Arrivals[str] = Arrivals(by_hand)
    for name in "abc":
        tasks.submit(name, print)
    by_hand.end(2, 20)
    by_hand.end(0, ValueError("no a"))
    gc.collect()
    assert [ref() is None for ref, _ in by_hand.calls] == [True, False, True]
    found = iter(tasks)
    name, outcome = next(found)
    assert (name, outcome()) == ("c", 20)
    name, outcome = next(found)
    assert name == "a"
    with pytest.raises(ValueError, match="no a"):
        outcome()
    by_hand.end(1, None)
    assert [(name, outcome()) for name, outcome in found] == [("b", None)]


def test_what_is_cancelled_arrives_as_cancelled() -> None:
    tasks: Arrivals[int] = Arrivals(ByHand())
    tasks.submit(1, print)
    tasks.cancel()
    ((label, outcome),) = tasks
    assert label == 1
    with pytest.raises(CancelledError):
        outcome()


def test_a_pool_that_was_shut_down_is_said_at_once() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    tasks: Arrivals[int] = Arrivals(pool)
    with pytest.raises(RuntimeError, match="shutdown"):
        tasks.submit(1, print)
    assert list(tasks) == []
