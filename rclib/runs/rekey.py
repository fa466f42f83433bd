"""Entries of the store as version 0.1.0 wrote them, moved to the keys of today.

Version 0.1.0 keyed a run by whole modules and by their names. An entry moves to its new key if
its old key is what 0.1.0's code gave (`OLD` holds the digests of that code) and the function's
definitions are those pinned in `OLD`: those of 0.1.0, or what they became by changes after which
every array of tiny runs had the same bytes as before (the shared recorder of the training loops,
CUDA graphs on a GPU, the evaluation of paper B's student in a module of its own, checksums in saved
states, what hardening changed in errors, rounding of narrow types in `esd`, texts that change while
mapped; runs of all stored functions, among them ones that
diverge). `teacher_runs.run` is not among them: its runs hold more than they did. Old entries do not
say where they were computed, so on a machine with a GPU nothing moves. To be deleted with the
next release.
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
        "0fd215d95bbf5da7c2c099ffa882f2e3751888480a8a94870d7874ea9ace9bd6",
    ),
    "rclib.experiments.mlp_runs.transferred_run": (
        "1639d403fe7e7ada81fa4ec06ad01e2b8f1cc218b36234666feda20823c9945b",
        "transferred_run",
        "adb4d3e9527a58e73a5edc5305e624b6744fc75cce96d3d0b14b3b6d0efb28fe",
    ),
    "rclib.experiments.mlp_runs.zero_shot": (
        "1639d403fe7e7ada81fa4ec06ad01e2b8f1cc218b36234666feda20823c9945b",
        "zero_shot",
        "a6a3d915c03e859415d849a5c3706ebe79348c8c6df484cd7e8150ae7ed8c85c",
    ),
    "rclib.experiments.coordinates.coordinate_check": (
        "cc2b1778a1f4967e4d30c043b35d2a97124a7fda5c85ae5b70516a5763e119d5",
        "coordinate_check",
        "6af2be58455da5863fcf6948bcae15b57a323e6dd1673a5c040624f14c8f3303",
    ),
    "rclib.experiments.spikes_first_step.one_step": (
        "8d4371f4c571046ed79684825191708fa526d8d85465130aa6dcae9e67ea6c54",
        "one_step",
        "5a54e11c3602644e44bd0cdcea28a1e864409f1ed6e54b211cdf08c6a06c0f98",
    ),
    "rclib.experiments.spikes_first_step.critical_rate": (
        "8d4371f4c571046ed79684825191708fa526d8d85465130aa6dcae9e67ea6c54",
        "critical_rate",
        "bcf7182ea6027f05614d739b28eb268731f809b4e3d5a877017c4feec3599730",
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
    for module in homes().get(qualname, set()):
        code = code_of(module, qualname)
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
