"""rclib.files.new_folder: folders that appear whole or not at all, and leave nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rclib.files.new_folder import new_folder

ROOT = Path(__file__).parents[2]
KILLED = """
import sys, time
from pathlib import Path
from rclib.files.new_folder import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "a").write_text("half")
    print(folder, flush=True)
    time.sleep(100)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(target: Path, name: str, *, replace: bool = False) -> None:
    with new_folder(target, replace=replace) as folder:
        (folder / name).touch()


def test_a_folder_takes_the_place_of_an_empty_one_or_of_any(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "x"
    write(target, "a")
    target.chmod(0o700)
    with pytest.raises(OSError, match="not empty"):
        write(target, "b")
    assert names(target) == ["a"]
    write(target, "b", replace=True)
    assert names(target) == ["b"]
    (target / "b").unlink()
    write(target, "c")
    assert (names(target), names(target.parent)) == (["c"], ["x"])


def _fails(target: Path, replace: bool) -> None:
    with new_folder(target, replace=replace) as folder:
        (folder / "b").touch()
        raise OSError("of the caller")


@pytest.mark.parametrize("replace", [False, True])
def test_an_error_leaves_what_was_there(tmp_path: Path, replace: bool) -> None:
    write(tmp_path / "x", "a")
    with pytest.raises(OSError, match="of the caller"):
        _fails(tmp_path / "x", replace)
    assert (names(tmp_path), names(tmp_path / "x")) == (["x"], ["a"])


def test_what_a_killed_process_left_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [f".x.{'0' * 16}", f".x.{'0' * 16}.part.mine", ".x.notes.part", "x.y"]
    others.append(f".y.{'0' * 16}.part")
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / f".x.{'1' * 16}.part").symlink_to("x.y")
    others.append(f".x.{'1' * 16}.part")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "x")], stdout=subprocess.PIPE, text=True,
        cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        assert left.parent == tmp_path
        write(tmp_path / "x", "a")
        assert (left / "a").read_text() == "half"  # it is alive
        process.kill()
    write(tmp_path / "x", "b", replace=True)
    assert not left.exists()
    assert names(tmp_path) == sorted([*others, "x"])
    # Killed between two steps, so without a lock: another process may be there just now.
    for name in (f".x.{'2' * 16}.part", f".x.{'2' * 16}.part.old"):
        (tmp_path / name).mkdir()
    write(tmp_path / "x", "c", replace=True)
    assert len(names(tmp_path)) == len(others) + 3
    later = time.time() + 100
    monkeypatch.setattr(time, "time", lambda: later)
    write(tmp_path / "x", "d", replace=True)
    assert names(tmp_path) == sorted([*others, "x"])
    assert names(tmp_path / "x") == ["d"]
