"""rclib.runs.sweep: real training runs in one process and in two, and sweeps that fail half-way."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rclib import paths
from rclib.data.images import load
from rclib.experiments.mean_field.mlp_runs import configuration, runs_needed, train_mlp
from rclib.runs import store, sweep

# `echo` writes down that it was called, in files: worker processes share no lists.
RUNS = """
import os
import time
from pathlib import Path

import numpy as np

LOG = Path(os.environ["RCLIB_TEST_LOG"])


def echo(data, *, x, fail=False, die=False, interrupt=False, wait_for=0):
    deadline = time.monotonic() + 60
    while len(list(LOG.glob("done*"))) < wait_for and time.monotonic() < deadline:
        time.sleep(0.01)
    if fail:
        raise RuntimeError(f"run {x} is broken")
    if die:
        os._exit(9)
    if interrupt:
        raise KeyboardInterrupt
    name = f"{len(list(LOG.iterdir())):02d} {x} {os.getpid()}"
    (LOG / f"start {name}").touch()
    time.sleep(0.01)
    (LOG / f"done {name}").touch()
    return {"x": np.asarray(x), "sum": np.asarray(data.x_test.sum() if data is not None else 0)}


def twice(data, *, source, times=2):
    from rclib.runs import store
    found = store.fetch(echo, source, data=data)["x"]
    found *= times  # arrays of its own
    # Two threads may count alike, so the name ends with what they are asked for.
    (LOG / f"start {len(list(LOG.iterdir())):02d} twice {source['x']} {times}").touch()
    return {"x": found}


def needs(config):
    return [(echo, config["source"])]
"""


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.delenv("RCLIB_WORKERS", raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "log").mkdir()
    module = tmp_path / "sweep_test_runs.py"
    module.write_text(RUNS)
    os.utime(module, (1, 1))  # older than this process, like an installed module
    monkeypatch.setenv("RCLIB_TEST_LOG", str(tmp_path / "log"))
    monkeypatch.syspath_prepend(str(tmp_path))
    store.code_behind.cache_clear()
    yield importlib.import_module("sweep_test_runs")
    sys.modules.pop("sweep_test_runs")


def finished(tmp_path: Path) -> list[tuple[int, int]]:
    """(x, process) of the runs that reached their end, in the order of their starts."""
    names = sorted(p.name for p in (tmp_path / "log").glob("done*"))
    return [(int(name.split()[2]), int(name.split()[3])) for name in names]


# --- results -------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_configs(runs: Any, tmp_path: Path) -> None:
    xs = [5, 1, 4, 2]
    configs = [{"x": x} for x in xs]
    results = sweep.run(runs.echo, configs, cost=lambda config: config["x"])
    assert [int(r["x"]) for r in results] == xs
    assert [x for x, _ in finished(tmp_path)] == [5, 4, 2, 1]  # the longest first
    # Nothing is computed a second time, and new runs go where they belong.
    again = sweep.run(runs.echo, [{"x": 2}, {"x": 3}, {"x": 5}])
    assert [int(r["x"]) for r in again] == [2, 3, 5]
    assert [x for x, _ in finished(tmp_path)] == [5, 4, 2, 1, 3]
    assert sweep.run(runs.echo, []) == []


def test_without_a_cost_the_order_of_the_configs_is_kept(runs: Any, tmp_path: Path) -> None:
    sweep.run(runs.echo, [{"x": x} for x in (3, 1, 2)])
    assert [x for x, _ in finished(tmp_path)] == [3, 1, 2]


@pytest.mark.slow
def test_two_workers_give_the_arrays_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real training: the data are shared, the results are the same bit for bit."""
    data = load("digits").subset(200, 50)
    configs = [
        configuration(
            width=width, seed=seed, epochs=2, lr=0.1, batch_size=20, snapshots=[2], keep=["*"]
        )
        for width, seed in ((16, 0), (24, 1), (16, 2))
    ]
    results = []
    for workers in ("1", "2"):
        monkeypatch.setenv("RCLIB_WORKERS", workers)
        monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / workers))
        results.append(sweep.run(train_mlp, configs, data=data))
        assert len(list((tmp_path / workers).rglob("*.safetensors"))) == len(configs)
    for one, two in zip(*results, strict=True):
        assert one.keys() == two.keys()
        assert all(one[k].tobytes() == two[k].tobytes() for k in one)
        assert all((one[k].dtype, one[k].shape) == (two[k].dtype, two[k].shape) for k in one)
    finals = {r["test_loss"].tobytes() for r in results[0]}
    assert len(finals) == len(configs)  # different runs, not one run three times


# --- runs that need others -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["here", "two workers", "executor"])
def test_what_runs_need_is_computed_once_and_before_them(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    configs = [{"source": {"x": x}, "times": t} for x, t in ((3, 1), (3, 2), (4, 3), (3, 4))]
    if how == "executor":
        with ThreadPoolExecutor(2) as pool:
            results = sweep.sweep(runs.twice, configs, pool, needs=runs.needs)
    else:
        monkeypatch.setenv("RCLIB_WORKERS", "2" if how == "two workers" else "1")
        results = sweep.run(runs.twice, configs, needs=runs.needs)
    assert [int(r["x"]) for r in results] == [3, 6, 12, 12]
    assert sorted(x for x, _ in finished(tmp_path)) == [3, 4]
    names = sorted(p.name for p in (tmp_path / "log").glob("start*"))
    assert [name.split()[2] == "twice" for name in names] == [False] * 2 + [True] * 4
    # Stored runs ask for nothing any more, not even for what they needed.
    for path in (tmp_path / "cache" / "echo").iterdir():
        path.unlink()
    sweep.run(runs.twice, configs, needs=runs.needs)
    assert len(finished(tmp_path)) == 2


def test_a_run_whose_need_fails_fails_with_its_error(runs: Any, tmp_path: Path) -> None:
    bad = {"x": 5, "fail": True}
    configs = [{"source": {"x": 3}}, {"source": bad}, {"source": bad, "times": 4}]
    with pytest.raises(sweep.SweepError, match=r"2 of 3 .*RuntimeError: run 5 is broken") as caught:
        sweep.run(runs.twice, configs, needs=runs.needs)
    assert [f.position for f in caught.value.failures] == [1, 2]
    assert [r and int(r["x"]) for r in caught.value.results] == [6, None, None]
    assert finished(tmp_path) == [(3, os.getpid())]


def test_transfers_say_which_runs_they_start_from() -> None:
    source = configuration(width=6, seed=0, epochs=1, lr=0.1, batch_size=32)
    for config in ({"source": source}, {"source": source, "reference": {**source, "seed": 1}}):
        found = runs_needed(config)
        assert found == [(train_mlp, config[key]) for key in config]
    assert runs_needed({"source": source, "reference": None}) == [(train_mlp, source)]


# --- failures ------------------------------------------------------------------------------


def test_a_failed_run_is_named_and_the_others_are_kept(runs: Any, tmp_path: Path) -> None:
    configs: list[dict[str, Any]] = [{"x": 1}, {"x": 2}, {"x": 3, "fail": True}, {"x": 4}]
    with pytest.raises(sweep.SweepError) as caught:
        sweep.run(runs.echo, configs)
    assert str(caught.value) == (
        "1 of 4 configurations failed, the others are stored: "
        "echo(x=3, fail=True): RuntimeError: run 3 is broken"
    )
    (failure,) = caught.value.failures
    assert (failure.position, failure.configuration) == (2, configs[2])
    assert failure.error is caught.value.__cause__
    values = [r and int(r["x"]) for r in caught.value.results]
    assert values == [1, 2, None, 4]
    assert [store.lookup(runs.echo, c) is not None for c in configs] == [True, True, False, True]
    sweep.run(runs.echo, [configs[i] for i in (0, 1, 3)])
    assert [x for x, _ in finished(tmp_path)] == [1, 2, 4]


def test_many_failures_are_counted_and_the_first_five_shown(runs: Any) -> None:
    with pytest.raises(sweep.SweepError, match=r"^7 of 8 .*; and 2 more$") as caught:
        sweep.run(runs.echo, [{"x": x, "fail": x > 0} for x in range(8)])
    assert [f.position for f in caught.value.failures] == list(range(1, 8))


@pytest.mark.slow
def test_finished_runs_of_two_workers_are_kept_when_another_fails(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLIB_WORKERS", "2")
    data = load("digits").subset(100, 40)
    configs: list[dict[str, Any]] = [{"x": 0, "fail": True, "wait_for": 3}]
    configs += [{"x": x} for x in (1, 2, 3)]
    with pytest.raises(sweep.SweepError, match="run 0 is broken"):
        sweep.run(runs.echo, configs, data=data)
    found = [store.lookup(runs.echo, config, data=data) for config in configs]
    assert found[0] is None
    for config, result in zip(configs[1:], found[1:], strict=True):
        assert result is not None
        assert int(result["x"]) == config["x"]
        assert result["sum"] == data.x_test.sum().numpy()  # the worker saw the same data
    # Run 0 held one worker, so the others were all in the second, and none was here.
    (process,) = {process for _, process in finished(tmp_path)}
    assert process != os.getpid()


@pytest.mark.slow
def test_a_killed_worker_of_the_pool_is_reported_and_the_sweep_goes_on_next_time(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLIB_WORKERS", "2")
    configs: list[dict[str, Any]] = [{"x": 0, "die": True, "wait_for": 2}]
    configs += [{"x": x} for x in (1, 2)]
    with pytest.raises(sweep.SweepError, match=r"echo\(x=0, die=True, .*BrokenProcessPool"):
        sweep.run(runs.echo, configs)
    # The pool breaks as a whole; what its other worker had finished may or may not have come.
    monkeypatch.setenv("RCLIB_WORKERS", "1")
    again = sweep.run(runs.echo, configs[1:])
    assert [int(r["x"]) for r in again] == [1, 2]


# --- executors -----------------------------------------------------------------------------


class Backwards(Executor):
    """Runs everything at once, the last first; has nothing but `submit`."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Any]] = []
        self.expected = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, partial(fn, *args, **kwargs)))
        if len(self.waiting) == self.expected:
            for each, call in reversed(self.waiting):
                try:
                    each.set_result(call())
                except Exception as error:
                    each.set_exception(error)
        return future


def test_any_executor_gives_the_results_of_the_serial_sweep(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [{"x": x} for x in (5, 1, 4, 1)]
    serial = sweep.sweep(runs.echo, configs)
    assert len(finished(tmp_path)) == 3  # equal configurations run once
    with ThreadPoolExecutor(2) as threads:
        for executor in (Backwards(), threads):
            if isinstance(executor, Backwards):
                executor.expected = 3
            name = type(executor).__name__
            monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / name))
            found = sweep.sweep(runs.echo, configs, executor)
            assert [int(r["x"]) for r in found] == [5, 1, 4, 1]
            assert all(a.keys() == b.keys() for a, b in zip(serial, found, strict=True))
            assert len(list((tmp_path / name).rglob("*.safetensors"))) == 3
        assert threads.submit(int, "7").result() == 7  # it is left open


def test_the_last_started_may_finish_first(runs: Any, tmp_path: Path) -> None:
    executor = Backwards()
    executor.expected = 3
    found = sweep.sweep(runs.echo, [{"x": x} for x in (1, 2, 3)], executor)
    assert [x for x, _ in finished(tmp_path)] == [3, 2, 1]
    assert [int(r["x"]) for r in found] == [1, 2, 3]


def test_an_interrupted_sweep_goes_on_where_it_stopped(runs: Any, tmp_path: Path) -> None:
    """As from Ctrl-C in the third run: the first two are kept and do not run again."""
    configs: list[dict[str, Any]] = [{"x": 1}, {"x": 2}, {"x": 3, "interrupt": True}, {"x": 4}]
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(runs.echo, configs)
    assert [x for x, _ in finished(tmp_path)] == [1, 2]
    sweep.sweep(runs.echo, [{"x": x} for x in (1, 2, 4)])
    assert [x for x, _ in finished(tmp_path)] == [1, 2, 4]


def test_an_executor_that_was_shut_down_fails_by_name(runs: Any) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(sweep.SweepError, match=r"echo\(x=1\): RuntimeError: cannot schedule"):
        sweep.sweep(runs.echo, [{"x": 1}], executor)


@pytest.mark.parametrize("wrong", [2, "dask", object()])
def test_what_is_no_executor_is_refused(runs: Any, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"executor must .* got {type(wrong).__name__}"):
        sweep.sweep(runs.echo, [{"x": 1}], wrong)


def test_a_worker_with_other_code_is_refused(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker would compute must be what the sweep stores it as."""
    config = {"x": 1}
    key = store.run_key(runs.echo, config, data=None)
    with pytest.raises(RuntimeError, match="its copy of sweep_test_runs"):
        sweep._compute(runs.echo, [{"x": 2}], None, [key])
    monkeypatch.setattr(torch, "__version__", "0.0")
    with pytest.raises(RuntimeError, match="its torch or numpy, or its device"):
        sweep._compute(runs.echo, [config], None, [key])


# --- settings ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", " "])
def test_wrong_number_of_workers_is_named_before_anything_runs(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("RCLIB_WORKERS", text)
    message = f"RCLIB_WORKERS must be a positive integer, got '{text}'"
    with pytest.raises(ValueError, match=re.escape(message)):
        sweep.workers()
    with pytest.raises(ValueError, match=re.escape(message)):
        sweep.run(runs.echo, [{"x": 1}])
    assert finished(tmp_path) == []


def test_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep.workers() == 1
    monkeypatch.setenv("RCLIB_WORKERS", "12")
    assert sweep.workers() == 12


def test_runs_have_one_thread_whatever_was_set(runs: Any) -> None:
    torch.set_num_threads(2)
    sweep.run(runs.echo, [{"x": 1}])
    assert torch.get_num_threads() == 1
    assert store.lookup(runs.echo, {"x": 1}) is not None


def test_core_seconds_count_a_run_once_and_also_when_it_was_found(runs: Any) -> None:
    before = sweep.core_seconds()
    sweep.run(runs.echo, [{"x": 101}, {"x": 102}])
    spent = sweep.core_seconds() - before
    stored = [store.seconds_spent(runs.echo, {"x": x}) for x in (101, 102)]
    assert min(stored) >= 0.01  # each run sleeps that long
    assert spent == pytest.approx(sum(stored))
    assert sum(sweep.asked().values()) == pytest.approx(sweep.core_seconds())
    assert sum((paths.cache_dir() / file).is_file() for file in sweep.asked()) >= 2
    sweep.run(runs.echo, [{"x": 102}, {"x": 101}])
    assert sweep.core_seconds() - before == pytest.approx(spent)


def test_numpy_numbers_generators_and_partials_are_the_same_runs(runs: Any, tmp_path: Path) -> None:
    wanted = sweep.sweep(runs.echo, [{"x": x, "wait_for": 0} for x in (1, 2)])
    for function, configurations in (
        (runs.echo, [{"x": x, "wait_for": np.int8(0)} for x in np.arange(1, 3)]),
        (runs.echo, ({"x": x, "wait_for": 0} for x in (1, 2))),
        (partial(runs.echo, wait_for=0), [{"x": 1}, {"x": 2}]),
        (partial(partial(runs.echo, wait_for=9, x=7), wait_for=0), [{"x": 1}, {"x": 2}]),
    ):
        found = sweep.sweep(function, configurations)
        assert [int(r["x"]) for r in found] == [int(r["x"]) for r in wanted]
    assert len(list(tmp_path.glob("**/done*"))) == 2  # each was computed once
    with ThreadPoolExecutor(1) as pool:
        assert (
            len(sweep.sweep(partial(runs.echo, wait_for=0), iter([{"x": np.int64(1)}]), pool)) == 1
        )
    assert len(sweep.run(partial(runs.echo, wait_for=0), iter([{"x": 1}]))) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: (partial(f, None), [{"x": 1}]), "can only have keywords"),
        (lambda f: (f, {"x": 1}), "got one mapping"),
        (lambda f: (f, [1]), "must map names to values"),
        (lambda f: (f, [{"x": np.ones(3)}]), "must be plain JSON"),
        (lambda f: ("echo", [{"x": 1}]), "must be a function of a module"),
    ],
)
def test_sweeps_of_other_things_are_named(runs: Any, make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        sweep.sweep(*make(runs.echo))
