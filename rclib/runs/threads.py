"""One thread for the linear algebra, without looking for its libraries every time.

`threadpoolctl.threadpool_limits` asks the process for all libraries that it has loaded, which takes
some milliseconds: as long as a small run. Libraries come with modules, so what was found is kept
as long as no module was loaded since.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


@lru_cache(maxsize=1)
def _pools(modules: int) -> ThreadpoolController:
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """While this lasts, BLAS and OpenMP of this process have one thread; then as many as before."""
    limit: AbstractContextManager[Any] = _pools(len(sys.modules)).limit(limits=1)
    return limit
