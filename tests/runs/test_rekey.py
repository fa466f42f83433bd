"""rclib.runs.rekey: an entry as version 0.1.0 wrote it is found under today's key, others stay."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import torch
from safetensors.numpy import save_file

from rclib.experiments.mean_field.coordinates import coordinate_check
from rclib.runs import store
from rclib.runs.rekey import OLD, rekey

NAME = "rclib.experiments.coordinates.coordinate_check"
CONFIG = {"network": {"width": 6}, "seed": 0, "optimizer": "adam", "lr": 0.01, "steps": [1, 2]}
ARRAYS = {"rate": np.ones(1), "predicted": np.zeros(1)}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def old_entry(root: Path, code: str) -> Path:
    """An entry of version 0.1.0 for `CONFIG`, by that version's own rule."""
    record = {
        "function": NAME,
        "config": CONFIG,
        "code": code,
        "data": None,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "threads": 1,
    }
    key = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    meta = {
        "seconds": "1.5",
        "sha256": store._digest(ARRAYS),
        "function": NAME,
        "config": json.dumps(CONFIG, sort_keys=True),
        "order": json.dumps(list(ARRAYS)),
        "key": key,
        "data": "",
        "threads": "1",
    }
    path = root / "coordinate_check" / f"{key}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(ARRAYS, path, metadata=meta)
    return path


@pytest.mark.skipif(torch.cuda.is_available(), reason="old entries do not name their device")
def test_an_entry_of_unchanged_code_is_found_under_the_new_key(tmp_path: Path) -> None:
    old = old_entry(tmp_path, OLD[NAME][0])
    assert store.lookup(coordinate_check, CONFIG, root=tmp_path) is None
    moved = list(rekey(tmp_path))
    assert [before for before, _ in moved] == [old]
    assert not old.exists()
    found = store.lookup(coordinate_check, CONFIG, root=tmp_path)
    assert found is not None
    assert list(found) == list(ARRAYS)
    assert store.seconds_spent(coordinate_check, CONFIG, root=tmp_path) == 1.5
    assert list(rekey(tmp_path)) == []


def test_an_entry_of_other_code_stays(tmp_path: Path) -> None:
    old = old_entry(tmp_path, "0" * 64)
    assert list(rekey(tmp_path)) == []
    assert old.exists()


def test_code_that_changed_since_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = old_entry(tmp_path, OLD[NAME][0])
    monkeypatch.setitem(OLD, NAME, (*OLD[NAME][:2], "1" * 64))
    assert list(rekey(tmp_path)) == []
    assert old.exists()
