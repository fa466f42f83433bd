"""runs.sweep on a real Dask cluster: two worker processes, reached by the scheduler's address."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rclib.runs import store, sweep

distributed = pytest.importorskip("distributed", reason="the extra [cluster] is not installed")

# The first run on each worker waits until the test has seen both and killed one of them.
RUNS = """
import os
import time
from pathlib import Path

import numpy as np
import torch

LOG = Path(os.environ["RCLIB_TEST_LOG"])


def noise(data, *, seed, fail=False):
    (LOG / f"start {seed} {os.getpid()} {time.monotonic_ns()}").touch()
    deadline = time.monotonic() + 60
    while not (LOG / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    if fail:
        raise RuntimeError(f"seed {seed} is broken")
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(60, 40, generator=generator, dtype=torch.float64)
    (LOG / f"done {seed} {os.getpid()} {time.monotonic_ns()}").touch()
    threads = np.array(torch.get_num_threads())
    return {"singular": torch.linalg.svdvals(w).numpy(), "threads": threads}


def grown(data, *, source, width):
    from rclib.runs import store
    run = store.fetch(noise, source)
    return {"grown": np.resize(run["singular"], width), "process": np.array(os.getpid())}


def needs(config):
    return [(noise, config["source"])]
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "log").mkdir()
    module = tmp_path / "dask_test_runs.py"
    module.write_text(RUNS)
    os.utime(module, (1, 1))  # older than this process, like an installed module
    monkeypatch.setenv("RCLIB_TEST_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path[1:]]))
    monkeypatch.syspath_prepend(str(tmp_path))
    store.code_behind.cache_clear()
    threads = torch.get_num_threads()
    yield importlib.import_module("dask_test_runs")
    torch.set_num_threads(threads)
    sys.modules.pop("dask_test_runs")


@pytest.fixture
def client(runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)  # scratch files of the workers
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        distributed.Client(cluster.scheduler_address) as client,
    ):
        assert cluster.scheduler_address.startswith("tcp://127.0.0.1:")
        client.wait_for_workers(2, timeout=60)
        yield client


def events(tmp_path: Path, kind: str) -> list[tuple[int, int]]:
    """(seed, process) of the runs that started or were done."""
    names = [p.name.split() for p in (tmp_path / "log").glob(f"{kind} *")]
    return [(int(n[1]), int(n[2])) for n in names]


@pytest.mark.slow
def test_a_killed_worker_loses_no_run_and_a_failed_one_is_named(
    runs: Any, client: Any, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while len({p for _, p in events(tmp_path, "start")}) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        killed.append(events(tmp_path, "start")[0][1])
        os.kill(killed[0], signal.SIGKILL)
        (tmp_path / "log" / "go").touch()

    other = threading.Thread(target=kill_one)
    other.start()
    configs: list[dict[str, Any]] = [{"seed": seed} for seed in (7, 3, 5, 1, 2, 6, 4, 0)]
    found = sweep.sweep(runs.noise, configs, client.get_executor(pure=False))
    other.join()

    started, done = events(tmp_path, "start"), events(tmp_path, "done")
    assert os.getpid() not in {process for _, process in started}
    lost = [seed for seed, process in started if process == killed[0]]
    assert lost  # a run was under way in the worker that was killed ...
    assert all(process != killed[0] for _, process in done)  # ... never came to its end there ...
    assert {seed for seed, _ in done} == set(range(8))  # ... and was run again elsewhere.
    # In the order of the configurations, one file each, the same as computed here.
    for config, result in zip(configs, found, strict=True):
        w = torch.randn(
            60, 40, generator=torch.Generator().manual_seed(config["seed"]), dtype=torch.float64
        )
        torch.testing.assert_close(torch.from_numpy(result["singular"]), torch.linalg.svdvals(w))
        assert int(result["threads"]) == 1
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == len(configs)
    # The second time nothing runs, here or there.
    again = sweep.sweep(runs.noise, configs)
    assert all((a["singular"] == b["singular"]).all() for a, b in zip(found, again, strict=True))
    assert len(events(tmp_path, "done")) == len(done)

    # On what is left of the cluster a failed run is named, and the others are kept.
    configs = [{"seed": 11}, {"seed": 12, "fail": True}, {"seed": 13}]
    with pytest.raises(sweep.SweepError, match=r"noise\(seed=12, fail=True\): .*seed 12 is broken"):
        sweep.sweep(runs.noise, configs, client)  # in place of its executor
    assert [store.lookup(runs.noise, c) is not None for c in configs] == [True, False, True]


def tasks_held(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


@pytest.mark.slow
def test_what_a_killed_worker_had_finished_is_not_lost(
    runs: Any, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are fetched as soon as they are finished, not when the sweep comes to them: while
    the sweep still writes its first file, a worker that has finished everything is killed."""
    (tmp_path / "log" / "go").touch()
    keep = store.keep
    killed: list[int] = []

    def slow_disk(*given: Any, **more: Any) -> Any:
        if not killed:
            # However slow the machine: all were computed, and the cluster holds none any more.
            deadline = time.monotonic() + 120
            while len(events(tmp_path, "done")) < 8 or client.run_on_scheduler(tasks_held) > 0:
                assert time.monotonic() < deadline, events(tmp_path, "done")
                time.sleep(0.01)
            killed.append(events(tmp_path, "done")[0][1])
            os.kill(killed[0], signal.SIGKILL)
        return keep(*given, **more)

    monkeypatch.setattr(store, "keep", slow_disk)
    configs = [{"seed": seed} for seed in range(8)]
    found = sweep.sweep(runs.noise, configs, client)
    done = events(tmp_path, "done")
    assert sum(process == killed[0] for _, process in done) > 1
    assert sorted(seed for seed, _ in done) == list(range(8))  # none was computed again
    assert len(found) == 8
    assert all(store.lookup(runs.noise, config) is not None for config in configs)


def test_runs_without_a_common_disk_get_what_they_need(
    runs: Any, client: Any, tmp_path: Path
) -> None:
    """Three stores: this process's and one a worker. The source is computed once all the same."""
    (tmp_path / "log" / "go").touch()

    def own_store(folder: str, dask_worker: Any) -> None:
        os.environ["RCLIB_CACHE"] = f"{folder}/worker {dask_worker.name}"

    client.run(own_store, str(tmp_path))
    configs = [{"source": {"seed": s}, "width": n} for s in (1, 2) for n in (3, 50, 7, 11)]
    executor = client.get_executor(pure=False)
    found = sweep.sweep(runs.grown, configs, executor, needs=runs.needs)
    done = events(tmp_path, "done")
    assert sorted(seed for seed, _ in done) == [1, 2]
    assert os.getpid() not in {process for _, process in done}  # on the cluster too
    assert os.getpid() not in {int(run["process"]) for run in found}
    assert not list(tmp_path.glob("worker */**/*.safetensors"))
    for config, run in zip(configs, found, strict=True):
        source = store.lookup(runs.noise, config["source"])
        assert source is not None
        assert (run["grown"] == np.resize(source["singular"], config["width"])).all()
    # Without `needs` each worker would compute and store the source for itself.
    with_other = [{"source": {"seed": 3}, "width": n} for n in range(1, 9)]
    sweep.sweep(runs.grown, with_other, executor)
    assert list(tmp_path.glob("worker */noise/*.safetensors"))


@pytest.mark.slow
def test_the_guide_goes_from_laptop_to_cluster(client: Any) -> None:
    text = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    here, there = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(here, names)
    serial = names["records"]
    shutil.rmtree(os.environ["RCLIB_CACHE"])
    address = client.scheduler.address
    assert '"tcp://scheduler:8786"' in there
    exec(there.replace("tcp://scheduler:8786", address), names)
    names["client"].close()
    assert len(serial) == len(names["records"]) == 4
    for one, two in zip(serial, names["records"], strict=True):
        assert one.keys() == two.keys()
        assert all(one[k].tobytes() == two[k].tobytes() for k in one)
