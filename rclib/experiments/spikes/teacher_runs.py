"""Runs of paper B's student, in the form that sweeps and the store of runs take.

`run(None, seed=0, optimizer="adam", rate=1.0)` is one run; all its arguments are plain JSON
and all its results numeric arrays. The seed alone fixes teacher, samples, W(0) and a, so all
rates and both optimisers of a repeat share them. Within a process the last repeat is kept, and
with it everything that depends on the start alone: in a list of configurations let the seed
vary slowest. Source: paper B, "Experiments".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rclib.runs.threads import one_thread
from rclib.teacher.problem import Problem, make_problem
from rclib.teacher.record import STANDARD, train_student

__all__ = ["repeat", "student_run"]


@lru_cache(maxsize=1)
def repeat(seed: int, d: int, h: int, n: int, n_test: int, noise: float) -> Problem:
    """`make_problem`; the last one is kept."""
    return make_problem(seed, d=d, h=h, n=n, n_test=n_test, noise=noise)


def student_run(
    data: None,
    *,
    seed: int,
    optimizer: str,
    rate: float | Sequence[float],
    steps: int = 10,
    gamma: float = 1.0,
    every: int = 1,
    d: int = 1000,
    h: int = 1500,
    n: int = 2000,
    n_test: int = 200,
    noise: float = 0.3,
    ridge: float = 0.01,
    record_at: Sequence[int] | None = None,
    losses_at: Sequence[int] | None = None,
    quantities: Sequence[str] = STANDARD,
    overlap_top: int = 50,
) -> dict[str, NDArray[Any]]:
    """One run as a flat table of arrays: `rclib.teacher.record.Record.arrays`, shapes there.

    data: None, as the samples are drawn from the seed.
    seed, d, h, n, n_test, noise: as in `rclib.teacher.problem.make_problem`.
    the others: as in `rclib.teacher.record.train`.

    A run that diverges is a result: `diverged_at` (1,) holds the step, -1 otherwise, and
    the rows from there on are NaN. The linear algebra runs on one thread, so that a result
    does not depend on the machine's number of cores.
    Raises ValueError for bad arguments, `data` among them.
    """
    if data is not None:
        raise ValueError(f"data must be None, the samples come from the seed; got {type(data)}")
    with one_thread():
        record = train_student(
            repeat(seed, d, h, n, n_test, noise),
            optimizer=optimizer,
            rate=rate,
            steps=steps,
            gamma=gamma,
            every=every,
            ridge=ridge,
            record_at=record_at,
            losses_at=losses_at,
            quantities=quantities,
            overlap_top=overlap_top,
            keep_diverged=True,
        )
        return {name: np.ascontiguousarray(array) for name, array in record.arrays().items()}
