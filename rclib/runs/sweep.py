"""Many runs of one experiment: in this process, over worker processes, or on a cluster.

`sweep(function, configurations, executor)` takes any `concurrent.futures.Executor` (a process
pool, Dask's `Client.get_executor(pure=False)`, ...) and uses nothing of it but `submit`. A run
has one thread, so its result does not depend on how many run side by side or where. This
process keeps each finished run as one file of the store: workers need no common disk, and an
interrupted sweep goes on where it stopped.

`run` is the same with a pool of `$RCLIB_WORKERS` processes of its own, which share one copy of
the data set.

A run that fetches other runs from the store (`store.fetch`) says which by `needs`. They are made
sure of first, each once; workers of an executor get their arrays along with the task, those of
`run` read them from the disk that they share.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from rclib.runs import store
from rclib.runs.arrivals import Arrivals
from rclib.runs.given import unfolded
from rclib.runs.source import Source
from rclib.runs.threads import one_thread

__all__ = [
    "Failure",
    "Jobs",
    "Need",
    "Needs",
    "SweepError",
    "asked",
    "core_seconds",
    "run",
    "sweep",
    "workers",
]

Config = Mapping[str, Any]
Need = tuple[store.Experiment, Config]
Needs = Callable[[Config], Sequence[Need]]

_shared: Source | None = None  # in a process of `run`: the data set of its sweep
_spent: dict[tuple[str, str], float] = {}  # seconds of every run that this process has asked for


@dataclass(frozen=True)
class Failure:
    """A configuration that ended with an error: its place in the list, itself, the error."""

    position: int
    configuration: dict[str, Any]
    error: BaseException


class SweepError(RuntimeError):
    """Some configurations failed; the finished ones are stored and will not run again.

    failures: one `Failure` a failed configuration, in the order of the configurations.
    results: the results in that order, None where a configuration failed.
    """

    def __init__(
        self, function: str, failures: list[Failure], results: list[store.Arrays | None]
    ) -> None:
        self.failures, self.results = failures, results
        shown = "; ".join(_one_line(function, f) for f in failures[:5])
        more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
        super().__init__(
            f"{len(failures)} of {len(results)} configurations failed, the others are stored: "
            f"{shown}{more}"
        )


def _one_line(function: str, failure: Failure) -> str:
    call = ", ".join(f"{key}={value!r}" for key, value in failure.configuration.items())
    message = " ".join(str(failure.error).split())
    return f"{function}({call}): {type(failure.error).__name__}: {message}"


def workers() -> int:
    """Number of worker processes: `$RCLIB_WORKERS`, default 1 (everything in this process).

    Raises ValueError for what is no positive integer.
    """
    text = os.environ.get("RCLIB_WORKERS", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"RCLIB_WORKERS must be a positive integer, got {text!r}")
    return int(text)


def asked() -> dict[str, float]:
    """Every run asked for in this process: its file below the store -> seconds that it took."""
    return {f"{name}/{key}.safetensors": seconds for (name, key), seconds in _spent.items()}


def core_seconds() -> float:
    """The sum of these, each on one core, whether it was computed now or earlier."""
    return sum(_spent.values())


def _start(data: Source | None) -> None:
    global _shared
    _shared = data
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever; end it instead."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _one_call_each(
    function: store.Experiment, data: Source | None, configs: Sequence[Config]
) -> list[store.Arrays]:
    return [function(data, **config) for config in configs]


def _alone(configurations: Sequence[Config]) -> list[list[int]]:
    return [[place] for place in range(len(configurations))]


@dataclass(frozen=True)
class Jobs:
    """Which runs are computed together: by default none, see `rclib.runs.stacked`.

    split: the configurations to compute -> places in them, a list a job.
    call: (function, data, the configurations of a job) -> their results, in a worker; picklable.
    """

    split: Callable[[Sequence[Config]], list[list[int]]] = _alone
    call: Callable[[store.Experiment, Source | None, Sequence[Config]], Sequence[store.Arrays]] = (
        _one_call_each
    )


def _compute(
    function: store.Experiment,
    configurations: Sequence[Config],
    data: Source | None,
    keys: Sequence[str],
    jobs: Jobs = Jobs(),
    handed: Mapping[str, store.Arrays] = MappingProxyType({}),
) -> list[tuple[store.Arrays, float]]:
    """One job in a worker: arrays and seconds of each of its runs, which share the job's time.

    `keys` are what the sweep knows the runs by, `handed` the runs that they need, by key.
    """
    torch.set_num_threads(1)
    data = _shared if data is None else data
    if [store.run_key(function, config, data=data) for config in configurations] != list(keys):
        raise RuntimeError(
            f"the worker would run something else than was asked for: its copy of "
            f"{function.__module__} or what that imports, its torch or numpy, or its device is "
            "not that of the sweep (was the code edited meanwhile?)"
        )
    begin = time.monotonic()
    with one_thread(), store.handing(handed):
        found = jobs.call(function, data, configurations)
    results = [
        {name: np.asarray(value, order="C") for name, value in arrays.items()} for arrays in found
    ]
    seconds = (time.monotonic() - begin) / len(results)
    return [(arrays, seconds) for arrays in results]


def sweep(
    function: store.Experiment,
    configurations: Iterable[Config],
    executor: Executor | None = None,
    *,
    data: Source | None = None,
    cost: Callable[[Config], float] | None = None,
    description: str = "runs",
    jobs: Jobs = Jobs(),
    needs: Needs | None = None,
) -> list[store.Arrays]:
    """Results of `function(data, **configuration)`, in the order of `configurations`.

    function: of a module that the workers can import; returns numpy arrays by name. The
        keywords of a `functools.partial` count as part of each configuration.
    configurations: keyword arguments, plain JSON or numpy numbers; any iterable. Equal ones run
        once.
    executor: where runs go, by `submit` or Dask's Client, left open; None: here, in turn.
    data: goes along with every configuration; on a cluster let the function load a large one.
    cost: estimate of a run's length; the longest start first, so that none is left for the end.
    jobs: runs that are computed together.
    needs: configuration -> the (function, configuration) of the runs that it fetches, on the
        same data. They run in the same way, unless they are stored, and go along with the task.
        A needed run that itself needs others has to be swept before.

    Runs found in the store are not computed again, and each new one is stored as soon as it
    is finished. Raises SweepError, after all others are finished and stored, if a
    configuration failed; TypeError if one is not plain JSON or the executor is none.
    """
    if callable(getattr(executor, "get_executor", None)):  # Dask's Client
        executor = executor.get_executor(pure=False)  # type: ignore[union-attr]
    if executor is not None and not callable(getattr(executor, "submit", None)):
        needed = "executor must have the `submit` of a concurrent.futures.Executor"
        raise TypeError(f"{needed}, got {type(executor).__name__}")
    torch.set_num_threads(1)  # what the keys say
    function, listed = unfolded(function, configurations)
    return _sweep(
        function,
        listed,
        lambda _: nullcontext(executor),
        data,
        data,
        cost,
        description,
        jobs,
        needs,
        hand=executor is not None,
    )


def _sweep(
    function: store.Experiment,
    configurations: Sequence[Config],
    where: Callable[[int], AbstractContextManager[Executor | None]],  # for a number of jobs
    data: Source | None,
    sent: Source | None,  # what goes along with a run: `data`, or None where workers hold it
    cost: Callable[[Config], float] | None,
    description: str,
    jobs: Jobs,
    needs: Needs | None,
    *,
    hand: bool,  # needed runs go along with a task, since workers may have another store
) -> list[store.Arrays]:
    keys = [store.run_key(function, config, data=data) for config in configurations]
    of_key = {key: dict(config) for key, config in zip(keys, configurations, strict=True)}
    results: dict[str, store.Arrays] = {}
    errors: dict[str, BaseException] = {}
    for key, config in of_key.items():
        found = store.lookup(function, config, data=data)
        if found is not None:
            results[key] = found
    new = [key for key in of_key if key not in results]
    needed: dict[str, dict[str, Need]] = {}
    if needs is not None:
        needed = {key: _needed(needs, of_key[key], data) for key in new}
        failed = _make_sure(needed, where, data, sent, description, hand=hand)
        errors = {key: failed[n] for key in new for n in needed[key] if n in failed}
        new = [key for key in new if key not in errors]
    carried: dict[str, store.Arrays] = {}  # read once, however many tasks they go along with

    def luggage(job: list[str]) -> dict[str, store.Arrays]:
        wanted = {n: need for key in job for n, need in needed.get(key, {}).items()} if hand else {}
        for n, (other, config) in wanted.items():
            if n not in carried:
                found = store.lookup(other, config, data=data)
                if found is not None:  # else the worker computes it again
                    carried[n] = found
        return {n: carried[n] for n in wanted if n in carried}

    todo = [[new[place] for place in places] for places in jobs.split([of_key[key] for key in new])]
    if cost is not None:
        todo.sort(key=lambda job: -sum(cost(of_key[key]) for key in job))

    def finish(job: list[str], outcome: Callable[[], list[tuple[store.Arrays, float]]]) -> None:
        try:
            found = outcome()
        except Exception as error:
            errors.update(dict.fromkeys(job, error))
        else:
            for key, (arrays, seconds) in zip(job, found, strict=True):
                store.keep(function, of_key[key], arrays, key=key, seconds=seconds, data=data)
                results[key] = arrays
        bar.update(len(job))

    bar = tqdm(
        total=len(of_key),
        initial=len(results),
        desc=description,
        unit="run",
        leave=False,
        # Said here because tqdm's notebook bars do not heed the variable themselves.
        disable=os.environ.get("TQDM_DISABLE", "") not in ("", "0"),
    )
    with bar, where(len(todo)) as executor:
        if executor is None:
            for job in todo:
                configs = [of_key[key] for key in job]
                finish(job, partial(_compute, function, configs, data, job, jobs))
        else:
            tasks: Arrivals[list[str]] = Arrivals(executor)
            try:
                for job in todo:
                    configs = [of_key[key] for key in job]
                    try:
                        tasks.submit(
                            job, _compute, function, configs, sent, job, jobs, luggage(job)
                        )
                    except RuntimeError as error:  # the pool broke, or was shut down
                        errors.update(dict.fromkeys(job, error))
                for job, outcome in tasks:
                    finish(job, outcome)
            except BaseException:  # an interruption, a full disk: nothing more is started
                tasks.cancel()
                raise
    for key, config in of_key.items():
        _spent[function.__qualname__, key] = store.seconds_spent(function, config, data=data)
    if errors:
        failures = [
            Failure(i, dict(configurations[i]), errors[key])
            for i, key in enumerate(keys)
            if key in errors
        ]
        ordered = [results.get(key) for key in keys]
        raise SweepError(function.__name__, failures, ordered) from failures[0].error
    return [results[key] for key in keys]


def _needed(needs: Needs, config: Config, data: Source | None) -> dict[str, Need]:
    """The runs that one configuration needs, by key."""
    return {
        store.run_key(other, one, data=data): (other, dict(one)) for other, one in needs(config)
    }


def _make_sure(
    needed: Mapping[str, Mapping[str, Need]],
    where: Callable[[int], AbstractContextManager[Executor | None]],
    data: Source | None,
    sent: Source | None,
    description: str,
    *,
    hand: bool,
) -> dict[str, BaseException]:
    """Compute the needed runs that are not stored, each once; returns the errors of those that
    failed, by key."""
    missing: dict[store.Experiment, dict[str, Config]] = {}
    for key, (other, config) in {k: n for one in needed.values() for k, n in one.items()}.items():
        if store.lookup(other, config, data=data) is None:
            missing.setdefault(other, {})[key] = config
    failed: dict[str, BaseException] = {}
    for other, configs in missing.items():
        try:
            _sweep(
                other,
                list(configs.values()),
                where,
                data,
                sent,
                None,
                f"{description}: what they start from",
                Jobs(),
                None,
                hand=hand,
            )
        except SweepError as error:
            failed |= {list(configs)[one.position]: one.error for one in error.failures}
    return failed


def run(
    function: store.Experiment,
    configs: Iterable[Config],
    *,
    data: Source | None = None,
    cost: Callable[[Config], float] | None = None,
    description: str = "runs",
    jobs: Jobs = Jobs(),
    needs: Needs | None = None,
) -> list[store.Arrays]:
    """`sweep` over `$RCLIB_WORKERS` processes of this machine; the data set is in memory once."""
    torch.set_num_threads(1)
    limit = workers()

    def where(todo: int) -> AbstractContextManager[Executor | None]:
        if min(limit, todo) <= 1:
            return nullcontext()
        shared = data.share_memory() if data is not None else None
        return ProcessPoolExecutor(
            min(limit, todo), get_context("spawn"), initializer=_start, initargs=(shared,)
        )

    function, listed = unfolded(function, configs)
    return _sweep(function, listed, where, data, None, cost, description, jobs, needs, hand=False)
