"""Store of finished runs: a run is computed once and found again by everything it depends on.

The key of a run is the SHA-256 of
- the function's name and its keyword arguments,
- the code: every definition that it reaches (`rclib.runs.code`), wherever that stands,
- the checksum of the data set,
- what the last bits of a result, or all of them, depend on: the versions of torch, numpy, scipy
  and of the other packages that this code uses, the thread count, the device and the precision.

A result is a flat dictionary of numpy arrays in one safetensors file, written under a
temporary name and renamed; it comes back in the order in which the run gave it. Its metadata
hold its own key and a checksum, both verified on reading: an entry that is damaged, truncated
or another run's is set aside with a warning and computed again. In a store that may only be read it
stays where it is, and what is computed is handed on without being kept. `rclib.runs.cache` lists
and cleans the store.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import re
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.terminal import note
from rclib.runs.code import Code, code_of
from rclib.runs.source import Source

__all__ = [
    "Arrays",
    "Experiment",
    "code_behind",
    "device",
    "fetch",
    "handing",
    "keep",
    "key_of",
    "lookup",
    "precision",
    "run_key",
    "seconds_spent",
    "versions",
]

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

Arrays = dict[str, np.ndarray]
Experiment = Callable[..., Arrays]

# Runs by key that `fetch` finds without a store: a worker elsewhere got them along with its task.
_handed: ContextVar[Mapping[str, Arrays]] = ContextVar("_handed")


@functools.cache
def code_behind(module: str, qualname: str) -> Code:
    """`code_of`, once a process: code that is in memory does not change with its file."""
    return code_of(module, qualname)


def run_key(function: Experiment, config: Mapping[str, Any], *, data: Source | None) -> str:
    """Key of a run (64 hexadecimal digits); see the module's docstring for what counts.

    `config` must be JSON-able; raises TypeError naming the function otherwise.
    """
    return key_of(
        function.__qualname__,
        config,
        code=code_behind(function.__module__, function.__qualname__),
        checksum=data.checksum if data is not None else None,
        threads=torch.get_num_threads(),
        device=device(),
        precision=precision(),
    )


def key_of(
    qualname: str,
    config: Mapping[str, Any],
    *,
    code: Code,
    checksum: str | None,
    threads: int,
    device: str,
    precision: str,
) -> str:
    """`run_key` from its parts: what `code_of`, a data set and this process's settings give.

    Raises TypeError for a configuration that is no plain JSON.
    """
    record = {
        "function": qualname,
        "config": dict(config),
        "code": code.digest,
        "data": checksum,
        "versions": versions(code.packages),
        "threads": threads,
        "device": device,
        "precision": precision,
    }
    try:
        text = json.dumps(record, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"config of {qualname} must be plain JSON: {error}") from None
    return hashlib.sha256(text.encode()).hexdigest()


def device() -> str:
    """Where a run would compute: the name of the GPU that torch would take, else "cpu"."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def precision() -> str:
    """torch's settings on which the digits of a result depend, e.g. "float32, highest"."""
    return f"{str(torch.get_default_dtype())[6:]}, {torch.get_float32_matmul_precision()}"


def versions(packages: Collection[str]) -> dict[str, str]:
    """Versions of torch, numpy and scipy, and of all other installed ones of these packages."""
    found = {"torch": torch.__version__, "numpy": np.__version__, "scipy": scipy.__version__}
    for name in sorted(set(packages) - found.keys() - sys.stdlib_module_names):
        for distribution in _distributions(name):
            found[distribution] = _version(distribution)
    return found


@functools.cache
def _version(distribution: str) -> str:
    """Read once a process: it is a file, and every run asks for several."""
    return metadata.version(distribution)


@functools.cache
def _distributions(package: str) -> list[str]:
    """Names of the installed distributions that a top-level package comes from.

    As `importlib.metadata.packages_distributions` has them, which makes a path of every file of
    every distribution: half a second of each process.
    """
    found = []
    for distribution in metadata.distributions():
        declared = (distribution.read_text("top_level.txt") or "").split()
        if package in declared if declared else _holds(distribution, package):
            found.append(distribution.metadata["Name"])
    return found


def _holds(distribution: metadata.Distribution, package: str) -> bool:
    """Whether a distribution that declares no packages has Python files of this one."""
    record = distribution.read_text("RECORD")
    if record is None:  # not a wheel's
        names = [str(file) for file in distribution.files or ()]
    else:  # most records do not have the name at all
        names = record.splitlines() if package in record else []
    own = re.compile(rf"\"?{re.escape(package)}(/.*)?\.py(\"?,|$)")
    return any(own.match(name) for name in names)


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
        if path.is_dir():
            _set_aside(path, "a folder")
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
        _set_aside(path, str(error))
        return None
    return arrays


def _set_aside(path: Path, reason: str) -> None:
    """Move what is no entry out of the way, with a warning."""
    aside = path.with_suffix(".damaged")
    if aside.is_dir() or path.is_dir():  # a folder replaces no file, and nothing a folder
        aside = path.with_suffix(f".{secrets.token_hex(8)}.damaged")
    try:
        os.replace(path, aside)
    except OSError as error:
        done = f"it cannot be set aside: {os.strerror(error.errno or 0)}"
    else:
        done = f"moved to {aside.name}"
    warnings.warn(f"stored run {path.name} is damaged ({reason}); {done}", stacklevel=3)


def fetch(
    function: Experiment,
    config: Mapping[str, Any],
    *,
    data: Source | None = None,
    root: Path | None = None,
) -> Arrays:
    """The result of `function(data, **config)`: handed over (`handing`), from the store, or
    computed and stored."""
    # The key comes first: a run may change the thread count, on which the key depends.
    key = run_key(function, config, data=data)
    given = _handed.get({}).get(key)
    if given is not None:  # arrays of one's own, as from the store
        return {name: value.copy() for name, value in given.items()}
    found = lookup(function, config, data=data, root=root)
    if found is not None:
        return found
    begin = time.monotonic()
    # As a later run will find it: in C order, on which the last digits of sums depend.
    found = function(data, **config)
    arrays = {name: np.asarray(value, order="C") for name, value in found.items()}
    seconds = time.monotonic() - begin
    keep(function, config, arrays, key=key, seconds=seconds, data=data, root=root)
    return arrays


@contextlib.contextmanager
def handing(runs: Mapping[str, Arrays]) -> Iterator[None]:
    """While this lasts, `fetch` finds these runs (key -> arrays) in this thread."""
    token = _handed.set({**_handed.get({}), **runs})
    try:
        yield
    finally:
        _handed.reset(token)


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

    key: `run_key` of the run, taken before it ran; seconds: what it took to compute. The first one
    outside a checkout of the project says on standard error where runs are kept. A store
    that may only be read gets a warning, once a process. Raises OSError for a disk that is full.
    """
    if root is None:
        _announce(paths.cache_dir())
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
        "device": device(),
        "precision": precision(),
    }
    path = _path(function, key, root)
    if path.exists() and not path.is_file():
        _set_aside(path, "a folder" if path.is_dir() else "a pipe or a device")
    try:
        write_atomically(path, save(arrays, metadata=meta))
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        _warn_read_only(root or paths.cache_dir(), os.strerror(error.errno))


@functools.cache
def _warn_read_only(root: Path, reason: str) -> None:
    warnings.warn(f"finished runs cannot be kept in {root}: {reason}", stacklevel=4)


@functools.cache
def _announce(folder: Path) -> None:
    """Say once where runs are kept, where nobody would look for them and nothing was chosen."""
    if not os.environ.get("RCLIB_CACHE") and not paths.in_checkout():
        with contextlib.suppress(OSError, ValueError, AttributeError):  # standard error may be gone
            note(f"finished runs are kept in {folder} (RCLIB_CACHE moves them)")


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
