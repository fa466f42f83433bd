"""A share of `make fuzz`, and that it notices what it is there for."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path
from random import Random

import fuzz
import pytest
from fuzz_mutations import bytes_of
from fuzz_targets import TARGETS, Target, fault

from rclib.checkpoints.errors import CheckpointError


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_read_or_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    target = TARGETS[name]
    seeds = target.seeds()
    if not seeds:
        pytest.skip("the package that writes such files is not installed")
    for index in range(15):
        with warnings.catch_warnings(action="ignore"):  # zipfile's, of names that are there twice
            content = fuzz.changed(target, seeds, name, index, 7)
        kind, text = fuzz.tried(target, content)
        assert kind != "fault", f"--only {name!r} --index {index} --seed 7: {text}"


def _chosen(random: Random, content: bytes) -> bytes:
    return bytes([random.randrange(6)])


def _planted(content: bytes, folder: Path) -> None:
    match content[0] % 6:
        case 0:
            raise CheckpointError("refused")
        case 1:
            raise KeyError("not foreseen")
        case 2:
            while True:
                pass
        case 3:
            os.kill(os.getpid(), signal.SIGKILL)
        case 4:
            held = bytearray(fuzz.MEMORY + (64 << 20))
            held[::4096] = b"x" * len(held[::4096])
        case _:
            time.sleep(0.01)


@pytest.mark.slow
def test_planted_faults_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "CPU_SECONDS", 0.3)
    monkeypatch.setattr(fuzz.tried, "__defaults__", (0.3,))
    target = Target(lambda: [bytes([5])], _chosen, _planted)
    found = fuzz.fuzz({"x": target}, 60, seed=0, seconds=120, workers=2)
    assert found.done == 60
    texts = " ".join(text for _, _, text in found.faults)
    for part in ("KeyError", "computed for more than", "the process died", "MiB of memory"):
        assert part in texts, part
    assert found.read.total() > 0
    assert found.refused.total() > 0


def test_what_counts_as_the_products_own_error() -> None:
    assert fault(CheckpointError("one line")) == ""
    assert fault(ValueError("one line")) == ""
    decoding = UnicodeDecodeError("utf-8", b"", 0, 1, "x")
    texts = ("", "two\nlines", "\x1b[2J", "x" * 4000)
    for error in (KeyError("x"), decoding, *map(ValueError, texts)):
        assert fault(error)


def test_changes_repeat(tmp_path: Path) -> None:
    target = Target(lambda: [b"abc" * 50], bytes_of, _planted)
    made = [fuzz.changed(target, target.seeds(), "n", i, 0) for i in range(40)]
    assert made == [fuzz.changed(target, target.seeds(), "n", i, 0) for i in range(40)]
    assert len(set(made)) > 30
