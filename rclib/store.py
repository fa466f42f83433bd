"""Store of finished runs: a run is computed once and found again by everything it depends on.

The key of a run is the SHA-256 of
- the function's name and its keyword arguments,
- the code: the syntax trees, without docstrings, of the function's module and of every
  `rclib` module that it imports, directly or not. Editing `rclib/plots.py` therefore changes
  no training run's key, editing `rclib/train.py` changes all;
- the checksum of the data set, the versions of torch, numpy and scipy, and the thread count, on
  which the last bits of a result depend.

A result is a flat dictionary of numpy arrays in one safetensors file, written under a
temporary name and renamed; it comes back in the order in which the run gave it. Its metadata
hold its own key and a checksum, both verified on reading: an entry that is damaged, truncated
or another run's is set aside with a warning and computed again. `rclib.cache` lists and cleans
the store.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rclib import paths
from rclib.data import Source

# Modules that carry results but do not shape them: a data set is identified by the checksum of
# what it holds, and store, sweep and paths only decide where and in which order runs happen.
NEUTRAL = frozenset({"rclib.data", "rclib.paths", "rclib.store", "rclib.sweep"})

_IMPORTED = time.time()

__all__ = [
    "Arrays",
    "Experiment",
    "code_digest",
    "fetch",
    "keep",
    "key_of",
    "lookup",
    "run_key",
    "seconds_spent",
    "write_atomically",
]

Arrays = dict[str, np.ndarray]
Experiment = Callable[..., Arrays]


def write_atomically(path: Path, payload: bytes) -> None:
    """Write a file whole or not at all (temporary name in the same folder, then rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            handle.write(payload)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _source(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    return Path(spec.origin) if spec is not None and spec.origin else None


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(tree: ast.Module, package: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == package}
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise ValueError(f"relative imports hide what code a result depends on: {node.module}")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            base = str(node.module)
            found |= {base} | {f"{base}.{a.name}" for a in node.names}
    return found


def _without_docstrings(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return ast.dump(tree)


def code_digest(module: str) -> str:
    """SHA-256 of a module's code and of all modules of its package that it imports.

    Comments, layout and docstrings do not count. Raises ModuleNotFoundError for a module
    without a source file, since its code cannot be told apart, and RuntimeError for one that was
    edited after this process had imported it.
    """
    if module == "__main__":
        raise ModuleNotFoundError(
            "a function of __main__ (a notebook or script) is in no module whose code could be "
            "told apart; move it to a module"
        )
    package = module.split(".")[0]
    seen: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen or (name != module and (name == package or name in NEUTRAL)):
            continue
        path = _find(name)
        if path is None:
            if name == module:
                raise ModuleNotFoundError(f"no source file for module {module!r}")
            continue  # a name imported from a module, not a module
        if name in sys.modules and path.stat().st_mtime > _IMPORTED:
            raise RuntimeError(
                f"module {name} was edited after it was imported, so its code in memory is not "
                "the code in its file; restart the kernel or process"
            )
        tree = _tree(path)
        todo += sorted(_imports(tree, package))
        seen[name] = _without_docstrings(tree)
    whole = json.dumps(sorted(seen.items()))
    return hashlib.sha256(whole.encode()).hexdigest()


def _find(name: str) -> Path | None:
    try:
        return _source(name)
    except ModuleNotFoundError:
        return None  # a name inside a module: `rclib.data.Dataset` is no module


@functools.cache
def _code_digest_once(module: str) -> str:
    return code_digest(module)


def run_key(
    function: Experiment,
    config: Mapping[str, Any],
    *,
    data: Source | None,
    code: str | None = None,
) -> str:
    """Key of a run (64 hexadecimal digits); see the module's docstring for what counts.

    `config` must be JSON-able; raises TypeError naming the function otherwise.
    """
    return key_of(
        f"{function.__module__}.{function.__qualname__}",
        config,
        code=code or _code_digest_once(function.__module__),
        checksum=data.checksum if data is not None else None,
        threads=torch.get_num_threads(),
    )


def key_of(
    function: str, config: Mapping[str, Any], *, code: str, checksum: str | None, threads: int
) -> str:
    """`run_key` from the names and checksums alone: what `code_digest` and a data set give.

    Raises TypeError for a configuration that is no plain JSON.
    """
    record = {
        "function": function,
        "config": dict(config),
        "code": code,
        "data": checksum,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "threads": threads,
    }
    try:
        text = json.dumps(record, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        name = function.rpartition(".")[2]
        raise TypeError(f"config of {name} must be plain JSON: {error}") from None
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name in arrays:
        array = np.asarray(arrays[name], order="C")
        total.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _path(function: Experiment, key: str, root: Path | None) -> Path:
    return (root or paths.cache_dir()) / function.__qualname__ / f"{key}.safetensors"


def lookup(
    function: Experiment,
    config: Mapping[str, Any],
    *,
    data: Source | None = None,
    root: Path | None = None,
) -> Arrays | None:
    """The stored result of a run, or None. A damaged entry is set aside with a warning."""
    key = run_key(function, config, data=data)
    path = _path(function, key, root)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as handle:
            meta = handle.metadata() or {}
            order = json.loads(meta.get("order", "[]"))  # the file has its own: by type and name
            if sorted(order) != sorted(handle.keys()):
                raise ValueError("its order names other arrays than it holds")
            arrays: Arrays = {name: handle.get_tensor(name) for name in order}
        if _digest(arrays) != meta.get("sha256"):
            raise ValueError("checksum does not match")
        if meta.get("key") != key:
            raise ValueError("it is the entry of another run")
    except Exception as error:  # a header can name types that numpy does not have, and more
        aside = path.with_suffix(".damaged")
        warnings.warn(
            f"stored run {path.name} is damaged ({error}); moved to {aside.name}", stacklevel=2
        )
        os.replace(path, aside)
        return None
    return arrays


def fetch(
    function: Experiment,
    config: Mapping[str, Any],
    *,
    data: Source | None = None,
    root: Path | None = None,
) -> Arrays:
    """The result of `function(data, **config)`: from the store, or computed and stored."""
    found = lookup(function, config, data=data, root=root)
    if found is not None:
        return found
    # The key comes first: a run may change the thread count, on which the key depends.
    key = run_key(function, config, data=data)
    begin = time.monotonic()
    # As a later run will find it: in C order, on which the last digits of sums depend.
    found = function(data, **config)
    arrays = {name: np.asarray(value, order="C") for name, value in found.items()}
    seconds = time.monotonic() - begin
    keep(function, config, arrays, key=key, seconds=seconds, data=data, root=root)
    return arrays


def keep(
    function: Experiment,
    config: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    key: str,
    seconds: float,
    data: Source | None = None,
    root: Path | None = None,
) -> None:
    """Write a finished run as one file, whole or not at all.

    key: `run_key` of the run, taken before it ran; seconds: what it took to compute.
    """
    arrays = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    meta = {
        "seconds": f"{seconds:.3f}",
        "sha256": _digest(arrays),
        "function": f"{function.__module__}.{function.__qualname__}",
        "config": json.dumps(dict(config), sort_keys=True),
        "order": json.dumps(list(arrays)),
        "key": key,
        "data": data.checksum if data is not None else "",
        "threads": str(torch.get_num_threads()),
    }
    write_atomically(_path(function, key, root), save(arrays, metadata=meta))


def seconds_spent(
    function: Experiment,
    config: Mapping[str, Any],
    *,
    data: Source | None = None,
    root: Path | None = None,
) -> float:
    """Seconds that a stored run took when it was computed (one core); 0 if it is not stored."""
    path = _path(function, run_key(function, config, data=data), root)
    if not path.is_file():
        return 0.0
    try:
        with safe_open(path, framework="np") as handle:
            seconds = float((handle.metadata() or {}).get("seconds", 0.0))
    except (SafetensorError, OSError, ValueError):
        return 0.0  # a remark for the reader; a damaged one costs nothing
    return seconds if 0 <= seconds < math.inf else 0.0
