"""Paper B's runs as the store and the sweeps take them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from rclib.experiments.spikes import teacher_runs
from rclib.runs import store, sweep
from rclib.teacher.problem import make_problem
from rclib.teacher.record import QUANTITIES, train_student

SMALL: dict[str, Any] = {"d": 20, "h": 30, "n": 60, "n_test": 10, "steps": 3}


def test_a_run_is_the_record_of_its_arguments() -> None:
    found = teacher_runs.student_run(
        None, seed=4, optimizer="adam", rate=0.7, gamma=0.6, noise=0.1, **SMALL
    )
    p = make_problem(4, d=20, h=30, n=60, n_test=10, noise=0.1)
    record = train_student(p, optimizer="adam", rate=0.7, steps=3, gamma=0.6)
    assert found.keys() == record.arrays().keys()
    for name, value in record.arrays().items():
        assert np.array_equal(found[name], value), name


def test_results_are_numeric_arrays_with_an_axis() -> None:
    found = teacher_runs.student_run(
        None, seed=0, optimizer="gd", rate=1.0, quantities=list(QUANTITIES), **SMALL
    )
    for name, value in found.items():
        assert value.dtype in (np.float32, np.float64, np.int64), name
        assert value.ndim >= 1, name  # the store would give a scalar back with an axis


def test_rates_and_optimizers_of_a_repeat_share_the_start() -> None:
    kept = [
        teacher_runs.student_run(
            None, seed=seed, optimizer=name, rate=rate, quantities=["weights", "losses"], **SMALL
        )
        for seed, name, rate in [(1, "gd", 1.0), (1, "adam", 30.0), (2, "gd", 1.0), (1, "gd", 1.0)]
    ]
    first, adam, other, again = kept
    for key in ("weights", "train_loss", "test_loss"):
        assert np.array_equal(first[key][0], adam[key][0])
        assert not np.array_equal(first[key][1], adam[key][1])
        assert not np.array_equal(first[key][0], other[key][0])
        assert np.array_equal(first[key], again[key])


def test_threads_of_the_caller_do_not_change_a_result() -> None:
    config = {**SMALL, "d": 150, "h": 200, "n": 300, "seed": 0, "optimizer": "adam", "rate": 1.0}
    with threadpool_limits(limits=1):
        one = teacher_runs.student_run(None, **config)
    teacher_runs.repeat.cache_clear()
    with threadpool_limits(limits=4):
        four = teacher_runs.student_run(None, **config)
    for name, value in one.items():
        assert np.array_equal(value, four[name]), name


def test_a_sweep_through_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path))
    configs = [
        {"seed": seed, "optimizer": name, "rate": rate, **SMALL}
        for seed in (0, 1)
        for name in ("gd", "adam")
        for rate in (0.1, 1e300)
    ]
    assert json.loads(json.dumps(configs)) == configs
    computed = sweep.run(teacher_runs.student_run, configs)
    for config, result in zip(configs, computed, strict=True):
        stored = store.lookup(teacher_runs.student_run, config)
        assert stored is not None
        for name, value in result.items():
            assert np.array_equal(stored[name], value, equal_nan=True)
            assert stored[name].shape == value.shape
        assert result["diverged_at"].tolist() == [1 if config["rate"] > 1 else -1]


def test_data_must_be_none() -> None:
    with pytest.raises(ValueError, match="data must be None"):
        teacher_runs.student_run(np.ones(3), seed=0, optimizer="gd", rate=1.0)  # type: ignore[arg-type]
