"""rclib.store: throw-away packages whose code is changed, entries that are damaged or cut off."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import torch
from safetensors import safe_open
from safetensors.numpy import save

import rclib
from rclib import store, sweep
from rclib.data import load

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


# --- the code behind a result --------------------------------------------------------------


TREE = {
    "top": "from {p} import near\nfrom {p}.direct import value\nimport {p}.dotted\n",
    "near": "import math\n\ndef size(x):\n    return math.sqrt(x)\n",
    "direct": "value = 1\n",
    "dotted": "def late():\n    from {p}.deep import f\n    return f()\n",
    "deep": 'class C:\n    """Words."""\n    x = 1\n\ndef f():\n    "Words."\n    return C().x\n',
    "apart": "x = 1\n",
}


def test_code_of_every_imported_module_counts(package: Package) -> None:
    name = package(TREE)
    before = store.code_digest(f"{name}.top")
    assert store.code_digest(f"{name}.top") == before
    seen = {before}
    for module in ("top", "near", "direct", "dotted", "deep"):
        package({**TREE, module: TREE[module] + "added = 2\n"})
        seen.add(store.code_digest(f"{name}.top"))
    assert len(seen) == 6
    package({**TREE, "apart": "x = 2\n"})
    assert store.code_digest(f"{name}.top") == before


@pytest.mark.parametrize(
    ("module", "old", "new", "changes"),
    [
        ("deep", "Words.", "Other words.", False),
        ("deep", '    "Words."\n', "", False),
        ("deep", "x = 1", "x = 1  # why", False),
        ("deep", "x = 1", "\n    # why\n    x  =  1", False),
        ("top", "from {p} import near", '"""Words."""\nfrom {p} import near', False),
        ("deep", "x = 1", "x = 1.0", True),
        ("deep", '    "Words."', '    y = "Words."', True),
        ("deep", "class C", "class D(object): pass\nclass C", True),
        ("near", "sqrt", "exp", True),
    ],
)
def test_words_and_layout_do_not_count(
    package: Package, module: str, old: str, new: str, changes: bool
) -> None:
    name = package(TREE)
    before = store.code_digest(f"{name}.top")
    assert old in TREE[module]
    package({**TREE, module: TREE[module].replace(old, new)})
    assert (store.code_digest(f"{name}.top") != before) is changes


def test_modules_that_import_each_other_and_subpackages(package: Package) -> None:
    tree = {
        "one": "from {p} import two\n",
        "two": "from {p} import one\nfrom {p}.inner import leaf\n",
        "inner/__init__": "limit = 1\n",
        "inner/leaf": "x = 1\n",
    }
    name = package(tree)
    digests = {store.code_digest(f"{name}.one")}
    for module in ("two", "inner/__init__", "inner/leaf"):
        package({**tree, module: tree[module] + "y = 2\n"})
        digests.add(store.code_digest(f"{name}.one"))
    assert len(digests) == 4


def test_code_that_cannot_be_read_is_an_error(package: Package) -> None:
    name = package({"a": "from . import b\n", "b": ""})
    with pytest.raises(ValueError, match="relative imports"):
        store.code_digest(f"{name}.a")
    with pytest.raises(ModuleNotFoundError, match=f"{name}.missing"):
        store.code_digest(f"{name}.missing")


EDITS = """
import json, pathlib, sys
from rclib import store
store._IMPORTED = float("inf")  # edits in a running process are what this looks at
import rclib.experiments.mlp_runs as runs
root = pathlib.Path(sys.argv[1])
assert pathlib.Path(runs.__file__).is_relative_to(root)
loaded = sorted(name for name in sys.modules if name.split(".")[0] == "rclib")
def digest():
    return store.code_digest("rclib.experiments.mlp_runs")
before, changed = digest(), []
files = sorted(root.rglob("*.py"))
for path in files:
    source = path.read_text()
    path.write_text(source + "added_here = 1\\n")
    if digest() != before:
        changed.append(".".join(path.relative_to(root.parent).with_suffix("").parts))
    path.write_text(source)
for path in files:
    path.write_text("# added here\\n" + path.read_text() + "\\n# and here\\n")
assert digest() == before
print(json.dumps([loaded, sorted(store.NEUTRAL), changed]))
"""


def test_real_modules_behind_a_training_run(tmp_path: Path) -> None:
    """Changing a module changes the key if running the experiment loads it, and not otherwise."""
    copy = tmp_path / "copy" / "rclib"
    shutil.copytree(Path(rclib.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-B", "-c", EDITS, str(copy)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=copy.parent,
        env={**os.environ, "PYTHONPATH": str(copy.parent)},
    )
    assert done.returncode == 0, done.stderr
    loaded, neutral, changed = json.loads(done.stdout)
    # rclib.data alone imports the readers of files; the checksum of the data stands for them.
    assert "rclib.data" in neutral
    readers = {"archives", "cifar10", "cifar10_batches", "files", "image_folder", "pickled_batch"}
    expected = set(loaded) - set(neutral) - {"rclib", "rclib.experiments"}
    expected -= {f"rclib.{name}" for name in readers}
    assert set(changed) == expected
    assert {"rclib.train", "rclib.models", "rclib.experiments.mlp_runs"} <= expected
    assert expected.isdisjoint({"rclib.plots", "rclib.notebook", "rclib.runner", "rclib.claims"})


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
        store.run_key(runs.scaled, config, data=data, code="other code"),
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
    name = package({"runs": RUNS, "later": RUNS + "added = 1\n"})
    first, second = (importlib.import_module(f"{name}.{m}").scaled for m in ("runs", "later"))
    second.__module__ = first.__module__  # the same name: the code alone differs
    digests = [store.code_digest(f"{name}.{m}") for m in ("runs", "later")]
    keys = [
        store.run_key(f, {}, data=None, code=code)
        for f, code in zip((first, second), digests, strict=True)
    ]
    assert keys[0] != keys[1]
    assert keys[0] == store.run_key(first, {}, data=None)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, np.float32(1), Path("x")])
def test_config_that_is_not_json_is_an_error(runs: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="config of scaled must be plain JSON"):
        store.run_key(runs.scaled, {"factor": value}, data=None)


def test_code_of_a_module_without_a_package_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    digests = set()
    for source in ("x = 1\n", "x = 2\n"):
        (tmp_path / "alone_in_store_test.py").write_text(source)
        importlib.invalidate_caches()
        digests.add(store.code_digest("alone_in_store_test"))
    assert len(digests) == 2


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


def test_a_run_that_changes_the_thread_count_is_found_again(runs: Any) -> None:
    def with_one_thread(data: None, *, factor: float) -> store.Arrays:
        torch.set_num_threads(1)
        found: store.Arrays = original(data, factor=factor)
        return found

    original = runs.scaled
    with_one_thread.__module__ = original.__module__
    torch.set_num_threads(2)
    store.fetch(with_one_thread, {"factor": 1.0})
    torch.set_num_threads(2)
    assert store.lookup(with_one_thread, {"factor": 1.0}) is not None


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
    store.write_atomically(path, b"one")
    with open(path, "rb") as reader:
        store.write_atomically(path, b"two!")
        assert reader.read() == b"one"  # replaced, not written over under a reader
    assert path.read_bytes() == b"two!"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


# First a disk that is full after 64 KiB; then a writer that is forked again and again and
# killed when it has opened its first, second or third file.
WRITERS = """
import errno, json, os, pathlib, resource, signal, sys, time
sys.path.insert(0, sys.argv[2])
import store_test_runs as runs
from rclib import store
here = pathlib.Path(sys.argv[1])
path, root = here / "file.bin", here / "cache"
store.write_atomically(path, b"old")
endless = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, endless))
full = []
for write in (
    lambda: store.write_atomically(path, bytes(1_000_000)),
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


def test_full_disk_leaves_the_old_file_and_no_temporary_one(writers: tuple[Path, str]) -> None:
    here, printed = writers
    failed, files = json.loads(printed)
    assert failed == [True, True]
    assert files == ["file.bin"]
    assert (here / "file.bin").read_bytes() == b"old"


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


def test_a_module_edited_after_its_import_is_refused(package: Package, tmp_path: Path) -> None:
    """Otherwise the old code's result would be stored under the new code's key."""
    name = package({"runs": RUNS})
    module = importlib.import_module(f"{name}.runs")
    path = Path(str(module.__file__))
    before = store.code_digest(module.__name__)
    path.write_text(path.read_text() + "added = 1\n")
    with pytest.raises(RuntimeError, match=r"runs was edited after it was imported"):
        store.code_digest(module.__name__)
    os.utime(path, (1, 1))
    assert store.code_digest(module.__name__) != before
