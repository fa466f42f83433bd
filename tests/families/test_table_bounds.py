"""rclib.families.table: what a table from elsewhere cannot do, and names with wrappers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rclib.families.table import FamilyError, read_family


def _table(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return path


MERGES = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9)
)
ROW = "tensors:\n  a.weight: out <- in\n"
REFUSED = {
    "merge keys": (f"{MERGES}tensors: *a8\n", "'merge' is no plain kind"),
    "a key twice": (f"{ROW}  a.weight: in -> out\n", "key 'a.weight' is there twice"),
    "placeholders side by side": (
        "tensors:\n  'a{b}{c}{d}{e}w': x\n", "something else than a digit",
    ),
    "placeholder beside a digit": ("tensors:\n  'a{b}1': x\n", "something else than a digit"),
    "many prefixes": (f"{ROW}prefixes: [{', '.join(f'a{i}' for i in range(99))}]\n", "at most"),
    "alike": (
        "tensors:\n" + "".join(f"  a.{i}.{{b}}: x\n" for i in range(300)),
        "differ in numbers alone",
    ),
    "long": (f"tensors:\n  {'a' * 800}: x\n", "longer than 500"),
    "control characters": ('family: "\\e[31mRED"\n' + ROW, "printable line"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_tables_that_are_refused(case: str, tmp_path: Path) -> None:
    text, message = REFUSED[case]
    begin = time.monotonic()
    with pytest.raises(FamilyError, match=message) as caught:
        read_family(_table(tmp_path, text))
    assert time.monotonic() - begin < 60  # a hang, whatever the machine
    assert str(caught.value).isprintable()


def test_pipes_and_devices_are_no_tables(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(FamilyError, match="not a plain file"):
            read_family(path)


def test_looking_up_takes_no_time(tmp_path: Path) -> None:
    names = ["r" + "abcdefghij"[i % 10] * (1 + i // 10) for i in range(2000)]
    rows = "".join(f"  {name}.{{b}}.{{c}}.{{d}}.{{e}}.w: x\n" for name in names)
    family = read_family(_table(tmp_path, f"tensors:\n{rows}prefixes: [a, a, aa, b, ab]\n"))
    begin = time.monotonic()
    for name in ("a" * 60, "ab" * 400, "1" * 5000, "r1." + "1." * 300 + "w", "r3.1.2.3.4.v"):
        for _ in range(20):
            assert family.find(name) is None
    for row in names[::7]:
        assert family.find(f"aab{row}.1.2.3.4.w") == (
            f"{row}.{{b}}.{{c}}.{{d}}.{{e}}.w", {"b": "1", "c": "2", "d": "3", "e": "4"},
        )  # fmt: skip
    assert time.monotonic() - begin < 60  # a hang, whatever the machine


@pytest.mark.parametrize(
    "name",
    [
        "h.1.w", "_orig_mod.module.h.1.w", "module._orig_mod.transformer.h.1.w",
        "model.transformer.h.1.w", "model.model.h.1.w", "transformer.model.h.1.w",
        "_fsdp_wrapped_module.transformer.h.1._checkpoint_wrapped_module.w",
    ],
)  # fmt: skip
def test_wrappers_and_prefixes_in_any_order(name: str, tmp_path: Path) -> None:
    text = "tensors:\n  h.{b}.w: out <- in\nprefixes: ['transformer.', 'model.']\n"
    assert read_family(_table(tmp_path, text)).find(name) == ("h.{b}.w", {"b": "1"})
