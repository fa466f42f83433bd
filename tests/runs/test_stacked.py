"""runs.stacked: runs computed in groups and stored one by one; real stacks, failures, processes."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from rclib.data.images import load
from rclib.runs import store, sweep
from rclib.runs.code import code_of
from rclib.runs.stacked import sweep_stacked

# `train` writes down what it was called with, in files: worker processes share no lists.
RUNS = """
import json
import os
from pathlib import Path

import numpy as np
import torch

from rclib.nets.mlp import MLP
from rclib.nets.stack import stack
from rclib.training.stacked import epoch_batches, train_stack

LOG = Path(os.environ["RCLIB_TEST_LOG"])


def _note(group, shared):
    names = [m["seed"] for m in group]
    (LOG / f"{len(list(LOG.iterdir())):02d} {os.getpid()} {names[0]}").write_text(
        json.dumps([names, shared])
    )


def train(data, *, group, width, steps):
    _note(group, {"width": width, "steps": steps})
    models = [MLP(64, width, 10, parametrization="SP", seed=m["seed"]) for m in group]
    end, found = train_stack(
        stack(models),
        epoch_batches(data.x_train, data.y_train, batch_size=16, seeds=[m["seed"] for m in group]),
        torch.nn.functional.cross_entropy,
        steps=steps,
        lr=[m["lr"] for m in group],
        optimizer="momentum",
    )
    return {"loss": found["loss"].T.numpy(), "W1": end.tensors["W1"].numpy()}


def echo(data, *, group, k=0, fail=()):
    for m in group:
        if m["seed"] in fail and m.get("how") == "error":
            raise RuntimeError(f"seed {m['seed']} is broken")
        if m["seed"] in fail and m.get("how") == "interrupt":
            raise KeyboardInterrupt
    _note(group, {"k": k})
    return {"seed": np.array([m["seed"] for m in group]), "k": np.full(len(group), k)}


def wrong(data, *, group):
    return {"mean": np.zeros(3)}
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
    module = tmp_path / "stacked_test_runs.py"
    module.write_text(RUNS)
    os.utime(module, (1, 1))  # older than this process, like an installed module
    monkeypatch.setenv("RCLIB_TEST_LOG", str(tmp_path / "log"))
    monkeypatch.syspath_prepend(str(tmp_path))
    store.code_behind.cache_clear()
    yield importlib.import_module("stacked_test_runs")
    sys.modules.pop("stacked_test_runs")


def groups(tmp_path: Path) -> list[list[int]]:
    """The seeds of every group that was computed, in order."""
    files = sorted((tmp_path / "log").iterdir())
    return [json.loads(file.read_text())[0] for file in files]


def training(seeds: list[int], width: int = 8, lr: float = 0.1) -> list[dict[str, Any]]:
    return [{"width": width, "steps": 5, "seed": s, "lr": lr * (s + 1)} for s in seeds]


def same(a: store.Arrays, b: store.Arrays) -> bool:
    return list(a) == list(b) and all(
        (a[k].dtype, a[k].shape, a[k].tobytes()) == (b[k].dtype, b[k].shape, b[k].tobytes())
        for k in a
    )


def test_one_entry_a_member_and_a_new_seed_computes_only_itself(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("digits").subset(100, 40)
    members = ["seed", "lr"]
    first = sweep_stacked(runs.train, training([0, 1, 2]), data=data, members=members)
    assert groups(tmp_path) == [[0, 1, 2]]
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 3
    assert first[1]["loss"].shape == (5,)
    assert first[1]["W1"].shape == (8, 64)
    more = sweep_stacked(runs.train, training([2, 7, 0, 1]), data=data, members=members)
    assert groups(tmp_path) == [[0, 1, 2], [7]]
    assert all(same(more[i], first[s]) for i, s in ((0, 2), (2, 0), (3, 1)))
    # Its numbers are those that it has among others, and so is its key.
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "other"))
    among = sweep_stacked(runs.train, training([7, 2]), data=data, members=members)
    assert groups(tmp_path)[2:] == [[7, 2]]
    assert same(among[0], more[1])
    assert same(among[1], first[2])
    found = [store.lookup(runs.train, c, data=data) for c in training([7, 2])]
    assert all(f is not None and same(f, a) for f, a in zip(found, among, strict=True))


@pytest.mark.slow
def test_two_workers_give_the_arrays_of_one(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load("digits").subset(100, 40)
    configs = training([0, 1, 2], 8) + training([0, 1], 12)
    results = []
    for workers in ("1", "2"):
        monkeypatch.setenv("RCLIB_WORKERS", workers)
        monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / workers))
        results.append(
            sweep_stacked(runs.train, configs, data=data, members=["seed", "lr"], group=2)
        )
    assert all(same(a, b) for a, b in zip(*results, strict=True))
    processes = {p.name.split()[1] for p in sorted((tmp_path / "log").iterdir())[3:]}
    assert str(os.getpid()) not in processes  # the second time in workers
    with ThreadPoolExecutor(2) as executor:
        monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "executor"))
        there = sweep_stacked(
            runs.train, configs, executor, data=data, members=["seed", "lr"], group=2
        )
    assert all(same(a, b) for a, b in zip(there, results[0], strict=True))


def test_results_come_in_the_order_of_the_configurations(runs: Any, tmp_path: Path) -> None:
    configs = [{"k": k, "seed": s} for s, k in ((5, 1), (3, 2), (4, 1), (5, 1), (9, 2), (0, 1))]
    found = sweep_stacked(runs.echo, configs, members=["seed"])
    assert [(int(f["seed"]), int(f["k"])) for f in found] == [
        (5, 1), (3, 2), (4, 1), (5, 1), (9, 2), (0, 1),
    ]  # fmt: skip
    assert groups(tmp_path) == [[5, 4, 0], [3, 9]]  # equal but for the seed; equal ones once


def test_groups_are_no_larger_than_asked_and_about_equal(runs: Any, tmp_path: Path) -> None:
    sweep_stacked(runs.echo, [{"seed": s} for s in range(9)], members=["seed"], group=4)
    assert groups(tmp_path) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    sweep_stacked(
        runs.echo, [{"seed": s} for s in range(20, 25)], members=["seed"], group=3,
        cost=lambda config: config["seed"],
    )  # fmt: skip
    assert groups(tmp_path)[3:] == [[20, 21, 22], [23, 24]]  # 63 and 47: the longest first
    assert sweep_stacked(runs.echo, [], members=["seed"]) == []


def test_a_failing_group_is_named_and_loses_no_other(runs: Any, tmp_path: Path) -> None:
    configs = [{"seed": s, "how": "error", "fail": [2]} for s in range(6)]
    with pytest.raises(sweep.SweepError) as caught:
        sweep_stacked(runs.echo, configs, members=["seed", "how"], group=2)
    assert str(caught.value) == (
        "2 of 6 configurations failed, the others are stored: "
        "echo(seed=2, how='error', fail=[2]): RuntimeError: seed 2 is broken; "
        "echo(seed=3, how='error', fail=[2]): RuntimeError: seed 2 is broken"
    )
    assert [f.position for f in caught.value.failures] == [2, 3]
    assert [r and int(r["seed"]) for r in caught.value.results] == [0, 1, None, None, 4, 5]
    stored = [store.lookup(runs.echo, c) is not None for c in configs]
    assert stored == [True, True, False, False, True, True]
    # Without the broken one its neighbour runs, alone.
    del configs[2]
    sweep_stacked(runs.echo, configs, members=["seed", "how"], group=2)
    assert groups(tmp_path) == [[0, 1], [4, 5], [3]]


@pytest.mark.slow
def test_a_failing_group_of_a_pool_loses_no_other(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLIB_WORKERS", "2")
    configs = [{"seed": s, "how": "error", "fail": [0]} for s in range(4)]
    with pytest.raises(sweep.SweepError, match=r"^2 of 4 .*seed 0 is broken.*seed 0 is broken$"):
        sweep_stacked(runs.echo, configs, members=["seed", "how"], group=2)
    assert groups(tmp_path) == [[2, 3]]
    assert store.lookup(runs.echo, configs[3]) is not None


def test_an_interrupted_sweep_goes_on_where_it_stopped(runs: Any, tmp_path: Path) -> None:
    """As from Ctrl-C in the second group: the first is kept, the others are computed next time."""
    configs = [{"seed": s, "how": "interrupt", "fail": [3]} for s in range(6)]
    with pytest.raises(KeyboardInterrupt):
        sweep_stacked(runs.echo, configs, members=["seed", "how"], group=2)
    assert groups(tmp_path) == [[0, 1]]
    configs[3]["how"] = "none"
    sweep_stacked(runs.echo, configs, members=["seed", "how"], group=2)
    assert groups(tmp_path) == [[0, 1], [2, 3], [4, 5]]


def test_results_without_a_row_a_member_are_refused(runs: Any) -> None:
    with pytest.raises(
        sweep.SweepError, match=r"'mean' of a group of 2 has shape \(3,\).*a group of 2"
    ):
        sweep_stacked(runs.wrong, [{"seed": 0}, {"seed": 1}], members=["seed"])


def test_seconds_of_a_group_are_shared_by_its_members(runs: Any) -> None:
    before = sweep.core_seconds()
    configs = [{"seed": s} for s in range(50, 54)]
    sweep_stacked(runs.echo, configs, members=["seed"])
    seconds = {store.seconds_spent(runs.echo, config) for config in configs}
    assert len(seconds) == 1
    assert sweep.core_seconds() - before == pytest.approx(4 * seconds.pop())


@pytest.mark.parametrize(
    ("configurations", "options", "message"),
    [
        ([{"seed": 1}, {"s": 1}], {}, r"configurations\[1\] must hold 'seed', got \{'s': 1\}"),
        ([{"seed": 1, "group": 2}], {}, r"configurations\[0\] must hold no key 'group'"),
        ([{"seed": 1}], {"members": "seed"}, "members must be names of keys.*, got 'seed'"),
        ([{"seed": 1}], {"members": []}, r"members must be names of keys.*, got \[\]"),
        ([{"seed": 1}], {"group": 0}, "group must be a positive integer, got 0"),
    ],
)
def test_bad_arguments_are_named(
    runs: Any, configurations: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sweep_stacked(runs.echo, configurations, **{"members": ["seed"], **options})


def test_how_runs_are_grouped_is_not_in_their_keys(tmp_path: Path) -> None:
    """A stored function that sweeps others in groups depends on those, not on this module."""
    (tmp_path / "nested_stacked_test.py").write_text(
        "from rclib.runs.stacked import sweep_stacked\n\n"
        "def inner(data, *, group):\n    return {}\n\n"
        "def run(data):\n    return sweep_stacked(inner, [], members=['seed'])\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        reached = code_of("nested_stacked_test", "run").definitions
    finally:
        sys.path.remove(str(tmp_path))
    assert reached == (("nested_stacked_test", "run"), ("nested_stacked_test", "inner"))
