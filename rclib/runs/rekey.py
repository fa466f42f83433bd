"""Entries of the store as version 0.1.0 wrote them, moved to the keys of today.

Version 0.1.0 keyed a run by whole modules and by their names. An entry moves to its new key if
its old key is what 0.1.0's code gave (`OLD` holds the digests of that code) and the function's
definitions are those pinned in `OLD`: those of 0.1.0, or what they became by changes after which
every array of tiny runs had the same bytes as before (the shared recorder of the training loops,
CUDA graphs on a GPU, the evaluation of paper B's student in a module of its own, checksums in saved
states, what hardening changed in errors, rounding of narrow types in `esd`, texts that change while
mapped, steps of the three-layer network without lists of names, SGD that notes nothing for
autograd; runs of all stored functions, among them ones that diverge). `teacher_runs.run` is not
among them, whose runs hold more than before, nor are those of the first step, whose last digits are
others since top eigenvectors come alone. Old entries do not say where they were computed, so on a
machine with a GPU nothing moves. To be deleted with the next release.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rclib.files.atomic import write_atomically
from rclib.runs import store
from rclib.runs.code import code_of
from rclib.runs.code_modules import homes

__all__ = ["OLD", "rekey"]

# function of 0.1.0 -> (digest of its module and all that this imports, the function's name today,
# digest of its definitions, as proved equal)
OLD = {
    "rclib.experiments.mlp_runs.train_mlp": (
        "1639d403fe7e7ada81fa4ec06ad01e2b8f1cc218b36234666feda20823c9945b",
        "train_mlp",
        "7a29fa459cb3329d7b8737caf68427460fb816f223e05c2fb1ff677cb5a26777",
    ),
    "rclib.experiments.mlp_runs.transferred_run": (
        "1639d403fe7e7ada81fa4ec06ad01e2b8f1cc218b36234666feda20823c9945b",
        "transferred_run",
        "ad97d4f9cbec8548ba3df1446a3263c7c34d4f29464c34c7e3daad739efc4159",
    ),
    "rclib.experiments.mlp_runs.zero_shot": (
        "1639d403fe7e7ada81fa4ec06ad01e2b8f1cc218b36234666feda20823c9945b",
        "zero_shot",
        "37e4d19275b7e6af024184f8499c169b1a23f820fd62a4e3c275a201dd5548a0",
    ),
    "rclib.experiments.coordinates.coordinate_check": (
        "cc2b1778a1f4967e4d30c043b35d2a97124a7fda5c85ae5b70516a5763e119d5",
        "coordinate_check",
        "381401fb3281e0b6da996ccd6b2919e5584434bd869b916318d03f12bba13dde",
    ),
    "rclib.experiments.lm_runs.train_gpt": (
        "30d3321dff9f343547e7567b58e738c23b889e85b8535a85d324290a6e832054",
        "train_gpt",
        "afbe1026242b9ae8e33b49b0f59ec3a4f2b57d029bed8aed72b1a9cd5c8fb85a",
    ),
    "rclib.experiments.growth.resized_run": (
        "b76720510da6051db90814fb71954e5a38c6b3b74ce7a053b7afca7458bf2b72",
        "resized_run",
        "5456ae9564ea0acc29c994c26e58cde22fb5d5e6e4cd5e6b8be36c273e9484db",
    ),
}


def rekey(root: Path) -> Iterator[tuple[Path, Path]]:
    """Move what can be moved; yields the old and the new path of each entry."""
    if torch.cuda.is_available():
        return
    for path in sorted(root.glob("*/*.safetensors")):
        try:
            with safe_open(path, framework="np") as handle:
                meta = dict(handle.metadata() or {})
                found = _place_and_key(meta, path.stem)
                if found is None:
                    continue
                order = json.loads(meta["order"])
                arrays = {name: handle.get_tensor(name) for name in order}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            continue  # damaged, or of another form: computed anew
        module, name, key = found
        meta |= {"function": f"{module}.{name}", "key": key}
        meta |= {"device": store.device(), "precision": store.precision()}
        new = root / name / f"{key}.safetensors"
        write_atomically(new, save(arrays, metadata=meta))
        os.unlink(path)
        yield path, new


def _place_and_key(meta: dict[str, str], stem: str) -> tuple[str, str, str] | None:
    """Module and name of the function today, and the key."""
    if "device" in meta or meta.get("function") not in OLD:
        return None
    config, threads = json.loads(meta["config"]), int(meta["threads"])
    old, qualname, definitions = OLD[meta["function"]]
    record = {
        "function": meta["function"],
        "config": config,
        "code": old,
        "data": meta["data"] or None,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "threads": threads,
    }
    text = json.dumps(record, sort_keys=True)
    if hashlib.sha256(text.encode()).hexdigest() != stem:
        return None
    for module in sorted(homes().get(qualname, set())):
        try:
            code = code_of(module, qualname)
        except ValueError:  # a figure of the same name, which calls what cannot be followed
            continue
        if code.digest == definitions:
            key = store.key_of(
                qualname,
                config,
                code=code,
                checksum=meta["data"] or None,
                threads=threads,
                device=store.device(),
                precision=store.precision(),
            )
            return module, qualname, key
    return None
