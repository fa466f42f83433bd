"""The kernels of notebooks are forked where `make test` offers it, and not measured by coverage:
the tests cover the library alone.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from rclib.execution import kernels

if kernels.offered():
    from rclib.execution import provisioner

    provisioner.register()

# What coverage.py leaves in the environment for the processes that a test starts.
_MARKS = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """A notebook's kernel starts here, before its first cell: half the time without tracing."""
    kept = {name: os.environ.pop(name) for name in _MARKS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
