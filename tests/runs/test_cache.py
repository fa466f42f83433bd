"""rclib.runs.cache: what is in the store, what may go."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rclib.data.images import load
from rclib.files import atomic
from rclib.runs import cache, store

RUNS = """
import numpy as np


def ones(data, *, n):
    return {"x": np.ones(n) * SCALE}
"""


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "cache_test_runs.py"
    path.write_text(RUNS + "SCALE = 1\n")
    os.utime(path, (1, 1))
    monkeypatch.syspath_prepend(str(tmp_path))
    store.code_behind.cache_clear()
    yield path
    sys.modules.pop("cache_test_runs", None)


def kinds(root: Path | None = None) -> dict[str, int]:
    found = [entry.kind for entry in cache.entries(root)]
    return {kind: found.count(kind) for kind in cache.KINDS if kind in found}


def test_current_entries_are_those_that_a_run_would_find(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: Any = importlib.import_module("cache_test_runs")
    digits = load("digits").subset(100, 10)
    store.fetch(runs.ones, {"n": 3})
    store.fetch(runs.ones, {"n": 4}, data=digits)
    assert kinds() == {"current": 2}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "0.0.1")
        assert kinds() == {"stale": 2}
    module.write_text(RUNS + "SCALE = 2\n")
    os.utime(module, (1, 1))
    assert kinds() == {"stale": 2}
    # Going back makes them current again, and a change of layout never made them stale.
    module.write_text(RUNS + "\n\nSCALE = 1  # a remark\n")
    os.utime(module, (1, 1))
    assert kinds() == {"current": 2}
    module.unlink()
    importlib.invalidate_caches()
    assert kinds() == {"stale": 2}


def test_missing_are_those_that_a_run_would_not_find(module: Path, tmp_path: Path) -> None:
    runs: Any = importlib.import_module("cache_test_runs")
    for n in (3, 4):
        store.fetch(runs.ones, {"n": n})
    root = tmp_path / "cache"
    files = {str(path.relative_to(root)) for path in root.rglob("*.safetensors")}
    assert len(files) == 2
    assert cache.missing([*files, "ones/none.safetensors"]) == {"ones/none.safetensors"}
    (root / min(files)).write_bytes(b"half")
    assert cache.missing(files, root) == {min(files)}
    module.write_text(RUNS + "SCALE = 2\n")
    os.utime(module, (1, 1))
    assert cache.missing(files) == files


def leftovers(root: Path) -> dict[str, Path]:
    """One of each kind of leftover, and what must stay: files of others and of live writers."""
    (root / "ones").mkdir(parents=True, exist_ok=True)
    made = {
        "damaged": root / "ones" / ("a" * 64 + ".damaged"),
        "broken": root / "ones" / ("b" * 64 + ".safetensors"),
        "dead": root / "ones" / f".{'c' * 64}.safetensors.{atomic._system()}{'1' * 16}.tmp",
        "live": root / "ones" / f".{'d' * 64}.safetensors.1234.tmp",  # version 0.1.0
        "other": root / "ones" / "notes.txt",
        "unfinished": root / "unfinished" / ("e" * 64) / "state.safetensors",
    }
    for path in made.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    return made


def test_clean_removes_what_no_run_asks_for(module: Path, tmp_path: Path) -> None:
    runs: Any = importlib.import_module("cache_test_runs")
    store.fetch(runs.ones, {"n": 3})
    made = leftovers(tmp_path / "cache")
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"not of the store")
    (tmp_path / "cache" / "link.safetensors").symlink_to(outside)
    assert kinds() == {"current": 1, "damaged": 2, "half-written": 1, "unfinished": 1}
    removed = cache.clean(list(cache.entries()))
    assert {entry.path for entry in removed} == {made[k] for k in ("damaged", "broken", "dead")}
    assert [k for k, path in made.items() if path.exists()] == ["live", "other", "unfinished"]
    assert store.lookup(runs.ones, {"n": 3}) is not None
    cache.clean(list(cache.entries()), everything=True)
    assert kinds() == {}
    assert [k for k, path in made.items() if path.exists()] == ["live", "other"]
    assert outside.exists()


def test_an_old_half_written_file_goes_whoever_wrote_it(tmp_path: Path) -> None:
    live = leftovers(tmp_path / "cache")["live"]
    os.utime(live, (1, 1))
    assert kinds()["half-written"] == 2


def test_command_line(module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cache.main(["info"]) == 0  # an empty store is no error
    runs: Any = importlib.import_module("cache_test_runs")
    store.fetch(runs.ones, {"n": 1000})
    leftovers(tmp_path / "cache")
    capsys.readouterr()
    assert cache.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"store of finished runs: {tmp_path / 'cache'}"
    (entry,) = [e for e in cache.entries() if e.kind == "current"]
    assert entry.nbytes == entry.path.stat().st_size > 8000
    current = next(line for line in lines if line.startswith("current"))
    assert current.split()[1:3] == ["ones", "1"]
    assert lines[-1].split()[:2] == ["all", "5"]
    assert cache.main(["clean"]) == 0
    assert "removed 3 of 5 entries" in capsys.readouterr().out
    assert cache.main(["clean", "--all"]) == 0
    assert "removed 2 of 2 entries" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        {"function": "os.system"},
        {"function": "../../etc.passwd"},
        {"config": "[1]"},
        {"config": "{"},
        {"threads": "many"},
        {"key": "0" * 64},
        {},
    ],
)
def test_metadata_of_any_kind_only_make_an_entry_stale_or_damaged(
    tmp_path: Path, change: dict[str, str]
) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    meta = {"function": "nowhere.f", "config": "{}", "threads": "1", "data": "", "seconds": "1"}
    folder = tmp_path / "cache" / "f"
    folder.mkdir(parents=True)
    save_file({"x": np.ones(2)}, folder / ("0" * 64 + ".safetensors"), metadata=meta | change)
    (entry,) = cache.entries()
    assert entry.kind in ("stale", "damaged")


def test_a_folder_in_an_entrys_place_is_damaged_and_one_thing(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "f"
    for name in ("0.safetensors", "1.damaged"):
        (folder / name / "deep.safetensors").mkdir(parents=True)
        (folder / name / "x.safetensors").write_bytes(b"abc")
    found = list(cache.entries())
    assert [(entry.kind, entry.nbytes) for entry in found] == [("damaged", 3)] * 2
    assert len(cache.clean(found)) == 2
    assert list(folder.iterdir()) == []
