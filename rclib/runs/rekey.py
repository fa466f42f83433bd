"""Entries of the store as version 0.1.0 wrote them, moved to the keys of today.

Version 0.1.0 keyed a run by whole modules and by their names. An entry moves to its new key if
its old key is what 0.1.0's code gave (`OLD` holds the digests of that code) and the function's
definitions are still those of 0.1.0 (`OLD` holds their digests too). Old entries do not say where
they were computed, so on a machine with a GPU nothing moves. To be deleted with the next release.
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

from rclib.files import atomic
from rclib.runs import store
from rclib.runs.cache import homes
from rclib.runs.code import code_of

__all__ = ["OLD", "rekey"]

# function of 0.1.0 -> (digest of its module and all that this imports, digest of its definitions)
OLD = {
    "rclib.experiments.mlp_runs.train_mlp": (
        "1639d403fe7e7ada81fa4ec06ad01e2b8f1cc218b36234666feda20823c9945b",
        "bff672f730e3e90f8a00b84b89692213117a3956dd6f5d05b6c14148ede457ff",
    ),
    "rclib.experiments.mlp_runs.transferred_run": (
        "1639d403fe7e7ada81fa4ec06ad01e2b8f1cc218b36234666feda20823c9945b",
        "883ce712c33f9cc6e33b652eefeb60a3decc46a5e227414924ca1bdc20656eb9",
    ),
    "rclib.experiments.mlp_runs.zero_shot": (
        "1639d403fe7e7ada81fa4ec06ad01e2b8f1cc218b36234666feda20823c9945b",
        "79529b1a0efd12a38c78965b1084495a60f0a78a2fc2d90e83ee402d4ff9574d",
    ),
    "rclib.experiments.coordinates.coordinate_check": (
        "cc2b1778a1f4967e4d30c043b35d2a97124a7fda5c85ae5b70516a5763e119d5",
        "f7cca54acbb820dbf477926898501563853d4698566426c631ee74797d7a5b88",
    ),
    "rclib.experiments.teacher_runs.run": (
        "4a2f3c1f93ac6224569ae2c3d5c68296a5a1962eb86f5e63c78bb94b97fcfa36",
        "cf5ff49f0bfb9f490476bb3ece32d0b27ab7e09bfe5669f74b2a3a4e7f8194da",
    ),
    "rclib.experiments.spikes_first_step.one_step": (
        "8d4371f4c571046ed79684825191708fa526d8d85465130aa6dcae9e67ea6c54",
        "96ee09f1a65c24999870854878d7db404284dee085594b5eb398987ceaa569b6",
    ),
    "rclib.experiments.spikes_first_step.critical_rate": (
        "8d4371f4c571046ed79684825191708fa526d8d85465130aa6dcae9e67ea6c54",
        "f64f34236e90f728cb2c84b9c949b4b3c85db922c9584ece91758d33329feca4",
    ),
    "rclib.experiments.lm_runs.train_gpt": (
        "30d3321dff9f343547e7567b58e738c23b889e85b8535a85d324290a6e832054",
        "6c647390248d85335d4839d9d87106bbb35f94be2bca9d44bbf697080410606e",
    ),
    "rclib.experiments.growth.resized_run": (
        "b76720510da6051db90814fb71954e5a38c6b3b74ce7a053b7afca7458bf2b72",
        "05793652ff05ee2d3809e1a0180a94ef45adff16f7002139b48a391cc7dd257b",
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
                key = _new_key(meta, path.stem)
                if key is None:
                    continue
                order = json.loads(meta["order"])
                arrays = {name: handle.get_tensor(name) for name in order}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            continue  # damaged, or of another form: computed anew
        meta |= {"key": key, "device": store.device(), "precision": store.precision()}
        new = path.with_name(f"{key}.safetensors")
        atomic.write_atomically(new, save(arrays, metadata=meta))
        os.unlink(path)
        yield path, new


def _new_key(meta: dict[str, str], stem: str) -> str | None:
    if "device" in meta or meta.get("function") not in OLD:
        return None
    config, threads = json.loads(meta["config"]), int(meta["threads"])
    old, definitions = OLD[meta["function"]]
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
    qualname = meta["function"].rpartition(".")[2]
    for module in homes().get(qualname, set()):
        code = code_of(module, qualname)
        if code.digest == definitions:
            return store.key_of(
                qualname,
                config,
                code=code,
                checksum=meta["data"] or None,
                threads=threads,
                device=store.device(),
                precision=store.precision(),
            )
    return None
