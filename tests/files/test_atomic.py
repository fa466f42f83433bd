"""files.atomic: whole or not at all, from two containers at once, and after writers were killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rclib.files import atomic

OURS = atomic._system()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_swept", set())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_temporary_names_of_one_process_number_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers: one process number, one folder, one file at the same time."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    path = tmp_path / "x"
    with atomic.writing(path) as a, atomic.writing(path) as b:
        assert Path(a.file.name).name != Path(b.file.name).name
        a.write(b"a" * 9)
        b.write(b"b")
    assert path.read_bytes() == b"a" * 9  # the one that ended last, whole
    assert names(tmp_path) == ["x"]


WRITER = """
import sys
from pathlib import Path
from rclib.files.atomic import write_atomically
for i in range(40):
    write_atomically(Path(sys.argv[1]), sys.argv[2].encode() * int(sys.argv[3]))
"""


@pytest.mark.slow
def test_writers_in_two_process_spaces(tmp_path: Path) -> None:
    space = ["unshare", "-pf"]
    usable = (
        shutil.which("unshare") and not subprocess.run([*space, "true"], check=False).returncode
    )
    path, own = tmp_path / "x", space if usable else []
    writers = [
        subprocess.Popen([*own, sys.executable, "-c", WRITER, str(path), letter, str(size)])
        for letter, size in (("a", 300_000), ("b", 200_000))
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert path.read_bytes() in (b"a" * 300_000, b"b" * 200_000)
    assert names(tmp_path) == ["x"]


KILLED = """
import sys, time
from pathlib import Path
from rclib.files.atomic import writing
with writing(Path(sys.argv[1])) as part:
    part.write(b"half")
    part.file.flush()
    print("there", flush=True)
    time.sleep(60)
"""


def test_leftovers_of_a_killed_writer_go_with_the_next_one(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "x")], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert len(names(tmp_path)) == 1
        atomic.write_atomically(tmp_path / "y", b"y")
        assert len(names(tmp_path)) == 2  # it is alive: nothing of it is touched
        writer.send_signal(signal.SIGKILL)
    atomic._swept.clear()  # the next process
    atomic.write_atomically(tmp_path / "y", b"y")
    assert names(tmp_path) == ["y"]


@pytest.mark.parametrize(
    ("name", "age", "goes"),
    [
        (f".x.{OURS}{'0' * 16}.tmp", 0, True),
        (f".x.y.{OURS}{'f' * 16}.tmp", -1e6, True),  # dated in the future
        (f".x.{'0' * 8}{'0' * 16}.tmp", 60, False),  # of another host: its lock is not seen
        (f".x.{'0' * 8}{'0' * 16}.tmp", 7200, True),
        (f".x.{'0' * 8}{'0' * 16}.tmp", -7200, False),
        (".x.4711.tmp", 60, False),  # version 0.1.0
        (".x.4711.tmp", 7200, True),
        (".x.tmp", 1e6, False),
        ("x.4711.tmp", 1e6, False),
        (".x.notes.tmp", 1e6, False),
    ],
)
def test_which_files_are_leftovers(tmp_path: Path, name: str, age: float, goes: bool) -> None:
    path = tmp_path / name
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    assert atomic.remove_leftovers(tmp_path) == [path] * goes
    assert path.exists() is not goes


def test_a_link_or_folder_with_such_a_name_stays(tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(b"mine")
    (tmp_path / f".x.{OURS}{'0' * 16}.tmp").symlink_to("own")
    (tmp_path / f".y.{OURS}{'0' * 16}.tmp").mkdir()
    assert atomic.remove_leftovers(tmp_path) == []
    assert len(names(tmp_path)) == 3
    assert atomic.remove_leftovers(tmp_path / "none") == []


def test_where_no_lock_tells_the_age_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    path = tmp_path / f".x.{OURS}{'0' * 16}.tmp"
    for missing in (False, True):
        with monkeypatch.context() as patch:
            if missing:
                patch.setitem(sys.modules, "fcntl", None)
            else:
                patch.setattr(fcntl, "flock", refuse)
            path.write_bytes(b"half")
            assert list(atomic.leftovers(tmp_path)) == []
            os.utime(path, (1, 1))
            assert list(atomic.leftovers(tmp_path)) == [path]
            atomic.write_atomically(tmp_path / "y", b"y")
        atomic._swept.clear()


def test_a_new_file_that_was_taken_for_a_leftover_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = atomic._lock, []

    def late(file: object) -> None:
        if not taken:
            taken.extend(atomic.remove_leftovers(tmp_path))
        lock(file)  # type: ignore[arg-type]

    monkeypatch.setattr(atomic, "_lock", late)
    atomic.write_atomically(tmp_path / "x", b"whole")
    assert len(taken) == 1
    assert (tmp_path / "x").read_bytes() == b"whole"
    assert names(tmp_path) == ["x"]


def test_together_or_not_at_all(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    atomic.write_together({a: b"1", b: b"2"})
    b.unlink()
    b.mkdir()
    with pytest.raises(IsADirectoryError, match=rf"Is a directory: '{b}'"):
        atomic.write_together({a: b"3", b: b"4"})
    assert a.read_bytes() == b"1"
    assert names(tmp_path) == ["a", "b"]
    with pytest.raises(OSError, match=r"\[Errno 20\] Not a directory: '.*/a/x'|'.*/a'"):
        atomic.write_together({b / "y": b"5", a / "x": b"6"})
    assert names(b) == []


def test_a_long_name_is_still_a_name(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    atomic.write_atomically(path, b"x")
    assert names(tmp_path) == [path.name]


def test_without_proc_the_machine_is_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> str:
        raise OSError

    atomic._system.cache_clear()
    monkeypatch.setattr(Path, "read_text", gone)
    assert len(atomic._system()) == 8
    monkeypatch.undo()
    atomic._system.cache_clear()


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "link to a device"])
def test_pipes_and_devices_are_not_replaced(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "x"
    os.mkfifo(tmp_path / "pipe")
    if kind == "pipe":
        os.rename(tmp_path / "pipe", place)
    else:
        place.symlink_to("pipe" if kind == "link to a pipe" else os.devnull)
    before = {path: path.lstat().st_mode for path in tmp_path.iterdir()}

    def one() -> None:
        atomic.write_together({tmp_path / "y": b"y", place: b"x"})

    def piece() -> None:
        with atomic.writing(place) as part:
            part.write(b"x")

    for use in (one, piece):
        with pytest.raises(OSError, match="a pipe or a device is there, no plain file") as caught:
            use()
        assert str(place) in str(caught.value)
        assert {path: path.lstat().st_mode for path in tmp_path.iterdir()} == before


def test_links_to_files_and_to_nothing_are_replaced_as_ever(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    for name, target in (("a", "file"), ("b", "nothing"), ("c", "c")):
        (tmp_path / name).symlink_to(target)
        atomic.write_atomically(tmp_path / name, b"new")
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == b"new"
    assert (tmp_path / "file").read_bytes() == b"old"
