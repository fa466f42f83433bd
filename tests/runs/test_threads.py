"""`rclib.runs.threads` against threadpoolctl itself."""

from __future__ import annotations

import numpy as np
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

from rclib.runs import threads
from rclib.runs.threads import one_thread


def _counts() -> list[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return [pool["num_threads"] for pool in threadpool_info()]


def test_one_thread_while_it_lasts_and_then_as_many_as_before() -> None:
    with threadpool_limits(limits=2):
        before = _counts()
        with one_thread():
            assert set(_counts()) == {1}
        assert _counts() == before
        with one_thread():  # from what was found before
            assert set(_counts()) == {1}
        assert _counts() == before


def test_libraries_are_looked_for_once_as_long_as_no_module_is_loaded() -> None:
    first = threads._pools(-1)
    assert isinstance(first, ThreadpoolController)
    assert threads._pools(-1) is first
    assert threads._pools(-2) is not first
