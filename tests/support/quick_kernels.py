"""Kernels for tests that are about something else: forked ones, of the server that `make test` has
or of one for the whole module, and not measured by coverage (which would make them ordinary ones).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from rclib.execution import kernels, provisioner


@contextlib.contextmanager
def to_be_had() -> Iterator[None]:
    """Kernels are offered while this lasts; what a test starts itself is measured as ever."""
    with contextlib.nullcontext() if kernels.offered() else kernels.serving():
        yield


def use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of this process are forked until the test ends."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TQDM_DISABLE", "1")  # as the server has it
    provisioner.register()
