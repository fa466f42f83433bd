"""rclib.execution.progress: what `make figures` says while it runs, in a temporary project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rclib.execution import progress
from rclib.study.results import duration


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCLIB_OUT", raising=False)
    monkeypatch.setenv("RCLIB_TODO", "10_a 11_b 12_c")
    monkeypatch.setenv("RCLIB_BEGIN", str(int(time.time())))
    return tmp_path


def results(name: str, seconds: object) -> None:
    path = Path("results/quick") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seconds": seconds}))


def test_expected_time_is_the_last_one_here_or_that_of_the_results() -> None:
    assert progress.expected("10_a", "quick") is None
    results("10_a", 12.5)
    assert progress.expected("10_a", "quick") == 12.5
    results("times/10_a", 11.5)
    assert progress.expected("10_a", "quick") == 11.5
    Path("results/quick/times/10_a.json").unlink()
    results("11_b", None)
    assert progress.expected("11_b", "quick") is None
    Path("build/quick").mkdir(parents=True)
    Path("build/quick/.10_a.seconds").write_text("3.0\n")
    assert progress.expected("10_a", "quick") == 3.0
    Path("build/quick/.10_a.seconds").write_text("torn")
    assert progress.expected("10_a", "quick") == 12.5


def test_plan_counts_and_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress.plan("quick", jobs=2) == "== quick profile: 3 notebooks to run, 2 at a time"
    results("10_a", 100.0)
    results("11_b", 200.0)
    results("12_c", 30.0)
    line = progress.plan("quick", jobs=2)
    assert line.endswith("2 at a time; about 3.3 min")  # the longest one
    assert "about 5.5 min" in progress.plan("quick", jobs=1)
    Path("results/quick/12_c.json").unlink()
    assert progress.plan("quick", jobs=1).endswith("(1 never ran here)")
    monkeypatch.setenv("RCLIB_TODO", " ")
    assert "every notebook is up to date" in progress.plan("quick", jobs=1)


def test_runner_says_who_runs_and_who_waits(capsys: pytest.CaptureFixture[str]) -> None:
    results("10_a", 7.0)
    Path("build/quick").mkdir(parents=True)
    Path("build/quick/12_c.ipynb").touch()  # another runner has finished it
    with progress.running("10_a", "quick"):
        with progress.running("11_b", "quick"):
            assert Path("build/quick/.11_b.running").is_file()
        Path("build/quick/11_b.ipynb").touch()
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("10_a: begins, about 7 s; 1 of 3 done, 1 running, about 14 s left")
    assert re.match(r"\[ +\d+ s\] ", first)
    assert second.endswith("11_b: begins, never ran here; 1 of 3 done, 2 running, about 14 s left")
    assert not list(Path("build/quick").glob("*.running"))
    assert progress.expected("11_b", "quick") is not None


def test_a_long_notebook_gives_signs_of_life(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.running("10_a", "quick", every=0.01):
        for _ in range(500):
            time.sleep(0.01)
            said = capsys.readouterr().out
            if "running for" in said:
                break
    assert "10_a: running for 0 s, never ran here; 0 of 3 done, 1 running" in said


def test_a_failed_notebook_keeps_no_time_and_marks_of_earlier_calls_do_not_count(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("build/quick").mkdir(parents=True)
    stale = [Path("build/quick/.12_c.running"), Path("build/quick/11_b.ipynb")]
    for path in stale:
        path.touch()
        os.utime(path, (1, 1))
    with pytest.raises(KeyError), progress.running("10_a", "quick"):
        raise KeyError
    assert capsys.readouterr().out.endswith("0 of 3 done, 1 running\n")
    assert not Path("build/quick/.10_a.seconds").exists()
    assert not Path("build/quick/.10_a.running").exists()


def test_outside_make_nothing_is_said_or_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RCLIB_TODO")
    with progress.running("10_a", "quick"):
        pass
    assert capsys.readouterr().out == ""
    assert not Path("build").exists()


def test_command_needs_the_standard_library_alone(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "from rclib.execution import progress\n"
        "assert progress.main(['--jobs', '2']) == 0\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    plan, modules = done.stdout.splitlines()
    assert plan == "== quick profile: 3 notebooks to run, 2 at a time"
    assert modules == "['rclib']"
    results("10_a", 1.0)
    assert progress.main(["--profile", "nothing"]) == 2
    assert "profile must be one of" in capsys.readouterr().err


def stored(*names: str) -> None:
    for name in names:
        path = Path(".cache/runs/train") / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def asked_for(**seconds: float) -> str:
    """What a study notes at its end, in the environment that the runner has set."""
    runs = {f"train/{name}.safetensors": value for name, value in seconds.items()}
    Path(os.environ["RCLIB_ASKED"]).write_text(json.dumps(runs))
    return os.environ["RCLIB_ASKED"]


def test_what_did_not_go_into_runs_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RCLIB_CACHE", raising=False)
    stored("old", "new")
    os.utime(".cache/runs/train/old.safetensors", (1, 1))
    monkeypatch.setenv("RCLIB_ASKED", "of somebody else")
    with progress.running("10_a", "quick"):
        note = asked_for(old=50.0, new=30.0, gone=9.0)
        stored("new")
    assert os.environ["RCLIB_ASKED"] == "of somebody else"
    assert not Path(note).exists()
    kept = json.loads(Path("build/quick/.10_a.seconds").read_text())
    assert len(kept["runs"]) == 3
    assert kept["drawing"] == kept["seconds"]  # it took less than the least
    began = Path("build/quick/.10_a.seconds").stat().st_mtime
    file = Path("asked")
    file.write_text(json.dumps({"train/new.safetensors": 30.0, "train/old.safetensors": 50.0}))
    assert progress._took(42.0, file, began)["drawing"] == 12.0
    monkeypatch.setenv("RCLIB_WORKERS", "2")
    assert progress._took(42.0, file, began)["drawing"] == 27.0
    assert progress._took(42.0, Path("none"), began) == {
        "seconds": 42.0, "drawing": 42.0, "runs": {},
    }  # fmt: skip


def test_forecast_counts_the_runs_that_are_not_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {"train/a.safetensors": 40.0, "train/b.safetensors": 20.0}
    folder = Path("build/quick")
    folder.mkdir(parents=True)
    note = {"seconds": 63.0, "drawing": 3.0, "runs": runs}
    (folder / ".10_a.seconds").write_text(json.dumps(note))
    (folder / ".11_b.seconds").write_text("17.0\n")  # of an older version
    lost: set[str] = set()
    monkeypatch.setattr("rclib.runs.cache.missing", lambda files: lost & set(files))
    for wanted, about in ((set(), 3.0), ({"train/b.safetensors"}, 23.0), (set(runs), 63.0)):
        lost.clear()
        lost |= wanted
        assert progress.foresee(["10_a", "11_b", "12_c"], "quick") == {"10_a": about}
        assert progress.main(["--jobs", "1"]) == 0
        assert f"about {duration(about + 17)}" in capsys.readouterr().out
        assert progress.expected("10_a", "quick") == about
    monkeypatch.setenv("RCLIB_WORKERS", "3")
    assert progress.foresee(["10_a"], "quick") == {"10_a": 23.0}
    # What an earlier call has foreseen does not count, nor does it outside of `make figures`.
    os.utime(folder / ".forecast.json", (1, 1))
    assert progress.expected("10_a", "quick") == 63.0


def test_results_made_elsewhere_count_with_their_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("results/quick/times/10_a.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"core_seconds": 735.8, "seconds": 7.4}))  # its runs were found
    assert progress.expected("10_a", "quick") == 735.8
    monkeypatch.setenv("RCLIB_WORKERS", "2")
    assert progress.expected("10_a", "quick") == 367.9


def test_durations() -> None:
    seconds = (0.4, 26, 90, 7200)
    assert [duration(s) for s in seconds] == ["0 s", "26 s", "1.5 min", "2.0 h"]
