"""rclib.inspection.side_by_side: order, memory, threads."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from threadpoolctl import threadpool_info

from rclib.inspection import side_by_side
from rclib.inspection.side_by_side import cores, in_order, limited


def test_results_come_in_order_and_workers_work_together() -> None:
    together = threading.Barrier(3, timeout=20)

    def work(i: int) -> tuple[int, int]:
        if i < 3:
            together.wait()  # all three are at it at once, or this fails
        time.sleep(0.002 * (9 - i))
        return i, torch.get_num_threads()

    found = list(in_order(work, range(9), workers=3, threads=1))
    assert found == [(i, 1) for i in range(9)]
    assert list(in_order(lambda i: i * i, [3, 4])) == [9, 16]
    assert list(in_order(lambda i: i, [], workers=4)) == []


def test_what_is_large_waits_until_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "available_memory", lambda: 400)  # room for 300
    lock, now, most = threading.Lock(), [0], [0]

    def work(size: int) -> int:
        with lock:
            now[0] += size
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= size
        return size

    sizes = [100, 200, 50, 1000, 120, 90, 300, 10]  # 1000 comes alone
    assert list(in_order(work, sizes, workers=4, size=lambda s: s)) == sizes
    assert most[0] <= 1000


def test_an_error_is_raised_in_its_turn_and_nothing_is_left_running() -> None:
    def work(i: int) -> int:
        if i == 3:
            raise KeyError(i)
        return i

    before = threading.active_count()
    results = in_order(work, range(8), workers=3)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="workers must be a positive integer, got 0"):
        list(in_order(work, [1, 2], workers=0))


def test_limited_holds_for_all_and_gives_back() -> None:
    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info()}

    before, own = threads(), torch.get_num_threads()
    with limited(1):
        assert threads() == {1}
        assert torch.get_num_threads() == 1
    assert (threads(), torch.get_num_threads()) == (before, own)
    with pytest.raises(ValueError, match="threads must be a positive integer"), limited(0):
        pass


def test_cores_follow_the_variable_of_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RCLIB_WORKERS", raising=False)
    assert cores() >= 1
    monkeypatch.setenv("RCLIB_WORKERS", "7")
    assert cores() == 7
    monkeypatch.setenv("RCLIB_WORKERS", "many")
    with pytest.raises(ValueError, match="RCLIB_WORKERS must be a positive integer, got 'many'"):
        cores()
