"""runs.store: throw-away packages whose code is changed, entries that are damaged or cut off."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import torch
from safetensors import safe_open
from safetensors.numpy import save

from rclib.data.images import load
from rclib.files import atomic
from rclib.runs import store, sweep

_numbers = itertools.count()
Package = Callable[[dict[str, str]], str]


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RCLIB_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Writes the modules of a new package, where {p} stands for its name; returns the name."""
    name = f"throwaway{next(_numbers)}"
    folder = tmp_path / "packages"
    monkeypatch.syspath_prepend(str(folder))

    def write(modules: dict[str, str]) -> str:
        for module, source in {"__init__": "", **modules}.items():
            path = folder / name / f"{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source.replace("{p}", name), encoding="utf-8")
            os.utime(path, (1, 1))  # older than this process, like an installed module
        importlib.invalidate_caches()
        return name

    return write


RUNS = '''
"""An experiment."""
import numpy as np

calls = []


def scaled(data, *, factor, n=3):
    """A few arrays of several kinds."""
    calls.append(factor)
    grid = np.arange(4.0 * n).reshape(4, n) * factor
    return {
        "grid": grid,
        "columns": grid[:, ::2].T,
        "scalar": np.float64(factor) + 1,
        "number": 7,
        "empty": np.zeros((0, 3), "f4"),
        "flags": np.array([True, False]),
        "bytes": np.arange(5, dtype=np.uint8),
    }


def other(data, *, factor, n=3):
    return scaled(data, factor=factor, n=n)
'''


@pytest.fixture
def runs(package: Package) -> Any:
    return importlib.import_module(f"{package({'runs': RUNS})}.runs")


def entries(tmp_path: Path, pattern: str = "*.safetensors") -> list[Path]:
    return sorted((tmp_path / "cache").rglob(pattern))


def same(a: store.Arrays, b: store.Arrays) -> bool:
    return a.keys() == b.keys() and all(
        (a[k].dtype, a[k].shape) == (b[k].dtype, b[k].shape) and np.array_equal(a[k], b[k])
        for k in a
    )


# --- the key of a run ----------------------------------------------------------------------


def test_key_depends_on_all_that_a_result_depends_on(runs: Any) -> None:
    data = load("digits")
    config = {"factor": 2.0, "n": 3}
    keys = [
        store.run_key(runs.scaled, config, data=data),
        store.run_key(runs.other, config, data=data),
        store.run_key(runs.scaled, {"factor": 2.0}, data=data),
        store.run_key(runs.scaled, {"factor": 2.0, "n": 4}, data=data),
        store.run_key(runs.scaled, {"factor": [2.0], "n": 3}, data=data),
        store.run_key(runs.scaled, config, data=None),
        store.run_key(runs.scaled, config, data=data.subset(100)),
        store.run_key(runs.scaled, config, data=data.subset(100, seed=1)),
    ]
    torch.set_num_threads(2)
    keys.append(store.run_key(runs.scaled, config, data=data))
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 for key in keys)
    torch.set_num_threads(1)
    swapped = {"n": 3, "factor": 2.0}
    assert store.run_key(runs.scaled, swapped, data=load("digits")) == keys[0]


def test_key_depends_on_the_versions(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {store.run_key(runs.scaled, {}, data=None)}
    for library in (torch, np, scipy):
        with monkeypatch.context() as patch:
            patch.setattr(library, "__version__", "0.0.1")
            keys.add(store.run_key(runs.scaled, {}, data=None))
    assert len(keys) == 4


def test_key_depends_on_the_code(package: Package) -> None:
    again = RUNS.replace("* factor", "* factor * 1")
    name = package({"runs": RUNS, "same": RUNS + "added = 1\n", "other": again})
    modules = [importlib.import_module(f"{name}.{m}") for m in ("runs", "same", "other")]
    keys = [store.run_key(module.scaled, {}, data=None) for module in modules]
    assert keys[0] == keys[1] != keys[2]


def test_key_depends_on_where_a_run_would_compute(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's result in half precision must not answer a CPU's request, nor another card's."""
    keys = {store.run_key(runs.scaled, {}, data=None)}
    for name in ("NVIDIA A", "NVIDIA B"):
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
            keys.add(store.run_key(runs.scaled, {}, data=None))
    before = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    try:
        torch.set_default_dtype(torch.float64)
        keys.add(store.run_key(runs.scaled, {}, data=None))
        torch.set_default_dtype(before[0])
        torch.set_float32_matmul_precision("medium")
        keys.add(store.run_key(runs.scaled, {}, data=None))
    finally:
        torch.set_default_dtype(before[0])
        torch.set_float32_matmul_precision(before[1])
    assert len(keys) == 5
    assert store.device() == "cpu" or torch.cuda.is_available()


def test_key_depends_on_the_version_of_another_package_that_the_code_uses(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = package(
        {"runs": RUNS + "\n\ndef fitted(data):\n    import sklearn\n    return {0: sklearn}\n"}
    )
    module = importlib.import_module(f"{name}.runs")
    assert "scikit-learn" in store.versions(["sklearn", "json", "nowhere"])
    assert store.versions(["json"]).keys() == {"torch", "numpy", "scipy"}
    plain = partial(store.run_key, module.scaled, {}, data=None)
    fitted = partial(store.run_key, module.fitted, {}, data=None)
    before = plain(), fitted()
    monkeypatch.setattr(store, "_version", lambda name: "0.0.1")
    assert (plain(), fitted()) != before
    assert plain() == before[0]


def test_distributions_of_a_package_are_those_of_the_standard_library() -> None:
    expected = metadata.packages_distributions()
    for package in ("sklearn", "yaml", "PIL", "torch", "tqdm", "safetensors", "dateutil"):
        assert sorted(store._distributions(package)) == sorted(expected.get(package, []))


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, np.float32(1), Path("x")])
def test_config_that_is_not_json_is_an_error(runs: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="config of scaled must be plain JSON"):
        store.run_key(runs.scaled, {"factor": value}, data=None)


def test_function_of_a_notebook_is_refused(runs: Any) -> None:
    """Its code is in no file, so a changed cell would find the old result."""
    runs.scaled.__module__ = "__main__"
    with pytest.raises(ModuleNotFoundError, match="__main__"):
        store.run_key(runs.scaled, {}, data=None)


# --- fetching ------------------------------------------------------------------------------


def test_a_run_is_computed_once_and_found_as_it_was(runs: Any, tmp_path: Path) -> None:
    config = {"factor": 0.1}
    assert store.lookup(runs.scaled, config) is None
    first = store.fetch(runs.scaled, config)
    again = store.fetch(runs.scaled, config)
    found = store.lookup(runs.scaled, config)
    assert runs.calls == [0.1]
    assert found is not None
    assert same(first, again)
    assert same(first, found)
    assert first["scalar"].shape == first["number"].shape == ()
    assert np.array_equal(first["columns"], first["grid"][:, ::2].T)
    (entry,) = entries(tmp_path)
    assert entry.parent.name == "scaled"
    store.fetch(runs.scaled, {"factor": 0.2})
    assert runs.calls == [0.1, 0.2]
    assert len(entries(tmp_path)) == 2


def test_root_takes_the_place_of_the_cache(runs: Any, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    store.fetch(runs.scaled, {"factor": 1.0}, root=root)
    assert store.lookup(runs.scaled, {"factor": 1.0}) is None
    assert store.lookup(runs.scaled, {"factor": 1.0}, root=root) is not None
    assert entries(tmp_path) == []


def test_a_run_that_fails_leaves_nothing(runs: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        store.fetch(runs.scaled, {"factor": "x"})
    assert not list((tmp_path / "cache").rglob("*.*"))


def damaged_copies(whole: bytes) -> dict[str, bytes]:
    header = 8 + int.from_bytes(whole[:8], "little")
    copies = {
        f"first {n} bytes": whole[:n]
        for n in (0, 1, 7, 8, 9, header - 1, header, header + 8, len(whole) - 1)
    }
    copies["longer"] = whole + b"\0"
    copies["zeros"] = bytes(len(whole))
    copies["text"] = b"<html>not found</html>"
    return copies


def test_truncated_and_foreign_entries_are_set_aside_and_computed_again(
    runs: Any, tmp_path: Path
) -> None:
    config = {"factor": 3.0}
    right = store.fetch(runs.scaled, config)
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    for n, (what, content) in enumerate(damaged_copies(whole).items()):
        entry.write_bytes(content)
        with pytest.warns(UserWarning, match=rf"{entry.name} is damaged .* moved to") as caught:
            again = store.fetch(runs.scaled, config)
        assert len(caught) == 1, what
        assert same(again, right), what
        assert len(runs.calls) == n + 2, what
        (aside,) = entries(tmp_path, "*.damaged")
        assert aside.read_bytes() == content
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = store.lookup(runs.scaled, config)
        assert found is not None
        assert same(found, right)


def test_a_stored_run_is_what_the_run_gave_to_the_order_and_layout(runs: Any) -> None:
    first = store.fetch(runs.scaled, {"factor": 2.0})
    later = store.fetch(runs.scaled, {"factor": 2.0})
    swept = sweep.sweep(runs.scaled, [{"factor": 3.0}])[0]
    assert runs.calls == [2.0, 3.0]
    assert list(first) == list(later) == list(swept) == list(runs.scaled(None, factor=2.0))
    assert list(first) != sorted(first)
    for name in first:
        for arrays in (first, later, swept):  # sums over other layouts have other last digits
            assert arrays[name].flags.c_contiguous
            assert arrays[name].dtype == first[name].dtype


@pytest.mark.parametrize("order", ["[]", '["grid"]', '{"grid": 1}', "7", "[1, null]", "x", None])
def test_an_entry_without_a_right_order_is_set_aside(
    runs: Any, tmp_path: Path, order: str | None
) -> None:
    right = store.fetch(runs.scaled, {"factor": 2.0})
    (entry,) = entries(tmp_path)
    with safe_open(entry, framework="np") as handle:
        meta = handle.metadata()
    del meta["order"]
    entry.write_bytes(save(right, metadata=meta if order is None else meta | {"order": order}))
    with pytest.warns(UserWarning, match=r"is damaged .*moved to"):
        assert same(store.fetch(runs.scaled, {"factor": 2.0}), right)


def test_another_order_is_noticed(runs: Any, tmp_path: Path) -> None:
    right = store.fetch(runs.scaled, {"factor": 2.0})
    (entry,) = entries(tmp_path)
    with safe_open(entry, framework="np") as handle:
        meta = handle.metadata()
    names = json.dumps([*right][::-1])
    entry.write_bytes(save(right, metadata=meta | {"order": names}))
    with pytest.warns(UserWarning, match="checksum does not match"):
        assert list(store.fetch(runs.scaled, {"factor": 2.0})) == list(right)


def test_the_entry_of_another_run_is_set_aside(runs: Any, tmp_path: Path) -> None:
    store.fetch(runs.scaled, {"factor": 2.0})
    (entry,) = entries(tmp_path)
    key = store.run_key(runs.scaled, {"factor": 3.0}, data=None)
    entry.rename(entry.with_name(f"{key}.safetensors"))  # whole, but not what its name says
    with pytest.warns(UserWarning, match="it is the entry of another run"):
        found = store.fetch(runs.scaled, {"factor": 3.0})
    assert found["scalar"] == 4.0


def test_no_flipped_bit_changes_a_result(runs: Any, tmp_path: Path) -> None:
    config = {"factor": 3.0, "n": 1}
    right = store.fetch(runs.scaled, config)
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    unnoticed = []
    for place in range(len(whole)):
        for bit in range(8) if place < 8 else (place % 5, 6):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            entry.write_bytes(flipped)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = store.lookup(runs.scaled, config)
            assert (found is None) == (len(caught) == 1) == (not entry.exists()), (place, bit)
            if found is not None:
                assert same(found, right), (place, bit)
                unnoticed.append(place)
    # The remarks of the header (function, config, seconds) are read by people; no other place.
    assert all(8 <= place < header for place in unnoticed)
    assert len(unnoticed) < len(whole)


def test_a_run_that_changes_the_thread_count_is_found_again(package: Package) -> None:
    alone = "import torch\n\ndef run(data):\n    torch.set_num_threads(1)\n    return {}\n"
    function = importlib.import_module(f"{package({'alone': alone})}.alone").run
    torch.set_num_threads(2)
    store.fetch(function, {})
    torch.set_num_threads(2)
    assert store.lookup(function, {}) is not None


def test_damaged_remark_of_a_cost_stops_nothing(runs: Any, tmp_path: Path) -> None:
    store.fetch(runs.scaled, {"factor": 1.0})
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    entry.write_bytes(whole.replace(b'"seconds":"0', b'"seconds":"p'))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the entry may be set aside
        assert store.seconds_spent(runs.scaled, {"factor": 1.0}) >= 0


# --- writing -------------------------------------------------------------------------------


def test_write_atomically_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    atomic.write_atomically(path, b"one")
    with open(path, "rb") as reader:
        atomic.write_atomically(path, b"two!")
        assert reader.read() == b"one"  # replaced, not written over under a reader
    assert path.read_bytes() == b"two!"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


# First a disk that is full after 64 KiB; then a writer that is forked again and again and
# killed when it has opened its first, second or third file.
WRITERS = """
import errno, json, os, pathlib, resource, signal, sys, time
sys.path.insert(0, sys.argv[2])
import store_test_runs as runs
from rclib.runs import store
here = pathlib.Path(sys.argv[1])
path, root = here / "file.bin", here / "cache"
from rclib.files import atomic
atomic.write_atomically(path, b"old")
endless = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, endless))
full = []
for write in (
    lambda: atomic.write_atomically(path, bytes(1_000_000)),
    lambda: store.fetch(runs.large, {"seed": 1, "n": 100_000}, root=root),
):
    try:
        write()
    except OSError as error:
        full.append(error.errno == errno.EFBIG)
resource.setrlimit(resource.RLIMIT_FSIZE, (endless, endless))
print(json.dumps([full, sorted(p.name for p in here.rglob("*") if p.is_file())]), flush=True)

folder = root / "large"
deadline = time.monotonic() + 60
for turn in range(12):
    before = set(os.listdir(folder))
    child = os.fork()
    if child == 0:
        for seed in range(10):
            store.fetch(runs.large, {"seed": 10 * turn + seed, "n": 500_000}, root=root)
        os._exit(0)
    while len(set(os.listdir(folder)) - before) <= turn % 3:
        assert time.monotonic() < deadline
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
"""

LARGE = """
import numpy as np


def large(data, *, seed, n):
    return {"x": np.full(n, float(seed))}
"""


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the writers failed, and what they printed."""
    here, code = tmp_path_factory.mktemp("writers"), tmp_path_factory.mktemp("code")
    (code / "store_test_runs.py").write_text(LARGE)
    os.utime(code / "store_test_runs.py", (1, 1))
    done = subprocess.run(
        [sys.executable, "-B", "-c", WRITERS, str(here), str(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    sys.path.insert(0, str(code))
    try:
        importlib.import_module("store_test_runs")
    finally:
        sys.path.remove(str(code))
    return here, done.stdout


@pytest.mark.slow
def test_full_disk_leaves_the_old_file_and_no_temporary_one(writers: tuple[Path, str]) -> None:
    here, printed = writers
    failed, files = json.loads(printed)
    assert failed == [True, True]
    assert files == ["file.bin"]
    assert (here / "file.bin").read_bytes() == b"old"


@pytest.mark.slow
def test_killed_writer_leaves_no_entry_that_is_not_whole(writers: tuple[Path, str]) -> None:
    root = writers[0] / "cache"
    large = sys.modules["store_test_runs"].large
    whole = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a damaged entry would be set aside with a warning
        for seed in range(120):
            found = store.lookup(large, {"seed": seed, "n": 500_000}, root=root)
            if found is not None:
                assert np.array_equal(found["x"], np.full(500_000, float(seed)))
                whole += 1
    assert whole == len(list(root.rglob("*.safetensors"))) >= 4
    assert list(root.rglob("*.tmp"))  # writers did die in the middle


# --- an entry's place, and a store that may only be read -----------------------------------


@pytest.mark.parametrize("aside_is", ["nothing", "a file", "a folder"])
@pytest.mark.parametrize("entry_is", ["damaged", "a folder"])
def test_whatever_stands_in_an_entrys_place_is_set_aside(
    runs: Any, tmp_path: Path, entry_is: str, aside_is: str
) -> None:
    config = {"factor": 3.0}
    right = store.fetch(runs.scaled, config)
    (entry,) = entries(tmp_path)
    entry.unlink()
    if entry_is == "a folder":
        (entry / "inner").mkdir(parents=True)
    else:
        entry.write_bytes(b"no entry")
    aside = entry.with_suffix(".damaged")
    if aside_is == "a folder":
        (aside / "inner").mkdir(parents=True)
    elif aside_is == "a file":
        aside.write_bytes(b"of before")
    with pytest.warns(UserWarning, match="is damaged .* moved to") as caught:
        assert same(store.fetch(runs.scaled, config), right)
    assert len(caught) == 1
    found = store.lookup(runs.scaled, config)
    assert found is not None
    assert same(found, right)


def test_a_folder_that_appears_while_a_run_is_computed(runs: Any, tmp_path: Path) -> None:
    config = {"factor": 3.0}
    key = store.run_key(runs.scaled, config, data=None)
    (tmp_path / "cache" / "scaled" / f"{key}.safetensors").mkdir(parents=True)
    with pytest.warns(UserWarning, match=r"is damaged \(a folder\)"):
        store.keep(runs.scaled, config, {"x": np.ones(2)}, key=key, seconds=1.0)
    assert store.lookup(runs.scaled, config) is not None


def test_a_store_that_may_only_be_read(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is computed is handed on; nothing is set aside, nothing fails."""
    config = {"factor": 3.0}
    right = store.fetch(runs.scaled, config)
    (entry,) = entries(tmp_path)
    entry.write_bytes(b"no entry")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    store._warn_read_only.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert same(store.fetch(runs.scaled, config), right)
        assert store.fetch(runs.scaled, {"factor": 4.0}).keys() == right.keys()
    texts = [str(one.message) for one in caught]
    assert len(texts) == 2
    assert "it cannot be set aside: Read-only file system" in texts[0]
    assert f"cannot be kept in {tmp_path / 'cache'}: Read-only file system" in texts[1]
    assert entry.read_bytes() == b"no entry"
    assert not list(tmp_path.rglob("*.tmp"))


def test_any_other_failure_to_write_is_an_error(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*safetensors"):
        store.fetch(runs.scaled, {"factor": 3.0})


def test_runs_kept_outside_of_a_checkout_are_announced_once(
    package: Package,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = importlib.import_module(f"{package({'one': RUNS})}.one")
    elsewhere, project = tmp_path / "elsewhere", tmp_path / "project"
    (project / "notebooks").mkdir(parents=True)
    (project / "pyproject.toml").touch()
    elsewhere.mkdir()
    for folder, chosen in ((project, ""), (elsewhere, str(tmp_path / "cache"))):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("RCLIB_CACHE", chosen)
        sweep.sweep(runs.scaled, [{"factor": 1.0}])
        assert "kept in" not in capsys.readouterr().err
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("RCLIB_CACHE")
    sweep.sweep(runs.scaled, [{"factor": 1.0}, {"factor": 2.0}])
    err = capsys.readouterr().err
    kept = f"finished runs are kept in {elsewhere / '.cache' / 'runs'} (RCLIB_CACHE moves them)"
    assert err.count(kept) == 1
    sweep.sweep(runs.scaled, [{"factor": 3.0}])
    assert "kept in" not in capsys.readouterr().err
    assert len(list((elsewhere / ".cache" / "runs").rglob("*.safetensors"))) == 3
