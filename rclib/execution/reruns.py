"""Which stored runs depend on the machine: they are run again with other arithmetic and compared.

    python -m rclib.execution.reruns student_run --where d=1000 --where optimizer=adam

Every entry of the store that today's code would find, of the function named and with the arguments
given (`name=value`), is computed anew in a process whose linear algebra adds in another order:
OpenBLAS's kernels of another processor (`--kernel`, default Haswell, so without AVX-512) or another
number of threads (`--threads`). What is stored stays as it is.

A run depends on the machine where a value of an array (`--arrays`) differs by more than `--above`
of the larger of the two. One line a run, those that differ most first; `--out` keeps them as JSON.
Runs on a data set are counted and left out. The results of a function that limits its own threads
(`student_run` does) do not depend on them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from rclib import paths
from rclib.files.atomic import write_atomically
from rclib.files.command import command
from rclib.files.strict import parse_json
from rclib.files.terminal import Parser, note, report
from rclib.runs import store

__all__ = ["differences", "main", "rerun", "stored_runs"]

LOSSES = ("train_loss", "test_loss", "train_loss_released", "test_loss_released")
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def stored_runs(
    name: str, where: Mapping[str, Any], *, root: Path | None = None
) -> tuple[list[tuple[str, dict[str, Any]]], int]:
    """(function, configuration) of the current entries with these arguments, and how many others
    were left out because they ran on a data set.

    name : of the stored function; function : "module.name". Entries that today's code would not
    find are no results of it. What is no entry is named in a warning and left out; the function is
    only looked up in rclib itself, whatever an entry says.
    """
    found, with_data = [], 0
    for path in sorted(((root or paths.cache_dir()) / name).glob("*.safetensors")):
        try:
            meta, config = _entry(path, name)
        except Exception as error:  # as in `store.lookup`: what a header can hold raises anything
            warnings.warn(f"{path} is left out, no stored run: {error}", stacklevel=2)
            continue
        if any(config.get(key) != value for key, value in where.items()):
            continue
        if meta["data"]:
            with_data += 1
        elif store.run_key(_function(meta["function"]), config, data=None) == path.stem:
            found.append((meta["function"], config))
    return sorted(found, key=lambda run: json.dumps(run[1], sort_keys=True)), with_data


def _entry(path: Path, name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """What an entry says of its run. Raises ValueError, and whatever damage does to readers."""
    if not path.is_file():
        raise ValueError("not a plain file")
    with safe_open(path, framework="np") as handle:
        meta = handle.metadata() or {}
    config = parse_json(meta.get("config", ""))
    module, _, function = meta.get("function", "").rpartition(".")
    if function != name or not re.fullmatch(r"rclib(\.\w+)+", module, re.ASCII):
        raise ValueError(f"its function is {meta.get('function')!r:.80}")
    if not isinstance(config, dict) or "data" not in meta:
        raise ValueError("it does not say what it was computed from")
    try:
        _function(meta["function"])
    except (ImportError, AttributeError):
        raise ValueError(f"its function {meta['function']:.80} is gone") from None
    return meta, config


def _function(name: str) -> Any:
    module, _, function = name.rpartition(".")
    return getattr(importlib.import_module(module), function)


def differences(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, float]:
    """Largest |a - b| / max(|a|, |b|) over each of these arrays; infinite where one alone is NaN.

    Names that the run does not hold are left out.
    """
    found = {}
    for name in names:
        if name not in before:
            continue
        a, b = (np.asarray(v[name], dtype=np.float64) for v in (before, after))
        scale = np.maximum(np.abs(a), np.abs(b))
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = np.where(scale > 0, np.abs(a - b) / scale, 0.0)
        relative = np.where(np.isnan(a) & np.isnan(b), 0.0, relative)
        relative = np.where(np.isnan(a) ^ np.isnan(b), np.inf, relative)
        found[name] = float(relative.max(initial=0.0))
    return found


def rerun(
    runs: Sequence[tuple[str, Mapping[str, Any]]],
    names: Sequence[str],
    *,
    kernel: str = "",
    threads: int = 1,
) -> Iterator[dict[str, float]]:
    """`differences` of each run from what is stored, computed in one process with this kernel
    of OpenBLAS ("": as it is) and these threads. Raises RuntimeError if that process fails."""
    environment = os.environ | dict.fromkeys(_VARIABLES, str(threads))
    if kernel:
        environment["OPENBLAS_CORETYPE"] = kernel
    with subprocess.Popen(
        [sys.executable, "-m", "rclib.execution.reruns", "--child", *names],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for run in runs:
            child.stdin.write(json.dumps(run) + "\n")
        child.stdin.close()
        count = 0
        for line in child.stdout:
            yield json.loads(line)
            count += 1
    if child.returncode or count != len(runs):
        raise RuntimeError(f"the runs ended with code {child.returncode} after {count} of them")


def _child(names: Sequence[str]) -> int:
    """Compute the runs on the standard input and print one line of differences a run."""
    output, sys.stdout = sys.stdout, sys.stderr  # what a run prints is no result
    threads = torch.get_num_threads()
    for line in sys.stdin.readlines():
        name, config = json.loads(line)
        function = _function(name)
        torch.set_num_threads(1)  # stored with one thread, which is part of the key
        before = store.lookup(function, config)
        assert before is not None
        torch.set_num_threads(threads)
        output.write(json.dumps(differences(before, function(None, **config), names)) + "\n")
        output.flush()
    return 0


def _argument(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"must be name=value, got {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


@command()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if everything was compared, 2 for what cannot be."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--child"]:
        return _child(given[1:])
    parser = Parser(prog="python -m rclib.execution.reruns")
    parser.add_argument("function", help="name of the stored function, e.g. student_run")
    parser.add_argument("--where", type=_argument, action="append", default=[], help="name=value")
    parser.add_argument("--kernel", default="Haswell", help="OpenBLAS's kernels; '' as it is")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--arrays", nargs="+", default=list(LOSSES))
    parser.add_argument("--above", type=float, default=0.01)
    parser.add_argument("--out", type=Path, help="keep the table as JSON")
    options = parser.parse_args(given)
    where = dict(options.where)
    torch.set_num_threads(1)  # as notebooks run, so that keys are theirs
    runs, with_data = stored_runs(options.function, where)
    if not runs:
        note(f"error: no stored run of {options.function} with {where}")
        return 2
    found = rerun(runs, options.arrays, kernel=options.kernel, threads=options.threads)
    varying = [k for k in runs[0][1] if len({json.dumps(c.get(k)) for _, c in runs}) > 1]
    rows: list[dict[str, Any]] = []
    for (_, config), difference in zip(runs, found, strict=True):
        # An infinite difference, one side NaN, has no place in JSON; it is the largest there is.
        largest = min(max(difference.values(), default=0.0), 1.0)
        rows.append({**{key: config.get(key) for key in varying}, "largest": largest})
    rows.sort(key=lambda row: -row["largest"])
    moved = sum(row["largest"] > options.above for row in rows)
    for row in rows:
        mark = "depends" if row["largest"] > options.above else "       "
        report(f"{mark} {row['largest']:8.1e}  " + ", ".join(f"{k} {row[k]}" for k in varying))
    how = f"kernel {options.kernel or 'as it is'}, {options.threads} threads"
    report(f"{moved} of {len(rows)} runs differ by more than {options.above:g} ({how})")
    if with_data:
        report(f"{with_data} more ran on a data set and were left out")
    if options.out:
        record = {"function": options.function, "where": where, "arrays": options.arrays}
        record |= {"kernel": options.kernel, "threads": options.threads, "above": options.above}
        record |= {"depend": moved, "runs": rows}
        write_atomically(options.out, (json.dumps(record, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
